//! Bodies of the Open Inference Protocol V2 as columns, in JSON and with binary tensors
//! (<https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol> and, there, the binary tensor data extension),
//! and those of `KServe`'s V1 protocol, which its logger sends for V1 models.
//!
//! A tensor of shape `[n]` or `[n, 1]` is the column of its name. One of shape `[n, k]` is the columns `name.0` to `name.{k-1}`, or those that
//! its parameter `names` (`column_names`, `feature_names`) lists. Tensors of more than 2000 columns, such as images, are left out and counted.
//! In a V1 body, rows that are objects give features by name; rows that are arrays give `input.0`, `input.1` and so on. They are not matched
//! with the features of a reference by their place: a reference has no order that both sides agree on.
//!
//! Of what a model answers, probabilities become `_score.0` to `_score.{k-1}` (and `_score`, that of the second, where there are two), a
//! single column named like a score `_score`, and one other single column `_prediction`. Roles that the owner gave by name come first.

mod kserve;
mod tensors;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, FixedSizeBinaryArray, StringArray, TimestampNanosecondArray};
use arrow_cast::cast;
use arrow_schema::{DataType, Field as Column};
use barograph_engine::labels::{doubles, key_of_name};
use barograph_engine::schema::{Kind, kind_of};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use self::kserve::{Instances, Predictions};
use self::tensors::{Found, Head, Part, Tensor};
use super::arrow::canonical;
use super::ndjson::{Field, Read};
use crate::problem::{Outcome, Problem};
use crate::rows::{Decoded, KEY_BYTES, Value, batch_of, chance_name, instant};
use crate::shape::{Mark, Shape};

/// One side of calls.
#[derive(Clone, Debug)]
pub struct Tensors {
    /// Features by name, or roles by the name of their [`Mark`].
    pub columns: Vec<(Column, ArrayRef)>,
    /// Calls.
    pub rows: usize,
    /// The id of the body.
    pub id: Option<String>,
    /// Values that are no column of the model.
    pub unknown: u64,
    /// Values of another kind than their column, which count as null.
    pub mistyped: u64,
}

/// What a model was asked: features, and roles by the owner's names.
///
/// # Errors
/// `Problem` for a body that is no inference request.
pub fn request(body: &[u8], header_length: Option<usize>, shape: &Arc<Shape>) -> Outcome<Tensors> {
    let (parsed, rest) = read(body, header_length, Wanted::Request, shape)?;
    parsed.request(rest, shape)
}

/// What a model answered: predictions and scores.
///
/// # Errors
/// `Problem` for a body that is no inference response.
pub fn response(body: &[u8], header_length: Option<usize>, shape: &Arc<Shape>) -> Outcome<Tensors> {
    let (parsed, rest) = read(body, header_length, Wanted::Response, shape)?;
    parsed.response(rest, shape)
}

/// Whole calls: `inputs` and `outputs` in one object, or in two under `request` and `response`. Either side may be missing.
///
/// # Errors
/// `Problem` for a body that is neither, or whose sides have different numbers of rows.
pub fn both(body: &[u8], header_length: Option<usize>, shape: &Arc<Shape>) -> Outcome<Decoded> {
    let (mut parsed, mut rest) = read(body, header_length, Wanted::Both, shape)?;
    // Outputs of a request say what is wanted, and hold nothing.
    let held = |head: &Head| head.shape.is_some() || head.data.is_some();
    parsed.outputs =
        parsed.outputs.take().map(|outputs| outputs.into_iter().filter(held).collect::<Vec<_>>()).filter(|held| !held.is_empty());
    let (asks, answers) = (parsed.asks(), parsed.answers());
    let asked = if asks || !answers { Some(parsed.asked(&mut rest, shape)?) } else { None };
    let answered = if answers { Some(parsed.answered(&mut rest, shape)?) } else { None };
    over(rest)?;
    let (mut rows, mut columns, mut unknown, mut mistyped) = (0, Vec::new(), 0, 0);
    for side in [asked, answered].into_iter().flatten() {
        if !columns.is_empty() && rows != side.rows {
            return Err(Problem::bad(format!("inputs and outputs must have the same number of rows, got {rows} and {}", side.rows)));
        }
        rows = side.rows;
        (unknown, mistyped) = (unknown + side.unknown, mistyped + side.mistyped);
        columns.retain(|(field, _): &(Column, ArrayRef)| !side.columns.iter().any(|(other, _)| other.name() == field.name()));
        columns.extend(side.columns);
    }
    if let Some(id) = parsed.id
        && !columns.iter().any(|(field, _)| field.name() == Mark::Id.name())
    {
        columns.insert(0, ids(&id, rows, shape)?);
    }
    Ok(Decoded { batch: batch_of(columns, rows)?, refused: Vec::new(), refusals: 0, unknown, mistyped, ids: None })
}

/// The column of ids of a body: `id` for one row, `id/0`, `id/1` and so on for several.
///
/// # Errors
/// None in practice.
pub fn ids(id: &str, rows: usize, shape: &Shape) -> Outcome<(Column, ArrayRef)> {
    let key_of = |text: &str| match shape.privacy.as_ref().and_then(|privacy| privacy.text(Mark::Id.name(), text)) {
        None => Ok(key_of_name(text)),
        Some(Some(kept)) => Ok(key_of_name(&kept)),
        Some(None) => Err(Problem::bad("the privacy rules of the model drop `_id`, by which request and response are brought together")),
    };
    let mut keys = Vec::with_capacity(rows * KEY_BYTES as usize);
    for row in 0..rows {
        let key = if rows == 1 { key_of(id)? } else { key_of(&format!("{id}/{row}"))? };
        keys.extend_from_slice(&key.to_be_bytes());
    }
    let array = FixedSizeBinaryArray::try_new(KEY_BYTES, keys.into(), None).map_err(|error| Problem::bad(error.to_string()))?;
    Ok((Column::new(Mark::Id.name(), DataType::FixedSizeBinary(KEY_BYTES), true), Arc::new(array)))
}

/// Which sides are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Request,
    Response,
    Both,
}

/// The JSON of a body, and the bytes of its tensors behind it.
fn read<'a>(body: &'a [u8], header_length: Option<usize>, wanted: Wanted, shape: &Arc<Shape>) -> Outcome<(Parsed, &'a [u8])> {
    let wrong = |error: serde_json::Error| Problem::bad(format!("the body is none of the Open Inference Protocol: {error}"));
    let (json, rest) = match header_length {
        Some(length) => body.split_at_checked(length).ok_or_else(|| {
            Problem::bad(format!("`Inference-Header-Content-Length` must be at most the length of the body, {}, got {length}", body.len()))
        })?,
        None => (body, &[][..]),
    };
    let mut reader = serde_json::Deserializer::from_slice(json);
    let parsed = Top { wanted, shape, inner: false }.deserialize(&mut reader).map_err(wrong)?;
    match reader.end() {
        Ok(()) => Ok((parsed, rest)),
        // A logger passes a body on without the header that says where its JSON ends: it ends where the object does.
        Err(_) if header_length.is_none() => {
            let mut stream = serde_json::Deserializer::from_slice(body).into_iter::<IgnoredAny>();
            stream.next();
            Ok((parsed, body.get(stream.byte_offset()..).unwrap_or_default()))
        }
        Err(error) => Err(wrong(error)),
    }
}

fn over(rest: &[u8]) -> Outcome<()> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(Problem::bad(format!("{} bytes are left over behind the tensors", rest.len()))
        .hint("`binary_data_size` of each tensor says how many of them are its own"))
}

/// The JSON of a body.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    id: Option<String>,
    version: Option<String>,
    inputs: Option<Vec<Head>>,
    outputs: Option<Vec<Head>>,
    instances: Option<Instances>,
    predictions: Option<Predictions>,
}

impl Parsed {
    fn asks(&self) -> bool {
        self.inputs.is_some() || self.instances.is_some()
    }

    fn answers(&self) -> bool {
        self.outputs.is_some() || self.predictions.is_some()
    }

    /// What was asked, of a body whose tensors lie in `rest`.
    pub(super) fn request(mut self, mut rest: &[u8], shape: &Shape) -> Outcome<Tensors> {
        let out = self.asked(&mut rest, shape)?;
        over(rest)?;
        Ok(out)
    }

    /// What was answered.
    pub(super) fn response(mut self, mut rest: &[u8], shape: &Shape) -> Outcome<Tensors> {
        let out = self.answered(&mut rest, shape)?;
        over(rest)?;
        Ok(out)
    }

    fn asked(&mut self, rest: &mut &[u8], shape: &Shape) -> Outcome<Tensors> {
        if let Some(heads) = self.inputs.take() {
            let found = Found::of(heads, rest)?;
            let columns = found.tensors.into_iter().flat_map(|tensor| tensor.columns).collect();
            let mut out = settled(columns, found.rows, shape)?;
            (out.id, out.unknown, out.mistyped) = (self.id.clone(), out.unknown + found.left_out, out.mistyped + found.mistyped);
            return Ok(out);
        }
        let Some(instances) = self.instances.take() else {
            return Err(Problem::bad("the body has neither `inputs` (V2) nor `instances` (V1)"));
        };
        instances.finish(self.id.clone())
    }

    fn answered(&mut self, rest: &mut &[u8], shape: &Shape) -> Outcome<Tensors> {
        let mut out = match (self.outputs.take(), self.predictions.take()) {
            (Some(heads), _) => {
                let found = Found::of(heads, rest)?;
                let (columns, unknown) = answers(found.tensors, shape);
                let mut out = settled(columns, found.rows, shape)?;
                (out.unknown, out.mistyped) = (out.unknown + unknown + found.left_out, out.mistyped + found.mistyped);
                out
            }
            (None, Some(predictions)) => predictions.finish(shape)?,
            (None, None) => return Err(Problem::bad("the body has neither `outputs` (V2) nor `predictions` (V1)")),
        };
        out.id.clone_from(&self.id);
        if let Some(version) = self.version.as_ref().filter(|version| !version.is_empty())
            && !out.columns.iter().any(|(field, _)| field.name() == Mark::Version.name())
        {
            let array = StringArray::from_iter_values((0..out.rows).map(|_| version));
            out.columns.push((Column::new(Mark::Version.name(), DataType::Utf8, true), Arc::new(array)));
        }
        Ok(out)
    }
}

/// The object of a body.
pub(super) struct Top<'a> {
    pub(super) wanted: Wanted,
    pub(super) shape: &'a Arc<Shape>,
    /// Whether it stands within another one.
    pub(super) inner: bool,
}

impl<'de> DeserializeSeed<'de> for Top<'_> {
    type Value = Parsed;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (asks, answers) = (self.wanted != Wanted::Response, self.wanted != Wanted::Request);
        let mut out = Parsed::default();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match key.as_ref() {
                "id" => out.id = word(&map.next_value_seed(Field)?),
                "model_version" => out.version = word(&map.next_value_seed(Field)?),
                "inputs" if asks => out.inputs = map.next_value()?,
                "outputs" if answers => out.outputs = map.next_value()?,
                "instances" if asks => out.instances = Some(map.next_value_seed(Instances::new(self.shape))?),
                "predictions" if answers => out.predictions = Some(map.next_value_seed(Predictions::new(self.shape))?),
                side @ ("request" | "response") if self.wanted == Wanted::Both && !self.inner => {
                    let wanted = if side == "request" { Wanted::Request } else { Wanted::Response };
                    let part = map.next_value_seed(Top { wanted, shape: self.shape, inner: true })?;
                    out = Parsed {
                        id: part.id.or(out.id),
                        version: part.version.or(out.version),
                        inputs: part.inputs.or(out.inputs),
                        outputs: part.outputs.or(out.outputs),
                        instances: part.instances.or(out.instances),
                        predictions: part.predictions.or(out.predictions),
                    };
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(out)
    }
}

/// A plain value as text.
fn word(value: &Read<'_>) -> Option<String> {
    value.with(|value| match value {
        Value::Text(text) => Some((*text).to_owned()),
        Value::Whole(whole) => Some(whole.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

fn is_score(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["prob", "score"].iter().any(|part| name.contains(part))
}

fn is_prediction(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["predict", "label", "class", "output"].iter().any(|part| name.contains(part))
}

fn present(part: &Part) -> u64 {
    (part.array.len() - part.array.logical_null_count()) as u64
}

fn are_chances(part: &Part) -> bool {
    doubles("_score", &part.name, part.array.as_ref())
        .is_ok_and(|values| values.into_iter().all(|value| value.is_some_and(|value| (0.0..=1.0).contains(&value))))
}

/// The columns of what a model answered, and how many values are none.
fn answers(tensors: Vec<Tensor>, shape: &Shape) -> (Vec<Part>, u64) {
    let (mut out, mut single, mut unknown) = (Vec::<Part>::new(), Vec::new(), 0);
    let has = |out: &[Part], mark: Mark| out.iter().any(|part| shape.marks.get(&part.name) == Some(&mark));
    let (given, others): (Vec<_>, Vec<_>) =
        tensors.into_iter().partition(|tensor| tensor.columns.iter().any(|part| shape.marks.contains_key(&part.name)));
    for part in given.into_iter().flat_map(|tensor| tensor.columns) {
        if shape.marks.contains_key(&part.name) {
            out.push(part);
        } else {
            unknown += present(&part);
        }
    }
    let mut chances = false;
    for tensor in others {
        let several = tensor.columns.len() > 1;
        let number = tensor.columns.iter().all(|part| part.array.data_type().is_numeric());
        if several && !chances && number && (is_score(&tensor.name) || tensor.floating && tensor.columns.iter().all(are_chances)) {
            chances = true;
            if let [_, second] = tensor.columns.as_slice()
                && !has(&out, Mark::Score)
            {
                out.push(Part { name: Mark::Score.name().to_owned(), ..second.clone() });
            }
            out.extend(tensor.columns.into_iter().enumerate().map(|(class, part)| Part { name: chance_name(class), ..part }));
        } else if several {
            unknown += tensor.columns.iter().map(present).sum::<u64>();
        } else if let Some(part) = tensor.columns.into_iter().next() {
            if number && is_score(&tensor.name) && !has(&out, Mark::Score) {
                out.push(Part { name: Mark::Score.name().to_owned(), ..part });
            } else {
                single.push((is_prediction(&tensor.name), part));
            }
        }
    }
    let chosen = single.iter().position(|(named, _)| *named).unwrap_or(0);
    for (at, (_, part)) in single.into_iter().enumerate() {
        if at == chosen && !has(&out, Mark::Prediction) {
            out.push(Part { name: Mark::Prediction.name().to_owned(), ..part });
        } else {
            unknown += present(&part);
        }
    }
    (out, unknown)
}

/// The columns of decoded rows.
fn parts(decoded: &Decoded) -> Vec<(Column, ArrayRef)> {
    let fields = decoded.batch.schema_ref().fields().iter().map(|field| field.as_ref().clone());
    fields.zip(decoded.batch.columns().iter().cloned()).collect()
}

/// Columns under the names of their roles, and of the kinds that the model has.
fn settled(columns: Vec<Part>, rows: usize, shape: &Shape) -> Outcome<Tensors> {
    let mut plain = Vec::with_capacity(columns.len());
    for part in columns {
        let part = match &shape.privacy {
            None => part,
            Some(privacy) => match privacy.array(&part.name, &part.array)? {
                Some(array) => Part { array, ..part },
                None => continue,
            },
        };
        let mark = shape.marks.get(&part.name);
        let named = !shape.classes.is_empty() || shape.kinds.get(Mark::Prediction.name()) == Some(&Kind::Category);
        let array = match mark {
            Some(Mark::Id) => part.array,
            Some(Mark::Time) => times(&part.array).filter(|(_, odd)| *odd == 0).map(|(times, _)| times).ok_or_else(|| {
                Problem::bad(format!("`{}` must be an instant such as 2026-01-31T12:00:00Z or seconds since 1970", part.name))
            })?,
            Some(Mark::Prediction | Mark::Label) if named => as_texts(&part.array),
            _ if part.json && part.array.data_type() == &DataType::Int64 => cast(&part.array, &DataType::Float64).unwrap_or(part.array),
            _ => part.array,
        };
        plain.push((Column::new(part.name, array.data_type().clone(), true), array));
    }
    let decoded = canonical(&batch_of(plain, rows)?, shape)?;
    let mut out = Tensors { columns: Vec::new(), rows, id: None, unknown: decoded.unknown, mistyped: decoded.mistyped };
    for (field, array) in parts(&decoded) {
        let (array, odd) = match shape.kinds.get(field.name()) {
            Some(kind) => fitted(*kind, array),
            None => (Some(array), 0),
        };
        out.mistyped += odd;
        if let Some(array) = array {
            out.columns.push((Column::new(field.name(), array.data_type().clone(), true), array));
        }
    }
    Ok(out)
}

/// The column as one of this kind, if it can be, and how many values cannot.
fn fitted(kind: Kind, array: ArrayRef) -> (Option<ArrayRef>, u64) {
    let own = kind_of(array.data_type());
    let all = (array.len() - array.logical_null_count()) as u64;
    match (kind, own) {
        (Kind::Embedding | Kind::Unsupported, _) | (Kind::Text, Kind::Category) => (Some(array), 0),
        (kind, own) if kind == own => (Some(array), 0),
        // As everywhere: true is the number 1.
        (Kind::Number, Kind::Boolean) => match cast(&array, &DataType::Float64) {
            Ok(numbers) => (Some(numbers), 0),
            Err(_) => (None, all),
        },
        // A tensor of several columns has one datatype: its flags are numbers.
        (Kind::Boolean, Kind::Number) => match doubles("", "", array.as_ref()) {
            Ok(numbers) => {
                let flag = |number: &Option<f64>| number.filter(|number| [0.0, 1.0].contains(number)).map(|number| number == 1.0);
                let flags: BooleanArray = numbers.iter().map(flag).collect();
                let odd = all.saturating_sub((flags.len() - flags.null_count()) as u64);
                (Some(Arc::new(flags)), odd)
            }
            Err(_) => (None, all),
        },
        (Kind::Time, Kind::Category | Kind::Number) => times(&array).map_or((None, all), |(times, odd)| (Some(times), odd)),
        _ => (None, all),
    }
}

/// Instants as text, or seconds since the epoch, as times; and how many are neither.
fn times(array: &ArrayRef) -> Option<(ArrayRef, u64)> {
    let found: Vec<Option<i64>> = if let Some(texts) = array.as_string_opt::<i32>() {
        texts.iter().map(|text| text.and_then(instant)).collect()
    } else if array.data_type().is_integer() {
        let seconds = cast(array, &DataType::Int64).ok()?;
        seconds.as_primitive::<Int64Type>().iter().map(|seconds| seconds.and_then(|seconds| seconds.checked_mul(1_000_000_000))).collect()
    } else {
        let seconds = doubles("_time", "_time", array.as_ref()).ok()?;
        let time = |seconds: f64| (seconds.abs() < 9.2e9).then(|| (seconds * 1e6).round() as i64 * 1000);
        seconds.into_iter().map(|seconds| seconds.and_then(time)).collect()
    };
    let times = TimestampNanosecondArray::from(found).with_timezone("UTC");
    let odd = times.null_count().saturating_sub(array.logical_null_count()) as u64;
    Some((Arc::new(times), odd))
}

/// Names of classes: whole numbers are theirs without a fraction.
fn as_texts(array: &ArrayRef) -> ArrayRef {
    if array.data_type().is_floating()
        && let Ok(numbers) = doubles("_prediction", "_prediction", array.as_ref())
    {
        return Arc::new(numbers.into_iter().map(|number| number.map(|number| number.to_string())).collect::<StringArray>());
    }
    cast(array, &DataType::Utf8).unwrap_or_else(|_| Arc::clone(array))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::types::UInt32Type;
    use std::collections::BTreeMap;

    fn open() -> Arc<Shape> {
        Arc::new(Shape { open: true, ..Shape::new(&BTreeMap::new(), &[], None) })
    }

    fn column<'a>(tensors: &'a Tensors, name: &str) -> &'a ArrayRef {
        &tensors.columns.iter().find(|(field, _)| field.name() == name).unwrap_or_else(|| panic!("{name}: {:?}", names(tensors))).1
    }

    fn names(tensors: &Tensors) -> Vec<&str> {
        tensors.columns.iter().map(|(field, _)| field.name().as_str()).collect()
    }

    fn values(tensors: &Tensors, name: &str) -> Vec<Option<f64>> {
        doubles("", "", column(tensors, name).as_ref()).unwrap()
    }

    /// From `KServe`'s guide to scikit-learn models, protocol V2.
    const IRIS: &[u8] = br#"{"inputs":[{"name":"input-0","shape":[2,4],"datatype":"FP32","data":[[6.8,2.8,4.8,1.4],[6.0,3.4,4.5,1.6]]}]}"#;

    #[test]
    fn tensors_are_columns() {
        let asked = request(IRIS, None, &open()).unwrap();
        assert_eq!((asked.rows, asked.unknown, names(&asked)), (2, 0, vec!["input-0.0", "input-0.1", "input-0.2", "input-0.3"]));
        assert_eq!(values(&asked, "input-0.3"), [Some(1.4), Some(1.6)]);
        let flat = String::from_utf8(IRIS.to_vec()).unwrap().replace("],[", ",").replace("[[", "[").replace("]]", "]");
        assert_eq!(request(flat.as_bytes(), None, &open()).unwrap().columns, asked.columns);

        let answer = br#"{"model_name":"sklearn-v2-iris","model_version":null,"id":"3","parameters":null,
            "outputs":[{"name":"output-0","shape":[2],"datatype":"INT32","parameters":null,"data":[1,1]}]}"#;
        let answered = response(answer, None, &open()).unwrap();
        assert_eq!((answered.id.as_deref(), names(&answered)), (Some("3"), vec!["_prediction"]));
        assert_eq!(values(&answered, "_prediction"), [Some(1.0), Some(1.0)]);

        // From the documentation of Seldon Core 2.
        let seldon = br#"{"model_name":"iris_1","model_version":"1","id":"0757e893-64c9-411f-8937-f0f4774852ef",
            "parameters":{"content_type":null,"headers":null},
            "outputs":[{"name":"predict","shape":[1],"datatype":"INT64","parameters":null,"data":[2]}]}"#;
        let answered = response(seldon, None, &open()).unwrap();
        assert_eq!(names(&answered), ["_prediction", "_version"]);
        assert_eq!(column(&answered, "_version").as_string::<i32>().value(0), "1");
    }

    #[test]
    fn the_examples_of_the_specification_are_read_or_refused_for_what_they_say() {
        // From the specification of protocol V2: no batch.
        let mixed = br#"{"id":"42","inputs":[{"name":"input0","shape":[2,2],"datatype":"UINT32","data":[1,2,3,4]},
            {"name":"input1","shape":[3],"datatype":"BOOL","data":[true,false,true]}],"outputs":[{"name":"output0"}]}"#;
        let problem = request(mixed, None, &open()).unwrap_err();
        assert!(problem.detail.contains("\"input0\" has 2 and \"input1\" 3"), "{problem:?}");
        let answer = br#"{"id":"42","outputs":[{"name":"output0","shape":[3,2],"datatype":"FP32","data":[1.0,1.1,2.0,2.1,3.0,3.1]}]}"#;
        let answered = response(answer, None, &open()).unwrap();
        assert_eq!((answered.rows, answered.columns.len(), answered.unknown), (3, 0, 6));
        // From KServe's page on binary tensors: FP16 of [2, 2] takes 8 bytes, not 16.
        let head = br#"{"inputs":[{"name":"input0","shape":[2,2],"datatype":"FP16","parameters":{"binary_data_size":16}}]}"#;
        let body = [&head[..], &[0; 16]].concat();
        let problem = request(&body, Some(head.len()), &open()).unwrap_err();
        assert!(problem.detail.contains("must have 8 bytes") && problem.detail.contains("is 16"), "{problem:?}");
        // From Triton's page on binary tensors, the first of its inputs.
        let head = br#"{"model_name":"mymodel","inputs":[{"name":"input0","shape":[2,2],"datatype":"UINT32","parameters":{"binary_data_size":16}}],
            "outputs":[{"name":"output0","parameters":{"binary_data":true}}]}"#;
        let bytes: Vec<u8> = [1u32, 2, 3, 4_000_000_000].iter().flat_map(|value| value.to_le_bytes()).collect();
        let body = [&head[..], &bytes].concat();
        for length in [Some(head.len()), None] {
            let asked = request(&body, length, &open()).unwrap();
            assert_eq!(column(&asked, "input0.1").as_primitive::<UInt32Type>().values(), &[2, 4_000_000_000]);
        }
        // The same is no whole call: outputs that are asked for hold nothing.
        assert_eq!(both(&body, Some(head.len()), &open()).unwrap().batch.num_columns(), 2);
    }

    #[test]
    fn binary_tensors_are_the_same_as_json() {
        fn le<const N: usize, T: Copy>(values: &[T], write: impl Fn(T) -> [u8; N]) -> Vec<u8> {
            values.iter().flat_map(|value| write(*value)).collect()
        }
        let texts = [4u32.to_le_bytes().as_slice(), b"gr\xC3\xBC", &0u32.to_le_bytes()].concat();
        let tensors: Vec<(&str, &str, Vec<u8>)> = vec![
            ("BOOL", "[true,false]", vec![1, 0]),
            ("INT8", "[-5,7]", le(&[-5, 7], i8::to_le_bytes)),
            ("INT16", "[-500,7]", le(&[-500, 7], i16::to_le_bytes)),
            ("INT32", "[-70000,7]", le(&[-70_000, 7], i32::to_le_bytes)),
            ("INT64", "[-5000000000,7]", le(&[-5_000_000_000, 7], i64::to_le_bytes)),
            ("UINT8", "[200,7]", vec![200, 7]),
            ("UINT16", "[60000,7]", le(&[60_000, 7], u16::to_le_bytes)),
            ("UINT32", "[4000000000,7]", le(&[4_000_000_000, 7], u32::to_le_bytes)),
            ("UINT64", "[18000000000000000000,7]", le(&[18_000_000_000_000_000_000, 7], u64::to_le_bytes)),
            ("FP16", "[-2.0,0.333251953125]", le(&[0xC000, 0x3555], u16::to_le_bytes)),
            ("BF16", "[-2.0,1.5]", le(&[0xC000, 0x3FC0], u16::to_le_bytes)),
            ("FP32", "[0.5,-0.25]", le(&[0.5, -0.25], f32::to_le_bytes)),
            ("FP64", "[0.1,1e300]", le(&[0.1, 1e300], f64::to_le_bytes)),
            ("BYTES", "[\"gr\u{fc}\",\"\"]", texts),
        ];
        let head = |name: &str, more: String| format!(r#"{{"name":"{name}","shape":[2,1],"datatype":"{name}",{more}}}"#);
        let json = tensors.iter().map(|(name, data, _)| head(name, format!("\"data\":{data}"))).collect::<Vec<_>>().join(",");
        let binary = tensors.iter().map(|(name, _, bytes)| head(name, format!(r#""parameters":{{"binary_data_size":{}}}"#, bytes.len())));
        let header = format!("{{\"inputs\":[{}]}}", binary.collect::<Vec<_>>().join(","));
        let body = [header.as_bytes(), &tensors.iter().flat_map(|(.., bytes)| bytes.clone()).collect::<Vec<_>>()].concat();
        let json = request(format!("{{\"inputs\":[{json}]}}").as_bytes(), None, &open()).unwrap();
        let binary = request(&body, Some(header.len()), &open()).unwrap();
        assert_eq!((json.rows, binary.rows, names(&json)), (2, 2, names(&binary)));
        for (name, ..) in &tensors {
            let (json, binary) = (column(&json, name), column(&binary, name));
            if *name == "BYTES" {
                assert_eq!((json, json.as_string::<i32>().value(0)), (binary, "gr\u{fc}"));
            } else {
                assert_eq!(doubles("", "", json.as_ref()).unwrap(), doubles("", "", binary.as_ref()).unwrap(), "{name}");
            }
        }
        assert_eq!(column(&binary, "INT16").data_type(), &DataType::Int16);
        assert!(column(&json, "INT16").data_type() == &DataType::Float64 && column(&json, "BOOL").data_type() == &DataType::Boolean);
    }

    #[test]
    fn answers_find_their_roles() {
        let answer = |outputs: &str, shape: &Arc<Shape>| response(format!("{{\"outputs\":[{outputs}]}}").as_bytes(), None, shape).unwrap();
        let label = r#"{"name":"label","shape":[2,1],"datatype":"BYTES","data":["a","b"]}"#;
        let chances = r#"{"name":"dense_1","shape":[2,3],"datatype":"FP32","data":[0.1,0.2,0.7,1,0,0]}"#;
        let out = answer(&format!("{chances},{label}"), &open());
        assert_eq!(names(&out), ["_score.0", "_score.1", "_score.2", "_prediction"]);
        assert_eq!(values(&out, "_score.2"), [Some(0.7), Some(0.0)]);
        let two = r#"{"name":"predict_proba","shape":[1,2],"datatype":"FP64","data":[[0.25,0.75]]}"#;
        let out = answer(two, &open());
        assert_eq!((names(&out), values(&out, "_score")), (vec!["_score", "_score.0", "_score.1"], vec![Some(0.75)]));
        let score = r#"{"name":"x","shape":[1],"datatype":"FP32","data":[9]},{"name":"fraud_score","shape":[1],"datatype":"FP32","data":[0.5]},
            {"name":"output__0","shape":[1],"datatype":"FP32","data":[1]}"#;
        let out = answer(score, &open());
        assert_eq!((names(&out), out.unknown), (vec!["_score", "_prediction"], 1));
        // What the owner said comes first.
        let roles = BTreeMap::from([("prediction".to_owned(), "x".to_owned())]);
        let mut own = Shape::new(&roles, &[], None);
        own.open = true;
        let out = answer(score, &Arc::new(own));
        assert_eq!((values(&out, "_prediction"), out.unknown), (vec![Some(9.0)], 1));
        // Names of classes are text.
        let shape = Arc::new(Shape { open: true, ..Shape::new(&BTreeMap::new(), &["0".to_owned(), "1".to_owned()], None) });
        let out = answer(r#"{"name":"predict","shape":[2],"datatype":"FP32","data":[1.0,0.0]}"#, &shape);
        assert_eq!(column(&out, "_prediction").as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["1", "0"]);
    }

    #[test]
    fn features_keep_to_the_model() {
        let roles = BTreeMap::from([("id".to_owned(), "tx".to_owned()), ("time".to_owned(), "at".to_owned())]);
        let mut shape = Shape::new(&roles, &[], None);
        shape.open = false;
        for (name, kind) in [("x", Kind::Number), ("b", Kind::Boolean), ("c", Kind::Category), ("t", Kind::Number)] {
            shape.kinds.insert(name.to_owned(), kind);
        }
        let body = br#"{"inputs":[
            {"name":"x","shape":[3],"datatype":"FP64","data":[1,null,3.5]},
            {"name":"b","shape":[3],"datatype":"INT64","data":[1,0,7]},
            {"name":"c","shape":[3],"datatype":"BYTES","data":["u",null,"w"]},
            {"name":"t","shape":[3],"datatype":"BYTES","data":["1","2","3"]},
            {"name":"secret","shape":[3],"datatype":"FP32","data":[1,2,3]},
            {"name":"at","shape":[3],"datatype":"INT64","data":[1700000000,1700000001,1700000002]},
            {"name":"tx","shape":[3],"datatype":"INT64","data":[9007199254740993,2,3]}]}"#;
        let out = request(body, None, &Arc::new(shape.clone())).unwrap();
        assert_eq!((names(&out), out.unknown, out.mistyped), (vec!["x", "b", "c", "_time", "_id"], 3, 4));
        assert_eq!(values(&out, "x"), [Some(1.0), None, Some(3.5)]);
        assert_eq!(column(&out, "b").as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false), None]);
        assert_eq!(column(&out, "_id").as_fixed_size_binary().value(0), 9_007_199_254_740_993u128.to_be_bytes());
        assert_eq!(column(&out, "_time").as_primitive::<arrow_array::types::TimestampNanosecondType>().value(1), 1_700_000_001_000_000_000);
        let named = br#"{"inputs":[{"name":"all","shape":[1,3],"datatype":"FP32","parameters":{"names":["x","y","b"]},"data":[[1,2,0]]}]}"#;
        let out = request(named, None, &Arc::new(shape)).unwrap();
        assert_eq!((names(&out), out.unknown), (vec!["x", "b"], 1));
    }

    #[test]
    fn the_first_protocol_is_read_too() {
        // From KServe's guide to its logger.
        let asked = request(br#"{"instances": [[6.8,  2.8,  4.8,  1.4],[6.0,  3.4,  4.5,  1.6]]}"#, None, &open()).unwrap();
        assert_eq!((asked.rows, names(&asked)), (2, vec!["input.0", "input.1", "input.2", "input.3"]));
        assert_eq!(values(&asked, "input.3"), [Some(1.4), Some(1.6)]);
        let answered = response(br#"{"predictions": [1, 1]}"#, None, &open()).unwrap();
        assert_eq!((names(&answered), values(&answered, "_prediction")), (vec!["_prediction"], vec![Some(1.0), Some(1.0)]));

        let objects = request(br#"{"instances":[{"x":1,"c":"a"},{"c":"b","x":2.5}]}"#, None, &open()).unwrap();
        assert_eq!((names(&objects), values(&objects, "x")), (vec!["x", "c"], vec![Some(1.0), Some(2.5)]));
        let mixed = request(br#"{"instances":[[1,"a",[2,3]],[2,null,[4,5]],7]}"#, None, &open()).unwrap();
        assert_eq!((mixed.rows, values(&mixed, "input.3")), (3, vec![Some(3.0), Some(5.0), None]));
        let chances = response(br#"{"predictions":[[0.1,0.9],[0.5,0.5]]}"#, None, &open()).unwrap();
        assert_eq!(names(&chances), ["_score", "_score.0", "_score.1"]);
        let objects =
            response(br#"{"predictions":[{"label":"a","score":0.5,"why":{}},{"label":"b","score":0.25}]}"#, None, &open()).unwrap();
        assert_eq!(
            (names(&objects), values(&objects, "_score"), objects.unknown),
            (vec!["_prediction", "_score"], vec![Some(0.5), Some(0.25)], 1)
        );
    }

    #[test]
    fn whole_calls_have_both_sides() {
        let body = br#"{"id":"a","inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2]}],
            "outputs":[{"name":"y","shape":[2],"datatype":"FP32","data":[3,4]}]}"#;
        let whole = both(body, None, &open()).unwrap().batch;
        assert_eq!(whole.schema_ref().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["_id", "x", "_prediction"]);
        assert_eq!(whole.column(0).as_fixed_size_binary().value(1), key_of_name("a/1").to_be_bytes());
        let apart = br#"{"request":{"instances":[[1],[2]]},"response":{"id":"a","predictions":[3,4]}}"#;
        let apart = both(apart, None, &open()).unwrap().batch;
        assert_eq!((apart.num_rows(), apart.column(0), apart.column(2)), (2, whole.column(0), whole.column(2)));
        assert_eq!(ids("a", 1, &Shape::default()).unwrap().1.as_fixed_size_binary().value(0), key_of_name("a").to_be_bytes());
        for wrong in ["{}", r#"{"instances":[1],"predictions":[1,2]}"#, r#"{"request":{"request":{"instances":[1]}}}"#] {
            assert!(both(wrong.as_bytes(), None, &open()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn images_are_left_out_and_counted() {
        let body = br#"{"inputs":[{"name":"image","shape":[2,3,224,224],"datatype":"FP32","parameters":{"binary_data_size":1204224}}]}"#;
        let out = request(&[&body[..], &vec![0; 1_204_224]].concat(), None, &open()).unwrap();
        assert_eq!((out.rows, out.columns.len(), out.unknown), (2, 0, 2));
        let wide = format!("{{\"instances\":[[{}0],[1]]}}", "0,".repeat(3000));
        let out = request(wide.as_bytes(), None, &open()).unwrap();
        assert_eq!((out.rows, out.columns.len(), out.unknown), (2, 0, 2));
        let shared = br#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"shared_memory_region":"r","shared_memory_byte_size":8}}]}"#;
        assert_eq!(request(shared, None, &open()).unwrap().unknown, 1);
    }

    #[test]
    fn hostile_bodies_are_refused() {
        let tensor = |more: &str| format!("{{\"inputs\":[{{\"name\":\"x\",{more}}}]}}");
        let wrong = [
            tensor(r#""shape":[-1],"datatype":"FP32","data":[1]"#),
            tensor(r#""shape":[1e3],"datatype":"FP32","data":[1]"#),
            tensor(r#""shape":[18446744073709551615],"datatype":"FP32","data":[1]"#),
            tensor(r#""shape":[18446744073709551615,0],"datatype":"FP32","data":[]"#),
            tensor(r#""shape":[0,18446744073709551615,18446744073709551615],"datatype":"FP32","data":[]"#),
            tensor(r#""shape":[4000000,4000000,4000000],"datatype":"FP32","parameters":{"binary_data_size":8}"#),
            tensor(r#""shape":[4000000,2000],"datatype":"FP64","parameters":{"binary_data_size":64000000000}"#),
            tensor(r#""shape":[4000000,2],"datatype":"BYTES","parameters":{"binary_data_size":0}"#),
            tensor(r#""shape":[1],"datatype":"BYTES""#),
            tensor(r#""shape":[1],"datatype":"FP8","data":[1]"#),
            tensor(r#""shape":[1],"data":null"#),
            tensor(r#""datatype":"FP32","data":[1]"#),
            tensor(r#""shape":[1],"datatype":"FP32","parameters":{"binary_data_size":-4}"#),
            tensor(r#""shape":[2],"datatype":"FP32","data":[1]"#),
            tensor(r#""shape":[2],"datatype":"FP32","data":[1,"a"]"#),
            tensor(r#""shape":[1],"datatype":"FP32","data":[{}]"#),
            tensor(&format!(r#""shape":[1],"datatype":"FP32","data":{}1{}"#, "[".repeat(100_000), "]".repeat(100_000))),
            "{\"instances\":".to_owned() + &"[".repeat(100_000),
            "{\"instances\":[{\"_id\":[]}]}".to_owned(),
            "{\"instances\":{}}".to_owned(),
            "{\"other\":1}".to_owned(),
            "[]".to_owned(),
            String::new(),
            String::from_utf8(IRIS.to_vec()).unwrap() + "!",
        ];
        for body in wrong {
            assert!(request(body.as_bytes(), None, &open()).is_err(), "{}", &body[..body.len().min(200)]);
        }
        assert!(response(br#"{"predictions":[[1],[1,2]]}"#, None, &open()).is_err());
        assert!(response(br#"{"predictions":[1,{"label":1}]}"#, None, &open()).is_err());
        for length in [0, 5, IRIS.len() - 1, IRIS.len() + 1, usize::MAX] {
            assert!(request(IRIS, Some(length), &open()).is_err(), "{length}");
        }
        for length in 0..IRIS.len() {
            assert!(request(&IRIS[..length], None, &open()).is_err(), "{length}");
        }
        let head = br#"{"inputs":[{"name":"c","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":10}}]}"#;
        for bytes in [[1, 0, 0, 0, b'a', 1, 0, 0, 0, b'b'], [1, 0, 0, 0, b'a', 2, 0, 0, 0, b'b'], [255, 255, 255, 255, 0, 0, 0, 0, 0, 0]] {
            let body = [&head[..], &bytes].concat();
            assert_eq!(request(&body, Some(head.len()), &open()).is_ok(), bytes[5] == 1 && bytes[0] == 1);
            assert!((0..body.len()).all(|length| request(&body[..length], None, &open()).is_err()));
        }
        let odd = [&head[..], &[1, 0, 0, 0, 0xFF, 1, 0, 0, 0, b'b']].concat();
        let out = request(&odd, None, &open()).unwrap();
        assert_eq!((out.mistyped, column(&out, "c").null_count()), (1, 1));
    }
}
