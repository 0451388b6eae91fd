//! Arguments that are no arrays: numbers, words, class ids to ignore.

use crate::error::Error;
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString};

/// Python's bool or NumPy's: a number to Python, but never one that was meant.
fn is_bool(value: &Bound<'_, PyAny>) -> bool {
    // A missing attribute, below, costs an exception: a third of a microsecond.
    if value.is_exact_instance_of::<PyInt>() || value.is_exact_instance_of::<PyFloat>() {
        return false;
    }
    let numpys = || value.getattr("dtype")?.getattr("kind")?.eq("b");
    value.is_instance_of::<PyBool>() || numpys().unwrap_or(false)
}

pub(super) fn wrong_type(
    value: &Bound<'_, PyAny>,
    argument: &'static str,
    expected: &str,
) -> PyErr {
    match value.get_type().name() {
        Ok(name) => Error::of_type(argument, expected, name).into(),
        Err(error) => error,
    }
}

/// An integer; the nearest there is for those that do not fit.
pub(super) fn integer(value: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<i64> {
    if is_bool(value) {
        return Err(wrong_type(value, argument, "an integer"));
    }
    match value.extract() {
        Ok(number) => Ok(number),
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            Ok(if value.lt(0)? { i64::MIN } else { i64::MAX })
        }
        Err(_) => Err(wrong_type(value, argument, "an integer")),
    }
}

fn number(value: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<f64> {
    if is_bool(value) || value.is_instance_of::<PyString>() {
        return Err(wrong_type(value, argument, "a number"));
    }
    match value.extract() {
        Ok(number) => Ok(number),
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => Ok(f64::INFINITY),
        Err(_) => Err(wrong_type(value, argument, "a number")),
    }
}

pub(super) fn positive(value: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<f64> {
    let number = number(value, argument)?;
    if number > 0.0 && number.is_finite() {
        Ok(number)
    } else {
        Err(Error::value(argument, "a positive finite number", number).into())
    }
}

/// A number from 0 up to `most`.
pub(super) fn number_up_to(
    value: &Bound<'_, PyAny>,
    argument: &'static str,
    most: f64,
) -> PyResult<f64> {
    let number = number(value, argument)?;
    if (0.0..=most).contains(&number) {
        return Ok(number);
    }
    let expected = if most == f64::MAX {
        String::from("a finite number >= 0")
    } else {
        format!("a number from 0 to {most}")
    };
    Err(Error::value(argument, expected, number).into())
}

/// One of a few words.
pub(super) fn choice<T: Copy>(
    value: &Bound<'_, PyAny>,
    argument: &'static str,
    choices: &[(&str, T)],
) -> PyResult<T> {
    let text = value.cast::<PyString>().ok().map(|text| text.to_cow()).transpose()?;
    match choices.iter().find(|(name, _)| Some(*name) == text.as_deref()) {
        Some((_, choice)) => Ok(*choice),
        None => {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
            Err(Error::value(argument, names.join(", "), value.repr()?).into())
        }
    }
}

/// One class id or several to ignore.
pub(super) fn ignored_classes(ignore_index: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<i128>> {
    let Some(given) = ignore_index else { return Ok(Vec::new()) };
    if given.is_exact_instance_of::<PyInt>()
        && let Ok(id) = given.extract::<i64>()
    {
        return Ok(vec![id.into()]);
    }
    let number = |value: &Bound<'_, PyAny>| -> PyResult<i128> {
        match value.call_method0("__index__") {
            // Beyond 128 bits it is no class id of any dtype; any such number stands for it.
            Ok(index) if !is_bool(value) => Ok(index.extract().unwrap_or(i128::MAX)),
            _ => Err(wrong_type(value, "ignore_index", "an int or several")),
        }
    };
    let several = !given.is_instance_of::<PyString>() && !given.hasattr("__index__")?
        || given.hasattr("ndim")? && !given.getattr("ndim")?.eq(0)?;
    if several && let Ok(items) = given.try_iter() {
        return items.map(|item| number(&item?)).collect();
    }
    Ok(vec![number(given)?])
}
