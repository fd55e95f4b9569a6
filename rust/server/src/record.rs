//! What happens to a model, as it stands in its log: the state of a model is what its records make of it, in their order.

use std::io::Cursor;
use std::panic::catch_unwind;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use barograph_core::codec::{Reader, Writer};
use barograph_core::{Error, Result};
use barograph_engine::delta::Delta;
use barograph_engine::governor::LAST;
use barograph_engine::monitor::MOST_HALVINGS;
use bytes::Bytes;

use crate::ingest::arrow::framed;
use crate::ingest::cloudevents::Side;
use crate::measurement::Measurement;
use crate::streams::Numbered;

/// Kinds of records are numbered from 1 to this one.
const LAST_KIND: u8 = KEEP;
/// The kind that gives up detail, or takes it back.
const KEEP: u8 = 18;

/// A batch that is counted once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Once {
    /// Hash of its `Idempotency-Key`.
    pub key: u128,
    /// Hash of its body.
    pub body: u64,
    /// Rows that were taken.
    pub accepted: u64,
    /// Rows that were refused.
    pub refused: u64,
}

/// Rows that were not taken, and what was odd about others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    /// Rows that were refused.
    pub refused: u64,
    /// Fields that are no column.
    pub unknown: u64,
    /// Values of another kind than their column.
    pub mistyped: u64,
}

/// What happens to a model.
#[derive(Clone, Debug)]
pub enum Happening {
    /// Events, some of which may carry labels.
    Events(RecordBatch),
    /// Events each of which stands for `2^n`, the others having been left out by fair coins.
    Sample(u32, RecordBatch),
    /// Labels of events, by id.
    Labels(RecordBatch),
    /// One side of events that come as request and response.
    Half(Side, RecordBatch),
    /// Latencies and counts without events.
    Measured(Measurement),
    /// A profile made elsewhere with this model's reference, and the time it stands for.
    Profile(Vec<u8>, i64),
    /// A new reference.
    Reference(Vec<u8>),
    /// What the owner states, as JSON.
    Settings(String),
    /// A deploy: version, time, and until when alerts are muted.
    Deploy(String, i64, i64),
    /// Windows that are over close.
    Tick,
    /// What is held for an id is forgotten.
    Erase(u128),
    /// From now on the model tells an aggregator under this name; or, without one, it is alone again.
    Enlist(Option<String>),
    /// What was seen since the last time goes into the outbox.
    Cut,
    /// The aggregator has a parcel of the outbox.
    Sent(u64),
    /// What another sidecar has seen, and what its bytes say once they are read.
    Delta(Bytes, Option<Arc<Delta>>),
    /// Detail is given up down to this level, or taken back.
    Keep(u8),
}

/// Before the kind of a happening: places in streams follow, then the kind.
const NUMBERS: u8 = 13;

/// What stands before the happening of a record.
#[derive(Clone, Debug)]
pub struct Head {
    /// When it arrived.
    pub now: i64,
    /// Keys of its batches.
    pub once: Vec<Once>,
    /// Places in streams of its batches.
    pub numbers: Vec<Numbered>,
    /// What was odd about them.
    pub odd: Oddities,
}

/// A happening with what belongs to it.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it arrived: nanoseconds since the epoch, never less than before.
    pub now: i64,
    /// Keys of the batches it was put together from.
    pub once: Vec<Once>,
    /// Places in streams of the batches it was put together from.
    pub numbers: Vec<Numbered>,
    /// What was odd about them.
    pub odd: Oddities,
    /// What happens.
    pub happening: Happening,
}

impl Record {
    /// Something that happens now.
    pub fn new(now: i64, happening: Happening) -> Self {
        Self { now, once: Vec::new(), numbers: Vec::new(), odd: Oddities::default(), happening }
    }

    /// As bytes of a log.
    ///
    /// # Errors
    /// `InvalidArgument` for a batch that Arrow cannot write.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut writer = Writer::new();
        writer.i64(self.now);
        writer.len(self.once.len());
        for once in &self.once {
            writer.u64((once.key >> 64) as u64);
            [once.key as u64, once.body, once.accepted, once.refused].into_iter().for_each(|part| writer.u64(part));
        }
        [self.odd.refused, self.odd.unknown, self.odd.mistyped].into_iter().for_each(|count| writer.u64(count));
        if !self.numbers.is_empty() {
            writer.u8(NUMBERS);
            writer.len(self.numbers.len());
            self.numbers.iter().for_each(|numbered| numbered.encode(&mut writer));
        }
        match &self.happening {
            Happening::Events(batch) => {
                writer.u8(1);
                return appended(writer, batch);
            }
            Happening::Sample(halvings, batch) => {
                writer.u8(12);
                writer.u8(*halvings as u8);
                return appended(writer, batch);
            }
            Happening::Labels(batch) => {
                writer.u8(2);
                return appended(writer, batch);
            }
            Happening::Half(side, batch) => {
                writer.u8(match side {
                    Side::Request => 3,
                    Side::Response => 4,
                });
                return appended(writer, batch);
            }
            Happening::Measured(measurement) => {
                writer.u8(5);
                measurement.encode(&mut writer);
            }
            Happening::Profile(snapshot, time) => {
                writer.u8(6);
                writer.bytes(snapshot);
                writer.i64(*time);
            }
            Happening::Reference(snapshot) => {
                writer.u8(7);
                writer.bytes(snapshot);
            }
            Happening::Settings(json) => {
                writer.u8(8);
                writer.str(json);
            }
            Happening::Deploy(version, time, until) => {
                writer.u8(9);
                writer.str(version);
                writer.i64(*time);
                writer.i64(*until);
            }
            Happening::Tick => writer.u8(10),
            Happening::Enlist(stream) => {
                writer.u8(14);
                writer.str(stream.as_deref().unwrap_or_default());
            }
            Happening::Cut => writer.u8(15),
            Happening::Sent(number) => {
                writer.u8(16);
                writer.u64(*number);
            }
            Happening::Delta(bytes, _) => {
                writer.u8(17);
                writer.bytes(bytes);
            }
            Happening::Keep(level) => {
                writer.u8(KEEP);
                writer.u8(*level);
            }
            Happening::Erase(key) => {
                writer.u8(11);
                writer.u64((key >> 64) as u64);
                writer.u64(*key as u64);
            }
        }
        Ok(writer.into_payload())
    }

    /// What its batches are told apart by, and when it arrived: what is needed of records that are not applied yet.
    ///
    /// # Errors
    /// `Decode` for bytes that `to_bytes` did not write.
    pub fn head(bytes: &[u8]) -> Result<Head> {
        head(&mut Reader::new(bytes)).map(|(head, _)| head)
    }

    /// The kind of the record, if it is of a newer version: it must not be passed over.
    pub fn newer(bytes: &[u8]) -> Option<u8> {
        head(&mut Reader::new(bytes)).ok().map(|(_, kind)| kind).filter(|kind| *kind > LAST_KIND)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// `Decode` for bytes that `to_bytes` did not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let (Head { now, once, numbers, odd }, kind) = head(&mut reader)?;
        let happening = match kind {
            1 => Happening::Events(table(&mut reader)?),
            2 => Happening::Labels(table(&mut reader)?),
            3 => Happening::Half(Side::Request, table(&mut reader)?),
            4 => Happening::Half(Side::Response, table(&mut reader)?),
            5 => Happening::Measured(Measurement::decode(&mut reader)?),
            6 => Happening::Profile(reader.bytes()?.to_vec(), reader.i64()?),
            7 => Happening::Reference(reader.bytes()?.to_vec()),
            8 => Happening::Settings(reader.str()?.to_owned()),
            9 => Happening::Deploy(reader.str()?.to_owned(), reader.i64()?, reader.i64()?),
            10 => Happening::Tick,
            KEEP => match reader.u8()? {
                level @ 0..=LAST => Happening::Keep(level),
                other => return Err(Error::decode(format!("a record gives up detail down to level {other}"))),
            },
            12 => match u32::from(reader.u8()?) {
                halvings @ 0..=MOST_HALVINGS => Happening::Sample(halvings, table(&mut reader)?),
                other => return Err(Error::decode(format!("a record says that events were halved {other} times"))),
            },
            14 => Happening::Enlist(Some(reader.str()?.to_owned()).filter(|stream| !stream.is_empty())),
            15 => Happening::Cut,
            16 => Happening::Sent(reader.u64()?),
            17 => Happening::Delta(Bytes::copy_from_slice(reader.bytes()?), None),
            11 => Happening::Erase(u128::from(reader.u64()?) << 64 | u128::from(reader.u64()?)),
            other => return Err(Error::decode(format!("a record of kind {other} is not known here")).hint("a newer version wrote it")),
        };
        reader.finish()?;
        Ok(Self { now, once, numbers, odd, happening })
    }
}

/// What stands before the happening, and the kind of that.
fn head(reader: &mut Reader<'_>) -> Result<(Head, u8)> {
    let now = reader.i64()?;
    let mut once = Vec::new();
    for _ in 0..reader.len(5)? {
        let key = u128::from(reader.u64()?) << 64 | u128::from(reader.u64()?);
        once.push(Once { key, body: reader.u64()?, accepted: reader.u64()?, refused: reader.u64()? });
    }
    let odd = Oddities { refused: reader.count()?, unknown: reader.count()?, mistyped: reader.count()? };
    let mut numbers = Vec::new();
    let mut kind = reader.u8()?;
    if kind == NUMBERS {
        for _ in 0..reader.len(3)? {
            numbers.push(Numbered::decode(reader)?);
        }
        kind = reader.u8()?;
    }
    Ok((Head { now, once, numbers, odd }, kind))
}

/// The batch as an Arrow stream after what the writer holds: the last part of a record needs no length.
fn appended(writer: Writer, batch: &RecordBatch) -> Result<Vec<u8>> {
    stream(writer.into_payload(), batch)
}

fn table(reader: &mut Reader<'_>) -> Result<RecordBatch> {
    batch_from_stream(reader.rest())
}

/// A batch as an Arrow stream, after what `bytes` holds.
///
/// # Errors
/// `InvalidArgument` for a batch that Arrow cannot write.
pub fn stream(bytes: Vec<u8>, batch: &RecordBatch) -> Result<Vec<u8>> {
    let wrong = |error: arrow_schema::ArrowError| Error::invalid(format!("the events could not be written: {error}"));
    let mut out = StreamWriter::try_new(bytes, batch.schema_ref()).map_err(wrong)?;
    out.write(batch).map_err(wrong)?;
    out.into_inner().map_err(wrong)
}

/// The one batch of an Arrow stream.
///
/// # Errors
/// `Decode` for anything else.
pub fn batch_from_stream(bytes: &[u8]) -> Result<RecordBatch> {
    let wrong = |error: &dyn std::fmt::Display| Error::decode(format!("the events of a record could not be read: {error}"));
    framed(bytes).map_err(|problem| wrong(&problem.detail))?;
    // What neither we nor Arrow have checked must not end the replay of a whole log.
    catch_unwind(|| {
        let mut stream = StreamReader::try_new(Cursor::new(bytes), None).map_err(|error| wrong(&error))?;
        stream.next().ok_or_else(|| wrong(&"there are none"))?.map_err(|error| wrong(&error))
    })
    .unwrap_or_else(|_| Err(wrong(&"Arrow's reader gave up")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Float64Array, StringArray};

    use super::*;

    fn sample() -> Record {
        let columns: [(&str, ArrayRef); 2] =
            [("x", Arc::new(Float64Array::from(vec![Some(1.0), None]))), ("c", Arc::new(StringArray::from(vec!["a", "bc"])))];
        Record {
            once: vec![Once { key: 1 << 100 | 7, body: 2, accepted: 3, refused: 4 }],
            numbers: vec![Numbered { stream: "s/t".into(), number: 1 << 40 }],
            odd: Oddities { refused: 4, unknown: 5, mistyped: 6 },
            ..Record::new(17, Happening::Sample(3, RecordBatch::try_from_iter(columns).unwrap()))
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let record = sample();
        let read = Record::from_bytes(&record.to_bytes().unwrap()).unwrap();
        assert_eq!((read.now, &read.once, &read.numbers, read.odd), (17, &record.once, &record.numbers, record.odd));
        let head = Record::head(&record.to_bytes().unwrap()).unwrap();
        assert_eq!((head.once, head.numbers), (record.once, record.numbers));
        match (read.happening, record.happening) {
            (Happening::Sample(3, read), Happening::Sample(3, batch)) => assert_eq!(read, batch),
            (read, _) => panic!("{read:?}"),
        }
    }

    #[test]
    fn a_model_that_learns_from_events_without_columns_is_written_and_read() {
        use crate::model::{Model, Settings};
        use arrow_array::RecordBatchOptions;
        let mut model = Model::new("m", Settings::default());
        let rows = RecordBatchOptions::new().with_row_count(Some(3));
        let none = RecordBatch::try_new_with_options(Arc::new(arrow_schema::Schema::empty()), vec![], &rows).unwrap();
        for _ in 0..2 {
            model.apply(&Record::new(1, Happening::Events(none.clone()))).unwrap();
        }
        let read = Model::from_bytes(&model.to_bytes().unwrap()).unwrap();
        assert_eq!((read.counts, read.counts.events), (model.counts, 6));
    }

    #[test]
    fn a_record_of_a_newer_version_is_known_as_such() {
        let tick = Record { once: sample().once, ..Record::new(1, Happening::Tick) };
        let mut bytes = tick.to_bytes().unwrap();
        assert_eq!(Record::newer(&bytes), None);
        assert_eq!(Record::newer(&sample().to_bytes().unwrap()), None);
        *bytes.last_mut().unwrap() = LAST_KIND + 1;
        assert_eq!(Record::newer(&bytes), Some(LAST_KIND + 1));
        assert!(Record::from_bytes(&bytes).is_err());
    }

    #[test]
    fn kinds_do_not_take_one_another_s_number() {
        let kept = Record::new(17, Happening::Keep(3)).to_bytes().unwrap();
        assert!(matches!(Record::from_bytes(&kept).unwrap().happening, Happening::Keep(3)));
        assert!(Record::from_bytes(&Record::new(17, Happening::Keep(LAST + 1)).to_bytes().unwrap()).is_err());
    }

    #[test]
    fn no_cut_or_flipped_byte_ends_a_replay() {
        let whole = sample().to_bytes().unwrap();
        for len in 0..whole.len() {
            let _ = Record::from_bytes(&whole[..len]);
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7F, 0x80, 0xFF, !whole[at]] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                let _ = Record::from_bytes(&bytes);
            }
        }
    }
}
