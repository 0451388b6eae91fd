//! The values themselves: those of the formula, as exact as the dtypes allow.

use crate::TEMPERATURE;
use crate::arrays::{FLOATS, Layout, Place};
use crate::functions::{Function, Way};
use crate::twin::{Random, bits};
use softxent::batch::{Array, Matrix};
use softxent::compute;
use softxent::element::Kind;
use softxent::simd::Level;
use softxent::sweep::{Input, Run};
use std::cell::Cell;

#[test]
fn an_output_of_another_dtype_is_the_result_rounded_once() {
    let shape = [3, 300];
    for kind in FLOATS {
        let logits = Place::of_logits(kind, &Layout::contiguous(&shape), 4);
        let way = Way::plain(Level::best());
        for function in [Function::Softmax, Function::LogSoftmax] {
            let wide_kind = if kind == Kind::F64 { Kind::F64 } else { Kind::F32 };
            let wide = Place::new(wide_kind, &logits.layout);
            function.bits(way, &logits, 1, &wide);
            let wide = wide.numbers();
            for out_kind in FLOATS {
                let out = Place::new(out_kind, &logits.layout);
                let got = function.bits(way, &logits, 1, &out);
                let mut numbers = wide.iter().copied();
                let rounded = Place::of(out_kind, &logits.layout, || numbers.next().unwrap());
                let expected: Vec<u64> = rounded.numbers().into_iter().map(bits).collect();
                assert!(got == expected, "{function:?} of {kind:?} as {out_kind:?}");
            }
        }
    }
}

#[test]
fn large_integers_are_rounded_to_the_nearest_double() {
    fn lse(kind: Kind, bytes: [u8; 8]) -> f64 {
        let bytes = bytes.map(Cell::new);
        let data = bytes.as_ptr().cast_mut().cast();
        let array = Array { data, kind, swapped: false, shape: vec![1], strides: vec![8] };
        // SAFETY: the array is the eight bytes, which nothing else uses.
        let logits = unsafe { Matrix::new(&array, 0) };
        let Way { level, threads, thresholds } = Way::plain(Level::best());
        let run = Run { level, threads, thresholds, interrupted: &mut || false };
        compute::logsumexp(run, &Input::plain(logits, 1.0)).unwrap()[0]
    }
    assert_eq!(lse(Kind::I64, (i64::MIN + 1).to_ne_bytes()), -9_223_372_036_854_775_808.0);
    assert_eq!(lse(Kind::I64, 9_007_199_254_740_993_i64.to_ne_bytes()), 9_007_199_254_740_992.0);
    assert_eq!(lse(Kind::I64, 9_007_199_254_740_995_i64.to_ne_bytes()), 9_007_199_254_740_996.0);
    assert_eq!(lse(Kind::U64, u64::MAX.to_ne_bytes()), 18_446_744_073_709_551_616.0);
}

#[test]
fn a_confident_row_keeps_the_digits_of_its_small_loss_and_gradient() {
    for kind in FLOATS {
        let logits = Place::of(kind, &Layout::contiguous(&[1, 2]), {
            let mut numbers = [0.0, -28.0].into_iter();
            move || numbers.next().unwrap()
        });
        let out = Place::new(Kind::F64, &logits.layout);
        for level in Level::available() {
            // The class of row 0 is 0; its loss is log1p(exp(-28 / 0.7)).
            let loss = Function::Loss.bits(Way::plain(level), &logits, 1, &out);
            let loss = f64::from_bits(loss[0]);
            assert!((loss / 4.248354255291589e-18 - 1.0).abs() < 1e-6, "{level:?}: {loss}");
        }
    }
}

#[test]
fn results_are_those_of_the_formula() {
    for kind in FLOATS {
        let (rows, columns) = (10, 700);
        let random = &mut Random(5);
        let logits =
            Place::of(kind, &Layout::contiguous(&[rows, columns]), || random.between(-9.0, 9.0));
        let numbers = logits.numbers();
        // Doubles, so that nothing is lost where the result is stored.
        let out = Place::new(Kind::F64, &logits.layout);
        for level in Level::available() {
            let way = Way::plain(level);
            let compute = |function: Function| -> Vec<f64> {
                function.bits(way, &logits, 1, &out).into_iter().map(f64::from_bits).collect()
            };
            let softmax = compute(Function::Softmax);
            let log_softmax = compute(Function::LogSoftmax);
            let lse = compute(Function::LogSumExp);
            let loss = compute(Function::Loss);
            let gradient = compute(Function::LossAndGradient);
            let precision = if kind == Kind::F64 { f64::EPSILON } else { f32::EPSILON.into() };
            let close = |got: f64, expected: f64, scale: f64, what: &str| {
                let near = (got - expected).abs() <= 60.0 * precision * scale;
                assert!(near, "{what} of {kind:?}, {level:?}: {got}, not {expected}");
            };
            let mut total = 0.0;
            for (row, x) in numbers.chunks(columns).enumerate() {
                let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let exps: Vec<f64> = x.iter().map(|x| ((x - max) / TEMPERATURE).exp()).collect();
                // In two stages: a single chain of additions would be off by more than the kernel.
                let sum: f64 = exps.chunks(180).map(|part| part.iter().sum::<f64>()).sum();
                let exact = max / TEMPERATURE + sum.ln();
                close(lse[row], exact, 1.0 + exact.abs(), "lse");
                let class = (row % 5 != 4).then_some(row * 7919 % columns);
                let nll = class.map_or(0.0, |class| exact - x[class] / TEMPERATURE);
                close(loss[row], nll, 1.0 + nll, "loss");
                total += nll;
                for (i, x) in x.iter().enumerate() {
                    let at = row * columns + i;
                    let log_p = x / TEMPERATURE - exact;
                    let p = exps[i] / sum;
                    close(softmax[at], p, p, "softmax");
                    close(log_softmax[at], log_p, 1.0 + log_p.abs(), "log-softmax");
                    let target = f64::from(class == Some(i));
                    let weight = if class.is_some() { row as f64 / 8.0 / 8.0 } else { 0.0 };
                    let expected = (p - target) * weight / TEMPERATURE;
                    close(gradient[1 + at], expected, expected.abs(), "gradient");
                }
            }
            close(gradient[0], total / 8.0, 1.0 + total / 8.0, "mean loss");
        }
    }
}
