//! `GET …/alerts`: every change of an alert; `GET …/alerts/{id}/examples`: a few events that one is about.

use std::sync::Arc;

use barograph_engine::Monitor;
use barograph_engine::alert::{Alert, State};
use barograph_engine::compare_column;
use serde_json::{Value, json};

use super::Asked;
use super::overview::open;
use super::read::{MOST_PAGE, PAGE, document};
use crate::http::Answer;
use crate::problem::{Outcome, Problem};

/// Bins that examples are looked for in: those that add most.
const BINS: usize = 3;

/// `GET …/alerts`: every change of an alert, with what people said about it.
pub(super) async fn alerts(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&["after", "limit", "open"])?;
    let after = asked.number("after", 0, 0..=i64::MAX)? as usize;
    let limit = asked.number("limit", PAGE, 1..=MOST_PAGE)? as usize;
    let only_open = match asked.parameter("open") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(Problem::bad(format!("`open` must be true or false, got {other:?}"))),
    };
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let (found, open, all) = asked
        .sidecar
        .models
        .look(&entry, move |model| {
            let alerts = model.monitor().map(barograph_engine::Monitor::alerts).unwrap_or_default();
            let page: Vec<_> = alerts.iter().skip(after).take(limit).cloned().collect();
            let open: Vec<u64> = model.monitor().map(|monitor| open(monitor).iter().map(|alert| alert.id).collect()).unwrap_or_default();
            (page, open, alerts.len())
        })
        .await?;
    let standings = asked.sidecar.standings(&asked.model);
    let mut rows = Vec::new();
    for alert in &found {
        let mut value = serde_json::to_value(alert).unwrap_or(Value::Null);
        let is_open = open.contains(&alert.id);
        if only_open && !is_open {
            continue;
        }
        value["open"] = json!(is_open);
        value["standing"] = standings.get(&alert.id.to_string()).cloned().unwrap_or(Value::Null);
        rows.push(value);
    }
    let next = (after + found.len() < all).then(|| (after + found.len()).to_string());
    document(asked, &json!({"model": asked.model, "rows": rows, "next": next}))
}

/// What the examples of an alert are looked for by.
struct About {
    column: String,
    /// From the window that opened it to the end of its last one, or to now.
    span: (i64, i64),
    most: usize,
    /// Whether the reference knows the column.
    known: bool,
}

fn about(monitor: &Monitor, id: u64, most: usize) -> Option<About> {
    let changes: Vec<&Alert> = monitor.alerts().iter().filter(|alert| alert.id == id).collect();
    let (first, last) = (changes.first()?, changes.last()?);
    let end = if last.state == State::Resolved { last.window_start } else { i64::MAX };
    let known = monitor.reference().column(&first.column).is_some();
    Some(About { column: first.column.clone(), span: (first.window_start, end), most, known })
}

/// `GET …/alerts/{id}/examples`: ids of events in the bins of its column that grew most, of its newest windows.
pub(super) async fn examples(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&[])?;
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let missing = || Problem::missing(format!("there is no alert {:?} of model {:?}", asked.object, asked.model));
    let id: u64 = asked.object.parse().map_err(|_| missing())?;
    let look = move |model: &mut crate::model::Model| model.monitor().and_then(|monitor| about(monitor, id, model.settings.examples));
    let about = asked.sidecar.models.look(&entry, look).await?.ok_or_else(missing)?;
    let mut events: Vec<Value> = Vec::new();
    for start in entry.examples.windows(about.span.0, about.span.1) {
        if !about.known || events.len() >= about.most {
            break;
        }
        let of_window = move |model: &mut crate::model::Model| {
            let monitor = model.monitor()?;
            let end = start.saturating_add(model.settings.policy.0.window.0);
            let profile = monitor.profile(start, end).ok().flatten()?;
            Some((profile, Arc::clone(monitor.reference()), monitor.policy().settings.clone()))
        };
        let Some((profile, reference, settings)) = asked.sidecar.models.look(&entry, of_window).await? else { continue };
        let left = about.most - events.len();
        let found = tokio::task::block_in_place(|| -> Outcome<_> {
            let Some((report, _)) = compare_column(&reference, &profile, &settings, &about.column)? else { return Ok(Vec::new()) };
            let grew = report.moved.into_iter().filter(|bin| bin.current > bin.reference);
            let bins: Vec<String> = grew.take(BINS).map(|bin| bin.bin).collect();
            Ok(entry.examples.find(start, &about.column, &bins, left, &reference, &settings))
        })?;
        events.extend(found.into_iter().map(|example| json!({"id": example.id, "bin": example.bin, "window_start": start})));
    }
    let reason = if about.most == 0 {
        Some("ids of events are not kept: `examples` of the model is 0")
    } else if !about.known {
        Some("the alert is about the model or a segment, not about values of a column")
    } else if events.is_empty() {
        Some("no event of its windows is kept: they are kept in memory, of the last windows since the start")
    } else {
        None
    };
    document(asked, &json!({"model": asked.model, "column": about.column, "events": events, "reason": reason}))
}
