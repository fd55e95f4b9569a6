//! Which numbers a sidecar exposes: its own, and those of its models.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use barograph_core::sketches::ExponentialHistogram;
use barograph_engine::Monitor;
use barograph_engine::alert::{Severity, State as AlertState};
use barograph_engine::report::{Row, Verdict};

use crate::exporters::{Exposition, Family, Kind, MOST_SERIES, Unit, Value};
use crate::model::{Model, State};
use crate::sidecar::{Sidecar, memory};

/// Columns of a model that are shown, the worst first.
const MOST_COLUMNS: usize = 200;

/// What is shown of a model.
struct Shown {
    name: String,
    events: u64,
    odd: Vec<(&'static str, u64)>,
    halves: Vec<(&'static str, u64)>,
    learning: Option<u64>,
    behind: bool,
    window_end: Option<i64>,
    rows: Vec<Row>,
    open: Vec<(String, &'static str)>,
    opened: [u64; 2],
    calls: Option<(ExponentialHistogram, f64)>,
    /// Name, seconds behind, last number.
    sources: Vec<(String, f64, u64)>,
    /// Parcels and bytes that wait for the aggregator.
    outbox: Option<(u64, u64)>,
}

fn word(severity: Severity) -> &'static str {
    if severity == Severity::Page { "page" } else { "ticket" }
}

/// What became of requests and responses that came apart; nothing for a model that has none.
fn halves(counts: crate::pairing::Counts) -> Vec<(&'static str, u64)> {
    let crate::pairing::Counts { requests, responses, bytes: _, joined, unanswered, unasked, given_up, repeated, nameless } = counts;
    if counts == crate::pairing::Counts::default() {
        return Vec::new();
    }
    vec![
        ("waiting", requests + responses),
        ("joined", joined),
        ("unanswered", unanswered),
        ("unasked", unasked),
        ("given_up", given_up),
        ("repeated", repeated),
        ("nameless", nameless),
    ]
}

fn shown(model: &Model, behind: bool) -> Shown {
    let counts = model.counts;
    let mut out = Shown {
        name: model.name.clone(),
        events: counts.events,
        odd: vec![
            ("sampled_out", counts.sampled_out),
            ("rejected", counts.refused),
            ("unknown_fields", counts.unknown_fields),
            ("mistyped_fields", counts.mistyped_fields),
            ("failed", counts.failed),
            ("forgotten_streams", model.streams.forgotten),
            ("outdated", model.outdated),
        ],
        halves: halves(model.halves()),
        learning: None,
        behind,
        window_end: None,
        rows: Vec::new(),
        open: Vec::new(),
        opened: [0; 2],
        calls: None,
        sources: sources(model),
        outbox: model.outbox.as_ref().map(|outbox| (outbox.parcels().count() as u64, outbox.bytes() as u64)),
    };
    match &model.state {
        State::Learning(learning) => out.learning = Some(learning.seen),
        State::Watching(monitor) => {
            // The model counts what was left out before it had a monitor, too.
            let own = monitor.counts().into_iter().filter(|(what, _)| !matches!(*what, "events" | "sampled_out"));
            out.odd.extend(own);
            out.rows = latest(monitor);
            out.window_end = monitor.last_window().map(|(_, end)| end);
            out.open = monitor.open_alerts().into_iter().map(|(name, severity)| (name, word(severity))).collect();
            for alert in monitor.alerts().iter().filter(|alert| alert.state == AlertState::Opened) {
                out.opened[usize::from(alert.severity == Severity::Page)] += 1;
            }
            let calls = monitor.lifetime();
            if calls.count() > 0 {
                let sum = calls.cells().iter().map(|cell| f64::midpoint(cell.lower, cell.upper) * cell.count as f64).sum();
                out.calls = Some((calls.clone(), sum));
            }
        }
    }
    out
}

/// The sidecars that tell a model what they see, those first that are most behind: their number is not bounded.
fn sources(model: &Model) -> Vec<(String, f64, u64)> {
    let last: BTreeMap<&str, u64> = model.streams.iter().map(|(name, stream)| (name, stream.last().unwrap_or(0))).collect();
    let behind = |until: i64| (model.now - until).max(0) as f64 / 1e9;
    let mut out: Vec<_> =
        model.sources.iter().map(|(name, source)| (name.to_owned(), behind(source.until), last.get(name).copied().unwrap_or(0))).collect();
    out.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    out.truncate(MOST_COLUMNS);
    out
}

/// Rows of the window that closed last, segments left out: their number is not bounded.
fn latest(monitor: &Monitor) -> Vec<Row> {
    let Some((start, _)) = monitor.last_window() else { return Vec::new() };
    monitor.history(start).filter(|row| row.segment.is_none() && row.window_start == Some(start)).cloned().collect()
}

/// Everything that the holder of a token may see; nobody in particular sees everything.
pub async fn of(sidecar: &Sidecar, holder: &str) -> Exposition {
    let mut out = Exposition::new(MOST_SERIES);
    own(sidecar, &mut out);
    let mut models = Vec::new();
    let access = sidecar.access.load_full();
    for entry in sidecar.models.entries().into_iter().filter(|entry| access.sees(holder, &entry.name)) {
        let behind = entry.replaying.load(Ordering::Relaxed);
        if let Ok(shown) = sidecar.models.look(&entry, move |model| shown(model, behind)).await {
            models.push(shown);
        }
    }
    let mut families = Families::new();
    models.iter().for_each(|model| families.model(model));
    families.all.into_iter().for_each(|family| out.add(family));
    out
}

/// The families of models, named as those of the adapter in a process.
struct Families {
    all: [Family; 18],
}

impl Families {
    fn new() -> Self {
        use Kind::{Counter, Gauge, Histogram};
        let seconds = Some(Unit::Seconds);
        Self {
            all: [
                Family::new(Counter, "barograph_events_total", "Events observed.", None).kept(),
                Family::new(Counter, "barograph_odd_events_total", "What did not go the usual way, by what it was.", None).kept(),
                Family::new(Histogram, "barograph_call_seconds", "Latency of all calls; the sum is within 0.6 %.", seconds).kept(),
                Family::new(Counter, "barograph_alerts_total", "Alerts opened.", None).kept(),
                Family::new(Gauge, "barograph_alerts_open", "Alerts that are open.", None),
                Family::new(Gauge, "barograph_drift", "Tested scores of the last window.", None),
                Family::new(Gauge, "barograph_verdict", "0 ok, 1 info, 2 warning, 3 critical.", None),
                Family::new(Gauge, "barograph_latency_seconds", "Latency of the last window.", seconds),
                Family::new(Gauge, "barograph_metric", "Metrics of the last window.", None),
                Family::new(Gauge, "barograph_window_end_timestamp_seconds", "End of the last window.", seconds),
                Family::new(Gauge, "barograph_learning_events", "Events that a reference was learned from so far.", None),
                Family::new(Counter, "barograph_halves_total", "Requests and responses that came apart, by what became of them.", None)
                    .kept(),
                Family::new(Gauge, "barograph_halves_waiting", "Requests and responses that wait for each other.", None),
                Family::new(Gauge, "barograph_source_behind_seconds", "How far what a sidecar has told lies behind.", seconds),
                Family::new(Gauge, "barograph_source_sequence", "The last number of a sidecar's stream.", None),
                Family::new(Gauge, "barograph_outbox_parcels", "Parcels that wait for the aggregator.", None),
                Family::new(Gauge, "barograph_outbox_bytes", "Bytes of them.", Some(Unit::Bytes)),
                Family::new(Gauge, "barograph_replaying", "1 while a model's log is being replayed.", None),
            ],
        }
    }

    fn model(&mut self, model: &Shown) {
        let [
            events,
            odd,
            calls,
            opened,
            open,
            drift,
            verdict,
            latency,
            metric,
            end,
            learning,
            halves,
            waiting,
            behind,
            sequence,
            parcels,
            bytes,
            replaying,
        ] = &mut self.all;
        let own = || [("model", model.name.clone())];
        events.push(own(), Value::Count(model.events));
        replaying.push(own(), Value::Count(u64::from(model.behind)));
        for (source, seconds, last) in &model.sources {
            let labels = || [("model", model.name.clone()), ("source", source.clone())];
            behind.push(labels(), Value::Number(*seconds));
            sequence.push(labels(), Value::Count(*last));
        }
        if let Some((count, size)) = model.outbox {
            parcels.push(own(), Value::Count(count));
            bytes.push(own(), Value::Count(size));
        }
        for (what, count) in &model.odd {
            odd.push([("model", model.name.clone()), ("what", (*what).to_owned())], Value::Count(*count));
        }
        for (what, count) in &model.halves {
            if *what == "waiting" {
                waiting.push(own(), Value::Count(*count));
            } else {
                halves.push([("model", model.name.clone()), ("what", (*what).to_owned())], Value::Count(*count));
            }
        }
        for (severity, count) in [("ticket", model.opened[0]), ("page", model.opened[1])] {
            opened.push([("model", model.name.clone()), ("severity", severity.to_owned())], Value::Count(count));
        }
        for (name, severity) in &model.open {
            open.push([("model", model.name.clone()), ("alert", name.clone()), ("severity", (*severity).to_owned())], Value::Count(1));
        }
        model.learning.iter().for_each(|seen| learning.push(own(), Value::Count(*seen)));
        model.window_end.iter().for_each(|time| end.push(own(), Value::Number(*time as f64 / 1e9)));
        if let Some((histogram, sum)) = &model.calls {
            calls.push(own(), Value::Histogram(histogram.clone(), *sum));
        }
        let mut worst: BTreeMap<&str, u64> = BTreeMap::new();
        for row in model.rows.iter().filter(|row| !row.column.starts_with('(')) {
            if let Some(level) = row.verdict.and_then(level) {
                let known = worst.entry(&row.column).or_default();
                *known = level.max(*known);
            }
        }
        let mut columns: Vec<(&str, u64)> = worst.into_iter().collect();
        columns.sort_by_key(|(_, level)| std::cmp::Reverse(*level));
        columns.truncate(MOST_COLUMNS);
        for (column, level) in &columns {
            verdict.push([("model", model.name.clone()), ("column", (*column).to_owned())], Value::Count(*level));
        }
        for row in &model.rows {
            let Some(value) = row.value else { continue };
            let method = row.method.word();
            if row.column.starts_with('(') {
                if let Some(percentile) = method.strip_prefix("latency_p") {
                    latency.push([("model", model.name.clone()), ("percentile", percentile.to_owned())], Value::Number(value));
                } else {
                    metric.push([("model", model.name.clone()), ("metric", method)], Value::Number(value));
                }
            } else if columns.iter().any(|(column, _)| *column == row.column) {
                let labels = [("model", model.name.clone()), ("column", row.column.clone()), ("method", method)];
                drift.push(labels, Value::Number(value));
            }
        }
    }
}

fn level(verdict: Verdict) -> Option<u64> {
    match verdict {
        Verdict::Ok => Some(0),
        Verdict::Info => Some(1),
        Verdict::Warning => Some(2),
        Verdict::Critical => Some(3),
        Verdict::Insufficient | Verdict::Invalid => None,
    }
}

/// What the sidecar tells of itself.
fn own(sidecar: &Sidecar, out: &mut Exposition) {
    let counters = &sidecar.counters;
    let mut answers = Family::new(Kind::Counter, "barograph_http_requests_total", "Requests by route and status.", None);
    for (route, status, count) in counters.answers() {
        answers.push([("route", route.to_owned()), ("status", status.to_string())], Value::Count(count));
    }
    let mut latency = Family::new(Kind::Histogram, "barograph_http_request_seconds", "How long answers took.", Some(Unit::Seconds));
    for (route, histogram, sum) in counters.latencies() {
        latency.push([("route", route.to_owned())], Value::Histogram(histogram, sum));
    }
    let mut events = Family::new(Kind::Counter, "barograph_ingest_events_total", "Rows by protocol and what became of them.", None);
    let mut bytes = Family::new(Kind::Counter, "barograph_ingest_bytes_total", "Decoded bytes of bodies by protocol.", Some(Unit::Bytes));
    let mut bodies = Family::new(Kind::Counter, "barograph_ingest_bodies_total", "Bodies by protocol and what became of them.", None);
    for (protocol, taken) in counters.by_protocol() {
        let label = |outcome: &str| [("protocol", protocol.to_owned()), ("outcome", outcome.to_owned())];
        events.push(label("accepted"), Value::Count(taken.accepted));
        events.push(label("rejected"), Value::Count(taken.refused));
        bodies.push(label("taken"), Value::Count(taken.bodies));
        bodies.push(label("repeated"), Value::Count(taken.repeated));
        bodies.push(label("undecoded"), Value::Count(taken.undecoded));
        bytes.push([("protocol", protocol.to_owned())], Value::Count(taken.bytes));
    }
    let (queued, most) = sidecar.models.queued();
    let gauge = |name, help, unit, value| {
        let mut family = Family::new(Kind::Gauge, name, help, unit);
        family.push([], value);
        family
    };
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let counter = |name, help, value| {
        let mut family = Family::new(Kind::Counter, name, help, None);
        family.push([], Value::Count(value));
        family
    };
    let spending = &sidecar.spending;
    let mut spent = Family::new(Kind::Gauge, "barograph_budget_used", "What it costs: cores, bytes, bytes per second.", None);
    let mut limits = Family::new(Kind::Gauge, "barograph_budget_limit", "And what [budget] allows.", None);
    for (what, used, limit) in spending.used() {
        spent.push([("what", what.to_owned())], Value::Number(used));
        limit.iter().for_each(|limit| limits.push([("what", what.to_owned())], Value::Number(*limit)));
    }
    let mut governed = Family::new(Kind::Counter, "barograph_budget_steps_total", "Steps to keep to the budget, by what was done.", None);
    for (what, count) in spending.counts() {
        governed.push([("what", what.to_owned())], Value::Count(count));
    }
    let mut deliveries = Family::new(Kind::Counter, "barograph_deliveries_total", "Alerts by sink and what became of them.", None);
    for (sink, outcome, count) in sidecar.delivered() {
        deliveries.push([("sink", sink), ("outcome", outcome.to_owned())], Value::Count(count));
    }
    let mut objects = Family::new(Kind::Counter, "barograph_bucket_objects_total", "Objects of the bucket by what became of them.", None);
    let mut kept =
        Family::new(Kind::Gauge, "barograph_bucket_objects_refused", "Objects that lie in the bucket and are not counted.", None);
    if let Some(reader) = &sidecar.reader {
        let counts = &reader.counts;
        for (what, count) in
            [("counted", &counts.counted), ("repeated", &counts.repeated), ("refused", &counts.refused), ("removed", &counts.removed)]
        {
            objects.push([("what", what.to_owned())], Value::Count(load(count)));
        }
        kept.push([], Value::Count(load(&counts.waiting)));
    }
    let mut undelivered = Family::new(Kind::Gauge, "barograph_deliveries_waiting", "Alerts by sink that are still to be delivered.", None);
    for (sink, count) in sidecar.undelivered() {
        undelivered.push([("sink", sink)], Value::Count(count));
    }
    let problems = sidecar.models.troubles().len() + sidecar.reader.as_ref().map_or(0, |reader| reader.troubles().len());
    for family in [
        answers,
        latency,
        events,
        bytes,
        bodies,
        objects,
        kept,
        gauge("barograph_queue_bytes", "Memory of what is on its way.", Some(Unit::Bytes), Value::Count(queued as u64)),
        gauge("barograph_queue_limit_bytes", "And how much there may be.", Some(Unit::Bytes), Value::Count(most as u64)),
        gauge("barograph_memory_bytes", "Resident memory.", Some(Unit::Bytes), Value::Count(memory())),
        spent,
        limits,
        governed,
        gauge("barograph_inclusion_probability", "With which an event is kept.", None, Value::Number(spending.inclusion())),
        gauge("barograph_detail_level", "0 while nothing is given up, up to 4.", None, Value::Count(spending.detail().level.into())),
        gauge("barograph_connections", "Open connections.", None, Value::Count(load(&counters.connections))),
        gauge("barograph_problems", "What /readyz complains of.", None, Value::Count(problems as u64)),
        counter(
            "barograph_refused_connections_total",
            "Connections refused because there were too many.",
            load(&counters.refused_connections),
        ),
        counter("barograph_datagrams_total", "Datagrams that came.", load(&counters.datagrams)),
        deliveries,
        undelivered,
    ] {
        out.add(family);
    }
}
