//! The mean of random Fourier features of rows: two of them are as far apart as the streams' laws under a Gaussian kernel.
//!
//! Source: Rahimi & Recht, NIPS 2007; Gretton et al., JMLR 2012 (maximum mean discrepancy).

use crate::codec::{Reader, SnapshotKind, Writer};
use crate::error::{Error, Result};
use crate::rows::{Drawn, Rows, Scale};

/// Most features.
const MOST: usize = 4096;
/// Terms are rounded to 2^-40 and added as integers, so that order leaves no trace.
const UNIT: f64 = (1u64 << 40) as f64;

/// Cosines of random projections: their inner products are about those of a Gaussian kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    seed: u64,
    bandwidth: f64,
    scale: Scale,
    /// Per feature: a wave for each column, and a phase.
    waves: Vec<(Vec<f64>, f64)>,
}

impl Features {
    /// Features of rows scaled by `scale`, for a kernel of this bandwidth.
    pub(crate) fn new(scale: Scale, bandwidth: f64, features: usize, seed: u64) -> Self {
        let mut drawn = Drawn::new(seed ^ 0x6d6d_6400);
        let width = scale.0.len();
        let wave = |drawn: &mut Drawn| ((0..width).map(|_| drawn.normal() / bandwidth).collect(), drawn.uniform() * std::f64::consts::TAU);
        let waves = (0..features).map(|_| wave(&mut drawn)).collect();
        Self { seed, bandwidth, scale, waves }
    }

    /// Scale and bandwidth of these rows: the columns' means and standard deviations, the median distance of pairs.
    pub(crate) fn of(rows: Rows<'_>, features: usize, seed: u64) -> Self {
        let scale = Scale::of(rows);
        let bandwidth = median_distance(&rows.standardised(&scale), rows.width(), seed);
        Self::new(scale, bandwidth, features, seed)
    }

    pub(crate) fn scale(&self) -> &Scale {
        &self.scale
    }

    /// Calls `add` with each feature of a scaled row, in [-1, 1].
    pub(crate) fn each(&self, row: &[f64], mut add: impl FnMut(usize, f64)) {
        for (at, (wave, phase)) in self.waves.iter().enumerate() {
            let angle: f64 = row.iter().zip(wave).map(|(x, w)| x * w).sum();
            add(at, libm::cos(angle + phase));
        }
    }
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

/// Sums of the features of rows. Merging and order leave no trace.
///
/// Memory: 16 bytes per feature beside the waves, 8 (d + 1) bytes each; a cosine and d multiplications per feature and row.
#[derive(Clone, Debug, PartialEq)]
pub struct MeanEmbedding {
    features: Features,
    count: u64,
    sums: Vec<i128>,
}

impl MeanEmbedding {
    /// An empty embedding with scale and bandwidth of these rows; `features` in [1, 4096].
    ///
    /// # Errors
    /// `InvalidArgument` outside that range.
    pub fn fit(rows: Rows<'_>, features: usize, seed: u64) -> Result<Self> {
        if !(1..=MOST).contains(&features) {
            return Err(Error::invalid(format!("`features` must be in [1, {MOST}], got {features}")).hint("256 know the kernel within 6 %"));
        }
        Ok(Self { features: Features::of(rows, features, seed), count: 0, sums: vec![0; features] })
    }

    /// An empty one with the same parameters.
    #[must_use]
    pub fn empty(&self) -> Self {
        Self { features: self.features.clone(), count: 0, sums: vec![0; self.sums.len()] }
    }

    /// Columns of a row.
    pub fn width(&self) -> usize {
        self.features.scale.0.len()
    }

    /// Rows counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Counts rows, one after the other; a row with a value that is not finite is left out.
    pub fn update_many(&mut self, rows: &[f64]) {
        let Self { features, count, sums } = self;
        let mut scaled = vec![0.0; features.scale.0.len()];
        for row in rows.chunks_exact(scaled.len()).filter(|row| row.iter().all(|value| value.is_finite())) {
            features.scale.apply(row, &mut scaled);
            if scaled.iter().any(|value| value.abs() > 1e15) {
                // Beyond this the angle has no digits left; such rows share one far point.
                scaled.iter_mut().for_each(|value| *value = value.clamp(-1e15, 1e15));
            }
            features.each(&scaled, |at, term| sums[at] += libm::rint(term * UNIT) as i128);
            *count += 1;
        }
    }

    fn fits(&self, other: &Self) -> Result<()> {
        if self.features == other.features {
            return Ok(());
        }
        Err(Error::incompatible("embeddings must have the same waves").hint("make both with `empty()` of the one that was fitted"))
    }

    /// Adds another's rows.
    ///
    /// # Errors
    /// `Incompatible` for other parameters.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.fits(other)?;
        self.count += other.count;
        self.sums.iter_mut().zip(&other.sums).for_each(|(to, from)| *to += from);
        Ok(())
    }

    /// Takes another's rows away again.
    ///
    /// # Errors
    /// `Incompatible` for other parameters or where it holds more rows than this one.
    pub fn subtract(&mut self, other: &Self) -> Result<()> {
        self.fits(other)?;
        let left = self.count.checked_sub(other.count);
        self.count = left.ok_or_else(|| Error::incompatible("the embedding to subtract holds more rows than this one"))?;
        self.sums.iter_mut().zip(&other.sums).for_each(|(to, from)| *to -= from);
        Ok(())
    }

    /// The squared distance of two mean embeddings, at least 0, about `1/n + 1/m` for equal laws.
    ///
    /// # Errors
    /// `Incompatible` for other parameters, `InvalidArgument` where a side has no row.
    pub fn mmd(&self, other: &Self) -> Result<f64> {
        self.fits(other)?;
        if self.count == 0 || other.count == 0 {
            return Err(Error::invalid(format!("both sides need at least one row, got {} and {}", self.count, other.count)));
        }
        let mean = |sum: i128, count: u64| sum as f64 / UNIT / count as f64;
        let gap = |(a, b): (&i128, &i128)| (mean(*a, self.count) - mean(*b, other.count)).powi(2);
        Ok(self.sums.iter().zip(&other.sums).map(gap).sum::<f64>() * 2.0 / self.sums.len() as f64)
    }

    /// A snapshot; equal embeddings give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let Features { seed, bandwidth, scale, waves } = &self.features;
        writer.u64(*seed);
        writer.f64(*bandwidth);
        writer.len(scale.0.len());
        for (mean, deviation) in &scale.0 {
            writer.f64(*mean);
            writer.f64(*deviation);
        }
        writer.u64(self.count);
        writer.len(waves.len());
        for sum in &self.sums {
            writer.i64((sum >> 64) as i64);
            writer.u64(*sum as u64);
        }
        writer.seal(SnapshotKind::MeanEmbedding)
    }

    /// Reads a snapshot back.
    ///
    /// # Errors
    /// `Decode` for bytes that `to_bytes` did not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::open(bytes, SnapshotKind::MeanEmbedding)?;
        let (seed, bandwidth) = (reader.u64()?, reader.finite()?);
        let scale = Scale::decode(&mut reader)?;
        let count = reader.count()?;
        let features = reader.len(2)?;
        if bandwidth <= 0.0 || !(1..=MOST).contains(&features) {
            return Err(Error::decode("an embedding in the snapshot has parameters out of range"));
        }
        let mut sums = Vec::with_capacity(features);
        for _ in 0..features {
            let high = i128::from(reader.i64()?);
            sums.push(high << 64 | i128::from(reader.u64()?));
        }
        reader.finish()?;
        let most = i128::from(count) << 40;
        if sums.iter().any(|sum| !(-most..=most).contains(sum)) {
            return Err(Error::decode("the sums of an embedding exceed its rows"));
        }
        Ok(Self { features: Features::new(scale, bandwidth, features, seed), count, sums })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize, seed: u64, rho: f64) -> Vec<f64> {
        let mut drawn = Drawn::new(seed);
        (0..n)
            .flat_map(|_| {
                let (x, y) = (drawn.normal(), drawn.normal());
                [x, rho * x + libm::sqrt(1.0 - rho * rho) * y]
            })
            .collect()
    }

    #[test]
    fn it_sees_a_correlation_behind_equal_marginals_and_merges_to_the_bit() {
        let reference = rows(5000, 1, 0.0);
        let mut fitted = MeanEmbedding::fit(Rows::new("rows", &reference, 2).unwrap(), 256, 7).unwrap();
        let (mut same, mut other) = (fitted.empty(), fitted.empty());
        fitted.update_many(&reference);
        same.update_many(&rows(5000, 2, 0.0));
        other.update_many(&rows(5000, 3, 0.5));
        assert!(fitted.mmd(&same).unwrap() < 1e-3 && fitted.mmd(&other).unwrap() > 5e-3);
        assert_eq!(fitted.mmd(&fitted).unwrap(), 0.0);
        let (mut left, mut right) = (fitted.empty(), fitted.empty());
        left.update_many(&reference[4000..]);
        right.update_many(&reference[..4000]);
        left.merge(&right).unwrap();
        assert_eq!(left.to_bytes(), fitted.to_bytes());
        left.subtract(&right).unwrap();
        let mut tail = fitted.empty();
        tail.update_many(&reference[4000..]);
        assert_eq!(left, tail);
        assert_eq!(MeanEmbedding::from_bytes(&fitted.to_bytes()).unwrap(), fitted);
        let bytes = fitted.to_bytes();
        assert!((0..bytes.len()).step_by(97).all(|cut| MeanEmbedding::from_bytes(&bytes[..cut]).is_err()));
    }
}
