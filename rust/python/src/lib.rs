//! `barograph._barograph`: Arrow streams, numpy arrays and bytes in, profiles, reports and numbers out.
//!
//! Every long call releases the GIL; every error becomes a class of `barograph.errors`.

// PyO3 hands arguments over by value.
#![allow(clippy::needless_pass_by_value)]

mod border;
mod detectors;
mod errors;
mod estimates;
mod governed;
mod keys;
mod ledgers;
mod metrics;
mod monitors;
mod profiles;
mod references;
mod row_sketches;
mod scores;
#[cfg(unix)]
mod sidecar;
mod sketches;
#[cfg(unix)]
mod stores;
// Wheels for Windows are built without the sidecar, and count on all cores too.
#[path = "../../server/src/threads.rs"]
mod threads;

use barograph_engine::report::Method;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The sidecar takes and gives back many small pieces on several threads at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The names of every family: what faces, golden rows, bench rows and method pages are checked against.
#[pyfunction]
fn catalog(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let families = PyDict::new(py);
    families.set_item("scores", Method::SCORES.iter().map(|(name, _)| *name).chain(scores::ALONE).collect::<Vec<_>>())?;
    families.set_item("sketches", sketches::NAMES)?;
    families.set_item("detectors", detectors::NAMES)?;
    families.set_item("metrics", metrics::NAMES)?;
    families.set_item("estimates", estimates::NAMES)?;
    Ok(families)
}

/// Which code runs on this processor, where there is a choice.
#[pyfunction]
fn kernels(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let kernels = PyDict::new(py);
    kernels.set_item("moments", barograph_core::sketches::Moments::kernel())?;
    Ok(kernels)
}

#[pymodule(gil_used = false)]
fn _barograph(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(catalog, module)?)?;
    module.add_function(wrap_pyfunction!(kernels, module)?)?;
    profiles::register(module)?;
    references::register(module)?;
    ledgers::register(module)?;
    governed::register(module)?;
    monitors::register(module)?;
    scores::register(module)?;
    detectors::register(module)?;
    metrics::register(module)?;
    estimates::register(module)?;
    row_sketches::register(module)?;
    #[cfg(unix)]
    sidecar::register(module)?;
    #[cfg(unix)]
    stores::register(module)?;
    sketches::register(module)
}
