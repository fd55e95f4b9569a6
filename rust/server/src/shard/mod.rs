//! A thread that owns some models: it writes what arrives to their logs, acknowledges it, and lets it happen.

mod chores;
mod kept;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use arrow_array::RecordBatch;
use barograph_engine::alert::Alert;
use barograph_engine::labels::Overlay;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use self::chores::{Chore, do_chores, save_one};
use self::kept::{Kept, MOST_OVERLAID};
pub(crate) use self::kept::{PENDING, model_of};
use crate::files::Files;
use crate::fleet::Membership;
use crate::model::{Model, Settings, State, joined};
use crate::problem::{Outcome, Problem};
use crate::record::{Happening, Oddities, Once, Record};
use crate::secret::Secret;
use crate::shape::Shape;
use crate::streams::Numbered;
use crate::wal;

/// Bytes of a log after which a state is written.
const STATE_EVERY: u64 = 256 << 20;
/// And the time after which one is, if anything happened.
const STATE_AFTER: Duration = Duration::from_secs(60);
/// Rows of arrivals that become one record: more is gained by not copying them together.
const MOST_ROWS: usize = 1 << 13;
/// Arrivals that are looked at together.
const MOST_TOGETHER: usize = 1024;
/// A tick that falls so far behind the clock was the clock's: it is told.
const JUMP: i64 = 60 * 1_000_000_000;
/// A model whose files could not be used is tried again after this time, after twice of it, and so on.
const REOPEN_FIRST: Duration = Duration::from_secs(2);
const REOPEN_LONGEST: Duration = Duration::from_secs(300);

/// When something that arrived is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledge {
    /// At once: a crash may lose it.
    None,
    /// When the system has it: it outlives the process.
    #[default]
    Os,
    /// When the disk has it: it outlives the machine's power.
    Disk,
}

/// What became of something that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Rows that were taken.
    pub accepted: u64,
    /// Rows that were refused.
    pub refused: u64,
    /// The batch came before, and was counted then.
    pub repeated: bool,
}

/// What tells a batch from all others, so that it counts once.
#[derive(Clone, Debug)]
pub enum Ticket {
    /// Hashes of its `Idempotency-Key` and body.
    Key(u128, u64),
    /// Its place in a stream.
    Number(Numbered),
}

impl Ticket {
    /// That of a later part of the same body.
    #[must_use]
    pub fn part(&self, part: usize) -> Self {
        match self {
            Self::Key(key, body) => Self::Key(key.wrapping_add(part as u128), *body),
            Self::Number(numbered) => Self::Number(numbered.part(part)),
        }
    }

    /// Whether it is the same batch's, or claims to be.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key(key, _), Self::Key(other, _)) => key == other,
            (Self::Number(number), Self::Number(other)) => number == other,
            _ => false,
        }
    }
}

/// Something that arrives at a model.
#[derive(Debug)]
pub struct Arrival {
    /// What.
    pub happening: Happening,
    /// Rows of it.
    pub rows: u64,
    /// Rows that were refused, and what was odd.
    pub odd: Oddities,
    /// What it is told from others by, if it is to count once.
    pub once: Option<Ticket>,
    /// Who waits for it.
    pub reply: oneshot::Sender<Outcome<Ack>>,
    /// Memory that it takes until it has happened.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// A look at a model, on its thread.
pub type Look = Box<dyn FnOnce(&mut Model) + Send>;

/// What a shard is told.
pub enum Job {
    /// Something arrives.
    Arrive(Arc<Entry>, Arrival),
    /// Somebody looks.
    Look(Arc<Entry>, Look),
    /// A model is new, or was there when the process began: its folder is opened.
    Open(Arc<Entry>, Settings, oneshot::Sender<Outcome<()>>),
    /// A model goes, with its folder.
    Remove(Arc<Entry>, oneshot::Sender<Outcome<()>>),
    /// A state is written now.
    Save(Arc<Entry>, oneshot::Sender<Outcome<()>>),
    /// A state was written, and with it what waits for labels.
    Saved(Arc<Entry>, u64, Arc<Overlay>, io::Result<()>),
    /// Everything is written down and the thread ends.
    Stop,
}

/// What all threads know of a model.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Tells it from another model that had the name before.
    pub generation: String,
    /// What decoders know of it.
    pub shape: ArcSwap<Shape>,
    /// Whether its log is being replayed.
    pub replaying: AtomicBool,
    /// Events that were replayed since the start.
    pub replayed: AtomicU64,
    /// What is wrong with it, in words.
    pub trouble: Mutex<BTreeMap<&'static str, String>>,
    /// A few events of its last windows by their ids, where that is asked for.
    pub examples: crate::examples::Examples,
}

impl Entry {
    /// One that is not opened yet.
    pub fn new(name: &str, folder: PathBuf, generation: String) -> Self {
        Self {
            name: name.to_owned(),
            folder,
            generation,
            shape: ArcSwap::from_pointee(Shape { open: true, ..Shape::default() }),
            replaying: AtomicBool::new(true),
            replayed: AtomicU64::new(0),
            trouble: Mutex::default(),
            examples: crate::examples::Examples::default(),
        }
    }

    /// Says what is wrong, or that it is no more.
    pub(crate) fn trouble(&self, about: &'static str, what: Option<String>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match what {
            Some(what) => {
                if trouble.get(about) != Some(&what) {
                    crate::note::warn(&format!("model {}: {about}: {what}", self.name));
                }
                trouble.insert(about, what);
            }
            None => drop(trouble.remove(about)),
        }
    }

    /// Whether anything is wrong that keeps it from its work. What is over, such as records that are lost, is only told; so is an aggregator
    /// that takes nothing: what it is to have waits here.
    pub fn hampered(&self) -> bool {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.keys().any(|about| !matches!(*about, "damage" | "clock" | "control" | "fleet"))
    }

    /// What is wrong with it, in words.
    pub fn troubles(&self) -> Vec<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.iter().map(|(about, what)| format!("model {}: {about}: {what}", self.name)).collect()
    }
}

/// Who is told of changes of alerts.
pub trait Outlet: Send + Sync {
    /// An alert of a model changed; `index` counts its changes.
    fn changed(&self, entry: &Entry, index: u64, alert: &Alert);
    /// How many changes of a model were told before this process began.
    fn told(&self, _entry: &Entry) -> u64 {
        u64::MAX
    }
    /// A window was closed.
    fn closed(&self, entry: &Entry);
}

/// What a shard is made with.
#[derive(Clone)]
pub struct Setup {
    /// How files are written.
    pub files: Files,
    /// When arrivals are acknowledged.
    pub acknowledge: Acknowledge,
    /// Who is told of alerts.
    pub outlet: Arc<dyn Outlet>,
    /// Whether the thread moves: when it took its last step, as [`uptime`] says it.
    pub pulse: Arc<AtomicU64>,
    /// What columns are hashed with where privacy rules say so.
    pub key: Option<Secret>,
    /// Present if there is an aggregator: how models tell it.
    pub fleet: Option<Arc<Membership>>,
    /// While it is true no window is closed: what belongs into it may lie in a bucket.
    pub behind: Option<Arc<AtomicBool>>,
}

/// A model whose files could not be used, to be tried again.
struct Closed {
    entry: Arc<Entry>,
    settings: Settings,
    at: Instant,
    wait: Duration,
}

/// A shard that runs.
#[derive(Debug)]
pub struct Shard {
    sender: Sender<Job>,
    /// The second ends when the first has.
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Shard {
    /// Starts the thread, and the one that writes its states.
    ///
    /// # Errors
    /// Those of the system.
    pub fn start(number: usize, setup: Setup) -> io::Result<Self> {
        let (sender, jobs) = channel();
        let (beside, chores) = channel::<Chore>();
        let back = sender.clone();
        let files = setup.files.clone();
        let helper = std::thread::Builder::new().name(format!("state {number}")).spawn(move || do_chores(&chores, &files, &back))?;
        let run = Run { setup, beside, kept: BTreeMap::new(), closed: BTreeMap::new(), waiting: Vec::new(), now: 0, jumped: false };
        let thread = std::thread::Builder::new().name(format!("shard {number}")).spawn(move || run.run(&jobs))?;
        Ok(Self { sender, threads: Mutex::new(vec![thread, helper]) })
    }

    /// Tells it something; false if its thread is gone.
    pub fn tell(&self, job: Job) -> bool {
        self.sender.send(job).is_ok()
    }

    /// Whether one of its threads has ended although nobody told it to.
    pub fn is_dead(&self) -> bool {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).iter().any(std::thread::JoinHandle::is_finished)
    }

    /// Writes everything down and waits for the threads to end.
    pub fn stop(&self) {
        self.tell(Job::Stop);
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
}

/// The clock.
pub fn clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Seconds since the process began to count them, from 1 on: a clock that nobody sets.
pub fn uptime() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_secs() + 1
}

struct Run {
    setup: Setup,
    beside: Sender<Chore>,
    kept: BTreeMap<String, Kept>,
    /// Models that are not open, or not for writing.
    closed: BTreeMap<String, Closed>,
    /// Arrivals that wait for the disk: their model, and what they will be told.
    waiting: Vec<(String, oneshot::Sender<Outcome<Ack>>, Ack)>,
    now: i64,
    /// Whether the clock is behind it by more than clocks are.
    jumped: bool,
}

/// An arrival whose answer is still to come.
struct Waiting {
    once: Option<Ticket>,
    odd: Oddities,
    rows: u64,
    reply: oneshot::Sender<Outcome<Ack>>,
    /// Its memory is free when it has happened.
    _permit: Option<OwnedSemaphorePermit>,
}

/// Arrivals that become one record.
struct Group {
    entry: Arc<Entry>,
    batches: Vec<RecordBatch>,
    arrivals: Vec<Waiting>,
    happening: Happening,
    rows: usize,
}

/// The table of a happening that others can be added to.
fn table(happening: &Happening) -> Option<&RecordBatch> {
    match happening {
        Happening::Events(batch) | Happening::Sample(_, batch) | Happening::Labels(batch) | Happening::Half(_, batch) => Some(batch),
        _ => None,
    }
}

fn alike(a: &Happening, b: &Happening) -> bool {
    let same = match (a, b) {
        (Happening::Events(_), Happening::Events(_)) | (Happening::Labels(_), Happening::Labels(_)) => true,
        (Happening::Half(a, _), Happening::Half(b, _)) => a == b,
        (Happening::Sample(a, _), Happening::Sample(b, _)) => a == b,
        _ => false,
    };
    same && table(a).zip(table(b)).is_some_and(|(a, b)| Arc::ptr_eq(&a.schema(), &b.schema()) || a.schema_ref() == b.schema_ref())
}

/// Whether one holds requests, and the other responses.
fn sides(a: &Happening, b: &Happening) -> bool {
    matches!((a, b), (Happening::Half(a, _), Happening::Half(b, _)) if a != b)
}

impl Run {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            self.setup.pulse.store(uptime(), Ordering::Relaxed);
            let replaying = self.replay();
            let first = if replaying { jobs.try_recv().map_err(|_| RecvTimeoutError::Timeout) } else { jobs.recv_timeout(self.pause()) };
            let mut groups = Vec::new();
            let mut job = match first {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut count = 0;
            while let Some(next) = job {
                if matches!(next, Job::Stop) {
                    self.flush(&mut groups);
                    self.settle();
                    self.end();
                    return;
                }
                self.job(next, &mut groups);
                count += 1;
                job = if count < MOST_TOGETHER { jobs.try_recv().ok() } else { None };
            }
            self.flush(&mut groups);
            self.settle();
            self.tick();
            self.save_due();
            self.kept.retain(|_, kept| !kept.broken);
            self.reopen();
        }
    }

    /// Until the next model has to tick.
    fn pause(&self) -> Duration {
        if self.is_behind() {
            return Duration::from_millis(100);
        }
        let now = Instant::now();
        let next = self.kept.values().map(|kept| (kept.ticked + kept.tick_every()).saturating_duration_since(now)).min();
        next.unwrap_or(Duration::from_secs(1)).clamp(Duration::from_millis(1), Duration::from_secs(1))
    }

    /// The time, which never goes back.
    fn moment(&mut self) -> i64 {
        let clock = clock();
        if clock < self.now - JUMP {
            self.jumped = true;
            for kept in self.kept.values() {
                kept.entry.trouble("clock", Some("the clock went back; times of arrival stand still until it catches up".into()));
            }
        } else if self.jumped && clock >= self.now {
            self.jumped = false;
            self.kept.values().for_each(|kept| kept.entry.trouble("clock", None));
        }
        self.now = self.now.max(clock);
        self.now
    }

    fn job(&mut self, job: Job, groups: &mut Vec<Group>) {
        match job {
            Job::Arrive(entry, arrival) => self.arrive(entry, arrival, groups),
            Job::Look(entry, look) => {
                self.flush(groups);
                if let Some(kept) = self.kept.get_mut(&entry.name) {
                    // Whoever looks is told nothing then, and the others go on.
                    let _ = catch_unwind(AssertUnwindSafe(|| {
                        kept.model.settle();
                        look(&mut kept.model);
                    }));
                }
            }
            Job::Open(entry, settings, reply) => drop(reply.send(self.open(&entry, settings, REOPEN_FIRST))),
            Job::Remove(entry, reply) => {
                self.flush(groups);
                self.kept.remove(&entry.name);
                self.closed.remove(&entry.name);
                let _ = self.beside.send(Chore::Bury(entry, reply));
            }
            Job::Save(entry, reply) => {
                self.flush(groups);
                self.save(&entry.name.clone(), Some(reply));
            }
            Job::Saved(entry, number, overlay, result) => self.saved(&entry, number, &overlay, result),
            Job::Stop => {}
        }
    }

    fn arrive(&mut self, entry: Arc<Entry>, mut arrival: Arrival, groups: &mut Vec<Group>) {
        if !self.kept.contains_key(&entry.name) {
            let _ = arrival.reply.send(Err(Problem::unavailable("the model's store is not open").hint("see /readyz")));
            return;
        }
        if let Some(ticket) = &arrival.once {
            // It may be in the group that is not written yet: the answer comes after that.
            let waiting =
                groups.iter().flat_map(|group| &group.arrivals).any(|other| other.once.as_ref().is_some_and(|own| own.is(ticket)));
            if waiting {
                self.flush(groups);
            }
            if let Some(answer) = self.kept.get(&entry.name).and_then(|kept| kept.known(ticket, &arrival)) {
                match answer {
                    Ok(ack) => self.acknowledge(&entry.name, arrival.reply, ack),
                    Err(problem) => drop(arrival.reply.send(Err(problem))),
                }
                return;
            }
        }
        if matches!(arrival.happening, Happening::Delta(..)) {
            // It may be what is before it that makes it fit, or not.
            self.flush(groups);
            let now = self.moment();
            let read = self.kept.get(&entry.name).map_or(Ok(()), |kept| kept.read_delta(&mut arrival, now));
            if let Err(problem) = read {
                let _ = arrival.reply.send(Err(problem));
                return;
            }
        }
        let rows = table(&arrival.happening).map_or(0, RecordBatch::num_rows);
        let fits = |group: &Group| {
            Arc::ptr_eq(&group.entry, &entry) && group.rows + rows <= MOST_ROWS && alike(&group.happening, &arrival.happening)
        };
        let at = groups.iter().position(fits).unwrap_or_else(|| {
            // Requests and responses come in turns, and which of two comes first makes no difference: both sides stay open.
            let beside = matches!(groups.as_slice(), [one] if Arc::ptr_eq(&one.entry, &entry) && sides(&one.happening, &arrival.happening));
            if !beside {
                self.flush(groups);
            }
            groups.push(Group { entry, batches: Vec::new(), arrivals: Vec::new(), happening: arrival.happening.clone(), rows: 0 });
            groups.len() - 1
        });
        let Some(to) = groups.get_mut(at) else { return };
        to.batches.extend(table(&arrival.happening).cloned());
        to.rows += rows;
        to.arrivals.push(Waiting {
            once: arrival.once,
            odd: arrival.odd,
            rows: arrival.rows,
            reply: arrival.reply,
            _permit: arrival.permit,
        });
    }

    /// Writes groups to the log and lets them happen.
    fn flush(&mut self, groups: &mut Vec<Group>) {
        groups.drain(..).for_each(|group| self.write(group));
    }

    fn write(&mut self, group: Group) {
        let now = self.moment();
        let Some(kept) = self.kept.get_mut(&group.entry.name) else { return };
        let mut record = Record::new(now, group.happening);
        let result = (|| {
            if !group.batches.is_empty() {
                let whole = joined(&group.batches)?;
                record.happening = match record.happening {
                    Happening::Labels(_) => Happening::Labels(whole),
                    Happening::Half(side, _) => Happening::Half(side, whole),
                    Happening::Sample(halvings, _) => Happening::Sample(halvings, whole),
                    _ => Happening::Events(whole),
                };
            }
            for Waiting { once, odd, rows, .. } in &group.arrivals {
                match once {
                    Some(Ticket::Key(key, body)) => {
                        record.once.push(Once { key: *key, body: *body, accepted: *rows, refused: odd.refused });
                    }
                    Some(Ticket::Number(numbered)) => record.numbers.push(numbered.clone()),
                    None => {}
                }
                record.odd.refused += odd.refused;
                record.odd.unknown += odd.unknown;
                record.odd.mistyped += odd.mistyped;
            }
            kept.take(&record)
        })();
        match result {
            Ok(()) => {
                let name = group.entry.name.clone();
                for Waiting { odd, rows, reply, .. } in group.arrivals {
                    self.acknowledge(&name, reply, Ack { accepted: rows, refused: odd.refused, repeated: false });
                }
                self.tell(&name);
            }
            Err(problem) => {
                for Waiting { reply, .. } in group.arrivals {
                    let _ = reply.send(Err(problem.clone()));
                }
            }
        }
    }

    fn acknowledge(&mut self, name: &str, reply: oneshot::Sender<Outcome<Ack>>, ack: Ack) {
        if self.setup.acknowledge == Acknowledge::Disk {
            self.waiting.push((name.to_owned(), reply, ack));
        } else {
            let _ = reply.send(Ok(ack));
        }
    }

    /// Waits for the disk, once for all that arrived together.
    fn settle(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let mut failed: BTreeMap<String, String> = BTreeMap::new();
        for (name, kept) in self.kept.iter_mut().filter(|(_, kept)| kept.unsynced) {
            kept.unsynced = false;
            if let Err(error) = kept.log.sync() {
                failed.insert(name.clone(), error.to_string());
            }
        }
        for (name, reply, ack) in std::mem::take(&mut self.waiting) {
            let answer = match failed.get(&name) {
                Some(error) => Err(Problem::unavailable(format!("the disk did not take it: {error}"))),
                None => Ok(ack),
            };
            let _ = reply.send(answer);
        }
        for (name, error) in failed {
            if let Some(kept) = self.kept.get(&name) {
                kept.entry.trouble("disk", Some(error));
            }
            // What the log may have lost a state will hold.
            self.save(&name, None);
        }
    }

    /// Tells what changed of a model's alerts.
    fn tell(&mut self, name: &str) {
        let Some(kept) = self.kept.get_mut(name) else { return };
        let State::Watching(monitor) = &kept.model.state else { return };
        let alerts = monitor.alerts();
        for (index, alert) in alerts.iter().enumerate().skip(kept.told as usize) {
            self.setup.outlet.changed(&kept.entry, index as u64, alert);
        }
        kept.told = kept.told.max(alerts.len() as u64);
    }

    /// Whether what belongs into windows may still lie in a bucket.
    fn is_behind(&self) -> bool {
        self.setup.behind.as_ref().is_some_and(|behind| behind.load(Ordering::Relaxed))
    }

    fn tick(&mut self) {
        if self.is_behind() {
            return;
        }
        let now = self.moment();
        let due: Vec<String> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.cursor.is_none() && (kept.ticked.elapsed() >= kept.tick_every() || kept.is_full()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let Some(kept) = self.kept.get_mut(&name) else { continue };
            kept.ticked = Instant::now();
            let before = kept.model.monitor().and_then(barograph_engine::Monitor::last_window);
            // What cannot be written must not happen either: it will at the next tick.
            let _ = kept.take(&Record::new(now, kept.beat()));
            kept.ticked_number = kept.log.next();
            let closed = kept.model.monitor().and_then(barograph_engine::Monitor::last_window) != before;
            let entry = Arc::clone(&kept.entry);
            self.tell(&name);
            if closed {
                self.setup.outlet.closed(&entry);
            }
        }
    }

    /// Replays a little of every model that is behind; whether any still is.
    fn replay(&mut self) -> bool {
        let mut behind = false;
        let names: Vec<String> = self.kept.iter().filter(|(_, kept)| kept.cursor.is_some()).map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(kept) = self.kept.get_mut(&name) else { continue };
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(20) && kept.cursor.is_some() {
                kept.replay_one();
            }
            behind |= kept.cursor.is_some();
            if kept.cursor.is_none() {
                self.now = self.now.max(kept.model.now);
                self.tell(&name);
            }
        }
        behind
    }

    /// Opens a model. One that cannot be opened, or not be written to, is tried again after `wait`.
    fn open(&mut self, entry: &Arc<Entry>, settings: Settings, wait: Duration) -> Outcome<()> {
        if self.kept.get(&entry.name).is_some_and(|kept| kept.shut.is_none()) {
            return Ok(());
        }
        let opened = catch_unwind(AssertUnwindSafe(|| Kept::open(entry, &self.setup, settings.clone())));
        let opened = opened.unwrap_or_else(|_| Err(io::Error::other("its files cannot be read")));
        let opened =
            opened.map_err(|error| Problem::unavailable(format!("the store of model {:?} could not be opened: {error}", entry.name)));
        let shut = match &opened {
            Ok(kept) => kept.shut.clone(),
            Err(problem) => Some(problem.detail.clone()),
        };
        if shut.is_some() {
            let closed = Closed { entry: Arc::clone(entry), settings, at: Instant::now(), wait };
            self.closed.insert(entry.name.clone(), closed);
        }
        entry.trouble("store", shut);
        match opened {
            Ok(kept) => {
                self.now = self.now.max(kept.model.now);
                self.kept.insert(entry.name.clone(), kept);
                Ok(())
            }
            Err(problem) => {
                // Nothing is on its way: the model stays as it is until it can be opened.
                entry.replaying.store(false, Ordering::Relaxed);
                Err(problem)
            }
        }
    }

    /// Tries again what could not be opened: a disk that was full may have room by now.
    fn reopen(&mut self) {
        let due: Vec<String> =
            self.closed.iter().filter(|(_, closed)| closed.at.elapsed() >= closed.wait).map(|(name, _)| name.clone()).collect();
        for name in due {
            if let Some(closed) = self.closed.remove(&name) {
                // What is open is closed first: its files are its own.
                self.kept.remove(&name);
                let _ = self.open(&closed.entry, closed.settings, (closed.wait * 2).min(REOPEN_LONGEST));
            }
        }
    }

    fn save_due(&mut self) {
        let due = |kept: &mut Kept| {
            let grown = kept.log.bytes().saturating_sub(kept.saved_bytes);
            let new = kept.log.next() - 1 > kept.saved_number;
            let waiting = kept.pending.is_some() && kept.model.waiting() > MOST_OVERLAID / 2;
            kept.cursor.is_none()
                && kept.writable()
                && !kept.saving
                && new
                && (grown > STATE_EVERY || waiting || kept.saved_at.elapsed() > STATE_AFTER)
        };
        let names: Vec<String> = self.kept.iter_mut().filter_map(|(name, kept)| due(kept).then(|| name.clone())).collect();
        for name in names {
            self.save(&name, None);
        }
    }

    fn save(&mut self, name: &str, done: Option<oneshot::Sender<Outcome<()>>>) {
        let Some(kept) = self.kept.get_mut(name) else { return };
        if kept.cursor.is_some() {
            if let Some(done) = done {
                let _ = done.send(Err(Problem::unavailable("the model's log is being replayed")));
            }
            return;
        }
        if !kept.writable() {
            // What nobody knows must not become a state.
            if let Some(done) = done {
                let _ = done.send(Err(Problem::unavailable("the model's store cannot be written to").hint("see /readyz")));
            }
            return;
        }
        let save = kept.save(done);
        let _ = self.beside.send(Chore::Save(Box::new(save)));
    }

    fn saved(&mut self, entry: &Entry, number: u64, overlay: &Arc<Overlay>, result: io::Result<()>) {
        // It may have been of a model that had the name before.
        let Some(kept) = self.kept.get_mut(&entry.name).filter(|kept| std::ptr::eq(kept.entry.as_ref(), entry)) else { return };
        kept.saving = false;
        let result = result.and_then(|()| kept.shelved(overlay, number));
        let result = result.and_then(|()| {
            // The order matters: what a state holds goes only once the state is there for good.
            if let Some(older) = wal::prune_states(&entry.folder)? {
                let _ = self.beside.send(Chore::Remove(kept.log.forget(older + 1)?));
            }
            Ok(())
        });
        match result {
            Ok(()) => {
                kept.saved_number = number;
                kept.saved_bytes = kept.log.bytes();
                entry.trouble("state", None);
                entry.trouble("disk", None);
            }
            Err(error) => entry.trouble("state", Some(format!("no state can be written: {error}"))),
        }
    }

    /// Writes the last states.
    fn end(&mut self) {
        for kept in self.kept.values_mut().filter(|kept| kept.cursor.is_none() && kept.writable()) {
            let number = kept.log.next() - 1;
            if number > kept.saved_number && save_one(&self.setup.files, &kept.save(None)).is_ok() {
                let older = wal::prune_states(&kept.entry.folder).ok().flatten();
                let gone = older.and_then(|older| kept.log.forget(older + 1).ok()).unwrap_or_default();
                gone.iter().for_each(|path| drop(std::fs::remove_file(path)));
            }
            let _ = kept.log.sync();
        }
    }
}
