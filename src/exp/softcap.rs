//! A soft cap of logits, `s = c tanh(x / c)`, and its derivative.
//!
//! With `t = exp(2 x / c) - 1`, which keeps its digits near 0,
//!
//! ```text
//! s = c t / (t + 2)        d s / d x = 1 - tanh(x / c)^2 = 4 (t + 1) / (t + 2)^2
//! ```

use super::{Base, Exp};
use crate::simd::{Simd, Vector};

/// A soft cap in one precision.
#[derive(Clone, Copy, Debug)]
pub struct Softcap<T> {
    cap: T,
    base: Base<T>,
    /// Where `s` is `c` to the last digit and its derivative 0 beside 1.
    limit: T,
}

impl<T: Exp> Softcap<T> {
    /// `cap` is positive, and finite in this precision.
    pub fn new(cap: f64) -> Self {
        let limit = (T::TANH_IS_ONE * cap).min(T::MAX.to_f64());
        Self { cap: T::from_f64(cap), base: Base::new(cap / 2.0), limit: T::from_f64(limit) }
    }

    /// The capped logits and their derivatives.
    #[inline(always)]
    pub fn apply<S: Simd>(&self, simd: S, x: T::V<S>) -> (T::V<S>, T::V<S>) {
        if S::OUTLINED { self.outlined(simd, x) } else { self.inlined(simd, x) }
    }

    #[inline(never)]
    fn outlined<S: Simd>(&self, simd: S, x: T::V<S>) -> (T::V<S>, T::V<S>) {
        self.inlined(simd, x)
    }

    #[inline(always)]
    fn inlined<S: Simd>(&self, simd: S, x: T::V<S>) -> (T::V<S>, T::V<S>) {
        let limit = <T::V<S>>::splat(simd, self.limit);
        let zero = <T::V<S>>::splat(simd, T::from_f64(0.0));
        let two = <T::V<S>>::splat(simd, T::from_f64(2.0));
        let one = <T::V<S>>::splat(simd, T::ONE);
        // Bounded from below, and negated from above; in this order a NaN stays.
        let bounded = zero.sub(zero.sub(limit).max(x));
        let bounded = zero.sub(zero.sub(limit).max(bounded));
        let [t, exponential, _] = self.base.splat(simd).less_one(simd, bounded);
        let share = one.div(t.add(two));
        let slope = exponential.mul(share).mul(two.add(two).mul(share));
        (<T::V<S>>::splat(simd, self.cap).mul(t.mul(share)), slope)
    }
}
