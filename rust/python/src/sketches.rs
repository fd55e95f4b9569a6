//! Sketches used alone.

use std::sync::Mutex;

use barograph_core::codec::{Reader, Writer};
use barograph_core::sketches::ExponentialHistogram;
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::Raise;
use crate::profiles::lock;

/// What `catalog()` lists.
pub const NAMES: [&str; 1] = ["exponential_histogram"];

#[pyclass(name = "ExponentialHistogram", module = "barograph._barograph", frozen)]
struct PyExponentialHistogram {
    inner: Mutex<ExponentialHistogram>,
}

#[pymethods]
impl PyExponentialHistogram {
    #[new]
    fn new(scale: u8) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(ExponentialHistogram::new(scale).raise()?) })
    }

    fn update_many(&self, py: Python<'_>, values: PyReadonlyArray1<'_, f64>) {
        let array = values.as_array();
        py.detach(|| match array.as_slice() {
            Some(slice) => lock(&self.inner).update_many(slice),
            None => lock(&self.inner).update_many(&array.iter().copied().collect::<Vec<_>>()),
        });
    }

    #[getter]
    fn count(&self) -> u64 {
        lock(&self.inner).count()
    }

    #[getter]
    fn scale(&self) -> u8 {
        lock(&self.inner).scale()
    }

    #[getter]
    fn relative_error(&self) -> f64 {
        lock(&self.inner).relative_error()
    }

    fn quantile(&self, q: f64) -> PyResult<Option<f64>> {
        lock(&self.inner).quantile(q).raise()
    }

    fn cells(&self) -> Vec<(f64, f64, u64)> {
        lock(&self.inner).cells().into_iter().map(|cell| (cell.lower, cell.upper, cell.count)).collect()
    }

    fn merge(&self, other: &Self) -> PyResult<()> {
        let other = lock(&other.inner).clone();
        lock(&self.inner).merge(&other).raise()
    }

    fn subtract(&self, other: &Self) -> PyResult<()> {
        let other = lock(&other.inner).clone();
        lock(&self.inner).subtract(&other).raise()
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut writer = Writer::new();
        lock(&self.inner).encode(&mut writer);
        PyBytes::new(py, &writer.seal(barograph_core::codec::SnapshotKind::Histogram))
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        let read = || {
            let mut reader = Reader::open(data, barograph_core::codec::SnapshotKind::Histogram)?;
            let inner = ExponentialHistogram::decode(&mut reader)?;
            reader.finish()?;
            Ok(inner)
        };
        Ok(Self { inner: Mutex::new(read().raise()?) })
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyExponentialHistogram>()
}
