//! Two classes: confusion, probabilistic losses, ranking, calibration.

use super::fixed::{Fixed, coarse};
use super::logarithm::{log, table};
use super::{Metric, RocAuc, ratio};
use crate::codec::{Reader, Writer};
use crate::distributions::{binomial_lower, binomial_upper, normal_quantile};
use crate::error::{Error, Result};

/// Equal bins of the calibration curve.
pub const CALIBRATION_BINS: usize = 10;
/// Rows whose sums fit 64 bits.
const BLOCK: usize = 4096;
/// Fewer rows than this are not worth a table of both classes.
const FEW: usize = 1024;
/// Weights enter the score cells in these units.
pub(super) const WEIGHT_UNITS: f64 = (1 << 20) as f64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Calibration {
    weight: Fixed,
    score: Fixed,
    positive: Fixed,
}

/// Metrics of a binary classifier over any number of rows: about 100 KB, 10 to 20 ns per row.
///
/// Confusion, losses and calibration are exact to 1e-12 per row; ROC AUC and average precision come from score cells (1/128 of an
/// octave of the distance to 0 or 1) and are within 1e-4 unless scores are tied in bulk. Undefined metrics are `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BinaryMetrics {
    rows: u64,
    /// Rows whose label was missing.
    unlabelled: u64,
    weighted: bool,
    /// Weight by `[label][prediction]`.
    confusion: [[Fixed; 2]; 2],
    scored: Fixed,
    losses: [Fixed; 2],
    squares: [Fixed; 2],
    cells: RocAuc,
    calibration: [Calibration; CALIBRATION_BINS],
}

impl BinaryMetrics {
    /// Adds rows. `labels`: 0 or 1, NaN for missing; `scores`: probabilities of class 1, in [0, 1]; `predictions`: 0 or 1, from
    /// the scores at 0.5 if absent; `weights`: not negative.
    ///
    /// # Errors
    /// `InvalidArgument` naming argument and position; nothing is added then.
    pub fn update_many(
        &mut self,
        labels: &[f64],
        scores: Option<&[f64]>,
        predictions: Option<&[f64]>,
        weights: Option<&[f64]>,
    ) -> Result<()> {
        if scores.is_none() && predictions.is_none() {
            return Err(Error::invalid("`y_score` or `y_pred` must be given, got neither"));
        }
        let bit = |value: f64| value == 0.0 || value == 1.0;
        check("y_true", Some(labels), labels.len(), "0, 1 or missing", |value| bit(value) || value.is_nan())?;
        check("y_score", scores, labels.len(), "in [0, 1]", |value| (0.0..=1.0).contains(&value))?;
        check("y_pred", predictions, labels.len(), "0 or 1", bit)?;
        check("weight", weights, labels.len(), "in [0, 1e12]", |value| (0.0..=1e12).contains(&value))?;
        self.rows += labels.len() as u64;
        self.weighted |= weights.is_some();
        if let (None, Some(scores)) = (weights, scores) {
            for at in (0..labels.len()).step_by(BLOCK) {
                let block = at..labels.len().min(at + BLOCK);
                self.plain(&labels[block.clone()], &scores[block.clone()], predictions.map(|predictions| &predictions[block]));
            }
            let rows = labels.iter().zip(scores).filter(|(label, _)| !label.is_nan());
            if labels.len() < FEW {
                rows.for_each(|(label, score)| {
                    self.cells.add(*score, *label == 1.0, WEIGHT_UNITS as u64);
                });
            } else {
                self.cells.add_many(rows.map(|(label, score)| (*score, *label == 1.0)), WEIGHT_UNITS as u64);
            }
            return Ok(());
        }
        for (row, label) in labels.iter().enumerate() {
            if label.is_nan() {
                self.unlabelled += 1;
                continue;
            }
            let weight = weights.map_or(1.0, |weights| weights[row]);
            let positive = *label == 1.0;
            let predicted =
                predictions.map_or_else(|| scores.is_some_and(|scores| scores[row] >= 0.5), |predictions| predictions[row] == 1.0);
            self.confusion[usize::from(positive)][usize::from(predicted)].add(weight);
            if let Some(score) = scores.map(|scores| scores[row]) {
                self.score(score, positive, weight);
            }
        }
        Ok(())
    }

    /// A block of rows with scores and without weights: local integers first, one addition per sum at the end.
    fn plain(&mut self, labels: &[f64], scores: &[f64], predictions: Option<&[f64]>) {
        let table = table();
        let mut confusion = [0u32; 4];
        let (mut losses, mut squares) = ([0i64; 2], [0i64; 2]);
        let mut bins = [(0u32, 0i64, 0u32); CALIBRATION_BINS];
        let mut missing = 0u32;
        for (row, (label, score)) in labels.iter().zip(scores).enumerate() {
            if label.is_nan() {
                missing += 1;
                continue;
            }
            let positive = *label == 1.0;
            let predicted = predictions.map_or(*score, |predictions| predictions[row]) >= 0.5;
            confusion[usize::from(positive) << 1 | usize::from(predicted)] += 1;
            // Without a branch: labels are hard to predict, for a processor too.
            let right = label * score + (1.0 - label) * (1.0 - score);
            // As scikit-learn: a probability of 0 costs as much as one of 2^-52.
            let (loss, brier) = (-log(right.max(f64::EPSILON), table), (1.0 - right) * (1.0 - right));
            losses[0] += coarse(loss);
            losses[1] += coarse(brier);
            squares[0] += coarse(loss * loss);
            squares[1] += coarse(brier * brier);
            let bin = &mut bins[((score * CALIBRATION_BINS as f64) as usize).min(CALIBRATION_BINS - 1)];
            bin.0 += 1;
            bin.1 += coarse(*score);
            bin.2 += u32::from(positive);
        }
        self.unlabelled += u64::from(missing);
        for (sum, count) in self.confusion.iter_mut().flatten().zip(confusion) {
            sum.add(f64::from(count));
        }
        self.scored.add((labels.len() as u32 - missing).into());
        for (sums, parts) in [(&mut self.losses, losses), (&mut self.squares, squares)] {
            sums.iter_mut().zip(parts).for_each(|(sum, part)| sum.add_coarse(part));
        }
        for (bin, (count, score, positive)) in self.calibration.iter_mut().zip(bins) {
            bin.weight.add(f64::from(count));
            bin.score.add_coarse(score);
            bin.positive.add(f64::from(positive));
        }
    }

    fn score(&mut self, score: f64, positive: bool, weight: f64) {
        self.scored.add(weight);
        let right = if positive { score } else { 1.0 - score };
        // As scikit-learn: a probability of 0 costs as much as one of 2^-52.
        let losses = [-libm::log(right.max(f64::EPSILON)), (1.0 - right) * (1.0 - right)];
        for ((sum, square), loss) in self.losses.iter_mut().zip(&mut self.squares).zip(losses) {
            sum.add(weight * loss);
            square.add(weight * loss * loss);
        }
        self.cells.add(score, positive, libm::rint(weight * WEIGHT_UNITS) as u64);
        let bin = &mut self.calibration[((score * CALIBRATION_BINS as f64) as usize).min(CALIBRATION_BINS - 1)];
        bin.weight.add(weight);
        bin.score.add(weight * score);
        if positive {
            bin.positive.add(weight);
        }
    }

    /// Adds another's rows.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.unlabelled += other.unlabelled;
        self.weighted |= other.weighted;
        self.scored.merge(other.scored);
        let mine = self.confusion.iter_mut().flatten().chain(&mut self.losses).chain(&mut self.squares);
        let theirs = other.confusion.iter().flatten().chain(&other.losses).chain(&other.squares);
        mine.zip(theirs).for_each(|(to, from)| to.merge(*from));
        self.cells.merge(&other.cells);
        for (to, from) in self.calibration.iter_mut().zip(other.calibration) {
            to.weight.merge(from.weight);
            to.score.merge(from.score);
            to.positive.merge(from.positive);
        }
    }

    /// Takes rows away that were added before, as another's rows: the same state as if they had never come, when neither has weights.
    pub fn subtract(&mut self, other: &Self) {
        self.rows = self.rows.saturating_sub(other.rows);
        self.unlabelled = self.unlabelled.saturating_sub(other.unlabelled);
        self.scored.subtract(other.scored);
        let mine = self.confusion.iter_mut().flatten().chain(&mut self.losses).chain(&mut self.squares);
        let theirs = other.confusion.iter().flatten().chain(&other.losses).chain(&other.squares);
        mine.zip(theirs).for_each(|(from, sum)| from.subtract(*sum));
        self.cells.subtract(&other.cells);
        for (from, bin) in self.calibration.iter_mut().zip(other.calibration) {
            from.weight.subtract(bin.weight);
            from.score.subtract(bin.score);
            from.positive.subtract(bin.positive);
        }
    }

    /// Rows seen, and those of them without a label.
    pub fn rows(&self) -> (u64, u64) {
        (self.rows, self.unlabelled)
    }

    /// `(mean score, share of positives, weight)` per bin of the score; `None` for empty bins.
    pub fn calibration(&self) -> [Option<(f64, f64, f64)>; CALIBRATION_BINS] {
        self.calibration.map(|bin| {
            let weight = bin.weight.value();
            (weight > 0.0).then(|| (bin.score.value() / weight, bin.positive.value() / weight, weight))
        })
    }

    /// All metrics, with limits at `confidence`: Clopper-Pearson for shares, normal for losses (unweighted rows only), `DeLong` for the AUC.
    pub fn metrics(&self, confidence: f64) -> Vec<Metric> {
        let [[tn, fp], [fn_, tp]] = self.confusion.map(|row| row.map(Fixed::value));
        let (positives, negatives, total) = (tp + fn_, tn + fp, tn + fp + fn_ + tp);
        let alpha = (1.0 - confidence) / 2.0;
        let share = |name, part: f64, whole: f64| {
            let limits = (!self.weighted && whole > 0.0).then(|| (binomial_lower(part, whole, alpha), binomial_upper(part, whole, alpha)));
            Metric::new(name, ratio(part, whole)).within(limits)
        };
        let mut out = vec![
            share("accuracy", tp + tn, total),
            share("precision", tp, tp + fp),
            share("recall", tp, positives),
            share("specificity", tn, negatives),
            Metric::new("f1", ratio(2.0 * tp, 2.0 * tp + fp + fn_)),
            Metric::new("balanced_accuracy", ratio(tp, positives).zip(ratio(tn, negatives)).map(|(a, b)| f64::midpoint(a, b))),
            Metric::new("mcc", ratio(tp * tn - fp * fn_, libm::sqrt((tp + fp) * positives * negatives * (tn + fn_)))),
            share("prevalence", positives, total),
            share("predicted_positive", tp + fp, total),
        ];
        let scored = self.scored.value();
        for (at, name) in ["log_loss", "brier"].into_iter().enumerate() {
            let mean = ratio(self.losses[at].value(), scored);
            let limits = mean.filter(|_| !self.weighted && scored > 1.0).map(|mean| {
                let variance = (self.squares[at].value() / scored - mean * mean).max(0.0) / (scored - 1.0);
                let reach = normal_quantile(1.0 - alpha) * libm::sqrt(variance);
                (mean - reach, mean + reach)
            });
            out.push(Metric::new(name, mean).within(limits));
        }
        let auc = self.cells.scaled(confidence, 1.0 / WEIGHT_UNITS);
        let limits = auc.as_ref().and_then(|auc| auc.lower.zip(auc.upper));
        out.push(Metric::new("roc_auc", auc.map(|auc| auc.value)).within(limits));
        out.push(Metric::new("average_precision", self.cells.average_precision()));
        out.push(Metric::new("ece", self.calibration_error(|gap, _, _| gap.abs())));
        let debiased = self.calibration_error(|gap, rate, n| if n > 1.0 { gap * gap - rate * (1.0 - rate) / (n - 1.0) } else { 0.0 });
        out.push(Metric::new("ece_debiased", debiased.map(|square| libm::sqrt(square.max(0.0)))));
        out
    }

    /// Weighted mean over bins of a function of the gap, the share of positives and the weight.
    fn calibration_error(&self, of: impl Fn(f64, f64, f64) -> f64) -> Option<f64> {
        let sum: f64 = self.calibration().into_iter().flatten().map(|(score, rate, weight)| weight * of(rate - score, rate, weight)).sum();
        ratio(sum, self.scored.value())
    }

    /// Scores in ascending order, as the middles of cells 1/128 of an octave wide, with the weights of label 0 and label 1.
    pub fn scores(&self) -> Vec<(f64, f64, f64)> {
        self.cells
            .cells()
            .map(|(score, negative, positive)| (score, negative as f64 / WEIGHT_UNITS, positive as f64 / WEIGHT_UNITS))
            .collect()
    }

    /// Appends the state to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u64(self.rows);
        writer.u64(self.unlabelled);
        writer.bool(self.weighted);
        let sums = self.confusion.iter().flatten().chain([&self.scored]).chain(&self.losses).chain(&self.squares);
        sums.for_each(|sum| sum.encode(writer));
        self.cells.encode(writer);
        self.calibration.iter().flat_map(|bin| [bin.weight, bin.score, bin.positive]).for_each(|sum| sum.encode(writer));
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// `Decode` at the end of the bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let mut out = Self { rows: reader.count()?, unlabelled: reader.count()?, weighted: reader.bool()?, ..Self::default() };
        let sums = out.confusion.iter_mut().flatten().chain([&mut out.scored]).chain(&mut out.losses).chain(&mut out.squares);
        for sum in sums {
            *sum = Fixed::decode(reader)?;
        }
        out.cells = RocAuc::decode(reader)?;
        for sum in out.calibration.iter_mut().flat_map(|bin| [&mut bin.weight, &mut bin.score, &mut bin.positive]) {
            *sum = Fixed::decode(reader)?;
        }
        Ok(out)
    }
}

/// Checks one argument: its length, then each value.
pub(super) fn check(name: &str, values: Option<&[f64]>, rows: usize, want: &str, fine: impl Fn(f64) -> bool) -> Result<()> {
    let Some(values) = values else { return Ok(()) };
    if values.len() != rows {
        return Err(Error::invalid(format!("`{name}` must have as many rows as `y_true`, got {} and {rows}", values.len())));
    }
    // Counting has no early end, so it is done many values at a time; where is asked only if there is one.
    if values.iter().map(|value| u64::from(!fine(*value))).sum::<u64>() == 0 {
        return Ok(());
    }
    let at = values.iter().position(|value| !fine(*value)).unwrap_or(0);
    Err(Error::invalid(format!("`{name}` must be {want}, got {} at position {at}", values[at])))
}
