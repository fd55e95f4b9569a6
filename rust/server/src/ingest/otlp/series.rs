//! Cumulative series: the point that was counted last of each, so that the next one counts what came since.
//!
//! Rules: <https://opentelemetry.io/docs/specs/otel/metrics/data-model/#resets-and-gaps>, and of overlap.
//!
//! A point counts when the log has what came by it. Until then it is *in flight*: points of the same series in other requests are passed
//! over (a later one says it all again), later ones of the same request continue it.

use std::collections::HashMap;
use std::sync::Arc;

use super::amount::{Amount, Change};

/// Series that are kept.
pub const MOST_SERIES: usize = 10_000;
/// Counters of them all: 16 MB.
const MOST_COUNTERS: usize = 2_000_000;
/// A series makes place for another when it was silent for so long.
const SILENT: i64 = 15 * 60 * 1_000_000_000;

/// A cumulative point.
#[derive(Debug)]
pub struct State {
    /// Since when it counts; 0 if that is not known.
    pub start: u64,
    /// Until when.
    pub time: u64,
    /// How much.
    pub amount: Amount,
}

#[derive(Debug, Default)]
struct Series {
    /// What was counted.
    counted: Option<Arc<State>>,
    /// What a request brought.
    flight: Option<(u64, Arc<State>)>,
    /// When a point came, by our clock.
    used: i64,
}

impl Series {
    fn size(&self) -> usize {
        let of = |state: &Arc<State>| state.amount.size();
        self.counted.as_ref().map_or(0, of) + self.flight.as_ref().map_or(0, |(_, state)| of(state))
    }
}

/// What a point brings.
#[derive(Debug)]
pub enum Step {
    /// Nothing: it was counted, or will be with the next one.
    Repeated,
    /// So much, once this state is settled; nothing if it is the first that is known of the series.
    Came(Arc<State>, Option<Amount>),
}

/// All series.
#[derive(Debug)]
pub struct Table {
    series: HashMap<u128, Series>,
    counters: usize,
    /// Series that began after this moment, in nanoseconds, were never counted in part: their first point counts whole.
    fresh: u64,
    /// When it was looked for silent series.
    swept: Option<u64>,
}

impl Table {
    /// None yet; `now` in nanoseconds.
    pub fn new(now: i64) -> Self {
        Self { series: HashMap::new(), counters: 0, fresh: now.unsigned_abs(), swept: None }
    }

    /// Takes a point of a series.
    ///
    /// # Errors
    /// Why it cannot be counted. It is forgotten or starts the series anew, so that the next one can be.
    pub fn step(&mut self, request: u64, key: u128, state: State, now: i64) -> Result<Step, String> {
        let size = state.amount.size();
        if self.counters + size > MOST_COUNTERS || (self.series.len() >= MOST_SERIES && !self.series.contains_key(&key)) {
            self.sweep(request, now);
            if self.counters + size > MOST_COUNTERS || (self.series.len() >= MOST_SERIES && !self.series.contains_key(&key)) {
                return Err(format!(
                    "more than {MOST_SERIES} cumulative series, or more than {MOST_COUNTERS} counters of them, are in use"
                ));
            }
        }
        let fresh = self.fresh;
        let series = self.series.entry(key).or_default();
        series.used = now;
        let before = match &series.flight {
            Some((other, _)) if *other != request => return Ok(Step::Repeated),
            Some((_, state)) => Some(state),
            None => series.counted.as_ref(),
        };
        let known = state.start > 0 && state.start < state.time;
        let came = match before {
            None => Ok((known && state.start > fresh).then(|| state.amount.clone())),
            Some(before) if state.time <= before.time => return Ok(Step::Repeated),
            Some(before) if state.start == before.start || state.start == 0 => match state.amount.since(&before.amount) {
                Change::More(more) => Ok(Some(more)),
                Change::Less => Ok(Some(state.amount.clone())),
                Change::Other => Err("its buckets are others than before".to_owned()),
            },
            // Nothing of it can be in what was counted.
            Some(before) if state.start >= before.time => Ok(known.then(|| state.amount.clone())),
            Some(_) => {
                Err("two senders overlap in it: their resources need attributes that tell them apart, such as service.instance.id".into())
            }
        };
        let state = Arc::new(state);
        match came {
            Ok(came) => {
                let old = series.size();
                series.flight = Some((request, Arc::clone(&state)));
                self.counters = self.counters + series.size() - old;
                Ok(Step::Came(state, came))
            }
            Err(why) => {
                self.settle(key, state);
                Err(why)
            }
        }
    }

    /// What this state says was counted.
    pub fn settle(&mut self, key: u128, state: Arc<State>) {
        if let Some(series) = self.series.get_mut(&key)
            // One that was rejected may have been settled before earlier ones of its request.
            && series.counted.as_ref().is_none_or(|counted| counted.time <= state.time)
        {
            let old = series.size();
            series.counted = Some(state);
            self.counters = self.counters + series.size() - old;
        }
    }

    /// A request is done: what it brought and did not settle was not counted.
    pub fn land(&mut self, request: u64, key: u128) {
        if let Some(series) = self.series.get_mut(&key)
            && series.flight.as_ref().is_some_and(|(own, _)| *own == request)
        {
            let old = series.size();
            series.flight = None;
            self.counters = self.counters + series.size() - old;
            if series.counted.is_none() {
                self.series.remove(&key);
            }
        }
    }

    /// Forgets what was silent; once in a request, as it looks at all of them.
    fn sweep(&mut self, request: u64, now: i64) {
        if self.swept == Some(request) {
            return;
        }
        self.swept = Some(request);
        let (counters, fresh) = (&mut self.counters, &mut self.fresh);
        self.series.retain(|_, series| {
            let stays = series.flight.is_some() || series.used >= now.saturating_sub(SILENT);
            if !stays {
                *counters -= series.size();
                // If it comes back, its beginning was counted.
                *fresh = (*fresh).max(series.counted.as_ref().map_or(0, |state| state.time));
            }
            stays
        });
    }

    /// Series of which something is on its way.
    #[cfg(test)]
    pub fn series_in_flight(&self) -> usize {
        self.series.values().filter(|series| series.flight.is_some()).count()
    }

    /// Series and counters that are kept.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        let counters: usize = self.series.values().map(Series::size).sum();
        assert_eq!(counters, self.counters);
        (self.series.len(), counters)
    }
}
