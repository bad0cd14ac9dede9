//! Import and export of tables without copies, by the Arrow PyCapsule interface of Polars, pyarrow, pandas and DuckDB.
//!
//! The only `unsafe` here: a capsule named `arrow_array_stream` holds a pointer to the C struct of an Arrow stream. The
//! struct is moved out of it, so that exactly one side releases it.

use std::ffi::CStr;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use uphill::arrow::array::{RecordBatch, RecordBatchIterator};
use uphill::arrow::compute::concat_batches;
use uphill::arrow::error::ArrowError;
use uphill::arrow::ffi_stream::{ArrowArrayStreamReader, FFI_ArrowArrayStream};
use uphill::polars::prelude::DataFrame;

const STREAM: &CStr = c"arrow_array_stream";

/// A table that is passed to or from Python.
#[pyclass(frozen, module = "uphill._uphill")]
pub struct Table(RecordBatch);

impl Table {
    pub fn of(frame: &DataFrame) -> uphill::Result<Self> {
        uphill::to_arrow(frame).map(Table)
    }
}

#[pymethods]
impl Table {
    #[new]
    fn new(py: Python<'_>, table: &Bound<'_, PyAny>) -> PyResult<Self> {
        let stream = stream(table)?;
        py.detach(|| batch(stream)).map(Table).map_err(read_error)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // The interface allows ignoring the requested types. The caller casts them if necessary.
        drop(requested_schema);
        let reader = RecordBatchIterator::new([Ok(self.0.clone())], self.0.schema());
        PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(reader)), STREAM)
    }
}

/// The Arrow stream that a table exports.
///
/// # Errors
/// The object exports none.
pub fn stream(table: &Bound<'_, PyAny>) -> PyResult<ArrowArrayStreamReader> {
    let Some(export) = table.getattr_opt("__arrow_c_stream__")? else {
        let found = table.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "expected a table (of Polars, pyarrow, pandas, DuckDB: anything with __arrow_c_stream__), found {found}"
        )));
    };
    let capsule = export.call0()?.cast_into::<PyCapsule>()?;
    let pointer = capsule.pointer_checked(Some(STREAM))?;
    // SAFETY: a capsule of this name holds a pointer to an initialised struct of this type. `from_raw` leaves a released
    // struct in its place.
    unsafe { ArrowArrayStreamReader::from_raw(pointer.as_ptr().cast()) }.map_err(read_error)
}

/// All batches of a stream as one frame. The stream may call Python, so the caller must not hold the GIL.
pub fn frame(stream: ArrowArrayStreamReader) -> uphill::Result<DataFrame> {
    uphill::to_polars(&batch(stream).map_err(uphill::Error::custom)?)
}

fn batch(stream: ArrowArrayStreamReader) -> Result<RecordBatch, ArrowError> {
    use uphill::arrow::array::RecordBatchReader;
    let schema = stream.schema();
    let mut batches = stream.collect::<Result<Vec<_>, _>>()?;
    match batches.len() {
        // Concatenation would copy it.
        1 => Ok(batches.remove(0)),
        _ => concat_batches(&schema, &batches),
    }
}

fn read_error(error: ArrowError) -> PyErr {
    PyValueError::new_err(format!("cannot read the table: {error}"))
}
