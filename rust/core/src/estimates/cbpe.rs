//! Confidence-based performance estimation: what metrics labels would give, from calibrated scores alone.

use std::sync::Arc;

use super::{Isotonic, within};
use crate::codec::{Reader, Writer};
use crate::distributions::normal_quantile;
use crate::error::{Error, Result};
use crate::metrics::roc_auc::{HALF, RocAuc, area};
use crate::metrics::{CALIBRATION_BINS, Metric};

/// Sums are in units of 2^-26: adding them is exact and free of order.
const UNIT: f64 = (1u64 << 26) as f64;
const MAGIC: f64 = 6_755_399_441_055_744.0;
const MOST_ROWS: u64 = 1 << 36;
const CELLS: usize = 2 * HALF;
/// Tiles of the reference, each left out once.
const TILES: usize = 10;
/// Rows of a tile.
const LEAST_TILE: usize = 20;
const BINS: usize = 10;

/// What `values` gives, in order.
const NAMES: [&str; 14] = [
    "accuracy",
    "precision",
    "recall",
    "specificity",
    "f1",
    "balanced_accuracy",
    "mcc",
    "prevalence",
    "predicted_positive",
    "log_loss",
    "brier",
    "roc_auc",
    "average_precision",
    "ece",
];
/// Of these the first are functions of the four cells of the confusion table.
const OF_CONFUSION: usize = 9;

type Values = [Option<f64>; NAMES.len()];

/// How well scores tell probabilities, by rows that the calibration had not seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Check {
    /// Debiased expected calibration error of the scores as they are.
    pub raw: f64,
    /// The same of calibrated ones.
    pub calibrated: f64,
    /// Whether the calibrated ones are told apart from the truth, at 1 %.
    pub holds: bool,
}

/// A part of the map from scores to probabilities: a line that begins at `x`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    x: f64,
    y: f64,
    slope: f64,
}

/// The map from scores to probabilities, fitted on a reference with labels.
///
/// Source: the NannyML authors' CBPE; Białek et al., arXiv 2401.08348. Assumes `P(y | score)` to be as in the reference: a change
/// of it (concept shift) cannot be seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Cbpe {
    map: Isotonic,
    /// The maps that have not seen one tile of the reference each.
    left_out: Vec<Isotonic>,
    check: Option<Check>,
    /// One more than there are knots: line k begins at knot k - 1.
    lines: Vec<Line>,
    /// The knots, and infinity behind them.
    knots: Vec<f64>,
    /// The line at the beginning of each cell of scores.
    first: Vec<u32>,
}

impl Cbpe {
    /// Fits on scores in [0, 1] and labels of 0 and 1 (NaN: unknown, left out), with weights if rows stand for more or less than one.
    ///
    /// # Errors
    /// `InvalidArgument` for values outside, unequal lengths, or no labelled row.
    pub fn fit(scores: &[f64], labels: &[f64], weights: Option<&[f64]>) -> Result<Self> {
        within("scores", scores, 0.0, 1.0)?;
        let lengths = [Some(labels), weights].into_iter().flatten().map(<[f64]>::len);
        if let Some(other) = lengths.into_iter().find(|other| *other != scores.len()) {
            return Err(Error::invalid(format!(
                "`labels` and `weight` must have as many rows as `scores`, got {other} and {}",
                scores.len()
            )));
        }
        if let Some(at) = labels.iter().position(|label| !label.is_nan() && *label != 0.0 && *label != 1.0) {
            return Err(Error::invalid(format!("`labels` must be 0, 1 or missing, got {} at position {at}", labels[at])));
        }
        if let Some(weights) = weights {
            within("weight", weights, 0.0, 1e12)?;
        }
        let known: Vec<usize> = (0..labels.len()).filter(|row| !labels[*row].is_nan()).collect();
        let tiles = (known.len() / LEAST_TILE).min(TILES);
        let mut rows: Vec<(f64, f64, f64, usize)> = known
            .iter()
            .enumerate()
            .map(|(place, row)| (scores[*row], labels[*row], weights.map_or(1.0, |weights| weights[*row]), place * tiles / known.len()))
            .collect();
        rows.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.3.cmp(&b.3)));
        let of =
            |tile: Option<usize>| Isotonic::fit(rows.iter().filter(|row| Some(row.3) != tile).map(|row| (row.0, row.1, row.2)).collect());
        let map = of(None)?;
        let left_out = if tiles > 1 { (0..tiles).map(|tile| of(Some(tile))).collect::<Result<Vec<_>>>()? } else { Vec::new() };
        let check = (tiles > 1).then(|| check(&rows, &left_out));
        Ok(Self::with(map, left_out, check))
    }

    fn with(map: Isotonic, left_out: Vec<Isotonic>, check: Option<Check>) -> Self {
        let (x, y) = map.knots();
        let mut lines = vec![Line { x: 0.0, y: y[0], slope: 0.0 }];
        for at in 0..x.len() {
            let slope = if at + 1 < x.len() { (y[at + 1] - y[at]) / (x[at + 1] - x[at]) } else { 0.0 };
            lines.push(Line { x: x[at], y: y[at], slope });
        }
        let mut first = vec![0u32; CELLS + 1];
        for knot in x {
            first[RocAuc::cell(*knot) + 1] += 1;
        }
        for cell in 0..CELLS {
            first[cell + 1] += first[cell];
        }
        let knots = x.iter().copied().chain([f64::INFINITY; 3]).collect();
        Self { map, left_out, check, lines, knots, first }
    }

    /// How many slots scores fall into: cells, cut at the knots.
    fn slots(&self) -> usize {
        CELLS + self.lines.len()
    }

    /// How well the calibration holds; `None` for a reference of fewer than 40 labelled rows.
    pub fn check(&self) -> Option<Check> {
        self.check
    }

    /// The map from scores to probabilities.
    pub fn map(&self) -> &Isotonic {
        &self.map
    }

    /// The line that holds a score: as many knots are not above it.
    #[inline]
    fn line(&self, score: f64, cell: usize) -> usize {
        let (mut line, end) = (self.first[cell] as usize, self.first[cell + 1] as usize);
        if end - line > 2 {
            return line + self.knots[line..end].partition_point(|knot| *knot <= score);
        }
        // Without a branch: which side of a knot a score lies on is hard to predict.
        line += usize::from(self.knots[line] <= score);
        line + usize::from(self.knots[line] <= score)
    }

    fn chance(&self, score: f64) -> f64 {
        let line = self.lines[self.line(score, RocAuc::cell(score))];
        line.y + line.slope * (score - line.x)
    }

    /// Probabilities of scores.
    ///
    /// # Errors
    /// `InvalidArgument` for a score outside [0, 1].
    pub fn calibrated(&self, scores: &[f64]) -> Result<Vec<f64>> {
        within("scores", scores, 0.0, 1.0)?;
        Ok(scores.iter().map(|score| self.chance(*score)).collect())
    }

    /// Appends the state to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        self.map.encode(writer);
        writer.len(self.left_out.len());
        self.left_out.iter().for_each(|map| map.encode(writer));
        writer.bool(self.check.is_some());
        if let Some(check) = self.check {
            writer.f64(check.raw);
            writer.f64(check.calibrated);
            writer.bool(check.holds);
        }
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// `Decode` for anything else.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let map = Isotonic::decode(reader)?;
        let tiles = reader.len(17)?;
        let left_out = (0..tiles).map(|_| Isotonic::decode(reader)).collect::<Result<Vec<_>>>()?;
        let check =
            if reader.bool()? { Some(Check { raw: reader.finite()?, calibrated: reader.finite()?, holds: reader.bool()? }) } else { None };
        Ok(Self::with(map, left_out, check))
    }
}

/// The debiased calibration error over ten groups of equal weight by score: rows are score, label, weight and tile.
fn check(rows: &[(f64, f64, f64, usize)], left_out: &[Isotonic]) -> Check {
    let total: f64 = rows.iter().map(|row| row.2).sum();
    let mut groups = [[0.0f64; 4]; BINS];
    let mut before = 0.0;
    for (score, label, weight, tile) in rows {
        let group = &mut groups[((before / total * BINS as f64) as usize).min(BINS - 1)];
        before += weight;
        let terms = [1.0, *label, *score, left_out[*tile].at(*score)];
        group.iter_mut().zip(terms).for_each(|(sum, term)| *sum += weight * term);
    }
    let (mut raw, mut calibrated, mut variance) = (0.0, 0.0, 0.0);
    for [n, labels, scores, chances] in groups.into_iter().filter(|group| group[0] > 1.0) {
        let (rate, share) = (labels / n, n / total);
        let noise = rate * (1.0 - rate) / (n - 1.0);
        raw += share * ((rate - scores / n).powi(2) - noise);
        calibrated += share * ((rate - chances / n).powi(2) - noise);
        variance += 2.0 * (share * noise).powi(2);
    }
    let root = |square: f64| libm::sqrt(square.max(0.0));
    Check { raw: root(raw), calibrated: root(calibrated), holds: calibrated <= normal_quantile(0.99) * libm::sqrt(variance) }
}

/// Rows of one slot of scores and the sum of their scores. A slot lies in one cell and on one line of the calibration, so that the sum of
/// the probabilities follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    rows: u64,
    score: u64,
}

/// A row of the table that metrics are taken from: rows, their scores' mean, and the positives expected among them.
#[derive(Clone, Copy, Default)]
struct Group {
    n: f64,
    score: f64,
    positive: f64,
}

impl Group {
    fn new(slot: Slot, line: Line) -> Self {
        let (n, sum) = (slot.rows as f64, slot.score as f64 / UNIT);
        let score = if n > 0.0 { sum / n } else { 0.0 };
        Self { n, score, positive: (n * line.y + line.slope * (sum - n * line.x)).clamp(0.0, n) }
    }
}

/// Expected metrics of rows without labels: about 200 KB, whatever the number of rows; merging is adding.
///
/// Log loss, Brier score and calibration error are taken at the mean score of each cell, 1/128 of an octave wide: within 1e-5.
#[derive(Clone, Debug, PartialEq)]
pub struct CbpeEstimate {
    cbpe: Arc<Cbpe>,
    /// By predicted class, then in the order of scores: a score's slot is its cell plus its line.
    slots: Vec<Slot>,
    rows: u64,
}

impl CbpeEstimate {
    /// Of no rows yet.
    pub fn new(cbpe: Arc<Cbpe>) -> Self {
        let slots = vec![Slot::default(); 2 * cbpe.slots()];
        Self { cbpe, slots, rows: 0 }
    }

    /// Rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds rows: scores in [0, 1], predictions of 0 and 1, from the scores at 0.5 if absent.
    ///
    /// # Errors
    /// `InvalidArgument` naming argument and position; nothing is added then.
    pub fn update_many(&mut self, scores: &[f64], predictions: Option<&[f64]>) -> Result<()> {
        within("scores", scores, 0.0, 1.0)?;
        if let Some(predictions) = predictions {
            if predictions.len() != scores.len() {
                let (got, want) = (predictions.len(), scores.len());
                return Err(Error::invalid(format!("`y_pred` must have as many rows as `scores`, got {got} and {want}")));
            }
            if predictions.iter().map(|class| u64::from(*class != 0.0 && *class != 1.0)).sum::<u64>() > 0 {
                let at = predictions.iter().position(|class| *class != 0.0 && *class != 1.0).unwrap_or(0);
                return Err(Error::invalid(format!("`y_pred` must be 0 or 1, got {} at position {at}", predictions[at])));
            }
        }
        if self.rows + scores.len() as u64 > MOST_ROWS {
            return Err(Error::invalid(format!("an estimate holds at most {MOST_ROWS} rows")).hint("begin another one"));
        }
        self.rows += scores.len() as u64;
        let (cbpe, positive) = (&self.cbpe, self.cbpe.slots());
        for (row, score) in scores.iter().enumerate() {
            let cell = RocAuc::cell(*score);
            let predicted = predictions.map_or(*score, |predictions| predictions[row]) >= 0.5;
            let slot = &mut self.slots[cell + cbpe.line(*score, cell) + usize::from(predicted) * positive];
            slot.rows += 1;
            // Adding 1.5 * 2^52 leaves the rounded integer in the low bits.
            slot.score += (score * UNIT + MAGIC).to_bits() - MAGIC.to_bits();
        }
        Ok(())
    }

    /// Adds another's rows.
    ///
    /// # Errors
    /// `InvalidArgument` if it was calibrated otherwise, or for too many rows.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.cbpe != other.cbpe {
            return Err(Error::invalid("`other` must be an estimate of the same calibration"));
        }
        if self.rows + other.rows > MOST_ROWS {
            return Err(Error::invalid(format!("an estimate holds at most {MOST_ROWS} rows")).hint("begin another one"));
        }
        self.rows += other.rows;
        for (to, from) in self.slots.iter_mut().zip(&other.slots) {
            to.rows += from.rows;
            to.score += from.score;
        }
        Ok(())
    }

    /// The slots that hold rows, ascending, negative and positive predictions apart.
    fn groups(&self) -> Vec<[Group; 2]> {
        let (negative, positive) = self.slots.split_at(self.cbpe.slots());
        let mut out = Vec::new();
        for cell in 0..CELLS {
            for line in self.cbpe.first[cell] as usize..=self.cbpe.first[cell + 1] as usize {
                let pair = [negative[cell + line], positive[cell + line]];
                if pair[0].rows + pair[1].rows > 0 {
                    out.push(pair.map(|slot| Group::new(slot, self.cbpe.lines[line])));
                }
            }
        }
        out
    }

    /// Expected metrics and their limits at `confidence`: where the realised metrics of as many rows of the same kind lie.
    ///
    /// The limits cover the chance of labels, of rows, and of the calibration (jackknife over ten tiles of the reference).
    pub fn metrics(&self, confidence: f64) -> Vec<Metric> {
        let groups = self.groups();
        let values = values(&groups);
        let z = normal_quantile(f64::midpoint(1.0, confidence));
        let sampling = deviations(&groups, &values);
        let jackknife = self.jackknife(&groups);
        let mut out = Vec::new();
        for (at, name) in NAMES.into_iter().enumerate() {
            let value = values[at];
            let limits = value.zip(sampling[at]).map(|(value, sampling)| {
                let reach = z * libm::hypot(sampling, jackknife[at]);
                let (lowest, highest) = match name {
                    "mcc" => (-1.0, 1.0),
                    "log_loss" => (0.0, f64::MAX),
                    _ => (0.0, 1.0),
                };
                ((value - reach).max(lowest), (value + reach).min(highest))
            });
            out.push(Metric::new(name, value).within(limits));
        }
        out
    }

    /// Standard deviations that come from the calibration.
    fn jackknife(&self, groups: &[[Group; 2]]) -> [f64; NAMES.len()] {
        let tiles = self.cbpe.left_out.len();
        if tiles < 2 {
            return [0.0; NAMES.len()];
        }
        let shifted = |map: &Isotonic| {
            let moved = |group: Group| {
                let by = map.at(group.score) - self.cbpe.map.at(group.score);
                Group { positive: (group.positive + group.n * by).clamp(0.0, group.n), ..group }
            };
            values(&groups.iter().map(|pair| pair.map(moved)).collect::<Vec<_>>())
        };
        let all: Vec<Values> = self.cbpe.left_out.iter().map(shifted).collect();
        let mut out = [0.0; NAMES.len()];
        for (at, to) in out.iter_mut().enumerate() {
            let found: Vec<f64> = all.iter().filter_map(|values| values[at]).collect();
            let n = found.len() as f64;
            if found.len() > 1 {
                let mean = found.iter().sum::<f64>() / n;
                *to = libm::sqrt(found.iter().map(|value| (value - mean).powi(2)).sum::<f64>() * (n - 1.0) / n);
            }
        }
        out
    }

    /// Expected counts: true negatives, false positives, false negatives, true positives.
    pub fn confusion(&self) -> [f64; 4] {
        confusion(&self.groups())
    }

    /// Appends the state to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        self.cbpe.encode(writer);
        writer.u64(self.rows);
        writer.counts(&self.slots.iter().map(|slot| slot.rows).collect::<Vec<_>>());
        writer.counts(&self.slots.iter().map(|slot| slot.score).collect::<Vec<_>>());
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// `Decode` for anything else.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let cbpe = Arc::new(Cbpe::decode(reader)?);
        let rows = reader.count()?;
        let (counts, scores) = (reader.counts(2 * cbpe.slots())?, reader.counts(2 * cbpe.slots())?);
        let slots = counts.iter().zip(&scores).map(|(rows, score)| Slot { rows: *rows, score: *score }).collect();
        let out = Self { cbpe, slots, rows };
        let mut sum = 0u64;
        for slot in &out.slots {
            if u128::from(slot.score) > u128::from(slot.rows) * (UNIT as u128) {
                return Err(Error::decode("a slot of an estimate holds more than its rows allow"));
            }
            sum = sum.saturating_add(slot.rows);
        }
        if sum != out.rows || sum > MOST_ROWS {
            return Err(Error::decode("the slots of an estimate do not add up to its rows"));
        }
        Ok(out)
    }
}

fn confusion(groups: &[[Group; 2]]) -> [f64; 4] {
    let mut out = [0.0; 4];
    for pair in groups {
        for (predicted, group) in pair.iter().enumerate() {
            out[predicted] += group.n - group.positive;
            out[2 + predicted] += group.positive;
        }
    }
    out
}

fn share(part: f64, whole: f64) -> Option<f64> {
    // What rounding leaves of an empty class is no class.
    (whole > 1e-6).then(|| part / whole)
}

/// Metrics of a confusion table: true negatives, false positives, false negatives, true positives.
fn of_confusion([tn, fp, fn_, tp]: [f64; 4]) -> [Option<f64>; OF_CONFUSION] {
    let (positives, negatives, total) = (tp + fn_, tn + fp, tn + fp + fn_ + tp);
    let (recall, specificity) = (share(tp, positives), share(tn, negatives));
    [
        share(tp + tn, total),
        share(tp, tp + fp),
        recall,
        specificity,
        share(2.0 * tp, 2.0 * tp + fp + fn_),
        recall.zip(specificity).map(|(a, b)| f64::midpoint(a, b)),
        share(tp * tn - fp * fn_, libm::sqrt((tp + fp) * positives * negatives * (tn + fn_))),
        share(positives, total),
        share(tp + fp, total),
    ]
}

/// The losses of a positive and of a negative row of a score: as scikit-learn, a probability of 0 costs as much as one of 2^-52.
fn losses(score: f64) -> [[f64; 2]; 2] {
    let log = |right: f64| -libm::log(right.max(f64::EPSILON));
    [[log(score), log(1.0 - score)], [(1.0 - score).powi(2), score.powi(2)]]
}

fn values(groups: &[[Group; 2]]) -> Values {
    let table = confusion(groups);
    let (positives, total) = (table[2] + table[3], table.iter().sum::<f64>());
    let mut out: Values = [None; NAMES.len()];
    out[..OF_CONFUSION].copy_from_slice(&of_confusion(table));
    if total == 0.0 {
        return out;
    }
    let mut sums = [0.0; 2];
    let mut bins = [[0.0; 3]; CALIBRATION_BINS];
    for group in groups.iter().flatten().filter(|group| group.n > 0.0) {
        for (sum, [yes, no]) in sums.iter_mut().zip(losses(group.score)) {
            *sum += group.positive * yes + (group.n - group.positive) * no;
        }
        let bin = &mut bins[((group.score * CALIBRATION_BINS as f64) as usize).min(CALIBRATION_BINS - 1)];
        bin.iter_mut().zip([group.n, group.n * group.score, group.positive]).for_each(|(sum, term)| *sum += term);
    }
    let whole = |pair: &[Group; 2]| {
        let positive = pair[0].positive + pair[1].positive;
        ((pair[0].n + pair[1].n - positive).max(0.0), positive)
    };
    if positives > 1e-6 && total - positives > 1e-6 {
        out[11] = Some(area(groups.iter().map(whole), total - positives, positives).value);
    }
    if positives > 1e-6 {
        out[12] = Some((precisions(groups.iter().rev().map(whole)) / positives).clamp(0.0, 1.0));
    }
    (out[9], out[10]) = (Some(sums[0] / total), Some(sums[1] / total));
    out[13] = Some(bins.iter().filter(|bin| bin[0] > 0.0).map(|[_, score, positive]| (positive - score).abs()).sum::<f64>() / total);
    out
}

/// Precision at each row, summed over the positives of `(negatives, positives)` per slot, descending in the score: rows of one slot follow
/// one another, each as positive as the others.
fn precisions(slots: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (mut found, mut taken, mut sum) = (0.0f64, 0.0f64, 0.0f64);
    for (negatives, positives) in slots {
        let n = negatives + positives;
        let share = positives / n;
        // The sum over k of share * (found + share * k) / (taken + k).
        sum += share * (positives + (found - share * taken) * (harmonic(taken + n) - harmonic(taken)));
        found += positives;
        taken += n;
    }
    sum
}

/// The harmonic number 1 + 1/2 + ... + 1/n of a whole `n`, to 1e-11.
fn harmonic(n: f64) -> f64 {
    const EULER: f64 = 0.577_215_664_901_532_9;
    if n < 30.0 {
        return (1..=n as u32).map(|k| 1.0 / f64::from(k)).sum();
    }
    libm::log(n) + EULER + 1.0 / (2.0 * n) - 1.0 / (12.0 * n * n) + 1.0 / (120.0 * n.powi(4))
}

/// Standard deviations of realised metrics: labels and rows are drawn anew. `None` where there is no formula.
fn deviations(groups: &[[Group; 2]], values: &Values) -> [Option<f64>; NAMES.len()] {
    let table = confusion(groups);
    let total: f64 = table.iter().sum();
    let mut out = [None; NAMES.len()];
    if total == 0.0 {
        return out;
    }
    let shares = table.map(|count| count / total);
    // The delta method over the four cells, whose counts are multinomial.
    for (at, to) in out[..OF_CONFUSION].iter_mut().enumerate() {
        let slope = |cell: usize| {
            let step = 1e-6;
            let moved = |by: f64| {
                let mut moved = shares;
                moved[cell] = (moved[cell] + by).max(0.0);
                of_confusion(moved.map(|share| share * total))[at]
            };
            let (up, down) = (moved(step), moved(-step.min(shares[cell])));
            up.zip(down).map(|(up, down)| (up - down) / (step + step.min(shares[cell])))
        };
        let slopes = [0, 1, 2, 3].map(slope);
        if slopes.iter().all(Option::is_some) {
            let slopes = slopes.map(Option::unwrap_or_default);
            let mean: f64 = slopes.iter().zip(shares).map(|(slope, share)| slope * share).sum();
            let square: f64 = slopes.iter().zip(shares).map(|(slope, share)| slope * slope * share).sum();
            *to = Some(libm::sqrt((square - mean * mean).max(0.0) / total));
        }
    }
    for (at, kind) in [(9, 0), (10, 1)] {
        let square: f64 = groups
            .iter()
            .flatten()
            .filter(|group| group.n > 0.0)
            .map(|group| {
                let [yes, no] = losses(group.score)[kind];
                group.positive * yes * yes + (group.n - group.positive) * no * no
            })
            .sum();
        out[at] = values[at].map(|mean| libm::sqrt((square / total - mean * mean).max(0.0) / total));
    }
    let positives = table[2] + table[3];
    if let Some(auc) = values[11] {
        let whole = |pair: &[Group; 2]| {
            let positive = pair[0].positive + pair[1].positive;
            ((pair[0].n + pair[1].n - positive).max(0.0), positive)
        };
        let area = area(groups.iter().map(whole), total - positives, positives);
        out[11] = Some(area.deviation + area.tied).filter(|_| auc.is_finite());
    }
    // Boyd, Eng & Page, ECML 2013: the logit of the average precision is about normal with variance 1 / (P θ (1 - θ)).
    out[12] = values[12].map(|value| libm::sqrt(value * (1.0 - value) / positives.max(1.0)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted() -> Cbpe {
        let scores: Vec<f64> = (0..2000).map(|i| f64::from(i * 7919 % 2003) / 2003.0).collect();
        let labels: Vec<f64> = scores.iter().enumerate().map(|(i, s)| f64::from(u8::from(s * s > (i * 31 % 97) as f64 / 97.0))).collect();
        Cbpe::fit(&scores, &labels, None).unwrap()
    }

    #[test]
    fn the_table_of_lines_is_the_map() {
        let cbpe = fitted();
        let scores: Vec<f64> = (0..=5000).map(|i| f64::from(i) / 5000.0).collect();
        for (score, chance) in scores.iter().zip(cbpe.calibrated(&scores).unwrap()) {
            assert!((chance - cbpe.map().at(*score)).abs() < 1e-12, "{score}");
        }
        assert!(cbpe.check().unwrap().holds);
        assert!(cbpe.check().unwrap().raw > 0.1);
    }

    #[test]
    fn shards_merge_and_bytes_come_back() {
        let cbpe = Arc::new(fitted());
        let scores: Vec<f64> = (0..999).map(|i| f64::from(i * 37 % 1000) / 1000.0).collect();
        let (mut whole, mut left, mut right) = (CbpeEstimate::new(cbpe.clone()), CbpeEstimate::new(cbpe.clone()), CbpeEstimate::new(cbpe));
        whole.update_many(&scores, None).unwrap();
        right.update_many(&scores[400..], None).unwrap();
        left.update_many(&scores[..400], None).unwrap();
        left.merge(&right).unwrap();
        assert_eq!(left, whole);
        let mut writer = Writer::new();
        whole.encode(&mut writer);
        let bytes = writer.into_payload();
        assert_eq!(CbpeEstimate::decode(&mut Reader::new(&bytes)).unwrap(), whole);
        assert!(whole.update_many(&[1.5], None).is_err() && whole.update_many(&[0.5], Some(&[2.0])).is_err());
        assert_eq!(left, whole);
    }
}
