//! The logarithm: every positive single against the one of doubles, doubles against double-double arithmetic, and in
//! literals what becomes of 0, negative numbers, infinities and NaN.
//!
//! `cargo test --test exp log -- --nocapture` prints the largest errors found.

use crate::pair::Pair;
use crate::twin::{Random, bits, is_fused, on_every_level, run, thinned, vector};
use crate::{Lane, SPAN, Worst, stride, ulps, worst_beside, worst_of};
use softxent::log::{log, log_of};
use softxent::simd::{Kernel, Level, Simd, Vector};
use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

/// What the logarithm promises, in units in the last place.
const BOUND: f64 = 1.5;

/// The logarithm of each number, as many as fill whole vectors.
struct Logarithms<'a, T>(&'a [T]);

impl<T: Lane> Kernel for Logarithms<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<T> {
        let mut results = Vec::with_capacity(self.0.len());
        for x in self.0.chunks_exact(T::LANES) {
            let of_x = log(simd, vector::<S, T::V<S>>(simd, x));
            results.extend_from_slice(&of_x.to_array(T::MAX)[..T::LANES]);
        }
        results
    }
}

/// The logarithm of each number whose distance from 1 is given too.
struct WithDistance<'a, T> {
    y: &'a [T],
    u: &'a [T],
}

impl<T: Lane> Kernel for WithDistance<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<T> {
        let mut results = Vec::with_capacity(self.y.len());
        for (y, u) in self.y.chunks_exact(T::LANES).zip(self.u.chunks_exact(T::LANES)) {
            let of_y = log_of(simd, vector::<S, T::V<S>>(simd, y), vector(simd, u));
            results.extend_from_slice(&of_y.to_array(T::MAX)[..T::LANES]);
        }
        results
    }
}

/// The largest error of the single-precision logarithm on some blocks of [`SPAN`] patterns of normal numbers.
struct WorstLogarithm<I> {
    blocks: I,
    /// Of a block every how manieth pattern is tried, not the same ones in each.
    stride: u32,
}

impl<I: Iterator<Item = u32>> Kernel for WorstLogarithm<I> {
    type Output = (f64, f32);

    /// `log(m (1 + h)) = log m + log(1 + h)`, where m is the middle of the block and h so small (at most 2^-12) that
    /// the first five powers are right to 2^-74.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (f64, f32) {
        let mut worst = Worst::none();
        for block in self.blocks {
            let first = block * SPAN;
            let middle = f64::from(f32::from_bits(first + SPAN / 2));
            let (inverse, log_of_middle) = (1.0 / middle, middle.ln());
            for at in (block % self.stride..SPAN).step_by(16 * self.stride as usize) {
                let patterns: [u32; 16] =
                    std::array::from_fn(|i| first + at + i as u32 * self.stride);
                let x = patterns.map(f32::from_bits);
                let got = log(simd, vector::<S, S::F32>(simd, &x)).to_array(0.0);
                for i in 0..16 {
                    let h = (f64::from(x[i]) - middle) * inverse;
                    let series = [1.0 / 5.0, -1.0 / 4.0, 1.0 / 3.0, -1.0 / 2.0, 1.0];
                    let series = series.into_iter().fold(0.0, |sum, c| sum * h + c);
                    let exact = log_of_middle + series * h;
                    let exact = if x[i] == 1.0 { 0.0 } else { exact };
                    worst.see(i, ulps(f64::from(got[i]), exact), patterns[i]);
                }
            }
        }
        worst.total()
    }
}

#[test]
fn the_logarithm_of_every_positive_normal_single_keeps_its_bound() {
    let blocks = f32::MIN_POSITIVE.to_bits() / SPAN..f32::INFINITY.to_bits() / SPAN;
    for level in Level::available() {
        let stride = stride(level);
        let (error, at) =
            worst_of(level, blocks.clone(), |blocks| WorstLogarithm { blocks, stride });
        println!("log of singles, {}: {error:.4} ulp at {at:e}", level.name());
        assert!(error <= BOUND, "{}: {error} ulp at {at:e}", level.name());
    }
}

#[test]
fn the_logarithm_of_every_subnormal_single_keeps_its_bound() {
    let patterns = (1..f32::MIN_POSITIVE.to_bits()).step_by(thinned(256));
    let mut x: Vec<f32> = patterns.map(f32::from_bits).collect();
    x.resize(x.len().next_multiple_of(16), 1e-40);
    let exact: Vec<f64> = x.iter().map(|&x| f64::from(x).ln()).collect();
    for level in Level::available() {
        let mut worst = Worst::none();
        for (i, got) in run(level, Logarithms(&x)).into_iter().enumerate() {
            worst.see(i % 16, ulps(f64::from(got), exact[i]), x[i].to_bits());
        }
        let (error, at) = worst.total();
        println!("log of subnormal singles, {}: {error:.4} ulp at {at:e}", level.name());
        assert!(error <= BOUND, "{}: {error} ulp at {at:e}", level.name());
    }
}

#[test]
fn the_logarithm_of_doubles_keeps_its_bound() {
    let random = &mut Random(1);
    let count = (1 << 18) / thinned(64);
    let mut x: Vec<f64> = (0..count).map(|_| random.between(-1074.0, 1024.0).exp2()).collect();
    x.extend((0..count).map(|_| random.between(0.25, 4.0)));
    x.extend((0..count / 4).map(|_| 1.0 + random.between(-1e-9, 1e-9)));
    x.extend([f64::MAX, f64::MIN_POSITIVE, f64::MIN_POSITIVE.next_down(), f64::from_bits(1)]);
    x.extend([SQRT_2, FRAC_1_SQRT_2].into_iter().flat_map(|x| [x.next_down(), x, x.next_up()]));
    x.extend([1.0_f64.next_down(), 1.0_f64.next_up(), 2.0, 0.5]);
    x.retain(|&x| x != 1.0);
    x.resize(x.len().next_multiple_of(8), 3.0);
    let exact: Vec<Pair> = x.iter().map(|&x| Pair::log(x)).collect();
    for level in Level::available() {
        let (error, at) = worst_beside(&x, &run(level, Logarithms(&x)), &exact);
        println!("log of doubles, {}: {error:.4} ulp at {at:e}", level.name());
        assert!(error <= BOUND, "{}: {error} ulp at {at:e}", level.name());
    }
}

/// Distances from 1, most of them small ones of any size, of either sign.
fn distances<T: Lane>() -> Vec<T> {
    let random = &mut Random(2);
    let count = (1 << 16) / thinned(16);
    let smallest = T::MIN_EXPONENT + 1.0;
    let mut u: Vec<f64> = (0..count).map(|_| random.between(smallest, -1.0).exp2()).collect();
    u.extend((0..count).map(|_| random.between(-40.0, -1.3).exp2()));
    let negative: Vec<f64> = u.iter().map(|u| -u).collect();
    u.extend(negative);
    u.extend((0..4 * count).map(|_| random.between(-0.999, 9.0)));
    u.into_iter().map(T::from_f64).collect()
}

#[test]
fn the_logarithm_of_a_number_whose_distance_from_1_is_known_has_its_digits() {
    fn check<T: Lane>(name: &str) {
        let u = distances::<T>();
        let y: Vec<T> = u.iter().map(|u| T::from_f64(1.0 + u.to_f64())).collect();
        let (low, high) = (T::from_f64(FRAC_1_SQRT_2), T::from_f64(SQRT_2));
        let exact = y.iter().zip(&u).map(|(&y, u)| {
            let near = (low..high).contains(&y);
            if near { Pair::log_1p(u.to_f64()) } else { Pair::log(y.to_f64()) }
        });
        let exact: Vec<Pair> = exact.collect();
        for level in Level::available() {
            let got = run(level, WithDistance { y: &y, u: &u });
            let (error, at) = worst_beside(&u, &got, &exact);
            println!("log of 1 + {name}, {}: {error:.4} ulp at {at:e}", level.name());
            assert!(error <= BOUND, "{}: {error} ulp at {at:e}", level.name());
        }
    }
    check::<f32>("singles");
    check::<f64>("doubles");
}

#[test]
fn a_distance_next_to_nothing_is_its_own_logarithm() {
    fn check<T: Lane>() {
        let y = vec![T::ONE; T::LANES];
        for u in [0.0, 1e-30, 1e-37, T::MIN_EXPONENT.exp2(), T::of(12345).to_f64()] {
            for u in [u, -u] {
                let u = vec![T::from_f64(u); T::LANES];
                for (level, got) in on_every_level(|| WithDistance { y: &y, u: &u }) {
                    assert!(got == u, "{level}: {:e} becomes {:e}", u[0], got[0]);
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn what_has_no_logarithm_and_what_has_none_that_is_finite() {
    fn check<T: Lane>() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        let smallest = T::of(1).to_f64();
        for (x, expected) in [
            (0.0, -inf),
            (-0.0, -inf),
            (1.0, 0.0),
            (inf, inf),
            (-smallest, nan),
            (-1.0, nan),
            (-T::MAX.to_f64(), nan),
            (-inf, nan),
            (nan, nan),
            (-nan, nan),
            (smallest, smallest.ln()),
        ] {
            for lane in 0..T::LANES {
                let mut numbers = vec![T::from_f64(0.5); T::LANES];
                numbers[lane] = T::from_f64(x);
                for (level, got) in on_every_level(|| Logarithms(&numbers)) {
                    for (i, &got) in got.iter().enumerate() {
                        let expected = if i == lane { expected } else { 0.5_f64.ln() };
                        let expected = bits(T::from_f64(expected));
                        assert_eq!(bits(got), expected, "{level}: of {x:e} in lane {lane}");
                    }
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn the_logarithm_has_the_same_bits_on_every_level_with_a_fused_multiply_add() {
    fn check<T: Lane>() {
        let random = &mut Random(3);
        let count = (1 << 16) / thinned(16);
        let mut x: Vec<T> = (0..count).map(|_| T::of(random.bits())).collect();
        x.extend((0..count).map(|_| T::of(random.bits() & !T::SIGN)));
        x.extend((0..count).map(|_| T::from_f64(random.between(0.0, 4.0))));
        let u = distances::<T>();
        let y: Vec<T> = u.iter().map(|u| T::from_f64(1.0 + u.to_f64())).collect();
        let of_x = on_every_level(|| Logarithms(&x));
        let of_y = on_every_level(|| WithDistance { y: &y, u: &u });
        for (results, numbers) in [(of_x, &x), (of_y, &u)] {
            let (_, expected) = results.last().unwrap();
            for (level, got) in results.iter().filter(|(level, _)| is_fused(level)) {
                for i in 0..numbers.len() {
                    assert_eq!(bits(got[i]), bits(expected[i]), "{level}: {:e}", numbers[i]);
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}
