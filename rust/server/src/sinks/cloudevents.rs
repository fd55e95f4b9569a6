//! Alerts as `CloudEvents` 1.0, in structured mode over HTTP.
//!
//! Format: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::HeaderMap;

use super::post::{Endpoint, Post};
use super::{Failure, Notice, Sink, instant, one_line, state};

/// A receiver of events.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where to post.
    pub url: Endpoint,
}

pub(super) struct Cloudevents {
    post: Post,
}

impl Settings {
    pub(super) fn sink(&self, timeout: Duration) -> Cloudevents {
        Cloudevents { post: Post::new(&self.url, timeout) }
    }
}

/// The data are the body of a webhook. `source` and `id` together are the same for every attempt.
fn event(notice: &Notice) -> Result<Value, Failure> {
    let data: Value = serde_json::from_str(&notice.to_json()?).map_err(|error| super::unwritten(&error))?;
    let mut event = json!({
        "specversion": "1.0",
        "id": notice.key(),
        "source": format!("/v1/models/{}", notice.model),
        "type": format!("barograph.alert.{}", state(notice.alert.state)),
        "time": instant(notice.alert.time),
        "datacontenttype": "application/json",
        "data": data,
    });
    let subject = one_line(&notice.alert.column);
    // What is empty must be left out.
    if !subject.is_empty() {
        event["subject"] = json!(subject);
    }
    Ok(event)
}

impl Sink for Cloudevents {
    fn send(&self, notice: &Notice) -> Result<(), Failure> {
        self.post.send("application/cloudevents+json", &HeaderMap::new(), &event(notice)?.to_string())
    }
}

#[cfg(test)]
mod tests {
    use barograph_engine::alert::{Severity, State};

    use super::super::tests::{Receiver, config, notice};
    use super::*;

    #[test]
    fn an_event_has_all_that_the_specification_requires() {
        let receiver = Receiver::with(&["202 Accepted"]);
        let sink = config(&format!("kind = \"cloudevents\"\nurl = \"{}\"", receiver.url)).sink().unwrap();
        let notice = notice(State::Resolved, Severity::Page);
        sink.send(&notice).unwrap();
        sink.send(&Notice { sent_at: notice.sent_at + 1, ..notice.clone() }).unwrap();
        assert!(receiver.got()[0].0.contains("content-type: application/cloudevents+json\r\n"));
        let event = receiver.json(0);
        assert_eq!(event, receiver.json(1), "another attempt is the same event");
        assert_eq!(
            (&event["specversion"], &event["id"], &event["source"]),
            (&json!("1.0"), &json!("fraud-5-3"), &json!("/v1/models/fraud"))
        );
        assert_eq!((&event["type"], &event["time"]), (&json!("barograph.alert.resolved"), &json!("2026-01-01T00:00:00Z")));
        // Attributes must not hold control characters (section "String" of the specification).
        assert!(!event["subject"].as_str().unwrap().chars().any(char::is_control));
        assert_eq!(event["data"]["column"].as_str().unwrap(), notice.alert.column);
    }
}
