//! Profiles and their columns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use barograph_core::sketches::{FrequentItems, Kll};
use barograph_core::{Error, ErrorKind};
use barograph_engine::profile::Content;
use barograph_engine::schema::Column;
use barograph_engine::{Profile, Schema};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::border::for_each_batch;
use crate::errors::{Raise, raised};
use crate::references::PyReference;
use crate::threads::on_all_cores;

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held, so what a poisoned lock guards is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn parse_schema(json: &str) -> PyResult<Schema> {
    let schema: Schema =
        serde_json::from_str(json).map_err(|error| raised(&Error::invalid(format!("`schema` could not be read: {error}"))))?;
    schema.checked().raise()
}

pub fn schema_json(schema: &Schema) -> PyResult<String> {
    serde_json::to_string(schema).map_err(|error| raised(&Error::invalid(error.to_string())))
}

/// Infers the schema of a frame from the first rows of its first batch.
#[pyfunction]
fn infer_schema(frame: &Bound<'_, PyAny>) -> PyResult<String> {
    let mut schema = None;
    for_each_batch(frame, |batch| {
        if schema.is_none() {
            schema = Some(Schema::infer(batch)?);
        }
        Ok(())
    })?;
    schema_json(&schema.unwrap_or_default())
}

/// A profile: mergeable, bounded, without raw rows.
#[pyclass(name = "Profile", module = "barograph._barograph", frozen, weakref)]
pub struct PyProfile {
    pub inner: Mutex<Profile>,
}

impl PyProfile {
    pub fn new(profile: Profile) -> Self {
        Self { inner: Mutex::new(profile) }
    }
}

#[pymethods]
impl PyProfile {
    #[getter]
    fn rows(&self) -> u64 {
        lock(&self.inner).rows
    }

    #[getter]
    fn reference(&self) -> Option<String> {
        lock(&self.inner).reference.clone()
    }

    fn schema_json(&self) -> PyResult<String> {
        schema_json(&lock(&self.inner).schema())
    }

    #[pyo3(name = "column")]
    pub fn column_of(&self, name: &str) -> PyResult<PyColumnProfile> {
        let profile = lock(&self.inner);
        let column = profile.column(name).cloned().ok_or_else(|| {
            let names: Vec<_> = profile.columns.iter().take(20).map(|column| column.column.name.as_str()).collect();
            raised(
                &Error::new(ErrorKind::NotFound, format!("no column {name:?} in the profile")).hint(format!("it has {}", names.join(", "))),
            )
        })?;
        Ok(PyColumnProfile { inner: Arc::new(column), reference: profile.reference.clone() })
    }

    fn merged(&self, py: Python<'_>, other: &Self) -> PyResult<Self> {
        py.detach(|| {
            let mut out = lock(&self.inner).clone();
            let theirs = lock(&other.inner).clone();
            out.merge(&theirs).map(|()| Self::new(out))
        })
        .raise()
    }

    /// Adds another profile to this one; nothing is changed where they do not fit.
    fn merge(&self, py: Python<'_>, other: &Self) -> PyResult<()> {
        py.detach(|| {
            if std::ptr::eq(self, other) {
                let theirs = lock(&other.inner).clone();
                return lock(&self.inner).merge(&theirs);
            }
            // Two threads may merge two profiles into each other: the one at the lower address is locked first.
            let (mut mine, theirs);
            if std::ptr::from_ref(self) < std::ptr::from_ref(other) {
                mine = lock(&self.inner);
                theirs = lock(&other.inner);
            } else {
                theirs = lock(&other.inner);
                mine = lock(&self.inner);
            }
            mine.merge(&theirs)
        })
        .raise()
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let bytes = py.detach(|| lock(&self.inner).to_bytes());
        PyBytes::new(py, &bytes)
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        py.detach(|| Profile::from_bytes(data)).raise().map(Self::new)
    }
}

/// Reads frames into one profile.
#[pyclass(module = "barograph._barograph", frozen)]
struct ProfileBuilder {
    schema: Option<Schema>,
    reference: Option<Arc<barograph_engine::Reference>>,
    inner: Mutex<Option<Profile>>,
}

#[pymethods]
impl ProfileBuilder {
    #[new]
    #[pyo3(signature = (schema=None, reference=None))]
    fn new(schema: Option<&str>, reference: Option<&PyReference>) -> PyResult<Self> {
        let schema = schema.map(parse_schema).transpose()?;
        Ok(Self { schema, reference: reference.map(|reference| reference.inner.clone()), inner: Mutex::new(None) })
    }

    fn update(&self, frame: &Bound<'_, PyAny>) -> PyResult<()> {
        for_each_batch(frame, |batch| {
            let reference = self.reference.as_deref();
            let mut profile = lock(&self.inner);
            if profile.is_none() {
                let names: Vec<&str> = batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
                let schema = match (&self.schema, reference) {
                    (Some(schema), _) => schema.clone(),
                    (None, Some(reference)) => as_in_reference(Schema::infer(batch)?, reference),
                    (None, None) => Schema::infer(batch)?,
                };
                // What a schema names and the frame lacks stays out, so that a comparison says "missing".
                let columns = schema.columns.into_iter().filter(|column| names.contains(&column.name.as_str())).collect();
                *profile = Some(Profile::new(&Schema { columns }, reference)?);
            }
            match profile.as_mut() {
                Some(profile) => profile.update_on(on_all_cores, batch, reference),
                None => Ok(()),
            }
        })
    }

    fn finish(&self) -> PyResult<PyProfile> {
        match lock(&self.inner).take() {
            Some(profile) => Ok(PyProfile::new(profile)),
            None => Err(raised(&Error::invalid("no frame was given"))),
        }
    }
}

/// The frame's columns, with kind and role of the reference where it knows them.
fn as_in_reference(schema: Schema, reference: &barograph_engine::Reference) -> Schema {
    let known = |column: Column| reference.column(&column.name).map_or(column, |fixed| fixed.profile.column.clone());
    Schema { columns: schema.columns.into_iter().map(known).collect() }
}

/// One column of a profile. Numbers that do not exist (of another kind, of no rows) are None.
#[pyclass(name = "ColumnProfile", module = "barograph", frozen)]
pub struct PyColumnProfile {
    pub inner: Arc<barograph_engine::ColumnProfile>,
    /// The reference whose bins it counts.
    pub reference: Option<String>,
}

#[pymethods]
impl PyColumnProfile {
    #[getter]
    fn name(&self) -> &str {
        &self.inner.column.name
    }

    #[getter]
    fn kind(&self) -> &'static str {
        self.inner.column.kind.word()
    }

    #[getter]
    fn role(&self) -> &'static str {
        self.inner.column.role.word()
    }

    #[getter]
    fn count(&self) -> u64 {
        self.inner.count
    }

    #[getter]
    fn null_count(&self) -> u64 {
        self.inner.nulls
    }

    #[getter]
    fn nan_count(&self) -> Option<u64> {
        self.inner.numbers().map(|numbers| numbers.nan)
    }

    #[getter]
    fn positive_infinity_count(&self) -> Option<u64> {
        self.inner.numbers().map(|numbers| numbers.positive_infinity)
    }

    #[getter]
    fn negative_infinity_count(&self) -> Option<u64> {
        self.inner.numbers().map(|numbers| numbers.negative_infinity)
    }

    #[getter]
    fn zero_count(&self) -> Option<u64> {
        self.inner.numbers().map(|numbers| numbers.histogram.zero_count())
    }

    #[getter]
    fn negative_count(&self) -> Option<u64> {
        self.inner.numbers().map(|numbers| numbers.histogram.negative_count())
    }

    #[getter]
    fn mean(&self) -> Option<f64> {
        self.inner.numbers()?.moments.mean().filter(|mean| mean.is_finite())
    }

    #[getter]
    fn variance(&self) -> Option<f64> {
        self.inner.numbers()?.moments.variance().filter(|variance| variance.is_finite())
    }

    #[getter]
    fn std(&self) -> Option<f64> {
        self.variance().map(f64::sqrt)
    }

    #[getter]
    fn min(&self) -> Option<f64> {
        self.inner.numbers()?.min()
    }

    #[getter]
    fn max(&self) -> Option<f64> {
        self.inner.numbers()?.max()
    }

    #[getter]
    fn distinct(&self) -> Option<f64> {
        self.inner.names().map(barograph_core::sketches::Categories::distinct)
    }

    /// First and last instant in nanoseconds since the epoch.
    #[getter]
    fn time_range(&self) -> Option<(i64, i64)> {
        match self.inner.content {
            Content::Times(range) => range,
            _ => None,
        }
    }

    /// Why the values were not read, if they were not.
    #[getter]
    fn unread(&self) -> Option<&str> {
        self.inner.unread.as_deref()
    }

    /// Counts in the reference's bins, below and above included.
    #[getter]
    fn bin_counts(&self) -> Option<Vec<u64>> {
        self.inner.numbers()?.bins.clone()
    }

    fn quantile(&self, q: f64) -> PyResult<Option<f64>> {
        match self.inner.numbers() {
            Some(numbers) => numbers.quantile(q).raise(),
            None => Ok(None),
        }
    }

    #[pyo3(signature = (k=10))]
    fn top_k(&self, k: usize) -> Option<Vec<(String, u64)>> {
        let names = self.inner.names()?;
        Some(names.ranked().into_iter().take(k).map(|(name, count)| (name.to_owned(), count)).collect())
    }

    /// Quantiles in the bytes of DataSketches' `kll_doubles_sketch`.
    #[pyo3(signature = (k=200))]
    fn kll<'py>(&self, py: Python<'py>, k: u16) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let Some(numbers) = self.inner.numbers() else { return Ok(None) };
        Ok(Some(PyBytes::new(py, &Kll::from_histogram(&numbers.histogram, k).raise()?.to_bytes())))
    }

    /// Names in the bytes of DataSketches' `frequent_strings_sketch`.
    #[pyo3(signature = (lg_size=10))]
    fn frequent_items<'py>(&self, py: Python<'py>, lg_size: u8) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let Some(names) = self.inner.names() else { return Ok(None) };
        let mut items = FrequentItems::new(lg_size).raise()?;
        names.ranked().into_iter().for_each(|(name, count)| items.update(name, count));
        Ok(Some(PyBytes::new(py, &items.to_datasketches())))
    }

    fn name_count(&self, name: &str) -> Option<u64> {
        self.inner.names().map(|names| names.count(name))
    }

    fn __repr__(&self) -> String {
        let inner = &self.inner;
        format!("ColumnProfile({:?}, {}, {} rows, {} null)", inner.column.name, inner.column.kind.word(), inner.count, inner.nulls)
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(infer_schema, module)?)?;
    module.add_class::<PyProfile>()?;
    module.add_class::<ProfileBuilder>()?;
    module.add_class::<PyColumnProfile>()
}
