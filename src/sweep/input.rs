//! The logits of a batch and how they are read: divided, capped, masked.

use crate::batch::Matrix;
use std::ops::Range;

/// The logits and what is done to them before anything else: `softcap`, then the temperature, then masks.
#[derive(Clone, Debug)]
pub struct Input {
    /// The logits.
    pub logits: Matrix,
    /// Divides the logits.
    pub temperature: f64,
    /// Bounds the logits, `c tanh(x / c)`.
    pub softcap: Option<f64>,
    /// The columns outside of which all classes are masked, in all rows.
    pub window: Range<usize>,
    /// What is masked inside of the window.
    pub mask: Option<Matrix>,
    /// The number of classes that are not masked, if it is the same in all rows.
    allowed: Option<usize>,
}

impl Input {
    /// Logits of which the first `valid` columns take part, there those whose byte in `mask` is not 0. The
    /// mask has the rows and columns of the logits.
    pub fn new(
        logits: Matrix,
        temperature: f64,
        softcap: Option<f64>,
        valid: usize,
        mask: Option<Matrix>,
    ) -> Self {
        let mut input =
            Self { logits, temperature, softcap, window: 0..valid, mask, allowed: Some(valid) };
        input.count();
        input
    }

    /// Plain logits.
    pub fn plain(logits: Matrix, temperature: f64) -> Self {
        let columns = logits.columns();
        Self::new(logits, temperature, None, columns, None)
    }

    /// Counts what a mask allows that is the same in all rows; one that allows all of the window is dropped. (The
    /// window is not made narrower by it: where a row's sums are cut must not depend on the other rows.)
    fn count(&mut self) {
        let Some(mask) = &self.mask else { return };
        self.allowed = None;
        if mask.repeats_one_row() && self.logits.rows() > 0 {
            let allowed = count(mask, 0, self.window.clone());
            self.allowed = Some(allowed);
            if allowed == self.window.len() {
                self.mask = None;
            }
        }
    }

    /// The number of classes of a row that are not masked.
    pub fn allowed(&self, row: usize) -> usize {
        match (self.allowed, &self.mask) {
            (Some(allowed), _) => allowed,
            (None, Some(mask)) => count(mask, row, self.window.clone()),
            (None, None) => self.window.len(),
        }
    }

    /// Whether a class takes part in a row.
    pub fn is_allowed(&self, row: usize, column: usize) -> bool {
        self.window.contains(&column)
            && self.mask.as_ref().is_none_or(|mask| mask.at::<u8>(row, column) != 0.0)
    }
}

fn count(mask: &Matrix, row: usize, columns: Range<usize>) -> usize {
    if mask.is_contiguous::<u8>() {
        mask.cells::<u8>(row, columns).iter().filter(|byte| byte.get() != 0).count()
    } else {
        columns.filter(|&column| mask.get(row, column) != 0.0).count()
    }
}
