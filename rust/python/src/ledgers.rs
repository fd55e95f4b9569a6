//! The label ledger, and Arrow streams going out.

use std::sync::{Arc, Mutex};

use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchIterator};
use arrow_schema::{Field, Schema};
use barograph_core::Error;
use barograph_engine::ledger::{Columns, Ledger, Store, Terms};
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

/// A store written in Python: `save(predictions, labels)` and `load(ids)`, of frames.
struct PyStore(Py<PyAny>);

fn said(error: &PyErr) -> Error {
    Error::invalid(format!("`store` failed: {error}"))
}

impl Store for PyStore {
    fn save(&mut self, predictions: RecordBatch, labels: RecordBatch) -> barograph_core::Result<()> {
        Python::attach(|py| {
            let tables = (PyTable { batch: predictions }, PyTable { batch: labels });
            self.0.call_method1(py, "save", tables).map(drop).map_err(|error| said(&error))
        })
    }

    fn load(&mut self, ids: ArrayRef) -> barograph_core::Result<Option<(RecordBatch, RecordBatch)>> {
        let schema = Schema::new(vec![Field::new("id", ids.data_type().clone(), true)]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![ids]).map_err(|error| Error::invalid(error.to_string()))?;
        Python::attach(|py| -> PyResult<Option<(RecordBatch, RecordBatch)>> {
            let found = self.0.call_method1(py, "load", (PyTable { batch },))?;
            if found.is_none(py) {
                return Ok(None);
            }
            let (predictions, labels): (Bound<'_, PyAny>, Bound<'_, PyAny>) = found.extract(py)?;
            Ok(Some((whole(&predictions)?, whole(&labels)?)))
        })
        .map_err(|error| said(&error))
    }
}

/// All rows of a frame as one batch.
fn whole(frame: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    let mut batches = Vec::new();
    for_each_batch(frame, |batch| {
        batches.push(batch.clone());
        Ok(())
    })?;
    let schema = batches.first().map(RecordBatch::schema).ok_or_else(|| raised(&Error::invalid("`store` gave a frame without columns")))?;
    arrow_select::concat::concat_batches(&schema, &batches).map_err(|error| raised(&Error::invalid(error.to_string())))
}

#[pyclass(name = "Ledger", module = "barograph._barograph", frozen)]
struct PyLedger {
    inner: Mutex<Ledger>,
    store: Option<Mutex<PyStore>>,
}

impl PyLedger {
    /// Does something with the ledger and its store, if there is one.
    fn with<T>(&self, act: impl FnOnce(&mut Ledger, Option<&mut dyn Store>) -> T) -> T {
        let mut ledger = lock(&self.inner);
        match &self.store {
            Some(store) => act(&mut ledger, Some(&mut *lock(store))),
            None => act(&mut ledger, None),
        }
    }
}

fn columns(json: &str) -> PyResult<Columns> {
    serde_json::from_str(json).map_err(|error| raised(&Error::invalid(format!("columns could not be read: {error}"))))
}

#[pymethods]
impl PyLedger {
    /// `terms` is JSON.
    #[new]
    #[pyo3(signature = (terms, store=None))]
    fn new(terms: &str, store: Option<Py<PyAny>>) -> PyResult<Self> {
        let terms: Terms = serde_json::from_str(terms).map_err(|error| raised(&Error::invalid(error.to_string())))?;
        Ok(Self { inner: Mutex::new(Ledger::new(terms).raise()?), store: store.map(|store| Mutex::new(PyStore(store))) })
    }

    /// `names` is JSON.
    fn predictions(&self, frame: &Bound<'_, PyAny>, names: &str) -> PyResult<()> {
        let names = columns(names)?;
        for_each_batch(frame, |batch| self.with(|ledger, store| ledger.predictions(batch, &names, store)))
    }

    /// `names` is JSON.
    fn labels(&self, frame: &Bound<'_, PyAny>, names: &str, now: i64) -> PyResult<()> {
        let names = columns(names)?;
        for_each_batch(frame, |batch| self.with(|ledger, store| ledger.labels(batch, &names, now, store)))
    }

    fn expire(&self, py: Python<'_>, before: i64) -> PyResult<()> {
        py.detach(|| self.with(|ledger, store| ledger.expire(before, store))).raise()
    }

    #[pyo3(signature = (all, as_of=None))]
    fn table(&self, py: Python<'_>, all: bool, as_of: Option<i64>) -> PyResult<PyTable> {
        let batch = py.detach(|| lock(&self.inner).table(all, as_of)).raise()?;
        Ok(PyTable { batch })
    }

    /// Texts of predictions and labels, by code.
    fn classes(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| lock(&self.inner).classes().into_iter().map(str::to_owned).collect())
    }

    fn counts(&self, py: Python<'_>) -> Vec<(&'static str, u64)> {
        py.detach(|| lock(&self.inner).counts())
    }

    fn size(&self, py: Python<'_>) -> usize {
        // A store may wait for the interpreter while it holds the ledger: nobody waits for the ledger with the interpreter in hand.
        py.detach(|| lock(&self.inner).size())
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTable>()?;
    module.add_class::<PyLedger>()
}
