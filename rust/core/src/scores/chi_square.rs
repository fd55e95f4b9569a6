//! Chi-square test of homogeneity, and Cramér's V.

use super::{Score, shares};
use crate::distributions::chi_square_sf;
use crate::error::Result;

/// Pearson's statistic of the 2 × K table, without continuity correction, and its p-value; bins that are empty on both sides are
/// left out. It fires on any difference once samples are large: for information. Range [0, n + m].
///
/// # Errors
/// `InvalidArgument` if lengths differ or one side is empty.
pub fn chi_square(reference: &[f64], current: &[f64]) -> Result<Score> {
    shares(reference, current)?;
    let (n, m) = (reference.iter().sum::<f64>(), current.iter().sum::<f64>());
    let part = |(a, b): (&f64, &f64)| {
        let both = a + b;
        let (was, is) = (both * n / (n + m), both * m / (n + m));
        if both > 0.0 { (a - was).powi(2) / was + (b - is).powi(2) / is } else { 0.0 }
    };
    let contributions: Vec<f64> = reference.iter().zip(current).map(part).collect();
    let value: f64 = contributions.iter().sum();
    let bins = reference.iter().zip(current).filter(|(a, b)| *a + *b > 0.0).count();
    let p_value = if bins > 1 { chi_square_sf(value, (bins - 1) as f64) } else { 1.0 };
    Ok(Score { p_value: Some(p_value), ..Score::plain(value, contributions) })
}

/// `√(χ² / (n + m))` of that table: the strength of the association of bin and side, whatever the number of rows. Range [0, 1].
///
/// # Errors
/// As [`chi_square`].
pub fn cramers_v(reference: &[f64], current: &[f64]) -> Result<Score> {
    let score = chi_square(reference, current)?;
    let rows = reference.iter().sum::<f64>() + current.iter().sum::<f64>();
    Ok(Score::plain(libm::sqrt((score.value / rows).clamp(0.0, 1.0)), score.contributions))
}
