//! Detectors watch one number after the other and say where the stream changed.
//!
//! The classic ones follow river 0.26: same parameters, same arithmetic, same reset after a detection, so their positions are
//! equal. [`Rank`] is ours: its false alarms are bounded whatever the distribution.

mod adwin;
mod cusum;
mod ddm;
mod eddm;
mod ewma;
mod hddm_a;
mod hddm_w;
mod kswin;
mod page_hinkley;
mod rank;

pub use adwin::Adwin;
pub use cusum::Cusum;
pub use ddm::Ddm;
pub use eddm::Eddm;
pub use ewma::Ewma;
pub use hddm_a::HddmA;
pub use hddm_w::HddmW;
pub use kswin::Kswin;
pub use page_hinkley::PageHinkley;
pub use rank::Rank;

use crate::codec::{Reader, SnapshotKind, Writer};
use crate::error::{Error, Result};

/// What values a detector takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Any finite number.
    Finite,
    /// Numbers in [0, 1].
    Share,
    /// 0 or 1.
    Bit,
}

/// What every detector does.
pub trait Detect {
    /// Its name in the catalogue.
    const NAME: &'static str;
    /// What it takes.
    const DOMAIN: Domain;

    /// Takes one value that lies in the domain; true if the stream changed here.
    fn step(&mut self, value: f64) -> bool;

    /// Hands parameters and state, all of them numbers, to `number`, in a fixed order.
    fn state(&self, number: &mut dyn FnMut(f64));

    /// Takes them back.
    ///
    /// # Errors
    /// `Decode` for numbers no `state` gave.
    fn restored(numbers: &mut dyn FnMut() -> Result<f64>) -> Result<Self>
    where
        Self: Sized;
}

/// Checks a value before it is taken: nothing but finite numbers of the domain moves a detector.
fn check(domain: Domain, value: f64, at: usize) -> Result<()> {
    let (fine, want) = match domain {
        Domain::Finite => (value.is_finite(), "finite"),
        Domain::Share => ((0.0..=1.0).contains(&value), "in [0, 1]"),
        Domain::Bit => (value == 0.0 || value == 1.0, "0 or 1"),
    };
    if fine {
        Ok(())
    } else {
        Err(Error::invalid(format!("`values` must be {want}, got {value} at position {at}")).hint("leave out what is missing"))
    }
}

/// A detector with the checks around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Detector<D>(D);

impl<D: Detect> Detector<D> {
    /// Puts the checks around a detector.
    pub fn new(detector: D) -> Self {
        Self(detector)
    }

    /// Takes one value; true if the stream changed here.
    ///
    /// # Errors
    /// `InvalidArgument` for a value outside the domain; the detector is as before then.
    pub fn update(&mut self, value: f64) -> Result<bool> {
        check(D::DOMAIN, value, 0)?;
        Ok(self.0.step(value))
    }

    /// Takes values; the positions within them where the stream changed.
    ///
    /// # Errors
    /// `InvalidArgument` for a value outside the domain; the detector is as before then.
    pub fn update_many(&mut self, values: &[f64]) -> Result<Vec<usize>> {
        values.iter().enumerate().try_for_each(|(at, value)| check(D::DOMAIN, *value, at))?;
        Ok(values.iter().enumerate().filter_map(|(at, value)| self.0.step(*value).then_some(at)).collect())
    }

    /// Parameters and state as a snapshot: a restored detector goes on as if nothing had happened.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.str(D::NAME);
        let mut numbers = Vec::new();
        self.0.state(&mut |number| numbers.push(number));
        writer.len(numbers.len());
        numbers.into_iter().for_each(|number| writer.f64(number));
        writer.seal(SnapshotKind::Detector)
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// `Decode`, saying what is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::open(bytes, SnapshotKind::Detector)?;
        let name = reader.str()?;
        if name != D::NAME {
            return Err(Error::decode(format!("expected a snapshot of {}, got one of {name}", D::NAME))
                .hint("load it with the class that wrote it"));
        }
        let mut left = reader.len(8)?;
        let out = D::restored(&mut || {
            left = left.checked_sub(1).ok_or_else(|| Error::decode("the snapshot of a detector is too short"))?;
            reader.f64()
        })
        .map_err(|error| Error::decode(error.message))?;
        if left > 0 {
            return Err(Error::decode("the snapshot of a detector is too long"));
        }
        reader.finish()?;
        Ok(Self(out))
    }
}

/// A running mean as river keeps it: the order of the operations is part of the result.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Mean {
    n: f64,
    value: f64,
}

impl Mean {
    fn add(&mut self, x: f64) {
        self.n += 1.0;
        self.value += (1.0 / self.n) * (x - self.value);
    }

    fn state(&self, number: &mut dyn FnMut(f64)) {
        number(self.n);
        number(self.value);
    }

    fn restored(next: &mut dyn FnMut() -> Result<f64>) -> Result<Self> {
        Ok(Self { n: next()?, value: next()? })
    }
}

/// A parameter in `(low, high)`, or an error that names it.
fn between(name: &str, value: f64, low: f64, high: f64) -> Result<f64> {
    if value > low && value < high {
        return Ok(value);
    }
    Err(Error::invalid(format!("`{name}` must lie between {low} and {high}, got {value}")))
}

/// A parameter that counts something.
fn count(name: &str, value: f64, low: f64, high: f64) -> Result<f64> {
    if (low..=high).contains(&value) && value == libm::floor(value) {
        return Ok(value);
    }
    Err(Error::invalid(format!("`{name}` must be a whole number in [{low}, {high}], got {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(n: usize) -> Vec<f64> {
        let mut state = 1u64;
        (0..n)
            .map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                f64::from(u8::from((state >> 33) as f64 / f64::from(1u32 << 31) < if i < n / 2 { 0.2 } else { 0.6 }))
            })
            .collect()
    }

    fn laws<D: Detect + Clone + PartialEq + std::fmt::Debug>(detector: D) {
        let values = bits(6000);
        let mut whole = Detector::new(detector.clone());
        let positions = whole.update_many(&values).unwrap();
        assert!(positions.iter().any(|at| (3000..3600).contains(at)), "{} {positions:?}", D::NAME);
        let mut parts = Detector::new(detector);
        let mut found = parts.update_many(&values[..2345]).unwrap();
        let mut restored = Detector::<D>::from_bytes(&parts.to_bytes()).unwrap();
        assert!(restored.update(f64::NAN).is_err() && restored.update_many(&[0.0, f64::INFINITY]).is_err());
        found.extend(restored.update_many(&values[2345..]).unwrap().iter().map(|at| at + 2345));
        assert_eq!(found, positions, "{}", D::NAME);
        assert_eq!(restored.to_bytes(), whole.to_bytes(), "{}", D::NAME);
        let bytes = whole.to_bytes();
        for cut in 0..bytes.len() {
            assert!(Detector::<D>::from_bytes(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn all_find_the_change_and_go_on_after_a_restore() {
        laws(Adwin::new(0.002, 32.0, 5.0, 5.0, 10.0).unwrap());
        laws(PageHinkley::new(30.0, 0.005, 50.0, 0.9999, 0.0).unwrap());
        laws(Ddm::new(30.0, 2.0, 3.0).unwrap());
        laws(Eddm::new(30.0, 0.95, 0.9).unwrap());
        laws(HddmA::new(0.001, 0.005, false).unwrap());
        laws(HddmW::new(0.001, 0.005, 0.05, false).unwrap());
        laws(Cusum::new(0.5, 8.0, 500.0).unwrap());
        laws(Ewma::new(0.05, 4.0, 500.0).unwrap());
        laws(Rank::new(&[0.0, 1.0], &[800, 200], 0.05, 1e5).unwrap());
    }
}
