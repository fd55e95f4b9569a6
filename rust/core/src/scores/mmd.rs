//! Maximum mean discrepancy by random Fourier features, with a permutation test over blocks of rows.

use super::{Interval, Score};
use crate::error::Result;
use crate::rows::{Drawn, Rows, alike};
use crate::sketches::mean_embedding::Features;

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
    let features = Features::of(reference, FEATURES, seed);
    let mut drawn = Drawn::new(seed ^ 0x6f72_6465);
    // Blocks of one size on both sides can change places; up to a block's rows are left over.
    let (n, m) = (reference.len(), current.len());
    let size = (n.min(m) / BLOCKS).max((n + m) / MOST_BLOCKS).max(1);
    let mut blocks = embedded(reference, &features, size);
    let mut order = vec![true; blocks.len()];
    blocks.extend(embedded(current, &features, size));
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
fn embedded(side: Rows<'_>, features: &Features, size: usize) -> Vec<Vec<f64>> {
    let norm = libm::sqrt(2.0 / FEATURES as f64) / size as f64;
    let scaled = side.standardised(features.scale());
    let block = |rows: &[f64]| {
        let mut sums = vec![0.0; FEATURES];
        rows.chunks_exact(side.width()).for_each(|row| features.each(row, |at, term| sums[at] += norm * term));
        sums
    };
    scaled.chunks_exact(side.width() * size).map(block).collect()
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
