//! The Python boundary: arguments in, arrays out, the interpreter's lock released in between. No arithmetic.
//!
//! Functions here take all arguments by position; names, defaults and documentation are in
//! `python/softxent/functions.py`.

mod arguments;
mod arrays;
mod dlpack;
mod errors;
mod loss_call;
mod results;
mod runtime;

use crate::batch::Matrix;
use crate::compute;
use crate::error::Error;
use crate::sweep::Run;
use arguments::{integer, positive, wrong_type};
use arrays::{Accept, View};
use loss_call::{LossCall, LossOptions, upstream};
use pyo3::prelude::*;
use results::ResultType;
use runtime::{detached, threads_of};

#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::runtime::{_set_thresholds, get_threads, runtime, set_threads};
    #[pymodule_export]
    use super::{cross_entropy, cross_entropy_with_grad, log_softmax, logsumexp, softmax};
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::runtime::start()
    }
}

/// Softmax or its logarithm.
fn probabilities<'py>(
    logits: &Bound<'py, PyAny>,
    axis: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    dtype: Option<&Bound<'py, PyAny>>,
    threads: Option<&Bound<'py, PyAny>>,
    compute: impl FnOnce(Run<'_>, &Matrix, f64, &Matrix) -> Result<(), Error> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    let py = logits.py();
    let view = View::of(logits, "logits", Accept::Numbers)?;
    let axis = view.axis(integer(axis, "axis")? as isize)?;
    let temperature = positive(temperature, "temperature")?;
    let threads = threads_of(threads)?;
    let result_type = ResultType::like_logits(&view, dtype)?;
    let result = match out {
        Some(out) => result_type.checked_out(out, &view, &[])?,
        None => result_type.empty_like(&view)?,
    };
    let (from, to) = (view.matrix(axis), result.matrix(axis));
    detached(py, threads, |run| compute(run, &from, temperature, &to))?;
    Ok(out.cloned().unwrap_or_else(|| result.object.into_any()))
}

#[pyfunction]
#[pyo3(signature = (logits, axis, temperature, out, dtype, threads, /))]
fn softmax<'py>(
    logits: &Bound<'py, PyAny>,
    axis: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    dtype: Option<&Bound<'py, PyAny>>,
    threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    probabilities(logits, axis, temperature, out, dtype, threads, compute::softmax)
}

#[pyfunction]
#[pyo3(signature = (logits, axis, temperature, out, dtype, threads, /))]
fn log_softmax<'py>(
    logits: &Bound<'py, PyAny>,
    axis: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    dtype: Option<&Bound<'py, PyAny>>,
    threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    probabilities(logits, axis, temperature, out, dtype, threads, compute::log_softmax)
}

#[pyfunction]
#[pyo3(signature = (logits, axis, keepdims, temperature, dtype, threads, /))]
fn logsumexp<'py>(
    logits: &Bound<'py, PyAny>,
    axis: &Bound<'py, PyAny>,
    keepdims: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    dtype: Option<&Bound<'py, PyAny>>,
    threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = logits.py();
    let view = View::of(logits, "logits", Accept::Numbers)?;
    let axis = view.axis(integer(axis, "axis")? as isize)?;
    let temperature = positive(temperature, "temperature")?;
    let threads = threads_of(threads)?;
    let result_type = ResultType::like_loss(&view, dtype)?;
    let mut shape = view.rows_shape(axis);
    let keepdims = keepdims.extract().map_err(|_| wrong_type(keepdims, "keepdims", "a bool"))?;
    if keepdims {
        shape.insert(axis, 1);
    }
    let from = view.matrix(axis);
    let lse = detached(py, threads, |run| compute::logsumexp(run, &from, temperature))?;
    result_type.array_of(py, lse, &shape)
}

#[pyfunction]
#[pyo3(signature = (logits, targets, options, /))]
fn cross_entropy<'py>(
    logits: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    options: LossOptions<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let call = LossCall::new(logits, targets, options)?;
    let from = call.logits.matrix(call.axis);
    let loss = detached(logits.py(), call.threads, |run| {
        compute::cross_entropy(run, &from, &call.classes, &call.options, None)
    })?;
    call.result(loss)
}

#[pyfunction]
#[pyo3(signature = (logits, targets, options, grad_output, out, /))]
fn cross_entropy_with_grad<'py>(
    logits: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    options: LossOptions<'py>,
    grad_output: Option<&Bound<'py, PyAny>>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let call = LossCall::new(logits, targets, options)?;
    let given =
        grad_output.map(|given| View::of(given, "grad_output", Accept::Numbers)).transpose()?;
    let inputs: Vec<&View<'_>> = call.inputs.iter().chain(&given).collect();
    let upstream = upstream(given.as_ref(), &call)?;
    let grad_type = ResultType::like_logits(&call.logits, None)?;
    let grad = match out {
        Some(out) => grad_type.checked_out(out, &call.logits, &inputs)?,
        None => grad_type.empty_like(&call.logits)?,
    };
    let (from, to) = (call.logits.matrix(call.axis), grad.matrix(call.axis));
    let loss = detached(logits.py(), call.threads, |run| {
        compute::cross_entropy(run, &from, &call.classes, &call.options, Some((&to, &upstream)))
    })?;
    Ok((call.result(loss)?, out.cloned().unwrap_or_else(|| grad.object.into_any())))
}
