//! Labels that come later than their events, or earlier, or never: joined by id.

use std::collections::BTreeSet;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use barograph_core::codec::{Reader, Writer};
use barograph_core::hash::murmur3_x64_128;
use barograph_core::{Error, Result};
use hashbrown::HashMap;

use crate::frame;
use crate::ledger::Choice;

/// Events that wait for their label and labels that wait for their event, each.
const MOST_WAITING: usize = 1 << 22;

/// The largest weight of an event.
pub const MOST_WEIGHT: f64 = 1e12;

/// What a label finds of its event.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Start of the event's tile.
    pub tile: i64,
    /// Its score, if it had one; of several classes the position of the one predicted.
    pub score: Option<f64>,
    /// Of several classes the probability of each, if it had them.
    pub chances: Box<[f32]>,
    /// How much it counts in metrics.
    pub weight: f64,
}

/// A label, and when it arrived.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label {
    /// 0 or 1, the position of a class, or a number.
    pub value: f64,
    /// Nanoseconds since the epoch.
    pub time: i64,
}

/// A prediction whose label changed: the one that counted, and the one that counts now.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Change {
    pub prediction: Prediction,
    pub before: Option<f64>,
    pub now: Option<f64>,
}

/// The join. Of several events of one id the first counts; which of several labels counts says the [`Choice`]. Labelled events stay, for
/// corrections, as long as there is room; a label whose event is not known waits for it.
#[derive(Clone, Debug, Default)]
pub struct LabelJoin {
    choice: Choice,
    /// Labelled events that are kept.
    keep: usize,
    events: HashMap<u128, (Prediction, Option<Label>)>,
    labels: HashMap<u128, Label>,
    /// Arrival times of the labels of labelled events, and their ids: the first are the first to go.
    labelled: BTreeSet<(i64, u128)>,
    /// Events or labels given up because too many waited.
    pub dropped: u64,
    /// Later events of a known id.
    pub duplicates: u64,
    /// Labels that took the place of another one, or came to one that stayed.
    pub superseded: u64,
}

impl LabelJoin {
    /// Nothing yet; labelled events may take `memory` bytes, about.
    pub fn new(choice: Choice, memory: usize) -> Self {
        Self { choice, keep: memory / 128, ..Self::default() }
    }

    /// An event has its label; the first labelled ones go when there are too many.
    fn done(&mut self, id: u128, label: Label) {
        self.labelled.insert((label.time, id));
        while self.labelled.len() > self.keep.min(MOST_WAITING) {
            self.labelled.pop_first().map(|(_, id)| self.events.remove(&id));
        }
    }

    /// An event; its label if that came first.
    pub fn event(&mut self, id: u128, prediction: Prediction) -> Option<Change> {
        if self.events.contains_key(&id) {
            self.duplicates += 1;
            return None;
        }
        let label = self.labels.remove(&id);
        let change = label.map(|label| Change { prediction: prediction.clone(), before: None, now: Some(label.value) });
        if let Some(label) = label {
            self.events.insert(id, (prediction, Some(label)));
            self.done(id, label);
        } else if self.events.len() - self.labelled.len() < MOST_WAITING {
            self.events.insert(id, (prediction, label));
        } else {
            self.dropped += 1;
        }
        change
    }

    /// A label; what it changes, if its event came first.
    pub fn label(&mut self, id: u128, label: Label) -> Option<Change> {
        let known = self.events.get(&id).and_then(|(_, known)| *known).or_else(|| self.labels.get(&id).copied());
        if let Some(known) = known {
            self.superseded += 1;
            if !self.choice.prefers(label.time, known.time) {
                return None;
            }
        }
        if let Some((prediction, to)) = self.events.get_mut(&id) {
            *to = Some(label);
            let before = known.map(|known| known.value);
            let change = (before != Some(label.value)).then(|| Change { prediction: prediction.clone(), before, now: Some(label.value) });
            if let Some(known) = known {
                self.labelled.remove(&(known.time, id));
            }
            self.done(id, label);
            return change;
        }
        if known.is_some() || self.labels.len() < MOST_WAITING {
            self.labels.insert(id, label);
        } else {
            self.dropped += 1;
        }
        None
    }

    /// Takes another's events and labels. The changes are those beyond what each had joined by itself.
    pub fn merge(&mut self, other: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut ids: Vec<_> = other.events.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some((prediction, label)) = other.events.get(&id).cloned() else { continue };
            // What it had joined comes in anew, by the rules here.
            if let Some(label) = label {
                changes.push(Change { prediction: prediction.clone(), before: Some(label.value), now: None });
            }
            changes.extend(self.event(id, prediction));
            changes.extend(label.and_then(|label| self.label(id, label)));
        }
        let mut ids: Vec<_> = other.labels.iter().collect();
        ids.sort_unstable_by_key(|(id, _)| **id);
        changes.extend(ids.into_iter().filter_map(|(id, label)| self.label(*id, *label)));
        self.dropped += other.dropped;
        self.duplicates += other.duplicates;
        self.superseded += other.superseded;
        changes
    }

    /// Appends the join to a snapshot, ids in order.
    pub fn encode(&self, writer: &mut Writer) {
        let id = |writer: &mut Writer, id: u128| {
            writer.u64((id >> 64) as u64);
            writer.u64(id as u64);
        };
        let when = |writer: &mut Writer, label: &Label| {
            writer.f64(label.value);
            writer.i64(label.time);
        };
        let mut events: Vec<_> = self.events.iter().collect();
        events.sort_unstable_by_key(|(id, _)| **id);
        writer.len(events.len());
        for (key, (prediction, label)) in events {
            id(writer, *key);
            writer.i64(prediction.tile);
            writer.option_f64(prediction.score);
            writer.f64(prediction.weight);
            writer.len(prediction.chances.len());
            prediction.chances.iter().for_each(|chance| writer.f64(f64::from(*chance)));
            writer.bool(label.is_some());
            label.iter().for_each(|label| when(writer, label));
        }
        let mut labels: Vec<_> = self.labels.iter().collect();
        labels.sort_unstable_by_key(|(id, _)| **id);
        writer.len(labels.len());
        for (key, label) in labels {
            id(writer, *key);
            when(writer, label);
        }
        [self.dropped, self.duplicates, self.superseded].into_iter().for_each(|count| writer.u64(count));
    }

    /// Reads a join back.
    ///
    /// # Errors
    /// `Decode` for bytes that no `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>, choice: Choice, memory: usize) -> Result<Self> {
        let id = |reader: &mut Reader<'_>| -> Result<u128> { Ok(u128::from(reader.u64()?) << 64 | u128::from(reader.u64()?)) };
        let when = |reader: &mut Reader<'_>| -> Result<Label> {
            let label = Label { value: reader.f64()?, time: reader.i64()? };
            if label.value.is_nan() { Err(Error::decode("a label of the snapshot is not a number")) } else { Ok(label) }
        };
        let mut out = Self::new(choice, memory);
        for _ in 0..reader.len(5)? {
            let key = id(reader)?;
            let (tile, score, weight) = (reader.i64()?, reader.option_finite()?, reader.f64()?);
            if !(0.0..=MOST_WEIGHT).contains(&weight) {
                return Err(Error::decode("a weight of the snapshot is out of range"));
            }
            let chances = (0..reader.len(8)?).map(|_| Ok(reader.f64()? as f32)).collect::<Result<Box<[f32]>>>()?;
            let label = if reader.bool()? { Some(when(reader)?) } else { None };
            out.labelled.extend(label.map(|label| (label.time, key)));
            out.events.insert(key, (Prediction { tile, score, chances, weight }, label));
        }
        for _ in 0..reader.len(11)? {
            let key = id(reader)?;
            out.labels.insert(key, when(reader)?);
        }
        (out.dropped, out.duplicates, out.superseded) = (reader.count()?, reader.count()?, reader.count()?);
        Ok(out)
    }

    /// Labels without an event so far.
    pub fn orphans(&self) -> usize {
        self.labels.len()
    }
}

/// The key of an id that is text.
pub fn key_of_name(id: &str) -> u128 {
    let (high, low) = murmur3_x64_128(id.as_bytes(), 0);
    u128::from(high) << 64 | u128::from(low)
}

/// The key of an id that is a whole number.
pub fn key_of_integer(id: i128) -> u128 {
    id as u128
}

/// A key per row; `None` for nulls. Whole numbers are themselves, names their 128-bit hash.
///
/// # Errors
/// `InvalidArgument` for a column that is neither.
pub fn keys(name: &str, array: &dyn Array) -> Result<Vec<Option<u128>>> {
    let text = key_of_name;
    let mut out = vec![None; array.len()];
    if array.data_type().is_integer() {
        for (row, key) in out.iter_mut().enumerate().filter(|(row, _)| array.is_valid(*row)) {
            // Through the formatter of no type at all: integers of any width end up as one i128.
            *key = integer(array, row).map(key_of_integer);
        }
        return Ok(out);
    }
    if let Some(strings) = array.as_string_opt::<i32>() {
        strings.iter().zip(&mut out).for_each(|(value, key)| *key = value.map(text));
    } else if let Some(strings) = array.as_string_opt::<i64>() {
        strings.iter().zip(&mut out).for_each(|(value, key)| *key = value.map(text));
    } else if let Some(strings) = array.as_string_view_opt() {
        strings.iter().zip(&mut out).for_each(|(value, key)| *key = value.map(text));
    } else {
        return Err(Error::invalid(format!("`id` must name a column of integers or strings, {name:?} is {}", array.data_type())));
    }
    Ok(out)
}

pub(crate) fn integer(array: &dyn Array, row: usize) -> Option<i128> {
    use arrow_array::types as t;
    use arrow_schema::DataType as T;
    Some(match array.data_type() {
        T::Int8 => array.as_primitive::<t::Int8Type>().value(row).into(),
        T::Int16 => array.as_primitive::<t::Int16Type>().value(row).into(),
        T::Int32 => array.as_primitive::<t::Int32Type>().value(row).into(),
        T::Int64 => array.as_primitive::<t::Int64Type>().value(row).into(),
        T::UInt8 => array.as_primitive::<t::UInt8Type>().value(row).into(),
        T::UInt16 => array.as_primitive::<t::UInt16Type>().value(row).into(),
        T::UInt32 => array.as_primitive::<t::UInt32Type>().value(row).into(),
        T::UInt64 => array.as_primitive::<t::UInt64Type>().value(row).into(),
        _ => return None,
    })
}

/// Row by row as doubles; `None` for nulls and NaN.
///
/// # Errors
/// `InvalidArgument` for a column that holds no numbers.
pub fn doubles(argument: &str, name: &str, array: &dyn Array) -> Result<Vec<Option<f64>>> {
    if let Some(flags) = array.as_boolean_opt() {
        return Ok(flags.iter().map(|flag| flag.map(|flag| f64::from(u8::from(flag)))).collect());
    }
    let mut values = Vec::with_capacity(array.len());
    if !frame::numbers(array, &mut |block| values.extend_from_slice(block)) {
        return Err(Error::invalid(format!("`{argument}` must name a column of numbers, {name:?} is {}", array.data_type())));
    }
    let nulls = array.logical_nulls();
    let mut values = values.into_iter();
    Ok((0..array.len())
        .map(
            |row| if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) { None } else { values.next().filter(|value| !value.is_nan()) },
        )
        .collect())
}

/// Row by row the position of a class; `None` for nulls. Classes are text; whole numbers and booleans are taken as theirs.
///
/// # Errors
/// `InvalidArgument` for a column that is none of these, or, where all have to be known, for a class that is not.
pub fn classes(argument: &str, name: &str, array: &dyn Array, classes: &[String], all: bool) -> Result<Vec<Option<f64>>> {
    let mut unknown = None;
    let mut position = |text: &str| {
        let at = classes.iter().position(|class| class == text);
        if at.is_none() && unknown.is_none() {
            unknown = Some(text.to_owned());
        }
        at.map(|at| at as f64)
    };
    let out: Vec<Option<f64>> = if let Some(strings) = array.as_string_opt::<i32>() {
        strings.iter().map(|text| text.and_then(&mut position)).collect()
    } else if let Some(strings) = array.as_string_opt::<i64>() {
        strings.iter().map(|text| text.and_then(&mut position)).collect()
    } else if let Some(strings) = array.as_string_view_opt() {
        strings.iter().map(|text| text.and_then(&mut position)).collect()
    } else if let Some(flags) = array.as_boolean_opt() {
        flags.iter().map(|flag| flag.and_then(|flag| position(if flag { "true" } else { "false" }))).collect()
    } else if array.data_type().is_integer() {
        let text = |row| integer(array, row).map(|whole| whole.to_string());
        (0..array.len()).map(|row| if array.is_valid(row) { position(&text(row)?) } else { None }).collect()
    } else if array.data_type() == &arrow_schema::DataType::Null {
        vec![None; array.len()]
    } else {
        return Err(Error::invalid(format!("`{argument}` must name a column of classes, {name:?} is {}", array.data_type())));
    };
    match unknown.filter(|_| all) {
        Some(unknown) => Err(Error::invalid(format!("`{argument}` must hold classes of the model, {name:?} holds {unknown:?}"))
            .hint(format!("its classes are {}", classes.join(", ")))),
        None => Ok(out),
    }
}
