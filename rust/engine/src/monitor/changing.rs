//! A monitor whose owner changes his mind, and what reaches it otherwise than as events.

use std::sync::Arc;

use barograph_core::sketches::ExponentialHistogram;
use barograph_core::{Error, Result};

use super::{Config, Monitor};
use crate::governor::Detail;
use crate::policy::Policy;
use crate::profile::Profile;
use crate::reference::Reference;
use crate::window;

/// Open windows that are told.
const MOST_OPEN: usize = 100;

impl Monitor {
    /// Goes on with another reference: tiles and bets begin anew, history, alerts, counters and what waits
    /// for labels stay. What was open may end by what
    /// the new reference says of the next windows.
    ///
    /// # Errors
    /// `InvalidArgument` for a policy that does not fit the reference; nothing is changed then.
    pub fn replace_reference(&mut self, reference: Arc<Reference>, now: i64) -> Result<()> {
        self.settle()?;
        let fresh = Self::new(self.config.clone(), reference)?;
        let mut before = std::mem::replace(self, fresh);
        // A label finds its event still; where that one's tile is gone, nothing comes of it.
        std::mem::swap(&mut self.join, &mut before.join);
        let id = self.reference.id().get(..8).unwrap_or_default().to_owned();
        self.carry(before);
        self.deploy(&format!("reference {id}"), now, now);
        Ok(())
    }

    /// Goes on with another policy. Where windows, task and classes stay the same, so do tiles, bets and what waits for labels; where
    /// they change, these begin anew. Rules begin anew; history, alerts and counters stay.
    ///
    /// # Errors
    /// `InvalidArgument` for a policy that cannot be; nothing is changed then.
    pub fn restate(&mut self, policy: Policy) -> Result<()> {
        if policy == self.config.policy {
            return Ok(());
        }
        self.settle()?;
        let alike = policy.window == self.config.policy.window
            && policy.task == self.config.policy.task
            && policy.classes == self.config.policy.classes
            && policy.allowance() == self.config.policy.allowance()
            && policy.labels == self.config.policy.labels;
        let same_rules = policy.rules == self.config.policy.rules;
        let fresh = Self::new(Config { policy, ..self.config.clone() }, Arc::clone(&self.reference))?;
        let mut before = std::mem::replace(self, fresh);
        if alike {
            std::mem::swap(&mut self.tiles, &mut before.tiles);
            std::mem::swap(&mut self.join, &mut before.join);
            std::mem::swap(&mut self.segments, &mut before.segments);
            std::mem::swap(&mut self.pulse, &mut before.pulse);
            self.bets.restore(before.bets.wealth().clone(), before.bets.moments().clone());
            self.bets.forgotten = before.bets.forgotten;
        }
        if same_rules {
            std::mem::swap(&mut self.standings, &mut before.standings);
            std::mem::swap(&mut self.watchers, &mut before.watchers);
        }
        self.carry(before);
        Ok(())
    }

    /// What outlives a reference and a policy.
    fn carry(&mut self, before: Self) {
        self.closed = before.closed.map(|closed| window::start_of(closed, self.config.policy.window.0));
        self.history = before.history;
        self.alerts = before.alerts;
        self.lifetime = before.lifetime;
        self.delays = before.delays;
        self.deploys = before.deploys;
        self.versions = before.versions;
        (self.late, self.too_late, self.untimed) = (before.late, before.too_late, before.untimed);
        (self.muted, self.seen, self.sampled_out) = (before.muted, before.seen, before.sampled_out);
        self.keep(before.detail);
        self.untold = before.untold;
    }

    /// Adds a profile of events that were summarised elsewhere with this monitor's reference, at their time. Its columns and rows count
    /// for drift; the e-detectors, which bet minute by minute, and segments do not see them.
    ///
    /// # Errors
    /// `Incompatible` for a profile made without this reference; nothing is added then.
    pub fn add_profile(&mut self, profile: &Profile, time: i64) -> Result<()> {
        if profile.reference.as_deref() != Some(self.reference.id()) {
            let id = self.reference.id().get(..8).unwrap_or_default();
            return Err(Error::incompatible(format!("the profile was not made with reference {id} of model {:?}", self.name()))
                .hint("make it by `bg.profile(frame, reference=...)`"));
        }
        let start = window::start_of(time, self.tile);
        if self.closed.is_some_and(|closed| start < closed.saturating_sub(self.config.policy.lateness.0)) {
            self.too_late += profile.rows;
        } else {
            if self.closed.is_some_and(|closed| start < closed) {
                self.late += profile.rows;
            }
            let reference = Arc::clone(&self.reference);
            if let Some(tile) = self.tiles.tile(start, &reference)? {
                let window = tile.profile.window;
                tile.profile.merge(profile)?;
                tile.profile.window = window;
            }
        }
        self.seen += profile.rows;
        Ok(())
    }

    /// Adds latencies, and requests that are no events with how many of them failed, measured elsewhere.
    ///
    /// # Errors
    /// None in practice.
    pub fn measured(&mut self, latency: &ExponentialHistogram, requests: u64, failures: u64, time: i64) -> Result<()> {
        let reference = Arc::clone(&self.reference);
        if let Some(tile) = self.tiles.tile(window::start_of(time, self.tile), &reference)? {
            tile.latency.merge(latency)?;
            tile.calls = tile.calls.saturating_add(requests);
            tile.errors = tile.errors.saturating_add(failures);
            self.lifetime.merge(latency)?;
        }
        if self.config.policy.rules.iter().any(|rule| rule.slo.is_some()) {
            self.pulse.events(time, requests, failures, 1);
            for cell in latency.cells() {
                self.pulse.calls(time, cell.value(), cell.count, 1, &self.config.policy.rules);
            }
        }
        Ok(())
    }

    /// Forgets what is held for an id; what was counted of it stays, as nobody can tell it from the rest.
    ///
    /// # Errors
    /// None in practice.
    pub fn erase(&mut self, key: u128) -> Result<()> {
        self.settle()?;
        self.join.erase(key);
        if let Some(untold) = &mut self.untold {
            untold.predictions.retain(|(id, _)| *id != key);
            untold.labels.retain(|(id, _)| *id != key);
        }
        Ok(())
    }

    /// Keeps this much detail from now on: segments beyond the largest are pooled, past windows have less memory.
    pub fn keep(&mut self, detail: Detail) {
        self.detail = detail;
        self.segments.keep(detail.segments());
        self.tiles.keep(detail.lattice());
    }

    /// What it keeps.
    pub fn detail(&self) -> Detail {
        self.detail
    }

    /// Bytes that it takes, about; its reference, which others may share, left out.
    pub fn bytes(&self) -> usize {
        let history = self.history.len() * super::closing::HISTORY_ROW;
        let parts = [self.tiles.bytes(), self.segments.bytes(), self.bets.bytes(), self.gathered.bytes()];
        parts.into_iter().sum::<usize>() + history + self.join.bytes()
    }

    /// Windows that hold events and are not closed, the first hundred.
    ///
    /// # Errors
    /// None in practice.
    pub fn open_windows(&self) -> Result<Vec<(i64, i64)>> {
        let own = self.settled()?;
        let length = self.config.policy.window.0;
        let (mut out, mut from) = (Vec::new(), self.closed.unwrap_or(i64::MIN));
        while let Some(start) = own.tiles.next(from).map(|start| window::start_of(start, length)).filter(|_| out.len() < MOST_OPEN) {
            from = start.saturating_add(length);
            out.push((start, from));
        }
        Ok(out)
    }
}
