//! An asymptotic confidence sequence of a mean without bounds.

use super::level;
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

/// The count for which the limits are tightest.
const TUNED: f64 = 5000.0;
/// Values before which there are no limits: an asymptotic claim says nothing of fewer.
pub const LEAST: u64 = 100;

/// Limits of a mean that hold at all times at once in the limit of many values with a variance: those after the first hundred.
///
/// Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, Annals of Statistics 2024, equation 4.
#[derive(Clone, Debug, PartialEq)]
pub struct AsymptoticSequence {
    alpha: f64,
    count: u64,
    mean: f64,
    squares: f64,
}

impl AsymptoticSequence {
    /// Wrong ever with probability `alpha`, about.
    ///
    /// # Errors
    /// `InvalidArgument` for a level outside (0, 0.5).
    pub fn new(alpha: f64) -> Result<Self> {
        Ok(Self { alpha: level(alpha)?, count: 0, mean: 0.0, squares: 0.0 })
    }

    /// Adds values.
    ///
    /// # Errors
    /// `InvalidArgument` for one that is not finite; nothing is added then.
    pub fn update_many(&mut self, values: &[f64]) -> Result<()> {
        super::within("values", values, -1e150, 1e150)?;
        for value in values {
            self.count += 1;
            let gap = value - self.mean;
            self.mean += gap / self.count as f64;
            self.squares += gap * (value - self.mean);
        }
        Ok(())
    }

    /// Values so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; `None` before the first.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// The limits; `None` for fewer than a hundred values.
    pub fn interval(&self) -> Option<(f64, f64)> {
        if self.count < LEAST {
            return None;
        }
        let n = self.count as f64;
        let twice = 2.0 * libm::log(1.0 / self.alpha);
        let grown = n * (twice + libm::log(1.0 + twice)) / TUNED;
        let reach = libm::sqrt(self.squares / n * 2.0 * (grown + 1.0) / (n * grown) * libm::log(libm::sqrt(grown + 1.0) / self.alpha));
        Some((self.mean - reach, self.mean + reach))
    }

    /// Appends the state to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        writer.f64(self.alpha);
        writer.u64(self.count);
        writer.f64(self.mean);
        writer.f64(self.squares);
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// `Decode` for anything else.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let mut out = Self::new(reader.finite()?).map_err(|error| Error::decode(error.message))?;
        (out.count, out.mean, out.squares) = (reader.count()?, reader.finite()?, reader.finite()?);
        if out.squares < 0.0 {
            return Err(Error::decode("a sum of squares must not be negative"));
        }
        Ok(out)
    }
}
