//! `GET /v1/overview`: all models at a glance, a line each.

use std::sync::{Arc, PoisonError};

use barograph_engine::Monitor;
use barograph_engine::alert::{Alert, Severity, State as Change};
use barograph_engine::quality::Task;
use barograph_engine::report::{Method, Row, Verdict};
use serde_json::{Value, json};

use super::Asked;
use super::quality::{CALIBRATION_TILES, calibration, estimated, measured, unjudged};
use super::read::document;
use crate::http::Answer;
use crate::model::{Model, State};
use crate::problem::Outcome;
use crate::shard::Entry;

/// Tiles that are looked through for labels that came after their window had closed.
const LABELLED: usize = 12;
const MOST_PAGE: i64 = 10_000;
/// Estimates that one request may make.
const MOST_FRESH: usize = 8;

/// The metric that stands for a task where there is room for one.
pub(super) fn first_metric(task: Task) -> Method {
    match task {
        Task::Binary => Method::RocAuc,
        Task::Multiclass => Method::Accuracy,
        Task::Regression => Method::Mae,
    }
}

/// The last change of every open alert.
pub(super) fn open(monitor: &Monitor) -> Vec<&Alert> {
    let last = |column: &str| monitor.alerts().iter().rev().find(|alert| alert.column == column);
    monitor.open_alerts().iter().filter_map(|(column, _)| last(column)).collect()
}

/// The worst verdict of a model, and since when it is so.
fn standing(monitor: &Monitor, open: &[&Alert], rows: &[&Row]) -> (Option<Verdict>, Option<i64>) {
    let alerts = monitor.alerts();
    if let Some(verdict) = open.iter().map(|alert| alert.verdict).max() {
        // Not when it opened: it may have been less bad for a while.
        let so_bad = |id: u64| alerts.iter().rev().filter(move |alert| alert.id == id).take_while(|alert| alert.verdict >= verdict).last();
        let since = open.iter().filter(|alert| alert.verdict == verdict).filter_map(|alert| Some(so_bad(alert.id)?.window_start)).min();
        return (Some(verdict), since);
    }
    if monitor.last_window().is_none() {
        return (None, None);
    }
    // Nothing is open: the last test of each column says whether that means anything.
    let judged = rows.iter().filter(|row| row.segment.is_none()).filter_map(|row| row.verdict);
    let verdict = judged.max().map_or(Verdict::Insufficient, |verdict| verdict.min(Verdict::Info));
    let resolved = alerts.iter().rev().find(|alert| alert.state == Change::Resolved).map(|alert| alert.time);
    let began = || monitor.history(i64::MIN).filter(|row| row.method != Method::Deploy).find_map(|row| row.window_start);
    (Some(verdict), resolved.or_else(began))
}

/// A metric of a window or tile, and by how many labels.
struct Seen {
    value: Option<f64>,
    limits: Option<(f64, f64)>,
    end: Option<i64>,
    labelled: u64,
}

/// The newest value of the metric that stands for the task: of the last window that had enough labels when it closed, or of the last tile
/// that has them now; where none has, of the last that has any, with the reason why it says next to nothing.
fn quality(model: &Model, monitor: &Monitor) -> Option<Value> {
    if model.counts.labels == 0 {
        return None;
    }
    let wanted = first_metric(monitor.task());
    let reason = |seen: &Seen| unjudged(wanted, seen.limits, seen.labelled);
    let (mut missing, mut newest, mut closed) = (0.0, None, None);
    for row in monitor.history(i64::MIN).filter(|row| row.segment.is_none()) {
        if row.method == Method::MissingLabels {
            // Of the same window, and before its metrics.
            missing = row.value.unwrap_or(0.0);
        } else if row.method == wanted && row.value.is_some() {
            let labelled = ((1.0 - missing) * row.n_current.unwrap_or(0) as f64).round() as u64;
            let seen = Seen { value: row.value, limits: row.lower.zip(row.upper), end: row.window_end, labelled };
            if reason(&seen).is_none() {
                (closed, newest) = (Some(seen), None);
            } else {
                newest = Some(seen);
            }
        }
    }
    let mut late = None;
    if closed.is_none() || newest.is_some() {
        for tile in monitor.qualities(i64::MIN, i64::MAX, LABELLED).ok()?.into_iter().rev() {
            let Some((_, metric)) = tile.metrics.iter().find(|(method, metric)| *method == wanted && metric.value.is_some()) else {
                continue;
            };
            let seen = Seen { value: metric.value, limits: metric.limits, end: Some(tile.end), labelled: tile.labelled };
            if reason(&seen).is_none() {
                late = Some(seen);
                break;
            }
            newest = newest.or(Some(seen));
        }
    }
    let judged = closed.into_iter().chain(late).max_by_key(|seen| seen.end);
    let shown = judged.or(newest)?;
    let (lower, upper) = shown.limits.unzip();
    Some(json!({
        "metric": wanted, "value": shown.value, "lower": lower, "upper": upper, "window_end": shown.end,
        "labelled": shown.labelled, "reason": reason(&shown),
    }))
}

fn told(model: &Model) -> Value {
    let window = model.settings.policy.0.window.0;
    let mut out = json!({
        "name": model.name,
        "task": model.settings.policy.0.task,
        "state": "learning",
        "learning": null,
        "verdict": null,
        "since": null,
        "window_start": null,
        "window_end": null,
        "window_seconds": window / 1_000_000_000,
        "events": model.counts.events,
        "events_per_second": null,
        "latency_p50": null,
        "latency_p99": null,
        "error_rate": null,
        "quality": null,
        "estimate": null,
        "open_pages": 0,
        "open_tickets": 0,
        "worst": null,
        "reference": null,
    });
    let monitor = match &model.state {
        State::Watching(monitor) => monitor,
        State::Learning(learning) => {
            out["learning"] = json!({"events": learning.seen, "of": model.settings.learn.events, "trouble": learning.trouble});
            return out;
        }
    };
    out["state"] = json!("watching");
    out["reference"] = json!(monitor.reference().id());
    let last = monitor.last_window();
    let rows: Vec<&Row> = last.map_or_else(Vec::new, |(start, _)| {
        monitor.history(start).filter(|row| row.window_start == Some(start) && row.method != Method::Deploy).collect()
    });
    let of = |method: Method| rows.iter().find(|row| row.method == method && row.segment.is_none()).and_then(|row| row.value);
    if let Some((start, end)) = last {
        out["window_start"] = json!(start);
        out["window_end"] = json!(end);
        out["events_per_second"] = json!(of(Method::Events).map(|events| events / (window as f64 / 1e9)));
        for (name, method) in [("latency_p50", Method::LatencyP50), ("latency_p99", Method::LatencyP99), ("error_rate", Method::ErrorRate)]
        {
            out[name] = json!(of(method));
        }
    }
    let open = open(monitor);
    let (verdict, since) = standing(monitor, &open, &rows);
    out["verdict"] = json!(verdict);
    out["since"] = json!(since);
    let paged = open.iter().filter(|alert| alert.severity == Severity::Page).count();
    out["open_pages"] = json!(paged);
    out["open_tickets"] = json!(open.len() - paged);
    let worst = open.iter().max_by_key(|alert| (alert.severity, alert.verdict, std::cmp::Reverse(alert.id)));
    if let Some(alert) = worst {
        out["worst"] = json!({"column": alert.column, "method": alert.method, "severity": alert.severity, "verdict": alert.verdict, "reason": alert.reason, "cause": alert.cause});
    }
    out["quality"] = json!(quality(model, monitor));
    out
}

/// The estimate of the window that closed last, of the metric that stands for binary models.
async fn estimate(asked: &Asked, entry: &Arc<Entry>) -> Option<Value> {
    let looked = asked.sidecar.models.look(entry, |model| {
        let monitor = model.monitor()?;
        let tiles = monitor.qualities(i64::MIN, monitor.last_window()?.1, CALIBRATION_TILES).ok()?;
        Some((tiles, monitor.policy().settings.confidence))
    });
    let (tiles, confidence) = looked.await.ok()??;
    tokio::task::block_in_place(|| {
        let (cbpe, until) = calibration(&tiles)?;
        let last = tiles.last().filter(|tile| tile.start >= until)?;
        let found = estimated(&cbpe, last, confidence);
        let metric = found.iter().find(|metric| metric.name == "roc_auc")?;
        measured(&json!(metric.name), metric, None)
    })
}

/// Estimates are made once for a window, and of a few models for one request: the next has those of the others.
async fn with_estimates(asked: &Asked, out: &mut [Value]) {
    let mut fresh = 0;
    for line in out {
        let (Some(name), Some(end)) = (line["name"].as_str().map(str::to_owned), line["window_end"].as_i64()) else { continue };
        if line["task"] != "binary" || line["quality"].is_null() {
            continue;
        }
        let known = || asked.sidecar.estimates.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = known().get(&name).filter(|(of, _)| *of == end).map(|(_, value)| value.clone());
        if found.is_none() && fresh < MOST_FRESH {
            fresh += 1;
            let Ok(entry) = asked.sidecar.models.entry(&name) else { continue };
            let made = json!(estimate(asked, &entry).await);
            known().insert(name, (end, made.clone()));
            found = Some(made);
        }
        line["estimate"] = found.unwrap_or_default();
    }
}

/// `GET /v1/overview`, page by page in the order of names.
pub(super) async fn overview(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&["after", "limit"])?;
    let after = asked.parameter("after").unwrap_or_default();
    let limit = asked.number("limit", 1000, 1..=MOST_PAGE)? as usize;
    let sidecar = &asked.sidecar;
    let access = sidecar.access.load_full();
    let mut entries = sidecar.models.entries();
    entries.retain(|entry| entry.name.as_str() > after && access.sees(&asked.holder, &entry.name));
    let next = (entries.len() > limit).then(|| entries[limit - 1].name.clone());
    let mut out = Vec::new();
    for entry in entries.iter().take(limit) {
        // A model that goes away meanwhile is no reason to say nothing of the others.
        if let Ok(told) = sidecar.models.look(entry, |model| told(model)).await {
            out.push(told);
        }
    }
    with_estimates(asked, &mut out).await;
    document(asked, &json!({"models": out, "next": next}))
}
