//! Rows of several numbers: what the multivariate scores share.

use crate::codec::Reader;
use crate::error::{Error, Result};
use crate::hash::murmur3_of_word;

/// Most columns.
const MOST_COLUMNS: usize = 1024;

/// Rows of `width` numbers each, one after the other, all finite.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    values: &'a [f64],
    width: usize,
}

impl<'a> Rows<'a> {
    /// At least 20 rows of at least one column and at most 1,024.
    ///
    /// # Errors
    /// `InvalidArgument` for fewer rows, another shape, or a value that is not finite.
    pub fn new(argument: &str, values: &'a [f64], width: usize) -> Result<Self> {
        if !(1..=MOST_COLUMNS).contains(&width) || !values.len().is_multiple_of(width) {
            return Err(Error::invalid(format!("`{argument}` must hold rows of 1 to {MOST_COLUMNS} numbers, got {width} columns")));
        }
        if values.len() / width < 20 {
            return Err(Error::invalid(format!("`{argument}` must hold at least 20 rows, got {}", values.len() / width)));
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let (row, column) = (at / width, at % width);
            return Err(Error::invalid(format!("`{argument}` must be finite, got {} in row {row}, column {column}", values[at]))
                .hint("drop or fill nulls and infinities first: their shares have scores of their own"));
        }
        Ok(Self { values, width })
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len() / self.width
    }

    pub(crate) fn each(&self) -> std::slice::ChunksExact<'a, f64> {
        self.values.chunks_exact(self.width)
    }

    /// The rows centred and scaled by the columns of `by`; a column without spread becomes its distance from the centre.
    pub(crate) fn standardised(&self, by: &Scale) -> Vec<f64> {
        let mut out = vec![0.0; self.values.len()];
        self.each().zip(out.chunks_exact_mut(self.width)).for_each(|(row, to)| by.apply(row, to));
        out
    }
}

/// Two sides with the same columns.
pub(crate) fn alike(reference: Rows<'_>, current: Rows<'_>) -> Result<()> {
    if reference.width == current.width {
        return Ok(());
    }
    Err(Error::invalid(format!("`reference` and `current` must have the same columns, got {} and {}", reference.width, current.width)))
}

/// Mean and standard deviation of each column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scale(pub(crate) Vec<(f64, f64)>);

impl Scale {
    pub(crate) fn of(rows: Rows<'_>) -> Self {
        let n = rows.len() as f64;
        let column = |at: usize| {
            // About the first value, so that a large offset does not cancel.
            let origin = rows.values[at];
            let (mut sum, mut squares) = (0.0, 0.0);
            for row in rows.each() {
                let value = row[at] - origin;
                sum += value;
                squares += value * value;
            }
            let sd = libm::sqrt(((squares - sum * sum / n) / (n - 1.0)).max(0.0));
            (origin + sum / n, if sd > 0.0 && sd.is_finite() { sd } else { 1.0 })
        };
        Self((0..rows.width).map(column).collect())
    }

    /// A row centred and scaled.
    pub(crate) fn apply(&self, row: &[f64], to: &mut [f64]) {
        to.iter_mut().zip(row).zip(&self.0).for_each(|((to, value), (mean, sd))| *to = (value - mean) / sd);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let width = reader.len(16)?;
        if !(1..=MOST_COLUMNS).contains(&width) {
            return Err(Error::decode(format!("rows have 1 to {MOST_COLUMNS} columns, the snapshot says {width}")));
        }
        let scale = (0..width).map(|_| Ok((reader.finite()?, reader.finite()?))).collect::<Result<Vec<_>>>()?;
        if scale.iter().all(|(_, deviation)| *deviation > 0.0) { Ok(Self(scale)) } else { Err(Error::decode("a column has no scale")) }
    }
}

/// Numbers that depend on a seed and a position alone.
pub(crate) struct Drawn {
    seed: u64,
    at: u64,
}

impl Drawn {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, at: 0 }
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.at += 1;
        murmur3_of_word(self.at, self.seed).0
    }

    /// In (0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    pub(crate) fn normal(&mut self) -> f64 {
        crate::distributions::normal_quantile(self.uniform())
    }

    /// A direction, uniform on the sphere.
    pub(crate) fn direction(&mut self, width: usize) -> Vec<f64> {
        let direction: Vec<f64> = (0..width).map(|_| self.normal()).collect();
        let length = libm::sqrt(direction.iter().map(|part| part * part).sum::<f64>()).max(1e-300);
        direction.into_iter().map(|part| part / length).collect()
    }
}

/// The eigenvalues and eigenvectors (rows of the second) of a symmetric matrix, largest first: cyclic Jacobi rotations.
pub(crate) fn eigen(mut matrix: Vec<f64>, width: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    let mut vectors: Vec<Vec<f64>> = (0..width).map(|row| (0..width).map(|column| f64::from(u8::from(row == column))).collect()).collect();
    for _ in 0..60 {
        let off: f64 = (0..width).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| matrix[i * width + j].powi(2)).sum();
        let on: f64 = (0..width).map(|i| matrix[i * width + i].powi(2)).sum();
        if off <= 1e-24 * on {
            break;
        }
        for p in 0..width {
            for q in p + 1..width {
                let apq = matrix[p * width + q];
                if apq == 0.0 {
                    continue;
                }
                let theta = (matrix[q * width + q] - matrix[p * width + p]) / (2.0 * apq);
                let t = libm::copysign(1.0, theta) / (theta.abs() + libm::sqrt(theta * theta + 1.0));
                let c = 1.0 / libm::sqrt(t * t + 1.0);
                let s = t * c;
                for k in 0..width {
                    let (a, b) = (matrix[k * width + p], matrix[k * width + q]);
                    (matrix[k * width + p], matrix[k * width + q]) = (c * a - s * b, s * a + c * b);
                }
                for k in 0..width {
                    let (a, b) = (matrix[p * width + k], matrix[q * width + k]);
                    (matrix[p * width + k], matrix[q * width + k]) = (c * a - s * b, s * a + c * b);
                }
                let (head, tail) = vectors.split_at_mut(q);
                for (a, b) in head[p].iter_mut().zip(&mut tail[0]) {
                    (*a, *b) = (c * *a - s * *b, s * *a + c * *b);
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|a, b| matrix[b * width + b].total_cmp(&matrix[a * width + a]));
    (order.iter().map(|at| matrix[at * width + at].max(0.0)).collect(), order.iter().map(|at| vectors[*at].clone()).collect())
}
