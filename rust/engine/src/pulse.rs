//! The model's pulse: events, calls, errors and slow calls of every minute of the last days.

use std::collections::BTreeMap;

use barograph_core::codec::{Reader, Writer};
use barograph_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::rules::{LONGEST_BURN, Rule};
use crate::window::{MINUTE, start_of};

/// Objectives are judged so often.
const STEP: i64 = 5 * MINUTE;

/// Counts of a minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Minute {
    events: u64,
    calls: u64,
    errors: u64,
    /// Per rule, calls beyond its threshold; empty if no call was slow.
    slow: Vec<u64>,
    /// Sums of the squares of what events and calls stand for, less their number.
    #[serde(default)]
    spread: [u64; 2],
}

/// Counts of a stretch of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Total {
    pub(crate) events: u64,
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    slow: Vec<u64>,
    spread: [u64; 2],
}

impl Total {
    /// How many events, and calls, count as one independent one because some were left out: at least 1 (Kish).
    pub(crate) fn thinning(&self) -> (f64, f64) {
        let of = |spread: u64, count: u64| 1.0 + spread as f64 / count.max(1) as f64;
        (of(self.spread[0], self.events), of(self.spread[1], self.calls))
    }

    pub(crate) fn slow(&self, rule: usize) -> u64 {
        self.slow.get(rule).copied().unwrap_or(0)
    }
}

/// Minutes of as long as a burn looks back, and an hour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pulse {
    minutes: BTreeMap<i64, Minute>,
    /// What lies before this was judged.
    pub(crate) judged: Option<i64>,
}

impl Pulse {
    fn minute(&mut self, time: i64) -> Option<&mut Minute> {
        let start = start_of(time, MINUTE);
        if !self.minutes.contains_key(&start) {
            let oldest = self.minutes.last_key_value().map_or(start, |(last, _)| last.saturating_sub(LONGEST_BURN + 60 * MINUTE));
            if start < oldest {
                return None;
            }
            self.minutes.insert(start, Minute::default());
            let oldest = self.minutes.last_key_value().map_or(start, |(last, _)| last.saturating_sub(LONGEST_BURN + 60 * MINUTE));
            while self.minutes.first_key_value().is_some_and(|(first, _)| *first < oldest) {
                self.minutes.pop_first();
            }
        }
        self.minutes.get_mut(&start)
    }

    /// Counts events of one minute, some of them errors; each stands for so many.
    pub(crate) fn events(&mut self, time: i64, events: u64, errors: u64, each: u64) {
        if let Some(minute) = self.minute(time) {
            minute.events += events * each;
            minute.errors += errors * each;
            minute.spread[0] = minute.spread[0].saturating_add(events.saturating_mul(each * (each - 1)));
        }
    }

    /// Counts calls by what each of them took; each stands for so many.
    pub(crate) fn calls(&mut self, time: i64, seconds: f64, count: u64, each: u64, rules: &[Rule]) {
        let Some(minute) = self.minute(time) else { return };
        minute.calls += count * each;
        minute.spread[1] = minute.spread[1].saturating_add(count.saturating_mul(each * (each - 1)));
        for (at, rule) in rules.iter().enumerate() {
            if rule.threshold.is_some_and(|threshold| seconds > threshold) {
                minute.slow.resize(rules.len(), 0);
                minute.slow[at] += count * each;
            }
        }
    }

    /// Adds another's minutes.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (start, theirs) in &other.minutes {
            let Some(mine) = self.minute(*start) else { continue };
            mine.events += theirs.events;
            mine.calls += theirs.calls;
            mine.errors += theirs.errors;
            mine.spread.iter_mut().zip(theirs.spread).for_each(|(to, from)| *to = to.saturating_add(from));
            mine.slow.resize(mine.slow.len().max(theirs.slow.len()), 0);
            mine.slow.iter_mut().zip(&theirs.slow).for_each(|(to, from)| *to += from);
        }
    }

    /// The last minute.
    pub(crate) fn last(&self) -> Option<i64> {
        self.minutes.last_key_value().map(|(start, _)| *start)
    }

    /// Appends the minutes to a delta.
    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.len(self.minutes.len());
        for (start, minute) in &self.minutes {
            writer.i64(*start);
            let [events, calls] = minute.spread;
            [minute.events, minute.calls, minute.errors, events, calls].into_iter().for_each(|count| writer.u64(count));
            writer.len(minute.slow.len());
            minute.slow.iter().for_each(|count| writer.u64(*count));
        }
    }

    /// Reads them back, of so many rules.
    ///
    /// # Errors
    /// `Decode` for bytes that `encode` did not write.
    pub(crate) fn decode(reader: &mut Reader<'_>, rules: usize) -> Result<Self> {
        let mut out = Self::default();
        for _ in 0..reader.len(7)? {
            let start = reader.i64()?;
            let (events, calls, errors) = (reader.count()?, reader.count()?, reader.count()?);
            let mut minute = Minute { events, calls, errors, slow: Vec::new(), spread: [reader.u64()?, reader.u64()?] };
            let slow = reader.len(1)?;
            let fits = (slow == 0 || slow == rules) && start_of(start, MINUTE) == start && out.last().is_none_or(|last| last < start);
            if !fits {
                return Err(Error::decode("the minutes of a delta are not those of its rules"));
            }
            minute.slow = (0..slow).map(|_| reader.count()).collect::<Result<_>>()?;
            out.minutes.insert(start, minute);
        }
        Ok(out)
    }

    /// Counts of the minutes that begin in `[start, end)`.
    pub(crate) fn total(&self, start: i64, end: i64) -> Total {
        let mut out = Total::default();
        for minute in self.minutes.range(start..end.max(start)).map(|(_, minute)| minute) {
            out.events += minute.events;
            out.calls += minute.calls;
            out.errors += minute.errors;
            out.spread.iter_mut().zip(minute.spread).for_each(|(to, from)| *to = to.saturating_add(from));
            out.slow.resize(out.slow.len().max(minute.slow.len()), 0);
            out.slow.iter_mut().zip(&minute.slow).for_each(|(to, from)| *to += from);
        }
        out
    }

    /// When to judge up to `now`: every five minutes after the last time, as long as something can change.
    pub(crate) fn due(&self, now: i64) -> Vec<i64> {
        let Some((first, last)) = self.minutes.first_key_value().zip(self.minutes.last_key_value()).map(|(a, b)| (*a.0, *b.0)) else {
            return Vec::new();
        };
        let start = self.judged.map_or(first, |judged| judged.max(first));
        // Three days after the last event every window is empty.
        let end = start_of(now, MINUTE).min(last + LONGEST_BURN + MINUTE);
        let mut out = Vec::new();
        let mut at = start_of(start, STEP) + STEP;
        while at <= end {
            out.push(at);
            at += STEP;
        }
        out
    }
}
