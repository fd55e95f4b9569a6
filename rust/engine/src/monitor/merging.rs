//! What several workers saw of one model, brought together.

use std::sync::Arc;

use barograph_core::{Error, Result};

use super::{Monitor, deployed};
use crate::report::Row;

impl Monitor {
    /// Adds what another monitor has observed and been told, as if this one had. It must be of the same reference and policy, and
    /// must not have closed a window: what it sees belongs to windows that are closed here.
    ///
    /// # Errors
    /// `Incompatible` for another reference or policy, or a monitor that has closed windows; nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if other.reference.id() != self.reference.id() {
            let ids = [self.reference.id(), other.reference.id()].map(|id| id.get(..8).unwrap_or(id).to_owned());
            return Err(Error::incompatible(format!("`other` has reference {}, expected {}", ids[1], ids[0])));
        }
        if other.config.policy != self.config.policy || other.config.privacy != self.config.privacy {
            return Err(Error::incompatible("`other` has another policy or privacy").hint("make all workers' monitors alike"));
        }
        if other.closed.is_some() {
            return Err(Error::incompatible("`other` has closed windows of its own")
                .hint("workers only observe (`ticks=\"manual\"`); one monitor that all are merged into ticks"));
        }
        self.settle()?;
        let settled = other.settled()?;
        let other = settled.as_ref();
        let reference = Arc::clone(&self.reference);
        for (start, theirs) in other.tiles.between(i64::MIN, i64::MAX)? {
            let closed = self.closed.filter(|closed| start < *closed);
            if closed.is_some_and(|closed| start < closed.saturating_sub(self.config.policy.lateness.0)) {
                self.too_late += theirs.profile.rows;
                continue;
            }
            self.late += if closed.is_some() { theirs.profile.rows } else { 0 };
            if let Some(mine) = self.tiles.tile(start, &reference)? {
                mine.merge(&theirs)?;
            }
        }
        let closed = self.closed.unwrap_or(i64::MIN);
        self.bets.merge(&other.bets, closed);
        self.segments.merge(&other.segments, closed);
        self.pulse.merge(&other.pulse);
        self.lifetime.merge(&other.lifetime)?;
        self.delays.merge(&other.delays);
        let changes = self.join.merge(&other.join);
        self.relabel(changes)?;
        // A version that both have seen is one deploy, the one that was seen here.
        let known =
            |row: &&Row| row.reason.as_deref().is_some_and(|reason| self.versions.iter().any(|version| reason == deployed(version)));
        let rows: Vec<Row> = other.history.iter().filter(|row| !known(row)).cloned().collect();
        self.history.extend(rows);
        self.deploys.extend(&other.deploys);
        self.versions.extend(other.versions.iter().cloned());
        self.late += other.late;
        self.untimed += other.untimed;
        self.seen += other.seen;
        self.sampled_out += other.sampled_out;
        Ok(())
    }
}
