//! Event time cut into tiles, and tiles joined to windows. Windows are half-open and align to the UTC epoch, weeks to Monday.

use barograph_core::codec::{Reader, Writer};
use barograph_core::sketches::ExponentialHistogram;
use barograph_core::{Error, Result};

use crate::profile::Profile;
use crate::quality::{Quality, Task};
use crate::reference::Reference;

const SECOND: i64 = 1_000_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 3600 * SECOND;
pub(crate) const DAY: i64 = 24 * HOUR;

/// The start of the window of this length that holds a time; nanoseconds since the epoch.
pub fn start_of(time: i64, length: i64) -> i64 {
    // The epoch was a Thursday: whole weeks begin four days later.
    let offset = if length % (7 * DAY) == 0 { 4 * DAY } else { 0 };
    (time.saturating_sub(offset)).div_euclid(length).saturating_mul(length).saturating_add(offset)
}

/// The tile for windows of this length: a day for whole days, else the window itself.
///
/// # Errors
/// `InvalidArgument` for a window outside [1 s, 366 d].
pub fn tile_of(window: i64) -> Result<i64> {
    if !(SECOND..=366 * DAY).contains(&window) {
        return Err(Error::invalid(format!("`window` must be between 1 second and 366 days, got {} s", window / SECOND))
            .hint("\"1h\", \"1d\" and \"1w\" are usual"));
    }
    Ok(if window % DAY == 0 { DAY } else { window })
}

/// What is kept of the smallest window.
#[derive(Clone, Debug, PartialEq)]
pub struct Tile {
    /// The events' columns on the reference's bins.
    pub profile: Profile,
    /// Latency in seconds.
    pub latency: ExponentialHistogram,
    /// Predictions of labelled events by label.
    pub quality: Quality,
    /// Events whose label has come.
    pub labelled: u64,
    /// Events and calls that failed.
    pub errors: u64,
    /// Calls that were given without events.
    pub calls: u64,
}

impl Tile {
    /// An empty one.
    ///
    /// # Errors
    /// None in practice.
    pub fn new(reference: &Reference, task: Task, classes: usize) -> Result<Self> {
        Ok(Self {
            profile: Profile::new(&reference.schema(), Some(reference))?,
            latency: ExponentialHistogram::new(6)?,
            quality: Quality::new(task, classes)?,
            labelled: 0,
            errors: 0,
            calls: 0,
        })
    }

    /// Appends the tile to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        self.profile.encode(writer);
        self.latency.encode(writer);
        self.quality.encode(writer);
        writer.u64(self.labelled);
        writer.u64(self.errors);
        writer.u64(self.calls);
    }

    /// Reads a tile back.
    ///
    /// # Errors
    /// `Decode` for bytes that no `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            profile: Profile::decode(reader)?,
            latency: ExponentialHistogram::decode(reader)?,
            quality: Quality::decode(reader)?,
            labelled: reader.u64()?,
            errors: reader.u64()?,
            calls: reader.u64()?,
        })
    }

    /// Appends the tile to a delta: metrics only where a label has come.
    pub(crate) fn tell(&self, writer: &mut Writer) {
        self.profile.encode(writer);
        self.latency.encode(writer);
        writer.u64(self.labelled);
        if self.labelled > 0 {
            self.quality.encode(writer);
        }
        writer.u64(self.errors);
        writer.u64(self.calls);
    }

    /// Reads a tile of a delta that counts this reference's bins. It is checked column by column, before anything is made of what it says.
    ///
    /// # Errors
    /// `Decode` for bytes that no `encode` wrote, and for a tile of another reference or task.
    pub(crate) fn heard(reader: &mut Reader<'_>, reference: &Reference, task: Task, classes: usize) -> Result<Self> {
        let mut out = Self {
            profile: Profile::decode_of(reader, reference)?,
            latency: ExponentialHistogram::decode(reader)?,
            quality: Quality::new(task, classes)?,
            labelled: 0,
            errors: 0,
            calls: 0,
        };
        out.labelled = reader.count()?;
        let mut fits = out.latency.scale() == 6;
        if out.labelled > 0 {
            let told = Quality::decode(reader)?;
            fits &= out.quality.merge(&told).is_ok();
        }
        (out.errors, out.calls) = (reader.count()?, reader.count()?);
        if fits { Ok(out) } else { Err(Error::decode("a tile of the snapshot is of another task")) }
    }

    /// Refuses a tile that does not count this reference's bins, or is of another task.
    ///
    /// # Errors
    /// `Decode`.
    pub fn check(&self, reference: &Reference, task: Task, classes: usize) -> Result<()> {
        let mut empty = Self::new(reference, task, classes)?;
        let alike = self.latency.scale() == empty.latency.scale() && empty.quality.merge(&self.quality).is_ok();
        if !alike || empty.profile.merge(&self.profile).is_err() {
            return Err(Error::decode("a tile of the snapshot belongs to another reference"));
        }
        Ok(())
    }

    /// Adds another tile of a delta.
    ///
    /// # Errors
    /// `Incompatible` for a tile of another reference.
    pub(crate) fn add(&mut self, other: &Self) -> Result<()> {
        self.profile.merge(&other.profile)?;
        self.latency.merge(&other.latency)?;
        if other.labelled > 0 {
            self.quality.merge(&other.quality)?;
        }
        self.labelled += other.labelled;
        self.errors += other.errors;
        self.calls += other.calls;
        Ok(())
    }

    /// Adds another tile.
    ///
    /// # Errors
    /// `Incompatible` for a tile of another reference.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.profile.merge(&other.profile)?;
        self.latency.merge(&other.latency)?;
        self.quality.merge(&other.quality)?;
        self.labelled += other.labelled;
        self.errors += other.errors;
        self.calls += other.calls;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_align_to_the_epoch_and_weeks_to_monday() {
        let monday = 1_357_516_800 * SECOND; // 2013-01-07
        assert_eq!(start_of(monday + 3 * DAY + 5, 7 * DAY), monday);
        assert_eq!(start_of(monday - 1, 7 * DAY), monday - 7 * DAY);
        assert_eq!(start_of(-1, 3600 * SECOND), -3600 * SECOND);
    }
}
