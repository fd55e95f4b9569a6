//! The data folder of a sidecar, from Python.

use std::sync::Mutex;

use barograph_core::Error;
use barograph_server::config::{Config, Overrides};
use barograph_server::store::{self, Store};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{Raise, raised};

fn overrides(text: &str) -> PyResult<Overrides> {
    serde_json::from_str(text).map_err(|error| raised(&Error::invalid(error.to_string())))
}

fn json<T: serde::Serialize>(value: &T) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| raised(&Error::invalid(error.to_string())))
}

/// What stands in a folder, and what is wrong with it, as JSON.
#[pyfunction]
fn store_check(py: Python<'_>, options: &str) -> PyResult<String> {
    let options = overrides(options)?;
    json(&py.detach(|| store::check(&options)).raise()?)
}

/// Bytes before and after.
#[pyfunction]
fn store_compact(py: Python<'_>, options: &str) -> PyResult<(u64, u64)> {
    let options = overrides(options)?;
    py.detach(|| store::compact(&options)).raise()
}

/// Forgets a model, or an id of it (JSON).
#[pyfunction]
#[pyo3(signature = (options, model, id=None))]
fn store_erase(py: Python<'_>, options: &str, model: &str, id: Option<&str>) -> PyResult<()> {
    let options = overrides(options)?;
    py.detach(|| store::erase(&options, model, id)).raise()
}

/// An open folder.
#[pyclass(name = "Store", module = "barograph._barograph", frozen)]
struct PyStore {
    inner: Mutex<Store>,
}

impl PyStore {
    fn with<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&Store) -> barograph_core::Result<T> + Send) -> PyResult<T> {
        py.detach(|| work(&self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner))).raise()
    }
}

#[pymethods]
impl PyStore {
    #[new]
    fn new(py: Python<'_>, options: &str) -> PyResult<Self> {
        let options = overrides(options)?;
        let opened = py.detach(|| Config::load(&options).and_then(|config| Store::open(&config))).raise()?;
        Ok(Self { inner: Mutex::new(opened) })
    }

    fn names(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.with(py, |store| Ok(store.names()))
    }

    fn reference<'py>(&self, py: Python<'py>, model: &str) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let found = self.with(py, |store| store.reference(model))?;
        Ok(found.map(|bytes| PyBytes::new(py, &bytes)))
    }

    fn history(&self, py: Python<'_>, model: &str) -> PyResult<String> {
        json(&self.with(py, |store| store.history(model))?)
    }

    fn alerts(&self, py: Python<'_>, model: &str) -> PyResult<String> {
        json(&self.with(py, |store| store.alerts(model))?)
    }

    fn next_tile<'py>(&self, py: Python<'py>, model: &str, time: i64) -> PyResult<Option<(i64, i64, Bound<'py, PyBytes>)>> {
        let found = self.with(py, |store| store.next_tile(model, time))?;
        Ok(found.map(|(start, end, bytes)| (start, end, PyBytes::new(py, &bytes))))
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyStore>()?;
    module.add_function(wrap_pyfunction!(store_check, module)?)?;
    module.add_function(wrap_pyfunction!(store_compact, module)?)?;
    module.add_function(wrap_pyfunction!(store_erase, module)?)
}
