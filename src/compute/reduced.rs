//! From the losses of rows to the loss, and from what comes after it back to the rows.

use super::PerRow;
use crate::error::Error;
use crate::loss::{self, Denominator, Reducing, Reduction};

/// A loss.
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

impl Loss {
    /// The losses of the rows put together.
    pub(super) fn of_rows(
        rows: PerRow,
        reducing: &Reducing,
        denominator: Denominator,
    ) -> Result<Self, Error> {
        let losses = rows.into_values()?;
        Ok(match (reducing.reduction, denominator) {
            (Reduction::None, _) => Self::PerRow(losses),
            (_, Denominator::Nothing(result)) => Self::Reduced(result),
            (_, Denominator::Is(number)) => Self::Reduced(loss::sum(losses.into_iter()) / number),
        })
    }
}

/// What a row's loss counts in what comes after.
#[derive(Clone, Copy)]
pub(super) struct Scales<'a> {
    upstream: &'a Upstream,
    /// What the reduction makes of each row.
    share: f64,
}

impl<'a> Scales<'a> {
    pub(super) fn new(upstream: &'a Upstream, denominator: Denominator) -> Self {
        let share = match denominator {
            Denominator::Is(number) => 1.0 / number,
            Denominator::Nothing(_) => 0.0,
        };
        Self { upstream, share }
    }

    pub(super) fn of_row(self, row: usize) -> f64 {
        match self.upstream {
            Upstream::Scalar(value) => *value * self.share,
            Upstream::PerRow(values) => values[row] * self.share,
        }
    }
}
