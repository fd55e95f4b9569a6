//! HDDM-W: exponentially weighted means compared by McDiarmid's bound. Source: Frías-Blanco et al., IEEE TKDE 2015.

use super::{Detect, Domain, between};
use crate::error::Result;

/// An exponentially weighted mean with the independent bounded condition of its weights.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    mean: f64,
    bound: f64,
    any: bool,
}

impl Sample {
    const EMPTY: Self = Self { mean: 0.0, bound: 1.0, any: false };

    fn add(&mut self, x: f64, weight: f64) {
        self.mean = if self.any { weight * x + (1.0 - weight) * self.mean } else { x };
        self.bound = weight * weight + (1.0 - weight) * (1.0 - weight) * self.bound;
        self.any = true;
    }
}

/// The detector. Takes numbers in [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct HddmW {
    drift: f64,
    warning: f64,
    weight: f64,
    two_sided: bool,
    all: Sample,
    /// Before and after the cut, for a rise and for a fall.
    rise: [Sample; 2],
    fall: [Sample; 2],
    cuts: [f64; 2],
    warned: bool,
    changed: bool,
}

fn reach(bound: f64, confidence: f64) -> f64 {
    libm::sqrt(bound * libm::log(1.0 / confidence) / 2.0)
}

fn above(low: Sample, high: Sample, confidence: f64) -> bool {
    low.any && high.any && high.mean - low.mean > reach(low.bound + high.bound, confidence)
}

impl HddmW {
    /// Levels of drift and warning, weight of the newest value, both sides or a rise only. river's defaults: 0.001, 0.005, 0.05,
    /// rise only.
    ///
    /// # Errors
    /// `InvalidArgument` outside (0, 1).
    pub fn new(drift_confidence: f64, warning_confidence: f64, lambda: f64, two_sided: bool) -> Result<Self> {
        Ok(Self {
            drift: between("drift_confidence", drift_confidence, 0.0, 1.0)?,
            warning: between("warning_confidence", warning_confidence, 0.0, 1.0)?,
            weight: between("lambda_val", lambda, 0.0, 1.0)?,
            two_sided,
            all: Sample::EMPTY,
            rise: [Sample::EMPTY; 2],
            fall: [Sample::EMPTY; 2],
            cuts: [f64::INFINITY, f64::NEG_INFINITY],
            warned: false,
            changed: false,
        })
    }

    /// The last value was beyond the warning level only.
    pub fn is_warned(&self) -> bool {
        self.warned
    }
}

impl Detect for HddmW {
    const NAME: &'static str = "hddm_w";
    const DOMAIN: Domain = Domain::Share;

    fn step(&mut self, value: f64) -> bool {
        if self.changed {
            (self.all, self.rise, self.fall) = (Sample::EMPTY, [Sample::EMPTY; 2], [Sample::EMPTY; 2]);
            (self.cuts, self.warned, self.changed) = ([f64::INFINITY, f64::NEG_INFINITY], false, false);
        }
        self.all.add(value, self.weight);
        let width = reach(self.all.bound, self.drift);
        if self.all.mean + width < self.cuts[0] {
            (self.cuts[0], self.rise) = (self.all.mean + width, [self.all, Sample::EMPTY]);
        } else {
            self.rise[1].add(value, self.weight);
        }
        self.changed = above(self.rise[0], self.rise[1], self.drift);
        self.warned = !self.changed && above(self.rise[0], self.rise[1], self.warning);
        if self.all.mean - width > self.cuts[1] {
            (self.cuts[1], self.fall) = (self.all.mean - width, [self.all, Sample::EMPTY]);
        } else {
            self.fall[1].add(value, self.weight);
        }
        if self.two_sided {
            let fell = above(self.fall[1], self.fall[0], self.drift);
            self.warned |= !fell && above(self.fall[1], self.fall[0], self.warning);
            self.changed |= fell;
        }
        self.changed
    }

    fn state(&self, number: &mut dyn FnMut(f64)) {
        [self.drift, self.warning, self.weight, f64::from(u8::from(self.two_sided))].into_iter().for_each(&mut *number);
        for sample in [self.all, self.rise[0], self.rise[1], self.fall[0], self.fall[1]] {
            [sample.mean, sample.bound, f64::from(u8::from(sample.any))].into_iter().for_each(&mut *number);
        }
        [self.cuts[0], self.cuts[1], f64::from(u8::from(self.warned)), f64::from(u8::from(self.changed))].into_iter().for_each(number);
    }

    fn restored(next: &mut dyn FnMut() -> Result<f64>) -> Result<Self> {
        let mut out = Self::new(next()?, next()?, next()?, next()? > 0.0)?;
        let mut sample = || Ok(Sample { mean: next()?, bound: next()?, any: next()? > 0.0 });
        (out.all, out.rise, out.fall) = (sample()?, [sample()?, sample()?], [sample()?, sample()?]);
        out.cuts = [next()?, next()?];
        (out.warned, out.changed) = (next()? > 0.0, next()? > 0.0);
        Ok(out)
    }
}
