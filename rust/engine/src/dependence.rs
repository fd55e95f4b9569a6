//! How much rows of one window resemble each other: the dependence factor of a reference.
//!
//! Rows of one day share its weather. Over the reference's own windows the counts of a column scatter more than
//! independent rows would; the factor φ says how much, and a comparison divides its counts by it. It is the dispersion of
//! the windows' counts about the whole: `max(1, Σ_w Σ_b (c_wb - C_w p_b)² / (C_w p_b) / ((W-1)(B-1)))`.

use std::collections::BTreeMap;

use arrow_array::{Array, RecordBatch};
use barograph_core::bins::Bins;
use barograph_core::codec::{Reader, Writer};
use barograph_core::{Error, Result};
use hashbrown::HashMap;
use serde::Serialize;

use crate::bets::cuts;
use crate::frame;
use crate::schema::{Column, Kind};
use crate::window::{DAY, HOUR, start_of};

/// Lengths of windows for which the factor is kept, in nanoseconds: hour, six hours, day, week, four weeks.
pub const LENGTHS: [i64; 5] = [HOUR, 6 * HOUR, DAY, 7 * DAY, 28 * DAY];
/// Fewer windows say nothing about how they scatter.
const LEAST_WINDOWS: usize = 4;
/// Values of a column whose window is remembered; beyond it every 2^j-th stands for its neighbours.
const MOST_VALUES: usize = 1 << 20;
/// Counts of names by hour before hours are joined to days, and names counted apart.
const MOST_COUNTS: usize = 1 << 20;
const MOST_NAMES: usize = 4096;
/// Bins and names that are told apart when windows are compared.
const GROUPS: usize = 10;
const MOST_GROUPS: usize = 50;

/// The factors of one column for windows of one length.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dependence {
    /// Length of the window in nanoseconds.
    pub length: i64,
    /// Rows of a window, on average.
    pub rows: f64,
    /// For the values' bins, at least 1.
    pub values: f64,
    /// For the share of nulls, at least 1.
    pub nulls: f64,
    /// The largest share of nulls of a window.
    pub most_nulls: f64,
    /// The smallest and the largest share of a window, of values up to a cut (by its digits) or of a name.
    pub shares: Vec<(String, f64, f64)>,
}

impl Dependence {
    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.i64(self.length);
        writer.f64(self.rows);
        writer.f64(self.values);
        writer.f64(self.nulls);
        writer.f64(self.most_nulls);
        writer.len(self.shares.len());
        for (what, least, most) in &self.shares {
            writer.str(what);
            writer.f64(*least);
            writer.f64(*most);
        }
    }

    /// How much of the variance of a row its window explains, of values or of nulls.
    pub fn shared(&self) -> f64 {
        (self.values.max(self.nulls) - 1.0) / self.rows.max(1.0)
    }

    /// The smallest and the largest share that a window of the reference reached.
    pub fn reached(&self, what: &str) -> Option<(f64, f64)> {
        self.shares.iter().find(|(name, ..)| name == what).map(|(_, least, most)| (*least, *most))
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let mut out = Self {
            length: reader.i64()?,
            rows: reader.f64()?,
            values: reader.f64()?,
            nulls: reader.f64()?,
            most_nulls: reader.f64()?,
            shares: Vec::new(),
        };
        for _ in 0..reader.len(17)? {
            out.shares.push((reader.str()?.to_owned(), reader.f64()?, reader.f64()?));
        }
        let factor = |value: f64| (1.0..=1e15).contains(&value);
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let shares = out.shares.iter().all(|(_, least, most)| share(*least) && share(*most) && least <= most);
        if out.length > 0 && (0.0..=1e19).contains(&out.rows) && factor(out.values) && factor(out.nulls) && share(out.most_nulls) && shares
        {
            Ok(out)
        } else {
            Err(Error::decode("a dependence factor of the snapshot is below 1, or its shares or its window are out of range"))
        }
    }
}

/// What a column's windows held, as far as it is remembered.
#[derive(Debug, Default)]
struct Seen {
    /// Per tile: rows and nulls.
    rows: BTreeMap<i64, (u64, u64)>,
    /// Every 2^stride-th finite value with its tile.
    values: Vec<(f64, i64)>,
    stride: u32,
    count: u64,
    names: HashMap<String, u32>,
    named: HashMap<(i64, u32), u64>,
}

impl Seen {
    fn value(&mut self, value: f64, tile: i64) {
        if self.count & ((1 << self.stride) - 1) == 0 {
            if self.values.len() == MOST_VALUES {
                let mut at = 0usize;
                self.values.retain(|_| {
                    at += 1;
                    at % 2 == 1
                });
                self.stride += 1;
            }
            if self.count & ((1 << self.stride) - 1) == 0 {
                self.values.push((value, tile));
            }
        }
        self.count += 1;
    }

    fn name(&mut self, name: &str, count: u64, tile: i64) {
        let next = self.names.len() as u32;
        let id = match self.names.get(name) {
            Some(id) => *id,
            None if self.names.len() < MOST_NAMES => *self.names.entry(name.to_owned()).or_insert(next),
            None => u32::MAX,
        };
        *self.named.entry((tile, id)).or_default() += count;
    }
}

/// Collects what the factors of a reference are computed from.
#[derive(Debug)]
pub(crate) struct Collector {
    time: String,
    tile: i64,
    columns: Vec<Seen>,
}

impl Collector {
    pub(crate) fn new(time: &str, columns: usize) -> Self {
        Self { time: time.to_owned(), tile: HOUR, columns: (0..columns).map(|_| Seen::default()).collect() }
    }

    /// Adds the rows that have a time.
    pub(crate) fn update(&mut self, batch: &RecordBatch, columns: &[&Column]) -> Result<()> {
        let Some(times) = batch.column_by_name(&self.time).and_then(|array| frame::nanoseconds(array.as_ref())) else { return Ok(()) };
        for (tile, rows) in frame::by_tile(batch, &times, self.tile)? {
            for (column, seen) in columns.iter().zip(&mut self.columns) {
                let Some(array) = rows.column_by_name(&column.name).filter(|array| crate::schema::reads_as(array.as_ref(), column.kind))
                else {
                    continue;
                };
                let (all, nulls) = seen.rows.entry(tile).or_default();
                *all += array.len() as u64;
                *nulls += frame::null_count(array.as_ref());
                match column.kind {
                    Kind::Number => {
                        frame::numbers(array.as_ref(), &mut |block| {
                            block.iter().filter(|value| value.is_finite()).for_each(|value| seen.value(*value, tile));
                        });
                    }
                    Kind::Category | Kind::Boolean => {
                        frame::names(array.as_ref(), &mut |name, count| seen.name(name, count, tile));
                    }
                    Kind::Text | Kind::Time | Kind::Embedding | Kind::Unsupported => {}
                }
            }
        }
        if self.columns.iter().any(|seen| seen.named.len() > MOST_COUNTS) {
            self.coarsen();
        }
        Ok(())
    }

    /// Joins tiles to longer ones, where names times tiles would grow without bound.
    fn coarsen(&mut self) {
        let Some(longer) = LENGTHS.into_iter().find(|length| *length > self.tile) else { return };
        self.tile = longer;
        for seen in &mut self.columns {
            let joined = |tile: i64| start_of(tile, longer);
            let mut rows: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
            for (tile, (all, nulls)) in std::mem::take(&mut seen.rows) {
                let to = rows.entry(joined(tile)).or_default();
                *to = (to.0 + all, to.1 + nulls);
            }
            seen.rows = rows;
            seen.values.iter_mut().for_each(|(_, tile)| *tile = joined(*tile));
            for ((tile, id), count) in std::mem::take(&mut seen.named) {
                *seen.named.entry((joined(tile), id)).or_default() += count;
            }
        }
    }

    /// The factors of a column: one entry per length of which there are enough windows.
    pub(crate) fn factors(&self, column: usize, bins: Option<(&Bins, &[u64])>) -> Vec<Dependence> {
        let Some(seen) = self.columns.get(column) else { return Vec::new() };
        let (cells, thinned, what) = if let Some((bins, counts)) = bins {
            let unions = Bins::unions(counts, GROUPS, 1);
            let union = |value| unions.get(bins.index(value)).copied().unwrap_or(0);
            let cells = seen.values.iter().map(|(value, tile)| (*tile, union(*value), 1)).collect();
            let cuts = cuts(bins, counts).iter().map(f64::to_string).collect();
            (Table::new(cells), f64::from(1u32 << seen.stride.min(31)), Groups::Ordered(cuts))
        } else {
            let (cells, names) = named_cells(seen);
            (Table::new(cells), 1.0, Groups::Names(names))
        };
        let rows = seen.rows.iter();
        let nulls = Table::new(rows.flat_map(|(tile, (all, nulls))| [(*tile, 0, all - nulls), (*tile, 1, *nulls)]).collect());
        let lengths = LENGTHS.into_iter().filter(|length| *length >= self.tile);
        lengths
            .filter_map(|length| {
                // Of a thinned sample only a part of what rows have in common is seen.
                let values = cells.dispersion(length).map_or(1.0, |factor| 1.0 + thinned * (factor - 1.0));
                let factor = nulls.dispersion(length)?;
                let rows = seen.rows.values().map(|(all, _)| *all).sum::<u64>() as f64 / nulls.count_windows(length) as f64;
                let most_nulls = nulls.reached(length).get(1).map_or(0.0, |(_, most)| *most);
                let shares = match &what {
                    Groups::Ordered(cuts) => {
                        cuts.iter().cloned().zip(cells.reached_up_to(length)).map(|(cut, (a, b))| (cut, a, b)).collect()
                    }
                    Groups::Names(names) => names.iter().cloned().zip(cells.reached(length)).map(|(name, (a, b))| (name, a, b)).collect(),
                };
                Some(Dependence { length, rows, values: values.clamp(1.0, 1e15), nulls: factor.clamp(1.0, 1e15), most_nulls, shares })
            })
            .collect()
    }
}

/// What the groups of a table stand for.
enum Groups {
    /// Bins in order, and the cuts between them.
    Ordered(Vec<String>),
    /// The most frequent names.
    Names(Vec<String>),
}

/// Counts of the most frequent names by tile, the rest as one; and these names.
fn named_cells(seen: &Seen) -> (Vec<(i64, usize, u64)>, Vec<String>) {
    let mut totals: HashMap<u32, u64> = HashMap::new();
    seen.named.iter().for_each(|((_, id), count)| *totals.entry(*id).or_default() += count);
    let mut ranked: Vec<(u32, u64)> = totals.into_iter().filter(|(id, _)| *id != u32::MAX).collect();
    ranked.sort_unstable_by_key(|(id, count)| (std::cmp::Reverse(*count), *id));
    let group: HashMap<u32, usize> = ranked.iter().take(MOST_GROUPS).enumerate().map(|(at, (id, _))| (*id, at)).collect();
    let names: HashMap<u32, &String> = seen.names.iter().map(|(name, id)| (*id, name)).collect();
    let kept = ranked.iter().take(MOST_GROUPS).filter_map(|(id, _)| names.get(id).map(|name| (*name).clone())).collect();
    (seen.named.iter().map(|((tile, id), count)| (*tile, group.get(id).copied().unwrap_or(MOST_GROUPS), *count)).collect(), kept)
}

/// Counts by tile and group.
struct Table {
    /// Tiles in ascending order.
    tiles: Vec<i64>,
    /// A row of counts per tile; groups without a count are left out.
    counts: Vec<f64>,
    totals: Vec<f64>,
    /// Which groups the rows of counts hold.
    groups: Vec<usize>,
}

impl Table {
    fn new(mut cells: Vec<(i64, usize, u64)>) -> Self {
        cells.retain(|(.., count)| *count > 0);
        let mut totals = vec![0u64; MOST_GROUPS + 1];
        cells.iter().for_each(|(_, group, count)| totals[*group] += count);
        let mut place = vec![usize::MAX; MOST_GROUPS + 1];
        let kept = (0..totals.len()).filter(|group| totals[*group] > 0);
        let groups: Vec<usize> = kept.collect();
        groups.iter().enumerate().for_each(|(at, group)| place[*group] = at);
        let totals: Vec<f64> = groups.iter().map(|group| totals[*group] as f64).collect();
        cells.sort_by_key(|(tile, ..)| *tile);
        let (mut tiles, mut counts) = (Vec::new(), Vec::new());
        for tile in cells.chunk_by(|a, b| a.0 == b.0) {
            tiles.push(tile[0].0);
            let start = counts.len();
            counts.resize(start + totals.len(), 0.0);
            tile.iter().for_each(|(_, group, count)| counts[start + place[*group]] += *count as f64);
        }
        Self { tiles, counts, totals, groups }
    }

    fn count_windows(&self, length: i64) -> usize {
        self.tiles.chunk_by(|a, b| start_of(*a, length) == start_of(*b, length)).count()
    }

    /// Counts by window and group, groups that never came included, of windows with at least half the rows of the middle one.
    fn windows(&self, length: i64) -> Vec<Vec<f64>> {
        let kept = self.totals.len();
        let mut out = Vec::new();
        let mut at = 0;
        for tiles in self.tiles.chunk_by(|a, b| start_of(*a, length) == start_of(*b, length)) {
            let mut counts = vec![0.0; self.groups.last().map_or(0, |last| last + 1)];
            for row in self.counts[at * kept..(at + tiles.len()) * kept].chunks(kept.max(1)) {
                self.groups.iter().zip(row).for_each(|(group, count)| counts[*group] += count);
            }
            at += tiles.len();
            out.push(counts);
        }
        let size = |counts: &Vec<f64>| counts.iter().sum::<f64>();
        let mut sizes: Vec<f64> = out.iter().map(size).collect();
        sizes.sort_by(f64::total_cmp);
        let middle = sizes.get(sizes.len() / 2).copied().unwrap_or(0.0);
        out.retain(|counts| size(counts) >= middle / 2.0);
        out
    }

    /// The smallest and the largest share of each group over windows of this length.
    fn reached(&self, length: i64) -> Vec<(f64, f64)> {
        extremes(&self.windows(length), |counts, group| counts[group])
    }

    /// The same of all groups up to each.
    fn reached_up_to(&self, length: i64) -> Vec<(f64, f64)> {
        extremes(&self.windows(length), |counts, group| counts[..=group].iter().sum())
    }

    /// The dispersion over windows of this length: about 1 for independent rows; `None` for fewer than four windows. A single
    /// group has none: 1.
    fn dispersion(&self, length: i64) -> Option<f64> {
        let groups = self.totals.len();
        let all: f64 = self.totals.iter().sum();
        let (mut sum, mut windows, mut at) = (0.0, 0usize, 0usize);
        for tiles in self.tiles.chunk_by(|a, b| start_of(*a, length) == start_of(*b, length)) {
            let mut counts = vec![0.0; groups];
            for row in self.counts[at * groups..(at + tiles.len()) * groups].chunks(groups) {
                counts.iter_mut().zip(row).for_each(|(to, count)| *to += count);
            }
            let size: f64 = counts.iter().sum();
            for (count, total) in counts.iter().zip(&self.totals) {
                let expected = size * total / all;
                sum += (count - expected) * (count - expected) / expected;
            }
            windows += 1;
            at += tiles.len();
        }
        if windows < LEAST_WINDOWS {
            return None;
        }
        Some(if groups < 2 { 1.0 } else { sum / ((windows - 1) as f64 * (groups - 1) as f64) })
    }
}

/// Smallest and largest share per group.
fn extremes(windows: &[Vec<f64>], part: impl Fn(&[f64], usize) -> f64) -> Vec<(f64, f64)> {
    let groups = windows.first().map_or(0, Vec::len);
    let share = |group: usize| windows.iter().map(move |counts| (group, counts));
    (0..groups)
        .map(|group| {
            let shares = share(group).map(|(group, counts)| part(counts, group) / counts.iter().sum::<f64>().max(1e-300));
            shares.fold((1.0, 0.0), |(least, most): (f64, f64), share| (least.min(share.min(1.0)), most.max(share.min(1.0))))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn independent_counts_have_factor_one_and_shared_days_have_more() {
        // The binomial scatter of a share of 0.1 in 1,000 rows is 9.5 rows.
        let days = |count: i64, more: u64| {
            let share = |day: i64| if day % 2 == 0 { 100 - more } else { 100 + more };
            Table::new((0..count).flat_map(|day| [(day * DAY, 0, 1000 - share(day)), (day * DAY, 1, share(day))]).collect())
        };
        let one = days(100, 9).dispersion(DAY).unwrap_or(0.0);
        assert!((0.85..0.95).contains(&one), "{one}");
        let nine = days(100, 28).dispersion(DAY).unwrap_or(0.0);
        assert!((8.0..9.5).contains(&nine), "{nine}");
        assert_eq!(days(100, 0).dispersion(DAY), Some(0.0));
        // Neighbouring days cancel in longer windows, and three windows say nothing.
        assert!(days(100, 28).dispersion(6 * DAY).unwrap_or(9.0) < 0.1);
        assert_eq!((days(3, 28).dispersion(DAY), days(14, 28).dispersion(7 * DAY)), (None, None));
    }
}
