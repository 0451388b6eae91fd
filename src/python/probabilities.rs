//! `softmax`, `log_softmax`, `logsumexp`.

use super::arguments::wrong_type;
use super::arrays::View;
use super::reading::{ReadOptions, Reading};
use super::results::ResultType;
use super::runtime::detached;
use crate::batch::Matrix;
use crate::compute;
use crate::error::Error;
use crate::sweep::{Input, Run};
use pyo3::prelude::*;

/// Softmax or its logarithm.
fn probabilities<'py>(
    logits: &Bound<'py, PyAny>,
    reading: ReadOptions<'py>,
    out: Option<&Bound<'py, PyAny>>,
    compute: impl FnOnce(Run<'_>, &Input, &Matrix) -> Result<(), Error> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    let reading = Reading::new(logits, reading)?;
    let result_type = ResultType::like_logits(&reading.logits, reading.dtype.as_ref())?;
    let inputs: Vec<&View<'_>> = reading.inputs().collect();
    let result = result_type.output(out, &reading.logits, &inputs)?;
    let (input, to) = (reading.input(), result.matrix(reading.axis));
    detached(logits.py(), reading.threads, |run| compute(run, &input, &to))?;
    Ok(result.object.into_any())
}

#[pyfunction]
#[pyo3(signature = (logits, reading, out, /))]
pub(super) fn softmax<'py>(
    logits: &Bound<'py, PyAny>,
    reading: ReadOptions<'py>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    probabilities(logits, reading, out, compute::softmax)
}

#[pyfunction]
#[pyo3(signature = (logits, reading, out, /))]
pub(super) fn log_softmax<'py>(
    logits: &Bound<'py, PyAny>,
    reading: ReadOptions<'py>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    probabilities(logits, reading, out, compute::log_softmax)
}

#[pyfunction]
#[pyo3(signature = (logits, reading, keepdims, /))]
pub(super) fn logsumexp<'py>(
    logits: &Bound<'py, PyAny>,
    reading: ReadOptions<'py>,
    keepdims: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let reading = Reading::new(logits, reading)?;
    let result_type = ResultType::like_loss(&reading.logits, reading.dtype.as_ref())?;
    let mut shape = reading.rows_shape();
    let keepdims = keepdims.extract().map_err(|_| wrong_type(keepdims, "keepdims", "a bool"))?;
    if keepdims {
        shape.insert(reading.axis, 1);
    }
    let input = reading.input();
    let lse = detached(logits.py(), reading.threads, |run| compute::logsumexp(run, &input))?;
    result_type.array_of(logits.py(), lse, &shape)
}
