//! `GET …/segments`: the segments of the window that closed last, and what moved in each.

use std::collections::BTreeMap;

use barograph_engine::report::{Method, Row};
use serde_json::{Value, json};

use super::Asked;
use super::read::document;
use crate::http::Answer;
use crate::problem::Outcome;

const MOST_PAGE: i64 = 10_000;

/// What is known of a segment: its events, and its rows beyond the first tolerance.
#[derive(Default)]
struct Segment {
    events: Option<f64>,
    moved: Vec<Row>,
}

fn of_row(row: &Row) -> Value {
    json!({
        "column": row.column, "method": row.method, "value": row.value, "lower": row.lower, "upper": row.upper,
        "threshold": row.threshold, "verdict": row.verdict, "reason": row.reason,
    })
}

/// `GET …/segments`: worst first, then the largest.
pub(super) async fn segments(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&["after", "limit"])?;
    let after = asked.number("after", 0, 0..=i64::MAX)? as usize;
    let limit = asked.number("limit", 1000, 1..=MOST_PAGE)? as usize;
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let (window, columns, found) = asked
        .sidecar
        .models
        .look(&entry, |model| {
            let Some(monitor) = model.monitor() else { return (None, model.settings.segments.clone(), Vec::new()) };
            let window = monitor.last_window();
            let of_window = |row: &&Row| row.segment.is_some() && row.window_start == window.map(|window| window.0);
            let found: Vec<Row> = window.map_or_else(Vec::new, |(start, _)| monitor.history(start).filter(of_window).cloned().collect());
            (window, monitor.reference().segments.iter().map(|counts| counts.column.clone()).collect(), found)
        })
        .await?;
    let mut segments: BTreeMap<String, Segment> = BTreeMap::new();
    for row in found {
        let segment = segments.entry(row.segment.clone().unwrap_or_default()).or_default();
        if row.method == Method::Events {
            segment.events = row.value;
        } else {
            segment.moved.push(row);
        }
    }
    let mut segments: Vec<(String, Segment)> = segments.into_iter().collect();
    for (_, segment) in &mut segments {
        segment.moved.sort_by(|a, b| b.verdict.cmp(&a.verdict).then(b.value.unwrap_or(0.0).total_cmp(&a.value.unwrap_or(0.0))));
    }
    let worst = |segment: &Segment| segment.moved.first().map(|row| row.verdict);
    segments.sort_by(|a, b| {
        worst(&b.1).cmp(&worst(&a.1)).then(b.1.events.unwrap_or(0.0).total_cmp(&a.1.events.unwrap_or(0.0))).then_with(|| a.0.cmp(&b.0))
    });
    let next = (after.saturating_add(limit) < segments.len()).then(|| (after + limit).to_string());
    let told: Vec<Value> = segments
        .iter()
        .skip(after)
        .take(limit)
        .map(|(name, segment)| {
            let verdict = segment.moved.first().and_then(|row| row.verdict);
            json!({"segment": name, "events": segment.events, "verdict": verdict, "moved": segment.moved.iter().take(20).map(of_row).collect::<Vec<_>>()})
        })
        .collect();
    let (start, end) = window.unzip();
    document(asked, &json!({"model": asked.model, "window_start": start, "window_end": end, "by": columns, "segments": told, "next": next}))
}
