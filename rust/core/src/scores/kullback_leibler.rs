//! Kullback-Leibler divergence of the current from the reference shares, in nats.

use super::{Score, shares};
use crate::error::Result;

/// Shares are mixed with a floor of this over the bins, so that an empty bin does not make it infinite.
pub const FLOOR: f64 = 0.001;

/// `Σ q ln(q / p)`, `p` reference, `q` current: what a code made for the reference wastes on the current rows. Range [0, ln(K/0.001)].
///
/// Jointly convex, so the floored value never exceeds the true one. Contributions add up to the value; single ones can be negative.
///
/// # Errors
/// `InvalidArgument` if lengths differ or one side is empty.
pub fn kullback_leibler(reference: &[f64], current: &[f64]) -> Result<Score> {
    let (p, q) = shares(reference, current)?;
    let mixed = |share: f64| (1.0 - FLOOR) * share + FLOOR / p.len() as f64;
    let contributions: Vec<f64> = p.iter().zip(&q).map(|(p, q)| mixed(*q) * libm::log(mixed(*q) / mixed(*p))).collect();
    Ok(Score::plain(contributions.iter().sum::<f64>().max(0.0), contributions))
}
