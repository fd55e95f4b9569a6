//! CUSUM: two cumulative sums of standardised deviations. Source: Page, Biometrika 1954; Montgomery, Statistical Quality Control.

use super::{Detect, Domain, Mean, between, count};
use crate::error::Result;

/// The detector. Mean and standard deviation come from the first `warm_up` values and again after every detection.
#[derive(Clone, Debug, PartialEq)]
pub struct Cusum {
    slack: f64,
    threshold: f64,
    warm_up: f64,
    mean: Mean,
    squares: f64,
    sums: [f64; 2],
    changed: bool,
}

impl Cusum {
    /// Slack and threshold in standard deviations, values of the warm-up. Defaults: 0.5, 8, 500.
    ///
    /// # Errors
    /// `InvalidArgument` outside their ranges.
    pub fn new(slack: f64, threshold: f64, warm_up: f64) -> Result<Self> {
        Ok(Self {
            slack: if slack == 0.0 { 0.0 } else { between("slack", slack, 0.0, 1e6)? },
            threshold: between("threshold", threshold, 0.0, 1e9)?,
            warm_up: count("warm_up", warm_up, 2.0, 1e9)?,
            mean: Mean::default(),
            squares: 0.0,
            sums: [0.0; 2],
            changed: false,
        })
    }
}

impl Detect for Cusum {
    const NAME: &'static str = "cusum";
    const DOMAIN: Domain = Domain::Finite;

    fn step(&mut self, value: f64) -> bool {
        if self.changed {
            (self.mean, self.squares, self.sums, self.changed) = (Mean::default(), 0.0, [0.0; 2], false);
        }
        if self.mean.n < self.warm_up {
            let before = self.mean.value;
            self.mean.add(value);
            self.squares += (value - before) * (value - self.mean.value);
            return false;
        }
        let deviation = libm::sqrt(self.squares / (self.mean.n - 1.0));
        if deviation > 0.0 {
            let z = (value - self.mean.value) / deviation;
            self.sums = [(self.sums[0] + z - self.slack).max(0.0), (self.sums[1] - z - self.slack).max(0.0)];
            self.changed = self.sums[0].max(self.sums[1]) > self.threshold;
        } else {
            // A constant stream: whatever differs is a change.
            self.changed = value != self.mean.value;
        }
        self.changed
    }

    fn state(&self, number: &mut dyn FnMut(f64)) {
        [self.slack, self.threshold, self.warm_up].into_iter().for_each(&mut *number);
        self.mean.state(number);
        [self.squares, self.sums[0], self.sums[1], f64::from(u8::from(self.changed))].into_iter().for_each(number);
    }

    fn restored(next: &mut dyn FnMut() -> Result<f64>) -> Result<Self> {
        let mut out = Self::new(next()?, next()?, next()?)?;
        out.mean = Mean::restored(next)?;
        (out.squares, out.sums, out.changed) = (next()?, [next()?, next()?], next()? > 0.0);
        Ok(out)
    }
}
