//! Sampled events gathered before they are added: a few at a time would cost more than all that sampling saves.

use std::borrow::Cow;

use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;
use barograph_core::{Error, Result};

use super::{MOST_HALVINGS, Monitor};
use crate::events::Marks;
use crate::window;

/// Events that are added together, and bytes of them.
const MOST: usize = 4096;
const MOST_BYTES: usize = 8 << 20;

/// Events that are not added yet, alike in their columns and in what each stands for.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered {
    batches: Vec<RecordBatch>,
    marks: Marks,
    bytes: usize,
}

impl Gathered {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Bytes of them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many events they stand for.
    pub(super) fn worth(&self) -> u64 {
        (self.marks.times.len() as u64) << self.marks.halvings.min(MOST_HALVINGS)
    }

    /// And how many of these were left out.
    pub(super) fn left_out(&self) -> u64 {
        self.worth() - self.marks.times.len() as u64
    }
}

impl Monitor {
    /// Adds events at once, or, where they are sampled, later with others like them.
    ///
    /// # Errors
    /// None in practice.
    pub fn add_gathered(&mut self, batch: RecordBatch, marks: Marks) -> Result<()> {
        if marks.halvings == 0 { self.add(&batch, &marks) } else { self.gather(batch, marks) }
    }

    /// Adds events later, with others like them.
    pub(super) fn gather(&mut self, batch: RecordBatch, marks: Marks) -> Result<()> {
        let alike = self.gathered.batches.first().is_none_or(|first| first.schema_ref() == batch.schema_ref())
            && (self.gathered.is_empty() || self.gathered.marks.halvings == marks.halvings);
        if !alike {
            self.settle()?;
        }
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.gathered.bytes += batch.get_array_memory_size();
        self.gathered.batches.push(batch);
        self.gathered.marks.append(marks);
        if self.gathered.marks.times.len() >= MOST || self.gathered.bytes > MOST_BYTES { self.settle() } else { Ok(()) }
    }

    /// Adds what was gathered.
    ///
    /// # Errors
    /// None in practice.
    pub fn settle(&mut self) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        let Some(first) = gathered.batches.first() else { return Ok(()) };
        let whole = concat_batches(first.schema_ref(), &gathered.batches);
        self.add(&whole.map_err(|error| Error::invalid(format!("events could not be gathered: {error}")))?, &gathered.marks)
    }

    /// Adds what was gathered if a window closes, or an objective is judged, by `now`.
    pub(super) fn settle_before(&mut self, now: i64) -> Result<()> {
        let length = self.config.policy.window.0;
        let due = |time: &i64| window::start_of(*time, length).saturating_add(length) <= now;
        let objectives = self.config.policy.rules.iter().any(|rule| rule.slo.is_some());
        let closes = || self.gathered.marks.times.iter().any(due) || self.next_window(now).is_some();
        if !self.gathered.is_empty() && (objectives || closes()) { self.settle() } else { Ok(()) }
    }

    /// The monitor with what was gathered in it.
    pub(super) fn settled(&self) -> Result<Cow<'_, Self>> {
        if self.gathered.is_empty() {
            return Ok(Cow::Borrowed(self));
        }
        let mut own = self.clone();
        own.settle()?;
        Ok(Cow::Owned(own))
    }
}
