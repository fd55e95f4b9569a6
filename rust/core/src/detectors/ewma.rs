//! EWMA chart: the exponentially weighted mean against its control limits. Source: Roberts, Technometrics 1959.

use super::{Detect, Domain, Mean, between, count};
use crate::error::Result;

/// The detector. Mean and standard deviation come from the first `warm_up` values and again after every detection.
#[derive(Clone, Debug, PartialEq)]
pub struct Ewma {
    weight: f64,
    width: f64,
    warm_up: f64,
    mean: Mean,
    squares: f64,
    value: f64,
    /// `(1 - weight)^(2 t)` after t values: the limits widen to their final place.
    left: f64,
    changed: bool,
}

impl Ewma {
    /// Weight of the newest value, width of the limits in standard deviations, values of the warm-up. Defaults: 0.05, 4, 500.
    ///
    /// # Errors
    /// `InvalidArgument` outside their ranges.
    pub fn new(weight: f64, width: f64, warm_up: f64) -> Result<Self> {
        Ok(Self {
            weight: between("weight", weight, 0.0, 1.0)?,
            width: between("width", width, 0.0, 1e6)?,
            warm_up: count("warm_up", warm_up, 2.0, 1e9)?,
            mean: Mean::default(),
            squares: 0.0,
            value: 0.0,
            left: 1.0,
            changed: false,
        })
    }
}

impl Detect for Ewma {
    const NAME: &'static str = "ewma";
    const DOMAIN: Domain = Domain::Finite;

    fn step(&mut self, value: f64) -> bool {
        if self.changed {
            (self.mean, self.squares, self.value, self.left, self.changed) = (Mean::default(), 0.0, 0.0, 1.0, false);
        }
        if self.mean.n < self.warm_up {
            let before = self.mean.value;
            self.mean.add(value);
            self.squares += (value - before) * (value - self.mean.value);
            self.value = self.mean.value;
            return false;
        }
        self.value += self.weight * (value - self.value);
        self.left *= (1.0 - self.weight) * (1.0 - self.weight);
        let deviation = libm::sqrt(self.squares / (self.mean.n - 1.0));
        let limit = self.width * deviation * libm::sqrt(self.weight / (2.0 - self.weight) * (1.0 - self.left));
        self.changed = (self.value - self.mean.value).abs() > limit;
        self.changed
    }

    fn state(&self, number: &mut dyn FnMut(f64)) {
        [self.weight, self.width, self.warm_up].into_iter().for_each(&mut *number);
        self.mean.state(number);
        [self.squares, self.value, self.left, f64::from(u8::from(self.changed))].into_iter().for_each(number);
    }

    fn restored(next: &mut dyn FnMut() -> Result<f64>) -> Result<Self> {
        let mut out = Self::new(next()?, next()?, next()?)?;
        out.mean = Mean::restored(next)?;
        (out.squares, out.value, out.left, out.changed) = (next()?, next()?, next()?, next()? > 0.0);
        Ok(out)
    }
}
