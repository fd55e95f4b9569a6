//! Histograms of rows along random directions: the sliced Wasserstein distance of streams of rows.
//!
//! Source: Rabin et al., SSVM 2011; Bonneel et al., J. Math. Imaging Vis. 2015.

use super::exponential_histogram::{Cell, ExponentialHistogram};
use crate::codec::{Reader, SnapshotKind, Writer};
use crate::error::{Error, Result};
use crate::rows::{Drawn, Rows, Scale};
use crate::scores::wasserstein::{Side, wasserstein};
use crate::scores::{Interval, Score};

/// Most directions.
const MOST: usize = 256;
/// Cells per octave are 2^4: 2.2 % of a projection.
const SCALE: u8 = 4;
/// Rows projected together.
const BATCH: usize = 1024;

/// Projections of rows, in standard deviations of the columns it was fitted on, one histogram per direction.
///
/// Merging and order leave no trace. Memory: some 3 KB per direction; d multiplications and an increment per direction and row.
#[derive(Clone, Debug, PartialEq)]
pub struct SlicedProjections {
    seed: u64,
    scale: Scale,
    directions: Vec<Vec<f64>>,
    histograms: Vec<ExponentialHistogram>,
}

impl SlicedProjections {
    /// An empty one, scaled by the columns of these rows; `directions` in [1, 256].
    ///
    /// # Errors
    /// `InvalidArgument` outside that range.
    pub fn fit(rows: Rows<'_>, directions: usize, seed: u64) -> Result<Self> {
        if !(1..=MOST).contains(&directions) {
            return Err(Error::invalid(format!("`directions` must be in [1, {MOST}], got {directions}")).hint("64 are usual"));
        }
        Self::new(Scale::of(rows), directions, seed)
    }

    fn new(scale: Scale, directions: usize, seed: u64) -> Result<Self> {
        let mut drawn = Drawn::new(seed);
        let width = scale.0.len();
        Ok(Self {
            seed,
            directions: (0..directions).map(|_| drawn.direction(width)).collect(),
            histograms: vec![ExponentialHistogram::new(SCALE)?; directions],
            scale,
        })
    }

    /// An empty one with the same directions.
    ///
    /// # Errors
    /// None in practice.
    pub fn empty(&self) -> Result<Self> {
        Self::new(self.scale.clone(), self.directions.len(), self.seed)
    }

    /// Columns of a row.
    pub fn width(&self) -> usize {
        self.scale.0.len()
    }

    /// Rows counted.
    pub fn count(&self) -> u64 {
        self.histograms[0].count()
    }

    /// Counts rows, one after the other; a row with a value that is not finite is left out.
    pub fn update_many(&mut self, rows: &[f64]) {
        let width = self.width();
        let mut scaled = vec![0.0; BATCH * width];
        let mut projected = Vec::with_capacity(BATCH);
        for rows in rows.chunks(BATCH * width) {
            let mut kept = 0;
            for row in rows.chunks_exact(width).filter(|row| row.iter().all(|value| value.is_finite())) {
                let to = &mut scaled[kept * width..(kept + 1) * width];
                self.scale.apply(row, to);
                // A scaled value may leave the range; all directions must count the same rows.
                to.iter_mut().for_each(|value| *value = value.clamp(-1e300, 1e300));
                kept += 1;
            }
            for (direction, histogram) in self.directions.iter().zip(&mut self.histograms) {
                projected.clear();
                let dot = |row: &[f64]| row.iter().zip(direction).map(|(x, d)| x * d).sum::<f64>().clamp(f64::MIN, f64::MAX);
                projected.extend(scaled[..kept * width].chunks_exact(width).map(dot));
                histogram.update_many(&projected);
            }
        }
    }

    fn fits(&self, other: &Self) -> Result<()> {
        if (self.seed, &self.scale, self.directions.len()) == (other.seed, &other.scale, other.directions.len()) {
            return Ok(());
        }
        Err(Error::incompatible("projections must have the same directions").hint("make both with `empty()` of the one that was fitted"))
    }

    /// Adds another's rows.
    ///
    /// # Errors
    /// `Incompatible` for other parameters.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.fits(other)?;
        self.histograms.iter_mut().zip(&other.histograms).try_for_each(|(to, from)| to.merge(from))
    }

    /// Takes another's rows away again.
    ///
    /// # Errors
    /// `Incompatible` for other parameters or where it holds rows that are not in this one; nothing is changed then.
    pub fn subtract(&mut self, other: &Self) -> Result<()> {
        self.fits(other)?;
        let mut histograms = self.histograms.clone();
        histograms.iter_mut().zip(&other.histograms).try_for_each(|(to, from)| to.subtract(from))?;
        self.histograms = histograms;
        Ok(())
    }

    /// The mean of the Wasserstein-1 distances along the directions, with the interval that holds it for sure.
    ///
    /// `contributions`: the distance of each direction.
    ///
    /// # Errors
    /// `Incompatible` for other parameters, `InvalidArgument` where a side has no row.
    pub fn sliced_wasserstein(&self, other: &Self) -> Result<Score> {
        self.fits(other)?;
        let mut scores = Vec::with_capacity(self.histograms.len());
        for (a, b) in self.histograms.iter().zip(&other.histograms) {
            let (a, b) = (a.cells(), b.cells());
            // Extremes are not kept: the outer cells end there.
            let ends = |cells: &[Cell]| cells.first().map_or(0.0, |cell| cell.lower)..cells.last().map_or(0.0, |cell| cell.upper);
            let (p, q) = (ends(&a), ends(&b));
            scores.push(wasserstein(Side { cells: &a, min: p.start, max: p.end }, Side { cells: &b, min: q.start, max: q.end }, None)?);
        }
        let mean = |part: &dyn Fn(&Score) -> f64| scores.iter().map(part).sum::<f64>() / scores.len() as f64;
        Ok(Score {
            lower: Some(mean(&|score| score.lower.unwrap_or(score.value))),
            upper: Some(mean(&|score| score.upper.unwrap_or(score.value))),
            interval: Some(Interval::Certain),
            ..Score::plain(mean(&|score| score.value), scores.iter().map(|score| score.value).collect())
        })
    }

    /// A snapshot; equal projections give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u64(self.seed);
        writer.len(self.scale.0.len());
        for (mean, deviation) in &self.scale.0 {
            writer.f64(*mean);
            writer.f64(*deviation);
        }
        writer.len(self.histograms.len());
        self.histograms.iter().for_each(|histogram| histogram.encode(&mut writer));
        writer.seal(SnapshotKind::SlicedProjections)
    }

    /// Reads a snapshot back.
    ///
    /// # Errors
    /// `Decode` for bytes that `to_bytes` did not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::open(bytes, SnapshotKind::SlicedProjections)?;
        let seed = reader.u64()?;
        let scale = Scale::decode(&mut reader)?;
        let directions = reader.len(4)?;
        if !(1..=MOST).contains(&directions) {
            return Err(Error::decode("projections in the snapshot have parameters out of range"));
        }
        let mut out = Self::new(scale, directions, seed).map_err(|error| Error::decode(error.message))?;
        for histogram in &mut out.histograms {
            *histogram = ExponentialHistogram::decode(&mut reader)?;
        }
        reader.finish()?;
        let count = out.count();
        if out.histograms.iter().any(|histogram| histogram.scale() != SCALE || histogram.shift() != 0.0 || histogram.count() != count) {
            return Err(Error::decode("the directions of projections count different rows"));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_exact_distance_and_merges_leave_no_trace() {
        let mut drawn = Drawn::new(5);
        let reference: Vec<f64> = (0..6000).map(|_| drawn.normal()).collect();
        let current: Vec<f64> = (0..6000).map(|at| drawn.normal() + if at % 3 == 0 { 0.5 } else { 0.0 }).collect();
        let (a, b) = (Rows::new("a", &reference, 3).unwrap(), Rows::new("b", &current, 3).unwrap());
        let exact = crate::scores::sliced_wasserstein::sliced_wasserstein(a, b, 9).unwrap();
        let fitted = SlicedProjections::fit(a, 64, 9).unwrap();
        let (mut p, mut q) = (fitted.clone(), fitted.empty().unwrap());
        p.update_many(&reference);
        q.update_many(&current);
        let score = p.sliced_wasserstein(&q).unwrap();
        let (low, high) = (score.lower.unwrap(), score.upper.unwrap());
        assert!(low <= exact.value && exact.value <= high && (score.value - exact.value).abs() < 0.01, "{score:?} {}", exact.value);
        let (mut left, mut right) = (fitted.clone(), fitted.clone());
        left.update_many(&reference[3000..]);
        right.update_many(&reference[..3000]);
        left.merge(&right).unwrap();
        assert_eq!(left.to_bytes(), p.to_bytes());
        assert_eq!(SlicedProjections::from_bytes(&p.to_bytes()).unwrap(), p);
        assert!(p.sliced_wasserstein(&SlicedProjections::fit(a, 32, 9).unwrap()).is_err());
    }
}
