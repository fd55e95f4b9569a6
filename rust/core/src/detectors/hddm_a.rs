//! HDDM-A: running means compared by Hoeffding's bound. Source: Frías-Blanco et al., IEEE TKDE 2015.

use super::{Detect, Domain, Mean, between};
use crate::error::Result;

/// The detector. Takes numbers in [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct HddmA {
    drift: f64,
    warning: f64,
    two_sided: bool,
    lowest: Mean,
    highest: Mean,
    all: Mean,
    warned: bool,
    changed: bool,
}

/// Whether the mean of what came after the cut lies at least the bound away; `sign` 1 for a rise.
fn moved(cut: Mean, all: Mean, confidence: f64, sign: f64) -> bool {
    if cut.n == all.n {
        return false;
    }
    let m = (all.n - cut.n) / cut.n * (1.0 / all.n);
    sign * (all.value - cut.value) >= libm::sqrt(m / 2.0 * libm::log(2.0 / confidence))
}

impl HddmA {
    /// Levels of drift and warning, both sides or a rise only. river's defaults: 0.001, 0.005, rise only.
    ///
    /// # Errors
    /// `InvalidArgument` outside (0, 1).
    pub fn new(drift_confidence: f64, warning_confidence: f64, two_sided: bool) -> Result<Self> {
        Ok(Self {
            drift: between("drift_confidence", drift_confidence, 0.0, 1.0)?,
            warning: between("warning_confidence", warning_confidence, 0.0, 1.0)?,
            two_sided,
            lowest: Mean::default(),
            highest: Mean::default(),
            all: Mean::default(),
            warned: false,
            changed: false,
        })
    }

    /// The last value was beyond the warning level only.
    pub fn is_warned(&self) -> bool {
        self.warned
    }

    fn bound(&self, n: f64) -> f64 {
        libm::sqrt(1.0 / (2.0 * n) * libm::log(1.0 / self.drift))
    }
}

impl Detect for HddmA {
    const NAME: &'static str = "hddm_a";
    const DOMAIN: Domain = Domain::Share;

    fn step(&mut self, value: f64) -> bool {
        if self.changed {
            (self.lowest, self.highest, self.all) = (Mean::default(), Mean::default(), Mean::default());
            (self.warned, self.changed) = (false, false);
        }
        self.all.add(value);
        let reach = self.bound(self.all.n);
        if self.lowest.n == 0.0 || self.lowest.value + self.bound(self.lowest.n) >= self.all.value + reach {
            self.lowest = self.all;
        }
        if self.highest.n == 0.0 || self.highest.value - self.bound(self.highest.n) <= self.all.value - reach {
            self.highest = self.all;
        }
        self.changed = moved(self.lowest, self.all, self.drift, 1.0);
        self.warned = !self.changed && moved(self.lowest, self.all, self.warning, 1.0);
        if self.two_sided {
            let fell = moved(self.highest, self.all, self.drift, -1.0);
            self.warned |= !fell && moved(self.highest, self.all, self.warning, -1.0);
            self.changed |= fell;
        }
        self.changed
    }

    fn state(&self, number: &mut dyn FnMut(f64)) {
        [self.drift, self.warning, f64::from(u8::from(self.two_sided))].into_iter().for_each(&mut *number);
        [self.lowest, self.highest, self.all].iter().for_each(|mean| mean.state(number));
        [self.warned, self.changed].into_iter().for_each(|flag| number(f64::from(u8::from(flag))));
    }

    fn restored(next: &mut dyn FnMut() -> Result<f64>) -> Result<Self> {
        let mut out = Self::new(next()?, next()?, next()? > 0.0)?;
        (out.lowest, out.highest, out.all) = (Mean::restored(next)?, Mean::restored(next)?, Mean::restored(next)?);
        (out.warned, out.changed) = (next()? > 0.0, next()? > 0.0);
        Ok(out)
    }
}
