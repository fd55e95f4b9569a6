//! Frequent items: names with counts that are at most a stated error too low, in the bytes of Apache DataSketches.
//!
//! Misra & Gries, Sci. Comput. Program. 1982, in the mergeable form of Agarwal et al., PODS 2012: beyond its room the sketch
//! takes the count of its median name off every name.

use hashbrown::HashMap;

use crate::error::{Error, Result};

const FAMILY: u8 = 10;
const SERIAL_VERSION: u8 = 1;
/// Both bits that the implementations use for it.
const EMPTY: u8 = 5;

/// Counts of frequent names. A count is at most [`error`](Self::error) too low, which is at most `3.5 / 2^lg_size` of all counts.
///
/// Memory: at most `0.75 * 2^lg_size` names. Merging keeps the bound; the kept names may depend on order.
#[derive(Clone, Debug, PartialEq)]
pub struct FrequentItems {
    lg_size: u8,
    counts: HashMap<Box<str>, u64>,
    total: u64,
    error: u64,
}

impl FrequentItems {
    /// Room for `0.75 * 2^lg_size` names; `lg_size` in [3, 21].
    ///
    /// # Errors
    /// `InvalidArgument` outside that range.
    pub fn new(lg_size: u8) -> Result<Self> {
        if !(3..=21).contains(&lg_size) {
            return Err(Error::invalid(format!("`lg_size` must be in [3, 21], got {lg_size}")).hint("10 keeps 768 names"));
        }
        Ok(Self { lg_size, counts: HashMap::new(), total: 0, error: 0 })
    }

    fn room(&self) -> usize {
        (1usize << self.lg_size) / 4 * 3
    }

    /// Counts `count` occurrences of a name.
    pub fn update(&mut self, name: &str, count: u64) {
        if count == 0 {
            return;
        }
        self.total += count;
        if let Some(known) = self.counts.get_mut(name) {
            *known += count;
            return;
        }
        self.counts.insert(name.into(), count);
        self.shrink();
    }

    fn shrink(&mut self) {
        if self.counts.len() <= self.room() {
            return;
        }
        let mut counts: Vec<u64> = self.counts.values().copied().collect();
        let middle = counts.len() / 2;
        let (_, cut, _) = counts.select_nth_unstable(middle);
        let cut = *cut;
        self.error += cut;
        self.counts.retain(|_, count| {
            *count = count.saturating_sub(cut);
            *count > 0
        });
    }

    /// Counts of all names, kept or not.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How much a count may be too low; 0 while everything is exact.
    pub fn error(&self) -> u64 {
        self.error
    }

    /// `(name, at least, at most)`, most frequent first, names in order among equals. A name that came more often than
    /// [`error`](Self::error) is among them.
    pub fn frequent(&self) -> Vec<(&str, u64, u64)> {
        let mut out: Vec<(&str, u64, u64)> = self.counts.iter().map(|(name, count)| (name.as_ref(), *count, count + self.error)).collect();
        out.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        out
    }

    /// `(at least, at most)` for a name.
    pub fn count(&self, name: &str) -> (u64, u64) {
        let known = self.counts.get(name).copied();
        (known.unwrap_or(0), known.unwrap_or(0) + self.error)
    }

    /// Adds another sketch's counts.
    pub fn merge(&mut self, other: &Self) {
        let total = self.total + other.total;
        // What the other took off stays taken off, whether or not adding its names makes this one take off more.
        self.error += other.error;
        let mut names: Vec<_> = other.counts.iter().collect();
        names.sort_unstable();
        names.into_iter().for_each(|(name, count)| self.update(name, *count));
        self.total = total;
    }

    /// The bytes of a `frequent_strings_sketch` of Apache `DataSketches`, names in order.
    pub fn to_datasketches(&self) -> Vec<u8> {
        let empty = self.total == 0;
        let needed = (self.counts.len() * 4 / 3 + 1).next_power_of_two().trailing_zeros() as u8;
        let mut out = vec![if empty { 1 } else { 4 }, SERIAL_VERSION, FAMILY, self.lg_size, needed.clamp(3, self.lg_size), 0, 0, 0];
        if empty {
            out[5] = EMPTY;
            return out;
        }
        let mut names: Vec<_> = self.counts.iter().collect();
        names.sort_unstable();
        out.extend((names.len() as u32).to_le_bytes());
        out.extend([0; 4]);
        out.extend(self.total.to_le_bytes());
        out.extend(self.error.to_le_bytes());
        names.iter().for_each(|(_, count)| out.extend(count.to_le_bytes()));
        for (name, _) in names {
            out.extend((name.len() as u32).to_le_bytes());
            out.extend(name.as_bytes());
        }
        out
    }

    /// Reads a `frequent_strings_sketch` of Apache `DataSketches`.
    ///
    /// # Errors
    /// `Decode` for anything else.
    pub fn from_datasketches(bytes: &[u8]) -> Result<Self> {
        let wrong = |what: String| Error::decode(format!("expected a frequent_strings_sketch of DataSketches, {what}"));
        let head = bytes.first_chunk::<8>().ok_or_else(|| wrong(format!("got {} bytes", bytes.len())))?;
        let [words, version, family, lg_size, _, flags, ..] = *head;
        if version != SERIAL_VERSION || family != FAMILY || !(words == 1 || words == 4) {
            return Err(wrong(format!("got family {family}, serial version {version}")));
        }
        let mut out = Self::new(lg_size).map_err(|error| Error::decode(error.message))?;
        if flags & EMPTY != 0 {
            return if bytes.len() == 8 { Ok(out) } else { Err(wrong("got an empty one with names behind it".to_owned())) };
        }
        let short = || wrong("got one that is cut short or too long".to_owned());
        let word = |at: usize| bytes.get(8 * at..8 * at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
        let names = (word(1).ok_or_else(short)? & 0xffff_ffff) as usize;
        (out.total, out.error) = (word(2).ok_or_else(short)?, word(3).ok_or_else(short)?);
        if words != 4 || names > out.room() || bytes.len() < 32 + 12 * names {
            return Err(short());
        }
        let mut rest = &bytes[32 + 8 * names..];
        let mut sum = 0u64;
        for at in 0..names {
            let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            let (name, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
            rest = tail;
            let name = std::str::from_utf8(name).map_err(|_| wrong("got a name that is not UTF-8".to_owned()))?;
            let count = word(4 + at).filter(|count| *count > 0).ok_or_else(|| wrong("got a name without a count".to_owned()))?;
            sum = sum.checked_add(count).ok_or_else(|| wrong("got counts that do not fit 64 bits".to_owned()))?;
            if out.counts.insert(name.into(), count).is_some() {
                return Err(wrong(format!("got {name:?} twice")));
            }
        }
        if !rest.is_empty() {
            return Err(short());
        }
        if sum > out.total || out.error > out.total {
            return Err(wrong("got counts that contradict its total".to_owned()));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stay_within_the_error_through_floods_and_merges() {
        let mut parts: Vec<FrequentItems> = (0..4).map(|_| FrequentItems::new(6).unwrap()).collect();
        let mut truth: HashMap<String, u64> = HashMap::new();
        for i in 0..20_000u64 {
            let name = if i % 5 == 0 { format!("heavy {}", i % 3) } else { format!("rare {}", i * 7919 % 5003) };
            parts[(i % 4) as usize].update(&name, 1 + i % 2);
            *truth.entry(name).or_default() += 1 + i % 2;
        }
        let mut all = FrequentItems::new(6).unwrap();
        parts.iter().for_each(|part| all.merge(part));
        assert!(all.total() == 30_000 && all.error() as f64 <= 3.5 / 64.0 * 30_000.0, "{}", all.error());
        for (name, count) in &truth {
            let (least, most) = all.count(name);
            assert!(least <= *count && *count <= most, "{name} {least} {count} {most}");
        }
        assert!(all.frequent()[0].0.starts_with("heavy"));
        let bytes = all.to_datasketches();
        assert_eq!(FrequentItems::from_datasketches(&bytes).unwrap(), all);
        for cut in 0..bytes.len() {
            assert!(FrequentItems::from_datasketches(&bytes[..cut]).is_err());
        }
    }
}
