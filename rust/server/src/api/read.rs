//! What can be asked.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use barograph_core::hash::murmur3_x64_128;
use barograph_engine::compare;
use barograph_engine::report::{Row, Verdict};
use hyper::header;
use serde_json::{Value, json};

use super::Asked;
use crate::http::{self, Answer};
use crate::model::{Model, State};
use crate::problem::{Outcome, Problem};

/// Rows of a page.
pub(super) const PAGE: i64 = 1000;
pub(super) const MOST_PAGE: i64 = 100_000;

/// A document with a tag of its bytes.
pub(super) fn document(asked: &Asked, value: &Value) -> Outcome<Answer> {
    let bytes = serde_json::to_vec(value).map_err(|error| Problem::new(500, "internal error", error.to_string()))?;
    let (high, low) = murmur3_x64_128(&bytes, 0);
    Ok(Answer::bytes(200, "application/json", bytes).tagged(&format!("\"{high:016x}{low:016x}\""), &asked.headers))
}

/// `GET /readyz`.
pub(super) fn ready(asked: &Asked) -> Outcome<Answer> {
    let (ready, problems) = super::readiness(&asked.sidecar);
    let replaying = asked.sidecar.models.replaying() || !asked.sidecar.opened.load(Ordering::Relaxed);
    let word = match (ready, replaying) {
        (true, _) => "ready",
        (false, true) => "replaying",
        (false, false) => "unready",
    };
    let replayed: u64 = asked.sidecar.models.entries().iter().map(|entry| entry.replayed.load(Ordering::Relaxed)).sum();
    let status = if ready { 200 } else { 503 };
    let out = Answer::json(status, &json!({"status": word, "problems": problems, "replayed_events": replayed}))?;
    Ok(if ready { out } else { out.with(header::RETRY_AFTER, "1") })
}

/// `GET /metrics`.
pub(super) async fn metrics(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&[])?;
    let accept = http::text(&asked.headers, "accept");
    let (kind, bytes) = asked.sidecar.exposition(accept, &asked.holder).await;
    Ok(Answer::bytes(200, &kind, bytes))
}

fn shown(model: &Model) -> Value {
    let counts = model.counts;
    let mut out = json!({
        "name": model.name,
        "state": "learning",
        "task": model.settings.policy.0.task,
        "events": counts.events,
        "labels": counts.labels,
        "requests": counts.requests,
        "sampled_out": counts.sampled_out,
        "rejected": counts.refused,
        "unknown_fields": counts.unknown_fields,
        "mistyped_fields": counts.mistyped_fields,
        "late": 0,
        "memory_bytes": null,
        "given_up": null,
        "forgotten": 0,
        "open_alerts": [],
        "learning": null,
        "latency_p50": null,
        "latency_p99": null,
        "reference": null,
    });
    match &model.state {
        State::Learning(learning) => {
            out["learning"] = json!({"events": learning.seen, "of": model.settings.learn.events, "trouble": learning.trouble});
        }
        State::Watching(monitor) => {
            out["state"] = json!("watching");
            out["reference"] = json!(monitor.reference().id());
            let counts = monitor.counts();
            let count = |wanted: &str| counts.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, count)| *count);
            out["late"] = json!(count("late"));
            out["memory_bytes"] = json!(monitor.bytes());
            out["given_up"] = json!(monitor.detail().words());
            out["forgotten"] = json!(count("forgotten_tiles"));
            let open = monitor.open_alerts();
            out["open_alerts"] = open.iter().map(|(column, severity)| json!({"column": column, "severity": severity})).collect();
            for (name, q) in [("latency_p50", 0.5), ("latency_p99", 0.99)] {
                out[name] = json!(monitor.lifetime().quantile(q).ok().flatten());
            }
        }
    }
    out
}

/// `GET /v1/models`.
pub(super) async fn models(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&[])?;
    let sidecar = &asked.sidecar;
    let access = sidecar.access.load_full();
    let mut out = Vec::new();
    for entry in sidecar.models.entries().into_iter().filter(|entry| access.sees(&asked.holder, &entry.name)) {
        if let Ok(shown) = sidecar.models.look(&entry, |model| shown(model)).await {
            out.push(shown);
        }
    }
    let (accepted, refused) = sidecar.counters.totals();
    let (queued, _) = sidecar.models.queued();
    let server = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": sidecar.started.elapsed().as_secs(),
        "events_total": accepted,
        "rejected_total": refused,
        "queue_bytes": queued,
        "memory_bytes": crate::sidecar::memory(),
        "budget": sidecar.spending.told(),
        "replaying": sidecar.models.replaying(),
        "problems": super::readiness(sidecar).1,
    });
    Answer::json(200, &json!({"models": out, "server": server}))
}

/// Rows with what a page needs to know of them.
pub(super) fn rows(found: &[Row], provisional: bool) -> Vec<Value> {
    let mark = |row: &Row| {
        let mut value = serde_json::to_value(row).unwrap_or(Value::Null);
        value["provisional"] = json!(provisional);
        value
    };
    found.iter().map(mark).collect()
}

/// `GET …/drift`: the window that closed last, and the one that is open.
pub(super) async fn drift(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&["window"])?;
    let wanted = asked.parameter("window").unwrap_or("all");
    if !["all", "open", "closed"].contains(&wanted) {
        return Err(Problem::bad(format!("`window` must be all, open or closed, got {wanted:?}")));
    }
    let wanted = wanted.to_owned();
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let (state, windows) = asked
        .sidecar
        .models
        .look(&entry, move |model| {
            let state = super::models::state(model);
            let Some(monitor) = model.monitor() else { return (state, Ok(Vec::new())) };
            let closed = monitor.last_window().filter(|_| wanted != "open").map(|window| (window, false));
            let open = match monitor.open_windows() {
                Ok(open) => open.last().copied().filter(|_| wanted != "closed").map(|window| (window, true)),
                Err(error) => return (state, Err(error)),
            };
            let windows = closed.into_iter().chain(open).map(|((start, end), provisional)| {
                let profile = monitor.profile(start, end)?;
                Ok(profile.map(|profile| (profile, Arc::clone(monitor.reference()), monitor.policy().settings.clone(), provisional)))
            });
            (state, windows.collect::<barograph_core::Result<Vec<_>>>())
        })
        .await?;
    let compared = tokio::task::block_in_place(|| -> Outcome<(Vec<Value>, Option<Verdict>)> {
        let (mut out, mut worst) = (Vec::new(), None);
        for (profile, reference, settings, provisional) in windows?.into_iter().flatten() {
            let report = compare(&reference, &profile, &settings)?;
            // The newest window is what is asked about.
            worst = report.verdict;
            out.extend(rows(&report.rows, provisional));
        }
        Ok((out, worst))
    })?;
    let drifted = compared.1.is_some_and(|verdict| verdict >= Verdict::Warning);
    document(asked, &json!({"model": asked.model, "state": state, "verdict": compared.1, "drifted": drifted, "rows": compared.0}))
}

/// `GET …/history`: tested rows and metrics of closed windows, page by page; a page ends between two windows.
pub(super) async fn history(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&["since", "after", "limit"])?;
    let since = instant(asked, "since")?.unwrap_or(i64::MIN);
    let after = match asked.parameter("after") {
        Some(text) => text.parse::<i64>().map_err(|_| Problem::bad(format!("`after` must be what `next` said, got {text:?}")))?,
        None => i64::MIN,
    };
    let limit = asked.number("limit", PAGE, 1..=MOST_PAGE)? as usize;
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let from = since.max(after);
    let mut found: Vec<Row> = asked
        .sidecar
        .models
        .look(&entry, move |model| model.monitor().map(|monitor| monitor.history(from).cloned().collect()).unwrap_or_default())
        .await?;
    found.sort_by_key(|row| row.window_start);
    let mut next = None;
    if found.len() > limit {
        let cut = found[limit].window_start;
        let end = found.iter().position(|row| row.window_start == cut).unwrap_or(limit);
        // A window that alone is more than a page is a page.
        let end = if end == 0 { found.iter().position(|row| row.window_start > cut).unwrap_or(found.len()) } else { end };
        next = found.get(end).and_then(|row| row.window_start).map(|start| start.to_string());
        found.truncate(end);
    }
    document(asked, &json!({"model": asked.model, "rows": found, "next": next}))
}

pub(super) fn instant(asked: &Asked, name: &str) -> Outcome<Option<i64>> {
    let Some(text) = asked.parameter(name) else { return Ok(None) };
    crate::rows::bounded_instant(text)
        .map(Some)
        .ok_or_else(|| Problem::bad(format!("`{name}` must be an instant such as 2026-01-31T12:00:00Z, got {text:?}")))
}

/// `GET …/profile`: the profile of a window as a snapshot.
pub(super) async fn profile(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&["start", "end"])?;
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let (start, end) = (instant(asked, "start")?.unwrap_or(i64::MIN), instant(asked, "end")?.unwrap_or(i64::MAX));
    let profile = asked.sidecar.models.look(&entry, move |model| model.monitor().map(|monitor| monitor.profile(start, end))).await?;
    let profile = profile.ok_or_else(|| Problem::missing("the model has no reference yet: it is learning one"))??;
    let profile = profile.ok_or_else(|| Problem::missing("there are no events in that time"))?;
    let bytes = profile.to_bytes();
    let (high, low) = murmur3_x64_128(&bytes, 0);
    let tag = format!("\"{high:016x}{low:016x}\"");
    Ok(Answer::bytes(200, "application/vnd.barograph.snapshot", bytes).tagged(&tag, &asked.headers))
}

/// `GET …/decisions`: whether a roll-out may go on, for controllers that ask for one word; `POST` for those that ask for a status.
pub(super) async fn decisions(asked: &Asked, get: bool) -> Outcome<Answer> {
    asked.knows(&[])?;
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let (open, watching) = asked
        .sidecar
        .models
        .look(&entry, |model| {
            (
                model.monitor().map(barograph_engine::Monitor::open_alerts).unwrap_or_default(),
                model.monitor().is_some_and(|monitor| monitor.last_window().is_some()),
            )
        })
        .await?;
    let replaying = entry.replaying.load(Ordering::Relaxed);
    let decision = if !watching || replaying {
        "inconclusive"
    } else if open.is_empty() {
        "pass"
    } else {
        "fail"
    };
    let evidence: Vec<Value> = open.iter().map(|(column, severity)| json!({"column": column, "severity": severity})).collect();
    let reason = if replaying {
        Some("the log is being replayed")
    } else if watching {
        None
    } else {
        Some("no window has closed yet")
    };
    let found = json!({"model": asked.model, "decision": decision, "ok": decision == "pass", "open_alerts": evidence, "reason": reason});
    let status = match decision {
        _ if get => return document(asked, &found),
        "pass" => 200,
        "fail" => 409,
        _ => 425,
    };
    Answer::json(status, &found)
}

/// `GET /v1/audit`.
pub(super) fn audit(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&["after", "limit"])?;
    let after = asked.number("after", 0, 0..=i64::MAX)?;
    let limit = asked.number("limit", 100, 1..=10_000)?;
    let rows = asked.sidecar.audit_page(after, limit)?;
    document(asked, &rows)
}
