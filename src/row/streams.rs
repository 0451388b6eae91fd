//! A chunk in the order in which it is read: four streams side by side, one element left out, the end padded
//! (points 3, 4 and 6 of the header of `row`).

use super::UNROLL;
use crate::element::{Element, Wide, load_padded};
use crate::simd::{Float, Simd, Vector};
use std::cell::Cell;
use std::ops::Range;

/// How far ahead of a stream to prefetch, in bytes.
const PREFETCH: usize = 1024;

/// What is done with four vectors. (A trait and not a closure: only so is it sure to be inlined.)
pub(super) trait Visit<S: Simd, V> {
    /// Does it.
    fn visit(&mut self, simd: S, x: [V; UNROLL]);
}

/// A chunk as four streams of the same number of vectors, the last ones padded.
pub(super) struct Streams<'a, E> {
    quarters: [&'a [Cell<E>]; UNROLL],
    /// Vectors in a stream.
    pub(super) steps: usize,
    /// Steps at which all four vectors are whole.
    whole: usize,
    /// The stream, and the place in it, of the element to leave out.
    skip: Option<(usize, usize)>,
    /// The step of that element.
    skip_step: usize,
}

impl<'a, E: Element> Streams<'a, E> {
    #[inline(always)]
    pub(super) fn new(chunk: &'a [Cell<E>], skip: Option<usize>) -> Self {
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
    pub(super) fn each<S: Simd>(
        &self,
        simd: S,
        steps: Range<usize>,
        visitor: &mut impl Visit<S, Wide<S, E>>,
    ) {
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
