//! Means and co-moments of the columns of rows: covariances and correlations of a stream.
//!
//! Batches are centred on their own mean and merged pairwise. Source: Chan et al., Am. Stat. 1983; Pébay, SAND2008-6212.

use crate::codec::{Reader, SnapshotKind, Writer};
use crate::error::{Error, Result};

/// Most columns.
const MOST: usize = 64;
/// Rows that are centred together.
const BATCH: usize = 1024;

/// Count, means and centred co-moments of up to 64 columns. Rows with a value that is not finite are left out.
///
/// Merges are exact within rounding, not to the bit. Memory: 8 (d + d (d + 1) / 2) bytes; d²/2 multiplications per row.
#[derive(Clone, Debug, PartialEq)]
pub struct CoMoments {
    width: usize,
    count: u64,
    means: Vec<f64>,
    /// The lower triangle, row by row: sums of products of distances from the means.
    products: Vec<f64>,
}

impl CoMoments {
    /// Nothing yet, of rows of `width` columns, in [1, 64].
    ///
    /// # Errors
    /// `InvalidArgument` outside that range.
    pub fn new(width: usize) -> Result<Self> {
        if !(1..=MOST).contains(&width) {
            return Err(Error::invalid(format!("`columns` must be in [1, {MOST}], got {width}")));
        }
        Ok(Self { width, count: 0, means: vec![0.0; width], products: vec![0.0; width * (width + 1) / 2] })
    }

    /// Columns of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean of each column; `None` when empty.
    pub fn means(&self) -> Option<&[f64]> {
        (self.count > 0).then_some(&self.means)
    }

    /// Counts rows, one after the other; a last part of a row is left out.
    pub fn update_many(&mut self, rows: &[f64]) {
        let width = self.width;
        let mut kept = Vec::with_capacity(BATCH.min(rows.len() / width) * width);
        for rows in rows.chunks(BATCH * width) {
            kept.clear();
            for row in rows.chunks_exact(width).filter(|row| row.iter().all(|value| value.is_finite())) {
                kept.extend_from_slice(row);
            }
            self.add_batch(&mut kept);
        }
    }

    fn add_batch(&mut self, rows: &mut [f64]) {
        let width = self.width;
        let count = rows.len() / width;
        if count == 0 {
            return;
        }
        // About the first row, so that a large offset does not cancel.
        let origin = rows[..width].to_vec();
        let mut means = vec![0.0; width];
        for row in rows.chunks_exact(width) {
            means.iter_mut().zip(row).zip(&origin).for_each(|((mean, value), origin)| *mean += value - origin);
        }
        means.iter_mut().zip(&origin).for_each(|(mean, origin)| *mean = origin + *mean / count as f64);
        let mut products = vec![0.0; self.products.len()];
        for row in rows.chunks_exact_mut(width) {
            row.iter_mut().zip(&means).for_each(|(value, mean)| *value -= mean);
            let mut start = 0;
            for i in 0..width {
                let left = row[i];
                products[start..=start + i].iter_mut().zip(&row[..=i]).for_each(|(sum, right)| *sum += left * right);
                start += i + 1;
            }
        }
        self.combine(count as f64, &means, &products, 1.0);
        self.count += count as u64;
    }

    /// Adds (`sign` 1) or takes away (-1) the co-moments of `count` rows.
    fn combine(&mut self, count: f64, means: &[f64], products: &[f64], sign: f64) {
        let before = self.count as f64;
        let after = before + sign * count;
        if after <= 0.0 {
            self.means.fill(0.0);
            self.products.fill(0.0);
            return;
        }
        let gaps: Vec<f64> = means.iter().zip(&self.means).map(|(theirs, mine)| theirs - mine).collect();
        let weight = sign * before * count / after;
        let mut at = 0;
        for i in 0..self.width {
            for j in 0..=i {
                self.products[at] += sign * products[at] + weight * gaps[i] * gaps[j];
                at += 1;
            }
        }
        self.means.iter_mut().zip(&gaps).for_each(|(mean, gap)| *mean += gap * sign * count / after);
    }

    fn fits(&self, other: &Self) -> Result<()> {
        if self.width == other.width {
            return Ok(());
        }
        Err(Error::incompatible(format!("co-moments must be of as many columns, got {} and {}", self.width, other.width)))
    }

    /// Adds another's rows.
    ///
    /// # Errors
    /// `Incompatible` for other columns.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.fits(other)?;
        if self.count == 0 {
            self.clone_from(other);
        } else if other.count > 0 {
            self.combine(other.count as f64, &other.means, &other.products, 1.0);
            self.count += other.count;
        }
        Ok(())
    }

    /// Takes another's rows away again.
    ///
    /// # Errors
    /// `Incompatible` for other columns or where it holds more rows than this one.
    pub fn subtract(&mut self, other: &Self) -> Result<()> {
        self.fits(other)?;
        let left = self.count.checked_sub(other.count);
        let left = left.ok_or_else(|| Error::incompatible("the co-moments to subtract hold more rows than these"))?;
        if other.count > 0 {
            self.combine(other.count as f64, &other.means, &other.products, -1.0);
            self.count = left;
        }
        Ok(())
    }

    fn product(&self, i: usize, j: usize) -> f64 {
        let (low, high) = (i.min(j), i.max(j));
        self.products[high * (high + 1) / 2 + low]
    }

    /// The sample covariances, row by row; `None` below two rows or where one does not fit a double.
    pub fn covariance(&self) -> Option<Vec<f64>> {
        if self.count < 2 {
            return None;
        }
        let over = self.count as f64 - 1.0;
        let out: Vec<f64> = (0..self.width * self.width).map(|at| self.product(at / self.width, at % self.width) / over).collect();
        out.iter().all(|value| value.is_finite()).then_some(out)
    }

    /// Pearson's correlations, row by row; `None` where a column does not vary.
    pub fn correlation(&self) -> Vec<Option<f64>> {
        let pair = |i: usize, j: usize| {
            let (a, b) = (self.product(i, i), self.product(j, j));
            let varies = self.count > 1 && a > 0.0 && b > 0.0;
            let value = self.product(i, j) / (libm::sqrt(a) * libm::sqrt(b));
            (varies && value.is_finite()).then_some(if i == j { 1.0 } else { value.clamp(-1.0, 1.0) })
        };
        (0..self.width * self.width).map(|at| pair(at / self.width, at % self.width)).collect()
    }

    /// A snapshot.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.len(self.width);
        writer.u64(self.count);
        self.means.iter().chain(&self.products).for_each(|value| writer.f64(*value));
        writer.seal(SnapshotKind::CoMoments)
    }

    /// Reads a snapshot back.
    ///
    /// # Errors
    /// `Decode` for bytes that `to_bytes` did not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::open(bytes, SnapshotKind::CoMoments)?;
        let mut out = Self::new(reader.len(8)?).map_err(|error| Error::decode(error.message))?;
        out.count = reader.count()?;
        for value in out.means.iter_mut().chain(&mut out.products) {
            *value = reader.f64()?;
        }
        reader.finish()?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_offset_does_not_cancel() {
        let rows: Vec<f64> = (0..3000).flat_map(|i| [1e9 + f64::from(i % 2), f64::from(i % 3)]).collect();
        let mut whole = CoMoments::new(2).unwrap();
        whole.update_many(&rows);
        assert!((whole.covariance().unwrap()[0] - 0.25 * 3000.0 / 2999.0).abs() < 1e-9);
        let mut left = CoMoments::new(2).unwrap();
        left.update_many(&rows[..1000]);
        let mut right = CoMoments::new(2).unwrap();
        right.update_many(&rows[1000..]);
        left.merge(&right).unwrap();
        let close = |a: &CoMoments, b: &CoMoments| {
            a.count == b.count && a.covariance().unwrap().iter().zip(b.covariance().unwrap()).all(|(x, y)| (x - y).abs() < 1e-9)
        };
        assert!(close(&left, &whole));
        whole.subtract(&right).unwrap();
        left.subtract(&right).unwrap();
        assert!(close(&left, &whole) && whole.count() == 500);
        assert_eq!(CoMoments::from_bytes(&whole.to_bytes()).unwrap(), whole);
        assert!(whole.subtract(&right).is_err());
    }
}
