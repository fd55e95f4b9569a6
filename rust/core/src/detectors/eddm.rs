//! EDDM: the distance between errors against its own best. Source: Baena-García et al., 2006.

use super::{Detect, Domain, Mean, between, count};
use crate::error::{Error, Result};

/// The detector. Takes errors (1) and successes (0).
#[derive(Clone, Debug, PartialEq)]
pub struct Eddm {
    warm_start: f64,
    alpha: f64,
    beta: f64,
    distances: Mean,
    squares: f64,
    n: f64,
    last_error: f64,
    errors: f64,
    most: f64,
    warned: bool,
    changed: bool,
}

impl Eddm {
    /// Errors before the first test, warning and drift level. river's defaults: 30, 0.95, 0.9.
    ///
    /// # Errors
    /// `InvalidArgument` outside (0, 1], or if the warning level lies below the drift level.
    pub fn new(warm_start: f64, alpha: f64, beta: f64) -> Result<Self> {
        if alpha < beta {
            return Err(Error::invalid(format!("`alpha` must be at least `beta`, got {alpha} and {beta}")));
        }
        Ok(Self {
            warm_start: count("warm_start", warm_start, 0.0, 1e9)?,
            alpha: between("alpha", alpha, 0.0, 1.0 + f64::EPSILON)?,
            beta: between("beta", beta, 0.0, 1.0 + f64::EPSILON)?,
            distances: Mean::default(),
            squares: 0.0,
            n: 0.0,
            last_error: 0.0,
            errors: 0.0,
            most: -1.0,
            warned: false,
            changed: false,
        })
    }

    /// The last error was beyond the warning level only.
    pub fn is_warned(&self) -> bool {
        self.warned
    }
}

impl Detect for Eddm {
    const NAME: &'static str = "eddm";
    const DOMAIN: Domain = Domain::Bit;

    fn step(&mut self, value: f64) -> bool {
        if self.changed {
            (self.distances, self.squares, self.n, self.last_error) = (Mean::default(), 0.0, 0.0, 0.0);
            (self.errors, self.most, self.warned, self.changed) = (0.0, -1.0, false, false);
        }
        self.n += 1.0;
        if value != 1.0 {
            return false;
        }
        self.errors += 1.0;
        let distance = self.n - self.last_error;
        let before = self.distances.value;
        self.distances.add(distance);
        self.squares += (distance - before) * (distance - self.distances.value);
        if self.n > self.warm_start {
            let variance = if self.distances.n > 1.0 { self.squares / (self.distances.n - 1.0) } else { 0.0 };
            let reach = self.distances.value + 2.0 * libm::sqrt(variance);
            if reach > self.most {
                self.most = reach;
            } else if self.errors > self.warm_start {
                let level = reach / self.most;
                self.changed = level < self.beta;
                // river leaves the warning as it was when it detects.
                self.warned = if self.changed { self.warned } else { level < self.alpha };
            }
        }
        self.last_error = self.n;
        self.changed
    }

    fn state(&self, number: &mut dyn FnMut(f64)) {
        [self.warm_start, self.alpha, self.beta].into_iter().for_each(&mut *number);
        self.distances.state(number);
        let moving = [self.squares, self.n, self.last_error, self.errors, self.most];
        moving.into_iter().chain([f64::from(u8::from(self.warned)), f64::from(u8::from(self.changed))]).for_each(number);
    }

    fn restored(next: &mut dyn FnMut() -> Result<f64>) -> Result<Self> {
        let mut out = Self::new(next()?, next()?, next()?)?;
        out.distances = Mean::restored(next)?;
        (out.squares, out.n, out.last_error, out.errors, out.most) = (next()?, next()?, next()?, next()?, next()?);
        (out.warned, out.changed) = (next()? > 0.0, next()? > 0.0);
        Ok(out)
    }
}
