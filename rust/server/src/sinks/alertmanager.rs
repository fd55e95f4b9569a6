//! Alerts to Prometheus' Alertmanager, which groups, silences and routes them.
//!
//! `POST /api/v2/alerts`: <https://prometheus.io/docs/alerting/latest/alerts_api/>. An alert there is its labels and lives in memory:
//! what is open is told again every minute, and ends by itself an hour after the sidecar has fallen silent.

use std::time::Duration;

use barograph_engine::alert::{Severity, State};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use ureq::http::HeaderMap;

use super::post::{Endpoint, Post};
use super::{Failure, Notice, SECOND, Sink, at_most, instant, severity};

/// Half of what clients are asked for at most.
const AGAIN: Duration = Duration::from_secs(60);
/// Longer than a restart or an update takes: nobody should be told that an alert ended because its watcher did.
const STANDS: i64 = 3600 * SECOND;

/// An Alertmanager.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Its address, without `/api/v2/alerts`.
    pub url: Endpoint,
}

pub(super) struct Alertmanager {
    post: Post,
}

impl Settings {
    pub(super) fn sink(&self, timeout: Duration) -> Result<Alertmanager, String> {
        Ok(Alertmanager { post: Post::new(&self.url.below("/api/v2/alerts")?, timeout) })
    }
}

/// One alert with this severity, until it ends.
fn alert(notice: &Notice, word: Severity, open: bool) -> Value {
    let alert = &notice.alert;
    let ends = if open { notice.sent_at.saturating_add(STANDS) } else { notice.sent_at };
    // Windows may close ahead of the clock; what begins after its end is refused.
    let starts = alert.time.min(notice.sent_at);
    let mut annotations: Map<String, Value> =
        notice.facts().into_iter().map(|(name, value)| (name.to_owned(), json!(at_most(&value, 1000)))).collect();
    annotations.insert("summary".to_owned(), json!(at_most(&notice.sentence(), 1000)));
    let mut out = json!({
        "labels": {
            "alertname": "Barograph",
            "model": notice.model,
            "column": at_most(&super::one_line(&alert.column), 200),
            "severity": severity(word),
            "alert_id": notice.alert_id(),
        },
        "annotations": annotations,
        "startsAt": instant(starts),
        "endsAt": instant(ends),
    });
    if let Some(url) = &notice.page_url {
        out["generatorURL"] = json!(url);
    }
    out
}

/// The severity is a label, for routes to match: with another one it is another alert there, and the former has to end.
fn alerts(notice: &Notice) -> Value {
    let own = notice.alert.severity;
    let other = if own == Severity::Page { Severity::Ticket } else { Severity::Page };
    match notice.alert.state {
        State::Opened => json!([alert(notice, own, true)]),
        State::Escalated | State::Eased => json!([alert(notice, own, true), alert(notice, other, false)]),
        State::Resolved => json!([alert(notice, own, false), alert(notice, other, false)]),
    }
}

impl Sink for Alertmanager {
    fn send(&self, notice: &Notice) -> Result<(), Failure> {
        self.post.send("application/json", &HeaderMap::new(), &alerts(notice).to_string())
    }

    fn repeats(&self) -> Option<Duration> {
        Some(AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Receiver, config, notice};
    use super::*;

    #[test]
    fn an_alert_keeps_its_labels_and_its_former_severity_ends() {
        let receiver = Receiver::with(&["200 OK"]);
        let sink = config(&format!("kind = \"alertmanager\"\nurl = \"{}/am/\"", receiver.url)).sink().unwrap();
        for (state, severity) in
            [(State::Opened, Severity::Ticket), (State::Escalated, Severity::Page), (State::Resolved, Severity::Ticket)]
        {
            sink.send(&notice(state, severity)).unwrap();
        }
        assert!(receiver.got()[0].0.starts_with("post /am/api/v2/alerts http/1.1\r\n"));
        let [opened, escalated, resolved] = [0, 1, 2].map(|number| receiver.json(number));
        assert_eq!((opened.as_array().unwrap().len(), escalated.as_array().unwrap().len()), (1, 2));
        assert_eq!(escalated[1]["labels"], opened[0]["labels"], "the ticket ends where the page begins");
        assert_eq!(escalated[1]["endsAt"], "2026-01-01T00:00:01Z");
        assert_eq!((&opened[0]["startsAt"], &opened[0]["endsAt"]), (&json!("2026-01-01T00:00:00Z"), &json!("2026-01-01T01:00:01Z")));
        assert_eq!((&resolved[0]["labels"], &resolved[1]["labels"]), (&opened[0]["labels"], &escalated[0]["labels"]));
        assert!(resolved.as_array().unwrap().iter().all(|alert| alert["endsAt"] == "2026-01-01T00:00:01Z"));
    }

    #[test]
    fn an_alert_never_begins_after_it_ends() {
        let mut early = notice(State::Resolved, Severity::Page);
        early.alert.time = early.sent_at + 3600 * SECOND;
        let found = alerts(&early);
        assert_eq!(found[0]["startsAt"], found[0]["endsAt"]);
    }
}
