//! The cross-entropy of class ids or probabilities, and its gradient.

use super::reduced::Scales;
use super::{Logit, Loss, PerRow, Upstream};
use crate::batch::Matrix;
use crate::error::Error;
use crate::loss::{CrossEntropy, Denominator, RowLoss, Summary};
use crate::sweep::{Action, Input, Job, Run, Selection, Weighting, sweep};

/// What the rows should have been.
#[derive(Clone, Debug)]
pub enum Targets {
    /// The class of each row; None: ignored.
    Classes(Vec<Option<usize>>),
    /// A probability for each class.
    Probabilities(Matrix),
}

/// What counts how much; 1 where nothing is said.
#[derive(Clone, Debug, Default)]
pub struct LossWeights {
    /// One weight for each class, and the same as a matrix of equal rows.
    pub classes: Option<(Vec<f64>, Matrix)>,
    /// One weight for each row.
    pub rows: Option<Vec<f64>>,
}

/// The cross-entropy of every row with its target, and its gradient if there is a place for it.
pub fn cross_entropy(
    run: Run<'_>,
    input: &Input,
    targets: &Targets,
    weights: &LossWeights,
    options: &CrossEntropy,
    gradient: Option<(&Matrix, &Upstream)>,
) -> Result<Loss, Error> {
    let rows = PerRow::new(input.logits.rows())?;
    let mut job = TargetLoss::new(input, targets, weights, options, &rows);
    let denominator = job.denominator()?;
    job.gradient = gradient.map(|(_, upstream)| Scales::new(upstream, denominator));
    sweep(run, input, gradient.map(|(out, _)| out), &job)?;
    Loss::of_rows(rows, &options.reducing, denominator)
}

/// The loss of a row with its target.
#[derive(Clone, Copy)]
pub(super) struct TargetLoss<'a> {
    pub(super) input: &'a Input,
    pub(super) targets: &'a Targets,
    weights: &'a LossWeights,
    options: &'a CrossEntropy,
    pub(super) gradient: Option<Scales<'a>>,
    rows: &'a PerRow,
    /// Which rows of the batch those of the input are, if the batch comes in parts; probabilities are those of the
    /// part, all else that has a row's number is the batch's.
    part: Option<&'a [usize]>,
}

impl<'a> TargetLoss<'a> {
    pub(super) fn new(
        input: &'a Input,
        targets: &'a Targets,
        weights: &'a LossWeights,
        options: &'a CrossEntropy,
        rows: &'a PerRow,
    ) -> Self {
        Self { input, targets, weights, options, gradient: None, rows, part: None }
    }

    /// The same for a part of the batch, with its logits and, if they are probabilities, its targets.
    pub(super) fn of_part(
        self,
        input: &'a Input,
        targets: &'a Targets,
        part: &'a [usize],
    ) -> TargetLoss<'a> {
        TargetLoss { input, targets, part: Some(part), ..self }
    }

    /// What the losses of all rows together are divided by.
    pub(super) fn denominator(&self) -> Result<Denominator, Error> {
        let valid = (0..self.input.logits.rows()).filter_map(|row| self.weight_in_mean(row));
        self.options.reducing.denominator(valid)
    }

    /// The number in the batch.
    fn number(&self, row: usize) -> usize {
        self.part.map_or(row, |part| part[row])
    }

    /// The class of a row, if it has one.
    pub(super) fn class(&self, row: usize) -> Option<usize> {
        match self.targets {
            Targets::Classes(classes) => classes[self.number(row)],
            Targets::Probabilities(_) => None,
        }
    }

    fn row_weight(&self, row: usize) -> f64 {
        self.weights.rows.as_ref().map_or(1.0, |weights| weights[self.number(row)])
    }

    fn class_weight(&self, class: usize) -> f64 {
        self.weights.classes.as_ref().map_or(1.0, |(weights, _)| weights[class])
    }

    /// What a row counts in the mean, if it is not ignored.
    fn weight_in_mean(&self, row: usize) -> Option<f64> {
        let weight = self.row_weight(row);
        match (self.select(row), self.class(row)) {
            (Selection::Nothing, _) => None,
            (_, Some(class)) => Some(weight * self.class_weight(class)),
            (_, None) => Some(weight),
        }
    }

    /// The share of smoothing that each allowed class of a row gets.
    fn smoothing(&self, row: usize) -> f64 {
        match self.options.label_smoothing {
            0.0 => 0.0,
            smoothing => smoothing / self.input.allowed(row) as f64,
        }
    }

    /// The coefficients of a row's loss.
    fn coefficients(&self, row: usize) -> RowLoss {
        let smoothing = self.options.label_smoothing;
        let (own, spread) = match self.class(row) {
            Some(class) => ((1.0 - smoothing) * self.class_weight(class), self.smoothing(row)),
            None => (0.0, 1.0),
        };
        let weight = self.row_weight(row);
        RowLoss { own: weight * own, spread: weight * spread, square: weight * self.options.z_loss }
    }
}

impl Job for TargetLoss<'_> {
    fn select(&self, row: usize) -> Selection {
        if self.row_weight(row) == 0.0 {
            return Selection::Nothing;
        }
        match self.targets {
            Targets::Classes(_) => self.class(row).map_or(Selection::Nothing, Selection::Aside),
            Targets::Probabilities(_) => Selection::All,
        }
    }

    fn weighting(&self) -> Option<Weighting<'_>> {
        let classes = self.weights.classes.as_ref().map(|(_, matrix)| matrix);
        match self.targets {
            Targets::Probabilities(targets) => Some(Weighting {
                classes,
                targets: Some(targets),
                of_targets: 1.0 - self.options.label_smoothing,
            }),
            Targets::Classes(_) if self.options.label_smoothing == 0.0 => None,
            Targets::Classes(_) => Some(Weighting { classes, targets: None, of_targets: 0.0 }),
        }
    }

    fn of_allowed(&self, row: usize) -> f64 {
        match self.targets {
            Targets::Probabilities(_) => self.smoothing(row),
            Targets::Classes(_) => 1.0,
        }
    }

    fn needs_max(&self) -> bool {
        false
    }

    fn needs_aside(&self, summary: &Summary) -> bool {
        summary.is_peaked()
    }

    fn finish(&self, row: usize, summary: Option<&Summary>, _: Logit<'_>) -> Action {
        let Some(summary) = summary else {
            self.rows.set(self.number(row), 0.0);
            return if self.gradient.is_some() { Action::Fill(0.0) } else { Action::Leave };
        };
        let loss = self.coefficients(row);
        self.rows.set(self.number(row), loss.value(summary));
        let Some(scales) = self.gradient else { return Action::Leave };
        let class = self.class(row);
        let q = class.map_or(0.0, |class| self.class_weight(class));
        let gradient =
            loss.gradient(summary, q, scales.of_row(self.number(row)), self.input.temperature);
        Action::slope(summary, gradient, class)
    }
}
