//! A delta: what a monitor of a fleet has seen since it last told, on its way to the one that judges for all.
//!
//! It holds tiles, coarse counts of segments and moments, minutes, and what labels are joined by: predictions and labels as they came. It
//! does not hold the reference, only its identity. Deltas merge: in any order and grouping they make the monitor that had seen it all.

use std::collections::BTreeMap;

use barograph_core::bins::Bins;
use barograph_core::codec::{Reader, SnapshotKind, Writer};
use barograph_core::sketches::ExponentialHistogram;
use barograph_core::{Error, Result};

use crate::coarse::{Counters, MOST_SEGMENTS, agree};
use crate::labels::{Label, MOST_WEIGHT, Prediction};
use crate::monitor::MOST_HALVINGS;
use crate::monitor::fleet::Untold;
use crate::pulse::Pulse;
use crate::reference::Reference;
use crate::window::{Tile, start_of};

/// Counters that the tiles of one delta may have, about: 64 MB of them.
const MOST_COUNTERS: usize = 1 << 23;
/// What a column of a tile takes beside its bins, in counters.
const COLUMN: usize = 512;

/// What counts have to have been made by to add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Identity of the reference.
    pub reference: String,
    /// Hash of windows, task, classes and of what calls are counted by.
    pub shape: u64,
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Delta {
    /// What it was counted by.
    pub layout: Layout,
    /// The clock of whoever saw it: nothing that arrived there by then is still to come.
    pub until: i64,
    /// Events.
    pub events: u64,
    /// Of these, events without a time of their own.
    pub untimed: u64,
    /// Requests that are no events, counted elsewhere.
    pub requests: u64,
    /// Of the events, those that sampling left out.
    pub sampled_out: u64,
    pub(crate) tiles: Vec<(i64, Tile)>,
    pub(crate) lifetime: ExponentialHistogram,
    /// Per tile and segment column, all counters.
    pub(crate) segments: Counters,
    /// Of tiles in which values were pooled to keep within a budget: per segment column, how many are told apart.
    pub(crate) pooled: BTreeMap<i64, Vec<usize>>,
    /// Per moment and column, all counters.
    pub(crate) moments: Counters,
    pub(crate) pulse: Pulse,
    /// Version, when it was deployed or first seen, until when alerts are muted.
    pub(crate) deploys: Vec<(String, i64, i64)>,
    pub(crate) predictions: Vec<(u128, Prediction)>,
    pub(crate) labels: Vec<(u128, Label)>,
}

impl Delta {
    /// Tiles that fit into one delta.
    pub(crate) fn most_tiles(reference: &Reference) -> usize {
        let bins = reference.columns.iter().map(|column| column.bins.as_ref().map_or(0, Bins::len) + COLUMN);
        (MOST_COUNTERS / bins.sum::<usize>().max(1)).max(1)
    }

    /// Nothing, counted by this layout.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn empty(layout: Layout, until: i64) -> Result<Self> {
        Ok(Self {
            layout,
            until,
            events: 0,
            untimed: 0,
            requests: 0,
            sampled_out: 0,
            tiles: Vec::new(),
            lifetime: ExponentialHistogram::new(6)?,
            segments: BTreeMap::new(),
            pooled: BTreeMap::new(),
            moments: BTreeMap::new(),
            pulse: Pulse::default(),
            deploys: Vec::new(),
            predictions: Vec::new(),
            labels: Vec::new(),
        })
    }

    /// The tiles, by their start.
    pub fn tiles(&self) -> impl Iterator<Item = (i64, &Tile)> {
        self.tiles.iter().map(|(start, tile)| (*start, tile))
    }

    /// The latest start of a tile, moment or minute.
    pub fn latest(&self) -> Option<i64> {
        let last = |of: &Counters| of.last_key_value().map(|(start, _)| *start);
        let tile = self.tiles.last().map(|(start, _)| *start);
        [tile, last(&self.segments), last(&self.moments), self.pulse.last()].into_iter().flatten().max()
    }

    /// The delta as a snapshot; equal deltas give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::dense();
        writer.str(&self.layout.reference);
        writer.u64(self.layout.shape);
        writer.i64(self.until);
        let counts = [self.events, self.untimed, self.requests, self.sampled_out];
        counts.into_iter().for_each(|count| writer.u64(count));
        writer.len(self.tiles.len());
        for (start, tile) in &self.tiles {
            writer.i64(*start);
            tile.tell(&mut writer);
        }
        self.lifetime.encode(&mut writer);
        for all in [&self.segments, &self.moments] {
            writer.len(all.len());
            for (start, counts) in all {
                writer.i64(*start);
                counts.iter().for_each(|counts| writer.counts(counts));
            }
        }
        self.pulse.encode(&mut writer);
        writer.len(self.deploys.len());
        for (version, time, until) in &self.deploys {
            writer.str(version);
            writer.i64(*time);
            writer.i64(*until);
        }
        let id = |writer: &mut Writer, id: u128| {
            writer.u64((id >> 64) as u64);
            writer.u64(id as u64);
        };
        writer.len(self.predictions.len());
        for (key, prediction) in &self.predictions {
            id(&mut writer, *key);
            writer.i64(prediction.tile);
            writer.option_f64(prediction.score);
            writer.f64(prediction.weight);
            writer.u8(prediction.halvings);
            writer.len(prediction.chances.len());
            prediction.chances.iter().for_each(|chance| writer.f64(f64::from(*chance)));
        }
        writer.len(self.labels.len());
        for (key, label) in &self.labels {
            id(&mut writer, *key);
            writer.f64(label.value);
            writer.i64(label.time);
        }
        // Nothing more where nothing was pooled, as before there was a word for it.
        if !self.pooled.is_empty() {
            writer.len(self.pooled.len());
            for (start, told) in &self.pooled {
                writer.i64(*start);
                told.iter().for_each(|told| writer.len(*told));
            }
        }
        writer.seal(SnapshotKind::Delta)
    }

    /// What is gathered and not told, as a delta of nothing else.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn of_untold(untold: &Untold, layout: Layout) -> Result<Self> {
        let Untold { predictions, labels, deploys } = untold.clone();
        Ok(Self { deploys, predictions, labels, ..Self::empty(layout, 0)? })
    }

    /// Reads it back.
    ///
    /// # Errors
    /// `Decode`.
    pub(crate) fn read_untold(bytes: &[u8], fitting: &crate::Monitor) -> Result<Untold> {
        let Self { predictions, labels, deploys, .. } = Self::from_bytes(bytes, fitting)?;
        Ok(Untold { predictions, labels, deploys })
    }

    /// Labels in it.
    pub fn labelled(&self) -> u64 {
        self.labels.len() as u64
    }

    /// Whether it says no more than the time.
    pub fn is_empty(&self) -> bool {
        let counted = self.events + self.untimed + self.requests + self.sampled_out + self.lifetime.count();
        let all =
            [self.tiles.len(), self.segments.len(), self.moments.len(), self.deploys.len(), self.predictions.len(), self.labels.len()];
        counted == 0 && all.into_iter().sum::<usize>() == 0 && self.pulse.last().is_none()
    }

    /// Of a snapshot the clock of whoever saw it, and its events.
    ///
    /// # Errors
    /// `Decode`, saying what is wrong with the bytes.
    pub fn head(bytes: &[u8]) -> Result<(i64, u64)> {
        let mut reader = Reader::open(bytes, SnapshotKind::Delta)?;
        let (_, _) = (reader.str()?, reader.u64()?);
        Ok((reader.i64()?, reader.count()?))
    }

    /// What a snapshot was counted by.
    ///
    /// # Errors
    /// `Decode`, saying what is wrong with the bytes.
    pub fn layout_of(bytes: &[u8]) -> Result<Layout> {
        let mut reader = Reader::open(bytes, SnapshotKind::Delta)?;
        Ok(Layout { reference: reader.str()?.to_owned(), shape: reader.u64()? })
    }

    /// Reads a snapshot of what was counted by the reference of `fitting`. Nothing is made of it that such a monitor would not have made
    /// itself: what it takes in memory is bounded by that, whatever the bytes say.
    ///
    /// # Errors
    /// `Decode`, saying what is wrong with the bytes, and for what belongs to another reference or layout.
    pub fn from_bytes(bytes: &[u8], fitting: &crate::Monitor) -> Result<Self> {
        let mut reader = Reader::open(bytes, SnapshotKind::Delta)?;
        let layout = Layout { reference: reader.str()?.to_owned(), shape: reader.u64()? };
        if layout != fitting.layout() {
            return Err(Error::decode("the delta was counted by another reference or policy"));
        }
        let mut out = Self::empty(layout, reader.i64()?)?;
        (out.events, out.untimed) = (reader.count()?, reader.count()?);
        (out.requests, out.sampled_out) = (reader.count()?, reader.count()?);
        let (reference, task, length) = (fitting.reference(), (fitting.task(), fitting.policy().classes.len()), fitting.tile_length());
        let tiles = reader.len(8)?;
        if tiles > Self::most_tiles(reference) {
            return Err(Error::decode(format!("the delta holds {tiles} tiles, at most {} come at once", Self::most_tiles(reference))));
        }
        let order = |start: i64, last: Option<i64>, length: i64| {
            let fine = start_of(start, length) == start && last.is_none_or(|last| last < start);
            if fine { Ok(start) } else { Err(Error::decode("the times of a delta are out of order")) }
        };
        for _ in 0..tiles {
            let start = order(reader.i64()?, out.tiles.last().map(|(start, _)| *start), length)?;
            out.tiles.push((start, Tile::heard(&mut reader, reference, task.0, task.1)?));
        }
        out.lifetime = ExponentialHistogram::decode(&mut reader)?;
        if out.lifetime.scale() != 6 {
            return Err(Error::decode("the latencies of a delta have another scale"));
        }
        let mut room = MOST_COUNTERS;
        for (sizes, length, moments) in [(fitting.segment_sizes(), length, false), (fitting.moment_sizes(), fitting.moment_length(), true)]
        {
            let number = reader.len(1 + sizes.len())?;
            if sizes.is_empty() && number > 0 {
                return Err(Error::decode("the delta holds counts that its reference does not have"));
            }
            room = number
                .checked_mul(sizes.iter().flatten().sum::<usize>().max(1))
                .and_then(|all| room.checked_sub(all))
                .ok_or_else(|| Error::decode("the delta holds more counters than are taken at once"))?;
            let to = if moments { &mut out.moments } else { &mut out.segments };
            for _ in 0..number {
                let start = order(reader.i64()?, to.last_key_value().map(|(start, _)| *start), length)?;
                let counts = sizes.iter().map(|sizes| reader.counts(sizes.iter().sum())).collect::<Result<Vec<_>>>()?;
                for (mut counts, sizes) in counts.iter().map(Vec::as_slice).zip(&sizes) {
                    for size in sizes {
                        let (part, rest) = counts.split_at_checked(*size).unwrap_or((counts, &[]));
                        counts = rest;
                        if !agree(part) {
                            return Err(Error::decode("the counts of a delta contradict each other"));
                        }
                    }
                }
                to.insert(start, counts);
            }
        }
        out.pulse = Pulse::decode(&mut reader, fitting.policy().rules.len())?;
        for _ in 0..reader.len(3)? {
            out.deploys.push((reader.str()?.to_owned(), reader.i64()?, reader.i64()?));
        }
        let id = |reader: &mut Reader<'_>| -> Result<u128> { Ok(u128::from(reader.u64()?) << 64 | u128::from(reader.u64()?)) };
        for _ in 0..reader.len(12)? {
            let key = id(&mut reader)?;
            let (tile, score, weight, halvings) = (reader.i64()?, reader.option_finite()?, reader.f64()?, reader.u8()?);
            if start_of(tile, length) != tile || !(0.0..=MOST_WEIGHT).contains(&weight) || u32::from(halvings) > MOST_HALVINGS {
                return Err(Error::decode("a prediction of the delta is out of range"));
            }
            let number = reader.len(8)?;
            if number != 0 && number != task.1 {
                return Err(Error::decode("a prediction of the delta has another number of classes"));
            }
            let chance = |reader: &mut Reader<'_>| match reader.f64()? {
                chance if (0.0..=1.0).contains(&chance) => Ok(chance as f32),
                _ => Err(Error::decode("a probability of the delta is out of range")),
            };
            let chances = (0..number).map(|_| chance(&mut reader)).collect::<Result<Box<[f32]>>>()?;
            out.predictions.push((key, Prediction { tile, score, chances, weight, halvings }));
        }
        for _ in 0..reader.len(11)? {
            let key = id(&mut reader)?;
            let label = Label { value: reader.f64()?, time: reader.i64()? };
            if label.value.is_nan() {
                return Err(Error::decode("a label of the delta is not a number"));
            }
            out.labels.push((key, label));
        }
        if !reader.is_empty() {
            let columns = fitting.segment_sizes().len();
            let number = reader.len(1 + columns)?;
            if number == 0 || columns == 0 {
                return Err(Error::decode("the delta says that nothing was pooled"));
            }
            for _ in 0..number {
                let start = order(reader.i64()?, out.pooled.last_key_value().map(|(start, _)| *start), length)?;
                let told = (0..columns).map(|_| Ok(reader.u64()? as usize)).collect::<Result<Vec<_>>>()?;
                if !out.segments.contains_key(&start) || told.iter().any(|told| *told > MOST_SEGMENTS) {
                    return Err(Error::decode("the delta has pooled what it does not count"));
                }
                out.pooled.insert(start, told);
            }
        }
        reader.finish()?;
        Ok(out)
    }
}
