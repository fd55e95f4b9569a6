//! The sidecar: run from Python, with Python out of the way.

use barograph_core::Error;
use barograph_server::config::{Config, Overrides};
use pyo3::prelude::*;

use crate::errors::{Raise, raised};

/// Runs a sidecar until it is told to stop. `overrides` is JSON.
#[pyfunction]
fn serve(py: Python<'_>, overrides: &str) -> PyResult<()> {
    let overrides: Overrides = serde_json::from_str(overrides).map_err(|error| raised(&Error::invalid(error.to_string())))?;
    py.detach(|| barograph_server::serve::run(&overrides)).raise()
}

/// Refuses the text of a configuration that a sidecar would refuse.
#[pyfunction]
fn check_config(text: &str, source: &str) -> PyResult<()> {
    Config::from_toml(text, source).and_then(|config| config.check()).raise()
}

/// The keys that a configuration file of the sidecar may have at its top.
#[pyfunction]
fn config_keys() -> &'static [&'static str] {
    Config::keys()
}

/// Sends load to a sidecar. `plan` and the outcome are JSON.
#[pyfunction]
fn sidecar_load(py: Python<'_>, plan: &str) -> PyResult<String> {
    let wrong = |text: String| raised(&Error::invalid(text));
    let plan: barograph_server::load::Plan = serde_json::from_str(plan).map_err(|error| wrong(error.to_string()))?;
    let outcome = py.detach(|| barograph_server::load::run(&plan)).map_err(wrong)?;
    serde_json::to_string(&outcome).map_err(|error| wrong(error.to_string()))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(serve, module)?)?;
    module.add_function(wrap_pyfunction!(sidecar_load, module)?)?;
    module.add_function(wrap_pyfunction!(check_config, module)?)?;
    module.add_function(wrap_pyfunction!(config_keys, module)?)
}
