//! Arrow columns as what the sketches eat: blocks of doubles, and names with their counts.

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Decimal32Type, Decimal64Type, Decimal128Type};
use arrow_array::{Array, RecordBatch, UInt32Array, downcast_dictionary_array, types};
use arrow_buffer::{ArrowNativeType, NullBuffer};
use arrow_schema::{DataType, TimeUnit};
use arrow_select::take::take_record_batch;
use barograph_core::{Error, Result};

use crate::window::start_of;

/// Values per block: 128 KB, so that every sketch finds them in the second-level cache.
const BLOCK: usize = 8192;

/// Runs of valid rows.
fn valid_runs(nulls: Option<&NullBuffer>, len: usize) -> Vec<(usize, usize)> {
    match nulls.filter(|nulls| nulls.null_count() > 0) {
        Some(nulls) => nulls.valid_slices().collect(),
        None if len == 0 => Vec::new(),
        None => vec![(0, len)],
    }
}

fn blocks<T: Copy>(values: &[T], nulls: Option<&NullBuffer>, convert: impl Fn(T) -> f64, sink: &mut dyn FnMut(&[f64])) {
    let mut scratch = Vec::with_capacity(BLOCK.min(values.len()));
    for (start, end) in valid_runs(nulls, values.len()) {
        let mut rest = &values[start..end];
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(BLOCK - scratch.len()));
            scratch.extend(head.iter().map(|value| convert(*value)));
            if scratch.len() == BLOCK {
                sink(&scratch);
                scratch.clear();
            }
            rest = tail;
        }
    }
    if !scratch.is_empty() {
        sink(&scratch);
    }
}

fn primitive<T: ArrowPrimitiveType>(array: &dyn Array, convert: impl Fn(T::Native) -> f64, sink: &mut dyn FnMut(&[f64])) {
    let array = array.as_primitive::<T>();
    blocks(array.values(), array.nulls(), convert, sink);
}

/// Feeds the values that are not null in blocks; false if the type has none. Durations come in seconds.
pub fn numbers(array: &dyn Array, sink: &mut dyn FnMut(&[f64])) -> bool {
    use types as t;
    match array.data_type() {
        DataType::Float64 => {
            let array = array.as_primitive::<t::Float64Type>();
            if array.null_count() == 0 {
                array.values().chunks(BLOCK).for_each(sink);
            } else {
                blocks(array.values(), array.nulls(), |v| v, sink);
            }
        }
        DataType::Float32 => primitive::<t::Float32Type>(array, f64::from, sink),
        DataType::Float16 => primitive::<t::Float16Type>(array, f64::from, sink),
        DataType::Int8 => primitive::<t::Int8Type>(array, f64::from, sink),
        DataType::Int16 => primitive::<t::Int16Type>(array, f64::from, sink),
        DataType::Int32 => primitive::<t::Int32Type>(array, f64::from, sink),
        DataType::Int64 => primitive::<t::Int64Type>(array, |v| v as f64, sink),
        DataType::UInt8 => primitive::<t::UInt8Type>(array, f64::from, sink),
        DataType::UInt16 => primitive::<t::UInt16Type>(array, f64::from, sink),
        DataType::UInt32 => primitive::<t::UInt32Type>(array, f64::from, sink),
        DataType::UInt64 => primitive::<t::UInt64Type>(array, |v| v as f64, sink),
        DataType::Decimal32(_, scale) => primitive::<Decimal32Type>(array, decimal(*scale, f64::from), sink),
        DataType::Decimal64(_, scale) => primitive::<Decimal64Type>(array, decimal(*scale, |v| v as f64), sink),
        DataType::Decimal128(_, scale) => primitive::<Decimal128Type>(array, decimal(*scale, |v| v as f64), sink),
        DataType::Decimal256(_, scale) => {
            // Beyond 128 bits the text is the one exact way to a double.
            primitive::<t::Decimal256Type>(array, decimal(*scale, |v: arrow_buffer::i256| v.to_string().parse().unwrap_or(f64::NAN)), sink);
        }
        DataType::Duration(TimeUnit::Second) => primitive::<t::DurationSecondType>(array, |v| v as f64, sink),
        DataType::Duration(TimeUnit::Millisecond) => primitive::<t::DurationMillisecondType>(array, |v| v as f64 / 1e3, sink),
        DataType::Duration(TimeUnit::Microsecond) => primitive::<t::DurationMicrosecondType>(array, |v| v as f64 / 1e6, sink),
        DataType::Duration(TimeUnit::Nanosecond) => primitive::<t::DurationNanosecondType>(array, |v| v as f64 / 1e9, sink),
        DataType::Dictionary(..) => return dictionary_numbers(array, sink),
        DataType::Null => {}
        _ => return false,
    }
    true
}

/// Feeds integers that lie close together as values with how often they come; the others, in blocks, to `sink`. False if
/// the type or the values are not like that: nothing was fed then.
pub fn counted_integers(array: &dyn Array, counted: &mut dyn FnMut(f64, u64), sink: &mut dyn FnMut(&[f64])) -> bool {
    use types as t;
    match array.data_type() {
        DataType::Int8 => counted_in::<t::Int8Type>(array, i64::from, counted, sink),
        DataType::Int16 => counted_in::<t::Int16Type>(array, i64::from, counted, sink),
        DataType::Int32 => counted_in::<t::Int32Type>(array, i64::from, counted, sink),
        DataType::Int64 => counted_in::<t::Int64Type>(array, |v| v, counted, sink),
        DataType::UInt8 => counted_in::<t::UInt8Type>(array, i64::from, counted, sink),
        DataType::UInt16 => counted_in::<t::UInt16Type>(array, i64::from, counted, sink),
        DataType::UInt32 => counted_in::<t::UInt32Type>(array, i64::from, counted, sink),
        _ => false,
    }
}

/// Rows that are worth a table of counters.
const COUNTED_ROWS: usize = 4096;
/// Counters of neighbouring integers.
const COUNTED_SPAN: usize = 2048;

fn counted_in<T: ArrowPrimitiveType>(
    array: &dyn Array,
    integer: impl Fn(T::Native) -> i64,
    counted: &mut dyn FnMut(f64, u64),
    sink: &mut dyn FnMut(&[f64]),
) -> bool {
    let array = array.as_primitive::<T>();
    if array.len() < COUNTED_ROWS {
        return false;
    }
    // The first rows tell where the table begins and whether it is worth it.
    let first = || array.iter().take(COUNTED_ROWS / 4).flatten().map(&integer);
    let Some((lowest, highest)) = first().min().zip(first().max()) else { return false };
    let Ok(span) = usize::try_from(highest.saturating_sub(lowest)) else { return false };
    if span >= COUNTED_SPAN {
        return false;
    }
    let start = lowest.saturating_sub(((COUNTED_SPAN - span) / 2) as i64);
    let mut others = Vec::new();
    // Two tables in turn: equal neighbours do not wait for each other's increment.
    let mut tables = vec![[0u64; COUNTED_SPAN]; 2];
    let mut count = |at: usize, value: i64| {
        match tables[at].get_mut(value.wrapping_sub(start) as u64 as usize) {
            Some(count) => *count += 1,
            None => others.push(value as f64),
        }
        if others.len() == BLOCK {
            sink(&others);
            others.clear();
        }
    };
    for (from, to) in valid_runs(array.nulls(), array.len()) {
        let (pairs, rest) = array.values()[from..to].as_chunks::<2>();
        for [a, b] in pairs {
            count(0, integer(*a));
            count(1, integer(*b));
        }
        rest.iter().for_each(|value| count(0, integer(*value)));
    }
    if !others.is_empty() {
        sink(&others);
    }
    for (at, (even, odd)) in tables[0].iter().zip(&tables[1]).enumerate().filter(|(_, (even, odd))| **even + **odd > 0) {
        counted((start + at as i64) as f64, even + odd);
    }
    true
}

/// A decimal's integer over a power of ten: one division, correctly rounded while both fit 53 bits.
fn decimal<T>(scale: i8, integer: impl Fn(T) -> f64) -> impl Fn(T) -> f64 {
    let power = libm::pow(10.0, f64::from(scale.unsigned_abs()));
    move |value| if scale >= 0 { integer(value) / power } else { integer(value) * power }
}

/// The key of every row, 0 where there is none; nothing for a dictionary without values, which Arrow's own function panics at.
pub(crate) fn keys_of(dictionary: &dyn arrow_array::array::AnyDictionaryArray) -> Vec<usize> {
    if dictionary.values().is_empty() { Vec::new() } else { dictionary.normalized_keys() }
}

fn dictionary_numbers(array: &dyn Array, sink: &mut dyn FnMut(&[f64])) -> bool {
    let Some(dictionary) = array.as_any_dictionary_opt() else { return false };
    let values = dictionary.values();
    let mut doubles = vec![f64::NAN; values.len()];
    for (at, double) in doubles.iter_mut().enumerate().filter(|(at, _)| values.is_valid(*at)) {
        if !numbers(values.slice(at, 1).as_ref(), &mut |block| *double = block[0]) {
            return false;
        }
    }
    let keys = keys_of(dictionary);
    let picked: Vec<f64> = (0..array.len())
        .filter(|row| array.is_valid(*row) && keys.get(*row).is_some_and(|key| *key < values.len() && values.is_valid(*key)))
        .map(|row| doubles[keys[row]])
        .collect();
    picked.chunks(BLOCK).for_each(sink);
    true
}

/// Feeds the names that are not null with how often they come in a row; false if the type has none.
pub fn names(array: &dyn Array, sink: &mut dyn FnMut(&str, u64)) -> bool {
    fn each<'a>(values: impl Iterator<Item = Option<&'a str>>, sink: &mut dyn FnMut(&str, u64)) {
        // Sorted and repetitive columns are common: one look-up per run of equal names.
        let mut run: Option<(&str, u64)> = None;
        for value in values.flatten() {
            match &mut run {
                Some((name, count)) if *name == value => *count += 1,
                _ => {
                    if let Some((name, count)) = run.replace((value, 1)) {
                        sink(name, count);
                    }
                }
            }
        }
        if let Some((name, count)) = run {
            sink(name, count);
        }
    }
    match array.data_type() {
        DataType::Utf8 => each(array.as_string::<i32>().iter(), sink),
        DataType::LargeUtf8 => each(array.as_string::<i64>().iter(), sink),
        DataType::Utf8View => each(array.as_string_view().iter(), sink),
        DataType::Boolean => {
            let array = array.as_boolean();
            let (valid, yes) = ((array.len() - array.null_count()) as u64, array.true_count() as u64);
            for (name, count) in [("false", valid - yes), ("true", yes)].into_iter().filter(|(_, count)| *count > 0) {
                sink(name, count);
            }
        }
        DataType::Dictionary(..) => return dictionary_names(array, sink),
        DataType::Null => {}
        _ => return false,
    }
    true
}

fn dictionary_names(array: &dyn Array, sink: &mut dyn FnMut(&str, u64)) -> bool {
    let Some(dictionary) = array.as_any_dictionary_opt() else { return false };
    let values = dictionary.values();
    let mut counts = vec![0u64; values.len()];
    downcast_dictionary_array!(
        array => {
            let keys = array.keys();
            for (start, end) in valid_runs(keys.nulls(), keys.len()) {
                for key in &keys.values()[start..end] {
                    if let Some(count) = counts.get_mut(key.as_usize()) {
                        *count += 1;
                    }
                }
            }
        }
        _ => return false
    );
    let mut readable = true;
    for (at, count) in counts.iter().enumerate().filter(|(at, count)| **count > 0 && values.is_valid(*at)) {
        readable &= names(values.slice(at, 1).as_ref(), &mut |name, _| sink(name, *count));
    }
    readable
}

/// The rows that have a time, grouped by the tile of this length they lie in; the order inside a tile is kept.
///
/// # Errors
/// None in practice.
pub fn by_tile(batch: &RecordBatch, times: &[Option<i64>], length: i64) -> Result<Vec<(i64, RecordBatch)>> {
    let starts: Vec<Option<i64>> = times.iter().map(|time| time.map(|time| start_of(time, length))).collect();
    let runs = || starts.chunk_by(|a, b| a == b);
    let slices = |batch: &RecordBatch, runs: &mut dyn Iterator<Item = (Option<i64>, usize)>| {
        let mut from = 0;
        let mut out = Vec::new();
        for (start, rows) in runs {
            if let Some(start) = start {
                out.push((start, batch.slice(from, rows)));
            }
            from += rows;
        }
        out
    };
    if runs().count() * 8 <= starts.len() {
        return Ok(slices(batch, &mut runs().map(|run| (run[0], run.len()))));
    }
    // Rows come in no order of time: bring those of a tile together.
    let mut order: Vec<u32> = (0..starts.len() as u32).collect();
    order.sort_by_key(|row| starts[*row as usize]);
    let sorted = take_record_batch(batch, &UInt32Array::from_iter_values(order.iter().copied()))
        .map_err(|error| Error::invalid(format!("the frame could not be read: {error}")))?;
    let mut tiles: Vec<(Option<i64>, usize)> = Vec::new();
    for row in order {
        match tiles.last_mut() {
            Some((start, rows)) if *start == starts[row as usize] => *rows += 1,
            _ => tiles.push((starts[row as usize], 1)),
        }
    }
    Ok(slices(&sorted, &mut tiles.into_iter()))
}

/// Rows whose value is null, nulls behind a dictionary's keys included.
pub fn null_count(array: &dyn Array) -> u64 {
    array.logical_null_count() as u64
}

/// Nanoseconds since the epoch (of the day for times of day), row by row; `None` for nulls and what is out of range.
pub fn nanoseconds(array: &dyn Array) -> Option<Vec<Option<i64>>> {
    use types as t;
    fn scaled<T: ArrowPrimitiveType>(array: &dyn Array, factor: i64) -> Vec<Option<i64>>
    where
        T::Native: Into<i64>,
    {
        array.as_primitive::<T>().iter().map(|value| value.and_then(|v| v.into().checked_mul(factor))).collect()
    }
    const DAY: i64 = 86_400_000_000_000;
    Some(match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => scaled::<t::TimestampSecondType>(array, 1_000_000_000),
        DataType::Timestamp(TimeUnit::Millisecond, _) => scaled::<t::TimestampMillisecondType>(array, 1_000_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => scaled::<t::TimestampMicrosecondType>(array, 1000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => scaled::<t::TimestampNanosecondType>(array, 1),
        DataType::Date32 => scaled::<t::Date32Type>(array, DAY),
        DataType::Date64 => scaled::<t::Date64Type>(array, 1_000_000),
        DataType::Time32(TimeUnit::Second) => scaled::<t::Time32SecondType>(array, 1_000_000_000),
        DataType::Time32(_) => scaled::<t::Time32MillisecondType>(array, 1_000_000),
        DataType::Time64(TimeUnit::Microsecond) => scaled::<t::Time64MicrosecondType>(array, 1000),
        DataType::Time64(_) => scaled::<t::Time64NanosecondType>(array, 1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::builder::StringDictionaryBuilder;
    use arrow_array::{DictionaryArray, Int8Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn a_dictionary_without_values_holds_nulls_alone() {
        // Enum([]) of polars, a Categorical of nothing but missing values of pandas, and a message that says so of valid rows.
        let keys = Int8Array::from(vec![None, None, None]);
        let empty = DictionaryArray::new(keys, Arc::new(StringArray::from(Vec::<&str>::new())));
        assert!(keys_of(&empty).is_empty());
        let mut fed = 0;
        assert!(numbers(&empty, &mut |block| fed += block.len()));
        assert!(names(&empty, &mut |_, _| fed += 1));
        assert_eq!(fed, 0);
        assert_eq!(crate::text::strings(&empty), Some(vec![None, None, None]));
        let mut some = StringDictionaryBuilder::<types::Int8Type>::new();
        some.append_value("a");
        assert_eq!(keys_of(&some.finish()), [0]);
    }
}
