//! Sums of terms rounded to a fixed power of two: exact in any order.

use crate::codec::{Reader, Writer};
use crate::error::Result;

/// A sum in units of 2^-60: each term is off by 2^-61 at most, the sum of them is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fixed(i128);

const UNIT: f64 = (1u64 << 60) as f64;

impl Fixed {
    /// Adds a term; one beyond 2^60 counts as 2^60.
    pub fn add(&mut self, term: f64) {
        let scaled = term.clamp(-UNIT, UNIT) * UNIT;
        self.0 = self.0.saturating_add(libm::rint(scaled) as i128);
    }

    pub fn merge(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
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
