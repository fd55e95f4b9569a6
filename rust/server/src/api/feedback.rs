//! What is told of a model's feedback loop, and asked: triggers, requests to fit again, decisions between two versions. The sidecar decides
//! none of them; whoever does tells it, so that one page has all of it.

use hyper::Request;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Asked;
use super::read::document;
use crate::control::Feedback;
use crate::http::Answer;
use crate::problem::{Outcome, Problem};
use crate::rows::bounded_instant;

/// Bytes of what is told at once, and rows of evidence in it.
const MOST_BYTES: usize = 64 << 10;
const MOST_ROWS: usize = 200;
/// What is kept of a model: decisions are many, as every look is one.
const MOST_DECISIONS: i64 = 1000;
const MOST_REQUESTS: i64 = 200;
const MOST_TRIGGERS: i64 = 50;

/// What is told: one thing, by its word.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    /// What is to become of a challenger.
    Decision(Decision),
    /// A request to fit again.
    Request(Refit),
    /// What a trigger saw.
    Trigger(Trigger),
}

#[derive(Debug, Deserialize, Serialize)]
enum Word {
    #[serde(rename = "promote")]
    Promote,
    #[serde(rename = "hold")]
    Hold,
    #[serde(rename = "roll back")]
    RollBack,
    #[serde(rename = "inconclusive")]
    Inconclusive,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Judged {
    Harm,
    Fine,
    Open,
    Unknown,
}

/// As `Decision.to_dict()` of Python gives it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "Python's documents have these names")]
struct Decision {
    decision: Word,
    reason: String,
    evidence: Vec<Guard>,
    #[serde(deserialize_with = "instant")]
    time: i64,
    champion: String,
    challenger: String,
}

/// The harm that a challenger does by one metric, between its limits: valid however often one looks.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "Python's documents have these names")]
struct Guard {
    guard: String,
    champion: Option<f64>,
    challenger: Option<f64>,
    harm: Option<f64>,
    lower: Option<f64>,
    upper: Option<f64>,
    margin: f64,
    kind: String,
    champion_events: u64,
    challenger_events: u64,
    verdict: Judged,
    reason: Option<String>,
}

/// As `RetrainRequest.to_json()` of Python gives it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Refit {
    id: String,
    #[serde(rename = "barograph", skip_serializing)]
    format: String,
    model: String,
    #[serde(rename(deserialize = "created"), deserialize_with = "instant")]
    time: i64,
    #[serde(deserialize_with = "instant")]
    as_of: i64,
    rows: Filter,
    reason: String,
    evidence: Vec<Evidence>,
}

/// Which predictions to fit on.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    #[serde(default, deserialize_with = "maybe_instant")]
    since: Option<i64>,
    #[serde(deserialize_with = "instant")]
    until: i64,
    version: Option<String>,
    columns: Option<Vec<String>>,
}

/// What made a trigger fire.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Evidence {
    condition: Option<String>,
    name: Option<String>,
    value: Option<f64>,
    lower: Option<f64>,
    upper: Option<f64>,
    limit: Option<f64>,
    rows: Option<i64>,
    #[serde(default, deserialize_with = "maybe_instant")]
    window_start: Option<i64>,
    #[serde(default, deserialize_with = "maybe_instant")]
    window_end: Option<i64>,
    reason: Option<String>,
}

/// What `Trigger.judge` of Python gives: the conditions, the whole last.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Trigger {
    #[serde(deserialize_with = "instant")]
    time: i64,
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "Python's documents have these names")]
struct Condition {
    condition: String,
    /// Whether it holds; `None` is unknown.
    holds: Option<bool>,
    reason: Option<String>,
}

fn read(text: &str) -> Result<i64, String> {
    bounded_instant(text).ok_or_else(|| format!("expected an instant such as 2026-01-31T12:00:00Z, got {text:?}"))
}

fn instant<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    read(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn maybe_instant<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| read(&text)).transpose().map_err(serde::de::Error::custom)
}

/// Its kind, which of that kind it is, when it was, how many are kept, and all of it.
fn kept(told: &Told, model: &str) -> Outcome<(&'static str, String, i64, i64, Value)> {
    let rows = match told {
        Told::Decision(decision) => decision.evidence.len(),
        Told::Request(request) => request.evidence.len(),
        Told::Trigger(trigger) => trigger.conditions.len(),
    };
    if rows > MOST_ROWS {
        return Err(Problem::bad(format!("what is told of a feedback loop must have at most {MOST_ROWS} rows, got {rows}")));
    }
    let (kind, name, time, most, value) = match told {
        Told::Decision(decision) => {
            let name = json!([decision.champion, decision.challenger, decision.time]).to_string();
            ("decision", name, decision.time, MOST_DECISIONS, serde_json::to_value(decision))
        }
        Told::Request(request) => {
            if request.format != "retrain request 1" {
                return Err(Problem::bad(format!("`barograph` must be \"retrain request 1\", got {:?}", request.format)));
            }
            if request.model != model {
                return Err(Problem::bad(format!("the request is of model {:?}, not {model:?}", request.model)));
            }
            ("request", request.id.clone(), request.time, MOST_REQUESTS, serde_json::to_value(request))
        }
        Told::Trigger(trigger) => {
            let Some(whole) = trigger.conditions.last() else {
                return Err(Problem::bad("`conditions` must hold at least one, got none"));
            };
            ("trigger", whole.condition.clone(), trigger.time, MOST_TRIGGERS, serde_json::to_value(trigger))
        }
    };
    let value = value.map_err(|error| Problem::new(500, "internal error", error.to_string()))?;
    Ok((kind, name, time, most, value))
}

/// `POST …/feedback`: keeps a decision, a request to fit again, or what a trigger saw. The same once more is kept once.
pub(super) async fn tell(asked: &Asked, request: &mut Request<Incoming>) -> Outcome<Answer> {
    asked.knows(&[])?;
    crate::fleet::alone(&asked.sidecar)?;
    let sidecar = &asked.sidecar;
    sidecar.models.entry(&asked.model)?;
    let told: Told = super::models::document(asked, request).await?;
    let (kind, name, time, most, value) = kept(&told, &asked.model)?;
    let document = value.to_string();
    if document.len() > MOST_BYTES {
        return Err(Problem::new(413, "too large", format!("what is told must take at most {MOST_BYTES} bytes, got {}", document.len())));
    }
    let feedback = Feedback { kind, name: &name, time, document: &document };
    tokio::task::block_in_place(|| sidecar.control.add_feedback(&asked.model, &feedback, most))?;
    sidecar.tell("feedback", &asked.model);
    Ok(Answer::empty(204))
}

/// `GET …/feedback`: what was told, the newest first.
pub(super) fn feedback(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&["limit"])?;
    let limit = asked.number("limit", 200, 1..=MOST_DECISIONS)?;
    asked.sidecar.models.entry(&asked.model)?;
    let of = |kind: &str| -> Outcome<Vec<Value>> {
        let found = tokio::task::block_in_place(|| asked.sidecar.control.feedback(&asked.model, kind, limit))?;
        Ok(found.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
    };
    document(asked, &json!({"model": asked.model, "decisions": of("decision")?, "requests": of("request")?, "triggers": of("trigger")?}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Result<Told, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn one_thing_is_told_by_its_word() {
        let trigger =
            r#"{"trigger": {"time": "2026-01-31T12:00:00Z", "conditions": [{"condition": "every 30d", "holds": null, "reason": "x"}]}}"#;
        let (kind, name, time, _, value) = kept(&told(trigger).unwrap(), "m").unwrap();
        assert_eq!((kind, name.as_str(), time), ("trigger", "every 30d", 1_769_860_800_000_000_000));
        assert_eq!(value["conditions"][0]["holds"], Value::Null);
        let error = told(r#"{"trigger": {"time": "soon", "conditions": []}}"#).unwrap_err();
        assert!(error.contains("2026-01-31T12:00:00Z") && error.contains("soon"), "{error}");
        assert!(told(r#"{"decision": {"decision": "perhaps"}}"#).unwrap_err().contains("roll back"));
        assert!(told(r#"{"verdict": {}}"#).is_err());
        let empty = told(r#"{"trigger": {"time": "2026-01-31T12:00:00Z", "conditions": []}}"#).unwrap();
        assert!(kept(&empty, "m").unwrap_err().detail.contains("at least one"));
    }

    #[test]
    fn a_request_is_of_its_model() {
        let request = r#"{"request": {"id": "a1", "barograph": "retrain request 1", "model": "m", "created": "2026-01-31T12:00:00Z",
            "as_of": "2026-01-31T12:00:00Z", "rows": {"since": null, "until": "2026-01-31T12:00:00Z", "version": null, "columns": null},
            "reason": "every 30d", "evidence": []}}"#;
        let request = told(request).unwrap();
        let (kind, name, .., value) = kept(&request, "m").unwrap();
        assert_eq!((kind, name.as_str(), &value["rows"]["since"]), ("request", "a1", &Value::Null));
        assert!(value["time"].is_i64() && value.get("barograph").is_none());
        assert!(kept(&request, "other").unwrap_err().detail.contains("\"m\""));
    }
}
