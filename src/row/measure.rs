//! How far two rows of logits are from each other, class by class: what is summed, and which way is nearer.
//!
//! With p and q the probabilities that the other row and this one give to a class, and r = log q - log p,
//!
//! ```text
//! KL(p || q) = sum p (log p - log q) = sum (q - p - p r)       d / d x_i = q_i - p_i
//! KL(q || p) = sum (p - q + q r)                               d / d x_i = q_i (r_i - KL(q || p))
//! JS         = beta KL(p || m) + (1 - beta) KL(q || m)         d / d x_i = (1 - beta) q_i (log(q_i / m_i) - KL(q || m))
//!                                                              m = beta p + (1 - beta) q
//! ```
//!
//! where x are this row's logits divided by the temperature. The left-hand sums have terms of both signs that
//! nearly cancel when the rows nearly agree; those on the right have none below 0, because p and q both add up to
//! 1, so a divergence of 1e-9 has its digits and none is negative. The departures from the formulas:
//!
//! 1. *Where |r| < 1/2* a term is `p (e^r - 1 - r) = p r^2 (1/2 + r/6 + ...)` by its series: the difference would
//!    cancel.
//! 2. *r comes from the logits*, `(x - x_max) - (y - y_max)` less the difference of the logarithms of the totals,
//!    not from p and q: it is right also where these are 0, and has all digits at the largest logits. What the two
//!    inner subtractions lose is put back: of rows that differ by 1e-3 it would leave four digits of the result in
//!    single precision.
//! 3. *What r is off by* is the same for all classes: the error of the totals. The terms do not notice it, since
//!    `sum (q - p)` is 0, but the derivatives do. So that sum is taken too, and is what r is off by.
//! 4. *0 log 0 is 0*: a product with p is 0 wherever p is. A class that both rows exclude has r = NaN and adds 0.
//! 5. *The logarithms of m / p and m / q* come from the smaller of `e^r` and `e^-r` by way of log1p.

use crate::exp::{Base, Exp};
use crate::log::log_of;
use crate::simd::{Number, Simd, Vector};

/// Two rows, each by its largest logit and the sum of exponentials relative to it. NaN where a row has no
/// probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pair {
    /// The largest logit of this row.
    pub max: f64,
    /// `sum exp((x - max) / temperature)`
    pub total: f64,
    /// The largest logit of the other row.
    pub other_max: f64,
    /// Its sum.
    pub other_total: f64,
    /// The logarithm of `total / other_total`.
    pub log_ratio: f64,
}

impl Pair {
    /// With the logarithm of the ratio such that the probabilities of both rows, which differed by `surplus`, add up to
    /// the same.
    pub fn corrected(self, surplus: f64) -> Self {
        Self { log_ratio: self.log_ratio + surplus, ..self }
    }

    /// Whether both rows have probabilities.
    pub fn is_defined(&self) -> bool {
        !self.total.is_nan() && !self.other_total.is_nan()
    }
}

/// A pair in the precision of the computation.
#[derive(Clone, Copy)]
pub struct Classes<'a, T> {
    base: &'a Base<T>,
    max: T,
    share: T,
    other_max: T,
    other_share: T,
    inverse_temperature: T,
    log_ratio: T,
}

impl<'a, T: Exp> Classes<'a, T> {
    /// Of two rows whose logits `base` divides.
    pub fn new(pair: &Pair, base: &'a Base<T>) -> Self {
        let inverse = (1.0 / base.temperature).min(T::MAX.to_f64());
        Self {
            base,
            max: T::from_f64(pair.max),
            share: T::from_f64(1.0 / pair.total),
            other_max: T::from_f64(pair.other_max),
            other_share: T::from_f64(1.0 / pair.other_total),
            inverse_temperature: T::from_f64(inverse),
            log_ratio: T::from_f64(pair.log_ratio),
        }
    }

    /// q, p and r of some classes, from this row's logits and the other's.
    #[inline(always)]
    pub(super) fn of<S: Simd>(self, simd: S, x: T::V<S>, y: T::V<S>) -> Class<T::V<S>> {
        let splat = |value| <T::V<S>>::splat(simd, value);
        let (max, other_max) = (splat(self.max), splat(self.other_max));
        let (d, e) = (x.sub(max), y.sub(other_max));
        let powers = self.base.splat(simd);
        let lost = finite(simd, lost(x, max, d).sub(lost(y, other_max, e)));
        let gap = d.sub(e).add(lost).mul(splat(self.inverse_temperature));
        Class {
            q: powers.exp(simd, d).mul(splat(self.share)),
            p: powers.exp(simd, e).mul(splat(self.other_share)),
            r: gap.sub(splat(self.log_ratio)),
        }
    }
}

/// A class in both rows.
#[derive(Clone, Copy)]
pub(super) struct Class<V> {
    /// The probability in this row.
    q: V,
    /// The probability in the other.
    p: V,
    /// `log q - log p`
    r: V,
}

/// A measure of how far two rows are from each other.
pub trait Measure<T: Exp>: Copy {
    /// Whether there is a second sum.
    const TWO: bool;
    /// What is summed.
    #[expect(private_interfaces, reason = "called by the kernels of this module alone")]
    fn terms<S: Simd>(self, simd: S, class: Class<T::V<S>>) -> [T::V<S>; 2];
    /// The derivative with respect to this row's logits over the temperature; `center` is the value of the
    /// divergence from this row's side, which all classes have in common.
    #[expect(private_interfaces, reason = "as above")]
    fn slope<S: Simd>(self, simd: S, class: Class<T::V<S>>, center: T::V<S>) -> T::V<S>;
}

/// `KL(p || q)`
#[derive(Clone, Copy, Debug)]
pub struct Forward;

#[expect(private_interfaces, reason = "as above")]
impl<T: Exp> Measure<T> for Forward {
    const TWO: bool = false;
    #[inline(always)]
    fn terms<S: Simd>(self, simd: S, Class { q, p, r }: Class<T::V<S>>) -> [T::V<S>; 2] {
        [term(simd, p, q, r), <T::V<S>>::splat(simd, T::from_f64(0.0))]
    }
    #[inline(always)]
    fn slope<S: Simd>(self, simd: S, class: Class<T::V<S>>, _: T::V<S>) -> T::V<S> {
        difference(simd, class)
    }
}

/// `KL(q || p)`
#[derive(Clone, Copy, Debug)]
pub struct Reverse;

#[expect(private_interfaces, reason = "as above")]
impl<T: Exp> Measure<T> for Reverse {
    const TWO: bool = false;
    #[inline(always)]
    fn terms<S: Simd>(self, simd: S, Class { q, p, r }: Class<T::V<S>>) -> [T::V<S>; 2] {
        let zero = <T::V<S>>::splat(simd, T::from_f64(0.0));
        [term(simd, q, p, zero.sub(r)), zero]
    }
    #[inline(always)]
    fn slope<S: Simd>(
        self,
        simd: S,
        Class { q, r, .. }: Class<T::V<S>>,
        center: T::V<S>,
    ) -> T::V<S> {
        guarded(simd, q, r.sub(center))
    }
}

/// `beta KL(p || m) + (1 - beta) KL(q || m)` for beta within 0 and 1; the two sums are the two divergences.
#[derive(Clone, Copy, Debug)]
pub struct JensenShannon<'a, T> {
    /// The share of p in m.
    beta: T,
    /// That of q.
    rest: T,
    unit: &'a Base<T>,
}

impl<'a, T: Exp> JensenShannon<'a, T> {
    /// beta within 0 and 1; `unit` is the base for the temperature 1.
    pub fn new(beta: f64, unit: &'a Base<T>) -> Self {
        Self { beta: T::from_f64(beta), rest: T::from_f64(1.0 - beta), unit }
    }

    /// m, `log(m / p)` and `log(m / q)`.
    #[inline(always)]
    fn middle<S: Simd>(
        self,
        simd: S,
        Class { q, p, r }: Class<T::V<S>>,
    ) -> (T::V<S>, T::V<S>, T::V<S>) {
        let splat = |value| <T::V<S>>::splat(simd, value);
        let (zero, beta, rest) = (splat(T::from_f64(0.0)), splat(self.beta), splat(self.rest));
        let m = beta.mul(p).add(rest.mul(q));
        // The share of the smaller of p and q in m, and that of the larger.
        let smaller = beta.or_where_less(r, zero, rest);
        let larger = rest.or_where_less(r, zero, beta);
        let minus_distance = zero.sub(r.max(zero.sub(r)));
        let e = self.unit.splat(simd).exp_m1(simd, minus_distance);
        let of_all = smaller.mul_add(e.add(splat(T::ONE)), larger);
        let of_larger = log_of(simd, of_all, smaller.mul(e));
        let by_p = of_larger.add(r).or_where_less(r, zero, of_larger);
        let by_q = of_larger.or_where_less(r, zero, of_larger.sub(r));
        (m, by_p, by_q)
    }
}

#[expect(private_interfaces, reason = "as above")]
impl<T: Exp> Measure<T> for JensenShannon<'_, T> {
    const TWO: bool = true;
    #[inline(always)]
    fn terms<S: Simd>(self, simd: S, class: Class<T::V<S>>) -> [T::V<S>; 2] {
        let (m, by_p, by_q) = self.middle(simd, class);
        [term(simd, class.p, m, by_p), term(simd, class.q, m, by_q)]
    }
    #[inline(always)]
    fn slope<S: Simd>(self, simd: S, class: Class<T::V<S>>, center: T::V<S>) -> T::V<S> {
        let (_, _, by_q) = self.middle(simd, class);
        let zero = <T::V<S>>::splat(simd, T::from_f64(0.0));
        let rest = <T::V<S>>::splat(simd, self.rest);
        guarded(simd, class.q, zero.sub(by_q).sub(center)).mul(rest)
    }
}

/// What the rounding of `d = x - m` lost (Knuth).
#[inline(always)]
fn lost<S: Simd, V: Vector<S>>(x: V, m: V, d: V) -> V {
    let taken = x.sub(d);
    x.sub(d.add(taken)).add(taken.sub(m))
}

/// The finite lanes, 0 in the others.
#[inline(always)]
fn finite<S: Simd, V: Vector<S, Scalar: Exp>>(simd: S, x: V) -> V {
    let (zero, infinity) = (V::Scalar::from_f64(0.0), V::Scalar::from_f64(f64::INFINITY));
    let (zero, infinity) = (V::splat(simd, zero), V::splat(simd, infinity));
    zero.or_where_less(zero.sub(x).max(x), infinity, x)
}

/// `q - p - p r` with r = log(q / p).
#[inline(always)]
fn term<S: Simd, V: Vector<S, Scalar: Exp>>(simd: S, p: V, q: V, r: V) -> V {
    let near = p.mul(r.mul(r)).mul(expansion(simd, r));
    where_small(simd, r, near, q.sub(p).sub(guarded(simd, p, r)))
}

/// `p r`, 0 where p is.
#[inline(always)]
fn guarded<S: Simd, V: Vector<S, Scalar: Exp>>(simd: S, p: V, r: V) -> V {
    p.mul(r).zero_where_less(p, V::splat(simd, V::Scalar::SMALLEST))
}

/// `near` where `|r| < 1/2`, else `far`.
#[inline(always)]
fn where_small<S: Simd, V: Vector<S, Scalar: Exp>>(simd: S, r: V, near: V, far: V) -> V {
    let zero = V::splat(simd, V::Scalar::from_f64(0.0));
    let half = V::splat(simd, V::Scalar::from_f64(0.5));
    // In this order a NaN stays, and is not less.
    far.or_where_less(zero.sub(r).max(r), half, near)
}

/// `(e^r - 1 - r) / r^2 = 1/2! + r/3! + r^2/4! + ...` for `|r| < 1/2`. In double precision up to r^13 (what is left
/// is less than 2^-57 of it), in single up to r^7 (2^-27).
#[inline(always)]
fn expansion<S: Simd, V: Vector<S, Scalar: Exp>>(simd: S, r: V) -> V {
    const SINGLE: i32 = 9;
    const DOUBLE: i32 = 15;
    let last = if V::Scalar::COMPENSATED { DOUBLE } else { SINGLE };
    let mut factorial = (2..=last).map(f64::from).product::<f64>();
    let mut sum = V::splat(simd, V::Scalar::from_f64(1.0 / factorial));
    for n in (3..=last).rev() {
        factorial /= f64::from(n);
        sum = sum.mul_add(r, V::splat(simd, V::Scalar::from_f64(1.0 / factorial)));
    }
    sum
}

/// The terms of two vectors, and `q - p`.
#[inline(always)]
pub(super) fn terms_of<S: Simd, T: Exp, M: Measure<T>>(
    simd: S,
    measure: M,
    classes: Classes<'_, T>,
    x: T::V<S>,
    y: T::V<S>,
) -> [T::V<S>; 3] {
    let class = classes.of(simd, x, y);
    let [first, second] = measure.terms(simd, class);
    [first, second, difference(simd, class)]
}

/// `q - p`, as `p (e^r - 1)` where the difference would cancel.
#[inline(always)]
fn difference<S: Simd, V: Vector<S, Scalar: Exp>>(simd: S, Class { q, p, r }: Class<V>) -> V {
    let near = p.mul(r.mul(r).mul_add(expansion(simd, r), r));
    where_small(simd, r, near, q.sub(p))
}
