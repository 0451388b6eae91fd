//! Two chunks of logits compared: the sums of a measure, and the formula that writes its derivatives.

use super::UNROLL;
use super::chunk::Chunk;
use super::measure::{Classes, Measure, terms_of};
use super::moments::{BlockSum, sum_of};
use super::streams::{Streams, Visit};
use super::weights::Beside;
use super::write::Formula;
use crate::element::{Element, Wide};
use crate::exp::Exp;
use crate::simd::{Kernel, Simd, Vector};

/// Sums what a measure says of each class, over at most [`super::CHUNK`] of them.
pub struct Compare<'a, E: Element, M> {
    /// The logits of this row.
    pub chunk: Chunk<'a, E>,
    /// Those of the other row, under the same mask.
    pub other: Chunk<'a, E::Compute>,
    /// Both rows as wholes.
    pub classes: Classes<'a, E::Compute>,
    /// What is summed.
    pub measure: M,
}

impl<E: Element<Compute: Exp>, M: Measure<E::Compute>> Kernel for Compare<'_, E, M> {
    /// The measure's two sums, and `sum (q - p)`.
    type Output = [f64; 3];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f64; 3] {
        let both_plain = self.chunk.is_plain() && self.other.is_plain();
        if both_plain { self.pass::<S, true>(simd) } else { self.pass::<S, false>(simd) }
    }
}

impl<E: Element<Compute: Exp>, M: Measure<E::Compute>> Compare<'_, E, M> {
    #[inline(always)]
    fn pass<S: Simd, const PLAIN: bool>(self, simd: S) -> [f64; 3] {
        let Self { chunk, other, classes, measure } = self;
        let streams = Streams::new(chunk, Some(Beside::Logits(other)), None);
        let mut sums = Sums::<S, E, M> { sums: [BlockSum::zero(simd); 3], classes, measure };
        for block in streams.blocks() {
            streams.wholes::<S, _, PLAIN>(simd, block, &mut sums);
            sums.end_block(simd);
        }
        for part in streams.parts() {
            streams.part::<S, _, PLAIN>(simd, part, &mut sums);
            sums.end_block(simd);
        }
        let [first, second, surplus] = sums.sums;
        [first.sum.total(), second.sum.total(), surplus.sum.total()]
    }
}

/// The sums while they are taken.
struct Sums<'a, S: Simd, E: Element<Compute: Exp>, M> {
    sums: [BlockSum<S, E::Compute>; 3],
    classes: Classes<'a, E::Compute>,
    measure: M,
}

impl<S: Simd, E: Element<Compute: Exp>, M: Measure<E::Compute>> Sums<'_, S, E, M> {
    #[inline(always)]
    fn end_block(&mut self, simd: S) {
        let [first, second, surplus] = &mut self.sums;
        first.end_block(simd);
        if M::TWO {
            second.end_block(simd);
        }
        surplus.end_block(simd);
    }
}

impl<S: Simd, E: Element<Compute: Exp>, M: Measure<E::Compute>> Visit<S, E::Compute>
    for Sums<'_, S, E, M>
{
    const WANTS_BESIDE: bool = true;
    const WANTS_BESIDE_PARTS: bool = true;
    #[inline(always)]
    fn visit(&mut self, simd: S, x: [Wide<S, E>; UNROLL], other: [Wide<S, E>; UNROLL], _: bool) {
        // A loop that is not unrolled: one of these bodies is long enough to hide its own latencies, and four are
        // four times the code.
        let mut terms = [x; 3];
        for i in 0..UNROLL {
            let [first, second, surplus] =
                terms_of(simd, self.measure, self.classes, x[i], other[i]);
            terms[0][i] = first;
            terms[1][i] = second;
            terms[2][i] = surplus;
        }
        self.sums[0].add(sum_of(terms[0]));
        if M::TWO {
            self.sums[1].add(sum_of(terms[1]));
        }
        self.sums[2].add(sum_of(terms[2]));
    }
}

/// `scale` times the derivative of a measure.
#[derive(Clone, Copy)]
pub struct Nearer<'a, T, M> {
    /// Both rows as wholes.
    pub classes: Classes<'a, T>,
    /// The measure.
    pub measure: M,
    /// What all classes have in common: see [`Measure::slope`].
    pub center: T,
    /// The factor.
    pub scale: T,
}

impl<T: Exp, M: Measure<T>> Formula<T> for Nearer<'_, T, M> {
    const PLAIN: bool = false;
    const BESIDE: bool = true;
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: T::V<S>, slope: T::V<S>, other: T::V<S>) -> T::V<S> {
        let class = self.classes.of(simd, x, other);
        let center = <T::V<S> as Vector<S>>::splat(simd, self.center);
        let scale = <T::V<S> as Vector<S>>::splat(simd, self.scale);
        self.measure.slope(simd, class, center).mul(scale).mul(slope)
    }
}
