//! `softmax_grad_hess`.

use super::arguments::{ignored_classes, wrong_type};
use super::arrays::{Accept, View};
use super::loss_call::class_ids;
use super::reading::{ReadOptions, Reading};
use super::results::ResultType;
use super::runtime::detached;
use crate::compute::{self, Labels};
use crate::error::Error;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

#[pyfunction]
#[pyo3(signature = (logits, targets, axis, weight, sample_weight, ignore_index, out, threads, /))]
#[expect(clippy::too_many_arguments, reason = "each has its name in Python")]
pub(super) fn softmax_grad_hess<'py>(
    logits: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    axis: Bound<'py, PyAny>,
    weight: Option<&Bound<'py, PyAny>>,
    sample_weight: Option<&Bound<'py, PyAny>>,
    ignore_index: Option<&Bound<'py, PyAny>>,
    out: Option<&Bound<'py, PyAny>>,
    threads: Option<Bound<'py, PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let py = logits.py();
    let reading = Reading::with_classes("logits", logits, ReadOptions::plain(py, axis, threads))?;
    let mut others = Vec::new();
    let class_weights =
        weight.map(|given| reading.class_weights(given, &mut others)).transpose()?;
    let row_weights =
        sample_weight.map(|given| reading.row_weights(given, &mut others)).transpose()?;
    let ignored = ignored_classes(ignore_index)?;
    let targets = View::of(targets, "targets", Accept::Integers)?;
    let classes = class_ids(&targets, &reading, &ignored)?;

    let result_type = ResultType::like_logits(&reading.logits, None)?;
    let inputs: Vec<&View<'_>> = [&targets].into_iter().chain(&others).collect();
    let (grad, hess) = match out {
        Some(out) => pair(out, &result_type, &reading.logits, &inputs)?,
        None => {
            let new = || result_type.empty_like(&reading.logits);
            (new()?, new()?)
        }
    };
    let (matrix, to_grad, to_hess) =
        (reading.matrix(), grad.matrix(reading.axis), hess.matrix(reading.axis));
    let labels = Labels {
        classes: &classes,
        class_weights: class_weights.as_ref().map(|(values, _)| values.as_slice()),
        row_weights: row_weights.as_deref(),
    };
    detached(py, reading.threads, |run| {
        compute::softmax_grad_hess(run, matrix, labels, &to_grad, &to_hess)
    })?;
    Ok((grad.object.into_any(), hess.object.into_any()))
}

/// The caller's two arrays for the results, each checked, and apart from each other.
fn pair<'py>(
    out: &Bound<'py, PyAny>,
    result_type: &ResultType<'py>,
    logits: &View<'py>,
    inputs: &[&View<'py>],
) -> PyResult<(View<'py>, View<'py>)> {
    let expected = "a pair of arrays (grad, hess)";
    if !out.is_instance_of::<PyTuple>() && !out.is_instance_of::<PyList>() {
        return Err(wrong_type(out, "out", expected));
    }
    if out.len()? != 2 {
        return Err(Error::value("out", expected, format!("{} of them", out.len()?)).into());
    }
    let grad = result_type.checked(&out.get_item(0)?, "out[0]", logits, inputs)?;
    let hess = result_type.checked(&out.get_item(1)?, "out[1]", logits, inputs)?;
    if hess.overlaps(&grad)? {
        return Err(Error::value("out", "two arrays with no memory in common", "some").into());
    }
    Ok((grad, hess))
}
