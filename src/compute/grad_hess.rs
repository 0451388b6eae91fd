//! The gradient and the diagonal of the Hessian of every row's surprise, as boosters ask for them.

use super::Logit;
use crate::batch::Matrix;
use crate::error::Error;
use crate::loss::{Hessian, RowLoss, Summary};
use crate::sweep::{Action, Input, Job, Run, Selection, sweep};

/// What the rows are: their classes, and what they count.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// The class of each row; None: ignored.
    pub classes: &'a [Option<usize>],
    /// One weight for each class; 1 if there are none.
    pub class_weights: Option<&'a [f64]>,
    /// One weight for each row; 1 if there are none.
    pub row_weights: Option<&'a [f64]>,
}

/// Writes `u w_y (p_i - [i == y])` to `grad` and `u w_y p_i (1 - p_i)` to `hess`; one of them may be the memory of
/// the logits. Zeros where a row is ignored or its weight is 0.
pub fn softmax_grad_hess(
    run: Run<'_>,
    logits: Matrix,
    labels: Labels<'_>,
    grad: &Matrix,
    hess: &Matrix,
) -> Result<(), Error> {
    sweep(run, &Input::plain(logits, 1.0), [grad, hess], &GradHess(labels))
}

struct GradHess<'a>(Labels<'a>);

impl GradHess<'_> {
    /// The class of a row, unless it is ignored, the class's weight and the row's.
    fn label(&self, row: usize) -> Option<(usize, f64, f64)> {
        let class = self.0.classes[row]?;
        let of_class = self.0.class_weights.map_or(1.0, |weights| weights[class]);
        let of_row = self.0.row_weights.map_or(1.0, |weights| weights[row]);
        (of_row != 0.0).then_some((class, of_class, of_row))
    }
}

impl Job for GradHess<'_> {
    fn select(&self, row: usize) -> Selection {
        self.label(row).map_or(Selection::Nothing, |(class, ..)| Selection::Aside(class))
    }

    fn needs_max(&self) -> bool {
        false
    }

    fn needs_largest(&self, summary: &Summary) -> bool {
        summary.is_peaked_elsewhere()
    }

    fn finish(&self, row: usize, summary: Option<&Summary>, _: Logit<'_>) -> Action {
        let (Some((class, of_class, of_row)), Some(summary)) = (self.label(row), summary) else {
            return Action::Fill(0.0);
        };
        let loss = RowLoss { own: of_row * of_class, spread: 0.0, square: 0.0 };
        let gradient = loss.gradient(summary, of_class, 1.0, 1.0);
        Action::slope(summary, gradient, Some(class))
    }

    fn finish_second(&self, row: usize, summary: Option<&Summary>) -> Action {
        let (Some((class, of_class, of_row)), Some(summary)) = (self.label(row), summary) else {
            return Action::Fill(0.0);
        };
        let hessian = Hessian::of_row(of_row * of_class, summary, class);
        Action::Hessian {
            max: summary.max,
            alpha: hessian.alpha,
            total: summary.total,
            patch: hessian.dominant,
        }
    }
}
