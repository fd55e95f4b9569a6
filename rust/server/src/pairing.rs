//! Events that come as two halves, request and response, joined by their id, whichever comes first.
//!
//! What waits is bounded in rows and in memory; the oldest is given up, and counted. Nothing depends on how halves were batched: they are
//! taken row by row, and a row weighs what its own values do. There is no clock: the time is an argument.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, Float64Array, RecordBatch, UInt64Array, new_null_array};
use arrow_cast::cast;
use arrow_schema::{DataType, Field, SchemaRef};
use arrow_select::interleave::interleave;
use arrow_select::take::take_record_batch;
use barograph_core::codec::{Reader, Writer};
use barograph_core::{Error, Result};
use barograph_engine::frame::nanoseconds;

use crate::ingest::cloudevents::Side;
use crate::problem::{Outcome, Problem};
use crate::record::{batch_from_stream, stream};
use crate::rows::{KEY_BYTES, batch_of};
use crate::shape::{MOST_COLUMNS, Mark};

/// Halves that may wait.
const MOST_HALVES: usize = 100_000;
/// Bytes that they may take.
const MOST_BYTES: u64 = 64 << 20;
/// Bytes that their batches may take, where few rows of many columns do not fill them.
const MOST_HELD: u64 = 2 * MOST_BYTES;
/// What a column of a batch takes beside its values.
const COLUMN_BYTES: u64 = 300;
/// Pairs that are remembered, so that a half that is sent again does not wait for nothing.
const MOST_DONE: usize = 100_000;
/// What a row takes beside its values: its id in the batch and in the index, its time, its weight.
const ROW_BYTES: u32 = 96;
/// Batches of fewer rows are put together when so many of them wait one after the other.
const SMALL: usize = 64;

/// What became of halves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that wait.
    pub requests: u64,
    /// Responses that wait.
    pub responses: u64,
    /// Bytes of what waits.
    pub bytes: u64,
    /// Events that were joined.
    pub joined: u64,
    /// Requests that waited too long, and became events that failed.
    pub unanswered: u64,
    /// Responses that waited too long, and were dropped.
    pub unasked: u64,
    /// Halves given up because too many waited.
    pub given_up: u64,
    /// Halves that came again, and were dropped.
    pub repeated: u64,
    /// Halves without an id, which were dropped.
    pub nameless: u64,
}

/// A batch of halves that wait.
#[derive(Clone, Debug)]
struct Kept {
    batch: RecordBatch,
    rows: Vec<Waiting>,
    /// How many of them wait.
    left: usize,
    /// The first that may.
    first: usize,
}

/// A row of a batch.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    key: u128,
    /// When it came, and after how many others.
    time: i64,
    turn: u64,
    weight: u32,
    waits: bool,
}

impl Kept {
    /// The place of the oldest row that waits.
    fn oldest(&mut self) -> Option<(usize, Waiting)> {
        while let Some(row) = self.rows.get(self.first) {
            if row.waits {
                return Some((self.first, *row));
            }
            self.first += 1;
        }
        None
    }

    /// Only the rows that wait.
    fn thin(&self) -> Outcome<Self> {
        let places = self.rows.iter().enumerate().filter(|(_, row)| row.waits).map(|(at, _)| at as u64);
        let batch = take_record_batch(&self.batch, &UInt64Array::from_iter_values(places)).map_err(|error| wrong(&error))?;
        Ok(Self { batch, rows: self.rows.iter().filter(|row| row.waits).copied().collect(), left: self.left, first: 0 })
    }
}

/// What waits of one side.
#[derive(Clone, Debug, Default)]
struct Half {
    /// Batches by number, in the order in which they came.
    kept: BTreeMap<u64, Kept>,
    /// Ids to batch and row.
    index: HashMap<u128, (u64, usize)>,
    /// No row waits in batches before this one.
    front: u64,
    /// What the batches take, values and columns.
    held: u64,
    /// Batches that came since small ones were put together.
    since: usize,
}

impl Half {
    /// A row of a batch.
    fn push(&mut self, number: u64, row: Waiting) {
        let Some(kept) = self.kept.get_mut(&number) else { return };
        if row.waits {
            self.index.insert(row.key, (number, kept.rows.len()));
            kept.left += 1;
            self.front = self.front.min(number);
        }
        kept.rows.push(row);
    }

    /// The oldest row that waits, and its batch.
    fn oldest(&mut self) -> Option<(u64, usize, Waiting)> {
        for (number, kept) in self.kept.range_mut(self.front..) {
            self.front = *number;
            if let Some((at, row)) = kept.oldest() {
                return Some((*number, at, row));
            }
        }
        None
    }

    /// A row does not wait any longer; its weight.
    fn leave(&mut self, number: u64, at: usize) -> u64 {
        let Some(kept) = self.kept.get_mut(&number) else { return 0 };
        let Some(row) = kept.rows.get_mut(at).filter(|row| row.waits) else { return 0 };
        row.waits = false;
        kept.left -= 1;
        self.index.remove(&row.key);
        row.weight.into()
    }

    fn remove(&mut self, number: u64) {
        if let Some(kept) = self.kept.remove(&number) {
            self.held -= footprint(&kept.batch);
        }
    }

    /// Keeps a batch, in the place of the one of its number.
    fn put(&mut self, number: u64, kept: Kept) {
        for (at, row) in kept.rows.iter().enumerate().filter(|(_, row)| row.waits) {
            self.index.insert(row.key, (number, at));
        }
        self.front = self.front.min(number);
        self.remove(number);
        self.held += footprint(&kept.batch);
        self.kept.insert(number, kept);
    }

    /// Lets go of batches that are left empty or nearly so, of those `touched`.
    fn tidy(&mut self, touched: &[u64]) -> Outcome<()> {
        for number in touched {
            let Some(kept) = self.kept.get(number) else { continue };
            if kept.left == 0 {
                self.remove(*number);
            } else if kept.rows.len() >= 16 && kept.left * 4 <= kept.rows.len() {
                let thin = kept.thin()?;
                self.put(*number, thin);
            }
        }
        Ok(())
    }

    /// Puts the last batches together, if there are many and they are small.
    fn gather(&mut self) -> Outcome<()> {
        self.since += 1;
        if self.since < SMALL {
            return Ok(());
        }
        self.since = 0;
        let small = self.kept.iter().rev().take(4 * SMALL).take_while(|(_, kept)| kept.rows.len() < SMALL);
        let last: Vec<u64> = small.map(|(number, _)| *number).collect();
        let Some(first) = last.last().copied().filter(|_| last.len() >= SMALL) else { return Ok(()) };
        let (mut batches, mut places, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for kept in last.iter().rev().filter_map(|number| self.kept.get(number)) {
            let waiting = kept.rows.iter().enumerate().filter(|(_, row)| row.waits);
            waiting.for_each(|(at, row)| {
                places.push((batches.len(), at));
                rows.push(*row);
            });
            batches.push(&kept.batch);
        }
        // Batches of columns of their own would be mostly null as one.
        let names: HashSet<&str> =
            batches.iter().flat_map(|batch| batch.schema_ref().fields()).map(|field| field.name().as_str()).collect();
        let cells: usize = batches.iter().map(|batch| batch.num_columns() * batch.num_rows().max(16)).sum();
        if names.len() > MOST_COLUMNS || names.len() * rows.len() > cells {
            return Ok(());
        }
        let (left, batch) = (rows.len(), batch_of(gathered(&batches, &places)?, rows.len())?);
        last.iter().for_each(|number| self.remove(*number));
        self.put(first, Kept { batch, rows, left, first: 0 });
        Ok(())
    }
}

/// Halves of events that wait for their other half.
#[derive(Clone, Debug, Default)]
pub struct Pairing {
    requests: Half,
    responses: Half,
    /// Ids of pairs that were joined, by when.
    done: HashSet<u128>,
    order: VecDeque<(i64, u128)>,
    number: u64,
    turn: u64,
    now: i64,
    counts: Counts,
}

fn wrong(error: &arrow_schema::ArrowError) -> Problem {
    Problem::bad(format!("the halves of events could not be joined: {error}"))
}

impl Pairing {
    /// Takes halves that came at `now`; gives the events that are complete by them.
    ///
    /// An event has the columns of its request and of its response; of one that both have the response's, but the request's `_id` and
    /// `_time`. Unless there is one, `_latency_seconds` is the time of the response after that of the request; null where that is negative, as the two
    /// are sent by themselves.
    ///
    /// # Errors
    /// `Problem` for a batch without a column `_id` of keys.
    pub fn add(&mut self, side: Side, batch: &RecordBatch, now: i64) -> Outcome<Option<RecordBatch>> {
        self.now = self.now.max(now);
        let ids = batch
            .column_by_name(Mark::Id.name())
            .and_then(|ids| ids.as_fixed_size_binary_opt())
            .filter(|ids| ids.value_length() == KEY_BYTES);
        let Some(ids) = ids else { return Err(Problem::bad("halves of events must have a column `_id` of keys of 16 bytes")) };
        let number = self.number;
        self.number += 1;
        let rows = Vec::with_capacity(batch.num_rows());
        self.side(side).0.put(number, Kept { batch: batch.clone(), rows, left: 0, first: 0 });
        let mut pairs: Vec<(usize, (u64, usize))> = Vec::new();
        let mut given_up = [vec![], vec![]];
        for (at, weight) in weights(batch).into_iter().enumerate() {
            let key = if ids.is_valid(at) { <[u8; 16]>::try_from(ids.value(at)).ok().map(u128::from_be_bytes) } else { None };
            let partner = key.and_then(|key| self.side(side).1.index.get(&key).copied());
            let known = |key| self.done.contains(&key) || self.half(side).index.contains_key(&key);
            let waits = match (key, partner) {
                (None, _) => {
                    self.counts.nameless += 1;
                    false
                }
                (Some(key), Some((from, place))) => {
                    self.counts.bytes -= self.side(side).1.leave(from, place);
                    pairs.push((at, (from, place)));
                    self.finish(key);
                    false
                }
                (Some(key), None) if known(key) => {
                    self.counts.repeated += 1;
                    false
                }
                (Some(_), None) => true,
            };
            let row = Waiting { key: key.unwrap_or_default(), time: self.now, turn: self.turn, weight, waits };
            self.turn += 1;
            self.side(side).0.push(number, row);
            if waits {
                self.counts.bytes += u64::from(weight);
                self.bound(&mut given_up);
            }
        }
        let joined = self.joined(side, number, &pairs)?;
        let (own, _) = self.side(side);
        own.tidy(&[number])?;
        let mut from: Vec<u64> = pairs.iter().map(|(_, (from, _))| *from).collect();
        from.dedup();
        let (_, other) = self.side(side);
        other.tidy(&from)?;
        let [requests, responses] = given_up;
        self.requests.tidy(&requests)?;
        self.responses.tidy(&responses)?;
        self.side(side).0.gather()?;
        self.shed();
        Ok(joined)
    }

    /// Halves that have waited since before `before` wait no longer: requests become events with `_error`, responses go.
    ///
    /// # Errors
    /// None in practice.
    pub fn expire(&mut self, before: i64) -> Outcome<Option<RecordBatch>> {
        while self.order.front().is_some_and(|(time, _)| *time < before) {
            self.forget();
        }
        let mut from = Vec::new();
        while let Some((number, at, _)) = self.responses.oldest().filter(|(_, _, row)| row.time < before) {
            self.counts.bytes -= self.responses.leave(number, at);
            self.counts.unasked += 1;
            from.push(number);
        }
        from.dedup();
        self.responses.tidy(&from)?;
        let (mut from, mut places) = (Vec::new(), Vec::new());
        while let Some((number, at, _)) = self.requests.oldest().filter(|(_, _, row)| row.time < before) {
            self.counts.bytes -= self.requests.leave(number, at);
            self.counts.unanswered += 1;
            if from.last() != Some(&number) {
                from.push(number);
            }
            places.push((from.len() - 1, at));
        }
        if places.is_empty() {
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = from.iter().filter_map(|number| Some(&self.requests.kept.get(number)?.batch)).collect();
        let mut columns = gathered(&batches, &places)?;
        columns.retain(|(field, _)| field.name() != Mark::Error.name());
        columns.push((Field::new(Mark::Error.name(), DataType::Boolean, true), Arc::new(BooleanArray::from(vec![true; places.len()]))));
        self.requests.tidy(&from)?;
        batch_of(columns, places.len()).map(Some)
    }

    /// Forgets what is held for an id.
    ///
    /// # Errors
    /// None in practice.
    pub fn erase(&mut self, key: u128) -> Outcome<()> {
        self.done.remove(&key);
        for half in [&mut self.requests, &mut self.responses] {
            let Some((number, at)) = half.index.get(&key).copied() else { continue };
            self.counts.bytes -= half.leave(number, at);
            // Its values must not stay in the batch either.
            let thin = half.kept.get(&number).map(Kept::thin).transpose()?;
            half.remove(number);
            if let Some(thin) = thin.filter(|thin| thin.left > 0) {
                half.put(number, thin);
            }
        }
        Ok(())
    }

    /// What became of halves so far.
    pub fn counts(&self) -> Counts {
        Counts { requests: self.requests.index.len() as u64, responses: self.responses.index.len() as u64, ..self.counts }
    }

    /// The halves of a side, and those of the other.
    fn side(&mut self, side: Side) -> (&mut Half, &mut Half) {
        match side {
            Side::Request => (&mut self.requests, &mut self.responses),
            Side::Response => (&mut self.responses, &mut self.requests),
        }
    }

    fn half(&self, side: Side) -> &Half {
        match side {
            Side::Request => &self.requests,
            Side::Response => &self.responses,
        }
    }

    /// Gives up the oldest as long as too much waits; the batches of requests and of responses that it stood in.
    fn bound(&mut self, given_up: &mut [Vec<u64>; 2]) {
        while self.requests.index.len() + self.responses.index.len() > MOST_HALVES || self.counts.bytes > MOST_BYTES {
            let [requests, responses] = &mut *given_up;
            let request = self.requests.oldest();
            let response = self.responses.oldest();
            let of_request = match (request, response) {
                (Some((.., request)), Some((.., response))) => request.turn < response.turn,
                (request, _) => request.is_some(),
            };
            let (half, first, touched) =
                if of_request { (&mut self.requests, request, requests) } else { (&mut self.responses, response, responses) };
            let Some((number, at, _)) = first else { return };
            self.counts.bytes -= half.leave(number, at);
            self.counts.given_up += 1;
            if touched.last() != Some(&number) {
                touched.push(number);
            }
        }
    }

    /// Gives up the oldest as long as batches take too much that is not the weight of their rows.
    fn shed(&mut self) {
        while self.requests.held + self.responses.held > MOST_HELD {
            let request = self.requests.oldest().map(|(.., row)| row.turn);
            let response = self.responses.oldest().map(|(.., row)| row.turn);
            let half = if request.is_some_and(|turn| response.is_none_or(|other| turn < other)) {
                &mut self.requests
            } else {
                &mut self.responses
            };
            let Some((number, at, _)) = half.oldest() else { return };
            self.counts.bytes -= half.leave(number, at);
            self.counts.given_up += 1;
            if half.kept.get(&number).is_some_and(|kept| kept.left == 0) {
                half.remove(number);
            }
        }
    }

    fn finish(&mut self, key: u128) {
        self.counts.joined += 1;
        self.done.insert(key);
        self.order.push_back((self.now, key));
        if self.order.len() > MOST_DONE {
            self.forget();
        }
    }

    fn forget(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.done.remove(&key);
        }
    }

    /// Pairs of a row of the batch `number` and a place on the other side, as events.
    fn joined(&self, side: Side, number: u64, pairs: &[(usize, (u64, usize))]) -> Outcome<Option<RecordBatch>> {
        if pairs.is_empty() {
            return Ok(None);
        }
        let (own, other) = match side {
            Side::Request => (&self.requests, &self.responses),
            Side::Response => (&self.responses, &self.requests),
        };
        let (mut here, mut there) = (Sources::default(), Sources::default());
        let (mut own_places, mut other_places) = (Vec::with_capacity(pairs.len()), Vec::with_capacity(pairs.len()));
        for (at, (from, place)) in pairs {
            let (Some(own), Some(other)) = (own.kept.get(&number), other.kept.get(from)) else { continue };
            own_places.push((here.of(number, &own.batch), *at));
            other_places.push((there.of(*from, &other.batch), *place));
        }
        let (own, other) = (gathered(&here.batches, &own_places)?, gathered(&there.batches, &other_places)?);
        let (mut columns, answers) = if side == Side::Request { (own, other) } else { (other, own) };
        let latencies = latencies(&columns, &answers);
        for (field, array) in answers {
            let name = field.name();
            if name == Mark::Id.name() || name == Mark::Time.name() {
                continue;
            }
            match columns.iter_mut().find(|(known, _)| known.name() == name) {
                Some(known) => *known = (field, array),
                None => columns.push((field, array)),
            }
        }
        let latency = Mark::Latency.name();
        if let Some(latencies) = latencies.filter(|_| !columns.iter().any(|(field, _)| field.name() == latency)) {
            columns.push((Field::new(latency, DataType::Float64, true), latencies));
        }
        batch_of(columns, pairs.len()).map(Some)
    }

    /// Writes everything.
    pub fn encode(&self, writer: &mut Writer) {
        writer.i64(self.now);
        let counts = &self.counts;
        let counts = [counts.joined, counts.unanswered, counts.unasked, counts.given_up, counts.repeated, counts.nameless];
        counts.into_iter().for_each(|count| writer.u64(count));
        writer.len(self.order.len());
        for (time, key) in &self.order {
            writer.i64(self.now.saturating_sub(*time));
            write_key(writer, *key);
        }
        // The order of what waits on both sides, which says what is given up first.
        let base = self.requests.kept.values().chain(self.responses.kept.values()).flat_map(|kept| &kept.rows).filter(|row| row.waits);
        let base = base.map(|row| row.turn).min().unwrap_or(self.turn);
        writer.u64(self.turn - base);
        for half in [&self.requests, &self.responses] {
            // What Arrow cannot take apart or write is not written: it came by the same way, so there is none.
            let whole = half.kept.values().filter(|kept| kept.left > 0).filter_map(|kept| kept.thin().ok());
            let written: Vec<_> = whole.filter_map(|kept| Some((stream(Vec::new(), &kept.batch).ok()?, kept.rows))).collect();
            writer.len(written.len());
            for (bytes, rows) in written {
                writer.bytes(&bytes);
                for row in rows {
                    writer.i64(self.now.saturating_sub(row.time));
                    writer.u64(row.turn - base);
                    writer.u64(row.weight.into());
                }
            }
        }
    }

    /// Reads it back.
    ///
    /// # Errors
    /// `Decode` for bytes that `encode` did not write.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let mut out = Self { now: reader.i64()?, ..Self::default() };
        let mut count = || reader.count();
        out.counts = Counts {
            joined: count()?,
            unanswered: count()?,
            unasked: count()?,
            given_up: count()?,
            repeated: count()?,
            nameless: count()?,
            ..Counts::default()
        };
        for _ in 0..reader.len(3)? {
            let time = out.now.saturating_sub(reader.i64()?);
            let key = read_key(reader)?;
            out.done.insert(key);
            out.order.push_back((time, key));
        }
        out.turn = reader.count()?;
        let odd = || Error::decode("the halves of events in a snapshot are not as they were written");
        for side in [Side::Request, Side::Response] {
            for _ in 0..reader.len(2)? {
                let batch = batch_from_stream(reader.bytes()?)?;
                let ids = batch.column_by_name(Mark::Id.name()).and_then(|ids| ids.as_fixed_size_binary_opt());
                let ids = ids.filter(|ids| ids.value_length() == KEY_BYTES && ids.null_count() == 0).ok_or_else(odd)?;
                let mut rows = Vec::new();
                for at in 0..ids.len() {
                    let key = <[u8; 16]>::try_from(ids.value(at)).map(u128::from_be_bytes).map_err(|_| odd())?;
                    let (time, turn) = (out.now.saturating_sub(reader.i64()?), reader.count()?);
                    let weight = u32::try_from(reader.u64()?).map_err(|_| odd())?;
                    rows.push(Waiting { key, time, turn, weight, waits: true });
                }
                let number = out.number;
                out.number += 1;
                out.counts.bytes += rows.iter().map(|row| u64::from(row.weight)).sum::<u64>();
                let all = rows.len();
                let (half, _) = out.side(side);
                let before = half.index.len();
                half.put(number, Kept { batch, left: all, rows, first: 0 });
                if half.index.len() != before + all {
                    return Err(odd());
                }
            }
        }
        if out.requests.index.len() + out.responses.index.len() > MOST_HALVES
            || out.requests.index.keys().any(|key| out.responses.index.contains_key(key))
        {
            return Err(odd());
        }
        Ok(out)
    }
}

fn write_key(writer: &mut Writer, key: u128) {
    writer.u64((key >> 64) as u64);
    writer.u64(key as u64);
}

fn read_key(reader: &mut Reader<'_>) -> Result<u128> {
    Ok(u128::from(reader.u64()?) << 64 | u128::from(reader.u64()?))
}

/// What each row takes in memory: by its own values, so that it does not depend on its batch.
fn weights(batch: &RecordBatch) -> Vec<u32> {
    let mut out = vec![ROW_BYTES; batch.num_rows()];
    for array in batch.columns() {
        let mut add = |weight: &dyn Fn(usize) -> usize| {
            for (at, out) in out.iter_mut().enumerate().filter(|(at, _)| array.is_valid(*at)) {
                *out = out.saturating_add(u32::try_from(weight(at)).unwrap_or(u32::MAX));
            }
        };
        if let Some(texts) = array.as_string_opt::<i32>() {
            add(&|at| 4 + texts.value_length(at) as usize);
        } else if let Some(bytes) = array.as_binary_opt::<i32>() {
            add(&|at| 4 + bytes.value_length(at) as usize);
        } else {
            let width = array.data_type().primitive_width().unwrap_or(16);
            add(&|_| width);
        }
    }
    out
}

/// What a batch takes in memory, about.
fn footprint(batch: &RecordBatch) -> u64 {
    let of = |array: &ArrayRef| {
        let texts = array.as_string_opt::<i32>().map(|texts| (texts.offsets().first(), texts.offsets().last()));
        let content = texts.map_or(0, |(first, last)| last - first) as u64;
        COLUMN_BYTES + content + array.len() as u64 * array.data_type().primitive_width().unwrap_or(16) as u64
    };
    batch.columns().iter().map(of).sum()
}

/// Batches that rows are taken from.
#[derive(Default)]
struct Sources<'a> {
    batches: Vec<&'a RecordBatch>,
    known: HashMap<u64, usize>,
}

impl<'a> Sources<'a> {
    fn of(&mut self, number: u64, batch: &'a RecordBatch) -> usize {
        *self.known.entry(number).or_insert_with(|| {
            self.batches.push(batch);
            self.batches.len() - 1
        })
    }
}

/// Rows of batches that may differ in their columns: what a batch does not have is null.
fn gathered(batches: &[&RecordBatch], places: &[(usize, usize)]) -> Outcome<Vec<(Field, ArrayRef)>> {
    // Batches of one schema, of which there are few, have their columns at one place.
    let mut schemas: Vec<&SchemaRef> = Vec::new();
    let of_batch: Vec<usize> = batches
        .iter()
        .map(|batch| {
            let own = batch.schema_ref();
            schemas.iter().rposition(|known| *known == own).unwrap_or_else(|| {
                schemas.push(own);
                schemas.len() - 1
            })
        })
        .collect();
    let mut names: Vec<(&str, Vec<Option<usize>>)> = Vec::new();
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (of, schema) in schemas.iter().enumerate() {
        for (at, field) in schema.fields().iter().enumerate() {
            let next = seen.len();
            let name = *seen.entry(field.name()).or_insert(next);
            // Without an end to them, rows of columns of their own would be a table of the square of their size.
            if name == names.len() && name < MOST_COLUMNS {
                names.push((field.name(), vec![None; schemas.len()]));
            }
            if let Some(place) = names.get_mut(name).and_then(|(_, places)| places.get_mut(of)) {
                *place = Some(at);
            }
        }
    }
    let mut out = Vec::with_capacity(names.len());
    for (name, places_of) in names {
        let place = |of: &usize| places_of.get(*of).copied().flatten();
        let own: Vec<Option<&ArrayRef>> = batches.iter().zip(&of_batch).map(|(batch, of)| batch.columns().get(place(of)?)).collect();
        let one = common(own.iter().flatten().map(Array::data_type));
        let nothing = new_null_array(&one, 1);
        let alike: Vec<ArrayRef> =
            own.iter().map(|array| array.map_or_else(|| Arc::clone(&nothing), |array| as_type(array, &one))).collect();
        let values: Vec<&dyn Array> = alike.iter().map(AsRef::as_ref).collect();
        let array = if own.iter().all(Option::is_some) {
            interleave(&values, places)
        } else {
            let place = |(source, row): &(usize, usize)| (*source, if own.get(*source).is_some_and(Option::is_some) { *row } else { 0 });
            interleave(&values, &places.iter().map(place).collect::<Vec<_>>())
        };
        out.push((Field::new(name, one, true), array.map_err(|error| wrong(&error))?));
    }
    Ok(out)
}

/// A type that columns of these can be read as.
fn common<'a>(types: impl Iterator<Item = &'a DataType>) -> DataType {
    types
        .cloned()
        .reduce(|one, other| match (&one, &other) {
            (a, b) if a == b => one,
            (DataType::Null, _) => other,
            (_, DataType::Null) => one,
            (a, b) if [a, b].into_iter().all(|kind| kind.is_numeric() || *kind == DataType::Boolean) => DataType::Float64,
            _ => DataType::Utf8,
        })
        .unwrap_or(DataType::Null)
}

fn as_type(array: &ArrayRef, wanted: &DataType) -> ArrayRef {
    if array.data_type() == wanted {
        return Arc::clone(array);
    }
    cast(array, wanted).unwrap_or_else(|_| new_null_array(wanted, array.len()))
}

/// Seconds from the times of requests to those of responses, if any is known.
fn latencies(asked: &[(Field, ArrayRef)], answered: &[(Field, ArrayRef)]) -> Option<ArrayRef> {
    let times = |columns: &[(Field, ArrayRef)]| {
        let (_, array) = columns.iter().find(|(field, _)| field.name() == Mark::Time.name())?;
        nanoseconds(array.as_ref())
    };
    let (from, to) = (times(asked)?, times(answered)?);
    let seconds =
        |(from, to): (Option<i64>, Option<i64>)| to?.checked_sub(from?).filter(|taken| *taken >= 0).map(|taken| taken as f64 / 1e9);
    let out: Float64Array = from.into_iter().zip(to).map(seconds).collect();
    (out.null_count() < out.len()).then(|| Arc::new(out) as ArrayRef)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::open_inference;
    use crate::rows::time_type;
    use crate::shape::Shape;
    use arrow_array::{FixedSizeBinaryArray, Int64Array, StringArray, TimestampNanosecondArray};
    use arrow_cast::display::array_value_to_string;

    const SECOND: i64 = 1_000_000_000;

    /// The column of an id.
    fn id(text: &str) -> (Field, ArrayRef) {
        open_inference::ids(text, 1, &Shape::default()).unwrap()
    }

    /// A half of an event.
    #[derive(Clone, Debug)]
    struct Row {
        side: Side,
        id: u64,
        /// Requests with an odd number have a column more.
        x: f64,
        time: i64,
    }

    fn batch(rows: &[Row]) -> RecordBatch {
        let keys: Vec<u8> = rows.iter().flat_map(|row| u128::from(row.id).to_be_bytes()).collect();
        let keys: ArrayRef = Arc::new(FixedSizeBinaryArray::try_new(KEY_BYTES, keys.into(), None).unwrap());
        let times: ArrayRef = Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.time)).with_timezone("UTC"));
        let values: ArrayRef = Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.x)));
        let name = if rows[0].side == Side::Request { "x" } else { "_prediction" };
        let mut columns = vec![
            (Field::new("_id", DataType::FixedSizeBinary(KEY_BYTES), true), keys),
            (Field::new("_time", time_type(), true), times),
            (Field::new(name, DataType::Float64, true), values),
        ];
        if rows[0].side == Side::Request && rows[0].id % 2 == 1 {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| format!("c{}", row.id))));
            columns.push((Field::new("c", DataType::Utf8, true), texts));
        }
        batch_of(columns, rows.len()).unwrap()
    }

    /// Rows as text; what is null is not there, as in a batch without that column.
    fn told(batch: &RecordBatch) -> Vec<BTreeMap<String, String>> {
        let text = |row: usize, array: &ArrayRef| match nanoseconds(array.as_ref()) {
            Some(times) => times[row].unwrap().to_string(),
            None => array_value_to_string(array, row).unwrap(),
        };
        let cell =
            |row: usize, (field, array): (&Arc<Field>, &ArrayRef)| array.is_valid(row).then(|| (field.name().clone(), text(row, array)));
        (0..batch.num_rows())
            .map(|row| batch.schema_ref().fields().iter().zip(batch.columns()).filter_map(|column| cell(row, column)).collect())
            .collect()
    }

    /// A generator without a seed from outside (Knuth, MMIX).
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % sides
        }
    }

    /// Halves in an order of their own: late, twice, alone.
    fn halves(events: u64) -> Vec<Row> {
        let mut dice = Dice(7);
        let mut out: Vec<(u64, Row)> = Vec::new();
        for id in 0..events {
            let (asked, answered) = (id * 4 + dice.roll(400), id * 4 + dice.roll(400));
            let request = Row { side: Side::Request, id, x: id as f64, time: id as i64 * SECOND };
            let response =
                Row { side: Side::Response, id, x: -(id as f64), time: id as i64 * SECOND + 2_000_000 * (dice.roll(20) as i64 - 2) };
            match dice.roll(10) {
                0 => out.push((asked, request)),
                1 => out.push((answered, response)),
                2 => out.extend([(asked, request.clone()), (answered, response), (answered + 50, request)]),
                _ => out.extend([(asked, request), (answered, response)]),
            }
        }
        out.sort_by_key(|(at, row)| (*at, row.id, row.side == Side::Response));
        out.into_iter().map(|(_, row)| row).collect()
    }

    /// The events of halves that come in batches of at most `most`, saved and read again after each `save`.
    fn run(rows: &[Row], most: usize, save: usize) -> (Vec<BTreeMap<String, String>>, Counts) {
        let mut pairing = Pairing::default();
        let mut out = Vec::new();
        let mut dice = Dice(most as u64);
        let mut rest = rows;
        let mut turn = 0;
        while let Some(first) = rest.first() {
            let alike =
                rest.iter().take_while(|row| row.side == first.side && (row.side == Side::Response || row.id % 2 == first.id % 2)).count();
            let length = alike.min(1 + dice.roll(most as u64) as usize);
            let (now, after) = rest.split_at(length);
            out.extend(pairing.add(first.side, &batch(now), 1).unwrap().iter().flat_map(told));
            rest = after;
            turn += 1;
            if turn % save == 0 {
                let mut writer = Writer::new();
                pairing.encode(&mut writer);
                let bytes = writer.into_payload();
                let mut reader = Reader::new(&bytes);
                let read = Pairing::decode(&mut reader).unwrap();
                reader.finish().unwrap();
                assert_eq!(read.counts(), pairing.counts());
                pairing = read;
            }
        }
        out.extend(pairing.expire(2).unwrap().iter().flat_map(told));
        (out, pairing.counts())
    }

    #[test]
    fn batches_and_restarts_change_nothing() {
        let rows = halves(3000);
        let one = run(&rows, 1, usize::MAX);
        assert!(one.1.joined > 2000 && one.1.unanswered > 200 && one.1.unasked > 200 && one.1.repeated > 200, "{:?}", one.1);
        assert_eq!((one.1.requests, one.1.responses, one.1.bytes), (0, 0, 0));
        assert_eq!(one.0.len() as u64, one.1.joined + one.1.unanswered);
        for (most, save) in [(2, usize::MAX), (1000, usize::MAX), (1, 97), (50, 13)] {
            let other = run(&rows, most, save);
            assert_eq!(other.1, one.1, "{most} {save}");
            assert!(other.0 == one.0, "{most} {save}");
        }
    }

    #[test]
    fn halves_join_whichever_comes_first() {
        let request = Row { side: Side::Request, id: 1, x: 4.0, time: 10 * SECOND };
        let response = Row { side: Side::Response, id: 1, x: 0.5, time: 10 * SECOND + 250_000_000 };
        for order in [[&request, &response], [&response, &request]] {
            let mut pairing = Pairing::default();
            assert!(pairing.add(order[0].side, &batch(std::slice::from_ref(order[0])), 1).unwrap().is_none());
            let event = pairing.add(order[1].side, &batch(std::slice::from_ref(order[1])), 2).unwrap().unwrap();
            let told = &told(&event)[0];
            let of = |name: &str| told.get(name).map(String::as_str);
            assert_eq!((of("x"), of("_prediction"), of("c"), of("_latency_seconds")), (Some("4.0"), Some("0.5"), Some("c1"), Some("0.25")));
            assert_eq!(of("_time"), Some("10000000000"));
            assert_eq!(pairing.counts(), Counts { joined: 1, ..Counts::default() });
        }
        // Sent by themselves, the halves of one event may have their times the wrong way round.
        let early = Row { time: 9 * SECOND, ..response };
        let mut pairing = Pairing::default();
        pairing.add(Side::Request, &batch(&[request]), 1).unwrap();
        let event = pairing.add(Side::Response, &batch(&[early]), 2).unwrap().unwrap();
        assert!(event.column_by_name("_latency_seconds").is_none());
    }

    #[test]
    fn requests_without_an_answer_are_failed_events() {
        let mut pairing = Pairing::default();
        let request = |id| Row { side: Side::Request, id, x: 1.0, time: 0 };
        pairing.add(Side::Request, &batch(&[request(2), request(4)]), 10).unwrap();
        pairing.add(Side::Request, &batch(&[request(6)]), 20).unwrap();
        pairing.add(Side::Response, &batch(&[Row { side: Side::Response, ..request(8) }]), 5).unwrap();
        assert!(pairing.expire(10).unwrap().is_none());
        let failed = pairing.expire(20).unwrap().unwrap();
        assert!(failed.num_rows() == 2 && told(&failed).iter().all(|row| row["_error"] == "true" && row["x"] == "1.0"));
        let counts = pairing.counts();
        // Time does not run backwards: what came "at 5" came at 20.
        assert_eq!((counts.unanswered, counts.unasked, counts.requests, counts.responses), (2, 0, 1, 1));
        pairing.expire(21).unwrap();
        assert_eq!((pairing.counts().unanswered, pairing.counts().unasked, pairing.counts().bytes), (3, 1, 0));
        assert!(pairing.requests.kept.is_empty() && pairing.responses.kept.is_empty());
        assert_eq!(pairing.requests.held + pairing.responses.held, 0);
    }

    #[test]
    fn the_oldest_is_given_up_and_memory_is_bounded() {
        let mut pairing = Pairing::default();
        let most = MOST_HALVES as u64;
        let rows: Vec<Row> = (0..most + 1000).map(|id| Row { side: Side::Request, id: 2 * id, x: 0.0, time: 0 }).collect();
        for rows in rows.chunks(777) {
            pairing.add(Side::Request, &batch(rows), 1).unwrap();
        }
        let counts = pairing.counts();
        assert_eq!((counts.requests, counts.given_up), (most, 1000));
        let answer = |id| batch(&[Row { side: Side::Response, id, x: 0.0, time: 0 }]);
        assert!(pairing.add(Side::Response, &answer(2 * 1000), 1).unwrap().is_some());
        assert!(pairing.add(Side::Response, &answer(2 * 999), 1).unwrap().is_none());
        // One of a batch that waits on does not hold the others.
        for id in 1000..most + 999 {
            if id % 777 != 0 {
                pairing.add(Side::Response, &answer(2 * id), 1).unwrap();
            }
        }
        assert!(pairing.requests.held < 400 * 1000, "{}", pairing.requests.held);

        // Wide rows that all have columns of their own.
        let mut pairing = Pairing::default();
        for row in 0..300u64 {
            let mut columns = vec![id(&row.to_string())];
            for at in 0..1900 {
                columns.push((Field::new(format!("{row}.{at}"), DataType::Int64, true), Arc::new(Int64Array::from(vec![1])) as ArrayRef));
            }
            pairing.add(Side::Request, &batch_of(columns, 1).unwrap(), 1).unwrap();
        }
        assert!(pairing.requests.held <= MOST_HELD && pairing.counts().given_up > 0);
        let event = pairing.expire(2).unwrap().unwrap();
        assert_eq!(event.num_columns(), MOST_COLUMNS + 1);

        let long = "x".repeat(1 << 20);
        let mut pairing = Pairing::default();
        for row in 0..100u64 {
            let text: ArrayRef = Arc::new(StringArray::from(vec![long.as_str()]));
            let columns = vec![id(&row.to_string()), (Field::new("text", DataType::Utf8, true), text)];
            pairing.add(Side::Request, &batch_of(columns, 1).unwrap(), 1).unwrap();
        }
        assert!((63..64).contains(&pairing.counts().requests), "{:?}", pairing.counts());
    }

    #[test]
    fn what_is_erased_is_not_held() {
        let mut pairing = Pairing::default();
        let row = |id| Row { side: Side::Request, id, x: id as f64, time: 0 };
        pairing.add(Side::Request, &batch(&[row(2), row(4), row(6)]), 1).unwrap();
        pairing.erase(4).unwrap();
        pairing.erase(8).unwrap();
        let answers = [2, 4, 6].map(|id| Row { side: Side::Response, ..row(id) });
        let events = pairing.add(Side::Response, &batch(&answers), 1).unwrap().unwrap();
        assert_eq!(told(&events).iter().map(|row| row["x"].as_str()).collect::<Vec<_>>(), ["2.0", "6.0"]);
        pairing.erase(4).unwrap();
        assert_eq!((pairing.counts().responses, pairing.counts().bytes, pairing.responses.held), (0, 0, 0));
    }

    #[test]
    fn many_small_batches_are_put_together() {
        let mut pairing = Pairing::default();
        for id in 0..10_000 {
            pairing.add(Side::Request, &batch(&[Row { side: Side::Request, id, x: id as f64, time: 0 }]), 1).unwrap();
        }
        assert!(pairing.requests.kept.len() < 10_000 / SMALL + SMALL, "{}", pairing.requests.kept.len());
        let event = pairing.add(Side::Response, &batch(&[Row { side: Side::Response, id: 77, x: 0.5, time: 0 }]), 1).unwrap().unwrap();
        assert_eq!((told(&event)[0]["x"].as_str(), told(&event)[0]["c"].as_str()), ("77.0", "c77"));
    }

    #[test]
    fn types_that_differ_are_read_as_one() {
        let half =
            |name: &str, array: ArrayRef| batch_of(vec![id(name), (Field::new("x", array.data_type().clone(), true), array)], 1).unwrap();
        let mut pairing = Pairing::default();
        pairing.add(Side::Request, &half("a", Arc::new(Int64Array::from(vec![1]))), 1).unwrap();
        pairing.add(Side::Request, &half("b", Arc::new(Float64Array::from(vec![2.5]))), 1).unwrap();
        let answers = arrow_select::concat::concat_batches(
            &Arc::new(arrow_schema::Schema::new(vec![id("a").0])),
            &["a", "b"].map(|name| batch_of(vec![id(name)], 1).unwrap()),
        );
        let events = pairing.add(Side::Response, &answers.unwrap(), 1).unwrap().unwrap();
        let x: Vec<String> = told(&events).into_iter().map(|mut row| row.remove("x").unwrap()).collect();
        assert_eq!(x, ["1.0", "2.5"]);
    }

    #[test]
    fn bytes_that_were_not_written_are_refused() {
        let mut pairing = Pairing::default();
        pairing.add(Side::Request, &batch(&[Row { side: Side::Request, id: 3, x: 1.0, time: 4 }]), 9).unwrap();
        pairing.add(Side::Response, &batch(&[Row { side: Side::Response, id: 4, x: 1.0, time: 4 }]), 9).unwrap();
        let mut writer = Writer::new();
        pairing.encode(&mut writer);
        let bytes = writer.into_payload();
        for length in 0..bytes.len() {
            assert!(Pairing::decode(&mut Reader::new(&bytes[..length])).is_err(), "{length}");
        }
        // Six counts, nobody done, the turn, and no halves of either side: none of them may count beyond all there is.
        for most in 0..8 {
            let mut writer = Writer::new();
            writer.i64(9);
            let count = |at: u32| if at == most { u64::MAX } else { 1 };
            (0..6).for_each(|at| writer.u64(count(at)));
            writer.u64(0);
            writer.u64(count(7));
            [0, 0].into_iter().for_each(|none| writer.u64(none));
            let read = Pairing::decode(&mut Reader::new(&writer.into_payload()));
            assert_eq!(read.is_ok(), most == 6, "{most}");
        }
        let nothing = batch_of(vec![], 0).unwrap();
        assert!(pairing.add(Side::Request, &nothing, 1).unwrap_err().detail.contains("`_id`"));
    }
}
