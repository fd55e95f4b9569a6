//! The gamma-exponential mixture: a boundary that a sum with its own variance passes with a stated probability, ever.

use crate::distributions::gamma_p;

/// A boundary for sums of terms in [-1, 1] with the variance process of Howard et al., Annals of Statistics 2021 (Theorem 4,
/// Proposition 9), tightest where the variance process is near `tuned`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mixture {
    rho: f64,
    /// The part of the logarithm that does not change.
    constant: f64,
    /// `ln(1 / alpha)`.
    passed: f64,
}

impl Mixture {
    pub(super) fn new(alpha: f64, tuned: f64) -> Self {
        // The normal mixture's best choice, ibid. section 3.5, is near this one's.
        let twice = 2.0 * libm::log(1.0 / (2.0 * alpha).min(0.99));
        let rho = tuned / (twice + libm::log(1.0 + twice));
        let constant = rho * libm::log(rho) - libm::lgamma(rho) - libm::log(gamma_p(rho, rho));
        Self { rho, constant, passed: -libm::log(alpha) }
    }

    /// The logarithm of the martingale at a sum and its variance process; rising in the sum from where it is positive.
    fn log(&self, sum: f64, variance: f64) -> f64 {
        let shape = variance + self.rho;
        let at = sum + shape;
        if at <= 0.0 {
            return f64::NEG_INFINITY;
        }
        self.constant + libm::lgamma(shape) + libm::log(gamma_p(shape, at)) - shape * libm::log(at) + at - self.rho
    }

    /// Whether the sum has passed the boundary.
    pub(super) fn passes(&self, sum: f64, variance: f64) -> bool {
        sum > 0.0 && self.log(sum, variance) >= self.passed
    }

    /// The boundary at a value of the variance process.
    pub(super) fn boundary(&self, variance: f64) -> f64 {
        // Illinois' variant of the false position: superlinear, and always bracketed.
        let (mut low, mut high) = (0.0, 1.0 + 2.0 * libm::sqrt(variance));
        let mut below = self.log(low, variance) - self.passed;
        let mut above = self.log(high, variance) - self.passed;
        while above < 0.0 && high < 1e18 {
            (low, below, high) = (high, above, 2.0 * high);
            above = self.log(high, variance) - self.passed;
        }
        let mut side = 0;
        for _ in 0..100 {
            if high - low <= 1e-13 * high {
                break;
            }
            let guess = (low * above - high * below) / (above - below);
            let middle = if guess > low && guess < high { guess } else { f64::midpoint(low, high) };
            let value = self.log(middle, variance) - self.passed;
            if value.abs() < 1e-12 {
                return middle;
            }
            if value >= 0.0 {
                (high, above) = (middle, value);
                if side == 1 {
                    below /= 2.0;
                }
                side = 1;
            } else {
                (low, below) = (middle, value);
                if side == -1 {
                    above /= 2.0;
                }
                side = -1;
            }
        }
        high
    }
}
