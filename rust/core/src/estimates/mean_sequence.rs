//! A confidence sequence of a mean.

use super::mixture::Mixture;
use super::{level, within};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

/// The variance process for which the limits are tightest: some 10,000 values of a tenth of the range.
const TUNED: f64 = 100.0;

/// Limits of the mean of bounded values that hold at all times at once, whatever the law and whenever one looks.
///
/// Values may depend on the past as long as each has the same mean given it. Source: Howard, Ramdas, `McAuliffe` & Sekhon, Annals of
/// Statistics 2021, empirical Bernstein with the gamma-exponential mixture.
#[derive(Clone, Debug, PartialEq)]
pub struct MeanSequence {
    lower: f64,
    upper: f64,
    alpha: f64,
    mixture: Mixture,
    count: u64,
    /// Of values scaled to [0, 1].
    sum: f64,
    variance: f64,
}

impl MeanSequence {
    /// For values in [lower, upper], wrong ever with probability `alpha` at most.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty range or a level outside (0, 0.5).
    pub fn new(lower: f64, upper: f64, alpha: f64) -> Result<Self> {
        if !(lower < upper && lower.is_finite() && upper.is_finite()) {
            return Err(Error::invalid(format!("`lower` must be below `upper`, both finite, got {lower} and {upper}")));
        }
        let mixture = Mixture::new(level(alpha)? / 2.0, TUNED);
        Ok(Self { lower, upper, alpha, mixture, count: 0, sum: 0.0, variance: 0.0 })
    }

    /// Adds values.
    ///
    /// # Errors
    /// `InvalidArgument` for a value outside the range, naming its position; nothing is added then.
    pub fn update_many(&mut self, values: &[f64]) -> Result<()> {
        within("values", values, self.lower, self.upper)?;
        for value in values {
            self.step((value - self.lower) / (self.upper - self.lower));
        }
        Ok(())
    }

    fn step(&mut self, value: f64) {
        // The mean of what came before, half a value in the middle of the range included: known before the value is.
        let expected = (self.sum + 0.5) / (self.count as f64 + 1.0);
        self.variance += (value - expected).powi(2);
        self.sum += value;
        self.count += 1;
    }

    /// The range of the values.
    pub fn bounds(&self) -> (f64, f64) {
        (self.lower, self.upper)
    }

    /// Values so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; `None` before the first.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.lower + (self.upper - self.lower) * self.sum / self.count as f64)
    }

    /// The limits; the whole range before the first value.
    pub fn interval(&self) -> (f64, f64) {
        let n = self.count as f64;
        if self.count == 0 {
            return (self.lower, self.upper);
        }
        let reach = self.mixture.boundary(self.variance) / n;
        let scaled = |limit: f64| self.lower + (self.upper - self.lower) * limit;
        (scaled((self.sum / n - reach).max(0.0)), scaled((self.sum / n + reach).min(1.0)))
    }

    /// Adds a value and tells whether the mean is above `limit` (scaled as the values are) by the one-sided boundary.
    pub(super) fn above(&mut self, value: f64, limit: f64) -> bool {
        let (value, limit) = ((value - self.lower) / (self.upper - self.lower), (limit - self.lower) / (self.upper - self.lower));
        self.step(value);
        self.mixture.passes(self.sum - self.count as f64 * limit, self.variance)
    }

    /// Adds a value in [0, 1] and tells whether the limits now leave out a mean.
    #[cfg(test)]
    pub(super) fn misses(&mut self, value: f64, mean: f64) -> bool {
        self.step(value);
        self.mixture.passes((self.sum - self.count as f64 * mean).abs(), self.variance)
    }

    /// Appends the state to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        [self.lower, self.upper, self.alpha].into_iter().for_each(|value| writer.f64(value));
        writer.u64(self.count);
        writer.f64(self.sum);
        writer.f64(self.variance);
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// `Decode` for anything else.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let (lower, upper, alpha) = (reader.finite()?, reader.finite()?, reader.finite()?);
        let mut out = Self::new(lower, upper, alpha).map_err(|error| Error::decode(error.message))?;
        out.count = reader.count()?;
        (out.sum, out.variance) = (reader.finite()?, reader.finite()?);
        let most = out.count as f64 * (1.0 + 1e-9);
        if !(0.0..=most).contains(&out.sum) || !(0.0..=most).contains(&out.variance) {
            return Err(Error::decode("the sums of a sequence do not fit its count"));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_close_in_and_bytes_come_back() {
        let mut sequence = MeanSequence::new(-1.0, 1.0, 0.05).unwrap();
        assert_eq!(sequence.interval(), (-1.0, 1.0));
        let values: Vec<f64> = (0..10_000).map(|i| f64::from(i * 7919 % 2001 - 1000) / 1000.0).collect();
        sequence.update_many(&values).unwrap();
        let (low, high) = sequence.interval();
        assert!(low < 0.0 && 0.0 < high && high - low < 0.08, "{low} {high}");
        let mut writer = Writer::new();
        sequence.encode(&mut writer);
        assert_eq!(MeanSequence::decode(&mut Reader::new(&writer.into_payload())).unwrap(), sequence);
        assert!(sequence.update_many(&[2.0]).is_err() && MeanSequence::new(1.0, 0.0, 0.05).is_err());
    }
}
