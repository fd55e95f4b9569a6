//! Predictions that wait for their label, and labels that wait for their event, on disk: in partitions of days, dropped as a whole.
//!
//! An id has at most one record: its event, with the label that counts if it has one, or a label that waits. Its partition is that of the
//! event's tile, or of the label's arrival; what has none within the horizon is kept as if it came now. A write ends with the position of
//! the log that it stands for. A write that was cut off is repeated whole: records say what is, not what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use barograph_core::codec::{Reader, Writer};
use barograph_core::{Error, Result};
use barograph_engine::labels::{Known, Label, MOST_WEIGHT, Overlay, Prediction, Shelf};
use barograph_engine::monitor::MOST_HALVINGS;
use fjall::compaction::Leveled;
use fjall::config::PartitioningPolicy;
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode};

use crate::problem::{Outcome, Problem};

/// Nanoseconds.
const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
/// Partitions of a horizon: a look-up goes through all of them, and one is kept too long.
const PARTITIONS: i64 = 8;
/// Bytes of blocks and filters that stay in memory.
const CACHE: u64 = 8 << 20;
/// Bytes that wait in memory to become files, of all partitions together.
const BUFFERS: u64 = 4 << 20;
/// Files that stay open.
const OPEN_FILES: usize = 128;
/// Records that are written at once: so many are in memory twice.
const CHUNK: usize = 1 << 14;
/// Times that opening may end the process until it is not tried again.
const MOST_DEATHS: usize = 2;
/// How long the database may take to make files of what waits in memory.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The name of the partition with what is known of the others, and what theirs begin with.
const MARKS: &str = "marks";
const PARTITION: &str = "from ";
const POSITION: &str = "position";

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Stretches of time that are dropped as a whole.
    pub partitions: u64,
    /// Events, labelled or not.
    pub events: u64,
    /// Labels that wait for their event.
    pub labels: u64,
    /// On disk, without the journal.
    pub bytes: u64,
}

struct Partition {
    records: Keyspace,
    mark: Mark,
}

/// What is noted of a partition.
#[derive(Clone, Copy, Default)]
struct Mark {
    events: u64,
    labels: u64,
    /// Nothing in it is of that time or later, as the horizon was when it was written.
    end: i64,
}

impl Mark {
    fn read(raw: &[u8]) -> Self {
        let number = |at: usize| raw.get(at..at + 8).and_then(|raw| raw.try_into().ok()).map_or(0, u64::from_le_bytes);
        Self { events: number(0), labels: number(8), end: number(16) as i64 }
    }

    fn bytes(self) -> Vec<u8> {
        [self.events, self.labels, self.end as u64].into_iter().flat_map(u64::to_le_bytes).collect()
    }

    /// A record that comes or goes.
    fn count(&mut self, event: bool, comes: bool) {
        let count = if event { &mut self.events } else { &mut self.labels };
        *count = if comes { *count + 1 } else { count.saturating_sub(1) };
    }
}

impl Counts {
    fn add(&mut self, partition: &Partition) {
        self.partitions += 1;
        self.events += partition.mark.events;
        self.labels += partition.mark.labels;
        self.bytes += partition.records.disk_space();
    }
}

/// The database, open.
struct Store {
    database: Database,
    marks: Keyspace,
    partitions: BTreeMap<i64, Partition>,
}

/// Why the database does not work.
enum Trouble {
    /// What is on disk cannot be used.
    Broken(String),
    /// Something else that may pass.
    Failed(String),
}

/// What one model's predictions and labels that wait are kept in.
pub struct Pending {
    folder: PathBuf,
    /// In nanoseconds.
    horizon: i64,
    /// Of a partition.
    length: i64,
    now: AtomicI64,
    store: RwLock<Option<Store>>,
    /// Held by whoever changes something; whether the last write was cut off.
    writing: Mutex<bool>,
    damage: Mutex<Option<String>>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("folder", &self.folder).field("horizon", &self.horizon).finish_non_exhaustive()
    }
}

impl From<fjall::Error> for Trouble {
    fn from(error: fjall::Error) -> Self {
        let broken = |text: &str| Self::Broken(text.to_owned());
        match error {
            fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => match error.kind() {
                ErrorKind::NotFound => broken("a file is missing"),
                ErrorKind::UnexpectedEof => broken("a file was cut short"),
                ErrorKind::AlreadyExists => broken("it was never finished"),
                ErrorKind::InvalidData => Self::Broken(error.to_string()),
                _ => Self::Failed(error.to_string()),
            },
            fjall::Error::Locked => Self::Failed("another process has it open".to_owned()),
            fjall::Error::InvalidVersion(Some(_)) => Self::Failed("it was written by another version of its database".to_owned()),
            fjall::Error::Poisoned => broken("an earlier write to it failed"),
            fjall::Error::Storage(LsmError::ChecksumMismatch { .. }) => broken("a checksum does not match"),
            _ => broken("its files do not fit together"),
        }
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        let (Trouble::Broken(text) | Trouble::Failed(text)) = trouble;
        Self::decode(format!("what waits for labels could not be read: {text}"))
    }
}

fn key(id: u128) -> [u8; 16] {
    id.to_be_bytes()
}

/// Where a partition's mark stands.
fn mark_of(start: i64) -> String {
    format!("mark {start}")
}

fn is_event(record: &[u8]) -> bool {
    record.first().is_some_and(|flags| flags & form::WAITING == 0)
}

impl Store {
    fn open(folder: &Path) -> std::result::Result<Self, Trouble> {
        if let Some(file) = crate::tables::overlong(folder).map_err(|error| Trouble::Failed(error.to_string()))? {
            return Err(Trouble::Broken(format!("{file} has a table of contents that is longer than itself")));
        }
        let database = Database::builder(folder)
            .cache_size(CACHE)
            .worker_threads(1)
            .max_cached_files(Some(OPEN_FILES))
            .max_journaling_size(64 << 20)
            .open()?;
        let marks = database.keyspace(MARKS, KeyspaceCreateOptions::default)?;
        let mut store = Self { database, marks, partitions: BTreeMap::new() };
        for name in store.database.list_keyspace_names() {
            if let Some(start) = name.strip_prefix(PARTITION).and_then(|start| start.parse().ok()) {
                store.add(start)?;
            }
        }
        Ok(store)
    }

    /// Opens it so that whatever is in it does not end the process again and again; with `doubted` it is read whole.
    fn open_guarded(folder: &Path, doubted: bool) -> std::result::Result<Self, Trouble> {
        // A panic while its database unwinds ends the process: only a file can tell that this has happened.
        let trace = folder.with_extension("opening");
        let deaths = fs::read(&trace).map_or(0, |deaths| deaths.len());
        if deaths >= MOST_DEATHS {
            return Err(Trouble::Broken(format!("opening it ended the process {deaths} times")));
        }
        fs::write(&trace, vec![b'.'; deaths + 1]).map_err(|error| Trouble::Failed(error.to_string()))?;
        let opened = guarded(|| Self::open(folder).and_then(|store| if doubted { store.sound().map(|()| store) } else { Ok(store) }));
        let _ = fs::remove_file(&trace);
        opened
    }

    fn add(&mut self, start: i64) -> std::result::Result<(), Trouble> {
        if self.partitions.contains_key(&start) {
            return Ok(());
        }
        let compaction = Leveled::default().with_table_target_size(32 << 20).with_l0_threshold(2);
        let options = || {
            KeyspaceCreateOptions::default()
                .compaction_strategy(Arc::new(compaction))
                // A filter in one piece does not fit into the cache: every look-up would read it anew.
                .filter_block_partitioning_policy(PartitioningPolicy::all(true))
                .index_block_partitioning_policy(PartitioningPolicy::all(true))
        };
        let records = self.database.keyspace(&format!("{PARTITION}{start}"), options)?;
        let mark = self.marks.get(mark_of(start))?.map_or_else(Mark::default, |raw| Mark::read(&raw));
        self.partitions.insert(start, Partition { records, mark });
        Ok(())
    }

    /// Where an id is, and its record.
    fn locate(&self, id: u128) -> std::result::Result<Option<(i64, fjall::Slice)>, Trouble> {
        for (start, partition) in self.partitions.iter().rev() {
            if let Some(record) = partition.records.get(key(id))? {
                return Ok(Some((*start, record)));
            }
        }
        Ok(None)
    }

    /// Makes files of what waits in memory, if it is much.
    fn flush(&self) -> std::result::Result<(), Trouble> {
        let buffered = |records: &Keyspace| records.tree.active_memtable().size();
        let all = || self.partitions.values().map(|partition| &partition.records).chain([&self.marks]);
        if all().map(buffered).sum::<u64>() > BUFFERS {
            for records in all().filter(|records| buffered(records) > 0) {
                self.keep_pace(records)?;
                records.rotate_memtable()?;
            }
        }
        Ok(())
    }

    /// Waits until the database's own thread has caught up. The database would wait too, but later, and without end if that thread is gone.
    fn keep_pace(&self, records: &Keyspace) -> std::result::Result<(), Trouble> {
        let since = Instant::now();
        while records.tree.sealed_memtable_count() >= 2 || records.tree.l0_run_count() >= 16 {
            // Says so if that thread has failed.
            self.database.persist(PersistMode::Buffer)?;
            if since.elapsed() > LONGEST_WAIT {
                return Err(Trouble::Failed(format!("it wrote nothing for {} s", LONGEST_WAIT.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Reads everything in it.
    fn sound(&self) -> std::result::Result<(), Trouble> {
        for records in self.partitions.values().map(|partition| &partition.records).chain([&self.marks]) {
            for record in records.iter() {
                record.into_inner()?;
            }
        }
        Ok(())
    }
}

/// A database that does not know what it reads may panic.
fn guarded<T>(what: impl FnOnce() -> std::result::Result<T, Trouble>) -> std::result::Result<T, Trouble> {
    catch_unwind(AssertUnwindSafe(what)).unwrap_or_else(|_| Err(Trouble::Broken("its database gave up on it".to_owned())))
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pending {
    /// Opens the folder, or makes it. What is there and cannot be read is moved aside, see [`Self::take_damage`].
    ///
    /// # Errors
    /// When the folder cannot be written to, or another process has it.
    pub fn open(folder: &Path, horizon_days: u32, now: i64) -> Outcome<Self> {
        let days = i64::from(horizon_days.clamp(1, 3660));
        let pending = Self {
            folder: folder.to_owned(),
            horizon: days * DAY,
            length: (days + PARTITIONS - 1) / PARTITIONS * DAY,
            now: AtomicI64::new(now),
            store: RwLock::default(),
            writing: Mutex::default(),
            damage: Mutex::default(),
        };
        pending.reopen(false)?;
        Ok(pending)
    }

    /// What was moved aside since this was asked last, in words.
    pub fn take_damage(&self) -> Option<String> {
        held(&self.damage).take()
    }

    fn store(&self) -> RwLockReadGuard<'_, Option<Store>> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the open database; nobody reads meanwhile.
    fn change<T>(&self, change: impl FnOnce(&mut Store) -> std::result::Result<T, Trouble>) -> std::result::Result<T, Trouble> {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        store.as_mut().map_or_else(|| Err(closed()), |store| guarded(|| change(store)))
    }

    fn read<T>(&self, read: impl FnOnce(&Store) -> std::result::Result<T, Trouble>) -> std::result::Result<T, Trouble> {
        self.store().as_ref().map_or_else(|| Err(closed()), |store| guarded(|| read(store)))
    }

    fn problem(&self, trouble: Trouble) -> Problem {
        let (Trouble::Broken(text) | Trouble::Failed(text)) = trouble;
        Problem::unavailable(format!("{} could not be used: {text}", self.folder.display()))
    }

    /// Closes the database and opens it again; with `doubted` it is read whole. What is broken makes way for a new one.
    fn reopen(&self, doubted: bool) -> Outcome<()> {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        close(&mut store);
        let mut opened = Store::open_guarded(&self.folder, doubted);
        if let Err(Trouble::Broken(why)) = &opened {
            let aside = self.folder.with_extension("broken");
            // One is enough to find out what happened; more would fill the disk.
            let _ = fs::remove_dir_all(&aside);
            let _ = fs::remove_file(self.folder.with_extension("opening"));
            fs::rename(&self.folder, &aside)
                .map_err(|error| Problem::unavailable(format!("{} could not be moved aside: {error}", self.folder.display())))?;
            *held(&self.damage) = Some(format!(
                "{} could not be read ({why}) and was moved to {}: predictions in it no longer find their labels",
                self.folder.display(),
                aside.display()
            ));
            opened = Store::open_guarded(&self.folder, false);
        }
        *store = Some(opened.map_err(|trouble| self.problem(trouble))?);
        Ok(())
    }

    /// The partition of a time: where it begins.
    fn place(&self, time: i64) -> i64 {
        let now = self.now.load(Ordering::Relaxed);
        // Else a stray time would make a partition that is dropped at once, or never.
        let time = if (now.saturating_sub(self.horizon)..=now.saturating_add(DAY)).contains(&time) { time } else { now };
        time.div_euclid(self.length).saturating_mul(self.length)
    }

    /// Writes what a join set aside, and then the position of the log that it stands for. When this returns, both outlive a power
    /// failure; when it fails, some of it may be there, and it has to be written again.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(&self, overlay: &Overlay, position: u64) -> Outcome<()> {
        let mut cut = held(&self.writing);
        let mut result = self.put(overlay, position, *cut);
        for doubted in [false, true] {
            // A full disk is no reason to read everything.
            if result.is_ok() || doubted && matches!(result, Err(Trouble::Failed(_))) {
                break;
            }
            *cut = true;
            // A database that failed to write takes nothing more until it is opened again.
            self.reopen(doubted)?;
            result = self.put(overlay, position, true);
        }
        *cut = result.is_err();
        result.map_err(|trouble| self.problem(trouble))
    }

    /// With `anywhere` any id may be on disk already, not only those that the overlay knows of.
    fn put(&self, overlay: &Overlay, position: u64, anywhere: bool) -> std::result::Result<(), Trouble> {
        let events = overlay.events().map(|(id, prediction, label)| (self.place(prediction.tile), id, Some(prediction), label));
        let labels = overlay.labels().map(|(id, label)| (self.place(label.time), id, None, Some(label)));
        let mut records: Vec<_> = events.chain(labels).collect();
        // Neighbours in a partition's order are neighbours in its memory.
        records.sort_unstable_by_key(|(start, id, ..)| (*start, *id));
        let starts: BTreeSet<i64> = records.iter().map(|(start, ..)| *start).collect();
        self.change(|store| starts.into_iter().try_for_each(|start| store.add(start)))?;
        let mut chunks = records.chunks(CHUNK).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let last = chunks.peek().is_none();
            let mut marks: BTreeMap<i64, Mark> = BTreeMap::new();
            self.read(|store| {
                let mut mark = |start: i64, event: bool, comes: bool| {
                    let now = || store.partitions.get(&start).map_or_else(Mark::default, |partition| partition.mark);
                    marks.entry(start).or_insert_with(now).count(event, comes);
                };
                let mut batch = store.database.batch().durability(Some(if last { PersistMode::SyncData } else { PersistMode::Buffer }));
                for (start, id, prediction, label) in chunk {
                    let before = if anywhere || overlay.is_beneath(*id) { store.locate(*id)? } else { None };
                    let mut start = *start;
                    if let Some((at, record)) = before {
                        mark(at, is_event(&record), false);
                        // An event stays where it is.
                        if is_event(&record) && prediction.is_some() {
                            start = at;
                        } else if at != start
                            && let Some(before) = store.partitions.get(&at)
                        {
                            batch.remove(&before.records, key(*id));
                        }
                    }
                    let Some(to) = store.partitions.get(&start) else { continue };
                    batch.insert(&to.records, key(*id), form::encode(*prediction, *label));
                    mark(start, prediction.is_some(), true);
                }
                for (start, mark) in &mut marks {
                    mark.end = mark.end.max(start.saturating_add(self.length));
                    batch.insert(&store.marks, mark_of(*start), mark.bytes());
                }
                if last {
                    batch.insert(&store.marks, POSITION, position.to_le_bytes());
                }
                batch.commit()?;
                store.flush()
            })?;
            self.note(marks)?;
            if last {
                return Ok(());
            }
        }
    }

    fn note(&self, marks: BTreeMap<i64, Mark>) -> std::result::Result<(), Trouble> {
        self.change(|store| {
            for (start, mark) in marks {
                store.partitions.get_mut(&start).into_iter().for_each(|partition| partition.mark = mark);
            }
            Ok(())
        })
    }

    /// The position of the log up to which everything was written; `None` before the first write.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn position(&self) -> Outcome<Option<u64>> {
        let raw = self.read(|store| Ok(store.marks.get(POSITION)?)).map_err(|trouble| self.problem(trouble))?;
        Ok(raw.and_then(|raw| raw.as_ref().try_into().ok()).map(u64::from_le_bytes))
    }

    /// Drops the partitions that ended longer ago than the horizon. Gives what was dropped.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn expire(&self, now: i64) -> Outcome<Counts> {
        let _turn = held(&self.writing);
        self.now.store(now, Ordering::Relaxed);
        let until = now.saturating_sub(self.horizon);
        let mut dropped = Counts::default();
        let result = self.change(|store| {
            let over: Vec<i64> = store.partitions.iter().filter(|(_, at)| at.mark.end <= until).map(|(start, _)| *start).collect();
            for start in over {
                let Some(partition) = store.partitions.remove(&start) else { continue };
                dropped.add(&partition);
                store.database.delete_keyspace(partition.records)?;
                store.marks.remove(mark_of(start))?;
            }
            Ok(())
        });
        result.map(|()| dropped).map_err(|trouble| self.problem(trouble))
    }

    /// Forgets an id; gives whether it was known. No look-up finds it any more; its bytes go when the files they are in are next
    /// rewritten, with the partition at the latest.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn erase(&self, id: u128) -> Outcome<bool> {
        let _turn = held(&self.writing);
        let mut marks = BTreeMap::new();
        let result = self.read(|store| {
            let mut batch = store.database.batch().durability(Some(PersistMode::SyncData));
            for (start, partition) in &store.partitions {
                let Some(record) = partition.records.get(key(id))? else { continue };
                let mut mark = partition.mark;
                mark.count(is_event(&record), false);
                batch.remove(&partition.records, key(id));
                batch.insert(&store.marks, mark_of(*start), mark.bytes());
                marks.insert(*start, mark);
            }
            Ok(batch.commit()?)
        });
        let known = !marks.is_empty();
        result.and_then(|()| self.note(marks)).map(|()| known).map_err(|trouble| self.problem(trouble))
    }

    /// What there is.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.store().iter().flat_map(|store| store.partitions.values()).for_each(|partition| counts.add(partition));
        counts
    }

    /// Forgets everything, the position too.
    ///
    /// # Errors
    /// When the folder cannot be removed or made again.
    pub fn clear(&self) -> Outcome<()> {
        let _turn = held(&self.writing);
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        close(&mut store);
        fs::remove_dir_all(&self.folder)
            .map_err(|error| Problem::unavailable(format!("{} could not be removed: {error}", self.folder.display())))?;
        *store = Some(Store::open_guarded(&self.folder, false).map_err(|trouble| self.problem(trouble))?);
        Ok(())
    }
}

/// Writes what is in a folder into new files, and nothing of what was erased; nobody else has it open.
///
/// # Errors
/// When it cannot be read, or the disk does not take it; it is as it was then.
pub fn rewrite(folder: &Path) -> Outcome<()> {
    let failed = |what: &str| Problem::unavailable(format!("{} could not be rewritten: {what}", folder.display()));
    let moved = |error: io::Error| failed(&error.to_string());
    let fresh = folder.with_extension("new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(moved)?;
    }
    let copied = guarded(|| {
        let (from, mut to) = (Store::open(folder)?, Store::open(&fresh)?);
        from.partitions.keys().try_for_each(|start| to.add(*start))?;
        let pairs = from.partitions.iter().filter_map(|(start, partition)| Some((&partition.records, &to.partitions.get(start)?.records)));
        for (from, to_records) in pairs.chain([(&from.marks, &to.marks)]) {
            let mut batch = to.database.batch();
            for (at, record) in from.iter().enumerate() {
                let (key, value) = record.into_inner()?;
                batch.insert(to_records, key, value);
                if at % CHUNK == CHUNK - 1 {
                    std::mem::replace(&mut batch, to.database.batch()).commit()?;
                    to.flush()?;
                }
            }
            batch.commit()?;
        }
        Ok(to.database.persist(PersistMode::SyncAll)?)
    });
    copied.map_err(|trouble| {
        let (Trouble::Broken(text) | Trouble::Failed(text)) = trouble;
        failed(&text)
    })?;
    // At no time is there none.
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, &fresh, rustix::fs::CWD, folder, exchange).map_err(|error| moved(error.into()))?;
    fs::remove_dir_all(&fresh).map_err(moved)
}

/// Closes the database, whatever state it is in.
fn close(store: &mut Option<Store>) {
    let _ = guarded(|| {
        drop(store.take());
        Ok(())
    });
}

fn closed() -> Trouble {
    Trouble::Failed("it could not be opened again".to_owned())
}

impl Shelf for Pending {
    fn find(&self, id: u128) -> Result<Option<Known>> {
        let found = self.read(|store| store.locate(id))?;
        found.map(|(_, record)| form::decode(&record)).transpose()
    }

    fn waiting(&self) -> u64 {
        self.store().iter().flat_map(|store| store.partitions.values()).map(|partition| partition.mark.labels).sum()
    }
}

/// A record's bytes: flags, then what they announce.
mod form {
    use super::{Error, Known, Label, MOST_HALVINGS, MOST_WEIGHT, Prediction, Reader, Result, SECOND, Writer};

    /// A label without an event: only that follows.
    pub(super) const WAITING: u8 = 1;
    /// A score, as a double; or as a float if it is one.
    const SCORE: u8 = 2;
    const SHORT: u8 = 4;
    /// A weight other than 1, or halvings: both follow.
    const WEIGHT: u8 = 8;
    /// A label; as a byte if it is one.
    const LABEL: u8 = 16;
    const BYTE: u8 = 32;
    const CHANCES: u8 = 64;
    /// The tile begins on a second.
    const SECONDS: u8 = 128;

    fn is_byte(value: f64) -> bool {
        (0.0..256.0).contains(&value) && f64::from(value as u8).to_bits() == value.to_bits()
    }

    fn is_float(value: f64) -> bool {
        f64::from(value as f32).to_bits() == value.to_bits()
    }

    fn float(writer: &mut Writer, value: f32) {
        value.to_le_bytes().into_iter().for_each(|byte| writer.u8(byte));
    }

    fn read_float(reader: &mut Reader<'_>) -> Result<f32> {
        Ok(f32::from_le_bytes([reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?]))
    }

    pub(super) fn encode(prediction: Option<&Prediction>, label: Option<Label>) -> Vec<u8> {
        let mut flags = if prediction.is_some() { 0 } else { WAITING };
        let mut rest = Writer::new();
        if let Some(Prediction { tile, score, chances, weight, halvings }) = prediction {
            if tile % SECOND == 0 {
                flags |= SECONDS;
                rest.i64(tile / SECOND);
            } else {
                rest.i64(*tile);
            }
            match *score {
                Some(score) if is_float(score) => {
                    flags |= SCORE | SHORT;
                    float(&mut rest, score as f32);
                }
                Some(score) => {
                    flags |= SCORE;
                    rest.f64(score);
                }
                None => {}
            }
            if *weight != 1.0 || *halvings > 0 {
                flags |= WEIGHT;
                rest.f64(*weight);
                rest.u8(*halvings);
            }
            if !chances.is_empty() {
                flags |= CHANCES;
                rest.len(chances.len());
                chances.iter().for_each(|chance| float(&mut rest, *chance));
            }
        }
        if let Some(label) = label {
            flags |= LABEL;
            if is_byte(label.value) {
                flags |= BYTE;
                rest.u8(label.value as u8);
            } else {
                rest.f64(label.value);
            }
            rest.i64(label.time);
        }
        let mut out = vec![flags];
        out.extend(rest.into_payload());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Known> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u8()?;
        let has = |flag: u8| flags & flag != 0;
        let broken = || Error::decode("a record of what waits for labels holds what none was given");
        let prediction = if has(WAITING) {
            None
        } else {
            let tile = reader.i64()?;
            let tile = if has(SECONDS) { tile.checked_mul(SECOND).ok_or_else(broken)? } else { tile };
            let score = match (has(SCORE), has(SHORT)) {
                (false, _) => None,
                (true, true) => Some(f64::from(read_float(&mut reader)?)),
                (true, false) => Some(reader.f64()?),
            };
            let (weight, halvings) = if has(WEIGHT) { (reader.f64()?, reader.u8()?) } else { (1.0, 0) };
            if !(0.0..=MOST_WEIGHT).contains(&weight) || u32::from(halvings) > MOST_HALVINGS {
                return Err(broken());
            }
            let chances = if has(CHANCES) { reader.len(4)? } else { 0 };
            let chances = (0..chances).map(|_| read_float(&mut reader)).collect::<Result<Box<[f32]>>>()?;
            Some(Prediction { tile, score, chances, weight, halvings })
        };
        let label = if has(LABEL) {
            let value = if has(BYTE) { f64::from(reader.u8()?) } else { reader.f64()? };
            Some(Label { value, time: reader.i64()? }).filter(|label| !label.value.is_nan()).ok_or_else(broken).map(Some)?
        } else {
            None
        };
        reader.finish()?;
        match (prediction, label) {
            (Some(prediction), label) => Ok(Known::Event(prediction, label)),
            (None, Some(label)) => Ok(Known::Waiting(label)),
            (None, None) => Err(broken()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek, SeekFrom, Write};
    use std::ops::Range;

    use barograph_core::hash::murmur3_x64_128;
    use barograph_engine::labels::{Change, LabelJoin};
    use barograph_engine::ledger::Choice;

    use super::*;

    const NOW: i64 = 20_000 * DAY;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("barograph-pending-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn pending(&self) -> PathBuf {
            self.0.join("pending")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// What a process that is killed now leaves on disk.
    fn copied(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copied(&entry.path(), &to);
                continue;
            }
            // Most of a journal is nothing: no bytes are written for it.
            let bytes = fs::read(entry.path()).unwrap();
            let mut file = File::create(&to).unwrap();
            file.write_all(&bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
        }
    }

    fn files(folder: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path, out) } else { out.push(path) }
        }
    }

    fn prediction(tile: i64) -> Prediction {
        Prediction { tile, score: Some(0.25), chances: Box::default(), weight: 1.0, halvings: 0 }
    }

    fn label(value: f64, time: i64) -> Label {
        Label { value, time }
    }

    /// An overlay as a join sets it aside that knows nothing beneath.
    fn overlay(events: impl IntoIterator<Item = (u128, Prediction)>, labels: impl IntoIterator<Item = (u128, Label)>) -> Arc<Overlay> {
        #[derive(Debug)]
        struct Nothing;
        impl Shelf for Nothing {
            fn find(&self, _id: u128) -> Result<Option<Known>> {
                Ok(None)
            }
            fn waiting(&self) -> u64 {
                0
            }
        }
        let mut join = LabelJoin::new(Choice::Last, 0);
        join.lean_on(Arc::new(Nothing));
        events.into_iter().for_each(|(id, prediction)| drop(join.event(id, prediction)));
        labels.into_iter().for_each(|(id, label)| drop(join.label(id, label)));
        join.freeze()
    }

    fn held_by(pending: &Pending) -> (u64, u64, u64) {
        let Counts { partitions, events, labels, .. } = pending.counts();
        (partitions, events, labels)
    }

    /// Counted by reading everything.
    fn recounted(pending: &Pending) -> (u64, u64) {
        let store = pending.store();
        let records = store.as_ref().unwrap().partitions.values().flat_map(|partition| partition.records.iter());
        let events: Vec<bool> = records.map(|record| is_event(&record.value().unwrap())).collect();
        let of = |event: bool| events.iter().filter(|is| **is == event).count() as u64;
        (of(true), of(false))
    }

    /// What happens to a join: an event or a label of one of few ids, on one of some days.
    fn happens(join: &mut LabelJoin, step: u64) -> Option<Change> {
        let (dice, more) = murmur3_x64_128(&step.to_le_bytes(), 3);
        let (id, time) = (u128::from(more % 150) << 60, NOW - (more >> 32) as i64 % (20 * DAY));
        if dice % 2 == 0 { join.event(id, prediction(time)) } else { join.label(id, label((dice >> 8 & 1) as f64, time)) }
    }

    fn counters(join: &LabelJoin) -> [u64; 4] {
        [join.dropped, join.duplicates, join.superseded, join.orphans() as u64]
    }

    /// Steps between two checkpoints, and how many there are.
    const BETWEEN: u64 = 40;
    const STEPS: u64 = 1200;

    fn uninterrupted() -> (Vec<Option<Change>>, [u64; 4]) {
        let mut join = LabelJoin::new(Choice::Last, 1 << 20);
        let changes = (0..STEPS).map(|step| happens(&mut join, step)).collect();
        (changes, counters(&join))
    }

    fn snapshot(join: &LabelJoin) -> Vec<u8> {
        let mut writer = Writer::new();
        join.encode(&mut writer);
        writer.into_payload()
    }

    /// Starts as the server does: from the checkpoint and what is on disk.
    fn started(checkpoint: Option<&(Vec<u8>, u64)>, folder: &Path) -> (LabelJoin, Arc<Pending>, u64) {
        let pending = Arc::new(Pending::open(folder, 30, NOW).unwrap());
        assert_eq!(pending.take_damage(), None);
        let mut join = LabelJoin::new(Choice::Last, 1 << 20);
        let mut next = 0;
        if let Some((bytes, position)) = checkpoint {
            join = LabelJoin::decode(&mut Reader::new(bytes), Choice::Last, 1 << 20).unwrap();
            join.lean_on(Arc::clone(&pending) as Arc<dyn Shelf>);
            let overlay = join.freeze();
            if pending.position().unwrap() < Some(*position) {
                pending.write(&overlay, *position).unwrap();
            }
            join.shelved(&overlay);
            next = position + 1;
        } else {
            join.lean_on(Arc::clone(&pending) as Arc<dyn Shelf>);
        }
        (join, pending, next)
    }

    /// Makes a checkpoint as the server does, and says whether it crashed on the way: after freezing, after the checkpoint, in the middle of
    /// the write, after it, after letting go.
    fn crashes(join: &mut LabelJoin, pending: &Pending, step: u64, checkpoint: &mut Option<(Vec<u8>, u64)>, crash: Option<u64>) -> bool {
        let frozen = join.freeze();
        let bytes = snapshot(join);
        if crash == Some(0) {
            return true;
        }
        *checkpoint = Some((bytes, step));
        if crash == Some(1) {
            return true;
        }
        if crash == Some(2) {
            let some = frozen.events().filter(|(id, ..)| id >> 60 & 1 == 0 && !frozen.is_beneath(*id));
            let before = pending.position().unwrap().unwrap_or(0);
            pending.write(&overlay(some.map(|(id, prediction, _)| (id, prediction.clone())), []), before).unwrap();
            return true;
        }
        pending.write(&frozen, step).unwrap();
        if crash == Some(3) {
            return true;
        }
        join.shelved(&frozen);
        crash == Some(4)
    }

    #[test]
    fn a_crash_between_any_two_steps_changes_nothing() {
        let (expected, counted) = uninterrupted();
        for crash in 0..6 {
            let folder = Folder::new(&format!("crash-{crash}"));
            let mut checkpoint = None;
            let (mut path, mut count) = (folder.pending(), 0);
            let (mut join, mut pending, mut step) = started(None, &path);
            while step < STEPS {
                assert_eq!(happens(&mut join, step), expected[step as usize], "step {step} with crashes at {crash}");
                // Every third stretch crashes, once.
                let stretch = step / BETWEEN;
                let doomed = (stretch % 3 == 1 && count <= stretch / 3).then_some(crash);
                let dies = if step % BETWEEN == BETWEEN - 1 {
                    crashes(&mut join, &pending, step, &mut checkpoint, doomed)
                } else {
                    step % BETWEEN == BETWEEN / 2 && doomed == Some(5)
                };
                if dies {
                    count += 1;
                    // The dead process's files, not what an orderly end would make of them.
                    let next = folder.0.join(format!("pending-{count}"));
                    copied(&path, &next);
                    path = next;
                    (join, pending, step) = started(checkpoint.as_ref(), &path);
                    assert_eq!(join.overlay_len(), 0);
                } else {
                    step += 1;
                }
            }
            assert!(count > 5, "{count}");
            assert_eq!(counters(&join), counted, "with crashes at {crash}");
            pending.write(&join.freeze(), STEPS).unwrap();
            let (_, events, labels) = held_by(&pending);
            assert_eq!((events, labels), recounted(&pending));
        }
    }

    #[test]
    fn a_write_that_was_cut_off_is_counted_once() {
        let folder = Folder::new("cut");
        let pending = Pending::open(&folder.pending(), 30, NOW).unwrap();
        let events = |ids: Range<u128>| ids.map(|id| (id, prediction(NOW - DAY)));
        pending.write(&overlay(events(0..20_000), [(90_000, label(1.0, NOW))]), 3).unwrap();
        *held(&pending.writing) = true;
        // More than one chunk, and its first one is there already.
        pending.write(&overlay(events(0..50_000), [(90_000, label(0.0, NOW - 9 * DAY))]), 7).unwrap();
        let (_, events, labels) = held_by(&pending);
        assert_eq!(((events, labels), pending.position().unwrap()), ((50_000, 1), Some(7)));
        assert_eq!(recounted(&pending), (50_000, 1));
        assert_eq!(pending.find(90_000).unwrap(), Some(Known::Waiting(label(0.0, NOW - 9 * DAY))));
        drop(pending);
        let again = Pending::open(&folder.pending(), 30, NOW).unwrap();
        assert_eq!((held_by(&again).1, again.waiting(), again.position().unwrap()), (50_000, 1, Some(7)));
        assert_eq!(again.find(49_999).unwrap(), Some(Known::Event(prediction(NOW - DAY), None)));
        assert_eq!(again.find(50_000).unwrap(), None);
    }

    #[test]
    fn partitions_go_as_a_whole_when_all_in_them_is_older_than_the_horizon() {
        let folder = Folder::new("expire");
        let pending = Pending::open(&folder.pending(), 4, NOW).unwrap();
        let days = (0..5_i64).map(|day| (day as u128, prediction(NOW - day * DAY)));
        pending.write(&overlay(days, [(9, label(1.0, NOW - DAY))]), 1).unwrap();
        assert_eq!(held_by(&pending), (5, 5, 1));
        assert_eq!(pending.expire(NOW + DAY - 1).unwrap().events, 0, "the last moment of the fifth day is not four days old");
        let dropped = pending.expire(NOW + DAY).unwrap();
        assert_eq!((dropped.partitions, dropped.events, dropped.labels), (1, 1, 0));
        assert_eq!(pending.find(4).unwrap(), None);
        assert_eq!(pending.find(3).unwrap(), Some(Known::Event(prediction(NOW - 3 * DAY), None)));
        assert_eq!(pending.expire(NOW + 4 * DAY).unwrap().labels, 1);
        drop(pending);
        let again = Pending::open(&folder.pending(), 4, NOW).unwrap();
        assert_eq!(held_by(&again), (1, 1, 0));
    }

    #[test]
    fn a_shorter_horizon_does_not_drop_what_is_younger() {
        let folder = Folder::new("horizon");
        let event = || overlay([(1, prediction(NOW - DAY))], []);
        Pending::open(&folder.pending(), 80, NOW).unwrap().write(&event(), 1).unwrap();
        let shorter = Pending::open(&folder.pending(), 1, NOW - 10 * DAY).unwrap();
        shorter.write(&overlay([(2, prediction(NOW - 10 * DAY))], []), 2).unwrap();
        assert_eq!(held_by(&shorter), (1, 2, 0));
        assert_eq!(shorter.expire(NOW + DAY - 1).unwrap().events, 0);
        assert_eq!(shorter.expire(NOW + DAY).unwrap().events, 2);
    }

    #[test]
    fn stray_times_make_no_partitions() {
        let folder = Folder::new("stray");
        let pending = Pending::open(&folder.pending(), 7, NOW).unwrap();
        let stray = |n: i64| [i64::MIN + n, i64::MAX - n, NOW + n * 100 * DAY, -n * DAY];
        let times = (1..100).flat_map(stray).enumerate();
        pending.write(&overlay(times.clone().map(|(id, time)| (id as u128, prediction(time))), []), 1).unwrap();
        assert_eq!(held_by(&pending), (1, 396, 0));
        for (id, time) in times {
            assert_eq!(pending.find(id as u128).unwrap(), Some(Known::Event(prediction(time), None)));
        }
    }

    #[test]
    fn a_label_moves_an_event_nowhere() {
        let folder = Folder::new("moves");
        let pending = Arc::new(Pending::open(&folder.pending(), 7, NOW).unwrap());
        let mut join = LabelJoin::new(Choice::Last, 0);
        join.lean_on(Arc::clone(&pending) as Arc<dyn Shelf>);
        let shelve = |join: &mut LabelJoin| {
            let overlay = join.freeze();
            pending.write(&overlay, 1).unwrap();
            join.shelved(&overlay);
        };
        join.event(1, prediction(NOW - 100 * DAY));
        join.label(2, label(1.0, NOW - 5 * DAY));
        shelve(&mut join);
        pending.expire(NOW + 3 * DAY).unwrap();
        join.label(1, label(1.0, NOW));
        join.label(2, label(1.0, NOW));
        shelve(&mut join);
        // The event is where it was, the label moved with its arrival; neither is there twice.
        assert_eq!((held_by(&pending).1, held_by(&pending).2, recounted(&pending)), (1, 1, (1, 1)));
        assert_eq!(pending.find(1).unwrap(), Some(Known::Event(prediction(NOW - 100 * DAY), Some(label(1.0, NOW)))));
    }

    #[test]
    fn an_erased_id_is_found_no_more() {
        let folder = Folder::new("erase");
        let pending = Pending::open(&folder.pending(), 7, NOW).unwrap();
        pending.write(&overlay([(1, prediction(NOW)), (2, prediction(NOW))], [(3, label(1.0, NOW))]), 1).unwrap();
        assert!(pending.erase(1).unwrap() && pending.erase(3).unwrap() && !pending.erase(4).unwrap());
        drop(pending);
        let again = Pending::open(&folder.pending(), 7, NOW).unwrap();
        assert_eq!((again.find(1).unwrap(), again.find(3).unwrap(), held_by(&again)), (None, None, (1, 1, 0)));
        again.clear().unwrap();
        assert_eq!((again.find(2).unwrap(), held_by(&again), again.position().unwrap()), (None, (0, 0, 0), None));
        again.write(&overlay([(2, prediction(NOW))], []), 9).unwrap();
        assert_eq!(held_by(&again), (1, 1, 0));
    }

    /// A folder with something of every kind in it: journal, tables, marks.
    fn filled(folder: &Path) {
        let pending = Pending::open(folder, 7, NOW).unwrap();
        // So much that files are made of it.
        for round in 0..3_u128 {
            let ids = (0..60_000).map(|id| (id + round * 60_000, prediction(NOW - id as i64 % 3 * DAY)));
            pending.write(&overlay(ids, []), round as u64).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_opened_is_moved_aside() {
        let folder = Folder::new("broken");
        let path = folder.pending();
        let ruined: [&dyn Fn(&Path); 6] = [
            &|path| fs::write(path.join("version"), b"no database").unwrap(),
            &|path| fs::remove_file(path.join("version")).unwrap(),
            &|path| fs::write(path.join("keyspaces/0/current"), b"no").unwrap(),
            &|path| fs::write(path.with_extension("opening"), b"..").unwrap(),
            &|path| fs::create_dir(path.join("x.jnl")).unwrap(),
            &|path| {
                fs::remove_dir_all(path).unwrap();
                fs::create_dir(path).unwrap();
                fs::write(path.join("0.jnl"), b"killed before it was made").unwrap();
            },
        ];
        for (number, ruin) in ruined.iter().enumerate() {
            filled(&path);
            ruin(&path);
            let pending = Pending::open(&path, 7, NOW).unwrap();
            let damage = pending.take_damage().unwrap_or_else(|| unreachable!("ruin {number} was not noticed"));
            assert!(damage.contains("could not be read (") && damage.contains("pending.broken"), "{damage}");
            assert_eq!((pending.take_damage(), pending.position().unwrap(), held_by(&pending)), (None, None, (0, 0, 0)));
            assert!(folder.0.join("pending.broken").exists());
            pending.write(&overlay([(1, prediction(NOW))], []), 5).unwrap();
            drop(pending);
            assert_eq!(Pending::open(&path, 7, NOW).unwrap().position().unwrap(), Some(5));
            fs::remove_dir_all(&path).unwrap();
        }
    }

    #[test]
    fn bytes_that_rot_never_stop_the_process() {
        let folder = Folder::new("rot");
        let whole = folder.0.join("whole");
        filled(&whole);
        let mut all = Vec::new();
        files(&whole, &mut all);
        all.sort_unstable();
        let (mut noticed, tried) = (0, all.len());
        for (number, file) in all.into_iter().enumerate() {
            let size = fs::metadata(&file).unwrap().len();
            let at = [0, size / 3, size.saturating_sub(40)][number % 3];
            let path = folder.pending();
            copied(&whole, &path);
            let mut rotten = File::options().write(true).open(path.join(file.strip_prefix(&whole).unwrap())).unwrap();
            rotten.seek(SeekFrom::Start(at)).unwrap();
            rotten.write_all(&[0xA5; 24]).unwrap();
            drop(rotten);
            let pending = Pending::open(&path, 7, NOW).unwrap();
            let wrong = |id: &u128| !matches!(pending.find(*id), Ok(None | Some(Known::Event(_, None))));
            let unread = (0..180_000_u128).step_by(1000).filter(wrong).count();
            pending.write(&overlay([(1 << 100, prediction(NOW))], []), 5).unwrap();
            assert!(pending.find(1 << 100).unwrap().is_some());
            noticed += usize::from(pending.take_damage().is_some() || unread > 0);
            drop(pending);
            fs::remove_dir_all(&path).unwrap();
        }
        assert!(noticed > tried / 10, "{noticed} of {tried}");
    }

    #[test]
    fn a_folder_that_is_in_use_is_left_alone() {
        let folder = Folder::new("used");
        let pending = Pending::open(&folder.pending(), 7, NOW).unwrap();
        pending.write(&overlay([(1, prediction(NOW))], []), 5).unwrap();
        let refused = Pending::open(&folder.pending(), 7, NOW).unwrap_err();
        assert!(refused.detail.ends_with("could not be used: another process has it open"), "{}", refused.detail);
        assert!(!folder.0.join("pending.broken").exists());
        assert!(pending.find(1).unwrap().is_some());
    }

    #[test]
    fn records_come_back_as_they_were() {
        let chances: Box<[f32]> = Box::new([0.25, 1.0e-20, 1.0]);
        for tile in [0, 1, -1, SECOND, -SECOND, NOW, NOW + 1, i64::MIN, i64::MAX] {
            for score in [None, Some(0.0), Some(-0.0), Some(0.1), Some(0.5), Some(f64::MAX), Some(5e-324)] {
                for (weight, halvings) in [(0.0, 0), (1.0, 0), (0.3, 20), (MOST_WEIGHT, 1), (1.0, 3)] {
                    for label in [None, Some(0.0), Some(-0.0), Some(255.0), Some(256.0), Some(-1.0), Some(0.5), Some(f64::INFINITY)] {
                        let label = label.map(|value| Label { value, time: tile });
                        for chances in [Box::default(), chances.clone()] {
                            let prediction = Prediction { tile, score, chances, weight, halvings };
                            let bytes = form::encode(Some(&prediction), label);
                            assert!(is_event(&bytes));
                            let Known::Event(back, found) = form::decode(&bytes).unwrap() else { unreachable!() };
                            let bits = |score: Option<f64>, label: Option<Label>| {
                                [score, label.map(|label| label.value)].map(|of| of.map(f64::to_bits))
                            };
                            assert_eq!((&back, found, bits(back.score, found)), (&prediction, label, bits(score, label)));
                            assert!((0..bytes.len()).all(|end| form::decode(&bytes[..end]).is_err()));
                        }
                        if let Some(label) = label {
                            let bytes = form::encode(None, Some(label));
                            assert!(!is_event(&bytes));
                            assert_eq!(form::decode(&bytes).unwrap(), Known::Waiting(label));
                        }
                    }
                }
            }
        }
        let usual = form::encode(Some(&prediction(NOW)), Some(label(1.0, NOW)));
        assert!(usual.len() <= 21, "{}", usual.len());
    }

    #[test]
    fn bytes_that_are_no_record_are_refused() {
        for seed in 0..20_000_u64 {
            let (a, b) = murmur3_x64_128(&seed.to_le_bytes(), 1);
            let bytes = [a.to_le_bytes(), b.to_le_bytes()].concat();
            let _ = form::decode(&bytes[..seed as usize % 17]);
        }
        assert!(form::decode(&[form::WAITING]).is_err(), "a label that is none");
        assert!(form::decode(&[0, 0, 0]).is_err(), "more than announced");
        assert!(form::decode(&[64, 0, 255, 255, 255, 255, 15]).is_err(), "more chances than bytes");
    }
}
