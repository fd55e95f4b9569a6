//! Total variation distance: half the sum of the share differences.

use super::{Score, shares};
use crate::error::Result;

/// `½ Σ |p - q|` of counts in the same bins: the largest difference in the share of any set of bins. Range [0, 1].
///
/// # Errors
/// `InvalidArgument` if lengths differ or one side is empty.
pub fn total_variation(reference: &[f64], current: &[f64]) -> Result<Score> {
    let (p, q) = shares(reference, current)?;
    let contributions: Vec<f64> = p.iter().zip(&q).map(|(p, q)| 0.5 * (p - q).abs()).collect();
    Ok(Score::plain(contributions.iter().sum::<f64>().min(1.0), contributions))
}
