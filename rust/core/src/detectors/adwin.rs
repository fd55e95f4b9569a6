//! ADWIN: a window of variable length that drops its old part when two parts of it have different means.
//!
//! Source: Bifet & Gavaldà, SDM 2007; variance in buckets: Babcock et al., PODS 2003.

use super::{Detect, Domain, between, count};
use crate::error::{Error, Result};

/// Most rows of buckets: row i holds sums of 2^i values.
const MOST_ROWS: usize = 60;

/// Sum and sum of squared deviations of 2^row values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bucket {
    total: f64,
    deviation: f64,
}

/// The detector. False positive rate of each test `delta`; memory grows with the logarithm of the window.
#[derive(Clone, Debug, PartialEq)]
pub struct Adwin {
    delta: f64,
    clock: f64,
    max_buckets: f64,
    min_window: f64,
    grace: f64,
    width: f64,
    total: f64,
    deviation: f64,
    ticks: u64,
    /// Row i: buckets of 2^i values, oldest first.
    rows: Vec<Vec<Bucket>>,
    changed: bool,
}

impl Adwin {
    /// delta in (0, 1); clock: values between two tests; buckets per row; shortest part that is compared; values before the
    /// first test. river's defaults: 0.002, 32, 5, 5, 10.
    ///
    /// # Errors
    /// `InvalidArgument` outside these.
    pub fn new(delta: f64, clock: f64, max_buckets: f64, min_window_length: f64, grace_period: f64) -> Result<Self> {
        Ok(Self {
            delta: between("delta", delta, 0.0, 1.0)?,
            clock: count("clock", clock, 1.0, 1e9)?,
            max_buckets: count("max_buckets", max_buckets, 1.0, 1000.0)?,
            min_window: count("min_window_length", min_window_length, 1.0, 1e9)?,
            grace: count("grace_period", grace_period, 0.0, 1e9)?,
            width: 0.0,
            total: 0.0,
            deviation: 0.0,
            ticks: 0,
            rows: vec![Vec::new()],
            changed: false,
        })
    }

    fn insert(&mut self, value: f64) {
        self.width += 1.0;
        if self.width > 1.0 {
            let distance = value - self.total / (self.width - 1.0);
            self.deviation += (self.width - 1.0) * distance * distance / self.width;
        }
        self.total += value;
        self.rows[0].push(Bucket { total: value, deviation: 0.0 });
        // A row that is over-full hands its two oldest buckets, joined, to the next one.
        let mut row = 0;
        while self.rows[row].len() as f64 > self.max_buckets && row + 1 < MOST_ROWS {
            let size = (1u64 << row) as f64;
            let (a, b) = (self.rows[row][0], self.rows[row][1]);
            self.rows[row].drain(..2);
            let gap = a.total / size - b.total / size;
            let joined = Bucket { total: a.total + b.total, deviation: a.deviation + b.deviation + size * 0.5 * gap * gap };
            if row + 1 == self.rows.len() {
                self.rows.push(Vec::new());
            }
            self.rows[row + 1].push(joined);
            row += 1;
        }
    }

    fn drop_oldest(&mut self) {
        let last = self.rows.len() - 1;
        let size = (1u64 << last) as f64;
        let bucket = self.rows[last].remove(0);
        let mean = bucket.total / size;
        self.width -= size;
        self.total -= bucket.total;
        let rest = self.total / self.width;
        self.deviation -= bucket.deviation + size * self.width * (mean - rest) * (mean - rest) / (size + self.width);
        while self.rows.len() > 1 && self.rows.last().is_some_and(Vec::is_empty) {
            self.rows.pop();
        }
    }

    /// Whether some cut splits the window into parts of different means.
    fn has_cut(&self) -> bool {
        let level = libm::log(2.0 * libm::log(self.width) / self.delta);
        let spread = self.deviation / self.width;
        let (mut n0, mut n1, mut sum0, mut sum1) = (0.0, self.width, 0.0, self.total);
        for (row, buckets) in self.rows.iter().enumerate().rev() {
            let size = (1u64 << row) as f64;
            for (at, bucket) in buckets.iter().enumerate() {
                n0 += size;
                n1 -= size;
                sum0 += bucket.total;
                sum1 -= bucket.total;
                if row == 0 && at + 1 == buckets.len() {
                    return false;
                }
                if n1 >= self.min_window && n0 >= self.min_window {
                    let m = 1.0 / (n0 - self.min_window + 1.0) + 1.0 / (n1 - self.min_window + 1.0);
                    let bound = libm::sqrt(2.0 * m * spread * level) + 2.0 / 3.0 * level * m;
                    if (sum0 / n0 - sum1 / n1).abs() > bound {
                        return true;
                    }
                }
            }
        }
        false
    }
}

impl Detect for Adwin {
    const NAME: &'static str = "adwin";
    const DOMAIN: Domain = Domain::Finite;

    fn step(&mut self, value: f64) -> bool {
        if self.changed {
            // river begins anew after a detection.
            (self.width, self.total, self.deviation, self.ticks, self.changed) = (0.0, 0.0, 0.0, 0, false);
            self.rows.truncate(1);
            self.rows[0].clear();
        }
        self.insert(value);
        self.ticks += 1;
        if self.ticks.is_multiple_of(self.clock as u64) && self.width > self.grace {
            while self.has_cut() {
                self.changed = true;
                self.drop_oldest();
            }
        }
        self.changed
    }

    fn state(&self, number: &mut dyn FnMut(f64)) {
        let fixed = [self.delta, self.clock, self.max_buckets, self.min_window, self.grace];
        let moving = [self.width, self.total, self.deviation, self.ticks as f64, f64::from(u8::from(self.changed)), self.rows.len() as f64];
        fixed.into_iter().chain(moving).for_each(&mut *number);
        for row in &self.rows {
            number(row.len() as f64);
            for bucket in row {
                number(bucket.total);
                number(bucket.deviation);
            }
        }
    }

    fn restored(next: &mut dyn FnMut() -> Result<f64>) -> Result<Self> {
        let mut out = Self::new(next()?, next()?, next()?, next()?, next()?)?;
        (out.width, out.total, out.deviation) = (next()?, next()?, next()?);
        let ticks = next()?;
        // Beyond, a number of its kind does not count one by one.
        if !(0.0..=9_007_199_254_740_992.0).contains(&ticks) {
            return Err(Error::decode(format!("a window of {ticks} steps")));
        }
        (out.ticks, out.changed) = (ticks as u64, next()? > 0.0);
        let rows = next()?;
        if !(1.0..=MOST_ROWS as f64).contains(&rows) {
            return Err(Error::decode(format!("a window of {rows} rows")));
        }
        out.rows = (0..rows as usize)
            .map(|_| {
                let buckets = next()?;
                if !(0.0..=out.max_buckets + 1.0).contains(&buckets) {
                    return Err(Error::decode(format!("a row of {buckets} buckets")));
                }
                (0..buckets as usize).map(|_| Ok(Bucket { total: next()?, deviation: next()? })).collect()
            })
            .collect::<Result<_>>()?;
        let held: f64 = out.rows.iter().enumerate().map(|(row, buckets)| buckets.len() as f64 * (1u64 << row) as f64).sum();
        let top = out.rows.last().is_some_and(|row| out.rows.len() == 1 || !row.is_empty());
        if held == out.width && top { Ok(out) } else { Err(Error::decode("the window's width contradicts its buckets")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_with_more_steps_than_can_be_counted_is_refused() {
        let state = |ticks: f64| {
            let adwin = Adwin::new(0.002, 32.0, 5.0, 5.0, 10.0).unwrap();
            let mut numbers = Vec::new();
            adwin.state(&mut |number| numbers.push(number));
            numbers[8] = ticks;
            let mut numbers = numbers.into_iter();
            Adwin::restored(&mut || Ok(numbers.next().unwrap_or(0.0)))
        };
        assert!(state(1e15).is_ok());
        for ticks in [1e300, -1.0] {
            assert!(state(ticks).is_err());
        }
    }
}
