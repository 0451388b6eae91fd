//! A part of a row written: each logit through a formula, past the caches if asked to.

use super::UNROLL;
use super::chunk::{Chunk, Lanes};
use super::weights::Beside;
use crate::element::{Element, Wide, keep};
use crate::exp::{Base, Exp};
use crate::simd::{Float, Kernel, Simd, Vector};
use std::cell::Cell;

/// What becomes of one logit when a row is written.
pub trait Formula<T: Float>: Copy {
    /// Whether plain logits have a path of their own.
    const PLAIN: bool;
    /// Whether it wants what is read beside each logit.
    const BESIDE: bool;
    /// The output for each lane of `x`; `slope` is the derivative of `x` with respect to what lies in memory,
    /// `beside` what is read with `x`, 1 if that is nothing.
    fn apply<S: Simd>(self, simd: S, x: T::V<S>, slope: T::V<S>, beside: T::V<S>) -> T::V<S>;
}

/// `alpha exp((x - max) / temperature) + beta`
#[derive(Clone, Copy)]
pub struct Affine<'a, T> {
    /// The row's maximum.
    pub max: T,
    /// What to raise to.
    pub base: &'a Base<T>,
    /// The factor, the row's sum divided out.
    pub alpha: T,
    /// The same for every class.
    pub beta: T,
}

impl<T: Exp> Affine<'_, T> {
    #[inline(always)]
    fn exponential<S: Simd>(self, simd: S, x: T::V<S>) -> T::V<S> {
        self.base.splat(simd).exp(simd, x.sub(Vector::splat(simd, self.max)))
    }
}

impl<T: Exp> Formula<T> for Affine<'_, T> {
    const PLAIN: bool = true;
    const BESIDE: bool = false;
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: T::V<S>, _: T::V<S>, _: T::V<S>) -> T::V<S> {
        let alpha = Vector::splat(simd, self.alpha);
        self.exponential(simd, x).mul_add(alpha, Vector::splat(simd, self.beta))
    }
}

/// `(alpha exp((x - max) / temperature) + beta weight) slope`: [`Affine`] with a weight for each class, as
/// the derivative with respect to what lies in memory.
#[derive(Clone, Copy)]
pub struct Slope<'a, T>(pub Affine<'a, T>);

impl<T: Exp> Formula<T> for Slope<'_, T> {
    const PLAIN: bool = true;
    const BESIDE: bool = true;
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: T::V<S>, slope: T::V<S>, weight: T::V<S>) -> T::V<S> {
        let alpha = Vector::splat(simd, self.0.alpha);
        let beta = weight.mul(Vector::splat(simd, self.0.beta));
        self.0.exponential(simd, x).mul_add(alpha, beta).mul(slope)
    }
}

/// `alpha e (1 + beta e)` with `e = exp((x - max) / temperature)`: the diagonal of the Hessian, `p (1 - p)`, where
/// beta is minus one over the row's sum. At a class that outweighs all others the difference has few digits; the
/// writer patches it.
#[derive(Clone, Copy)]
pub struct Hessian<'a, T>(pub Affine<'a, T>);

impl<T: Exp> Formula<T> for Hessian<'_, T> {
    const PLAIN: bool = true;
    const BESIDE: bool = false;
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: T::V<S>, _: T::V<S>, _: T::V<S>) -> T::V<S> {
        let e = self.0.exponential(simd, x);
        let one = Vector::splat(simd, T::ONE);
        let rest = e.mul_add(Vector::splat(simd, self.0.beta), one);
        e.mul(Vector::splat(simd, self.0.alpha)).mul(rest)
    }
}

/// `(x - max) / temperature - log_sum`
#[derive(Clone, Copy)]
pub struct Logarithm<T> {
    /// The row's maximum.
    pub max: T,
    /// One over the temperature.
    pub inverse_temperature: T,
    /// The logarithm of the row's sum, negated.
    pub minus_log_sum: T,
}

impl<T: Float> Formula<T> for Logarithm<T> {
    const PLAIN: bool = true;
    const BESIDE: bool = false;
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: T::V<S>, _: T::V<S>, _: T::V<S>) -> T::V<S> {
        let d = x.sub(Vector::splat(simd, self.max));
        d.mul_add(
            Vector::splat(simd, self.inverse_temperature),
            Vector::splat(simd, self.minus_log_sum),
        )
    }
}

/// Writes a part of a row; the logits and `to` have the same length and may be the same memory.
pub struct Write<'a, E: Element, O: Element<Compute = E::Compute>, F> {
    /// The logits.
    pub from: Chunk<'a, E>,
    /// Where the results go.
    pub to: &'a [Cell<O>],
    /// What becomes of a logit.
    pub formula: F,
    /// What stands where a class is masked.
    pub masked: E::Compute,
    /// What the formula wants beside each logit; 1 if there is nothing.
    pub beside: Option<Beside<'a, E>>,
    /// One element, and the value that it gets instead, unless it is masked.
    pub patch: Option<(usize, E::Compute)>,
    /// Whether to write past the caches.
    pub stream: bool,
    /// Elements from the logits to those that are read next and are to be asked for meanwhile; 0 if there are none.
    pub next: usize,
}

impl<E, O, F> Kernel for Write<'_, E, O, F>
where
    E: Element<Compute: Exp>,
    O: Element<Compute = E::Compute>,
    F: Formula<E::Compute>,
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // Two loops where it is worth the code; elsewhere one that asks with every step.
        let beside = self.beside.and_then(|beside| beside.in_place(&self.from));
        let is_plain = self.from.is_plain() && F::BESIDE == beside.is_some();
        match (F::PLAIN && is_plain, self.stream) {
            (true, true) => self.write::<S, true>(simd, true, beside),
            (true, false) => self.write::<S, true>(simd, false, beside),
            (false, stream) => self.write::<S, false>(simd, stream, beside),
        }
    }
}

impl<E, O, F> Write<'_, E, O, F>
where
    E: Element<Compute: Exp>,
    O: Element<Compute = E::Compute>,
    F: Formula<E::Compute>,
{
    #[inline(always)]
    fn write<S: Simd, const PLAIN: bool>(
        self,
        simd: S,
        stream: bool,
        beside: Option<&[Cell<E::Compute>]>,
    ) {
        let to = self.to;
        let lanes = E::Compute::LANES;
        let step = UNROLL * lanes;
        let masked = |at: usize| self.from.mask.is_some_and(|mask| mask[at].get() == 0);
        let patch = self.patch.filter(|&(at, _)| !masked(at));

        let head = if stream { unaligned_head(to).min(to.len()) } else { 0 };
        if stream {
            // The last line is shared with the next row, and stored to ordinarily: that would wait for it.
            simd.prefetch(to.as_ptr_range().end.wrapping_sub(1));
        }
        self.write_parts::<S, PLAIN>(simd, 0, head);
        let mut start = head;
        while let Some(out) = to.get(start..start + step) {
            if stream && self.next > 0 {
                self.prefetch_next(simd, start);
            }
            // All loads come before the first store, so that the streams of reads and writes alternate
            // in whole groups.
            let mut values = if PLAIN {
                [
                    self.value::<S, PLAIN>(simd, start, beside),
                    self.value::<S, PLAIN>(simd, start + lanes, beside),
                    self.value::<S, PLAIN>(simd, start + 2 * lanes, beside),
                    self.value::<S, PLAIN>(simd, start + 3 * lanes, beside),
                ]
            } else {
                // A loop: options make the body long, and four of it four times the code.
                let mut values = [Vector::splat(simd, self.masked); UNROLL];
                for (i, value) in values.iter_mut().enumerate() {
                    *value = self.value::<S, PLAIN>(simd, start + i * lanes, beside);
                }
                values
            };
            // Here and not in memory: a line that is on its way there would have to be fetched back.
            if let Some((at, value)) = patch.filter(|&(at, _)| at.wrapping_sub(start) < step) {
                for (i, values) in values.iter_mut().enumerate() {
                    let lane = (at - start).wrapping_sub(i * lanes);
                    if lane < lanes {
                        *values = values.with_lane(simd, lane, value);
                    }
                }
            }
            let [a, b, c, d] = values;
            if stream {
                O::store::<S, true>(simd, out, a);
                O::store::<S, true>(simd, &out[lanes..], b);
                O::store::<S, true>(simd, &out[2 * lanes..], c);
                O::store::<S, true>(simd, &out[3 * lanes..], d);
            } else {
                O::store::<S, false>(simd, out, a);
                O::store::<S, false>(simd, &out[lanes..], b);
                O::store::<S, false>(simd, &out[2 * lanes..], c);
                O::store::<S, false>(simd, &out[3 * lanes..], d);
            }
            start += step;
        }
        self.write_parts::<S, PLAIN>(simd, start, to.len());
        if let Some((at, value)) = patch.filter(|(at, _)| !(head..start).contains(at)) {
            to[at].set(O::narrow(value));
        }
    }

    /// Asks for as many of the logits that are read next as a step writes.
    #[inline(always)]
    fn prefetch_next<S: Simd>(&self, simd: S, start: usize) {
        let next = self.from.cells.as_ptr().wrapping_add(start + self.next);
        for i in 0..UNROLL {
            simd.prefetch_far(next.wrapping_add(i * E::Compute::LANES));
        }
    }

    /// Writes with ordinary stores, in vectors as far as they reach.
    #[inline(always)]
    fn write_parts<S: Simd, const PLAIN: bool>(&self, simd: S, start: usize, end: usize) {
        for at in (start..end).step_by(E::Compute::LANES) {
            let value = self.part::<S, PLAIN>(simd, Lanes { at, end, skip: None });
            O::store_part(simd, &self.to[at..end], value);
        }
    }

    /// The results of a whole vector; `in_place` is what stands beside the logits, if it is in memory as it is used.
    #[inline(always)]
    fn value<S: Simd, const PLAIN: bool>(
        &self,
        simd: S,
        at: usize,
        in_place: Option<&[Cell<E::Compute>]>,
    ) -> Wide<S, E> {
        let (x, slope) = self.from.load::<S, PLAIN>(simd, at);
        let beside = match (in_place, &self.beside) {
            (Some(cells), _) if F::BESIDE => E::Compute::load(simd, &cells[at..]),
            (None, Some(beside)) if F::BESIDE && !PLAIN => beside.load(simd, &self.from, at),
            _ => Vector::splat(simd, E::Compute::ONE),
        };
        let result = self.formula.apply(simd, x, slope, beside);
        match self.from.mask {
            Some(mask) if !PLAIN => keep(result, &mask[at..], Vector::splat(simd, self.masked)),
            _ => result,
        }
    }

    /// The results of a vector that may not be whole.
    #[inline(always)]
    fn part<S: Simd, const PLAIN: bool>(&self, simd: S, lanes: Lanes) -> Wide<S, E> {
        let (x, slope) = self.from.load_part::<S, PLAIN>(simd, lanes);
        let beside = match &self.beside {
            Some(beside) if F::BESIDE => beside.load_part(simd, &self.from, lanes),
            _ => Vector::splat(simd, E::Compute::ONE),
        };
        let result = self.formula.apply(simd, x, slope, beside);
        if PLAIN {
            return result;
        }
        self.from.keep(result, lanes, Vector::splat(simd, self.masked))
    }
}

/// Elements before the first whose address is a multiple of 64.
#[inline(always)]
fn unaligned_head<E>(to: &[Cell<E>]) -> usize {
    to.as_ptr().addr().wrapping_neg() % 64 / size_of::<E>()
}
