//! Page-Hinkley: the forgetful cumulative deviation from the running mean. Source: Page, Biometrika 1954.

use super::{Detect, Domain, Mean, between, count};
use crate::error::{Error, Result};

/// The detector. One-sided tests for a rise and a fall of the mean.
#[derive(Clone, Debug, PartialEq)]
pub struct PageHinkley {
    min_instances: f64,
    delta: f64,
    threshold: f64,
    alpha: f64,
    /// 0 both, 1 up, 2 down.
    mode: f64,
    mean: Mean,
    sums: [f64; 2],
    lowest: f64,
    highest: f64,
    changed: bool,
}

impl PageHinkley {
    /// Values before the first test, tolerated deviation, threshold, forgetting factor, mode (0 both, 1 up, 2 down).
    /// river's defaults: 30, 0.005, 50, 0.9999, both.
    ///
    /// # Errors
    /// `InvalidArgument` outside their ranges.
    pub fn new(min_instances: f64, delta: f64, threshold: f64, alpha: f64, mode: f64) -> Result<Self> {
        let alpha = if alpha == 1.0 { 1.0 } else { between("alpha", alpha, 0.0, 1.0)? };
        if !(delta.is_finite() && threshold > 0.0 && threshold.is_finite()) {
            return Err(Error::invalid(format!("`delta` must be finite and `threshold` above 0, got {delta} and {threshold}")));
        }
        Ok(Self {
            min_instances: count("min_instances", min_instances, 0.0, 1e9)?,
            delta,
            threshold,
            alpha,
            mode: count("mode", mode, 0.0, 2.0)?,
            mean: Mean::default(),
            sums: [0.0; 2],
            lowest: f64::INFINITY,
            highest: -1.0,
            changed: false,
        })
    }
}

impl Detect for PageHinkley {
    const NAME: &'static str = "page_hinkley";
    const DOMAIN: Domain = Domain::Finite;

    fn step(&mut self, value: f64) -> bool {
        if self.changed {
            (self.mean, self.sums, self.lowest, self.highest, self.changed) = (Mean::default(), [0.0; 2], f64::INFINITY, -1.0, false);
        }
        self.mean.add(value);
        let deviation = value - self.mean.value;
        self.sums[0] = self.alpha * self.sums[0] + deviation - self.delta;
        self.sums[1] = self.alpha * self.sums[1] + deviation + self.delta;
        self.lowest = self.lowest.min(self.sums[0]);
        self.highest = self.highest.max(self.sums[1]);
        if self.mean.n >= self.min_instances {
            let (rise, fall) = (self.sums[0] - self.lowest > self.threshold, self.highest - self.sums[1] > self.threshold);
            self.changed = rise && self.mode != 2.0 || fall && self.mode != 1.0;
        }
        self.changed
    }

    fn state(&self, number: &mut dyn FnMut(f64)) {
        [self.min_instances, self.delta, self.threshold, self.alpha, self.mode].into_iter().for_each(&mut *number);
        self.mean.state(number);
        [self.sums[0], self.sums[1], self.lowest, self.highest, f64::from(u8::from(self.changed))].into_iter().for_each(number);
    }

    fn restored(next: &mut dyn FnMut() -> Result<f64>) -> Result<Self> {
        let mut out = Self::new(next()?, next()?, next()?, next()?, next()?)?;
        out.mean = Mean::restored(next)?;
        (out.sums, out.lowest, out.highest, out.changed) = ([next()?, next()?], next()?, next()?, next()? > 0.0);
        Ok(out)
    }
}
