//! L-infinity distance: the largest difference in the share of one bin.

use super::{Score, shares};
use crate::error::Result;

/// `max |p - q|` of counts in the same bins. Range [0, 1]. Contributions are the differences.
///
/// # Errors
/// `InvalidArgument` if lengths differ or one side is empty.
pub fn l_infinity(reference: &[f64], current: &[f64]) -> Result<Score> {
    let (p, q) = shares(reference, current)?;
    let contributions: Vec<f64> = p.iter().zip(&q).map(|(p, q)| (p - q).abs()).collect();
    Ok(Score::plain(contributions.iter().copied().fold(0.0, f64::max), contributions))
}
