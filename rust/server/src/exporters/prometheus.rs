//! Prometheus' text format, version 0.0.4.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>
//!
//! A histogram is shown by cumulative counts at powers of two. Every power of two ends a cell of the sketch at every scale, and cells
//! are closed above as `le` is, so the counts are exact; between two bounds a reader interpolates.

use std::fmt::Write;
use std::ops::RangeInclusive;

use barograph_core::sketches::ExponentialHistogram;

use super::{Exposition, Family, Kind, Unit, Value};

/// Of an answer in this format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The exposition as text.
pub fn encode(exposition: &Exposition) -> Vec<u8> {
    let mut out = String::new();
    for family in exposition.families() {
        let kind = kind_word(family.kind);
        // Help escapes no quotes here.
        let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n", name = family.name);
        samples(&mut out, family);
    }
    out.into_bytes()
}

/// As both texts say it.
pub(super) fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

/// The lines of a family's series, the same in both texts.
pub(super) fn samples(out: &mut String, family: &Family) {
    for series in &family.series {
        match &series.value {
            Value::Count(count) => sample(out, family.name, "", &series.labels, None, format_args!("{count}")),
            // The shortest form that reads back as the same double.
            Value::Number(number) => sample(out, family.name, "", &series.labels, None, format_args!("{number:?}")),
            Value::Histogram(histogram, sum) => {
                let mut line = |suffix, bound: Option<&str>, value: std::fmt::Arguments<'_>| {
                    sample(out, family.name, suffix, &series.labels, bound, value);
                };
                for (bound, count) in buckets(histogram, family.unit) {
                    line("_bucket", Some(&format!("{bound:?}")), format_args!("{count}"));
                }
                let count = histogram.count();
                line("_bucket", Some("+Inf"), format_args!("{count}"));
                line("_count", None, format_args!("{count}"));
                line("_sum", None, format_args!("{sum:?}"));
            }
        }
    }
}

fn sample(out: &mut String, name: &str, suffix: &str, labels: &[(&str, String)], bound: Option<&str>, value: std::fmt::Arguments<'_>) {
    out.push_str(name);
    out.push_str(suffix);
    let mut before = '{';
    for (key, text) in labels.iter().map(|(key, text)| (*key, text.as_str())).chain(bound.map(|bound| ("le", bound))) {
        out.push(before);
        out.push_str(key);
        out.push_str("=\"");
        escape(out, text);
        out.push('"');
        before = ',';
    }
    if before == ',' {
        out.push('}');
    }
    // Writing to a string does not fail.
    let _ = writeln!(out, " {value}");
}

/// Appends text between quotes.
pub(super) fn escape(out: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

/// The bounds of classic buckets, as powers of two: 0.24 ms to 64 s, 64 B to 1 GiB, a thousandth to 1, or 1 to a million.
pub(super) fn powers(unit: Option<Unit>) -> RangeInclusive<i32> {
    match unit {
        // As the Python adapter has them: one dashboard reads both.
        Some(Unit::Seconds) => -12..=6,
        Some(Unit::Bytes) => 6..=30,
        Some(Unit::Ratio) => -10..=0,
        None => 0..=20,
    }
}

/// `(bound, values up to it)` for a histogram without a shift, exact.
pub(super) fn buckets(histogram: &ExponentialHistogram, unit: Option<Unit>) -> Vec<(f64, u64)> {
    let mut below = histogram.zero_count() + histogram.negative_count();
    // Cell i at scale s ends at 2^((i + 1) / 2^s): the cells up to 2^p are those with i < p * 2^s.
    let mut cells = histogram.indexed(false).into_iter().peekable();
    let bounds = powers(unit).map(|power| {
        while let Some((_, count)) = cells.next_if(|(index, _)| *index < power << histogram.scale()) {
            below += count;
        }
        (f64::from(power).exp2(), below)
    });
    bounds.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    /// Read back once by `prometheus_client` 0.26 (`text_string_to_metric_families`) and `promtool check metrics` 2.42.
    const EXPECTED: &str = include_str!("golden/example.prom");

    #[test]
    fn the_text_is_what_the_reference_parser_has_read() {
        assert_eq!(String::from_utf8(encode(&example())).unwrap(), EXPECTED);
    }

    #[test]
    fn counts_at_the_bounds_are_those_of_the_values() {
        for scale in 0..=8 {
            let mut histogram = ExponentialHistogram::new(scale).unwrap();
            let mut values: Vec<f64> = (0..4000).map(|i| (f64::from(i) * 0.01 - 20.0).exp()).collect();
            for power in powers(Some(Unit::Seconds)) {
                let bound = f64::from(power).exp2();
                values.extend([bound, bound.next_up(), bound.next_down(), -bound]);
            }
            values.extend([0.0, f64::MAX, 5e-324]);
            histogram.update_many(&values);
            let found = buckets(&histogram, Some(Unit::Seconds));
            assert_eq!(found.len(), 19);
            for (bound, count) in found {
                assert_eq!(count, values.iter().filter(|value| **value <= bound).count() as u64, "{scale} {bound}");
            }
        }
    }
}
