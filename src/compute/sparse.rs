//! Divergences from a teacher of which only some classes of each row are known.
//!
//! The classes that the teacher names are groups of their own, all others together are one more group: a class to
//! either side, whose logit is the logarithm of the sum of exponentials of its own. So a row becomes one of few
//! groups, the divergence that of `divergence.rs`, and its gradient by the groups is carried back to the classes.

use super::{Logit, PerRow};
use crate::batch::Matrix;
use crate::error::{self, Error};
use crate::loss::{self, Summary};
use crate::sweep::{Action, Input, Job, Run, Selection, sweep};

/// The classes that a teacher names: the same number of them in every row.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Row after row; all None in an ignored row.
    pub classes: &'a [Option<usize>],
    /// How many a row has.
    pub each: usize,
    /// Whether a row is ignored, if one is.
    pub ignored: Option<&'a [bool]>,
}

impl Named<'_> {
    fn of_row(&self, row: usize) -> &[Option<usize>] {
        &self.classes[row * self.each..][..self.each]
    }

    fn select(&self, row: usize) -> Selection {
        match self.ignored {
            Some(ignored) if ignored[row] => Selection::Nothing,
            _ => Selection::All,
        }
    }
}

/// Rows of groups: for each row the logits over the temperature of the named classes and of all others together.
#[derive(Clone, Debug)]
pub struct Groups {
    /// Row after row.
    pub logits: Vec<f64>,
    /// The largest of the other logits in each row.
    max: Vec<f64>,
    /// The sum of their exponentials; NaN if there is none.
    total: Vec<f64>,
}

/// The groups of the rows.
pub fn groups(run: Run<'_>, input: &Input, named: Named<'_>) -> Result<Groups, Error> {
    let rows = input.logits.rows();
    let job = Grouping {
        temperature: input.temperature,
        named,
        logits: PerRow::new(rows * (named.each + 1))?,
        max: PerRow::new(rows)?,
        total: PerRow::new(rows)?,
    };
    sweep(run, input, None, &job)?;
    Ok(Groups {
        logits: job.logits.into_values()?,
        max: job.max.into_values()?,
        total: job.total.into_values()?,
    })
}

/// The teacher's rows of groups, of the logarithms of its probabilities: what they leave of 1 is that of all other
/// classes, if there are any that are not masked.
pub fn teacher_groups(input: &Input, named: Named<'_>, log_p: &[f64]) -> Result<Vec<f64>, Error> {
    let mut groups = error::reserve(log_p.len() + input.logits.rows())?;
    for row in 0..input.logits.rows() {
        let given = named.of_row(row).iter().zip(&log_p[row * named.each..]);
        let start = groups.len();
        let mut known = 0;
        for (class, &log_p) in given {
            let taken = class.filter(|&class| input.is_allowed(row, class));
            known += usize::from(taken.is_some());
            groups.push(if taken.is_some() { log_p } else { f64::NEG_INFINITY });
        }
        let others = named.select(row) != Selection::Nothing && input.allowed(row) > known;
        groups.push(if others { loss::log_rest(&groups[start..]) } else { f64::NEG_INFINITY });
    }
    Ok(groups)
}

/// Writes the gradient by the logits, given that by the groups' logits, row after row.
pub fn write_gradient(
    run: Run<'_>,
    input: &Input,
    named: Named<'_>,
    groups: &Groups,
    slopes: &[f64],
    out: &Matrix,
) -> Result<(), Error> {
    let temperature = input.temperature;
    sweep(run, input, Some(out), &Spreading { temperature, named, groups, slopes })
}

struct Grouping<'a> {
    temperature: f64,
    named: Named<'a>,
    logits: PerRow,
    max: PerRow,
    total: PerRow,
}

impl Job for Grouping<'_> {
    fn select(&self, row: usize) -> Selection {
        self.named.select(row)
    }

    fn leaves_out(&self, row: usize) -> &[Option<usize>] {
        self.named.of_row(row)
    }

    fn finish(&self, row: usize, others: Option<&Summary>, logit: Logit<'_>) -> Action {
        let Some(others) = others else { return Action::Leave };
        let start = row * (self.named.each + 1);
        for (i, class) in self.named.of_row(row).iter().enumerate() {
            let logit = class.map_or(f64::NEG_INFINITY, logit);
            self.logits.set(start + i, logit / self.temperature);
        }
        self.logits.set(start + self.named.each, others.lse);
        self.max.set(row, others.max);
        self.total.set(row, others.total);
        Action::Leave
    }
}

struct Spreading<'a> {
    temperature: f64,
    named: Named<'a>,
    groups: &'a Groups,
    /// The gradient by the logits of the groups.
    slopes: &'a [f64],
}

impl Spreading<'_> {
    fn slopes_of(&self, row: usize) -> &[f64] {
        let groups = self.named.each + 1;
        &self.slopes[row * groups..][..groups]
    }
}

impl Job for Spreading<'_> {
    fn select(&self, _: usize) -> Selection {
        Selection::Nothing
    }

    /// Each of the other classes has its part of what their group's logit is worth.
    fn finish(&self, row: usize, _: Option<&Summary>, _: Logit<'_>) -> Action {
        let slope = self.slopes_of(row)[self.named.each] / self.temperature;
        let (max, total) = (self.groups.max[row], self.groups.total[row]);
        if slope.is_nan() || total > 0.0 {
            Action::Exponential { max, alpha: slope / total }
        } else {
            Action::Fill(0.0)
        }
    }

    fn patches(&self, row: usize) -> Vec<(usize, f64)> {
        let pairs = self.named.of_row(row).iter().zip(self.slopes_of(row));
        pairs.filter_map(|(class, slope)| Some(((*class)?, slope / self.temperature))).collect()
    }
}
