//! Hellinger distance.

use super::{Score, shares};
use crate::error::Result;

/// `√(½ Σ (√p − √q)²)` of counts in the same bins. Range [0, 1], a metric. Contributions add up to the square of the value.
///
/// # Errors
/// `InvalidArgument` if lengths differ or one side is empty.
pub fn hellinger(reference: &[f64], current: &[f64]) -> Result<Score> {
    let (p, q) = shares(reference, current)?;
    let contributions: Vec<f64> = p.iter().zip(&q).map(|(p, q)| 0.5 * (libm::sqrt(*p) - libm::sqrt(*q)).powi(2)).collect();
    Ok(Score::plain(libm::sqrt(contributions.iter().sum::<f64>().min(1.0)), contributions))
}
