//! What Amazon `SageMaker` captures of an endpoint, as lines of JSON
//! (<https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html>), and its ground truth
//! (<https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-model-quality-merge.html>).
//!
//! Values of CSV have no names: of inputs they are `input.0`, `input.1` and so on, also where a model has as many features, as nothing says
//! that they come in one order. Of outputs the first value is `_prediction`; others are counted as unknown. JSON objects give features by
//! name. The id is `inferenceId`, or else `eventId`; of a line of several rows, row `r` has the id `id/r`. Lines that cannot be taken are
//! refused one by one.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::problem::Outcome;
use crate::rows::{Decoded, Rows, Value};
use crate::shape::{MOST_COLUMNS, Mark, Shape};

/// Decodes captured calls and ground truth; lines that are neither are refused one by one.
///
/// # Errors
/// `Problem` if the rows cannot be gathered.
pub fn decode(body: &[u8], shape: Arc<Shape>) -> Outcome<Decoded> {
    let mut rows = Rows::new(shape);
    let mut unknown = 0;
    for line in body.split(|byte| *byte == b'\n') {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if let Err(why) = read(line, &mut rows, &mut unknown) {
            rows.begin();
            rows.refuse(why);
        }
    }
    let mut out = rows.finish()?;
    out.unknown += unknown;
    Ok(out)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(borrow)]
    capture_data: Option<Capture<'a>>,
    #[serde(borrow)]
    ground_truth_data: Option<Payload<'a>>,
    #[serde(borrow)]
    event_metadata: Metadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Capture<'a> {
    #[serde(borrow)]
    endpoint_input: Option<Payload<'a>>,
    #[serde(borrow)]
    endpoint_output: Option<Payload<'a>>,
    #[serde(borrow)]
    batch_transform_input: Option<Payload<'a>>,
    #[serde(borrow)]
    batch_transform_output: Option<Payload<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    #[serde(borrow)]
    observed_content_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(borrow)]
    encoding: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    event_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    inference_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    inference_time: Option<Cow<'a, str>>,
}

/// The rows of a payload.
enum Content {
    Csv(Vec<Vec<String>>),
    Json(Vec<Json>),
    /// There, but not text: an image, for example.
    Opaque,
}

impl Content {
    fn rows(&self) -> Option<usize> {
        match self {
            Self::Csv(rows) => Some(rows.len()),
            Self::Json(rows) => Some(rows.len()),
            Self::Opaque => None,
        }
    }
}

fn read(line: &[u8], rows: &mut Rows, unknown: &mut u64) -> Result<(), String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| {
        let text = error.to_string();
        text.split(" at line ").next().unwrap_or_default().to_owned()
    })?;
    let metadata = &line.event_metadata;
    let id = [&metadata.inference_id, &metadata.event_id].into_iter().flatten().find(|id| !id.is_empty());
    let id = id.ok_or("`eventMetadata` must have an `inferenceId` or an `eventId`")?;
    let name = |row: usize, all: usize| if all == 1 { id.to_string() } else { format!("{id}/{row}") };
    if let Some(truth) = &line.ground_truth_data {
        let content = content(truth)?;
        let all = content.rows().ok_or("`groundTruthData` must be CSV or JSON")?;
        for row in 0..all {
            taken(rows, |rows| {
                let found = output(&content, row);
                *unknown += found.others;
                rows.field(Mark::Id.name(), &Value::Text(&name(row, all)))?;
                rows.field(Mark::Label.name(), &found.first.value())
            });
        }
        return if all == 0 { Err("`groundTruthData` holds nothing".to_owned()) } else { Ok(()) };
    }
    let capture = line.capture_data.ok_or("a line must have `captureData` or `groundTruthData`")?;
    let asked = capture.endpoint_input.or(capture.batch_transform_input).map(|payload| content(&payload)).transpose()?;
    let answered = capture.endpoint_output.or(capture.batch_transform_output).map(|payload| content(&payload)).transpose()?;
    let sizes: Vec<usize> = [&asked, &answered].into_iter().flatten().filter_map(Content::rows).collect();
    let all = match sizes.as_slice() {
        [] => return Err("`captureData` must have an input or an output that is text".to_owned()),
        [inputs, outputs] if inputs != outputs => return Err(format!("inputs have {inputs} rows, outputs {outputs}")),
        [all, ..] => *all,
    };
    if all == 0 {
        return Err("`captureData` holds no rows".to_owned());
    }
    for row in 0..all {
        taken(rows, |rows| {
            rows.field(Mark::Id.name(), &Value::Text(&name(row, all)))?;
            if let Some(time) = &metadata.inference_time {
                rows.field(Mark::Time.name(), &Value::Text(time))?;
            }
            if let Some(content) = &asked {
                input(rows, content, row)?;
            }
            if let Some(content) = &answered {
                let found = output(content, row);
                *unknown += found.others;
                rows.field(Mark::Prediction.name(), &found.first.value())?;
                if let Some(score) = &found.score {
                    rows.field(Mark::Score.name(), &score.value())?;
                }
            }
            Ok(())
        });
    }
    Ok(())
}

/// A row that is taken, or refused.
fn taken(rows: &mut Rows, fields: impl FnOnce(&mut Rows) -> Result<(), String>) {
    rows.begin();
    match fields(rows) {
        Ok(()) => rows.end(),
        Err(why) => rows.refuse(why),
    }
}

fn content(payload: &Payload<'_>) -> Result<Content, String> {
    let encoding = payload.encoding.as_deref().unwrap_or("CSV");
    let kind = payload.observed_content_type.as_deref().unwrap_or_default().to_ascii_lowercase();
    match encoding {
        "CSV" => Ok(Content::Csv(csv(&payload.data))),
        "JSON" => Ok(Content::Json(json(&payload.data)?)),
        "BASE64" => {
            let bytes = STANDARD.decode(payload.data.trim().as_bytes()).map_err(|error| format!("`data` is no base64: {error}"))?;
            let Ok(text) = String::from_utf8(bytes) else { return Ok(Content::Opaque) };
            let begins = text.trim_start().starts_with(['{', '[']);
            match kind.as_str() {
                kind if kind.contains("json") => Ok(Content::Json(json(&text)?)),
                kind if kind.contains("csv") => Ok(Content::Csv(csv(&text))),
                _ if begins => Ok(Content::Json(json(&text)?)),
                "" | "text/plain" => Ok(Content::Csv(csv(&text))),
                _ => Ok(Content::Opaque),
            }
        }
        other => Err(format!("`encoding` must be CSV, JSON or BASE64, got {other:?}")),
    }
}

/// The rows of JSON: of an array its elements, of `instances` and `predictions` theirs, of lines each, else the one value.
fn json(text: &str) -> Result<Vec<Json>, String> {
    let mut found = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Json>() {
        found.push(value.map_err(|error| format!("`data` is no JSON: {error}"))?);
    }
    if found.len() != 1 {
        return Ok(found);
    }
    Ok(match found.pop() {
        Some(Json::Object(mut object)) => match ["instances", "predictions"].iter().find_map(|key| object.remove(*key)) {
            Some(Json::Array(rows)) => rows,
            Some(other) => vec![other],
            None => vec![Json::Object(object)],
        },
        Some(Json::Array(rows)) if rows.iter().any(|row| row.is_array() || row.is_object()) => rows,
        Some(other) => vec![other],
        None => Vec::new(),
    })
}

/// The rows of CSV (RFC 4180); lines that are empty are none.
fn csv(text: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let (mut row, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                cell.push('"');
            }
            '"' if quoted || cell.is_empty() => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            '\r' if !quoted => {}
            c => cell.push(c),
        }
    }
    row.push(cell);
    rows.push(row);
    rows.retain(|row| row.iter().any(|cell| !cell.trim().is_empty()));
    rows
}

/// A value of its own.
enum Cell {
    Plain(Value<'static>),
    Text(String),
}

impl Cell {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Text(text) => Value::Text(text),
        }
    }

    fn of_text(text: &str) -> Self {
        let text = text.trim();
        if text.is_empty() {
            return Self::Plain(Value::Null);
        }
        if let Ok(whole) = text.parse::<i128>() {
            return Self::Plain(Value::Whole(whole));
        }
        // Words such as "inf" and "nan" may be names as well.
        match text.parse::<f64>() {
            Ok(number) if text.ends_with(|c: char| c.is_ascii_digit() || c == '.') => Self::Plain(Value::Number(number)),
            _ => Self::Text(text.to_owned()),
        }
    }

    fn of_json(json: &Json) -> Self {
        Self::Plain(match json {
            Json::Null => Value::Null,
            Json::Bool(flag) => Value::Flag(*flag),
            Json::Number(number) => match (number.as_i128(), number.as_f64()) {
                (Some(whole), _) => Value::Whole(whole),
                (None, Some(number)) => Value::Number(number),
                (None, None) => Value::Other,
            },
            Json::String(text) => return Self::Text(text.clone()),
            Json::Array(items) => items.iter().map(Json::as_f64).collect::<Option<Vec<_>>>().map_or(Value::Other, Value::Many),
            Json::Object(_) => Value::Other,
        })
    }
}

/// The features of a row.
fn input(rows: &mut Rows, content: &Content, row: usize) -> Result<(), String> {
    let numbered = |rows: &mut Rows, cells: &mut dyn Iterator<Item = Cell>| {
        for (at, cell) in cells.enumerate() {
            if at >= MOST_COLUMNS {
                return Err(format!("an event has at most {MOST_COLUMNS} fields"));
            }
            rows.field(&format!("input.{at}"), &cell.value())?;
        }
        Ok(())
    };
    match content {
        Content::Csv(all) => numbered(rows, &mut all.get(row).into_iter().flatten().map(|cell| Cell::of_text(cell))),
        Content::Json(all) => match all.get(row) {
            Some(Json::Object(object)) => match object.get("features") {
                Some(Json::Array(cells)) if object.len() == 1 => numbered(rows, &mut cells.iter().map(Cell::of_json)),
                _ => object.iter().try_for_each(|(name, value)| rows.field(name, &Cell::of_json(value).value())),
            },
            Some(Json::Array(cells)) => numbered(rows, &mut cells.iter().map(Cell::of_json)),
            Some(other) => numbered(rows, &mut std::iter::once(Cell::of_json(other))),
            None => Ok(()),
        },
        Content::Opaque => Ok(()),
    }
}

/// What a row of an output holds.
struct Answer {
    first: Cell,
    score: Option<Cell>,
    /// Values that are neither.
    others: u64,
}

fn output(content: &Content, row: usize) -> Answer {
    let nothing = Answer { first: Cell::Plain(Value::Null), score: None, others: 0 };
    match content {
        Content::Csv(all) => all.get(row).map_or(nothing, |cells| Answer {
            first: Cell::of_text(cells.first().map_or("", String::as_str)),
            score: None,
            others: cells.len().saturating_sub(1) as u64,
        }),
        Content::Json(all) => match all.get(row) {
            // Linear learner and others: {"score": 0.99, "predicted_label": 1}.
            Some(Json::Object(object)) => {
                let named =
                    |words: &[&str]| object.iter().find(|(name, _)| words.iter().any(|word| name.to_ascii_lowercase().contains(word)));
                let score = named(&["score", "prob"]);
                let first = named(&["predict", "label", "class", "output"]).filter(|(name, _)| Some(*name) != score.map(|(name, _)| name));
                let number = |cell: &Cell| matches!(cell.value(), Value::Number(_) | Value::Whole(_) | Value::Many(_));
                let score = score.map(|(_, value)| Cell::of_json(value)).filter(number);
                let used = u64::from(first.is_some()) + u64::from(score.is_some());
                Answer {
                    first: first.map_or(Cell::Plain(Value::Null), |(_, value)| Cell::of_json(value)),
                    score,
                    others: object.len() as u64 - used,
                }
            }
            Some(Json::Array(cells)) => Answer {
                first: cells.first().map_or(Cell::Plain(Value::Null), Cell::of_json),
                score: None,
                others: cells.len().saturating_sub(1) as u64,
            },
            Some(other) => Answer { first: Cell::of_json(other), ..nothing },
            None => nothing,
        },
        Content::Opaque => nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float64Type, TimestampNanosecondType};
    use barograph_engine::labels::key_of_name;
    use std::collections::BTreeMap;

    fn open() -> Arc<Shape> {
        Arc::new(Shape { open: true, ..Shape::new(&BTreeMap::new(), &[], None) })
    }

    fn numbers(decoded: &Decoded, name: &str) -> Vec<Option<f64>> {
        decoded.batch.column_by_name(name).unwrap().as_primitive::<Float64Type>().iter().collect()
    }

    /// From the developer guide of `SageMaker`, "Capture data from real-time endpoint".
    const CAPTURED: &str = concat!(
        r#"{"captureData":{"endpointInput":{"observedContentType":"text/csv","mode":"INPUT","data":"#,
        r#""69,0,153.7,109,194.0,105,256.1,114,14.1,6,1,0,1,0\n","encoding":"CSV"},"endpointOutput":{"observedContentType":"#,
        r#""text/csv; charset=utf-8","mode":"OUTPUT","data":"0.0254181120544672","encoding":"CSV"}},"#,
        r#""eventMetadata":{"eventId":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee","inferenceTime":"2022-02-14T17:25:49Z"},"eventVersion":"0"}"#
    );

    fn line(input: &str, output: &str, metadata: &str) -> String {
        let payload = |data: &str, encoding: &str| {
            format!(
                r#"{{"observedContentType":"text/plain","mode":"M","data":{},"encoding":"{encoding}"}}"#,
                serde_json::to_string(data).unwrap()
            )
        };
        let of = |text: &str| text.split_once(':').map(|(encoding, data)| payload(data, encoding)).unwrap();
        format!(
            r#"{{"captureData":{{"endpointInput":{},"endpointOutput":{}}},"eventMetadata":{metadata},"eventVersion":"0"}}"#,
            of(input),
            of(output)
        )
    }

    #[test]
    fn a_captured_call_is_an_event() {
        let out = decode(format!("{CAPTURED}\n\n").as_bytes(), open()).unwrap();
        assert_eq!((out.batch.num_rows(), out.refusals, out.batch.num_columns()), (1, 0, 14 + 3));
        assert_eq!((numbers(&out, "input.2"), numbers(&out, "_prediction")), (vec![Some(153.7)], vec![Some(0.025_418_112_054_467_2)]));
        let time = out.batch.column_by_name("_time").unwrap().as_primitive::<TimestampNanosecondType>();
        assert_eq!(time.value(0), 1_644_859_549_000_000_000);
        let id = out.batch.column_by_name("_id").unwrap().as_fixed_size_binary();
        assert_eq!(id.value(0), key_of_name("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee").to_be_bytes());
    }

    #[test]
    fn ground_truth_is_labels() {
        // From the developer guide, "Ingest Ground Truth labels and merge them with predictions".
        let body = r#"{"groundTruthData":{"data":"1","encoding":"CSV"},"eventMetadata":{"eventId":"aaaa-bbbb-cccc"},"eventVersion":"0"}
{"groundTruthData":{"data":"0","encoding":"CSV"},"eventMetadata":{"eventId":"e","inferenceId":"i"},"eventVersion":"0"}
{"groundTruthData":{"data":"[0.5]","encoding":"JSON"},"eventMetadata":{"eventId":"f"}}"#;
        let out = decode(body.as_bytes(), open()).unwrap();
        assert_eq!((numbers(&out, "_label"), out.batch.num_columns()), (vec![Some(1.0), Some(0.0), Some(0.5)], 2));
        assert_eq!(out.batch.column_by_name("_id").unwrap().as_fixed_size_binary().value(1), key_of_name("i").to_be_bytes());
        let classes = Arc::new(Shape { open: true, ..Shape::new(&BTreeMap::new(), &["0".to_owned(), "2".to_owned()], None) });
        let out = decode(body.as_bytes(), classes).unwrap();
        assert_eq!((out.batch.num_rows(), out.refusals), (1, 2));
    }

    #[test]
    fn encodings_and_rows_of_a_line() {
        let meta = r#"{"eventId":"e"}"#;
        let coded = STANDARD.encode("1,2\n3,\"a, \"\"b\"\"\"\r\n");
        let lines = [
            line("JSON:{\"x\":1.5,\"c\":\"a\"}", "JSON:{\"predictions\":[{\"score\":0.75,\"predicted_label\":1}]}", meta),
            line("CSV:1,2\n3,4\n", "CSV:0.5,9\n0.25,9\n", meta),
            line(&format!("BASE64:{coded}"), "JSON:[[1],[2]]", meta),
            line("JSON:{\"instances\":[{\"features\":[7,8]}]}", "JSON:3", meta),
            line("BASE64:/9j/4AAQ", "CSV:1", meta),
        ];
        let out = decode(lines.join("\n").as_bytes(), open()).unwrap();
        assert_eq!((out.batch.num_rows(), out.refused.clone(), out.unknown), (7, vec![], 2));
        assert_eq!(numbers(&out, "_prediction"), [1.0, 0.5, 0.25, 1.0, 2.0, 3.0, 1.0].map(Some));
        assert_eq!(numbers(&out, "input.0"), [None, Some(1.0), Some(3.0), Some(1.0), Some(3.0), Some(7.0), None]);
        assert_eq!(numbers(&out, "_score"), [Some(0.75), None, None, None, None, None, None]);
        // The second column was numbers before it was text.
        assert_eq!((out.mistyped, numbers(&out, "input.1")[4]), (1, None));
        let ids = out.batch.column_by_name("_id").unwrap().as_fixed_size_binary();
        assert_eq!((ids.value(0), ids.value(2)), (&key_of_name("e").to_be_bytes()[..], &key_of_name("e/1").to_be_bytes()[..]));
        assert_eq!(csv("3,\"a, \"\"b\"\"\"\r\n"), [["3", "a, \"b\""]]);
    }

    #[test]
    fn bad_lines_are_refused_one_by_one() {
        let meta = r#"{"eventId":"e"}"#;
        let deep = line(&format!("JSON:{}", "[".repeat(100_000)), "CSV:1", meta);
        let wrong = [
            "not json".to_owned(),
            "{}".to_owned(),
            CAPTURED[..CAPTURED.len() - 1].to_owned(),
            CAPTURED.replace("eventId", "other"),
            CAPTURED.replace("captureData", "other"),
            CAPTURED.replace("\"CSV\"", "\"XML\""),
            CAPTURED.replace("2022-02-14T17:25:49Z", "soon"),
            line("CSV:1\n2", "CSV:1", meta),
            line("CSV:", "CSV:", meta),
            line("BASE64:!", "CSV:1", meta),
            line("JSON:{", "CSV:1", meta),
            deep,
            line(&format!("CSV:{}1", "1,".repeat(2500)), "CSV:1", meta),
            line("JSON:{\"_id\":1}", "CSV:1", meta),
        ];
        let body = format!("{CAPTURED}\n{}\n{CAPTURED}", wrong.join("\n"));
        let out = decode(body.as_bytes(), open()).unwrap();
        assert_eq!((out.batch.num_rows(), out.refusals), (2, wrong.len() as u64));
        assert_eq!(out.refused.iter().map(|refusal| refusal.row).collect::<Vec<_>>(), (1..=wrong.len() as u64).collect::<Vec<_>>());
        assert_eq!(out.batch.column_by_name("input.0").unwrap().null_count(), 0);
    }
}
