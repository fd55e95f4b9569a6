//! Alerts to a channel of Slack, through an incoming webhook.
//!
//! Format: <https://api.slack.com/messaging/webhooks>, <https://api.slack.com/reference/block-kit/blocks>. Everything that comes from
//! outside stands in `plain_text`, where no mark means anything; the fallback text is escaped as
//! <https://api.slack.com/reference/surfaces/formatting#escaping> says.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::HeaderMap;

use super::post::{Endpoint, Post};
use super::{Failure, Notice, Sink, at_most, severity, state};

/// A channel.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The address of the incoming webhook: a secret.
    pub url: Endpoint,
}

pub(super) struct Slack {
    post: Post,
}

impl Settings {
    pub(super) fn sink(&self, timeout: Duration) -> Slack {
        Slack { post: Post::new(&self.url, timeout) }
    }
}

/// The three letters that Slack reads as more than themselves.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Escaped after it is cut, so that no escape is cut in two.
fn plain(text: &str, letters: usize) -> Value {
    json!({"type": "plain_text", "text": escaped(&at_most(text, letters)), "emoji": false})
}

fn message(notice: &Notice) -> Value {
    let alert = &notice.alert;
    let title = super::one_line(&format!("{} {}: {} of {}", severity(alert.severity), state(alert.state), alert.column, notice.model));
    // A header has at most 150 letters, a field 2,000, a section ten fields; an escape is at most five letters.
    let fields = notice.facts().into_iter().filter(|(name, _)| !matches!(*name, "reason" | "cause"));
    let fields: Vec<Value> = fields.take(10).map(|(name, value)| plain(&format!("{name}: {value}"), 300)).collect();
    let mut blocks = vec![
        json!({"type": "header", "text": plain(&title, if escaped(&title).len() > title.len() { 30 } else { 150 })}),
        json!({"type": "section", "fields": fields}),
    ];
    for (name, value) in notice.facts().into_iter().filter(|(name, _)| matches!(*name, "reason" | "cause")) {
        blocks.push(json!({"type": "section", "text": plain(&format!("{name}: {value}"), 500)}));
    }
    if let Some(url) = &notice.page_url {
        // The operator's own words; `check` of the configuration lets nothing in that would end the link.
        blocks
            .push(json!({"type": "section", "text": {"type": "mrkdwn", "text": format!("<{}|open the page>", url.replace('&', "&amp;"))}}));
    }
    json!({"text": escaped(&at_most(&notice.sentence(), 1000)), "blocks": blocks})
}

impl Sink for Slack {
    fn send(&self, notice: &Notice) -> Result<(), Failure> {
        self.post.send("application/json", &HeaderMap::new(), &message(notice).to_string())
    }
}

#[cfg(test)]
mod tests {
    use barograph_engine::alert::{Severity, State};

    use super::super::tests::{Receiver, config, notice};
    use super::*;

    #[test]
    fn names_from_outside_mean_nothing_to_slack() {
        let receiver = Receiver::with(&["200 OK"]);
        let sink = config(&format!("kind = \"slack\"\nurl = \"{}/services/hush\"", receiver.url)).sink().unwrap();
        sink.send(&notice(State::Opened, Severity::Page)).unwrap();
        let said = receiver.json(0);
        assert!(!said.to_string().contains("<!channel>"), "{said}");
        assert!(said["text"].as_str().unwrap().starts_with("fraud: page opened, amount &lt;!channel&gt; &amp; \"co\""), "{said}");
        let marked: Vec<&Value> = said["blocks"].as_array().unwrap().iter().filter(|block| block["text"]["type"] == "mrkdwn").collect();
        assert_eq!(marked.len(), 1);
        assert_eq!(marked[0]["text"]["text"], "<https://watch.example/|open the page>");
    }

    #[test]
    fn the_limits_of_slack_are_kept() {
        let mut long = notice(State::Opened, Severity::Page);
        long.alert.column = "<".repeat(5000);
        long.alert.cause = Some("&".repeat(50_000));
        let said = message(&long);
        let length = |value: &Value| value["text"].as_str().unwrap().chars().count();
        for block in said["blocks"].as_array().unwrap() {
            if block["type"] == "header" {
                assert!(length(&block["text"]) <= 150);
            }
            for field in block["fields"].as_array().into_iter().flatten() {
                assert!(length(field) <= 2000);
            }
            if block["type"] == "section" && block["text"].is_object() {
                assert!(length(&block["text"]) <= 3000);
            }
        }
    }
}
