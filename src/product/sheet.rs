//! Matrices of our own, for what lies between two products.

use super::Factor;
use crate::batch::{Array, Matrix};
use crate::error::Error;
use crate::memory::Block;

/// A matrix that owns its memory. It holds whatever was there before until it is written.
pub struct Sheet {
    matrix: Matrix,
    _block: Block,
}

impl Sheet {
    /// Room for that many rows and columns.
    pub fn new<T: Factor>(rows: usize, columns: usize) -> Result<Self, Error> {
        let (stride, bytes) = Self::stride::<T>(columns)
            .and_then(|stride| Some((stride, rows.checked_mul(stride)?)))
            .ok_or(Error::Memory(usize::MAX))?;
        let block = Block::new(bytes)?;
        let array = Array {
            data: block.address(),
            kind: T::KIND,
            swapped: false,
            shape: vec![rows, columns],
            strides: vec![stride.cast_signed(), size_of::<T>().cast_signed()],
        };
        // SAFETY: the block has room for all rows and belongs to nobody else; any bits are a number; and those who take
        // views keep the sheet.
        let matrix = unsafe { Matrix::new(&array, 1) };
        Ok(Self { matrix, _block: block })
    }

    /// Bytes from one row to the next: whole cache lines, and no whole pages, or columns would fight for the same few
    /// places in a cache. None if that is no number.
    pub fn stride<T>(columns: usize) -> Option<usize> {
        const LINE: usize = 64;
        const PAGE: usize = 4096;
        let stride = columns.checked_mul(size_of::<T>())?.checked_next_multiple_of(LINE)?;
        if stride.is_multiple_of(PAGE) { stride.checked_add(LINE) } else { Some(stride) }
    }

    /// Its first rows, as a view that is not to outlive it. Panics if there are not so many.
    pub fn rows(&self, rows: usize) -> Matrix {
        self.matrix.head(rows)
    }
}
