//! KLL quantile sketch in the format of Apache `DataSketches`: read, merged, written; made from a histogram at no cost per event.
//!
//! Compaction keeps every other value: which half is drawn from a fixed seed for every other compaction of a level, and the one after it
//! keeps the other half, so that their errors cancel and nothing depends on chance. Source: Karnin, Lang & Liberty, FOCS 2016;
//! bytes: `DataSketches` C++ and Java, `kll_doubles_sketch`.

use crate::error::{Error, Result};
use crate::hash::murmur3_of_word;
use crate::sketches::ExponentialHistogram;

const FAMILY: u8 = 15;
const SMALLEST_LEVEL: u8 = 8;
const MOST_LEVELS: usize = 61;
const EMPTY: u8 = 1;
const SORTED: u8 = 2;
const SINGLE: u8 = 4;

/// Values with weights `2^level`. Rank error about `2.3 / k^0.9`: 1.65 % for two-sided ranks at k = 200.
#[derive(Clone, Debug, PartialEq)]
pub struct Kll {
    k: u16,
    n: u64,
    min: f64,
    max: f64,
    /// Level i: values that stand for 2^i each; all but the first sorted.
    levels: Vec<Vec<f64>>,
    /// How often each level was halved.
    halved: Vec<u64>,
}

fn cut() -> Error {
    Error::decode("the KLL bytes end in the middle of a value").hint("they were cut short")
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or_else(cut)?;
    *bytes = rest;
    Ok(*head)
}

impl Kll {
    /// An empty sketch, `k` in [8, 65535].
    ///
    /// # Errors
    /// `InvalidArgument` below 8.
    pub fn new(k: u16) -> Result<Self> {
        if k < 8 {
            return Err(Error::invalid(format!("`k` must be in [8, 65535], got {k}")).hint("200 keeps ranks within 1.65 %"));
        }
        Ok(Self { k, n: 0, min: f64::INFINITY, max: f64::NEG_INFINITY, levels: vec![Vec::new()], halved: Vec::new() })
    }

    /// From the cells of a histogram: each value is that of its cell, so the histogram's relative error comes on top.
    ///
    /// # Errors
    /// `InvalidArgument` for `k` below 8.
    pub fn from_histogram(histogram: &ExponentialHistogram, k: u16) -> Result<Self> {
        let mut out = Self::new(k)?;
        let cells = histogram.cells();
        for cell in &cells {
            let value = cell.value();
            out.n += cell.count;
            (out.min, out.max) = (out.min.min(value), out.max.max(value));
            for level in (0..64).filter(|level| cell.count >> level & 1 == 1) {
                out.level(level).push(value);
            }
        }
        out.compress();
        Ok(out)
    }

    /// Which half the next compaction of a level keeps.
    fn odd(&mut self, level: usize) -> bool {
        if self.halved.len() <= level {
            self.halved.resize(level + 1, 0);
        }
        let turn = self.halved[level];
        self.halved[level] += 1;
        (murmur3_of_word(turn / 2, level as u64).0 ^ turn) & 1 == 1
    }

    fn level(&mut self, level: usize) -> &mut Vec<f64> {
        if self.levels.len() <= level {
            self.levels.resize(level + 1, Vec::new());
        }
        &mut self.levels[level]
    }

    /// Values a level may hold while there are so many levels.
    fn capacity(&self, level: usize, levels: usize) -> usize {
        let depth = (levels - level - 1) as i32;
        let share = libm::round(f64::from(self.k) * libm::pow(2.0 / 3.0, f64::from(depth)));
        (share as usize).max(usize::from(SMALLEST_LEVEL))
    }

    /// Halves levels that hold too much, from below, until none does.
    fn compress(&mut self) {
        loop {
            let levels = self.levels.len();
            let Some(at) = (0..levels).find(|at| self.levels[*at].len() > self.capacity(*at, levels)) else { break };
            let mut values = std::mem::take(&mut self.levels[at]);
            values.sort_unstable_by(f64::total_cmp);
            let odd = self.odd(at);
            if values.len() % 2 == 1 {
                // The odd one stays: the largest or the smallest in turn.
                let left = if odd { values.pop() } else { Some(values.remove(0)) };
                self.levels[at].extend(left);
            }
            let kept = values.into_iter().skip(usize::from(odd)).step_by(2);
            let above = self.level(at + 1);
            above.extend(kept);
            above.sort_unstable_by(f64::total_cmp);
        }
        self.levels.iter_mut().for_each(|level| level.sort_unstable_by(f64::total_cmp));
    }

    /// Adds finite values; NaN and infinities are left out.
    pub fn update_many(&mut self, values: &[f64]) {
        for block in values.chunks(1 << 12) {
            for value in block.iter().filter(|value| value.is_finite()) {
                self.n += 1;
                (self.min, self.max) = (self.min.min(*value), self.max.max(*value));
                self.levels[0].push(*value);
            }
            self.compress();
        }
    }

    /// Adds another sketch; the smaller `k` stays.
    pub fn merge(&mut self, other: &Self) {
        self.k = self.k.min(other.k);
        self.n += other.n;
        (self.min, self.max) = (self.min.min(other.min), self.max.max(other.max));
        for (at, values) in other.levels.iter().enumerate() {
            self.level(at).extend(values);
        }
        self.compress();
    }

    /// Values seen.
    pub fn count(&self) -> u64 {
        self.n
    }

    /// The parameter.
    pub fn k(&self) -> u16 {
        self.k
    }

    fn weighted(&self) -> Vec<(f64, u64)> {
        let mut out: Vec<(f64, u64)> =
            self.levels.iter().enumerate().flat_map(|(at, values)| values.iter().map(move |value| (*value, 1u64 << at))).collect();
        out.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        out
    }

    /// The smallest kept value with rank at least `q * count`; `None` when empty.
    ///
    /// # Errors
    /// `InvalidArgument` unless `q` is in [0, 1].
    pub fn quantile(&self, q: f64) -> Result<Option<f64>> {
        if !(0.0..=1.0).contains(&q) {
            return Err(Error::invalid(format!("`q` must be in [0, 1], got {q:?}")));
        }
        if self.n == 0 {
            return Ok(None);
        }
        if q == 0.0 || q == 1.0 {
            return Ok(Some(if q == 0.0 { self.min } else { self.max }));
        }
        let rank = libm::ceil(q * self.n as f64) as u64;
        let mut seen = 0;
        let found = self.weighted().into_iter().find(|(_, weight)| {
            seen += weight;
            seen >= rank
        });
        Ok(Some(found.map_or(self.max, |(value, _)| value)))
    }

    /// The bytes that `kll_doubles_sketch` reads.
    pub fn to_bytes(&self) -> Vec<u8> {
        let flags = if self.n == 0 { EMPTY } else { SORTED | if self.n == 1 { SINGLE } else { 0 } };
        let short = self.n < 2;
        let mut out = vec![if short { 2 } else { 5 }, if self.n == 1 { 2 } else { 1 }, FAMILY, flags];
        out.extend(self.k.to_le_bytes());
        out.extend([SMALLEST_LEVEL, 0]);
        if short {
            self.levels.iter().flatten().for_each(|value| out.extend(value.to_le_bytes()));
            return out;
        }
        let levels = self.levels.len();
        let capacity: usize = (0..levels).map(|at| self.capacity(at, levels)).sum();
        let mut start = capacity - self.levels.iter().map(Vec::len).sum::<usize>().min(capacity);
        out.extend(self.n.to_le_bytes());
        out.extend(self.k.to_le_bytes());
        out.extend([levels as u8, 0]);
        for level in &self.levels {
            out.extend((start as u32).to_le_bytes());
            start += level.len();
        }
        [self.min, self.max].iter().chain(self.levels.iter().flatten()).for_each(|value| out.extend(value.to_le_bytes()));
        out
    }

    /// Reads bytes that a `kll_doubles_sketch` wrote.
    ///
    /// # Errors
    /// `Decode`, saying what is wrong with them.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self> {
        let [_, version, family, flags] = take::<4>(&mut bytes)?;
        let k = u16::from_le_bytes(take(&mut bytes)?);
        let [_, _] = take::<2>(&mut bytes)?;
        if family != FAMILY || !(1..=2).contains(&version) {
            return Err(Error::decode(format!("expected KLL bytes (family {FAMILY}), got family {family}, version {version}"))
                .hint("pass what a kll_doubles_sketch wrote"));
        }
        let mut out = Self::new(k).map_err(|error| Error::decode(error.message))?;
        if flags & EMPTY != 0 {
            return Ok(out);
        }
        let value = |bytes: &mut &[u8]| {
            let value = f64::from_le_bytes(take(bytes)?);
            if value.is_finite() { Ok(value) } else { Err(Error::decode(format!("a KLL value is {value}"))) }
        };
        if flags & SINGLE != 0 {
            out.update_many(&[value(&mut bytes)?]);
            return Ok(out);
        }
        out.n = u64::from_le_bytes(take(&mut bytes)?);
        let [_, _] = take::<2>(&mut bytes)?;
        let [levels, _] = take::<2>(&mut bytes)?;
        let levels = usize::from(levels);
        if !(1..=MOST_LEVELS).contains(&levels) {
            return Err(Error::decode(format!("a KLL sketch of {levels} levels")));
        }
        let mut starts = (0..levels).map(|_| take(&mut bytes).map(u32::from_le_bytes)).collect::<Result<Vec<u32>>>()?;
        let capacity: usize = (0..levels).map(|at| out.capacity(at, levels)).sum();
        starts.push(capacity as u32);
        (out.min, out.max) = (value(&mut bytes)?, value(&mut bytes)?);
        let held = starts.windows(2).map(|pair| pair[1].checked_sub(pair[0])).collect::<Option<Vec<u32>>>();
        let held = held.ok_or_else(|| Error::decode("the levels of a KLL sketch overlap"))?;
        if held.iter().map(|size| *size as usize).sum::<usize>() * 8 != bytes.len() {
            return Err(cut());
        }
        out.levels = held.iter().map(|size| (0..*size).map(|_| value(&mut bytes)).collect()).collect::<Result<_>>()?;
        let weight: u128 = held.iter().enumerate().map(|(at, size)| u128::from(*size) << at).sum();
        let inside = out.levels.iter().flatten().all(|value| (out.min..=out.max).contains(value));
        if weight != u128::from(out.n) || !inside {
            return Err(Error::decode("the counters of a KLL sketch contradict each other"));
        }
        out.levels.iter_mut().for_each(|level| level.sort_unstable_by(f64::total_cmp));
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_does_not_grow_with_the_stream() {
        // A single bit that all levels shared once kept the same half of a level every time: 1.9 % at a million values.
        let values: Vec<f64> = (0..1_000_000u32).map(|i| f64::from(i.wrapping_mul(2_654_435_761) >> 4)).collect();
        let mut sketch = Kll::new(200).unwrap();
        sketch.update_many(&values);
        let mut sorted = values;
        sorted.sort_by(f64::total_cmp);
        for i in 1..200 {
            let q = f64::from(i) / 200.0;
            let rank = sorted.partition_point(|value| *value <= sketch.quantile(q).unwrap().unwrap()) as f64 / 1e6;
            assert!((rank - q).abs() < 0.0133, "{q} {rank}");
        }
    }

    #[test]
    fn ranks_stay_within_the_error_from_values_from_cells_and_after_merges() {
        let values: Vec<f64> = (0..200_000u32).map(|i| f64::from(i.wrapping_mul(2_654_435_761) >> 8)).collect();
        let mut h = ExponentialHistogram::new(8).unwrap();
        h.update_many(&values);
        let mut whole = Kll::new(200).unwrap();
        whole.update_many(&values[..150_000]);
        let mut rest = Kll::new(200).unwrap();
        rest.update_many(&values[150_000..]);
        whole.merge(&rest);
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        for sketch in [whole, Kll::from_histogram(&h, 200).unwrap()] {
            assert_eq!(sketch.count(), 200_000);
            for i in 1..100 {
                let q = f64::from(i) / 100.0;
                let got = sketch.quantile(q).unwrap().unwrap();
                let rank = sorted.partition_point(|value| *value <= got) as f64 / sorted.len() as f64;
                assert!((rank - q).abs() < 0.02, "{q} {rank}");
            }
            let bytes = sketch.to_bytes();
            assert_eq!(Kll::from_bytes(&bytes).unwrap().to_bytes(), bytes);
            assert!((0..bytes.len()).all(|cut| Kll::from_bytes(&bytes[..cut]).is_err()));
        }
    }
}
