//! A parcel as an object: a Parquet file of one row, whose last column is the parcel, compressed by zstd.
//!
//! | column | type | |
//! |---|---|---|
//! | `barograph_parcel` | INT32 | version of this table: 1 |
//! | `model`, `stream`, `number` | text, text, INT64 | where it belongs: the same that the object is named by |
//! | `kind` | text | `delta`, `events` or `labels` |
//! | `rows` | INT64 | events or labels in it |
//! | `sha256` | 32 bytes | of all other columns, and of the parcel before it was compressed |
//! | `parcel` | bytes | zstd |
//!
//! What is read may have been written by anybody, cut off, or rotten. So the footer is looked at before it is read, pages are taken as they
//! lie (one plain page a column, not compressed: nothing is made of few bytes that is larger than the file), and the hash has the last word.
//!
//! Format: <https://parquet.apache.org/docs/file-format/>.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use barograph_core::{Error, Result};
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, LogicalType, Repetition, Type as Physical};
use parquet::column::page::Page;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use sha2::{Digest, Sha256};

use crate::config::is_name;
use crate::outbox::{Parcel, Parcels};
use crate::streams::Numbered;

/// Of the table.
const VERSION: i32 = 1;
/// Bytes of a footer: ours have about 1,000, and a hostile one asks for some hundred times its size.
const MOST_FOOTER: usize = 16 << 10;
/// Before and behind the pages of a file.
const MAGIC: &[u8] = b"PAR1";
/// Columns in their order, and which of them are text.
const COLUMNS: [(&str, Physical, bool); 8] = [
    ("barograph_parcel", Physical::INT32, false),
    ("model", Physical::BYTE_ARRAY, true),
    ("stream", Physical::BYTE_ARRAY, true),
    ("number", Physical::INT64, false),
    ("kind", Physical::BYTE_ARRAY, true),
    ("rows", Physical::INT64, false),
    ("sha256", Physical::BYTE_ARRAY, false),
    ("parcel", Physical::BYTE_ARRAY, false),
];

/// What an object holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The model that it is of.
    pub model: String,
    /// Its place.
    pub place: Numbered,
    /// What the parcel holds.
    pub what: Parcels,
    /// Events or labels in it.
    pub rows: u64,
    /// The parcel.
    pub bytes: Bytes,
    /// Tells it from any other.
    pub hash: [u8; 32],
}

fn word(what: Parcels) -> &'static str {
    match what {
        Parcels::Delta => "delta",
        Parcels::Events => "events",
        Parcels::Labels => "labels",
    }
}

impl Held {
    /// A parcel of a model.
    pub fn new(model: &str, stream: &Arc<str>, parcel: &Parcel) -> Self {
        let place = Numbered { stream: Arc::clone(stream), number: parcel.number };
        Self { model: model.to_owned(), place, what: parcel.what, rows: parcel.rows, bytes: parcel.bytes.clone(), hash: [0; 32] }.hashed()
    }

    fn hashed(mut self) -> Self {
        let mut hash = Sha256::new();
        hash.update(VERSION.to_le_bytes());
        for part in [self.model.as_bytes(), self.place.stream.as_bytes(), word(self.what).as_bytes(), &self.bytes] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(self.place.number.to_le_bytes());
        hash.update(self.rows.to_le_bytes());
        self.hash = hash.finalize().into();
        self
    }

    /// As the bytes of an object.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let failed = |error: parquet::errors::ParquetError| Error::invalid(format!("the parcel could not be written: {error}"));
        let field = |(name, physical, text): &(&str, Physical, bool)| {
            let field = Type::primitive_type_builder(name, *physical).with_repetition(Repetition::REQUIRED);
            field.with_logical_type(text.then_some(LogicalType::String)).build().map(Arc::new)
        };
        let fields = COLUMNS.iter().map(field).collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?;
        let schema = Type::group_type_builder("parcel").with_fields(fields).build().map_err(failed)?;
        let properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_compression(Compression::UNCOMPRESSED)
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_offset_index_disabled(true)
            .set_created_by(concat!("barograph version ", env!("CARGO_PKG_VERSION")).to_owned());
        let packed = zstd::encode_all(&self.bytes[..], 1).map_err(|error| Error::invalid(format!("zstd: {error}")))?;
        let packed = Bytes::from(packed);
        let mut file = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties.build())).map_err(failed)?;
        let mut group = file.next_row_group().map_err(failed)?;
        for (name, physical, _) in COLUMNS {
            let Some(mut column) = group.next_column().map_err(failed)? else { continue };
            match physical {
                Physical::INT32 => column.typed::<Int32Type>().write_batch(&[VERSION], None, None),
                Physical::INT64 => {
                    let value = if name == "number" { self.place.number } else { self.rows };
                    column.typed::<Int64Type>().write_batch(&[value as i64], None, None)
                }
                _ => {
                    let value = match name {
                        "model" => Bytes::copy_from_slice(self.model.as_bytes()),
                        "stream" => Bytes::copy_from_slice(self.place.stream.as_bytes()),
                        "kind" => Bytes::from_static(word(self.what).as_bytes()),
                        "sha256" => Bytes::copy_from_slice(&self.hash),
                        _ => packed.clone(),
                    };
                    column.typed::<ByteArrayType>().write_batch(&[ByteArray::from(value)], None, None)
                }
            }
            .map_err(failed)?;
            column.close().map_err(failed)?;
        }
        group.close().map_err(failed)?;
        file.into_inner().map_err(failed)
    }

    /// Reads an object's bytes, whose parcel has at most `most` bytes. It takes memory of about both.
    ///
    /// # Errors
    /// `Decode`, saying what is wrong with them.
    pub fn from_bytes(bytes: &Bytes, most: usize) -> Result<Self> {
        footed(bytes)?;
        // A reader that gives up must not end more than this.
        let read = catch_unwind(AssertUnwindSafe(|| columns(bytes)));
        let [version, model, stream, number, kind, rows, hash, packed] =
            read.unwrap_or_else(|_| Err(Error::decode("the reader of Parquet gave up: it is broken")))?;
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).map_err(|_| Error::decode("a name in it is no UTF-8"));
        let whole =
            |bytes: &Bytes| bytes.as_ref().try_into().map(u64::from_le_bytes).map_err(|_| Error::decode("a number in it is too short"));
        if version.as_ref() != VERSION.to_le_bytes() {
            return Err(Error::decode("it is a parcel of another version").hint("a newer barograph wrote it: update this one"));
        }
        let what = match kind.as_ref() {
            b"delta" => Parcels::Delta,
            b"events" => Parcels::Events,
            b"labels" => Parcels::Labels,
            _ => return Err(Error::decode("it holds neither a delta nor events nor labels")),
        };
        let (model, stream) = (text(&model)?, text(&stream)?);
        if !is_name(&model) || !crate::streams::is_name(&stream) {
            return Err(Error::decode("its model or stream has no name that can be"));
        }
        let place = Numbered { stream: stream.into(), number: whole(&number)? };
        let out = Self { model, place, what, rows: whole(&rows)?, bytes: unpacked(&packed, most)?, hash: [0; 32] }.hashed();
        if hash.as_ref() != out.hash {
            return Err(Error::decode("its hash is another one: it was changed after it was written"));
        }
        Ok(out)
    }
}

/// Decompresses at most so many bytes.
fn unpacked(packed: &Bytes, most: usize) -> Result<Bytes> {
    let wrong = |error: std::io::Error| Error::decode(format!("its parcel cannot be decompressed: {error}"));
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed.as_ref()).map_err(wrong)?;
    // A frame may ask for a window of gigabytes.
    decoder.window_log_max(23).map_err(wrong)?;
    let mut out = Vec::new();
    decoder.take(most as u64 + 1).read_to_end(&mut out).map_err(wrong)?;
    if out.len() > most {
        return Err(Error::decode(format!("its parcel has more than {most} bytes, decoded")));
    }
    Ok(out.into())
}

/// Whether it ends as a file that was written whole, with a footer of a size that can be.
fn footed(bytes: &Bytes) -> Result<()> {
    if !bytes.starts_with(MAGIC) {
        return Err(Error::decode("it is no Parquet file"));
    }
    let end = bytes.len().checked_sub(8).filter(|end| *end >= MAGIC.len()).and_then(|end| bytes.get(end..));
    let Some((length, MAGIC)) = end.and_then(|end| end.split_first_chunk::<4>()) else {
        return Err(Error::decode("it ends too early: it was written in part, or cut off"));
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > MOST_FOOTER || length + 12 > bytes.len() {
        return Err(Error::decode(format!("its footer has {length} bytes, at most {MOST_FOOTER} are taken")));
    }
    Ok(())
}

/// The value of each column.
fn columns(bytes: &Bytes) -> Result<[Bytes; COLUMNS.len()]> {
    let wrong = |error: parquet::errors::ParquetError| Error::decode(format!("it cannot be read as Parquet: {error}"));
    let file = SerializedFileReader::new(bytes.clone()).map_err(wrong)?;
    let metadata = file.metadata().file_metadata();
    let own = metadata.schema_descr().columns();
    if own.first().is_none_or(|first| first.name() != COLUMNS[0].0) {
        return Err(Error::decode("it is a Parquet file, but no parcel"));
    }
    let like = |(column, (name, physical, _)): (&parquet::schema::types::ColumnDescPtr, &(&str, Physical, bool))| {
        let flat = column.path().parts().len() == 1 && column.max_def_level() == 0 && column.max_rep_level() == 0;
        flat && column.name() == *name && column.physical_type() == *physical
    };
    if own.len() != COLUMNS.len() || !own.iter().zip(&COLUMNS).all(like) {
        return Err(Error::decode("it is a parcel with other columns").hint("a newer barograph wrote it: update this one"));
    }
    if file.num_row_groups() != 1 || metadata.num_rows() != 1 {
        return Err(Error::decode(format!("it has {} rows, expected one", metadata.num_rows())));
    }
    let group = file.get_row_group(0).map_err(wrong)?;
    let mut out = std::array::from_fn(|_| Bytes::new());
    for (at, (to, (name, physical, _))) in out.iter_mut().zip(&COLUMNS).enumerate() {
        *to = value(group.as_ref(), at, *physical)?.ok_or_else(|| Error::decode(format!("its column {name} is not one plain value")))?;
    }
    Ok(out)
}

/// The one value of a column, as its bytes; nothing if it is written in another way.
fn value(group: &dyn RowGroupReader, at: usize, physical: Physical) -> Result<Option<Bytes>> {
    let wrong = |error: parquet::errors::ParquetError| Error::decode(format!("it cannot be read as Parquet: {error}"));
    if group.metadata().column(at).compression() != Compression::UNCOMPRESSED {
        return Ok(None);
    }
    let mut pages = group.get_column_page_reader(at).map_err(wrong)?;
    let (page, more) = (pages.get_next_page().map_err(wrong)?, pages.get_next_page().map_err(wrong)?);
    let (Some(Page::DataPage { buf, num_values: 1, encoding: Encoding::PLAIN, .. }), None) = (page, more) else { return Ok(None) };
    Ok(match physical {
        Physical::INT32 => Some(buf).filter(|buf| buf.len() == 4),
        Physical::INT64 => Some(buf).filter(|buf| buf.len() == 8),
        _ => buf
            .split_first_chunk::<4>()
            .filter(|(length, rest)| u32::from_le_bytes(**length) as usize == rest.len())
            .map(|_| buf.slice(4..)),
    })
}

#[cfg(test)]
mod tests {
    use barograph_core::hash::murmur3_of_word;

    use super::*;

    const MOST: usize = 1 << 20;

    fn held(bytes: &[u8]) -> Held {
        let parcel = Parcel { number: 7, what: Parcels::Events, rows: 3, bytes: Bytes::copy_from_slice(bytes) };
        Held::new("fraud", &"edge-1.18f".into(), &parcel)
    }

    fn refused(bytes: Vec<u8>) -> String {
        Held::from_bytes(&bytes.into(), MOST).unwrap_err().message
    }

    #[test]
    fn a_parcel_comes_back_as_it_was_whatever_is_in_it() {
        for size in [0, 1, 1000, 3_000_000] {
            let bytes: Vec<u8> = (0..size).map(|at| murmur3_of_word(at, 1).0 as u8).collect();
            let held = held(&bytes);
            let again = Held::from_bytes(&held.to_bytes().unwrap().into(), bytes.len()).unwrap();
            assert_eq!((&again, again.bytes.as_ref()), (&held, bytes.as_slice()));
            assert_eq!(held.to_bytes().unwrap(), again.to_bytes().unwrap(), "equal parcels give equal bytes");
        }
    }

    #[test]
    fn what_ends_too_early_or_was_changed_is_refused() {
        let whole = held(b"some events, and more of them").to_bytes().unwrap();
        for length in 0..whole.len() {
            let says = refused(whole[..length].to_vec());
            assert!(["ends too early", "no Parquet file", "footer has"].iter().any(|text| says.contains(text)), "{length}: {says}");
        }
        let mut taken = 0;
        for place in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[place] ^= 1 << bit;
                // Of what says nothing about the parcel, such as who wrote it, a change may go by; what is read is what was written.
                if let Ok(read) = Held::from_bytes(&bytes.into(), MOST) {
                    assert_eq!(read, held(b"some events, and more of them"));
                    taken += 1;
                }
            }
        }
        assert!(taken < whole.len() * 8 / 2);
        // Footers of which several bytes were changed, and lengths that say so much that nothing can be that long.
        let footer = whole.len() - 8 - u32::from_le_bytes(*whole[whole.len() - 8..].first_chunk().unwrap()) as usize;
        for turn in 0..20_000 {
            let mut bytes = whole.clone();
            for what in 0..=turn % 4 {
                let (place, byte) = murmur3_of_word(turn, what);
                let at = footer + place as usize % (whole.len() - 8 - footer);
                bytes[at] = if byte % 3 == 0 { 0xff } else { byte as u8 };
            }
            if let Ok(read) = Held::from_bytes(&bytes.into(), MOST) {
                assert_eq!(read, held(b"some events, and more of them"));
            }
        }
    }

    #[test]
    fn what_is_foreign_newer_or_too_large_says_so() {
        assert!(refused(b"hello".to_vec()).contains("no Parquet file"));
        assert!(refused([MAGIC, MAGIC].concat()).contains("ends too early"));
        let mut bytes = [MAGIC, vec![0; 30_000].as_slice()].concat();
        bytes.extend_from_slice(&20_000_u32.to_le_bytes());
        bytes.extend_from_slice(MAGIC);
        assert!(refused(bytes).contains("footer has 20000 bytes"));

        let foreign = |name: &str| {
            let field = Type::primitive_type_builder(name, Physical::INT32).with_repetition(Repetition::REQUIRED).build().unwrap();
            let schema = Type::group_type_builder("t").with_fields(vec![Arc::new(field)]).build().unwrap();
            let mut file = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::default()).unwrap();
            let mut group = file.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int32Type>().write_batch(&[VERSION], None, None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
            file.into_inner().unwrap()
        };
        assert!(refused(foreign("x")).contains("no parcel"));
        assert!(refused(foreign("barograph_parcel")).contains("other columns"));

        let mut newer = held(b"x").to_bytes().unwrap();
        let at = newer.windows(4).position(|bytes| bytes == VERSION.to_le_bytes()).unwrap();
        newer[at] = 2;
        assert!(refused(newer).contains("another version"));

        let zeros = held(&vec![0; 50_000_000]).to_bytes().unwrap();
        assert!(zeros.len() < 20_000);
        assert!(refused(zeros).contains("more than 1048576 bytes, decoded"));
    }
}
