//! DDM: the error rate against its own best. Source: Gama et al., SBIA 2004.

use super::{Detect, Domain, Mean, between, count};
use crate::error::Result;

/// The detector. Takes errors (1) and successes (0).
#[derive(Clone, Debug, PartialEq)]
pub struct Ddm {
    warm_start: f64,
    warning: f64,
    drift: f64,
    rate: Mean,
    least: Option<(f64, f64)>,
    warned: bool,
    changed: bool,
}

impl Ddm {
    /// Values before the first test, warning and drift threshold in standard deviations. river's defaults: 30, 2, 3.
    ///
    /// # Errors
    /// `InvalidArgument` outside their ranges.
    pub fn new(warm_start: f64, warning_threshold: f64, drift_threshold: f64) -> Result<Self> {
        Ok(Self {
            warm_start: count("warm_start", warm_start, 0.0, 1e9)?,
            warning: between("warning_threshold", warning_threshold, 0.0, 1e6)?,
            drift: between("drift_threshold", drift_threshold, 0.0, 1e6)?,
            rate: Mean::default(),
            least: None,
            warned: false,
            changed: false,
        })
    }

    /// The last value was beyond the warning threshold only.
    pub fn is_warned(&self) -> bool {
        self.warned
    }
}

impl Detect for Ddm {
    const NAME: &'static str = "ddm";
    const DOMAIN: Domain = Domain::Share;

    fn step(&mut self, value: f64) -> bool {
        if self.changed {
            (self.rate, self.least, self.warned, self.changed) = (Mean::default(), None, false, false);
        }
        self.rate.add(value);
        let (p, n) = (self.rate.value, self.rate.n);
        // A mean of shares can exceed 1 by its rounding.
        let s = libm::sqrt((p * (1.0 - p) / n).max(0.0));
        if n > self.warm_start {
            let (p_min, s_min) = match self.least {
                Some((a, b)) if p + s > a + b => (a, b),
                _ => (p, s),
            };
            self.least = Some((p_min, s_min));
            self.changed = p + s > p_min + self.drift * s_min;
            self.warned = !self.changed && p + s > p_min + self.warning * s_min;
        }
        self.changed
    }

    fn state(&self, number: &mut dyn FnMut(f64)) {
        [self.warm_start, self.warning, self.drift].into_iter().for_each(&mut *number);
        self.rate.state(number);
        let (p, s) = self.least.unwrap_or((-1.0, -1.0));
        [p, s, f64::from(u8::from(self.warned)), f64::from(u8::from(self.changed))].into_iter().for_each(number);
    }

    fn restored(next: &mut dyn FnMut() -> Result<f64>) -> Result<Self> {
        let mut out = Self::new(next()?, next()?, next()?)?;
        out.rate = Mean::restored(next)?;
        let (p, s) = (next()?, next()?);
        out.least = (p >= 0.0).then_some((p, s));
        (out.warned, out.changed) = (next()? > 0.0, next()? > 0.0);
        Ok(out)
    }
}
