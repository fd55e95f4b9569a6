//! A confidence sequence of the area under the ROC curve, or of the difference between two models' areas.

use std::collections::VecDeque;

use super::{MeanSequence, within};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

/// Events that may wait for a partner of the other class; more are left out and counted.
const MOST_WAITING: usize = 100_000;

/// Positives and negatives paired in the order they come, each event once: a pair says which of its two scores is higher.
///
/// The mean over such pairs is the AUC, and with two models' scores the mean of the differences is the difference of their AUCs;
/// its limits are those of [`MeanSequence`].
#[derive(Clone, Debug, PartialEq)]
pub struct AucSequence {
    pairs: MeanSequence,
    paired: bool,
    /// Scores of the two models that wait, all of one class.
    waiting: VecDeque<(f64, f64)>,
    positive: bool,
    left_out: u64,
}

impl AucSequence {
    /// Of one model, or of the difference between two.
    ///
    /// # Errors
    /// `InvalidArgument` for a level outside (0, 0.5).
    pub fn new(paired: bool, alpha: f64) -> Result<Self> {
        let pairs = MeanSequence::new(if paired { -1.0 } else { 0.0 }, 1.0, alpha)?;
        Ok(Self { pairs, paired, waiting: VecDeque::new(), positive: false, left_out: 0 })
    }

    /// Adds events: labels of 0 and 1, finite scores, and the other model's for a difference.
    ///
    /// # Errors
    /// `InvalidArgument` naming argument and position; nothing is added then.
    pub fn update_many(&mut self, labels: &[f64], scores: &[f64], others: Option<&[f64]>) -> Result<()> {
        if others.is_some() != self.paired {
            let want = if self.paired { "must be given" } else { "must not be given" };
            return Err(Error::invalid(format!("`other_scores` {want} for this sequence")));
        }
        for (name, values) in [("scores", Some(scores)), ("other_scores", others)] {
            let Some(values) = values else { continue };
            if values.len() != labels.len() {
                return Err(Error::invalid(format!(
                    "`{name}` must have as many rows as `labels`, got {} and {}",
                    values.len(),
                    labels.len()
                )));
            }
            within(name, values, f64::MIN, f64::MAX)?;
        }
        if let Some(at) = labels.iter().position(|label| *label != 0.0 && *label != 1.0) {
            return Err(Error::invalid(format!("`labels` must be 0 or 1, got {} at position {at}", labels[at])));
        }
        let mut values = Vec::new();
        for (row, label) in labels.iter().enumerate() {
            let (event, positive) = ((scores[row], others.map_or(0.0, |others| others[row])), *label == 1.0);
            if self.waiting.is_empty() || self.positive == positive {
                self.positive = positive;
                if self.waiting.len() < MOST_WAITING {
                    self.waiting.push_back(event);
                } else {
                    self.left_out += 1;
                }
                continue;
            }
            let Some(partner) = self.waiting.pop_front() else { continue };
            let (above, below) = if positive { (event, partner) } else { (partner, event) };
            let other = if self.paired { won(above.1, below.1) } else { 0.0 };
            values.push(won(above.0, below.0) - other);
        }
        self.pairs.update_many(&values)
    }

    /// Pairs so far.
    pub fn count(&self) -> u64 {
        self.pairs.count()
    }

    /// Events that found no place to wait.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The share of pairs in the right order, or the difference of both models' shares.
    pub fn mean(&self) -> Option<f64> {
        self.pairs.mean()
    }

    /// The limits.
    pub fn interval(&self) -> (f64, f64) {
        self.pairs.interval()
    }

    /// Appends the state to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        writer.bool(self.paired);
        self.pairs.encode(writer);
        writer.bool(self.positive);
        writer.u64(self.left_out);
        writer.len(self.waiting.len());
        for (score, other) in &self.waiting {
            writer.f64(*score);
            writer.f64(*other);
        }
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// `Decode` for anything else.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let (paired, pairs) = (reader.bool()?, MeanSequence::decode(reader)?);
        let (positive, left_out) = (reader.bool()?, reader.u64()?);
        let waiting = reader.len(16)?;
        if waiting > MOST_WAITING {
            return Err(Error::decode(format!("at most {MOST_WAITING} events wait, got {waiting}")));
        }
        let waiting = (0..waiting).map(|_| Ok((reader.finite()?, reader.finite()?))).collect::<Result<_>>()?;
        let out = Self { pairs, paired, waiting, positive, left_out };
        if out.pairs.bounds() != Self::new(paired, 0.05)?.pairs.bounds() {
            return Err(Error::decode("the range of an AUC is [0, 1], that of a difference [-1, 1]"));
        }
        Ok(out)
    }
}

fn won(above: f64, below: f64) -> f64 {
    if above > below {
        1.0
    } else if above == below {
        0.5
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_in_one_pair() {
        let mut sequence = AucSequence::new(false, 0.05).unwrap();
        sequence.update_many(&[1.0, 1.0, 0.0, 0.0, 0.0, 1.0], &[0.9, 0.1, 0.5, 0.5, 0.3, 0.3], None).unwrap();
        assert_eq!((sequence.count(), sequence.mean()), (3, Some(0.5)));
        let mut writer = Writer::new();
        sequence.encode(&mut writer);
        assert_eq!(AucSequence::decode(&mut Reader::new(&writer.into_payload())).unwrap(), sequence);
        assert!(sequence.update_many(&[1.0], &[0.5], Some(&[0.5])).is_err() && sequence.update_many(&[2.0], &[0.5], None).is_err());
    }
}
