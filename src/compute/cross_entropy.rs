//! The cross-entropy of class ids or probabilities, and its gradient.

use super::reduced::Scales;
use super::{Logit, Loss, PerRow, Upstream};
use crate::batch::Matrix;
use crate::error::Error;
use crate::loss::{CrossEntropy, RowLoss, Summary};
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
    let mut job = TargetLoss { input, targets, weights, options, gradient: None, rows: &rows };
    let valid = (0..input.logits.rows()).filter_map(|row| job.weight_in_mean(row));
    let denominator = options.reducing.denominator(valid)?;
    job.gradient = gradient.map(|(_, upstream)| Scales::new(upstream, denominator));
    sweep(run, input, gradient.map(|(out, _)| out), &job)?;
    Loss::of_rows(rows, &options.reducing, denominator)
}

/// The loss of a row with its target.
struct TargetLoss<'a> {
    input: &'a Input,
    targets: &'a Targets,
    weights: &'a LossWeights,
    options: &'a CrossEntropy,
    gradient: Option<Scales<'a>>,
    rows: &'a PerRow,
}

impl TargetLoss<'_> {
    fn class(&self, row: usize) -> Option<usize> {
        match self.targets {
            Targets::Classes(classes) => classes[row],
            Targets::Probabilities(_) => None,
        }
    }

    fn row_weight(&self, row: usize) -> f64 {
        self.weights.rows.as_ref().map_or(1.0, |weights| weights[row])
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
            Targets::Classes(classes) => classes[row].map_or(Selection::Nothing, Selection::Aside),
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

    fn needs_aside(&self, summary: &Summary) -> bool {
        summary.is_peaked()
    }

    fn finish(&self, row: usize, summary: Option<&Summary>, _: Logit<'_>) -> Action {
        let Some(summary) = summary else {
            self.rows.set(row, 0.0);
            return if self.gradient.is_some() { Action::Fill(0.0) } else { Action::Leave };
        };
        let loss = self.coefficients(row);
        self.rows.set(row, loss.value(summary));
        let Some(scales) = self.gradient else { return Action::Leave };
        let class = self.class(row);
        let q = class.map_or(0.0, |class| self.class_weight(class));
        let gradient = loss.gradient(summary, q, scales.of_row(row), self.input.temperature);
        Action::slope(summary, gradient, class)
    }
}
