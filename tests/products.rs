//! Products of matrices: right on every level, and the same bits wherever blocks are cut.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use softxent::batch::{Array, Matrix};
use softxent::element::{Element, Kind, Stored};
use softxent::error::Error;
use softxent::product::{Factor, Right, Sheet, Strip, To, most_few, pieces, room_few};
use softxent::simd::{Level, Number};
use std::cell::Cell;
use std::ops::Range;

/// A matrix of a dtype, and the vector that holds it.
fn matrix<E: Element>(rows: usize, columns: usize, seed: u64) -> (Vec<E>, Matrix) {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Multiples of 1/64 within +-1: every dtype holds them.
        E::from_f64(((state >> 33) % 129) as f64 / 64.0 - 1.0)
    };
    let values: Vec<E> = (0..rows * columns).map(|_| next()).collect();
    let view = view(&values, rows, columns);
    (values, view)
}

fn view<E: Stored>(values: &[E], rows: usize, columns: usize) -> Matrix {
    let size = size_of::<E>().cast_signed();
    let array = Array {
        data: values.as_ptr().cast_mut().cast(),
        kind: E::KIND,
        swapped: false,
        shape: vec![rows, columns],
        strides: vec![columns.cast_signed() * size, size],
    };
    // SAFETY: the vector has that many elements, and every test keeps it beside the view.
    unsafe { Matrix::new(&array, 1) }
}

/// How a right operand is read.
#[derive(Clone, Copy, PartialEq)]
enum Reading {
    /// (N, K), where it lies.
    InRows,
    /// (K, N), packed.
    Packed,
}

/// What is multiplied with what: `[n, m] = sum over k of right[n, k] * left[k, m]`.
struct Operands<'a> {
    /// (K, M), or if `turned` (M, K).
    left: &'a Matrix,
    turned: bool,
    right: &'a Matrix,
    reading: Reading,
}

/// The product, in blocks of so many rows and columns, by the loops of a level.
fn product<T: Factor>(
    level: Level,
    operands: &Operands<'_>,
    (n, m, k): (usize, usize, usize),
    block: (usize, usize),
) -> Vec<f64> {
    let kernels = T::kernels(level);
    let strip = Strip::<T>::new(level, m.max(k).max(n), [operands.left, operands.right]).unwrap();
    let sheet = Sheet::new::<T>(n, m).unwrap();
    let to = sheet.rows(n);
    let cut = |length: usize, block: usize| -> Vec<Range<usize>> {
        (0..length).step_by(block).map(|start| start..(start + block).min(length)).collect()
    };
    for columns in cut(m, block.1) {
        for rows in cut(n, block.0) {
            for piece in pieces::<T>(0..k) {
                let depth = piece.len();
                let mut left = vec![T::from_f64(1.0); kernels.room(columns.len(), depth)];
                if operands.turned {
                    kernels.turn_left(&strip, (operands.left, &columns, &piece), &mut left);
                } else {
                    let from = (operands.left, &piece, &columns);
                    kernels.pack_left(&strip, from, &|_, _| false, &mut left);
                }
                let mut packed = vec![T::from_f64(1.0); kernels.room_right(rows.len(), depth)];
                let right = match operands.reading {
                    Reading::InRows => Right::Rows(operands.right, rows.start, piece.start),
                    Reading::Packed => {
                        kernels.pack_right(&strip, (operands.right, &piece, &rows), &mut packed);
                        Right::Packed(&packed)
                    }
                };
                let to = To { matrix: &to, rows: rows.clone(), columns: columns.clone() };
                kernels.multiply(depth, &left, right, to, piece.start > 0);
            }
        }
    }
    (0..n * m).map(|i| to.get(i / m, i % m)).collect()
}

const SIZES: [(usize, usize, usize); 7] = [
    (1, 1, 1),
    (1, 70, 3),
    (7, 16, 17),
    (13, 65, 40),
    (6, 64, 512),
    (20, 33, 1100),
    (25, 130, 700),
];

/// On every level, of every way of packing, beside the sum in doubles.
fn products_are_right<T: Factor, L: Element, R: Element>(tolerance: f64) {
    for (n, m, k) in SIZES {
        for (turned, reading) in
            [(false, Reading::InRows), (true, Reading::InRows), (true, Reading::Packed)]
        {
            let packed = reading == Reading::Packed;
            let (left, of_left) = if turned { matrix::<L>(m, k, 1) } else { matrix::<L>(k, m, 1) };
            let (right, of_right) =
                if packed { matrix::<R>(k, n, 2) } else { matrix::<R>(n, k, 2) };
            let operands = Operands { left: &of_left, turned, right: &of_right, reading };
            let at = |j: usize, i: usize, t: usize| {
                let a = left[if turned { i * k + t } else { t * m + i }].widen().to_f64();
                let b = right[if packed { t * n + j } else { j * k + t }].widen().to_f64();
                a * b
            };
            for level in Level::available() {
                let got = product::<T>(level, &operands, (n, m, k), (n, m));
                for (i, got) in got.iter().enumerate() {
                    let expected: f64 = (0..k).map(|t| at(i / m, i % m, t)).sum();
                    let error = (got - expected).abs();
                    assert!(error <= tolerance, "{level:?} {n} x {m} x {k} at {i}: {error}");
                }
                let cut = product::<T>(level, &operands, (n, m, k), (5, 48));
                assert_eq!(got, cut, "blocks change bits on {level:?}");
            }
            drop((left, right));
        }
    }
}

#[test]
fn products_of_singles_are_right_and_the_same_however_they_are_cut() {
    products_are_right::<f32, f32, f32>(1e-4);
}

#[test]
fn products_of_doubles_are_right_and_the_same_however_they_are_cut() {
    products_are_right::<f64, f64, f64>(1e-13);
}

/// Both products of few rows, beside those of packed operands.
fn few_rows_change_no_bit<T: Factor, L: Element>() {
    for (n, m, k) in [(1, 1, 1), (2, 70, 3), (7, 16, 17), (9, 65, 530), (16, 40, 520)] {
        for n in [n, n + most_few::<T>() - 16] {
            let (_few, few) = matrix::<T>(n, k, 2);
            let (_rows, rows) = matrix::<L>(m, k, 1);
            let (_steps, steps) = matrix::<L>(k, m, 1);
            let of = |left: &Matrix, turned, level| {
                let operands = Operands { left, turned, right: &few, reading: Reading::InRows };
                product::<T>(level, &operands, (n, m, k), (n, m))
            };
            let values =
                |to: &Matrix| -> Vec<f64> { (0..n * m).map(|i| to.get(i / m, i % m)).collect() };
            for level in Level::available() {
                let strip = Strip::<T>::new(level, m.max(k), [&rows, &steps]).unwrap();
                let sheet = Sheet::new::<T>(n, m).unwrap();
                let to = sheet.rows(n);
                for piece in pieces::<T>(0..k) {
                    let mut turned = vec![T::from_f64(1.0); room_few::<T>(n, piece.len())];
                    strip.turn_few((&few, &(0..n), &piece), &mut turned);
                    for part in [0..m / 2, m / 2..m] {
                        let add = piece.start > 0;
                        strip.multiply_few((&rows, &part, &piece), &turned, &to, add);
                    }
                }
                assert_eq!(values(&to), of(&rows, true, level), "{level:?} {n} x {m} x {k}");

                let piece = pieces::<T>(0..k).next().unwrap();
                let sums = vec![Cell::new(T::ZERO); n * m];
                strip.add_multiples(&steps, &piece, &|_, _| false, &few, &sums);
                let left: Vec<L> =
                    (0..piece.len() * m).map(|i| L::from_f64(steps.get(i / m, i % m))).collect();
                let right: Vec<T> = (0..n * piece.len())
                    .map(|i| T::from_f64(few.get(i / piece.len(), i % piece.len())))
                    .collect();
                let (of_left, of_right) =
                    (view(&left, piece.len(), m), view(&right, n, piece.len()));
                let reading = Reading::InRows;
                let operands =
                    Operands { left: &of_left, turned: false, right: &of_right, reading };
                let expected = product::<T>(level, &operands, (n, m, piece.len()), (n, m));
                let sums: Vec<f64> = sums.iter().map(|sum| sum.get().to_f64()).collect();
                assert_eq!(sums, expected, "{level:?} {n} x {m} x {k}");
            }
        }
    }
}

#[test]
fn few_rows_have_the_bits_of_many() {
    few_rows_change_no_bit::<f32, f32>();
    few_rows_change_no_bit::<f32, half::bf16>();
    few_rows_change_no_bit::<f64, f64>();
}

#[test]
fn what_is_left_out_of_few_rows_may_hold_anything() {
    let (_few, few) = matrix::<f32>(3, 20, 2);
    let (mut values, _) = matrix::<f32>(20, 37, 1);
    for level in Level::available() {
        let with = |value: f32, values: &mut [f32]| {
            values[5 * 37..6 * 37].fill(value);
            let strip = Strip::<f32>::new(level, 37, []).unwrap();
            let sums = vec![Cell::new(0.0); 3 * 37];
            let from = view(values, 20, 37);
            strip.add_multiples(&from, &(0..20), &|row, _| row == 5, &few, &sums);
            sums
        };
        assert_eq!(with(0.0, &mut values), with(f32::NAN, &mut values));
    }
}

#[test]
fn sixteen_bits_are_widened_on_the_way() {
    // Products of multiples of 1/64 within +-1 are multiples of 1/4096 within 1: their sums are exact in singles.
    use half::{bf16, f16};
    let (_, of_right) = matrix::<f32>(9, 300, 2);
    let size = (9, 70, 300);
    for turned in [false, true] {
        let (rows, columns) = if turned { (70, 300) } else { (300, 70) };
        let (_single, single) = matrix::<f32>(rows, columns, 1);
        let (_half, half) = matrix::<f16>(rows, columns, 1);
        let (_brain, brain) = matrix::<bf16>(rows, columns, 1);
        for level in Level::available() {
            let of = |left: &Matrix| {
                let operands =
                    Operands { left, turned, right: &of_right, reading: Reading::InRows };
                product::<f32>(level, &operands, size, (9, 70))
            };
            assert_eq!(of(&half), of(&single));
            assert_eq!(of(&brain), of(&single));
        }
    }
}

#[test]
fn levels_with_a_fused_multiply_add_give_the_same_bits() {
    let (_left, of_left) = matrix::<f32>(700, 130, 1);
    let (_right, of_right) = matrix::<f32>(25, 700, 2);
    let operands =
        Operands { left: &of_left, turned: false, right: &of_right, reading: Reading::InRows };
    let fused = Level::available().into_iter().filter(|level| level.name() != "portable");
    let all: Vec<Vec<f64>> =
        fused.map(|level| product::<f32>(level, &operands, (25, 130, 700), (25, 130))).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn pieces_are_of_one_length_and_short() {
    for depth in [0, 1, 511, 512, 513, 768, 1024, 2047, 4097] {
        let all: Vec<Range<usize>> = pieces::<f32>(7..7 + depth).collect();
        assert_eq!(all.iter().map(Range::len).sum::<usize>(), depth);
        assert!(all.iter().all(|piece| piece.len() <= 512));
        assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(all.iter().rev().skip(1).all(|piece| piece.len() == all[0].len()));
    }
    assert_eq!(pieces::<f64>(0..768).count(), 3);
}

#[test]
fn rows_of_a_sheet_begin_on_lines_and_never_on_the_same_place_of_a_page() {
    for columns in [1, 16, 1000, 1024, 50_257, 131_072] {
        let stride = Sheet::stride::<f32>(columns).unwrap();
        assert!(stride >= columns * 4 && stride.is_multiple_of(64) && !stride.is_multiple_of(4096));
    }
    assert_eq!(Sheet::new::<f64>(3, 5).unwrap().rows(2).kind(), Kind::F64);
    for columns in [usize::MAX, usize::MAX / 4, (usize::MAX - 32) / 4, usize::MAX / 4096] {
        assert!(matches!(Sheet::new::<f32>(4096, columns), Err(Error::Memory(_))));
    }
}
