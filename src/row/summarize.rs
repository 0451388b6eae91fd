//! Maximum and sum of exponentials of a chunk, in one pass (points 1, 2 and 7 of the header of `row`).

use super::streams::{Streams, Visit};
use super::{Partial, UNROLL};
use crate::element::{Element, Wide};
use crate::exp::{Base, Exp, Powers, exp_difference, two_sum};
use crate::simd::{Float, Kernel, MAX_LANES, Number, Simd, Vector};
use std::cell::Cell;
use std::marker::PhantomData;

/// Steps of `UNROLL` vectors between two looks at the maximum.
const BLOCK: usize = 16;

/// Summarizes at most [`CHUNK`] logits, leaving out the one at `skip`, if any.
pub struct Summarize<'a, E: Element> {
    /// The logits.
    pub chunk: &'a [Cell<E>],
    /// The one to leave out.
    pub skip: Option<usize>,
    /// What to raise to.
    pub base: &'a Base<E::Compute>,
}

impl<E: Element<Compute: Exp>> Kernel for Summarize<'_, E> {
    type Output = Partial;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Partial {
        let Self { chunk, skip, base } = self;
        let streams = Streams::new(chunk, skip);
        let steps = streams.steps;
        let powers = base.splat(simd);

        let mut reference = f64::NEG_INFINITY;
        let mut seen = Seen::<S, E> {
            max: Vector::splat(simd, E::Compute::NEG_INFINITY),
            sum: Sum::zero(simd),
        };
        for start in (0..steps).step_by(BLOCK) {
            let block = start..(start + BLOCK).min(steps);
            if start == 0 {
                streams.each(simd, block.clone(), &mut Largest { max: &mut seen.max });
                reference = as_reference::<S, E>(seen.max);
            }
            let before = seen.sum;
            loop {
                let m = Vector::splat(simd, E::Compute::from_f64(reference));
                streams.each(simd, block.clone(), &mut Exponentials { seen: &mut seen, m, powers });
                let limit = E::Compute::from_f64(reference + base.temperature);
                if !seen.max.any_greater(Vector::splat(simd, limit)) {
                    break;
                }
                let raised = as_reference::<S, E>(seen.max);
                let factor = exp_difference(reference, raised, base.temperature);
                seen.sum = before.scaled(simd, factor);
                reference = raised;
            }
        }
        let sum = seen.sum.total();
        let max = largest(seen.max.to_array(E::Compute::NEG_INFINITY));
        Partial { max, sum: relative_to_max(chunk, skip, max, reference, sum, base.temperature) }
    }
}

/// What is known of a chunk so far.
struct Seen<S: Simd, E: Element> {
    max: Wide<S, E>,
    sum: Sum<S, E::Compute>,
}

/// Takes the maximum.
struct Largest<'a, V> {
    max: &'a mut V,
}

impl<S: Simd, V: Vector<S>> Visit<S, V> for Largest<'_, V> {
    #[inline(always)]
    fn visit(&mut self, _: S, x: [V; UNROLL]) {
        *self.max = max_of(*self.max, x);
    }
}

/// Takes the maximum and the sum of exponentials.
struct Exponentials<'a, S: Simd, E: Element> {
    seen: &'a mut Seen<S, E>,
    m: Wide<S, E>,
    powers: Powers<Wide<S, E>>,
}

impl<S: Simd, E: Element<Compute: Exp>> Visit<S, Wide<S, E>> for Exponentials<'_, S, E> {
    #[inline(always)]
    fn visit(&mut self, simd: S, x: [Wide<S, E>; UNROLL]) {
        let Self { seen, m, powers } = self;
        seen.max = max_of(seen.max, x);
        let [a, b, c, d] = x;
        let low = powers.exp(simd, a.sub(*m)).add(powers.exp(simd, b.sub(*m)));
        let high = powers.exp(simd, c.sub(*m)).add(powers.exp(simd, d.sub(*m)));
        seen.sum.add(low.add(high).fold());
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
    lanes.iter().fold(T::NEG_INFINITY, |max, &lane| if lane > max { lane } else { max }).to_f64()
}

/// The largest lane as a reference to subtract: finite, so that -inf less the reference is -inf.
#[inline(always)]
fn as_reference<S: Simd, E: Element>(max: Wide<S, E>) -> f64 {
    largest(max.to_array(E::Compute::NEG_INFINITY)).max(-E::Compute::MAX.to_f64())
}

/// A sum in eight lanes of doubles: what has been added, and in double precision also what the additions lost.
struct Sum<S: Simd, T> {
    high: S::F64,
    low: S::F64,
    precision: PhantomData<T>,
}

impl<S: Simd, T: Exp> Clone for Sum<S, T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Simd, T: Exp> Copy for Sum<S, T> {}

impl<S: Simd, T: Exp> Sum<S, T> {
    #[inline(always)]
    fn zero(simd: S) -> Self {
        let zero = Vector::splat(simd, 0.0);
        Self { high: zero, low: zero, precision: PhantomData }
    }

    #[inline(always)]
    fn add(&mut self, term: S::F64) {
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
    fn scaled(self, simd: S, factor: f64) -> Self {
        let factor = Vector::splat(simd, factor);
        Self { high: self.high.mul(factor), low: self.low.mul(factor), precision: PhantomData }
    }

    /// The sum over the lanes, always in the same order.
    #[inline(always)]
    fn total(self) -> f64 {
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
        high + low
    }
}

/// The sum relative to the maximum, from the sum relative to the reference.
fn relative_to_max<E: Element>(
    chunk: &[Cell<E>],
    skip: Option<usize>,
    max: f64,
    reference: f64,
    sum: f64,
    temperature: f64,
) -> f64 {
    if max == f64::INFINITY {
        // inf - inf made the sum NaN; only a look at the logits tells whether one of them is NaN.
        let is_nan = |x: &Cell<E>| x.get().widen().to_f64().is_nan();
        let nan = chunk.iter().enumerate().any(|(i, x)| Some(i) != skip && is_nan(x));
        if nan { f64::NAN } else { f64::INFINITY }
    } else if max == reference || sum == 0.0 {
        sum
    } else {
        sum * exp_difference(reference, max, temperature)
    }
}
