//! References and the comparison with them.

use std::sync::{Arc, Mutex};

use barograph_core::Error;
use barograph_engine::seasons::Calendar;
use barograph_engine::{Profile, Reference, ReferenceBuilder, Schema, Settings, compare as engine_compare};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::border::for_each_batch;
use crate::errors::{Raise, raised};
use crate::profiles::{PyColumnProfile, PyProfile, lock, parse_schema, schema_json};

/// A frozen profile plus the bins it fixes.
#[pyclass(name = "Reference", module = "barograph._barograph", frozen)]
pub struct PyReference {
    pub inner: Arc<Reference>,
}

#[pymethods]
impl PyReference {
    #[getter]
    fn id(&self) -> &str {
        self.inner.id()
    }

    #[getter]
    fn rows(&self) -> u64 {
        self.inner.rows
    }

    #[getter]
    fn created(&self) -> Option<i64> {
        self.inner.created
    }

    fn schema_json(&self) -> PyResult<String> {
        schema_json(&self.inner.schema())
    }

    /// The same with coarser histograms.
    fn coarsened(&self, py: Python<'_>, scale: u8) -> PyResult<Self> {
        Ok(Self { inner: Arc::new(py.detach(|| self.inner.coarsened(scale)).raise()?) })
    }

    /// Edges of a column's bins and the reference's counts: below, the bins, above.
    fn bins(&self, name: &str) -> Option<(Vec<f64>, Vec<u64>)> {
        let column = self.inner.column(name)?;
        Some((column.bins.as_ref()?.edges().to_vec(), column.profile.numbers()?.bins.clone()?))
    }

    /// Hours of a window and the dependence factors of values and nulls.
    fn dependence(&self, name: &str) -> Vec<(f64, f64, f64)> {
        let factors = self.inner.column(name).map_or(&[][..], |column| &column.dependence);
        factors.iter().map(|factor| (factor.length as f64 / 3.6e12, factor.values, factor.nulls)).collect()
    }

    fn profile(&self) -> PyProfile {
        let columns = self.inner.columns.iter().map(|column| column.profile.clone()).collect();
        PyProfile::new(Profile::whole(self.inner.rows, columns, self.inner.id()))
    }

    fn column(&self, name: &str) -> PyResult<PyColumnProfile> {
        self.profile().column_of(name)
    }

    /// The word of its calendar, if it has seasons.
    fn season(&self) -> Option<&'static str> {
        self.inner.season.as_ref().map(|season| season.calendar.word())
    }

    /// Segment columns and their values.
    fn segments(&self) -> Vec<(String, Vec<String>)> {
        self.inner.segments.iter().map(|segments| (segments.column.clone(), segments.names.clone())).collect()
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let bytes = py.detach(|| self.inner.to_bytes());
        PyBytes::new(py, &bytes)
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        let inner = py.detach(|| Reference::from_bytes(data)).raise()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    #[staticmethod]
    #[pyo3(signature = (profile, bins, created=None))]
    fn from_profile(py: Python<'_>, profile: &PyProfile, bins: usize, created: Option<i64>) -> PyResult<Self> {
        let profile = lock(&profile.inner).clone();
        let inner = py.detach(|| Reference::from_profile(&profile, bins, created)).raise()?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// Reads frames into a reference, in one pass or two.
#[pyclass(name = "ReferenceBuilder", module = "barograph._barograph", frozen)]
struct PyReferenceBuilder {
    schema: Option<Schema>,
    bins: usize,
    season: Option<Calendar>,
    inner: Mutex<Option<ReferenceBuilder>>,
}

#[pymethods]
impl PyReferenceBuilder {
    #[new]
    #[pyo3(signature = (schema=None, bins=1000, season=None))]
    fn new(schema: Option<&str>, bins: usize, season: Option<&str>) -> PyResult<Self> {
        let season = season.map(Calendar::of).transpose().raise()?;
        Ok(Self { schema: schema.map(parse_schema).transpose()?, bins, season, inner: Mutex::new(None) })
    }

    fn update(&self, frame: &Bound<'_, PyAny>) -> PyResult<()> {
        for_each_batch(frame, |batch| {
            let mut builder = lock(&self.inner);
            if builder.is_none() {
                let schema = match &self.schema {
                    Some(schema) => schema.clone(),
                    None => Schema::infer(batch)?,
                };
                if let Some(column) = schema.columns.iter().find(|column| batch.column_by_name(&column.name).is_none()) {
                    return Err(Error::invalid(format!("`schema` names column {:?}, which the frame has not", column.name)));
                }
                *builder = Some(ReferenceBuilder::new(&schema, Some(self.bins), self.season)?);
            }
            builder.as_mut().map_or(Ok(()), |builder| builder.update(batch))
        })
    }

    /// Fixes the edges; true if every frame has to be given to `count` again.
    fn fix(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| lock(&self.inner).as_mut().map_or(Ok(false), ReferenceBuilder::fix)).raise()
    }

    fn count(&self, frame: &Bound<'_, PyAny>) -> PyResult<()> {
        for_each_batch(frame, |batch| lock(&self.inner).as_mut().map_or(Ok(()), |builder| builder.count(batch)))
    }

    #[pyo3(signature = (created=None))]
    fn finish(&self, py: Python<'_>, created: Option<i64>) -> PyResult<PyReference> {
        let Some(builder) = lock(&self.inner).take() else { return Err(raised(&Error::invalid("no frame was given"))) };
        let inner = py.detach(|| builder.finish(created)).raise()?;
        Ok(PyReference { inner: Arc::new(inner) })
    }
}

/// The report of a comparison as JSON. `settings` is JSON too; what it leaves out has its default.
#[pyfunction]
fn compare(py: Python<'_>, reference: &PyReference, current: &PyProfile, settings: &str) -> PyResult<String> {
    let settings: Settings =
        serde_json::from_str(settings).map_err(|error| raised(&Error::invalid(format!("settings could not be read: {error}"))))?;
    let current = lock(&current.inner).clone();
    py.detach(|| engine_compare(&reference.inner, &current, &settings).and_then(|report| report.to_json())).raise()
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyReference>()?;
    module.add_class::<PyReferenceBuilder>()?;
    module.add_function(wrap_pyfunction!(compare, module)?)
}
