//! Alerts to `PagerDuty`.
//!
//! Events API v2: <https://developer.pagerduty.com/docs/events-api-v2/trigger-events/>. One `dedup_key` per alert: what escalates stays
//! one incident there, and ends when the alert does.

use std::time::Duration;

use barograph_engine::alert::{Severity, State};
use barograph_engine::report::Verdict;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use ureq::http::HeaderMap;

use super::post::{Endpoint, Post};
use super::{Failure, Notice, Sink, at_most, instant};
use crate::secret::Secret;

/// Where events go, for most accounts.
const EVENTS: &str = "https://events.pagerduty.com/v2/enqueue";

/// A service of `PagerDuty`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The integration key of the service.
    pub routing_key: Secret,
    /// Where events go: stated for accounts of the European region.
    pub url: Option<Endpoint>,
}

pub(super) struct Pagerduty {
    post: Post,
    routing_key: Secret,
}

impl Settings {
    pub(super) fn sink(&self, timeout: Duration) -> Result<Pagerduty, String> {
        let endpoint = match &self.url {
            Some(url) => url.clone(),
            None => serde_json::from_value(json!(EVENTS)).map_err(|error| error.to_string())?,
        };
        Ok(Pagerduty { post: Post::new(&endpoint, timeout), routing_key: self.routing_key.clone() })
    }
}

fn event(notice: &Notice, routing_key: &Secret) -> Value {
    let alert = &notice.alert;
    let action = match (&notice.acknowledged_by, alert.state) {
        (Some(_), _) => "acknowledge",
        (None, State::Resolved) => "resolve",
        (None, _) => "trigger",
    };
    // Model, generation and number have at most 141 letters, 255 are allowed.
    let mut event = json!({"routing_key": routing_key.expose(), "event_action": action, "dedup_key": notice.alert_id()});
    if action == "trigger" {
        let severity = match (alert.severity, alert.verdict) {
            (Severity::Page, Verdict::Critical) => "critical",
            (Severity::Page, _) => "error",
            (Severity::Ticket, _) => "warning",
        };
        let facts: Map<String, Value> =
            notice.facts().into_iter().map(|(name, value)| (name.to_owned(), json!(at_most(&value, 1000)))).collect();
        event["payload"] = json!({
            "summary": at_most(&notice.sentence(), 1024),
            "source": notice.model,
            "severity": severity,
            "timestamp": instant(alert.time),
            "component": at_most(&super::one_line(&alert.column), 200),
            "group": format!("{}-{}-incident-{}", notice.model, notice.generation, alert.incident),
            "class": "drift",
            "custom_details": facts,
        });
        event["client"] = json!("barograph");
        if let Some(url) = &notice.page_url {
            event["client_url"] = json!(url);
        }
    }
    event
}

impl Sink for Pagerduty {
    fn send(&self, notice: &Notice) -> Result<(), Failure> {
        self.post.send("application/json", &HeaderMap::new(), &event(notice, &self.routing_key).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Receiver, config, notice};
    use super::*;

    #[test]
    fn an_alert_is_one_incident_from_its_beginning_to_its_end() {
        let receiver = Receiver::with(&["202 Accepted"]);
        let sink = config(&format!("kind = \"pagerduty\"\nrouting_key = \"hush\"\nurl = \"{}/v2/enqueue\"", receiver.url)).sink().unwrap();
        let acknowledged = Notice { acknowledged_by: Some("ada".to_owned()), ..notice(State::Opened, Severity::Page) };
        for notice in [
            notice(State::Opened, Severity::Ticket),
            notice(State::Escalated, Severity::Page),
            acknowledged,
            notice(State::Resolved, Severity::Ticket),
        ] {
            sink.send(&notice).unwrap();
        }
        let events: Vec<Value> = (0..4).map(|number| receiver.json(number)).collect();
        let actions: Vec<&str> = events.iter().map(|event| event["event_action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["trigger", "trigger", "acknowledge", "resolve"]);
        assert!(events.iter().all(|event| event["dedup_key"] == "fraud-5-7" && event["routing_key"] == "hush"));
        assert_eq!((&events[0]["payload"]["severity"], &events[1]["payload"]["severity"]), (&json!("warning"), &json!("critical")));
        assert_eq!(events[1]["payload"]["timestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(events[1]["payload"]["custom_details"]["interval"], "0.2500 to 0.7500");
    }

    #[test]
    fn the_limits_of_pagerduty_are_kept() {
        let mut long = notice(State::Opened, Severity::Page);
        long.model = "m".repeat(100);
        long.generation = i64::MAX.to_string();
        long.alert.id = u64::MAX;
        long.alert.cause = Some("é".repeat(600_000));
        let key: Secret = serde_json::from_value(json!("hush")).unwrap();
        let event = event(&long, &key);
        assert!(event["payload"]["summary"].as_str().unwrap().chars().count() <= 1024);
        assert!(event["dedup_key"].as_str().unwrap().len() <= 255);
        // 512 KB of an event are taken.
        assert!(event.to_string().len() < 64 << 10);
    }
}
