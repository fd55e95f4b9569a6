//! Maximum mean discrepancy by random Fourier features, with a permutation test over blocks of rows.

use super::rows::{Drawn, Rows, Scale, alike};
use super::{Interval, Score};
use crate::error::Result;

/// Features of the embedding: the kernel is known within `1 / sqrt(features)`.
const FEATURES: usize = 256;
/// Blocks of the smaller side, and most blocks in all.
const BLOCKS: usize = 64;
const MOST_BLOCKS: usize = 4096;
const PERMUTATIONS: usize = 499;

/// The squared distance of the two mean embeddings of a Gaussian kernel, both sides scaled by the reference's columns.
///
/// The bandwidth is the median distance of pairs of reference rows. `p_value`: of "both sides have the same law", from 499
/// permutations of blocks of equally many rows (64 of the smaller side), so at least 0.002; rows that resemble their neighbours stay together in a block,
/// which keeps the test honest for them. Value at least 0, about `2 / n` for equal laws. Cost: 256 cosines per row. Sources:
/// Rahimi & Recht, NIPS 2007; Gretton et al., JMLR 2012.
///
/// # Errors
/// `InvalidArgument` for different columns.
pub fn mmd(reference: Rows<'_>, current: Rows<'_>, seed: u64) -> Result<Score> {
    alike(reference, current)?;
    let scale = Scale::of(reference);
    let width = reference.width();
    let (a, b) = (reference.standardised(&scale), current.standardised(&scale));
    let bandwidth = median_distance(&a, width, seed);
    let mut drawn = Drawn::new(seed ^ 0x6d6d_6400);
    let waves: Vec<(Vec<f64>, f64)> = (0..FEATURES)
        .map(|_| ((0..width).map(|_| drawn.normal() / bandwidth).collect(), drawn.uniform() * std::f64::consts::TAU))
        .collect();
    // Blocks of one size on both sides can change places; up to a block's rows are left over.
    let (n, m) = (reference.len(), current.len());
    let size = (n.min(m) / BLOCKS).max((n + m) / MOST_BLOCKS).max(1);
    let mut blocks = embedded(&a, width, &waves, size);
    let mut order = vec![true; blocks.len()];
    blocks.extend(embedded(&b, width, &waves, size));
    order.resize(blocks.len(), false);
    let value = distance(&blocks, &order);
    let mut beyond = 1usize;
    for _ in 0..PERMUTATIONS {
        for at in (1..order.len()).rev() {
            order.swap(at, (drawn.bits() % (at as u64 + 1)) as usize);
        }
        beyond += usize::from(distance(&blocks, &order) >= value);
    }
    let p_value = beyond as f64 / (PERMUTATIONS + 1) as f64;
    Ok(Score { value, lower: None, upper: None, interval: None::<Interval>, p_value: Some(p_value), contributions: Vec::new() })
}

/// Per block of neighbouring rows the mean of their features.
fn embedded(side: &[f64], width: usize, waves: &[(Vec<f64>, f64)], size: usize) -> Vec<Vec<f64>> {
    let norm = libm::sqrt(2.0 / FEATURES as f64) / size as f64;
    side.chunks_exact(width * size)
        .map(|block| {
            let mut sums = vec![0.0; waves.len()];
            for row in block.chunks_exact(width) {
                for (sum, (wave, phase)) in sums.iter_mut().zip(waves) {
                    let angle: f64 = row.iter().zip(wave).map(|(x, w)| x * w).sum();
                    *sum += norm * libm::cos(angle + phase);
                }
            }
            sums
        })
        .collect()
}

/// The squared distance of the means of the blocks that are here and of the others.
fn distance(blocks: &[Vec<f64>], here: &[bool]) -> f64 {
    let mut sums = [vec![0.0; FEATURES], vec![0.0; FEATURES]];
    let mut counts = [0.0f64; 2];
    for (block, here) in blocks.iter().zip(here) {
        let side = usize::from(!here);
        sums[side].iter_mut().zip(block).for_each(|(to, sum)| *to += sum);
        counts[side] += 1.0;
    }
    sums[0].iter().zip(&sums[1]).map(|(a, b)| (a / counts[0] - b / counts[1]).powi(2)).sum()
}

/// Of 1,000 pairs; 1 if most rows are equal.
fn median_distance(rows: &[f64], width: usize, seed: u64) -> f64 {
    let count = (rows.len() / width) as u64;
    let mut drawn = Drawn::new(seed ^ 0x7061_6972);
    let mut distances: Vec<f64> = (0..1000)
        .map(|_| {
            let [i, j] = [drawn.bits() % count, drawn.bits() % count].map(|at| at as usize * width);
            libm::sqrt(rows[i..i + width].iter().zip(&rows[j..j + width]).map(|(x, y)| (x - y) * (x - y)).sum())
        })
        .collect();
    let middle = distances.len() / 2;
    let (_, median, _) = distances.select_nth_unstable_by(middle, f64::total_cmp);
    if *median > 0.0 && median.is_finite() { *median } else { 1.0 }
}
