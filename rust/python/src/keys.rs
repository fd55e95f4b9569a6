//! Values that are counted by identity: integers, floats and names, hashed as Apache `DataSketches` does.

use std::sync::Mutex;

use barograph_core::Error;
use barograph_core::sketches::{FrequentItems, Hll, Sample, Theta};
use barograph_engine::frame;
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

use crate::border::for_each_batch;
use crate::profiles::lock;

/// What a face hands over: an array of numbers, a list of names, or a frame whose first column holds names.
#[derive(FromPyObject)]
pub enum Keys<'py> {
    Integers(PyReadonlyArray1<'py, i64>),
    Floats(PyReadonlyArray1<'py, f64>),
    Names(Vec<String>),
    Frame(Bound<'py, PyAny>),
}

/// -0 is 0, and every NaN is the same one.
fn float_key(value: f64) -> u64 {
    if value.is_nan() { 0x7ff8_0000_0000_0000 } else { (value + 0.0).to_bits() }
}

/// A sketch that values are fed to.
pub trait Feed {
    fn words(&mut self, words: impl Iterator<Item = u64>);
    /// A name that comes `count` times.
    fn name(&mut self, name: &str, count: u64);
}

impl Feed for Hll {
    fn words(&mut self, words: impl Iterator<Item = u64>) {
        self.update_words(words);
    }

    fn name(&mut self, name: &str, _: u64) {
        self.update(name.as_bytes());
    }
}

impl Feed for Theta {
    fn words(&mut self, words: impl Iterator<Item = u64>) {
        words.for_each(|word| self.update(&word.to_le_bytes()));
    }

    fn name(&mut self, name: &str, _: u64) {
        self.update(name.as_bytes());
    }
}

impl Feed for Sample {
    fn words(&mut self, words: impl Iterator<Item = u64>) {
        words.for_each(|word| self.update(&(word as i64).to_string()));
    }

    fn name(&mut self, name: &str, _: u64) {
        self.update(name);
    }
}

impl Feed for FrequentItems {
    fn words(&mut self, words: impl Iterator<Item = u64>) {
        words.for_each(|word| self.update(&(word as i64).to_string(), 1));
    }

    fn name(&mut self, name: &str, count: u64) {
        self.update(name, count);
    }
}

impl Keys<'_> {
    /// Feeds all values, the empty name left out as in `DataSketches`; the GIL released.
    pub fn feed(&self, py: Python<'_>, sketch: &Mutex<impl Feed + Send>) -> PyResult<()> {
        match self {
            Self::Integers(values) => {
                let values = values.as_array();
                py.detach(|| lock(sketch).words(values.iter().map(|value| *value as u64)));
            }
            Self::Floats(values) => {
                let values = values.as_array();
                py.detach(|| lock(sketch).words(values.iter().map(|value| float_key(*value))));
            }
            Self::Names(names) => py.detach(|| {
                let mut sketch = lock(sketch);
                names.iter().filter(|name| !name.is_empty()).for_each(|name| sketch.name(name, 1));
            }),
            Self::Frame(frame) => for_each_batch(frame, |batch| {
                let mut sketch = lock(sketch);
                let mut each = |name: &str, count: u64| {
                    if !name.is_empty() {
                        sketch.name(name, count);
                    }
                };
                if batch.num_columns() > 0 && !frame::names(batch.column(0).as_ref(), &mut each) {
                    let kind = batch.column(0).data_type();
                    return Err(Error::invalid(format!("`values` must hold integers, floats or text, got {kind}")));
                }
                Ok(())
            })?,
        }
        Ok(())
    }
}
