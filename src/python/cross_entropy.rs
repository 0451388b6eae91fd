//! `cross_entropy`, `cross_entropy_with_grad`.

use super::loss_call::{LossCall, LossOptions};
use super::reading::ReadOptions;
use super::reducing::ReduceOptions;
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
    let LossCall { reading, input, others, targets, weights, options, reduced } = &call;
    let (grad, upstream) = reduced.gradient(reading, others, grad_output, out)?;
    let to = grad.matrix(reading.axis);
    let loss = detached(logits.py(), reading.threads, |run| {
        compute::cross_entropy(run, input, targets, weights, options, Some((&to, &upstream)))
    })?;
    Ok((reduced.result(logits.py(), loss)?, grad.object.into_any()))
}
