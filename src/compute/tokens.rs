//! Log-probabilities of chosen classes.

use super::{Logit, PerRow};
use crate::error::Error;
use crate::loss::Summary;
use crate::sweep::{Action, Input, Job, Run, Selection, sweep};

/// The log-probabilities of `each` classes of every row, which stand in `tokens` row after row (None: ignored, 0).
pub fn token_logprobs(
    run: Run<'_>,
    input: &Input,
    tokens: &[Option<usize>],
    each: usize,
) -> Result<Vec<f64>, Error> {
    let results = PerRow::new(tokens.len())?;
    let job = TokenLogprobs { tokens, each, input, results: &results };
    sweep(run, input, None, &job)?;
    results.into_values()
}

struct TokenLogprobs<'a> {
    tokens: &'a [Option<usize>],
    each: usize,
    input: &'a Input,
    results: &'a PerRow,
}

impl TokenLogprobs<'_> {
    fn of_row(&self, row: usize) -> &[Option<usize>] {
        &self.tokens[row * self.each..][..self.each]
    }
}

impl Job for TokenLogprobs<'_> {
    fn select(&self, row: usize) -> Selection {
        match self.of_row(row) {
            tokens if tokens.iter().all(Option::is_none) => Selection::Nothing,
            &[Some(token)] => Selection::Aside(token),
            _ => Selection::All,
        }
    }

    fn needs_aside(&self, summary: &Summary) -> bool {
        summary.is_peaked()
    }

    fn finish(&self, row: usize, summary: Option<&Summary>, logit: Logit<'_>) -> Action {
        let tokens = self.of_row(row);
        for (i, token) in tokens.iter().enumerate() {
            let result = match (summary, token) {
                (Some(_), &Some(token)) if !self.input.is_allowed(row, token) => f64::NEG_INFINITY,
                (Some(summary), Some(_)) if tokens.len() == 1 => -summary.nll,
                (Some(summary), &Some(token)) => {
                    (logit(token) - summary.max) / self.input.temperature - summary.log_total
                }
                _ => 0.0,
            };
            self.results.set(row * self.each + i, result);
        }
        Action::Leave
    }
}
