//! Shapes: an array of any rank, layout and dtype seen as rows of columns.
//!
//! The class axis becomes the columns, all other axes together the rows, in C order. A view knows where
//! every element is, so no layout needs a copy of the array: rows that lie contiguous in native byte order are
//! handed out as they are, all others are gathered into a tile a few rows at a time.
//!
//! Class ids are read and checked here too, once, into memory of our own: what another thread writes to the
//! caller's array afterwards can do no harm.

use crate::element::{Kind, Stored};
use crate::error::{self, Error};
use crate::simd::Number;
use half::{bf16, f16};
use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

/// Where an array lies in memory.
#[derive(Clone, Debug)]
pub struct Array {
    /// The first element.
    pub data: *mut u8,
    /// The dtype.
    pub kind: Kind,
    /// Whether the bytes of an element are in the order that is not this machine's.
    pub swapped: bool,
    /// Elements along each axis.
    pub shape: Vec<usize>,
    /// Bytes from one element to the next along each axis.
    pub strides: Vec<isize>,
}

/// An array as rows of columns.
#[derive(Clone, Debug)]
pub struct Matrix {
    data: *mut u8,
    kind: Kind,
    swapped: bool,
    /// Lengths and strides of the axes that make up the rows, neighbours joined where they are one run.
    outer: Vec<(usize, isize)>,
    rows: usize,
    columns: usize,
    column_stride: isize,
    /// Whether rows can be handed out as slices.
    contiguous: bool,
    /// The rows of the array that are the rows of this view, if they are not all of them.
    picked: Option<Arc<[usize]>>,
}

// SAFETY: a view is addresses and lengths. Who makes one vouches for the memory (see `Matrix::new`), and the
// sweep gives each part of an output to one task only.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

impl Matrix {
    /// The array with `axis` (already within the shape) as its columns.
    ///
    /// # Safety
    /// As long as the view is used, every element that shape and strides reach is valid for reading and, where
    /// the view is an output, for writing, and nothing but views made here holds references to it.
    pub unsafe fn new(array: &Array, axis: usize) -> Self {
        let mut outer: Vec<(usize, isize)> = Vec::new();
        for (i, (&length, &stride)) in array.shape.iter().zip(&array.strides).enumerate() {
            if i == axis || length == 1 {
                continue;
            }
            match outer.last_mut() {
                // One step of the axis before is a whole run along this one: together they are one axis.
                Some((before, wide)) if *wide == stride.wrapping_mul(length.cast_signed()) => {
                    *before *= length;
                    *wide = stride;
                }
                _ => outer.push((length, stride)),
            }
        }
        let (columns, column_stride) = (array.shape[axis], array.strides[axis]);
        let size = array.kind.size();
        let aligned = std::iter::once(array.data.addr())
            .chain(outer.iter().map(|(_, stride)| stride.unsigned_abs()))
            .all(|offset| offset % size == 0);
        Self {
            data: array.data,
            kind: array.kind,
            swapped: array.swapped,
            rows: outer.iter().map(|(length, _)| length).product(),
            outer,
            columns,
            column_stride,
            contiguous: aligned
                && !array.swapped
                && (columns <= 1 || column_stride == size.cast_signed()),
            picked: None,
        }
    }

    /// Some rows of this view, in an order of their own. Panics where there is no such row.
    pub fn pick(&self, rows: &[usize]) -> Self {
        assert!(rows.iter().all(|&row| row < self.rows));
        let picked = rows.iter().map(|&row| self.picked.as_ref().map_or(row, |picked| picked[row]));
        Self { picked: Some(picked.collect()), rows: rows.len(), ..self.clone() }
    }

    /// The first rows of this view. Panics if there are not so many.
    pub fn head(&self, rows: usize) -> Self {
        assert!(rows <= self.rows);
        Self { rows, ..self.clone() }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The dtype.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether rows can be handed out as slices of `E`.
    pub fn is_contiguous<E: Stored>(&self) -> bool {
        self.contiguous && self.kind == E::KIND
    }

    /// Whether both begin at the same address: an output that does so is the input's own memory.
    pub fn begins_where(&self, other: &Self) -> bool {
        self.data == other.data
    }

    /// Whether all rows are the same memory.
    pub fn repeats_one_row(&self) -> bool {
        self.outer.iter().all(|&(_, stride)| stride == 0)
    }

    /// Whether neighbouring rows are closer in memory than neighbouring columns, so that several rows should be
    /// gathered at a time.
    pub fn rows_are_neighbours(&self) -> bool {
        let row_stride = self.outer.last().map_or(isize::MAX, |&(_, stride)| stride);
        row_stride.unsigned_abs() < self.column_stride.unsigned_abs()
    }

    /// The address of a row's first element.
    fn row(&self, row: usize) -> *mut u8 {
        debug_assert!(row < self.rows);
        let mut rest = self.picked.as_ref().map_or(row, |picked| picked[row]);
        let Some((&(_, first), inner)) = self.outer.split_first() else { return self.data };
        let mut offset = 0;
        for &(length, stride) in inner.iter().rev() {
            offset += (rest % length).cast_signed() * stride;
            rest /= length;
        }
        self.data.wrapping_offset(offset + rest.cast_signed() * first)
    }

    /// A part of a row, where it lies. Panics unless [`Self::is_contiguous`].
    pub fn cells<E: Stored>(&self, row: usize, columns: Range<usize>) -> &[Cell<E>] {
        assert!(self.is_contiguous::<E>() && row < self.rows && columns.end <= self.columns);
        assert!(columns.start <= columns.end);
        // SAFETY: the range is within the row, whose elements lie side by side, aligned, and are valid as
        // `new` asks; `Cell` allows for other views of the same memory.
        unsafe {
            let start = self.row(row).cast::<Cell<E>>().add(columns.start);
            std::slice::from_raw_parts(start, columns.len())
        }
    }

    /// The first element of a part of some rows, where it lies, and how many elements there are from one row to the
    /// next; None if the rows are no slices of `E` at one distance. Panics outside of the matrix.
    pub fn grid<E: Stored>(
        &self,
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) -> Option<(*mut E, isize)> {
        assert!(rows.end <= self.rows && columns.end <= self.columns);
        assert!(rows.start < rows.end && columns.start < columns.end);
        if !self.is_grid::<E>() {
            return None;
        }
        let stride = self.outer.first().map_or(0, |&(_, stride)| stride);
        let first = self.row(rows.start).cast::<E>().wrapping_add(columns.start);
        Some((first, stride / size_of::<E>().cast_signed()))
    }

    /// Whether the rows are slices of `E` at one distance.
    pub fn is_grid<E: Stored>(&self) -> bool {
        self.is_contiguous::<E>() && self.picked.is_none() && self.outer.len() <= 1
    }

    /// One element as a double, fast if the matrix holds `E`. Panics outside of the matrix.
    pub fn at<E: Stored>(&self, row: usize, column: usize) -> f64 {
        if self.is_contiguous::<E>() {
            self.cells::<E>(row, column..column + 1)[0].get().to_f64()
        } else {
            self.get(row, column)
        }
    }

    /// One element of any dtype as a double. Panics outside of the matrix.
    pub fn get(&self, row: usize, column: usize) -> f64 {
        let value = [Cell::new(0.0)];
        self.gather::<f64>(row..row + 1, column..column + 1, &value);
        value[0].get()
    }

    /// Copies a part of some rows into `tile`, one row after the other, converted to `E`.
    pub fn gather<E: Stored>(&self, rows: Range<usize>, columns: Range<usize>, tile: &[Cell<E>]) {
        let swapped = self.swapped;
        if self.kind == E::KIND && !swapped {
            return self.each(rows, columns, tile, |at, value| {
                // SAFETY: `each` visits elements of the matrix, of this dtype, valid as `new` asks.
                value.set(unsafe { at.cast::<E>().read_unaligned() });
            });
        }
        macro_rules! read {
            ($t:ty, $to_f64:expr) => {
                self.each(rows, columns, tile, |at, value| {
                    // SAFETY: `each` visits elements of the matrix, valid as `new` asks, at any alignment.
                    let mut bytes = unsafe { at.cast::<[u8; size_of::<$t>()]>().read_unaligned() };
                    if swapped {
                        bytes.reverse();
                    }
                    value.set(E::from_f64($to_f64(<$t>::from_ne_bytes(bytes))));
                })
            };
        }
        match self.kind {
            Kind::F16 => read!(f16, f16::to_f64),
            Kind::BF16 => read!(bf16, bf16::to_f64),
            Kind::F32 => read!(f32, f64::from),
            Kind::F64 => read!(f64, f64::from),
            Kind::I8 => read!(i8, f64::from),
            Kind::I16 => read!(i16, f64::from),
            Kind::I32 => read!(i32, f64::from),
            Kind::I64 => read!(i64, |x| x as f64),
            Kind::U8 => read!(u8, f64::from),
            Kind::U16 => read!(u16, f64::from),
            Kind::U32 => read!(u32, f64::from),
            Kind::U64 => read!(u64, |x| x as f64),
        }
    }

    /// Copies `tile` into a part of some rows, rounded to the dtype of this array.
    pub fn scatter<E: Stored>(&self, rows: Range<usize>, columns: Range<usize>, tile: &[Cell<E>]) {
        macro_rules! write {
            ($t:ty) => {
                self.each(rows, columns, tile, |at, value| {
                    let rounded = <$t as Number>::from_f64(value.get().to_f64());
                    // SAFETY: `each` visits elements of the matrix, valid as `new` asks, at any alignment.
                    unsafe { at.cast::<$t>().write_unaligned(rounded) };
                })
            };
        }
        match self.kind {
            Kind::F16 => write!(f16),
            Kind::BF16 => write!(bf16),
            Kind::F32 => write!(f32),
            _ => write!(f64),
        }
    }

    /// Visits the elements of a part of some rows, each with its place in the tile: along the rows or along the
    /// columns, whichever are closer in memory.
    fn each<E>(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        tile: &[Cell<E>],
        mut visit: impl FnMut(*mut u8, &Cell<E>),
    ) {
        assert!(rows.end <= self.rows && columns.end <= self.columns);
        let width = columns.len();
        if width == 0 {
            return;
        }
        let starts = rows.map(|row| self.row(row));
        let offset = |column: usize| column.cast_signed() * self.column_stride;
        if self.rows_are_neighbours() {
            let starts: Vec<*mut u8> = starts.collect();
            for (i, column) in columns.enumerate() {
                for (row, start) in starts.iter().enumerate() {
                    visit(start.wrapping_offset(offset(column)), &tile[row * width + i]);
                }
            }
        } else {
            for (start, tile) in starts.zip(tile.chunks(width)) {
                for (column, value) in columns.clone().zip(tile) {
                    visit(start.wrapping_offset(offset(column)), value);
                }
            }
        }
    }
}

/// Reads the class ids of an argument, of any integer dtype, in C order: each as a column, or None where `ignores`
/// says so of its number and the id.
///
/// # Safety
/// Every element that the array's shape and strides reach is valid for reading.
pub unsafe fn read_classes(
    targets: &Array,
    argument: &'static str,
    ignores: &dyn Fn(usize, i128) -> bool,
    classes: usize,
) -> Result<Vec<Option<usize>>, Error> {
    let mut runs = targets.clone();
    if runs.shape.is_empty() {
        runs.shape.push(1);
        runs.strides.push(0);
    }
    // SAFETY: the caller vouches for the memory, and nothing is written.
    let runs = unsafe { Matrix::new(&runs, runs.shape.len() - 1) };
    let mut columns = error::reserve(runs.rows * runs.columns)?;
    macro_rules! read {
        ($t:ty) => {
            for row in 0..runs.rows {
                for i in 0..runs.columns {
                    let at = runs.row(row).wrapping_offset(i.cast_signed() * runs.column_stride);
                    // SAFETY: within the array, which the caller vouches for, at any alignment.
                    let id = unsafe { at.cast::<$t>().read_unaligned() };
                    let class = i128::from(if targets.swapped { id.swap_bytes() } else { id });
                    columns.push(match usize::try_from(class) {
                        _ if ignores(columns.len(), class) => None,
                        Ok(column) if column < classes => Some(column),
                        _ => {
                            let position = position(columns.len(), &targets.shape);
                            return Err(Error::Class { argument, position, class, classes });
                        }
                    });
                }
            }
        };
    }
    match targets.kind {
        Kind::I8 => read!(i8),
        Kind::I16 => read!(i16),
        Kind::I32 => read!(i32),
        Kind::I64 => read!(i64),
        Kind::U8 => read!(u8),
        Kind::U16 => read!(u16),
        Kind::U32 => read!(u32),
        // No caller passes a floating dtype; as an integer it would be an id out of range.
        _ => read!(u64),
    }
    Ok(columns)
}

/// Where the element with this number stands in an array of this shape.
fn position(number: usize, shape: &[usize]) -> Vec<usize> {
    let mut rest = number;
    let mut position: Vec<usize> = shape
        .iter()
        .rev()
        .map(|length| {
            let index = rest % length;
            rest /= length;
            index
        })
        .collect();
    position.reverse();
    position
}
