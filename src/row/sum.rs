//! A sum in eight lanes of doubles (point 2 of the header of `row`).

use crate::exp::{Exp, two_sum};
use crate::simd::{Simd, Vector};
use std::marker::PhantomData;

/// What has been added, and in double precision also what the additions lost.
pub(super) struct Sum<S: Simd, T> {
    high: S::F64,
    low: S::F64,
    precision: PhantomData<T>,
}

impl<S: Simd, T> Clone for Sum<S, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Simd, T> Copy for Sum<S, T> {}

impl<S: Simd, T: Exp> Sum<S, T> {
    #[inline(always)]
    pub(super) fn zero(simd: S) -> Self {
        let zero = Vector::splat(simd, 0.0);
        Self { high: zero, low: zero, precision: PhantomData }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, term: S::F64) {
        let sum = self.high.add(term);
        if T::COMPENSATED {
            // `exp::two_sum`, lane by lane.
            let added = sum.sub(self.high);
            let lost = self.high.sub(sum.sub(added)).add(term.sub(added));
            self.low = self.low.add(lost);
        }
        self.high = sum;
    }

    #[inline(always)]
    pub(super) fn scaled(self, simd: S, factor: f64) -> Self {
        let factor = Vector::splat(simd, factor);
        Self { high: self.high.mul(factor), low: self.low.mul(factor), precision: PhantomData }
    }

    /// Adds `factor` times another sum.
    #[inline(always)]
    pub(super) fn add_scaled(&mut self, simd: S, other: Self, factor: f64) {
        let term = other.scaled(simd, factor);
        self.add(term.high);
        self.low = self.low.add(term.low);
    }

    /// The sum over the lanes, always in the same order.
    #[inline(always)]
    pub(super) fn total(self) -> f64 {
        let [a, b, c, d, e, f, g, h, ..] = self.high.to_array(0.0);
        if !T::COMPENSATED {
            return ((a + e) + (c + g)) + ((b + f) + (d + h));
        }
        let mut low = self.low.to_array(0.0).iter().sum::<f64>();
        let mut high = 0.0;
        for term in [a, b, c, d, e, f, g, h] {
            let (sum, lost) = two_sum(high, term);
            (high, low) = (sum, low + lost);
        }
        // An infinite sum has no error term; its low part is NaN.
        if high.is_finite() { high + low } else { high }
    }
}
