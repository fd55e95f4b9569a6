//! Detectors: one class each, made by one macro.

use std::sync::Mutex;

use barograph_core::detectors as core;
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::border::contiguous;
use crate::errors::Raise;
use crate::profiles::lock;

macro_rules! detector {
    ($class:ident, $name:literal, $core:ident, ($($argument:ident: $type:ty),*), $make:expr) => {
        #[pyclass(name = $name, module = "barograph._barograph", frozen)]
        struct $class {
            inner: Mutex<core::Detector<core::$core>>,
        }

        #[pymethods]
        impl $class {
            #[new]
            fn new($($argument: $type),*) -> PyResult<Self> {
                Ok(Self { inner: Mutex::new(core::Detector::new($make.raise()?)) })
            }

            fn update(&self, value: f64) -> PyResult<bool> {
                lock(&self.inner).update(value).raise()
            }

            fn update_many(&self, py: Python<'_>, values: PyReadonlyArray1<'_, f64>) -> PyResult<Vec<usize>> {
                let array = values.as_array();
                py.detach(|| lock(&self.inner).update_many(&contiguous(array))).raise()
            }

            fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
                PyBytes::new(py, &lock(&self.inner).to_bytes())
            }

            #[staticmethod]
            fn from_bytes(data: &[u8]) -> PyResult<Self> {
                Ok(Self { inner: Mutex::new(core::Detector::from_bytes(data).raise()?) })
            }
        }
    };
}

detector!(PyAdwin, "Adwin", Adwin, (delta: f64, clock: f64, max_buckets: f64, min_window_length: f64, grace_period: f64),
    core::Adwin::new(delta, clock, max_buckets, min_window_length, grace_period));
detector!(PyPageHinkley, "PageHinkley", PageHinkley, (min_instances: f64, delta: f64, threshold: f64, alpha: f64, mode: f64),
    core::PageHinkley::new(min_instances, delta, threshold, alpha, mode));
detector!(PyDdm, "Ddm", Ddm, (warm_start: f64, warning_threshold: f64, drift_threshold: f64),
    core::Ddm::new(warm_start, warning_threshold, drift_threshold));
detector!(PyEddm, "Eddm", Eddm, (warm_start: f64, alpha: f64, beta: f64), core::Eddm::new(warm_start, alpha, beta));
detector!(PyHddmA, "HddmA", HddmA, (drift_confidence: f64, warning_confidence: f64, two_sided_test: bool),
    core::HddmA::new(drift_confidence, warning_confidence, two_sided_test));
detector!(PyHddmW, "HddmW", HddmW, (drift_confidence: f64, warning_confidence: f64, lambda_val: f64, two_sided_test: bool),
    core::HddmW::new(drift_confidence, warning_confidence, lambda_val, two_sided_test));
detector!(PyKswin, "Kswin", Kswin, (alpha: f64, window_size: f64, stat_size: f64, seed: f64),
    core::Kswin::new(alpha, window_size, stat_size, seed));
detector!(PyCusum, "Cusum", Cusum, (slack: f64, threshold: f64, warm_up: f64), core::Cusum::new(slack, threshold, warm_up));
detector!(PyEwma, "Ewma", Ewma, (weight: f64, width: f64, warm_up: f64), core::Ewma::new(weight, width, warm_up));
detector!(PyRank, "Rank", Rank, (values: Vec<f64>, counts: Vec<u64>, tolerance: f64, threshold: f64),
    core::Rank::new(&values, &counts, tolerance, threshold));

/// What `catalog()` lists.
pub const NAMES: [&str; 10] = ["adwin", "page_hinkley", "ddm", "eddm", "hddm_a", "hddm_w", "kswin", "cusum", "ewma", "rank"];

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyAdwin>()?;
    module.add_class::<PyPageHinkley>()?;
    module.add_class::<PyDdm>()?;
    module.add_class::<PyEddm>()?;
    module.add_class::<PyHddmA>()?;
    module.add_class::<PyHddmW>()?;
    module.add_class::<PyKswin>()?;
    module.add_class::<PyCusum>()?;
    module.add_class::<PyEwma>()?;
    module.add_class::<PyRank>()
}
