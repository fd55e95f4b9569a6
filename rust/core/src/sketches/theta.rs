//! Theta sketch: the k smallest hashes of the values seen, and the next one as the threshold below which all are kept.
//!
//! Set operations keep that form, so that distinct values of unions, intersections and differences have an unbiased
//! estimate. Hash and bytes are those of Apache DataSketches (serial version 3). Source: Dasgupta, Lang, Rhodes & Thaler,
//! ICDT 2016, arXiv 1510.01455.

use crate::error::{Error, Result};
use crate::hash::{DATASKETCHES_SEED, murmur3_x64_128};

/// Hashes are 63 bits; this threshold keeps all of them.
const ALL: u64 = i64::MAX as u64;
const FAMILY: u8 = 3;
const SERIAL_VERSION: u8 = 3;
const READ_ONLY: u8 = 2;
const EMPTY: u8 = 4;
const COMPACT: u8 = 8;
const ORDERED: u8 = 16;

/// Distinct values and set operations. Relative standard error about `1 / sqrt(2^lg_k)`, 0 up to `2^lg_k` values.
///
/// The state is a function of the set of values alone. Memory: at most `16 * 2^lg_k` bytes.
#[derive(Clone, Debug)]
pub struct Theta {
    lg_k: u8,
    /// Every hash below it is kept.
    threshold: u64,
    /// Ascending, all below the threshold.
    kept: Vec<u64>,
    /// Seen since `kept` was put in order.
    fresh: Vec<u64>,
}

impl PartialEq for Theta {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.settled(), other.settled());
        (a.threshold, &a.kept) == (b.threshold, &b.kept)
    }
}

impl Theta {
    /// An empty sketch that keeps `2^lg_k` hashes; `lg_k` in [5, 26], 12 gives 1.6 %.
    ///
    /// # Errors
    /// `InvalidArgument` outside that range.
    pub fn new(lg_k: u8) -> Result<Self> {
        if !(5..=26).contains(&lg_k) {
            return Err(
                Error::invalid(format!("`lg_k` must be in [5, 26], got {lg_k}")).hint("12 gives a standard error of 1.6 % in 32 KB")
            );
        }
        Ok(Self { lg_k, threshold: ALL, kept: Vec::new(), fresh: Vec::new() })
    }

    /// Adds a value by its bytes: UTF-8 for text, eight little-endian bytes for a number.
    pub fn update(&mut self, bytes: &[u8]) {
        let hash = murmur3_x64_128(bytes, DATASKETCHES_SEED).0 >> 1;
        // 0 stands for an empty slot in other implementations.
        if hash > 0 && hash < self.threshold {
            self.fresh.push(hash);
            if self.fresh.len() >= 1 << self.lg_k {
                self.settle();
            }
        }
    }

    /// Puts what is fresh in its place and drops what is beyond k.
    fn settle(&mut self) {
        self.kept.append(&mut self.fresh);
        self.kept.sort_unstable();
        self.kept.dedup();
        if let Some(threshold) = self.kept.get(1 << self.lg_k).copied() {
            self.threshold = self.threshold.min(threshold);
        }
        self.kept.truncate(self.kept.partition_point(|hash| *hash < self.threshold));
    }

    /// With nothing fresh. What was read may hold more than k hashes: it keeps them until something comes to it.
    fn settled(&self) -> Self {
        let mut out = self.clone();
        if !out.fresh.is_empty() {
            out.settle();
        }
        out
    }

    /// Hashes kept.
    pub fn retained(&self) -> usize {
        self.settled().kept.len()
    }

    /// Hashes that are kept, as a power of two.
    pub fn lg_k(&self) -> u8 {
        self.lg_k
    }

    /// The estimated number of distinct values: exact while nothing was dropped.
    pub fn estimate(&self) -> f64 {
        let settled = self.settled();
        settled.kept.len() as f64 / (settled.threshold as f64 / ALL as f64)
    }

    /// Adds another sketch's values: the union.
    pub fn merge(&mut self, other: &Self) {
        let other = other.settled();
        self.threshold = self.threshold.min(other.threshold);
        self.fresh.extend(other.kept);
        self.settle();
    }

    /// The values that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.kept_if(other, true)
    }

    /// The values that are in this one and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.kept_if(other, false)
    }

    fn kept_if(&self, other: &Self, there: bool) -> Self {
        let (mut out, other) = (self.settled(), other.settled());
        out.threshold = out.threshold.min(other.threshold);
        let threshold = out.threshold;
        out.kept.retain(|hash| *hash < threshold && other.kept.binary_search(hash).is_ok() == there);
        out
    }

    fn seed_hash() -> u16 {
        murmur3_x64_128(&DATASKETCHES_SEED.to_le_bytes(), 0).0 as u16
    }

    /// The bytes of a compact ordered sketch of Apache `DataSketches`.
    pub fn to_datasketches(&self) -> Vec<u8> {
        let settled = self.settled();
        let estimating = settled.threshold < ALL;
        let empty = settled.kept.is_empty() && !estimating;
        let words: u8 = if estimating {
            3
        } else if empty || settled.kept.len() == 1 {
            1
        } else {
            2
        };
        let flags = READ_ONLY | COMPACT | ORDERED | if empty { EMPTY } else { 0 };
        let mut out = vec![words, SERIAL_VERSION, FAMILY, 0, 0, flags];
        out.extend(Self::seed_hash().to_le_bytes());
        if words > 1 {
            out.extend((settled.kept.len() as u32).to_le_bytes());
            out.extend([0; 4]);
        }
        if words > 2 {
            out.extend(settled.threshold.to_le_bytes());
        }
        settled.kept.iter().for_each(|hash| out.extend(hash.to_le_bytes()));
        out
    }

    /// Reads a compact sketch of Apache `DataSketches`, ordered or not; `lg_k` is what it is held to from now on.
    ///
    /// # Errors
    /// `Decode` for anything else; `InvalidArgument` for `lg_k` out of range.
    pub fn from_datasketches(bytes: &[u8], lg_k: u8) -> Result<Self> {
        let mut out = Self::new(lg_k)?;
        let wrong = |what: &str| {
            Error::decode(format!("expected a compact Theta sketch of DataSketches, {what}")).hint("write it with `compact().serialize()`")
        };
        let head = bytes.first_chunk::<8>().ok_or_else(|| wrong(&format!("got {} bytes", bytes.len())))?;
        let [words, version, family, _, _, flags, ..] = *head;
        if family != FAMILY || version != SERIAL_VERSION || flags & COMPACT == 0 || !(1..=3).contains(&words) {
            return Err(wrong(&format!("got family {family}, serial version {version}, flags {flags:#04x}")));
        }
        if u16::from_le_bytes([head[6], head[7]]) != Self::seed_hash() {
            return Err(wrong("got one with another hash seed"));
        }
        let word = |at: usize| bytes.get(8 * at..8 * at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
        let short = || wrong("got one that is cut short");
        if flags & EMPTY != 0 {
            return if bytes.len() == 8 { Ok(out) } else { Err(wrong("got an empty one with values behind it")) };
        }
        let count = if words == 1 { 1 } else { word(1).ok_or_else(short)? & 0xffff_ffff };
        if words == 3 {
            out.threshold = word(2).ok_or_else(short)?;
        }
        if (bytes.len() - 8 * usize::from(words)) as u64 != 8 * count || out.threshold > ALL {
            return Err(short());
        }
        out.kept = (0..count as usize).filter_map(|at| word(usize::from(words) + at)).collect();
        let ordered = out.kept.is_sorted();
        out.kept.sort_unstable();
        let distinct = out.kept.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = out.kept.first().is_none_or(|hash| *hash > 0) && out.kept.last().is_none_or(|hash| *hash < out.threshold);
        if !distinct || !inside || (flags & ORDERED != 0 && !ordered) {
            return Err(wrong("got hashes that are repeated, out of range or out of order"));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: std::ops::Range<u64>) -> Theta {
        let mut theta = Theta::new(10).unwrap();
        values.for_each(|value| theta.update(&value.to_le_bytes()));
        theta
    }

    #[test]
    fn set_operations_stay_near_the_truth_and_order_leaves_no_trace() {
        let (a, b) = (of(0..60_000), of(40_000..100_000));
        let mut union = a.clone();
        union.merge(&b);
        assert!(union == of(0..100_000));
        for (got, want) in [(union.estimate(), 1e5), (a.intersection(&b).estimate(), 2e4), (a.difference(&b).estimate(), 4e4)] {
            assert!((got / want - 1.0).abs() < 0.2, "{got} {want}");
        }
        assert_eq!(of(0..1000).estimate(), 1000.0);
        let bytes = union.to_datasketches();
        assert!(Theta::from_datasketches(&bytes, 10).unwrap() == union);
        for cut in 0..bytes.len() {
            assert!(Theta::from_datasketches(&bytes[..cut], 10).is_err());
        }
    }
}
