//! The gradients' places: where a sum over all chunks is kept, and what stands where no product comes.

use super::LinearGradients;
use super::chunk::{Desk, blocks};
use crate::batch::Matrix;
use crate::error::Error;
use crate::product::{Factor, Sheet};
use crate::sweep::Run;
use std::cell::Cell;

/// Rows that a task copies.
pub(super) const ROWS: usize = 64;

/// The gradients that are wanted.
pub(super) struct Gradients<'a> {
    pub(super) hidden: Option<&'a Matrix>,
    pub(super) weight: Option<Sum<'a>>,
    pub(super) bias: Option<Sum<'a>>,
    pub(super) accumulate: bool,
}

/// A gradient that is a sum over all chunks.
pub(super) struct Sum<'a> {
    result: &'a Matrix,
    /// Where it is summed, if that is not the result itself: the result is then rounded once.
    apart: Option<(Matrix, Sheet)>,
}

impl<'a> Sum<'a> {
    fn new<T: Factor>(result: &'a Matrix, rows: usize) -> Result<Self, Error> {
        if result.is_grid::<T>() {
            return Ok(Self { result, apart: None });
        }
        let sheet = Sheet::new::<T>(rows, result.columns())?;
        Ok(Self { result, apart: Some((sheet.rows(rows), sheet)) })
    }

    /// Where it goes in the end.
    pub(super) fn result(&self) -> &Matrix {
        self.result
    }

    /// What is added to.
    pub(super) fn to(&self) -> &Matrix {
        self.apart.as_ref().map_or(self.result, |(sum, _)| sum)
    }
}

impl<'a> Gradients<'a> {
    /// None at all if there is no place for any. `classes` have a product.
    pub(super) fn new<T: Factor>(
        given: Option<LinearGradients<'a>>,
        classes: usize,
    ) -> Result<Self, Error> {
        let Some(given) = given else {
            return Ok(Self { hidden: None, weight: None, bias: None, accumulate: false });
        };
        let weight = given.weight.map(|result| Sum::new::<T>(result, classes));
        // In doubles: as many terms as rows, and nothing to gain from less.
        let bias = given.bias.map(|result| Sum::new::<f64>(result, 1));
        let (weight, bias) = (weight.transpose()?, bias.transpose()?);
        Ok(Self { hidden: given.hidden, weight, bias, accumulate: given.accumulate })
    }

    /// Whether one is wanted.
    pub(super) fn any(&self) -> bool {
        self.hidden.is_some() || self.weight.is_some() || self.bias.is_some()
    }
}

impl<T: Factor> Desk<'_, T> {
    /// Writes zeros where no product comes, and takes up what is to be added to. `counting` are the rows that have a
    /// product, in order.
    pub(super) fn open(&self, run: &mut Run<'_>, counting: &[usize]) -> Result<(), Error> {
        let Gradients { hidden, weight, bias, accumulate } = self.gradients;
        if let Some(hidden) = hidden.filter(|_| !accumulate) {
            let mut next = counting.iter().peekable();
            clear(hidden, (0..hidden.rows()).filter(|row| next.next_if_eq(&row).is_none()));
        }
        if let Some(Sum { result, apart }) = weight {
            if !accumulate {
                let products = if counting.is_empty() { 0 } else { self.classes() };
                clear(result, products..result.rows());
            } else if let Some((sum, _)) = apart {
                let blocks = blocks(0..self.classes(), ROWS);
                self.tasks(run, blocks.len(), &|number, room| {
                    room.strip.load(result, blocks[number].clone(), sum);
                })?;
            }
        }
        if let Some(bias) = bias {
            let sums: &[Cell<f64>] = bias.to().cells(0, 0..bias.to().columns());
            for (column, cell) in sums.iter().enumerate() {
                cell.set(if *accumulate { bias.result.get(0, column) } else { 0.0 });
            }
        }
        Ok(())
    }

    /// Rounds the sums that are kept apart from the results.
    pub(super) fn close(&self, run: &mut Run<'_>, counting: &[usize]) -> Result<(), Error> {
        let Gradients { weight, bias, .. } = self.gradients;
        if let Some(Sum { result, apart: Some((sum, _)) }) = bias {
            result.scatter::<f64>(0..1, 0..sum.columns(), sum.cells(0, 0..sum.columns()));
        }
        if let Some(Sum { result, apart: Some((sum, _)) }) = weight
            && !counting.is_empty()
        {
            let blocks = blocks(0..self.classes(), ROWS);
            self.tasks(run, blocks.len(), &|number, room| {
                room.strip.store(sum, blocks[number].clone(), result);
            })?;
        }
        Ok(())
    }
}

/// Writes zeros to some rows.
fn clear(matrix: &Matrix, rows: impl Iterator<Item = usize>) {
    let zeros = vec![Cell::new(0.0); matrix.columns()];
    for row in rows {
        matrix.scatter::<f64>(row..row + 1, 0..matrix.columns(), &zeros);
    }
}
