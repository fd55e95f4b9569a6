//! Coarse counts: about ten groups per column, for segments and for the moments that e-detectors bet on.

use std::collections::{BTreeMap, HashMap as Names};

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, UInt32Array};
use arrow_schema::DataType;
use arrow_select::take::take_record_batch;
use barograph_core::bins::Bins;
use barograph_core::codec::{Reader, Writer};
use barograph_core::{Error, Result};
use hashbrown::HashMap;

use crate::frame;
use crate::profile::{ColumnProfile, Content};
use crate::schema::{Kind, Role};

/// Groups of a column.
pub(crate) const GROUPS: usize = 10;
/// Values of a segment column that are counted apart; the rest is `other`.
pub const MOST_SEGMENTS: usize = 100;
/// What the rest is called.
pub(crate) const OTHER: &str = "(other)";

/// Which counter a value belongs to.
#[derive(Clone, Debug)]
pub(crate) enum Grouping {
    /// Per counter of the reference's bins the union it belongs to.
    Unions(Vec<usize>),
    /// Names with a counter of their own.
    Names(HashMap<String, usize>),
}

/// The groups of a column; its counters are one per group, then values, nulls and rows.
#[derive(Clone, Debug)]
pub(crate) struct Groups {
    pub(crate) grouping: Grouping,
    pub(crate) len: usize,
}

impl Groups {
    /// Groups of about equal counts, or of the most frequent names; `None` for columns of neither.
    pub(crate) fn of(profile: &ColumnProfile) -> Option<Self> {
        match &profile.content {
            Content::Numbers(numbers) => {
                let unions = Bins::unions(numbers.bins.as_ref()?, GROUPS, 1);
                Some(Self { len: unions.last().map_or(0, |last| last + 1), grouping: Grouping::Unions(unions) })
            }
            Content::Names(names) => {
                let ranked = names.ranked();
                let names = ranked.iter().take(GROUPS).enumerate().map(|(at, (name, _))| ((*name).to_owned(), at)).collect();
                Some(Self { len: ranked.len().min(GROUPS), grouping: Grouping::Names(names) })
            }
            Content::Times(_) | Content::Counted => None,
        }
    }

    /// Counters of a column.
    pub(crate) fn counters(&self) -> usize {
        self.len + 3
    }

    /// Counts the rows of an array; values of another type than the column's count as rows only.
    pub(crate) fn count(&self, array: &dyn Array, bins: Option<&Bins>, counts: &mut [u64]) {
        let groups = self.len;
        counts[groups + 1] += frame::null_count(array);
        counts[groups + 2] += array.len() as u64;
        match &self.grouping {
            Grouping::Unions(unions) => {
                let Some(bins) = bins else { return };
                if array.len() < 2 * bins.len() {
                    frame::numbers(array, &mut |block| {
                        for value in block.iter().filter(|value| value.is_finite()) {
                            counts[unions[bins.index(*value)]] += 1;
                            counts[groups] += 1;
                        }
                    });
                    return;
                }
                // Many rows are counted in bins, which takes a third of the time, and the bins put together.
                let mut fine = vec![0; bins.len()];
                frame::numbers(array, &mut |block| {
                    if block.iter().all(|value| value.is_finite()) {
                        bins.count(block, &mut fine);
                    } else {
                        bins.count(&block.iter().copied().filter(|value| value.is_finite()).collect::<Vec<_>>(), &mut fine);
                    }
                });
                for (union, count) in unions.iter().zip(fine) {
                    counts[*union] += count;
                    counts[groups] += count;
                }
            }
            Grouping::Names(names) => {
                frame::names(array, &mut |name, count| {
                    if let Some(group) = names.get(name) {
                        counts[*group] += count;
                    }
                    counts[groups] += count;
                });
            }
        }
    }
}

/// Whether the counters of a column can have been counted together.
pub(crate) fn agree(counts: &[u64]) -> bool {
    let [groups @ .., values, nulls, rows] = counts else { return false };
    groups.iter().sum::<u64>() <= *values && values.checked_add(*nulls).is_some_and(|sum| sum <= *rows)
}

/// Coarse counts of the values of a segment column: per value, per tested column, per counter. The last value is all others.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentCounts {
    /// The segment column.
    pub column: String,
    /// Its values, without the others.
    pub names: Vec<String>,
    pub(crate) counts: Vec<Vec<Vec<u64>>>,
}

/// By start, and by segment column or column, all counters.
pub(crate) type Counters = BTreeMap<i64, Vec<Vec<u64>>>;

/// The columns that segments are counted by, with their groups.
pub(crate) type Plan = Vec<(String, Groups)>;

/// The tested columns that segments of `column` are counted by.
pub(crate) fn plan<'a>(columns: impl Iterator<Item = &'a ColumnProfile>, column: &str) -> Plan {
    columns
        .filter(|profile| profile.column.role.is_tested() && profile.column.name != column)
        .filter_map(|profile| Some((profile.column.name.clone(), Groups::of(profile)?)))
        .collect()
}

/// Whether segments can be told by this column.
pub(crate) fn is_segment(profile: &ColumnProfile) -> bool {
    profile.column.role == Role::Segment && matches!(profile.column.kind, Kind::Category | Kind::Boolean)
}

impl SegmentCounts {
    /// Nothing counted yet, for the most frequent names of a column.
    pub(crate) fn new(profile: &ColumnProfile, plan: &Plan) -> Self {
        let names: Vec<String> = profile
            .names()
            .map(|names| names.ranked().into_iter().take(MOST_SEGMENTS).map(|(name, _)| name.to_owned()).collect())
            .unwrap_or_default();
        Self { column: profile.column.name.clone(), counts: empty(names.len() + 1, plan), names }
    }

    /// The same values, nothing counted.
    pub(crate) fn cleared(&self) -> Self {
        let counts = self.counts.iter().map(|columns| columns.iter().map(|counts| vec![0; counts.len()]).collect()).collect();
        Self { column: self.column.clone(), names: self.names.clone(), counts }
    }

    /// Counts the rows of a batch by their segment.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn count<'b>(&mut self, batch: &RecordBatch, plan: &Plan, bins: &dyn Fn(&str) -> Option<&'b Bins>) -> Result<()> {
        let Some(array) = batch.column_by_name(&self.column) else { return Ok(()) };
        let places: Names<&str, usize> = self.names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
        let other = self.names.len();
        let Some(codes) = codes(array.as_ref(), &|name| places.get(name).copied().unwrap_or(other)) else { return Ok(()) };
        let codes: Vec<usize> = codes.into_iter().map(|code| code.unwrap_or(other)).collect();
        let mut order: Vec<u32> = (0..codes.len() as u32).collect();
        order.sort_by_key(|row| codes[*row as usize]);
        let sorted = take_record_batch(batch, &UInt32Array::from(order.clone()))
            .map_err(|error| Error::invalid(format!("the frame could not be read: {error}")))?;
        let mut from = 0;
        for run in order.chunk_by(|a, b| codes[*a as usize] == codes[*b as usize]) {
            let rows = sorted.slice(from, run.len());
            from += run.len();
            for ((name, groups), counts) in plan.iter().zip(&mut self.counts[codes[run[0] as usize]]) {
                if let Some(array) = rows.column_by_name(name) {
                    groups.count(array.as_ref(), bins(name), counts);
                }
            }
        }
        Ok(())
    }

    /// Adds another's counts of the same values and columns.
    pub(crate) fn merge(&mut self, other: &Self) {
        let theirs = other.counts.iter().flatten().flatten();
        self.counts.iter_mut().flatten().flatten().zip(theirs).for_each(|(to, from)| *to += from);
    }

    /// Adds another's counts of the same columns, of which either may have pooled values.
    pub(crate) fn merge_pooled(&mut self, other: &Self) {
        // What one has pooled cannot be told apart any more.
        self.pool(other.names.len());
        self.merge(&other.pooled(self.names.len()));
    }

    /// With the values beyond the first `kept` among the others.
    pub(crate) fn pool(&mut self, kept: usize) {
        if self.names.len() <= kept {
            return;
        }
        self.names.truncate(kept);
        for gone in self.counts.split_off(kept + 1) {
            if let Some(others) = self.counts.last_mut() {
                others.iter_mut().flatten().zip(gone.iter().flatten()).for_each(|(to, from)| *to += from);
            }
        }
    }

    /// A copy so pooled.
    pub(crate) fn pooled(&self, kept: usize) -> Self {
        let mut out = self.clone();
        out.pool(kept);
        out
    }

    /// How many counters these would be, so pooled.
    pub(crate) fn counters_of(&self, kept: usize) -> usize {
        self.counters() / self.counts.len().max(1) * (self.names.len().min(kept) + 1)
    }

    /// All counters, one after the other, as if it told so many values apart: those that are pooled here have none.
    pub(crate) fn flat(&self, names: usize) -> Vec<u64> {
        let Some((others, told)) = self.counts.split_last() else { return Vec::new() };
        let none = (told.len()..names).flat_map(|_| others.iter().flatten().map(|_| 0));
        let others = others.iter().flatten().copied();
        told.iter().flatten().flatten().copied().chain(none).chain(others).collect()
    }

    /// Adds counters, one after the other.
    pub(crate) fn add(&mut self, flat: &[u64]) {
        self.counts.iter_mut().flatten().flatten().zip(flat).for_each(|(to, from)| *to += from);
    }

    /// How many counters these are, and what they cost beside.
    pub(crate) fn counters(&self) -> usize {
        self.counts.iter().flatten().map(|counts| counts.len() + 3).sum()
    }

    /// Name and counts of every value, the others last.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (&str, &Vec<Vec<u64>>)> {
        self.names.iter().map(String::as_str).chain([OTHER]).zip(&self.counts)
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.str(&self.column);
        writer.len(self.names.len());
        self.names.iter().for_each(|name| writer.str(name));
        self.counts.iter().flatten().flatten().for_each(|count| writer.u64(*count));
    }

    /// Reads counts back, of the columns of this plan.
    ///
    /// # Errors
    /// `Decode` for bytes that `encode` did not write.
    pub(crate) fn decode(reader: &mut Reader<'_>, plan: impl Fn(&str) -> Vec<usize>) -> Result<Self> {
        let column = reader.str()?.to_owned();
        let names = (0..reader.len(1)?).map(|_| reader.str().map(str::to_owned)).collect::<Result<Vec<_>>>()?;
        if names.len() > MOST_SEGMENTS {
            return Err(Error::decode(format!("a segment column has at most {MOST_SEGMENTS} values, the snapshot says {}", names.len())));
        }
        let sizes = plan(&column);
        let counters = |reader: &mut Reader<'_>, size: usize| (0..size).map(|_| reader.u64()).collect::<Result<Vec<_>>>();
        let counts = (0..=names.len()).map(|_| sizes.iter().map(|size| counters(reader, *size)).collect()).collect::<Result<Vec<_>>>()?;
        Ok(Self { column, names, counts })
    }
}

fn empty(segments: usize, plan: &Plan) -> Vec<Vec<Vec<u64>>> {
    vec![plan.iter().map(|(_, groups)| vec![0; groups.counters()]).collect(); segments]
}

/// A number for the name of every row; `None` for nulls, and for an array that holds no names.
fn codes(array: &dyn Array, lookup: &dyn Fn(&str) -> usize) -> Option<Vec<Option<usize>>> {
    Some(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().map(|name| name.map(lookup)).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().map(|name| name.map(lookup)).collect(),
        DataType::Utf8View => array.as_string_view().iter().map(|name| name.map(lookup)).collect(),
        DataType::Boolean => {
            let both = [lookup("false"), lookup("true")];
            array.as_boolean().iter().map(|flag| flag.map(|flag| both[usize::from(flag)])).collect()
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary_opt()?;
            let values = codes(dictionary.values().as_ref(), lookup)?;
            let keys = crate::frame::keys_of(dictionary);
            (0..array.len()).map(|row| if array.is_valid(row) { values.get(*keys.get(row)?).copied().flatten() } else { None }).collect()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::Float64Array;
    use barograph_core::hash::murmur3_of_word;

    use super::*;
    use crate::{ReferenceBuilder, Schema};

    #[test]
    fn many_rows_are_counted_as_few_at_a_time_are() {
        let odd = [None, Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY), Some(-1e300), Some(1e300), Some(0.5)];
        let draw = |row: u64| (murmur3_of_word(row, 3).0 >> 11) as f64 / (1u64 << 53) as f64;
        let value = |row: u64| if row.is_multiple_of(5) { odd[row as usize / 5 % odd.len()] } else { Some(draw(row)) };
        let plain: Float64Array = (0..20_000).map(|row| Some(draw(row))).collect();
        let whole = RecordBatch::try_from_iter([("x", Arc::new(plain) as Arc<dyn Array>)]).unwrap();
        let mut builder = ReferenceBuilder::new(&Schema::infer(&whole).unwrap(), None, None).unwrap();
        builder.update(&whole).unwrap();
        while builder.fix().unwrap() {
            builder.count(&whole).unwrap();
        }
        let reference = builder.finish(None).unwrap();
        let column = reference.column("x").unwrap();
        let groups = Groups::of(&column.profile).unwrap();
        for (rows, array) in
            [(9000, (0..9000).map(value).collect::<Float64Array>()), (9000, (0..9000).map(|row| Some(draw(row))).collect())]
        {
            let (mut at_once, mut apart) = (vec![0; groups.counters()], vec![0; groups.counters()]);
            groups.count(&array, column.bins.as_ref(), &mut at_once);
            (0..rows).step_by(90).for_each(|from| groups.count(&array.slice(from, 90), column.bins.as_ref(), &mut apart));
            assert_eq!(at_once, apart);
            assert!(agree(&at_once));
            for (at, wrong) in [(groups.len, 1), (groups.len + 1, 9001), (groups.len + 2, 1), (0, 9001)] {
                let mut counts = at_once.clone();
                counts[at] = wrong;
                assert!(!agree(&counts), "{at}");
            }
            assert_eq!(at_once[groups.len + 2], rows as u64);
            assert!(at_once[..groups.len].iter().sum::<u64>() == at_once[groups.len] && at_once[groups.len] > 7000);
        }
    }
}
