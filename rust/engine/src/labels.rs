//! Labels that come later than their events, or earlier, or never: joined by id.

use arrow_array::Array;
use arrow_array::cast::AsArray;
use barograph_core::hash::murmur3_x64_128;
use barograph_core::{Error, Result};
use hashbrown::HashMap;

use crate::frame;

/// Events that wait for their label and labels that wait for their event, each.
const MOST_WAITING: usize = 1 << 22;

/// What a label finds of its event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Start of the event's tile.
    pub tile: i64,
    /// Its score, if it had one.
    pub score: Option<f64>,
}

/// The join. An id that comes twice keeps its first event; a label whose event is not known waits for it.
#[derive(Clone, Debug, Default)]
pub struct LabelJoin {
    events: HashMap<u128, Prediction>,
    labels: HashMap<u128, f64>,
    /// Events or labels given up because too many waited.
    pub dropped: u64,
}

impl LabelJoin {
    /// An event; its label if that came first.
    pub fn event(&mut self, id: u128, prediction: Prediction) -> Option<f64> {
        if let Some(label) = self.labels.remove(&id) {
            return Some(label);
        }
        if self.events.len() < MOST_WAITING {
            self.events.entry(id).or_insert(prediction);
        } else {
            self.dropped += 1;
        }
        None
    }

    /// A label; its event if that came first.
    pub fn label(&mut self, id: u128, label: f64) -> Option<Prediction> {
        if let Some(prediction) = self.events.remove(&id) {
            return Some(prediction);
        }
        if self.labels.len() < MOST_WAITING {
            self.labels.entry(id).or_insert(label);
        } else {
            self.dropped += 1;
        }
        None
    }

    /// Labels without an event so far.
    pub fn orphans(&self) -> usize {
        self.labels.len()
    }
}

/// A key per row; `None` for nulls. Whole numbers are themselves, names their 128-bit hash.
///
/// # Errors
/// `InvalidArgument` for a column that is neither.
pub fn keys(name: &str, array: &dyn Array) -> Result<Vec<Option<u128>>> {
    let text = |value: &str| {
        let (high, low) = murmur3_x64_128(value.as_bytes(), 0);
        u128::from(high) << 64 | u128::from(low)
    };
    let mut out = vec![None; array.len()];
    if array.data_type().is_integer() {
        for (row, key) in out.iter_mut().enumerate().filter(|(row, _)| array.is_valid(*row)) {
            // Through the formatter of no type at all: integers of any width end up as one i128.
            *key = integer(array, row).map(|value| value as u128);
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

fn integer(array: &dyn Array, row: usize) -> Option<i128> {
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
