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
//!
//! With options the loss of a row is a sum of three such terms (`RowLoss`); every gradient is of the form
//! `alpha exp((x - max) / T) + beta q_i`, with weights q that the kernel reads, and one value at the target.

use crate::error::Error;
use crate::exp::two_sum;
use crate::row::{Pair, Partial};

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
    /// The probability of the logit that was set aside.
    pub share: f64,
    /// The share of all other classes in the total, `1 - share`, with digits of its own.
    pub others: f64,
    /// `sum q`, if the classes have weights q.
    pub weight: f64,
    /// `sum q -log p`, if the classes have weights q; 0 times infinity is 0.
    pub weighted_nll: f64,
    /// `sum p -log p`, if statistics were wanted.
    pub entropy: f64,
    /// How many logits are greater than the one that was set aside, if statistics were wanted.
    pub greater: f64,
    /// The first column of the largest logit, if statistics were wanted or it was set aside.
    pub largest: usize,
    /// The share of all other classes than the largest logit's: its `1 - p`; NaN unless the job needed it.
    pub others_of_largest: f64,
}

impl Summary {
    /// The summary of a whole row.
    pub fn of_row(row: Partial, temperature: f64) -> Self {
        Self::new(row, libm::log(row.sum), temperature)
    }

    /// The summary of a row from which one logit was set aside.
    pub fn with_aside(rest: Partial, aside: Partial, temperature: f64) -> Self {
        let logit = aside.max;
        let (rest, aside) = rest.level_with(aside, temperature);
        let row = rest.plus(aside);
        if logit.is_nan() {
            return Self::new(Partial { sum: f64::NAN, ..row }, f64::NAN, temperature);
        }
        let log_total = if logit == row.max { libm::log1p(rest.sum) } else { libm::log(row.sum) };
        let summary = Self::new(row, log_total, temperature);
        if summary.total.is_nan() {
            return summary;
        }
        let gap = if logit == row.max { 0.0 } else { (row.max - logit) / temperature };
        let (share, others) = (aside.sum / summary.total, rest.sum / summary.total);
        Self { nll: gap + log_total, share, others, ..summary }
    }

    fn new(row: Partial, log_total: f64, temperature: f64) -> Self {
        let nan = f64::NAN;
        // All -inf, or +inf somewhere: lse is that infinity, and there are no probabilities.
        let undefined = row.sum.is_nan() || row.max.is_infinite();
        let lse = if row.sum.is_nan() {
            nan
        } else if row.max.is_infinite() {
            row.max
        } else {
            row.max / temperature + log_total
        };
        let log_total = if undefined { nan } else { log_total };
        Self {
            max: row.max,
            total: if undefined { nan } else { row.sum },
            log_total,
            lse,
            nll: nan,
            share: nan,
            others: nan,
            weight: row.weight,
            weighted_nll: if undefined {
                nan
            } else {
                term(row.weight, log_total) - row.moment / temperature
            },
            entropy: log_total - row.energy / row.sum / temperature,
            greater: row.greater,
            largest: 0,
            others_of_largest: nan,
        }
    }

    /// This row beside another.
    pub fn beside(&self, other: &Self) -> Pair {
        Pair {
            max: self.max,
            total: self.total,
            other_max: other.max,
            other_total: other.total,
            log_ratio: self.log_total - other.log_total,
        }
    }

    /// Whether a single class outweighs all others, so that the logarithm of the total has few digits left
    /// unless that class is set aside.
    pub fn is_peaked(&self) -> bool {
        self.total < 1.25
    }

    /// Whether it is peaked, and not at the class that was set aside.
    pub fn is_peaked_elsewhere(&self) -> bool {
        self.is_peaked() && self.others > 0.5
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
    /// The share of the loss that is spread over all allowed classes.
    pub label_smoothing: f64,
    /// The coefficient of the square of the log-sum-exp.
    pub z_loss: f64,
    /// From rows to the result.
    pub reducing: Reducing,
}

/// How the losses of the rows become the result, with all that it needs.
#[derive(Clone, Debug)]
pub struct Reducing {
    /// The way.
    pub reduction: Reduction,
    /// Replaces the weight of the rows in the mean.
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

impl Reducing {
    /// The denominator, given the weights of the rows that are not ignored.
    pub fn denominator(
        &self,
        valid: impl Iterator<Item = f64> + Clone,
    ) -> Result<Denominator, Error> {
        let (empty, number) = match self.reduction {
            Reduction::Sum | Reduction::None => (false, 1.0),
            Reduction::SequenceMean => (self.sequences == 0, self.sequences as f64),
            Reduction::Mean => match self.normalizer {
                Some(number) => (false, number),
                None => (valid.clone().next().is_none(), sum(valid)),
            },
        };
        match self.on_empty {
            _ if !empty => Ok(Denominator::Is(number)),
            OnEmpty::Nan => Ok(Denominator::Nothing(f64::NAN)),
            OnEmpty::Zero => Ok(Denominator::Nothing(0.0)),
            OnEmpty::Raise => Err(Error::Empty),
        }
    }
}

/// The loss of a row, `own * nll + spread * sum q -log p + square * lse^2`, by its coefficients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowLoss {
    /// Of the surprise of the target.
    pub own: f64,
    /// Of the surprise of all classes by their weights q.
    pub spread: f64,
    /// Of the square of the log-sum-exp.
    pub square: f64,
}

/// The gradient of a row: `alpha * exp((x - max) / T) + beta * q`, and `at_target` in place of that at the
/// target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// The factor, the row's total divided out.
    pub alpha: f64,
    /// The factor of the weights q.
    pub beta: f64,
    /// The target's own value.
    pub at_target: f64,
    /// What all of it is multiplied with in the end: 1, or a factor that is no finite number.
    pub times: f64,
}

impl RowLoss {
    /// The loss. What has the coefficient 0 adds 0, even if it is infinite.
    pub fn value(&self, row: &Summary) -> f64 {
        if row.total.is_nan() {
            return f64::NAN;
        }
        term(self.own, row.nll)
            + term(self.spread, row.weighted_nll)
            + term(self.square, row.lse * row.lse)
    }

    /// The gradient of `upstream` times the loss; q is the weight of the target.
    pub fn gradient(&self, row: &Summary, q: f64, upstream: f64, temperature: f64) -> Coefficients {
        // Inside of the sums an infinite factor would leave nothing but NaN.
        let (upstream, times) =
            if upstream.is_finite() { (upstream, 1.0) } else { (1.0, upstream) };
        let scale = (upstream / temperature).clamp(-f64::MAX, f64::MAX);
        let of_all = term(self.spread, row.weight) + term(2.0 * self.square, row.lse);
        // Sorted by what `p - 1` and what p is a factor of, so that no digits cancel at either end.
        let of_target = term(self.spread, q);
        let at_target = (of_all - of_target) * row.share - (self.own + of_target) * row.others;
        Coefficients {
            alpha: scale * (self.own + of_all) / row.total,
            beta: -scale * self.spread,
            // 0 is +0, whatever the scale.
            at_target: term(at_target, scale) + 0.0,
            times,
        }
    }
}

/// The diagonal of the Hessian of a row's surprise times a factor: `alpha e (1 - e / total)` with
/// `e = exp((x - max) / T)` and T = 1, but for one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hessian {
    /// The factor, the row's total divided out.
    pub alpha: f64,
    /// The class that outweighs all others together, if one does, and its own value.
    pub dominant: Option<(usize, f64)>,
}

impl Hessian {
    /// The Hessian of `own` times the surprise of the target, which was set aside in the row's summary.
    pub fn of_row(own: f64, row: &Summary, target: usize) -> Self {
        // Elsewhere p is at most 1/2, and 1 - p has its digits; here only the sum of the others has them.
        let dominant = if row.others < 0.5 {
            Some((target, row.others))
        } else if row.others_of_largest < 0.5 {
            Some((row.largest, row.others_of_largest))
        } else {
            None
        };
        let value = |others: f64| own * (1.0 - others) * others;
        Self {
            alpha: own / row.total,
            dominant: dominant.map(|(class, others)| (class, value(others))),
        }
    }
}

/// How far a row's probabilities q are from a teacher's, p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// `KL(p || q)`
    Forward,
    /// `KL(q || p)`
    Reverse,
    /// `beta KL(p || m) + (1 - beta) KL(q || m)` with `m = beta p + (1 - beta) q`
    JensenShannon {
        /// Within 0 and 1.
        beta: f64,
    },
}

impl Divergence {
    /// The generalised Jensen-Shannon divergence. At 0 and 1, where it is 0, its limit over `beta (1 - beta)` takes
    /// its place.
    pub fn jensen_shannon(beta: f64) -> Self {
        match beta {
            0.0 => Self::Forward,
            1.0 => Self::Reverse,
            _ => Self::JensenShannon { beta },
        }
    }

    /// The divergence, from what the kernel sums, and by how much the probabilities q were more than p: that is what
    /// each `log(q / p)` was off by, and to second order it is in the sums.
    pub fn value(self, [first, second]: [f64; 2], surplus: f64) -> f64 {
        let (value, curvature) = match self {
            Self::Forward | Self::Reverse => (first, 1.0),
            Self::JensenShannon { beta } => {
                (beta * first + (1.0 - beta) * second, beta * (1.0 - beta))
            }
        };
        let corrected = value - curvature * surplus * surplus / 2.0;
        if corrected < 0.0 { 0.0 } else { corrected }
    }

    /// What the derivatives by all classes have in common: the divergence of q from what it is compared with.
    pub fn center(self, [first, second]: [f64; 2]) -> f64 {
        match self {
            Self::Forward => 0.0,
            Self::Reverse => first,
            Self::JensenShannon { .. } => second,
        }
    }
}

/// The logarithm of what some probabilities leave of 1, given by their logarithms; -inf if that is nothing.
pub fn log_rest(log_p: &[f64]) -> f64 {
    if log_p.iter().any(|log| log.is_nan()) {
        return f64::NAN;
    }
    // The largest is taken from 1 by the digits of its logarithm.
    let largest = log_p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut left_of_largest = false;
    let others = log_p.iter().filter(|&&log| {
        let is_first = log == largest && !left_of_largest;
        left_of_largest |= is_first;
        !is_first
    });
    let rest = sum(others.map(|&log| -libm::exp(log)).chain([-libm::expm1(largest)]));
    if rest > 0.0 { libm::log(rest) } else { f64::NEG_INFINITY }
}

/// A term of a sum, 0 if its coefficient is.
fn term(coefficient: f64, value: f64) -> f64 {
    if coefficient == 0.0 { 0.0 } else { coefficient * value }
}

/// The sum of some numbers, rounded only once: two doubles carry what a single one would drop.
pub fn sum(numbers: impl Iterator<Item = f64>) -> f64 {
    let (mut high, mut low) = (0.0_f64, 0.0_f64);
    for number in numbers {
        let (sum, lost) = two_sum(high, number);
        (high, low) = (sum, low + lost);
    }
    // An infinite sum has no error term; its low part is NaN.
    if high.is_finite() { high + low } else { high }
}
