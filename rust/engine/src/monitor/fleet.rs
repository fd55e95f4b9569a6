//! A monitor of a fleet: one that only gathers, and cuts what it has gathered into deltas; one that takes deltas and judges.

use std::sync::Arc;

use barograph_core::hash::murmur3_x64_128;
use barograph_core::sketches::ExponentialHistogram;
use barograph_core::{Error, Result};

use super::{Monitor, deployed};
use crate::delta::{Delta, Layout};
use crate::labels::{Change, Label, Prediction};
use crate::report::{MODEL, Method};
use crate::window::start_of;

/// What waits to be told: predictions and labels, in the order they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Untold {
    pub(crate) predictions: Vec<(u128, Prediction)>,
    pub(crate) labels: Vec<(u128, Label)>,
    /// Versions and deploys that were not told.
    pub(crate) deploys: Vec<(String, i64, i64)>,
}

/// What became of a delta.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Events whose tile closed longer ago than the allowed lateness: they are counted, and nothing else.
    pub too_late: u64,
}

impl Monitor {
    /// From now on predictions and labels are gathered, not joined: whoever takes the deltas joins them. What waits to be joined by now
    /// stays with this monitor.
    pub fn hand_on(&mut self) {
        self.untold.get_or_insert_default();
    }

    /// Whether it gathers.
    pub fn hands_on(&self) -> bool {
        self.untold.is_some()
    }

    /// Predictions and labels that are gathered.
    pub fn untold(&self) -> usize {
        self.untold.as_ref().map_or(0, |untold| untold.predictions.len() + untold.labels.len())
    }

    /// It joins again, also what it has gathered.
    ///
    /// # Errors
    /// None in practice.
    pub fn join_alone(&mut self) -> Result<()> {
        let Some(untold) = self.untold.take() else { return Ok(()) };
        self.join_all(untold.predictions, untold.labels)
    }

    /// What counts have to have been made by to be added here.
    pub fn layout(&self) -> Layout {
        let policy = &self.config.policy;
        let calls: Vec<Option<f64>> = policy.rules.iter().map(|rule| rule.threshold.filter(|_| rule.slo.is_some())).collect();
        let text = format!("{} {:?} {:?} {calls:?}", policy.window.0, policy.task, policy.classes);
        Layout { reference: self.reference.id().to_owned(), shape: murmur3_x64_128(text.as_bytes(), 0).0 }
    }

    pub(crate) fn tile_length(&self) -> i64 {
        self.tile
    }

    pub(crate) fn segment_sizes(&self) -> Vec<Vec<usize>> {
        self.segments.sizes()
    }

    pub(crate) fn moment_sizes(&self) -> Vec<Vec<usize>> {
        self.bets.sizes().into_iter().map(|size| vec![size]).collect()
    }

    pub(crate) fn moment_length(&self) -> i64 {
        self.bets.length()
    }

    /// Takes out what was seen since the last time, as deltas: more than one if its tiles are many, and none if there is nothing. `until` is
    /// the clock by which it was.
    ///
    /// # Errors
    /// None in practice; what could not be taken out stays.
    pub fn cut(&mut self, until: i64) -> Result<Vec<Delta>> {
        self.settle()?;
        let mut tiles = self.tiles.between(i64::MIN, i64::MAX)?;
        let most = Delta::most_tiles(&self.reference);
        let mut out = Vec::new();
        while tiles.len() > most {
            let rest = tiles.split_off(most);
            out.push(Delta { tiles: std::mem::replace(&mut tiles, rest), ..Delta::empty(self.layout(), i64::MIN)? });
        }
        let fresh = self.tiles.cleared();
        let mut last = Delta::empty(self.layout(), until)?;
        last.lifetime = std::mem::replace(&mut self.lifetime, ExponentialHistogram::new(6)?);
        self.tiles = fresh;
        last.tiles = tiles;
        (last.events, last.untimed) = (std::mem::take(&mut self.seen), std::mem::take(&mut self.untimed));
        (last.segments, last.pooled) = self.segments.take();
        last.moments = self.bets.take();
        last.pulse = std::mem::take(&mut self.pulse);
        if let Some(untold) = &mut self.untold {
            let untold = std::mem::take(untold);
            (last.predictions, last.labels, last.deploys) = (untold.predictions, untold.labels, untold.deploys);
        }
        // Rows of deploys are told with the delta.
        self.history.retain(|row| row.method != Method::Deploy);
        self.deploys.clear();
        out.push(last);
        Ok(out)
    }

    /// Adds what another monitor has seen, as if this one had: tiles, counts, and predictions and labels, which are joined here.
    ///
    /// # Errors
    /// `Incompatible` for a delta of another reference or policy; nothing is added then.
    pub fn add_delta(&mut self, delta: &Delta) -> Result<Merged> {
        let layout = self.layout();
        if delta.layout != layout {
            let ids = [&delta.layout.reference, &layout.reference].map(|id| id.get(..8).unwrap_or(id).to_owned());
            return Err(if ids[0] == ids[1] {
                Error::incompatible("the delta was counted by another policy: its window, task, classes or objectives differ")
            } else {
                Error::incompatible(format!("the delta was counted by reference {}, expected {}", ids[0], ids[1]))
            });
        }
        let mut out = Merged::default();
        let reference = Arc::clone(&self.reference);
        let oldest = self.closed.map(|closed| closed.saturating_sub(self.config.policy.lateness.0));
        for (start, theirs) in &delta.tiles {
            if oldest.is_some_and(|oldest| *start < oldest) {
                out.too_late += theirs.profile.rows;
                continue;
            }
            self.late += if self.closed.is_some_and(|closed| *start < closed) { theirs.profile.rows } else { 0 };
            if let Some(mine) = self.tiles.tile(*start, &reference)? {
                let window = mine.profile.window;
                mine.add(theirs)?;
                mine.profile.window = window;
            }
        }
        self.too_late += out.too_late;
        let closed = self.closed.unwrap_or(i64::MIN);
        self.bets.add(&delta.moments, closed);
        self.segments.add(&delta.segments, &delta.pooled, closed);
        self.pulse.merge(&delta.pulse);
        self.lifetime.merge(&delta.lifetime)?;
        self.untimed += delta.untimed;
        self.seen += delta.events;
        self.sampled_out += delta.sampled_out;
        for (version, time, until) in &delta.deploys {
            self.deployed_elsewhere(version, *time, *until);
        }
        let predictions = delta.predictions.iter().filter(|(_, prediction)| oldest.is_none_or(|oldest| prediction.tile >= oldest));
        self.join_all(predictions.cloned().collect(), delta.labels.clone())?;
        Ok(out)
    }

    /// A version that several have seen is one deploy, at the earliest time.
    fn deployed_elsewhere(&mut self, version: &str, time: i64, until: i64) {
        let words = deployed(version);
        let start = start_of(time, self.config.policy.window.0);
        let known = self.versions.contains(version);
        let row = self.history.iter_mut().find(|row| row.method == Method::Deploy && row.reason.as_deref() == Some(&words));
        match row.filter(|row| known && time == until && row.column == MODEL) {
            Some(row) => {
                if row.window_start.is_some_and(|before| start < before) {
                    row.window_start = Some(start);
                    row.window_end = Some(start.saturating_add(self.config.policy.window.0));
                }
            }
            None => self.deploy(version, time, until),
        }
    }

    fn join_all(&mut self, predictions: Vec<(u128, Prediction)>, labels: Vec<(u128, Label)>) -> Result<()> {
        let mut changes: Vec<Change> = Vec::new();
        for (id, prediction) in predictions {
            changes.extend(self.join.event(id, prediction));
        }
        for (id, label) in labels {
            changes.extend(self.join.label(id, label));
        }
        // A label may be told before the tile of its event.
        let reference = Arc::clone(&self.reference);
        for change in &changes {
            self.tiles.tile(change.prediction.tile, &reference)?;
        }
        self.relabel(changes)
    }
}
