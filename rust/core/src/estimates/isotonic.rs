//! Isotonic regression: the best rising step through points, read back by lines between its steps.

use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

/// A rising map from scores to probabilities.
///
/// Source: pool adjacent violators, Barlow et al., Statistical Inference under Order Restrictions, 1972. Between steps the map is
/// linear and beyond the ends it is constant, as in scikit-learn.
#[derive(Clone, Debug, PartialEq)]
pub struct Isotonic {
    x: Vec<f64>,
    y: Vec<f64>,
}

/// Points that share one value.
struct Step {
    first: f64,
    last: f64,
    sum: f64,
    weight: f64,
}

impl Isotonic {
    /// Fits labels on scores, in O(n log n). `rows`: score, label, weight; weights of 0 are left out.
    ///
    /// # Errors
    /// `InvalidArgument` without any weight.
    pub fn fit(mut rows: Vec<(f64, f64, f64)>) -> Result<Self> {
        rows.retain(|row| row.2 > 0.0);
        if rows.is_empty() {
            return Err(Error::invalid("`scores` must hold at least one row with a label"));
        }
        rows.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut steps: Vec<Step> = Vec::new();
        let mut at = 0;
        while at < rows.len() {
            let score = rows[at].0;
            let mut step = Step { first: score, last: score, sum: 0.0, weight: 0.0 };
            while at < rows.len() && rows[at].0 == score {
                step.sum += rows[at].1 * rows[at].2;
                step.weight += rows[at].2;
                at += 1;
            }
            // Pooled while the step before is not lower.
            while let Some(before) = steps.pop_if(|before| before.sum * step.weight >= step.sum * before.weight) {
                step = Step { first: before.first, last: step.last, sum: before.sum + step.sum, weight: before.weight + step.weight };
            }
            steps.push(step);
        }
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for step in steps {
            let value = step.sum / step.weight;
            x.push(step.first);
            y.push(value);
            if step.last > step.first {
                x.push(step.last);
                y.push(value);
            }
        }
        Ok(Self { x, y })
    }

    /// Scores at which the map bends, ascending, and its values there.
    pub fn knots(&self) -> (&[f64], &[f64]) {
        (&self.x, &self.y)
    }

    /// The value at a score.
    pub fn at(&self, score: f64) -> f64 {
        let right = self.x.partition_point(|x| *x <= score);
        if right == 0 {
            return self.y[0];
        }
        let left = right - 1;
        let Some(next) = self.x.get(right) else { return self.y[left] };
        self.y[left] + (self.y[right] - self.y[left]) / (next - self.x[left]) * (score - self.x[left])
    }

    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.len(self.x.len());
        self.x.iter().zip(&self.y).for_each(|(x, y)| {
            writer.f64(*x);
            writer.f64(*y);
        });
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let knots = reader.len(16)?;
        let mut out = Self { x: Vec::with_capacity(knots), y: Vec::with_capacity(knots) };
        for _ in 0..knots {
            out.x.push(reader.finite()?);
            out.y.push(reader.finite()?);
        }
        let rising = |values: &[f64], strictly: bool| values.windows(2).all(|pair| pair[0] < pair[1] || (!strictly && pair[0] == pair[1]));
        let probabilities = out.y.iter().all(|y| (0.0..=1.0).contains(y));
        if knots == 0 || !probabilities || !rising(&out.x, true) || !rising(&out.y, false) {
            return Err(Error::decode("a calibration must rise from one knot to the next"));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violators_are_pooled_and_lines_run_between_steps() {
        let rows = [(0.1, 0.0), (0.2, 1.0), (0.3, 0.0), (0.5, 1.0)].map(|(s, y)| (s, y, 1.0));
        let map = Isotonic::fit(rows.to_vec()).unwrap();
        assert_eq!(map.knots(), (&[0.1, 0.2, 0.3, 0.5][..], &[0.0, 0.5, 0.5, 1.0][..]));
        assert_eq!(map.at(0.0), 0.0);
        assert!((map.at(0.4) - 0.75).abs() < 1e-15);
        assert_eq!(map.at(9.0), 1.0);
    }
}
