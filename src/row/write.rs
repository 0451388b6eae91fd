//! A part of a row written: each logit through a formula, past the caches if asked to.

use super::UNROLL;
use crate::element::{Element, load_padded, store_part};
use crate::exp::{Base, Exp};
use crate::simd::{Float, Kernel, Simd, Vector};
use std::cell::Cell;

/// What becomes of one logit when a row is written.
pub trait Formula<T: Float>: Copy {
    /// The output for each lane of `x`.
    fn apply<S: Simd>(self, simd: S, x: T::V<S>) -> T::V<S>;
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

impl<T: Exp> Formula<T> for Affine<'_, T> {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: T::V<S>) -> T::V<S> {
        let d = x.sub(Vector::splat(simd, self.max));
        let e = self.base.splat(simd).exp(simd, d);
        e.mul_add(Vector::splat(simd, self.alpha), Vector::splat(simd, self.beta))
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
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: T::V<S>) -> T::V<S> {
        let d = x.sub(Vector::splat(simd, self.max));
        d.mul_add(
            Vector::splat(simd, self.inverse_temperature),
            Vector::splat(simd, self.minus_log_sum),
        )
    }
}

/// Writes a part of a row; `from` and `to` have the same length and may be the same memory.
pub struct Write<'a, E: Element, O: Element<Compute = E::Compute>, F> {
    /// The logits.
    pub from: &'a [Cell<E>],
    /// Where the results go.
    pub to: &'a [Cell<O>],
    /// What becomes of a logit.
    pub formula: F,
    /// One element, and the value that it gets instead.
    pub patch: Option<(usize, E::Compute)>,
    /// Whether to write past the caches.
    pub stream: bool,
}

impl<E, O, F> Kernel for Write<'_, E, O, F>
where
    E: Element,
    O: Element<Compute = E::Compute>,
    F: Formula<E::Compute>,
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.stream { self.write::<S, true>(simd) } else { self.write::<S, false>(simd) }
    }
}

impl<E, O, F> Write<'_, E, O, F>
where
    E: Element,
    O: Element<Compute = E::Compute>,
    F: Formula<E::Compute>,
{
    #[inline(always)]
    fn write<S: Simd, const STREAM: bool>(self, simd: S) {
        let Self { from, to, formula, patch, .. } = self;
        let lanes = E::Compute::LANES;
        let step = UNROLL * lanes;
        let patched = patch.map_or(usize::MAX, |(at, _)| at);

        let mut start = if STREAM { unaligned_head(to).min(to.len()) } else { 0 };
        write_parts(simd, &from[..start], &to[..start], formula);
        while let (Some(x), Some(out)) =
            (from.get(start..start + step), to.get(start..start + step))
        {
            // All loads come before the first store, so that the streams of reads and writes alternate
            // in whole groups. A step that is patched is stored ordinarily: a scalar store into a line
            // that is on its way to memory would have to fetch it back.
            if STREAM && patched.wrapping_sub(start) < step {
                write_parts(simd, x, out, formula);
            } else {
                let a = formula.apply(simd, E::load(simd, x));
                let b = formula.apply(simd, E::load(simd, &x[lanes..]));
                let c = formula.apply(simd, E::load(simd, &x[2 * lanes..]));
                let d = formula.apply(simd, E::load(simd, &x[3 * lanes..]));
                O::store::<S, STREAM>(simd, out, a);
                O::store::<S, STREAM>(simd, &out[lanes..], b);
                O::store::<S, STREAM>(simd, &out[2 * lanes..], c);
                O::store::<S, STREAM>(simd, &out[3 * lanes..], d);
            }
            start += step;
        }
        write_parts(simd, &from[start..], &to[start..], formula);
        if let Some((at, value)) = patch {
            to[at].set(O::narrow(value));
        }
    }
}

/// Elements before the first whose address is a multiple of 64.
#[inline(always)]
fn unaligned_head<E>(to: &[Cell<E>]) -> usize {
    to.as_ptr().addr().wrapping_neg() % 64 / size_of::<E>()
}

/// Writes with ordinary stores, in vectors as far as they reach.
#[inline(always)]
fn write_parts<S: Simd, E: Element, O: Element<Compute = E::Compute>, F: Formula<E::Compute>>(
    simd: S,
    from: &[Cell<E>],
    to: &[Cell<O>],
    formula: F,
) {
    let lanes = E::Compute::LANES;
    for (x, out) in from.chunks(lanes).zip(to.chunks(lanes)) {
        if x.len() == lanes {
            O::store::<S, false>(simd, out, formula.apply(simd, E::load(simd, x)));
        } else {
            store_part(simd, out, formula.apply(simd, load_padded(simd, x)));
        }
    }
}
