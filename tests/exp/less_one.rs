//! The exponential less 1, of what is not positive: against double-double arithmetic within its bounds, and in literals
//! what becomes of 0, of what is far below, and of NaN.
//!
//! `cargo test --test exp less_one -- --nocapture` prints the largest errors found.

use crate::pair::Pair;
use crate::twin::{Random, bits, is_fused, on_every_level, run, thinned, vector};
use crate::{Lane, TEMPERATURES, TINY, worst_beside};
use softxent::exp::Base;
use softxent::simd::{Kernel, Level, Simd, Vector};
use std::f64::consts::{LN_2, LOG2_E};

/// What it promises, in units in the last place.
const BOUND: f64 = 3.0;

/// The exponential less 1 of each number, as many as fill whole vectors.
struct LessOne<'a, T> {
    base: &'a Base<T>,
    d: &'a [T],
}

impl<T: Lane> Kernel for LessOne<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<T> {
        let powers = self.base.splat(simd);
        let mut results = Vec::with_capacity(self.d.len());
        for d in self.d.chunks_exact(T::LANES) {
            let less_one = powers.exp_m1(simd, vector(simd, d));
            results.extend_from_slice(&less_one.to_array(T::MAX)[..T::LANES]);
        }
        results
    }
}

/// Negative numbers of every size down to where the exponential is no normal number, times a temperature.
fn numbers<T: Lane>(temperature: f64) -> Vec<T> {
    let random = &mut Random(1);
    let count = (1 << 16) / thinned(64);
    let lowest = (T::MIN_EXPONENT + 0.01) * LN_2;
    let mut quotients: Vec<f64> = (0..count).map(|_| random.between(lowest, 0.0)).collect();
    quotients.extend((0..2 * count).map(|_| random.between(-3.0, 0.0)));
    quotients.extend((0..count).map(|_| -random.between(-100.0, 0.0).exp2()));
    let numbers = quotients.into_iter().map(|quotient| T::from_f64(quotient * temperature));
    // Subnormal numbers lose digits with the low part of the base.
    let least = T::MIN_EXPONENT.exp2();
    let finite = |d: &T| (-T::MAX.to_f64()..-least).contains(&d.to_f64());
    let mut numbers: Vec<T> = numbers.filter(finite).collect();
    numbers.truncate(numbers.len() / T::LANES * T::LANES);
    numbers
}

#[test]
fn the_exponential_less_1_keeps_its_bound_at_every_temperature() {
    fn check<T: Lane>(name: &str) {
        for temperature in TEMPERATURES {
            let d = numbers::<T>(temperature);
            let quotients = d.iter().map(|d| Pair(d.to_f64(), 0.0).over(temperature));
            let exact: Vec<Pair> = quotients.map(Pair::exp_m1).collect();
            let base = Base::new(temperature);
            for level in Level::available() {
                let got = run(level, LessOne { base: &base, d: &d });
                let (error, at) = worst_beside(&d, &got, &exact);
                let level = level.name();
                println!("exp of {name} / {temperature:e} - 1, {level}: {error:.4} ulp at {at:e}");
                assert!(error <= BOUND, "{level}: {error} ulp at {at:e} / {temperature:e}");
            }
        }
    }
    check::<f32>("singles");
    check::<f64>("doubles");
}

#[test]
fn it_is_minus_1_wherever_the_exponential_is_no_normal_number() {
    fn check<T: Lane>() {
        let count = (1 << 16) / thinned(256);
        for temperature in TEMPERATURES.into_iter().chain(TINY) {
            // The second number below the last whose exponent may be rounded up to that of the smallest normal number.
            let effective = temperature.max(LOG2_E / T::MAX_BASE);
            let lowest = (T::MIN_EXPONENT - 0.5) * LN_2;
            let cut = T::from_f64((lowest * effective).max(-T::MAX.to_f64()));
            let (first, last) = (cut.pattern() + 2, T::INFINITY | T::SIGN);
            let stride = ((last - first.min(last)) / count as u64).max(1);
            let patterns = (first..last).step_by(stride as usize).chain([last]);
            let mut d: Vec<T> = patterns.map(T::of).collect();
            d.resize(d.len().next_multiple_of(T::LANES), T::NEG_INFINITY);
            let base = Base::new(temperature);
            for (level, got) in on_every_level(|| LessOne { base: &base, d: &d }) {
                for (d, got) in d.iter().zip(got) {
                    assert!(got.to_f64() == -1.0, "{level}: of {d:e} / {temperature:e}: {got:e}");
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn it_is_0_of_0_and_nan_of_any_nan() {
    fn check<T: Lane>() {
        let last_payload = T::SIGN - T::INFINITY - 1;
        let payloads = [1, last_payload / 2, last_payload / 2 + 1, last_payload];
        let nans = payloads.map(|payload| T::of(T::INFINITY + payload));
        let negative = nans.map(|nan| T::of(nan.pattern() | T::SIGN));
        for temperature in TEMPERATURES.into_iter().chain(TINY) {
            let base = Base::new(temperature);
            for lane in 0..T::LANES {
                let zeros = [0.0, -0.0].map(T::from_f64);
                for number in zeros.into_iter().chain(nans).chain(negative) {
                    let mut d = vec![T::NEG_INFINITY; T::LANES];
                    d[lane] = number;
                    for (level, got) in on_every_level(|| LessOne { base: &base, d: &d }) {
                        for (i, &got) in got.iter().enumerate() {
                            let right = match number.to_f64() {
                                _ if i != lane => got.to_f64() == -1.0,
                                number if number.is_nan() => got.to_f64().is_nan(),
                                _ => got.to_f64() == 0.0,
                            };
                            assert!(right, "{level}: {number:e} in lane {lane}: {got:e} in {i}");
                        }
                    }
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn it_has_the_same_bits_on_every_level_with_a_fused_multiply_add() {
    fn check<T: Lane>() {
        for temperature in TEMPERATURES.into_iter().chain(TINY).chain([1e300]) {
            let mut d = numbers::<T>(temperature);
            let random = &mut Random(2);
            let count = (1 << 12) / thinned(16);
            d.extend((0..count).map(|_| T::of(random.bits() | T::SIGN)));
            let base = Base::new(temperature);
            let results = on_every_level(|| LessOne { base: &base, d: &d });
            let (_, expected) = results.last().unwrap();
            for (level, got) in results.iter().filter(|(level, _)| is_fused(level)) {
                for i in 0..d.len() {
                    let about = format_args!("{level}: {:e} / {temperature:e}", d[i]);
                    assert_eq!(bits(got[i]), bits(expected[i]), "{about}");
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}
