//! Maximum and sum of exponentials of a chunk, and what else is asked for, in one pass (points 1, 2 and 7 of
//! the header of `row`).

use super::chunk::Chunk;
use super::moments::{Moments, Sums, Terms, sum_of};
use super::streams::{Streams, Visit};
use super::sum::Sum;
use super::weights::{Beside, Weights};
use super::{Partial, UNROLL};
use crate::element::{Element, Wide};
use crate::exp::{Base, Exp, Outside, Powers, exp_difference};
use crate::simd::{Float, Kernel, MAX_LANES, Number, Simd, Vector};
use std::ops::Range;

/// Summarizes at most [`super::CHUNK`] logits, leaving out the one at `skip`, if any. Returns with the
/// summary the two sums of the moments.
pub struct Summarize<'a, E: Element, M> {
    /// The logits.
    pub chunk: Chunk<'a, E>,
    /// The one to leave out.
    pub skip: Option<usize>,
    /// What to raise to.
    pub base: &'a Base<E::Compute>,
    /// What else to sum.
    pub moments: M,
    /// What it is weighted with, if it wants weights.
    pub weights: Option<Weights<'a, E>>,
}

impl<E: Element<Compute: Exp>, M: Moments<E::Compute>> Kernel for Summarize<'_, E, M> {
    type Output = (Partial, (f64, f64));

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        if self.chunk.is_plain() { self.pass::<S, true>(simd) } else { self.pass::<S, false>(simd) }
    }
}

impl<E: Element<Compute: Exp>, M: Moments<E::Compute>> Summarize<'_, E, M> {
    #[inline(always)]
    fn pass<S: Simd, const PLAIN: bool>(self, simd: S) -> (Partial, (f64, f64)) {
        let Self { chunk, skip, base, moments, weights } = self;
        let streams = Streams::new(chunk, weights.map(Beside::Weights), skip);
        let mut pass = Pass::<S, E, M, PLAIN> {
            simd,
            streams: &streams,
            base,
            powers: base.splat(simd),
            reference: f64::NEG_INFINITY,
            carefully: false,
            seen: Seen {
                max: Vector::splat(simd, E::Compute::NEG_INFINITY),
                sum: Sum::zero(simd),
                moments: moments.zero(simd),
            },
        };
        pass.refer_to_largest();
        for block in streams.blocks() {
            pass.add(block);
        }
        for part in streams.parts() {
            pass.add_carefully::<true>(part..part + 1);
        }
        let Pass { reference, mut seen, .. } = pass;
        let sum = seen.sum.total();
        let is_logit = reference > -E::Compute::MAX.to_f64();
        if !M::NEEDS_MAX && is_logit && !sum.is_nan() {
            return (Partial { max: reference, sum, ..Partial::EMPTY }, seen.moments.totals());
        }
        let max = largest(seen.max.to_array(E::Compute::NEG_INFINITY));
        if max == f64::INFINITY {
            // inf - inf made the sum NaN; only a look at the logits tells whether one of them is NaN.
            let sum = if has_nan(chunk, skip) { f64::NAN } else { f64::INFINITY };
            return (Partial { max, sum, ..Partial::EMPTY }, (f64::NAN, f64::NAN));
        }
        if max != reference && max != f64::NEG_INFINITY {
            seen = seen.raised(simd, reference, max, base.temperature);
        }
        let partial = Partial { max, sum: seen.sum.total(), ..Partial::EMPTY };
        (partial, seen.moments.totals())
    }
}

/// A pass over a chunk, block by block.
struct Pass<'a, S: Simd, E: Element<Compute: Exp>, M: Moments<E::Compute>, const PLAIN: bool> {
    simd: S,
    streams: &'a Streams<'a, E>,
    base: &'a Base<E::Compute>,
    powers: Powers<Wide<S, E>>,
    /// What the sums are relative to.
    reference: f64,
    /// Whether exponentials are likely to be outside of their window.
    carefully: bool,
    seen: Seen<S, E, M>,
}

impl<S, E, M, const PLAIN: bool> Pass<'_, S, E, M, PLAIN>
where
    S: Simd,
    E: Element<Compute: Exp>,
    M: Moments<E::Compute>,
{
    /// Takes the largest logit of the first block for the reference; where there is none, of the first part.
    #[inline(always)]
    fn refer_to_largest(&mut self) {
        let Self { simd, streams, .. } = *self;
        let least = -E::Compute::MAX.to_f64();
        let mut largest = Largest { max: self.seen.max };
        if let Some(block) = streams.blocks().next() {
            streams.wholes::<S, _, PLAIN>(simd, block, &mut largest);
            self.reference = as_reference::<S, E>(largest.max);
        }
        if self.reference <= least
            && let Some(part) = streams.parts().next()
        {
            streams.part::<S, _, PLAIN>(simd, part, &mut largest);
            self.reference = as_reference::<S, E>(largest.max);
        }
        self.carefully = self.reference <= least;
    }

    /// Adds whole steps.
    #[inline(always)]
    fn add(&mut self, steps: Range<usize>) {
        let carelessly = PLAIN && !M::NEEDS_MAX && !self.carefully;
        if carelessly && self.add_within_window(steps.clone()) {
            return;
        }
        let before = self.reference;
        self.add_carefully::<false>(steps);
        // If it was not for a larger logit, there are very small ones, here and most likely in what follows.
        self.carefully |= carelessly && self.reference == before;
    }

    /// Adds whole steps, or the one of a part, with a look at the maximum; if that is above the window around the
    /// reference, they are added once more, relative to a new one.
    #[inline(always)]
    fn add_carefully<const PART: bool>(&mut self, steps: Range<usize>) {
        let Self { simd, streams, base, powers, .. } = *self;
        let before = self.seen;
        loop {
            let m = Vector::splat(simd, E::Compute::from_f64(self.reference));
            let (seen, pairs) = (&mut self.seen, Pairs::none(simd));
            let mut exponentials = Exponentials { seen, m, powers, pairs };
            if PART {
                streams.part::<S, _, PLAIN>(simd, steps.start, &mut exponentials);
            } else {
                streams.wholes::<S, _, PLAIN>(simd, steps.clone(), &mut exponentials);
            }
            exponentials.end_block(simd);
            if !powers.any_above_window(simd, self.seen.max.sub(m)) {
                return;
            }
            let raised = as_reference::<S, E>(self.seen.max);
            self.seen = before
                .raised(simd, self.reference, raised, base.temperature)
                .with_max(self.seen.max);
            self.reference = raised;
        }
    }

    /// Adds whole steps without a look at the maximum, with the same bits, provided that all logits are within the window
    /// around the reference in which exponentials need no care; if one is not, nothing is added.
    #[inline(always)]
    fn add_within_window(&mut self, steps: Range<usize>) -> bool {
        let Self { simd, streams, powers, .. } = *self;
        let mut exponentials = WithinWindow::<S, E> {
            sum: self.seen.sum,
            m: Vector::splat(simd, E::Compute::from_f64(self.reference)),
            powers,
            outside: Outside::none(simd),
            pairs: Pairs::none(simd),
        };
        streams.wholes::<S, _, PLAIN>(simd, steps, &mut exponentials);
        let WithinWindow { mut sum, outside, mut pairs, .. } = exponentials;
        pairs.end(simd, &mut sum);
        let is_within = !outside.any(simd);
        if is_within {
            self.seen.sum = sum;
        }
        is_within
    }
}

/// What is known of a chunk so far.
struct Seen<S: Simd, E: Element<Compute: Exp>, M: Moments<E::Compute>> {
    max: Wide<S, E>,
    sum: Sum<S, E::Compute>,
    moments: M::Sums<S>,
}

impl<S: Simd, E: Element<Compute: Exp>, M: Moments<E::Compute>> Clone for Seen<S, E, M> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Simd, E: Element<Compute: Exp>, M: Moments<E::Compute>> Copy for Seen<S, E, M> {}

impl<S: Simd, E: Element<Compute: Exp>, M: Moments<E::Compute>> Seen<S, E, M> {
    /// The same relative to another reference.
    #[inline(always)]
    fn raised(mut self, simd: S, reference: f64, raised: f64, temperature: f64) -> Self {
        let factor = exp_difference(reference, raised, temperature);
        // Finite, so that 0 times it is 0.
        let by = (raised - reference).clamp(-f64::MAX, f64::MAX);
        self.moments.raise(simd, by, self.sum, factor);
        self.sum = self.sum.scaled(simd, factor);
        self
    }

    #[inline(always)]
    fn with_max(self, max: Wide<S, E>) -> Self {
        Self { max, ..self }
    }
}

/// Takes the maximum.
struct Largest<V> {
    max: V,
}

impl<S: Simd, T: Exp> Visit<S, T> for Largest<T::V<S>> {
    const IS_FIRST: bool = true;
    const WANTS_BESIDE: bool = false;
    const WANTS_BESIDE_PARTS: bool = false;
    #[inline(always)]
    fn visit(&mut self, _: S, x: [T::V<S>; UNROLL], _: [T::V<S>; UNROLL], _: bool) {
        self.max = max_of(self.max, x);
    }
}

/// Four vectors of exponentials, added, that wait for those of the next four before both are folded into doubles.
struct Pairs<V> {
    waiting: V,
    /// Whether there are any.
    waits: bool,
}

impl<V: Copy> Pairs<V> {
    #[inline(always)]
    fn none<S: Simd>(simd: S) -> Self
    where
        V: Vector<S, Scalar: Exp>,
    {
        Self { waiting: V::splat(simd, V::Scalar::from_f64(0.0)), waits: false }
    }

    /// Adds four vectors.
    #[inline(always)]
    fn add<S: Simd>(&mut self, simd: S, four: V, sum: &mut Sum<S, V::Scalar>)
    where
        V: Vector<S, Scalar: Exp>,
    {
        self.waiting = self.waiting.add(four);
        if self.waits {
            self.fold(simd, sum);
        } else {
            self.waits = true;
        }
    }

    /// Adds what still waits.
    #[inline(always)]
    fn end<S: Simd>(&mut self, simd: S, sum: &mut Sum<S, V::Scalar>)
    where
        V: Vector<S, Scalar: Exp>,
    {
        if self.waits {
            self.fold(simd, sum);
        }
    }

    #[inline(always)]
    fn fold<S: Simd>(&mut self, simd: S, sum: &mut Sum<S, V::Scalar>)
    where
        V: Vector<S, Scalar: Exp>,
    {
        sum.add(self.waiting.fold());
        *self = Self::none(simd);
    }
}

/// Takes the maximum, the sum of exponentials and the moments.
struct Exponentials<'a, S: Simd, E: Element<Compute: Exp>, M: Moments<E::Compute>> {
    seen: &'a mut Seen<S, E, M>,
    m: Wide<S, E>,
    powers: Powers<Wide<S, E>>,
    pairs: Pairs<Wide<S, E>>,
}

impl<S: Simd, E: Element<Compute: Exp>, M: Moments<E::Compute>> Exponentials<'_, S, E, M> {
    #[inline(always)]
    fn end_block(mut self, simd: S) {
        self.pairs.end(simd, &mut self.seen.sum);
        self.seen.moments.end_block(simd);
    }
}

impl<S: Simd, E: Element<Compute: Exp>, M: Moments<E::Compute>> Visit<S, E::Compute>
    for Exponentials<'_, S, E, M>
{
    const WANTS_BESIDE: bool = M::WEIGHTED;
    const WANTS_BESIDE_PARTS: bool = M::PARTS_WEIGHTED;
    #[inline(always)]
    fn visit(
        &mut self,
        simd: S,
        x: [Wide<S, E>; UNROLL],
        weights: [Wide<S, E>; UNROLL],
        is_part: bool,
    ) {
        let Self { seen, m, powers, .. } = self;
        seen.max = max_of(seen.max, x);
        let [a, b, c, d] = x;
        let d = [a.sub(*m), b.sub(*m), c.sub(*m), d.sub(*m)];
        let e = [
            powers.exp(simd, d[0]),
            powers.exp(simd, d[1]),
            powers.exp(simd, d[2]),
            powers.exp(simd, d[3]),
        ];
        seen.moments.add(simd, Terms { x, d, e, weights }, is_part);
        self.pairs.add(simd, sum_of(e), &mut seen.sum);
    }
}

/// Takes the sum of exponentials of whole steps, and whether they all are within the window.
struct WithinWindow<S: Simd, E: Element<Compute: Exp>> {
    sum: Sum<S, E::Compute>,
    m: Wide<S, E>,
    powers: Powers<Wide<S, E>>,
    outside: Outside<Wide<S, E>>,
    pairs: Pairs<Wide<S, E>>,
}

impl<S: Simd, E: Element<Compute: Exp>> Visit<S, E::Compute> for WithinWindow<S, E> {
    const WANTS_BESIDE: bool = false;
    const WANTS_BESIDE_PARTS: bool = false;
    #[inline(always)]
    fn visit(&mut self, simd: S, x: [Wide<S, E>; UNROLL], _: [Wide<S, E>; UNROLL], _: bool) {
        let Self { m, powers, outside, .. } = *self;
        let [a, b, c, d] = x;
        let (a, p) = powers.exp_within(simd, a.sub(m));
        let (b, q) = powers.exp_within(simd, b.sub(m));
        let (c, r) = powers.exp_within(simd, c.sub(m));
        let (d, s) = powers.exp_within(simd, d.sub(m));
        self.outside = outside.or(simd, p).or(simd, q).or(simd, r).or(simd, s);
        self.pairs.add(simd, sum_of([a, b, c, d]), &mut self.sum);
    }
}

/// The larger of `max` and four vectors, lane by lane.
#[inline(always)]
fn max_of<S: Simd, V: Vector<S>>(max: V, [a, b, c, d]: [V; UNROLL]) -> V {
    max.max(a.max(b).max(c.max(d)))
}

/// The largest lane that is not NaN.
#[inline(always)]
fn largest<T: Float>(lanes: [T; MAX_LANES]) -> f64 {
    let greater = |a: T, b: T| if a > b { a } else { b };
    // Halves on halves: one lane after the other would wait sixteen times for a comparison.
    let mut lanes = lanes.map(|lane| greater(lane, T::NEG_INFINITY));
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = greater(lanes[i + half], lanes[i]);
        }
    }
    lanes[0].to_f64()
}

/// The largest lane as a reference to subtract: finite, so that -inf less the reference is -inf.
#[inline(always)]
fn as_reference<S: Simd, E: Element>(max: Wide<S, E>) -> f64 {
    largest(max.to_array(E::Compute::NEG_INFINITY)).max(-E::Compute::MAX.to_f64())
}

fn has_nan<E: Element>(chunk: Chunk<'_, E>, skip: Option<usize>) -> bool {
    let counts = |i| Some(i) != skip && chunk.mask.is_none_or(|mask| mask[i].get() != 0);
    chunk.cells.iter().enumerate().any(|(i, x)| counts(i) && x.get().widen().to_f64().is_nan())
}
