//! How far each row's probabilities are from those of a teacher, and its gradient.

use super::reduced::Scales;
use super::{Logit, Loss, PerRow, Upstream};
use crate::batch::Matrix;
use crate::error::Error;
use crate::loss::{Reducing, Summary};
use crate::sweep::{Action, Compared, Input, Job, Run, Selection, sweep};

pub use crate::sweep::Teacher;

/// The divergence of every row from the teacher's, and its gradient with respect to the logits if there is a place
/// for it. `ignored` says of each row whether it is left out, if one is.
pub fn divergence(
    run: Run<'_>,
    input: &Input,
    teacher: Teacher<'_>,
    ignored: Option<&[bool]>,
    reducing: &Reducing,
    gradient: Option<(&Matrix, &Upstream)>,
) -> Result<Loss, Error> {
    let rows = PerRow::new(input.logits.rows())?;
    let (temperature, rows_of_job) = (input.temperature, &rows);
    let mut job = Divergence { temperature, teacher, ignored, gradient: None, rows: rows_of_job };
    let valid = (0..input.logits.rows()).filter(|&row| !job.ignores(row)).map(|_| 1.0);
    let denominator = reducing.denominator(valid)?;
    job.gradient = gradient.map(|(_, upstream)| Scales::new(upstream, denominator));
    sweep(run, input, gradient.map(|(out, _)| out), &job)?;
    Loss::of_rows(rows, reducing, denominator)
}

struct Divergence<'a> {
    temperature: f64,
    teacher: Teacher<'a>,
    ignored: Option<&'a [bool]>,
    gradient: Option<Scales<'a>>,
    rows: &'a PerRow,
}

impl Divergence<'_> {
    fn ignores(&self, row: usize) -> bool {
        self.ignored.is_some_and(|ignored| ignored[row])
    }
}

impl Job for Divergence<'_> {
    fn select(&self, row: usize) -> Selection {
        if self.ignores(row) { Selection::Nothing } else { Selection::All }
    }

    fn teacher(&self) -> Option<Teacher<'_>> {
        Some(self.teacher)
    }

    fn finish(&self, _: usize, _: Option<&Summary>, _: Logit<'_>) -> Action {
        Action::Leave
    }

    fn finish_pair(&self, row: usize, compared: Option<Compared>) -> Action {
        let divergence = self.teacher.divergence;
        let (action, value) = match compared {
            None => (Action::Fill(0.0), 0.0),
            Some(Compared { pair, sums, surplus }) => {
                let value = divergence.value(sums, surplus);
                let scale = self.gradient.map_or(0.0, |scales| scales.of_row(row));
                // Finite, so that 0 times it is 0.
                let inverse = (1.0 / self.temperature).min(f64::MAX);
                let scale = if pair.is_defined() { scale * inverse } else { f64::NAN };
                let center = divergence.center(sums);
                (Action::Nearer { pair, divergence, center, scale }, value)
            }
        };
        self.rows.set(row, value);
        if self.gradient.is_some() { action } else { Action::Leave }
    }
}
