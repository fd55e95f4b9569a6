//! Events as an Arrow IPC stream (<https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format>).
//!
//! The lengths of all messages are checked against the body before Arrow's own reader sees it: it would allocate what they announce.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampNanosecondType;
use arrow_array::{Array, ArrayRef, BooleanArray, FixedSizeBinaryArray, RecordBatch};
use arrow_buffer::Buffer;
use arrow_cast::cast;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::{DataType, Field, TimeUnit};
use barograph_engine::labels::{MOST_WEIGHT, classes, doubles, keys};
use bytes::Bytes;

use crate::problem::{Outcome, Problem};
use crate::rows::{Decoded, KEY_BYTES, batch_of, chance_name, time_type};
use crate::shape::{MOST_COLUMNS, Mark, Shape};

/// Rows of one body.
pub const MOST_ROWS: usize = 1 << 22;
const CONTINUATION: [u8; 4] = [0xFF; 4];

/// Decodes a body whole, or not at all. Columns that are aligned share its bytes.
///
/// # Errors
/// `Problem` for a body that is no Arrow stream, or holds a role of a type it cannot have.
pub fn decode(body: &Bytes, shape: &Shape) -> Outcome<Decoded> {
    let length = framed(body)?;
    let body = &body.slice(..length);
    // A body is checked before it is read and Arrow checks what it reads; what both have overlooked must not take the thread with it.
    catch_unwind(AssertUnwindSafe(|| read(body, shape)))
        .unwrap_or_else(|_| Err(Problem::bad("the body is no Arrow stream that can be read")))
}

fn wrong(error: &arrow_schema::ArrowError) -> Problem {
    Problem::bad(format!("the body is no Arrow stream that can be read: {error}"))
        .hint("send an uncompressed IPC stream; compress the whole body by `Content-Encoding: zstd` instead")
}

fn read(body: &Bytes, shape: &Shape) -> Outcome<Decoded> {
    let (mut rest, mut stream) = (Buffer::from(body.clone()), StreamDecoder::new());
    let (mut batches, mut rows) = (Vec::new(), 0usize);
    while let Some(batch) = stream.decode(&mut rest).map_err(|error| wrong(&error))? {
        if batch.num_columns() > MOST_COLUMNS {
            return Err(Problem::bad(format!("an event has at most {MOST_COLUMNS} fields, got {}", batch.num_columns())));
        }
        rows = rows.saturating_add(batch.num_rows());
        // A column of nulls may announce any number of rows without a byte for them.
        if rows > MOST_ROWS.min(body.len().saturating_mul(8)) {
            return Err(Problem::too_large(format!("a body has at most {MOST_ROWS} events")).hint("send several"));
        }
        batches.push(batch);
    }
    stream.finish().map_err(|error| wrong(&error))?;
    let schema = stream.schema().ok_or_else(|| Problem::bad("the body is no Arrow stream that can be read: it has no schema"))?;
    let whole = match batches.as_slice() {
        [one] => one.clone(),
        many => arrow_select::concat::concat_batches(&schema, many).map_err(|error| wrong(&error))?,
    };
    match &shape.privacy {
        Some(privacy) => canonical(&privacy.apply(&whole)?, shape),
        None => canonical(&whole, shape),
    }
}

/// Checks that every message lies within the body, before Arrow's reader takes its word for it; gives the bytes up to the end of the stream.
///
/// # Errors
/// 400 for anything else.
pub fn framed(body: &[u8]) -> Outcome<usize> {
    let short = || Problem::bad("the body ends in the middle of an Arrow message").hint("was it cut short?");
    let mut rest = body;
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, e, f, g, h] = *head;
        if [a, b, c, d] != CONTINUATION {
            return Err(Problem::bad("the body does not begin like an Arrow IPC stream").hint("files of Arrow are not streams"));
        }
        let length = u32::from_le_bytes([e, f, g, h]) as usize;
        if length == 0 {
            return Ok(body.len() - after.len());
        }
        let metadata = after.get(..length).ok_or_else(short)?;
        let message =
            arrow_ipc::root_as_message(metadata).map_err(|error| Problem::bad(format!("an Arrow message cannot be read: {error}")))?;
        let content = usize::try_from(message.bodyLength()).map_err(|_| short())?;
        if let Some(batch) = message.header_as_record_batch() {
            checked(&batch, content)?;
        }
        if let Some(batch) = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()) {
            checked(&batch, content)?;
        }
        rest = after.get(length..).and_then(|after| after.get(content..)).ok_or_else(short)?;
    }
    if rest.is_empty() { Ok(body.len()) } else { Err(short()) }
}

/// Checks that the buffers of a batch lie within its message.
fn checked(batch: &arrow_ipc::RecordBatch<'_>, content: usize) -> Outcome<()> {
    let bad = |what: &str| Problem::bad(format!("an Arrow message announces {what} that it does not hold"));
    if batch.compression().is_some() {
        return Err(Problem::bad("the buffers of the Arrow stream are compressed")
            .hint("send them as they are, and compress the whole body by `Content-Encoding: zstd`"));
    }
    for buffer in batch.buffers().iter().flatten() {
        let end = u64::try_from(buffer.offset()).ok().zip(u64::try_from(buffer.length()).ok()).and_then(|(at, n)| at.checked_add(n));
        if end.is_none_or(|end| end > content as u64) {
            return Err(bad("bytes"));
        }
    }
    let rows = usize::try_from(batch.length()).map_err(|_| bad("rows"))?;
    let fits =
        |node: &arrow_ipc::FieldNode| node.length() >= 0 && node.null_count() >= 0 && node.length() as u64 <= 64 * (MOST_ROWS as u64);
    if rows > MOST_ROWS || !batch.nodes().iter().flatten().all(fits) {
        return Err(bad("rows"));
    }
    Ok(())
}

/// The columns under their own names and in the types that the log keeps.
///
/// # Errors
/// `Problem` for a role of a type it cannot have.
pub fn canonical(batch: &RecordBatch, shape: &Shape) -> Outcome<Decoded> {
    let (mut columns, mut unknown, mut ids) = (Vec::new(), 0, None);
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let name = field.name();
        match shape.marks.get(name) {
            Some(mark) => {
                role(*mark, name, array, shape, &mut columns)?;
                if *mark == Mark::Id && shape.examples.is_some() && !array.data_type().is_integer() {
                    ids = cast(array, &DataType::Utf8).ok().and_then(|texts| texts.as_string_opt::<i32>().cloned());
                }
            }
            None if shape.open || shape.kinds.contains_key(name) || name.starts_with("_score.") => {
                columns.push((Field::new(name, array.data_type().clone(), true), Arc::clone(array)));
            }
            None => unknown += (array.len() - array.logical_null_count()) as u64,
        }
    }
    let mut seen = std::collections::HashSet::new();
    if let Some((twice, _)) = columns.iter().find(|(field, _)| !seen.insert(field.name().clone())) {
        return Err(Problem::bad(format!("column {:?} comes twice", twice.name())));
    }
    Ok(Decoded { batch: batch_of(columns, batch.num_rows())?, refused: Vec::new(), refusals: 0, unknown, mistyped: 0, ids })
}

/// A role's column, checked, in the type that the log keeps.
fn role(mark: Mark, name: &str, array: &ArrayRef, shape: &Shape, columns: &mut Vec<(Field, ArrayRef)>) -> Outcome<()> {
    if array.data_type() == &DataType::Null {
        return Ok(());
    }
    let plain = match array.data_type() {
        DataType::Dictionary(_, values) => cast(array, values).map_err(|error| wrong(&error))?,
        _ => Arc::clone(array),
    };
    let kept: ArrayRef = match mark {
        Mark::Id => {
            let keys = keys(name, plain.as_ref())?;
            let mut bytes = Vec::with_capacity(keys.len() * KEY_BYTES as usize);
            keys.iter().for_each(|key| bytes.extend_from_slice(&key.unwrap_or_default().to_be_bytes()));
            let nulls = keys.iter().any(Option::is_none).then(|| keys.iter().map(Option::is_some).collect::<Vec<_>>().into());
            Arc::new(FixedSizeBinaryArray::try_new(KEY_BYTES, bytes.into(), nulls).map_err(|error| wrong(&error))?)
        }
        Mark::Time => match plain.data_type() {
            DataType::Timestamp(_, None) | DataType::Date32 | DataType::Date64 => {
                // Without a zone it is UTC: Arrow would look the zone up among those of the world, which are not here.
                let naive = cast(&plain, &DataType::Timestamp(TimeUnit::Nanosecond, None))
                    .map_err(|error| Problem::bad(format!("`{name}` holds times out of range: {error}")))?;
                Arc::new(naive.as_primitive::<TimestampNanosecondType>().clone().with_timezone("UTC"))
            }
            DataType::Timestamp(..) => {
                cast(&plain, &time_type()).map_err(|error| Problem::bad(format!("`{name}` holds times out of range: {error}")))?
            }
            other => return Err(Problem::bad(format!("`{name}` must hold timestamps, got {other}"))),
        },
        Mark::Score => match plain.data_type() {
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => return chances(name, &plain, shape, columns),
            _ => {
                doubles("_score", name, plain.as_ref())?;
                plain
            }
        },
        Mark::Latency => {
            doubles("_latency_seconds", name, plain.as_ref())?;
            plain
        }
        Mark::Weight => {
            let found = doubles("_weight", name, plain.as_ref())?;
            if let Some(odd) = found.into_iter().flatten().find(|weight| !(0.0..=MOST_WEIGHT).contains(weight)) {
                return Err(Problem::bad(format!("`{name}` must hold numbers in [0, 1e12], got {odd}")));
            }
            plain
        }
        Mark::Prediction | Mark::Label if !shape.classes.is_empty() => {
            classes(mark.name(), name, plain.as_ref(), &shape.classes, mark == Mark::Label)?;
            plain
        }
        Mark::Label => {
            doubles("_label", name, plain.as_ref())?;
            plain
        }
        Mark::Prediction => plain,
        Mark::Version => {
            cast(&plain, &DataType::Utf8).map_err(|_| Problem::bad(format!("`{name}` must hold text, got {}", plain.data_type())))?
        }
        Mark::Error => flags(name, &plain)?,
    };
    columns.push((Field::new(mark.name(), kept.data_type().clone(), true), kept));
    Ok(())
}

/// Whether calls failed: true, not 0, or any text.
fn flags(name: &str, array: &ArrayRef) -> Outcome<ArrayRef> {
    if array.data_type() == &DataType::Boolean {
        return Ok(Arc::clone(array));
    }
    if matches!(array.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
        let texts = cast(array, &DataType::LargeUtf8).map_err(|error| wrong(&error))?;
        return Ok(Arc::new(
            texts.as_string::<i64>().iter().map(|text| Some(text.is_some_and(|text| !text.is_empty()))).collect::<BooleanArray>(),
        ));
    }
    let numbers = doubles("_error", name, array.as_ref())?;
    Ok(Arc::new(numbers.into_iter().map(|number| Some(number.is_some_and(|number| number != 0.0))).collect::<BooleanArray>()))
}

/// Lists of probabilities as a column per class.
fn chances(name: &str, array: &ArrayRef, shape: &Shape, columns: &mut Vec<(Field, ArrayRef)>) -> Outcome<()> {
    let wanted = shape.classes.len() as i32;
    let item = Field::new("item", DataType::Float64, true);
    let same = cast(array, &DataType::FixedSizeList(Arc::new(item), wanted));
    let lists = same.map_err(|_| Problem::bad(format!("`{name}` must hold {wanted} probabilities per event")))?;
    let lists = lists.as_fixed_size_list();
    for class in 0..wanted {
        let at = (0..lists.len() as u64).map(|row| (!lists.is_null(row as usize)).then_some(row * wanted as u64 + class as u64));
        let picked =
            arrow_select::take::take(lists.values(), &at.collect::<arrow_array::UInt64Array>(), None).map_err(|error| wrong(&error))?;
        columns.push((Field::new(chance_name(class as usize), DataType::Float64, true), picked));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{columns, ndjson};
    use crate::record::stream;
    use arrow_array::{Float64Array, StringArray};

    fn open() -> Shape {
        Shape { open: true, ..Shape::new(&std::collections::BTreeMap::new(), &[], None) }
    }

    fn body() -> Bytes {
        let x: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(2.5), None]));
        let c: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b")]));
        let id: ArrayRef = Arc::new(StringArray::from(vec![Some("one"), Some("two"), None]));
        let batch = RecordBatch::try_from_iter_with_nullable([("x", x, true), ("c", c, true), ("_id", id, true)]).unwrap();
        stream(Vec::new(), &batch).unwrap().into()
    }

    #[test]
    fn arrow_columns_and_lines_are_the_same_events() {
        let arrow = decode(&body(), &open()).unwrap().batch;
        let json = columns::decode(br#"{"x":[1,2.5,null],"c":["a",null,"b"],"_id":["one","two",null]}"#, Arc::new(open())).unwrap().batch;
        let lines = b"{\"x\":1,\"c\":\"a\",\"_id\":\"one\"}\n{\"x\":2.5,\"_id\":\"two\"}\n{\"c\":\"b\"}";
        assert_eq!((&arrow, &ndjson::lines(lines, Arc::new(open())).unwrap().batch), (&json, &json));
    }

    #[test]
    fn a_stream_has_an_end_or_stops_and_may_have_no_events() {
        let (whole, wanted) = (body(), decode(&body(), &open()).unwrap().batch);
        // The end is eight bytes; what follows it is none of the stream's.
        let unended = whole.slice(..whole.len() - 8);
        let followed: Bytes = [whole.as_ref(), b"more"].concat().into();
        let moved = Bytes::from([b"odd".as_slice(), whole.as_ref()].concat()).slice(3..);
        for other in [unended, followed, moved] {
            assert_eq!(decode(&other, &open()).unwrap().batch, wanted);
        }
        let mut empty = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), wanted.schema_ref()).unwrap();
        empty.finish().unwrap();
        assert_eq!(decode(&empty.into_inner().unwrap().into(), &open()).unwrap().batch.num_rows(), 0);
        assert!(decode(&whole.slice(whole.len() - 8..), &open()).unwrap_err().detail.contains("schema"));
    }

    #[test]
    fn no_cut_or_flipped_byte_does_harm() {
        let whole = body();
        for len in 0..whole.len() {
            let _ = decode(&whole.slice(..len), &open());
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.to_vec();
                bytes[at] ^= 1 << bit;
                let bytes = Bytes::from(bytes);
                if let Ok(decoded) = decode(&bytes, &open()) {
                    assert!(decoded.batch.num_rows() <= 8 * bytes.len());
                }
            }
        }
    }

    #[test]
    fn roles_of_wrong_types_are_refused_by_name() {
        let x: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        for name in ["_time", "_score", "_latency_seconds", "_label", "_weight"] {
            let batch = RecordBatch::try_from_iter([(name, Arc::clone(&x))]).unwrap();
            let problem = canonical(&batch, &open()).unwrap_err();
            assert!(problem.detail.contains(name), "{problem:?}");
        }
    }
}
