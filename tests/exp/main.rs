//! The exponential, the logarithm and the soft cap, on every level that this processor has, against their error bounds.
//!
//! In single precision all 2.2 billion values of the domain are tried on the best level, and every sixteenth on
//! the others, of the exponential and of the logarithm; they are compared with the functions of doubles. In double
//! precision it is some millions of random values and double-double arithmetic. Levels with a fused multiply-add
//! have to give the bits of the twin.
//!
//! `cargo test --test exp -- --nocapture` prints the largest errors found.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod less_one;
mod log;
mod pair;
mod softcap;
#[path = "../twin/mod.rs"]
mod twin;

use pair::Pair;
use softxent::exp::{Base, Exp};
use softxent::simd::{Kernel, Level, Simd, Vector};
use std::f64::consts::{LN_2, LOG2_E};
use std::fmt::{Debug, LowerExp};
use std::iter::{Skip, StepBy};
use std::ops::Range;
use twin::{Random, bits, is_fused, on_every_level, run, thinned, vector};

/// What the exponential promises, in units in the last place.
const BOUND: f64 = 1.5;

/// Temperatures of every size that single precision can divide by.
const TEMPERATURES: [f64; 7] = [1.0, 2e-36, 1e-3, 0.7, 3.0, 1e4, 1e38];

/// One so small that its inverse is infinite in single precision, and one that is infinitely small there.
const TINY: [f64; 2] = [1e-40, 1e-305];

/// Of the numbers that are all tried on the best level, every how manieth is on this one.
fn stride(level: Level) -> u32 {
    if level.name() == Level::best().name() { 1 } else { 16 }
}

/// The exponential of each number, as many as fill whole vectors.
struct Exponentials<'a, T> {
    base: &'a Base<T>,
    d: &'a [T],
}

impl<T: Exp> Kernel for Exponentials<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<T> {
        let powers = self.base.splat(simd);
        let mut results = Vec::with_capacity(self.d.len());
        for d in self.d.chunks_exact(T::LANES) {
            let power = powers.exp(simd, vector(simd, d));
            results.extend_from_slice(&power.to_array(T::MAX)[..T::LANES]);
        }
        results
    }
}

/// Neighbouring singles that share one call of the function of doubles.
const SPAN: u32 = 4096;

/// The largest error in each of sixteen lanes, and the pattern it belongs to, as wide as an error: so the compiler
/// makes vectors of them.
struct Worst([f64; 16], [u64; 16]);

impl Worst {
    fn none() -> Self {
        Self([0.0; 16], [0; 16])
    }

    #[inline(always)]
    fn see(&mut self, lane: usize, error: f64, pattern: u32) {
        let error = if error.is_nan() { f64::INFINITY } else { error };
        if error > self.0[lane] {
            self.0[lane] = error;
            self.1[lane] = u64::from(pattern);
        }
    }

    /// The largest of all, and the number.
    fn total(self) -> (f64, f32) {
        let numbers = self.1.map(|pattern| f32::from_bits(pattern as u32));
        std::iter::zip(self.0, numbers).fold((0.0, 0.0), larger)
    }
}

fn larger(a: (f64, f32), b: (f64, f32)) -> (f64, f32) {
    if b.0 > a.0 { b } else { a }
}

/// The largest error of the single-precision exponential on some blocks of [`SPAN`] patterns, and where it is.
struct WorstError<'a, I> {
    base: &'a Base<f32>,
    blocks: I,
    /// Of a block every how manieth pattern is tried, not the same ones in each.
    stride: u32,
}

impl<I: Iterator<Item = u32>> Kernel for WorstError<'_, I> {
    type Output = (f64, f32);

    /// `exp((d + h) / T) = exp(d / T) exp(h / T)`, where `d` is the middle of the block and `h / T` so small
    /// (below 2^-6) that its first seven powers are right to 2^-54.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (f64, f32) {
        let powers = self.base.splat(simd);
        let inverse = 1.0 / self.base.temperature;
        let mut worst = Worst::none();
        for block in self.blocks {
            let first = block * SPAN;
            let middle = f64::from(f32::from_bits(first + SPAN / 2)) * inverse;
            let exp_of_middle = middle.exp();
            for at in (block % self.stride..SPAN).step_by(16 * self.stride as usize) {
                let patterns: [u32; 16] =
                    std::array::from_fn(|i| first + at + i as u32 * self.stride);
                let d = patterns.map(f32::from_bits);
                let got = powers.exp(simd, vector(simd, &d)).to_array(0.0);
                for i in 0..16 {
                    let h = f64::from(d[i]) * inverse - middle;
                    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
                    let exact = exp_of_middle * series.into_iter().fold(0.0, |sum, c| sum * h + c);
                    worst.see(i, ulps(f64::from(got[i]), exact), patterns[i]);
                }
            }
        }
        worst.total()
    }
}

/// The error of a single in units in the last place of the exact value. Below the smallest normal number, 0 is
/// no error.
#[inline(always)]
fn ulps(got: f64, exact: f64) -> f64 {
    const EXPONENT: u64 = 0x7ff << 52;
    let ulp = f64::from_bits(exact.to_bits() & EXPONENT) * f64::from(f32::EPSILON);
    let smallest = f64::from(f32::from_bits(1));
    let error = (got - exact).abs() / if ulp > smallest { ulp } else { smallest };
    if got == 0.0 && exact.abs() < f64::from(f32::MIN_POSITIVE) { 0.0 } else { error }
}

/// The blocks that hold the numbers from one to another one of the same sign.
fn blocks([from, to]: [f64; 2]) -> Range<u32> {
    let block = |d: f64| (d as f32).clamp(f32::MIN, f32::MAX).to_bits() / SPAN;
    block(from)..block(to) + 1
}

/// The blocks of one thread.
type Share = StepBy<Skip<Range<u32>>>;

/// The largest error that a kernel finds, and where it is, with the blocks shared among all threads. On an emulated
/// processor all of them would take a quarter of an hour: there it is one in 61, a prime, so that no place in a block is
/// left out.
fn worst_of<K: Kernel<Output = (f64, f32)>>(
    level: Level,
    blocks: Range<u32>,
    kernel: impl Fn(Share) -> K + Sync,
) -> (f64, f32) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let sample = thinned(61);
    std::thread::scope(|scope| {
        let (kernel, blocks) = (&kernel, &blocks);
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let share = blocks.clone().skip(thread * sample).step_by(threads * sample);
                scope.spawn(move || run(level, kernel(share)))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).fold((0.0, 0.0), larger)
    })
}

/// The largest error of the single-precision exponential on some numbers, and where it is.
fn worst_error(level: Level, temperature: f64, numbers: [f64; 2], stride: u32) -> (f64, f32) {
    let base = &Base::<f32>::new(temperature);
    worst_of(level, blocks(numbers), |blocks| WorstError { base, blocks, stride })
}

#[test]
fn the_exponential_of_every_single_keeps_its_bound() {
    for level in Level::available() {
        for numbers in [[-0.0, -87.34], [0.0, 1.0], [1.0, 88.0]] {
            let (error, at) = worst_error(level, 1.0, numbers, stride(level));
            println!("exp of singles, {}, {numbers:?}: {error:.4} ulp at {at:e}", level.name());
            assert!(error <= BOUND, "{}: {error} ulp at {at:e}", level.name());
        }
    }
}

#[test]
fn the_exponential_of_singles_keeps_its_bound_at_every_temperature() {
    for temperature in TEMPERATURES {
        for level in Level::available() {
            for numbers in [[-0.0, -87.34 * temperature], [0.0, temperature]] {
                let (error, at) = worst_error(level, temperature, numbers, 256);
                let name = level.name();
                println!("exp of singles / {temperature:e}, {name}: {error:.4} ulp at {at:e}");
                assert!(error <= BOUND, "{name}: {error} ulp at {at:e} / {temperature:e}");
            }
        }
    }
}

/// A number and its bits.
trait Lane: Exp + Debug + LowerExp {
    /// The bits of infinity.
    const INFINITY: u64;
    /// The distance from 1 to the next number.
    const EPSILON: f64;
    /// The bits of the sign.
    const SIGN: u64;
    fn of(pattern: u64) -> Self;
    fn pattern(self) -> u64;
}

macro_rules! lane {
    ($t:ident) => {
        impl Lane for $t {
            const INFINITY: u64 = $t::INFINITY.to_bits() as u64;
            const EPSILON: f64 = $t::EPSILON as f64;
            const SIGN: u64 = (-0.0 as $t).to_bits() as u64;
            fn of(pattern: u64) -> Self {
                $t::from_bits(pattern as _)
            }
            fn pattern(self) -> u64 {
                self.to_bits().into()
            }
        }
    };
}
lane!(f32);
lane!(f64);

/// The largest error of what a level makes of some numbers, and where it is.
fn worst_beside<T: Lane>(x: &[T], got: &[T], exact: &[Pair]) -> (f64, T) {
    let errors = got.iter().zip(exact).map(|(got, exact)| exact.ulps(got.to_f64(), T::EPSILON));
    let errors = errors.map(|error| if error.is_nan() { f64::INFINITY } else { error });
    std::iter::zip(errors, x.iter().copied())
        .fold((0.0, x[0]), |a, b| if b.0 > a.0 { b } else { a })
}

/// Looks at the exponential of each number on every level.
fn check_each<T: Lane>(
    temperature: f64,
    numbers: impl Iterator<Item = T>,
    right: impl Fn(T) -> bool,
) {
    let base = Base::new(temperature);
    let mut numbers = numbers.peekable();
    while numbers.peek().is_some() {
        let mut d: Vec<T> = numbers.by_ref().take(1 << 16).collect();
        d.resize(d.len().next_multiple_of(T::LANES), d[0]);
        for level in Level::available() {
            let powers = run(level, Exponentials { base: &base, d: &d });
            for (d, power) in std::iter::zip(&d, powers) {
                assert!(
                    right(power),
                    "{}: exp({d:e} / {temperature:e}) is {power:e}, from the bits {:#x}",
                    level.name(),
                    d.pattern()
                );
            }
        }
    }
}

/// Where the precision can't hold the inverse of the temperature, differences that are too small to matter are
/// not told apart; but equal logits are equal, and all others infinitely far from each other.
#[test]
fn at_a_tiny_temperature_equal_logits_stay_equal() {
    fn check<T: Lane>(least: f64) {
        let d =
            [0.0, -0.0, least / 1e5, least, -1.0, -T::MAX.to_f64(), f64::NEG_INFINITY, f64::NAN];
        let mut d = d.map(T::from_f64).to_vec();
        d.resize(T::LANES, T::from_f64(0.0));
        for temperature in TINY.into_iter().filter(|t| LOG2_E / t > T::MAX_BASE) {
            let base = Base::new(temperature);
            for (level, powers) in on_every_level(|| Exponentials { base: &base, d: &d }) {
                let powers: Vec<f64> = powers.into_iter().map(T::to_f64).collect();
                assert_eq!(powers[..2], [1.0, 1.0], "{level}: of zeros");
                assert!((0.0..=1.0).contains(&powers[2]), "{level}: {}", powers[2]);
                assert_eq!(powers[3..7], [0.0; 4], "{level}: of differences from {least:e} on");
                assert!(powers[7].is_nan(), "{level}: of NaN");
            }
        }
    }
    check::<f32>(-1e-33);
    check::<f64>(-1e-296);
}

#[test]
fn the_exponential_is_zero_below_the_smallest_normal_number() {
    fn check<T: Lane>(numbers: u64) {
        for temperature in TEMPERATURES.into_iter().chain(TINY) {
            // The second number below the last whose exponent may be rounded up to that of the smallest normal number.
            let effective = temperature.max(LOG2_E / T::MAX_BASE);
            let lowest = (T::MIN_EXPONENT - if T::IN_SIXTEENTHS { 1.0 / 32.0 } else { 0.5 }) * LN_2;
            let cut = T::from_f64((lowest * effective).max(-T::MAX.to_f64()));
            let first = cut.pattern() + 2;
            let beyond = (T::INFINITY | T::SIGN) + 1;
            let stride = ((beyond - first.min(beyond)) / numbers).max(1);
            let patterns = (first..beyond).step_by(stride as usize).chain([beyond - 1]);
            check_each(temperature, patterns.map(T::of), |power| power.pattern() == 0);
        }
    }
    let numbers = (1 << 20) / thinned(256) as u64;
    check::<f32>(numbers);
    check::<f64>(numbers);
}

#[test]
fn the_exponential_of_nan_is_nan_whatever_its_payload() {
    fn check<T: Lane>(payloads: impl Iterator<Item = u64>) {
        let payloads = payloads.chain([1, (T::SIGN - T::INFINITY) / 2, T::SIGN - T::INFINITY - 1]);
        let nans = payloads.flat_map(|x| [T::INFINITY + x, T::SIGN + T::INFINITY + x]);
        check_each(1.0, nans.map(T::of), |power| power.to_f64().is_nan());
    }
    check::<f32>((1..1 << 23).step_by(thinned(1021)));
    let random = &mut Random(1);
    let count = (1 << 20) / thinned(256);
    check::<f64>((0..count).map(|_| 1 + random.bits() % ((1 << 52) - 1)));
}

#[test]
fn the_exponential_has_the_same_bits_on_every_level_with_a_fused_multiply_add() {
    fn check<T: Lane>(numbers: &[T]) {
        for temperature in TEMPERATURES.into_iter().chain(TINY).chain([1e300]) {
            let d: Vec<T> = numbers.iter().map(|d| T::from_f64(d.to_f64() * temperature)).collect();
            let base = Base::new(temperature);
            let results = on_every_level(|| Exponentials { base: &base, d: &d });
            let (_, expected) = results.last().unwrap();
            for (level, got) in results.iter().filter(|(level, _)| is_fused(level)) {
                for i in 0..d.len() {
                    assert!(
                        bits(got[i]) == bits(expected[i]),
                        "{level}: exp({:e} / {temperature:e}) is {:e}, not {:e}",
                        d[i],
                        got[i],
                        expected[i]
                    );
                }
            }
        }
    }
    let count = (1 << 16) / thinned(16);
    let random = &mut Random(2);
    let singles: Vec<f32> = (0..count).map(|_| f32::of(random.bits())).collect();
    check(&singles);
    let singles: Vec<f32> = (0..count).map(|_| random.between(-88.0, 88.0) as f32).collect();
    check(&singles);
    let doubles: Vec<f64> = (0..count).map(|_| f64::of(random.bits())).collect();
    check(&doubles);
    let doubles: Vec<f64> = (0..count).map(|_| random.between(-709.0, 709.0)).collect();
    check(&doubles);
}

#[test]
fn the_exponential_of_doubles_keeps_its_bound_at_every_temperature() {
    let count = (1 << 18) / thinned(64);
    let random = &mut Random(3);
    let mut d: Vec<f64> = (0..count).map(|_| random.between(-708.396, 1.0)).collect();
    d.extend((0..count / 2).map(|_| -random.between(-60.0, 9.0).exp2()));
    d.extend((0..count / 2).map(|_| random.between(0.0, 709.0)));
    for temperature in TEMPERATURES.into_iter().chain([TINY[0]]) {
        let d: Vec<f64> = d.iter().map(|d| d * temperature).collect();
        let exact: Vec<(Pair, i32)> =
            d.iter().map(|&d| Pair(d, 0.0).over(temperature).exp()).collect();
        let base = Base::new(temperature);
        for level in Level::available() {
            let powers = run(level, Exponentials { base: &base, d: &d });
            let mut worst = 0.0;
            for ((power, d), &(exact, n)) in powers.into_iter().zip(&d).zip(&exact) {
                // In two steps, since 2^1023 is the last power of two.
                let power = power * 2f64.powi(-n / 2) * 2f64.powi(-n - -n / 2);
                let ulp = if exact.0 < 1.0 { f64::EPSILON / 2.0 } else { f64::EPSILON };
                let error = ((power - exact.0) - exact.1).abs() / ulp;
                let unfused = if is_fused(level.name()) { 0.0 } else { d.abs() / temperature };
                assert!(
                    error <= BOUND + unfused,
                    "{}: {error} ulp at {d:e} / {temperature:e}",
                    level.name()
                );
                worst = error.max(worst);
            }
            println!("exp of doubles / {temperature:e}, {}: {worst:.4} ulp", level.name());
        }
    }
}
