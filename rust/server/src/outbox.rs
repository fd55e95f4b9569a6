//! What a sidecar of a fleet has for its aggregator: parcels in the order of their numbers, each kept until it was taken.
//!
//! It is a part of the model and changes with its records alone, so that a replay makes the same parcels under the same numbers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use barograph_core::codec::{Reader, Writer};
use barograph_core::{Error, Result};
use bytes::Bytes;

use crate::streams::{MOST_STREAMS, Numbered, is_name};

/// What a parcel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parcels {
    /// A delta, see [`barograph_engine::delta`].
    Delta,
    /// Events as an Arrow stream: the aggregator learns its reference of them.
    Events,
    /// Labels as an Arrow stream.
    Labels,
}

/// Something for the aggregator.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Its place in the stream.
    pub number: u64,
    /// What it holds.
    pub what: Parcels,
    /// Events or labels in it.
    pub rows: u64,
    /// It.
    pub bytes: Bytes,
}

/// The parcels of a model.
#[derive(Clone, Debug)]
pub struct Outbox {
    /// The stream that they are numbered in.
    pub stream: Arc<str>,
    /// Requests and left-out events of the model's counts that were told.
    pub(crate) told: [u64; 2],
    next: u64,
    parcels: VecDeque<Parcel>,
    bytes: usize,
}

impl Outbox {
    /// An empty one.
    pub fn new(stream: &str) -> Self {
        Self { stream: stream.into(), told: [0; 2], next: 1, parcels: VecDeque::new(), bytes: 0 }
    }

    /// Adds a parcel under the next number.
    pub fn push(&mut self, what: Parcels, rows: u64, bytes: Vec<u8>) {
        self.bytes += bytes.len();
        self.parcels.push_back(Parcel { number: self.next, what, rows, bytes: bytes.into() });
        self.next += 1;
    }

    /// The aggregator has a parcel.
    pub fn sent(&mut self, number: u64) {
        if let Some(at) = self.parcels.iter().position(|parcel| parcel.number == number)
            && let Some(parcel) = self.parcels.remove(at)
        {
            self.bytes -= parcel.bytes.len();
        }
    }

    /// Parcels that wait, in order.
    pub fn parcels(&self) -> impl Iterator<Item = &Parcel> {
        self.parcels.iter()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last number that was given.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.str(&self.stream);
        self.told.into_iter().for_each(|count| writer.u64(count));
        writer.u64(self.next);
        writer.len(self.parcels.len());
        for parcel in &self.parcels {
            writer.u64(parcel.number);
            writer.u8(match parcel.what {
                Parcels::Delta => 0,
                Parcels::Events => 1,
                Parcels::Labels => 2,
            });
            writer.u64(parcel.rows);
            writer.bytes(&parcel.bytes);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let wrong = || Error::decode("the parcels of an outbox are out of order");
        let stream = reader.str()?;
        if !is_name(stream) {
            return Err(Error::decode("the stream of an outbox has no name that can be"));
        }
        let mut out = Self::new(stream);
        out.told = [reader.u64()?, reader.u64()?];
        let next = reader.u64()?.clamp(1, u64::MAX - 1);
        for _ in 0..reader.len(4)? {
            let number = reader.u64()?;
            let what = match reader.u8()? {
                0 => Parcels::Delta,
                1 => Parcels::Events,
                2 => Parcels::Labels,
                _ => return Err(wrong()),
            };
            if number >= next || out.parcels.back().is_some_and(|last| last.number >= number) {
                return Err(wrong());
            }
            let rows = reader.count()?;
            let bytes = Bytes::copy_from_slice(reader.bytes()?);
            out.bytes += bytes.len();
            out.parcels.push_back(Parcel { number, what, rows, bytes });
        }
        out.next = next;
        Ok(out)
    }
}

/// A sidecar whose deltas were taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// By its clock: what arrived there until then has come.
    pub until: i64,
    /// When its last delta came.
    pub seen: i64,
    /// Deltas.
    pub deltas: u64,
    /// Events in them.
    pub events: u64,
}

/// How long windows stay open for a sidecar that is behind.
pub const PATIENCE: i64 = 60 * 1_000_000_000;

/// The sidecars that a model hears of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    sources: BTreeMap<Arc<str>, Source>,
}

impl Sources {
    /// A delta of one was taken.
    pub fn heard(&mut self, from: &Numbered, until: i64, events: u64, now: i64) {
        if !self.sources.contains_key(&from.stream) && self.sources.len() >= MOST_STREAMS {
            let oldest = self.sources.iter().min_by_key(|(_, source)| source.seen).map(|(name, _)| Arc::clone(name));
            oldest.map(|name| self.sources.remove(&name));
        }
        let source = self.sources.entry(Arc::clone(&from.stream)).or_default();
        source.until = source.until.max(until);
        source.seen = now;
        source.deltas += 1;
        source.events = source.events.saturating_add(events);
    }

    /// Up to when windows may close: all sidecars that were heard of lately have told what they saw until then. Nobody is waited for longer
    /// than a minute.
    pub fn horizon(&self, now: i64) -> i64 {
        let least = now.saturating_sub(PATIENCE);
        let heard = self.sources.values().filter(|source| source.seen >= least);
        heard.map(|source| source.until.max(least)).min().map_or(now, |until| until.min(now))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Source)> {
        self.sources.iter().map(|(name, source)| (name.as_ref(), source))
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.len(self.sources.len());
        for (name, source) in &self.sources {
            writer.str(name);
            writer.i64(source.until);
            writer.i64(source.seen);
            writer.u64(source.deltas);
            writer.u64(source.events);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let mut out = Self::default();
        for _ in 0..reader.len(5)?.min(MOST_STREAMS) {
            let name = reader.str()?.into();
            let (until, seen) = (reader.i64()?, reader.i64()?);
            out.sources.insert(name, Source { until, seen, deltas: reader.count()?, events: reader.count()? });
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parcels_keep_their_numbers_whatever_is_taken() {
        let mut outbox = Outbox::new("a.1");
        for rows in 1..=4 {
            outbox.push(Parcels::Delta, rows, vec![7; rows as usize]);
        }
        outbox.sent(2);
        outbox.sent(2);
        outbox.sent(99);
        let mut writer = Writer::new();
        outbox.encode(&mut writer);
        let bytes = writer.into_payload();
        let mut again = Outbox::decode(&mut Reader::new(&bytes)).unwrap();
        again.push(Parcels::Labels, 9, Vec::new());
        assert_eq!(again.parcels().map(|parcel| (parcel.number, parcel.rows)).collect::<Vec<_>>(), [(1, 1), (3, 3), (4, 4), (5, 9)]);
        assert_eq!((again.bytes(), again.last()), (8, 5));
        for len in 0..bytes.len() {
            assert!(Outbox::decode(&mut Reader::new(&bytes[..len])).is_err());
        }
    }

    #[test]
    fn windows_wait_for_sidecars_that_are_behind_and_not_for_the_dead() {
        let second = 1_000_000_000;
        let at = |stream: &str| Numbered { stream: stream.into(), number: 1 };
        let mut sources = Sources::default();
        assert_eq!(sources.horizon(1000 * second), 1000 * second);
        sources.heard(&at("a"), 995 * second, 1, 1000 * second);
        sources.heard(&at("b"), 980 * second, 1, 1000 * second);
        assert_eq!(sources.horizon(1000 * second), 980 * second);
        sources.heard(&at("a"), 1090 * second, 1, 1090 * second);
        assert_eq!(sources.horizon(1090 * second), 1090 * second, "b has been silent for more than a minute");
        sources.heard(&at("c"), 1, 1, 1090 * second);
        assert_eq!(sources.horizon(1090 * second), 1030 * second, "nobody is waited for longer than that");
    }
}
