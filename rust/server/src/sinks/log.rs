//! Alerts as lines of JSON on stderr, for whatever collects logs.

use std::io::Write;

use barograph_engine::alert::{Severity, State};
use serde_json::{Value, json};

use super::{Failure, Notice, Sink, instant};

/// Writes every change of an alert: pages as errors, tickets as warnings, ends as information, in the words of Python's `AlertLog`.
pub struct Log;

fn level(notice: &Notice) -> &'static str {
    match (notice.alert.state, notice.alert.severity) {
        (State::Resolved | State::Eased, _) => "info",
        (_, Severity::Page) => "error",
        (_, Severity::Ticket) => "warn",
    }
}

fn line(notice: &Notice) -> Value {
    let mut alert = serde_json::to_value(&notice.alert).unwrap_or(Value::Null);
    alert["model"] = json!(notice.model);
    json!({"time": instant(notice.sent_at), "level": level(notice), "message": notice.sentence(), "alert": alert})
}

impl Sink for Log {
    fn send(&self, notice: &Notice) -> Result<(), Failure> {
        // In one write, so that lines of several threads stay whole.
        let text = format!("{}\n", line(notice));
        std::io::stderr().write_all(text.as_bytes()).map_err(|error| Failure::permanent(format!("stderr cannot be written to: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::notice;
    use super::*;

    #[test]
    fn levels_are_those_of_python() {
        for (state, severity, expected) in [
            (State::Opened, Severity::Page, "error"),
            (State::Escalated, Severity::Ticket, "warn"),
            (State::Eased, Severity::Page, "info"),
            (State::Resolved, Severity::Page, "info"),
        ] {
            let line = line(&notice(state, severity));
            assert_eq!(line["level"], expected);
            assert_eq!((line["alert"]["model"].as_str(), line["alert"]["id"].as_u64()), (Some("fraud"), Some(7)));
            assert_eq!(line["time"], "2026-01-01T00:00:01Z");
            assert!(!line.to_string().contains('\n'));
        }
    }
}
