//! Snapshot bytes: `BARO`, format version (u16), kind (u8), payload, CRC-32 of everything before it. All little-endian.
//!
//! Integers are LEB128 varints, signed ones zigzag first, floats their IEEE bits. A reader never allocates more than
//! the bytes it was given can fill, and never panics: hostile bytes give an [`Error`].

use crate::error::{Error, Result};

const MAGIC: &[u8; 4] = b"BARO";
/// The format this version writes; it reads this one and every earlier one.
pub const FORMAT_VERSION: u16 = 1;
const HEADER_BYTES: usize = 7;
const CHECKSUM_BYTES: usize = 4;

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SnapshotKind {
    /// A profile of a frame.
    Profile = 1,
    /// A frozen reference.
    Reference = 2,
    /// A monitor with all its state.
    Monitor = 3,
    /// An exponential histogram alone.
    Histogram = 4,
    /// A detector in the middle of its stream.
    Detector = 5,
    /// Metrics of predictions.
    Metrics = 6,
    /// A sample of ids.
    Sample = 7,
    /// Co-moments of the columns of rows.
    CoMoments = 8,
    /// The mean embedding of rows.
    MeanEmbedding = 9,
    /// Histograms of rows along directions.
    SlicedProjections = 10,
    /// An estimate without labels, or a sequence that is valid at any time.
    Estimate = 11,
    /// What a monitor of a fleet has seen since it last told.
    Delta = 12,
}

impl SnapshotKind {
    const ALL: [Self; 12] = [
        Self::Profile,
        Self::Reference,
        Self::Monitor,
        Self::Histogram,
        Self::Detector,
        Self::Metrics,
        Self::Sample,
        Self::CoMoments,
        Self::MeanEmbedding,
        Self::SlicedProjections,
        Self::Estimate,
        Self::Delta,
    ];

    /// The word for it in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Reference => "reference",
            Self::Monitor => "monitor",
            Self::Histogram => "histogram",
            Self::Detector => "detector",
            Self::Metrics => "metrics",
            Self::Sample => "sample",
            Self::CoMoments => "co-moments",
            Self::MeanEmbedding => "mean embedding",
            Self::SlicedProjections => "sliced projections",
            Self::Estimate => "estimate",
            Self::Delta => "delta",
        }
    }
}

/// Rows that a snapshot may claim.
const MOST_COUNTED: u64 = 1 << 56;
/// What its counters may add up to: some count in small units.
const MOST_IN_COUNTERS: u64 = 1 << 62;

/// Bits that a counter of a dense run may take, by what stands for them.
const WIDTHS: [u32; 6] = [1, 2, 4, 8, 16, 32];

/// The narrowest of them that holds a count; none for what is larger.
fn width_of(most: u64) -> Option<usize> {
    WIDTHS.iter().position(|bits| most >> bits == 0)
}

/// Bytes of a varint.
fn bytes_of(value: u64) -> usize {
    (value | 1).ilog2() as usize / 7 + 1
}

/// Bytes that [`Writer::runs`] takes.
fn bytes_of_runs(counts: &[u64]) -> usize {
    let mut zeros = 0u64;
    counts.iter().fold(0, |bytes, count| {
        let before = zeros;
        zeros = if *count == 0 { zeros + 1 } else { 0 };
        // A run takes a zero and its length less one.
        let of_zero = if before == 0 { 2 } else { bytes_of(before) - bytes_of(before - 1) };
        bytes + if *count == 0 { of_zero } else { bytes_of(*count) }
    })
}

/// Appends primitives to a buffer.
#[derive(Default, Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    dense: bool,
}

impl Writer {
    /// An empty payload.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty payload whose counters are written in as many bits each where that is as short: several times as fast to read. What has
    /// an identity by its bytes is written without.
    pub fn dense() -> Self {
        Self { dense: true, ..Self::default() }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// A boolean as one byte.
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// An unsigned integer as a varint, 1 to 10 bytes.
    pub fn u64(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Counters whose number the reader knows; a run of zeros takes two bytes or so.
    pub fn counts(&mut self, counts: &[u64]) {
        match width_of(counts.iter().fold(0, |all, count| all | count)).filter(|_| self.dense && !counts.is_empty()) {
            // A few bytes more are worth it: a thin histogram has many short runs.
            Some(code) if (counts.len() * WIDTHS[code] as usize).div_ceil(8) <= bytes_of_runs(counts) + 12 => self.packed(counts, code),
            _ => self.runs(counts),
        }
    }

    fn packed(&mut self, counts: &[u64], code: usize) {
        // No run of zeros is as long as what follows: how old and new forms are told apart.
        self.u64(0);
        self.u64((counts.len() + code) as u64);
        match WIDTHS[code] as usize {
            32 => counts.iter().for_each(|count| self.bytes.extend_from_slice(&(*count as u32).to_le_bytes())),
            16 => counts.iter().for_each(|count| self.bytes.extend_from_slice(&(*count as u16).to_le_bytes())),
            bits => {
                let byte = |few: &[u64]| few.iter().rev().fold(0u64, |byte, count| (byte << (bits % 8)) | count) as u8;
                self.bytes.extend(counts.chunks(8 / bits).map(byte));
            }
        }
    }

    fn runs(&mut self, counts: &[u64]) {
        for run in counts.chunk_by(|a, b| *a == 0 && *b == 0) {
            match run {
                [0, ..] => {
                    self.u64(0);
                    self.u64(run.len() as u64 - 1);
                }
                _ => run.iter().for_each(|count| self.u64(*count)),
            }
        }
    }

    /// A length or count.
    pub fn len(&mut self, value: usize) {
        self.u64(value as u64);
    }

    /// A signed integer, zigzag.
    pub fn i64(&mut self, value: i64) {
        self.u64(((value << 1) ^ (value >> 63)) as u64);
    }

    /// The bits of a float.
    pub fn f64(&mut self, value: f64) {
        self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    /// A float that may be absent.
    pub fn option_f64(&mut self, value: Option<f64>) {
        self.bool(value.is_some());
        if let Some(value) = value {
            self.f64(value);
        }
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self, value: &[u8]) {
        self.len(value.len());
        self.bytes.extend_from_slice(value);
    }

    /// UTF-8 text behind its length.
    pub fn str(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// The payload so far, without header and checksum.
    pub fn into_payload(self) -> Vec<u8> {
        self.bytes
    }

    /// The finished snapshot.
    pub fn seal(self, kind: SnapshotKind) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + HEADER_BYTES + CHECKSUM_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.push(kind as u8);
        out.extend_from_slice(&self.bytes);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }
}

/// Reads primitives back, checking every length against what is left.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads a payload made with [`Writer::into_payload`].
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Opens a snapshot: checks magic, version, kind and checksum.
    ///
    /// # Errors
    /// `Decode`, saying which of these it was.
    pub fn open(bytes: &'a [u8], kind: SnapshotKind) -> Result<Self> {
        let want = kind.name();
        let Some((body, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
            return Err(
                Error::decode(format!("expected a {want} snapshot, got {} bytes", bytes.len())).hint("the file is empty or was cut short")
            );
        };
        if body.len() < HEADER_BYTES || !body.starts_with(MAGIC) {
            return Err(Error::decode(format!("expected a {want} snapshot, got {} bytes that do not begin with BARO", bytes.len()))
                .hint(format!("pass what `to_bytes()` or `save()` of a {want} wrote")));
        }
        let version = u16::from_le_bytes([body[4], body[5]]);
        if version == 0 || version > FORMAT_VERSION {
            return Err(Error::decode(format!(
                "the {want} snapshot has format version {version}, this barograph reads up to {FORMAT_VERSION}"
            ))
            .hint("read it with a newer barograph"));
        }
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err(Error::decode(format!("the checksum of the {want} snapshot does not match its {} bytes", bytes.len()))
                .hint("it was cut short or changed on its way; write it again"));
        }
        if body[6] != kind as u8 {
            let got = SnapshotKind::ALL.iter().find(|k| **k as u8 == body[6]).map_or("unknown", |k| k.name());
            return Err(
                Error::decode(format!("expected a {want} snapshot, got a {got} snapshot")).hint("load it with the class that wrote it")
            );
        }
        Ok(Self { bytes: &body[HEADER_BYTES..] })
    }

    fn short() -> Error {
        Error::decode("the snapshot ends in the middle of a value").hint("it was cut short; write it again")
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(n).ok_or_else(Self::short)?;
        self.bytes = tail;
        Ok(head)
    }

    /// One byte.
    ///
    /// # Errors
    /// `Decode` at the end of the bytes; so for every method here.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// A boolean.
    ///
    /// # Errors
    /// `Decode` if the byte is neither 0 nor 1.
    pub fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::decode(format!("expected 0 or 1 in the snapshot, got {other}"))),
        }
    }

    /// A varint.
    ///
    /// # Errors
    /// `Decode` if it does not fit 64 bits.
    #[inline]
    pub fn u64(&mut self) -> Result<u64> {
        const MORE: u64 = 0x8080_8080_8080_8080;
        if let Some(word) = self.bytes.first_chunk::<8>() {
            let word = u64::from_le_bytes(*word);
            // The first byte without the mark that more follow.
            let end = (!word & MORE).trailing_zeros();
            if end < 64 {
                self.bytes = &self.bytes[end as usize / 8 + 1..];
                // Groups of seven bits close up: bytes to pairs, pairs to fours, fours to one.
                let bits = word & (u64::MAX >> (63 - end)) & !MORE;
                let bits = (bits & 0x007f_007f_007f_007f) | (bits & 0x7f00_7f00_7f00_7f00) >> 1;
                let bits = (bits & 0x0000_3fff_0000_3fff) | (bits & 0x3fff_0000_3fff_0000) >> 2;
                return Ok((bits & 0x0fff_ffff) | (bits & 0x0fff_ffff_0000_0000) >> 4);
            }
        }
        self.long()
    }

    /// A varint of nine or ten bytes, or one near the end of the bytes.
    fn long(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::decode("an integer in the snapshot does not fit 64 bits"))
    }

    /// A zigzag integer.
    ///
    /// # Errors
    /// `Decode`.
    pub fn i64(&mut self) -> Result<i64> {
        let value = self.u64()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number of rows: at most 2^56, so that the sums of many snapshots fit.
    ///
    /// # Errors
    /// `Decode`.
    pub fn count(&mut self) -> Result<u64> {
        match self.u64()? {
            count if count <= MOST_COUNTED => Ok(count),
            count => Err(Error::decode(format!("no snapshot counts {count} rows"))),
        }
    }

    /// So many counters, written by [`Writer::counts`]; the caller bounds their number.
    ///
    /// # Errors
    /// `Decode`.
    pub fn counts(&mut self, number: usize) -> Result<Vec<u64>> {
        let mut out = vec![0; number];
        self.counts_into(&mut out)?;
        Ok(out)
    }

    /// Counters written by [`Writer::counts`], into as many places that hold 0; gives their sum.
    ///
    /// # Errors
    /// `Decode`.
    pub fn counts_into(&mut self, out: &mut [u64]) -> Result<u64> {
        let total = match self.dense(out.len())? {
            Some(bits) => self.unpacked(bits, out)?,
            None => self.runs(out)?,
        };
        if total > MOST_IN_COUNTERS {
            return Err(Error::decode("the counters of the snapshot add up to more than any stream has"));
        }
        Ok(total)
    }

    /// Whether a dense run follows, and in how many bits each.
    fn dense(&mut self, number: usize) -> Result<Option<usize>> {
        let mut ahead = Self { bytes: self.bytes };
        if number == 0 || self.bytes.first() != Some(&0) || ahead.u64()? != 0 {
            return Ok(None);
        }
        let Some(code) = ahead.u64()?.checked_sub(number as u64) else { return Ok(None) };
        let bits = WIDTHS.get(code as usize).ok_or_else(|| Error::decode("a run of zeros in the snapshot is not as it was written"))?;
        self.bytes = ahead.bytes;
        Ok(Some(*bits as usize))
    }

    fn unpacked(&mut self, bits: usize, out: &mut [u64]) -> Result<u64> {
        let packed = self.take((out.len() * bits).div_ceil(8))?;
        match bits {
            32 => out.iter_mut().zip(packed.as_chunks::<4>().0).for_each(|(to, from)| *to = u64::from(u32::from_le_bytes(*from))),
            16 => out.iter_mut().zip(packed.as_chunks::<2>().0).for_each(|(to, from)| *to = u64::from(u16::from_le_bytes(*from))),
            8 => out.iter_mut().zip(packed).for_each(|(to, from)| *to = u64::from(*from)),
            4 => apart::<2>(packed, out),
            2 => apart::<4>(packed, out),
            _ => apart::<8>(packed, out),
        }
        let used = (out.len() * bits) % 8;
        let left = used > 0 && packed.last().is_some_and(|last| last >> used != 0);
        let (all, total) = out.iter().fold((0, 0u64), |(all, total), count| (all | count, total + count));
        if left || width_of(all).is_none_or(|code| WIDTHS[code] as usize != bits) {
            return Err(Error::decode("a dense run of counters in the snapshot is not as it was written"));
        }
        Ok(total)
    }

    fn runs(&mut self, out: &mut [u64]) -> Result<u64> {
        // Whether a counter is zero is as good as random in a thin profile, so that nothing here branches on it.
        let number = out.len();
        let (mut at, mut total, mut run, mut after_run, mut wrong) = (0usize, 0u64, 0u64, 0u64, 0u64);
        let mut bytes = self.bytes;
        while at < number || run == 1 {
            let value = match bytes.split_first() {
                Some((byte, rest)) if *byte < 0x80 => {
                    bytes = rest;
                    u64::from(*byte)
                }
                _ => {
                    self.bytes = bytes;
                    let value = self.u64()?;
                    bytes = self.bytes;
                    value
                }
            };
            let (zero, in_run) = (u64::from(value == 0), 0u64.wrapping_sub(run));
            if let Some(slot) = out.get_mut(at) {
                *slot = value & !in_run;
            }
            total = total.saturating_add(value & !in_run);
            // A zero, and how many follow it.
            at = at.saturating_add(((value & in_run) | (1 & !in_run)) as usize);
            wrong |= (after_run & !run & zero) | u64::from(at > number);
            (after_run, run) = (run, zero & !run);
        }
        self.bytes = bytes;
        if wrong != 0 {
            return Err(Error::decode("a run of zeros in the snapshot is not as it was written"));
        }
        Ok(total)
    }

    /// A count of things that take at least `item_bytes` each, so that it can be allocated.
    ///
    /// # Errors
    /// `Decode` if the bytes that are left cannot hold them.
    pub fn len(&mut self, item_bytes: usize) -> Result<usize> {
        let count = self.u64()?;
        let room = (self.bytes.len() / item_bytes.max(1)) as u64;
        if count > room {
            return Err(Error::decode(format!("the snapshot announces {count} items where at most {room} fit")));
        }
        Ok(count as usize)
    }

    /// A float; any bits.
    ///
    /// # Errors
    /// `Decode`.
    pub fn f64(&mut self) -> Result<f64> {
        let mut raw = [0; 8];
        raw.copy_from_slice(self.take(8)?);
        Ok(f64::from_bits(u64::from_le_bytes(raw)))
    }

    /// A float that must be finite.
    ///
    /// # Errors
    /// `Decode` for NaN and infinities.
    pub fn finite(&mut self) -> Result<f64> {
        let value = self.f64()?;
        if value.is_finite() { Ok(value) } else { Err(Error::decode(format!("expected a finite number in the snapshot, got {value}"))) }
    }

    /// A finite float that may be absent.
    ///
    /// # Errors
    /// `Decode`.
    pub fn option_finite(&mut self) -> Result<Option<f64>> {
        if self.bool()? { self.finite().map(Some) } else { Ok(None) }
    }

    /// Bytes behind their length.
    ///
    /// # Errors
    /// `Decode`.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let n = self.len(1)?;
        self.take(n)
    }

    /// UTF-8 text.
    ///
    /// # Errors
    /// `Decode` if it is not UTF-8.
    pub fn str(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Error::decode("a text in the snapshot is not UTF-8"))
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All bytes that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    /// Says that everything was read.
    ///
    /// # Errors
    /// `Decode` if bytes are left over.
    pub fn finish(self) -> Result<()> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(Error::decode(format!("{} bytes are left over behind the snapshot", self.bytes.len())))
        }
    }
}

/// Counters of which so many share a byte, the first in its lowest bits.
fn apart<const EACH: usize>(packed: &[u8], out: &mut [u64]) {
    let bits = 8 / EACH;
    let (whole, rest) = out.as_chunks_mut::<EACH>();
    let one = |byte: u8, at: usize| u64::from(byte >> (at * bits)) & ((1 << bits) - 1);
    for (to, byte) in whole.iter_mut().zip(packed) {
        for (at, to) in to.iter_mut().enumerate() {
            *to = one(*byte, at);
        }
    }
    if let Some(byte) = packed.get(whole.len()) {
        rest.iter_mut().enumerate().for_each(|(at, to)| *to = one(*byte, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::murmur3_of_word;

    /// As the format is defined, value by value.
    fn plainly(reader: &mut Reader<'_>, number: usize) -> Option<Vec<u64>> {
        let mut out = Vec::new();
        while out.len() < number {
            let count = reader.u64().ok()?;
            if count == 0 {
                let more = reader.u64().ok()?;
                if more >= (number - out.len()) as u64 || out.last() == Some(&0) {
                    return None;
                }
                out.resize(out.len() + more as usize, 0);
            }
            out.push(count);
        }
        (out.iter().fold(0u64, |sum, count| sum.saturating_add(*count)) <= MOST_IN_COUNTERS).then_some(out)
    }

    #[test]
    fn counters_are_read_as_they_were_written_and_nothing_else_is() {
        let mut known = 0;
        for seed in 0..20_000u64 {
            let draw = |at: u64| murmur3_of_word(seed, at).0;
            let number = (draw(0) % 40) as usize;
            let count = |at: u64| match draw(at) % 8 {
                0..4 => 0,
                4..7 => draw(at + 1000) % 3,
                _ => draw(at + 1000) >> (draw(at + 2000) % 64),
            };
            let counts: Vec<u64> = (1..=number as u64).map(|at| count(at) >> 8).collect();
            let mut dense = Writer::dense();
            dense.counts(&counts);
            let mut writer = Writer::default();
            writer.counts(&counts);
            assert!(dense.bytes.len() <= writer.bytes.len() + 16);
            let mut bytes = writer.into_payload();
            assert_eq!(bytes_of_runs(&counts), bytes.len());
            for bytes in [&bytes, &dense.bytes] {
                let mut reader = Reader::new(bytes);
                assert_eq!(reader.counts(number).unwrap(), counts);
                assert!(reader.is_empty());
            }
            if bytes.is_empty() {
                continue;
            }
            // A byte of it another one, the end gone, more after it, or another number of counters.
            let at = draw(1) as usize % bytes.len();
            match seed % 4 {
                0 => bytes[at] = [0, 1, 2, 0x80, 0xff][draw(2) as usize % 5],
                1 => bytes.truncate(at),
                2 => bytes.insert(at, 0),
                _ => bytes.extend_from_slice(&[0, 0, 3]),
            }
            let wanted = (draw(3) as usize % 3 + number).saturating_sub(1);
            let (mut one, mut other) = (Reader::new(&bytes), Reader::new(&bytes));
            let mut read = vec![0; wanted];
            let (read, plain) =
                (one.runs(&mut read).ok().filter(|total| *total <= MOST_IN_COUNTERS).map(|_| read), plainly(&mut other, wanted));
            assert_eq!(read, plain, "{seed}");
            if plain.is_some() {
                assert_eq!(one.rest(), other.rest(), "{seed}");
                known += 1;
            }
        }
        assert!((2000..18_000).contains(&known), "{known}");
        for zeros in [1, 127, 128, 129, 130, 16_384, 16_385, 16_386] {
            let mut writer = Writer::default();
            writer.runs(&vec![0; zeros]);
            assert_eq!(bytes_of_runs(&vec![0; zeros]), writer.bytes.len(), "{zeros}");
        }
    }

    #[test]
    fn counters_of_as_many_bits_each_are_read_as_they_were_written_and_nothing_else_is() {
        let mut seen = [0; WIDTHS.len()];
        for seed in 0..20_000u64 {
            let draw = |at: u64| murmur3_of_word(seed, at).0;
            let number = 20 + (draw(0) % 80) as usize;
            let code = (draw(1) % WIDTHS.len() as u64) as usize;
            let counts: Vec<u64> = (2..2 + number as u64).map(|at| draw(at) >> (64 - WIDTHS[code])).collect();
            let mut writer = Writer::dense();
            writer.counts(&counts);
            let bytes = writer.into_payload();
            let mut reader = Reader::new(&bytes);
            let mut read = vec![0; number];
            assert_eq!(reader.counts_into(&mut read).unwrap(), counts.iter().sum::<u64>());
            assert_eq!(read, counts);
            assert!(reader.is_empty());
            let Some(bits) = Reader::new(&bytes).dense(number).unwrap() else { continue };
            seen[WIDTHS.iter().position(|width| *width as usize == bits).unwrap()] += 1;
            // Cut short, in another width than the narrowest, with bits that belong to none, of a width that there is not.
            assert!(Reader::new(&bytes[..bytes.len() - 1]).counts(number).is_err());
            let packed = |code: usize, bits: usize, last: u8| {
                let mut writer = Writer::new();
                writer.u64(0);
                writer.u64((number + code) as u64);
                let mut bytes = writer.into_payload();
                bytes.extend(vec![1u8; (number * bits).div_ceil(8) - 1]);
                bytes.push(last);
                bytes
            };
            assert!(Reader::new(&packed(WIDTHS.len(), 8, 1)).counts(number).is_err());
            assert!(Reader::new(&packed(4, 16, 0)).counts(number).is_ok());
            assert!(Reader::new(&packed(5, 32, 1)).counts(number).is_ok());
            let zeros = [packed(3, 8, 1)[..2].to_vec(), vec![0; number]].concat();
            assert!(Reader::new(&zeros).counts(number).is_err(), "one bit each would do");
            if !number.is_multiple_of(8) {
                assert!(Reader::new(&packed(0, 1, 1 << 7)).counts(number).is_err(), "a bit of no counter");
            }
        }
        assert!(seen.iter().all(|count| *count > 200), "{seen:?}");
    }
}
