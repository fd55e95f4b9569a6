//! Kolmogorov-Smirnov statistic as a certified interval: the largest distance of two cumulative distributions.

use super::{Interval, Score};
use crate::distributions::kolmogorov_sf;
use crate::error::{Error, Result};

/// The interval that holds the exact two-sample statistic, from counts in ordered bins.
///
/// At bin edges both distributions are known, so `max |F - G|` there is a lower bound; inside a bin `(lo, hi]` neither
/// supremum exceeds `max(F(hi) - G(lo), G(hi) - F(lo))`. `single[b]` says that bin `b` can hold one value only, which
/// then adds no gap. The width is at most the largest reference share of a bin that is not single. Value: the lower
/// bound. p-value: Kolmogorov's law at the lower bound with both sides' rows divided by their `dependence` factor (1 for
/// independent rows), conservative, for information only. Range [0, 1].
///
/// # Errors
/// `InvalidArgument` if lengths differ or one side is empty.
pub fn kolmogorov_smirnov(reference: &[u64], current: &[u64], single: &[bool], dependence: f64) -> Result<Score> {
    let (n, m) = (reference.iter().sum::<u64>() as f64, current.iter().sum::<u64>() as f64);
    if reference.len() != current.len() || reference.len() != single.len() || n == 0.0 || m == 0.0 {
        return Err(Error::invalid(format!(
            "`reference` and `current` must be counts of the same bins with at least one row each, got {n} and {m} rows"
        )));
    }
    let (mut f, mut g, mut lower, mut upper) = (0u64, 0u64, 0.0f64, 0.0f64);
    for ((a, b), alone) in reference.iter().zip(current).zip(single) {
        let (low_f, low_g) = (f as f64 / n, g as f64 / m);
        f += a;
        g += b;
        let (high_f, high_g) = (f as f64 / n, g as f64 / m);
        lower = lower.max((high_f - high_g).abs());
        if !alone {
            upper = upper.max(high_f - low_g).max(high_g - low_f);
        }
    }
    let upper = upper.max(lower).min(1.0);
    // An inside supremum needs rows of both sides in the bin; with one side alone the edges know it.
    let size = libm::sqrt(n * m / (n + m) / dependence.max(1.0));
    Ok(Score {
        value: lower,
        lower: Some(lower),
        upper: Some(upper),
        interval: Some(Interval::Certain),
        p_value: Some(kolmogorov_sf(size * lower)),
        contributions: Vec::new(),
    })
}
