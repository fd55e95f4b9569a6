//! Events as JSON objects: one a line (<https://github.com/ndjson/ndjson-spec>), or an array of them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::plain::Plain;
use crate::problem::{Outcome, Problem};
use crate::rows::{Decoded, Rows, Value};
use crate::shape::Shape;

/// Numbers of an embedding or of probabilities that are read.
const MOST_NUMBERS: usize = 10_000;

/// Events, one a line; lines that are no event are refused one by one.
///
/// # Errors
/// `Problem` if the rows cannot be gathered.
pub fn lines(body: &[u8], shape: Arc<Shape>) -> Outcome<Decoded> {
    let mut rows = Rows::new(shape);
    for line in body.split(|byte| *byte == b'\n') {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        rows.begin();
        if plain(line, &mut rows).is_some() {
            rows.end();
            continue;
        }
        rows.undo();
        let mut json = serde_json::Deserializer::from_slice(line);
        let read = Row(&mut rows).deserialize(&mut json).and_then(|()| json.end());
        match read {
            Ok(()) => rows.end(),
            Err(error) => rows.refuse(reason(&error)),
        }
    }
    rows.finish()
}

/// The fields of a row without oddities.
fn plain(line: &[u8], rows: &mut Rows) -> Option<()> {
    Plain::new(line)?.whole_object(|name, json| json.value()?.with(|value| rows.field(name, value)).ok())
}

/// Events in an array; those that cannot be taken are refused one by one.
///
/// # Errors
/// `Problem` for a body that is no array of objects.
pub fn array(body: &[u8], shape: Arc<Shape>) -> Outcome<Decoded> {
    let mut rows = Rows::new(shape);
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = json.deserialize_seq(All(&mut rows)).and_then(|()| json.end());
    read.map_err(|error| {
        Problem::bad(format!("the body is no JSON array of events: {error}")).hint("a body of lines has the type application/x-ndjson")
    })?;
    rows.finish()
}

/// What an error of a row says; places in a line are of no use to anybody.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

struct All<'a>(&'a mut Rows);

impl<'de> Visitor<'de> for All<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        loop {
            self.0.begin();
            // A row that cannot be taken is read to its end all the same, so that the next one can be.
            match seq.next_element_seed(Told(self.0))? {
                Some(None) => self.0.end(),
                Some(Some(why)) => self.0.refuse(why),
                None => return Ok(()),
            }
        }
    }
}

/// A row that says why it cannot be taken.
struct Told<'a>(&'a mut Rows);

impl<'de> DeserializeSeed<'de> for Told<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Told<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event, an object of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut why = None;
        while let Some(name) = map.next_key_seed(Name)? {
            if why.is_some() {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value_seed(Field)?;
            why = value.with(|value| self.0.field(&name, value)).err();
        }
        Ok(why)
    }
}

/// A row of a line.
struct Row<'a>(&'a mut Rows);

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event, an object of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        Told(self.0).visit_map(map)?.map_or(Ok(()), |why| Err(A::Error::custom(why)))
    }
}

/// The name of a field, as it stands where it can.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// The value of a field.
pub(super) struct Field;

/// A value, and its text if it is one.
pub(super) enum Read<'de> {
    Text(Cow<'de, str>),
    Other(Value<'static>),
}

impl Read<'_> {
    pub(super) fn with<T>(&self, then: impl FnOnce(&Value<'_>) -> T) -> T {
        match self {
            Self::Text(text) => then(&Value::Text(text)),
            Self::Other(value) => then(value),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Field {
    type Value = Read<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Field {
    type Value = Read<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Read::Other(Value::Null))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Read::Other(Value::Flag(flag)))
    }

    fn visit_u64<E>(self, whole: u64) -> Result<Self::Value, E> {
        Ok(Read::Other(Value::Whole(whole.into())))
    }

    fn visit_i64<E>(self, whole: i64) -> Result<Self::Value, E> {
        Ok(Read::Other(Value::Whole(whole.into())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Read::Other(Value::Number(number)))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Read::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Read::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut numbers = Some(Vec::new());
        while let Some(item) = seq.next_element_seed(Element)? {
            numbers = numbers.zip(item).map(|(mut numbers, item)| {
                numbers.push(item);
                numbers
            });
            if numbers.as_ref().is_some_and(|numbers| numbers.len() > MOST_NUMBERS) {
                return Err(A::Error::custom(format!("an array of numbers has at most {MOST_NUMBERS}")));
            }
        }
        Ok(Read::Other(numbers.map_or(Value::Other, Value::Many)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Read::Other(Value::Other))
    }
}

/// A number of an array; `None` for anything else.
struct Element;

impl<'de> DeserializeSeed<'de> for Element {
    type Value = Option<f64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element {
    type Value = Option<f64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number as f64))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float64Type, TimestampNanosecondType};

    fn open() -> Arc<Shape> {
        Arc::new(Shape { open: true, ..Shape::new(&std::collections::BTreeMap::new(), &[], None) })
    }

    #[test]
    fn lines_become_columns_and_bad_ones_are_told() {
        let body = br#"{"x": 1, "c": "a", "_id": 7, "_time": "2026-01-01T00:00:00Z"}
{"x": 2.5, "c": null, "_id": "seven", "_time": 1767225600.5}
not json
{"x": "text", "b": true, "_id": 1.5}
{"x": "text", "b": true}

{"x": 3, "x": 4}
{"x": 5, "deep": {"a": [1, {"b": []}]}} "#;
        let out = lines(body, open()).unwrap();
        assert_eq!((out.batch.num_rows(), out.refusals, out.mistyped), (4, 3, 1));
        let rows: Vec<u64> = out.refused.iter().map(|refusal| refusal.row).collect();
        assert_eq!(rows, [2, 3, 5]);
        assert!(out.refused[1].reason.contains("`_id` must be"), "{:?}", out.refused);
        assert!(out.refused[2].reason.contains("comes twice"));
        let x = out.batch.column_by_name("x").unwrap().as_primitive::<Float64Type>();
        assert_eq!(x.iter().collect::<Vec<_>>(), [Some(1.0), Some(2.5), None, Some(5.0)]);
        let time = out.batch.column_by_name("_time").unwrap().as_primitive::<TimestampNanosecondType>();
        assert_eq!(time.value(1) - time.value(0), 500_000_000);
        assert_eq!(out.batch.column_by_name("_id").unwrap().null_count(), 2);
        let b = out.batch.column_by_name("b").unwrap().as_boolean();
        assert_eq!(b.iter().collect::<Vec<_>>(), [None, None, Some(true), None]);
    }

    #[test]
    fn an_array_is_the_same_as_lines() {
        let rows = [
            r#"{"x":1,"c":"a"}"#,
            r#"{"x":2,"_id":true}"#,
            r#"{"x":3}"#,
            r#" { "x" : -0.25 , "c" : "\u00e9" } "#,
            r#"{"x":4,"y":1,"x":5}"#,
            r#"{"x":6,"c":"two\nlines","y":true,"z":{"deep":[1]}}"#,
            r#"{"\u0078":7,"c":null,"e":[0.5,1]}"#,
            "{}",
        ];
        let a = lines(rows.join("\n").as_bytes(), open()).unwrap();
        let b = array(format!("[{}]", rows.join(",")).as_bytes(), open()).unwrap();
        assert_eq!((a.batch, a.refused, a.mistyped, a.unknown), (b.batch, b.refused, b.mistyped, b.unknown));
        assert!(array(b"[{\"x\":1}", open()).is_err() && array(b"[1]", open()).is_err() && array(b"[] 1", open()).is_err());
    }

    #[test]
    fn nesting_has_an_end() {
        let deep = format!("{{\"x\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        // What is no number is read over without going down into it.
        let out = lines(deep.as_bytes(), open()).unwrap();
        assert_eq!((out.batch.num_rows(), out.refusals), (1, 0));
        let deep = format!("{{\"x\":{}", "[".repeat(100_000));
        assert_eq!(lines(deep.as_bytes(), open()).unwrap().refusals, 1);
    }

    #[test]
    fn fields_that_are_no_column_are_dropped_and_counted() {
        let mut shape = Shape::new(&std::collections::BTreeMap::from([("id".into(), "tx".into())]), &[], None);
        shape.open = false;
        shape.kinds.insert("x".into(), barograph_engine::schema::Kind::Number);
        let out = lines(b"{\"x\":1,\"secret\":\"s\",\"tx\":\"a\"}\n{\"tx\":\"b\",\"x\":true}", Arc::new(shape)).unwrap();
        assert_eq!((out.unknown, out.mistyped, out.batch.num_rows()), (1, 0, 2));
        assert!(out.batch.column_by_name("secret").is_none() && out.batch.column_by_name("_id").is_some());
    }
}
