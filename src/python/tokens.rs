//! `token_logprobs`.

use super::arguments::ignored_classes;
use super::arrays::{Accept, View};
use super::reading::{ReadOptions, Reading};
use super::results::ResultType;
use super::runtime::detached;
use crate::compute;
use crate::error::{Error, shape};
use pyo3::prelude::*;

#[pyfunction]
#[pyo3(signature = (logits, tokens, reading, ignore_index, /))]
pub(super) fn token_logprobs<'py>(
    logits: &Bound<'py, PyAny>,
    tokens: &Bound<'py, PyAny>,
    reading: ReadOptions<'py>,
    ignore_index: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = logits.py();
    let reading = Reading::with_classes("logits", logits, reading)?;
    let result_type = ResultType::like_loss(&reading.logits, reading.dtype.as_ref())?;
    let ignored = ignored_classes(ignore_index)?;
    let view = View::of(tokens, "tokens", Accept::Integers)?;
    let rows_shape = reading.rows_shape();
    let each = match view.array.shape.strip_prefix(rows_shape.as_slice()) {
        Some([]) => 1,
        Some(&[each]) => each,
        _ => {
            let rows = shape(&rows_shape);
            let expected = format!("shape {rows}, or {rows} and one axis more, to match logits");
            return Err(Error::value("tokens", expected, shape(&view.array.shape)).into());
        }
    };
    let ids = view.class_ids("tokens", reading.classes(), |_, id| ignored.contains(&id))?;
    let input = reading.input();
    let results =
        detached(py, reading.threads, |run| compute::token_logprobs(run, &input, &ids, each))?;
    result_type.array_of(py, results, &view.array.shape)
}
