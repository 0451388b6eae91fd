//! Products with few rows, limited by reading the other operand: it is read once, where it lies, and not packed.
//!
//! The additions and their order are those of [`Kernels::multiply`](super::Kernels::multiply), and so are the bits. Its
//! loops would have to have the other operand packed, which takes as long as twenty rows' products; turned, so that
//! the few rows are what is packed, they take a cycle for each number of the other operand (0.37 ns, 0.16 here).

use super::pack::{Skip, turn};
use super::{Factor, Part, Strip};
use crate::batch::Matrix;
use crate::simd::{Kernel, MAX_LANES, Simd, Vector};
use std::cell::Cell;
use std::ops::Range;

/// Vectors that hold a number of each of the few rows.
const VECTORS: usize = 2;

/// Rows of the other operand that are read side by side: as many chains of additions keep the arithmetic busy.
const SIDE: usize = 8;

/// The most rows that are few.
pub const fn most_few<T: Factor>() -> usize {
    VECTORS * T::LANES
}

/// How many elements so many of them take when turned.
pub const fn room_few<T: Factor>(rows: usize, depth: usize) -> usize {
    rows.next_multiple_of(T::LANES) * depth
}

impl<T: Factor> Strip<T> {
    /// Turns a part of a matrix of few rows: step by step of the depth.
    pub fn turn_few(&self, part: Part<'_>, to: &mut [T]) {
        turn(room_few::<T>(part.1.len(), 1), self, part, to);
    }

    /// Multiplies one piece, `to[n, m] = sum over k of few[n, k] * from[m, k]` for some rows and columns of `from` and
    /// the columns of `to` of the same number as the rows. Adds to what is there if `add`.
    pub fn multiply_few(&self, part: Part<'_>, few: &[T], to: &Matrix, add: bool) {
        for (slices, part) in self.strips(part, &|_, _| false) {
            let rows = &slices[..part.len()];
            self.level.run(Dots { rows, first: part.start, few, to, add });
        }
    }

    /// Adds to sums (N, M), one row after the other, a piece of a product: `few[n, k] * from[k, m]` for some rows of
    /// `from`. Those that `skip` names are zeros.
    pub fn add_multiples(
        &self,
        from: &Matrix,
        rows: &Range<usize>,
        skip: Skip<'_, T>,
        few: &Matrix,
        sums: &[Cell<T>],
    ) {
        for (slices, part) in self.strips((from, rows, &(0..from.columns())), skip) {
            let (rows, width) = (&slices[..part.len()], from.columns());
            self.level.run(Multiples { rows, first: part.start, few, width, sums });
        }
    }
}

/// Rows as slices and the number of the first, the few rows, and where the products go.
struct Dots<'a, T> {
    rows: &'a [&'a [Cell<T>]],
    first: usize,
    few: &'a [T],
    to: &'a Matrix,
    add: bool,
}

impl<T: Factor> Kernel for Dots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.to.rows() <= T::LANES {
            self.all::<S, 1>(simd)
        } else {
            self.all::<S, VECTORS>(simd)
        }
    }
}

impl<T: Factor> Dots<'_, T> {
    #[inline(always)]
    fn all<S: Simd, const W: usize>(&self, simd: S) {
        for (rows, first) in self.rows.chunks(SIDE).zip((self.first..).step_by(SIDE)) {
            if let Ok(rows) = <[&[Cell<T>]; SIDE]>::try_from(rows) {
                self.some::<S, W, SIDE>(simd, rows, first);
            } else {
                for (i, row) in rows.iter().enumerate() {
                    self.some::<S, W, 1>(simd, [*row], first + i);
                }
            }
        }
    }

    /// Some rows' products with all of the few.
    #[inline(always)]
    fn some<S: Simd, const W: usize, const N: usize>(
        &self,
        simd: S,
        mut rows: [&[Cell<T>]; N],
        first: usize,
    ) {
        let (depth, ahead) = (rows[0].len(), ahead(&rows));
        for row in &mut rows {
            *row = &row[..depth];
        }
        let mut sums = [[T::V::<S>::splat(simd, T::ZERO); W]; N];
        let few = &self.few[..depth * W * T::LANES];
        for start in (0..depth).step_by(T::LANES) {
            for row in rows {
                simd.prefetch(row[start..].as_ptr().wrapping_add(ahead));
            }
            for k in start..(start + T::LANES).min(depth) {
                let few = &few[k * W * T::LANES..][..W * T::LANES];
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let number = T::V::<S>::splat(simd, row[k].get());
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = load(simd, &few[i * T::LANES..][..T::LANES]).mul_add(number, *sum);
                    }
                }
            }
        }
        let mut numbers = [[[T::ZERO; MAX_LANES]; W]; N];
        for (numbers, sums) in numbers.iter_mut().zip(sums) {
            for (numbers, sum) in numbers.iter_mut().zip(sums) {
                *numbers = sum.to_array(T::ZERO);
            }
        }
        for n in 0..self.to.rows() {
            let to = self.to.cells::<T>(n, first..first + N);
            for (to, numbers) in to.iter().zip(&numbers) {
                let number = numbers[n / T::LANES][n % T::LANES];
                to.set(if self.add { to.get() + number } else { number });
            }
        }
    }
}

/// The same rows, what each is multiplied with, in its column of `few`, and what that is added to.
struct Multiples<'a, T> {
    rows: &'a [&'a [Cell<T>]],
    first: usize,
    few: &'a Matrix,
    width: usize,
    sums: &'a [Cell<T>],
}

impl<T: Factor> Kernel for Multiples<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (rows, first) in self.rows.chunks(SIDE).zip((self.first..).step_by(SIDE)) {
            match <[&[Cell<T>]; SIDE]>::try_from(rows) {
                Ok(rows) if !rows.iter().any(|row| row.is_empty()) => self.add(simd, rows, first),
                _ => {
                    for (i, row) in rows.iter().enumerate() {
                        self.add(simd, [*row], first + i);
                    }
                }
            }
        }
    }
}

impl<T: Factor> Multiples<'_, T> {
    /// Adds some rows, one after the other.
    #[inline(always)]
    fn add<S: Simd, const N: usize>(&self, simd: S, rows: [&[Cell<T>]; N], first: usize) {
        let mut times = [[T::ZERO; N]; VECTORS * MAX_LANES];
        for (n, times) in times[..self.few.rows()].iter_mut().enumerate() {
            copy(self.few.cells(n, first..first + N), times);
        }
        let ahead = ahead(&rows);
        let whole = self.width / (2 * T::LANES) * 2 * T::LANES;
        for start in (0..whole).step_by(2 * T::LANES) {
            for row in rows {
                simd.prefetch(row.as_ptr().wrapping_add(start + ahead));
                simd.prefetch(row.as_ptr().wrapping_add(start + T::LANES + ahead));
            }
            self.columns::<S, N, 2>(simd, rows, start, &times);
        }
        for start in (whole..self.width).step_by(T::LANES) {
            self.columns::<S, N, 1>(simd, rows, start, &times);
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const N: usize, const W: usize>(
        &self,
        simd: S,
        rows: [&[Cell<T>]; N],
        start: usize,
        times: &[[T; N]],
    ) {
        let end = (start + W * T::LANES).min(self.width);
        let mut terms = [[T::V::<S>::splat(simd, T::ZERO); W]; N];
        for (terms, row) in terms.iter_mut().zip(rows) {
            for (i, term) in terms.iter_mut().enumerate() {
                if !row.is_empty() {
                    *term = T::load_part(simd, part(&row[start..end], i), T::ZERO);
                }
            }
        }
        for (sums, times) in self.sums.chunks(self.width).zip(times) {
            let sums = &sums[start..end];
            for i in 0..W {
                let mut sum = T::load_part(simd, part(sums, i), T::ZERO);
                for (terms, &times) in terms.iter().zip(times) {
                    sum = terms[i].mul_add(T::V::<S>::splat(simd, times), sum);
                }
                T::store_part(simd, part(sums, i), sum);
            }
        }
    }
}

/// How many elements farther the rows lie that are read after these.
#[inline(always)]
fn ahead<T, const N: usize>(rows: &[&[Cell<T>]; N]) -> usize {
    let step = rows[N - 1].as_ptr().addr().wrapping_sub(rows[0].as_ptr().addr()) / size_of::<T>();
    step / (N - 1).max(1) * N
}

#[inline(always)]
fn copy<T: Copy>(from: &[Cell<T>], to: &mut [T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.get();
    }
}

#[inline(always)]
fn load<S: Simd, T: Factor>(simd: S, from: &[T]) -> T::V<S> {
    assert!(from.len() >= T::LANES);
    // SAFETY: the slice holds a vector.
    unsafe { T::V::<S>::load(simd, from.as_ptr()) }
}

/// The cells of the vector of that number, or as many as there are.
#[inline(always)]
fn part<T: Factor>(cells: &[Cell<T>], number: usize) -> &[Cell<T>] {
    let cells = &cells[(number * T::LANES).min(cells.len())..];
    &cells[..T::LANES.min(cells.len())]
}
