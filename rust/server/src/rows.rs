//! Events row by row on their way into columns: what every protocol of single events is decoded into.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, Float64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampNanosecondArray,
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use barograph_engine::labels::{key_of_integer, key_of_name};
use barograph_engine::schema::Kind;
use serde::Serialize;

use crate::privacy::Fate;
use crate::problem::{Outcome, Problem};
use crate::shape::{MOST_COLUMNS, Mark, Shape};

/// Bytes of an id as it is kept: its key for joins, see [`barograph_engine::labels`].
pub const KEY_BYTES: i32 = 16;
/// Refused rows that an answer tells one by one.
const MOST_TOLD: usize = 100;

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// A number with a fraction, or without one.
    Number(f64),
    /// A whole number, as it stands.
    Whole(i128),
    /// Text.
    Text(&'a str),
    /// A boolean.
    Flag(bool),
    /// Several numbers: an embedding, or the probabilities of classes.
    Many(Vec<f64>),
    /// Something else, such as an object.
    Other,
}

/// A row that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Its place in the body, from 0.
    pub row: u64,
    /// Why.
    pub reason: String,
}

/// What a body was decoded into.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The events: features by name, roles by the name of their [`Mark`].
    pub batch: RecordBatch,
    /// Rows that were not taken: the first hundred.
    pub refused: Vec<Refusal>,
    /// How many were not.
    pub refusals: u64,
    /// Fields that are no column of the model.
    pub unknown: u64,
    /// Values of another kind than their column, which count as null.
    pub mistyped: u64,
    /// Ids that are text, row by row, where the shape asks for them: the batch has their keys alone.
    pub ids: Option<StringArray>,
}

/// The values of a column so far.
#[derive(Clone, Debug)]
enum Values {
    /// Only nulls, so many.
    Nulls,
    Numbers(Vec<f64>),
    Texts {
        ends: Vec<i32>,
        bytes: Vec<u8>,
    },
    Flags(Vec<bool>),
    Times(Vec<i64>),
    Keys(Vec<u8>),
    /// There, but not read: embeddings and what is not supported.
    Counted,
}

/// A column that grows by a row at a time.
#[derive(Clone, Debug)]
struct Growing {
    name: String,
    values: Values,
    valid: Vec<bool>,
    nulls: usize,
}

impl Values {
    fn of(kind: Kind, rows: usize) -> Self {
        match kind {
            Kind::Number => Self::Numbers(vec![0.0; rows]),
            Kind::Category | Kind::Text => Self::Texts { ends: vec![0; rows], bytes: Vec::new() },
            Kind::Boolean => Self::Flags(vec![false; rows]),
            Kind::Time => Self::Times(vec![0; rows]),
            Kind::Embedding | Kind::Unsupported => Self::Counted,
        }
    }

    /// One more place, without a value.
    fn pad(&mut self) {
        match self {
            Self::Nulls | Self::Counted => {}
            Self::Numbers(values) => values.push(0.0),
            Self::Texts { ends, bytes } => ends.push(bytes.len() as i32),
            Self::Flags(values) => values.push(false),
            Self::Times(values) => values.push(0),
            Self::Keys(values) => values.extend_from_slice(&[0; KEY_BYTES as usize]),
        }
    }

    /// A value, if it is of this kind.
    fn push(&mut self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Numbers(values), Value::Number(value)) => values.push(*value),
            (Self::Numbers(values), Value::Whole(value)) => values.push(*value as f64),
            // As a monitor in the process has it: true is the number 1.
            (Self::Numbers(values), Value::Flag(flag)) => values.push(f64::from(u8::from(*flag))),
            (Self::Texts { ends, bytes }, Value::Text(text)) if i32::try_from(bytes.len() + text.len()).is_ok() => {
                bytes.extend_from_slice(text.as_bytes());
                ends.push(bytes.len() as i32);
            }
            (Self::Flags(values), Value::Flag(flag)) => values.push(*flag),
            (Self::Times(values), Value::Text(text)) => match instant(text) {
                Some(time) => values.push(time),
                None => return false,
            },
            (Self::Times(values), Value::Number(seconds)) => match from_seconds(*seconds) {
                Some(time) => values.push(time),
                None => return false,
            },
            (Self::Times(values), Value::Whole(seconds)) => {
                match i64::try_from(*seconds).ok().and_then(|seconds| seconds.checked_mul(1_000_000_000)) {
                    Some(time) => values.push(time),
                    None => return false,
                }
            }
            (Self::Keys(values), Value::Text(text)) => values.extend_from_slice(&key_of_name(text).to_be_bytes()),
            (Self::Keys(values), Value::Whole(whole)) => values.extend_from_slice(&key_of_integer(*whole).to_be_bytes()),
            (Self::Counted, _) => {}
            _ => return false,
        }
        true
    }

    fn truncate(&mut self, rows: usize) {
        match self {
            Self::Nulls | Self::Counted => {}
            Self::Numbers(values) => values.truncate(rows),
            Self::Texts { ends, bytes } => {
                ends.truncate(rows);
                bytes.truncate(ends.last().map_or(0, |end| *end as usize));
            }
            Self::Flags(values) => values.truncate(rows),
            Self::Times(values) => values.truncate(rows),
            Self::Keys(values) => values.truncate(rows * KEY_BYTES as usize),
        }
    }
}

impl Growing {
    fn new(name: &str, values: Values, rows: usize) -> Self {
        Self { name: name.to_owned(), values, valid: vec![false; rows], nulls: rows }
    }

    fn push_null(&mut self) {
        self.values.pad();
        self.valid.push(false);
        self.nulls += 1;
    }

    /// A value; false if it is of another kind, and then null.
    fn push(&mut self, value: &Value<'_>) -> bool {
        if matches!(value, Value::Null) {
            self.push_null();
            return true;
        }
        if matches!(self.values, Values::Nulls) {
            self.values = Values::of(kind_of(value), self.valid.len());
        }
        if self.values.push(value) {
            self.valid.push(true);
            return true;
        }
        self.push_null();
        false
    }

    /// The same value in other words, in place of the null that was pushed for it; false if the column is not one of roles with texts.
    fn push_instead(&mut self, text: &str) -> bool {
        let texts = [Mark::Version, Mark::Prediction, Mark::Label].iter().any(|mark| mark.name() == self.name);
        let flag = Mark::Error.name() == self.name;
        if !(texts && matches!(self.values, Values::Texts { .. }) || flag) {
            return false;
        }
        self.truncate(self.valid.len() - 1);
        self.push(&if flag { Value::Flag(!matches!(text, "" | "0")) } else { Value::Text(text) })
    }

    fn truncate(&mut self, rows: usize) {
        self.nulls -= self.valid.iter().skip(rows).filter(|valid| !**valid).count();
        self.valid.truncate(rows);
        self.values.truncate(rows);
    }

    fn finish(self) -> Outcome<(Field, ArrayRef)> {
        let nulls = (self.nulls > 0).then(|| self.valid.clone().into());
        let wrong = |error: arrow_schema::ArrowError| Problem::bad(format!("column {:?} could not be gathered: {error}", self.name));
        let array: ArrayRef = match self.values {
            Values::Nulls => Arc::new(arrow_array::NullArray::new(self.valid.len())),
            Values::Numbers(values) => Arc::new(Float64Array::new(values.into(), nulls)),
            Values::Texts { ends, bytes } => {
                let lengths = ends.iter().scan(0, |before, end| Some((end - std::mem::replace(before, *end)) as usize));
                let offsets = arrow_buffer::OffsetBuffer::from_lengths(lengths);
                Arc::new(StringArray::try_new(offsets, bytes.into(), nulls).map_err(wrong)?)
            }
            Values::Flags(values) => Arc::new(BooleanArray::new(values.into(), nulls)),
            Values::Times(values) => Arc::new(TimestampNanosecondArray::new(values.into(), nulls).with_timezone("UTC")),
            Values::Keys(values) => Arc::new(FixedSizeBinaryArray::try_new(KEY_BYTES, values.into(), nulls).map_err(wrong)?),
            // Something that is there and has no content.
            Values::Counted => {
                let offsets = arrow_buffer::OffsetBuffer::from_lengths(self.valid.iter().map(|_| 0));
                Arc::new(arrow_array::BinaryArray::try_new(offsets, Vec::<u8>::new().into(), nulls).map_err(wrong)?)
            }
        };
        Ok((Field::new(self.name, array.data_type().clone(), true), array))
    }
}

/// The kind that a value has by itself.
fn kind_of(value: &Value<'_>) -> Kind {
    match value {
        Value::Number(_) | Value::Whole(_) => Kind::Number,
        Value::Flag(_) => Kind::Boolean,
        Value::Many(_) => Kind::Embedding,
        Value::Text(_) | Value::Null => Kind::Category,
        Value::Other => Kind::Unsupported,
    }
}

/// A plain value as text.
fn as_text(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Text(text) => Some((*text).to_owned()),
        Value::Whole(whole) => Some(whole.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Flag(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// The column of a class's probabilities.
pub fn chance_name(class: usize) -> String {
    format!("{}.{class}", Mark::Score.name())
}

/// Nanoseconds since the epoch of an instant as text (RFC 3339; without a zone it is UTC).
pub fn instant(text: &str) -> Option<i64> {
    i64::try_from(nanoseconds(text)?).ok()
}

/// The same; before 1677 and after 2262 the first and last that there is.
pub fn bounded_instant(text: &str) -> Option<i64> {
    Some(nanoseconds(text)?.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}

fn nanoseconds(text: &str) -> Option<i128> {
    let nanoseconds = match text.parse::<jiff::Timestamp>() {
        Ok(time) => time.as_nanosecond(),
        Err(_) => jiff::tz::TimeZone::UTC.to_timestamp(text.parse().ok()?).ok()?.as_nanosecond(),
    };
    Some(nanoseconds)
}

/// Nanoseconds of seconds since the epoch, to the microsecond.
fn from_seconds(seconds: f64) -> Option<i64> {
    (seconds.abs() < 9.2e9).then(|| (seconds * 1e6).round() as i64 * 1000)
}

/// Events that are gathered row by row.
#[derive(Debug)]
pub struct Rows {
    shape: Arc<Shape>,
    columns: Vec<Growing>,
    /// Where a field goes: a column, or nowhere.
    places: HashMap<String, Option<usize>>,
    /// The columns of the last row's fields, in their order: the next row most likely has the same.
    order: Vec<(String, Option<usize>)>,
    turn: usize,
    taken: usize,
    seen: u64,
    refused: Vec<Refusal>,
    refusals: u64,
    unknown: u64,
    mistyped: u64,
    before: (u64, u64),
    /// Rows of ids that are text, in order, where the shape asks for them.
    ids: Vec<(usize, String)>,
}

impl Rows {
    /// None yet.
    pub fn new(shape: Arc<Shape>) -> Self {
        Self {
            shape,
            columns: Vec::new(),
            places: HashMap::new(),
            order: Vec::new(),
            turn: 0,
            taken: 0,
            seen: 0,
            refused: Vec::new(),
            refusals: 0,
            unknown: 0,
            mistyped: 0,
            before: (0, 0),
            ids: Vec::new(),
        }
    }

    /// Rows that were taken.
    pub fn len(&self) -> usize {
        self.taken
    }

    /// Whether none was taken.
    pub fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Rows that came, refused ones included.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Begins a row; after its fields comes [`end`](Self::end) or [`refuse`](Self::refuse).
    pub fn begin(&mut self) {
        self.turn = 0;
        self.before = (self.unknown, self.mistyped);
    }

    /// A field of the row.
    ///
    /// # Errors
    /// Why the whole row cannot be taken: the caller has to refuse it.
    pub fn field(&mut self, name: &str, value: &Value<'_>) -> Result<(), String> {
        let Some(privacy) = self.shape.privacy.clone() else { return self.kept(name, value) };
        match privacy.changed(name, value)? {
            Fate::Kept => self.kept(name, value),
            Fate::Dropped => Ok(()),
            Fate::Changed(changed) => self.kept(name, &changed.text().map_or(Value::Null, Value::Text)),
        }
    }

    fn kept(&mut self, name: &str, value: &Value<'_>) -> Result<(), String> {
        let place = match self.order.get(self.turn) {
            Some((known, place)) if known == name => *place,
            _ => self.place(name, value)?,
        };
        self.turn += 1;
        let Some(at) = place else {
            self.unknown += u64::from(!matches!(value, Value::Null));
            return Ok(());
        };
        self.put(at, name, value, self.taken)
    }

    /// Puts a value into a column, for the row of this number.
    fn put(&mut self, at: usize, name: &str, value: &Value<'_>, row: usize) -> Result<(), String> {
        if let Value::Many(chances) = value
            && self.shape.marks.get(name) == Some(&Mark::Score)
        {
            return self.chances(chances, row);
        }
        let Some(column) = self.columns.get_mut(at) else { return Ok(()) };
        if column.valid.len() > row {
            return Err(format!("field {name:?} comes twice"));
        }
        let label = column.name == Mark::Label.name();
        if label && !self.shape.classes.is_empty() && as_text(value).is_some_and(|text| !self.shape.classes.contains(&text)) {
            return Err(format!("`{name}` must be one of {}", self.shape.classes.join(", ")));
        }
        if column.push(value) || as_text(value).is_some_and(|text| column.push_instead(&text)) {
            if self.shape.examples.is_some()
                && let Value::Text(text) = value
                && column.name == Mark::Id.name()
            {
                self.ids.push((row, (*text).to_owned()));
            }
            return Ok(());
        }
        match Mark::of(&column.name).filter(|mark| mark.name() == column.name) {
            Some(Mark::Id) => Err(format!("`{name}` must be a whole number or text")),
            Some(Mark::Time) => Err(format!("`{name}` must be an instant such as 2026-01-31T12:00:00Z or seconds since 1970")),
            Some(Mark::Latency | Mark::Weight | Mark::Score | Mark::Label) => Err(format!("`{name}` must be a number")),
            _ => {
                self.mistyped += 1;
                Ok(())
            }
        }
    }

    /// The probabilities of a model's classes: a column for each.
    fn chances(&mut self, chances: &[f64], row: usize) -> Result<(), String> {
        for (class, chance) in chances.iter().enumerate() {
            let name = chance_name(class);
            let at = match self.columns.iter().position(|column| column.name == name) {
                Some(at) => at,
                None if self.columns.len() >= MOST_COLUMNS => return Err(format!("an event has at most {MOST_COLUMNS} fields")),
                None => {
                    self.columns.push(Growing::new(&name, Values::of(Kind::Number, row), row));
                    self.columns.len() - 1
                }
            };
            if let Some(column) = self.columns.get_mut(at).filter(|column| column.valid.len() <= row) {
                while column.valid.len() < row {
                    column.push_null();
                }
                column.push(&Value::Number(*chance));
            }
        }
        Ok(())
    }

    /// Where a field goes that does not stand where it stood in the last row.
    fn place(&mut self, name: &str, value: &Value<'_>) -> Result<Option<usize>, String> {
        let place = match self.places.get(name) {
            Some(place) => *place,
            None => self.new_place(name, value)?,
        };
        self.order.truncate(self.turn);
        if self.order.len() < MOST_COLUMNS {
            self.order.push((name.to_owned(), place));
        }
        Ok(place)
    }

    fn new_place(&mut self, name: &str, value: &Value<'_>) -> Result<Option<usize>, String> {
        let mark = self.shape.marks.get(name).copied();
        let to = match mark {
            Some(mark) => mark.name(),
            None => name,
        };
        let kind = self.shape.kinds.get(to).copied();
        if mark.is_none() && kind.is_none() && !self.shape.open {
            if self.places.len() < MOST_COLUMNS {
                self.places.insert(name.to_owned(), None);
            }
            return Ok(None);
        }
        if self.columns.len() >= MOST_COLUMNS {
            return Err(format!("an event has at most {MOST_COLUMNS} fields"));
        }
        let values = match (mark, kind) {
            (Some(Mark::Id), _) => Values::Keys(vec![0; self.taken * KEY_BYTES as usize]),
            (Some(Mark::Time), _) => Values::of(Kind::Time, self.taken),
            (Some(Mark::Score), _) if !matches!(value, Value::Many(_)) => Values::of(Kind::Number, self.taken),
            (Some(Mark::Error), _) => Values::of(Kind::Boolean, self.taken),
            (Some(Mark::Version), _) => Values::of(Kind::Category, self.taken),
            (Some(Mark::Prediction | Mark::Label), _) if !self.shape.classes.is_empty() => Values::of(Kind::Category, self.taken),
            // Booleans are numbers there.
            (Some(Mark::Latency | Mark::Weight | Mark::Label), _) => Values::of(Kind::Number, self.taken),
            (_, Some(kind)) => Values::of(kind, self.taken),
            _ => Values::Nulls,
        };
        let at = self.columns.iter().position(|column| column.name == to).unwrap_or_else(|| {
            self.columns.push(Growing::new(to, values, self.taken));
            self.columns.len() - 1
        });
        self.places.insert(name.to_owned(), Some(at));
        Ok(Some(at))
    }

    /// The row is complete.
    pub fn end(&mut self) {
        self.taken += 1;
        self.seen += 1;
        for column in &mut self.columns {
            if column.valid.len() < self.taken {
                column.push_null();
            }
        }
    }

    /// The row cannot be taken: what came of it goes.
    pub fn refuse(&mut self, reason: impl Into<String>) {
        self.undo();
        if self.refused.len() < MOST_TOLD {
            self.refused.push(Refusal { row: self.seen, reason: reason.into() });
        }
        self.refusals += 1;
        self.seen += 1;
    }

    /// The row begins anew: what came of it goes.
    pub fn undo(&mut self) {
        self.turn = 0;
        (self.unknown, self.mistyped) = self.before;
        for column in &mut self.columns {
            column.truncate(self.taken);
        }
        while self.ids.last().is_some_and(|(row, _)| *row >= self.taken) {
            self.ids.pop();
        }
    }

    /// The rows as columns.
    ///
    /// # Errors
    /// None in practice.
    pub fn finish(self) -> Outcome<Decoded> {
        let columns = self.columns.into_iter().map(Growing::finish).collect::<Outcome<Vec<_>>>()?;
        let mut ids = self.ids.iter().peekable();
        let text = |row: usize| ids.next_if(|(at, _)| *at == row).map(|(_, text)| text.as_str());
        let ids = self.shape.examples.is_some().then(|| (0..self.taken).map(text).collect());
        Ok(Decoded {
            ids,
            batch: batch_of(columns, self.taken)?,
            refused: self.refused,
            refusals: self.refusals,
            unknown: self.unknown,
            mistyped: self.mistyped,
        })
    }
}

/// Columns as a batch.
///
/// # Errors
/// `Problem` for columns of different lengths.
pub fn batch_of(columns: Vec<(Field, ArrayRef)>, rows: usize) -> Outcome<RecordBatch> {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|error| Problem::bad(format!("the columns are no table: {error}")))
}

/// The type of times in a batch.
pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

/// Events that are gathered column by column: as [`Rows`], but what cannot be taken refuses all.
#[derive(Debug)]
pub struct Columns {
    rows: Rows,
    name: String,
    place: Option<usize>,
    known: bool,
    count: usize,
    length: Option<usize>,
}

impl Columns {
    /// None yet.
    pub fn new(shape: Arc<Shape>) -> Self {
        Self { rows: Rows::new(shape), name: String::new(), place: None, known: false, count: 0, length: None }
    }

    /// Begins a column.
    ///
    /// # Errors
    /// Why the body cannot be taken; so for every method here.
    pub fn begin(&mut self, name: &str) -> Result<(), String> {
        if self.rows.places.contains_key(name) {
            return Err(format!("column {name:?} comes twice"));
        }
        name.clone_into(&mut self.name);
        (self.place, self.known, self.count) = (None, false, 0);
        Ok(())
    }

    /// The next value of the column.
    ///
    /// # Errors
    /// For a value that a role cannot have.
    pub fn push(&mut self, value: &Value<'_>) -> Result<(), String> {
        let Some(privacy) = self.rows.shape.privacy.clone() else { return self.kept(value) };
        match privacy.changed(&self.name, value)? {
            Fate::Kept => self.kept(value),
            Fate::Dropped => {
                self.count += 1;
                Ok(())
            }
            Fate::Changed(changed) => self.kept(&changed.text().map_or(Value::Null, Value::Text)),
        }
    }

    fn kept(&mut self, value: &Value<'_>) -> Result<(), String> {
        self.count += 1;
        if !self.known {
            // The first value decides what the column is.
            let rows = std::mem::take(&mut self.rows.taken);
            self.place = self.rows.new_place(&self.name, value)?;
            self.rows.taken = rows;
            self.known = true;
        }
        let Some(at) = self.place else {
            self.rows.unknown += u64::from(!matches!(value, Value::Null));
            return Ok(());
        };
        let name = std::mem::take(&mut self.name);
        let put = self.rows.put(at, &name, value, self.count - 1);
        self.name = name;
        put
    }

    /// The column is complete.
    ///
    /// # Errors
    /// For a column of another length than the first.
    pub fn end(&mut self) -> Result<(), String> {
        let length = *self.length.get_or_insert(self.count);
        if length == self.count {
            self.rows.taken = length;
            return Ok(());
        }
        Err(format!("all columns must have one length, {:?} has {}, others {length}", self.name, self.count))
    }

    /// The columns as a batch.
    ///
    /// # Errors
    /// None in practice.
    pub fn finish(mut self) -> Outcome<Decoded> {
        let rows = self.length.unwrap_or(0);
        for column in &mut self.rows.columns {
            while column.valid.len() < rows {
                column.push_null();
            }
        }
        self.rows.finish()
    }
}
