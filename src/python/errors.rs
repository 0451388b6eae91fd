//! Which Python exception each error becomes.

use crate::error::Error;
use pyo3::exceptions::{
    PyIndexError, PyKeyboardInterrupt, PyMemoryError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Class { .. } => PyIndexError::new_err(message),
            Error::Value { .. } | Error::Empty => PyValueError::new_err(message),
            Error::Type { .. } => PyTypeError::new_err(message),
            Error::Memory(_) => PyMemoryError::new_err(message),
            Error::Interrupted => PyKeyboardInterrupt::new_err(()),
            Error::Panic(_) => PyRuntimeError::new_err(message),
            Error::Axis { axis, ndim } => {
                Python::attach(|py| axis_error(py, axis, ndim).unwrap_or_else(|other| other))
            }
        }
    }
}

/// NumPy's own exception for an axis that is not there.
fn axis_error(py: Python<'_>, axis: isize, ndim: usize) -> PyResult<PyErr> {
    static AXIS_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = AXIS_ERROR.import(py, "numpy.exceptions", "AxisError")?;
    Ok(PyErr::from_value(class.call1((axis, ndim))?))
}
