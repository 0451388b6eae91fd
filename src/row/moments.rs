//! What can be summed beside the exponentials, in the same pass. Each kind knows how its sums move when the
//! reference to which they are relative is raised.

use super::UNROLL;
use super::sum::Sum;
use crate::exp::Exp;
use crate::simd::{Float, Number, Simd, Vector};

/// Four vectors and all that is known of them.
#[derive(Clone, Copy)]
pub(super) struct Terms<V> {
    /// The logits.
    pub(super) x: [V; UNROLL],
    /// The logits less the reference.
    pub(super) d: [V; UNROLL],
    /// The exponentials of that.
    pub(super) e: [V; UNROLL],
    /// The weights, if there are any.
    pub(super) weights: [V; UNROLL],
}

/// A kind of sums.
pub trait Moments<T: Exp>: Copy {
    /// Whether the largest logit has to be known, and not only one that none exceeds by much.
    const NEEDS_MAX: bool = true;
    /// Whether the terms need weights.
    const WEIGHTED: bool;
    /// Whether terms some of whose elements are not there do.
    const PARTS_WEIGHTED: bool;
    /// The sums while they are taken.
    type Sums<S: Simd>: Sums<S, T>;
    /// The sums of nothing.
    fn zero<S: Simd>(self, simd: S) -> Self::Sums<S>;
}

/// Sums while they are taken.
#[expect(private_interfaces, reason = "called by the kernels of this module alone")]
pub trait Sums<S: Simd, T: Exp>: Copy {
    /// Adds four vectors, some of whose elements may not be there in a part.
    fn add(&mut self, simd: S, terms: Terms<T::V<S>>, is_part: bool);
    /// Carries what was added since the last time over to double precision.
    fn end_block(&mut self, simd: S);
    /// Makes the sums relative to a reference that is higher by `by`; `exponentials` is the sum of
    /// exponentials relative to the old one, and `factor` what they are multiplied with.
    fn raise(&mut self, simd: S, by: f64, exponentials: Sum<S, T>, factor: f64);
    /// The first and the second sum.
    fn totals(self) -> (f64, f64);
}

/// Nothing, and not even the largest logit unless `MAX`.
#[derive(Clone, Copy, Debug)]
pub struct Nothing<const MAX: bool>;

impl<T: Exp, const MAX: bool> Moments<T> for Nothing<MAX> {
    const NEEDS_MAX: bool = MAX;
    const WEIGHTED: bool = false;
    const PARTS_WEIGHTED: bool = false;
    type Sums<S: Simd> = Self;
    #[inline(always)]
    fn zero<S: Simd>(self, _: S) -> Self {
        self
    }
}

#[expect(private_interfaces, reason = "as above")]
impl<S: Simd, T: Exp, const MAX: bool> Sums<S, T> for Nothing<MAX> {
    #[inline(always)]
    fn add(&mut self, _: S, _: Terms<T::V<S>>, _: bool) {}
    #[inline(always)]
    fn end_block(&mut self, _: S) {}
    #[inline(always)]
    fn raise(&mut self, _: S, _: f64, _: Sum<S, T>, _: f64) {}
    #[inline(always)]
    fn totals(self) -> (f64, f64) {
        (0.0, 0.0)
    }
}

/// `sum q (x - reference)` and `sum q` for weights q. If `EVEN` they are 1 for all that is there, and only those of
/// parts are asked for; the bits are the same.
#[derive(Clone, Copy, Debug)]
pub struct Weighted<const EVEN: bool> {
    /// Whether 0 times infinity is to be 0, not NaN.
    pub guarded: bool,
}

impl<T: Exp, const EVEN: bool> Moments<T> for Weighted<EVEN> {
    const WEIGHTED: bool = !EVEN;
    const PARTS_WEIGHTED: bool = true;
    type Sums<S: Simd> = WeightedSums<S, T, EVEN>;
    #[inline(always)]
    fn zero<S: Simd>(self, simd: S) -> WeightedSums<S, T, EVEN> {
        let (moment, weight) = (BlockSum::zero(simd), BlockSum::zero(simd));
        WeightedSums { moment, weight, guarded: self.guarded }
    }
}

/// The sums of [`Weighted`].
pub struct WeightedSums<S: Simd, T: Float, const EVEN: bool> {
    moment: BlockSum<S, T>,
    weight: BlockSum<S, T>,
    guarded: bool,
}

impl<S: Simd, T: Exp, const EVEN: bool> Clone for WeightedSums<S, T, EVEN> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Simd, T: Exp, const EVEN: bool> Copy for WeightedSums<S, T, EVEN> {}

#[expect(private_interfaces, reason = "as above")]
impl<S: Simd, T: Exp, const EVEN: bool> Sums<S, T> for WeightedSums<S, T, EVEN> {
    #[inline(always)]
    fn add(&mut self, simd: S, Terms { d, weights, .. }: Terms<T::V<S>>, is_part: bool) {
        let ones = [Vector::splat(simd, T::ONE); UNROLL];
        let weights = if EVEN && !is_part { ones } else { weights };
        self.moment.add(dot(simd, weights, d, is_part || self.guarded));
        self.weight.add(sum_of(weights));
    }
    #[inline(always)]
    fn end_block(&mut self, simd: S) {
        self.moment.end_block(simd);
        self.weight.end_block(simd);
    }
    #[inline(always)]
    fn raise(&mut self, simd: S, by: f64, _: Sum<S, T>, _: f64) {
        self.moment.sum.add_scaled(simd, self.weight.sum, -by);
    }
    #[inline(always)]
    fn totals(self) -> (f64, f64) {
        (self.moment.sum.total(), self.weight.sum.total())
    }
}

/// `sum exp((x - reference) / T) (x - reference)`, from which the entropy comes, and how many logits are
/// greater than a given one.
#[derive(Clone, Copy, Debug)]
pub struct Statistics<T> {
    /// That logit.
    pub logit: T,
    /// Whether 0 times infinity is to be 0, not NaN.
    pub guarded: bool,
}

impl<T: Exp> Moments<T> for Statistics<T> {
    const WEIGHTED: bool = false;
    const PARTS_WEIGHTED: bool = false;
    type Sums<S: Simd> = StatisticsSums<S, T>;
    #[inline(always)]
    fn zero<S: Simd>(self, simd: S) -> StatisticsSums<S, T> {
        StatisticsSums {
            energy: BlockSum::zero(simd),
            logit: Vector::splat(simd, self.logit),
            greater: 0,
            guarded: self.guarded,
        }
    }
}

/// The sums of [`Statistics`].
pub struct StatisticsSums<S: Simd, T: Float> {
    energy: BlockSum<S, T>,
    logit: T::V<S>,
    greater: u32,
    guarded: bool,
}

impl<S: Simd, T: Exp> Clone for StatisticsSums<S, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Simd, T: Exp> Copy for StatisticsSums<S, T> {}

#[expect(private_interfaces, reason = "as above")]
impl<S: Simd, T: Exp> Sums<S, T> for StatisticsSums<S, T> {
    #[inline(always)]
    fn add(&mut self, simd: S, Terms { x, d, e, .. }: Terms<T::V<S>>, is_part: bool) {
        self.energy.add(dot(simd, e, d, is_part || self.guarded));
        self.greater += x.iter().map(|x| x.count_greater(self.logit)).sum::<u32>();
    }
    #[inline(always)]
    fn end_block(&mut self, simd: S) {
        self.energy.end_block(simd);
    }
    #[inline(always)]
    fn raise(&mut self, simd: S, by: f64, exponentials: Sum<S, T>, factor: f64) {
        self.energy.sum.add_scaled(simd, exponentials, -by);
        self.energy.sum = self.energy.sum.scaled(simd, factor);
    }
    #[inline(always)]
    fn totals(self) -> (f64, f64) {
        (self.energy.sum.total(), self.greater.into())
    }
}

/// A sum whose terms are added in working precision within a block: at most sixteen times four in each lane,
/// which keeps the error of the whole below that of its terms.
pub(super) struct BlockSum<S: Simd, T: Float> {
    block: T::V<S>,
    pub(super) sum: Sum<S, T>,
}

impl<S: Simd, T: Exp> Clone for BlockSum<S, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Simd, T: Exp> Copy for BlockSum<S, T> {}

impl<S: Simd, T: Exp> BlockSum<S, T> {
    #[inline(always)]
    pub(super) fn zero(simd: S) -> Self {
        Self { block: Vector::splat(simd, T::from_f64(0.0)), sum: Sum::zero(simd) }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, term: T::V<S>) {
        self.block = self.block.add(term);
    }

    #[inline(always)]
    pub(super) fn end_block(&mut self, simd: S) {
        self.sum.add(self.block.fold());
        self.block = Vector::splat(simd, T::from_f64(0.0));
    }
}

/// The sum of four vectors.
#[inline(always)]
pub(super) fn sum_of<S: Simd, V: Vector<S>>([a, b, c, d]: [V; UNROLL]) -> V {
    a.add(b).add(c.add(d))
}

/// The sum of the products of four vectors; if guarded, of nothing wherever the first factor is 0.
#[inline(always)]
fn dot<S: Simd, V: Vector<S, Scalar: Exp>>(
    simd: S,
    [a, b, c, d]: [V; UNROLL],
    factors: [V; UNROLL],
    guarded: bool,
) -> V {
    let [mut x, mut y, mut z, mut w] = factors;
    if guarded {
        (x, y) = (guard(simd, x, a), guard(simd, y, b));
        (z, w) = (guard(simd, z, c), guard(simd, w, d));
    }
    b.mul_add(y, a.mul(x)).add(d.mul_add(w, c.mul(z)))
}

/// `x`, 0 where `factor` is.
#[inline(always)]
fn guard<S: Simd, V: Vector<S, Scalar: Exp>>(simd: S, x: V, factor: V) -> V {
    let zero = V::splat(simd, V::Scalar::from_f64(0.0));
    let smallest = V::splat(simd, V::Scalar::SMALLEST);
    x.zero_where_less(factor.max(zero.sub(factor)), smallest)
}
