//! OTLP/HTTP: metrics that an app, or a collector, pushes; of those that [`Naming`] knows latencies and counts are taken.
//!
//! Protocol: <https://opentelemetry.io/docs/specs/otlp/#otlphttp>. What points mean:
//! <https://opentelemetry.io/docs/specs/otel/metrics/data-model/>.
//!
//! | point | as a latency | as requests or failures |
//! |---|---|---|
//! | sum that only grows, delta or cumulative | rejected | counted |
//! | histogram, exponential histogram, delta or cumulative | counted | their number is counted |
//! | gauge | rejected: one value is no distribution | passed over |
//! | sum that may fall, summary | rejected | rejected |
//!
//! A body is taken in four steps: [`weight`] says what it takes in memory, [`read`] reads it, [`Otlp::take`] makes measurements of it, and
//! [`Otlp::done`] hears which of them the log has. Of the others cumulative points are counted by a later one, and delta points by the same
//! body sent again.

mod amount;
mod series;
mod weight;

use std::collections::HashMap;
use std::sync::Arc;

use barograph_core::hash::murmur3_x64_128;
use prost::Message;

pub use self::weight::weight;

use self::amount::Amount;
use self::series::{State, Step, Table};
use crate::config::is_name;
use crate::exporters::otlp::messages::{
    CUMULATIVE, DELTA, Data, ExportMetricsServiceRequest, ExportMetricsServiceResponse, InstrumentationScope, KeyValue, Metric,
    NO_RECORDED_VALUE, PartialSuccess, Resource, Scalar,
};
use crate::ingest::statsd::matches_any;
use crate::measurement::{Measurement, Measures, Naming, SCALE, Unit};
use crate::problem::{Outcome, Problem};
use crate::shard::clock;

/// Measurements that a body is summed up to: one for each model and second.
const MOST_PARTS: usize = 1000;
/// Calls that a measurement can stand for: sums of many of them fit.
const MOST_COUNT: u64 = 1 << 40;
/// Points may be so far ahead of the clock; what is farther would keep a window open for years.
const AHEAD: u64 = 24 * 3600 * SECOND;
/// And so far behind it: the longest window. Milliseconds in place of nanoseconds lie in 1970.
const BEHIND: u64 = 366 * 24 * 3600 * SECOND;
const SECOND: u64 = 1_000_000_000;
/// Reasons that are told.
const MOST_REASONS: usize = 5;
/// Letters of a name that are told.
const MOST_SHOWN: usize = 80;

/// Metrics as they came.
pub struct Request {
    metrics: ExportMetricsServiceRequest,
    /// Of the body.
    hash: (u64, u64),
}

/// Reads a body, whose [`weight`] somebody has looked at.
///
/// # Errors
/// 400 for what is no `ExportMetricsServiceRequest`.
pub fn read(body: &[u8], json: bool) -> Outcome<Request> {
    let wrong = |error: &dyn std::fmt::Display| Problem::bad(format!("the body is no ExportMetricsServiceRequest: {error}"));
    let metrics = if json {
        crate::http::is_object(body)?;
        serde_json::from_slice(body).map_err(|error| wrong(&error))?
    } else {
        ExportMetricsServiceRequest::decode(body).map_err(|error| wrong(&error))?
    };
    Ok(Request { metrics, hash: murmur3_x64_128(body, 0) })
}

/// What was not taken, and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Partial {
    rejected: u64,
    reasons: Vec<String>,
}

impl Partial {
    /// Data points that were rejected.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    fn reject(&mut self, points: u64, reason: impl FnOnce() -> String) {
        self.rejected = self.rejected.saturating_add(points);
        self.remark(reason);
    }

    fn remark(&mut self, reason: impl FnOnce() -> String) {
        if self.reasons.len() < MOST_REASONS {
            let reason = reason();
            if !self.reasons.contains(&reason) {
                self.reasons.push(reason);
            }
        }
    }
}

/// The answer to a request: an `ExportMetricsServiceResponse`, empty if nothing was rejected.
pub fn response(partial: &Partial, json: bool) -> Vec<u8> {
    let told = (partial.rejected > 0 || !partial.reasons.is_empty()).then(|| PartialSuccess {
        rejected_data_points: i64::try_from(partial.rejected).unwrap_or(i64::MAX),
        error_message: partial.reasons.join("; "),
    });
    let response = ExportMetricsServiceResponse { partial_success: told };
    if json { serde_json::to_vec(&response).unwrap_or_default() } else { response.encode_to_vec() }
}

/// What a body says of a model in one second.
#[derive(Debug)]
pub struct Part {
    /// To be logged; it may be empty.
    pub measurement: Measurement,
    /// Key and hash of the body for [`Models::send`](crate::models::Models::send), if it has delta points: the same body, sent again
    /// because others of its parts were not taken or its answer was lost, must not count them twice.
    pub once: Option<(u128, u64)>,
    counted: u64,
    points: u64,
    states: Vec<(u128, Arc<State>)>,
}

/// What a body says.
#[derive(Debug, Default)]
pub struct Batch {
    /// By model and time.
    pub parts: Vec<Part>,
    partial: Partial,
    request: u64,
    touched: Vec<u128>,
}

impl Batch {
    /// About the bytes it takes.
    pub fn size(&self) -> usize {
        let octaves = |part: &Part| {
            let mut octaves: Vec<i32> = part.measurement.latency.indexed(false).iter().map(|(index, _)| index >> SCALE).collect();
            octaves.dedup();
            octaves.len()
        };
        // A page of counters each.
        self.parts.iter().map(|part| 1024 + (octaves(part) << (SCALE + 3))).sum()
    }
}

/// Makes measurements of metrics, and knows the cumulative series.
#[derive(Debug)]
pub struct Otlp {
    naming: Vec<Naming>,
    /// So many of them the operator states.
    stated: usize,
    table: Table,
    requests: u64,
}

impl Otlp {
    /// What the operator says of metrics goes before what is usual.
    pub fn new(naming: Vec<Naming>) -> Self {
        Self::since(naming, clock())
    }

    /// From this moment on, in nanoseconds since 1970: series that begin later are known from their beginning.
    fn since(naming: Vec<Naming>, now: i64) -> Self {
        let stated = naming.len();
        let naming = naming.into_iter().chain(Naming::usual()).collect();
        Self { naming, stated, table: Table::new(now), requests: 0 }
    }

    /// All steps at once, for whoever keeps no log: everything counts.
    ///
    /// # Errors
    /// Those of [`weight`] and [`read`].
    pub fn decode(&mut self, body: &[u8], json: bool) -> Outcome<(Vec<Measurement>, Partial)> {
        weight(body, json)?;
        let batch = self.take(&read(body, json)?, clock());
        let measurements = batch.parts.iter().map(|part| part.measurement.clone()).filter(|one| !one.is_empty()).collect();
        let outcomes = batch.parts.iter().map(|_| Ok(())).collect();
        Ok((measurements, self.done(batch, outcomes)?))
    }

    /// Makes measurements of metrics that came now. Every batch has to be given back to [`done`](Self::done).
    pub fn take(&mut self, request: &Request, now: i64) -> Batch {
        self.requests += 1;
        let batch = Batch { request: self.requests, ..Batch::default() };
        let mut taking = Taking { otlp: self, now, hash: request.hash, batch, places: HashMap::new(), scratch: Vec::new() };
        for of_resource in &request.metrics.resource_metrics {
            let none = Resource::default();
            let resource = Outer::new(taking.otlp, &of_resource.resource.as_ref().unwrap_or(&none).attributes, None);
            for of_scope in &of_resource.scope_metrics {
                let none = InstrumentationScope::default();
                let named = of_scope.scope.as_ref().unwrap_or(&none);
                let mut scope = Outer::new(taking.otlp, &named.attributes, Some(&resource));
                let name = [named.name.as_bytes(), &[0xFF], named.version.as_bytes()].concat();
                scope.hash = scope.hash.wrapping_mul(3).wrapping_add(hash(&name));
                for metric in &of_scope.metrics {
                    taking.metric(metric, &scope);
                }
            }
        }
        let mut batch = taking.batch;
        batch.parts.sort_by(|a, b| (&a.measurement.model, a.measurement.time).cmp(&(&b.measurement.model, b.measurement.time)));
        batch
    }

    /// What became of the parts of a batch, in their order: those that the log has count, others do not. What to answer.
    ///
    /// # Errors
    /// The first problem that passes by trying again; others are told as rejected points.
    pub fn done(&mut self, mut batch: Batch, outcomes: Vec<Outcome<()>>) -> Outcome<Partial> {
        let mut again = None;
        let gone = || Err(Problem::unavailable("the request was not finished"));
        let outcomes = outcomes.into_iter().chain(std::iter::repeat_with(gone));
        for (part, outcome) in batch.parts.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => part.states.into_iter().for_each(|(key, state)| self.table.settle(key, state)),
                Err(problem) if problem.retry_after.is_some() || problem.status >= 500 => again = again.or(Some(problem)),
                Err(problem) => batch.partial.reject(part.points, || format!("model {:?}: {}", part.measurement.model, problem.detail)),
            }
        }
        batch.touched.into_iter().for_each(|key| self.table.land(batch.request, key));
        again.map_or(Ok(batch.partial), Err)
    }
}

/// What resource and scope say, for all metrics below.
struct Outer<'a> {
    /// By naming: the model, if an attribute of theirs names it.
    models: Vec<Option<&'a str>>,
    hash: u128,
}

impl<'a> Outer<'a> {
    fn new(otlp: &Otlp, attributes: &'a [KeyValue], around: Option<&Self>) -> Self {
        let outer = |at: usize| around.and_then(|around| around.models.get(at).copied().flatten());
        let tag = |naming: &Naming| text(attributes, naming.model_tag.as_deref()?);
        let models = otlp.naming.iter().enumerate().map(|(at, naming)| tag(naming).or_else(|| outer(at))).collect();
        let own = of_attributes(attributes, &mut Vec::new());
        Self { models, hash: around.map_or(own, |around| around.hash.wrapping_mul(3).wrapping_add(own)) }
    }
}

/// The attribute of this key, if it is a text.
fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    match attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()? {
        Scalar::Text(text) => Some(text),
        _ => None,
    }
}

fn hash(bytes: &[u8]) -> u128 {
    let (high, low) = murmur3_x64_128(bytes, 0);
    u128::from(high) << 64 | u128::from(low)
}

/// In any order: they are a set.
fn of_attributes(attributes: &[KeyValue], scratch: &mut Vec<u8>) -> u128 {
    attributes.iter().fold(0, |sum: u128, attribute| {
        scratch.clear();
        // Into a vector there is always room.
        let _ = attribute.encode(scratch);
        sum.wrapping_add(hash(scratch))
    })
}

/// A data point of any kind.
struct Point<'a> {
    attributes: &'a [KeyValue],
    flags: u32,
    start: u64,
    time: u64,
    range: (Option<f64>, Option<f64>),
    amount: Result<Amount, String>,
}

/// A request that is being taken.
struct Taking<'a> {
    otlp: &'a mut Otlp,
    now: i64,
    hash: (u64, u64),
    batch: Batch,
    /// Of parts, by model and second.
    places: HashMap<(String, u64), usize>,
    scratch: Vec<u8>,
}

/// What all points of a metric have in common.
struct Series<'a> {
    metric: &'a Metric,
    scope: &'a Outer<'a>,
    /// Namings that its name fits.
    fitting: Vec<usize>,
    temporality: Option<i32>,
    hash: u128,
}

impl Taking<'_> {
    fn metric(&mut self, metric: &Metric, scope: &Outer<'_>) {
        let Some(data) = &metric.data else { return };
        let fits = |(_, naming): &(usize, &Naming)| matches_any(&naming.metric, &metric.name);
        let fitting: Vec<usize> = self.otlp.naming.iter().enumerate().filter(fits).map(|(at, _)| at).collect();
        if fitting.is_empty() {
            return;
        }
        let (temporality, mark) = match data {
            Data::Sum(sum) => (Some(sum.aggregation_temporality), b'n'),
            Data::Histogram(histogram) => (Some(histogram.aggregation_temporality), b'h'),
            Data::ExponentialHistogram(histogram) => (Some(histogram.aggregation_temporality), b'e'),
            Data::Gauge(_) => (None, b'g'),
            Data::Summary(_) => (None, b's'),
        };
        let name = [&[mark], metric.unit.as_bytes(), &[0xFF], metric.name.as_bytes()].concat();
        let series = Series { metric, scope, fitting, temporality, hash: scope.hash.wrapping_mul(3).wrapping_add(hash(&name)) };
        let nothing = (None, None);
        match data {
            Data::Gauge(gauge) => {
                for point in &gauge.data_points {
                    let amount = Err("a gauge is one value, not a distribution".to_owned());
                    let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
                    self.point(&series, Point { attributes: &point.attributes, flags: point.flags, start, time, range: nothing, amount });
                }
            }
            Data::Sum(sum) => {
                for point in &sum.data_points {
                    let amount = if sum.is_monotonic {
                        Amount::of_number(point, sum.aggregation_temporality == CUMULATIVE)
                    } else {
                        Err("a sum that may fall counts nothing".to_owned())
                    };
                    let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
                    self.point(&series, Point { attributes: &point.attributes, flags: point.flags, start, time, range: nothing, amount });
                }
            }
            Data::Histogram(histogram) => {
                for point in &histogram.data_points {
                    let (start, time, range) = (point.start_time_unix_nano, point.time_unix_nano, (point.min, point.max));
                    let amount = Amount::of_histogram(point);
                    self.point(&series, Point { attributes: &point.attributes, flags: point.flags, start, time, range, amount });
                }
            }
            Data::ExponentialHistogram(histogram) => {
                for point in &histogram.data_points {
                    let (start, time, range) = (point.start_time_unix_nano, point.time_unix_nano, (point.min, point.max));
                    let amount = Amount::of_exponential(point);
                    self.point(&series, Point { attributes: &point.attributes, flags: point.flags, start, time, range, amount });
                }
            }
            Data::Summary(summary) => {
                for point in &summary.data_points {
                    let amount = Err("a summary cannot be summed up with others: send a histogram".to_owned());
                    let (start, time) = (0, 0);
                    self.point(&series, Point { attributes: &point.attributes, flags: point.flags, start, time, range: nothing, amount });
                }
            }
        }
    }

    fn point(&mut self, series: &Series<'_>, point: Point<'_>) {
        if point.flags & NO_RECORDED_VALUE != 0 {
            return;
        }
        let model = |at: &usize| {
            let naming = self.otlp.naming.get(*at)?;
            let tag = || text(point.attributes, naming.model_tag.as_deref()?).or_else(|| series.scope.models.get(*at).copied().flatten());
            Some((naming, naming.model.as_deref().or_else(tag).filter(|model| is_name(model))?.to_owned()))
        };
        let Some((naming, model)) = series.fitting.iter().find_map(model) else {
            // Metrics that only look like a latency are nobody's mistake; what an operator states is meant.
            if series.fitting.first().is_some_and(|first| *first < self.otlp.stated) {
                self.batch.partial.remark(|| format!("{} fits `naming`, and no attribute names a model", shown(&series.metric.name)));
            }
            return;
        };
        if naming.measures != Measures::Latency && matches!(series.metric.data, Some(Data::Gauge(_))) {
            return;
        }
        let (measures, stated) = (naming.measures, naming.unit);
        if let Err(why) = self.count(series, point, model, measures, stated) {
            self.batch.partial.reject(1, || format!("{}: {why}", shown(&series.metric.name)));
        }
    }

    fn count(
        &mut self,
        series: &Series<'_>,
        point: Point<'_>,
        model: String,
        measures: Measures,
        stated: Option<Unit>,
    ) -> Result<(), String> {
        let amount = point.amount?;
        let unit = match measures {
            Measures::Latency if matches!(amount, Amount::Count(_)) => return Err("a sum is no distribution".to_owned()),
            Measures::Latency => {
                let unit = Unit::of(&series.metric.unit).or(stated);
                unit.ok_or_else(|| format!("`unit` must be s, ms, us or ns, got {}", shown(&series.metric.unit)))?.seconds()
            }
            Measures::Requests | Measures::Failures => 1.0,
        };
        let now = self.now.unsigned_abs();
        if point.time > 0 && !(now.saturating_sub(BEHIND)..=now.saturating_add(AHEAD)).contains(&point.time) {
            return Err(format!("`time_unix_nano` must be within the last year, and not a day ahead, got {}", point.time));
        }
        let (came, state) = match series.temporality {
            Some(DELTA) => (Some(amount), None),
            Some(CUMULATIVE) => {
                if point.time == 0 || point.start > point.time {
                    return Err("a cumulative point needs a `time_unix_nano`, and none before its `start_time_unix_nano`".to_owned());
                }
                let key = series.hash.wrapping_mul(3).wrapping_add(of_attributes(point.attributes, &mut self.scratch));
                let state = State { start: point.start, time: point.time, amount };
                match self.otlp.table.step(self.batch.request, key, state, self.now)? {
                    Step::Repeated => return Ok(()),
                    Step::Came(state, came) => {
                        self.batch.touched.push(key);
                        (came, Some((key, state)))
                    }
                }
            }
            _ => return Err("`aggregation_temporality` must be delta or cumulative".to_owned()),
        };
        let done = self.add(came.as_ref(), state.clone(), (model, point.time), measures, unit, point.range);
        if let (Err(_), Some((key, state))) = (&done, state) {
            // It would be in the way of every later one.
            self.otlp.table.settle(key, state);
        }
        done
    }

    fn add(
        &mut self,
        came: Option<&Amount>,
        state: Option<(u128, Arc<State>)>,
        (model, time): (String, u64),
        measures: Measures,
        unit: f64,
        range: (Option<f64>, Option<f64>),
    ) -> Result<(), String> {
        let count = came.map_or(0, Amount::count);
        let values = match (came, measures) {
            (Some(came), Measures::Latency) => came.values(unit, range)?,
            _ => Vec::new(),
        };
        let second = time / SECOND;
        let (hash, body) = self.hash;
        let known = self.places.get(&(model.clone(), second)).copied();
        let at = match known {
            Some(at) => at,
            None if self.batch.parts.len() >= MOST_PARTS => {
                return Err(format!("a body must be of at most {MOST_PARTS} models and seconds"));
            }
            None => {
                let at = (time > 0).then(|| i64::try_from(second * SECOND).unwrap_or(i64::MAX));
                let measurement = Measurement::new(&model, at).map_err(|error| error.message)?;
                self.batch.parts.push(Part { measurement, once: None, counted: 0, points: 0, states: Vec::new() });
                self.places.insert((model, second), self.batch.parts.len() - 1);
                self.batch.parts.len() - 1
            }
        };
        let Some(part) = self.batch.parts.get_mut(at) else { return Ok(()) };
        let counted = part.counted.checked_add(count).filter(|counted| *counted <= MOST_COUNT);
        part.counted = counted.ok_or_else(|| format!("a model must have at most 2^40 calls in a body, got {count} more"))?;
        part.points += 1;
        match measures {
            Measures::Latency => amount::count(&values, &mut part.measurement),
            Measures::Requests => part.measurement.requests += count,
            Measures::Failures => part.measurement.failures += count,
        }
        match state {
            Some(state) => part.states.push(state),
            // Without a time two bodies that are alike need not be one.
            None if time > 0 => part.once = Some((u128::from(hash) << 64 | u128::from(body ^ second), body)),
            None => {}
        }
        Ok(())
    }
}

/// A sender's word, fit for a message.
fn shown(word: &str) -> String {
    format!("{:?}", word.chars().take(MOST_SHOWN).collect::<String>())
}

#[cfg(test)]
mod tests {
    use barograph_core::sketches::ExponentialHistogram;

    use super::*;
    use crate::exporters::otlp::messages as m;

    /// Written by OpenTelemetry's SDK for Python: `tests/golden/make_otlp.py`.
    const DELTA: [(&[u8], &[u8]); 2] = [
        (include_bytes!("golden/delta-1.otlp"), include_bytes!("golden/delta-1.json")),
        (include_bytes!("golden/delta-2.otlp"), include_bytes!("golden/delta-2.json")),
    ];
    const CUMULATIVE: [(&[u8], &[u8]); 2] = [
        (include_bytes!("golden/cumulative-1.otlp"), include_bytes!("golden/cumulative-1.json")),
        (include_bytes!("golden/cumulative-2.otlp"), include_bytes!("golden/cumulative-2.json")),
    ];
    const SPEC: &[u8] = include_bytes!("golden/spec.json");
    /// When the golden requests begin; each is of 30 seconds.
    const BEGAN: u64 = 1_795_478_400 * SECOND;
    /// An hour later.
    const NOW: i64 = (BEGAN + 3600 * SECOND) as i64;

    fn young() -> Otlp {
        Otlp::since(Vec::new(), BEGAN as i64 - 1)
    }

    fn old(naming: &[Naming]) -> Otlp {
        Otlp::since(naming.to_vec(), NOW)
    }

    fn naming(metric: &str, measures: Measures, unit: Option<Unit>) -> Naming {
        Naming { metric: metric.into(), measures, model: Some("m".into()), model_tag: None, unit }
    }

    /// Takes a body, all of which the log has.
    fn taken(otlp: &mut Otlp, body: &[u8], json: bool) -> (Vec<Measurement>, Partial) {
        weight(body, json).unwrap();
        let batch = otlp.take(&read(body, json).unwrap(), NOW);
        let found = batch.parts.iter().map(|part| part.measurement.clone()).collect();
        let outcomes = batch.parts.iter().map(|_| Ok(())).collect();
        (found, otlp.done(batch, outcomes).unwrap())
    }

    fn of(otlp: &mut Otlp, metrics: Vec<Metric>) -> (Vec<Measurement>, Partial) {
        taken(otlp, &body(metrics), false)
    }

    fn body(metrics: Vec<Metric>) -> Vec<u8> {
        let scope = m::ScopeMetrics { scope: None, metrics };
        let resource = m::ResourceMetrics { resource: None, scope_metrics: vec![scope] };
        ExportMetricsServiceRequest { resource_metrics: vec![resource] }.encode_to_vec()
    }

    fn tag(key: &str, value: &str) -> KeyValue {
        KeyValue { key: key.into(), value: Some(m::AnyValue { value: Some(Scalar::Text(value.into())) }) }
    }

    fn metric(name: &str, unit: &str, data: Data) -> Metric {
        Metric { name: name.into(), description: String::new(), unit: unit.into(), data: Some(data) }
    }

    /// So many requests of model m, at a second after the beginning.
    fn requests(temporality: i32, start: u64, second: u64, count: i64) -> Metric {
        let point = m::NumberDataPoint {
            start_time_unix_nano: start,
            time_unix_nano: BEGAN + second * SECOND,
            as_int: Some(count),
            attributes: vec![tag("model", "m")],
            ..m::NumberDataPoint::default()
        };
        let sum = m::Sum { data_points: vec![point], aggregation_temporality: temporality, is_monotonic: true };
        metric("barograph.requests", "{request}", Data::Sum(sum))
    }

    fn explicit(bounds: &[f64], counts: &[u64], change: impl FnOnce(&mut m::HistogramDataPoint)) -> Metric {
        let mut point = m::HistogramDataPoint {
            time_unix_nano: BEGAN,
            count: counts.iter().fold(0, |sum, count| sum.wrapping_add(*count)),
            bucket_counts: counts.to_vec(),
            explicit_bounds: bounds.to_vec(),
            attributes: vec![tag("model", "m")],
            ..m::HistogramDataPoint::default()
        };
        change(&mut point);
        metric("x.latency", "s", Data::Histogram(m::Histogram { data_points: vec![point], aggregation_temporality: m::DELTA }))
    }

    fn exponential(scale: i32, offset: i32, counts: &[u64], change: impl FnOnce(&mut m::ExponentialHistogramDataPoint)) -> Metric {
        let mut point = m::ExponentialHistogramDataPoint {
            time_unix_nano: BEGAN,
            count: counts.iter().sum(),
            scale,
            positive: Some(m::Buckets { offset, bucket_counts: counts.to_vec() }),
            attributes: vec![tag("model", "m")],
            ..m::ExponentialHistogramDataPoint::default()
        };
        change(&mut point);
        let histogram = m::ExponentialHistogram { data_points: vec![point], aggregation_temporality: m::DELTA };
        metric("x.latency", "s", Data::ExponentialHistogram(histogram))
    }

    fn values(since: i32, until: i32) -> Vec<f64> {
        (since..until).map(|at| 0.1 * 1.0012_f64.powi(at)).collect()
    }

    fn histogram(values: &[f64]) -> ExponentialHistogram {
        let mut out = ExponentialHistogram::new(SCALE).unwrap();
        out.update_many(values);
        out
    }

    /// Model, second after the beginning, calls, requests.
    fn summary(found: &[Measurement]) -> Vec<(&str, i64, u64, u64)> {
        let second = |time: Option<i64>| (time.unwrap() - BEGAN as i64) / SECOND as i64;
        found.iter().map(|one| (one.model.as_str(), second(one.time), one.latency.count(), one.requests)).collect()
    }

    #[test]
    fn what_an_sdk_sends_is_counted_exactly_and_protobuf_and_json_are_the_same() {
        let expected = [values(0, 300), values(300, 500)];
        for (at, (protobuf, json)) in DELTA.iter().enumerate() {
            let (found, partial) = taken(&mut old(&[]), protobuf, false);
            assert_eq!(partial, Partial::default());
            let (calls, second) = (expected[at].len() as u64, 30 * (at as i64 + 1));
            // The counter without a model of its own is its scope's, the histogram that names none at all its service's.
            assert_eq!(summary(&found), [("fraud", second, calls, calls), ("scoped", second, 0, 1), ("shop", second, calls, 0)]);
            assert_eq!(found[0].latency, histogram(&expected[at]));
            let (other, _) = taken(&mut old(&[]), json, true);
            assert_eq!(format!("{found:?}"), format!("{other:?}"));
        }
    }

    #[test]
    fn cumulative_and_delta_are_the_same() {
        let (mut delta, mut cumulative) = (old(&[]), young());
        for at in 0..2 {
            let (expected, _) = taken(&mut delta, DELTA[at].0, false);
            for (body, json) in [(CUMULATIVE[at].0, false), (CUMULATIVE[at].1, true)] {
                let mut one = if json { young() } else { std::mem::replace(&mut cumulative, young()) };
                if json && at == 1 {
                    taken(&mut one, CUMULATIVE[0].1, true);
                }
                let (found, partial) = taken(&mut one, body, json);
                assert_eq!(partial, Partial::default());
                assert_eq!(summary(&found), summary(&expected));
                // Its scale fell from 8 to 7 in between.
                assert_eq!(found[0].latency, expected[0].latency);
                // Least and greatest are those of all rounds: buckets are narrowed less.
                let median = |found: &[Measurement]| found[2].latency.quantile(0.5).unwrap().unwrap();
                assert!((median(&found) - median(&expected)).abs() < 0.05, "{} {}", median(&found), median(&expected));
                if !json {
                    cumulative = one;
                }
            }
        }
    }

    #[test]
    fn the_first_point_of_a_series_that_is_older_than_we_counts_nothing() {
        let mut otlp = old(&[]);
        let (found, partial) = taken(&mut otlp, CUMULATIVE[0].0, false);
        assert!(found.iter().all(Measurement::is_empty) && partial == Partial::default());
        let (found, _) = taken(&mut otlp, CUMULATIVE[1].0, false);
        assert_eq!(summary(&found), [("fraud", 60, 200, 200), ("scoped", 60, 0, 1), ("shop", 60, 200, 0)]);
        assert_eq!(found[0].latency, histogram(&values(300, 500)));
        // Said again, it is nothing new.
        let (found, partial) = taken(&mut otlp, CUMULATIVE[1].0, false);
        assert!(found.is_empty() && partial == Partial::default());
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        let all = [
            naming("my.counter", Measures::Requests, None),
            naming("my.gauge", Measures::Requests, None),
            naming("my.*histogram", Measures::Latency, Some(Unit::S)),
        ];
        let now = 1_544_712_661 * SECOND as i64;
        let batch = old(&all).take(&read(SPEC, true).unwrap(), now);
        assert_eq!(batch.partial, Partial::default());
        let [part] = batch.parts.as_slice() else { panic!("one") };
        // Explicit: (0, 1] and (1, 2], of a sum of 2. Exponential: a zero, and (4, 8] of which 5 is the greatest.
        assert_eq!((part.measurement.requests, part.measurement.failures), (5, 0));
        assert_eq!(part.measurement.latency, histogram(&[0.0, 0.5, 1.5, 5.0, 5.0]));
        assert_eq!(part.measurement.time, Some(1_544_712_660 * SECOND as i64));
    }

    #[test]
    fn resets_gaps_and_overlaps_are_told_apart() {
        let mut otlp = old(&[]);
        let mut came = |start, second, count| {
            let (found, partial) = of(&mut otlp, vec![requests(m::CUMULATIVE, start, second, count)]);
            (found.iter().map(|one| one.requests).sum::<u64>(), partial.rejected)
        };
        let began = |second| BEGAN + second * SECOND;
        assert_eq!(came(began(0), 10, 100), (0, 0));
        assert_eq!(came(began(0), 20, 130), (30, 0));
        // Earlier and equal times say nothing new.
        assert_eq!(came(began(0), 15, 120), (0, 0));
        // A new process: all of it is new.
        assert_eq!(came(began(21), 30, 7), (7, 0));
        // It began anew without saying so.
        assert_eq!(came(began(21), 40, 4), (4, 0));
        // A beginning that is not known says nothing of what was before.
        assert_eq!(came(began(50), 50, 1000), (0, 0));
        assert_eq!(came(began(50), 60, 1001), (1, 0));
        // Somebody else, who began before this one ended, writes the same series.
        assert_eq!(came(began(55), 70, 9), (0, 1));
        assert_eq!(came(began(50), 75, 1003), (0, 1));
        assert_eq!(came(began(50), 80, 1004), (1, 0));
        // No beginning at all, as our own exporter has it for counts that outlive a process.
        assert_eq!(came(0, 90, 1010), (6, 0));
        assert_eq!(came(0, 100, 3), (3, 0));
        let mut otlp = young();
        let (found, _) = of(&mut otlp, vec![requests(m::CUMULATIVE, 0, 10, 100)]);
        assert!(found[0].is_empty());
        // In one body, as a collector gathers them.
        let (found, _) = of(&mut otlp, vec![requests(m::CUMULATIVE, 0, 20, 101), requests(m::CUMULATIVE, 0, 30, 105)]);
        assert_eq!(summary(&found), [("m", 20, 0, 1), ("m", 30, 0, 4)]);
    }

    #[test]
    fn cumulative_histograms_may_grow_coarser_and_begin_anew() {
        let mut otlp = old(&[]);
        let mut came = |second, (scale, offset, zeros, counts): (i32, i32, u64, &[u64])| {
            let mut one = exponential(scale, offset, counts, |point| {
                point.time_unix_nano = BEGAN + second * SECOND;
                (point.zero_count, point.count) = (zeros, point.count + zeros);
            });
            let Some(Data::ExponentialHistogram(histogram)) = &mut one.data else { panic!("a histogram") };
            histogram.aggregation_temporality = m::CUMULATIVE;
            let (found, partial) = of(&mut otlp, vec![one]);
            assert_eq!(partial, Partial::default());
            (found[0].latency.zero_count(), found[0].latency.indexed(false))
        };
        assert_eq!(came(1, (6, 0, 1, &[1, 2, 3, 4])), (0, vec![]));
        assert_eq!(came(2, (6, 0, 3, &[1, 2, 3, 6])), (2, vec![(3, 2)]));
        // Cells 0 to 3 became cell 0 of four times their width, whose middle lies between 1 and 2.
        let (zeros, cells) = came(3, (4, 0, 3, &[17, 5]));
        assert_eq!((zeros, cells.iter().map(|(_, count)| *count).collect::<Vec<_>>()), (0, vec![5, 5]));
        assert!(matches!(cells[..], [(1 | 2, 5), (5 | 6, 5)]), "{cells:?}");
        // And finer again, which nobody does: as coarse as the coarser of the two.
        assert_eq!(came(4, (6, 0, 3, &[17, 0, 0, 0, 6])).1.len(), 1);
        // A bucket that is gone, or zeros that are, say that it began anew: all of it is new.
        assert_eq!(came(5, (6, 4, 3, &[7])), (3, vec![(4, 7)]));
        assert_eq!(came(6, (6, 4, 2, &[8])), (2, vec![(4, 8)]));
    }

    #[test]
    fn a_series_is_known_by_its_attributes_in_any_order() {
        let mut otlp = old(&[]);
        let mut came = |second, count: f64, attributes: &[&str]| {
            let mut one = requests(m::CUMULATIVE, BEGAN, second, 0);
            let Some(Data::Sum(sum)) = &mut one.data else { panic!("a sum") };
            (sum.data_points[0].as_int, sum.data_points[0].as_double) = (None, Some(count));
            sum.data_points[0].attributes.extend(attributes.iter().map(|key| tag(key, "x")));
            of(&mut otlp, vec![one]).0[0].requests
        };
        assert_eq!(came(1, 5.0, &["a", "b"]), 0);
        // Parts of a call count when they are whole.
        assert_eq!(came(2, 6.9, &["b", "a"]), 1);
        assert_eq!(came(3, 7.1, &["a", "b"]), 1);
        assert_eq!(came(4, 9.0, &["a"]), 0, "another one");
    }

    #[test]
    fn what_the_log_refuses_is_neither_lost_nor_counted_twice() {
        let bodies: Vec<Vec<u8>> = [(10, 100), (20, 130)].map(|(at, count)| body(vec![requests(m::CUMULATIVE, BEGAN, at, count)])).into();
        let requests_of = |batch: &Batch| batch.parts.iter().map(|part| part.measurement.requests).sum::<u64>();
        let mut otlp = young();
        let [first, second] = [0, 1].map(|at| read(&bodies[at], false).unwrap());
        let batch = otlp.take(&first, NOW);
        assert_eq!((requests_of(&batch), batch.parts[0].once), (100, None));
        // While it is on its way, another one is passed over.
        let other = otlp.take(&second, NOW);
        assert!(other.parts.is_empty());
        assert_eq!(otlp.done(other, Vec::new()), Ok(Partial::default()));
        let busy = otlp.done(batch, vec![Err(Problem::busy("no"))]).unwrap_err();
        assert_eq!((busy.status, busy.retry_after), (429, Some(1)));
        assert_eq!(otlp.table.held(), (0, 0));
        // Sent again, or the next one.
        let batch = otlp.take(&second, NOW);
        assert_eq!(requests_of(&batch), 130);
        assert_eq!(otlp.done(batch, vec![Ok(())]), Ok(Partial::default()));
        assert!(otlp.take(&first, NOW).parts.is_empty());
        // What no repetition helps is told, and the other models count.
        let mut two = vec![requests(m::CUMULATIVE, BEGAN, 30, 140), requests(m::DELTA, 0, 30, 1)];
        let Some(Data::Sum(sum)) = &mut two[1].data else { panic!("a sum") };
        sum.data_points[0].attributes = vec![tag("model", "other")];
        let request = read(&body(two), false).unwrap();
        let batch = otlp.take(&request, NOW);
        assert_eq!(batch.parts.len(), 2);
        // Sent again, delta points have the same key; a cumulative series knows by itself.
        let keys: Vec<_> = batch.parts.iter().map(|part| part.once).collect();
        assert!(keys[0].is_none() && keys[1].is_some());
        let partial = otlp.done(batch, vec![Ok(()), Err(Problem::new(409, "too many models", "full"))]).unwrap();
        assert_eq!((partial.rejected, partial.reasons), (1, vec!["model \"other\": full".to_owned()]));
        let again = otlp.take(&request, NOW);
        assert_eq!(again.parts.iter().map(|part| part.once).collect::<Vec<_>>(), keys[1..]);
        // A part whose end nobody told did not count.
        assert_eq!(otlp.done(again, Vec::new()).unwrap_err().status, 503);
        // Without times, two that are alike are two.
        let mut timeless = requests(m::DELTA, 0, 0, 1);
        let Some(Data::Sum(sum)) = &mut timeless.data else { panic!("a sum") };
        sum.data_points[0].time_unix_nano = 0;
        let batch = otlp.take(&read(&body(vec![timeless]), false).unwrap(), NOW);
        assert_eq!((batch.parts[0].once, batch.parts[0].measurement.time), (None, None));
    }

    #[test]
    fn finer_scales_lose_nothing() {
        let values: Vec<f64> = (0..4000).map(|at| 1e-5 * 1.004_f64.powi(at)).collect();
        let mut fine = ExponentialHistogram::new(8).unwrap();
        fine.update_many(&values);
        let expected = fine.downscale(SCALE).unwrap();
        let cells = fine.indexed(false);
        let (first, last) = (cells[0].0, cells[cells.len() - 1].0);
        let mut counts = vec![0; (last - first) as usize + 1];
        cells.iter().for_each(|(index, count)| counts[(index - first) as usize] = *count);
        let (found, partial) = of(&mut old(&[]), vec![exponential(8, first, &counts, |_| {})]);
        assert_eq!((partial, &found[0].latency), (Partial::default(), &expected));
        // At scale 20 an index is 2^14 times that of scale 6.
        for index in [-3, -1, 0, 1, 200] {
            let (found, _) = of(&mut old(&[]), vec![exponential(20, (index + 1) * (1 << 14) - 1, &[1, 1], |_| {})]);
            assert_eq!(found[0].latency.indexed(false), [(index, 1), (index + 1, 1)]);
        }
        let (found, _) = of(&mut old(&[]), vec![exponential(i32::MAX, -1, &[1, 2], |_| {})]);
        assert_eq!(found[0].latency.indexed(false), [(-1, 1), (0, 2)]);
    }

    #[test]
    fn coarser_scales_and_other_units_keep_to_their_error() {
        for (scale, most) in [(5, 0.011), (3, 0.045), (0, 0.42)] {
            let mut coarse = ExponentialHistogram::new(scale).unwrap();
            let values: Vec<f64> = (0..1000).map(|at| 0.01 * 1.01_f64.powi(at)).collect();
            coarse.update_many(&values);
            let cells = coarse.indexed(false);
            let mut counts = vec![0; (cells[cells.len() - 1].0 - cells[0].0) as usize + 1];
            cells.iter().for_each(|(index, count)| counts[(index - cells[0].0) as usize] = *count);
            let mut one = exponential(scale.into(), cells[0].0, &counts, |_| {});
            one.unit = "ms".into();
            let (found, _) = of(&mut old(&[]), vec![one]);
            for at in 1..=100 {
                let expected = values[at * 10 - 1] * 1e-3;
                let near = found[0].latency.quantile(at as f64 / 100.0).unwrap().unwrap();
                assert!((near / expected - 1.0).abs() < most + 0.0055, "{scale} {at} {near} {expected}");
            }
        }
        // One bucket for all numbers up to 1: the range is all that is known.
        let (found, _) = of(&mut old(&[]), vec![exponential(-11, -1, &[5], |point| (point.min, point.max) = (Some(0.25), Some(0.25)))]);
        assert_eq!(found[0].latency, histogram(&[0.25; 5]));
    }

    #[test]
    fn counts_of_explicit_buckets_lie_in_them_and_keep_to_the_sum() {
        let one = |metric| {
            let (found, partial) = of(&mut old(&[]), vec![metric]);
            assert_eq!(partial, Partial::default());
            found[0].latency.clone()
        };
        // The middle, if nothing else is known; the last bucket at its bound.
        assert_eq!(one(explicit(&[0.0, 1.0, 3.0], &[1, 2, 3, 4], |_| {})), histogram(&[0.0, 0.5, 0.5, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]));
        // A quarter of both widths gives the sum: 2 * 0.25 + 2 * 1.5.
        assert_eq!(one(explicit(&[1.0, 3.0], &[2, 2, 0], |point| point.sum = Some(3.5))), histogram(&[0.25, 0.25, 1.5, 1.5]));
        // A sum that cannot be is a hint at most.
        assert_eq!(one(explicit(&[1.0, 3.0], &[1, 1, 0], |point| point.sum = Some(1e300))), histogram(&[1.0, 3.0]));
        assert_eq!(one(explicit(&[1.0, 3.0], &[1, 1, 0], |point| point.sum = Some(f64::NAN))), histogram(&[0.5, 2.0]));
        // All in one bucket: their mean.
        assert_eq!(one(explicit(&[1.0], &[0, 2], |point| point.sum = Some(14.0))), histogram(&[7.0, 7.0]));
        assert_eq!(one(explicit(&[], &[2], |point| point.sum = Some(14.0))), histogram(&[7.0, 7.0]));
        let bare = one(explicit(&[], &[], |point| (point.count, point.sum) = (2, Some(14.0))));
        assert_eq!(bare, histogram(&[7.0, 7.0]));
        // Least and greatest narrow the buckets at the ends.
        let narrow = explicit(&[1.0, 3.0], &[1, 0, 1], |point| (point.min, point.max) = (Some(0.5), Some(5.0)));
        assert_eq!(one(narrow), histogram(&[0.75, 4.0]));
        let wrong = explicit(&[1.0, 3.0], &[1, 0, 1], |point| (point.min, point.max) = (Some(9.0), Some(0.5)));
        assert_eq!(one(wrong).count(), 2);
    }

    #[test]
    fn what_cannot_be_counted_is_rejected_with_its_reason() {
        type Point = m::HistogramDataPoint;
        let number = |change: fn(&mut m::NumberDataPoint)| {
            let mut one = requests(m::DELTA, 0, 1, 1);
            let Some(Data::Sum(sum)) = &mut one.data else { panic!("a sum") };
            change(&mut sum.data_points[0]);
            one
        };
        let other = |change: fn(&mut Metric)| {
            let mut one = explicit(&[1.0], &[1, 1], |_| {});
            change(&mut one);
            one
        };
        let shape = |bounds: &[f64], counts: &[u64], change: fn(&mut Point)| explicit(bounds, counts, change);
        let data = |name: &str, data: Data| metric(name, "s", data);
        let points = || vec![m::NumberDataPoint { attributes: vec![tag("model", "m")], ..m::NumberDataPoint::default() }];
        let cases = [
            (number(|point| point.as_int = Some(-1)), "a count must not be negative, got -1"),
            (number(|point| (point.as_int, point.as_double) = (None, Some(f64::NAN))), "a count must be in [0, 2^63), got NaN"),
            (number(|point| point.as_int = None), "without a value"),
            (number(|point| point.as_int = Some(i64::MAX)), "at most 2^40 calls"),
            (number(|point| point.time_unix_nano = u64::MAX), "not a day ahead, got 18446744073709551615"),
            (number(|point| point.time_unix_nano /= 1_000_000), "within the last year"),
            (requests(0, 0, 1, 1), "must be delta or cumulative"),
            (requests(m::CUMULATIVE, u64::MAX, 1, 1), "none before its `start_time_unix_nano`"),
            (data("barograph.requests", Data::Sum(m::Sum { data_points: points(), ..m::Sum::default() })), "may fall"),
            (data("x.latency", Data::Gauge(m::Gauge { data_points: points() })), "a gauge is one value, not a distribution"),
            (
                data(
                    "x.latency",
                    Data::Summary(m::Summary { data_points: vec![m::SummaryDataPoint { attributes: vec![tag("model", "m")], flags: 0 }] }),
                ),
                "send a histogram",
            ),
            (Metric { name: "x.latency".into(), ..number(|_| {}) }, "a sum is no distribution"),
            (other(|one| one.unit = "min".into()), "`unit` must be s, ms, us or ns, got \"min\""),
            (other(|one| one.unit = String::new()), "got \"\""),
            (shape(&[1.0], &[1], |_| {}), "one more than the 1 `explicit_bounds`, got 1"),
            (shape(&[1.0, 1.0], &[1, 1, 1], |_| {}), "must be finite and increase"),
            (shape(&[1.0, f64::NAN], &[1, 1, 1], |_| {}), "must be finite and increase"),
            (shape(&[1.0], &[1, 1], |point| point.count = 3), "`count` must be the sum of the buckets, 2, got 3"),
            (shape(&[1.0], &[u64::MAX, 1], |_| {}), "do not fit 64 bits"),
            (shape(&[1.0], &[u64::MAX, 0], |_| {}), "at most 2^40 calls"),
            (shape(&[-1.0], &[1, 1], |_| {}), "negative"),
            (shape(&[1.0], &[1, 1], |point| point.min = Some(-1.0)), "negative"),
            (shape(&[1e300], &[1, 1], |_| {}), "at most 2^40 s, got"),
            (shape(&[], &[1], |_| {}), "says nothing of latencies"),
            (shape(&[], &vec![0; 70_000], |_| {}), "must be at most 65536, got 70000"),
            (exponential(-12, 0, &[1], |_| {}), "`scale` must be at least -11, got -12"),
            (exponential(0, 2000, &[1], |_| {}), "at most 2^40 s, got inf"),
            (exponential(0, i32::MAX, &[1, 1], |_| {}), "outside of all numbers"),
            (exponential(6, 0, &[1], |point| point.zero_count = 1), "`count` must be the sum of the buckets, 2, got 1"),
            (
                exponential(6, 0, &[1], |point| point.negative = Some(m::Buckets { offset: 0, bucket_counts: vec![0, 1] })),
                "negative values cannot be counted",
            ),
        ];
        for (metric, expected) in cases {
            let name = metric.name.clone();
            let (found, partial) = of(&mut young(), vec![metric, requests(m::DELTA, 0, 9, 1)]);
            let [reason] = partial.reasons.as_slice() else { panic!("{expected}: {partial:?}") };
            assert!(partial.rejected == 1 && reason.contains(expected) && reason.contains(&format!("{name:?}")), "{expected}: {partial:?}");
            // The others count.
            assert_eq!(
                found.iter().map(|one| (one.latency.count(), one.requests)).filter(|sums| *sums != (0, 0)).collect::<Vec<_>>(),
                [(0, 1)]
            );
        }
        // A bad point of a cumulative series is not in the way of later ones.
        let mut otlp = young();
        let cumulative = |second: u64, count| requests(m::CUMULATIVE, BEGAN, second, count);
        assert_eq!(of(&mut otlp, vec![cumulative(10, 1 << 50)]).1.rejected, 1);
        assert_eq!(of(&mut otlp, vec![cumulative(20, (1 << 50) + 3)]).0[0].requests, 3);
        // Nor if it comes in one body with good ones.
        assert_eq!(of(&mut otlp, vec![cumulative(30, (1 << 50) + 4), cumulative(40, 1 << 51)]).1.rejected, 1);
        assert_eq!(of(&mut otlp, vec![cumulative(50, (1 << 51) + 2)]).0[0].requests, 2);
        // Nothing recorded is nothing wrong.
        let (found, partial) = of(&mut young(), vec![number(|point| (point.flags, point.as_int) = (1, None))]);
        assert!(found.is_empty() && partial == Partial::default());
    }

    #[test]
    fn whose_a_metric_is_is_said_by_its_naming() {
        let stated = [
            Naming { model: None, model_tag: Some("app".into()), ..naming("shop.*", Measures::Failures, None) },
            naming("calls", Measures::Requests, None),
        ];
        let mut failures = requests(m::DELTA, 0, 1, 2);
        failures.name = "shop.errors".into();
        let (found, partial) = of(&mut old(&stated), vec![failures.clone()]);
        assert!(found.is_empty());
        assert_eq!((partial.rejected, partial.reasons.len()), (0, 1), "a hint that rejects nothing");
        let Some(Data::Sum(sum)) = &mut failures.data else { panic!("a sum") };
        sum.data_points[0].attributes = vec![tag("app", "pricing")];
        let mut calls = explicit(&[1.0], &[3, 4], |_| {});
        (calls.name, calls.unit) = ("calls".into(), "parsec".into());
        let (found, partial) = of(&mut old(&stated), vec![failures, calls, metric("nobody.asks", "s", Data::Gauge(m::Gauge::default()))]);
        assert_eq!(partial, Partial::default());
        let found: Vec<_> = found.iter().map(|one| (one.model.as_str(), one.requests, one.failures)).collect();
        assert_eq!(found, [("m", 7, 0), ("pricing", 0, 2)]);
        // A name that no model can have is none.
        let mut one = requests(m::DELTA, 0, 1, 2);
        let Some(Data::Sum(sum)) = &mut one.data else { panic!("a sum") };
        sum.data_points[0].attributes = vec![tag("model", "../x")];
        assert!(of(&mut young(), vec![one]).0.is_empty());
    }

    #[test]
    fn json_may_have_what_protobuf_has_not() {
        let point = r#"{"timeUnixNano":1795478401000000000,"asInt":2.0,"flags":"0","exemplars":[{"traceId":"5B8EFFF798038103D269B633813FC60C"}],
            "attributes":[{"key":"model","value":{"stringValue":"m"}},
            {"key":"a","value":{"arrayValue":{"values":[{"intValue":"1"},{"doubleValue":"NaN"},null,true]}}}]}"#;
        let json = |point: &str| {
            format!(
                r#"{{"unknown":{{"x":[1,{{}}]}},"resourceMetrics":[{{"schemaUrl":"u","scopeMetrics":[{{"metrics":[{{"sum":{{"dataPoints":[{point}],
                "isMonotonic":true,"aggregationTemporality":"AGGREGATION_TEMPORALITY_DELTA"}},"name":"barograph.requests"}}]}}]}}]}}"#
            )
        };
        let (found, partial) = taken(&mut old(&[]), json(point).as_bytes(), true);
        assert_eq!((partial, summary(&found)), (Partial::default(), vec![("m", 1, 0, 2)]));
        for (from, to) in [("2.0", "\"x\""), ("2.0", "1e99"), ("\"0\"", "-1"), ("\"0\"", "{}"), ("[{", "{{")] {
            let error = read(json(&point.replacen(from, to, 1)).as_bytes(), true).err().unwrap();
            assert!(error.status == 400 && error.detail.contains("line "), "{}", error.detail);
        }
        for body in ["[]", "null", " [{}]", "", "{}x"] {
            assert_eq!(read(body.as_bytes(), true).err().unwrap().status, 400, "{body:?}");
        }
        // Depth ends before the stack does, and what nobody reads is not followed.
        let deep = point.replace("true", &format!("{}{}", "[".repeat(200), "]".repeat(200)));
        assert!(read(json(&deep).as_bytes(), true).is_err());
        let unread = point.replace("\"5B8EFFF798038103D269B633813FC60C\"", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)));
        assert_eq!(taken(&mut old(&[]), json(&unread).as_bytes(), true).0.len(), 1);
        // Lists tell series apart.
        let series = |list: &str| {
            let point = point.replace("true", list);
            let read = read(json(&point).as_bytes(), true).unwrap();
            of_attributes(&found_attributes(&read), &mut Vec::new())
        };
        assert_ne!(series("[1,2]"), series("[1],2"));
        assert_eq!(series("[1,2]"), series("[1, 2]"));
    }

    fn found_attributes(request: &Request) -> Vec<KeyValue> {
        match &request.metrics.resource_metrics[0].scope_metrics[0].metrics[0].data {
            Some(Data::Sum(sum)) => sum.data_points[0].attributes.clone(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn the_answer_is_empty_or_says_what_was_rejected() {
        let none = Partial::default();
        assert_eq!((response(&none, false).as_slice(), response(&none, true).as_slice()), (&b""[..], &b"{}"[..]));
        let mut some = Partial::default();
        for at in 0..100 {
            some.reject(3, || format!("old {}", at / 2));
        }
        assert_eq!((some.rejected, some.reasons.len()), (300, MOST_REASONS));
        some.reasons.truncate(1);
        assert_eq!(response(&some, false), b"\x0a\x0a\x08\xac\x02\x12\x05old 0");
        assert_eq!(response(&some, true), br#"{"partialSuccess":{"rejectedDataPoints":"300","errorMessage":"old 0"}}"#);
    }

    #[test]
    fn series_are_bounded_and_the_silent_ones_make_place() {
        let many = |from: usize, count: usize, second: u64| {
            let point = |at: usize| m::NumberDataPoint {
                start_time_unix_nano: BEGAN,
                time_unix_nano: BEGAN + second * SECOND,
                as_int: Some(5),
                attributes: vec![tag("model", "m"), tag("pod", &at.to_string())],
                ..m::NumberDataPoint::default()
            };
            let sum = m::Sum {
                data_points: (from..from + count).map(point).collect(),
                aggregation_temporality: m::CUMULATIVE,
                is_monotonic: true,
            };
            read(&body(vec![metric("barograph.requests", "", Data::Sum(sum))]), false).unwrap()
        };
        let mut otlp = young();
        let mut came = |request: &Request, now: i64| {
            let batch = otlp.take(request, now);
            let sum = batch.parts.iter().map(|part| part.measurement.requests).sum::<u64>();
            let outcomes = batch.parts.iter().map(|_| Ok(())).collect();
            let partial = otlp.done(batch, outcomes).unwrap();
            (sum, partial.rejected, otlp.table.held().0)
        };
        let most = series::MOST_SERIES;
        assert_eq!(came(&many(0, most, 10), NOW), (5 * most as u64, 0, most));
        assert_eq!(came(&many(most, 10, 20), NOW), (0, 10, most));
        // Those that were silent for a quarter of an hour go; one of them that comes back counts from then on.
        let later = NOW + 16 * 60 * SECOND as i64;
        assert_eq!(came(&many(1, 5, 30), later).0, 0);
        assert_eq!(came(&many(most, 10, 30), later), (0, 0, 15));
        assert_eq!(came(&many(0, 1, 40), later), (0, 0, 16));
        // Counters are bounded too: 40 histograms of 60,000 buckets are more than all may have.
        let wide: Vec<Metric> = (0..40)
            .map(|at| {
                let mut one = exponential(6, -60_000, &vec![1; 60_000], |point| {
                    point.attributes.push(tag("pod", &at.to_string()));
                    point.start_time_unix_nano = BEGAN - 1;
                });
                let Some(Data::ExponentialHistogram(histogram)) = &mut one.data else { panic!("a histogram") };
                histogram.aggregation_temporality = m::CUMULATIVE;
                one
            })
            .collect();
        let mut otlp = old(&[]);
        let (_, partial) = of(&mut otlp, wide);
        assert_eq!((partial.rejected, otlp.table.held().0), (24, 16));
    }

    #[test]
    fn a_body_of_many_seconds_is_summed_up_or_refused() {
        let second = |at| requests(m::DELTA, 0, at, 1);
        let (found, partial) = of(&mut old(&[]), (0..1500).map(|at| second(at / 2)).collect());
        assert_eq!((found.len(), partial.rejected), (750, 0));
        let (found, partial) = of(&mut old(&[]), (0..1500).map(second).collect());
        assert_eq!((found.len(), partial.rejected), (MOST_PARTS, 500));
    }

    #[test]
    fn bodies_of_empty_parts_are_refused_before_they_are_read() {
        for (body, json) in DELTA.iter().flat_map(|(protobuf, json)| [(protobuf, false), (json, true)]) {
            let found = weight(body, json).unwrap();
            assert!((2 * body.len()..16 * body.len()).contains(&found), "{found} for {} bytes", body.len());
        }
        let empty = |count: usize| {
            let inside = |tag: u8, bytes: &[u8]| {
                let mut out = vec![tag << 3 | 2];
                prost::encoding::encode_varint(bytes.len() as u64, &mut out);
                [&out, bytes].concat()
            };
            // Empty attributes of a point of a sum.
            let attributes = [7 << 3 | 2, 0].repeat(count);
            [1, 7, 2, 2, 1].iter().fold(attributes, |bytes, tag| inside(*tag, &bytes))
        };
        assert!(weight(&empty(100), false).is_ok());
        let refused = weight(&empty(1_000_000), false).unwrap_err();
        assert!(refused.status == 413 && refused.detail.contains("little but empty parts"), "{}", refused.detail);
        assert_eq!(weight(format!("[{}]", "{},".repeat(100_000)).as_bytes(), true).unwrap_err().status, 413);
        for bytes in [&b"\x0a\x7f"[..], b"\x0a", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0b", b"\x00"] {
            assert_eq!(weight(bytes, false).unwrap_err().status, 400);
            assert_eq!(read(bytes, false).err().unwrap().status, 400);
        }
        assert!(weight(b"", false).is_ok() && read(b"", false).is_ok() && read(b"", true).is_err());
    }

    #[test]
    fn nothing_from_outside_panics() {
        let mut state = 7_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let bodies: Vec<(&[u8], bool)> = DELTA
            .iter()
            .chain(&CUMULATIVE)
            .flat_map(|(protobuf, json)| [(*protobuf, false), (*json, true)])
            .chain([(SPEC, true)])
            .collect();
        let stated = [naming("my.*", Measures::Latency, Some(Unit::S))];
        let mut otlp = Otlp::since(stated.to_vec(), 0);
        let mut taken = 0;
        for round in 0..100_000 {
            let (body, json) = bodies[round % bodies.len()];
            let mut body = body.to_vec();
            for _ in 0..=random(3) {
                let at = random(body.len());
                match random(5) {
                    0 => body[at] = random(256) as u8,
                    1 => body[at] ^= 1 << random(8),
                    2 => body[at] = b"-0919eE.\"{}[],"[random(14)],
                    3 => body.truncate(at.max(1)),
                    _ => body.insert(at, random(256) as u8),
                }
            }
            if weight(&body, json).is_err() {
                continue;
            }
            let Ok(request) = read(&body, json) else { continue };
            let batch = otlp.take(&request, NOW);
            taken += 1;
            let outcomes = batch.parts.iter().map(|_| if random(4) == 0 { Err(Problem::busy("no")) } else { Ok(()) }).collect();
            let _ = otlp.done(batch, outcomes);
        }
        assert!(taken > 10_000, "{taken}");
        assert!(otlp.table.series_in_flight() == 0);
        otlp.table.held();
    }
}
