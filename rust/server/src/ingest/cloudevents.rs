//! Inference events as `CloudEvents` over HTTP (<https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/http-protocol-binding.md>), as
//! the payload logger of `KServe` (<https://kserve.github.io/website/docs/model-serving/predictive-inference/logger>) and Seldon send them:
//! request and response are two events, with bodies of the [Open Inference Protocol](super::open_inference) or `KServe`'s V1.
//!
//! Both carry one id, by which they are joined: `ce-id`, or for Seldon, whose two events have ids of their own, `ce-requestid`. Row `r` of a
//! body of several rows is `id/r`. Columns of the body that the owner made ids or times are left out and counted: these are the event's.

use std::fmt;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, TimestampNanosecondArray};
use arrow_schema::{DataType, Field};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::open_inference::{self, Tensors, Top, Wanted, ids};
use crate::problem::{Outcome, Problem};
use crate::rows::{batch_of, instant, time_type};
use crate::shape::{Mark, Shape};

/// Which side of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What the model was asked.
    Request,
    /// What it answered.
    Response,
}

impl Side {
    /// Types of events and their sides.
    const TYPES: [(&'static str, Self); 4] = [
        ("org.kubeflow.serving.inference.request", Self::Request),
        ("org.kubeflow.serving.inference.response", Self::Response),
        ("io.seldon.serving.inference.request", Self::Request),
        ("io.seldon.serving.inference.response", Self::Response),
    ];

    fn of(kind: &str) -> Outcome<Self> {
        Self::TYPES.into_iter().find(|(name, _)| *name == kind).map(|(_, side)| side).ok_or_else(|| {
            let known: Vec<&str> = Self::TYPES.iter().map(|(name, _)| *name).collect();
            Problem::bad(format!("the type of a CloudEvent must be one of {}, got {kind:?}", known.join(", ")))
        })
    }
}

/// One side of events.
#[derive(Clone, Debug)]
pub struct Half {
    /// Which one.
    pub side: Side,
    /// `_id` as keys for the join, `_time` if the events say it, and the columns of their bodies.
    pub batch: RecordBatch,
    /// Values that are no column of the model.
    pub unknown: u64,
    /// Values of another kind than their column, which count as null.
    pub mistyped: u64,
}

/// Halves of a request, in binary, structured or batch mode: as few batches as there are sides and schemas.
///
/// # Errors
/// `Problem` for what is no `CloudEvent` of inference; then nothing of the request is taken.
pub fn decode(header: &dyn Fn(&str) -> Option<String>, body: &[u8], shape: &Arc<Shape>) -> Outcome<Vec<Half>> {
    let kind = header("content-type").unwrap_or_default().to_ascii_lowercase();
    let wrong = |error: serde_json::Error| Problem::bad(format!("the body is no CloudEvent as JSON: {error}"));
    if kind.starts_with("application/cloudevents-batch+json") {
        let events: Vec<Attributes> = serde_json::from_slice(body).map_err(wrong)?;
        let wanted = events.iter().map(|event| Ok(event.wanted(event.side()?))).collect::<Outcome<Vec<_>>>()?;
        let mut reader = serde_json::Deserializer::from_slice(body);
        let contents = Contents { wanted: &wanted, shape }.deserialize(&mut reader).map_err(wrong)?;
        let halves = events.into_iter().zip(contents).map(|(event, content)| event.half(content, shape)).collect::<Outcome<Vec<_>>>()?;
        return together(halves);
    }
    if kind.starts_with("application/cloudevents+json") {
        let event: Attributes = serde_json::from_slice(body).map_err(wrong)?;
        let wanted = event.wanted(event.side()?);
        let mut reader = serde_json::Deserializer::from_slice(body);
        let content = Content { wanted, shape }.deserialize(&mut reader).map_err(wrong)?;
        return Ok(vec![event.half(content, shape)?]);
    }
    let Some(name) = header("ce-type") else {
        return Err(Problem::bad("a CloudEvent must have the header `ce-type`, or come as application/cloudevents+json"));
    };
    let event = Attributes {
        id: header("ce-id").unwrap_or_default(),
        kind: name,
        time: header("ce-time"),
        request: header("ce-requestid"),
        status: header("ce-statuscode").map(Status::Text),
        nothing: body.iter().all(u8::is_ascii_whitespace),
    };
    let side = event.side()?;
    let length = match header("inference-header-content-length") {
        Some(text) => Some(
            text.trim()
                .parse()
                .map_err(|_| Problem::bad(format!("`Inference-Header-Content-Length` must be a whole number, got {text:?}")))?,
        ),
        None => None,
    };
    let tensors = match event.wanted(side) {
        None => None,
        Some(Wanted::Request) => Some(open_inference::request(body, length, shape)?),
        Some(_) => Some(open_inference::response(body, length, shape)?),
    };
    Ok(vec![event.whole(side, tensors, shape)?])
}

/// What a `CloudEvent` says beside its data.
#[derive(Clone, Debug, Deserialize)]
struct Attributes {
    #[serde(default)]
    id: String,
    #[serde(rename = "type")]
    kind: String,
    time: Option<String>,
    #[serde(rename = "requestid")]
    request: Option<String>,
    /// Of responses that are logged although they failed.
    #[serde(rename = "statuscode")]
    status: Option<Status>,
    /// Whether there is no data.
    #[serde(skip)]
    nothing: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Status {
    Number(u16),
    Text(String),
}

impl Attributes {
    fn side(&self) -> Outcome<Side> {
        Side::of(&self.kind)
    }

    fn failed(&self) -> bool {
        let code = match &self.status {
            Some(Status::Number(code)) => Some(*code),
            Some(Status::Text(text)) => text.trim().parse().ok(),
            None => None,
        };
        code.is_some_and(|code| !(200..300).contains(&code))
    }

    /// What is read of the data; nothing of a response that failed, whose data are words about it.
    fn wanted(&self, side: Side) -> Option<Wanted> {
        match side {
            Side::Request => Some(Wanted::Request),
            Side::Response if self.failed() || self.nothing => None,
            Side::Response => Some(Wanted::Response),
        }
    }

    /// The half of an event whose data stand in JSON.
    fn half(self, content: Given, shape: &Arc<Shape>) -> Outcome<Half> {
        let side = self.side()?;
        let wanted = self.wanted(side);
        let tensors = match (wanted, content) {
            (Some(Wanted::Request), Given::Parsed(parsed)) => Some(parsed.request(&[], shape)?),
            (Some(_), Given::Parsed(parsed)) => Some(parsed.response(&[], shape)?),
            (Some(wanted), Given::Bytes(bytes)) => Some(match wanted {
                Wanted::Request => open_inference::request(&bytes, None, shape)?,
                _ => open_inference::response(&bytes, None, shape)?,
            }),
            (None, _) | (Some(Wanted::Response), Given::Nothing) => None,
            (Some(_), Given::Nothing) => return Err(Problem::bad(format!("the CloudEvent {:?} has no `data`", self.id))),
        };
        self.whole(side, tensors, shape)
    }

    fn whole(self, side: Side, tensors: Option<Tensors>, shape: &Shape) -> Outcome<Half> {
        let seldon = self.kind.starts_with("io.seldon.");
        let id = self.request.as_ref().filter(|id| seldon && !id.is_empty()).unwrap_or(&self.id);
        if id.is_empty() {
            return Err(Problem::bad("a CloudEvent must have an `id`").hint("in binary mode it is the header `ce-id`"));
        }
        let time = match &self.time {
            Some(text) => Some(instant(text).ok_or_else(|| {
                Problem::bad(format!("the `time` of a CloudEvent must be an instant such as 2026-01-31T12:00:00Z, got {text:?}"))
            })?),
            None => None,
        };
        let (rows, mut unknown, mistyped, columns) = match tensors {
            Some(tensors) => (tensors.rows, tensors.unknown, tensors.mistyped, tensors.columns),
            None => (1, 0, 0, Vec::new()),
        };
        let mut all = vec![ids(id, rows, shape)?];
        if let Some(time) = time {
            let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![time; rows]).with_timezone("UTC"));
            all.push((Field::new(Mark::Time.name(), time_type(), true), times));
        }
        for (field, array) in columns {
            if [Mark::Id, Mark::Time].iter().any(|mark| mark.name() == field.name()) {
                unknown += (array.len() - array.logical_null_count()) as u64;
            } else {
                all.push((field, array));
            }
        }
        if self.failed() && side == Side::Response {
            all.retain(|(field, _)| field.name() != Mark::Error.name());
            all.push((Field::new(Mark::Error.name(), DataType::Boolean, true), Arc::new(BooleanArray::from(vec![true; rows]))));
        }
        Ok(Half { side, batch: batch_of(all, rows)?, unknown, mistyped })
    }
}

/// Halves of one side and schema as one.
fn together(halves: Vec<Half>) -> Outcome<Vec<Half>> {
    let mut groups: Vec<(Half, Vec<RecordBatch>)> = Vec::new();
    for half in halves {
        let alike =
            |group: &&mut (Half, Vec<RecordBatch>)| group.0.side == half.side && group.0.batch.schema_ref() == half.batch.schema_ref();
        if let Some((first, batches)) = groups.iter_mut().find(alike) {
            first.unknown += half.unknown;
            first.mistyped += half.mistyped;
            batches.push(half.batch);
        } else {
            let batches = vec![half.batch.clone()];
            groups.push((half, batches));
        }
    }
    let whole = |(first, batches): (Half, Vec<RecordBatch>)| {
        let batch = arrow_select::concat::concat_batches(first.batch.schema_ref(), &batches)
            .map_err(|error| Problem::bad(format!("the events could not be gathered: {error}")))?;
        Ok(Half { batch, ..first })
    };
    groups.into_iter().map(whole).collect()
}

/// The data of an event in JSON.
enum Given {
    Nothing,
    Parsed(Box<open_inference::Parsed>),
    Bytes(Vec<u8>),
}

/// The data of the events of a batch.
struct Contents<'a> {
    wanted: &'a [Option<Wanted>],
    shape: &'a Arc<Shape>,
}

impl<'de> DeserializeSeed<'de> for Contents<'_> {
    type Value = Vec<Given>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Contents<'_> {
    type Value = Vec<Given>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of CloudEvents")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut out = Vec::with_capacity(self.wanted.len());
        for wanted in self.wanted {
            out.extend(seq.next_element_seed(Content { wanted: *wanted, shape: self.shape })?);
        }
        Ok(out)
    }
}

/// The data of an event: its other attributes have been read.
struct Content<'a> {
    wanted: Option<Wanted>,
    shape: &'a Arc<Shape>,
}

impl<'de> DeserializeSeed<'de> for Content<'_> {
    type Value = Given;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Given, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Content<'_> {
    type Value = Given;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CloudEvent, an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
        let mut out = Given::Nothing;
        while let Some(key) = map.next_key::<String>()? {
            match (key.as_str(), self.wanted) {
                ("data", Some(wanted)) => out = map.next_value_seed(Value { wanted, shape: self.shape })?,
                ("data_base64", Some(_)) => {
                    if let Some(text) = map.next_value::<Option<String>>()? {
                        let bytes =
                            STANDARD.decode(&text).map_err(|error| A::Error::custom(format!("`data_base64` is no base64: {error}")))?;
                        out = Given::Bytes(bytes);
                    }
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(out)
    }
}

/// The value of `data`: an object, or the text of one, where the logger did not know that it is JSON.
struct Value<'a> {
    wanted: Wanted,
    shape: &'a Arc<Shape>,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Given;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Given, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Given;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body of an inference, an object")
    }

    fn visit_unit<E>(self) -> Result<Given, E> {
        Ok(Given::Nothing)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Given, E> {
        Ok(if text.trim().is_empty() { Given::Nothing } else { Given::Bytes(text.as_bytes().to_vec()) })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Given, A::Error> {
        Top { wanted: self.wanted, shape: self.shape, inner: false }.visit_map(map).map(|parsed| Given::Parsed(Box::new(parsed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float64Type, TimestampNanosecondType};
    use barograph_engine::labels::key_of_name;
    use std::collections::BTreeMap;

    fn open() -> Arc<Shape> {
        Arc::new(Shape { open: true, ..Shape::new(&BTreeMap::new(), &[], None) })
    }

    fn sent(headers: &[(&str, &str)], body: &[u8]) -> Outcome<Vec<Half>> {
        let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        decode(&header, body, &open())
    }

    fn names(half: &Half) -> Vec<&str> {
        half.batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect()
    }

    fn key(half: &Half, row: usize) -> u128 {
        u128::from_be_bytes(half.batch.column_by_name("_id").unwrap().as_fixed_size_binary().value(row).try_into().unwrap())
    }

    /// Attributes of the events in `KServe`'s guide to its logger.
    const ID: &str = "0009174a-24a8-4603-b098-09c8799950e9";
    const COMMON: [(&str, &str); 6] = [
        ("ce-specversion", "1.0"),
        ("ce-source", "http://localhost:9081/"),
        ("ce-id", ID),
        ("ce-inferenceservicename", "sklearn-iris"),
        ("ce-namespace", "default"),
        ("ce-endpoint", ""),
    ];
    const REQUEST: [(&str, &str); 3] = [
        ("ce-type", "org.kubeflow.serving.inference.request"),
        ("ce-time", "2021-04-10T00:23:26.0789529Z"),
        // Of a `curl -d` without a type of its own.
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    const RESPONSE: [(&str, &str); 3] = [
        ("ce-type", "org.kubeflow.serving.inference.response"),
        ("ce-time", "2021-04-10T00:23:26.080736102Z"),
        ("content-type", "application/json"),
    ];
    const INSTANCES: &str = r#"{"instances": [[6.8,  2.8,  4.8,  1.4],[6.0,  3.4,  4.5,  1.6]]}"#;
    const PREDICTIONS: &str = r#"{"predictions": [1, 1]}"#;

    #[test]
    fn the_events_of_a_logger_are_two_halves() {
        let asked = sent(&[&COMMON[..], &REQUEST].concat(), INSTANCES.as_bytes()).unwrap().remove(0);
        assert_eq!((asked.side, names(&asked)), (Side::Request, vec!["_id", "_time", "input.0", "input.1", "input.2", "input.3"]));
        assert_eq!((key(&asked, 0), key(&asked, 1)), (key_of_name(&format!("{ID}/0")), key_of_name(&format!("{ID}/1"))));
        let answered = sent(&[&COMMON[..], &RESPONSE].concat(), PREDICTIONS.as_bytes()).unwrap().remove(0);
        assert_eq!((answered.side, names(&answered)), (Side::Response, vec!["_id", "_time", "_prediction"]));
        let mut pairing = crate::pairing::Pairing::default();
        pairing.add(answered.side, &answered.batch, 1).unwrap();
        let events = pairing.add(asked.side, &asked.batch, 1).unwrap().unwrap();
        assert_eq!(events.num_rows(), 2);
        assert_eq!(events.column_by_name("_latency_seconds").unwrap().as_primitive::<Float64Type>().value(0), 0.001_783_202);

        // The bodies of KServe's own tests of its logger: one row, whose id is the event's.
        let one = sent(&[&COMMON[..], &REQUEST].concat(), br#"{"instances":[[0,0,0]]}"#).unwrap().remove(0);
        assert_eq!((one.batch.num_rows(), key(&one, 0)), (1, key_of_name(ID)));
        let times = one.batch.column_by_name("_time").unwrap().as_primitive::<TimestampNanosecondType>();
        assert_eq!(times.value(0), 1_618_014_206_078_952_900);
    }

    #[test]
    fn structured_events_are_the_same_as_binary_ones() {
        let binary = sent(&[&COMMON[..], &REQUEST].concat(), INSTANCES.as_bytes()).unwrap().remove(0);
        let event = |data: String| {
            format!(
                r#"{{{data},"specversion":"1.0","type":"{}","source":"http://localhost:9081/","id":"{ID}","time":"{}"}}"#,
                REQUEST[0].1, REQUEST[1].1
            )
        };
        let text = serde_json::to_string(INSTANCES).unwrap();
        let coded = STANDARD.encode(INSTANCES);
        let kinds = [format!("\"data\":{INSTANCES}"), format!("\"data\":{text}"), format!("\"data_base64\":\"{coded}\"")];
        for data in &kinds {
            let one = sent(&[("content-type", "application/cloudevents+json; charset=utf-8")], event(data.clone()).as_bytes()).unwrap();
            assert_eq!((one.len(), &one[0].batch), (1, &binary.batch), "{data}");
        }
        let response = format!(
            r#"{{"specversion":"1.0","type":"{}","source":"/","id":"{ID}","time":"{}","data":{PREDICTIONS}}}"#,
            RESPONSE[0].1, RESPONSE[1].1
        );
        let all = kinds.map(event).join(",");
        let batch = sent(&[("content-type", "application/cloudevents-batch+json")], format!("[{all},{response}]").as_bytes()).unwrap();
        assert_eq!(
            batch.iter().map(|half| (half.side, half.batch.num_rows())).collect::<Vec<_>>(),
            [(Side::Request, 6), (Side::Response, 2)]
        );
        assert!(sent(&[("content-type", "application/cloudevents-batch+json")], b"[]").unwrap().is_empty());
    }

    #[test]
    fn events_of_seldon_are_joined_by_their_request() {
        // From the documentation of Seldon Core 2; the executor of Seldon Core 1 gives each event an id of its own.
        let headers = |id| {
            [
                ("ce-requestid", "0757e893-64c9-411f-8937-f0f4774852ef"),
                ("ce-specversion", "0.3"),
                ("ce-source", "io.seldon.serving.deployment.mlserver"),
                ("ce-type", "io.seldon.serving.inference.response"),
                ("ce-id", id),
            ]
        };
        let body = br#"{"model_name":"iris_1","model_version":"1","id":"0757e893-64c9-411f-8937-f0f4774852ef",
            "outputs":[{"name":"predict","shape":[1],"datatype":"INT64","parameters":null,"data":[2]}]}"#;
        for id in ["0757e893-64c9-411f-8937-f0f4774852ef", "another"] {
            let half = sent(&headers(id), body).unwrap().remove(0);
            assert_eq!(
                (key(&half, 0), names(&half)),
                (key_of_name("0757e893-64c9-411f-8937-f0f4774852ef"), vec!["_id", "_prediction", "_version"])
            );
        }
    }

    #[test]
    fn responses_that_failed_are_errors() {
        // `logAllResponses` of KServe.
        let failed = [&COMMON[..], &RESPONSE, &[("ce-statuscode", "422")]].concat();
        let half = sent(&failed, br#"{"error":"Failed to process request: unexpected feature count"}"#).unwrap().remove(0);
        assert_eq!(names(&half), ["_id", "_time", "_error"]);
        let event = format!(r#"{{"type":"{}","id":"a","statuscode":503,"data":[1,{{}}]}}"#, RESPONSE[0].1);
        let half = sent(&[("content-type", "application/cloudevents+json")], event.as_bytes()).unwrap().remove(0);
        assert_eq!(names(&half), ["_id", "_error"]);
        let empty = sent(&[&COMMON[..], &RESPONSE, &[("ce-statuscode", "204")]].concat(), b"").unwrap().remove(0);
        assert_eq!(names(&empty), ["_id", "_time"]);
    }

    #[test]
    fn ids_and_times_are_those_of_the_event() {
        let body = br#"{"inputs":[{"name":"_id","shape":[1],"datatype":"INT64","data":[5]},{"name":"x","shape":[1],"datatype":"FP32","data":[5]}]}"#;
        let half = sent(&[&COMMON[..], &REQUEST].concat(), body).unwrap().remove(0);
        assert_eq!((names(&half), half.unknown, key(&half, 0)), (vec!["_id", "_time", "x"], 1, key_of_name(ID)));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let with = |name: &'static str, value: &'static str| {
            let mut headers = [&COMMON[..], &REQUEST].concat();
            headers.retain(|(known, _)| *known != name);
            headers.push((name, value));
            sent(&headers, INSTANCES.as_bytes())
        };
        let problem = with("ce-type", "org.kubeflow.serving.inference.feedback").unwrap_err();
        assert!(problem.status == 400 && problem.detail.contains("io.seldon.serving.inference.response"), "{problem:?}");
        assert!(with("ce-id", "").unwrap_err().detail.contains("`id`"));
        assert!(with("ce-time", "soon").unwrap_err().detail.contains("soon"));
        assert!(with("inference-header-content-length", "-1").is_err() && with("inference-header-content-length", "3").is_err());
        assert!(sent(&[], b"{}").unwrap_err().detail.contains("ce-type"));
        assert!(sent(&[&COMMON[..], &REQUEST].concat(), b"").is_err());
        let structured = [("content-type", "application/cloudevents+json")];
        let deep = format!(r#"{{"type":"{}","id":"a","data":{}}}"#, REQUEST[0].1, "[".repeat(100_000));
        let quoted = format!(r#"{{"type":"{}","id":"a","data":"\"{{}}\""}}"#, REQUEST[0].1);
        for body in ["", "{}", "[]", &deep, &quoted, r#"{"type":"org.kubeflow.serving.inference.request","id":"a"}"#] {
            assert!(sent(&structured, body.as_bytes()).is_err(), "{}", &body[..body.len().min(100)]);
        }
        assert!(sent(&[("content-type", "application/cloudevents-batch+json")], b"[{}]").is_err());
    }
}
