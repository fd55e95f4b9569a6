//! A model's log: what happened, in order, so that its state can be made again after a crash.
//!
//! A segment begins with a magic, a version and the number of its first record. A record is its length (u32), a CRC-32 (u32) of all
//! that follows, its number (u64) and its payload. A torn tail is what a crash leaves: it is cut off. Anything else that cannot be read
//! is skipped, counted and left in a copy of the segment beside it. What a newer version wrote is left alone, and nothing is done without
//! it: in a segment the byte after the magic says so, in a state too, whose last four bytes are the CRC-32 of the others in every version.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::files::{Files, listed};

const MAGIC: &[u8; 7] = b"BAROLOG";
/// Of segments and of states.
const VERSION: u8 = 1;
/// No log ever comes to this number; a file that names it would leave none for what comes next.
const LAST: u64 = 1 << 62;
const HEADER: usize = 16;
const RECORD_HEADER: usize = 16;
/// A segment is closed when it has this many bytes.
const SEGMENT: u64 = 32 << 20;
/// The largest record.
pub const MOST_RECORD: usize = 256 << 20;

/// What opening found besides records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Bytes that were cut off an unfinished end: no record of them was acknowledged.
    pub torn: u64,
    /// Bytes in the middle that could not be read.
    pub rotten: u64,
    /// Records that are missing between those that are there.
    pub missing: u64,
}

#[derive(Clone, Debug)]
struct Segment {
    first: u64,
    path: PathBuf,
    bytes: u64,
}

/// A log that is written to.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    files: Files,
    segments: VecDeque<Segment>,
    /// The last segment, if it can be written to.
    open: Option<File>,
    next: u64,
    unsynced: bool,
    turned: bool,
}

/// A place in a log that is read while it is written to.
#[derive(Debug, Default)]
pub struct Cursor {
    next: u64,
    segment: Option<u64>,
    /// Bytes of the segment that were read.
    read: u64,
    bytes: Bytes,
    at: usize,
    /// Whether nothing will be added to the segment any more.
    whole: bool,
}

impl Cursor {
    /// At the record of this number.
    pub fn at(number: u64) -> Self {
        Self { next: number, ..Self::default() }
    }
}

fn record_header(number: u64, payload: &[u8]) -> [u8; RECORD_HEADER] {
    let mut header = [0; RECORD_HEADER];
    let mut crc = crc32fast::Hasher::new();
    crc.update(&number.to_le_bytes());
    crc.update(payload);
    header[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
    header[8..].copy_from_slice(&number.to_le_bytes());
    header
}

/// The record at the beginning of these bytes: its number, its payload.
fn record_at(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<RECORD_HEADER>()?;
    let [a, b, c, d, e, f, g, h, number @ ..] = *header;
    let number = u64::from_le_bytes(number);
    let payload = rest.get(..u32::from_le_bytes([a, b, c, d]) as usize)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&number.to_le_bytes());
    crc.update(payload);
    (crc.finalize() == u32::from_le_bytes([e, f, g, h]) && number < LAST).then_some((number, payload))
}

/// Whether the end of the last segment is what a crash leaves: less than a header, or than its first record says that there is.
fn is_torn(rest: &[u8], at: usize) -> bool {
    if at == 0 {
        return rest.len() < HEADER;
    }
    let Some(([a, b, c, d], _)) = rest.split_first_chunk::<4>() else { return true };
    rest.len() < RECORD_HEADER.saturating_add(u32::from_le_bytes([*a, *b, *c, *d]) as usize)
}

/// Where the next record begins that can be read and whose number is not below `next`.
fn resync(bytes: &[u8], next: u64) -> Option<usize> {
    (1..bytes.len()).find(|at| {
        let ahead = bytes.get(at + 8..at + 16).and_then(|raw| raw.try_into().ok()).map(u64::from_le_bytes);
        // The number is looked at first: a checksum at every byte would take minutes.
        ahead.is_some_and(|number| number >= next && number - next < 1 << 32) && bytes.get(*at..).and_then(record_at).is_some()
    })
}

impl Log {
    /// Opens the log of a folder and hands every record from `from` on to `each`, in order.
    ///
    /// # Errors
    /// Those of the file system, and those of `each`.
    pub fn open(folder: &Path, files: &Files, from: u64, each: &mut dyn FnMut(u64, &[u8])) -> io::Result<(Self, Damage)> {
        let mut damage = Damage::default();
        for (_, path) in listed(folder, "log-", ".gone")? {
            // On a disk that cannot be written to it stays, and is in nobody's way.
            let _ = fs::remove_file(path);
        }
        let found = listed(folder, "log-", ".wal")?;
        let firsts: Vec<Option<u64>> =
            found.iter().map(|(name, _)| u64::from_str_radix(name, 16).ok().filter(|first| *first < LAST)).collect();
        let (mut segments, mut next, mut turned) = (VecDeque::new(), from, false);
        for (at, (_, path)) in found.iter().enumerate() {
            let Some(first) = firsts.get(at).copied().flatten() else { continue };
            let last = firsts.get(at + 1..).is_none_or(|following| following.iter().all(Option::is_none));
            // It was begun after all records before it: those that are not there are lost.
            if first > next {
                damage.missing += first - next;
                next = first;
            }
            // Records of this segment are all below `from` if the next one begins there or before.
            let done = firsts.get(at + 1).copied().flatten().is_some_and(|following| following <= from);
            let bytes = if done { fs::metadata(path)?.len() } else { Self::read(path, files, last, &mut next, &mut damage, each)? };
            // What could not be cut off stays behind the records, and nothing is written after it.
            turned = fs::metadata(path)?.len() > bytes;
            segments.push_back(Segment { first, path: path.clone(), bytes });
        }
        Ok((Self { folder: folder.to_owned(), files: files.clone(), segments, open: None, next, unsynced: false, turned }, damage))
    }

    /// Reads a segment; gives the bytes up to the end of its last record, after which it is cut if it can be.
    fn read(
        path: &Path,
        files: &Files,
        last: bool,
        next: &mut u64,
        damage: &mut Damage,
        each: &mut dyn FnMut(u64, &[u8]),
    ) -> io::Result<u64> {
        let bytes = fs::read(path)?;
        let (mut at, mut rotten) = (HEADER, 0);
        if bytes.get(..7) != Some(MAGIC.as_slice()) || bytes.len() < HEADER {
            (at, rotten) = (0, 0);
        } else if bytes.get(7).is_none_or(|version| *version > VERSION) {
            return Err(newer(path));
        }
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            if let Some((number, payload)) = record_at(rest) {
                if number >= *next {
                    damage.missing += number - *next;
                    each(number, payload);
                    *next = number + 1;
                }
                at += RECORD_HEADER + payload.len();
            } else if let Some(skipped) = resync(rest, *next) {
                rotten += skipped as u64;
                at += skipped;
            } else {
                break;
            }
        }
        let left = (bytes.len() - at) as u64;
        let torn = last && is_torn(bytes.get(at..).unwrap_or_default(), at);
        if torn {
            damage.torn += left;
        } else {
            rotten += left;
        }
        damage.rotten += rotten;
        // What could not be read stays for whoever wants to look at it.
        let copy = path.with_extension("damaged");
        let kept = rotten == 0 || copy.exists() || files.write_whole(&copy, &bytes).is_ok();
        if left > 0 && last && kept {
            // A disk that cannot be written to is told of when something has to be.
            let _ = fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(at as u64));
        }
        Ok(at as u64)
    }

    /// The number that the next record gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Appends a record; gives its number. After an error nothing of it is there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn append(&mut self, payload: &[u8]) -> io::Result<u64> {
        if payload.len() > MOST_RECORD {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a record has at most {MOST_RECORD} bytes")));
        }
        if self.next >= LAST {
            return Err(io::Error::other("the log has come to its last number: a file in its folder has a name that is not of its own"));
        }
        if self.open.is_none() || self.turned || self.segments.back().is_none_or(|segment| segment.bytes >= SEGMENT) {
            self.begin()?;
        }
        let (Some(file), Some(segment)) = (&mut self.open, self.segments.back_mut()) else {
            return Err(io::Error::other("the log has no segment"));
        };
        let header = record_header(self.next, payload);
        let small = payload.len() < 1 << 16;
        let result = if small {
            self.files.write(file, &segment.path, &[header.as_slice(), payload].concat())
        } else {
            self.files.write(file, &segment.path, &header).and_then(|()| self.files.write(file, &segment.path, payload))
        };
        if let Err(error) = result {
            // A half-written record would hide those after it: cut it off, or leave the segment for good.
            if file.set_len(segment.bytes).is_err() {
                self.open = None;
            }
            return Err(error);
        }
        segment.bytes += (RECORD_HEADER + payload.len()) as u64;
        self.unsynced = true;
        self.next += 1;
        Ok(self.next - 1)
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.sync()?;
        }
        self.open = None;
        let path = self.folder.join(format!("log-{:016x}.wal", self.next));
        let mut header = [0; HEADER];
        header[..7].copy_from_slice(MAGIC);
        header[7] = VERSION;
        header[8..].copy_from_slice(&self.next.to_le_bytes());
        let mut file = self.files.append(&path)?;
        if self.segments.back().is_some_and(|segment| segment.path == path && segment.bytes > HEADER as u64) {
            // Records of lower numbers than its name: they are not ours to remove.
            (self.open, self.turned) = (Some(file), false);
            return Ok(());
        }
        // A segment of this name holds no record: it was begun and not written to.
        file.set_len(0)?;
        if let Err(error) = self.files.write(&mut file, &path, &header) {
            let _ = file.set_len(0);
            return Err(error);
        }
        self.segments.retain(|segment| segment.path != path);
        self.segments.push_back(Segment { first: self.next, path, bytes: HEADER as u64 });
        self.open = Some(file);
        self.turned = false;
        Ok(())
    }

    /// Waits until all records have reached the disk. After an error the segment is left: what the system could not write it may
    /// have forgotten, and a second try would only seem to succeed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn sync(&mut self) -> io::Result<()> {
        if let (Some(file), Some(segment), true) = (&self.open, self.segments.back(), self.unsynced)
            && let Err(error) = self.files.sync(file, &segment.path)
        {
            self.open = None;
            self.unsynced = false;
            return Err(error);
        }
        self.unsynced = false;
        Ok(())
    }

    /// The record at a cursor, which moves on; `None` at the end. What cannot be read is skipped.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read_at(&self, cursor: &mut Cursor) -> io::Result<Option<(u64, Bytes)>> {
        while cursor.next < self.next {
            let rest = cursor.bytes.get(cursor.at..).unwrap_or_default();
            if let Some((number, payload)) = record_at(rest) {
                let begin = cursor.at + RECORD_HEADER;
                cursor.at = begin + payload.len();
                if number >= cursor.next {
                    cursor.next = number + 1;
                    return Ok(Some((number, cursor.bytes.slice(begin..cursor.at))));
                }
            } else if let Some(skipped) = resync(rest, cursor.next).filter(|_| cursor.whole) {
                cursor.at += skipped;
            } else if !self.refill(cursor)? {
                // A record that has a number was written whole: what stands before it will not become one.
                let rest = cursor.bytes.get(cursor.at..).unwrap_or_default();
                let Some(skipped) = resync(rest, cursor.next) else { return Ok(None) };
                cursor.at += skipped;
            }
        }
        Ok(None)
    }

    /// Reads on in the segment of a cursor, or the next one; false at the end.
    fn refill(&self, cursor: &mut Cursor) -> io::Result<bool> {
        let at = self.segments.iter().position(|segment| cursor.segment == Some(segment.first));
        let read = at.map_or(0, |_| cursor.read);
        let grown = at.and_then(|at| self.segments.get(at)).filter(|segment| segment.bytes > read && !cursor.whole);
        let following = || match cursor.segment {
            Some(first) => self.segments.iter().find(|segment| segment.first > first),
            None => self.segments.iter().rev().find(|segment| segment.first <= cursor.next).or(self.segments.front()),
        };
        let (segment, from) = match grown {
            Some(segment) => (segment, read),
            None => match following() {
                Some(segment) => (segment, 0),
                None => return Ok(false),
            },
        };
        let mut file = File::open(&segment.path)?;
        file.seek(io::SeekFrom::Start(from))?;
        cursor.next = cursor.next.max(segment.first);
        let left = if from == 0 { &[] } else { cursor.bytes.get(cursor.at..).unwrap_or_default() };
        let begin = if from == 0 { HEADER } else { 0 };
        let mut bytes = Vec::with_capacity(left.len() + (segment.bytes - from) as usize);
        bytes.extend_from_slice(left);
        let more = file.take(segment.bytes - from).read_to_end(&mut bytes)? as u64;
        cursor.bytes = bytes.into();
        let last = self.segments.back().is_some_and(|back| back.first == segment.first);
        (cursor.segment, cursor.read, cursor.at, cursor.whole) = (Some(segment.first), from + more, begin, !last);
        Ok(more > 0 || !last)
    }

    /// The next record begins a segment, so that what is written by now can be given up as a whole.
    pub fn turn(&mut self) {
        if self.segments.back().is_some_and(|segment| segment.bytes > HEADER as u64) {
            self.turned = true;
        }
    }

    /// Gives up segments that hold only records below `number`: they are renamed. Removing them frees what the system holds of them, which
    /// takes a while: that is for whoever gets their names.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn forget(&mut self, number: u64) -> io::Result<Vec<PathBuf>> {
        let all = self.turned && self.next <= number;
        if all {
            self.open = None;
        }
        let mut gone = Vec::new();
        while self.segments.get(1).is_some_and(|following| following.first <= number) || all && !self.segments.is_empty() {
            if let Some(segment) = self.segments.pop_front() {
                let path = segment.path.with_extension("gone");
                fs::rename(&segment.path, &path)?;
                gone.push(path);
            }
        }
        Ok(gone)
    }
}

const STATE_MAGIC: &[u8; 7] = b"BAROSTA";

/// Writes a state that holds all records up to `number`; the older ones go except one.
///
/// # Errors
/// Those of the file system.
pub fn write_state(folder: &Path, files: &Files, number: u64, payload: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(payload.len() + 12);
    bytes.extend_from_slice(STATE_MAGIC);
    bytes.push(VERSION);
    bytes.extend_from_slice(payload);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    files.write_whole(&folder.join(format!("state-{number:016x}.bin")), &bytes)
}

/// Removes all states but the last two; gives the number of the older one of these, up to which records can be forgotten.
///
/// # Errors
/// Those of the file system.
pub fn prune_states(folder: &Path) -> io::Result<Option<u64>> {
    let found = listed(folder, "state-", ".bin")?;
    let (gone, kept) = found.split_at(found.len().saturating_sub(2));
    for (_, path) in gone {
        fs::remove_file(path)?;
    }
    let older = kept.first().filter(|_| kept.len() == 2).and_then(|(name, _)| u64::from_str_radix(name, 16).ok());
    Ok(older)
}

/// Why a state cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is not as it was written.
    Broken(String),
    /// A newer version wrote it.
    Newer,
}

/// The newest state that can be read, by `read`: the number of its last record and what was read. States that cannot be are moved aside
/// and told.
///
/// # Errors
/// Those of the file system, and a state that a newer version wrote: an older one would be read as if nothing had happened since.
pub fn read_state<T>(
    folder: &Path,
    read: &dyn Fn(&[u8]) -> std::result::Result<T, Unread>,
    told: &mut dyn FnMut(String),
) -> io::Result<Option<(u64, T)>> {
    for (name, path) in listed(folder, "state-", ".bin")?.into_iter().rev() {
        let Some(number) = u64::from_str_radix(&name, 16).ok().filter(|number| *number < LAST) else { continue };
        let bytes = fs::read(&path)?;
        match opened(&bytes).and_then(read) {
            Ok(state) => return Ok(Some((number, state))),
            Err(Unread::Newer) => return Err(newer(&path)),
            Err(Unread::Broken(why)) => {
                // On a disk that cannot be written to it stays where it is.
                let place = if fs::rename(&path, path.with_extension("broken")).is_ok() { " and was moved aside" } else { "" };
                told(format!("{} could not be read{place}: {why}", path.display()));
            }
        }
    }
    Ok(None)
}

/// The payload of a state.
fn opened(bytes: &[u8]) -> std::result::Result<&[u8], Unread> {
    let broken = |why: &str| Unread::Broken(why.to_owned());
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| broken("it is too short"))?;
    let version = body.get(7).copied().filter(|_| body.starts_with(STATE_MAGIC)).ok_or_else(|| broken("it is no state"))?;
    // A byte that rotted is no version.
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(broken("its checksum does not match"));
    }
    if version > VERSION {
        return Err(Unread::Newer);
    }
    body.get(8..).ok_or_else(|| broken("it is too short"))
}

/// What a newer version wrote is not for us, and stays as it is.
fn newer(path: &Path) -> io::Error {
    io::Error::other(format!("{} was written by a newer barograph", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("barograph-wal-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn all(folder: &Path, from: u64) -> (Log, Damage, Vec<(u64, Vec<u8>)>) {
        let mut out = Vec::new();
        let (log, damage) =
            Log::open(folder, &Files::default(), from, &mut |number, payload| out.push((number, payload.to_vec()))).unwrap();
        (log, damage, out)
    }

    fn written(folder: &Path, count: u64) -> PathBuf {
        let (mut log, ..) = all(folder, 1);
        for number in 1..=count {
            assert_eq!(log.append(&[number as u8; 100]).unwrap(), number);
        }
        log.segments.back().unwrap().path.clone()
    }

    #[test]
    fn records_come_back_in_order_and_go_on() {
        let folder = folder("order");
        written(&folder, 10);
        let (mut log, damage, records) = all(&folder, 4);
        assert_eq!((damage, records.len(), records[0].0, log.next()), (Damage::default(), 7, 4, 11));
        log.append(b"x").unwrap();
        let (_, damage, records) = all(&folder, 1);
        assert_eq!((damage, records.len(), records[10].1.as_slice()), (Damage::default(), 11, b"x".as_slice()));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_byte() {
        let folder = folder("torn");
        let path = written(&folder, 3);
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let (mut log, damage, records) = all(&folder, 1);
            let expected = len.saturating_sub(HEADER) / 116;
            assert_eq!(records.len(), expected, "{len}");
            assert_eq!((damage.rotten, damage.missing), (0, 0), "{len}");
            log.append(b"again").unwrap();
            let (_, damage, records) = all(&folder, 1);
            assert_eq!((records.len(), damage), (expected + 1, Damage::default()), "{len}");
            fs::remove_dir_all(&folder).unwrap();
            fs::create_dir_all(&folder).unwrap();
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_flipped_byte_costs_one_record_and_is_told() {
        let folder = folder("rot");
        let path = written(&folder, 5);
        let whole = fs::read(&path).unwrap();
        for at in HEADER..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            fs::write(&path, &bytes).unwrap();
            let (log, damage, records) = all(&folder, 1);
            assert_eq!(records.len(), 4, "{at}");
            // What a cursor replays is the same, also of a segment that is still written to.
            let mut cursor = Cursor::at(1);
            let replayed: Vec<_> =
                std::iter::from_fn(|| log.read_at(&mut cursor).unwrap()).map(|(number, payload)| (number, payload.to_vec())).collect();
            assert_eq!(replayed, records, "{at}");
            // At the end nothing says how many are missing, and a length that has grown cannot be told from a torn tail.
            assert!(damage.missing == 1 || damage.rotten + damage.torn >= 16, "{at}");
            let grown = damage.torn > 0;
            assert!(!grown || (HEADER + 4 * 116..HEADER + 4 * 116 + 4).contains(&at), "{at}");
            assert_eq!(path.with_extension("damaged").exists(), !grown, "{at}");
            let _ = fs::remove_file(path.with_extension("damaged"));
            fs::write(&path, &whole).unwrap();
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_record_beyond_the_last_number_is_none() {
        let folder = folder("last");
        let path = written(&folder, 2);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(record_header(LAST, b"x"));
        bytes.push(b'x');
        fs::write(&path, &bytes).unwrap();
        let (log, damage, records) = all(&folder, 1);
        assert_eq!((records.len(), log.next()), (2, 3));
        assert!(damage.rotten > 0);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_segment_tells_of_the_records_before_it() {
        let folder = folder("begun");
        let path = written(&folder, 3);
        let mut bytes = fs::read(&path).unwrap();
        // A segment that was begun after the fourth record, which is lost.
        bytes.truncate(HEADER);
        bytes[8..].copy_from_slice(&5u64.to_le_bytes());
        fs::write(folder.join("log-0000000000000005.wal"), &bytes).unwrap();
        fs::write(folder.join("log-ffffffffffffffff.wal"), &bytes).unwrap();
        let (mut log, damage, records) = all(&folder, 1);
        assert_eq!((records.len(), damage.missing, log.next()), (3, 1, 5));
        let mut cursor = Cursor::at(1);
        log.append(b"five").unwrap();
        let read: Vec<u64> = std::iter::from_fn(|| log.read_at(&mut cursor).unwrap()).map(|(number, _)| number).collect();
        assert_eq!(read, [1, 2, 3, 5]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_segment_that_is_not_empty_is_not_begun_anew() {
        let folder = folder("named");
        let path = written(&folder, 1);
        fs::rename(path, folder.join("log-0000000000000002.wal")).unwrap();
        let (mut log, ..) = all(&folder, 1);
        let mut cursor = Cursor::at(1);
        assert_eq!(log.read_at(&mut cursor).unwrap(), None);
        assert_eq!(log.append(b"two").unwrap(), 2);
        assert_eq!(log.read_at(&mut cursor).unwrap(), Some((2, Bytes::from_static(b"two"))));
        assert!(fs::read(folder.join("log-0000000000000002.wal")).unwrap().len() > 2 * (RECORD_HEADER + 3));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_failing_disk_leaves_no_half_record() {
        let folder = folder("fault");
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let files = Files::failing(Arc::new(move |step| match step {
            // Every third write gets through only in part.
            crate::files::Step::Write(_, bytes) if counter.fetch_add(1, Ordering::Relaxed) % 3 == 2 => Ok(bytes / 2),
            crate::files::Step::Write(_, bytes) => Ok(bytes),
            _ => Ok(0),
        }));
        let (mut log, _) = Log::open(&folder, &files, 1, &mut |_, _| {}).unwrap();
        let good = (0..60).filter(|_| log.append(&[7; 50]).is_ok()).count();
        let (_, damage, records) = all(&folder, 1);
        assert!(good > 20 && good < 60);
        assert_eq!((records.len(), damage), (good, Damage::default()));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_segment_without_its_header_is_told_and_kept() {
        let folder = folder("header");
        let path = written(&folder, 3);
        let len = fs::read(&path).unwrap().len();
        fs::write(&path, vec![0; len]).unwrap();
        let (mut log, damage, records) = all(&folder, 1);
        assert_eq!((records.len(), damage.rotten, damage.torn), (0, len as u64, 0));
        assert_eq!(fs::read(path.with_extension("damaged")).unwrap().len(), len);
        log.append(b"again").unwrap();
        assert_eq!(all(&folder, 1).2, [(1, b"again".to_vec())]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_a_newer_version_wrote_is_left_as_it_is() {
        let folder = folder("newer");
        let path = written(&folder, 3);
        let mut bytes = fs::read(&path).unwrap();
        bytes[7] = VERSION + 1;
        fs::write(&path, &bytes).unwrap();
        let error = Log::open(&folder, &Files::default(), 1, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("was written by a newer barograph"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        for number in [3, 7] {
            write_state(&folder, &Files::default(), number, &[1]).unwrap();
        }
        let path = folder.join("state-0000000000000007.bin");
        let mut bytes = fs::read(&path).unwrap();
        bytes[7] = VERSION + 1;
        let end = bytes.len() - 4;
        let crc = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        let error = read_state(&folder, &|bytes: &[u8]| Ok(bytes.to_vec()), &mut |why| panic!("{why}")).unwrap_err();
        assert!(error.to_string().contains("was written by a newer barograph"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_cannot_be_cut_off_is_written_around() {
        let folder = folder("uncut");
        let path = written(&folder, 3);
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.len();
        bytes[end - 1] ^= 1;
        fs::write(&path, &bytes).unwrap();
        // The copy fails, so what cannot be read stays where it is.
        let files = Files::failing(Arc::new(|step| match step {
            crate::files::Step::Write(path, _) if path.extension().is_some_and(|end| end == "part") => {
                Err(io::ErrorKind::StorageFull.into())
            }
            crate::files::Step::Write(_, bytes) => Ok(bytes),
            _ => Ok(0),
        }));
        let (mut log, damage) = Log::open(&folder, &files, 1, &mut |_, _| {}).unwrap();
        assert_eq!((log.next(), damage.rotten, fs::read(&path).unwrap().len()), (3, 116, end));
        assert_eq!(log.append(b"three").unwrap(), 3);
        let mut cursor = Cursor::at(1);
        let read: Vec<u64> = std::iter::from_fn(|| log.read_at(&mut cursor).unwrap()).map(|(number, _)| number).collect();
        assert_eq!(read, [1, 2, 3]);
        assert_eq!(fs::read(&path).unwrap().len(), end);
        let (_, damage, records) = all(&folder, 1);
        assert_eq!((records.len(), damage.rotten, damage.missing), (3, 116, 0));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_cursor_reads_what_is_written_meanwhile() {
        let folder = folder("cursor");
        let (mut log, ..) = all(&folder, 1);
        let mut cursor = Cursor::at(1);
        assert!(log.read_at(&mut cursor).unwrap().is_none());
        let mut read = Vec::new();
        for number in 1..=40u64 {
            log.append(&vec![number as u8; if number % 3 == 0 { 9 << 20 } else { 10 }]).unwrap();
            if number % 4 == 0 {
                while let Some((number, payload)) = log.read_at(&mut cursor).unwrap() {
                    assert!(payload.iter().all(|byte| *byte == number as u8));
                    read.push(number);
                }
            }
        }
        assert!(log.segments.len() > 3);
        assert_eq!(read, (1..=40).collect::<Vec<_>>());
        // From the middle of a segment that is closed.
        let mut cursor = Cursor::at(5);
        let found: Vec<u64> = std::iter::from_fn(|| log.read_at(&mut cursor).unwrap()).map(|(number, _)| number).collect();
        assert_eq!(found, (5..=40).collect::<Vec<_>>());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn segments_go_once_a_state_holds_them() {
        let folder = folder("forget");
        let (mut log, ..) = all(&folder, 1);
        let big = vec![1; 12 << 20];
        (0..9).for_each(|_| assert!(log.append(&big).is_ok()));
        assert_eq!(log.segments.len(), 3);
        let gone = log.forget(5).unwrap();
        assert!(gone.len() == 1 && gone[0].exists());
        assert_eq!(log.segments.iter().map(|segment| segment.first).collect::<Vec<_>>(), [4, 7]);
        let (_, damage, records) = all(&folder, 5);
        assert_eq!((records.len(), damage), (5, Damage::default()));
        // One that was not removed goes then.
        assert!(!gone[0].exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_broken_state_falls_back_to_the_one_before() {
        let folder = folder("state");
        for number in [3, 7, 9] {
            write_state(&folder, &Files::default(), number, &[number as u8; 10]).unwrap();
        }
        assert_eq!(prune_states(&folder).unwrap(), Some(7));
        let read = |bytes: &[u8]| Ok(bytes.to_vec());
        let mut told = Vec::new();
        assert_eq!(read_state(&folder, &read, &mut |why| told.push(why)).unwrap(), Some((9, vec![9; 10])));
        let path = folder.join("state-0000000000000009.bin");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(read_state(&folder, &read, &mut |why| told.push(why)).unwrap(), Some((7, vec![7; 10])));
        assert!(told.len() == 1 && told[0].contains("checksum"));
        fs::remove_dir_all(folder).unwrap();
    }
}
