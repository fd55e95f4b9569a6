//! Change of a share (nulls, non-finite, out of range, unseen), tested against an absolute tolerance.
//!
//! Limits: MOVER (Newcombe's square-and-add) with one-sided Clopper-Pearson limits in place of Wilson's, which keeps the
//! level at 1 % where Wilson's reach 1.7 %. Source: Newcombe, Stat. Med. 1998; Zou & Donner, Stat. Med. 2008.

use super::{Interval, Score};
use crate::distributions::{binomial_lower, binomial_upper, increasing_root, normal_sf};
use crate::error::{Error, Result};

/// No p-value is given below this one.
const LEAST_P: f64 = 1e-15;

/// A share of the reference against a share of the current rows.
#[derive(Clone, Copy, Debug)]
pub struct ShareTest {
    reference: (f64, f64),
    current: (f64, f64),
}

impl ShareTest {
    /// Counts out of totals, each total at least 1.
    ///
    /// # Errors
    /// `InvalidArgument` otherwise.
    pub fn new(reference_count: f64, reference_total: f64, current_count: f64, current_total: f64) -> Result<Self> {
        for (name, count, total) in [("reference", reference_count, reference_total), ("current", current_count, current_total)] {
            if !(total >= 1.0 && total.is_finite() && (0.0..=total).contains(&count)) {
                return Err(Error::invalid(format!("`{name}` must be a count within a total of at least one row, got {count} of {total}")));
            }
        }
        Ok(Self { reference: (reference_count, reference_total), current: (current_count, current_total) })
    }

    /// Share of the current rows minus share of the reference, in [-1, 1].
    pub fn difference(&self) -> f64 {
        self.current.0 / self.current.1 - self.reference.0 / self.reference.1
    }

    /// Lower limit of `high - low` at level `alpha`.
    fn lower_limit(high: (f64, f64), low: (f64, f64), alpha: f64) -> f64 {
        let (q, p) = (high.0 / high.1, low.0 / low.1);
        let (down, up) = (q - binomial_lower(high.0, high.1, alpha), binomial_upper(low.0, low.1, alpha) - p);
        q - p - libm::hypot(down, up)
    }

    /// Limits of the difference, one-sided at level `alpha` each.
    pub fn limits(&self, alpha: f64) -> (f64, f64) {
        (
            Self::lower_limit(self.current, self.reference, alpha).max(-1.0),
            (-Self::lower_limit(self.reference, self.current, alpha)).min(1.0),
        )
    }

    /// P-value of "the share changed by at most `tolerance`", either way: the smallest level that rejects it.
    pub fn p_value(&self, tolerance: f64) -> f64 {
        let (high, low) = if self.difference() >= 0.0 { (self.current, self.reference) } else { (self.reference, self.current) };
        if self.difference().abs() <= tolerance {
            return 1.0;
        }
        let excess = |log: f64| Self::lower_limit(high, low, libm::exp(log)) - tolerance;
        let (least, most) = (libm::log(LEAST_P), libm::log(0.5));
        if excess(least) > 0.0 {
            return LEAST_P;
        }
        if excess(most) <= 0.0 {
            return 1.0;
        }
        let variance = |(count, total): (f64, f64)| (count + 0.5) * (total - count + 0.5) / ((total + 1.0) * total * total);
        let z = (self.difference().abs() - tolerance) / libm::sqrt(variance(high) + variance(low));
        let guess = libm::log(normal_sf(z).clamp(LEAST_P, 0.5));
        // Searched on a shifted axis: the root finder works with relative precision.
        libm::exp(increasing_root(|at| excess(at + least), 0.0, most - least, guess - least, 1e-9) + least)
    }

    /// The difference with its limits at `confidence` and its p-value against `tolerance`.
    pub fn score(&self, tolerance: f64, confidence: f64) -> Score {
        let (lower, upper) = self.limits(1.0 - confidence);
        let interval = Some(Interval::Confidence);
        Score {
            value: self.difference(),
            lower: Some(lower),
            upper: Some(upper),
            interval,
            p_value: Some(self.p_value(tolerance)),
            contributions: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_and_a_p_value_that_inverts_the_limit() {
        let test = ShareTest::new(10.0, 1000.0, 80.0, 1000.0).unwrap();
        let p = test.p_value(0.05);
        assert!((ShareTest::lower_limit(test.current, test.reference, p) - 0.05).abs() < 1e-9, "{p}");
        let back = ShareTest::new(80.0, 1000.0, 10.0, 1000.0).unwrap();
        assert!((back.p_value(0.05) / p - 1.0).abs() < 1e-6);
        assert_eq!(test.p_value(0.07), 1.0);
        assert_eq!(ShareTest::new(0.0, 1e6, 3e5, 1e6).unwrap().p_value(0.1), LEAST_P);
        assert_eq!(ShareTest::new(0.0, 1e6, 1.0, 1e6).unwrap().p_value(0.005), 1.0);
    }
}
