//! A uniform sample that does not depend on order: the ids with the k smallest seeded hashes.
//!
//! Merging two samples gives the sample of both streams to the byte, and an id that comes twice counts once. Source: Cohen &
//! Kaplan, "Summarizing data using bottom-k sketches", PODC 2007.

use std::collections::BTreeMap;

use crate::codec::{Reader, SnapshotKind, Writer};
use crate::error::{Error, Result};
use crate::hash::murmur3_x64_128;

const MOST: usize = 1 << 20;

/// The k ids with the smallest hashes, of all that were seen. Memory: k ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    k: usize,
    seed: u64,
    /// Both halves of the hash, so that two ids do not meet.
    kept: BTreeMap<(u64, u64), Box<str>>,
}

impl Sample {
    /// An empty sample of at most `k` ids; `k` in [1, 2^20].
    ///
    /// # Errors
    /// `InvalidArgument` outside that range.
    pub fn new(k: usize, seed: u64) -> Result<Self> {
        if !(1..=MOST).contains(&k) {
            return Err(Error::invalid(format!("`k` must be in [1, {MOST}], got {k}")).hint("1000 ids are usual"));
        }
        Ok(Self { k, seed, kept: BTreeMap::new() })
    }

    /// Offers an id.
    pub fn update(&mut self, id: &str) {
        let hash = murmur3_x64_128(id.as_bytes(), self.seed);
        if self.kept.len() == self.k && self.kept.last_key_value().is_some_and(|(last, _)| hash >= *last) {
            return;
        }
        self.kept.insert(hash, id.into());
        if self.kept.len() > self.k {
            self.kept.pop_last();
        }
    }

    /// Most ids kept.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The seed of the hash.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The ids, in the order of their hashes.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.kept.values().map(AsRef::as_ref)
    }

    /// The probability with which an id of the stream is in the sample, estimated without bias for sums: 1 while all are.
    pub fn inclusion(&self) -> f64 {
        match self.kept.last_key_value() {
            // The k-th smallest hash as a share of all hashes: given it, each other id is in with this probability.
            Some(((hash, _), _)) if self.kept.len() == self.k => (*hash as f64 + 1.0) / 2f64.powi(64),
            _ => 1.0,
        }
    }

    /// Adds another sample's stream.
    ///
    /// # Errors
    /// `Incompatible` for another k or seed.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if (self.k, self.seed) != (other.k, other.seed) {
            return Err(Error::incompatible(format!(
                "samples must have the same `k` and `seed`, got {} and {}, {} and {}",
                self.k, other.k, self.seed, other.seed
            )));
        }
        other.kept.iter().for_each(|(hash, id)| drop(self.kept.insert(*hash, id.clone())));
        while self.kept.len() > self.k {
            self.kept.pop_last();
        }
        Ok(())
    }

    /// The sample as a snapshot; equal samples give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u64(self.seed);
        writer.len(self.k);
        writer.len(self.kept.len());
        self.kept.values().for_each(|id| writer.str(id));
        writer.seal(SnapshotKind::Sample)
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// `Decode`, saying what is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::open(bytes, SnapshotKind::Sample)?;
        let (seed, k) = (reader.u64()?, reader.u64()?);
        let mut out = Self::new(usize::try_from(k).unwrap_or(usize::MAX), seed).map_err(|error| Error::decode(error.message))?;
        let count = reader.len(1)?;
        let mut last = None;
        for _ in 0..count {
            let id = reader.str()?;
            let hash = murmur3_x64_128(id.as_bytes(), seed);
            if last.is_some_and(|last| last >= hash) {
                return Err(Error::decode("the ids of a sample are out of order"));
            }
            last = Some(hash);
            out.kept.insert(hash, id.into());
        }
        reader.finish()?;
        if out.kept.len() > out.k { Err(Error::decode("a sample holds more ids than it may")) } else { Ok(out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_any_order_give_the_sample_of_the_whole() {
        let of = |ids: &mut dyn Iterator<Item = u32>| {
            let mut sample = Sample::new(50, 7).unwrap();
            ids.for_each(|id| sample.update(&id.to_string()));
            sample
        };
        let whole = of(&mut (0..10_000));
        let mut parts = of(&mut (5000..10_000).rev());
        parts.merge(&of(&mut (0..6000))).unwrap();
        assert!(whole == parts && whole.to_bytes() == parts.to_bytes() && whole.ids().count() == 50);
        assert!((whole.inclusion() / 0.005 - 1.0).abs() < 0.6, "{}", whole.inclusion());
        assert_eq!(of(&mut (0..20)).inclusion(), 1.0);
        assert_eq!(Sample::from_bytes(&whole.to_bytes()).unwrap(), whole);
        assert!(parts.merge(&Sample::new(50, 8).unwrap()).is_err());
    }
}
