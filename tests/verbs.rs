//! The vocabulary of the kernels, on every level that this processor has, against the twin: bit for bit.
//!
//! What is easily got wrong is told in literals besides: NaN and signed zeros in maxima and selections, in every
//! lane; where 16-bit floats round; memory at any address and what lies around it.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod twin;

use half::{bf16, f16};
use softxent::element::Element;
use softxent::exp::Exp;
use softxent::simd::{Float, Kernel, Level, MAX_LANES, Number, Simd, Vector};
use std::fmt::Debug;
use twin::{BF16, F16, Format, Random, bits, is_fused, on_every_level, thinned, vector};

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
            && is_x86_feature_detected!("f16c");
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
    MulAdd,
    Max,
    ZeroWhereLess,
    LowBitsToExponent,
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
                Verb::MulAdd => a.mul_add(b, c),
                Verb::Max => a.max(b),
                Verb::ZeroWhereLess => a.zero_where_less(b, c),
                Verb::LowBitsToExponent => a.low_bits_to_exponent(),
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
    let arithmetic = [Verb::Add, Verb::Sub, Verb::Mul, Verb::MulAdd].contains(&verb);
    for (level, got) in &results {
        for i in 0..a.len() {
            let equal = if verb == Verb::MulAdd && !is_fused(level) {
                is_nearly_fused(got[i], [a[i], b[i], c[i]], expected[i])
            } else if arithmetic {
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
    for verb in [Verb::Add, Verb::Sub, Verb::Mul, Verb::MulAdd, Verb::Max, Verb::ZeroWhereLess] {
        check_verb(verb, &a, &b, &c);
    }
    check_verb(Verb::LowBitsToExponent, &a, &b, &c);
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
    for verb in [
        Verb::Add,
        Verb::Sub,
        Verb::Mul,
        Verb::MulAdd,
        Verb::Max,
        Verb::ZeroWhereLess,
        Verb::LowBitsToExponent,
    ] {
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

struct AnyGreater<'a, T>(&'a [T], &'a [T]);

impl<T: Float> Kernel for AnyGreater<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> bool {
        let a: T::V<S> = vector(simd, self.0);
        a.any_greater(vector(simd, self.1))
    }
}

#[test]
fn any_greater_finds_a_single_lane_and_no_nan() {
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
                for (level, got) in on_every_level(|| AnyGreater(&a, &b)) {
                    assert_eq!(got, expected, "{level}: {in_a} > {in_b} in lane {lane}");
                }
            }
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

/// Memory at the start of a cache line.
#[derive(Clone, PartialEq, Debug)]
#[repr(align(64))]
struct Lines([u8; 256]);

/// How a vector goes from one place to another.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Store,
    Stream,
}

/// Moves 64 bytes of singles or doubles, or 32 bytes of 16-bit patterns.
struct Move<'a, T> {
    from: &'a [u8],
    to: &'a mut [u8],
    way: Way,
    kind: std::marker::PhantomData<T>,
}

/// A type that vectors are loaded and stored as.
trait Moved: Sized {
    /// Bytes of a vector.
    const BYTES: usize;
    fn load_and_store<S: Simd>(simd: S, bytes: Move<'_, Self>);
}

macro_rules! moved {
    ($t:ident, $bytes:literal, $load:expr, $store:expr, $stream:expr) => {
        impl Moved for $t {
            const BYTES: usize = $bytes;

            #[inline(always)]
            fn load_and_store<S: Simd>(simd: S, bytes: Move<'_, Self>) {
                assert!(bytes.from.len() >= $bytes && bytes.to.len() >= $bytes);
                let from: *const $t = bytes.from.as_ptr().cast();
                let to: *mut $t = bytes.to.as_mut_ptr().cast();
                assert!(bytes.way == Way::Store || to.addr() % $bytes == 0);
                // SAFETY: both slices have room for a vector, and a stream is aligned.
                unsafe {
                    let value = $load(simd, from);
                    match bytes.way {
                        Way::Store => $store(simd, to, value),
                        Way::Stream => $stream(simd, to, value),
                    }
                }
                simd.fence();
            }
        }
    };
}
moved!(f32, 64, S::F32::load, |_, to, x: S::F32| x.store(to), |_, to, x: S::F32| x.stream(to));
moved!(f64, 64, S::F64::load, |_, to, x: S::F64| x.store(to), |_, to, x: S::F64| x.stream(to));
moved!(u16, 32, S::load_half, S::store_half, S::stream_half);

impl<T: Moved> Kernel for Move<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        T::load_and_store(simd, self);
    }
}

/// Moves a vector of any bits from one address to another on every level, and looks at every byte around it.
fn check_move<T: Moved>(way: Way, from: usize, to: usize) {
    let random = &mut Random(4);
    let source = Lines(std::array::from_fn(|_| random.bits() as u8));
    let before = Lines(std::array::from_fn(|_| random.bits() as u8));
    let mut expected = before.clone();
    expected.0[to..to + T::BYTES].copy_from_slice(&source.0[from..from + T::BYTES]);
    for level in Level::available() {
        let mut target = before.clone();
        level.run(Move::<T> {
            from: &source.0[from..],
            to: &mut target.0[to..],
            way,
            kind: std::marker::PhantomData,
        });
        assert_eq!(target, expected, "{}: {way:?} from byte {from} to byte {to}", level.name());
    }
}

#[test]
fn a_vector_is_loaded_and_stored_at_any_address_bit_for_bit() {
    fn check<T: Moved>() {
        for from in 0..64 {
            for to in [0, 1, 2, 3, 4, 8, 16, 31, 32, 63].map(|offset| (from + offset) % 128) {
                check_move::<T>(Way::Store, from, to);
            }
        }
    }
    check::<f32>();
    check::<f64>();
    check::<u16>();
}

#[test]
fn a_vector_is_streamed_to_any_aligned_address_bit_for_bit() {
    fn check<T: Moved>() {
        for from in 0..64 {
            for to in (0..256).step_by(T::BYTES) {
                check_move::<T>(Way::Stream, from, to);
            }
        }
    }
    check::<f32>();
    check::<f64>();
    check::<u16>();
}

/// A 16-bit format, and the same on a level.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Half {
    F16,
    BF16,
}

impl Half {
    fn format(self) -> Format {
        match self {
            Self::F16 => F16,
            Self::BF16 => BF16,
        }
    }
}

struct Widen<'a>(Half, &'a [u16]);

impl Kernel for Widen<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<f32> {
        let mut results = Vec::with_capacity(self.1.len());
        for patterns in self.1.chunks_exact(16) {
            // SAFETY: the chunk holds sixteen patterns.
            let patterns = unsafe { simd.load_half(patterns.as_ptr()) };
            let wide = match self.0 {
                Half::F16 => simd.widen_f16(patterns),
                Half::BF16 => simd.widen_bf16(patterns),
            };
            results.extend_from_slice(&wide.to_array(0.0));
        }
        results
    }
}

struct Narrow<'a>(Half, &'a [f32]);

impl Kernel for Narrow<'_> {
    type Output = Vec<u16>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<u16> {
        let mut results = vec![0; self.1.len()];
        for (values, patterns) in self.1.chunks_exact(16).zip(results.chunks_exact_mut(16)) {
            let wide: S::F32 = vector(simd, values);
            let narrow = match self.0 {
                Half::F16 => simd.narrow_f16(wide),
                Half::BF16 => simd.narrow_bf16(wide),
            };
            // SAFETY: the chunk has room for sixteen patterns.
            unsafe { simd.store_half(patterns.as_mut_ptr(), narrow) };
        }
        results
    }
}

/// Narrows each value on every level and compares with what is expected of it.
fn check_narrow(half: Half, mut cases: Vec<(f32, u16)>) {
    cases.resize(cases.len().next_multiple_of(16), (0.0, 0));
    let values: Vec<f32> = cases.iter().map(|&(value, _)| value).collect();
    for (level, got) in on_every_level(|| Narrow(half, &values)) {
        for (&(value, expected), got) in cases.iter().zip(got) {
            assert_eq!(got, expected, "{level}: {value:e} to {half:?}");
        }
    }
}

#[test]
fn all_patterns_of_16_bits_are_widened_exactly() {
    let patterns: Vec<u16> = (0..=u16::MAX).collect();
    for half in [Half::F16, Half::BF16] {
        for (level, got) in on_every_level(|| Widen(half, &patterns)) {
            for (&pattern, got) in patterns.iter().zip(got) {
                let expected = half.format().widen(pattern);
                assert_eq!(bits(got), bits(expected), "{level}: {pattern:#06x} of {half:?}");
            }
        }
    }
}

#[test]
fn the_16_bit_formats_are_those_of_the_half_crate() {
    for pattern in 0..=u16::MAX {
        assert_eq!(bits(F16.widen(pattern)), bits(f16::from_bits(pattern).to_f32()));
        assert_eq!(bits(BF16.widen(pattern)), bits(bf16::from_bits(pattern).to_f32()));
    }
}

#[test]
fn narrowing_rounds_to_nearest_even_at_every_boundary() {
    for half in [Half::F16, Half::BF16] {
        let format = half.format();
        let mut cases = Vec::new();
        for below in 0..format.infinity {
            let above = below + 1;
            let (low, high) = (format.magnitude(below), format.magnitude(above));
            let middle = ((low + high) / 2.0) as f32;
            assert_eq!(f64::from(middle), (low + high) / 2.0, "a single holds the middle exactly");
            let even = below + below % 2;
            for (value, expected) in [
                (low as f32, below),
                ((low as f32).next_up(), below),
                (middle.next_down(), below),
                (middle, even),
                (middle.next_up(), above),
                ((high as f32).next_down(), above),
            ] {
                cases.push((value, expected));
                cases.push((-value, expected | 0x8000));
            }
        }
        for value in [f32::MAX, f32::INFINITY] {
            cases.push((value, format.infinity));
            cases.push((-value, format.infinity | 0x8000));
        }
        check_narrow(half, cases);
    }
}

#[test]
fn a_double_becomes_16_bits_with_a_single_rounding() {
    fn check<T: Element>(format: Format) {
        for below in 0..format.infinity {
            let (low, high) = (format.magnitude(below), format.magnitude(below + 1));
            let middle = (low + high) / 2.0;
            let even = below + below % 2;
            for (value, expected) in
                [(middle.next_down(), below), (middle, even), (middle.next_up(), below + 1)]
            {
                let got = <T as Number>::from_f64(value).to_f64();
                assert_eq!(got, f64::from(format.widen(expected)), "{value:e} to {:?}", T::KIND);
            }
        }
    }
    check::<f16>(F16);
    check::<bf16>(BF16);
}

#[test]
fn narrowing_random_singles_gives_the_nearest_pattern() {
    let random = &mut Random(5);
    let count = (1 << 19) / thinned(64);
    for half in [Half::F16, Half::BF16] {
        let values = (0..count).map(|_| f32::of(random.bits())).filter(|value| !value.is_nan());
        check_narrow(
            half,
            values.map(|value| (value, half.format().narrow(value.into()))).collect(),
        );
    }
}

#[test]
fn a_nan_of_any_payload_stays_nan_when_it_is_narrowed() {
    let infinity = f32::INFINITY.to_bits();
    let payloads = (1..1 << 23).step_by(31 * thinned(101));
    let all = payloads.chain([1, 0x1fff, 0x2000, 0xffff, 0x10000, 0x3f_ffff, 0x40_0000, 0x7f_ffff]);
    let mut values: Vec<f32> = all
        .flat_map(|payload| [infinity | payload, infinity | payload | 1 << 31])
        .map(f32::from_bits)
        .collect();
    values.resize(values.len().next_multiple_of(16), f32::NAN);
    for half in [Half::F16, Half::BF16] {
        for (level, got) in on_every_level(|| Narrow(half, &values)) {
            for (value, got) in values.iter().zip(got) {
                let wide = half.format().widen(got);
                assert!(wide.is_nan(), "{level}: {:#x} to {half:?}", value.to_bits());
                assert_eq!(got >> 15, (value.to_bits() >> 31) as u16, "{level}: the sign of a NaN");
            }
        }
    }
}
