//! Frames come in as Arrow C streams behind `PyCapsule`s (the Arrow `PyCapsule` interface).

use std::borrow::Cow;

use arrow_array::ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader};
use arrow_array::{RecordBatch, RecordBatchReader};
use barograph_core::{Error, Result};
use numpy::ndarray::ArrayView1;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::errors::raised;

/// Takes the stream out of anything with `__arrow_c_stream__`.
fn reader(frame: &Bound<'_, PyAny>) -> PyResult<RecordBatchStreamReader> {
    let capsule = frame.call_method0("__arrow_c_stream__")?;
    let capsule = capsule.cast::<PyCapsule>()?;
    let pointer = capsule.pointer_checked(Some(c"arrow_array_stream"))?;
    // SAFETY: a capsule of this name holds an ArrowArrayStream, and taking it leaves a released one behind
    // (https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html).
    #[allow(unsafe_code)]
    let stream = unsafe { RecordBatchStreamReader::from_raw(pointer.as_ptr().cast::<FFI_ArrowArrayStream>()) };
    stream.map_err(|error| raised(&unreadable(&error.to_string())))
}

fn unreadable(message: &str) -> Error {
    Error::invalid(format!("the frame could not be read: {message}")).hint("pass a table: named columns of equal length")
}

/// The values of an array in one piece: copied only where they are strided.
pub fn contiguous<T: Copy>(array: ArrayView1<'_, T>) -> Cow<'_, [T]> {
    array.to_slice().map_or_else(|| Cow::Owned(array.iter().copied().collect()), Cow::Borrowed)
}

/// Feeds every batch of a frame to `each`, the GIL released. A frame without batches gives one empty batch.
pub fn for_each_batch(frame: &Bound<'_, PyAny>, mut each: impl FnMut(&RecordBatch) -> Result<()> + Send) -> PyResult<()> {
    let stream = reader(frame)?;
    frame
        .py()
        .detach(move || {
            let schema = stream.schema();
            let mut any = false;
            for batch in stream {
                any = true;
                each(&batch.map_err(|error| unreadable(&error.to_string()))?)?;
            }
            if any { Ok(()) } else { each(&RecordBatch::new_empty(schema)) }
        })
        .map_err(|error| raised(&error))
}
