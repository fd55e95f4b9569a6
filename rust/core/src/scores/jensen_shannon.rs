//! Jensen-Shannon distance: the square root of the divergence in bits.

use super::{Score, shares};
use crate::error::Result;

/// `sqrt(½ Σ p log2(p/m) + ½ Σ q log2(q/m))`, `m = (p + q)/2`, of counts in the same bins. Range [0, 1], a metric; 0 for
/// equal shares, 1 for disjoint ones. Needs no smoothing. Contributions add up to the divergence, the square of the value.
/// Source: Endres & Schindelin, IEEE Trans. Inf. Theory 2003; the same number as `scipy.spatial.distance.jensenshannon(p, q, base=2)`.
///
/// # Errors
/// `InvalidArgument` if lengths differ or one side is empty.
pub fn jensen_shannon(reference: &[f64], current: &[f64]) -> Result<Score> {
    let (p, q) = shares(reference, current)?;
    let part = |x: f64, middle: f64| if x > 0.0 { x * libm::log2(x / middle) } else { 0.0 };
    let contributions: Vec<f64> = p.iter().zip(&q).map(|(p, q)| 0.5 * (part(*p, 0.5 * (p + q)) + part(*q, 0.5 * (p + q)))).collect();
    let divergence = contributions.iter().sum::<f64>().clamp(0.0, 1.0);
    Ok(Score::plain(libm::sqrt(divergence), contributions))
}
