//! Softmax, its logarithm, and the logarithm of the sum of exponentials.

use super::{Logit, PerRow};
use crate::batch::Matrix;
use crate::error::Error;
use crate::loss::Summary;
use crate::sweep::{Action, Input, Job, Run, sweep};

/// Writes the probabilities of every row to `out`: `exp(x / T) / sum exp(x / T)`.
pub fn softmax(run: Run<'_>, input: &Input, out: &Matrix) -> Result<(), Error> {
    sweep(run, input, Some(out), &Softmax)
}

/// Writes the logarithms of the probabilities of every row to `out`: `x / T - lse`.
pub fn log_softmax(run: Run<'_>, input: &Input, out: &Matrix) -> Result<(), Error> {
    sweep(run, input, Some(out), &LogSoftmax)
}

/// The logarithm of the sum of exponentials of every row: `log sum exp(x / T)`.
pub fn logsumexp(run: Run<'_>, input: &Input) -> Result<Vec<f64>, Error> {
    let rows = PerRow::new(input.logits.rows())?;
    sweep(run, input, None, &LogSumExp { temperature: input.temperature, rows: &rows })?;
    rows.into_values()
}

struct Softmax;

impl Job for Softmax {
    fn needs_max(&self) -> bool {
        false
    }
    fn finish(&self, _: usize, summary: Option<&Summary>, _: Logit<'_>) -> Action {
        summary.map_or(Action::Leave, |row| Action::Exponential {
            max: row.max,
            alpha: 1.0 / row.total,
        })
    }
}

struct LogSoftmax;

impl Job for LogSoftmax {
    fn needs_aside(&self, summary: &Summary) -> bool {
        summary.is_peaked()
    }
    fn finish(&self, _: usize, summary: Option<&Summary>, _: Logit<'_>) -> Action {
        summary.map_or(Action::Leave, |row| Action::Logarithm {
            max: row.max,
            log_total: row.log_total,
        })
    }
}

struct LogSumExp<'a> {
    temperature: f64,
    rows: &'a PerRow,
}

impl Job for LogSumExp<'_> {
    fn needs_aside(&self, summary: &Summary) -> bool {
        // Beside a maximum of 4 or more, or a logarithm of more than 2, what a sum of exponentials loses in
        // single precision is less than half a unit in the last place of the result.
        summary.total < 8.0 && (summary.max / self.temperature).abs() < 4.0
    }
    fn finish(&self, row: usize, summary: Option<&Summary>, _: Logit<'_>) -> Action {
        self.rows.set(row, summary.map_or(f64::NAN, |summary| summary.lse));
        Action::Leave
    }
}
