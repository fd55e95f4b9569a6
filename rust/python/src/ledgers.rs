//! The label ledger, and Arrow streams going out.

use std::sync::Mutex;

use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{RecordBatch, RecordBatchIterator};
use barograph_core::Error;
use barograph_engine::ledger::{Columns, Ledger, Terms};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::border::for_each_batch;
use crate::errors::{Raise, raised};
use crate::profiles::lock;

/// A table on its way out: whatever reads the Arrow C stream interface takes it.
#[pyclass(name = "Table", module = "barograph._barograph", frozen)]
struct PyTable {
    batch: RecordBatch,
}

#[pymethods]
impl PyTable {
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(&self, py: Python<'py>, requested_schema: Option<Py<PyAny>>) -> PyResult<Bound<'py, PyCapsule>> {
        // Readers cast themselves: another schema may be asked for, and need not be given.
        drop(requested_schema);
        let batches = RecordBatchIterator::new([Ok(self.batch.clone())], self.batch.schema());
        PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(batches)), c"arrow_array_stream")
    }
}

#[pyclass(name = "Ledger", module = "barograph._barograph", frozen)]
struct PyLedger {
    inner: Mutex<Ledger>,
}

fn columns(json: &str) -> PyResult<Columns> {
    serde_json::from_str(json).map_err(|error| raised(&Error::invalid(format!("columns could not be read: {error}"))))
}

#[pymethods]
impl PyLedger {
    /// `terms` is JSON.
    #[new]
    fn new(terms: &str) -> PyResult<Self> {
        let terms: Terms = serde_json::from_str(terms).map_err(|error| raised(&Error::invalid(error.to_string())))?;
        Ok(Self { inner: Mutex::new(Ledger::new(terms).raise()?) })
    }

    /// `names` is JSON.
    fn predictions(&self, frame: &Bound<'_, PyAny>, names: &str) -> PyResult<()> {
        let names = columns(names)?;
        for_each_batch(frame, |batch| lock(&self.inner).predictions(batch, &names))
    }

    /// `names` is JSON.
    fn labels(&self, frame: &Bound<'_, PyAny>, names: &str, now: i64) -> PyResult<()> {
        let names = columns(names)?;
        for_each_batch(frame, |batch| lock(&self.inner).labels(batch, &names, now))
    }

    fn expire(&self, py: Python<'_>, before: i64) -> PyResult<()> {
        py.detach(|| lock(&self.inner).expire(before)).raise()
    }

    fn table(&self, py: Python<'_>, all: bool) -> PyResult<PyTable> {
        let batch = py.detach(|| lock(&self.inner).table(all)).raise()?;
        Ok(PyTable { batch })
    }

    /// Texts of predictions and labels, by code.
    fn classes(&self) -> Vec<String> {
        lock(&self.inner).classes().into_iter().map(str::to_owned).collect()
    }

    fn counts(&self, py: Python<'_>) -> Vec<(&'static str, u64)> {
        py.detach(|| lock(&self.inner).counts())
    }

    fn size(&self) -> usize {
        lock(&self.inner).size()
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTable>()?;
    module.add_class::<PyLedger>()
}
