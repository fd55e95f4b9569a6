//! Area under the ROC curve from counts of scores.

use crate::codec::{Reader, Writer};
use crate::error::Result;
use crate::scores::{Interval, Score};

/// Cells per octave of `min(s, 1 - s)`: log-linear, so that rare events keep their resolution.
const PER_OCTAVE: usize = 128;
const OCTAVES: usize = 24;
/// Nearer to 0 or 1 than this scores share a cell.
const LEAST: f64 = 1.0 / (1u64 << OCTAVES) as f64;
/// Rows of the rarer class from which `DeLong`'s normal limits hold. With fewer they can be a point: classes that happen to lie apart have
/// no deviation, however few they are.
const LEAST_NORMAL: f64 = 10.0;
/// Cells up to one half.
pub(crate) const HALF: usize = OCTAVES * PER_OCTAVE + 1;

/// Counts of scores in [0, 1] per label, from which the AUC follows within a certain interval.
///
/// Adding is exact and free of order. About 100 KB once used; 2 ns per value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RocAuc {
    counts: [Vec<u64>; 2],
}

impl RocAuc {
    /// The cell of a score, ascending in the score.
    #[inline]
    pub(crate) fn cell(score: f64) -> usize {
        let low = score.min(1.0 - score);
        let bits = low.max(LEAST).to_bits();
        // 7 mantissa bits: 128 equal cells in each octave below one half.
        let at = ((bits >> 45) as usize).saturating_sub((1023 - OCTAVES) << 7).min(HALF - 1);
        // at, or its mirror image, without a branch.
        let upper = usize::from(score > 0.5);
        at + upper * (2 * HALF - 1 - 2 * at)
    }

    /// The middle of a cell, within 0.4 % of the distance to 0 or 1 of every score in it.
    fn middle(cell: usize) -> f64 {
        let mirrored = cell >= HALF;
        let at = if mirrored { 2 * HALF - 1 - cell } else { cell };
        let bits = ((at + ((1023 - OCTAVES) << 7)) as u64) << 45;
        // One half is alone in its cell, the last.
        let low = f64::from_bits(bits | 1 << 44).min(0.5);
        if mirrored { 1.0 - low } else { low }
    }

    /// Scores in ascending order, each with the counts of both labels; cells that hold nothing are left out.
    pub(super) fn cells(&self) -> impl Iterator<Item = (f64, u64, u64)> + '_ {
        let count = |label: usize, cell: usize| self.counts[label].get(cell).copied().unwrap_or(0);
        (0..2 * HALF)
            .map(move |cell| (Self::middle(cell), count(0, cell), count(1, cell)))
            .filter(|(_, negative, positive)| negative + positive > 0)
    }

    /// Counts a score with its label. Scores outside [0, 1] and NaN are refused: false.
    pub fn update(&mut self, score: f64, positive: bool) -> bool {
        self.add(score, positive, 1)
    }

    /// Counts scores in [0, 1] with their labels, each as `count`.
    pub(super) fn add_many(&mut self, rows: impl Iterator<Item = (f64, bool)>, count: u64) {
        self.counts.iter_mut().for_each(|counts| counts.resize(2 * HALF, 0));
        // Both classes side by side, so that the label is part of the index and not a branch.
        let mut both = vec![0u64; 4 * HALF];
        for (score, label) in rows {
            if let Some(cell) = both.get_mut(2 * Self::cell(score) + usize::from(label)) {
                *cell += count;
            }
        }
        for (label, counts) in self.counts.iter_mut().enumerate() {
            counts.iter_mut().zip(both.iter().skip(label).step_by(2)).for_each(|(to, from)| *to += from);
        }
        for counts in &mut self.counts {
            // An absent class is an empty row: equal rows give equal bytes.
            if counts.iter().all(|count| *count == 0) {
                counts.clear();
            }
        }
    }

    /// Counts `count` scores at once.
    pub(super) fn add(&mut self, score: f64, positive: bool, count: u64) -> bool {
        if !(0.0..=1.0).contains(&score) {
            return false;
        }
        let counts = &mut self.counts[usize::from(positive)];
        if counts.is_empty() {
            counts.resize(2 * HALF, 0);
        }
        counts[Self::cell(score)] += count;
        true
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            mine.resize(mine.len().max(theirs.len()), 0);
            mine.iter_mut().zip(theirs).for_each(|(to, from)| *to += from);
        }
    }

    /// Takes another's counts away; they must be among these.
    pub(super) fn subtract(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            mine.iter_mut().zip(theirs).for_each(|(from, count)| *from = from.saturating_sub(*count));
            if mine.iter().all(|count| *count == 0) {
                mine.clear();
            }
        }
    }

    /// `(negatives, positives)`.
    pub fn totals(&self) -> (u64, u64) {
        (self.counts[0].iter().sum(), self.counts[1].iter().sum())
    }

    /// The AUC: its certain half-width (order inside a cell is unknown) plus the sampling interval at `confidence`.
    ///
    /// Below ten rows of the rarer class the interval is Hoeffding's, exact at any number of rows and wide: from 0 to 1 for one or two.
    /// `None` while a class is missing. Range [0, 1]. Sources: DeLong, DeLong & Clarke-Pearson, Biometrics 1988; Hoeffding, Probability
    /// Inequalities for Sums of Bounded Random Variables, JASA 1963, section 5b.
    pub fn score(&self, confidence: f64) -> Option<Score> {
        self.scaled(confidence, 1.0)
    }

    /// As [`score`](Self::score), each count standing for `unit` rows.
    pub(super) fn scaled(&self, confidence: f64, unit: f64) -> Option<Score> {
        let (negatives, positives) = self.totals();
        if negatives == 0 || positives == 0 {
            return None;
        }
        let cells = self.counts[0].iter().zip(&self.counts[1]).map(|(neg, pos)| (*neg as f64 * unit, *pos as f64 * unit));
        let Area { value, deviation, tied } = area(cells, negatives as f64 * unit, positives as f64 * unit);
        let fewest = negatives.min(positives) as f64 * unit;
        let sampling = if fewest < LEAST_NORMAL {
            libm::sqrt(libm::log(2.0 / (1.0 - confidence).max(f64::MIN_POSITIVE)) / (2.0 * fewest))
        } else {
            crate::distributions::normal_quantile(f64::midpoint(1.0, confidence)) * deviation
        };
        let reach = sampling + tied;
        Some(Score {
            value,
            lower: Some((value - reach).max(0.0)),
            upper: Some((value + reach).min(1.0)),
            interval: Some(Interval::Confidence),
            p_value: None,
            contributions: Vec::new(),
        })
    }

    /// Average precision: positives and negatives of a cell are taken as evenly mixed. `None` without positives.
    ///
    /// Within 1e-3 of the exact value; scores that are tied in bulk are where it is largest. Range [0, 1].
    pub fn average_precision(&self) -> Option<f64> {
        let (_, positives) = self.totals();
        if positives == 0 {
            return None;
        }
        let negatives = &self.counts[0];
        let cells = self.counts[1].iter().enumerate().rev();
        Some(precision_sum(cells.map(|(at, pos)| (negatives.get(at).map_or(0.0, |n| *n as f64), *pos as f64))) / positives as f64)
    }

    /// Appends the counts to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        for counts in &self.counts {
            writer.bool(!counts.is_empty());
            writer.counts(counts);
        }
    }

    /// Reads counts back.
    ///
    /// # Errors
    /// `Decode` at the end of the bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let mut out = Self::default();
        for counts in &mut out.counts {
            if reader.bool()? {
                *counts = reader.counts(2 * HALF)?;
            }
        }
        Ok(out)
    }
}

/// The area under the curve of counts, and how far it can be off.
pub(crate) struct Area {
    pub(crate) value: f64,
    /// Standard deviation by `DeLong`'s formula.
    pub(crate) deviation: f64,
    /// Half of the share of pairs whose order inside a cell is unknown.
    pub(crate) tied: f64,
}

/// The area under the curve of `(negatives, positives)` per cell, ascending in the score; `n` and `p` are their sums, above 0.
pub(crate) fn area(cells: impl Iterator<Item = (f64, f64)>, n: f64, p: f64) -> Area {
    let (mut below, mut low, mut tied) = (0.0f64, 0.0f64, 0.0f64);
    let mut above_positive = p;
    let (mut square_positive, mut square_negative) = (0.0f64, 0.0f64);
    for (neg, pos) in cells {
        above_positive -= pos;
        low += pos * below;
        tied += pos * neg;
        square_positive += pos * ((below + neg / 2.0) / n).powi(2);
        square_negative += neg * ((above_positive + pos / 2.0) / p).powi(2);
        below += neg;
    }
    let value = (low + tied / 2.0) / (n * p);
    let spread = |square: f64, size: f64| if size > 1.0 { (square / size - value * value).max(0.0) / (size - 1.0) } else { 0.25 };
    Area { value, deviation: libm::sqrt(spread(square_positive, p) + spread(square_negative, n)), tied: tied / (2.0 * n * p) }
}

/// Precision summed over the positives of `(negatives, positives)` per cell, descending in the score.
fn precision_sum(cells: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (mut found, mut taken, mut sum) = (0.0f64, 0.0f64, 0.0f64);
    for (n, p) in cells {
        let size = p + n;
        if p > 0.0 {
            // The integral of precision over the cell, precision moving from found/taken to (found+p)/(taken+size).
            let share = p / size;
            let mixed = if taken > 0.0 { share + (found - taken * share) / size * libm::log1p(size / taken) } else { share };
            sum += p * mixed;
        }
        found += p;
        taken += size;
    }
    sum.clamp(0.0, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_cell_lies_in_it() {
        for at in 0..=10_000 {
            let score = f64::from(at) / 10_000.0;
            let middle = RocAuc::middle(RocAuc::cell(score));
            assert_eq!(RocAuc::cell(middle), RocAuc::cell(score), "{score}");
            assert!((middle - score).abs() <= 0.004 * score.min(1.0 - score).max(LEAST) + LEAST, "{score} {middle}");
        }
        let mut auc = RocAuc::default();
        assert!(auc.update(0.25, true) && auc.update(0.25, false) && auc.update(0.9, true));
        let found: Vec<(f64, u64, u64)> = auc.cells().collect();
        assert_eq!(found.iter().map(|cell| (cell.1, cell.2)).collect::<Vec<_>>(), [(1, 1), (0, 1)]);
        assert!((found[0].0 - 0.25).abs() < 0.002 && (found[1].0 - 0.9).abs() < 0.001);
    }

    #[test]
    fn a_few_rows_that_lie_apart_say_next_to_nothing() {
        let of = |each: u32| {
            let mut auc = RocAuc::default();
            for at in 0..each {
                // Every positive below every negative.
                assert!(auc.update(0.1 + f64::from(at) * 1e-3, true) && auc.update(0.8 + f64::from(at) * 1e-3, false));
            }
            let score = auc.score(0.99).unwrap();
            (score.value, score.lower.unwrap(), score.upper.unwrap())
        };
        assert_eq!(of(1), (0.0, 0.0, 1.0));
        assert_eq!(of(2), (0.0, 0.0, 1.0));
        // sqrt(ln(200) / 18), of nine rows.
        assert!((of(9).2 - 0.5425).abs() < 1e-4);
        assert!(of(10).2 < 0.01);
    }

    #[test]
    fn the_interval_holds_the_rank_statistic() {
        let mut auc = RocAuc::default();
        let rows: Vec<(f64, bool)> = (0..2000u32).map(|i| (f64::from(i * 7919 % 2003) / 2003.0, i * 7919 % 2003 > 900 + i % 200)).collect();
        for (score, positive) in &rows {
            assert!(auc.update(*score, *positive));
        }
        assert!(!auc.update(1.5, true) && !auc.update(f64::NAN, true));
        let (mut wins, mut pairs) = (0.0, 0.0);
        for (s, _) in rows.iter().filter(|r| r.1) {
            for (t, _) in rows.iter().filter(|r| !r.1) {
                wins += if s > t {
                    1.0
                } else if s == t {
                    0.5
                } else {
                    0.0
                };
                pairs += 1.0;
            }
        }
        let score = auc.score(0.95).unwrap();
        assert!((score.value - wins / pairs).abs() < 1e-3, "{} {}", score.value, wins / pairs);
        assert!(score.lower.unwrap() <= score.value && score.value <= score.upper.unwrap());
    }
}
