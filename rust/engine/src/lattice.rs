//! The tiles of a monitor: what is written to at hand, the rest packed, old ones merged into days and weeks.
//!
//! Tiles of less than a day are merged into days once they are three days behind the last closed window, days into weeks after
//! a hundred. What belongs to a merged tile (a late event, a label) finds it by its time.

use std::collections::BTreeMap;

use barograph_core::codec::{Reader, Writer};
use barograph_core::{Error, Result};

use crate::quality::Task;
use crate::reference::Reference;
use crate::window::{DAY, Tile, start_of};

const WEEK: i64 = 7 * DAY;
/// How long tiles shorter than a day are kept, and days.
const KEPT: [i64; 2] = [3 * DAY, 100 * DAY];
/// What a column takes while its tile is at hand.
const OPEN_COLUMN: usize = 32 << 10;

/// A tile at hand, or its bytes.
#[derive(Clone, Debug)]
enum Kept {
    Open(Box<Tile>),
    Packed(Vec<u8>),
}

fn packed(tile: &Tile) -> Vec<u8> {
    let mut writer = Writer::new();
    tile.encode(&mut writer);
    writer.into_payload()
}

/// Tiles by their start.
#[derive(Clone, Debug)]
pub(crate) struct Lattice {
    tile: i64,
    task: Task,
    classes: usize,
    tiles: BTreeMap<i64, Kept>,
    /// Before the first of these everything is weeks, before the second days.
    merged: [i64; 2],
    /// Bytes that packed tiles may take, and most tiles at hand.
    limit: usize,
    most_open: usize,
    open: usize,
    bytes: usize,
    /// Tiles that were given up because of the limit.
    pub(crate) forgotten: u64,
}

impl Lattice {
    /// An empty one for tiles of this length, half of `limit` bytes for tiles at hand, half for packed ones.
    pub(crate) fn new(tile: i64, (task, classes): (Task, usize), columns: usize, limit: usize) -> Self {
        let most_open = (limit / 2 / (columns.max(1) * OPEN_COLUMN)).clamp(2, 256);
        let merged = [i64::MIN; 2];
        Self { tile, task, classes, tiles: BTreeMap::new(), merged, limit: limit / 2, most_open, open: 0, bytes: 0, forgotten: 0 }
    }

    /// How long the tile that holds a time is.
    pub(crate) fn length(&self, time: i64) -> i64 {
        if time < self.merged[0] {
            WEEK
        } else if time < self.merged[1] {
            DAY
        } else {
            self.tile
        }
    }

    /// The start of the tile that holds a time.
    pub(crate) fn start(&self, time: i64) -> i64 {
        start_of(time, self.length(time))
    }

    /// The tile that holds a time, if there is one.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn find(&mut self, time: i64) -> Result<Option<&mut Tile>> {
        let start = self.start(time);
        let Some(kept) = self.tiles.get_mut(&start) else { return Ok(None) };
        if let Kept::Packed(bytes) = kept {
            self.bytes -= bytes.len();
            self.open += 1;
            let tile = Tile::decode(&mut Reader::new(bytes))?;
            *kept = Kept::Open(Box::new(tile));
            if self.open > self.most_open {
                self.pack(|at| at != start);
            }
        }
        match self.tiles.get_mut(&start) {
            Some(Kept::Open(tile)) => Ok(Some(tile)),
            _ => Ok(None),
        }
    }

    /// The tile that holds a time, made if it does not exist.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn tile(&mut self, time: i64, reference: &Reference) -> Result<Option<&mut Tile>> {
        let start = self.start(time);
        if !self.tiles.contains_key(&start) {
            if self.open >= self.most_open {
                self.pack(|_| true);
            }
            self.tiles.insert(start, Kept::Open(Box::new(Tile::new(reference, self.task, self.classes)?)));
            self.open += 1;
        }
        self.find(time)
    }

    fn pack(&mut self, choose: impl Fn(i64) -> bool) {
        for (start, kept) in &mut self.tiles {
            if let (Kept::Open(tile), true) = (&*kept, choose(*start)) {
                let bytes = packed(tile);
                self.bytes += bytes.len();
                self.open -= 1;
                *kept = Kept::Packed(bytes);
            }
        }
        while self.bytes > self.limit && self.tiles.len() > 1 {
            if let Some((_, Kept::Packed(bytes))) = self.tiles.pop_first() {
                self.bytes -= bytes.len();
            } else {
                self.open -= 1;
            }
            self.forgotten += 1;
        }
    }

    /// The start of the first tile at or after a time.
    pub(crate) fn next(&self, time: i64) -> Option<i64> {
        self.tiles.range(time..).next().map(|(start, _)| *start)
    }

    /// The tiles that begin in `[start, end)`.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn between(&self, start: i64, end: i64) -> Result<Vec<(i64, Tile)>> {
        self.last_between(start, end, usize::MAX)
    }

    /// The last `most` of them, oldest first.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn last_between(&self, start: i64, end: i64, most: usize) -> Result<Vec<(i64, Tile)>> {
        let read = |kept: &Kept| match kept {
            Kept::Open(tile) => Ok(tile.as_ref().clone()),
            Kept::Packed(bytes) => Tile::decode(&mut Reader::new(bytes)),
        };
        let found = self.tiles.range(start..end.max(start)).rev().take(most).map(|(start, kept)| Ok((*start, read(kept)?)));
        let mut out = found.collect::<Result<Vec<_>>>()?;
        out.reverse();
        Ok(out)
    }

    /// Packs what lies before `closed`, and merges what is old.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn settle(&mut self, closed: i64) -> Result<()> {
        self.pack(|start| start < closed);
        let in_days = self.tile < DAY && DAY % self.tile == 0;
        let fits = [in_days || self.tile == DAY, in_days];
        for (level, length) in [(1, DAY), (0, WEEK)] {
            let until = start_of(closed.saturating_sub(KEPT[1 - level]), length);
            if !fits[level] || until <= self.merged[level] {
                continue;
            }
            let mut groups: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            for start in self.tiles.range(self.merged[level].max(i64::MIN + WEEK)..until).map(|(start, _)| *start) {
                groups.entry(start_of(start, length)).or_default().push(start);
            }
            for (start, members) in groups {
                let mut whole: Option<Tile> = None;
                for member in members {
                    let Some(kept) = self.tiles.remove(&member) else { continue };
                    let tile = match kept {
                        Kept::Open(tile) => {
                            self.open -= 1;
                            *tile
                        }
                        Kept::Packed(bytes) => {
                            self.bytes -= bytes.len();
                            Tile::decode(&mut Reader::new(&bytes))?
                        }
                    };
                    match &mut whole {
                        Some(whole) => whole.merge(&tile)?,
                        None => whole = Some(tile),
                    }
                }
                if let Some(whole) = whole {
                    let bytes = packed(&whole);
                    self.bytes += bytes.len();
                    self.tiles.insert(start, Kept::Packed(bytes));
                }
            }
            self.merged[level] = until;
        }
        Ok(())
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        self.merged.iter().for_each(|until| writer.i64(*until));
        writer.u64(self.forgotten);
        writer.len(self.tiles.len());
        for (start, kept) in &self.tiles {
            writer.i64(*start);
            match kept {
                Kept::Open(tile) => writer.bytes(&packed(tile)),
                Kept::Packed(bytes) => writer.bytes(bytes),
            }
        }
    }

    /// Reads tiles back into an empty lattice; all of them are packed.
    ///
    /// # Errors
    /// `Decode` for bytes that `encode` did not write, or of another reference.
    pub(crate) fn restore(&mut self, reader: &mut Reader<'_>, reference: &Reference) -> Result<()> {
        self.merged = [reader.i64()?, reader.i64()?];
        self.forgotten = reader.u64()?;
        for _ in 0..reader.len(2)? {
            let start = reader.i64()?;
            if self.start(start) != start || self.tiles.last_key_value().is_some_and(|(last, _)| *last >= start) {
                return Err(Error::decode("the tiles of a monitor are out of order"));
            }
            let bytes = reader.bytes()?;
            let mut inside = Reader::new(bytes);
            Tile::decode(&mut inside)?.check(reference, self.task, self.classes)?;
            inside.finish()?;
            self.bytes += bytes.len();
            self.tiles.insert(start, Kept::Packed(bytes.to_vec()));
        }
        Ok(())
    }
}
