//! An alarm for a risk that rose above the reference's.

use super::{MeanSequence, level, within};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

/// Says when the mean of bounded losses is above that of the reference by more than a tolerance; wrong ever with probability `alpha`.
///
/// Half of the level goes to an upper limit of the reference's mean, half to a lower limit of the current one, which holds at any
/// time. Source: Podkopaev & Ramdas, Tracking the risk of a deployed model, ICLR 2022.
#[derive(Clone, Debug, PartialEq)]
pub struct RiskAlarm {
    /// What the mean must exceed.
    limit: f64,
    losses: MeanSequence,
    alarmed: Option<u64>,
}

impl RiskAlarm {
    /// `reference`: losses in [lower, upper] of the reference's rows.
    ///
    /// # Errors
    /// `InvalidArgument` for no or wrong losses, a negative tolerance, a level outside (0, 0.5).
    pub fn new(reference: &[f64], tolerance: f64, alpha: f64, bounds: (f64, f64)) -> Result<Self> {
        level(alpha)?;
        if reference.is_empty() {
            return Err(Error::invalid("`reference` must hold losses, got none"));
        }
        if !(tolerance >= 0.0 && tolerance.is_finite()) {
            return Err(Error::invalid(format!("`tolerance` must not be negative, got {tolerance}")));
        }
        let mut known = MeanSequence::new(bounds.0, bounds.1, alpha)?;
        known.update_many(reference)?;
        Ok(Self { limit: known.interval().1 + tolerance, losses: MeanSequence::new(bounds.0, bounds.1, alpha)?, alarmed: None })
    }

    /// Adds losses; the position among them at which the alarm went off, if it did now.
    ///
    /// # Errors
    /// `InvalidArgument` for a loss outside the range; nothing is added then.
    pub fn update_many(&mut self, losses: &[f64]) -> Result<Option<usize>> {
        let (lower, upper) = self.losses.bounds();
        within("losses", losses, lower, upper)?;
        let mut found = None;
        for (at, loss) in losses.iter().enumerate() {
            if self.losses.above(*loss, self.limit) && self.alarmed.is_none() {
                self.alarmed = Some(self.losses.count());
                found = Some(at);
            }
        }
        Ok(found)
    }

    /// What the mean is held against: the reference's upper limit and the tolerance.
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// The losses since the beginning.
    pub fn losses(&self) -> &MeanSequence {
        &self.losses
    }

    /// After how many losses the alarm went off.
    pub fn alarmed(&self) -> Option<u64> {
        self.alarmed
    }

    /// Appends the state to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        writer.f64(self.limit);
        self.losses.encode(writer);
        writer.u64(self.alarmed.unwrap_or(0));
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// `Decode` for anything else.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let (limit, losses) = (reader.finite()?, MeanSequence::decode(reader)?);
        let alarmed = Some(reader.u64()?).filter(|at| *at > 0);
        if alarmed.is_some_and(|at| at > losses.count()) {
            return Err(Error::decode("an alarm must not be later than the losses"));
        }
        Ok(Self { limit, losses, alarmed })
    }
}
