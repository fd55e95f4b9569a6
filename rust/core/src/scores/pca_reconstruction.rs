//! Change of the error with which the reference's principal components give rows back.

use super::{Interval, Score};
use crate::distributions::{normal_quantile, normal_sf};
use crate::error::{Error, Result};
use crate::rows::{Rows, Scale, alike, eigen};

/// The mean distance of current rows from their projection on the reference's first components, minus the same of the
/// reference, in standard deviations: 0 for equal laws, of either sign.
///
/// Both sides are scaled by the reference's columns; as many components are kept as explain `share` of the variance, and at
/// least one is left out. Each half of the reference is judged by the components of the other, current rows by both. `lower` and `upper`: at `confidence`, one-sided each, from the normal law of two means. `p_value`: of
/// "the mean error is the same", two-sided. It sees what changes along the components left out, no more. Source: the
/// reconstruction error of NannyML, Jolliffe, Principal Component Analysis, 2002.
///
/// # Errors
/// `InvalidArgument` for different columns, fewer than two, or a share outside (0, 1).
pub fn pca_reconstruction(reference: Rows<'_>, current: Rows<'_>, share: f64, confidence: f64) -> Result<Score> {
    alike(reference, current)?;
    let width = reference.width();
    if width < 2 {
        return Err(Error::invalid("`reference` must have at least two columns, got 1").hint("one column has no components to leave out"));
    }
    if !(share > 0.0 && share < 1.0) {
        return Err(Error::invalid(format!("`share` must lie between 0 and 1, got {share}")).hint("0.65 is the default"));
    }
    if !(confidence > 0.5 && confidence < 1.0) {
        return Err(Error::invalid(format!("`confidence` must lie between 0.5 and 1, got {confidence}")));
    }
    let scale = Scale::of(reference);
    let (a, b) = (reference.standardised(&scale), current.standardised(&scale));
    // Components fitted to rows give just these rows back too well: each half of the reference is judged by the other's.
    let halves: Vec<Vec<Vec<f64>>> = (0..2).map(|half| components(a.chunks_exact(width).skip(half).step_by(2), width, share)).collect();
    let was = moments(a.chunks_exact(width).enumerate().map(|(at, row)| error(row, &halves[(at + 1) % 2])));
    let now = moments(b.chunks_exact(width).map(|row| f64::midpoint(error(row, &halves[0]), error(row, &halves[1]))));
    let value = now.0 - was.0;
    let deviation = libm::sqrt(was.1 / reference.len() as f64 + now.1 / current.len() as f64);
    let reach = normal_quantile(confidence) * deviation;
    let p_value = if deviation > 0.0 { 2.0 * normal_sf(value.abs() / deviation) } else { f64::from(u8::from(value == 0.0)) };
    Ok(Score {
        lower: Some(value - reach),
        upper: Some(value + reach),
        interval: Some(Interval::Confidence),
        p_value: Some(p_value.min(1.0)),
        ..Score::plain(value, Vec::new())
    })
}

/// The first components of some rows.
fn components<'a>(rows: impl Iterator<Item = &'a [f64]>, width: usize, share: f64) -> Vec<Vec<f64>> {
    let mut sums = vec![0.0; width];
    let mut products = vec![0.0; width * width];
    let mut count = 0.0;
    for row in rows {
        count += 1.0;
        for (i, x) in row.iter().enumerate() {
            sums[i] += x;
            products[i * width..(i + 1) * width].iter_mut().zip(row).for_each(|(to, y)| *to += x * y);
        }
    }
    for i in 0..width {
        (0..width).for_each(|j| products[i * width + j] -= sums[i] * sums[j] / count);
    }
    let (values, mut vectors) = eigen(products, width);
    let total: f64 = values.iter().sum();
    let mut explained = 0.0;
    let enough = values.iter().position(|value| {
        explained += value;
        explained >= share * total
    });
    vectors.truncate(enough.map_or(1, |at| at + 1).min(width - 1));
    vectors
}

/// The distance of a row from its projection.
fn error(row: &[f64], kept: &[Vec<f64>]) -> f64 {
    let whole: f64 = row.iter().map(|x| x * x).sum();
    let inside: f64 = kept.iter().map(|vector| row.iter().zip(vector).map(|(x, v)| x * v).sum::<f64>().powi(2)).sum();
    libm::sqrt((whole - inside).max(0.0))
}

/// Mean and variance.
fn moments(errors: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
    for error in errors {
        sum += error;
        squares += error * error;
        count += 1.0;
    }
    (sum / count, ((squares - sum * sum / count) / (count - 1.0)).max(0.0))
}
