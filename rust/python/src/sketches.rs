//! Sketches used alone.

use std::sync::Mutex;

use barograph_core::codec::{Reader, Writer};
use barograph_core::sketches::{ExponentialHistogram, Hll, Kll};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::Raise;
use crate::profiles::lock;

/// What `catalog()` lists.
pub const NAMES: [&str; 3] = ["exponential_histogram", "kll", "hll"];

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

    #[pyo3(signature = (value, /))]
    fn update(&self, value: f64) {
        lock(&self.inner).update(value);
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

    /// `(index, count)` of one sign in OpenTelemetry's numbering.
    fn indexed(&self, negative: bool) -> Vec<(i32, u64)> {
        lock(&self.inner).indexed(negative)
    }

    #[getter]
    fn zero_count(&self) -> u64 {
        lock(&self.inner).zero_count()
    }

    fn downscale(&self, scale: u8) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(lock(&self.inner).downscale(scale).raise()?) })
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

#[pyclass(name = "Kll", module = "barograph._barograph", frozen)]
struct PyKll {
    inner: Mutex<Kll>,
}

#[pymethods]
impl PyKll {
    #[new]
    fn new(k: u16) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(Kll::new(k).raise()?) })
    }

    #[staticmethod]
    fn from_histogram(histogram: &PyExponentialHistogram, k: u16) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(Kll::from_histogram(&lock(&histogram.inner), k).raise()?) })
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
    fn k(&self) -> u16 {
        lock(&self.inner).k()
    }

    fn quantile(&self, q: f64) -> PyResult<Option<f64>> {
        lock(&self.inner).quantile(q).raise()
    }

    fn merge(&self, other: &Self) {
        let other = lock(&other.inner).clone();
        lock(&self.inner).merge(&other);
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &lock(&self.inner).to_bytes())
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(Kll::from_bytes(data).raise()?) })
    }
}

#[pyclass(name = "Hll", module = "barograph._barograph", frozen)]
struct PyHll {
    inner: Mutex<Hll>,
}

#[pymethods]
impl PyHll {
    #[new]
    fn new(lg_k: u8) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(Hll::new(lg_k).raise()?) })
    }

    fn update_integers(&self, py: Python<'_>, values: PyReadonlyArray1<'_, i64>) {
        let array = values.as_array();
        py.detach(|| {
            let mut sketch = lock(&self.inner);
            array.iter().for_each(|value| sketch.update(&value.to_le_bytes()));
        });
    }

    fn update_doubles(&self, py: Python<'_>, values: PyReadonlyArray1<'_, f64>) {
        let array = values.as_array();
        py.detach(|| {
            let mut sketch = lock(&self.inner);
            // As DataSketches: -0 is 0, and every NaN is the same one.
            let one = |value: f64| if value.is_nan() { 0x7ff8_0000_0000_0000 } else { (value + 0.0).to_bits() };
            array.iter().for_each(|value| sketch.update(&one(*value).to_le_bytes()));
        });
    }

    fn update_names(&self, py: Python<'_>, names: Vec<String>) {
        py.detach(|| {
            let mut sketch = lock(&self.inner);
            // DataSketches leaves empty text out.
            names.iter().filter(|name| !name.is_empty()).for_each(|name| sketch.update(name.as_bytes()));
        });
    }

    #[getter]
    fn estimate(&self) -> f64 {
        lock(&self.inner).estimate()
    }

    fn merge(&self, other: &Self) -> PyResult<()> {
        let other = lock(&other.inner).clone();
        lock(&self.inner).merge(&other).raise()
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &lock(&self.inner).to_datasketches())
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(Hll::from_datasketches(data).raise()?) })
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyExponentialHistogram>()?;
    module.add_class::<PyKll>()?;
    module.add_class::<PyHll>()
}
