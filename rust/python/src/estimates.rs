//! Estimates without labels, and limits that hold at any time.

use std::sync::{Arc, Mutex};

use barograph_core::Error;
use barograph_core::codec::{Reader, SnapshotKind, Writer};
use barograph_core::estimates::{
    AsymptoticSequence, AucSequence, CalibrationAlarm, Cbpe, CbpeEstimate, MeanSequence, QuantileSequence, RiskAlarm,
};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::border::contiguous;
use crate::errors::Raise;
use crate::metrics::{Rows, rows};
use crate::profiles::lock;

/// What `catalog()` lists.
pub const NAMES: [&str; 7] =
    ["cbpe", "mean_sequence", "quantile_sequence", "auc_sequence", "asymptotic_sequence", "risk_alarm", "calibration_alarm"];

type Doubles<'py> = PyReadonlyArray1<'py, f64>;

fn sealed<'py>(py: Python<'py>, name: &str, encode: impl FnOnce(&mut Writer)) -> Bound<'py, PyBytes> {
    let mut writer = Writer::new();
    writer.str(name);
    encode(&mut writer);
    PyBytes::new(py, &writer.seal(SnapshotKind::Estimate))
}

fn opened<T>(name: &str, data: &[u8], decode: impl FnOnce(&mut Reader<'_>) -> barograph_core::Result<T>) -> PyResult<T> {
    let read = || {
        let mut reader = Reader::open(data, SnapshotKind::Estimate)?;
        let got = reader.str()?;
        if got != name {
            let hint = "load it with the class that wrote it";
            return Err(Error::decode(format!("expected a snapshot of {name}, got one of {got}")).hint(hint));
        }
        let out = decode(&mut reader)?;
        reader.finish()?;
        Ok(out)
    };
    read().raise()
}

/// The methods of a class around a state behind a lock, `to_bytes` and `from_bytes` among them.
macro_rules! methods {
    ($class:ident, $state:ty, $name:expr, { $($methods:tt)* }) => {
        #[pymethods]
        impl $class {
            $($methods)*

            fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
                sealed(py, $name, |writer| lock(&self.inner).encode(writer))
            }

            #[staticmethod]
            fn from_bytes(data: &[u8]) -> PyResult<Self> {
                Ok(Self { inner: Mutex::new(opened($name, data, <$state>::decode)?) })
            }
        }
    };
}

#[pyclass(name = "Cbpe", module = "barograph._barograph", frozen)]
struct PyCbpe {
    inner: Arc<Cbpe>,
}

#[pymethods]
impl PyCbpe {
    #[staticmethod]
    #[pyo3(signature = (scores, labels, weight=None))]
    fn fit(py: Python<'_>, scores: Doubles<'_>, labels: Doubles<'_>, weight: Option<Doubles<'_>>) -> PyResult<Self> {
        let (scores, labels) = (contiguous(scores.as_array()), contiguous(labels.as_array()));
        let weight = weight.as_ref().map(|weight| contiguous(weight.as_array()));
        let fitted = py.detach(|| Cbpe::fit(&scores, &labels, weight.as_deref())).raise()?;
        Ok(Self { inner: Arc::new(fitted) })
    }

    /// Debiased calibration errors of the scores and of the calibrated ones, and whether the latter holds.
    fn check(&self) -> Option<(f64, f64, bool)> {
        self.inner.check().map(|check| (check.raw, check.calibrated, check.holds))
    }

    fn knots(&self) -> (Vec<f64>, Vec<f64>) {
        let (x, y) = self.inner.map().knots();
        (x.to_vec(), y.to_vec())
    }

    fn calibrated<'py>(&self, py: Python<'py>, scores: Doubles<'py>) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let scores = contiguous(scores.as_array());
        Ok(PyArray1::from_vec(py, py.detach(|| self.inner.calibrated(&scores)).raise()?))
    }

    fn estimate(&self) -> PyCbpeEstimate {
        PyCbpeEstimate { inner: Mutex::new(CbpeEstimate::new(self.inner.clone())) }
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        sealed(py, "cbpe", |writer| self.inner.encode(writer))
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        Ok(Self { inner: Arc::new(opened("cbpe", data, Cbpe::decode)?) })
    }
}

#[pyclass(name = "CbpeEstimate", module = "barograph._barograph", frozen)]
struct PyCbpeEstimate {
    inner: Mutex<CbpeEstimate>,
}

methods!(PyCbpeEstimate, CbpeEstimate, "cbpe_estimate", {
    #[pyo3(signature = (scores, y_pred=None))]
    fn update_many(&self, py: Python<'_>, scores: Doubles<'_>, y_pred: Option<Doubles<'_>>) -> PyResult<()> {
        let scores = contiguous(scores.as_array());
        let y_pred = y_pred.as_ref().map(|y_pred| contiguous(y_pred.as_array()));
        py.detach(|| lock(&self.inner).update_many(&scores, y_pred.as_deref())).raise()
    }

    fn merge(&self, other: &Self) -> PyResult<()> {
        let other = lock(&other.inner).clone();
        lock(&self.inner).merge(&other).raise()
    }

    fn rows(&self) -> u64 {
        lock(&self.inner).rows()
    }

    fn metrics(&self, py: Python<'_>, confidence: f64) -> Rows {
        py.detach(|| rows(lock(&self.inner).metrics(confidence)))
    }

    fn confusion(&self) -> [f64; 4] {
        lock(&self.inner).confusion()
    }
});

#[pyclass(name = "MeanSequence", module = "barograph._barograph", frozen)]
struct PyMeanSequence {
    inner: Mutex<MeanSequence>,
}

methods!(PyMeanSequence, MeanSequence, NAMES[1], {
    #[new]
    fn new(lower: f64, upper: f64, alpha: f64) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(MeanSequence::new(lower, upper, alpha).raise()?) })
    }

    fn update_many(&self, py: Python<'_>, values: Doubles<'_>) -> PyResult<()> {
        let values = contiguous(values.as_array());
        py.detach(|| lock(&self.inner).update_many(&values)).raise()
    }

    fn state(&self) -> (u64, Option<f64>) {
        let state = lock(&self.inner);
        (state.count(), state.mean())
    }

    fn interval(&self) -> (f64, f64) {
        lock(&self.inner).interval()
    }
});

#[pyclass(name = "QuantileSequence", module = "barograph._barograph", frozen)]
struct PyQuantileSequence {
    inner: Mutex<QuantileSequence>,
}

methods!(PyQuantileSequence, QuantileSequence, NAMES[2], {
    #[new]
    fn new(q: f64, alpha: f64) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(QuantileSequence::new(q, alpha).raise()?) })
    }

    fn update_many(&self, py: Python<'_>, values: Doubles<'_>) -> PyResult<()> {
        let values = contiguous(values.as_array());
        py.detach(|| lock(&self.inner).update_many(&values)).raise()
    }

    fn state(&self) -> PyResult<(u64, Option<f64>)> {
        let state = lock(&self.inner);
        Ok((state.count(), state.value().raise()?))
    }

    fn interval(&self) -> PyResult<(Option<f64>, Option<f64>)> {
        lock(&self.inner).interval().raise()
    }
});

#[pyclass(name = "AucSequence", module = "barograph._barograph", frozen)]
struct PyAucSequence {
    inner: Mutex<AucSequence>,
}

methods!(PyAucSequence, AucSequence, NAMES[3], {
    #[new]
    fn new(paired: bool, alpha: f64) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(AucSequence::new(paired, alpha).raise()?) })
    }

    #[pyo3(signature = (labels, scores, other_scores=None))]
    fn update_many(&self, py: Python<'_>, labels: Doubles<'_>, scores: Doubles<'_>, other_scores: Option<Doubles<'_>>) -> PyResult<()> {
        let (labels, scores) = (contiguous(labels.as_array()), contiguous(scores.as_array()));
        let others = other_scores.as_ref().map(|scores| contiguous(scores.as_array()));
        py.detach(|| lock(&self.inner).update_many(&labels, &scores, others.as_deref())).raise()
    }

    /// Count, mean, and events left out.
    fn state(&self) -> (u64, Option<f64>, u64) {
        let state = lock(&self.inner);
        (state.count(), state.mean(), state.left_out())
    }

    fn interval(&self) -> (f64, f64) {
        lock(&self.inner).interval()
    }
});

#[pyclass(name = "AsymptoticSequence", module = "barograph._barograph", frozen)]
struct PyAsymptoticSequence {
    inner: Mutex<AsymptoticSequence>,
}

methods!(PyAsymptoticSequence, AsymptoticSequence, NAMES[4], {
    #[new]
    fn new(alpha: f64) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(AsymptoticSequence::new(alpha).raise()?) })
    }

    fn update_many(&self, py: Python<'_>, values: Doubles<'_>) -> PyResult<()> {
        let values = contiguous(values.as_array());
        py.detach(|| lock(&self.inner).update_many(&values)).raise()
    }

    fn state(&self) -> (u64, Option<f64>) {
        let state = lock(&self.inner);
        (state.count(), state.mean())
    }

    fn interval(&self) -> Option<(f64, f64)> {
        lock(&self.inner).interval()
    }
});

#[pyclass(name = "RiskAlarm", module = "barograph._barograph", frozen)]
struct PyRiskAlarm {
    inner: Mutex<RiskAlarm>,
}

methods!(PyRiskAlarm, RiskAlarm, NAMES[5], {
    #[new]
    fn new(py: Python<'_>, reference: Doubles<'_>, tolerance: f64, alpha: f64, lower: f64, upper: f64) -> PyResult<Self> {
        let reference = contiguous(reference.as_array());
        let made = py.detach(|| RiskAlarm::new(&reference, tolerance, alpha, (lower, upper))).raise()?;
        Ok(Self { inner: Mutex::new(made) })
    }

    fn update_many(&self, py: Python<'_>, losses: Doubles<'_>) -> PyResult<Option<usize>> {
        let losses = contiguous(losses.as_array());
        py.detach(|| lock(&self.inner).update_many(&losses)).raise()
    }

    /// Count and mean of the losses, the limit, and after how many losses the alarm went off.
    fn state(&self) -> (u64, Option<f64>, f64, Option<u64>) {
        let state = lock(&self.inner);
        (state.losses().count(), state.losses().mean(), state.limit(), state.alarmed())
    }

    fn interval(&self) -> (f64, f64) {
        lock(&self.inner).losses().interval()
    }
});

#[pyclass(name = "CalibrationAlarm", module = "barograph._barograph", frozen)]
struct PyCalibrationAlarm {
    inner: Mutex<CalibrationAlarm>,
}

methods!(PyCalibrationAlarm, CalibrationAlarm, NAMES[6], {
    #[new]
    fn new(tolerance: f64, alpha: f64) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(CalibrationAlarm::new(tolerance, alpha).raise()?) })
    }

    fn update_many(&self, py: Python<'_>, labels: Doubles<'_>, probabilities: Doubles<'_>) -> PyResult<Option<usize>> {
        let (labels, probabilities) = (contiguous(labels.as_array()), contiguous(probabilities.as_array()));
        py.detach(|| lock(&self.inner).update_many(&labels, &probabilities)).raise()
    }

    /// Count, logarithm of the capital, and after how many rows the alarm went off.
    fn state(&self) -> (u64, f64, Option<u64>) {
        let state = lock(&self.inner);
        (state.count(), state.capital(), state.alarmed())
    }

    fn gaps(&self) -> Vec<(u64, Option<f64>)> {
        lock(&self.inner).gaps().to_vec()
    }
});

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyCbpe>()?;
    module.add_class::<PyCbpeEstimate>()?;
    module.add_class::<PyMeanSequence>()?;
    module.add_class::<PyQuantileSequence>()?;
    module.add_class::<PyAucSequence>()?;
    module.add_class::<PyAsymptoticSequence>()?;
    module.add_class::<PyRiskAlarm>()?;
    module.add_class::<PyCalibrationAlarm>()
}
