//! Products of matrices, one block at a time. Knows no loss and no threads.
//!
//! ```text
//! to[n, m]  =  sum over k of  right[n, k] * left[k, m]        or added to what is there
//! ```
//!
//! The arithmetic is that of the crate gemm: its inner loops multiply tiles that fit the registers. What the crate
//! builds around them is rebuilt here, for four reasons:
//!
//! 1. *The level chooses* the loop, see `kernels`; the crate would ask the processor.
//! 2. *The same bits everywhere.* An element is summed along k by one chain of fused multiply-adds, piece by piece of
//!    at most [`depth_of_pieces`], and every piece is added to what was there. Where rows and columns are cut, and on
//!    which thread, changes nothing. The crate makes its pieces as large as it finds the caches of the machine to be.
//! 3. *Any matrix* is an operand: what is packed is widened, gathered or swapped on the way, so that no operand is
//!    copied as a whole. What lies in rows anyway is multiplied where it lies.
//! 4. *Blocks are tasks* for threads of the caller's, each as long as he likes to wait before he stops.

mod few;
mod kernels;
mod pack;
mod sheet;
mod sums;

pub use few::{most_few, room_few};
pub use kernels::{Factor, Kernels};
pub use pack::{Part, Skip, Strip};
pub use sheet::Sheet;
pub use sums::ColumnSums;

use crate::batch::Matrix;
use std::ops::Range;

/// The right operand of a block.
#[derive(Clone, Copy)]
pub enum Right<'a, T> {
    /// Rows of a matrix that are slices of `T`, from one of its rows and columns on.
    Rows(&'a Matrix, usize, usize),
    /// Packed: bands as high as a tile.
    Packed(&'a [T]),
}

/// Where a block of the result stands.
#[derive(Clone, Debug)]
pub struct To<'a> {
    /// A matrix whose rows are slices of the precision of the product.
    pub matrix: &'a Matrix,
    /// The rows of the block.
    pub rows: Range<usize>,
    /// Its columns.
    pub columns: Range<usize>,
}

/// The pieces in which a sum over `depth` terms is made, all but the last equally long: short enough that what a tile
/// needs of the right operand stays in the first cache.
pub fn pieces<T>(depth: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let length = depth_of_pieces::<T>(depth.len());
    depth.clone().step_by(length).map(move |start| start..(start + length).min(depth.end))
}

/// How long the pieces are.
pub fn depth_of_pieces<T>(depth: usize) -> usize {
    /// Bytes of a row.
    const LONGEST: usize = 2048;
    let most = LONGEST / size_of::<T>();
    depth.div_ceil(depth.div_ceil(most).max(1)).max(1)
}

impl<T: Factor> Kernels<T> {
    /// How many elements `columns` of a left operand take when packed, or rows of a right one, with that depth.
    pub fn room(&self, columns: usize, depth: usize) -> usize {
        columns.next_multiple_of(self.width.max(self.height)) * depth
    }

    /// The same for rows of a right operand.
    pub fn room_right(&self, rows: usize, depth: usize) -> usize {
        rows.next_multiple_of(self.height) * depth
    }

    /// Multiplies one piece: `left` is packed, both operands are `depth` deep. Adds to what is there if `add`.
    pub fn multiply(&self, depth: usize, left: &[T], right: Right<'_, T>, to: To<'_>, add: bool) {
        let To { matrix, rows, columns } = to;
        if rows.is_empty() || columns.is_empty() {
            return;
        }
        assert!(left.len() >= columns.len().next_multiple_of(self.width) * depth);
        let Some((to, stride)) = matrix.grid::<T>(&rows, &columns) else {
            unreachable!("a result whose rows are no slices");
        };
        let (right, of_row, of_step, of_band) = match right {
            Right::Packed(packed) => {
                assert!(packed.len() >= self.room_right(rows.len(), depth));
                (packed.as_ptr(), 1, self.height.cast_signed(), self.height * depth)
            }
            Right::Rows(from, row, column) => {
                let (rows, columns) = (row..row + rows.len(), column..column + depth);
                let Some((first, stride)) = from.grid::<T>(&rows, &columns) else {
                    unreachable!("an operand whose rows are no slices");
                };
                (first.cast_const(), stride, 1, 0)
            }
        };
        let one = T::from_f64(1.0);
        for row in (0..rows.len()).step_by(self.height) {
            let height = self.height.min(rows.len() - row);
            let right = match of_band {
                0 => right.wrapping_offset(row.cast_signed() * of_row),
                band => right.wrapping_add(row / self.height * band),
            };
            for column in (0..columns.len()).step_by(self.width) {
                let width = self.width.min(columns.len() - column);
                let to = to.wrapping_offset(row.cast_signed() * stride).wrapping_add(column);
                let left = left[column * depth..].as_ptr();
                let tile = self.tile(width, height);
                // SAFETY: the level that chose the loop proves the instruction set. The loop reads `depth` steps of a
                // whole tile's columns of `left`, and of `height` rows of `right`: both are as large as was asserted,
                // or within a matrix, as `grid` checks. It reads and writes `height` rows and `width` columns of a
                // block that lies within a matrix, which `Matrix::new` vouches for; its callers give no two tasks
                // the same block.
                unsafe {
                    tile(
                        width,
                        height,
                        depth,
                        to,
                        left,
                        right,
                        stride,
                        1,
                        self.width.cast_signed(),
                        of_step,
                        of_row,
                        one,
                        one,
                        u8::from(add),
                        false,
                        false,
                        false,
                        std::ptr::null(),
                    );
                }
            }
        }
    }
}
