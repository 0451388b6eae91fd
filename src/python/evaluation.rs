//! `evaluate`: what it says about each row. The totals are sums over rows, and Python's affair.

use super::arguments::ignored_classes;
use super::arrays::{Accept, View};
use super::loss_call::class_ids;
use super::reading::{ReadOptions, Reading};
use super::results::ResultType;
use super::runtime::detached;
use crate::compute::{self, Evaluation};
use crate::error::{self, Error};
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;

#[pyfunction]
#[pyo3(signature = (logits, targets, reading, sample_weight, ignore_index, /))]
pub(super) fn evaluate<'py>(
    logits: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    reading: ReadOptions<'py>,
    sample_weight: Option<&Bound<'py, PyAny>>,
    ignore_index: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = logits.py();
    let reading = Reading::with_classes("logits", logits, reading)?;
    let result_type = ResultType::like_loss(&reading.logits, reading.dtype.as_ref())?;
    let rows_shape = reading.rows_shape();
    let weights =
        sample_weight.map(|given| reading.row_weights(given, &mut Vec::new())).transpose()?;
    let ignored = ignored_classes(ignore_index)?;
    let mut classes =
        class_ids(&View::of(targets, "targets", Accept::Integers)?, &reading, &ignored)?;
    for (class, _) in classes.iter_mut().zip(weights.iter().flatten()).filter(|(_, w)| **w == 0.0) {
        *class = None;
    }
    let input = reading.input();
    let rows = detached(py, reading.threads, |run| compute::evaluate(run, &input, &classes))?;
    let Evaluation { nll, lse, entropy, predicted, confidence, rank } = rows;

    let result = PyDict::new(py);
    let valid = error::collect(classes.iter().map(Option::is_some))?;
    let correct = classes.iter().zip(&predicted);
    let correct = error::collect(correct.map(|(class, found)| found.is_some() && class == found))?;
    result.set_item("valid", PyArray1::from_vec(py, valid))?;
    result.set_item("correct", shaped(PyArray1::from_vec(py, correct), &rows_shape)?)?;
    result.set_item("weights", weights.map(|weights| PyArray1::from_vec(py, weights)))?;
    let exact = error::collect(nll.iter().copied())?;
    result.set_item("exact_nll", PyArray1::from_vec(py, exact))?;
    let columns = [("nll", nll), ("lse", lse), ("entropy", entropy), ("confidence", confidence)];
    for (name, values) in columns {
        result.set_item(name, result_type.array_of(py, values, &rows_shape)?)?;
    }
    for (name, values) in [("predicted", predicted), ("rank", rank)] {
        result.set_item(name, indices(py, &values, &rows_shape)?)?;
    }
    Ok(result)
}

/// Indices as integers, -1 for none; a NumPy scalar if the shape is `()`.
fn indices<'py>(
    py: Python<'py>,
    values: &[Option<usize>],
    shape: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    let index = |value: &Option<usize>| value.map_or(-1, |value| value as i64);
    let flat: Result<Vec<i64>, Error> = error::collect(values.iter().map(index));
    shaped(PyArray1::from_vec(py, flat?), shape)
}

/// A value for each row, of their shape.
fn shaped<'py, T>(array: Bound<'py, PyArray1<T>>, shape: &[usize]) -> PyResult<Bound<'py, PyAny>> {
    let array = array.call_method1("reshape", (shape,))?;
    if shape.is_empty() { array.get_item(()) } else { Ok(array) }
}
