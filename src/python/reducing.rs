//! From rows to the result, and to its gradient: the arguments that say how, which all losses share, checked.

use super::arguments::{choice, number_up_to, positive};
use super::arrays::{Accept, View, doubles};
use super::reading::Reading;
use super::results::ResultType;
use crate::compute::{Loss, Upstream};
use crate::error::{Error, shape};
use crate::loss::{CrossEntropy, OnEmpty, Reducing, Reduction};
use pyo3::prelude::*;

/// The options of a reduction, in the order in which Python hands them over.
#[derive(FromPyObject)]
pub(super) struct ReduceOptions<'py>(
    Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
    Bound<'py, PyAny>,
);

/// How rows of some shape are reduced, and to what dtype.
pub(super) struct Reduced<'py> {
    pub(super) reducing: Reducing,
    rows_shape: Vec<usize>,
    result_type: ResultType<'py>,
    /// What was read.
    pub(super) offsets: Option<View<'py>>,
}

impl<'py> Reduced<'py> {
    /// For the rows of some logits.
    pub(super) fn new(reading: &Reading<'py>, reducing: ReduceOptions<'py>) -> PyResult<Self> {
        let result_type = ResultType::like_loss(&reading.logits, reading.dtype.as_ref())?;
        Self::of_rows(reading.rows_shape(), result_type, reducing)
    }

    /// For rows of which only the shape is known.
    pub(super) fn of_rows(
        rows_shape: Vec<usize>,
        result_type: ResultType<'py>,
        reducing: ReduceOptions<'py>,
    ) -> PyResult<Self> {
        let ReduceOptions(reduction, offsets, normalizer, on_empty) = reducing;
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
        let offsets =
            offsets.map(|offsets| View::of(&offsets, "offsets", Accept::Integers)).transpose()?;
        let sequences = sequences(reduction, offsets.as_ref(), &rows_shape)?;
        let on_empty = choice(
            &on_empty,
            "on_empty",
            &[("nan", OnEmpty::Nan), ("zero", OnEmpty::Zero), ("raise", OnEmpty::Raise)],
        )?;
        if normalizer.is_some() && reduction != Reduction::Mean {
            let expected = "None unless reduction is \"mean\"";
            return Err(Error::value("normalizer", expected, "a number").into());
        }
        let normalizer = normalizer.map(|number| positive(&number, "normalizer")).transpose()?;
        let reducing = Reducing { reduction, normalizer, on_empty, sequences };
        Ok(Self { reducing, rows_shape, result_type, offsets })
    }

    /// The options of a cross-entropy that is reduced like this.
    pub(super) fn cross_entropy(
        &self,
        label_smoothing: &Bound<'py, PyAny>,
        z_loss: &Bound<'py, PyAny>,
    ) -> PyResult<CrossEntropy> {
        Ok(CrossEntropy {
            label_smoothing: number_up_to(label_smoothing, "label_smoothing", 1.0)?,
            z_loss: number_up_to(z_loss, "z_loss", f64::MAX)?,
            reducing: self.reducing.clone(),
        })
    }

    /// The array for the gradient in some logits, apart from all that was read (`others` beside what is known here),
    /// and the gradient that comes from above.
    pub(super) fn gradient(
        &self,
        reading: &Reading<'py>,
        others: &[View<'py>],
        grad_output: Option<&Bound<'py, PyAny>>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(View<'py>, Upstream)> {
        let above =
            grad_output.map(|given| View::of(given, "grad_output", Accept::Numbers)).transpose()?;
        let upstream = self.upstream(above.as_ref())?;
        let read = others.iter().chain(reading.inputs()).chain(&self.offsets).chain(&above);
        let inputs: Vec<&View<'_>> = read.collect();
        let grad_type = ResultType::like_logits(&reading.logits, None)?;
        Ok((grad_type.output(out, &reading.logits, &inputs)?, upstream))
    }

    /// The gradient that comes from above: for every row, or one for all.
    pub(super) fn upstream(&self, given: Option<&View<'_>>) -> PyResult<Upstream> {
        let Some(view) = given else { return Ok(Upstream::Scalar(1.0)) };
        let values = doubles(view)?;
        let per_row = self.reducing.reduction == Reduction::None;
        match values.as_slice() {
            &[scalar] if view.array.shape.is_empty() => Ok(Upstream::Scalar(scalar)),
            _ if per_row && view.array.shape == self.rows_shape => Ok(Upstream::PerRow(values)),
            _ => {
                let expected = match self.reducing.reduction {
                    Reduction::None => format!("a scalar or shape {}", shape(&self.rows_shape)),
                    _ => String::from("a scalar"),
                };
                Err(Error::value("grad_output", expected, shape(&view.array.shape)).into())
            }
        }
    }

    /// The loss as Python sees it.
    pub(super) fn result(&self, py: Python<'py>, loss: Loss) -> PyResult<Bound<'py, PyAny>> {
        match loss {
            Loss::Reduced(value) => self.result_type.array_of(py, vec![value], &[]),
            Loss::PerRow(values) => self.result_type.array_of(py, values, &self.rows_shape),
        }
    }
}

/// The number of sequences that the rows make up.
fn sequences(
    reduction: Reduction,
    offsets: Option<&View<'_>>,
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
            let rows = shape(rows_shape);
            let expected = format!("another, or offsets, for rows of shape {rows}");
            Err(Error::value("reduction", expected, "\"sequence_mean\"").into())
        }
        (Some(offsets), _) => count_sequences(offsets, rows_shape.iter().product()),
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
