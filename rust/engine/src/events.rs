//! Single events on their way to a monitor: gathered in columns, handed on as one batch.

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, StringBuilder, TimestampNanosecondBuilder};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema as ArrowSchema};
use barograph_core::{Error, Result};

use crate::labels::MOST_WEIGHT;
use crate::schema::{Kind, Schema};

/// What a field of an event holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing, or something of another kind than the column.
    Null,
    /// A number.
    Number(f64),
    /// A name.
    Name(&'a str),
    /// A boolean.
    Flag(bool),
    /// Nanoseconds since the epoch.
    Time(i64),
    /// Something that is counted only.
    Present,
}

/// A column that grows by an event at a time.
#[derive(Debug)]
enum Growing {
    Numbers(Float64Builder),
    Names(StringBuilder),
    Flags(BooleanBuilder),
    Times(TimestampNanosecondBuilder),
    /// Text and what is not supported: whether there was anything.
    Counted(StringBuilder),
}

impl Growing {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Number => Self::Numbers(Float64Builder::new()),
            Kind::Category => Self::Names(StringBuilder::new()),
            Kind::Boolean => Self::Flags(BooleanBuilder::new()),
            Kind::Time => Self::Times(TimestampNanosecondBuilder::new()),
            Kind::Text | Kind::Embedding | Kind::Unsupported => Self::Counted(StringBuilder::new()),
        }
    }

    fn push(&mut self, value: Value<'_>) {
        match (self, value) {
            (Self::Numbers(column), Value::Number(value)) => column.append_value(value),
            (Self::Names(column), Value::Name(value)) => column.append_value(value),
            (Self::Flags(column), Value::Flag(value)) => column.append_value(value),
            (Self::Times(column), Value::Time(value)) => column.append_value(value),
            (Self::Counted(column), Value::Present | Value::Name(_)) => column.append_value(""),
            (Self::Numbers(column), _) => column.append_null(),
            (Self::Names(column) | Self::Counted(column), _) => column.append_null(),
            (Self::Flags(column), _) => column.append_null(),
            (Self::Times(column), _) => column.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Numbers(column) => Arc::new(column.finish()),
            Self::Names(column) | Self::Counted(column) => Arc::new(column.finish()),
            Self::Flags(column) => Arc::new(column.finish()),
            Self::Times(column) => Arc::new(column.finish()),
        }
    }
}

/// What belongs to the events beside their fields, event by event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks {
    /// When, in nanoseconds since the epoch.
    pub times: Vec<i64>,
    /// What labels are joined by, see [`crate::labels::keys`]; empty if no event has one.
    pub ids: Vec<Option<u128>>,
    /// Of the positive class; empty if no event has one.
    pub scores: Vec<Option<f64>>,
    /// Of several classes the probabilities of each event, empty for one without; empty if no event has them.
    pub chances: Vec<Box<[f32]>>,
    /// How much events count in metrics; empty where all count alike.
    pub weights: Vec<f64>,
    /// In seconds; empty if no event has one.
    pub latency: Vec<Option<f64>>,
    /// Whether the event failed; empty if none says so.
    pub errors: Vec<bool>,
    /// Each event stands for `2^halvings`, the others having been left out by fair coins.
    pub halvings: u32,
}

impl Marks {
    /// Adds those of other events, each of which stands for as many.
    pub(crate) fn append(&mut self, other: Self) {
        /// What was empty and is not any longer is filled up.
        fn extend<T: Clone>(to: &mut Vec<T>, from: Vec<T>, (before, after): (usize, usize), none: T) {
            if !to.is_empty() || !from.is_empty() {
                to.resize(before, none.clone());
                to.extend(from);
                to.resize(after, none);
            }
        }
        let rows = (self.times.len(), self.times.len() + other.times.len());
        self.times.extend(other.times);
        extend(&mut self.ids, other.ids, rows, None);
        extend(&mut self.scores, other.scores, rows, None);
        extend(&mut self.chances, other.chances, rows, Box::default());
        extend(&mut self.weights, other.weights, rows, 1.0);
        extend(&mut self.latency, other.latency, rows, None);
        extend(&mut self.errors, other.errors, rows, false);
        self.halvings = other.halvings;
    }
}

/// Events that were not handed on yet.
#[derive(Debug)]
pub struct Events {
    names: Vec<(String, Growing)>,
    marks: Marks,
}

impl Events {
    /// None yet; fields are the columns of this schema.
    pub fn new(schema: &Schema) -> Self {
        let names = schema.columns.iter().map(|column| (column.name.clone(), Growing::new(column.kind))).collect();
        Self { names, marks: Marks::default() }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.marks.times.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.marks.times.is_empty()
    }

    /// Begins an event; every field of it has to be set after this, in the order of the schema.
    pub fn begin(
        &mut self,
        time: i64,
        id: Option<u128>,
        (score, chances, weight): (Option<f64>, Box<[f32]>, Option<f64>),
        latency: Option<f64>,
        error: bool,
    ) {
        if let Some(weight) = weight.filter(|weight| (0.0..=MOST_WEIGHT).contains(weight)) {
            self.marks.weights.resize(self.marks.times.len(), 1.0);
            self.marks.weights.push(weight);
        }
        if !chances.is_empty() {
            self.marks.chances.resize(self.marks.times.len(), Box::default());
            self.marks.chances.push(chances);
        }
        self.marks.times.push(time);
        self.marks.ids.push(id);
        self.marks.scores.push(score.filter(|score| score.is_finite()));
        self.marks.errors.push(error);
        self.marks.latency.push(latency.filter(|seconds| seconds.is_finite()));
    }

    /// The value of a field of the event that was begun last.
    pub fn field(&mut self, column: usize, value: Value<'_>) {
        if let Some((_, growing)) = self.names.get_mut(column) {
            growing.push(value);
        }
    }

    /// Hands all events on and begins anew.
    ///
    /// # Errors
    /// None in practice.
    pub fn take(&mut self) -> Result<(RecordBatch, Marks)> {
        let marks = std::mem::take(&mut self.marks);
        let columns: Vec<(Field, ArrayRef)> = self
            .names
            .iter_mut()
            .map(|(name, growing)| {
                let array = growing.finish();
                (Field::new(name.as_str(), array.data_type().clone(), true), array)
            })
            .collect();
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
        let options = RecordBatchOptions::new().with_row_count(Some(marks.times.len()));
        let batch = RecordBatch::try_new_with_options(Arc::new(ArrowSchema::new(fields)), arrays, &options)
            .map_err(|error| Error::invalid(format!("events could not be gathered: {error}")))?;
        Ok((batch, marks))
    }
}
