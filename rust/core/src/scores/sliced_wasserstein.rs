//! Sliced Wasserstein distance: the mean of Wasserstein-1 distances along random directions.

use super::Score;
use crate::distributions::kolmogorov_sf;
use crate::error::Result;
use crate::rows::{Drawn, Rows, Scale, alike};

const DIRECTIONS: usize = 64;

/// The mean over 64 random directions of `∫ |F - G|` of the projections, both sides scaled by the reference's columns, so in
/// standard deviations; exact for these directions.
///
/// `contributions`: the distance of each direction. `p_value`: of "both sides have the same law", the smallest of the
/// directions' Kolmogorov-Smirnov p-values times 64 (Bonferroni), conservative. Cost: 64 sorts of all rows. Source: Rabin et
/// al., SSVM 2011; Bonneel et al., J. Math. Imaging Vis. 2015.
///
/// # Errors
/// `InvalidArgument` for different columns.
pub fn sliced_wasserstein(reference: Rows<'_>, current: Rows<'_>, seed: u64) -> Result<Score> {
    alike(reference, current)?;
    let scale = Scale::of(reference);
    let width = reference.width();
    let (a, b) = (reference.standardised(&scale), current.standardised(&scale));
    let mut drawn = Drawn::new(seed);
    let (n, m) = (reference.len() as f64, current.len() as f64);
    let (mut contributions, mut least) = (Vec::with_capacity(DIRECTIONS), 1.0f64);
    for _ in 0..DIRECTIONS {
        let direction = drawn.direction(width);
        let [x, y] = [&a, &b].map(|side| projected(side, &direction));
        let (distance, gap) = distances(&x, &y);
        contributions.push(distance);
        least = least.min(kolmogorov_sf(libm::sqrt(n * m / (n + m)) * gap));
    }
    let value = contributions.iter().sum::<f64>() / DIRECTIONS as f64;
    Ok(Score { p_value: Some((least * DIRECTIONS as f64).min(1.0)), ..Score::plain(value, contributions) })
}

fn projected(rows: &[f64], direction: &[f64]) -> Vec<f64> {
    let mut out: Vec<f64> = rows.chunks_exact(direction.len()).map(|row| row.iter().zip(direction).map(|(x, d)| x * d).sum()).collect();
    out.sort_unstable_by(f64::total_cmp);
    out
}

/// `∫ |F - G|` and `max |F - G|` of two sorted samples.
fn distances(x: &[f64], y: &[f64]) -> (f64, f64) {
    let (mut i, mut j) = (0, 0);
    let (mut area, mut gap, mut at) = (0.0, 0.0f64, x[0].min(y[0]));
    while i < x.len() || j < y.len() {
        let next = x.get(i).copied().unwrap_or(f64::INFINITY).min(y.get(j).copied().unwrap_or(f64::INFINITY));
        let difference = (i as f64 / x.len() as f64 - j as f64 / y.len() as f64).abs();
        area += (next - at) * difference;
        gap = gap.max(difference);
        at = next;
        while x.get(i).is_some_and(|value| *value <= next) {
            i += 1;
        }
        while y.get(j).is_some_and(|value| *value <= next) {
            j += 1;
        }
    }
    (area, gap)
}
