//! The label ledger: predictions and the labels that come for them late, twice, corrected, out of order or never.
//!
//! Every label event that can still count is kept, chained to its id; which one wins is decided when the ledger is read. So
//! nothing depends on the order in which predictions and labels came, but for what the rules say about order.

use std::sync::Arc;

use arrow_array::builder::{Float64Builder, Int64Builder, StringBuilder, TimestampNanosecondBuilder};
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow_schema::{Field, Schema as ArrowSchema};
use barograph_core::hash::murmur3_of_word;
use barograph_core::{Error, Result};
use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use crate::frame;
use crate::labels::{doubles, keys};
use crate::text::Texts;

/// No row, no event.
const NONE: u32 = u32::MAX;
/// Entries of a chunk.
const CHUNK: usize = 1 << 16;
/// Rows are numbered in 32 bits.
const MOST_ROWS: usize = NONE as usize - 1;

/// Which label of several counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The one that arrived last; of several at that instant the later row.
    #[default]
    Last,
    /// The one that arrived first; of several at that instant the earlier row.
    First,
}

impl Choice {
    /// Whether of two labels of one event the later row counts rather than the earlier one, by the times of their arrival.
    pub(crate) fn prefers(self, later: i64, earlier: i64) -> bool {
        match self {
            Self::Last => later >= earlier,
            Self::First => later < earlier,
        }
    }
}

/// What counts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Which label of several counts.
    pub policy: Choice,
    /// Labels that arrived after this, and predictions at or after it, do not count.
    pub as_of: Option<i64>,
    /// Labels that arrive more than so many nanoseconds after their prediction do not count.
    pub horizon: Option<i64>,
    /// Bytes that the ledger may take; beyond them the oldest predictions are given up.
    pub memory: usize,
}

/// A prediction, or an id that only labels know yet.
#[derive(Clone, Copy, Debug)]
struct Row {
    id: [u64; 2],
    /// Nanoseconds since the epoch; meaningless without a prediction.
    time: i64,
    prediction: f64,
    score: f64,
    /// Of the version's texts; `NONE` without one.
    version: u32,
    /// The next row of the same id, another version.
    next: u32,
    /// The first label event of the id; in the first row of an id only.
    events: u32,
    predicted: bool,
}

/// A label that came.
#[derive(Clone, Copy, Debug)]
struct Event {
    label: f64,
    time: i64,
    next: u32,
}

/// Names of columns.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Columns {
    pub id: String,
    #[serde(default)]
    pub time: Option<String>,
    #[serde(default)]
    pub prediction: Option<String>,
    #[serde(default)]
    pub score: Option<String>,
    #[serde(default)]
    pub version: Option<String>,
    #[serde(default)]
    pub label: Option<String>,
    /// Further columns of names to be kept.
    #[serde(default)]
    pub keep: Vec<String>,
}

/// Ids as keys, and as texts where they are.
type Ids<'a> = (Vec<Option<u128>>, Option<Vec<Option<&'a str>>>);

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    labels: u64,
    null: u64,
    untimed: u64,
    duplicate: u64,
    after: u64,
    expired: u64,
    archived: u64,
    stored: u64,
}

/// A label that won, and what it won against.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Won {
    label: f64,
    time: i64,
    /// Other label events that could have counted.
    beaten: u64,
    /// Another label arrived at the same instant.
    conflict: bool,
}

/// Entries by number that do not move when more come: growing never holds them twice.
#[derive(Clone, Debug)]
struct Chunks<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T: Copy> Chunks<T> {
    fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    fn push(&mut self, entry: T) -> u32 {
        if self.len.is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(entry);
        }
        self.len += 1;
        (self.len - 1) as u32
    }

    fn get(&self, at: u32) -> T {
        self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    fn change(&mut self, at: u32) -> &mut T {
        &mut self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks.iter().flatten().enumerate().map(|(at, entry)| (at as u32, entry))
    }

    fn size(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<T>()
    }
}

/// Keeps what does not fit in memory; the caller brings it.
///
/// Predictions have the columns id, time, prediction, score, version and what is kept; label events id, label and time.
pub trait Store {
    /// Takes predictions that are given up, and the label events of their ids.
    ///
    /// # Errors
    /// Whatever the store says; nothing is given up then.
    fn save(&mut self, predictions: RecordBatch, labels: RecordBatch) -> Result<()>;

    /// Gives back what was saved under these ids, and forgets it.
    ///
    /// # Errors
    /// Whatever the store says; nothing is changed then.
    fn load(&mut self, ids: ArrayRef) -> Result<Option<(RecordBatch, RecordBatch)>>;
}

/// Predictions and labels, joined by id.
#[derive(Clone, Debug)]
pub struct Ledger {
    terms: Terms,
    index: HashTable<u32>,
    rows: Chunks<Row>,
    events: Chunks<Event>,
    /// Texts of ids, where ids are texts.
    ids: Option<Texts>,
    /// Texts of versions, predictions and labels, and of each kept column.
    versions: Texts,
    classes: Texts,
    kept: Vec<(String, Texts, Vec<u32>)>,
    counts: Counts,
    /// Rows that have a prediction.
    predicted: u64,
}

/// Rows that are handed to a store, and the first rows of their ids.
#[derive(Default)]
struct Gone {
    rows: Vec<u32>,
    heads: Vec<u32>,
}

fn batch_of(columns: Vec<(String, ArrayRef)>) -> Result<RecordBatch> {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) =
        columns.into_iter().map(|(name, array)| (Field::new(name, array.data_type().clone(), true), array)).unzip();
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), arrays).map_err(|error| Error::invalid(error.to_string()))
}

fn hash(id: [u64; 2]) -> u64 {
    murmur3_of_word(id[0] ^ id[1].rotate_left(32), 0).0
}

fn column<'a>(batch: &'a RecordBatch, argument: &str, name: &str) -> Result<&'a dyn Array> {
    batch.column_by_name(name).map(AsRef::as_ref).ok_or_else(|| {
        let names: Vec<&str> = batch.schema_ref().fields().iter().take(20).map(|field| field.name().as_str()).collect();
        Error::invalid(format!("`{argument}` names column {name:?}, which the frame has not")).hint(format!("it has {}", names.join(", ")))
    })
}

impl Ledger {
    /// An empty one.
    ///
    /// # Errors
    /// `InvalidArgument` for a horizon below 0 or too little memory.
    pub fn new(terms: Terms) -> Result<Self> {
        if terms.horizon.is_some_and(|horizon| horizon < 0) {
            return Err(Error::invalid("`horizon` must not be negative"));
        }
        if terms.memory < 8 << 20 {
            return Err(Error::invalid(format!("`memory` must be at least 8 MiB, got {} bytes", terms.memory)));
        }
        Ok(Self {
            terms,
            index: HashTable::new(),
            rows: Chunks::new(),
            events: Chunks::new(),
            ids: None,
            versions: Texts::default(),
            classes: Texts::default(),
            kept: Vec::new(),
            counts: Counts::default(),
            predicted: 0,
        })
    }

    /// The row of an id, made if there is none; true if it was made.
    fn find(&mut self, id: [u64; 2], text: Option<&str>) -> (u32, bool) {
        let rows = &self.rows;
        if let Some(at) = self.index.find(hash(id), |at| rows.get(*at).id == id) {
            return (*at, false);
        }
        let empty = Row { id, time: 0, prediction: f64::NAN, score: f64::NAN, version: NONE, next: NONE, events: NONE, predicted: false };
        let at = self.push(empty, text);
        let rows = &self.rows;
        self.index.insert_unique(hash(id), at, |at| hash(rows.get(*at).id));
        (at, true)
    }

    fn push(&mut self, row: Row, text: Option<&str>) -> u32 {
        if let (Some(ids), Some(text)) = (&mut self.ids, text) {
            ids.push(text);
        }
        for (.., codes) in &mut self.kept {
            codes.push(NONE);
        }
        self.rows.push(row)
    }

    /// Ids as keys, and as texts where they are; the kind must be the same for every frame.
    fn read_ids<'a>(&mut self, name: &str, array: &'a dyn Array) -> Result<Ids<'a>> {
        let read = keys(name, array)?;
        let texts = if array.data_type().is_integer() { None } else { crate::text::strings(array) };
        let (is, was) = (texts.is_some(), self.ids.is_some());
        if self.rows.len == 0 && is && !was {
            self.ids = Some(Texts::apart());
        } else if self.rows.len > 0 && is != was {
            let kind = |texts: bool| if texts { "text" } else { "whole numbers" };
            return Err(Error::invalid(format!("`id` must be {} as before, {name:?} holds {}", kind(was), kind(is)))
                .hint("cast one of the two frames"));
        }
        Ok((read, texts))
    }

    /// Numbers of a column, or the codes of its texts.
    fn values(&mut self, argument: &str, name: &str, array: &dyn Array) -> Result<Vec<Option<f64>>> {
        match crate::text::strings(array) {
            Some(texts) => Ok(texts.into_iter().map(|text| text.map(|text| f64::from(self.classes.code(text)))).collect()),
            None => doubles(argument, name, array),
        }
    }

    fn times(array: &dyn Array, argument: &str, name: &str) -> Result<Vec<Option<i64>>> {
        frame::nanoseconds(array)
            .ok_or_else(|| Error::invalid(format!("`{argument}` must name a column of timestamps, {name:?} is {}", array.data_type())))
    }

    /// Adds predictions. A row without id or time is counted and left out; of several with one id and version the first counts.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is no column or one of the wrong type; nothing is added then.
    pub fn predictions(&mut self, batch: &RecordBatch, columns: &Columns, store: Option<&mut dyn Store>) -> Result<()> {
        self.add_predictions(batch, columns, |ledger, ids, texts| ledger.make_ready(ids, texts, store))
    }

    /// As [`predictions`](Self::predictions); `ready` is asked before anything is added.
    fn add_predictions(
        &mut self,
        batch: &RecordBatch,
        columns: &Columns,
        ready: impl FnOnce(&mut Self, &[Option<u128>], Option<&[Option<&str>]>) -> Result<()>,
    ) -> Result<()> {
        let time = columns.time.as_deref().ok_or_else(|| Error::invalid("`time` must name the column of prediction times"))?;
        let times = Self::times(column(batch, "time", time)?, "time", time)?;
        let array = column(batch, "id", &columns.id)?;
        let optional = |name: &Option<String>, argument: &str| name.as_ref().map(|name| column(batch, argument, name)).transpose();
        let (prediction, score) = (optional(&columns.prediction, "prediction")?, optional(&columns.score, "score")?);
        let version = optional(&columns.version, "version")?;
        let kept = columns.keep.iter().map(|name| column(batch, "keep", name)).collect::<Result<Vec<_>>>()?;
        let score = score.map(|array| doubles("score", columns.score.as_deref().unwrap_or(""), array)).transpose()?;
        let (ids, texts) = self.read_ids(&columns.id, array)?;
        let prediction =
            prediction.map(|array| self.values("prediction", columns.prediction.as_deref().unwrap_or(""), array)).transpose()?;
        let version = version.map(crate::text::words).transpose()?;
        let kept = kept.into_iter().map(crate::text::words).collect::<Result<Vec<_>>>()?;
        ready(self, &ids, texts.as_deref())?;
        for name in &columns.keep {
            if !self.kept.iter().any(|(known, ..)| known == name) {
                self.kept.push((name.clone(), Texts::default(), vec![NONE; self.rows.len]));
            }
        }
        let places: Vec<usize> = columns.keep.iter().filter_map(|name| self.kept.iter().position(|(known, ..)| known == name)).collect();
        for (row, id) in ids.into_iter().enumerate() {
            let (Some(id), Some(time)) = (id, times[row]) else {
                self.counts.untimed += 1;
                continue;
            };
            if self.terms.as_of.is_some_and(|as_of| time >= as_of) {
                self.counts.after += 1;
                continue;
            }
            let id = [(id >> 64) as u64, id as u64];
            let version = version.as_ref().and_then(|version| version[row].as_deref()).map_or(NONE, |text| self.versions.code(text));
            let text = texts.as_ref().and_then(|texts| texts[row]);
            let (head, _) = self.find(id, text);
            let Some(at) = self.place(head, version, text) else {
                self.counts.duplicate += 1;
                continue;
            };
            let number = |values: &Option<Vec<Option<f64>>>| values.as_ref().and_then(|values| values[row]).unwrap_or(f64::NAN);
            let (prediction, score) = (number(&prediction), number(&score));
            let to = self.rows.change(at);
            (to.time, to.prediction, to.score, to.version, to.predicted) = (time, prediction, score, version, true);
            self.predicted += 1;
            for (place, words) in places.iter().zip(&kept) {
                let (_, texts, codes) = &mut self.kept[*place];
                codes[at as usize] = words[row].as_deref().map_or(NONE, |word| texts.code(word));
            }
        }
        Ok(())
    }

    /// The row for a prediction of this version; `None` if there is one already.
    fn place(&mut self, head: u32, version: u32, text: Option<&str>) -> Option<u32> {
        let mut at = head;
        loop {
            let row = self.rows.get(at);
            if !row.predicted {
                return Some(at);
            }
            if row.version == version {
                return None;
            }
            if row.next == NONE {
                let new =
                    Row { id: row.id, time: 0, prediction: f64::NAN, score: f64::NAN, version, next: NONE, events: NONE, predicted: false };
                let new = self.push(new, text);
                self.rows.change(at).next = new;
                return Some(new);
            }
            at = row.next;
        }
    }

    /// Adds label events. Null labels and ids are counted and left out; without a column of times they arrive at `now`.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is no column or one of the wrong type; nothing is added then.
    pub fn labels(&mut self, batch: &RecordBatch, columns: &Columns, now: i64, store: Option<&mut dyn Store>) -> Result<()> {
        self.add_labels(batch, columns, now, |ledger, ids, texts| ledger.make_ready(ids, texts, store))
    }

    /// As [`labels`](Self::labels); `ready` is asked before anything is added.
    fn add_labels(
        &mut self,
        batch: &RecordBatch,
        columns: &Columns,
        now: i64,
        ready: impl FnOnce(&mut Self, &[Option<u128>], Option<&[Option<&str>]>) -> Result<()>,
    ) -> Result<()> {
        let label = columns.label.as_deref().ok_or_else(|| Error::invalid("`label` must name the column of labels"))?;
        let (array, ids) = (column(batch, "label", label)?, column(batch, "id", &columns.id)?);
        let times = match &columns.time {
            Some(name) => Self::times(column(batch, "time", name)?, "time", name)?,
            None => vec![Some(now); batch.num_rows()],
        };
        let (ids, texts) = self.read_ids(&columns.id, ids)?;
        let labels = self.values("label", label, array)?;
        ready(self, &ids, texts.as_deref())?;
        for (row, id) in ids.into_iter().enumerate() {
            self.counts.labels += 1;
            let (Some(id), Some(label)) = (id, labels[row].filter(|label| !label.is_nan())) else {
                self.counts.null += 1;
                continue;
            };
            let Some(time) = times[row] else {
                self.counts.untimed += 1;
                continue;
            };
            if self.terms.as_of.is_some_and(|as_of| time > as_of) {
                self.counts.after += 1;
                continue;
            }
            let (head, _) = self.find([(id >> 64) as u64, id as u64], texts.as_ref().and_then(|texts| texts[row]));
            // Newest first: of equal times the later row is met first.
            let next = self.rows.get(head).events;
            self.rows.change(head).events = self.events.push(Event { label, time, next });
        }
        Ok(())
    }

    /// The label that counts for a prediction, of the events of its id; and how many came too late.
    fn won(&self, head: Row, row: &Row, as_of: Option<i64>) -> (Option<Won>, u64) {
        let (mut won, mut late): (Option<Won>, u64) = (None, 0);
        let mut at = head.events;
        while at != NONE {
            let event = self.events.get(at);
            at = event.next;
            if as_of.is_some_and(|as_of| event.time > as_of) {
                continue;
            }
            if self.terms.horizon.is_some_and(|horizon| event.time.saturating_sub(row.time) > horizon) {
                late += 1;
                continue;
            }
            let Some(best) = &mut won else {
                won = Some(Won { label: event.label, time: event.time, beaten: 0, conflict: false });
                continue;
            };
            best.beaten += 1;
            // Events are met from the newest row to the oldest.
            let better = !self.terms.policy.prefers(best.time, event.time);
            let conflict = event.time == best.time && (best.conflict || event.label != best.label);
            if better {
                *best = Won { label: event.label, time: event.time, conflict, ..*best };
            } else if event.time == best.time {
                best.conflict = conflict;
            }
        }
        (won, late)
    }

    /// Every prediction with its first row of the id and the label that counts.
    fn each(&self, as_of: Option<i64>) -> impl Iterator<Item = (u32, &Row, Option<Won>, u64)> {
        let there = move |row: &Row| row.predicted && as_of.is_none_or(|as_of| row.time < as_of);
        self.rows.iter().filter(move |(_, row)| there(row)).map(move |(at, row)| {
            let head = if row.events == NONE { self.head(at, row) } else { *row };
            let (won, late) = self.won(head, row, as_of);
            (at, row, won, late)
        })
    }

    /// The first row of an id, where its events are.
    fn head(&self, at: u32, row: &Row) -> Row {
        // Without versions every row is the first of its id.
        if self.versions.len() == 0 {
            return *row;
        }
        let rows = &self.rows;
        let found = self.index.find(hash(row.id), |at| rows.get(*at).id == row.id).copied();
        self.rows.get(found.unwrap_or(at))
    }

    /// What was counted, and what follows from what is here.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let (mut joined, mut late, mut superseded, mut conflicting) = (0, 0, 0, 0);
        for (_, _, won, beyond) in self.each(None) {
            late += beyond;
            if let Some(won) = won {
                joined += 1;
                superseded += won.beaten;
                conflicting += u64::from(won.conflict);
            }
        }
        let orphan = self.rows.iter().filter(|(_, row)| !row.predicted).count() as u64;
        let counts = &self.counts;
        vec![
            ("predictions", self.predicted),
            ("labels", counts.labels),
            ("joined", joined),
            ("pending", self.predicted - joined),
            ("orphan", orphan),
            ("late", late),
            ("duplicate", counts.duplicate),
            ("superseded", superseded),
            ("conflicting", conflicting),
            ("null", counts.null),
            ("untimed", counts.untimed),
            ("after", counts.after),
            ("expired", counts.expired),
            ("archived", counts.archived),
            ("stored", counts.stored),
        ]
    }

    /// Predictions in the order they came, with their labels: only joined ones, or all; as they were known at `as_of`, if given. Texts are
    /// codes into [`Ledger::classes`].
    ///
    /// # Errors
    /// None in practice.
    pub fn table(&self, all: bool, as_of: Option<i64>) -> Result<RecordBatch> {
        let mut at = Vec::new();
        let (mut numbers, mut texts) = (Int64Builder::new(), StringBuilder::new());
        let mut times = TimestampNanosecondBuilder::new().with_timezone("UTC");
        let (mut predictions, mut scores, mut labels) = (Float64Builder::new(), Float64Builder::new(), Float64Builder::new());
        let mut versions = StringBuilder::new();
        let mut arrived = TimestampNanosecondBuilder::new().with_timezone("UTC");
        let finite = |value: f64| Some(value).filter(|value| !value.is_nan());
        for (place, row, won, _) in self.each(as_of).filter(|(.., won, _)| all || won.is_some()) {
            at.push(place);
            match &self.ids {
                Some(ids) => texts.append_value(ids.get(place)),
                None => numbers.append_value(row.id[1] as i64),
            }
            times.append_value(row.time);
            predictions.append_option(finite(row.prediction));
            scores.append_option(finite(row.score));
            versions.append_option((row.version != NONE).then(|| self.versions.get(row.version)));
            labels.append_option(won.map(|won| won.label));
            arrived.append_option(won.map(|won| won.time));
        }
        let ids: ArrayRef = if self.ids.is_some() { Arc::new(texts.finish()) } else { Arc::new(numbers.finish()) };
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("id".into(), ids),
            ("time".into(), Arc::new(times.finish())),
            ("prediction".into(), Arc::new(predictions.finish())),
            ("score".into(), Arc::new(scores.finish())),
            ("version".into(), Arc::new(versions.finish())),
            ("label".into(), Arc::new(labels.finish())),
            ("label_time".into(), Arc::new(arrived.finish())),
        ];
        for (name, texts, codes) in &self.kept {
            let mut column = StringBuilder::new();
            at.iter()
                .for_each(|at| column.append_option(Some(codes[*at as usize]).filter(|code| *code != NONE).map(|code| texts.get(code))));
            columns.push((name.clone(), Arc::new(column.finish())));
        }
        batch_of(columns)
    }

    /// Texts of predictions and labels, by code; empty where they are numbers.
    pub fn classes(&self) -> Vec<&str> {
        (0..self.classes.len() as u32).map(|code| self.classes.get(code)).collect()
    }

    /// Bytes that it takes, about.
    pub fn size(&self) -> usize {
        let texts = self.ids.as_ref().map_or(0, Texts::size) + self.versions.size() + self.classes.size();
        let kept: usize = self.kept.iter().map(|(_, texts, codes)| texts.size() + 4 * codes.capacity()).sum();
        self.rows.size() + self.events.size() + self.index.allocation_size() + texts + kept
    }

    /// Brings back what the store has of these ids, and makes room for so many more rows: while the ledger is too large the oldest eighth
    /// of the predictions goes.
    fn make_ready(&mut self, ids: &[Option<u128>], texts: Option<&[Option<&str>]>, store: Option<&mut dyn Store>) -> Result<()> {
        let mut store = store;
        let needed = ids.len() * (size_of::<Row>() + size_of::<Event>());
        while self.rows.len > 8 && self.size() + needed > self.terms.memory {
            let before = self.eldest();
            match &mut store {
                Some(store) => self.expire(before, Some(&mut **store))?,
                None => self.expire(before, None)?,
            }
        }
        if self.rows.len + ids.len() > MOST_ROWS || self.events.len + ids.len() > MOST_ROWS {
            return Err(Error::invalid(format!("a ledger holds at most {MOST_ROWS} rows")).hint("expire old ones: `loop.expire(before)`"));
        }
        match store {
            Some(store) if self.counts.stored > 0 => self.bring_back(ids, texts, store),
            _ => Ok(()),
        }
    }

    fn bring_back(&mut self, ids: &[Option<u128>], texts: Option<&[Option<&str>]>, store: &mut dyn Store) -> Result<()> {
        let mut unknown = hashbrown::HashSet::new();
        let (mut numbers, mut names) = (Int64Builder::new(), StringBuilder::new());
        for (row, id) in ids.iter().enumerate() {
            let Some(id) = id else { continue };
            let key = [(id >> 64) as u64, *id as u64];
            let rows = &self.rows;
            if self.index.find(hash(key), |at| rows.get(*at).id == key).is_none() && unknown.insert(key) {
                match texts.and_then(|texts| texts[row]) {
                    Some(text) => names.append_value(text),
                    None => numbers.append_value(key[1] as i64),
                }
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let array: ArrayRef = if texts.is_some() { Arc::new(names.finish()) } else { Arc::new(numbers.finish()) };
        let Some((predictions, labels)) = store.load(array)? else { return Ok(()) };
        let name = |name: &str| Some(name.to_owned());
        let keep = self.kept.iter().map(|(name, ..)| name.clone()).collect();
        let columns = Columns {
            id: "id".into(),
            time: name("time"),
            prediction: name("prediction"),
            score: name("score"),
            version: name("version"),
            label: None,
            keep,
        };
        let counts = self.counts;
        self.add_predictions(&predictions, &columns, |_, _, _| Ok(()))?;
        let columns = Columns { id: "id".into(), time: name("time"), label: name("label"), ..Columns::default() };
        self.add_labels(&labels, &columns, 0, |_, _, _| Ok(()))?;
        // They were counted when they first came.
        self.counts = Counts { stored: counts.stored.saturating_sub(predictions.num_rows() as u64), ..counts };
        Ok(())
    }

    /// The time before which an eighth of the rows lies.
    fn eldest(&self) -> i64 {
        let mut times: Vec<i64> = self.rows.iter().map(|(_, row)| if row.predicted { row.time } else { self.first_event(row) }).collect();
        let at = (times.len() / 8).max(1) - 1;
        let (_, cut, _) = times.select_nth_unstable(at);
        cut.saturating_add(1)
    }

    fn first_event(&self, row: &Row) -> i64 {
        let (mut at, mut first) = (row.events, i64::MAX);
        while at != NONE {
            let event = self.events.get(at);
            (at, first) = (event.next, first.min(event.time));
        }
        first
    }

    /// Gives up predictions before a time, and labels without prediction that came before it: counted as stored if there is a store, else as
    /// expired, or, with a label, as archived.
    ///
    /// # Errors
    /// What the store says; nothing is given up then.
    pub fn expire(&mut self, before: i64, store: Option<&mut dyn Store>) -> Result<()> {
        let mut gone = store.is_some().then(Gone::default);
        let mut new = Self { counts: self.counts, ..Self::new(self.terms.clone())? };
        new.ids = self.ids.as_ref().map(|_| Texts::apart());
        (new.versions, new.classes) = (self.versions.clone(), self.classes.clone());
        let kept = &self.kept;
        new.kept = kept.iter().map(|(name, texts, _)| (name.clone(), texts.clone(), Vec::new())).collect();
        let heads = self.rows.iter().filter(|(at, row)| self.is_head(*at, row)).map(|(at, row)| (at, *row)).collect::<Vec<_>>();
        for (head, first) in heads {
            let mut events = Vec::new();
            let mut at = first.events;
            while at != NONE {
                let event = self.events.get(at);
                events.push(event);
                at = event.next;
            }
            let (mut at, mut stays) = (head, None);
            while at != NONE {
                let row = self.rows.get(at);
                let old = if row.predicted { row.time < before } else { events.iter().all(|event| event.time < before) };
                if let Some(gone) = gone.as_mut().filter(|_| old && row.predicted) {
                    gone.rows.push(at);
                    if gone.rows.len() == 1 || gone.heads.last() != Some(&head) {
                        gone.heads.push(head);
                    }
                    new.counts.stored += 1;
                } else if old && row.predicted {
                    let (won, _) = self.won(first, &row, None);
                    new.counts.expired += u64::from(won.is_none());
                    new.counts.archived += u64::from(won.is_some());
                } else if old {
                    new.counts.expired += 1;
                } else {
                    let text = self.ids.as_ref().map(|ids| ids.get(at));
                    let to = match stays {
                        None => new.find(row.id, text).0,
                        Some(last) => {
                            let to = new.push(row, text);
                            new.rows.change(last).next = to;
                            to
                        }
                    };
                    *new.rows.change(to) = Row { next: NONE, events: NONE, ..row };
                    for ((.., codes), (.., old)) in new.kept.iter_mut().zip(kept) {
                        codes[to as usize] = old[at as usize];
                    }
                    new.predicted += u64::from(row.predicted);
                    if stays.is_none() {
                        for event in events.iter().rev() {
                            let next = new.rows.get(to).events;
                            new.rows.change(to).events = new.events.push(Event { next, ..*event });
                        }
                    }
                    stays = Some(to);
                }
                at = row.next;
            }
        }
        if let (Some(store), Some(gone)) = (store, gone.filter(|gone| !gone.rows.is_empty())) {
            store.save(self.saved_rows(&gone.rows)?, self.saved_events(&gone.heads)?)?;
        }
        *self = new;
        Ok(())
    }

    /// A column of the ids of these rows.
    fn saved_ids(&self, rows: impl Iterator<Item = u32>) -> ArrayRef {
        match &self.ids {
            Some(ids) => Arc::new(rows.map(|at| Some(ids.get(at))).collect::<StringArray>()),
            None => Arc::new(rows.map(|at| Some(self.rows.get(at).id[1] as i64)).collect::<Int64Array>()),
        }
    }

    /// Numbers as they are, codes of classes as their texts.
    fn saved_values(&self, values: Vec<f64>) -> ArrayRef {
        let finite = values.into_iter().map(|value| Some(value).filter(|value| !value.is_nan()));
        if self.classes.len() == 0 {
            return Arc::new(finite.collect::<Float64Array>());
        }
        Arc::new(finite.map(|code| code.map(|code| self.classes.get(code as u32))).collect::<StringArray>())
    }

    fn saved_rows(&self, at: &[u32]) -> Result<RecordBatch> {
        let rows: Vec<Row> = at.iter().map(|at| self.rows.get(*at)).collect();
        let versions = rows.iter().map(|row| (row.version != NONE).then(|| self.versions.get(row.version))).collect::<StringArray>();
        let scores = rows.iter().map(|row| Some(row.score).filter(|score| !score.is_nan())).collect::<Float64Array>();
        let times = rows.iter().map(|row| Some(row.time)).collect::<TimestampNanosecondArray>().with_timezone("UTC");
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("id".into(), self.saved_ids(at.iter().copied())),
            ("time".into(), Arc::new(times)),
            ("prediction".into(), self.saved_values(rows.iter().map(|row| row.prediction).collect())),
            ("score".into(), Arc::new(scores)),
            ("version".into(), Arc::new(versions)),
        ];
        for (name, texts, codes) in &self.kept {
            let words = at.iter().map(|at| Some(codes[*at as usize]).filter(|code| *code != NONE).map(|code| texts.get(code)));
            columns.push((name.clone(), Arc::new(words.collect::<StringArray>())));
        }
        batch_of(columns)
    }

    /// The label events of these first rows of ids, oldest row first.
    fn saved_events(&self, heads: &[u32]) -> Result<RecordBatch> {
        let (mut ids, mut events) = (Vec::new(), Vec::new());
        for head in heads {
            let mut at = self.rows.get(*head).events;
            while at != NONE {
                ids.push((at, *head));
                events.push((at, self.events.get(at)));
                at = self.events.get(at).next;
            }
        }
        ids.sort_unstable();
        events.sort_unstable_by_key(|(at, _)| *at);
        let times = events.iter().map(|(_, event)| Some(event.time)).collect::<TimestampNanosecondArray>().with_timezone("UTC");
        batch_of(vec![
            ("id".into(), self.saved_ids(ids.into_iter().map(|(_, head)| head))),
            ("label".into(), self.saved_values(events.iter().map(|(_, event)| event.label).collect())),
            ("time".into(), Arc::new(times)),
        ])
    }

    fn is_head(&self, at: u32, row: &Row) -> bool {
        let rows = &self.rows;
        self.versions.len() == 0 || self.index.find(hash(row.id), |at| rows.get(*at).id == row.id) == Some(&at)
    }
}
