//! The Rust API: batches in, results out. Here, and only here, the dtype of a batch becomes a type.

use crate::batch::Matrix;
use crate::element::Kind;
use crate::error::{self, Error};
use crate::loss::{self, CrossEntropy, Denominator, Reduction, Summary};
use crate::sweep::{Action, Job, Run, Selection, sweep};
use half::{bf16, f16};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes the probabilities of every row to `out`: `exp(x / T) / sum exp(x / T)`.
pub fn softmax(run: Run<'_>, logits: &Matrix, temperature: f64, out: &Matrix) -> Result<(), Error> {
    sweep_any(run, logits, Some(out), &Softmax { temperature })
}

/// Writes the logarithms of the probabilities of every row to `out`: `x / T - lse`.
pub fn log_softmax(
    run: Run<'_>,
    logits: &Matrix,
    temperature: f64,
    out: &Matrix,
) -> Result<(), Error> {
    sweep_any(run, logits, Some(out), &LogSoftmax { temperature })
}

/// The logarithm of the sum of exponentials of every row: `log sum exp(x / T)`.
pub fn logsumexp(run: Run<'_>, logits: &Matrix, temperature: f64) -> Result<Vec<f64>, Error> {
    let rows = PerRow::new(logits.rows())?;
    sweep_any(run, logits, None, &LogSumExp { temperature, rows: &rows })?;
    rows.into_values()
}

/// What [`cross_entropy`] returns.
#[derive(Clone, Debug, PartialEq)]
pub enum Loss {
    /// The mean or the sum.
    Reduced(f64),
    /// One loss per row.
    PerRow(Vec<f64>),
}

/// The gradient of what comes after, with respect to the loss.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// The same for every row.
    Scalar(f64),
    /// One per row.
    PerRow(Vec<f64>),
}

/// The cross-entropy of every row with its class (None: ignored), and its gradient if there is a place for it.
pub fn cross_entropy(
    run: Run<'_>,
    logits: &Matrix,
    classes: &[Option<usize>],
    options: &CrossEntropy,
    gradient: Option<(&Matrix, &Upstream)>,
) -> Result<Loss, Error> {
    let valid = classes.iter().flatten().count();
    let denominator = options.denominator(valid)?;
    let rows = PerRow::new(logits.rows())?;
    let scale = match denominator {
        Denominator::Is(number) => 1.0 / number,
        Denominator::Nothing(_) => 0.0,
    };
    let job = ClassLoss {
        temperature: options.temperature,
        classes,
        gradient: gradient.map(|(_, upstream)| (upstream, scale)),
        rows: &rows,
    };
    sweep_any(run, logits, gradient.map(|(out, _)| out), &job)?;
    let losses = rows.into_values()?;
    Ok(match (options.reduction, denominator) {
        (Reduction::None, _) => Loss::PerRow(losses),
        (_, Denominator::Nothing(result)) => Loss::Reduced(result),
        (_, Denominator::Is(number)) => Loss::Reduced(loss::sum(losses.into_iter()) / number),
    })
}

/// A sweep over logits of whatever dtype they have.
fn sweep_any(
    run: Run<'_>,
    logits: &Matrix,
    out: Option<&Matrix>,
    job: &impl Job,
) -> Result<(), Error> {
    match logits.kind() {
        Kind::F16 => sweep::<f16>(run, logits, out, job),
        Kind::BF16 => sweep::<bf16>(run, logits, out, job),
        Kind::F32 => sweep::<f32>(run, logits, out, job),
        _ => sweep::<f64>(run, logits, out, job),
    }
}

/// One double per row, written by whichever thread has the row.
struct PerRow(Vec<AtomicU64>);

impl PerRow {
    fn new(rows: usize) -> Result<Self, Error> {
        Ok(Self(error::collect((0..rows).map(|_| AtomicU64::default()))?))
    }

    fn set(&self, row: usize, value: f64) {
        // Relaxed: the end of the sweep orders all of these before the values are read.
        self.0[row].store(value.to_bits(), Ordering::Relaxed);
    }

    fn into_values(self) -> Result<Vec<f64>, Error> {
        error::collect(self.0.into_iter().map(|bits| f64::from_bits(bits.into_inner())))
    }
}

struct Softmax {
    temperature: f64,
}

impl Job for Softmax {
    fn temperature(&self) -> f64 {
        self.temperature
    }
    fn finish(&self, _: usize, summary: Option<&Summary>) -> Action {
        summary.map_or(Action::Leave, |row| Action::Affine {
            max: row.max,
            alpha: 1.0 / row.total,
            beta: 0.0,
            patch: None,
        })
    }
}

struct LogSoftmax {
    temperature: f64,
}

impl Job for LogSoftmax {
    fn temperature(&self) -> f64 {
        self.temperature
    }
    fn needs_aside(&self, summary: &Summary) -> bool {
        summary.is_peaked()
    }
    fn finish(&self, _: usize, summary: Option<&Summary>) -> Action {
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
    fn temperature(&self) -> f64 {
        self.temperature
    }
    fn needs_aside(&self, summary: &Summary) -> bool {
        // Beside a maximum of 4 or more, or a logarithm of more than 2, what a sum of exponentials loses in
        // single precision is less than half a unit in the last place of the result.
        summary.total < 8.0 && (summary.max / self.temperature).abs() < 4.0
    }
    fn finish(&self, row: usize, summary: Option<&Summary>) -> Action {
        self.rows.set(row, summary.map_or(f64::NAN, |summary| summary.lse));
        Action::Leave
    }
}

struct ClassLoss<'a> {
    temperature: f64,
    classes: &'a [Option<usize>],
    /// What comes after, and what the reduction makes of a row's share in it.
    gradient: Option<(&'a Upstream, f64)>,
    rows: &'a PerRow,
}

impl Job for ClassLoss<'_> {
    fn temperature(&self) -> f64 {
        self.temperature
    }
    fn select(&self, row: usize) -> Selection {
        self.classes[row].map_or(Selection::Nothing, Selection::Aside)
    }
    fn finish(&self, row: usize, summary: Option<&Summary>) -> Action {
        let (Some(summary), Some(class)) = (summary, self.classes[row]) else {
            self.rows.set(row, 0.0);
            return if self.gradient.is_some() { Action::Fill(0.0) } else { Action::Leave };
        };
        self.rows.set(row, summary.nll);
        let Some((upstream, scale)) = self.gradient else { return Action::Leave };
        let upstream = match upstream {
            Upstream::Scalar(value) => *value,
            Upstream::PerRow(values) => values[row],
        };
        let gradient = loss::gradient(summary, upstream * scale, self.temperature);
        Action::Affine {
            max: summary.max,
            alpha: gradient.alpha,
            beta: gradient.beta,
            patch: Some((class, gradient.at_target)),
        }
    }
}
