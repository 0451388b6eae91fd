//! The vocabulary of the kernels, on every level that this processor has, against the twin: bit for bit.
//!
//! What is easily got wrong is told in literals besides: NaN and signed zeros in maxima, quotients and selections,
//! in every lane; masks of every pattern; where 16-bit floats round; memory at any address and what lies around it.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod halves;
mod keep;
mod memory;
#[path = "../twin/mod.rs"]
mod twin;

use softxent::exp::Exp;
use softxent::simd::{Float, Kernel, Level, MAX_LANES, Simd, Vector};
use std::fmt::Debug;
use twin::{Random, bits, is_fused, on_every_level, thinned, vector};

/// A lane's type and its bit patterns.
trait Lane: Exp + Debug {
    fn of(pattern: u64) -> Self;
    fn pattern(self) -> u64;
    /// Numbers at which something is special, as many as are coprime to the number of lanes.
    fn special() -> Vec<Self>;
}

macro_rules! lane {
    ($t:ident) => {
        impl Lane for $t {
            fn of(pattern: u64) -> Self {
                $t::from_bits(pattern as _)
            }
            fn pattern(self) -> u64 {
                self.to_bits().into()
            }
            fn special() -> Vec<Self> {
                let signaling_nan = $t::from_bits($t::INFINITY.to_bits() + 1);
                let largest_subnormal = $t::MIN_POSITIVE.next_down();
                let positive = [
                    $t::NAN,
                    signaling_nan,
                    $t::INFINITY,
                    $t::MAX,
                    Self::ROUND,
                    Self::FINE_ROUND,
                    88.7,
                    1.0 + $t::EPSILON,
                    $t::MIN_POSITIVE,
                    largest_subnormal,
                    $t::from_bits(1),
                    0.0,
                ];
                positive.into_iter().chain(positive.map(|x| -x)).chain([1.0]).collect()
            }
        }
    };
}
lane!(f32);
lane!(f64);

#[test]
fn every_level_that_the_processor_has_is_available() {
    let names: Vec<&str> = Level::available().into_iter().map(Level::name).collect();
    let mut expected = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("popcnt");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        expected.extend(avx512.then_some("avx512"));
        expected.extend(avx2.then_some("avx2"));
    }
    #[cfg(target_arch = "aarch64")]
    expected.push("neon");
    expected.push("portable");
    assert_eq!(names, expected);
    assert_eq!(Level::best().name(), expected[0]);
}

#[test]
fn a_level_is_found_by_its_name_and_nothing_else_is() {
    for level in Level::available() {
        assert_eq!(Level::named(level.name()).unwrap().name(), level.name());
    }
    for name in ["", "AVX2", "sse9", "portable "] {
        let error = Level::named(name).unwrap_err();
        assert_eq!(error.name, name);
        assert_eq!(error.available.last(), Some(&"portable"));
    }
}

/// A verb that maps lanes to lanes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verb {
    Add,
    Sub,
    Mul,
    Div,
    MulAdd,
    Max,
    ZeroWhereLess,
    /// With the second operand as the other.
    OrWhereLess,
    LowBitsToExponent,
    LowBitsToPower,
    OrDifference,
    ExponentField,
    Significand,
}

impl Verb {
    const ALL: [Self; 13] = [
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::Div,
        Self::MulAdd,
        Self::Max,
        Self::ZeroWhereLess,
        Self::OrWhereLess,
        Self::LowBitsToExponent,
        Self::LowBitsToPower,
        Self::OrDifference,
        Self::ExponentField,
        Self::Significand,
    ];

    /// Whether it makes numbers, and so may make any NaN of one that it gets.
    fn is_arithmetic(self) -> bool {
        matches!(self, Self::Add | Self::Sub | Self::Mul | Self::Div | Self::MulAdd)
    }
}

/// Applies a verb to whole slices, a vector at a time.
struct Apply<'a, T> {
    verb: Verb,
    a: &'a [T],
    b: &'a [T],
    c: &'a [T],
}

impl<T: Float> Kernel for Apply<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<T> {
        let mut results = Vec::with_capacity(self.a.len());
        for at in (0..self.a.len()).step_by(T::LANES) {
            let (a, b, c): (T::V<S>, T::V<S>, T::V<S>) = (
                vector(simd, &self.a[at..]),
                vector(simd, &self.b[at..]),
                vector(simd, &self.c[at..]),
            );
            let result = match self.verb {
                Verb::Add => a.add(b),
                Verb::Sub => a.sub(b),
                Verb::Mul => a.mul(b),
                Verb::Div => a.div(b),
                Verb::MulAdd => a.mul_add(b, c),
                Verb::Max => a.max(b),
                Verb::ZeroWhereLess => a.zero_where_less(b, c),
                Verb::OrWhereLess => a.or_where_less(b, c, b),
                Verb::LowBitsToExponent => a.low_bits_to_exponent(),
                Verb::LowBitsToPower => a.low_bits_to_power(),
                Verb::OrDifference => a.or_difference(b, c),
                Verb::ExponentField => a.exponent_field(),
                Verb::Significand => a.significand(),
            };
            results.extend_from_slice(&result.to_array(T::MAX)[..T::LANES]);
        }
        results
    }
}

/// Compares a verb on every level with the twin. Selections have to keep every bit, also those of a NaN; of
/// arithmetic, only that it is NaN.
fn check_verb<T: Lane>(verb: Verb, a: &[T], b: &[T], c: &[T]) {
    let results = on_every_level(|| Apply { verb, a, b, c });
    let (_, expected) = results.last().unwrap();
    for (level, got) in &results {
        for i in 0..a.len() {
            let equal = if verb == Verb::MulAdd && !is_fused(level) {
                is_nearly_fused(got[i], [a[i], b[i], c[i]], expected[i])
            } else if verb.is_arithmetic() {
                bits(got[i]) == bits(expected[i])
            } else {
                got[i].pattern() == expected[i].pattern()
            };
            assert!(
                equal,
                "{level}: {verb:?} of {:?} {:?} {:?} is {:?}, not {:?}",
                a[i], b[i], c[i], got[i], expected[i]
            );
        }
    }
}

/// What is asked of a multiply-add without the instruction: in single precision at most a neighbour of the
/// fused one, in double precision a product and a sum.
fn is_nearly_fused<T: Lane>(got: T, [a, b, c]: [T; 3], fused: T) -> bool {
    if T::LANES == 8 {
        return bits(got.to_f64()) == bits(a.to_f64() * b.to_f64() + c.to_f64());
    }
    let ordered = |x: T| (x.to_f64() as f32).to_bits();
    bits(got) == bits(fused) || ordered(got).abs_diff(ordered(fused)) <= 1
}

fn check_verbs_on_special_numbers<T: Lane>() {
    let special = T::special();
    let n = special.len();
    assert!(n % 2 == 1, "so that each combination comes to stand in each lane");
    let numbers = |digit: usize| -> Vec<T> {
        (0..n.pow(3) * T::LANES).map(|i| special[i / n.pow(digit as u32) % n]).collect()
    };
    let (a, b, c) = (numbers(0), numbers(1), numbers(2));
    for verb in Verb::ALL {
        check_verb(verb, &a, &b, &c);
    }
}

#[test]
fn verbs_on_special_numbers_in_every_lane_are_the_twins() {
    check_verbs_on_special_numbers::<f32>();
    check_verbs_on_special_numbers::<f64>();
}

fn check_verbs_on_random_numbers<T: Lane>() {
    let count = (1 << 18) / thinned(64);
    let random = &mut Random(1);
    let mut patterns = || -> Vec<T> { (0..count).map(|_| T::of(random.bits())).collect() };
    let (a, b, c) = (patterns(), patterns(), patterns());
    let random = &mut Random(2);
    let mut moderate =
        || -> Vec<T> { (0..count).map(|_| T::from_f64(random.between(-2.0, 2.0))).collect() };
    let (x, y) = (moderate(), moderate());
    // What is left of a product when its rounded self is subtracted: only a fused multiply-add knows.
    let z: Vec<T> = x.iter().zip(&y).map(|(x, y)| T::from_f64(-x.to_f64() * y.to_f64())).collect();
    for verb in Verb::ALL {
        check_verb(verb, &a, &b, &c);
        check_verb(verb, &x, &y, &z);
    }
}

#[test]
fn verbs_on_random_numbers_are_the_twins() {
    check_verbs_on_random_numbers::<f32>();
    check_verbs_on_random_numbers::<f64>();
}

#[test]
fn a_maximum_keeps_the_nan_and_the_zero_of_its_second_operand_in_every_lane() {
    fn check<T: Lane>() {
        let (zero, one, nan) =
            (T::from_f64(0.0), T::from_f64(1.0), T::of(T::special()[1].pattern()));
        let minus_zero = T::from_f64(-0.0);
        for lane in 0..T::LANES {
            for (in_a, in_b, expected) in [
                (one, nan, nan),
                (nan, one, one),
                (zero, minus_zero, minus_zero),
                (minus_zero, zero, zero),
                (T::NEG_INFINITY, minus_zero, minus_zero),
                (T::MAX, one, T::MAX),
            ] {
                let (mut a, mut b) = (vec![one; T::LANES], vec![zero; T::LANES]);
                (a[lane], b[lane]) = (in_a, in_b);
                for (level, got) in
                    on_every_level(|| Apply { verb: Verb::Max, a: &a, b: &b, c: &a })
                {
                    for (i, &x) in got.iter().enumerate() {
                        let expected = if i == lane { expected } else { one };
                        assert_eq!(x.pattern(), expected.pattern(), "{level}: lane {i}");
                    }
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn a_quotient_is_what_ieee_says_in_every_lane() {
    fn check<T: Lane>() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        let largest = T::MAX.to_f64();
        let smallest = T::of(1).to_f64();
        for lane in 0..T::LANES {
            for (dividend, divisor, quotient) in [
                (7.0, -2.0, -3.5),
                (1.0, 0.0, inf),
                (1.0, -0.0, -inf),
                (-1.0, 0.0, -inf),
                (0.0, 0.0, nan),
                (-0.0, 3.0, -0.0),
                (0.0, -3.0, -0.0),
                (0.0, inf, 0.0),
                (1.0, -inf, -0.0),
                (-inf, 2.0, -inf),
                (inf, inf, nan),
                (nan, 1.0, nan),
                (1.0, nan, nan),
                (largest, 0.5, inf),
                (largest, largest, 1.0),
                (smallest, 2.0, 0.0),
                (3.0 * smallest, 2.0, 2.0 * smallest),
            ] {
                let (mut a, mut b) = (vec![T::from_f64(6.0); T::LANES], vec![T::ONE; T::LANES]);
                (a[lane], b[lane]) = (T::from_f64(dividend), T::from_f64(divisor));
                for (level, got) in
                    on_every_level(|| Apply { verb: Verb::Div, a: &a, b: &b, c: &a })
                {
                    for (i, &x) in got.iter().enumerate() {
                        let expected = if i == lane { quotient } else { 6.0 };
                        assert_eq!(bits(x), bits(expected), "{level}: {dividend} / {divisor}");
                    }
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn zero_replaces_only_the_lanes_that_are_less() {
    fn check<T: Lane>() {
        let number = T::from_f64;
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        for lane in 0..T::LANES {
            for (value, x, bound, replaced) in [
                (5.0, -1.0, 0.0, true),
                (-5.0, -inf, -1.0, true),
                (nan, -1.0, 0.0, true),
                (5.0, 0.0, 0.0, false),
                (5.0, -0.0, 0.0, false),
                (-0.0, 1.0, 0.0, false),
                (5.0, nan, 0.0, false),
                (5.0, -1.0, nan, false),
                (inf, inf, inf, false),
            ] {
                let mut vectors =
                    [vec![number(7.0); T::LANES], vec![number(1.0); T::LANES], vec![]];
                vectors[2] = vectors[1].clone();
                for (vector, value) in vectors.iter_mut().zip([value, x, bound]) {
                    vector[lane] = number(value);
                }
                let [a, b, c] = &vectors;
                for (level, got) in on_every_level(|| Apply { verb: Verb::ZeroWhereLess, a, b, c })
                {
                    for (i, &got) in got.iter().enumerate() {
                        let expected = if i == lane && replaced { number(0.0) } else { a[i] };
                        assert_eq!(
                            got.pattern(),
                            expected.pattern(),
                            "{level}: {value} {x} {bound}"
                        );
                    }
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

/// A number, or the other, where x is less than the bound.
struct Select<'a, T> {
    number: &'a [T],
    x: &'a [T],
    bound: &'a [T],
    other: &'a [T],
}

impl<T: Float> Kernel for Select<'_, T> {
    type Output = [T; MAX_LANES];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [T; MAX_LANES] {
        let number: T::V<S> = vector(simd, self.number);
        let [x, bound, other] = [self.x, self.bound, self.other].map(|lanes| vector(simd, lanes));
        number.or_where_less(x, bound, other).to_array(T::MAX)
    }
}

#[test]
fn the_other_replaces_only_the_lanes_that_are_less() {
    fn check<T: Lane>() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        let signaling_nan = T::special()[1];
        let splat = |number: f64| vec![T::from_f64(number); T::LANES];
        for lane in 0..T::LANES {
            for (number, x, bound, replaced) in [
                (5.0, -1.0, 0.0, true),
                (-5.0, -inf, -1.0, true),
                (nan, -1.0, 0.0, true),
                (inf, 1.0, inf, true),
                (5.0, 0.0, 0.0, false),
                (5.0, -0.0, 0.0, false),
                (-0.0, 1.0, 0.0, false),
                (5.0, nan, 0.0, false),
                (5.0, -nan, 0.0, false),
                (5.0, -1.0, nan, false),
                (inf, inf, inf, false),
            ] {
                for in_other in
                    [9.0, -0.0, -inf].map(T::from_f64).into_iter().chain([signaling_nan])
                {
                    let (mut numbers, mut xs) = (splat(7.0), splat(1.0));
                    let (mut bounds, mut other) = (splat(1.0), splat(8.0));
                    (numbers[lane], xs[lane]) = (T::from_f64(number), T::from_f64(x));
                    (bounds[lane], other[lane]) = (T::from_f64(bound), in_other);
                    let (number, x, bound, other) = (&numbers, &xs, &bounds, &other);
                    for (level, got) in on_every_level(|| Select { number, x, bound, other }) {
                        for (i, &got) in got[..T::LANES].iter().enumerate() {
                            let expected = if i == lane && replaced { in_other } else { number[i] };
                            let about = format_args!("{level}: {x:?} < {bound:?}, lane {i}");
                            assert_eq!(got.pattern(), expected.pattern(), "{about}");
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
fn a_number_is_its_significand_times_a_power_that_its_exponent_field_tells() {
    fn check<T: Lane>(bias: f64) {
        let epsilon = T::of(T::ONE.pattern() + 1).to_f64() - 1.0;
        let number = T::from_f64;
        for (x, field, significand) in [
            (T::ONE, bias, 1.0),
            (number(1.5), bias, 1.5),
            (number(0.1875), bias - 3.0, 1.5),
            (number(2.0_f64.powi(100)), bias + 100.0, 1.0),
            (T::MAX, 2.0 * bias, 2.0 - epsilon),
            (number(T::MIN_EXPONENT.exp2()), 1.0, 1.0),
            (T::of(1), 0.0, 1.0 + epsilon),
            (number(T::MIN_EXPONENT.exp2() / 2.0), 0.0, 1.5),
            (number(0.0), 0.0, 1.0),
            (number(f64::INFINITY), 2.0 * bias + 1.0, 1.0),
            (T::special()[0], 2.0 * bias + 1.0, 1.5),
        ] {
            for lane in 0..T::LANES {
                let mut numbers = vec![number(6.0); T::LANES];
                numbers[lane] = x;
                let (a, b, c) = (&numbers, &numbers, &numbers);
                for (verb, of_x, of_others) in [
                    (Verb::ExponentField, field, bias + 2.0),
                    (Verb::Significand, significand, 1.5),
                ] {
                    for (level, got) in on_every_level(|| Apply { verb, a, b, c }) {
                        for (i, got) in got.into_iter().enumerate() {
                            let expected = if i == lane { of_x } else { of_others };
                            assert_eq!(got.to_f64(), expected, "{level}: {verb:?} of {x:?}");
                        }
                    }
                }
            }
        }
    }
    check::<f32>(127.0);
    check::<f64>(1023.0);
}

/// Whether any lane is greater, and how many are.
struct Greater<'a, T>(&'a [T], &'a [T]);

impl<T: Float> Kernel for Greater<'_, T> {
    type Output = (bool, u32);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (bool, u32) {
        let (a, b): (T::V<S>, T::V<S>) = (vector(simd, self.0), vector(simd, self.1));
        (a.any_greater(b), a.count_greater(b))
    }
}

#[test]
fn a_single_greater_lane_is_found_and_counted_and_no_nan() {
    fn check<T: Lane>() {
        let number = T::from_f64;
        for lane in 0..T::LANES {
            for (in_a, in_b, rest, expected) in [
                (1.0, 0.0, 0.0, true),
                (1.0, 0.0, f64::NAN, true),
                (0.0, f64::NEG_INFINITY, 0.0, true),
                (0.0, 0.0, 0.0, false),
                (0.0, -0.0, 0.0, false),
                (-1.0, 0.0, 0.0, false),
                (f64::NAN, 0.0, 0.0, false),
                (1.0, f64::NAN, 0.0, false),
                (f64::INFINITY, f64::INFINITY, f64::NAN, false),
            ] {
                let (mut a, mut b) = (vec![number(rest); T::LANES], vec![number(0.0); T::LANES]);
                (a[lane], b[lane]) = (number(in_a), number(in_b));
                for (level, got) in on_every_level(|| Greater(&a, &b)) {
                    let expected = (expected, expected.into());
                    assert_eq!(got, expected, "{level}: {in_a} > {in_b} in lane {lane}");
                }
                b.fill(number(f64::NEG_INFINITY));
                let all = a.iter().filter(|a| a.to_f64() > f64::NEG_INFINITY).count();
                for (level, (_, got)) in on_every_level(|| Greater(&a, &b)) {
                    assert_eq!(got as usize, all, "{level}: {in_a}, the rest {rest}");
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn the_next_number_below_is_the_largest_that_is_less() {
    fn check<T: Lane>() {
        let number = T::from_f64;
        let smallest = T::of(1);
        let minus = |x: T| number(-x.to_f64());
        for (x, below) in [
            (T::ONE, T::of(T::ONE.pattern() - 1)),
            (minus(T::ONE), T::of(minus(T::ONE).pattern() + 1)),
            (smallest, number(0.0)),
            (number(0.0), minus(smallest)),
            (number(-0.0), minus(smallest)),
            (number(f64::INFINITY), T::MAX),
            (minus(T::MAX), T::NEG_INFINITY),
            (T::NEG_INFINITY, T::NEG_INFINITY),
            (number(f64::NAN), number(f64::NAN)),
        ] {
            assert_eq!(bits(Float::next_down(x)), bits(below), "below {x:?}");
        }
    }
    check::<f32>();
    check::<f64>();
}

struct Splat<T>(T, T);

impl<T: Float> Kernel for Splat<T> {
    type Output = [T; MAX_LANES];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [T; MAX_LANES] {
        T::V::<S>::splat(simd, self.0).to_array(self.1)
    }
}

#[test]
fn splat_fills_the_lanes_and_only_those() {
    fn check<T: Lane>() {
        let (value, fill) = (T::from_f64(2.5), T::from_f64(-1.0));
        for (level, got) in on_every_level(|| Splat(value, fill)) {
            let (lanes, rest) = got.split_at(T::LANES);
            assert!(lanes.iter().all(|&lane| lane == value), "{level}");
            assert!(rest.iter().all(|&lane| lane == fill), "{level}");
        }
    }
    check::<f32>();
    check::<f64>();
}

struct Fold<'a, T>(&'a [T]);

impl<T: Float> Kernel for Fold<'_, T> {
    type Output = [f64; MAX_LANES];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f64; MAX_LANES] {
        let vector: T::V<S> = vector(simd, self.0);
        vector.fold().to_array(0.0)
    }
}

#[test]
fn fold_adds_neighbours_at_a_distance_of_eight_in_double_precision() {
    let random = &mut Random(3);
    for _ in 0..1000 {
        let singles: [f32; 16] = std::array::from_fn(|_| f32::of(random.bits()));
        let doubles: [f64; 8] = std::array::from_fn(|_| f64::of(random.bits()));
        for (level, got) in on_every_level(|| Fold(&singles)) {
            for (i, &got) in got[..8].iter().enumerate() {
                let expected = f64::from(singles[i]) + f64::from(singles[i + 8]);
                assert_eq!(bits(got), bits(expected), "{level}: lane {i} of {singles:?}");
            }
        }
        for (level, got) in on_every_level(|| Fold(&doubles)) {
            assert_eq!(
                got[..8].iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                doubles.map(f64::to_bits),
                "{level}"
            );
        }
    }
}

/// Whether any lane of a vector has a bit of another.
struct AnyBit<'a, T>(&'a [T], &'a [T]);

impl<T: Float> Kernel for AnyBit<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> bool {
        let a: T::V<S> = vector(simd, self.0);
        a.any_bit(vector(simd, self.1))
    }
}

#[test]
fn any_bit_finds_a_single_one_of_its_own_lane() {
    fn check<T: Lane>(width: u32) {
        for lane in 0..T::LANES {
            for bit in 0..width {
                let (mut a, mut mask) = (vec![T::of(0); T::LANES], vec![T::of(0); T::LANES]);
                let found = |a: &[T], mask: &[T], expected| {
                    for (level, got) in on_every_level(|| AnyBit(a, mask)) {
                        assert_eq!(got, expected, "{level}: bit {bit} of lane {lane}");
                    }
                };
                a[lane] = T::of(1 << bit);
                found(&a, &mask, false);
                mask[lane] = T::of(!(1 << bit));
                found(&a, &mask, false);
                mask[lane] = T::of(1 << bit);
                found(&a, &mask, true);
                mask.swap(lane, (lane + 1) % T::LANES);
                found(&a, &mask, false);
            }
        }
    }
    check::<f32>(32);
    check::<f64>(64);
}
