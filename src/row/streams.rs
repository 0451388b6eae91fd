//! A chunk in the order in which it is read: four streams side by side, one element left out, the end padded
//! (points 3, 4 and 6 of the header of `row`).
//!
//! There is one loop, over whole vectors that are loaded from where they lie. Weights that are made of several factors are
//! put into a small room first, a few steps at a time.

use super::UNROLL;
use super::chunk::{Chunk, Lanes};
use super::weights::Beside;
use crate::element::{Element, Wide};
use crate::exp::Exp;
use crate::simd::{Float, MAX_LANES, Number, Simd, Vector, reads_far_ahead};
use std::cell::Cell;
use std::ops::Range;

/// How far ahead of each stream to prefetch, in bytes.
const NEAR: usize = 2048;

/// Bytes up to which a chunk is short, and what is prefetched is what lies at the same place in the next row, which
/// follows it in memory as a rule: four streams of a short row end before any prefetcher has noticed them. Rows of
/// 1,000 singles from memory, one thread of an EPYC, where the hardware's prefetching alone gave 5.8 GB/s: 16.5; rows
/// of 4,000: 14.4 and 25.1; of 16,000: 21.1 and 27.1.
const NEXT_ROW: usize = 64 * 1024;

/// Where the processor prefers that: prefetch whole chunks, in the order of memory, at least so many bytes ahead, into
/// the second cache. Log-sum-exp of rows of 128,256 singles, two threads of an EPYC (Zen 4), over the read limit of the same run: 0.95, each stream 2 KiB ahead 0.88;
/// softmax over a streaming copy 0.88 and 0.77; one thread 22.4 and 18.9 GB/s; rows of 4,000 18.7 and 14.5. Sums of rows
/// of 1,000, one thread, in GB/s, by how many rows ahead it is: 1 11.6, 2 13.7, 4 13.9, 8 13.9 (each stream in the next
/// row 10.0; from cache 13.9): the first cache waits for no more than two dozen lines at a time.
/// There a single stream of logits would be as good (0.98), but half as fast on a Xeon. On Zen 5 it is each stream for
/// itself: rows of 128,256 on one thread 30 GB/s to 26, of 16,000 38 to 31; on two threads 45 to 38 and 46 to 40.
const FAR: usize = 32 * 1024;

/// Steps between two looks at the maximum.
const BLOCK: usize = 16;

/// Steps that there is room for.
const ROOM: usize = 4;

/// What is done with four vectors. (A trait and not a closure: only so is it sure to be inlined.)
pub(super) trait Visit<S: Simd, T: Exp> {
    /// Whether another visit to the same steps follows at once.
    const IS_FIRST: bool = false;
    /// Whether it wants what stands beside the logits; if not, that is 0 and the compiler removes it.
    const WANTS_BESIDE: bool;
    /// Whether it wants that of a part.
    const WANTS_BESIDE_PARTS: bool;
    /// Does it. Only in a part are there elements that are left out or not there; their lanes are -inf and have the
    /// weight 0.
    fn visit(&mut self, simd: S, x: [T::V<S>; UNROLL], beside: [T::V<S>; UNROLL], is_part: bool);
}

/// A chunk as four streams of the same number of whole vectors, and what is left, less than a vector of each.
pub(super) struct Streams<'a, E: Element> {
    chunk: Chunk<'a, E>,
    beside: Option<Beside<'a, E>>,
    /// Elements of a stream.
    quarter: usize,
    /// Steps in all: one more than there are vectors in a stream if anything is left.
    steps: usize,
    /// Vectors of a stream.
    pub(super) whole: usize,
    /// The element to leave out.
    skip: Option<usize>,
    /// The step of that element.
    skip_step: usize,
    /// How far ahead to prefetch, in elements.
    ahead: usize,
    /// Whether it is the next chunk that is prefetched, in the order of memory.
    far: bool,
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
            // At most three subtractions, in place of a division by what is not known when this is compiled.
            Some(at) if at < UNROLL * quarter => {
                (1..UNROLL).fold(at, |at, _| if at < quarter { at } else { at - quarter }) / lanes
            }
            Some(_) => whole,
            None => usize::MAX,
        };
        let bytes = size_of_val(chunk.cells);
        let far = reads_far_ahead();
        let ahead = match far {
            true if bytes >= FAR => length,
            true => length * FAR.div_ceil(bytes.max(1)),
            false if bytes <= NEXT_ROW => length,
            false => NEAR / size_of::<E>(),
        };
        Self { chunk, beside, quarter, steps, whole, skip, skip_step, ahead, far }
    }

    /// The whole steps, a block at a time. The one from which an element is left out is not visited with them.
    #[inline(always)]
    pub(super) fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<E> {
        let whole = self.whole;
        (0..whole).step_by(BLOCK).map(move |start| start..(start + BLOCK).min(whole))
    }

    /// The steps some of whose elements are left out or not there; they come after all others.
    #[inline(always)]
    pub(super) fn parts(&self) -> impl Iterator<Item = usize> + use<E> {
        let (skip, end) = (self.skip_step, self.steps);
        let last = if skip == self.whole { usize::MAX } else { self.whole };
        [skip, last].into_iter().filter(move |&step| step < end)
    }

    /// Visits a step some of whose elements are left out or not there.
    #[inline(always)]
    pub(super) fn part<S: Simd, V: Visit<S, E::Compute>, const PLAIN: bool>(
        &self,
        simd: S,
        step: usize,
        visitor: &mut V,
    ) {
        let mut x = [Vector::splat(simd, E::Compute::from_f64(0.0)); UNROLL];
        let mut others = x;
        for (stream, (x, other)) in x.iter_mut().zip(&mut others).enumerate() {
            let lanes = self.lanes(step, stream);
            *x = self.chunk.load_part::<S, PLAIN>(simd, lanes).0;
            if let Some(beside) = &self.beside
                && V::WANTS_BESIDE_PARTS
            {
                *other = beside.load_part(simd, &self.chunk, lanes);
            }
        }
        visitor.visit(simd, x, others, true);
    }

    /// Visits whole steps.
    #[inline(always)]
    pub(super) fn wholes<S: Simd, V: Visit<S, E::Compute>, const PLAIN: bool>(
        &self,
        simd: S,
        steps: Range<usize>,
        visitor: &mut V,
    ) {
        let room = Room::<E::Compute>::new();
        let in_place = match &self.beside {
            Some(beside) if V::WANTS_BESIDE => beside.in_place(&self.chunk),
            _ => None,
        };
        let longest = if V::WANTS_BESIDE && in_place.is_none() { ROOM } else { usize::MAX };
        let mut next = steps.start;
        while next < steps.end {
            let stop =
                if next <= self.skip_step { self.skip_step.min(steps.end) } else { steps.end };
            let here = next..stop.min(next.saturating_add(longest));
            next = if here.end == self.skip_step { here.end + 1 } else { here.end };
            let beside = match (in_place, &self.beside) {
                (Some(cells), _) => spans(cells, self.places(here.start), here.len()),
                (None, Some(beside)) if V::WANTS_BESIDE => {
                    self.fill(simd, beside, &here, &room);
                    spans(&room.0, places(here.len() * E::Compute::LANES), here.len())
                }
                _ => [&[] as &[_]; UNROLL],
            };
            self.visit::<S, V, PLAIN>(simd, here, beside, visitor);
        }
    }

    /// Visits whole steps beside which there is something, or not. (Iterators: an index into each stream would be
    /// checked with every vector, which costs a seventh of the speed in cache.)
    #[inline(always)]
    fn visit<S: Simd, V: Visit<S, E::Compute>, const PLAIN: bool>(
        &self,
        simd: S,
        steps: Range<usize>,
        [e, f, g, h]: [&[Cell<E::Compute>]; UNROLL],
        visitor: &mut V,
    ) {
        let (lanes, chunk) = (E::Compute::LANES, &self.chunk);
        let places = self.places(steps.start);
        let ([a, b, c, d], [p, q, r, s]) = (places, spans(chunk.cells, places, steps.len()));
        let vectors = (p.chunks_exact(lanes).zip(q.chunks_exact(lanes)))
            .zip(r.chunks_exact(lanes).zip(s.chunks_exact(lanes)));
        let vectors = steps.enumerate().zip(vectors);
        let logits = (chunk.cells.as_ptr().cast(), size_of::<E>());
        let load = |from: &[Cell<E>], at| chunk.load_from::<S, PLAIN>(simd, from, at).0;
        if V::WANTS_BESIDE {
            let others = (e.chunks_exact(lanes).zip(f.chunks_exact(lanes)))
                .zip(g.chunks_exact(lanes).zip(h.chunks_exact(lanes)));
            for (((i, step), ((p, q), (r, s))), ((e, f), (g, h))) in vectors.zip(others) {
                self.prefetch::<S, V>(simd, step, logits);
                if let Some(beside) = self.beside.as_ref().and_then(Beside::address) {
                    self.prefetch::<S, V>(simd, step, beside);
                }
                let i = i * lanes;
                let x = [load(p, a + i), load(q, b + i), load(r, c + i), load(s, d + i)];
                visitor.visit(simd, x, loaded::<S, E>(simd, [e, f, g, h]), false);
            }
        } else {
            let nothing = [Vector::splat(simd, E::Compute::from_f64(0.0)); UNROLL];
            for ((i, step), ((p, q), (r, s))) in vectors {
                self.prefetch::<S, V>(simd, step, logits);
                let i = i * lanes;
                let x = [load(p, a + i), load(q, b + i), load(r, c + i), load(s, d + i)];
                visitor.visit(simd, x, nothing, false);
            }
        }
    }

    /// Puts what stands beside the logits of some whole steps into a room, stream by stream.
    #[inline(always)]
    fn fill<S: Simd>(
        &self,
        simd: S,
        beside: &Beside<'_, E>,
        steps: &Range<usize>,
        room: &Room<E::Compute>,
    ) {
        let lanes = E::Compute::LANES;
        let mut cells = room.0.chunks_exact(lanes);
        for place in self.places(steps.start) {
            for (i, to) in (0..steps.len()).zip(&mut cells) {
                let value = beside.load(simd, &self.chunk, place + i * lanes);
                E::Compute::store::<S, false>(simd, to, value);
            }
        }
    }

    /// Asks for what is used later of what begins at an address, of which each element has that many bytes.
    #[inline(always)]
    fn prefetch<S: Simd, V: Visit<S, E::Compute>>(
        &self,
        simd: S,
        step: usize,
        (from, size): (*const u8, usize),
    ) {
        if V::IS_FIRST && self.far {
            return;
        }
        let (first, gap) = self.prefetched(step);
        for stream in 0..UNROLL {
            let address = from.wrapping_add((first + stream * gap) * size);
            if self.far { simd.prefetch_far(address) } else { simd.prefetch(address) }
        }
    }

    /// Which element is prefetched in a step, and how far from it the next one is.
    #[inline(always)]
    fn prefetched(&self, step: usize) -> (usize, usize) {
        let lanes = E::Compute::LANES;
        if self.far {
            (self.ahead + UNROLL * step * lanes, lanes)
        } else {
            (self.ahead + step * lanes, self.quarter)
        }
    }

    /// Where the whole vectors of a step begin.
    #[inline(always)]
    fn places(&self, step: usize) -> [usize; UNROLL] {
        let [a, b, c, d] = places(self.quarter);
        let offset = step * E::Compute::LANES;
        [a + offset, b + offset, c + offset, d + offset]
    }

    /// What is there of one of the vectors of a step; those of the last follow each other.
    #[inline(always)]
    fn lanes(&self, step: usize, stream: usize) -> Lanes {
        let (lanes, end) = (E::Compute::LANES, self.chunk.cells.len());
        let at = if step < self.whole {
            stream * self.quarter + step * lanes
        } else {
            UNROLL * self.quarter + stream * lanes
        };
        Lanes { at: at.min(end), end, skip: self.skip }
    }
}

/// Room for what stands beside a few steps.
struct Room<T>([Cell<T>; ROOM * UNROLL * MAX_LANES]);

impl<T: Element> Room<T> {
    #[inline(always)]
    fn new() -> Self {
        Self([const { Cell::new(T::ZERO) }; ROOM * UNROLL * MAX_LANES])
    }
}

/// Four places at the same distance, the first 0.
#[inline(always)]
fn places(distance: usize) -> [usize; UNROLL] {
    [0, distance, 2 * distance, 3 * distance]
}

/// The cells of some steps of each stream, which begin at these places.
#[inline(always)]
fn spans<T: Element>(
    cells: &[Cell<T>],
    places: [usize; UNROLL],
    steps: usize,
) -> [&[Cell<T>]; UNROLL] {
    let [a, b, c, d] = places;
    let length = steps * T::Compute::LANES;
    [&cells[a..][..length], &cells[b..][..length], &cells[c..][..length], &cells[d..][..length]]
}

/// Four vectors, each from the start of its cells.
#[inline(always)]
fn loaded<S: Simd, E: Element>(
    simd: S,
    [a, b, c, d]: [&[Cell<E::Compute>]; UNROLL],
) -> [Wide<S, E>; UNROLL] {
    [
        E::Compute::load(simd, a),
        E::Compute::load(simd, b),
        E::Compute::load(simd, c),
        E::Compute::load(simd, d),
    ]
}
