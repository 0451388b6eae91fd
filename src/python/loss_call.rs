//! The arguments of the losses: checked, converted, and all that is read but arrays of the size of the logits
//! copied.

use super::arguments::ignored_classes;
use super::arrays::{Accept, View};
use super::reading::{ReadOptions, Reading};
use super::reducing::{ReduceOptions, Reduced};
use crate::compute::{LossWeights, Targets};
use crate::error::{Error, shape};
use crate::loss::CrossEntropy;
use crate::sweep::Input;
use numpy::PyUntypedArrayMethods;
use pyo3::prelude::*;

/// The options of the losses, in the order in which `functions.py` hands them over.
#[derive(FromPyObject)]
pub(super) struct LossOptions<'py>(
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
);

/// The arguments that `cross_entropy` and `cross_entropy_with_grad` share, checked.
pub(super) struct LossCall<'py> {
    pub(super) reading: Reading<'py>,
    pub(super) input: Input,
    /// What was read beside the logits, the mask and the offsets.
    pub(super) others: Vec<View<'py>>,
    pub(super) targets: Targets,
    pub(super) weights: LossWeights,
    pub(super) options: CrossEntropy,
    pub(super) reduced: Reduced<'py>,
}

impl<'py> LossCall<'py> {
    pub(super) fn new(
        logits: &Bound<'py, PyAny>,
        targets: &Bound<'py, PyAny>,
        reading: ReadOptions<'py>,
        options: LossOptions<'py>,
        reducing: ReduceOptions<'py>,
    ) -> PyResult<Self> {
        let reading = Reading::with_classes("logits", logits, reading)?;
        Self::of(reading, targets, options, reducing)
    }

    /// For logits that have been checked.
    pub(super) fn of(
        reading: Reading<'py>,
        targets: &Bound<'py, PyAny>,
        options: LossOptions<'py>,
        reducing: ReduceOptions<'py>,
    ) -> PyResult<Self> {
        let LossOptions(weight, sample_weight, ignore_index, label_smoothing, z_loss) = options;
        let mut others = Vec::new();
        let mut weights = LossWeights::default();
        if let Some(weight) = weight {
            weights.classes = Some(reading.class_weights(&weight, &mut others)?);
        }
        if let Some(weight) = sample_weight {
            weights.rows = Some(reading.row_weights(&weight, &mut others)?);
        }
        let reduced = Reduced::new(&reading, reducing)?;
        let options = reduced.cross_entropy(&label_smoothing, &z_loss)?;
        let ignored = ignored_classes(ignore_index.as_ref())?;
        let view = View::of(targets, "targets", Accept::Targets)?;
        let targets = targets_of(&view, &reading, &ignored)?;
        others.push(view);
        let input = reading.input();
        Ok(Self { reading, input, others, targets, weights, options, reduced })
    }

    /// Everything that was read but the logits.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &View<'py>> {
        self.others.iter().chain(self.reading.inputs()).chain(&self.reduced.offsets)
    }
}

/// Class ids, checked and copied, or probabilities, to be read where they lie: the dtype decides.
fn targets_of(view: &View<'_>, reading: &Reading<'_>, ignored: &[i128]) -> PyResult<Targets> {
    if view.array.kind.is_integer() {
        return Ok(Targets::Classes(class_ids(view, reading, ignored)?));
    }
    let (got, all) = (shape(&view.array.shape), shape(&reading.logits.array.shape));
    if view.array.shape != reading.logits.array.shape {
        let expected = format!(
            "class ids of an integer dtype (use .astype(np.int64)), or probabilities of shape {all}"
        );
        let got = format!("{} of shape {got}", view.object.dtype());
        return Err(Error::of_type("targets", expected, got).into());
    }
    if !matches!(ignored, [] | [-100]) {
        let expected = "None with probability targets (use sample_weight=0)";
        return Err(Error::value("ignore_index", expected, "class ids").into());
    }
    Ok(Targets::Probabilities(view.matrix(reading.axis)))
}

/// The class of each row, None for an ignored one.
pub(super) fn class_ids(
    view: &View<'_>,
    reading: &Reading<'_>,
    ignored: &[i128],
) -> PyResult<Vec<Option<usize>>> {
    reading.check_shape(view, "targets", &reading.rows_shape())?;
    Ok(view.class_ids("targets", reading.classes(), |_, id| ignored.contains(&id))?)
}
