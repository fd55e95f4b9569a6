//! The monitor: events, labels and the time go in, history and alerts come out.
//!
//! Deterministic: windows close in [`Monitor::tick`] alone, and nothing depends on how events were batched.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use barograph_core::codec::{Reader, SnapshotKind, Writer};
use barograph_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::alert::{Alert, Alerts, Judgement, Severity};
use crate::bets::Bets;
use crate::compare::compare;
use crate::events::Marks;
use crate::frame;
use crate::labels::{LabelJoin, Prediction, doubles, keys};
use crate::profile::Profile;
use crate::reference::Reference;
use crate::report::{Method, Report, Row, Verdict};
use crate::settings::Settings;
use crate::window::{self, Tile};

/// Tiles kept: more than two years of days.
const MOST_TILES: usize = 800;
/// Rows of history kept.
const MOST_HISTORY: usize = 500_000;
/// Pseudo-column of rows about the model as a whole.
const MODEL: &str = "(model)";

/// A number of the model and where it begins to be bad.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `roc_auc`, or `latency_p99` in seconds.
    pub metric: String,
    /// A warning when the metric is below this with confidence.
    #[serde(default)]
    pub below: Option<f64>,
    /// A warning when the metric is above this.
    #[serde(default)]
    pub above: Option<f64>,
}

/// What a monitor is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the model.
    pub name: String,
    /// Length of a window in nanoseconds.
    pub window: i64,
    /// Level and tolerances.
    #[serde(default)]
    pub settings: Settings,
    /// Rules besides drift.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// The budget: at most one false ticket in so many nanoseconds, in expectation.
    #[serde(default = "a_week")]
    pub ticket_every: i64,
}

fn a_week() -> i64 {
    7 * window::DAY
}

/// Columns of an observed frame that are no features.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Roles {
    pub time: Option<String>,
    pub id: Option<String>,
    pub score: Option<String>,
    pub latency: Option<String>,
}

/// Numbers of a stretch of time.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Summary {
    pub events: u64,
    pub labelled: u64,
    pub latency_p50: Option<f64>,
    pub latency_p99: Option<f64>,
    pub auc: Option<f64>,
    pub auc_lower: Option<f64>,
    pub auc_upper: Option<f64>,
    pub report: Report,
}

/// Watches one model.
#[derive(Clone, Debug)]
pub struct Monitor {
    config: Config,
    reference: Arc<Reference>,
    tile: i64,
    tiles: BTreeMap<i64, Tile>,
    join: LabelJoin,
    closed: Option<i64>,
    history: Vec<Row>,
    bets: Bets,
    alerts: Alerts,
    late: u64,
    untimed: u64,
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
    /// `InvalidArgument` for a window outside [1 s, 366 d] or a rule on an unknown metric.
    pub fn new(config: Config, reference: Arc<Reference>) -> Result<Self> {
        let tile = window::tile_of(config.window)?;
        for rule in &config.rules {
            if !["roc_auc", "latency_p99"].contains(&rule.metric.as_str()) || rule.below.is_some() == rule.above.is_some() {
                return Err(Error::invalid(format!(
                    "`rules` must hold a metric (roc_auc, latency_p99) with `below` or `above`, got {rule:?}"
                )));
            }
        }
        if config.ticket_every < 3600 * 1_000_000_000 {
            return Err(Error::invalid(format!("`budget` must be at least an hour, got {} s", config.ticket_every / 1_000_000_000)));
        }
        // Half of the budget is for the e-detectors, half for the tests of whole windows.
        let bets = Bets::new(&reference, config.window, tile, 2.0 * config.ticket_every as f64);
        let (join, alerts) = (LabelJoin::default(), Alerts::default());
        let (tiles, history) = (BTreeMap::new(), Vec::new());
        Ok(Self { config, reference, tile, tiles, join, closed: None, history, bets, alerts, late: 0, untimed: 0 })
    }

    /// Adds a frame of events. Rows without a time take `now`; a row of a closed window counts as late and still enters its tile.
    ///
    /// # Errors
    /// `InvalidArgument` for a role that names no column or one of the wrong type; nothing is added then.
    pub fn observe(&mut self, batch: &RecordBatch, roles: &Roles, now: i64) -> Result<()> {
        let rows = batch.num_rows();
        let times = match &roles.time {
            Some(name) => {
                let array = column(batch, "time", name)?;
                let times = frame::nanoseconds(array);
                let times = times
                    .ok_or_else(|| Error::invalid(format!("`time` must name a column of timestamps, {name:?} is {}", array.data_type())))?;
                self.untimed += times.iter().filter(|time| time.is_none()).count() as u64;
                times.into_iter().map(|time| time.unwrap_or(now)).collect()
            }
            None => vec![now; rows],
        };
        let ids = roles.id.as_ref().map(|name| keys(name, column(batch, "id", name)?)).transpose()?;
        let scores = roles.score.as_ref().map(|name| doubles("score", name, column(batch, "score", name)?)).transpose()?;
        let latency =
            roles.latency.as_ref().map(|name| doubles("latency_seconds", name, column(batch, "latency_seconds", name)?)).transpose()?;
        let marks = Marks { times, ids: ids.unwrap_or_default(), scores: scores.unwrap_or_default(), latency: latency.unwrap_or_default() };
        self.add(batch, &marks)
    }

    /// Adds events, with what belongs to them beside their fields.
    ///
    /// # Errors
    /// None in practice.
    pub fn add(&mut self, batch: &RecordBatch, marks: &Marks) -> Result<()> {
        let starts: Vec<i64> = marks.times.iter().map(|time| window::start_of(*time, self.tile)).collect();
        self.late += self.closed.map_or(0, |closed| starts.iter().filter(|start| **start < closed).count() as u64);
        let mut from = 0;
        for run in starts.chunk_by(|a, b| a == b) {
            let (start, until) = (run[0], from + run.len());
            self.tile_at(start)?;
            if self.closed.is_none_or(|closed| start >= closed) {
                self.bets.count(&batch.slice(from, run.len()), &marks.times[from..until], &self.reference)?;
            }
            // Split borrows: the tile is changed while the reference is read.
            let reference = Arc::clone(&self.reference);
            if let Some(tile) = self.tiles.get_mut(&start) {
                tile.profile.update(&batch.slice(from, run.len()), Some(&reference))?;
                if let Some(latency) = marks.latency.get(from..until) {
                    let values: Vec<f64> = latency.iter().flatten().copied().filter(|seconds| *seconds >= 0.0).collect();
                    tile.latency.update_many(&values);
                }
            }
            for row in from..until {
                let Some(id) = marks.ids.get(row).copied().flatten() else { continue };
                let prediction = Prediction { tile: start, score: marks.scores.get(row).copied().flatten() };
                if let Some(label) = self.join.event(id, prediction) {
                    self.join_one(prediction, label);
                }
            }
            from = until;
        }
        Ok(())
    }

    /// Adds one call's latency, which may stand for many events or none.
    ///
    /// # Errors
    /// None in practice.
    pub fn latency(&mut self, seconds: f64, time: i64) -> Result<()> {
        let start = window::start_of(time, self.tile);
        self.tile_at(start)?;
        if let Some(tile) = self.tiles.get_mut(&start)
            && seconds >= 0.0
        {
            tile.latency.update(seconds);
        }
        Ok(())
    }

    fn tile_at(&mut self, start: i64) -> Result<()> {
        if !self.tiles.contains_key(&start) {
            let tile = Tile::new(&self.reference)?;
            self.tiles.insert(start, tile);
            while self.tiles.len() > MOST_TILES {
                self.tiles.pop_first();
            }
        }
        Ok(())
    }

    fn join_one(&mut self, prediction: Prediction, label: f64) {
        if let Some(tile) = self.tiles.get_mut(&prediction.tile) {
            tile.labelled += 1;
            if let Some(score) = prediction.score {
                tile.auc.update(score, label > 0.5);
            }
        }
    }

    /// Adds labels: 0 or 1 by event id. Null labels and ids are skipped.
    ///
    /// # Errors
    /// `InvalidArgument` for a column that is missing or of the wrong type; nothing is added then.
    pub fn label(&mut self, batch: &RecordBatch, id: &str, label: &str) -> Result<()> {
        let ids = keys(id, column(batch, "id", id)?)?;
        let labels = doubles("label", label, column(batch, "label", label)?)?;
        for (id, label) in ids.into_iter().zip(labels) {
            let (Some(id), Some(label)) = (id, label) else { continue };
            if let Some(prediction) = self.join.label(id, label) {
                self.join_one(prediction, label);
            }
        }
        Ok(())
    }

    /// Closes every window that ends at or before `now` and judges it.
    ///
    /// # Errors
    /// None in practice.
    pub fn tick(&mut self, now: i64) -> Result<()> {
        let length = self.config.window;
        let Some(first) = self.tiles.keys().find(|start| self.closed.is_none_or(|closed| **start >= closed)).copied() else {
            return Ok(());
        };
        let mut start = window::start_of(first, length);
        while start.saturating_add(length) <= now {
            let end = start + length;
            if let Some(tile) = self.merged(start, end)? {
                self.close(&tile, (start, end))?;
            }
            self.closed = Some(end);
            // Straight to the next window that holds anything.
            let Some(next) = self.tiles.range(end..).next().map(|(next, _)| *next) else { break };
            start = window::start_of(next, length);
        }
        Ok(())
    }

    /// The tiles of `[start, end)` as one, if there is any.
    fn merged(&self, start: i64, end: i64) -> Result<Option<Tile>> {
        let mut whole: Option<Tile> = None;
        for tile in self.tiles.range(start..end.max(start)).map(|(_, tile)| tile) {
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

    fn close(&mut self, tile: &Tile, window: (i64, i64)) -> Result<()> {
        let summary = self.summarise(tile)?;
        let mut rows: Vec<Row> = summary.report.rows.iter().filter(|row| row.verdict.is_some()).cloned().collect();
        self.close_drift(&summary.report, &tile.profile, window, &mut rows);
        let row = |method: Method, value: Option<f64>| Row {
            value,
            n_reference: Some(self.reference.rows),
            n_current: Some(summary.events),
            window_start: Some(window.0),
            window_end: Some(window.1),
            reference: Some(self.reference.id().to_owned()),
            ..Row::blank(MODEL, method)
        };
        let missing = (summary.events > 0).then(|| 1.0 - summary.labelled as f64 / summary.events as f64);
        let mut model = vec![
            row(Method::Events, Some(summary.events as f64)),
            row(Method::LatencyP50, summary.latency_p50),
            row(Method::LatencyP99, summary.latency_p99),
            row(Method::MissingLabels, missing),
            Row {
                lower: summary.auc_lower,
                upper: summary.auc_upper,
                interval: summary.auc.map(|_| "confidence".into()),
                ..row(Method::RocAuc, summary.auc)
            },
        ];
        for rule in &self.config.rules {
            let method = if rule.metric == "roc_auc" { Method::RocAuc } else { Method::LatencyP99 };
            if let Some(row) = model.iter_mut().find(|row| row.method == method) {
                let verdict = judge_rule(rule, row);
                let judgement = Judgement { column: &rule.metric, verdict, severity: Severity::Page, row, cause: None };
                self.alerts.judge(&judgement, window);
            }
        }
        self.history.extend(rows.into_iter().chain(model.into_iter().filter(|row| row.value.is_some())));
        if self.history.len() > MOST_HISTORY {
            self.history.drain(..self.history.len() - MOST_HISTORY);
        }
        Ok(())
    }

    /// Drift of a closed window: the e-detectors step through its moments, the window's own test has its share of the budget.
    fn close_drift(&mut self, report: &Report, whole: &Profile, window: (i64, i64), rows: &mut Vec<Row>) {
        let mut bets: BTreeMap<String, Row> = BTreeMap::new();
        let tiles = self.tiles.range(window.0..window.1).map(|(start, tile)| (*start, &tile.profile));
        for (column, (start, end), outcome) in self.bets.close(window, whole, tiles) {
            let row = Row {
                value: Some(outcome.wealth),
                threshold: Some(1.0),
                n_reference: Some(self.reference.rows),
                n_current: Some(whole.rows),
                window_start: Some(start),
                window_end: Some(end),
                reference: Some(self.reference.id().to_owned()),
                reason: outcome.alarm,
                ..Row::blank(&column, Method::EDetector)
            };
            // Of the moments of a window the one that alarmed counts, else the last.
            if row.reason.is_some() || bets.get(&column).is_none_or(|before| before.reason.is_none()) {
                bets.insert(column, row);
            }
        }
        let tested = report.columns.iter().filter(|column| column.role.is_tested()).count().max(1) as f64;
        let share = 0.5 * (window.1 - window.0) as f64 / (tested * self.config.ticket_every as f64);
        let level = share.min(self.config.settings.alpha());
        for column in report.columns.iter().filter(|column| column.role.is_tested()) {
            let own = || report.rows.iter().filter(|row| row.column == column.column && row.verdict.is_some());
            let Some(worst) = column.verdict.and_then(|verdict| own().find(|row| row.verdict == Some(verdict))) else { continue };
            let count = own().filter(|row| row.p_value.is_some()).count() as f64;
            let p = own().filter_map(|row| row.p_value).fold(1.0, f64::min) * count;
            let mut verdict = worst.verdict.unwrap_or(Verdict::Insufficient);
            if verdict >= Verdict::Warning && p > level {
                verdict = Verdict::Info;
            }
            let broken =
                verdict == Verdict::Critical && matches!(worst.method, Method::NullShare | Method::NonfiniteShare | Method::UnseenShare);
            let severity = if broken { Severity::Page } else { Severity::Ticket };
            let cause = || {
                let moved = column.moved.iter().take(3);
                let text: Vec<String> = moved
                    .map(|moved| format!("{} went from {:.1} % to {:.1} %", moved.bin, 100.0 * moved.reference, 100.0 * moved.current))
                    .collect();
                (!text.is_empty()).then(|| text.join("; "))
            };
            let alarm = bets.get(&column.column).filter(|row| row.reason.is_some());
            let column = column.column.as_str();
            match alarm {
                Some(row) if verdict < Verdict::Warning => {
                    let judgement = Judgement { column, verdict: Verdict::Warning, severity: Severity::Ticket, row, cause: cause() };
                    self.alerts.judge(&judgement, window);
                }
                // An alert of the e-detector alone does not end with one mild window.
                None if verdict < Verdict::Warning
                    && self.bets.is_open(column)
                    && self.alerts.rests_on(column) == Some(Method::EDetector) => {}
                _ => self.alerts.judge(&Judgement { column, verdict, severity, row: worst, cause: cause() }, window),
            }
        }
        rows.extend(bets.into_values());
    }

    fn summarise(&self, tile: &Tile) -> Result<Summary> {
        let auc = tile.auc.score(self.config.settings.confidence);
        Ok(Summary {
            events: tile.profile.rows,
            labelled: tile.labelled,
            latency_p50: tile.latency.quantile(0.5)?,
            latency_p99: tile.latency.quantile(0.99)?,
            auc: auc.as_ref().map(|score| score.value),
            auc_lower: auc.as_ref().and_then(|score| score.lower),
            auc_upper: auc.as_ref().and_then(|score| score.upper),
            report: compare(&self.reference, &tile.profile, &self.config.settings)?,
        })
    }

    /// Numbers and drift of `[start, end)`, cut at tiles; `None` without events.
    ///
    /// # Errors
    /// None in practice.
    pub fn summary(&self, start: i64, end: i64) -> Result<Option<Summary>> {
        self.merged(start, end)?.map(|tile| self.summarise(&tile)).transpose()
    }

    /// Everything the monitor knows, its reference included: equal monitors give equal bytes.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut writer = Writer::new();
        writer.str(&json(&self.config)?);
        writer.bytes(&self.reference.to_bytes());
        writer.len(self.tiles.len());
        for (start, tile) in &self.tiles {
            writer.i64(*start);
            tile.encode(&mut writer);
        }
        self.join.encode(&mut writer);
        writer.bool(self.closed.is_some());
        writer.i64(self.closed.unwrap_or_default());
        writer.u64(self.late);
        writer.u64(self.untimed);
        writer.str(&json(&self.history)?);
        writer.str(&json(&self.alerts)?);
        writer.str(&json(self.bets.wealth())?);
        writer.str(&json(self.bets.moments())?);
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
        let tiles = reader.len(8)?;
        for _ in 0..tiles {
            let start = reader.i64()?;
            if window::start_of(start, out.tile) != start || out.tiles.last_key_value().is_some_and(|(last, _)| *last >= start) {
                return Err(Error::decode("the tiles of a monitor are out of order"));
            }
            out.tiles.insert(start, Tile::decode(&mut reader, &reference)?);
        }
        out.join = LabelJoin::decode(&mut reader)?;
        let any = reader.bool()?;
        out.closed = Some(reader.i64()?).filter(|_| any);
        (out.late, out.untimed) = (reader.u64()?, reader.u64()?);
        out.history = parsed(reader.str()?)?;
        out.alerts = parsed(reader.str()?)?;
        out.bets.restore(parsed(reader.str()?)?, parsed(reader.str()?)?);
        reader.finish()?;
        Ok(out)
    }

    /// What it promises about false alerts, in words.
    pub fn policy(&self) -> String {
        let days = self.config.ticket_every as f64 / window::DAY as f64;
        format!(
            "At most one false ticket in {days} days, in expectation and over all columns together, whatever the dependence between them, \
             while no column moves farther from its reference than {} in Kolmogorov-Smirnov distance (plus what the reference's own \
             windows of this length reached) and no share of nulls by more than 0.02: half of it for the e-detectors, which bet once per \
             closed minute or tile, half for the tests of whole windows. Rules on metrics and latency report what happened and lie outside it.",
            crate::bets::TOLERANCE
        )
    }

    /// The name of the model.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// What it is compared with.
    pub fn reference(&self) -> &Arc<Reference> {
        &self.reference
    }

    /// The tested rows and the metrics of every closed window.
    pub fn history(&self) -> &[Row] {
        &self.history
    }

    /// Every change of an alert.
    pub fn alerts(&self) -> &[Alert] {
        &self.alerts.changes
    }

    /// Counts of what did not go the usual way: late, without time, labels without event, given up.
    pub fn counts(&self) -> [(&'static str, u64); 4] {
        [("late", self.late), ("untimed", self.untimed), ("orphan_labels", self.join.orphans() as u64), ("dropped", self.join.dropped)]
    }
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::invalid(error.to_string()))
}

fn parsed<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::decode(format!("a part of the monitor could not be read: {error}")))
}

/// Judges a metric's row by a rule and writes the verdict into it.
fn judge_rule(rule: &Rule, row: &mut Row) -> Verdict {
    let threshold = rule.below.or(rule.above);
    row.threshold = threshold;
    let bad = match (rule.below, rule.above) {
        // With an interval the rule waits until the whole of it is beyond.
        (Some(below), _) => row.upper.or(row.value).map(|value| value < below),
        (_, Some(above)) => row.lower.or(row.value).map(|value| value > above),
        _ => None,
    };
    let verdict = match bad {
        Some(true) => Verdict::Warning,
        Some(false) => Verdict::Ok,
        None => Verdict::Insufficient,
    };
    row.verdict = Some(verdict);
    let side = if rule.below.is_some() { "below" } else { "above" };
    let number = threshold.unwrap_or(0.0);
    row.reason = match (verdict, row.lower, row.upper, row.value) {
        (Verdict::Insufficient, ..) => Some("nothing to judge yet".to_owned()),
        (Verdict::Warning, Some(lower), Some(upper), _) => Some(format!("{lower:.3} to {upper:.3} is {side} {number}")),
        (Verdict::Warning, .., Some(value)) => Some(format!("{value:.4} is {side} {number}")),
        _ => None,
    };
    verdict
}
