//! Sums of terms rounded to a fixed power of two: exact in any order.

use crate::codec::{Reader, Writer};
use crate::error::Result;

/// A sum in units of 2^-60: each term is off by 2^-61 at most, the sum of them is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fixed(i128);

const UNIT: f64 = (1u64 << 60) as f64;
const COARSE: u32 = 40;

/// A term in [0, 1500] in units of 2^-40, rounded; 4,096 of them fit an i64.
#[inline]
pub(super) fn coarse(term: f64) -> i64 {
    // Adding 1.5 * 2^52 leaves the rounded integer in the low bits.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    ((term * (1u64 << COARSE) as f64 + MAGIC).to_bits() as i64).wrapping_sub(MAGIC.to_bits() as i64)
}

impl Fixed {
    /// Adds a term; one beyond 2^60 counts as 2^60.
    pub fn add(&mut self, term: f64) {
        let scaled = term.clamp(-UNIT, UNIT) * UNIT;
        self.0 = self.0.saturating_add(libm::rint(scaled) as i128);
    }

    /// Adds a sum of [`coarse`] terms.
    pub fn add_coarse(&mut self, sum: i64) {
        self.0 = self.0.saturating_add(i128::from(sum) << (60 - COARSE));
    }

    pub fn merge(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }

    pub fn subtract(&mut self, other: Self) {
        self.0 = self.0.saturating_sub(other.0);
    }

    pub fn value(self) -> f64 {
        self.0 as f64 / UNIT
    }

    pub fn encode(self, writer: &mut Writer) {
        writer.u64((self.0 >> 64) as u64);
        writer.u64(self.0 as u64);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let (high, low) = (reader.u64()?, reader.u64()?);
        Ok(Self((u128::from(high) << 64 | u128::from(low)) as i128))
    }
}
