//! Population stability index with the variance-adapted test of a tolerance.
//!
//! PSI is Jeffreys' divergence of two laws on the bins the reference fixed. The null law of the estimate is a noncentral
//! chi-square whose size is adapted to the delta-method variance, so that a bin that empties or a rare bin that grows
//! keeps the stated level. Sources: Yurdakul & Naranjo, J. Risk Model Validation 2020; Potgieter et al., arXiv
//! 2307.11878. The adaption of the variance is ours; `docs/methods/psi.md` derives it and gives its measured size.

use super::{Interval, Score};
use crate::distributions::{chi_square_sf, increasing_root, noncentral_chi_square_cdf, noncentral_chi_square_sf, normal_quantile};
use crate::error::{Error, Result};

/// Half a count in each bin: the smoothing under which the size of the test was measured.
pub const DEFAULT_SMOOTHING: f64 = 0.5;
/// What the shares of [`psi_total`] are mixed with.
pub const TOTAL_FLOOR: f64 = 0.001;

/// PSI of two rows of bin counts, ready to be tested against any tolerance.
#[derive(Clone, Debug)]
pub struct PsiTest {
    statistic: f64,
    size: f64,
    adapted: f64,
    freedom: f64,
    contributions: Vec<f64>,
}

impl PsiTest {
    /// `reference` and `current` are counts of the same bins, at least two, each side at least one row; `smoothing` > 0
    /// is added to every bin. Counts may be fractions (rows divided by their dependence factor).
    ///
    /// # Errors
    /// `InvalidArgument` otherwise.
    pub fn new(reference: &[f64], current: &[f64], smoothing: f64) -> Result<Self> {
        if reference.len() != current.len() || reference.len() < 2 {
            return Err(Error::invalid(format!(
                "`reference` and `current` must count the same bins, at least two, got {} and {}",
                reference.len(),
                current.len()
            )));
        }
        if !(smoothing > 0.0 && smoothing <= 1e6) {
            return Err(Error::invalid(format!("`smoothing` must be in (0, 1e6], got {smoothing}")).hint("0.5 adds half a row to each bin"));
        }
        let total = |name: &str, counts: &[f64]| {
            let total: f64 = counts.iter().sum();
            let fine = total.is_finite() && total > 0.0 && counts.iter().all(|count| *count >= 0.0);
            if fine {
                Ok(total)
            } else {
                Err(Error::invalid(format!("`{name}` must hold counts of at least one row, got a total of {total}")))
            }
        };
        let (n, m) = (total("reference", reference)?, total("current", current)?);
        let extra = smoothing * reference.len() as f64;
        let (mut g1, mut g2, mut h1, mut h2) = (0.0, 0.0, 0.0, 0.0);
        let mut contributions = Vec::with_capacity(reference.len());
        for (a, b) in reference.iter().zip(current) {
            let (p, q) = ((a + smoothing) / (n + extra), (b + smoothing) / (m + extra));
            let log = libm::log(p / q);
            contributions.push((p - q) * log);
            let (g, h) = (log + 1.0 - q / p, -log + 1.0 - p / q);
            g1 += p * g;
            g2 += p * g * g;
            h1 += q * h;
            h2 += q * h * h;
        }
        let statistic: f64 = contributions.iter().sum();
        let size = n * m / (n + m);
        let variance = (g2 - g1 * g1).max(0.0) / n + (h2 - h1 * h1).max(0.0) / m;
        let adapted = if variance > 0.0 { size.min(4.0 * statistic / variance) } else { size };
        Ok(Self { statistic, size, adapted, freedom: (reference.len() - 1) as f64, contributions })
    }

    /// The estimate.
    pub fn statistic(&self) -> f64 {
        self.statistic
    }

    /// P-value of "PSI is at most `tolerance`"; grows with the tolerance.
    pub fn p_value(&self, tolerance: f64) -> f64 {
        if self.statistic <= 0.0 {
            return 1.0;
        }
        if tolerance <= 0.0 {
            return chi_square_sf(self.size * self.statistic, self.freedom);
        }
        noncentral_chi_square_sf(self.adapted * self.statistic, self.freedom, self.adapted * tolerance)
    }

    /// One-sided lower limit at level `alpha`: the largest tolerance that is rejected, 0 if none.
    pub fn lower(&self, alpha: f64) -> f64 {
        let least = self.statistic * 1e-6;
        if self.statistic <= 0.0 || self.p_value(least) > alpha {
            return 0.0;
        }
        if self.p_value(self.statistic) <= alpha {
            return self.statistic;
        }
        // On the scale of the normal law the p-value is almost a straight line of the root of the tolerance.
        let level = normal_quantile(alpha);
        let excess = |tolerance| normal_quantile(self.p_value(tolerance).max(1e-300)) - level;
        increasing_root(excess, least, self.statistic, self.guess(level), 1e-10)
    }

    /// One-sided upper limit at level `alpha`: the smallest PSI that is rejected from above; at least the estimate.
    pub fn upper(&self, alpha: f64) -> f64 {
        let x = self.adapted * self.statistic;
        let level = normal_quantile(alpha);
        // How far the level exceeds the probability of seeing so little.
        let excess =
            |psi: f64| level - normal_quantile(noncentral_chi_square_cdf(x, self.freedom, self.adapted * psi).clamp(1e-300, 1.0 - 1e-16));
        if excess(self.statistic) >= 0.0 {
            return self.statistic;
        }
        let guess = self.guess(-level).max(self.statistic);
        let mut high = guess.max(1.0 / self.size.max(1e-300)) * 1.01;
        for _ in 0..200 {
            if excess(high) >= 0.0 {
                break;
            }
            high *= 2.0;
        }
        increasing_root(excess, self.statistic, high, guess, 1e-10).max(self.statistic)
    }

    /// About the tolerance whose p-value has the normal deviate `z`: the root of a noncentral chi-square is nearly normal.
    fn guess(&self, z: f64) -> f64 {
        let root = (libm::sqrt(self.adapted * self.statistic) + z).max(0.0);
        ((root * root - self.freedom + 1.0) / self.adapted).max(0.0)
    }

    /// The estimate with its limits at `confidence` (one-sided each) and its p-value against `tolerance`.
    pub fn score(&self, tolerance: f64, confidence: f64) -> Score {
        let alpha = 1.0 - confidence;
        Score {
            value: self.statistic,
            lower: Some(self.lower(alpha)),
            upper: Some(self.upper(alpha)),
            interval: Some(Interval::Confidence),
            p_value: Some(self.p_value(tolerance)),
            contributions: self.contributions.clone(),
        }
    }
}

/// PSI over all bins, the special ones (null, NaN, infinite, unseen) among them, comparable with tools that give missing
/// values a bin. Shares are mixed with a floor, `(1-ε) p + ε/K` with ε = 0.001, so that the value does not depend on the
/// number of rows and never exceeds the true PSI. For information; nothing is tested.
///
/// # Errors
/// `InvalidArgument` if lengths differ or one side is empty.
pub fn psi_total(reference: &[f64], current: &[f64]) -> Result<Score> {
    let (p, q) = super::shares(reference, current)?;
    let floor = TOTAL_FLOOR / p.len() as f64;
    let mixed = |share: f64| (1.0 - TOTAL_FLOOR) * share + floor;
    let contributions: Vec<f64> = p.iter().zip(&q).map(|(p, q)| (mixed(*p) - mixed(*q)) * libm::log(mixed(*p) / mixed(*q))).collect();
    Ok(Score::plain(contributions.iter().sum(), contributions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_counts_have_no_distance_and_swapping_sides_changes_nothing() {
        let (a, b) = ([100.0, 300.0, 50.0, 0.0], [120.0, 250.0, 90.0, 3.0]);
        assert_eq!(PsiTest::new(&a, &a, 0.5).unwrap().statistic(), 0.0);
        assert_eq!(PsiTest::new(&a, &a, 0.5).unwrap().p_value(0.1), 1.0);
        let (ab, ba) = (PsiTest::new(&a, &b, 0.5).unwrap(), PsiTest::new(&b, &a, 0.5).unwrap());
        assert!((ab.p_value(0.02) - ba.p_value(0.02)).abs() < 1e-12);
    }

    #[test]
    fn p_grows_with_the_tolerance_and_limits_are_where_it_crosses() {
        let test = PsiTest::new(&[1000.0; 10], &[80.0, 90.0, 95.0, 100.0, 100.0, 100.0, 105.0, 110.0, 120.0, 150.0], 0.5).unwrap();
        let grid: Vec<f64> = (0..200).map(|i| test.p_value(f64::from(i) / 400.0)).collect();
        assert!(grid[1..].windows(2).all(|pair| pair[0] <= pair[1] + 1e-12));
        let lower = test.lower(0.01);
        assert!(lower > 0.0 && (test.p_value(lower) - 0.01).abs() < 1e-6, "{lower} {}", test.p_value(lower));
        assert!(test.upper(0.01) > test.statistic());
    }
}
