//! The monitor.

use std::sync::Mutex;

use barograph_core::Error;
use barograph_engine::Monitor;
use barograph_engine::monitor::{Config, Roles};
use pyo3::prelude::*;
use serde::Serialize;

use crate::border::for_each_batch;
use crate::errors::{Raise, raised};
use crate::profiles::lock;
use crate::references::PyReference;

fn json<T: Serialize + ?Sized>(value: &T) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| raised(&Error::invalid(error.to_string())))
}

#[pyclass(name = "Monitor", module = "barograph._barograph", frozen)]
struct PyMonitor {
    inner: Mutex<Monitor>,
}

#[pymethods]
impl PyMonitor {
    /// `config` is JSON.
    #[new]
    fn new(config: &str, reference: &PyReference) -> PyResult<Self> {
        let config: Config =
            serde_json::from_str(config).map_err(|error| raised(&Error::invalid(format!("the monitor could not be made: {error}"))))?;
        Ok(Self { inner: Mutex::new(Monitor::new(config, reference.inner.clone()).raise()?) })
    }

    /// `roles` is JSON: time, id, score, latency.
    fn observe(&self, frame: &Bound<'_, PyAny>, roles: &str, now: i64) -> PyResult<()> {
        let roles: Roles = serde_json::from_str(roles).map_err(|error| raised(&Error::invalid(error.to_string())))?;
        for_each_batch(frame, |batch| lock(&self.inner).observe(batch, &roles, now))
    }

    fn label(&self, frame: &Bound<'_, PyAny>, id: &str, label: &str) -> PyResult<()> {
        for_each_batch(frame, |batch| lock(&self.inner).label(batch, id, label))
    }

    fn tick(&self, py: Python<'_>, now: i64) -> PyResult<()> {
        py.detach(|| lock(&self.inner).tick(now)).raise()
    }

    /// JSON, or None without events.
    fn summary(&self, py: Python<'_>, start: i64, end: i64) -> PyResult<Option<String>> {
        let summary = py.detach(|| lock(&self.inner).summary(start, end)).raise()?;
        summary.as_ref().map(json).transpose()
    }

    fn history(&self) -> PyResult<String> {
        json(lock(&self.inner).history())
    }

    fn alerts(&self) -> PyResult<String> {
        json(lock(&self.inner).alerts())
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        lock(&self.inner).counts().to_vec()
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyMonitor>()
}
