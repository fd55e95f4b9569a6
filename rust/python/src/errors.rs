//! Errors of the core as classes of `barograph.errors`.

use barograph_core::{Error, ErrorKind};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

fn class_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidArgument => "InvalidArgumentError",
        ErrorKind::Incompatible => "IncompatibleError",
        ErrorKind::Decode => "SnapshotError",
        ErrorKind::NotFound => "NotFoundError",
        ErrorKind::Unsupported => "UnsupportedError",
    }
}

/// The exception for an error.
pub fn raised(error: &Error) -> PyErr {
    Python::attach(|py| {
        let made = py.import("barograph.errors").and_then(|module| module.getattr(class_name(error.kind)));
        match made.and_then(|class| class.call1((error.message.as_str(), error.hint.as_deref()))) {
            Ok(exception) => PyErr::from_value(exception),
            Err(_) => PyRuntimeError::new_err(error.to_string()),
        }
    })
}

/// `?` from core to Python.
pub trait Raise<T> {
    /// The value, or the exception.
    fn raise(self) -> PyResult<T>;
}

impl<T> Raise<T> for barograph_core::Result<T> {
    fn raise(self) -> PyResult<T> {
        self.map_err(|error| raised(&error))
    }
}
