//! The exponential on vectors.
//!
//! With `c = log2(e) / temperature`,
//!
//! ```text
//! exp(d / temperature) = 2^(c d) = 2^n 2^f,    n = c d rounded to 1/16,    f = c d - n in [-1/32, 1/32]
//! ```
//!
//! so the temperature costs nothing: it is part of the constant. `2^f` is a polynomial, `2^n` is put
//! together from bits and a table of sixteen significands, which fits one register. With whole `n` and no table the
//! polynomial has degree 6 in place of 3. Measured in the first cache of an EPYC (Zen 4), G elements/s of the bare sum
//! and the bare write: without the table 5.1 and 4.4, with it 6.4 and 5.6; with AVX2 4.2 and 4.1, and 4.7 and 4.7. A
//! table of eight and a polynomial of degree 4 (Zen 5): 11.7 and 12.0 become 10.9 and 10.6, with AVX2 4.6 and 5.2 become
//! 4.8 and 5.3.
//! In double precision, and for `exp - 1`, whose digits near 0 a rounded table would spoil, `n` is whole and `f` in
//! [-1/2, 1/2].
//!
//! 1. `c` is kept in two parts, high and low. `c_high d - n` is one fused multiply-add and so rounded once;
//!    the low part repairs what the rounding of `c` to working precision would cost (20 ulp at d = -87).
//! 2. `n` is rounded by adding `1.5 * 2^19`, whose last bit is 1/16 (`2^52` for doubles), together with the exponent's
//!    bias minus 1: the lowest bits of the sum are then the place in the table, those above it the exponent field of
//!    `2^n`, minus 1.
//! 3. `2^n` is multiplied with, not added to the bits of `2^f`, so that a NaN survives whatever its payload.
//! 4. Where `2^n` is below the smallest normal number the result is 0. This includes `d = -inf`.
//! 5. Whether that happens, or `n` is 2 or more, or `d` is NaN, is seen from the bits of the sum of point 2: if not, those
//!    above the lowest eleven (ten in double precision) are always the same. Of many vectors it is seen at once, which is
//!    cheaper than a comparison for each.
//!
//! Domain: `d / temperature <= 1.37` (the kernels subtract a reference close to the maximum); above, up to
//! overflow at 88, it is right as well, beyond that the result is meaningless.
//! Error, measured by `tests/exp`: in single precision at most 1.00 ulp (all values; 1.5 at a temperature of
//! 1e38, 3.1 from 1e37 on at worst, where `c_low` is subnormal), in double precision 0.96. Without a fused
//! multiply-add (portable doubles) up to `|d| / temperature` ulp more: 354 were seen.

mod softcap;

pub use softcap::Softcap;

use crate::simd::{Float, Number, Simd, Vector};

/// Constants of the exponential in one precision.
pub trait Exp: Float {
    /// 1.5 * 2^(mantissa bits) + exponent bias, for whole `n`.
    const ROUND: Self;
    /// `2^f` on [-1/2, 1/2] without its constant term, which is exactly 1; highest power first. Minimax in
    /// relative error (Lawson's algorithm in 60 digits), rounded one coefficient after the other from the
    /// constant up, the rest fitted anew each time.
    const POLYNOMIAL: &'static [Self];
    /// Whether [`Vector::low_bits_to_power`] goes in sixteenths.
    const IN_SIXTEENTHS: bool;
    /// What is added to `c d` for `n` as fine as that: see point 2 above.
    const FINE_ROUND: Self;
    /// The bits above those in which the sums of that differ while `2^n` is a normal number and `n` below 2.
    const ABOVE_WINDOW: Self;
    /// As `POLYNOMIAL`, for what that leaves: `f` in [-1/32, 1/32] in single precision.
    const FINE_POLYNOMIAL: &'static [Self];
    /// The exponent of the smallest normal number.
    const MIN_EXPONENT: f64;
    /// What is added to an exponent before it is stored.
    const BIAS: f64;
    /// The last power of the series of the hyperbolic arctangent; see `log.rs`.
    const ATANH_DEGREE: i32;
    /// The largest `c`, short of overflow: there a logit that is 1.3e-34 (in double precision 1.1e-297) below another
    /// already counts nothing.
    const MAX_BASE: f64;
    /// Whether sums of exponentials in doubles need the rounding errors of the additions carried along: not for
    /// single-precision results, which are 29 bits coarser.
    const COMPENSATED: bool;
    /// 1.
    const ONE: Self;
    /// The smallest number above 0.
    const SMALLEST: Self;
    /// From this many times the cap on the hyperbolic tangent is 1 to the last digit, and its derivative so small
    /// that it could as well be 0; short of an overflow of `exp(2 x / c)`.
    const TANH_IS_ONE: f64;
}

impl Exp for f32 {
    const ROUND: f32 = 12_582_912.0 + 127.0;
    const MIN_EXPONENT: f64 = -126.0;
    const BIAS: f64 = 127.0;
    const ATANH_DEGREE: i32 = 9;
    const MAX_BASE: f64 = 1.0e36;
    const COMPENSATED: bool = false;
    const ONE: f32 = 1.0;
    const SMALLEST: f32 = f32::from_bits(1);
    const TANH_IS_ONE: f64 = 40.0;
    /// Relative error 2^-28.3. One degree less has 2^-23.4, which is as much as all roundings together.
    const POLYNOMIAL: &'static [f32] =
        &[0.00015329279, 0.001339097, 0.009618499, 0.055503596, 0.24022648, std::f32::consts::LN_2];
    const IN_SIXTEENTHS: bool = true;
    const FINE_ROUND: f32 = 786_432.0 + 126.0;
    const ABOVE_WINDOW: f32 = f32::from_bits(!0x7ff);
    /// Relative error 2^-29.2.
    const FINE_POLYNOMIAL: &'static [f32] = &[0.05550235, 0.24023429, std::f32::consts::LN_2];
}

impl Exp for f64 {
    const ROUND: f64 = 6_755_399_441_055_744.0 + 1023.0;
    const MIN_EXPONENT: f64 = -1022.0;
    const BIAS: f64 = 1023.0;
    const ATANH_DEGREE: i32 = 21;
    const MAX_BASE: f64 = 1.0e300;
    const COMPENSATED: bool = true;
    const ONE: f64 = 1.0;
    const SMALLEST: f64 = f64::from_bits(1);
    const TANH_IS_ONE: f64 = 350.0;
    /// Relative error 2^-57.8.
    const POLYNOMIAL: &'static [f64] = &[
        4.4387391300396014e-10,
        7.073233467746137e-09,
        1.0178160889738224e-07,
        1.321543883316909e-06,
        1.5252733631918641e-05,
        0.0001540353044904195,
        0.001333355814654839,
        0.0096181291076016,
        0.055504108664821715,
        0.24022650695910108,
        std::f64::consts::LN_2,
    ];
    const IN_SIXTEENTHS: bool = false;
    const FINE_ROUND: f64 = Self::ROUND - 1.0;
    const ABOVE_WINDOW: f64 = f64::from_bits(!0x3ff);
    const FINE_POLYNOMIAL: &'static [f64] = Self::POLYNOMIAL;
}

/// log2(e), and what is left of it beyond a double.
const LOG2_E: (f64, f64) = (std::f64::consts::LOG2_E, 2.035_527_374_093_103_3e-17);

/// The base that a temperature gives: `exp(d / temperature)` as `2^((high + low) d)`.
#[derive(Clone, Copy, Debug)]
pub struct Base<T> {
    high: T,
    low: T,
    /// The temperature itself, in double precision for the scalar work on summaries.
    pub temperature: f64,
}

impl<T: Exp> Base<T> {
    /// `temperature` is positive and finite.
    pub fn new(temperature: f64) -> Self {
        // Not 0: -inf times 0 would not be a number.
        let quotient = (LOG2_E.0 / temperature).clamp(T::SMALLEST.to_f64(), T::MAX_BASE);
        let high = T::from_f64(quotient);
        let low = if quotient < T::MAX_BASE {
            let remainder = (-quotient).mul_add(temperature, LOG2_E.0) + LOG2_E.1;
            T::from_f64((quotient - high.to_f64()) + remainder / temperature)
        } else {
            T::from_f64(0.0)
        };
        Self { high, low, temperature }
    }

    /// The base as vectors.
    #[inline(always)]
    pub fn splat<S: Simd>(&self, simd: S) -> Powers<T::V<S>> {
        Powers { high: Vector::splat(simd, self.high), low: Vector::splat(simd, self.low) }
    }
}

/// A [`Base`] in every lane.
#[derive(Clone, Copy)]
pub struct Powers<V> {
    high: V,
    low: V,
}

impl<V: Copy> Powers<V> {
    /// `exp(d / temperature)` in each lane.
    #[inline(always)]
    pub fn exp<S: Simd>(self, simd: S, d: V) -> V
    where
        V: Vector<S, Scalar: Exp>,
    {
        if S::OUTLINED { self.outlined_exp(simd, d) } else { self.inlined_exp(simd, d) }
    }

    /// `exp(d / temperature) - 1` in each lane, for `d <= 0`; it keeps its digits near 0: at most 2.3 ulp were missing
    /// in single precision, 2.7 in double. Where the exponential is 0 it is exactly -1.
    #[inline(always)]
    pub fn exp_m1<S: Simd>(self, simd: S, d: V) -> V
    where
        V: Vector<S, Scalar: Exp>,
    {
        if S::OUTLINED { self.outlined_exp_m1(simd, d) } else { self.inlined_exp_m1(simd, d) }
    }

    #[inline(never)]
    fn outlined_exp_m1<S: Simd>(self, simd: S, d: V) -> V
    where
        V: Vector<S, Scalar: Exp>,
    {
        self.inlined_exp_m1(simd, d)
    }

    #[inline(always)]
    fn inlined_exp_m1<S: Simd>(self, simd: S, d: V) -> V
    where
        V: Vector<S, Scalar: Exp>,
    {
        let minus_one = V::splat(simd, V::Scalar::from_f64(-1.0));
        let [less_one, _, shifted] = self.less_one(simd, d);
        less_one.or_where_less(shifted, V::splat(simd, least(V::Scalar::ROUND)), minus_one)
    }

    /// `exp(d / temperature) - 1`, for whose digits near 0 the constant term of the polynomial is left to the end, and
    /// `exp(d / temperature)`, meaningless where `2^n` is no normal number; and what tells where.
    #[inline(always)]
    fn less_one<S: Simd>(self, simd: S, d: V) -> [V; 3]
    where
        V: Vector<S, Scalar: Exp>,
    {
        let (shifted, fraction) = self.reduced(simd, d, V::Scalar::ROUND);
        let scale = shifted.low_bits_to_exponent();
        let rest = polynomial(simd, V::Scalar::POLYNOMIAL, fraction).mul(fraction);
        let one = V::splat(simd, V::Scalar::ONE);
        [scale.mul_add(rest, scale.sub(one)), scale.mul_add(rest, scale), shifted]
    }

    #[inline(never)]
    fn outlined_exp<S: Simd>(self, simd: S, d: V) -> V
    where
        V: Vector<S, Scalar: Exp>,
    {
        self.inlined_exp(simd, d)
    }

    #[inline(always)]
    fn inlined_exp<S: Simd>(self, simd: S, d: V) -> V
    where
        V: Vector<S, Scalar: Exp>,
    {
        let (exponential, shifted) = self.inlined_exp_within(simd, d);
        exponential.zero_where_less(shifted, V::splat(simd, least(V::Scalar::FINE_ROUND)))
    }

    /// `exp(d / temperature)` in each lane where that is within the window of point 5, with the same bits, and something
    /// else where it is not; and what [`Outside`] tells that from.
    #[inline(always)]
    pub fn exp_within<S: Simd>(self, simd: S, d: V) -> (V, V)
    where
        V: Vector<S, Scalar: Exp>,
    {
        if S::OUTLINED {
            self.outlined_exp_within(simd, d)
        } else {
            self.inlined_exp_within(simd, d)
        }
    }

    #[inline(never)]
    fn outlined_exp_within<S: Simd>(self, simd: S, d: V) -> (V, V)
    where
        V: Vector<S, Scalar: Exp>,
    {
        self.inlined_exp_within(simd, d)
    }

    #[inline(always)]
    fn inlined_exp_within<S: Simd>(self, simd: S, d: V) -> (V, V)
    where
        V: Vector<S, Scalar: Exp>,
    {
        let (shifted, fraction) = self.reduced(simd, d, V::Scalar::FINE_ROUND);
        let power = shifted.low_bits_to_power();
        let rest = polynomial(simd, V::Scalar::FINE_POLYNOMIAL, fraction);
        let product = if V::Scalar::IN_SIXTEENTHS {
            power.mul_add(rest.mul(fraction), power)
        } else {
            rest.mul_add(fraction, V::splat(simd, V::Scalar::ONE)).mul(power)
        };
        (product, shifted)
    }

    /// Whether the exponential of any lane is above the window of point 5.
    #[inline(always)]
    pub fn any_above_window<S: Simd>(self, simd: S, d: V) -> bool
    where
        V: Vector<S, Scalar: Exp>,
    {
        let (shifted, _) = self.reduced(simd, d, V::Scalar::FINE_ROUND);
        let two = V::Scalar::from_f64(V::Scalar::FINE_ROUND.to_f64() + 2.0).next_down();
        shifted.any_greater(V::splat(simd, two))
    }

    /// What has `n` in its lowest bits, and `f`.
    #[inline(always)]
    fn reduced<S: Simd>(self, simd: S, d: V, round: V::Scalar) -> (V, V)
    where
        V: Vector<S, Scalar: Exp>,
    {
        let round = V::splat(simd, round);
        let shifted = d.mul_add(self.high, round);
        let minus_n = round.sub(shifted);
        (shifted, d.mul_add(self.low, d.mul_add(self.high, minus_n)))
    }
}

/// What a rounding gives for the least `n` whose power is a normal number; of `FINE_ROUND` all the low bits are 0.
#[inline(always)]
fn least<T: Exp>(round: T) -> T {
    T::from_f64(round.to_f64() + T::MIN_EXPONENT)
}

/// Whether any of some exponentials was outside of the window of point 5.
#[derive(Clone, Copy)]
pub struct Outside<V> {
    different: V,
}

impl<V: Copy> Outside<V> {
    /// Of no exponentials.
    #[inline(always)]
    pub fn none<S: Simd>(simd: S) -> Self
    where
        V: Vector<S, Scalar: Exp>,
    {
        Self { different: V::splat(simd, V::Scalar::from_f64(0.0)) }
    }

    /// Of one more vector, by what came with it.
    #[inline(always)]
    pub fn or<S: Simd>(self, simd: S, shifted: V) -> Self
    where
        V: Vector<S, Scalar: Exp>,
    {
        let least = V::splat(simd, least(V::Scalar::FINE_ROUND));
        Self { different: self.different.or_difference(shifted, least) }
    }

    /// Whether there was one.
    #[inline(always)]
    pub fn any<S: Simd>(self, simd: S) -> bool
    where
        V: Vector<S, Scalar: Exp>,
    {
        self.different.any_bit(V::splat(simd, V::Scalar::ABOVE_WINDOW))
    }
}

/// `(2^f - 1) / f`
#[inline(always)]
fn polynomial<S: Simd, V: Vector<S>>(simd: S, coefficients: &[V::Scalar], fraction: V) -> V {
    let mut power = V::splat(simd, coefficients[0]);
    for &coefficient in &coefficients[1..] {
        power = power.mul_add(fraction, V::splat(simd, coefficient));
    }
    power
}

/// `exp((a - b) / temperature)` of single doubles, with the same bits on every platform.
///
/// What the subtraction and the division round away is put back to first order: left out, it would cost
/// `|a - b| / temperature` units in the last place.
pub fn exp_difference(a: f64, b: f64, temperature: f64) -> f64 {
    let difference = a - b;
    let quotient = difference / temperature;
    if !quotient.is_finite() {
        return libm::exp(quotient);
    }
    let (_, lost) = two_sum(a, -b);
    let rest = (-quotient).mul_add(temperature, difference) + lost;
    libm::exp(quotient) * (1.0 + rest / temperature)
}

/// A sum, and its rounding error, which is itself a double (Knuth).
pub fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let added = sum - a;
    (sum, (a - (sum - added)) + (b - added))
}
