//! A confidence sequence of a quantile.

use super::level;
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::sketches::ExponentialHistogram;

/// The count for which the limits are tightest.
const TUNED: f64 = 2000.0;

/// Limits of a quantile that hold at all times at once, for any law of independent values.
///
/// Whether a value lies below the quantile is a coin of known chance; its count stays inside the boundary of a beta mixture
/// (Robbins, Ann. Math. Stat. 1970; Howard & Ramdas, Bernoulli 2022). The limits are order statistics, read from an exponential
/// histogram and widened by its relative error.
#[derive(Clone, Debug)]
pub struct QuantileSequence {
    q: f64,
    alpha: f64,
    histogram: ExponentialHistogram,
}

impl QuantileSequence {
    /// Of the quantile `q` in (0, 1).
    ///
    /// # Errors
    /// `InvalidArgument` outside that range, or for a level outside (0, 0.5).
    pub fn new(q: f64, alpha: f64) -> Result<Self> {
        if !(q > 0.0 && q < 1.0) {
            return Err(Error::invalid(format!("`q` must be in (0, 1), got {q}")));
        }
        Ok(Self { q, alpha: level(alpha)?, histogram: ExponentialHistogram::new(8)? })
    }

    /// Adds values.
    ///
    /// # Errors
    /// `InvalidArgument` for one that is not finite; nothing is added then.
    pub fn update_many(&mut self, values: &[f64]) -> Result<()> {
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::invalid(format!("`values` must be finite, got {} at position {at}", values[at])));
        }
        self.histogram.update_many(values);
        Ok(())
    }

    /// Values so far.
    pub fn count(&self) -> u64 {
        self.histogram.count()
    }

    /// The quantile of the values so far; `None` before the first.
    ///
    /// # Errors
    /// None in practice.
    pub fn value(&self) -> Result<Option<f64>> {
        self.histogram.quantile(self.q)
    }

    /// The logarithm of the mixture when `below` of `n` values are below the quantile.
    fn log(&self, below: f64, n: f64) -> f64 {
        let scale = {
            let twice = 2.0 * libm::log(1.0 / self.alpha);
            TUNED / (twice + libm::log(1.0 + twice))
        };
        let (a, b) = (self.q * scale, (1.0 - self.q) * scale);
        let beta = |a: f64, b: f64| libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b);
        beta(a + below, b + n - below) - beta(a, b) - below * libm::log(self.q) - (n - below) * libm::log(1.0 - self.q)
    }

    /// Whether so many of `n` values below the quantile are too few or too many to be true.
    pub(super) fn excludes(&self, below: u64, n: u64) -> bool {
        self.log(below as f64, n as f64) >= -libm::log(self.alpha)
    }

    /// The limits; `None` where there is none yet.
    ///
    /// # Errors
    /// None in practice.
    pub fn interval(&self) -> Result<(Option<f64>, Option<f64>)> {
        let n = self.count();
        if n == 0 {
            return Ok((None, None));
        }
        let passed = |below: u64| self.excludes(below, n);
        let middle = (self.q * n as f64) as u64;
        // The mixture falls towards the middle and rises from there.
        let first = partition(0, middle, |below| !passed(below));
        // Beyond 10^15 values rounding may exclude every rank: there is no limit then.
        let last = partition(middle, n + 1, passed).checked_sub(1);
        let value = |rank: u64| self.histogram.quantile((rank as f64 - 0.5) / n as f64);
        // A value of the histogram is off by so much of what it stands for.
        let error = self.histogram.relative_error() / (1.0 - self.histogram.relative_error());
        let widened = |value: f64, by: f64| value + by * value.abs() * error;
        let low = if first == 0 { None } else { value(first)?.map(|value| widened(value, -1.0)) };
        let high = match last {
            Some(last) if last < n => value(last + 1)?.map(|value| widened(value, 1.0)),
            _ => None,
        };
        Ok((low, high))
    }

    /// Appends the state to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        writer.f64(self.q);
        writer.f64(self.alpha);
        self.histogram.encode(writer);
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// `Decode` for anything else.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let (q, alpha) = (reader.finite()?, reader.finite()?);
        let mut out = Self::new(q, alpha).map_err(|error| Error::decode(error.message))?;
        out.histogram = ExponentialHistogram::decode(reader)?;
        Ok(out)
    }
}

/// The first of `low..high` for which `holds` is true, `high` if none; it must be false first and true from there on.
fn partition(mut low: u64, mut high: u64, holds: impl Fn(u64) -> bool) -> u64 {
    while low < high {
        let middle = u64::midpoint(low, high);
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_the_quantile_and_bytes_come_back() {
        let mut sequence = QuantileSequence::new(0.9, 0.05).unwrap();
        assert_eq!(sequence.interval().unwrap(), (None, None));
        let values: Vec<f64> = (0..20_000).map(|i| f64::from(i * 7919 % 20_011)).collect();
        sequence.update_many(&values).unwrap();
        let (low, high) = sequence.interval().unwrap();
        let (low, high) = (low.unwrap(), high.unwrap());
        assert!(17_600.0 < low && low < 18_010.0 && 18_010.0 < high && high < 18_400.0, "{low} {high}");
        let mut writer = Writer::new();
        sequence.encode(&mut writer);
        let read = QuantileSequence::decode(&mut Reader::new(&writer.into_payload())).unwrap();
        assert_eq!(read.interval().unwrap(), sequence.interval().unwrap());
        // So small a part of so many values, as only a file can hold them, that rounding excludes every rank.
        for power in 40..63 {
            let mut smallest = QuantileSequence::new(3e-319, 0.025).unwrap();
            smallest.histogram.update_counted(1.0, 1 << power);
            let (low, high) = smallest.interval().unwrap();
            assert!(low.is_none_or(f64::is_finite) && high.is_none_or(f64::is_finite));
        }
        assert!(sequence.update_many(&[f64::NAN]).is_err() && QuantileSequence::new(1.0, 0.05).is_err());
    }
}
