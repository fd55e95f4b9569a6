//! Energy distance as a certified interval, from the cells of two histograms.

use super::Score;
use super::wasserstein::{Side, certain, stretches};
use crate::error::Result;

/// `√(2 ∫ (F - G)²)`, the square root of `2E|X-Y| - E|X-X'| - E|Y-Y'|`: `scipy.stats.energy_distance`.
///
/// Between cells exact, inside a cell bounded as [`wasserstein`](super::wasserstein::wasserstein) is. Value: both functions
/// taken as straight lines inside a cell. It weighs far outliers by their share squared, so that one in 50,000 hardly counts.
/// Source: Székely & Rizzo, J. Stat. Plan. Inference 2013.
///
/// # Errors
/// `InvalidArgument` if a side is empty or the distance does not fit a double.
pub fn energy(reference: Side<'_>, current: Side<'_>) -> Result<Score> {
    let (mut lower, mut upper, mut value) = (0.0f64, 0.0f64, 0.0f64);
    stretches(reference, current, None, |stretch| {
        let (least, most) = stretch.distance();
        let (d, e) = (stretch.f.0 - stretch.g.0, stretch.f.1 - stretch.g.1);
        lower += stretch.width * least * least;
        upper += stretch.width * most * most;
        value += stretch.width * (d * d + d * e + e * e) / 3.0;
    })?;
    let root = |sum: f64| libm::sqrt(2.0 * sum);
    certain(root(lower), root(upper), Some(root(value)))
}
