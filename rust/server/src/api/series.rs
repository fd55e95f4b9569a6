//! `GET …/series`: what pictures over time are drawn of, thinned to as many points as a picture can show.

use std::collections::BTreeMap;

use barograph_engine::Monitor;
use barograph_engine::report::{Method, Row, Verdict};
use serde_json::{Value, json};

use super::Asked;
use super::read::{document, instant};
use crate::http::Answer;
use crate::problem::Outcome;

/// Points of a line.
const MOST_POINTS: i64 = 2000;
/// Gaps, and marks of each kind, that are told: the last ones.
const MOST_MARKS: usize = 500;

/// The model's own rows.
const MODEL: &str = "(model)";

/// A window of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    time: i64,
    value: f64,
    lower: Option<f64>,
    upper: Option<f64>,
    verdict: Option<Verdict>,
}

/// The windows of one column and method, oldest first.
#[derive(Debug, Default)]
struct Line {
    points: Vec<Point>,
    threshold: Option<f64>,
}

/// What is drawn.
#[derive(Debug, Default)]
struct Picture {
    /// By column and the word of the method.
    lines: BTreeMap<(String, String), Line>,
    /// Windows that held events.
    windows: Vec<(i64, i64)>,
    marks: Vec<Value>,
}

/// Of every so many windows the smallest and the largest, and the last of all: no peak is lost, and every point is one that was.
fn thinned(points: &[Point], most: usize) -> Vec<Point> {
    let Some((last, before)) = points.split_last().filter(|_| points.len() > most) else { return points.to_vec() };
    let size = (2 * before.len()).div_ceil(most.saturating_sub(1).max(2));
    let mut out = Vec::with_capacity(most);
    for bucket in before.chunks(size.max(2)) {
        let by_value = |a: &(usize, &Point), b: &(usize, &Point)| a.1.value.total_cmp(&b.1.value);
        let low = bucket.iter().enumerate().min_by(by_value).map(|(at, _)| at);
        let high = bucket.iter().enumerate().max_by(by_value).map(|(at, _)| at);
        let mut ends: Vec<usize> = low.into_iter().chain(high).collect();
        ends.sort_unstable();
        ends.dedup();
        out.extend(ends.into_iter().filter_map(|at| bucket.get(at)));
    }
    out.truncate(most.saturating_sub(1));
    out.push(*last);
    out
}

/// Stretches between windows that held events.
fn gaps(windows: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let mut out: Vec<(i64, i64)> =
        windows.windows(2).filter_map(|pair| pair.first().zip(pair.get(1))).filter(|(a, b)| b.0 > a.1).map(|(a, b)| (a.1, b.0)).collect();
    let extra = out.len().saturating_sub(MOST_MARKS);
    out.drain(..extra);
    out
}

/// The columns whose PSI went furthest beyond its tolerance, worst first.
fn worst(rows: &[&Row], most: usize) -> Vec<String> {
    let mut ranked: BTreeMap<&str, (Verdict, f64)> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.method == Method::Psi && row.segment.is_none()) {
        let (Some(value), Some(verdict)) = (row.value, row.verdict) else { continue };
        let ratio = value / row.threshold.unwrap_or(1.0).max(f64::MIN_POSITIVE);
        let known = ranked.entry(&row.column).or_insert((verdict, ratio));
        *known = (known.0.max(verdict), known.1.max(ratio));
    }
    let mut ranked: Vec<_> = ranked.into_iter().collect();
    ranked.sort_by(|a, b| b.1.0.cmp(&a.1.0).then(b.1.1.total_cmp(&a.1.1)));
    ranked.into_iter().take(most).map(|(name, _)| name.to_owned()).collect()
}

fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Collects what is asked for. `column`: the tested rows of one column; without it the model's own and those of the worst columns.
fn picture(monitor: &Monitor, column: Option<&str>, most_columns: usize, (since, until): (i64, i64)) -> Picture {
    let all: Vec<&Row> = monitor.history(since).filter(|row| row.window_start.is_some_and(|start| start < until)).collect();
    let worst = column.map_or_else(|| worst(&all, most_columns), |name| vec![name.to_owned()]);
    let mut out = Picture::default();
    for row in &all {
        let (Some(start), Some(end)) = (row.window_start, row.window_end) else { continue };
        if row.method == Method::Deploy {
            let text = row.reason.clone().unwrap_or_default();
            let kind = if text.starts_with("version \"reference ") { "reference" } else { "deploy" };
            out.marks.push(json!({"time": start, "kind": kind, "text": text, "column": null, "severity": null, "id": null}));
            continue;
        }
        if row.segment.is_some() {
            continue;
        }
        if row.column == MODEL && row.method == Method::Events && row.value.is_some_and(|events| events > 0.0) {
            out.windows.push((start, end));
        }
        let shown = if column.is_some() {
            worst.contains(&row.column)
        } else {
            row.column == MODEL || row.method == Method::Psi && worst.contains(&row.column)
        };
        let Some(value) = row.value.filter(|_| shown) else { continue };
        let line = out.lines.entry((row.column.clone(), word(&row.method))).or_default();
        line.points.push(Point { time: start, value, lower: row.lower, upper: row.upper, verdict: row.verdict });
        line.threshold = row.threshold.or(line.threshold);
    }
    for alert in monitor.alerts().iter().filter(|alert| (since..until).contains(&alert.window_start)) {
        if column.is_some_and(|column| alert.column != column) {
            continue;
        }
        out.marks.push(json!({
            "time": alert.window_start, "kind": word(&alert.state), "text": alert.reason, "column": alert.column,
            "severity": alert.severity, "id": alert.id,
        }));
    }
    let extra = out.marks.len().saturating_sub(MOST_MARKS);
    out.marks.drain(..extra);
    out.windows.sort_unstable();
    out.windows.dedup();
    out
}

fn line(column: &str, method: &str, line: &mut Line, most: usize) -> Value {
    line.points.sort_by_key(|point| point.time);
    let points = thinned(&line.points, most);
    let of = |read: fn(&Point) -> Option<f64>| points.iter().map(read).collect::<Vec<_>>();
    json!({
        "column": column,
        "method": method,
        "threshold": line.threshold,
        "windows": line.points.len(),
        "times": points.iter().map(|point| point.time).collect::<Vec<_>>(),
        "values": points.iter().map(|point| point.value).collect::<Vec<_>>(),
        "lower": of(|point| point.lower),
        "upper": of(|point| point.upper),
        "verdicts": points.iter().map(|point| point.verdict).collect::<Vec<_>>(),
    })
}

/// `GET …/series`.
pub(super) async fn series(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&["since", "until", "points", "column", "worst"])?;
    let since = instant(asked, "since")?.unwrap_or(i64::MIN);
    let until = instant(asked, "until")?.unwrap_or(i64::MAX);
    let points = asked.number("points", 500, 10..=MOST_POINTS)? as usize;
    let most_columns = asked.number("worst", 5, 0..=50)? as usize;
    let column = asked.parameter("column").map(str::to_owned);
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let (mut picture, window) = asked
        .sidecar
        .models
        .look(&entry, move |model| {
            let found = model.monitor().map(|monitor| picture(monitor, column.as_deref(), most_columns, (since, until)));
            (found.unwrap_or_default(), model.settings.policy.0.window.0)
        })
        .await?;
    let lines: Vec<Value> = picture.lines.iter_mut().map(|((column, method), found)| line(column, method, found, points)).collect();
    let first = picture.windows.first().map(|window| window.0);
    let last = picture.windows.last().map(|window| window.1);
    document(
        asked,
        &json!({
            "model": asked.model,
            "window_seconds": window / 1_000_000_000,
            "since": first,
            "until": last,
            "lines": lines,
            "gaps": gaps(&picture.windows),
            "marks": picture.marks,
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: impl IntoIterator<Item = f64>) -> Vec<Point> {
        let point = |(time, value): (usize, f64)| Point { time: time as i64, value, lower: None, upper: None, verdict: None };
        values.into_iter().enumerate().map(point).collect()
    }

    #[test]
    fn thinning_keeps_peaks_order_and_the_last_window() {
        let mut all = points((0..10_000).map(|at| f64::from(at % 7)));
        all[4321].value = 1e9;
        all[77].value = -5.0;
        let thin = thinned(&all, 200);
        assert!(thin.len() <= 200, "{}", thin.len());
        assert!(thin.windows(2).all(|pair| pair[0].time < pair[1].time));
        assert_eq!(thin.last(), all.last());
        assert!(thin.contains(&all[4321]) && thin.contains(&all[77]));
        assert!(thin.iter().all(|point| all.contains(point)));
        assert_eq!(thinned(&all[..50], 200), all[..50]);
        assert_eq!(thinned(&[], 10), []);
        for most in [10, 11, 500] {
            assert!(thinned(&all, most).len() <= most);
        }
    }

    #[test]
    fn a_stretch_without_events_is_a_gap() {
        assert_eq!(gaps(&[(0, 1), (1, 2), (9, 10), (10, 11)]), [(2, 9)]);
        assert_eq!(gaps(&[]), []);
    }
}
