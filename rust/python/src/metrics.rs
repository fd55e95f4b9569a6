//! Metrics of predictions against labels.

use std::sync::Mutex;

use barograph_core::codec::{Reader, SnapshotKind, Writer};
use barograph_core::metrics::{BinaryMetrics, Metric, MulticlassMetrics, RankingMetrics, RegressionMetrics};
use barograph_core::{Error, Result};
use numpy::ndarray::ArrayView2;
use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::border::contiguous;
use crate::errors::Raise;
use crate::profiles::lock;

/// What `catalog()` lists.
pub const NAMES: [&str; 4] = ["binary_metrics", "multiclass_metrics", "regression_metrics", "ranking_metrics"];

type Doubles<'py> = PyReadonlyArray1<'py, f64>;
pub(crate) type Rows = Vec<(&'static str, Option<f64>, Option<f64>, Option<f64>)>;

pub(crate) fn rows(metrics: Vec<Metric>) -> Rows {
    metrics
        .into_iter()
        .map(|metric| (metric.name, metric.value, metric.limits.map(|limits| limits.0), metric.limits.map(|limits| limits.1)))
        .collect()
}

fn sealed(name: &str, encode: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.str(name);
    encode(&mut writer);
    writer.seal(SnapshotKind::Metrics)
}

fn opened<T>(name: &str, data: &[u8], decode: impl FnOnce(&mut Reader<'_>) -> Result<T>) -> PyResult<T> {
    let read = || {
        let mut reader = Reader::open(data, SnapshotKind::Metrics)?;
        let got = reader.str()?;
        if got != name {
            return Err(
                Error::decode(format!("expected a snapshot of {name}, got one of {got}")).hint("load it with the class that wrote it")
            );
        }
        let out = decode(&mut reader)?;
        reader.finish()?;
        Ok(out)
    };
    read().raise()
}

fn slice<'a>(array: Option<&'a Doubles<'_>>) -> Option<std::borrow::Cow<'a, [f64]>> {
    array.map(|array| contiguous(array.as_array()))
}

#[pyclass(name = "BinaryMetrics", module = "barograph._barograph", frozen)]
struct PyBinaryMetrics {
    inner: Mutex<BinaryMetrics>,
}

#[pymethods]
impl PyBinaryMetrics {
    #[new]
    fn new() -> Self {
        Self { inner: Mutex::new(BinaryMetrics::default()) }
    }

    #[pyo3(signature = (y_true, y_score=None, y_pred=None, weight=None))]
    fn update_many(
        &self,
        py: Python<'_>,
        y_true: Doubles<'_>,
        y_score: Option<Doubles<'_>>,
        y_pred: Option<Doubles<'_>>,
        weight: Option<Doubles<'_>>,
    ) -> PyResult<()> {
        let (labels, scores, predictions, weights) =
            (slice(Some(&y_true)), slice(y_score.as_ref()), slice(y_pred.as_ref()), slice(weight.as_ref()));
        let labels = labels.as_deref().unwrap_or_default();
        py.detach(|| lock(&self.inner).update_many(labels, scores.as_deref(), predictions.as_deref(), weights.as_deref())).raise()
    }

    fn merge(&self, other: &Self) {
        let other = lock(&other.inner).clone();
        lock(&self.inner).merge(&other);
    }

    fn rows(&self) -> (u64, u64) {
        lock(&self.inner).rows()
    }

    fn metrics(&self, confidence: f64) -> Rows {
        rows(lock(&self.inner).metrics(confidence))
    }

    fn calibration(&self) -> Vec<Option<(f64, f64, f64)>> {
        lock(&self.inner).calibration().to_vec()
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &sealed(NAMES[0], |writer| lock(&self.inner).encode(writer)))
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(opened(NAMES[0], data, BinaryMetrics::decode)?) })
    }
}

#[pyclass(name = "MulticlassMetrics", module = "barograph._barograph", frozen)]
struct PyMulticlassMetrics {
    inner: Mutex<MulticlassMetrics>,
}

type OfClass = (Option<f64>, Option<f64>, Option<f64>, f64, Option<f64>);

#[pymethods]
impl PyMulticlassMetrics {
    #[new]
    fn new(classes: usize) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(MulticlassMetrics::new(classes).raise()?) })
    }

    #[pyo3(signature = (y_true, y_pred, y_score=None, weight=None))]
    fn update_many(
        &self,
        py: Python<'_>,
        y_true: PyReadonlyArray1<'_, i64>,
        y_pred: PyReadonlyArray1<'_, i64>,
        y_score: Option<PyReadonlyArray2<'_, f64>>,
        weight: Option<Doubles<'_>>,
    ) -> PyResult<()> {
        let labels: Vec<i64> = y_true.as_array().iter().copied().collect();
        let predictions: Vec<i64> = y_pred.as_array().iter().copied().collect();
        let scores: Option<Vec<f64>> = y_score.map(|scores| scores.as_array().iter().copied().collect());
        let weights = slice(weight.as_ref());
        py.detach(|| lock(&self.inner).update_many(&labels, &predictions, scores.as_deref(), weights.as_deref())).raise()
    }

    fn update_expected(
        &self,
        py: Python<'_>,
        probabilities: PyReadonlyArray2<'_, f64>,
        y_pred: PyReadonlyArray1<'_, i64>,
        scores: PyReadonlyArray2<'_, f64>,
    ) -> PyResult<()> {
        let predictions: Vec<i64> = y_pred.as_array().iter().copied().collect();
        let flat = |array: &PyReadonlyArray2<'_, f64>| array.as_array().iter().copied().collect::<Vec<f64>>();
        let (probabilities, scores) = (flat(&probabilities), flat(&scores));
        py.detach(|| lock(&self.inner).update_expected(&probabilities, &predictions, &scores)).raise()
    }

    fn merge(&self, other: &Self) -> PyResult<()> {
        let other = lock(&other.inner).clone();
        lock(&self.inner).merge(&other).raise()
    }

    fn rows(&self) -> (u64, u64) {
        lock(&self.inner).rows()
    }

    fn metrics(&self) -> Rows {
        rows(lock(&self.inner).metrics())
    }

    fn confusion(&self) -> Vec<Vec<f64>> {
        lock(&self.inner).confusion()
    }

    fn per_class(&self) -> Vec<OfClass> {
        let classes = lock(&self.inner).per_class();
        classes.into_iter().map(|class| (class.precision, class.recall, class.f1, class.support, class.roc_auc)).collect()
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &sealed(NAMES[1], |writer| lock(&self.inner).encode(writer)))
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(opened(NAMES[1], data, MulticlassMetrics::decode)?) })
    }
}

#[pyclass(name = "RegressionMetrics", module = "barograph._barograph", frozen)]
struct PyRegressionMetrics {
    inner: Mutex<RegressionMetrics>,
}

#[pymethods]
impl PyRegressionMetrics {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(RegressionMetrics::new().raise()?) })
    }

    fn update_many(&self, py: Python<'_>, y_true: Doubles<'_>, y_pred: Doubles<'_>) -> PyResult<()> {
        let (labels, predictions) = (slice(Some(&y_true)), slice(Some(&y_pred)));
        let (labels, predictions) = (labels.as_deref().unwrap_or_default(), predictions.as_deref().unwrap_or_default());
        py.detach(|| lock(&self.inner).update_many(labels, predictions)).raise()
    }

    fn merge(&self, other: &Self) -> PyResult<()> {
        let other = lock(&other.inner).clone();
        lock(&self.inner).merge(&other).raise()
    }

    fn rows(&self) -> (u64, u64) {
        lock(&self.inner).rows()
    }

    fn metrics(&self, confidence: f64) -> Rows {
        rows(lock(&self.inner).metrics(confidence))
    }

    fn pinball(&self, alpha: f64) -> PyResult<Option<f64>> {
        lock(&self.inner).pinball(alpha).raise()
    }

    fn error_quantile(&self, q: f64) -> PyResult<Option<f64>> {
        lock(&self.inner).error_quantile(q).raise()
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &sealed(NAMES[2], |writer| lock(&self.inner).encode(writer)))
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(opened(NAMES[2], data, RegressionMetrics::decode)?) })
    }
}

#[pyclass(name = "RankingMetrics", module = "barograph._barograph", frozen)]
struct PyRankingMetrics {
    inner: Mutex<RankingMetrics>,
}

#[pymethods]
impl PyRankingMetrics {
    #[new]
    fn new(k: u64) -> Self {
        Self { inner: Mutex::new(RankingMetrics::new(k)) }
    }

    fn update_many(&self, py: Python<'_>, y_true: PyReadonlyArray2<'_, f64>, y_score: PyReadonlyArray2<'_, f64>) -> PyResult<()> {
        let (relevance, scores) = (y_true.as_array(), y_score.as_array());
        py.detach(|| {
            let flat = |array: &ArrayView2<'_, f64>| array.iter().copied().collect::<Vec<_>>();
            lock(&self.inner).update_many(&flat(&relevance), &flat(&scores), scores.ncols())
        })
        .raise()
    }

    fn merge(&self, other: &Self) -> PyResult<()> {
        let other = lock(&other.inner).clone();
        lock(&self.inner).merge(&other).raise()
    }

    fn rows(&self) -> (u64, u64) {
        (lock(&self.inner).queries(), 0)
    }

    fn metrics(&self, confidence: f64) -> Rows {
        rows(lock(&self.inner).metrics(confidence))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &sealed(NAMES[3], |writer| lock(&self.inner).encode(writer)))
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(opened(NAMES[3], data, RankingMetrics::decode)?) })
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyBinaryMetrics>()?;
    module.add_class::<PyMulticlassMetrics>()?;
    module.add_class::<PyRankingMetrics>()?;
    module.add_class::<PyRegressionMetrics>()
}
