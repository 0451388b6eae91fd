//! Operands as the inner loops want them: bands as wide as a tile, step by step of the depth, whatever the matrix.
//!
//! A band holds, for each step of the depth, as many neighbours as a tile is wide (or high, for a right operand); the
//! last one is padded with zeros. Rows that are slices of the wanted precision are read where they lie, all others a
//! strip of a few rows at a time.

use super::{Factor, Kernels};
use crate::batch::Matrix;
use crate::element::{Element, Kind, Narrow, Widen};
use crate::error::{self, Error};
use crate::simd::{Kernel, Level, Simd};
use half::{bf16, f16};
use std::cell::Cell;
use std::ops::Range;

/// Rows that are read side by side.
const STRIP: usize = 16;

/// Rows and columns that are turned together.
const SQUARE: usize = 4;

/// Room for some rows that are not read where they lie.
pub struct Strip<T> {
    pub(super) level: Level,
    cells: Vec<Cell<T>>,
}

impl<T: Factor> Strip<T> {
    /// Room for rows of that many columns, of any of these matrices.
    pub fn new<'a>(
        level: Level,
        columns: usize,
        matrices: impl IntoIterator<Item = &'a Matrix>,
    ) -> Result<Self, Error> {
        let needed = matrices.into_iter().any(|matrix| !matrix.is_contiguous::<T>());
        let room = if needed { columns.saturating_mul(STRIP) } else { 0 };
        Ok(Self { level, cells: error::collect((0..room).map(|_| Cell::new(T::ZERO)))? })
    }

    /// Copies rows of any matrix, all columns, to as many rows of one that holds `T`.
    pub fn load(&self, from: &Matrix, rows: Range<usize>, to: &Matrix) {
        let columns = 0..from.columns();
        for start in rows.clone().step_by(STRIP) {
            let part = start..(start + STRIP).min(rows.end);
            for (row, slice) in part.clone().zip(self.rows(from, &part, &columns)) {
                let to = to.cells::<T>(row, columns.clone());
                to.iter().zip(slice).for_each(|(to, from)| to.set(from.get()));
            }
        }
    }

    /// Copies rows of a matrix that holds `T` to as many rows of any other, rounded to its dtype.
    pub fn store(&self, from: &Matrix, rows: Range<usize>, to: &Matrix) {
        let columns = 0..to.columns();
        for row in rows {
            let from = from.cells::<T>(row, columns.clone());
            match to.kind() {
                Kind::F16 if to.is_contiguous::<f16>() => {
                    self.level.run(Narrow { from, to: to.cells::<f16>(row, columns.clone()) });
                }
                Kind::BF16 if to.is_contiguous::<bf16>() => {
                    self.level.run(Narrow { from, to: to.cells::<bf16>(row, columns.clone()) });
                }
                _ => to.scatter(row..row + 1, columns.clone(), from),
            }
        }
    }

    /// A row of a matrix, all columns.
    pub fn row<'s>(&'s self, from: &'s Matrix, row: usize) -> &'s [Cell<T>] {
        self.rows(from, &(row..row + 1), &(0..from.columns()))[0]
    }

    /// Rows of a matrix, strip by strip, each as a slice, and the numbers of those in a strip. What `skip` names is
    /// empty.
    pub(super) fn strips<'s>(
        &'s self,
        (from, rows, columns): Part<'s>,
        skip: Skip<'s, T>,
    ) -> impl Iterator<Item = ([&'s [Cell<T>]; STRIP], Range<usize>)> {
        rows.clone().step_by(STRIP).map(move |start| {
            let part = start..(start + STRIP).min(rows.end);
            let mut slices = self.rows(from, &part, columns);
            for (row, slice) in part.clone().zip(&mut slices) {
                if skip(row, slice) {
                    *slice = &[];
                }
            }
            (slices, part)
        })
    }

    /// Some rows of a matrix, at most a strip of them, each a slice.
    fn rows<'s>(
        &'s self,
        from: &'s Matrix,
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) -> [&'s [Cell<T>]; STRIP] {
        let width = columns.len();
        if width == 0 {
            return [&[]; STRIP];
        }
        if from.is_contiguous::<T>() {
            let row = |i| from.cells::<T>(rows.start + i, columns.clone());
            return std::array::from_fn(|i| if i < rows.len() { row(i) } else { &[] });
        }
        let cells = &self.cells[..rows.len() * width];
        match from.kind() {
            Kind::F16 if from.is_contiguous::<f16>() => self.widen::<f16>(from, rows, columns),
            Kind::BF16 if from.is_contiguous::<bf16>() => self.widen::<bf16>(from, rows, columns),
            _ => from.gather(rows.clone(), columns.clone(), cells),
        }
        std::array::from_fn(|i| if i < rows.len() { &cells[i * width..][..width] } else { &[] })
    }

    fn widen<E: Element<Compute = f32>>(
        &self,
        from: &Matrix,
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) {
        for (row, to) in rows.clone().zip(self.cells.chunks(columns.len())) {
            self.level.run(Widen { from: from.cells::<E>(row, columns.clone()), to });
        }
    }
}

/// A part of a matrix that is packed: rows and columns of it.
pub type Part<'a> = (&'a Matrix, &'a Range<usize>, &'a Range<usize>);

/// Which rows of a part are to be zeros, by their numbers and what they hold.
pub type Skip<'a, T> = &'a dyn Fn(usize, &[Cell<T>]) -> bool;

impl<T: Factor> Kernels<T> {
    /// Packs a left operand, whose steps are rows of a matrix: `columns` of it, side by side. Rows that `skip` names
    /// are zeros.
    pub fn pack_left(&self, strip: &Strip<T>, part: Part<'_>, skip: Skip<'_, T>, to: &mut [T]) {
        pack(self.width, strip, part, skip, to);
    }

    /// The same for a right operand, with nothing to skip.
    pub fn pack_right(&self, strip: &Strip<T>, part: Part<'_>, to: &mut [T]) {
        pack(self.height, strip, part, &|_, _| false, to);
    }

    /// Packs a left operand whose steps are columns of a matrix: `rows` of it side by side.
    pub fn turn_left(&self, strip: &Strip<T>, part: Part<'_>, to: &mut [T]) {
        turn(self.width, strip, part, to);
    }
}

fn pack<T: Factor>(
    width: usize,
    strip: &Strip<T>,
    part: Part<'_>,
    skip: Skip<'_, T>,
    to: &mut [T],
) {
    let (_, rows, columns) = part;
    for (slices, part) in strip.strips(part, skip) {
        let slices = &slices[..part.len()];
        let (depth, first) = (rows.len(), part.start - rows.start);
        let bands = Bands { slices, columns: columns.len(), width, depth, first, to: &mut *to };
        strip.level.run(bands);
    }
}

pub(super) fn turn<T: Factor>(
    width: usize,
    strip: &Strip<T>,
    (from, rows, columns): Part<'_>,
    to: &mut [T],
) {
    let bands = to.chunks_mut(width * columns.len().max(1));
    for (band, start) in bands.zip(rows.clone().step_by(width)) {
        let end = (start + width).min(rows.end);
        for first in (start..start + width).step_by(STRIP) {
            let part = first.min(end)..(first + STRIP).min(end);
            let slices = strip.rows(from, &part, columns);
            let at = first - start;
            let high = STRIP.min(width - at);
            strip.level.run(Turn { slices, high, width, to: &mut band[at..] });
        }
    }
}

/// Rows as steps of bands, side by side. An empty one is zeros.
struct Bands<'a, T> {
    slices: &'a [&'a [Cell<T>]],
    columns: usize,
    width: usize,
    depth: usize,
    /// The step that the first row is.
    first: usize,
    to: &'a mut [T],
}

impl<T: Factor> Kernel for Bands<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        // Copies of a known size need no loop; these are the tiles of the levels.
        match self.width {
            4 => self.copy::<4>(),
            6 => self.copy::<6>(),
            8 => self.copy::<8>(),
            16 => self.copy::<16>(),
            32 => self.copy::<32>(),
            64 => self.copy::<64>(),
            _ => self.copy::<0>(),
        }
    }
}

impl<T: Factor> Bands<'_, T> {
    /// Copies all steps, in one go those that are `WIDTH` elements. By index, here and below: closures are no part of
    /// a kernel unless they are inlined, and iterators of closures were not (1.9 ns an element).
    #[inline(always)]
    fn copy<const WIDTH: usize>(self) {
        let Self { slices, columns, width, depth, first, to } = self;
        for (band, start) in (0..columns).step_by(width).enumerate() {
            let filled = width.min(columns - start);
            for (row, slice) in slices.iter().enumerate() {
                let step = &mut to[(band * depth + first + row) * width..][..width];
                if slice.is_empty() {
                    step.fill(T::ZERO);
                } else if WIDTH > 0 && filled == WIDTH {
                    copy(&slice[start..start + WIDTH], &mut step[..WIDTH]);
                } else {
                    copy(&slice[start..start + filled], &mut step[..filled]);
                    step[filled..].fill(T::ZERO);
                }
            }
        }
    }
}

#[inline(always)]
fn copy<T: Copy>(from: &[Cell<T>], to: &mut [T]) {
    for i in 0..to.len() {
        to[i] = from[i].get();
    }
}

/// Rows to columns: element i of each of some rows become neighbours. Rows that are not there are zeros.
struct Turn<'a, T> {
    slices: [&'a [Cell<T>]; STRIP],
    /// How many rows are to be.
    high: usize,
    /// From one step to the next.
    width: usize,
    to: &'a mut [T],
}

impl<T: Factor> Kernel for Turn<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { slices, high, width, to } = self;
        let depth = to.len().div_ceil(width);
        let whole = high == STRIP && slices.iter().all(|slice| slice.len() == depth);
        // Squares are what compilers turn in registers: 0.30 ns an element, where columns one by one took 0.47, and
        // squares of eight as long as that.
        let turned = if whole { depth / SQUARE * SQUARE } else { 0 };
        for i in (0..turned).step_by(SQUARE) {
            for j in (0..STRIP).step_by(SQUARE) {
                let mut square = [[T::ZERO; SQUARE]; SQUARE];
                for row in 0..SQUARE {
                    copy(&slices[j + row][i..i + SQUARE], &mut square[row]);
                }
                for column in 0..SQUARE {
                    let to = &mut to[(i + column) * width + j..][..SQUARE];
                    for row in 0..SQUARE {
                        to[row] = square[row][column];
                    }
                }
            }
        }
        for (i, step) in to.chunks_mut(width).enumerate().skip(turned) {
            for (to, slice) in step[..high].iter_mut().zip(&slices) {
                *to = slice.get(i).map_or(T::ZERO, Cell::get);
            }
        }
    }
}
