//! Prometheus' protobuf format: `MetricFamily` messages, each behind its length, with native histograms.
//!
//! <https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto>
//!
//! The sketch's cells are the buckets of schema = scale: both are closed above and end at powers of `2^(2^-schema)`, so no counter is
//! lost. Classic buckets stand beside them for a Prometheus that reads protobuf but keeps no native histograms.

use barograph_core::sketches::ExponentialHistogram;
use prost::Message;

use super::{Exposition, Family, Kind, Series, Unit, Value, prometheus};

/// Of an answer in this format.
pub const CONTENT_TYPE: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// The exposition as messages.
pub fn encode(exposition: &Exposition) -> Vec<u8> {
    exposition.families().flat_map(|family| family_message(family).encode_length_delimited_to_vec()).collect()
}

// Proto2: what is set is written even where it is 0, as readers may ask whether it is there.

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    #[prost(enumeration = "MetricType", optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
    #[prost(string, optional, tag = "5")]
    unit: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum MetricType {
    Counter = 0,
    Gauge = 1,
    Histogram = 4,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

/// `Gauge` and `Counter`.
#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(message, repeated, tag = "9")]
    negative_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "10")]
    negative_delta: Vec<i64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    upper_bound: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

fn family_message(family: &Family) -> MetricFamily {
    let kind = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    MetricFamily {
        name: Some(family.name.to_owned()),
        help: Some(family.help.to_owned()),
        kind: Some(kind.into()),
        metric: family.series.iter().map(|series| metric(series, family)).collect(),
        unit: family.unit.map(|unit| unit.word().to_owned()),
    }
}

fn metric(series: &Series, family: &Family) -> Metric {
    let label = series.labels.iter().map(|(name, value)| LabelPair { name: Some((*name).to_owned()), value: Some(value.clone()) });
    let mut out = Metric { label: label.collect(), ..Metric::default() };
    let number = match &series.value {
        Value::Histogram(sketch, sum) => {
            out.histogram = Some(histogram(sketch, *sum, family.unit));
            return out;
        }
        Value::Count(count) => Some(Number { value: Some(*count as f64) }),
        Value::Number(number) => Some(Number { value: Some(*number) }),
    };
    if family.kind == Kind::Counter {
        out.counter = number;
    } else {
        out.gauge = number;
    }
    out
}

fn histogram(sketch: &ExponentialHistogram, sum: f64, unit: Option<Unit>) -> Histogram {
    let (negative_span, negative_delta) = spans(&sketch.indexed(true));
    let (mut positive_span, positive_delta) = spans(&sketch.indexed(false));
    if negative_span.is_empty() && positive_span.is_empty() {
        // An empty span says that a histogram without buckets is a native one.
        positive_span.push(BucketSpan { offset: Some(0), length: Some(0) });
    }
    let bucket = prometheus::buckets(sketch, unit);
    let bucket = bucket.into_iter().map(|(bound, count)| Bucket { cumulative_count: Some(count), upper_bound: Some(bound) });
    Histogram {
        sample_count: Some(sketch.count()),
        sample_sum: Some(sum),
        bucket: bucket.collect(),
        schema: Some(i32::from(sketch.scale())),
        zero_threshold: Some(0.0),
        zero_count: Some(sketch.zero_count()),
        negative_span,
        negative_delta,
        positive_span,
        positive_delta,
    }
}

/// Runs of cells that follow each other, and each cell's count less that of the one before.
fn spans(cells: &[(i32, u64)]) -> (Vec<BucketSpan>, Vec<i64>) {
    let mut spans: Vec<BucketSpan> = Vec::new();
    let mut deltas = Vec::with_capacity(cells.len());
    let (mut end, mut before) = (0, 0);
    for (index, count) in cells {
        // Prometheus numbers a bucket by its end, the sketch by its start.
        let at = index + 1;
        match spans.last_mut() {
            Some(span) if at == end => span.length = span.length.map(|length| length + 1),
            _ => spans.push(BucketSpan { offset: Some(at - end), length: Some(1) }),
        }
        deltas.push(count.wrapping_sub(before) as i64);
        (end, before) = (at + 1, *count);
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    /// Written by Google's protobuf 7.36 (`tests/golden/make_exporters.py`); scraped once by Prometheus 2.42 with native histograms.
    const EXPECTED: &[u8] = include_bytes!("golden/example.protobuf");

    #[test]
    fn the_messages_are_those_that_another_implementation_writes() {
        let found = encode(&example());
        assert!(found == EXPECTED, "{}", found.escape_ascii());
    }

    #[test]
    fn a_gap_between_cells_begins_a_span_and_counts_come_back_from_deltas() {
        let (spans, deltas) = spans(&[(-70, 3), (-69, 1), (5, 8), (6, 8), (9, 2)]);
        let pairs: Vec<_> = spans.iter().map(|span| (span.offset(), span.length())).collect();
        // Buckets -69, -68 | 6, 7 | 10.
        assert_eq!(pairs, [(-69, 2), (73, 2), (2, 1)]);
        assert_eq!(deltas, [3, -2, 7, 0, -6]);
    }
}
