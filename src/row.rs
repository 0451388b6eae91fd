//! The row kernel: summarize a row, write a row. It never learns what a loss is.
//!
//! ```text
//! summarize(x):     M = max x_i,   S = sum exp((x_i - M) / T)
//! write(x):         out_i = alpha exp((x_i - M) / T) + beta          probabilities, gradients
//! write_log(x):     out_i = (x_i - M) / T - log S                    log-probabilities
//! ```
//!
//! That is all the mathematics. The departures:
//!
//! 1. *One pass.* The sum is taken against a reference that is close to the maximum seen so far. Only when a
//!    block's maximum exceeds the reference by more than the temperature (a factor e in the exponentials)
//!    is the reference raised and that block done again. The margin is no more than that because the rounding
//!    of `x - reference` grows with the distance. The first block's reference is its maximum, found in a
//!    pass of its own over 4 KiB. Taking maximum and sum of every block in two phases reached 70 % of the
//!    read limit where this reaches 90-96 %.
//! 2. *Sums in double precision.* Four vectors of exponentials are added pairwise in working precision, the
//!    result is folded into eight doubles. Every addition in doubles would cost a quarter of the speed in
//!    cache; longer chains in single precision lose small terms beside a large one. Sums of doubles carry the
//!    rounding errors along: without, a row of one large logit and 50,000 small ones was 600 ulp off.
//! 3. *One element can be left out* of the summary (the target's). The loss `log1p(others / target)` of a
//!    confident row is then exact, where `lse - x_y` would cancel to nothing.
//! 4. *Four streams.* A chunk is cut into four quarters that are read side by side, one vector of each in a step.
//!    The processor's prefetcher follows every stream some twenty lines ahead, and no further; a single stream
//!    leaves the memory idle while the exponentials are computed. With four, a software prefetch 1 KiB ahead
//!    pays as well. Measured from memory on one thread, in GB/s, where reading alone reaches 16.4: one stream
//!    8.3, with prefetch at the best distance 9.1 (12.0 into L2); two streams 10.8; eight 13.8; four 13.7, with
//!    prefetch 256 bytes ahead 15.8, 512 16.6, 1024 17.4, 2048 17.4, 4096 16.2, 8192 14.5. In cache none of
//!    this changes anything (25 GB/s).
//! 5. *Long rows in chunks* of [`CHUNK`] elements, always cut at the same places whoever computes them, and
//!    merged from left to right, so that many threads can share a row and the bits are the same.
//! 6. *The tail of a chunk is padding* with -inf, whose exponential is exactly 0; never a second loop.
//! 7. NaN is sticky in the sum, though the maximum may drop it. Infinity is a maximum like any other; the
//!    sum says whether a NaN was there as well.
//!
//! The write pass reads the row a second time, from cache if it fits, and computes the exponential again.
//! Keeping the exponentials in a scratch row instead is worth 3 % at 128,000 columns, and can't be done in
//! place.

use crate::element::{Element, Wide, load_padded, store_part};
use crate::exp::{Base, Exp, Powers, exp_difference, two_sum};
use crate::simd::{Float, Kernel, MAX_LANES, Number, Simd, Vector};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

/// Elements that are summarized in one go.
pub const CHUNK: usize = 32_768;

/// Vectors in flight at a time: enough to hide the latency of the exponential. In the summary each comes from
/// a stream of its own.
const UNROLL: usize = 4;
/// How far ahead of a stream to prefetch, in bytes.
const PREFETCH: usize = 1024;
/// Steps of `UNROLL` vectors between two looks at the maximum.
const BLOCK: usize = 16;

/// Maximum and sum of exponentials of a part of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Partial {
    /// The largest logit; -inf of nothing.
    pub max: f64,
    /// The sum of `exp((x - max) / temperature)`; NaN if there is a NaN, +inf if the maximum is +inf.
    pub sum: f64,
}

impl Partial {
    /// The summary of no logits at all.
    pub const EMPTY: Self = Self { max: f64::NEG_INFINITY, sum: 0.0 };

    /// The summary of both parts.
    pub fn merge(self, other: Self, temperature: f64) -> Self {
        let max = if self.max > other.max { self.max } else { other.max };
        let at = |part: Self| {
            // Equal maxima first: the difference of two infinities is not a number.
            if part.max == max || part.sum == 0.0 {
                part.sum
            } else {
                part.sum * exp_difference(part.max, max, temperature)
            }
        };
        Self { max, sum: at(self) + at(other) }
    }
}

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

/// What is done with four vectors. (A trait and not a closure: only so is it sure to be inlined.)
trait Visit<S: Simd, V> {
    fn visit(&mut self, simd: S, x: [V; UNROLL]);
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

/// A chunk as four streams of the same number of vectors, the last ones padded.
struct Streams<'a, E> {
    quarters: [&'a [Cell<E>]; UNROLL],
    /// Vectors in a stream.
    steps: usize,
    /// Steps at which all four vectors are whole.
    whole: usize,
    /// The stream, and the place in it, of the element to leave out.
    skip: Option<(usize, usize)>,
    /// The step of that element.
    skip_step: usize,
}

impl<'a, E: Element> Streams<'a, E> {
    #[inline(always)]
    fn new(chunk: &'a [Cell<E>], skip: Option<usize>) -> Self {
        let lanes = E::Compute::LANES;
        let steps = chunk.len().div_ceil(UNROLL * lanes);
        let quarter = steps * lanes;
        let bound = |i: usize| (i * quarter).min(chunk.len());
        let quarters = std::array::from_fn(|i| &chunk[bound(i)..bound(i + 1)]);
        let skip = skip.map(|at| (at / quarter, at % quarter));
        let skip_step = skip.map_or(usize::MAX, |(_, at)| at / lanes);
        Self { quarters, steps, whole: quarters[UNROLL - 1].len() / lanes, skip, skip_step }
    }

    /// Visits some steps. The loop over whole ones has no branch for the others in it, which would cost a fifth
    /// of its speed in cache.
    #[inline(always)]
    fn each<S: Simd>(&self, simd: S, steps: Range<usize>, visitor: &mut impl Visit<S, Wide<S, E>>) {
        let mut next = steps.start;
        while next < steps.end {
            let skips = (next..self.whole).contains(&self.skip_step);
            let stop = if skips { self.skip_step } else { self.whole.max(next) }.min(steps.end);
            for step in next..stop {
                visitor.visit(simd, self.load(simd, step));
            }
            if stop < steps.end {
                visitor.visit(simd, self.load_patched(simd, stop));
            }
            next = stop + 1;
        }
    }

    /// The vectors of a step at which all are whole.
    #[inline(always)]
    fn load<S: Simd>(&self, simd: S, step: usize) -> [Wide<S, E>; UNROLL] {
        let lanes = E::Compute::LANES;
        let [a, b, c, d] = self.quarters;
        let at = step * lanes..step * lanes + lanes;
        for quarter in self.quarters {
            simd.prefetch(quarter.as_ptr().wrapping_add(at.start).wrapping_byte_add(PREFETCH));
        }
        [
            E::load(simd, &a[at.clone()]),
            E::load(simd, &b[at.clone()]),
            E::load(simd, &c[at.clone()]),
            E::load(simd, &d[at]),
        ]
    }

    /// The vectors of any step, -inf beyond the end and for the element to leave out.
    #[inline(always)]
    fn load_patched<S: Simd>(&self, simd: S, step: usize) -> [Wide<S, E>; UNROLL] {
        [
            self.patched(simd, step, 0),
            self.patched(simd, step, 1),
            self.patched(simd, step, 2),
            self.patched(simd, step, 3),
        ]
    }

    /// A vector that may not be whole, or hold the element to leave out.
    #[inline(always)]
    fn patched<S: Simd>(&self, simd: S, step: usize, stream: usize) -> Wide<S, E> {
        let lanes = E::Compute::LANES;
        let rest = self.quarters[stream].get(step * lanes..).unwrap_or_default();
        let vector =
            if rest.len() >= lanes { E::load(simd, rest) } else { load_padded(simd, rest) };
        match self.skip {
            Some((skipped, at)) if skipped == stream && at / lanes == step => {
                let patched = vector.to_array(E::Compute::NEG_INFINITY).map(Cell::new);
                patched[at % lanes].set(E::Compute::NEG_INFINITY);
                E::Compute::load(simd, &patched)
            }
            _ => vector,
        }
    }
}

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
