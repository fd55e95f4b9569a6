//! Sketches used alone.

use std::sync::Mutex;

use barograph_core::codec::{Reader, Writer};
use barograph_core::sketches::{ExponentialHistogram, FrequentItems, Hll, Kll, Sample, Theta};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::border::contiguous;
use crate::errors::Raise;
use crate::keys::Keys;
use crate::profiles::lock;

/// What `catalog()` lists.
pub const NAMES: [&str; 9] =
    ["exponential_histogram", "kll", "hll", "theta", "frequent_items", "sample", "co_moments", "mean_embedding", "sliced_projections"];

#[pyclass(name = "ExponentialHistogram", module = "barograph._barograph", frozen)]
pub struct PyExponentialHistogram {
    inner: Mutex<ExponentialHistogram>,
}

impl PyExponentialHistogram {
    pub fn around(histogram: ExponentialHistogram) -> Self {
        Self { inner: Mutex::new(histogram) }
    }
}

#[pymethods]
impl PyExponentialHistogram {
    #[new]
    fn new(scale: u8, shift: f64) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(ExponentialHistogram::shifted(scale, shift).raise()?) })
    }

    #[pyo3(signature = (value, /))]
    fn update(&self, value: f64) {
        lock(&self.inner).update(value);
    }

    fn update_many(&self, py: Python<'_>, values: PyReadonlyArray1<'_, f64>) {
        let array = values.as_array();
        py.detach(|| lock(&self.inner).update_many(&contiguous(array)));
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
    fn shift(&self) -> f64 {
        lock(&self.inner).shift()
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
        py.detach(|| lock(&self.inner).update_many(&contiguous(array)));
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

    fn update_many(&self, py: Python<'_>, values: Keys<'_>) -> PyResult<()> {
        values.feed(py, &self.inner)
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

#[pyclass(name = "Theta", module = "barograph._barograph", frozen)]
struct PyTheta {
    inner: Mutex<Theta>,
}

#[pymethods]
impl PyTheta {
    #[new]
    fn new(lg_k: u8) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(Theta::new(lg_k).raise()?) })
    }

    fn update_many(&self, py: Python<'_>, values: Keys<'_>) -> PyResult<()> {
        values.feed(py, &self.inner)
    }

    #[getter]
    fn lg_k(&self) -> u8 {
        lock(&self.inner).lg_k()
    }

    #[getter]
    fn estimate(&self) -> f64 {
        lock(&self.inner).estimate()
    }

    #[getter]
    fn retained(&self) -> usize {
        lock(&self.inner).retained()
    }

    fn merge(&self, other: &Self) {
        let other = lock(&other.inner).clone();
        lock(&self.inner).merge(&other);
    }

    fn intersection(&self, other: &Self) -> Self {
        let other = lock(&other.inner).clone();
        Self { inner: Mutex::new(lock(&self.inner).intersection(&other)) }
    }

    fn difference(&self, other: &Self) -> Self {
        let other = lock(&other.inner).clone();
        Self { inner: Mutex::new(lock(&self.inner).difference(&other)) }
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &lock(&self.inner).to_datasketches())
    }

    #[staticmethod]
    fn from_bytes(data: &[u8], lg_k: u8) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(Theta::from_datasketches(data, lg_k).raise()?) })
    }
}

#[pyclass(name = "FrequentItems", module = "barograph._barograph", frozen)]
struct PyFrequentItems {
    inner: Mutex<FrequentItems>,
}

#[pymethods]
impl PyFrequentItems {
    #[new]
    fn new(lg_size: u8) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(FrequentItems::new(lg_size).raise()?) })
    }

    fn update_many(&self, py: Python<'_>, values: Keys<'_>) -> PyResult<()> {
        values.feed(py, &self.inner)
    }

    #[getter]
    fn total(&self) -> u64 {
        lock(&self.inner).total()
    }

    #[getter]
    fn error(&self) -> u64 {
        lock(&self.inner).error()
    }

    fn count(&self, name: &str) -> (u64, u64) {
        lock(&self.inner).count(name)
    }

    fn frequent(&self) -> Vec<(String, u64, u64)> {
        lock(&self.inner).frequent().into_iter().map(|(name, least, most)| (name.to_owned(), least, most)).collect()
    }

    fn merge(&self, other: &Self) {
        let other = lock(&other.inner).clone();
        lock(&self.inner).merge(&other);
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &lock(&self.inner).to_datasketches())
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(FrequentItems::from_datasketches(data).raise()?) })
    }
}

#[pyclass(name = "Sample", module = "barograph._barograph", frozen)]
struct PySample {
    inner: Mutex<Sample>,
}

#[pymethods]
impl PySample {
    #[new]
    fn new(k: usize, seed: u64) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(Sample::new(k, seed).raise()?) })
    }

    fn update_many(&self, py: Python<'_>, values: Keys<'_>) -> PyResult<()> {
        values.feed(py, &self.inner)
    }

    #[getter]
    fn k(&self) -> usize {
        lock(&self.inner).k()
    }

    #[getter]
    fn seed(&self) -> u64 {
        lock(&self.inner).seed()
    }

    #[getter]
    fn inclusion(&self) -> f64 {
        lock(&self.inner).inclusion()
    }

    fn ids(&self) -> Vec<String> {
        lock(&self.inner).ids().map(str::to_owned).collect()
    }

    fn merge(&self, other: &Self) -> PyResult<()> {
        let other = lock(&other.inner).clone();
        lock(&self.inner).merge(&other).raise()
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &lock(&self.inner).to_bytes())
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(Sample::from_bytes(data).raise()?) })
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyExponentialHistogram>()?;
    module.add_class::<PyKll>()?;
    module.add_class::<PyHll>()?;
    module.add_class::<PyTheta>()?;
    module.add_class::<PyFrequentItems>()?;
    module.add_class::<PySample>()
}
