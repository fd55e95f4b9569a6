//! How long labels take: the time from an event to the label that was joined to it first, counted by length.

use barograph_core::Result;
use barograph_core::codec::{Reader, Writer};

use crate::window::{DAY, HOUR};

const MINUTE: i64 = HOUR / 60;
/// Lengths, in nanoseconds, up to which labels are counted together; the last count is of all longer ones.
pub const EDGES: [i64; 15] = [
    MINUTE,
    5 * MINUTE,
    15 * MINUTE,
    HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    4 * DAY,
    7 * DAY,
    14 * DAY,
    30 * DAY,
    60 * DAY,
    90 * DAY,
];

/// Counts of labels by how long they took. Whole numbers: what is taken away again leaves no trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    counts: [u64; EDGES.len() + 1],
}

impl Delays {
    /// Of each length up to which labels are counted, the last without an end, how many took no longer and longer than the one before.
    pub fn counts(&self) -> impl Iterator<Item = (Option<i64>, u64)> {
        EDGES.into_iter().map(Some).chain([None]).zip(self.counts)
    }

    /// Whether no label is counted.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    fn count(&mut self, length: i64) -> &mut u64 {
        // The position is one of 16 by what it is made of; labels that came before their event took no time.
        &mut self.counts[EDGES.partition_point(|edge| *edge < length)]
    }

    /// A label came so long after its event, for `times` of them.
    pub(crate) fn add(&mut self, length: i64, times: u64) {
        let count = self.count(length);
        *count = count.saturating_add(times);
    }

    /// It counts no longer.
    pub(crate) fn remove(&mut self, length: i64, times: u64) {
        let count = self.count(length);
        *count = count.saturating_sub(times);
    }

    /// Adds another's counts.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine = mine.saturating_add(theirs));
    }

    /// Appends the counts to a snapshot.
    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.counts(&self.counts);
    }

    /// Reads counts back.
    ///
    /// # Errors
    /// `Decode` at the end of the bytes.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let mut out = Self::default();
        out.counts.copy_from_slice(&reader.counts(EDGES.len() + 1)?);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_counted_by_how_long_they_took() {
        let mut delays = Delays::default();
        for (length, times) in [(-HOUR, 1), (0, 1), (MINUTE, 1), (MINUTE + 1, 2), (90 * DAY, 3), (i64::MAX, 4)] {
            delays.add(length, times);
        }
        let counts: Vec<(Option<i64>, u64)> = delays.counts().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [(Some(MINUTE), 3), (Some(5 * MINUTE), 2), (Some(90 * DAY), 3), (None, 4)]);
        delays.remove(i64::MAX, 3);
        let mut twice = delays;
        twice.merge(&delays);
        assert_eq!(twice.counts().map(|(_, count)| count).sum::<u64>(), 18);
        let mut writer = Writer::new();
        twice.encode(&mut writer);
        assert_eq!(Delays::decode(&mut Reader::new(&writer.into_payload())).unwrap(), twice);
    }
}
