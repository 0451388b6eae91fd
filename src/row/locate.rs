//! Where in a chunk a value stands, and what the kernels see at one place.

use super::UNROLL;
use super::chunk::{Chunk, Lanes};
use crate::element::{Element, Wide};
use crate::exp::Exp;
use crate::simd::{Float, Kernel, Number, Simd, Vector};

/// Finds the first logit that is at least `value`.
pub struct Locate<'a, E: Element> {
    /// The logits.
    pub chunk: Chunk<'a, E>,
    /// The value.
    pub value: f64,
}

impl<E: Element<Compute: Exp>> Kernel for Locate<'_, E> {
    type Output = Option<usize>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Option<usize> {
        if self.chunk.is_plain() { self.find::<S, true>(simd) } else { self.find::<S, false>(simd) }
    }
}

impl<E: Element<Compute: Exp>> Locate<'_, E> {
    /// Looks at several vectors at a time, and at their lanes where it is among them.
    #[inline(always)]
    fn find<S: Simd, const PLAIN: bool>(self, simd: S) -> Option<usize> {
        let Self { chunk, value } = self;
        let (lanes, end) = (E::Compute::LANES, chunk.cells.len());
        let below =
            <E::Compute as Float>::V::<S>::splat(simd, E::Compute::from_f64(value).next_down());
        for start in (0..end).step_by(UNROLL * lanes) {
            let places: [usize; UNROLL] = std::array::from_fn(|i| (start + i * lanes).min(end));
            let load = |at| chunk.load_part::<S, PLAIN>(simd, Lanes { at, end, skip: None }).0;
            let x = [load(places[0]), load(places[1]), load(places[2]), load(places[3])];
            if x.iter().fold(false, |found, x| found | x.any_greater(below)) {
                let is_it = |x: &E::Compute| x.to_f64() >= value;
                let place = |(at, x): (usize, Wide<S, E>)| {
                    Some(at + x.to_array(E::Compute::NEG_INFINITY).iter().position(is_it)?)
                };
                return places.into_iter().zip(x).find_map(place);
            }
        }
        None
    }
}

/// The logit at one place, after cap and mask, and its derivative with respect to what lies in memory.
pub struct At<'a, E: Element> {
    /// The logits.
    pub chunk: Chunk<'a, E>,
    /// The place.
    pub at: usize,
}

impl<E: Element<Compute: Exp>> Kernel for At<'_, E> {
    type Output = (f64, f64);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (f64, f64) {
        let lanes = Lanes { at: self.at, end: self.at + 1, skip: None };
        let (x, slope) = self.chunk.load_part::<S, false>(simd, lanes);
        let first = |vector: <E::Compute as Float>::V<S>| {
            let [first, ..] = vector.to_array(E::Compute::ONE);
            first.to_f64()
        };
        (first(x), first(slope))
    }
}
