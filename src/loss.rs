//! The losses: from a row's summary to its loss and to the coefficients of its gradient. Scalars only.
//!
//! ```text
//! lse  = log sum_a exp(x_a / T)            nll = lse - x_y / T
//! d nll / d x_i = (p_i - [i == y]) / T     p_i = exp(x_i / T - lse)
//! ```
//!
//! Neither is computed like that. The target is left out of the row's sum, and with
//! `others = sum over a != y` and `target = exp(x_y / T)`, both relative to the maximum,
//!
//! ```text
//! nll            = log1p(others / target)
//! d nll / d x_y  = -others / (others + target) / T
//! ```
//!
//! which keeps all digits when the row is confident and the loss 1e-12.

use crate::error::Error;
use crate::exp::{exp_difference, two_sum};
use crate::row::Partial;

/// What a row's logits add up to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The largest logit.
    pub max: f64,
    /// `sum exp((x - max) / temperature)`; NaN if no probabilities are defined.
    pub total: f64,
    /// The logarithm of `total`.
    pub log_total: f64,
    /// `log sum exp(x / temperature)`
    pub lse: f64,
    /// The loss for the logit that was set aside; NaN if none was.
    pub nll: f64,
    /// The share of all other classes in the total: `1 - p` of the logit that was set aside.
    pub others: f64,
}

impl Summary {
    /// The summary of a whole row.
    pub fn of_row(row: Partial, temperature: f64) -> Self {
        Self::new(row.max, row.sum, libm::log(row.sum), temperature)
    }

    /// The summary of a row from which one logit was set aside.
    pub fn with_aside(rest: Partial, logit: f64, temperature: f64) -> Self {
        if logit.is_nan() {
            return Self::new(rest.max, f64::NAN, f64::NAN, temperature);
        }
        let aside = Partial { max: logit, sum: if logit == f64::INFINITY { logit } else { 1.0 } };
        let row = rest.merge(aside, temperature);
        let exp_of =
            |x: f64| if x == row.max { 1.0 } else { exp_difference(x, row.max, temperature) };
        let others = rest.sum * exp_of(rest.max);
        let log_total = if logit == row.max { libm::log1p(others) } else { libm::log(row.sum) };
        let summary = Self::new(row.max, row.sum, log_total, temperature);
        if summary.total.is_nan() {
            return summary;
        }
        let gap = if logit == row.max { 0.0 } else { (row.max - logit) / temperature };
        Self { nll: gap + log_total, others: others / summary.total, ..summary }
    }

    fn new(max: f64, sum: f64, log_total: f64, temperature: f64) -> Self {
        let nan = f64::NAN;
        if sum.is_nan() {
            return Self { max, total: nan, log_total: nan, lse: nan, nll: nan, others: nan };
        }
        if max.is_infinite() {
            // All -inf, or +inf somewhere: lse is that infinity, and there are no probabilities.
            return Self { max, total: nan, log_total: nan, lse: max, nll: nan, others: nan };
        }
        Self {
            max,
            total: sum,
            log_total,
            lse: max / temperature + log_total,
            nll: nan,
            others: nan,
        }
    }

    /// Whether a single class outweighs all others, so that the logarithm of the total has few digits left
    /// unless that class is set aside.
    pub fn is_peaked(&self) -> bool {
        self.total < 1.25
    }
}

/// How the losses of the rows become the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// The sum over the rows, divided by the number of rows that are not ignored.
    Mean,
    /// The sum over the rows.
    Sum,
    /// No reduction: one loss per row.
    None,
    /// The sum over the rows, divided by the number of sequences.
    SequenceMean,
}

/// What the mean of nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEmpty {
    /// Not a number.
    Nan,
    /// Zero.
    Zero,
    /// An error.
    Raise,
}

/// The options of the cross-entropy.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// Divides the logits.
    pub temperature: f64,
    /// From rows to the result.
    pub reduction: Reduction,
    /// Replaces the number of rows in the mean.
    pub normalizer: Option<f64>,
    /// The mean of nothing.
    pub on_empty: OnEmpty,
    /// The number of sequences, for [`Reduction::SequenceMean`].
    pub sequences: usize,
}

/// What the sum of the rows' losses is divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Denominator {
    /// This number.
    Is(f64),
    /// There is nothing to take the mean of; the result is this.
    Nothing(f64),
}

impl CrossEntropy {
    /// The denominator, when `valid` rows are not ignored.
    pub fn denominator(&self, valid: usize) -> Result<Denominator, Error> {
        let count = match self.reduction {
            Reduction::Sum | Reduction::None => return Ok(Denominator::Is(1.0)),
            Reduction::SequenceMean => self.sequences,
            Reduction::Mean => match self.normalizer {
                Some(number) => return Ok(Denominator::Is(number)),
                None => valid,
            },
        };
        match self.on_empty {
            _ if count > 0 => Ok(Denominator::Is(count as f64)),
            OnEmpty::Nan => Ok(Denominator::Nothing(f64::NAN)),
            OnEmpty::Zero => Ok(Denominator::Nothing(0.0)),
            OnEmpty::Raise => Err(Error::Empty),
        }
    }
}

/// The gradient of a row: `alpha * exp((x - max) / T) + beta`, and `at_target` in place of that at the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// The factor, the row's total divided out.
    pub alpha: f64,
    /// The same for every class.
    pub beta: f64,
    /// The target's own value.
    pub at_target: f64,
}

/// The gradient of `upstream * nll`.
pub fn gradient(summary: &Summary, upstream: f64, temperature: f64) -> Coefficients {
    let scale = upstream / temperature;
    Coefficients {
        alpha: scale / summary.total,
        beta: 0.0,
        // A share of 0 is a plain 0, not its negative, and whatever the scale.
        at_target: if summary.others == 0.0 { 0.0 } else { -scale * summary.others },
    }
}

/// The sum of the losses of all rows, rounded only once: two doubles carry what a single one would drop.
pub fn sum(losses: impl Iterator<Item = f64>) -> f64 {
    let (mut high, mut low) = (0.0_f64, 0.0_f64);
    for loss in losses {
        let (sum, lost) = two_sum(high, loss);
        (high, low) = (sum, low + lost);
    }
    // An infinite sum has no error term; its low part is NaN.
    if high.is_finite() { high + low } else { high }
}
