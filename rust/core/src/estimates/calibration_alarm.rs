//! An alarm for probabilities that stopped being right.

use super::{level, within};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

/// Bets are placed apart in each tenth of the probability,
const BINS: usize = 10;
/// on more positives and on fewer, with stakes that suit a gap of some percents or of some tens.
const STAKES: [f64; 4] = [0.1, 0.25, 0.5, 0.9];
const BETS: usize = 2 * STAKES.len();

/// Says when labels are no longer positive as often as their probabilities say, by more than a tolerance; wrong ever with probability
/// `alpha` at most.
///
/// Capital that bets on `label - probability` is a martingale while the probabilities are right; the mean of all bets' capital passes
/// `1 / alpha` with probability `alpha` at most (Ville). Source: Waudby-Smith & Ramdas, JRSSB 2024; Arnold, Henzi & Ziegel,
/// Sequentially valid tests for forecast calibration, Annals of Applied Statistics 2023.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibrationAlarm {
    alpha: f64,
    tolerance: f64,
    count: u64,
    /// Logarithms of capital.
    bets: [[f64; BETS]; BINS],
    /// Rows and sum of `label - probability`, bin by bin.
    gaps: [(u64, f64); BINS],
    alarmed: Option<u64>,
}

impl CalibrationAlarm {
    /// `tolerance`: how far the rate of positives may lie from the probability.
    ///
    /// # Errors
    /// `InvalidArgument` for a tolerance outside [0, 0.5] or a level outside (0, 0.5).
    pub fn new(tolerance: f64, alpha: f64) -> Result<Self> {
        if !(0.0..=0.5).contains(&tolerance) {
            return Err(Error::invalid(format!("`tolerance` must be in [0, 0.5], got {tolerance}")));
        }
        let bets = [[0.0; BETS]; BINS];
        Ok(Self { alpha: level(alpha)?, tolerance, count: 0, bets, gaps: [(0, 0.0); BINS], alarmed: None })
    }

    /// Adds rows, probabilities in [0, 1] and labels of 0 and 1; the position at which the alarm went off, if it did now.
    ///
    /// # Errors
    /// `InvalidArgument` naming argument and position; nothing is added then.
    pub fn update_many(&mut self, labels: &[f64], probabilities: &[f64]) -> Result<Option<usize>> {
        if labels.len() != probabilities.len() {
            return Err(Error::invalid(format!(
                "`probabilities` must have as many rows as `labels`, got {} and {}",
                probabilities.len(),
                labels.len()
            )));
        }
        within("probabilities", probabilities, 0.0, 1.0)?;
        if let Some(at) = labels.iter().position(|label| *label != 0.0 && *label != 1.0) {
            return Err(Error::invalid(format!("`labels` must be 0 or 1, got {} at position {at}", labels[at])));
        }
        let mut found = None;
        for (at, (label, probability)) in labels.iter().zip(probabilities).enumerate() {
            let bin = ((probability * BINS as f64) as usize).min(BINS - 1);
            let gap = label - probability;
            self.count += 1;
            self.gaps[bin].0 += 1;
            self.gaps[bin].1 += gap;
            for (bet, capital) in self.bets[bin].iter_mut().enumerate() {
                let sign = if bet < STAKES.len() { 1.0 } else { -1.0 };
                // Scaled, so that the most that can be lost is the stake.
                let factor = 1.0 + STAKES[bet % STAKES.len()] * (sign * gap - self.tolerance) / (1.0 + self.tolerance);
                *capital += libm::log(factor);
            }
            if self.alarmed.is_none() && self.capital() >= -libm::log(self.alpha) {
                self.alarmed = Some(self.count);
                found = Some(at);
            }
        }
        Ok(found)
    }

    /// The logarithm of the mean capital: evidence against calibration; the alarm is at `ln(1 / alpha)`.
    pub fn capital(&self) -> f64 {
        let all = self.bets.iter().flatten();
        let most = all.clone().copied().fold(f64::MIN, f64::max);
        most + libm::log(all.map(|capital| libm::exp(capital - most)).sum::<f64>() / (BETS * BINS) as f64)
    }

    /// Rows so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// After how many rows the alarm went off.
    pub fn alarmed(&self) -> Option<u64> {
        self.alarmed
    }

    /// Rows and mean of label minus probability, by tenth of the probability; `None` for an empty one.
    pub fn gaps(&self) -> [(u64, Option<f64>); BINS] {
        self.gaps.map(|(rows, sum)| (rows, (rows > 0).then(|| sum / rows as f64)))
    }

    /// Appends the state to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        writer.f64(self.alpha);
        writer.f64(self.tolerance);
        writer.u64(self.count);
        self.bets.iter().flatten().for_each(|capital| writer.f64(*capital));
        for (rows, sum) in self.gaps {
            writer.u64(rows);
            writer.f64(sum);
        }
        writer.u64(self.alarmed.unwrap_or(0));
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// `Decode` for anything else.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let (alpha, tolerance) = (reader.finite()?, reader.finite()?);
        let mut out = Self::new(tolerance, alpha).map_err(|error| Error::decode(error.message))?;
        out.count = reader.count()?;
        for capital in out.bets.iter_mut().flatten() {
            *capital = reader.finite()?;
        }
        for gap in &mut out.gaps {
            *gap = (reader.count()?, reader.finite()?);
        }
        out.alarmed = Some(reader.u64()?).filter(|at| *at > 0);
        if out.alarmed.is_some_and(|at| at > out.count) {
            return Err(Error::decode("an alarm must not be later than the rows"));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_probabilities_stay_quiet_and_wrong_ones_do_not() {
        let labels: Vec<f64> = (0..5000).map(|i| f64::from(u8::from(i * 7919 % 1000 < 300))).collect();
        let mut alarm = CalibrationAlarm::new(0.0, 0.01).unwrap();
        assert_eq!(alarm.update_many(&labels, &vec![0.3; labels.len()]).unwrap(), None);
        let mut alarm = CalibrationAlarm::new(0.05, 0.01).unwrap();
        assert!(alarm.update_many(&labels, &vec![0.5; labels.len()]).unwrap().is_some_and(|at| at < 500));
        let mut writer = Writer::new();
        alarm.encode(&mut writer);
        assert_eq!(CalibrationAlarm::decode(&mut Reader::new(&writer.into_payload())).unwrap(), alarm);
        assert!(alarm.update_many(&[0.5], &[0.5]).is_err());
    }
}
