//! `cross_entropy`, `cross_entropy_with_grad`.

use super::arrays::{Accept, View};
use super::loss_call::{LossCall, LossOptions};
use super::reading::ReadOptions;
use super::reducing::ReduceOptions;
use super::results::ResultType;
use super::runtime::detached;
use crate::compute;
use pyo3::prelude::*;

#[pyfunction]
#[pyo3(signature = (logits, targets, reading, options, reducing, /))]
pub(super) fn cross_entropy<'py>(
    logits: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    reading: ReadOptions<'py>,
    options: LossOptions<'py>,
    reducing: ReduceOptions<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let call = LossCall::new(logits, targets, reading, options, reducing)?;
    let LossCall { input, targets, weights, options, .. } = &call;
    let loss = detached(logits.py(), call.reading.threads, |run| {
        compute::cross_entropy(run, input, targets, weights, options, None)
    })?;
    call.reduced.result(logits.py(), loss)
}

#[pyfunction]
#[pyo3(signature = (logits, targets, reading, options, reducing, grad_output, out, /))]
pub(super) fn cross_entropy_with_grad<'py>(
    logits: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    reading: ReadOptions<'py>,
    options: LossOptions<'py>,
    reducing: ReduceOptions<'py>,
    grad_output: Option<&Bound<'py, PyAny>>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let call = LossCall::new(logits, targets, reading, options, reducing)?;
    let given =
        grad_output.map(|given| View::of(given, "grad_output", Accept::Numbers)).transpose()?;
    let inputs: Vec<&View<'_>> = call.inputs().chain(&given).collect();
    let upstream = call.reduced.upstream(given.as_ref())?;
    let grad_type = ResultType::like_logits(&call.reading.logits, None)?;
    let grad = grad_type.output(out, &call.reading.logits, &inputs)?;
    let to = grad.matrix(call.reading.axis);
    let LossCall { input, targets, weights, options, .. } = &call;
    let loss = detached(logits.py(), call.reading.threads, |run| {
        compute::cross_entropy(run, input, targets, weights, options, Some((&to, &upstream)))
    })?;
    Ok((call.reduced.result(logits.py(), loss)?, grad.object.into_any()))
}
