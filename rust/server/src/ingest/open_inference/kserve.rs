//! Rows and predictions of `KServe`'s V1 protocol
//! (<https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol>).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::arrow::MOST_ROWS;
use super::super::ndjson::Field;
use super::tensors::{Data, Elements, Part, Push, Tensor};
use super::{Tensors, answers, is_prediction, is_score, parts, settled};
use crate::problem::{Outcome, Problem};
use crate::rows::{Rows, Value};
use crate::shape::{MOST_COLUMNS, Mark, Shape};

/// The rows of a V1 request.
#[derive(Debug)]
pub(super) struct Instances {
    rows: Rows,
    /// `input.0`, `input.1` and so on, as far as they were needed.
    names: Vec<String>,
    /// Rows that are too wide to be columns.
    wide: bool,
}

impl Instances {
    pub(super) fn new(shape: &Arc<Shape>) -> Self {
        Self { rows: Rows::new(Arc::clone(shape)), names: Vec::new(), wide: false }
    }

    fn cell(&mut self, at: usize, value: &Value<'_>) -> Result<(), String> {
        if at >= MOST_COLUMNS {
            self.wide = true;
            return Ok(());
        }
        while self.names.len() <= at {
            self.names.push(format!("input.{}", self.names.len()));
        }
        self.names.get(at).map_or(Ok(()), |name| self.rows.field(name, value))
    }

    pub(super) fn finish(self, id: Option<String>) -> Outcome<Tensors> {
        let rows = self.rows.len();
        if rows > MOST_ROWS {
            return Err(Problem::too_large(format!("a body has at most {MOST_ROWS} events")));
        }
        if self.wide {
            return Ok(Tensors { columns: Vec::new(), rows, id, unknown: rows as u64, mistyped: 0 });
        }
        let decoded = self.rows.finish()?;
        Ok(Tensors { columns: parts(&decoded), rows, id, unknown: decoded.unknown, mistyped: decoded.mistyped })
    }
}

impl<'de> DeserializeSeed<'de> for Instances {
    type Value = Self;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Instances {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self, A::Error> {
        loop {
            self.rows.begin();
            if seq.next_element_seed(Instance { all: &mut self, at: &mut 0, row: true })?.is_none() {
                return Ok(self);
            }
            self.rows.end();
        }
    }
}

/// A row, or an element of one.
struct Instance<'a> {
    all: &'a mut Instances,
    at: &'a mut usize,
    row: bool,
}

impl Instance<'_> {
    fn cell<E: serde::de::Error>(self, value: &Value<'_>) -> Result<(), E> {
        *self.at += 1;
        self.all.cell(*self.at - 1, value).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Instance<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Instance<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row: an array or an object")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.cell(&Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<(), E> {
        self.cell(&Value::Flag(flag))
    }

    fn visit_i64<E: serde::de::Error>(self, whole: i64) -> Result<(), E> {
        self.cell(&Value::Whole(whole.into()))
    }

    fn visit_u64<E: serde::de::Error>(self, whole: u64) -> Result<(), E> {
        self.cell(&Value::Whole(whole.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        self.cell(&Value::Number(number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.cell(&Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Instance { all: self.all, at: self.at, row: false })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if !self.row {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return self.cell(&Value::Other);
        }
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let value = map.next_value_seed(Field)?;
            value.with(|value| self.all.rows.field(&name, value)).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// The rows of a V1 response: values, arrays of them, or objects.
#[derive(Debug)]
pub(super) struct Predictions {
    shape: Arc<Shape>,
    data: Data,
    rows: usize,
    objects: Option<Rows>,
    unknown: u64,
}

impl Predictions {
    pub(super) fn new(shape: &Arc<Shape>) -> Self {
        Self { shape: Arc::clone(shape), data: Data::default(), rows: 0, objects: None, unknown: 0 }
    }

    pub(super) fn finish(self, shape: &Shape) -> Outcome<Tensors> {
        if self.rows > MOST_ROWS {
            return Err(Problem::too_large(format!("a body has at most {MOST_ROWS} events")));
        }
        if let Some(objects) = self.objects {
            let decoded = objects.finish()?;
            let unknown = decoded.unknown + self.unknown;
            return Ok(Tensors { columns: parts(&decoded), rows: self.rows, id: None, unknown, mistyped: decoded.mistyped });
        }
        let width = self.data.length / self.rows.max(1);
        if width > MOST_COLUMNS {
            return Ok(Tensors { columns: Vec::new(), rows: self.rows, id: None, unknown: self.rows as u64, mistyped: 0 });
        }
        let floating = matches!(self.data.elements, Elements::Numbers(_));
        let arrays = self.data.columns(self.rows, width, None);
        let part = |(at, array)| Part { name: format!("predictions.{at}"), array, json: true };
        let tensor = Tensor { name: "predictions".to_owned(), floating, columns: arrays.into_iter().enumerate().map(part).collect() };
        let (columns, unknown) = answers(vec![tensor], shape);
        let mut out = settled(columns, self.rows, shape)?;
        out.unknown += unknown;
        Ok(out)
    }
}

impl<'de> DeserializeSeed<'de> for Predictions {
    type Value = Self;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Predictions {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of predictions")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self, A::Error> {
        let mut width = None;
        loop {
            let before = self.data.length;
            if seq.next_element_seed(Answer(&mut self))?.is_none() {
                return Ok(self);
            }
            self.rows += 1;
            let own = self.data.length - before;
            if *width.get_or_insert(own) != own || (own == 0) != self.objects.is_some() {
                return Err(A::Error::custom("all predictions must have the same number of values"));
            }
        }
    }
}

struct Answer<'a>(&'a mut Predictions);

impl<'de> DeserializeSeed<'de> for Answer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Answer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a prediction: a value, an array of them or an object")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Push(&mut self.0.data).visit_unit()
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<(), E> {
        Push(&mut self.0.data).visit_bool(flag)
    }

    fn visit_i64<E: serde::de::Error>(self, whole: i64) -> Result<(), E> {
        Push(&mut self.0.data).visit_i64(whole)
    }

    fn visit_u64<E: serde::de::Error>(self, whole: u64) -> Result<(), E> {
        Push(&mut self.0.data).visit_u64(whole)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        Push(&mut self.0.data).visit_f64(number)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        Push(&mut self.0.data).visit_str(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        Push(&mut self.0.data).visit_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Predictions { shape, objects, unknown, .. } = self.0;
        let rows = objects.get_or_insert_with(|| Rows::new(Arc::clone(shape)));
        rows.begin();
        let mut had = [false; 2];
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let value = map.next_value_seed(Field)?;
            value
                .with(|value| {
                    let (place, to) = match value {
                        _ if shape.marks.contains_key(name.as_ref()) => return rows.field(&name, value),
                        Value::Number(_) | Value::Whole(_) | Value::Many(_) if is_score(&name) => (0, Mark::Score),
                        Value::Number(_) | Value::Whole(_) | Value::Text(_) | Value::Flag(_) if is_prediction(&name) => {
                            (1, Mark::Prediction)
                        }
                        Value::Null => return Ok(()),
                        _ => (2, Mark::Prediction),
                    };
                    // Of several fields for one role the first counts.
                    if had.get_mut(place).is_some_and(|had| !std::mem::replace(had, true)) {
                        return rows.field(to.name(), value);
                    }
                    *unknown += 1;
                    Ok(())
                })
                .map_err(A::Error::custom)?;
        }
        rows.end();
        Ok(())
    }
}
