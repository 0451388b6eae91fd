//! Sums of columns: a product with a row of ones, in doubles.

use super::Factor;
use crate::batch::Matrix;
use crate::simd::{Kernel, Simd};
use std::cell::Cell;
use std::ops::Range;

/// Adds the rows of a matrix whose rows are slices of `T`, from the first to the last, to what is in `to`.
pub struct ColumnSums<'a, T> {
    /// The matrix.
    pub from: &'a Matrix,
    /// Those of its columns that are summed.
    pub columns: Range<usize>,
    /// One sum for each of them.
    pub to: &'a [Cell<f64>],
    /// The precision of the matrix.
    pub precision: std::marker::PhantomData<T>,
}

/// Columns that are summed side by side.
const SIDE: usize = 64;

impl<T: Factor> Kernel for ColumnSums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (start, to) in self.columns.clone().step_by(SIDE).zip(self.to.chunks(SIDE)) {
            let columns = start..(start + SIDE).min(self.columns.end);
            let mut sums = [0.0; SIDE];
            sums.iter_mut().zip(to).for_each(|(sum, cell)| *sum = cell.get());
            for row in 0..self.from.rows() {
                let row = self.from.cells::<T>(row, columns.clone());
                sums.iter_mut().zip(row).for_each(|(sum, cell)| *sum += cell.get().to_f64());
            }
            to.iter().zip(sums).for_each(|(cell, sum)| cell.set(sum));
        }
    }
}
