//! Sketches of rows of several numbers.

use std::sync::Mutex;

use barograph_core::Error;
use barograph_core::rows::Rows;
use barograph_core::sketches::{CoMoments, MeanEmbedding, SlicedProjections};
use numpy::PyReadonlyArray2;
use numpy::ndarray::ArrayView2;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::Raise;
use crate::profiles::lock;
use crate::scores::{Fields, fields};

fn flat(rows: &ArrayView2<'_, f64>) -> Vec<f64> {
    rows.iter().copied().collect()
}

/// Feeds rows with the GIL released, if they have as many columns as the sketch.
fn feed<T: Send>(
    py: Python<'_>,
    sketch: &Mutex<T>,
    rows: &PyReadonlyArray2<'_, f64>,
    width: usize,
    update: impl Fn(&mut T, &[f64]) + Sync,
) -> PyResult<()> {
    let rows = rows.as_array();
    if rows.ncols() != width {
        return Err(Error::invalid(format!("`rows` must have {width} columns, got {}", rows.ncols()))).raise();
    }
    py.detach(|| update(&mut lock(sketch), &flat(&rows)));
    Ok(())
}

#[pyclass(name = "CoMoments", module = "barograph._barograph", frozen)]
struct PyCoMoments {
    inner: Mutex<CoMoments>,
}

#[pymethods]
impl PyCoMoments {
    #[new]
    fn new(columns: usize) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(CoMoments::new(columns).raise()?) })
    }

    fn update_many(&self, py: Python<'_>, rows: PyReadonlyArray2<'_, f64>) -> PyResult<()> {
        feed(py, &self.inner, &rows, self.columns(), CoMoments::update_many)
    }

    #[getter]
    fn columns(&self) -> usize {
        lock(&self.inner).width()
    }

    #[getter]
    fn count(&self) -> u64 {
        lock(&self.inner).count()
    }

    fn means(&self) -> Option<Vec<f64>> {
        lock(&self.inner).means().map(<[f64]>::to_vec)
    }

    fn covariance(&self) -> Option<Vec<f64>> {
        lock(&self.inner).covariance()
    }

    fn correlation(&self) -> Vec<Option<f64>> {
        lock(&self.inner).correlation()
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
        PyBytes::new(py, &lock(&self.inner).to_bytes())
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(CoMoments::from_bytes(data).raise()?) })
    }
}

#[pyclass(name = "MeanEmbedding", module = "barograph._barograph", frozen)]
struct PyMeanEmbedding {
    inner: Mutex<MeanEmbedding>,
}

#[pymethods]
impl PyMeanEmbedding {
    #[staticmethod]
    fn fit(py: Python<'_>, rows: PyReadonlyArray2<'_, f64>, features: usize, seed: u64) -> PyResult<Self> {
        let rows = rows.as_array();
        let fitted = py.detach(|| MeanEmbedding::fit(Rows::new("rows", &flat(&rows), rows.ncols())?, features, seed));
        Ok(Self { inner: Mutex::new(fitted.raise()?) })
    }

    fn empty(&self) -> Self {
        Self { inner: Mutex::new(lock(&self.inner).empty()) }
    }

    fn update_many(&self, py: Python<'_>, rows: PyReadonlyArray2<'_, f64>) -> PyResult<()> {
        feed(py, &self.inner, &rows, self.columns(), MeanEmbedding::update_many)
    }

    #[getter]
    fn columns(&self) -> usize {
        lock(&self.inner).width()
    }

    #[getter]
    fn count(&self) -> u64 {
        lock(&self.inner).count()
    }

    fn mmd(&self, other: &Self) -> PyResult<f64> {
        let other = lock(&other.inner).clone();
        lock(&self.inner).mmd(&other).raise()
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
        PyBytes::new(py, &lock(&self.inner).to_bytes())
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(py.detach(|| MeanEmbedding::from_bytes(data)).raise()?) })
    }
}

#[pyclass(name = "SlicedProjections", module = "barograph._barograph", frozen)]
struct PySlicedProjections {
    inner: Mutex<SlicedProjections>,
}

#[pymethods]
impl PySlicedProjections {
    #[staticmethod]
    fn fit(py: Python<'_>, rows: PyReadonlyArray2<'_, f64>, directions: usize, seed: u64) -> PyResult<Self> {
        let rows = rows.as_array();
        let fitted = py.detach(|| SlicedProjections::fit(Rows::new("rows", &flat(&rows), rows.ncols())?, directions, seed));
        Ok(Self { inner: Mutex::new(fitted.raise()?) })
    }

    fn empty(&self) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(lock(&self.inner).empty().raise()?) })
    }

    fn update_many(&self, py: Python<'_>, rows: PyReadonlyArray2<'_, f64>) -> PyResult<()> {
        feed(py, &self.inner, &rows, self.columns(), SlicedProjections::update_many)
    }

    #[getter]
    fn columns(&self) -> usize {
        lock(&self.inner).width()
    }

    #[getter]
    fn count(&self) -> u64 {
        lock(&self.inner).count()
    }

    fn sliced_wasserstein(&self, py: Python<'_>, other: &Self) -> PyResult<Fields> {
        let other = lock(&other.inner).clone();
        py.detach(|| lock(&self.inner).sliced_wasserstein(&other)).raise().map(fields)
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
        PyBytes::new(py, &lock(&self.inner).to_bytes())
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(py.detach(|| SlicedProjections::from_bytes(data)).raise()?) })
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyCoMoments>()?;
    module.add_class::<PyMeanEmbedding>()?;
    module.add_class::<PySlicedProjections>()
}
