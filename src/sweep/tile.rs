//! Rows as contiguous chunks: where they lie if they can be used there, else gathered, a chunk at a time.

use crate::batch::Matrix;
use crate::element::Stored;
use crate::error::{self, Error};
use crate::row::CHUNK;
use std::cell::Cell;
use std::ops::Range;

/// A chunk of each row of a group that is worked on together.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    /// The rows.
    pub(super) group: &'a Range<usize>,
    /// The columns.
    pub(super) columns: Range<usize>,
}

/// The columns of all chunks of a row.
pub(super) fn chunks_of(columns: usize) -> impl Iterator<Item = Range<usize>> {
    (0..columns.div_ceil(CHUNK)).map(move |i| chunk_of(columns, i))
}

/// The columns of the i-th chunk.
pub(super) fn chunk_of(columns: usize, i: usize) -> Range<usize> {
    i * CHUNK..((i + 1) * CHUNK).min(columns)
}

/// Room for the rows of a matrix that are not used where they lie.
pub(super) struct Tile<T> {
    cells: Vec<Cell<T>>,
    /// The rows and the columns that are in `cells`.
    holds: Option<(Range<usize>, Range<usize>)>,
    /// Whether it holds the one row that stands for all.
    whole: bool,
}

impl<T: Stored> Tile<T> {
    /// No room.
    pub(super) const EMPTY: Self = Self { cells: Vec::new(), holds: None, whole: false };

    /// Room for `size` elements of some rows; none if there is no matrix or it needs none.
    pub(super) fn new(matrix: Option<&Matrix>, size: usize) -> Result<Self, Error> {
        Self::with_room(matrix.filter(|matrix| !matrix.is_contiguous::<T>()).map_or(0, |_| size))
    }

    /// Room for that many elements, whatever the matrix.
    pub(super) fn with_room(size: usize) -> Result<Self, Error> {
        Ok(Self { cells: cells(size)?, ..Self::EMPTY })
    }

    /// Room for the row of a matrix whose rows are all the same, so that it is converted only once.
    pub(super) fn of_one_row(matrix: Option<&Matrix>) -> Result<Self, Error> {
        Ok(Self { whole: true, ..Self::new(matrix, matrix.map_or(0, Matrix::columns))? })
    }

    /// A part of a row of the matrix that this tile is for.
    pub(super) fn row<'t>(
        &'t mut self,
        matrix: &'t Matrix,
        part: &Part<'_>,
        row: usize,
    ) -> &'t [Cell<T>] {
        self.filled_row(matrix, part, row, |rows, columns, cells| {
            matrix.gather(rows, columns, cells);
        })
    }

    /// The same, where `fill` writes a part of some rows to the tile.
    pub(super) fn filled_row<'t>(
        &'t mut self,
        matrix: &'t Matrix,
        part: &Part<'_>,
        row: usize,
        fill: impl FnOnce(Range<usize>, Range<usize>, &[Cell<T>]),
    ) -> &'t [Cell<T>] {
        let Part { group, columns } = part;
        if self.cells.is_empty() {
            return matrix.cells(row, columns.clone());
        }
        if self.whole {
            self.hold(0..1, 0..matrix.columns(), fill);
            return &self.cells[columns.clone()];
        }
        let width = columns.len();
        self.hold((*group).clone(), columns.clone(), fill);
        &self.cells[(row - group.start) * width..][..width]
    }

    fn hold(
        &mut self,
        rows: Range<usize>,
        columns: Range<usize>,
        fill: impl FnOnce(Range<usize>, Range<usize>, &[Cell<T>]),
    ) {
        let wanted = (rows, columns);
        if self.holds.as_ref() != Some(&wanted) {
            let size = wanted.0.len() * wanted.1.len();
            fill(wanted.0.clone(), wanted.1.clone(), &self.cells[..size]);
            self.holds = Some(wanted);
        }
    }
}

/// A mask of a chunk without some classes.
pub(super) struct LeftOut(Vec<Cell<u8>>);

impl LeftOut {
    /// No room; it is made when it is needed.
    pub(super) const EMPTY: Self = Self(Vec::new());

    /// The bytes of `mask` (all 1 if there is none) for some columns, 0 at those that are left out.
    pub(super) fn without(
        &mut self,
        mask: Option<&[Cell<u8>]>,
        columns: &Range<usize>,
        left_out: &[Option<usize>],
    ) -> &[Cell<u8>] {
        self.0.resize(columns.len(), Cell::new(1));
        match mask {
            Some(mask) => self.0.iter().zip(mask).for_each(|(to, byte)| to.set(byte.get())),
            None => self.0.iter().for_each(|to| to.set(1)),
        }
        for column in left_out.iter().flatten().filter(|column| columns.contains(column)) {
            self.0[column - columns.start].set(0);
        }
        &self.0
    }
}

/// Room for that many elements.
pub(super) fn cells<T: Stored>(length: usize) -> Result<Vec<Cell<T>>, Error> {
    error::collect((0..length).map(|_| Cell::new(T::default())))
}
