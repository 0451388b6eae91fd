//! A chunk in the order in which it is read: four streams side by side, one element left out, the end padded
//! (points 3, 4 and 6 of the header of `row`).

use super::UNROLL;
use super::chunk::{Beside, Chunk, Lanes};
use crate::element::{Element, Wide};
use crate::exp::Exp;
use crate::simd::{Float, Number, Simd, Vector};
use std::cell::Cell;
use std::ops::Range;
use std::slice::ChunksExact;

/// How far ahead of a stream to prefetch, in bytes.
const PREFETCH: usize = 2048;

/// Bytes up to which a chunk is short, and what is prefetched is what lies at the same place in the next row, which
/// follows it in memory as a rule: four streams of a short row end before any prefetcher has noticed them. Rows of
/// 1,000 singles from memory, one thread of an EPYC, where the hardware's prefetching alone gave 5.8 GB/s: 16.5; rows
/// of 4,000: 14.4 and 25.1; of 16,000: 21.1 and 27.1.
const SHORT: usize = 64 * 1024;

/// What is done with four vectors. (A trait and not a closure: only so is it sure to be inlined.)
pub(super) trait Visit<S: Simd, E: Element> {
    /// Whether it wants what stands beside the logits; if not, that is 0 and the compiler removes it.
    const WANTS_BESIDE: bool;
    /// Whether it wants that of a part.
    const WANTS_BESIDE_PARTS: bool;
    /// Does it. Only if `PART` is an element left out or not there; its lane is -inf and has the weight 0.
    fn visit<const PART: bool>(
        &mut self,
        simd: S,
        x: [Wide<S, E>; UNROLL],
        beside: [Wide<S, E>; UNROLL],
    );
}

/// A chunk as four streams of the same number of whole vectors, and what is left, less than a vector of each.
pub(super) struct Streams<'a, E: Element> {
    chunk: Chunk<'a, E>,
    beside: Option<Beside<'a, E>>,
    /// Elements of a stream.
    quarter: usize,
    /// Steps in all: one more than there are vectors in a stream if anything is left.
    pub(super) steps: usize,
    /// Vectors of a stream.
    whole: usize,
    /// The element to leave out.
    skip: Option<usize>,
    /// The step of that element.
    skip_step: usize,
    /// How far ahead of each stream to prefetch, in bytes.
    ahead: usize,
}

impl<'a, E: Element<Compute: Exp>> Streams<'a, E> {
    #[inline(always)]
    pub(super) fn new(
        chunk: Chunk<'a, E>,
        beside: Option<Beside<'a, E>>,
        skip: Option<usize>,
    ) -> Self {
        let (lanes, length) = (E::Compute::LANES, chunk.cells.len());
        let whole = length / (UNROLL * lanes);
        let (quarter, steps) = (whole * lanes, length.div_ceil(UNROLL * lanes));
        let skip_step = match skip {
            Some(at) if at < UNROLL * quarter => at % quarter / lanes,
            Some(_) => whole,
            None => usize::MAX,
        };
        let bytes = size_of_val(chunk.cells);
        let ahead = if bytes <= SHORT { bytes } else { PREFETCH };
        Self { chunk, beside, quarter, steps, whole, skip, skip_step, ahead }
    }

    /// Visits some steps. The loop over whole vectors has no branch for the others in it, which would cost a
    /// fifth of its speed in cache.
    #[inline(always)]
    pub(super) fn each<S: Simd, V: Visit<S, E>, const PLAIN: bool>(
        &self,
        simd: S,
        steps: Range<usize>,
        visitor: &mut V,
    ) {
        let mut next = steps.start;
        while next < steps.end {
            let skips = (next..self.whole).contains(&self.skip_step);
            let stop = if skips { self.skip_step } else { self.whole.max(next) }.min(steps.end);
            let [a, b, c, d] = self.runs(next..stop);
            let vectors = a.zip(b).zip(c).zip(d);
            for (step, (((a, b), c), d)) in (next..stop).zip(vectors) {
                for cells in [a, b, c, d] {
                    simd.prefetch(cells.as_ptr().wrapping_byte_add(self.ahead));
                }
                let places = self.places(step);
                let x = [
                    self.chunk.load_from::<S, PLAIN>(simd, a, places[0]).0,
                    self.chunk.load_from::<S, PLAIN>(simd, b, places[1]).0,
                    self.chunk.load_from::<S, PLAIN>(simd, c, places[2]).0,
                    self.chunk.load_from::<S, PLAIN>(simd, d, places[3]).0,
                ];
                let beside = match self.beside {
                    Some(beside) if V::WANTS_BESIDE => {
                        beside.prefetch(simd, places, self.ahead / size_of::<E>());
                        beside.load(simd, &self.chunk, places)
                    }
                    _ => nothing::<S, E>(simd),
                };
                visitor.visit::<false>(simd, x, beside);
            }
            if stop < steps.end {
                let lanes = [0, 1, 2, 3].map(|stream| self.lanes(stop, stream));
                let [a, b, c, d] = lanes;
                let x = [
                    self.chunk.load_part::<S, PLAIN>(simd, a).0,
                    self.chunk.load_part::<S, PLAIN>(simd, b).0,
                    self.chunk.load_part::<S, PLAIN>(simd, c).0,
                    self.chunk.load_part::<S, PLAIN>(simd, d).0,
                ];
                let beside = match self.beside {
                    Some(beside) if V::WANTS_BESIDE_PARTS => [
                        beside.load_part(simd, &self.chunk, a),
                        beside.load_part(simd, &self.chunk, b),
                        beside.load_part(simd, &self.chunk, c),
                        beside.load_part(simd, &self.chunk, d),
                    ],
                    _ => nothing::<S, E>(simd),
                };
                visitor.visit::<true>(simd, x, beside);
            }
            next = stop + 1;
        }
    }

    /// The whole vectors of each stream at some steps. (Iterators: an index into each stream would be checked
    /// with every vector, which costs a seventh of the speed in cache.)
    #[inline(always)]
    fn runs(&self, steps: Range<usize>) -> [ChunksExact<'a, Cell<E>>; UNROLL] {
        let (from, to) = (self.places(steps.start), self.places(steps.end));
        let cells = self.chunk.cells;
        let mut runs = [(); UNROLL].map(|()| [].chunks_exact(E::Compute::LANES));
        if steps.start < steps.end {
            for (i, run) in runs.iter_mut().enumerate() {
                *run = cells[from[i]..to[i]].chunks_exact(E::Compute::LANES);
            }
        }
        runs
    }

    /// Where the vectors of a step begin, one in each stream.
    #[inline(always)]
    fn places(&self, step: usize) -> [usize; UNROLL] {
        let (quarter, offset) = (self.quarter, step * E::Compute::LANES);
        [offset, quarter + offset, 2 * quarter + offset, 3 * quarter + offset]
    }

    /// What is there of one of the vectors of a step; those of the last follow each other.
    #[inline(always)]
    fn lanes(&self, step: usize, stream: usize) -> Lanes {
        let end = self.chunk.cells.len();
        let at = if step < self.whole {
            self.places(step)[stream]
        } else {
            UNROLL * self.quarter + stream * E::Compute::LANES
        };
        Lanes { at: at.min(end), end, skip: self.skip }
    }
}

#[inline(always)]
fn nothing<S: Simd, E: Element<Compute: Exp>>(simd: S) -> [Wide<S, E>; UNROLL] {
    [Vector::splat(simd, E::Compute::from_f64(0.0)); UNROLL]
}
