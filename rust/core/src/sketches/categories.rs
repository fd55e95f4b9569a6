//! Counts per name: exact for all names up to a cap, and beyond it exact for the pinned ones, bounded for the rest.
//!
//! Beyond the cap: Misra & Gries, Sci. Comput. Program. 1982, in the mergeable form of Agarwal et al., PODS 2012.

use std::borrow::Cow;

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::hash::murmur3_x64_128;
use crate::sketches::Hll;

/// Names kept apart before small counts are given up; pinned names do not count.
pub const EXACT_NAMES: usize = 8192;
/// Names left after that.
const KEPT_NAMES: usize = 4096;
/// Longer names are cut and marked with a hash of the whole.
pub const NAME_BYTES: usize = 256;
const LG_K: u8 = 12;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    count: u64,
    pinned: bool,
}

/// Counts of names. A count is exact while [`error`](Self::error) is 0, and always for pinned names; otherwise it is at
/// most `error` too low. Memory: at most 8192 names of 256 bytes besides the pinned ones, and 4 KB.
#[derive(Clone, Debug)]
pub struct Categories {
    entries: HashMap<Box<str>, Entry, DefaultHashBuilder>,
    pinned: usize,
    total: u64,
    error: u64,
    distinct: Hll,
}

impl PartialEq for Categories {
    fn eq(&self, other: &Self) -> bool {
        (self.total, self.error) == (other.total, other.error) && self.distinct == other.distinct && self.entries == other.entries
    }
}

fn shortened(name: &str) -> Cow<'_, str> {
    if name.len() <= NAME_BYTES {
        return Cow::Borrowed(name);
    }
    let mut end = NAME_BYTES - 24;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}…#{:016x}", &name[..end], murmur3_x64_128(name.as_bytes(), 0).0))
}

impl Categories {
    /// No names yet.
    ///
    /// # Errors
    /// None in practice: the size of its distinct counter is fixed.
    pub fn new() -> Result<Self> {
        Ok(Self { entries: HashMap::default(), pinned: 0, total: 0, error: 0, distinct: Hll::new(LG_K)? })
    }

    /// Keeps an exact count of these names from now on, 0 until they come.
    pub fn pin<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        for name in names {
            let entry = self.entries.entry(shortened(name).into()).or_default();
            self.pinned += usize::from(!entry.pinned);
            entry.pinned = true;
        }
    }

    /// Counts `count` occurrences of a name.
    pub fn update(&mut self, name: &str, count: u64) {
        if count == 0 {
            return;
        }
        let name = shortened(name);
        self.total += count;
        if let Some(entry) = self.entries.get_mut(name.as_ref()) {
            if entry.count == 0 {
                self.distinct.update(name.as_bytes());
            }
            entry.count += count;
            return;
        }
        self.distinct.update(name.as_bytes());
        self.entries.insert(name.into(), Entry { count, pinned: false });
        self.shrink();
    }

    fn shrink(&mut self) {
        if self.entries.len() - self.pinned <= EXACT_NAMES {
            return;
        }
        let mut counts: Vec<u64> = self.entries.values().filter(|e| !e.pinned).map(|e| e.count).collect();
        let (_, cut, _) = counts.select_nth_unstable_by(KEPT_NAMES, |a, b| b.cmp(a));
        let cut = *cut;
        self.error += cut;
        self.entries.retain(|_, entry| {
            if !entry.pinned {
                entry.count = entry.count.saturating_sub(cut);
            }
            entry.pinned || entry.count > 0
        });
    }

    /// Occurrences in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How much a count of a name that is not pinned may be too low; 0 while everything is exact.
    pub fn error(&self) -> u64 {
        self.error
    }

    /// Occurrences of a name.
    pub fn count(&self, name: &str) -> u64 {
        self.entries.get(shortened(name).as_ref()).map_or(0, |entry| entry.count)
    }

    /// Whether the count of this name is exact.
    pub fn is_exact(&self, name: &str) -> bool {
        self.error == 0 || self.entries.get(shortened(name).as_ref()).is_some_and(|entry| entry.pinned)
    }

    /// Different names: exact up to about 250, then within 1.6 % (one standard error).
    pub fn distinct(&self) -> f64 {
        if self.error == 0 { self.entries.values().filter(|entry| entry.count > 0).count() as f64 } else { self.distinct.estimate() }
    }

    /// Names with their counts, most frequent first, names in order among equals.
    pub fn ranked(&self) -> Vec<(&str, u64)> {
        let mut out: Vec<(&str, u64)> =
            self.entries.iter().filter(|(_, e)| e.count > 0).map(|(name, e)| (name.as_ref(), e.count)).collect();
        out.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        out
    }

    /// Every occurrence counts `2^halvings` times.
    pub fn raise(&mut self, halvings: u32) {
        self.total <<= halvings;
        self.error <<= halvings;
        self.entries.values_mut().for_each(|entry| entry.count <<= halvings);
    }

    /// Adds another's counts.
    ///
    /// # Errors
    /// None in practice.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.distinct.merge(&other.distinct)?;
        self.total += other.total;
        self.error += other.error;
        for (name, theirs) in &other.entries {
            let mine = self.entries.entry(name.clone()).or_default();
            mine.count += theirs.count;
            self.pinned += usize::from(theirs.pinned && !mine.pinned);
            mine.pinned |= theirs.pinned;
        }
        self.shrink();
        Ok(())
    }

    /// Appends the counts to a snapshot, names in order.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u64(self.total);
        writer.u64(self.error);
        self.distinct.encode(writer);
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
        writer.len(entries.len());
        for (name, entry) in entries {
            writer.str(name);
            writer.u64(entry.count);
            writer.bool(entry.pinned);
        }
    }

    /// Reads counts back.
    ///
    /// # Errors
    /// `Decode` for bytes that no `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let (total, error) = (reader.count()?, reader.count()?);
        let distinct = Hll::decode(reader)?;
        let n = reader.len(3)?;
        let mut out =
            Self { entries: HashMap::with_capacity_and_hasher(n, DefaultHashBuilder::default()), pinned: 0, total, error, distinct };
        let mut sum = 0u64;
        for _ in 0..n {
            let name = reader.str()?;
            let entry = Entry { count: reader.count()?, pinned: reader.bool()? };
            sum = sum
                .checked_add(entry.count)
                .filter(|sum| *sum <= total)
                .ok_or_else(|| Error::decode("the counts of the names exceed their total"))?;
            out.pinned += usize::from(entry.pinned);
            if name.len() > NAME_BYTES || out.entries.insert(name.into(), entry).is_some() {
                return Err(Error::decode("a name in the snapshot is too long or comes twice"));
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heavy_names_survive_a_flood_of_rare_ones_and_pinned_ones_stay_exact() {
        let mut counts = Categories::new().unwrap();
        counts.pin(["pinned"]);
        for i in 0..100_000u32 {
            counts.update(&format!("rare {i}"), 1);
            counts.update(if i % 10 == 0 { "pinned" } else { "heavy" }, 1);
        }
        assert_eq!(counts.count("pinned"), 10_000);
        assert!(counts.count("heavy") <= 90_000 && counts.count("heavy") + counts.error() >= 90_000);
        assert!((counts.distinct() / 100_002.0 - 1.0).abs() < 0.05, "{}", counts.distinct());
        assert_eq!(counts.ranked()[0].0, "heavy");
        let mut writer = Writer::new();
        counts.encode(&mut writer);
        let bytes = writer.into_payload();
        assert_eq!(Categories::decode(&mut Reader::new(&bytes)).unwrap(), counts);
    }

    #[test]
    fn long_names_are_cut_but_stay_apart() {
        let mut counts = Categories::new().unwrap();
        let long = "é".repeat(1000);
        counts.update(&long, 2);
        counts.update(&format!("{long}x"), 3);
        assert_eq!((counts.count(&long), counts.count(&format!("{long}x"))), (2, 3));
        assert!(counts.ranked().iter().all(|(name, _)| name.len() <= NAME_BYTES));
    }
}
