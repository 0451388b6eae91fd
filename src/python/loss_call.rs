//! The arguments of the losses: checked, converted, and all that is read but the logits copied.

use super::arguments::{choice, ignored_classes, integer, positive};
use super::arrays::{Accept, View, doubles};
use super::results::ResultType;
use super::runtime::threads_of;
use crate::batch::read_classes;
use crate::compute::{Loss, Upstream};
use crate::error::{Error, shape};
use crate::loss::{CrossEntropy, OnEmpty, Reduction};
use pyo3::prelude::*;

/// The options of the losses, in the order in which `functions.py` hands them over: axis, ignore_index,
/// temperature, reduction, offsets, normalizer, on_empty, dtype, threads.
#[derive(FromPyObject)]
pub(super) struct LossOptions<'py>(
    Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
    Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
);

/// The arguments that `cross_entropy` and `cross_entropy_with_grad` share, checked.
pub(super) struct LossCall<'py> {
    pub(super) logits: View<'py>,
    pub(super) axis: usize,
    /// Everything else that was read.
    pub(super) inputs: Vec<View<'py>>,
    pub(super) classes: Vec<Option<usize>>,
    pub(super) options: CrossEntropy,
    result_type: ResultType<'py>,
    pub(super) threads: usize,
}

impl<'py> LossCall<'py> {
    pub(super) fn new(
        logits: &Bound<'py, PyAny>,
        targets: &Bound<'py, PyAny>,
        options: LossOptions<'py>,
    ) -> PyResult<Self> {
        let LossOptions(
            axis,
            ignore_index,
            temperature,
            reduction,
            offsets,
            normalizer,
            on_empty,
            dtype,
            threads,
        ) = options;
        let logits = View::of(logits, "logits", Accept::Numbers)?;
        let axis = logits.axis(integer(&axis, "axis")? as isize)?;
        let rows_shape = logits.rows_shape(axis);
        let class_count = logits.array.shape[axis];
        if class_count == 0 {
            return Err(
                Error::value("logits", "at least one class", shape(&logits.array.shape)).into()
            );
        }
        let reduction = choice(
            &reduction,
            "reduction",
            &[
                ("mean", Reduction::Mean),
                ("sum", Reduction::Sum),
                ("none", Reduction::None),
                ("sequence_mean", Reduction::SequenceMean),
            ],
        )?;
        let on_empty = choice(
            &on_empty,
            "on_empty",
            &[("nan", OnEmpty::Nan), ("zero", OnEmpty::Zero), ("raise", OnEmpty::Raise)],
        )?;
        if normalizer.is_some() && reduction != Reduction::Mean {
            return Err(Error::value(
                "normalizer",
                "None unless reduction is \"mean\"",
                "a number",
            )
            .into());
        }
        let offsets =
            offsets.map(|offsets| View::of(&offsets, "offsets", Accept::Integers)).transpose()?;
        let options = CrossEntropy {
            temperature: positive(&temperature, "temperature")?,
            reduction,
            normalizer: normalizer.map(|number| positive(&number, "normalizer")).transpose()?,
            on_empty,
            sequences: sequences(reduction, offsets.as_ref(), &logits, &rows_shape)?,
        };
        let threads = threads_of(threads.as_ref())?;
        let result_type = ResultType::like_loss(&logits, dtype.as_ref())?;
        let ignored = ignored_classes(ignore_index.as_ref())?;
        let targets = View::of(targets, "targets", Accept::Integers)?;
        if targets.array.shape != rows_shape {
            let all = shape(&logits.array.shape);
            let expected = format!("shape {} to match logits {all}", shape(&rows_shape));
            return Err(Error::value("targets", expected, shape(&targets.array.shape)).into());
        }
        // SAFETY: a live NumPy array, as `View::matrix` says.
        let classes = unsafe { read_classes(&targets.array, &ignored, class_count) }?;
        let inputs = std::iter::once(targets).chain(offsets).collect();
        Ok(Self { logits, axis, inputs, classes, options, result_type, threads })
    }

    pub(super) fn result(&self, loss: Loss) -> PyResult<Bound<'py, PyAny>> {
        let py = self.logits.object.py();
        match loss {
            Loss::Reduced(value) => self.result_type.array_of(py, vec![value], &[]),
            Loss::PerRow(values) => {
                self.result_type.array_of(py, values, &self.logits.rows_shape(self.axis))
            }
        }
    }
}

/// The number of sequences that the rows make up.
fn sequences(
    reduction: Reduction,
    offsets: Option<&View<'_>>,
    logits: &View<'_>,
    rows_shape: &[usize],
) -> PyResult<usize> {
    match (offsets, rows_shape) {
        (Some(_), _) if reduction != Reduction::SequenceMean => {
            Err(Error::value("offsets", "None unless reduction is \"sequence_mean\"", "an array")
                .into())
        }
        (None, _) if reduction != Reduction::SequenceMean => Ok(0),
        (None, &[batch, _]) => Ok(batch),
        (None, _) => {
            let expected = "shape (B, T, V) for reduction \"sequence_mean\" without offsets";
            Err(Error::value("logits", expected, shape(&logits.array.shape)).into())
        }
        (Some(offsets), _) => {
            let rows = rows_shape.iter().product();
            count_sequences(offsets, rows)
        }
    }
}

/// The number of sequences that `offsets` cuts the rows into.
fn count_sequences(offsets: &View<'_>, rows: usize) -> PyResult<usize> {
    let &[length] = offsets.array.shape.as_slice() else {
        return Err(Error::value("offsets", "one dimension", shape(&offsets.array.shape)).into());
    };
    // Doubles hold every possible offset exactly: rows are far below 2^53.
    let bounds = doubles(offsets)?;
    let complete = bounds.first() == Some(&0.0) && bounds.last() == Some(&(rows as f64));
    if complete && bounds.is_sorted() {
        Ok(length - 1)
    } else {
        let expected = format!("numbers that rise from 0 to {rows}, the number of rows");
        Err(Error::value("offsets", expected, offsets.object.str()?).into())
    }
}

/// The gradient that comes from above: for every row, or one for all.
pub(super) fn upstream(given: Option<&View<'_>>, call: &LossCall<'_>) -> PyResult<Upstream> {
    let Some(view) = given else { return Ok(Upstream::Scalar(1.0)) };
    let values = doubles(view)?;
    let rows_shape = call.logits.rows_shape(call.axis);
    match values.as_slice() {
        &[scalar] if view.array.shape.is_empty() => Ok(Upstream::Scalar(scalar)),
        _ if call.options.reduction == Reduction::None && view.array.shape == rows_shape => {
            Ok(Upstream::PerRow(values))
        }
        _ => {
            let expected = match call.options.reduction {
                Reduction::None => format!("a scalar or shape {}", shape(&rows_shape)),
                _ => String::from("a scalar"),
            };
            Err(Error::value("grad_output", expected, shape(&view.array.shape)).into())
        }
    }
}
