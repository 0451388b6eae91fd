//! All that one read of the logits says about the classes that came.

use super::{Logit, PerRow};
use crate::error::Error;
use crate::loss::Summary;
use crate::sweep::{Action, Input, Job, Run, Selection, sweep};

/// What is known of each row.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The surprise of the class; 0 in ignored rows.
    pub nll: Vec<f64>,
    /// The logarithm of the sum of exponentials; NaN in ignored rows.
    pub lse: Vec<f64>,
    /// The entropy of the probabilities; NaN in ignored rows.
    pub entropy: Vec<f64>,
    /// The first of the most probable classes; None in ignored rows and where nothing is defined.
    pub predicted: Vec<Option<usize>>,
    /// The probability of that class; NaN where there is none.
    pub confidence: Vec<f64>,
    /// How many classes are more probable than the one that came.
    pub rank: Vec<Option<usize>>,
}

/// Evaluates every row with its class (None: ignored).
pub fn evaluate(
    run: Run<'_>,
    input: &Input,
    classes: &[Option<usize>],
) -> Result<Evaluation, Error> {
    let new = || PerRow::new(classes.len());
    let job = Statistics {
        classes,
        nll: new()?,
        lse: new()?,
        entropy: new()?,
        predicted: new()?,
        confidence: new()?,
        rank: new()?,
    };
    sweep(run, input, None, &job)?;
    let index = |value: f64| (value >= 0.0).then_some(value as usize);
    let indices = |values: PerRow| -> Result<Vec<Option<usize>>, Error> {
        crate::error::collect(values.into_values()?.into_iter().map(index))
    };
    Ok(Evaluation {
        nll: job.nll.into_values()?,
        lse: job.lse.into_values()?,
        entropy: job.entropy.into_values()?,
        predicted: indices(job.predicted)?,
        confidence: job.confidence.into_values()?,
        rank: indices(job.rank)?,
    })
}

struct Statistics<'a> {
    classes: &'a [Option<usize>],
    nll: PerRow,
    lse: PerRow,
    entropy: PerRow,
    /// NaN for none; doubles hold every class id.
    predicted: PerRow,
    confidence: PerRow,
    rank: PerRow,
}

impl Job for Statistics<'_> {
    fn select(&self, row: usize) -> Selection {
        self.classes[row].map_or(Selection::Nothing, Selection::Aside)
    }

    fn wants_statistics(&self) -> bool {
        true
    }

    fn finish(&self, row: usize, summary: Option<&Summary>, _: Logit<'_>) -> Action {
        let nan = f64::NAN;
        let defined = summary.filter(|summary| !summary.nll.is_nan());
        self.nll.set(row, summary.map_or(0.0, |summary| summary.nll));
        self.lse.set(row, summary.map_or(nan, |summary| summary.lse));
        self.entropy.set(row, summary.map_or(nan, |summary| summary.entropy));
        self.predicted.set(row, defined.map_or(nan, |summary| summary.largest as f64));
        self.confidence.set(row, defined.map_or(nan, |summary| 1.0 / summary.total));
        self.rank.set(row, defined.map_or(nan, |summary| summary.greater));
        Action::Leave
    }
}
