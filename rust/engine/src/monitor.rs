//! The monitor: events, labels and the time go in, history and alerts come out.
//!
//! Deterministic: windows close in [`Monitor::tick`] alone, and nothing depends on how events were batched.

mod changing;
mod closing;
pub(crate) mod fleet;
mod gathering;
mod merging;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use barograph_core::codec::{Reader, SnapshotKind, Writer};
use barograph_core::metrics::Metric;
use barograph_core::sketches::ExponentialHistogram;
use barograph_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::alert::{Alert, Alerts, Severity};
use crate::bets::Bets;
use crate::compare::compare;
use crate::delays::Delays;
use crate::delta::Delta;
use crate::events::Marks;
use crate::frame;
use crate::governor::{Detail, LAST};
use crate::labels::{Change, Label, LabelJoin, MOST_WEIGHT, Prediction, classes, doubles, keys};
use crate::lattice::Lattice;
use crate::policy::{Length, Policy};
use crate::profile::{ColumnProfile, Profile};
use crate::pulse::Pulse;
use crate::quality::{Quality, Task};
use crate::reference::Reference;
use crate::report::{MODEL, Method, Report, Row};
use crate::rules::Standing;
use crate::schema::Role;
use crate::segments::Segments;
use crate::settings::Settings;
use crate::watching::Watcher;
use crate::window::{self, Tile};

pub use fleet::Merged;

/// What a monitor is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the model.
    pub name: String,
    /// What its user states.
    pub policy: Policy,
    /// What is done to columns before they come here, in words of whoever does it.
    #[serde(default)]
    pub privacy: Option<String>,
}

/// Versions that are told apart.
const MOST_VERSIONS: usize = 10_000;
/// An event stands for at most `2^MOST_HALVINGS`.
pub const MOST_HALVINGS: u32 = 20;

/// Columns of an observed frame that are no features.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Roles {
    pub time: Option<String>,
    pub id: Option<String>,
    pub score: Option<String>,
    /// Of several classes the columns of their probabilities, in order.
    #[serde(default)]
    pub chances: Vec<String>,
    #[serde(default)]
    pub weight: Option<String>,
    pub latency: Option<String>,
    #[serde(default)]
    pub error: Option<String>,
}

/// Numbers of a stretch of time.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Summary {
    pub events: u64,
    pub labelled: u64,
    pub errors: u64,
    pub latency_p50: Option<f64>,
    pub latency_p99: Option<f64>,
    #[serde(serialize_with = "by_name")]
    pub metrics: Vec<(Method, Metric)>,
    pub report: Report,
}

/// How good the predictions of a tile are by the labels that have come so far, late ones too.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct TileQuality {
    pub start: i64,
    pub end: i64,
    /// Events that were kept, and those of them whose label has come.
    pub events: u64,
    pub labelled: u64,
    pub metrics: Vec<(Method, Metric)>,
    /// Of a binary model: scores of labelled events, with the weights of label 0 and label 1.
    pub labelled_scores: Vec<(f64, f64, f64)>,
    /// And the scores of all events, each with how many had it.
    pub scores: Vec<(f64, u64)>,
}

/// A declared deploy, and until when it mutes alerts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Deploy {
    time: i64,
    until: i64,
}

/// Watches one model.
#[derive(Clone, Debug)]
pub struct Monitor {
    config: Config,
    reference: Arc<Reference>,
    tile: i64,
    tiles: Lattice,
    join: LabelJoin,
    /// Present where others join: what is to be told to them.
    untold: Option<fleet::Untold>,
    closed: Option<i64>,
    history: Vec<Row>,
    bets: Bets,
    alerts: Alerts,
    pulse: Pulse,
    standings: Vec<Standing>,
    watchers: Vec<Option<Watcher>>,
    /// Latencies of all events and calls so far, late ones too.
    lifetime: ExponentialHistogram,
    /// How long the labels took that were joined so far.
    delays: Delays,
    /// Parts of the whole that tested columns have by their importance.
    weights: BTreeMap<String, f64>,
    segments: Segments,
    deploys: Vec<Deploy>,
    versions: BTreeSet<String>,
    late: u64,
    too_late: u64,
    untimed: u64,
    muted: u64,
    seen: u64,
    /// Of those seen the ones that were left out, estimated from those that were kept.
    sampled_out: u64,
    /// Sampled events that are not added yet.
    gathered: gathering::Gathered,
    detail: Detail,
}

fn column<'a>(batch: &'a RecordBatch, argument: &str, name: &str) -> Result<&'a dyn Array> {
    batch.column_by_name(name).map(AsRef::as_ref).ok_or_else(|| {
        let names: Vec<&str> = batch.schema_ref().fields().iter().take(20).map(|field| field.name().as_str()).collect();
        Error::invalid(format!("`{argument}` names column {name:?}, which the frame has not")).hint(format!("it has {}", names.join(", ")))
    })
}

impl Monitor {
    /// A monitor that has seen nothing.
    ///
    /// # Errors
    /// `InvalidArgument` for a window outside [1 s, 366 d] or a rule that cannot be.
    pub fn new(config: Config, reference: Arc<Reference>) -> Result<Self> {
        let policy = &config.policy;
        policy.check()?;
        let (window, memory) = (policy.window.0, policy.allowance());
        let tile = window::tile_of(window)?;
        if let Some(season) = reference.season.as_ref().filter(|season| window > season.calendar.unit()) {
            let (word, unit) = (season.calendar.word(), Length(season.calendar.unit()));
            return Err(Error::invalid(format!(
                "`window` must be at most {unit}, as the reference's seasons are by {word}, got {}",
                policy.window
            )));
        }
        let weights = policy.weights(&reference.tested())?;
        // Half of the budget is for the e-detectors; half of a column's part of it is the same for all, half goes by importance.
        let rates = weights.iter().map(|(name, weight)| {
            let part = 0.5 / weights.len() as f64 + 0.5 * weight;
            (name.clone(), 0.5 * part / policy.budget.ticket.0 as f64)
        });
        let bets = Bets::new(&reference, window, tile, &rates.collect(), memory / 8);
        let watchers = policy.rules.iter().map(|rule| rule.detector.map(Watcher::new).transpose()).collect::<Result<_>>()?;
        Ok(Self {
            tile,
            tiles: Lattice::new(tile, (policy.task, policy.classes.len()), reference.columns.len(), memory / 2),
            join: LabelJoin::new(config.policy.labels, memory / 8),
            untold: None,
            closed: None,
            history: Vec::new(),
            bets,
            alerts: Alerts::default(),
            pulse: Pulse::default(),
            standings: vec![Standing::default(); policy.rules.len()],
            watchers,
            lifetime: ExponentialHistogram::new(6)?,
            delays: Delays::default(),
            weights,
            segments: Segments::of(&reference, memory / 8),
            deploys: Vec::new(),
            versions: BTreeSet::new(),
            late: 0,
            too_late: 0,
            untimed: 0,
            muted: 0,
            seen: 0,
            sampled_out: 0,
            gathered: gathering::Gathered::default(),
            detail: Detail::default(),
            config,
            reference,
        })
    }

    /// Adds a frame of events. Rows without a time take `now`; a row of a closed window counts as late and still enters its tile,
    /// unless that closed longer ago than the allowed lateness.
    ///
    /// # Errors
    /// `InvalidArgument` for a role that names no column or one of the wrong type; nothing is added then.
    pub fn observe(&mut self, batch: &RecordBatch, roles: &Roles, now: i64) -> Result<()> {
        self.observe_sampled(batch, roles, now, 0)
    }

    /// As [`observe`](Self::observe), for events each of which stands for `2^halvings`, the others having been left out by fair coins:
    /// counts are estimates without bias, and every test and interval takes them for as many rows as they are worth. Few of them are
    /// gathered and added together later; whoever looks sees them.
    ///
    /// # Errors
    /// As `observe`, and for more than 20 halvings.
    pub fn observe_sampled(&mut self, batch: &RecordBatch, roles: &Roles, now: i64, halvings: u32) -> Result<()> {
        let marks = self.marks(batch, roles, now, halvings)?;
        self.add_gathered(batch.clone(), marks)
    }

    /// What the columns of roles say of the events.
    fn marks(&mut self, batch: &RecordBatch, roles: &Roles, now: i64, halvings: u32) -> Result<Marks> {
        if halvings > MOST_HALVINGS {
            return Err(Error::invalid(format!("`halvings` must be at most {MOST_HALVINGS}, got {halvings}")));
        }
        let rows = batch.num_rows();
        let times = match &roles.time {
            Some(name) => {
                let array = column(batch, "time", name)?;
                let times = frame::nanoseconds(array);
                let times = times
                    .ok_or_else(|| Error::invalid(format!("`time` must name a column of timestamps, {name:?} is {}", array.data_type())))?;
                self.untimed += (times.iter().filter(|time| time.is_none()).count() as u64) << halvings;
                times.into_iter().map(|time| time.unwrap_or(now)).collect()
            }
            None => vec![now; rows],
        };
        let ids = roles.id.as_ref().map(|name| keys(name, column(batch, "id", name)?)).transpose()?;
        let (multiclass, names) = (self.config.policy.task == Task::Multiclass, &self.config.policy.classes);
        let chances = self.chances(batch, &roles.chances)?;
        let scores = match &roles.score {
            Some(name) if multiclass => Some(classes("prediction", name, column(batch, "prediction", name)?, names, false)?),
            Some(name) => Some(doubles("score", name, column(batch, "score", name)?)?),
            None if !chances.is_empty() => Some(chances.iter().map(|chances| largest(chances)).collect()),
            None => None,
        };
        let weights = match &roles.weight {
            Some(name) => weights(name, column(batch, "weight", name)?)?,
            None => Vec::new(),
        };
        let latency =
            roles.latency.as_ref().map(|name| doubles("latency_seconds", name, column(batch, "latency_seconds", name)?)).transpose()?;
        let failed = |flags: Vec<Option<f64>>| flags.into_iter().map(|flag| flag.is_some_and(|flag| flag != 0.0)).collect();
        let errors = roles.error.as_ref().map(|name| doubles("error", name, column(batch, "error", name)?)).transpose()?.map(failed);
        Ok(Marks {
            times,
            ids: ids.unwrap_or_default(),
            scores: scores.unwrap_or_default(),
            chances,
            weights,
            latency: latency.unwrap_or_default(),
            errors: errors.unwrap_or_default(),
            halvings,
        })
    }

    /// Per row the probabilities of its classes; empty for a row without all of them, or outside [0, 1].
    fn chances(&self, batch: &RecordBatch, columns: &[String]) -> Result<Vec<Box<[f32]>>> {
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = self.config.policy.classes.len();
        if columns.len() != wanted {
            return Err(Error::invalid(format!("`score` must name a column of probabilities per class, {wanted}, got {}", columns.len())));
        }
        let read = columns.iter().map(|name| doubles("score", name, column(batch, "score", name)?)).collect::<Result<Vec<_>>>()?;
        let chance = |value: Option<f64>| value.filter(|chance| (0.0..=1.0).contains(chance)).map(|chance| chance as f32);
        let of_row = |row: usize| -> Option<Box<[f32]>> { read.iter().map(|column| chance(column[row])).collect() };
        Ok((0..batch.num_rows()).map(|row| of_row(row).unwrap_or_default()).collect())
    }

    /// Adds events, with what belongs to them beside their fields.
    ///
    /// # Errors
    /// None in practice.
    pub fn add(&mut self, batch: &RecordBatch, marks: &Marks) -> Result<()> {
        let starts: Vec<i64> = marks.times.iter().map(|time| window::start_of(*time, self.tile)).collect();
        let (halvings, each) = (marks.halvings, 1u64 << marks.halvings.min(MOST_HALVINGS));
        self.late += self.closed.map_or(0, |closed| each * starts.iter().filter(|start| **start < closed).count() as u64);
        let (mut from, mut changes) = (0, Vec::new());
        for run in starts.chunk_by(|a, b| a == b) {
            let (start, until) = (run[0], from + run.len());
            if self.closed.is_some_and(|closed| start < closed.saturating_sub(self.config.policy.lateness.0)) {
                self.too_late += each * run.len() as u64;
                from = until;
                continue;
            }
            if self.closed.is_none_or(|closed| start >= closed) {
                self.bets.count(&batch.slice(from, run.len()), &marks.times[from..until], &self.reference, halvings)?;
                if !self.segments.is_empty() {
                    self.segments.count(start, &batch.slice(from, run.len()), &self.reference, halvings)?;
                }
            }
            // Split borrows: the tile is changed while the reference is read.
            let reference = Arc::clone(&self.reference);
            if let Some(tile) = self.tiles.tile(start, &reference)? {
                tile.profile.update_sampled(&batch.slice(from, run.len()), Some(&reference), halvings)?;
                if let Some(latency) = marks.latency.get(from..until) {
                    let values: Vec<f64> = latency.iter().flatten().copied().filter(|seconds| *seconds >= 0.0).collect();
                    for latency in [&mut tile.latency, &mut self.lifetime] {
                        if halvings == 0 {
                            latency.update_many(&values);
                        } else {
                            values.iter().for_each(|value| latency.update_counted(*value, each));
                        }
                    }
                }
                tile.errors += each * marks.errors.get(from..until).map_or(0, failures);
            }
            for row in from..until {
                let Some(id) = marks.ids.get(row).copied().flatten() else { continue };
                let chances = marks.chances.get(row).cloned().unwrap_or_default();
                let (score, weight) = (marks.scores.get(row).copied().flatten(), marks.weights.get(row).copied().unwrap_or(1.0));
                let prediction = Prediction { tile: start, score, chances, weight, halvings: halvings as u8 };
                match &mut self.untold {
                    Some(untold) => untold.predictions.push((id, prediction)),
                    None => changes.extend(self.join.event(id, prediction)),
                }
            }
            from = until;
        }
        self.relabel(changes)?;
        self.beat(marks);
        self.seen += each * marks.times.len() as u64;
        self.sampled_out += (each - 1) * marks.times.len() as u64;
        Ok(())
    }

    /// Counts events minute by minute, for the objectives.
    fn beat(&mut self, marks: &Marks) {
        if self.config.policy.rules.iter().all(|rule| rule.slo.is_none()) {
            return;
        }
        let (mut from, each) = (0, 1u64 << marks.halvings.min(MOST_HALVINGS));
        for run in marks.times.chunk_by(|a, b| window::start_of(*a, window::MINUTE) == window::start_of(*b, window::MINUTE)) {
            let until = from + run.len();
            self.pulse.events(run[0], run.len() as u64, marks.errors.get(from..until).map_or(0, failures), each);
            for seconds in marks.latency.get(from..until).into_iter().flatten().flatten().filter(|seconds| **seconds >= 0.0) {
                self.pulse.calls(run[0], *seconds, 1, each, &self.config.policy.rules);
            }
            from = until;
        }
    }

    /// Declares a deploy: it becomes a row of the history, and until `until` no alert opens (what is open may end).
    pub fn deploy(&mut self, version: &str, time: i64, until: i64) {
        if self.versions.len() < MOST_VERSIONS {
            self.versions.insert(version.to_owned());
        }
        if let Some(untold) = &mut self.untold {
            untold.deploys.push((version.to_owned(), time, until));
        }
        self.deploys.push(Deploy { time, until });
        let length = self.config.policy.window.0;
        let start = window::start_of(time, length);
        self.history.push(Row {
            window_start: Some(start),
            window_end: Some(start.saturating_add(length)),
            reason: Some(deployed(version)),
            ..Row::blank(MODEL, Method::Deploy)
        });
    }

    /// A version that answered; the first time, that is a deploy which mutes nothing.
    pub fn version(&mut self, version: &str, time: i64) {
        if !self.versions.contains(version) && self.versions.len() < MOST_VERSIONS {
            self.versions.insert(version.to_owned());
            self.deploy(version, time, time);
        }
    }

    /// Adds one call's latency. With `failed` the call stands for itself, as a request without an event; without it for events
    /// that are given apart.
    ///
    /// # Errors
    /// None in practice.
    pub fn call(&mut self, seconds: f64, time: i64, failed: Option<bool>) -> Result<()> {
        let start = window::start_of(time, self.tile);
        let reference = Arc::clone(&self.reference);
        if let Some(tile) = self.tiles.tile(start, &reference)?
            && seconds >= 0.0
        {
            tile.latency.update(seconds);
            self.lifetime.update(seconds);
            if let Some(failed) = failed {
                tile.calls += 1;
                tile.errors += u64::from(failed);
            }
            if self.config.policy.rules.iter().any(|rule| rule.slo.is_some()) {
                self.pulse.calls(time, seconds, 1, 1, &self.config.policy.rules);
                if let Some(failed) = failed {
                    self.pulse.events(time, 1, u64::from(failed), 1);
                }
            }
        }
        Ok(())
    }

    /// Predictions whose label changed, tile by tile.
    fn relabel(&mut self, mut changes: Vec<Change>) -> Result<()> {
        for change in &changes {
            // From the middle of the event's tile: of its time no more is kept.
            let length = change.arrived.saturating_sub(change.prediction.tile.saturating_add(self.tile / 2));
            let times = 1 << u32::from(change.prediction.halvings).min(MOST_HALVINGS);
            match (change.before, change.now) {
                (None, Some(_)) => self.delays.add(length, times),
                (Some(_), None) => self.delays.remove(length, times),
                // A correction: the first one said how long labels take.
                _ => {}
            }
        }
        changes.sort_by_key(|change| change.prediction.tile);
        for run in changes.chunk_by(|a, b| a.prediction.tile == b.prediction.tile) {
            let Some(tile) = self.tiles.find(run[0].prediction.tile)? else { continue };
            let rows = |of: fn(&Change) -> Option<f64>| -> Vec<(Prediction, f64)> {
                run.iter().filter_map(|change| Some((change.prediction.clone(), of(change)?))).collect()
            };
            let (come, gone) = (rows(|change| change.now), rows(|change| change.before));
            tile.quality.update(&come)?;
            if !gone.is_empty() {
                tile.quality.remove(&gone)?;
            }
            tile.labelled = (tile.labelled + come.len() as u64).saturating_sub(gone.len() as u64);
        }
        Ok(())
    }

    /// Adds labels by event id: 0 or 1, classes, or numbers for a regression. Null labels and ids are skipped; `time` names the column of
    /// arrival times, without it they arrive at `now`.
    ///
    /// # Errors
    /// `InvalidArgument` for a column that is missing or of the wrong type; nothing is added then.
    pub fn label(&mut self, batch: &RecordBatch, id: &str, label: &str, time: Option<&str>, now: i64) -> Result<()> {
        self.settle()?;
        let ids = keys(id, column(batch, "id", id)?)?;
        let labels = match self.config.policy.task {
            Task::Multiclass => classes("label", label, column(batch, "label", label)?, &self.config.policy.classes, true)?,
            _ => doubles("label", label, column(batch, "label", label)?)?,
        };
        let times = match time {
            Some(name) => {
                let array = column(batch, "time", name)?;
                frame::nanoseconds(array)
                    .ok_or_else(|| Error::invalid(format!("`time` must name a column of timestamps, {name:?} is {}", array.data_type())))?
            }
            None => vec![Some(now); batch.num_rows()],
        };
        let mut changes = Vec::new();
        for ((id, value), time) in ids.into_iter().zip(labels).zip(times) {
            let (Some(id), Some(value), Some(time)) = (id, value, time) else { continue };
            match &mut self.untold {
                Some(untold) => untold.labels.push((id, Label { value, time })),
                None => changes.extend(self.join.label(id, Label { value, time })),
            }
        }
        self.relabel(changes)
    }

    fn summarise(&self, tile: &Tile, compare: impl Fn(&Reference, &Profile, &Settings) -> Result<Report>) -> Result<Summary> {
        Ok(Summary {
            events: tile.profile.rows,
            labelled: tile.labelled,
            errors: tile.errors,
            latency_p50: tile.latency.quantile(0.5)?,
            latency_p99: tile.latency.quantile(0.99)?,
            metrics: tile.quality.metrics(self.config.policy.settings.confidence),
            report: compare(&self.reference, &tile.profile, &self.config.policy.settings)?,
        })
    }

    /// Numbers and drift of `[start, end)`, cut at tiles; `None` without events.
    ///
    /// # Errors
    /// None in practice.
    pub fn summary(&self, start: i64, end: i64) -> Result<Option<Summary>> {
        let own = self.settled()?;
        merged(&own.tiles.between(start, end)?, start, end)?.map(|tile| own.summarise(&tile, compare)).transpose()
    }

    /// The quality of the last `most` tiles that begin in `[start, end)`, oldest first. History says what was known when a window closed,
    /// this what is known now.
    ///
    /// # Errors
    /// None in practice.
    pub fn qualities(&self, start: i64, end: i64, most: usize) -> Result<Vec<TileQuality>> {
        let own = self.settled()?;
        let confidence = self.config.policy.settings.confidence;
        let binary = self.config.policy.task == Task::Binary;
        let schema = self.reference.schema();
        let score = schema.columns.into_iter().find(|column| binary && column.role == Role::Score).map(|column| column.name);
        let scores = |tile: &Tile| {
            let numbers = score.as_ref().and_then(|name| tile.profile.column(name)).and_then(ColumnProfile::numbers);
            numbers.map(|numbers| numbers.histogram.cells().iter().map(|cell| (cell.value(), cell.count)).collect()).unwrap_or_default()
        };
        let of_tile = |(start, tile): (i64, Tile)| TileQuality {
            labelled_scores: if let Quality::Binary(metrics) = &tile.quality { metrics.scores() } else { Vec::new() },
            scores: scores(&tile),
            start,
            end: start.saturating_add(self.tiles.length(start)),
            events: tile.profile.kept,
            labelled: tile.labelled.min(tile.profile.kept),
            metrics: tile.quality.metrics(confidence),
        };
        Ok(own.tiles.last_between(start, end, most)?.into_iter().map(of_tile).collect())
    }

    /// The profile of the tiles that begin in `[start, end)`; `None` without events.
    ///
    /// # Errors
    /// None in practice.
    pub fn profile(&self, start: i64, end: i64) -> Result<Option<Profile>> {
        Ok(merged(&self.settled()?.tiles.between(start, end)?, start, end)?.map(|tile| tile.profile))
    }

    /// The profile of the first tile that begins at `time` or later, with its window. Older tiles are days and weeks.
    ///
    /// # Errors
    /// None in practice.
    pub fn next_tile(&self, time: i64) -> Result<Option<Profile>> {
        let own = self.settled()?;
        let Some(start) = own.tiles.next(time) else { return Ok(None) };
        let end = start.saturating_add(own.tiles.length(start));
        let tile = merged(&own.tiles.between(start, start.saturating_add(1))?, start, end)?;
        Ok(tile.map(|tile| tile.profile))
    }

    /// Latencies of `[start, end)`, cut at tiles; `None` without any.
    ///
    /// # Errors
    /// None in practice.
    pub fn latencies(&self, start: i64, end: i64) -> Result<Option<ExponentialHistogram>> {
        let whole = merged(&self.settled()?.tiles.between(start, end)?, start, end)?;
        Ok(whole.map(|tile| tile.latency).filter(|latency| latency.count() > 0))
    }

    /// Latencies of all events and calls so far.
    pub fn lifetime(&self) -> &ExponentialHistogram {
        &self.lifetime
    }

    /// How long labels took, from the middle of their event's tile to their arrival, and how long a tile is, in nanoseconds.
    pub fn delays(&self) -> (&Delays, i64) {
        (&self.delays, self.tile)
    }

    /// Everything the monitor knows, its reference included: equal monitors give equal bytes.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        if !self.gathered.is_empty() {
            return self.settled()?.to_bytes();
        }
        let mut writer = Writer::new();
        writer.str(&json(&self.config)?);
        writer.bytes(&self.reference.to_bytes());
        self.tiles.encode(&mut writer);
        self.join.encode(&mut writer);
        writer.bool(self.closed.is_some());
        writer.i64(self.closed.unwrap_or_default());
        self.lifetime.encode(&mut writer);
        writer.u64(self.late);
        writer.u64(self.too_late);
        writer.u64(self.untimed);
        writer.u64(self.muted);
        writer.u64(self.seen);
        writer.str(&json(&self.pulse)?);
        self.segments.encode(&mut writer);
        writer.str(&json(&self.standings)?);
        self.watchers.iter().flatten().for_each(|watcher| watcher.encode(&mut writer));
        writer.str(&json(&self.deploys)?);
        writer.str(&json(&self.versions)?);
        writer.str(&json(&self.history)?);
        writer.str(&json(&self.alerts)?);
        writer.str(&json(self.bets.wealth())?);
        writer.str(&json(self.bets.moments())?);
        writer.u64(self.bets.forgotten);
        writer.u64(self.segments.forgotten);
        writer.u64(self.sampled_out);
        writer.u8(self.detail.level);
        // Nothing where there is nothing, as in snapshots from before there was more.
        if self.untold.is_some() || !self.delays.is_empty() {
            let untold = self.untold.as_ref().map(|untold| Delta::of_untold(untold, self.layout())).transpose()?;
            writer.bytes(&untold.map(|untold| untold.to_bytes()).unwrap_or_default());
        }
        if !self.delays.is_empty() {
            self.delays.encode(&mut writer);
        }
        Ok(writer.seal(SnapshotKind::Monitor))
    }

    /// Reads a snapshot: the monitor goes on as if nothing had happened.
    ///
    /// # Errors
    /// `Decode`, saying what is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let wrong = |error: Error| Error::decode(error.message);
        let mut reader = Reader::open(bytes, SnapshotKind::Monitor)?;
        let config = parsed(reader.str()?)?;
        let reference = Arc::new(Reference::from_bytes(reader.bytes()?)?);
        let mut out = Self::new(config, Arc::clone(&reference)).map_err(wrong)?;
        out.tiles.restore(&mut reader, &reference)?;
        out.join = LabelJoin::decode(&mut reader, out.config.policy.labels, out.config.policy.allowance() / 8)?;
        let any = reader.bool()?;
        out.closed = Some(reader.i64()?).filter(|_| any);
        out.lifetime = ExponentialHistogram::decode(&mut reader)?;
        (out.late, out.too_late) = (reader.u64()?, reader.u64()?);
        (out.untimed, out.muted) = (reader.u64()?, reader.u64()?);
        out.seen = reader.u64()?;
        out.pulse = parsed(reader.str()?)?;
        out.segments.restore(&mut reader)?;
        out.standings = parsed(reader.str()?)?;
        for watcher in out.watchers.iter_mut().flatten() {
            watcher.restore(&mut reader)?;
        }
        out.standings.resize(out.config.policy.rules.len(), Standing::default());
        out.deploys = parsed(reader.str()?)?;
        out.versions = parsed(reader.str()?)?;
        out.history = parsed(reader.str()?)?;
        out.alerts = parsed(reader.str()?)?;
        out.bets.restore(parsed(reader.str()?)?, parsed(reader.str()?)?);
        (out.bets.forgotten, out.segments.forgotten) = (reader.u64()?, reader.u64()?);
        out.sampled_out = reader.u64()?;
        out.keep(Detail { level: reader.u8()?.min(LAST) });
        if !reader.is_empty() {
            let untold = reader.bytes()?;
            out.untold = (!untold.is_empty()).then(|| Delta::read_untold(untold, &out)).transpose()?;
        }
        if !reader.is_empty() {
            out.delays = Delays::decode(&mut reader)?;
        }
        reader.finish()?;
        Ok(out)
    }

    /// What it promises about false alerts, in words.
    pub fn promise(&self) -> String {
        self.config.policy.promise(&self.kinds())
    }

    /// What is tested besides columns.
    fn kinds(&self) -> Vec<&'static str> {
        let segments = (!self.segments.is_empty()).then_some("segments");
        segments.into_iter().chain(self.reference.season.as_ref().map(|_| "seasons")).collect()
    }

    /// What its user states.
    pub fn policy(&self) -> &Policy {
        &self.config.policy
    }

    /// The name of the model.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// What the model predicts.
    pub fn task(&self) -> Task {
        self.config.policy.task
    }

    /// What is done to columns before they come here.
    pub fn privacy(&self) -> Option<&str> {
        self.config.privacy.as_deref()
    }

    /// What it is compared with.
    pub fn reference(&self) -> &Arc<Reference> {
        &self.reference
    }

    /// The tested rows and the metrics of every closed window that begins at or after `since`.
    pub fn history(&self, since: i64) -> impl Iterator<Item = &Row> {
        self.history.iter().filter(move |row| row.window_start.is_some_and(|start| start >= since))
    }

    /// The last window that was closed.
    pub fn last_window(&self) -> Option<(i64, i64)> {
        self.closed.map(|end| (end - self.config.policy.window.0, end))
    }

    /// Open alerts by who should be disturbed.
    pub fn open_alerts(&self) -> Vec<(String, Severity)> {
        let last = |name: &str| self.alerts.changes.iter().rev().find(|alert| alert.column == name).map(|alert| alert.severity);
        self.alerts.names().filter_map(|name| Some((name.to_owned(), last(name)?))).collect()
    }

    /// Every change of an alert.
    pub fn alerts(&self) -> &[Alert] {
        &self.alerts.changes
    }

    /// What waits for labels: it can be given a shelf.
    pub fn join(&mut self) -> &mut LabelJoin {
        &mut self.join
    }

    /// Events, and what did not go the usual way: left out by sampling (of the events, estimated), late, too late, without time, labels without event, given up, alerts that a deploy muted, tiles given up.
    pub fn counts(&self) -> [(&'static str, u64); 12] {
        [
            ("events", self.seen + self.gathered.worth()),
            ("sampled_out", self.sampled_out + self.gathered.left_out()),
            ("late", self.late),
            ("too_late", self.too_late),
            ("untimed", self.untimed),
            ("orphan_labels", self.join.orphans() as u64),
            ("superseded_labels", self.join.superseded),
            ("duplicate_ids", self.join.duplicates),
            ("dropped", self.join.dropped),
            ("muted", self.muted),
            ("forgotten_tiles", self.tiles.forgotten),
            ("forgotten_moments", self.bets.forgotten + self.segments.forgotten),
        ]
    }
}

/// Name to value, lower and upper limit.
fn by_name<S: serde::Serializer>(metrics: &[(Method, Metric)], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    let fields = |metric: &Metric| [metric.value, metric.limits.map(|limits| limits.0), metric.limits.map(|limits| limits.1)];
    serializer.collect_map(metrics.iter().map(|(_, metric)| (metric.name, fields(metric))))
}

/// Tiles as one, if there is any.
fn merged(tiles: &[(i64, Tile)], start: i64, end: i64) -> Result<Option<Tile>> {
    let mut whole: Option<Tile> = None;
    for (_, tile) in tiles {
        match &mut whole {
            Some(whole) => whole.merge(tile)?,
            None => whole = Some(tile.clone()),
        }
    }
    Ok(whole.map(|mut tile| {
        tile.profile.window = Some((start, end));
        tile
    }))
}

/// The position of the largest probability, the first of equal ones.
fn largest(chances: &[f32]) -> Option<f64> {
    let best = chances.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)))?;
    Some(best.0 as f64)
}

/// Weights of events; one that is missing counts as 1.
fn weights(name: &str, array: &dyn Array) -> Result<Vec<f64>> {
    let weights = doubles("weight", name, array)?;
    if let Some(at) = weights.iter().position(|weight| weight.is_some_and(|weight| !(0.0..=MOST_WEIGHT).contains(&weight))) {
        return Err(Error::invalid(format!("`weight` must hold numbers in [0, 1e12], {name:?} holds {:?} at row {at}", weights[at])));
    }
    Ok(weights.into_iter().map(|weight| weight.unwrap_or(1.0)).collect())
}

fn deployed(version: &str) -> String {
    format!("version {version:?} deployed")
}

fn failures(flags: &[bool]) -> u64 {
    flags.iter().filter(|failed| **failed).count() as u64
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::invalid(error.to_string()))
}

fn parsed<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::decode(format!("a part of the monitor could not be read: {error}")))
}
