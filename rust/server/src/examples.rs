//! A few events of each window by their ids, for whoever wants to look at what an alert is about.
//!
//! They are kept where the owner of a model asks for it (`examples` of its settings), after the privacy rules, and in memory alone: ids
//! as they came reach no disk, and a restart forgets them. Which events: those of the smallest hashes of their ids, so an even sample.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, StringArray};
use barograph_core::hash::murmur3_x64_128;
use barograph_engine::compare::placing::{Placing, Single};
use barograph_engine::{Reference, Settings, window};

use crate::shape::{Mark, Shape};

/// Ids that an alert may name.
pub const MOST: usize = 20;
/// Windows of which events are kept: the last ones.
const WINDOWS: usize = 8;
/// Events of a window; fewer where they have many columns.
const EVENTS: usize = 500;
const LEAST_EVENTS: usize = 20;
/// Bytes of a model's, about.
const BYTES: usize = 4 << 20;
/// Of an id, and of a name in it.
const MOST_TEXT: usize = 200;
const SEED: u64 = 0x6578_616d_706c_6573;

/// What is asked to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Ids of an alert.
    pub most: usize,
    /// The length of a window.
    pub window: i64,
}

#[derive(Debug)]
struct Kept {
    key: u128,
    id: String,
    values: Vec<Single>,
}

/// The events of a window, by the hashes of their ids.
#[derive(Debug, Default)]
struct Window {
    columns: Vec<String>,
    kept: BTreeMap<u64, Kept>,
}

/// Events of the last windows of one model.
#[derive(Debug, Default)]
pub struct Examples(Mutex<BTreeMap<i64, Window>>);

/// An event that lies where it should not be as often.
#[derive(Debug, PartialEq, Eq)]
pub struct Example {
    /// Its id.
    pub id: String,
    /// The bin of the column that it lies in.
    pub bin: String,
}

fn rank(key: u128) -> u64 {
    murmur3_x64_128(&key.to_be_bytes(), SEED).0
}

/// The value of a row as it is placed in bins; what has no place is null.
fn single(column: &dyn Array, row: usize) -> Single {
    use arrow_array::types as t;
    use arrow_schema::DataType as T;
    if column.is_null(row) {
        return Single::Null;
    }
    let name = |text: &str| Single::Name(text.chars().take(MOST_TEXT).collect());
    match column.data_type() {
        T::Float64 => Single::Number(column.as_primitive::<t::Float64Type>().value(row)),
        T::Float32 => Single::Number(f64::from(column.as_primitive::<t::Float32Type>().value(row))),
        T::Boolean => name(if column.as_boolean().value(row) { "true" } else { "false" }),
        T::Utf8 => name(column.as_string::<i32>().value(row)),
        T::LargeUtf8 => name(column.as_string::<i64>().value(row)),
        T::Utf8View => name(column.as_string_view().value(row)),
        other if other.is_integer() => arrow_cast::cast(&column.slice(row, 1), &T::Float64)
            .map_or(Single::Null, |cast| Single::Number(cast.as_primitive::<t::Float64Type>().value(0))),
        T::Dictionary(_, values) => arrow_cast::cast(&column.slice(row, 1), values).map_or(Single::Null, |cast| single(cast.as_ref(), 0)),
        _ => Single::Null,
    }
}

impl Examples {
    fn with<T>(&self, of: impl FnOnce(&mut BTreeMap<i64, Window>) -> T) -> T {
        of(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Events that were taken. `texts`: ids that are text, as the privacy rules let them through; a whole number is its own key.
    pub fn add(&self, batch: &RecordBatch, texts: Option<&StringArray>, shape: &Shape, now: i64) {
        let Some(wanted) = shape.examples else { return };
        let Some(keys) = batch.column_by_name(Mark::Id.name()).and_then(|keys| keys.as_fixed_size_binary_opt()) else { return };
        let times = batch.column_by_name(Mark::Time.name()).and_then(|times| barograph_engine::frame::nanoseconds(times.as_ref()));
        let of_reference = |name: &&String| Mark::ALL.iter().all(|mark| mark.name() != name.as_str());
        let mut columns: Vec<&String> = shape.kinds.keys().filter(of_reference).collect();
        columns.sort_unstable();
        let most = (BYTES / WINDOWS / (32 * columns.len() + 128)).clamp(LEAST_EVENTS, EVENTS);
        self.with(|windows| {
            for row in (0..batch.num_rows()).filter(|row| keys.is_valid(*row)) {
                let Some(key) = keys.value(row).try_into().ok().map(u128::from_be_bytes) else { continue };
                let time = times.as_ref().and_then(|times| times.get(row).copied().flatten()).unwrap_or(now);
                let start = window::start_of(time, wanted.window);
                if windows.len() >= WINDOWS && windows.first_key_value().is_some_and(|(first, _)| start < *first) {
                    continue;
                }
                let place = rank(key);
                let known = windows.entry(start).or_default();
                if !known.columns.iter().eq(columns.iter().copied()) {
                    *known = Window { columns: columns.iter().map(|name| (*name).clone()).collect(), kept: BTreeMap::new() };
                }
                let full = known.kept.len() >= most;
                if full && known.kept.last_key_value().is_some_and(|(last, _)| place >= *last) {
                    continue;
                }
                let text = texts.filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row));
                let whole = || i64::try_from(key as i128).ok().map(|whole| whole.to_string());
                let Some(id) = text.filter(|text| text.len() <= MOST_TEXT).map(str::to_owned).or_else(whole) else { continue };
                let value = |name: &&String| {
                    let under = || batch.column_by_name(shape.said.get(*name)?.name());
                    batch.column_by_name(name).or_else(under).map_or(Single::Null, |column| single(column.as_ref(), row))
                };
                let values = columns.iter().map(value).collect();
                known.kept.insert(place, Kept { key, id, values });
                if known.kept.len() > most {
                    known.kept.pop_last();
                }
                while windows.len() > WINDOWS {
                    windows.pop_first();
                }
            }
        });
    }

    /// Windows in `[start, end)` of which there are any, the newest first.
    pub fn windows(&self, start: i64, end: i64) -> Vec<i64> {
        self.with(|windows| windows.range(start..end.max(start)).rev().map(|(start, _)| *start).collect())
    }

    /// Events of a window whose value of a column lies in one of these bins, in the order of the bins.
    pub fn find(&self, start: i64, column: &str, bins: &[String], most: usize, reference: &Reference, settings: &Settings) -> Vec<Example> {
        let Some(fixed) = reference.column(column) else { return Vec::new() };
        let placing = Placing::new(fixed, settings);
        let mut found: Vec<(usize, Example)> = self.with(|windows| {
            let Some(window) = windows.get(&start) else { return Vec::new() };
            let Some(at) = window.columns.iter().position(|name| name == column) else { return Vec::new() };
            let of = |kept: &Kept| {
                let bin = placing.of(kept.values.get(at)?)?;
                let order = bins.iter().position(|wanted| *wanted == bin)?;
                Some((order, Example { id: kept.id.clone(), bin }))
            };
            window.kept.values().filter_map(of).collect()
        });
        found.sort_by_key(|(order, _)| *order);
        found.into_iter().take(most).map(|(_, example)| example).collect()
    }

    /// Forgets an id.
    pub fn erase(&self, key: u128) {
        self.with(|windows| windows.values_mut().for_each(|window| window.kept.retain(|_, kept| kept.key != key)));
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        self.with(BTreeMap::clear);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arrow_array::{ArrayRef, FixedSizeBinaryArray, Float64Array, TimestampNanosecondArray};
    use barograph_engine::labels::{key_of_integer, key_of_name};
    use barograph_engine::schema::Kind;
    use barograph_engine::{ReferenceBuilder, Schema};

    use super::*;

    const HOUR: i64 = 3_600_000_000_000;

    fn shape() -> Shape {
        let kinds = HashMap::from([("x".to_owned(), Kind::Number)]);
        Shape { kinds, examples: Some(Wanted { most: 5, window: HOUR }), ..Shape::default() }
    }

    fn batch(keys: &[u128], x: f64, hour: i64) -> RecordBatch {
        let bytes: Vec<u8> = keys.iter().flat_map(|key| key.to_be_bytes()).collect();
        let ids = FixedSizeBinaryArray::try_new(16, bytes.into(), None).unwrap();
        let times = TimestampNanosecondArray::from(vec![hour * HOUR + 5; keys.len()]);
        let x: Float64Array = keys.iter().map(|_| Some(x)).collect();
        let columns: [(&str, ArrayRef); 3] = [("_id", Arc::new(ids)), ("_time", Arc::new(times)), ("x", Arc::new(x))];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn reference() -> Reference {
        let x: Float64Array = (0..5000).map(|at| Some(f64::from(at) / 500.0)).collect();
        let whole = RecordBatch::try_from_iter([("x", Arc::new(x) as ArrayRef)]).unwrap();
        let mut builder = ReferenceBuilder::new(&Schema::infer(&whole).unwrap(), None, None).unwrap();
        builder.update(&whole).unwrap();
        while builder.fix().unwrap() {
            builder.count(&whole).unwrap();
        }
        builder.finish(Some(0)).unwrap()
    }

    #[test]
    fn events_in_the_bins_that_moved_are_found_by_their_ids() {
        let (examples, reference, settings) = (Examples::default(), reference(), Settings::default());
        let names = ["tx-1", "tx-2"];
        examples.add(&batch(&names.map(key_of_name), 99.0, 3), Some(&StringArray::from(names.to_vec())), &shape(), 0);
        examples.add(&batch(&[key_of_integer(7), key_of_integer(-8)], 99.0, 3), None, &shape(), 0);
        examples.add(&batch(&[key_of_integer(9)], 5.0, 3), None, &shape(), 0);
        // Text whose letters nobody kept has no name.
        examples.add(&batch(&[key_of_name("lost")], 99.0, 3), None, &shape(), 0);
        let above = ["above the reference".to_owned()];
        let find = |most| -> Vec<String> {
            let found = examples.find(3 * HOUR, "x", &above, most, &reference, &settings);
            assert!(found.iter().all(|example| example.bin == above[0]));
            let mut ids: Vec<String> = found.into_iter().map(|example| example.id).collect();
            ids.sort();
            ids
        };
        assert_eq!(find(9), ["-8", "7", "tx-1", "tx-2"]);
        assert_eq!(find(2).len(), 2);
        assert_eq!(examples.windows(0, 3 * HOUR), [0i64; 0]);
        assert_eq!(examples.windows(0, 4 * HOUR), [3 * HOUR]);
        examples.erase(key_of_name("tx-1"));
        assert_eq!(find(9), ["-8", "7", "tx-2"]);
        assert!(examples.find(3 * HOUR, "nobody", &above, 9, &reference, &settings).is_empty());
    }

    #[test]
    fn what_the_model_said_is_found_under_the_name_it_has_in_the_reference() {
        let (examples, settings) = (Examples::default(), Settings::default());
        let shape = Shape { said: HashMap::from([("x".to_owned(), Mark::Score)]), ..shape() };
        let whole = batch(&[key_of_integer(7)], 99.0, 3);
        let score = |name: &str| if name == "x" { "_score".to_owned() } else { name.to_owned() };
        let named = whole.schema().fields().iter().map(|field| score(field.name())).zip(whole.columns().to_vec()).collect::<Vec<_>>();
        examples.add(&RecordBatch::try_from_iter(named).unwrap(), None, &shape, 0);
        let found = examples.find(3 * HOUR, "x", &["above the reference".to_owned()], 9, &reference(), &settings);
        assert_eq!(found.iter().map(|example| example.id.as_str()).collect::<Vec<_>>(), ["7"]);
    }

    #[test]
    fn memory_is_bounded_whatever_comes_and_the_order_does_not_matter() {
        let (one, other) = (Examples::default(), Examples::default());
        let keys: Vec<u128> = (0..20_000).map(key_of_integer).collect();
        one.add(&batch(&keys, 99.0, 1), None, &shape(), 0);
        let mut back = keys.clone();
        back.reverse();
        back.chunks(77).for_each(|part| other.add(&batch(part, 99.0, 1), None, &shape(), 0));
        let ids = |of: &Examples| of.with(|windows| windows[&HOUR].kept.values().map(|kept| kept.id.clone()).collect::<Vec<_>>());
        assert_eq!(ids(&one).len(), EVENTS);
        assert_eq!(ids(&one), ids(&other));
        for hour in 0..100 {
            one.add(&batch(&keys[..1], 1.0, hour), None, &shape(), 0);
        }
        assert_eq!(one.with(|windows| windows.len()), WINDOWS);
        assert_eq!(one.windows(i64::MIN, i64::MAX)[0], 99 * HOUR);
        // A window that is older than all that are kept is not begun again.
        one.add(&batch(&keys, 1.0, 3), None, &shape(), 0);
        assert_eq!(one.windows(i64::MIN, i64::MAX).last(), Some(&(92 * HOUR)));
        // And where nobody asked for any, there are none.
        let none = Examples::default();
        none.add(&batch(&keys, 1.0, 3), None, &Shape::default(), 0);
        assert!(none.windows(i64::MIN, i64::MAX).is_empty());
    }
}
