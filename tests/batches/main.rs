//! The sweep over a batch: the same bits however the work is cut up and wherever the arrays lie.
//!
//! What a batch should give is computed once, on one thread, from a contiguous copy that the test reads out of
//! the array element by element. Everything else has to agree with that bit for bit, and to leave alone every
//! byte that is no element of its output.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod arrays;
mod classes;
mod functions;
#[path = "../twin/mod.rs"]
mod twin;
mod values;

use arrays::{FLOATS, INTEGERS, Layout, Place};
use functions::{Function, Way};
use softxent::element::Kind;
use softxent::row::CHUNK;
use softxent::simd::Level;
use softxent::sweep::Thresholds;
use twin::{is_fused, thinned};

const TEMPERATURE: f64 = 0.7;

/// Rows and columns on both sides of the sizes at which the way of working changes.
fn batches() -> Vec<(usize, usize)> {
    let small = [(1, 1), (0, 5), (4, 0), (1, 70), (17, 129), (2000, 5), (40, 3000)];
    let large = [(1, 3 * CHUNK + 77), (3, CHUNK), (3, CHUNK + 1), (5, 2 * CHUNK + 1)];
    small.into_iter().chain(large.into_iter().step_by(thinned(4))).collect()
}

#[test]
fn results_do_not_depend_on_threads_tasks_or_stores() {
    let level = Level::best();
    for kind in FLOATS {
        for (rows, columns) in batches() {
            let logits = Place::of_logits(kind, &Layout::contiguous(&[rows, columns]), 1);
            let out = Place::new(kind, &logits.layout);
            for function in Function::ALL {
                let expected = function.plain_bits(level, &logits, 1);
                for threads in [7, 1, 2, 3, 4, 8].into_iter().step_by(thinned(6)) {
                    for (task, stream) in [(1, 0), (50_000, usize::MAX)] {
                        let thresholds = Thresholds { parallel: 0, stream, task };
                        let way = Way { level, threads, thresholds };
                        let got = function.bits(way, &logits, 1, &out);
                        let about = || format!("{function:?} of {rows} x {columns} {kind:?}");
                        assert!(got == expected, "{}, {way:?}", about());
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_alone_as_in_a_batch() {
    let (rows, columns) = (9, CHUNK / thinned(64) + 300);
    let level = Level::best();
    for kind in FLOATS {
        let logits = Place::of_logits(kind, &Layout::contiguous(&[rows, columns]), 2);
        let numbers = logits.numbers();
        for function in [Function::Softmax, Function::LogSoftmax] {
            let out = Place::new(kind, &logits.layout);
            let batch = function.bits(Way::divided(level, 2), &logits, 1, &out);
            for (row, expected) in numbers.chunks(columns).zip(batch.chunks(columns)) {
                let mut row = row.iter().copied();
                let alone =
                    Place::of(kind, &Layout::contiguous(&[columns]), || row.next().unwrap());
                assert!(function.plain_bits(level, &alone, 0) == expected, "{function:?} {kind:?}");
            }
        }
    }
}

#[test]
fn every_level_with_a_fused_multiply_add_gives_the_same() {
    for kind in FLOATS {
        for (rows, columns) in batches() {
            let logits = Place::of_logits(kind, &Layout::contiguous(&[rows, columns]), 3);
            let levels = || Level::available().into_iter().filter(|level| is_fused(level.name()));
            for function in Function::ALL {
                let results: Vec<_> =
                    levels().map(|level| function.plain_bits(level, &logits, 1)).collect();
                let same = results.iter().all(|result| *result == results[0]);
                assert!(same, "{function:?} of {rows} x {columns} {kind:?}");
            }
        }
    }
}

/// Computes from each layout of logits to each layout of outputs, and in place.
fn check_layouts(
    kind: Kind,
    axis: usize,
    functions: &[Function],
    layouts: &[Layout],
    outputs: &[Layout],
) {
    let out_kind = if kind.is_integer() { Kind::F64 } else { kind };
    let level = Level::best();
    for (seed, layout) in layouts.iter().enumerate() {
        let logits = || Place::of_logits(kind, layout, seed as u64);
        let from = logits();
        for &function in functions {
            let expected = function.plain_bits(level, &from, axis);
            for way in [Way::plain(level), Way::divided(level, 3)] {
                let about = || format!("{function:?} of {kind:?} {layout:?} along {axis}, {way:?}");
                for output in outputs {
                    let out = Place::new(out_kind, output);
                    let got = function.bits(way, &from, axis, &out);
                    assert!(got == expected, "{}, to {output:?}", about());
                    assert!(out.background_is_untouched(), "{}, beside {output:?}", about());
                }
                if from.can_be_output() && kind == out_kind {
                    let place = logits();
                    let got = function.bits(way, &place, axis, &place);
                    assert!(got == expected, "{}, in place", about());
                    assert!(place.background_is_untouched(), "{}, in place", about());
                }
            }
        }
    }
}

#[test]
fn every_layout_gives_what_a_contiguous_copy_gives() {
    let all = &Function::ALL;
    let shape = [4, 5, 37];
    let (layouts, outputs) = (Layout::for_inputs(&shape), Layout::for_outputs(&shape));
    for axis in (0..3).step_by(thinned(2)) {
        for kind in FLOATS.into_iter().step_by(thinned(2)) {
            check_layouts(kind, axis, all, &layouts, &outputs);
        }
        for kind in INTEGERS.into_iter().step_by(thinned(3)) {
            check_layouts(kind, axis, all, &layouts, &outputs[..1]);
        }
    }
    for kind in FLOATS {
        check_layouts(kind, 0, all, &Layout::for_inputs(&[9]), &Layout::for_outputs(&[9]));
    }
}

#[test]
fn rows_that_are_gathered_in_several_chunks_give_what_a_contiguous_copy_gives() {
    let functions = [Function::LogSoftmax, Function::LossAndGradient];
    let few = CHUNK + 5;
    let shapes = [([few, 3], 0), ([few, 20], 0), ([3, 2 * CHUNK + 5], 1)];
    for (shape, axis) in shapes.iter().step_by(thinned(3)) {
        let layouts = [
            Layout::contiguous(shape),
            Layout::transposed(shape),
            Layout::strided(shape, |_, stride| 2 * stride),
        ];
        let outputs = [Layout::contiguous(shape), Layout::strided(shape, |_, stride| -stride)];
        check_layouts(Kind::F32, *axis, &functions, &layouts, &outputs);
    }
}
