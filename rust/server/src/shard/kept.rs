//! A model as its shard has it: with its log, what waits for labels, and what is still to be replayed.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use barograph_engine::delta::Delta;
use barograph_engine::labels::Overlay;
use tokio::sync::oneshot;

use super::chores::{Save, yield_to_others};
use super::{Ack, Arrival, Entry, Setup, Ticket};
use crate::files::listed;
use crate::fleet::Membership;
use crate::model::{Model, Settings};
use crate::outbox::Outbox;
use crate::pending::Pending;
use crate::problem::{Outcome, Problem};
use crate::record::{Happening, Once, Record};
use crate::secret::Secret;
use crate::streams::{Numbered, Streams};
use crate::wal::{self, Cursor, Log, Unread};

/// The folder of what waits for labels.
pub(crate) const PENDING: &str = "pending";
/// Bytes that a log may take while no state can be written.
const MOST_LOG: u64 = 2 << 30;
/// Events that wait for their label in memory; more of them wait on the disk.
const IN_MEMORY: usize = 50_000;
/// What has to be written to the disk before more is taken.
pub(super) const MOST_OVERLAID: usize = 200_000;
/// Deltas may be so far ahead of the clock, as events may.
const MOST_AHEAD: i64 = 24 * 3600 * 1_000_000_000;
/// Between ticks of a model that something has come for.
const TICK_SOON: Duration = Duration::from_secs(2);

/// What batches are told apart by when the whole log will have been replayed.
#[derive(Default)]
struct Ahead {
    /// Keys of records that are still to come.
    keys: HashMap<u128, Once>,
    /// Streams as they will be.
    streams: Streams,
}

impl Ahead {
    fn add(&mut self, now: i64, once: &[Once], numbers: &[Numbered]) {
        self.keys.extend(once.iter().map(|once| (once.key, *once)));
        numbers.iter().for_each(|numbered| self.streams.insert(numbered, now));
    }
}

/// A model as its shard has it.
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own: any of them can be so with any other")]
pub(super) struct Kept {
    pub(super) entry: Arc<Entry>,
    pub(super) model: Model,
    pub(super) log: Log,
    /// What is still to be replayed.
    pub(super) cursor: Option<Cursor>,
    /// What the records that are not replayed yet hold.
    ahead: Ahead,
    /// Bytes of the log at the last state.
    pub(super) saved_bytes: u64,
    pub(super) saved_number: u64,
    pub(super) saved_at: Instant,
    pub(super) saving: bool,
    pub(super) told: u64,
    pub(super) ticked: Instant,
    /// The record after the last tick.
    pub(super) ticked_number: u64,
    pub(super) unsynced: bool,
    /// Where events wait for their label, once they are many.
    pub(super) pending: Option<Arc<Pending>>,
    /// Ids that go from there when it has been written to.
    erased: Vec<u128>,
    key: Option<Secret>,
    /// What waits on the disk has to go once the state that is being written is there.
    clear: bool,
    /// Why nothing is written although the model can be read.
    pub(super) shut: Option<String>,
    /// A record has left the model in a state that nobody knows.
    pub(super) broken: bool,
    fleet: Option<Arc<Membership>>,
}

/// Days that an event waits for its label.
fn horizon(model: &Model) -> u32 {
    (model.settings.policy.0.lateness.0 / (24 * 3600 * 1_000_000_000)).clamp(1, 3660) as u32
}

fn clear(entry: &Entry, pending: &Pending) {
    if let Err(problem) = pending.clear() {
        entry.trouble("labels", Some(problem.detail));
    }
}

fn tick_every(model: &Model) -> Duration {
    let window = model.settings.policy.0.window.0;
    Duration::from_nanos((window / 10).clamp(1_000_000_000, 60_000_000_000) as u64)
}

impl Kept {
    pub(super) fn open(entry: &Arc<Entry>, setup: &Setup, settings: Settings) -> io::Result<Self> {
        let files = &setup.files;
        std::fs::create_dir_all(&entry.folder)?;
        for (_, unfinished) in listed(&entry.folder, "", ".part")? {
            // It is in nobody's way.
            let _ = std::fs::remove_file(unfinished);
        }
        let mut told = Vec::new();
        let state = wal::read_state(&entry.folder, &model_of, &mut |why| told.push(why))?;
        let (number, model) = state.unwrap_or_else(|| (0, Model::new(&entry.name, settings)));
        let (mut ahead, mut newer) = (Ahead { streams: model.streams.clone(), ..Ahead::default() }, None);
        let (log, damage) = Log::open(&entry.folder, files, number + 1, &mut |_, payload| {
            newer = newer.or_else(|| Record::newer(payload));
            if let Ok(head) = Record::head(payload) {
                ahead.add(head.now, &head.once, &head.numbers);
            }
        })?;
        if let Some(kind) = newer {
            return Err(io::Error::other(format!("its log has a record of kind {kind}, which a newer barograph wrote")));
        }
        if damage.rotten > 0 || damage.missing > 0 {
            told.push(format!("{} records of the log are lost, {} bytes could not be read", damage.missing, damage.rotten));
        }
        let mut model = model;
        let (mut pending, mut shut) = (None, None);
        let folder = entry.folder.join(PENDING);
        if folder.exists() {
            let opened = opened(&folder, horizon(&model), model.now).and_then(|opened| {
                let written = opened.position()?;
                Ok((opened, written))
            });
            match opened {
                Ok((opened, written)) => {
                    told.extend(opened.take_damage());
                    let opened = Arc::new(opened);
                    model.lean_on(&opened, written.is_some_and(|written| written >= number));
                    if written.is_some_and(|written| written > number) {
                        told.push("labels that came while the last state was written may be missing from metrics".to_owned());
                    }
                    if model.shelved_at > written.unwrap_or(0) {
                        told.push("predictions that waited for labels are lost".to_owned());
                    }
                    pending = Some(opened);
                }
                // What was counted can be read all the same; what comes now would not find what waits.
                Err(problem) => shut = Some(problem.detail),
            }
        }
        if !told.is_empty() {
            entry.trouble("damage", Some(told.join("; ")));
        }
        let behind = log.next() > number + 1;
        entry.replaying.store(behind, Ordering::Relaxed);
        // Without its privacy rules nothing of it may be kept.
        let shape = model.shape(setup.key.as_ref()).map_err(|problem| io::Error::other(problem.detail))?;
        entry.shape.store(Arc::new(shape));
        let told = model.monitor().map_or(0, |monitor| monitor.alerts().len() as u64).min(setup.outlet.told(entry));
        let now = Instant::now();
        Ok(Self {
            entry: Arc::clone(entry),
            model,
            cursor: behind.then(|| Cursor::at(number + 1)),
            ahead,
            saved_bytes: log.bytes(),
            log,
            saved_number: number,
            saved_at: now,
            saving: false,
            told,
            ticked: now,
            ticked_number: 0,
            unsynced: false,
            pending,
            erased: Vec::new(),
            key: setup.key.clone(),
            clear: false,
            shut,
            broken: false,
            fleet: setup.fleet.clone(),
        })
    }

    /// Whether anything may be written.
    pub(super) fn writable(&self) -> bool {
        self.shut.is_none() && !self.broken
    }

    pub(super) fn save(&mut self, done: Option<oneshot::Sender<Outcome<()>>>) -> Save {
        self.saving = true;
        self.saved_at = Instant::now();
        self.model.settle();
        let overlay = self.model.freeze();
        self.log.turn();
        Save {
            entry: Arc::clone(&self.entry),
            number: self.log.next() - 1,
            model: Box::new(self.model.clone()),
            overlay,
            pending: self.pending.clone(),
            done,
        }
    }

    /// What waits for labels was written to the disk, up to a record.
    pub(super) fn shelved(&mut self, overlay: &Arc<Overlay>, number: u64) -> io::Result<()> {
        self.model.shelved(overlay);
        if let Some(pending) = &self.pending {
            self.model.shelved_at = number;
            if let Some(damage) = pending.take_damage() {
                self.entry.trouble("damage", Some(damage));
            }
            if std::mem::take(&mut self.clear) {
                clear(&self.entry, pending);
                self.model.lean_on(pending, false);
            }
        }
        if let Some(pending) = &self.pending {
            for id in std::mem::take(&mut self.erased) {
                pending.erase(id).map_err(|problem| io::Error::other(problem.detail))?;
            }
        }
        Ok(())
    }

    /// Moves what waits for labels to the disk once it is much.
    fn unburden(&mut self) -> io::Result<()> {
        if self.pending.is_none() && self.model.waiting() > IN_MEMORY {
            let opened = opened(&self.entry.folder.join(PENDING), horizon(&self.model), self.model.now);
            let opened = Arc::new(opened.map_err(|problem| io::Error::other(problem.detail))?);
            self.model.lean_on(&opened, false);
            self.pending = Some(opened);
        }
        Ok(())
    }

    /// Until a model has to do something by itself.
    pub(super) fn tick_every(&self) -> Duration {
        match &self.fleet {
            Some(fleet) => fleet.interval,
            // What came may be of windows that are over by now: whoever looks does not wait for it.
            None if self.log.next() != self.ticked_number => tick_every(&self.model).min(TICK_SOON),
            None => tick_every(&self.model),
        }
    }

    /// What happens by itself: windows close; or what was seen goes into the outbox, unless that is full: then more is seen first.
    pub(super) fn beat(&self) -> Happening {
        let full = |outbox: &Outbox| self.fleet.as_ref().is_some_and(|fleet| outbox.bytes() > fleet.outbox);
        match &self.model.outbox {
            Some(outbox) if !full(outbox) => Happening::Cut,
            _ => Happening::Tick,
        }
    }

    /// Whether so much was seen that it should be told at once.
    pub(super) fn is_full(&self) -> bool {
        self.model.outbox.is_some() && self.model.untold() > IN_MEMORY && matches!(self.beat(), Happening::Cut)
    }

    /// What a delta says, before it is written down: what cannot be added must not be.
    pub(super) fn read_delta(&self, arrival: &mut Arrival, now: i64) -> Outcome<()> {
        let Happening::Delta(bytes, read) = &mut arrival.happening else { return Ok(()) };
        if self.cursor.is_some() {
            return Err(Problem::unavailable("the model's log is being replayed").hint("try again"));
        }
        let delta = self.model.read_delta(bytes)?;
        if delta.as_ref().and_then(Delta::latest).is_some_and(|latest| latest > now.saturating_add(MOST_AHEAD)) {
            return Err(Problem::bad("the delta holds a time that lies more than a day ahead").hint("is a clock wrong?"));
        }
        arrival.rows = Delta::head(bytes)?.1;
        *read = delta.map(Arc::new);
        Ok(())
    }

    /// A model of a sidecar with an aggregator tells it from its first record on; one without is alone.
    fn enlisted(&mut self, now: i64) -> Outcome<()> {
        match (&self.fleet, &self.model.outbox) {
            (Some(fleet), None) => {
                let stream = fleet.stream(now);
                self.write(&Record::new(now, Happening::Enlist(Some(stream))))
            }
            (None, Some(outbox)) if outbox.is_empty() => self.write(&Record::new(now, Happening::Enlist(None))),
            (None, Some(outbox)) => {
                let text = format!("{} parcels wait for an aggregator, and [fleet] names none", outbox.parcels().count());
                self.entry.trouble("fleet", Some(text));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What is answered to a batch that came before.
    pub(super) fn known(&self, ticket: &Ticket, arrival: &Arrival) -> Option<Outcome<Ack>> {
        match ticket {
            Ticket::Key(key, body) => {
                let known = self.model.known(*key).or_else(|| self.ahead.keys.get(key).copied())?;
                Some(if known.body == *body {
                    Ok(Ack { accepted: known.accepted, refused: known.refused, repeated: true })
                } else {
                    Err(Problem::new(422, "key used before", "the `Idempotency-Key` came with another body before").hint("use a new key"))
                })
            }
            Ticket::Number(numbered) => {
                let streams = if self.cursor.is_some() { &self.ahead.streams } else { &self.model.streams };
                // What it came to is not kept: that of the same body is the same.
                let ack = || Ack { accepted: arrival.rows, refused: arrival.odd.refused, repeated: true };
                streams.contains(numbered).then(|| Ok(ack()))
            }
        }
    }

    /// Writes a record to the log, and lets it happen unless older ones have to first.
    pub(super) fn take(&mut self, record: &Record) -> Outcome<()> {
        if !self.writable() {
            let why = self.shut.as_deref().unwrap_or("a record could not be applied");
            return Err(Problem::unavailable(format!("the model's store cannot be written to: {why}")).hint("see /readyz"));
        }
        let grows = matches!(record.happening, Happening::Events(_) | Happening::Sample(..) | Happening::Labels(_) | Happening::Half(..));
        if self.pending.is_some()
            && self.model.waiting() > MOST_OVERLAID
            && matches!(record.happening, Happening::Events(_) | Happening::Sample(..) | Happening::Half(..))
        {
            return Err(Problem::busy("more events wait for their label than have been written to the disk").hint("try again"));
        }
        if grows && self.model.outbox.is_some() && self.model.untold() > MOST_OVERLAID {
            return Err(Problem::busy("more waits for the aggregator than there is room for").hint("see /readyz"));
        }
        if self.cursor.is_none() {
            self.enlisted(record.now)?;
        }
        self.write(record)
    }

    fn write(&mut self, record: &Record) -> Outcome<()> {
        if self.log.bytes() > MOST_LOG {
            return Err(Problem::unavailable("the log is full and no state can be written").hint("see /readyz"));
        }
        let bytes = record.to_bytes()?;
        if let Err(error) = self.log.append(&bytes) {
            self.entry.trouble("log", Some(format!("nothing can be written: {error}")));
            return Err(Problem::unavailable(format!("the log could not be written: {error}")));
        }
        self.entry.trouble("log", None);
        self.unsynced = true;
        if self.cursor.is_some() {
            self.ahead.add(record.now, &record.once, &record.numbers);
            return Ok(());
        }
        let done = self.happen(record);
        done.map_err(|error| if self.broken { Problem::unavailable(error.message).hint("see /readyz") } else { Problem::from(error) })
    }

    fn happen(&mut self, record: &Record) -> barograph_core::Result<()> {
        let was = (self.model.monitor().map(|monitor| monitor.reference().id().to_owned()), self.model.counts.events == 0);
        let result = catch_unwind(AssertUnwindSafe(|| self.model.apply(record))).unwrap_or_else(|_| {
            // The other models of this thread go on.
            self.broken = true;
            let why = "a record could not be applied, which is a bug: what was acknowledged is in the log";
            self.entry.trouble("store", Some(why.to_owned()));
            Err(barograph_core::Error::invalid(why))
        });
        if self.broken {
            self.cursor = None;
            self.entry.replaying.store(false, Ordering::Relaxed);
            return result;
        }
        let is = (self.model.monitor().map(|monitor| monitor.reference().id().to_owned()), self.model.counts.events == 0);
        if self.shut.is_none()
            && let Err(error) = self.unburden()
        {
            self.entry.trouble("labels", Some(error.to_string()));
        }
        if let (Happening::Settings(_), Some(pending)) = (&record.happening, &self.pending)
            && !self.model.leans()
        {
            // Another task or window: what waits belongs to tiles that are gone. While a state is written the old ones are still on
            // their way.
            if self.saving {
                self.clear = true;
            } else {
                clear(&self.entry, pending);
                self.model.lean_on(pending, false);
            }
        }
        if let Happening::Erase(id) = record.happening
            && let Some(pending) = &self.pending
        {
            // Now, in case the process ends before the next state; and after it, which may hold the id still.
            if let Err(problem) = pending.erase(id) {
                self.entry.trouble("labels", Some(problem.detail));
            }
            self.erased.push(id);
        }
        if was != is || matches!(record.happening, Happening::Settings(_)) {
            match self.model.shape(self.key.as_ref()) {
                Ok(shape) => self.entry.shape.store(Arc::new(shape)),
                Err(problem) => self.entry.trouble("privacy", Some(problem.detail)),
            }
        }
        result
    }

    pub(super) fn replay_one(&mut self) {
        let Some(cursor) = &mut self.cursor else { return };
        match self.log.read_at(cursor) {
            Ok(Some((_, payload))) => match Record::from_bytes(&payload) {
                Ok(record) => {
                    let before = self.model.counts.events;
                    // What failed then fails now, and was told then.
                    let _ = self.happen(&record);
                    self.entry.replayed.fetch_add(self.model.counts.events - before, Ordering::Relaxed);
                }
                Err(error) => self.entry.trouble("damage", Some(format!("a record of the log was left out: {}", error.message))),
            },
            Ok(None) => {
                self.cursor = None;
                self.ahead = Ahead::default();
                self.entry.replaying.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                self.entry.trouble("log", Some(format!("it cannot be read: {error}")));
                self.cursor = None;
            }
        }
    }
}

/// Opens the store of waiting events; its own threads let others go first.
fn opened(folder: &Path, horizon_days: u32, now: i64) -> Outcome<Pending> {
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            yield_to_others();
            Pending::open(folder, horizon_days, now)
        });
        opening.join().unwrap_or_else(|_| Err(Problem::unavailable(format!("{} could not be opened", folder.display()))))
    })
}

/// A model of the payload of a state.
pub(crate) fn model_of(bytes: &[u8]) -> Result<Model, Unread> {
    Model::from_bytes(bytes).map_err(|error| {
        let newer = error.hint.as_deref().is_some_and(|hint| hint.contains("newer barograph"));
        if newer { Unread::Newer } else { Unread::Broken(error.message) }
    })
}
