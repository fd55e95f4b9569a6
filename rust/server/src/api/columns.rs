//! `GET …/columns`: every column of a window in a line; `GET …/columns/{column}`: one of them in all that is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use barograph_engine::report::{ColumnReport, Method, Row};
use barograph_engine::{ColumnProfile, Monitor, Profile, Reference, Settings, compare_column, compare_tested};
use serde_json::{Value, json};

use super::Asked;
use super::read::{document, instant, rows};
use crate::http::Answer;
use crate::problem::{Outcome, Problem};

/// Windows of a column's little curve.
const RECENT: usize = 30;
const MOST_PAGE: i64 = 2000;
/// Bins and names that are told.
const MOST_BINS: usize = 100;
const MOST_NAMES: usize = 20;
const QUANTILES: [f64; 9] = [0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999];

/// A window to be compared with the reference.
struct Sides {
    profile: Option<Profile>,
    window: (i64, i64),
    provisional: bool,
    reference: Arc<Reference>,
    settings: Settings,
}

/// Which window is meant.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// The one that closed last, or before any has closed the open one.
    Last,
    Closed,
    Open,
    Between(i64, i64),
}

fn wanted(asked: &Asked) -> Outcome<Wanted> {
    if let (Some(start), Some(end)) = (instant(asked, "start")?, instant(asked, "end")?) {
        return Ok(Wanted::Between(start, end));
    }
    if asked.parameter("start").or(asked.parameter("end")).is_some() {
        return Err(Problem::bad("`start` and `end` go together"));
    }
    match asked.parameter("window") {
        None => Ok(Wanted::Last),
        Some("closed") => Ok(Wanted::Closed),
        Some("open") => Ok(Wanted::Open),
        Some(other) => Err(Problem::bad(format!("`window` must be open or closed, got {other:?}"))),
    }
}

/// The sides of a window; `None` where there is no such window.
fn sides(monitor: &Monitor, wanted: Wanted) -> barograph_core::Result<Option<Sides>> {
    let closed = || monitor.last_window().map(|window| (window, false));
    let open = || monitor.open_windows().last().copied().map(|window| (window, true));
    let found = match wanted {
        Wanted::Last => closed().or_else(open),
        Wanted::Closed => closed(),
        Wanted::Open => open(),
        Wanted::Between(start, end) => Some(((start, end), monitor.last_window().is_none_or(|(_, closed)| end > closed))),
    };
    let Some((window, provisional)) = found else { return Ok(None) };
    Ok(Some(Sides {
        profile: monitor.profile(window.0, window.1)?,
        window,
        provisional,
        reference: Arc::clone(monitor.reference()),
        settings: monitor.policy().settings.clone(),
    }))
}

/// The last values of each column's PSI, oldest first, in four digits: they are drawn small.
fn recent(monitor: &Monitor) -> BTreeMap<String, Vec<f64>> {
    let mut out: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in monitor.history(i64::MIN).filter(|row| row.method == Method::Psi && row.segment.is_none()) {
        let Some(value) = row.value else { continue };
        out.entry(row.column.clone()).or_default().push((value * 1e4).round() / 1e4);
    }
    for values in out.values_mut() {
        values.drain(..values.len().saturating_sub(RECENT));
    }
    out
}

/// The row that a column's verdict rests on.
fn decisive<'a>(column: &ColumnReport, rows: &'a [Row]) -> Option<&'a Row> {
    let own = || rows.iter().filter(|row| row.column == column.column);
    own()
        .filter(|row| row.verdict.is_some() && row.verdict == column.verdict)
        .max_by(|a, b| beyond(a).total_cmp(&beyond(b)))
        .or_else(|| own().next())
}

/// How far a row is beyond its threshold.
fn beyond(row: &Row) -> f64 {
    row.value.unwrap_or(0.0).abs() / row.threshold.unwrap_or(1.0).max(f64::MIN_POSITIVE)
}

/// `GET …/columns`: worst first.
pub(super) async fn columns(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&["window", "start", "end", "after", "limit"])?;
    let wanted = wanted(asked)?;
    let after = asked.number("after", 0, 0..=i64::MAX)? as usize;
    let limit = asked.number("limit", 500, 1..=MOST_PAGE)? as usize;
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let look = move |model: &mut crate::model::Model| {
        let Some(monitor) = model.monitor() else { return Ok(None) };
        Ok(sides(monitor, wanted)?.map(|sides| (sides, recent(monitor))))
    };
    let found: barograph_core::Result<_> = asked.sidecar.models.look(&entry, look).await?;
    let Some((sides, recent)) = found? else {
        return document(
            asked,
            &json!({"model": asked.model, "window_start": null, "window_end": null, "provisional": false, "columns": [], "next": null}),
        );
    };
    let told = tokio::task::block_in_place(|| -> Outcome<Vec<Value>> {
        let Some(profile) = &sides.profile else { return Ok(Vec::new()) };
        let report = compare_tested(&sides.reference, profile, &sides.settings)?;
        let mut columns: Vec<(&ColumnReport, Option<&Row>)> =
            report.columns.iter().map(|column| (column, decisive(column, &report.rows))).collect();
        let rank = |row: Option<&Row>| row.map_or(0.0, beyond);
        columns
            .sort_by(|a, b| b.0.verdict.cmp(&a.0.verdict).then(rank(b.1).total_cmp(&rank(a.1))).then_with(|| a.0.column.cmp(&b.0.column)));
        Ok(columns
            .into_iter()
            .map(|(column, row)| {
                json!({
                    "column": column.column,
                    "kind": column.kind,
                    "role": column.role,
                    "verdict": column.verdict,
                    "psi": column.score,
                    "method": row.map(|row| row.method),
                    "value": row.and_then(|row| row.value),
                    "threshold": row.and_then(|row| row.threshold),
                    "reason": column.reason.clone().or_else(|| row.and_then(|row| row.reason.clone())),
                    "recent": recent.get(&column.column).cloned().unwrap_or_default(),
                })
            })
            .collect())
    })?;
    let next = (after.saturating_add(limit) < told.len()).then(|| (after + limit).to_string());
    let page: Vec<&Value> = told.iter().skip(after).take(limit).collect();
    document(
        asked,
        &json!({
            "model": asked.model,
            "window_start": sides.window.0,
            "window_end": sides.window.1,
            "provisional": sides.provisional,
            "columns": page,
            "next": next,
        }),
    )
}

/// Shares of what is no ordinary value, on both sides.
fn shares(was: Option<&ColumnProfile>, is: Option<&ColumnProfile>) -> Vec<Value> {
    let mut out = Vec::new();
    let mut push = |name: &str, was: Option<(u64, u64)>, is: Option<(u64, u64)>| {
        let share = |counts: Option<(u64, u64)>| counts.filter(|(_, all)| *all > 0).map(|(part, all)| part as f64 / all as f64);
        out.push(json!({"name": name, "reference": share(was), "current": share(is)}));
    };
    push("null", was.map(|side| (side.nulls, side.count)), is.map(|side| (side.nulls, side.count)));
    let numbers = (was.and_then(ColumnProfile::numbers), is.and_then(ColumnProfile::numbers));
    if numbers.0.or(numbers.1).is_some() {
        let all = (was.map_or(0, |side| side.count), is.map_or(0, |side| side.count));
        push("NaN or infinite", numbers.0.map(|side| (side.non_finite(), all.0)), numbers.1.map(|side| (side.non_finite(), all.1)));
        let end = |side: Option<&barograph_engine::profile::Numbers>, last: bool, all: u64| {
            let bins = side?.bins.as_ref()?;
            Some((*if last { bins.last() } else { bins.first() }?, all))
        };
        push("below the reference", end(numbers.0, false, all.0), end(numbers.1, false, all.1));
        push("above the reference", end(numbers.0, true, all.0), end(numbers.1, true, all.1));
    }
    if let (Some(known), Some(names)) = (was.and_then(ColumnProfile::names), is.and_then(ColumnProfile::names)) {
        let seen: u64 = known.ranked().iter().map(|(name, _)| names.count(name)).sum();
        push("unseen", Some((0, known.total())), Some((names.total().saturating_sub(seen), names.total())));
    }
    out
}

fn quantiles(was: Option<&ColumnProfile>, is: Option<&ColumnProfile>) -> Vec<Value> {
    let numbers = (was.and_then(ColumnProfile::numbers), is.and_then(ColumnProfile::numbers));
    if numbers.0.or(numbers.1).is_none() {
        return Vec::new();
    }
    let at = |side: Option<&barograph_engine::profile::Numbers>, q: f64| side.and_then(|side| side.quantile(q).ok().flatten());
    QUANTILES.iter().map(|q| json!({"q": q, "reference": at(numbers.0, *q), "current": at(numbers.1, *q)})).collect()
}

/// The commonest names of either side, with their shares.
fn names(was: Option<&ColumnProfile>, is: Option<&ColumnProfile>) -> Vec<Value> {
    let sides = (was.and_then(ColumnProfile::names), is.and_then(ColumnProfile::names));
    let mut shown: BTreeMap<&str, u64> = BTreeMap::new();
    for side in [sides.0, sides.1].into_iter().flatten() {
        for (name, count) in side.ranked().into_iter().take(MOST_NAMES) {
            *shown.entry(name).or_default() += count;
        }
    }
    let mut shown: Vec<(&str, u64)> = shown.into_iter().collect();
    shown.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let share = |side: Option<&barograph_core::sketches::Categories>, name: &str| {
        side.filter(|side| side.total() > 0).map(|side| side.count(name) as f64 / side.total() as f64)
    };
    shown.truncate(MOST_NAMES);
    shown.iter().map(|(name, _)| json!({"name": name, "reference": share(sides.0, name), "current": share(sides.1, name)})).collect()
}

/// `GET …/columns/{column}`.
pub(super) async fn column(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&["window", "start", "end"])?;
    let wanted = wanted(asked)?;
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let look =
        move |model: &mut crate::model::Model| model.monitor().map(|monitor| sides(monitor, wanted)).transpose().map(Option::flatten);
    let found: barograph_core::Result<Option<Sides>> = asked.sidecar.models.look(&entry, look).await?;
    let sides = found?
        .ok_or_else(|| Problem::missing("there is nothing to compare yet").hint("the model learns its reference, or has no window"))?;
    let name = asked.object.as_str();
    let fixed = sides.reference.column(name).map(|column| &column.profile);
    let missing = || Problem::missing(format!("there is no column {name:?} of model {:?}", asked.model));
    let Some(profile) = &sides.profile else {
        // Nothing came in that time: what the reference holds is shown beside nothing.
        let fixed = fixed.ok_or_else(missing)?;
        let blank = json!({
            "kind": fixed.column.kind, "role": fixed.column.role, "verdict": null, "reason": "there are no events in that time",
            "bars": null, "moved": [], "reference_summary": null, "current_summary": null,
        });
        return document(asked, &told(asked, &sides, blank, Some(fixed), None, &[]));
    };
    let compared = tokio::task::block_in_place(|| compare_column(&sides.reference, profile, &sides.settings, name))?;
    let (mut report, found) = compared.ok_or_else(missing)?;
    report.moved.truncate(MOST_BINS);
    let report = serde_json::to_value(&report).unwrap_or_default();
    document(asked, &told(asked, &sides, report, fixed, profile.column(name), &rows(&found, sides.provisional)))
}

fn told(asked: &Asked, sides: &Sides, report: Value, was: Option<&ColumnProfile>, is: Option<&ColumnProfile>, rows: &[Value]) -> Value {
    let mut report = report;
    let mut take = |name: &str| report.get_mut(name).map(Value::take).unwrap_or_default();
    json!({
        "model": asked.model,
        "column": asked.object,
        "kind": take("kind"),
        "role": take("role"),
        "verdict": take("verdict"),
        "reason": take("reason"),
        "window_start": sides.window.0,
        "window_end": sides.window.1,
        "provisional": sides.provisional,
        "reference": sides.reference.id(),
        "reference_created": sides.reference.created,
        "n_reference": sides.reference.rows,
        "n_current": sides.profile.as_ref().map_or(0, |profile| profile.rows),
        "bars": take("bars"),
        "bins": take("moved"),
        "reference_summary": take("reference_summary"),
        "current_summary": take("current_summary"),
        "shares": shares(was, is),
        "quantiles": quantiles(was, is),
        "names": names(was, is),
        "rows": rows,
    })
}
