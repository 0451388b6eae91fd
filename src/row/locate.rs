//! Where in a chunk a value stands, and what the kernels see at one place.

use super::chunk::{Chunk, Lanes};
use crate::element::Element;
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
        let Self { chunk, value } = self;
        let end = chunk.cells.len();
        let below = Vector::splat(simd, E::Compute::from_f64(value).next_down());
        for at in (0..end).step_by(E::Compute::LANES) {
            let x = chunk.load_part::<S, false>(simd, Lanes { at, end, skip: None }).0;
            if x.any_greater(below) {
                let lane = |x: &E::Compute| x.to_f64() >= value;
                return x.to_array(E::Compute::NEG_INFINITY).iter().position(lane).map(|i| at + i);
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
