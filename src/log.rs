//! The logarithm on vectors.
//!
//! ```text
//! y = 2^n f,   f in [sqrt(1/2), sqrt(2))        log y = n log 2 + log f
//! log f = 2 atanh(z) = 2 (z + z^3/3 + z^5/5 + ...),    z = g / (g + 2),    g = f - 1
//! ```
//!
//! 1. *g carries the digits*: `2 z = g - z g`, and so `log f = g - z (g - R)` with `R = 2 (z^2/3 + z^4/5 + ...)`.
//!    g is exact, and what is taken from it at most a fifth of the result: of the roundings in z and R as much counts.
//! 2. *Terms*: `z^2 <= (3 - 2 sqrt(2))^2 < 0.0295`, so that what the series leaves out after `z^9/9` is below 2^-28.8
//!    of `log f`, and after `z^21/21` below 2^-60.4. With one term less it would be 2^-23.5 and 2^-55.2: as much as a
//!    rounding in single precision, and a quarter of one in double.
//! 3. *Near 1*, where n is 0, `y - 1` is what counts. Whoever knows it better than y gives it: that is log1p.
//! 4. *log 2 in two parts*, the high one so short that `n` times it is exact.
//!
//! Error, measured by `tests/exp/log.rs`: in single precision at most 0.94 ulp (all positive values), in double
//! precision 1.14, and 1.28 without a fused multiply-add (portable doubles).

use crate::exp::Exp;
use crate::simd::{Number, Simd, Vector};
use std::f64::consts::{FRAC_1_SQRT_2, LN_2, SQRT_2};

/// log 2 to 11 bits, which times any exponent is exact in either precision, and the rest of it.
const LN_2_PARTS: (f64, f64) = (0.693_359_375, -2.121_944_400_546_905_8e-4);

/// The power of two by which numbers without an exponent are made larger.
const SHIFT: i32 = 64;

/// `log y` of positive normal numbers whose distance from 1, `u = y - 1`, is known with digits of its own.
#[inline(always)]
pub fn log_of<S: Simd, V: Vector<S, Scalar: Exp>>(simd: S, y: V, u: V) -> V {
    if S::OUTLINED { outlined_log_of(simd, y, u) } else { inlined_log_of(simd, y, u) }
}

#[inline(never)]
fn outlined_log_of<S: Simd, V: Vector<S, Scalar: Exp>>(simd: S, y: V, u: V) -> V {
    inlined_log_of(simd, y, u)
}

#[inline(always)]
fn inlined_log_of<S: Simd, V: Vector<S, Scalar: Exp>>(simd: S, y: V, u: V) -> V {
    let splat = |value: f64| V::splat(simd, V::Scalar::from_f64(value));
    let (zero, one, two) = (splat(0.0), splat(1.0), splat(2.0));
    let (low, high) = (splat(FRAC_1_SQRT_2), splat(SQRT_2));
    // From [1, 2) to [sqrt(1/2), sqrt(2)): half of what is above.
    let significand = y.significand();
    let exponent = y.exponent_field().sub(splat(V::Scalar::BIAS));
    let f = significand.mul(splat(0.5)).or_where_less(significand, high, significand);
    let n = exponent.add(one).or_where_less(significand, high, exponent);
    // n is 0 where y itself lies there.
    let g = u.or_where_less(y, low, f.sub(one));
    let g = f.sub(one).or_where_less(y, high, g);
    let z = g.div(g.add(two));
    let square = z.mul(z);
    // R without its factor z^2.
    let mut series = splat(2.0 / f64::from(V::Scalar::ATANH_DEGREE));
    for odd in (3..V::Scalar::ATANH_DEGREE - 1).rev().step_by(2) {
        series = series.mul_add(square, splat(2.0 / f64::from(odd)));
    }
    let of_f = z.mul_add(series.mul_add(square, zero.sub(g)), g);
    n.mul_add(splat(LN_2_PARTS.0), n.mul_add(splat(LN_2_PARTS.1), of_f))
}

/// `log x` of any number: -inf of 0, NaN below.
#[inline(always)]
pub fn log<S: Simd, V: Vector<S, Scalar: Exp>>(simd: S, x: V) -> V {
    if S::OUTLINED { outlined_log(simd, x) } else { inlined_log(simd, x) }
}

#[inline(never)]
fn outlined_log<S: Simd, V: Vector<S, Scalar: Exp>>(simd: S, x: V) -> V {
    inlined_log(simd, x)
}

#[inline(always)]
fn inlined_log<S: Simd, V: Vector<S, Scalar: Exp>>(simd: S, x: V) -> V {
    let splat = |value: f64| V::splat(simd, V::Scalar::from_f64(value));
    let (zero, infinity) = (splat(0.0), splat(f64::INFINITY));
    // Below the smallest normal number there is no exponent: such a number is made larger first.
    let normal = splat(2.0_f64.powi(V::Scalar::MIN_EXPONENT as i32));
    let y = x.or_where_less(x, normal, x.mul(splat(2.0_f64.powi(SHIFT))));
    let log = log_of(simd, y, y.sub(splat(1.0)));
    let log = log.or_where_less(x, normal, log.sub(splat(f64::from(SHIFT) * LN_2)));
    let log = log.or_where_less(x, V::splat(simd, V::Scalar::SMALLEST), splat(f64::NEG_INFINITY));
    let log = log.or_where_less(x, zero, splat(f64::NAN));
    // Neither infinity nor NaN is less than infinity.
    x.or_where_less(x, infinity, log)
}
