//! One model: its state is what its records make of it, whatever they were batched into.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, FixedSizeBinaryArray, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow_schema::{DataType, Field, Schema as ArrowSchema};
use barograph_core::codec::{Reader, Writer};
use barograph_core::hash::murmur3_x64_128;
use barograph_core::{Error, Result};
use barograph_engine::delta::{Delta, Layout};
use barograph_engine::governor::{Detail, LAST};
use barograph_engine::labels::{Overlay, Shelf};
use barograph_engine::monitor::{Config, Roles};
use barograph_engine::policy::Policy;
use barograph_engine::quality::Task;
use barograph_engine::schema::{Role, Schema};
use barograph_engine::{Monitor, Profile, Reference, ReferenceBuilder};
use serde::{Deserialize, Serialize};

use crate::examples::{self, Wanted};
use crate::outbox::{Outbox, Parcels, Sources};
use crate::pairing::Pairing;
use crate::pending::Pending;
use crate::privacy::Privacy;
use crate::problem::Outcome;
use crate::record::{Happening, Once, Record, batch_from_stream, stream};
use crate::rows::chance_name;
use crate::secret::Secret;
use crate::shape::{MOST_COLUMNS, Mark, Shape};
use crate::streams::Streams;

/// How long a key of a batch is remembered.
const REMEMBERED: i64 = 24 * 3600 * 1_000_000_000;
/// Keys that are remembered.
const MOST_KEYS: usize = 200_000;
/// Events that a reference may be learned from.
pub const MOST_LEARNED: u64 = 1_000_000;
/// Memory of a monitor unless its owner says otherwise: the whole sidecar has 256 MB.
const MEMORY: usize = 32 << 20;
/// References and policies that are remembered after they were replaced.
const MOST_FORMER: usize = 64;
/// How long one side of an event waits for the other.
const PATIENCE: i64 = 60 * 1_000_000_000;

/// What a reference is learned from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Learn {
    /// The first so many events.
    pub events: u64,
    /// And at least so many days of them.
    pub days: f64,
}

impl Default for Learn {
    fn default() -> Self {
        Self { events: 10_000, days: 0.0 }
    }
}

/// What the owner of a model states.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Fields that are roles, by role: `{"id": "transaction"}`.
    pub roles: BTreeMap<String, String>,
    /// What a reference is learned from where none is given.
    pub learn: Learn,
    /// Columns that are watched segment by segment, of a reference that is learned.
    pub segments: Vec<String>,
    /// Ids of events that an alert may name; none unless it is stated. They are kept in memory, see [`crate::examples`].
    #[serde(skip_serializing_if = "is_zero")]
    pub examples: usize,
    /// What happens to columns before anything is kept, see [`crate::privacy`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privacy: Option<serde_json::Value>,
    /// Window, task, budget, rules.
    pub policy: PolicyOf,
}

/// A policy whose memory is that of a sidecar unless it is stated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyOf(pub Policy);

impl Default for PolicyOf {
    fn default() -> Self {
        Self(Policy { memory: MEMORY, ..Policy::default() })
    }
}

impl Settings {
    /// Settings of JSON.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn from_json(text: &str) -> Result<Self> {
        let mut json = serde_json::Deserializer::from_str(text);
        let out: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let (path, text) = (error.path().to_string(), error.inner().to_string());
            let place = if path == "." { String::new() } else { format!("`{path}`: ") };
            Error::invalid(format!("{place}{}", text.split(" at line ").next().unwrap_or_default()))
        })?;
        out.check()?;
        Ok(out)
    }

    /// As JSON.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::invalid(error.to_string()))
    }

    /// What is done to columns before they come to the monitor, as Python's `Privacy.describe()` says it.
    pub fn described(&self) -> Option<String> {
        // The words do not depend on the key.
        Some(Privacy::from_json(self.privacy.as_ref()?, Some(&[0; 16])).ok()?.describe())
    }

    /// Refuses what cannot be.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn check(&self) -> Result<()> {
        self.policy.0.check()?;
        let budget = &self.policy.0.budget;
        let own = [("cpu", budget.cpu.is_some()), ("disk", budget.disk.is_some()), ("wire", budget.wire.is_some())];
        if let Some((key, _)) = own.into_iter().find(|(_, stated)| *stated) {
            return Err(Error::invalid(format!("`budget.{key}` of a model cannot be kept to by a sidecar, whose models share it"))
                .hint(format!("state `{key}` in [budget] at the top of the sidecar's file")));
        }
        if let Some(role) = self.roles.keys().find(|role| Mark::of(role).is_none()) {
            let known: Vec<&str> = Mark::ALL.iter().map(|mark| &mark.name()[1..]).collect();
            return Err(Error::invalid(format!("`roles` names role {role:?}")).hint(format!("roles are {}", known.join(", "))));
        }
        if !(100..=MOST_LEARNED).contains(&self.learn.events) {
            return Err(Error::invalid(format!("`learn.events` must be in [100, {MOST_LEARNED}], got {}", self.learn.events)));
        }
        if self.examples > examples::MOST {
            return Err(Error::invalid(format!("`examples` must be in [0, {}], got {}", examples::MOST, self.examples)));
        }
        if !(0.0..=366.0).contains(&self.learn.days) {
            return Err(Error::invalid(format!("`learn.days` must be in [0, 366], got {}", self.learn.days)));
        }
        Ok(())
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands it over so
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Events that a reference will be made of.
#[derive(Clone, Debug, Default)]
pub struct Learning {
    batches: Vec<RecordBatch>,
    /// Events that are kept, and the bytes of their values.
    kept: u64,
    bytes: usize,
    /// Columns of them: no more than an event may have, however many names come one after another.
    names: HashSet<String>,
    /// Events that came.
    pub seen: u64,
    /// Of every so many events one is kept: learning by days may see more than fit.
    stride: u64,
    began: Option<i64>,
    /// Why no reference could be made.
    pub trouble: Option<String>,
}

/// What a model does.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // there is one per model
pub enum State {
    /// It learns what its reference is.
    Learning(Learning),
    /// It compares with its reference.
    Watching(Box<Monitor>),
}

/// What came to a model, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Counts {
    pub events: u64,
    pub labels: u64,
    pub requests: u64,
    /// Of `events`, those that sampling left out, estimated from those it kept.
    pub sampled_out: u64,
    pub refused: u64,
    pub unknown_fields: u64,
    pub mistyped_fields: u64,
    pub duplicate_batches: u64,
    /// Records that could not be applied although they were taken.
    pub failed: u64,
}

/// One model.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// What its owner states.
    pub settings: Settings,
    /// What it does.
    pub state: State,
    /// What came to it.
    pub counts: Counts,
    /// The last time anything happened to it.
    pub now: i64,
    /// What is kept of it, to keep to the sidecar's budget.
    pub detail: Detail,
    /// The record up to which what waits for labels was written to its shelf.
    pub shelved_at: u64,
    /// What came of numbered streams.
    pub streams: Streams,
    /// Present in a sidecar that has an aggregator: what it has for it.
    pub outbox: Option<Outbox>,
    /// Sidecars whose deltas were taken.
    pub sources: Sources,
    /// Events of deltas that were counted by a reference or policy that has been replaced since: they count, and nothing else.
    pub outdated: u64,
    /// What earlier deltas were counted by.
    former: VecDeque<Layout>,
    pairing: Pairing,
    keys: BTreeMap<u128, (i64, Once)>,
    order: VecDeque<(i64, u128)>,
}

impl Model {
    /// A model that learns.
    pub fn new(name: &str, settings: Settings) -> Self {
        Self {
            name: name.to_owned(),
            settings,
            state: State::Learning(Learning::default()),
            counts: Counts::default(),
            now: 0,
            detail: Detail::default(),
            shelved_at: 0,
            streams: Streams::default(),
            outbox: None,
            sources: Sources::default(),
            outdated: 0,
            former: VecDeque::new(),
            pairing: Pairing::default(),
            keys: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Its monitor, if it has a reference.
    pub fn monitor(&self) -> Option<&Monitor> {
        match &self.state {
            State::Watching(monitor) => Some(monitor),
            State::Learning(_) => None,
        }
    }

    /// What became of requests and responses that came apart.
    pub fn halves(&self) -> crate::pairing::Counts {
        self.pairing.counts()
    }

    /// Events and labels that wait for each other in memory.
    pub fn waiting(&mut self) -> usize {
        match &mut self.state {
            State::Watching(monitor) => monitor.join().overlay_len(),
            State::Learning(_) => 0,
        }
    }

    /// Adds what was gathered of sampled events: whoever looks has to see it.
    pub fn settle(&mut self) {
        if let State::Watching(monitor) = &mut self.state {
            self.counts.failed += u64::from(monitor.settle().is_err());
        }
    }

    /// Events and labels that are to be told to the aggregator.
    pub fn untold(&self) -> usize {
        match &self.state {
            State::Watching(monitor) => monitor.untold(),
            State::Learning(learning) => learning.kept as usize,
        }
    }

    /// Lets them wait on a shelf; with `written` it has what is in memory.
    pub fn lean_on(&mut self, pending: &Arc<Pending>, written: bool) {
        if let State::Watching(monitor) = &mut self.state {
            monitor.join().lean_on(Arc::clone(pending) as Arc<dyn Shelf>);
            if written {
                let frozen = monitor.join().freeze();
                monitor.join().shelved(&frozen);
            }
        }
    }

    /// Whether they wait on a shelf.
    pub fn leans(&mut self) -> bool {
        match &mut self.state {
            State::Watching(monitor) => monitor.join().leans(),
            State::Learning(_) => false,
        }
    }

    /// Sets aside what the shelf has to be given.
    pub fn freeze(&mut self) -> Arc<Overlay> {
        match &mut self.state {
            State::Watching(monitor) => monitor.join().freeze(),
            State::Learning(_) => Arc::default(),
        }
    }

    /// The shelf has it.
    pub fn shelved(&mut self, overlay: &Arc<Overlay>) {
        if let State::Watching(monitor) = &mut self.state {
            monitor.join().shelved(overlay);
        }
    }

    /// What decoders have to know; `key` is what columns are hashed with.
    ///
    /// # Errors
    /// 400 for privacy rules that cannot be, or need a key.
    pub fn shape(&self, key: Option<&Secret>) -> Outcome<Shape> {
        let reference = self.monitor().map(|monitor| monitor.reference().as_ref());
        let policy = &self.settings.policy.0;
        let mut shape = Shape::new(&self.settings.roles, &policy.classes, reference);
        if let State::Learning(learning) = &self.state
            && let Some(first) = learning.batches.first()
        {
            // What the first events held is what the others are read as.
            for field in first.schema_ref().fields().iter().filter(|field| field.data_type() != &DataType::Null) {
                shape.kinds.insert(field.name().clone(), barograph_engine::schema::kind_of(field.data_type()));
            }
        }
        shape.examples = (self.settings.examples > 0).then_some(Wanted { most: self.settings.examples, window: policy.window.0 });
        if let Some(rules) = &self.settings.privacy {
            let privacy = Privacy::from_json(rules, key.map(|key| key.expose().as_bytes()))?;
            shape.privacy = Some(Arc::new(privacy.with_roles(&shape.marks)?));
        }
        Ok(shape)
    }

    /// The answer that a batch of this key had, if it came before.
    pub fn known(&self, key: u128) -> Option<Once> {
        self.keys.get(&key).map(|(_, once)| *once)
    }

    /// Takes a record. The same records in the same order make the same model.
    ///
    /// # Errors
    /// Those of the happening; the same record fails in the same way when it is replayed, and nothing else depends on it.
    pub fn apply(&mut self, record: &Record) -> Result<()> {
        self.now = self.now.max(record.now);
        let now = self.now;
        self.counts.refused += record.odd.refused;
        self.counts.unknown_fields += record.odd.unknown;
        self.counts.mistyped_fields += record.odd.mistyped;
        let done = self.happen(&record.happening, now);
        // What failed did not count: it may come again.
        if done.is_ok() {
            for once in &record.once {
                self.remember(*once, now);
            }
            for numbered in &record.numbers {
                self.streams.insert(numbered, now);
            }
            if let (Happening::Delta(bytes, read), [from, ..]) = (&record.happening, record.numbers.as_slice())
                && let Ok((until, events)) = read.as_ref().map_or_else(|| Delta::head(bytes), |delta| Ok((delta.until, delta.events)))
            {
                self.sources.heard(from, until, events, now);
            }
        } else {
            self.counts.failed += 1;
        }
        done
    }

    fn happen(&mut self, happening: &Happening, now: i64) -> Result<()> {
        match happening {
            Happening::Events(batch) => self.events(batch, now, 0),
            Happening::Sample(halvings, batch) => self.events(batch, now, *halvings),
            Happening::Labels(batch) => self.labels(batch, now),
            Happening::Half(side, batch) => {
                let joined = self.pairing.add(*side, batch, now).map_err(|problem| Error::invalid(problem.detail))?;
                joined.map_or(Ok(()), |batch| self.events(&batch, now, 0))
            }
            Happening::Measured(measurement) => {
                self.counts.requests += measurement.requests;
                if let State::Watching(monitor) = &mut self.state {
                    let time = measurement.time.unwrap_or(now);
                    monitor.measured(&measurement.latency, measurement.requests, measurement.failures, time)?;
                }
                Ok(())
            }
            Happening::Profile(snapshot, time) => {
                let profile = Profile::from_bytes(snapshot)?;
                let State::Watching(monitor) = &mut self.state else {
                    return Err(Error::incompatible("the model has no reference yet").hint("PUT one, and make profiles with it"));
                };
                monitor.add_profile(&profile, *time)?;
                self.counts.events += profile.rows;
                Ok(())
            }
            Happening::Reference(snapshot) => {
                let reference = Arc::new(Reference::from_bytes(snapshot)?);
                self.cut(now)?;
                self.watch(reference, now)
            }
            Happening::Enlist(stream) => self.enlist(stream.as_deref()),
            Happening::Cut => {
                self.expire(now)?;
                self.cut(now)
            }
            Happening::Sent(number) => {
                self.outbox.iter_mut().for_each(|outbox| outbox.sent(*number));
                Ok(())
            }
            Happening::Delta(_, Some(delta)) => self.delta(delta),
            Happening::Delta(bytes, None) => {
                if let Some(delta) = self.read_delta(bytes)? {
                    return self.delta(&delta);
                }
                let (_, events) = Delta::head(bytes)?;
                self.outdated += events;
                self.counts.events += events;
                Ok(())
            }
            Happening::Settings(json) => {
                let settings = Settings::from_json(json)?;
                self.cut(now)?;
                let before = self.monitor().map(Monitor::layout);
                if let State::Watching(monitor) = &mut self.state {
                    monitor.restate(settings.policy.0.clone())?;
                }
                self.settings = settings;
                self.replaced(before);
                Ok(())
            }
            Happening::Keep(level) => {
                self.detail = Detail { level: *level };
                if let State::Watching(monitor) = &mut self.state {
                    monitor.keep(self.detail);
                }
                Ok(())
            }
            Happening::Deploy(version, time, until) => {
                if let State::Watching(monitor) = &mut self.state {
                    monitor.deploy(version, *time, *until);
                }
                Ok(())
            }
            Happening::Erase(key) => {
                self.pairing.erase(*key).map_err(|problem| Error::invalid(problem.detail))?;
                match &mut self.state {
                    State::Watching(monitor) => monitor.erase(*key)?,
                    State::Learning(learning) => learning.erase(*key)?,
                }
                Ok(())
            }
            Happening::Tick => {
                self.expire(now)?;
                match &mut self.state {
                    // Windows are closed by the aggregator.
                    _ if self.outbox.is_some() => Ok(()),
                    State::Watching(monitor) => monitor.tick(self.sources.horizon(now)),
                    State::Learning(_) => self.learned(now),
                }
            }
        }
    }

    /// What has waited too long goes.
    fn expire(&mut self, now: i64) -> Result<()> {
        let unanswered = self.pairing.expire(now.saturating_sub(PATIENCE)).map_err(|problem| Error::invalid(problem.detail))?;
        if let Some(batch) = unanswered {
            self.events(&batch, now, 0)?;
        }
        self.forget(now);
        Ok(())
    }

    /// Begins to tell an aggregator, or is alone again.
    fn enlist(&mut self, stream: Option<&str>) -> Result<()> {
        match (stream, &mut self.outbox) {
            (Some(stream), None) => {
                self.outbox = Some(Outbox::new(stream));
                if let State::Watching(monitor) = &mut self.state {
                    monitor.hand_on();
                }
            }
            (None, Some(outbox)) if outbox.is_empty() => {
                self.outbox = None;
                if let State::Watching(monitor) = &mut self.state {
                    monitor.join_alone()?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What was seen since the last time goes into the outbox, if there is one.
    fn cut(&mut self, now: i64) -> Result<()> {
        let Some(outbox) = &mut self.outbox else { return Ok(()) };
        match &mut self.state {
            State::Watching(monitor) => {
                let mut deltas = monitor.cut(now)?;
                if let Some(last) = deltas.last_mut() {
                    let counts = [self.counts.requests, self.counts.sampled_out];
                    let [requests, sampled_out] = [0, 1].map(|at| counts[at] - outbox.told[at].min(counts[at]));
                    (last.requests, last.sampled_out) = (requests, sampled_out);
                    outbox.told = counts;
                }
                // One that holds nothing says that there is nothing: of that, one is enough.
                let waiting = !outbox.is_empty();
                for delta in deltas.iter().filter(|delta| !(waiting && delta.is_empty())) {
                    outbox.push(Parcels::Delta, delta.events, delta.to_bytes());
                }
            }
            State::Learning(learning) => {
                if learning.kept > 0 {
                    outbox.push(Parcels::Events, learning.kept, stream(Vec::new(), &learning.whole()?)?);
                    *learning = Learning::default();
                }
            }
        }
        Ok(())
    }

    /// What a delta says; nothing of one that was counted by what has been replaced here.
    ///
    /// # Errors
    /// `Incompatible` if this model cannot add it, `Decode` for bytes that are none.
    pub fn read_delta(&self, bytes: &[u8]) -> Result<Option<Delta>> {
        let layout = Delta::layout_of(bytes)?;
        let State::Watching(monitor) = &self.state else {
            return Err(Error::incompatible("the model has no reference yet: it is learning one").hint("send it events"));
        };
        let own = monitor.layout();
        if layout == own {
            return Delta::from_bytes(bytes, monitor).map(Some);
        }
        if self.former.contains(&layout) {
            return Ok(None);
        }
        let ids = [&layout.reference, &own.reference].map(|id| id.get(..8).unwrap_or(id).to_owned());
        let words = if ids[0] == ids[1] {
            "the delta was counted by another policy: its window, task, classes or objectives differ".to_owned()
        } else {
            format!("the delta was counted by reference {}, expected {}", ids[0], ids[1])
        };
        Err(Error::incompatible(words).hint("GET the reference and the policy, and count by these"))
    }

    fn delta(&mut self, delta: &Delta) -> Result<()> {
        let State::Watching(monitor) = &mut self.state else {
            return Err(Error::incompatible("the model has no reference yet: it is learning one"));
        };
        monitor.add_delta(delta)?;
        self.counts.events += delta.events;
        self.counts.labels += delta.labelled();
        self.counts.requests += delta.requests;
        self.counts.sampled_out += delta.sampled_out;
        Ok(())
    }

    /// Deltas that were counted as before a change are known from now on.
    fn replaced(&mut self, before: Option<Layout>) {
        if let Some(before) = before.filter(|before| self.monitor().is_some_and(|monitor| monitor.layout() != *before)) {
            self.former.retain(|known| *known != before);
            self.former.push_back(before);
            if self.former.len() > MOST_FORMER {
                self.former.pop_front();
            }
        }
    }

    /// Keeps the answer to a batch.
    fn remember(&mut self, once: Once, now: i64) {
        if self.keys.insert(once.key, (now, once)).is_none() {
            self.order.push_back((now, once.key));
        }
        if self.order.len() > MOST_KEYS {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.keys.remove(&key);
        }
    }

    fn forget(&mut self, now: i64) {
        while self.order.front().is_some_and(|(time, _)| *time < now.saturating_sub(REMEMBERED)) {
            self.forget_first();
        }
    }

    /// Takes events each of which stands for `2^halvings`. A reference is learned from those that were kept.
    fn events(&mut self, batch: &RecordBatch, now: i64, halvings: u32) -> Result<()> {
        match &mut self.state {
            State::Watching(monitor) => {
                let own = self.outbox.as_ref().map_or(0, |outbox| murmur3_x64_128(outbox.stream.as_bytes(), 0).0);
                observe(monitor, batch, now, (own, self.counts.events), halvings)?;
                let events = (batch.num_rows() as u64) << halvings;
                self.counts.events += events;
                self.counts.sampled_out += events - batch.num_rows() as u64;
                Ok(())
            }
            State::Learning(learning) if self.outbox.is_some() => {
                // The aggregator learns: all of them are for it.
                self.counts.unknown_fields += learning.add(batch, now, u64::MAX / 4, usize::MAX)?;
                self.counts.events += batch.num_rows() as u64;
                Ok(())
            }
            State::Learning(learning) => {
                // What is learned from must not depend on how events were batched.
                let (learn, memory) = (self.settings.learn, self.settings.policy.0.memory);
                let left = if learn.days > 0.0 { u64::MAX } else { learn.events.saturating_sub(learning.seen) };
                let part = batch.num_rows().min(usize::try_from(left).unwrap_or(usize::MAX));
                self.counts.unknown_fields += learning.add(&batch.slice(0, part), now, learn.events, memory)?;
                self.counts.events += part as u64;
                self.learned(now)?;
                let rest = batch.num_rows() - part;
                match &mut self.state {
                    State::Watching(_) if rest > 0 => self.events(&batch.slice(part, rest), now, halvings),
                    State::Learning(learning) if rest > 0 => {
                        // No reference could be made of what came first: the rest waits with it.
                        self.counts.unknown_fields += learning.add(&batch.slice(part, rest), now, learn.events, memory)?;
                        self.counts.events += rest as u64;
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    fn labels(&mut self, batch: &RecordBatch, now: i64) -> Result<()> {
        if let State::Watching(monitor) = &mut self.state {
            let time = has(batch, Mark::Time).then_some(Mark::Time.name());
            monitor.label(batch, Mark::Id.name(), Mark::Label.name(), time, now)?;
        } else if let Some(outbox) = &mut self.outbox {
            outbox.push(Parcels::Labels, batch.num_rows() as u64, stream(Vec::new(), batch)?);
        }
        self.counts.labels += batch.num_rows() as u64;
        Ok(())
    }

    /// Begins to watch, or goes on with another reference.
    fn watch(&mut self, reference: Arc<Reference>, now: i64) -> Result<()> {
        if let State::Watching(monitor) = &mut self.state {
            let before = monitor.layout();
            monitor.replace_reference(reference, now)?;
            self.replaced(Some(before));
            return Ok(());
        }
        let config = Config { name: self.name.clone(), policy: self.settings.policy.0.clone(), privacy: self.settings.described() };
        let mut monitor = Monitor::new(config, reference)?;
        monitor.keep(self.detail);
        if self.outbox.is_some() {
            monitor.hand_on();
        }
        self.state = State::Watching(Box::new(monitor));
        Ok(())
    }

    /// Freezes what was learned, if it is enough.
    fn learned(&mut self, now: i64) -> Result<()> {
        let State::Learning(learning) = &mut self.state else { return Ok(()) };
        let learn = self.settings.learn;
        let enough = learning.began.is_some_and(|began| (now - began) as f64 >= learn.days * 86_400e9);
        if learning.seen < learn.events || !enough {
            return Ok(());
        }
        match learning.reference(&self.settings.segments, now) {
            Ok(reference) => self.watch(Arc::new(reference), now).inspect_err(|error| {
                if let State::Learning(learning) = &mut self.state {
                    learning.trouble = Some(error.message.clone());
                }
            }),
            Err(error) => {
                learning.trouble = Some(error.message);
                Ok(())
            }
        }
    }

    /// Everything, for a state file.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut writer = Writer::new();
        writer.str(&self.name);
        writer.str(&self.settings.to_json()?);
        writer.i64(self.now);
        writer.u64(self.shelved_at);
        writer.u8(self.detail.level);
        let counts = self.counts;
        let counts = [
            counts.events,
            counts.labels,
            counts.requests,
            counts.sampled_out,
            counts.refused,
            counts.unknown_fields,
            counts.mistyped_fields,
            counts.duplicate_batches,
            counts.failed,
        ];
        counts.into_iter().for_each(|count| writer.u64(count));
        writer.len(self.order.len());
        for (time, once) in self.order.iter().filter_map(|(_, key)| self.keys.get(key)) {
            writer.i64(*time);
            writer.u64((once.key >> 64) as u64);
            [once.key as u64, once.body, once.accepted, once.refused].into_iter().for_each(|part| writer.u64(part));
        }
        self.pairing.encode(&mut writer);
        match &self.state {
            State::Watching(monitor) => {
                writer.u8(1);
                writer.bytes(&monitor.to_bytes()?);
            }
            State::Learning(learning) => {
                writer.u8(0);
                learning.encode(&mut writer)?;
            }
        }
        self.streams.encode(&mut writer);
        writer.bool(self.outbox.is_some());
        self.outbox.iter().for_each(|outbox| outbox.encode(&mut writer));
        self.sources.encode(&mut writer);
        writer.u64(self.outdated);
        writer.len(self.former.len());
        for Layout { reference, shape } in &self.former {
            writer.str(reference);
            writer.u64(*shape);
        }
        Ok(writer.into_payload())
    }

    /// Reads it back.
    ///
    /// # Errors
    /// `Decode` for bytes that `to_bytes` did not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let name = reader.str()?.to_owned();
        let settings = Settings::from_json(reader.str()?).map_err(|error| Error::decode(error.message))?;
        let mut out = Self::new(&name, settings);
        out.now = reader.i64()?;
        out.shelved_at = reader.u64()?;
        out.detail = Detail { level: reader.u8()?.min(LAST) };
        let mut count = || reader.u64();
        out.counts = Counts {
            events: count()?,
            labels: count()?,
            requests: count()?,
            sampled_out: count()?,
            refused: count()?,
            unknown_fields: count()?,
            mistyped_fields: count()?,
            duplicate_batches: count()?,
            failed: count()?,
        };
        for _ in 0..reader.len(6)? {
            let time = reader.i64()?;
            let key = u128::from(reader.u64()?) << 64 | u128::from(reader.u64()?);
            out.remember(Once { key, body: reader.u64()?, accepted: reader.u64()?, refused: reader.u64()? }, time);
        }
        out.pairing = Pairing::decode(&mut reader)?;
        out.state = match reader.u8()? {
            0 => State::Learning(Learning::decode(&mut reader)?),
            _ => State::Watching(Box::new(Monitor::from_bytes(reader.bytes()?)?)),
        };
        // States from before there were streams end here.
        let mut rest = Reader::new(reader.rest());
        if !rest.is_empty() {
            out.streams = Streams::decode(&mut rest)?;
        }
        // And states from before there were fleets here.
        if !rest.is_empty() {
            out.outbox = rest.bool()?.then(|| Outbox::decode(&mut rest)).transpose()?;
            out.sources = Sources::decode(&mut rest)?;
            out.outdated = rest.count()?;
            for _ in 0..rest.len(2)?.min(MOST_FORMER) {
                out.former.push_back(Layout { reference: rest.str()?.to_owned(), shape: rest.u64()? });
            }
        }
        rest.finish()?;
        Ok(out)
    }
}

fn has(batch: &RecordBatch, mark: Mark) -> bool {
    batch.column_by_name(mark.name()).is_some_and(|column| column.data_type() != &DataType::Null)
}

/// The batch with another name for a column, beside its own.
fn with_alias(batch: &RecordBatch, from: &str, to: &str) -> Result<RecordBatch> {
    let (Some(array), None) = (batch.column_by_name(from), batch.column_by_name(to)) else { return Ok(batch.clone()) };
    let mut fields: Vec<Field> = batch.schema_ref().fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    fields.push(Field::new(to, array.data_type().clone(), true));
    columns.push(Arc::clone(array));
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns).map_err(|error| Error::invalid(error.to_string()))
}

/// What a model said, under the names that its reference has for it.
fn named(batch: &RecordBatch, schema: &Schema) -> Result<RecordBatch> {
    let mut out = batch.clone();
    for (mark, role) in [(Mark::Prediction, Role::Prediction), (Mark::Score, Role::Score)] {
        if let Some(column) = schema.columns.iter().find(|column| column.role == role) {
            out = with_alias(&out, mark.name(), &column.name)?;
        }
    }
    Ok(out)
}

fn observe(monitor: &mut Monitor, batch: &RecordBatch, now: i64, (own, before): (u64, u64), halvings: u32) -> Result<()> {
    let task = monitor.task();
    let name = |mark: Mark| has(batch, mark).then(|| mark.name().to_owned());
    let chances: Vec<String> = (0..monitor.policy().classes.len()).map(chance_name).collect();
    let all = !chances.is_empty() && chances.iter().all(|name| batch.column_by_name(name).is_some());
    let score = match task {
        Task::Binary => name(Mark::Score),
        Task::Multiclass => name(Mark::Prediction),
        Task::Regression => name(Mark::Score).or_else(|| name(Mark::Prediction)),
    };
    versions(monitor, batch, now);
    let labelled = has(batch, Mark::Label);
    let mut frame = named(batch, &monitor.reference().schema())?;
    if labelled && !has(batch, Mark::Id) {
        // A label that comes with its event needs no name for it but one of our own.
        // Where others join, it must not be one of another sidecar either.
        let id = |row: u64| (u128::from(own) << 64 | u128::from(u64::MAX - (before + row))).to_be_bytes();
        let ids: Vec<u8> = (0..batch.num_rows() as u64).flat_map(id).collect();
        let ids = FixedSizeBinaryArray::try_new(16, ids.into(), None).map_err(|error| Error::invalid(error.to_string()))?;
        frame = replaced(&frame, Mark::Id.name(), Arc::new(ids))?;
    }
    let roles = Roles {
        time: name(Mark::Time),
        id: has(&frame, Mark::Id).then(|| Mark::Id.name().to_owned()),
        score,
        chances: if all { chances } else { Vec::new() },
        weight: name(Mark::Weight),
        latency: name(Mark::Latency),
        error: name(Mark::Error),
    };
    monitor.observe_sampled(&frame, &roles, now, halvings)?;
    if labelled { monitor.label(&frame, Mark::Id.name(), Mark::Label.name(), None, now) } else { Ok(()) }
}

fn replaced(batch: &RecordBatch, name: &str, array: ArrayRef) -> Result<RecordBatch> {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()).filter(|(field, _)| field.name() != name) {
        fields.push(field.as_ref().clone());
        columns.push(Arc::clone(column));
    }
    fields.push(Field::new(name, array.data_type().clone(), true));
    columns.push(array);
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns).map_err(|error| Error::invalid(error.to_string()))
}

/// Versions that answered, in the order they came.
fn versions(monitor: &mut Monitor, batch: &RecordBatch, now: i64) {
    let Some(column) = batch.column_by_name(Mark::Version.name()) else { return };
    let times = batch.column_by_name(Mark::Time.name()).and_then(|times| barograph_engine::frame::nanoseconds(times.as_ref()));
    let time = |row: usize| times.as_ref().and_then(|times| times.get(row).copied().flatten()).unwrap_or(now);
    let mut last: Option<&str> = None;
    let mut see = |row: usize, version: Option<&str>| {
        if let Some(version) = version.filter(|version| version.len() <= 200) {
            monitor.version(version, time(row));
        }
    };
    if let Some(texts) = column.as_string_opt::<i32>() {
        for (row, version) in texts.iter().enumerate() {
            if version != last {
                see(row, version);
                last = version;
            }
        }
    }
}

impl Learning {
    /// Takes events; gives how many of their values are of columns that are too many.
    fn add(&mut self, batch: &RecordBatch, now: i64, wanted: u64, memory: usize) -> Result<u64> {
        self.began.get_or_insert(now);
        let (batch, beyond) = self.named(batch)?;
        let stride = self.stride.max(1);
        let first = (stride - self.seen % stride) % stride;
        let rows = (first..batch.num_rows() as u64).step_by(stride as usize);
        let kept = if stride == 1 { batch.clone() } else { taken(&batch, &UInt64Array::from_iter_values(rows))? };
        self.seen += batch.num_rows() as u64;
        self.kept += kept.num_rows() as u64;
        if kept.num_rows() > 0 {
            self.bytes = self.bytes.saturating_add(size(&kept));
            self.batches.push(kept);
        }
        // Twice what is wanted, or more than there is memory for: every second one stands for its neighbour from now on.
        while self.kept > 2 * wanted.max(1000) || self.room() > memory && self.kept > 1 {
            let whole = self.whole()?;
            let thin = taken(&whole, &UInt64Array::from_iter_values((0..whole.num_rows() as u64).step_by(2)))?;
            (self.kept, self.bytes) = (thin.num_rows() as u64, size(&thin));
            self.batches = vec![thin];
            self.stride = self.stride.max(1).saturating_mul(2);
        }
        Ok(beyond)
    }

    /// Bytes that they take as one table, in which what an event does not have is null.
    fn room(&self) -> usize {
        self.bytes.max((self.kept as usize).saturating_mul(self.names.len()).saturating_mul(8))
    }

    /// The batch without columns that are too many, and how many values these had.
    fn named(&mut self, batch: &RecordBatch) -> Result<(RecordBatch, u64)> {
        let (mut places, mut beyond) = (Vec::new(), 0);
        for (at, (field, column)) in batch.schema_ref().fields().iter().zip(batch.columns()).enumerate() {
            let known = self.names.contains(field.name());
            if known || self.names.len() < MOST_COLUMNS {
                if !known {
                    self.names.insert(field.name().clone());
                }
                places.push(at);
            } else {
                beyond += (column.len() - column.logical_null_count()) as u64;
            }
        }
        if places.len() == batch.num_columns() {
            return Ok((batch.clone(), 0));
        }
        Ok((batch.project(&places).map_err(|error| Error::invalid(error.to_string()))?, beyond))
    }

    /// Keeps nothing of the events of an id; they still count as seen.
    fn erase(&mut self, key: u128) -> Result<()> {
        let name = Mark::Id.name();
        for batch in &mut self.batches {
            let Some(column) = batch.column_by_name(name).filter(|column| column.data_type() != &DataType::Null) else { continue };
            let keys = barograph_engine::labels::keys(name, column.as_ref())?;
            if keys.contains(&Some(key)) {
                let left = keys.iter().enumerate().filter(|(_, own)| **own != Some(key)).map(|(row, _)| row as u64);
                *batch = taken(batch, &UInt64Array::from_iter_values(left))?;
            }
        }
        self.batches.retain(|batch| batch.num_rows() > 0);
        self.kept = self.batches.iter().map(|batch| batch.num_rows() as u64).sum();
        self.bytes = self.batches.iter().map(size).sum();
        Ok(())
    }

    /// All that is kept, as one batch: of each name the columns that can be read as the first of them that is not all null.
    fn whole(&self) -> Result<RecordBatch> {
        let (mut types, mut places): (Vec<Field>, HashMap<&str, usize>) = (Vec::new(), HashMap::new());
        for field in self.batches.iter().flat_map(|batch| batch.schema_ref().fields().iter()) {
            let known = places.get(field.name().as_str()).and_then(|at| types.get_mut(*at));
            match known {
                None => {
                    places.insert(field.name(), types.len());
                    types.push(Field::new(field.name(), field.data_type().clone(), true));
                }
                Some(known) if known.data_type() == &DataType::Null => *known = Field::new(field.name(), field.data_type().clone(), true),
                Some(_) => {}
            }
        }
        let schema = Arc::new(ArrowSchema::new(types));
        let alike = self.batches.iter().map(|batch| {
            let own: HashMap<&str, &ArrayRef> =
                batch.schema_ref().fields().iter().map(|field| field.name().as_str()).zip(batch.columns()).collect();
            let columns = schema.fields().iter().map(|field| {
                let found = own.get(field.name().as_str()).copied();
                let column = found.filter(|column| column.data_type() == field.data_type());
                column.cloned().unwrap_or_else(|| match found {
                    Some(other) => arrow_cast::cast(other, field.data_type())
                        .unwrap_or_else(|_| arrow_array::new_null_array(field.data_type(), batch.num_rows())),
                    None => arrow_array::new_null_array(field.data_type(), batch.num_rows()),
                })
            });
            // Events may have no column at all.
            let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            RecordBatch::try_new_with_options(Arc::clone(&schema), columns.collect(), &rows)
        });
        let alike = alike.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| Error::invalid(error.to_string()))?;
        arrow_select::concat::concat_batches(&schema, &alike).map_err(|error| Error::invalid(error.to_string()))
    }

    /// The reference that was learned.
    fn reference(&self, segments: &[String], now: i64) -> Result<Reference> {
        let mut whole = self.whole()?;
        whole = with_alias(&whole, Mark::Prediction.name(), "prediction")?;
        whole = with_alias(&whole, Mark::Score.name(), "score")?;
        // Of the roles only when matters to a reference; the rest has no place in it.
        let keep = |name: &str| !Mark::ALL.iter().any(|mark| mark.name() == name && *mark != Mark::Time) && !name.starts_with("_score.");
        let places: Vec<usize> =
            whole.schema_ref().fields().iter().enumerate().filter(|(_, field)| keep(field.name())).map(|(at, _)| at).collect();
        let whole = whole.project(&places).map_err(|error| Error::invalid(error.to_string()))?;
        let mut schema = Schema::infer(&whole)?;
        for column in &mut schema.columns {
            if segments.contains(&column.name) {
                column.role = Role::Segment;
            }
        }
        if schema.columns.iter().all(|column| !column.role.is_tested()) {
            return Err(Error::invalid("the events have no feature to learn from"));
        }
        let mut builder = ReferenceBuilder::new(&schema, None, None)?;
        builder.update(&whole)?;
        while builder.fix()? {
            builder.count(&whole)?;
        }
        builder.finish(Some(now))
    }

    fn encode(&self, writer: &mut Writer) -> Result<()> {
        writer.u64(self.seen);
        writer.u64(self.stride);
        writer.bool(self.began.is_some());
        writer.i64(self.began.unwrap_or_default());
        writer.bool(!self.batches.is_empty());
        if !self.batches.is_empty() {
            writer.bytes(&stream(Vec::new(), &self.whole()?)?);
        }
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let (seen, stride, any, began) = (reader.u64()?, reader.u64()?, reader.bool()?, reader.i64()?);
        let batches = if reader.bool()? { vec![batch_from_stream(reader.bytes()?)?] } else { Vec::new() };
        let kept = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let bytes = batches.iter().map(size).sum();
        let names = batches.iter().flat_map(|batch| batch.schema_ref().fields().iter().map(|field| field.name().clone())).collect();
        Ok(Self { batches, kept, bytes, names, seen, stride, began: Some(began).filter(|_| any), trouble: None })
    }
}

/// Bytes of the values of a batch, whatever else its buffers hold: the same after a restart.
fn size(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

fn taken(batch: &RecordBatch, rows: &UInt64Array) -> Result<RecordBatch> {
    arrow_select::take::take_record_batch(batch, rows).map_err(|error| Error::invalid(error.to_string()))
}

/// Batches of one schema, or of schemas that differ in what is null, as one.
///
/// # Errors
/// `InvalidArgument` for batches that cannot be joined.
pub fn joined(batches: &[RecordBatch]) -> Result<RecordBatch> {
    match batches {
        [one] => Ok(one.clone()),
        [] => Err(Error::invalid("no events")),
        [first, ..] => arrow_select::concat::concat_batches(first.schema_ref(), batches).map_err(|error| Error::invalid(error.to_string())),
    }
}
