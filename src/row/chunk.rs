//! A chunk of logits as the kernels see it: capped and masked while it is read, never in memory.
//!
//! Plain logits have a path of their own, chosen once for each chunk, so that the options cost nothing where
//! they are off.

use crate::element::{Element, Wide, keep};
use crate::exp::{Exp, Softcap};
use crate::simd::{Float, MAX_LANES, Number, Simd, Vector};
use std::cell::Cell;

/// At most [`super::CHUNK`] logits of a row, and what is done to them as they are read.
#[derive(Clone, Copy)]
pub struct Chunk<'a, E: Element> {
    /// The logits in memory.
    pub cells: &'a [Cell<E>],
    /// As many bytes: a class whose byte is 0 takes no part, as if its logit were -inf.
    pub mask: Option<&'a [Cell<u8>]>,
    /// What bounds the logits.
    pub softcap: Option<&'a Softcap<E::Compute>>,
}

/// Which of the elements of a vector are there.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    /// The place of the first one.
    pub(super) at: usize,
    /// The place before which they end.
    pub(super) end: usize,
    /// The place of one that is left out.
    pub(super) skip: Option<usize>,
}

impl Lanes {
    /// Whether all of them are there.
    #[inline(always)]
    fn are_whole<T: Float>(self) -> bool {
        let skips = self.skip.is_some_and(|skip| skip.wrapping_sub(self.at) < T::LANES);
        self.are_in_memory::<T>() && !skips
    }

    /// Whether all of them are there but perhaps the one that is left out.
    #[inline(always)]
    fn are_in_memory<T: Float>(self) -> bool {
        self.at + T::LANES <= self.end
    }
}

impl<E: Element<Compute: Exp>> Chunk<'_, E> {
    /// Whether the logits are what lies in memory.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        self.mask.is_none() && self.softcap.is_none()
    }

    /// A whole vector, -inf in the lanes that are masked; and the derivatives of the lanes with respect to
    /// what lies in memory.
    #[inline(always)]
    pub(super) fn load<S: Simd, const PLAIN: bool>(
        &self,
        simd: S,
        at: usize,
    ) -> (Wide<S, E>, Wide<S, E>) {
        self.load_from::<S, PLAIN>(simd, &self.cells[at..], at)
    }

    /// The same of the cells that begin at that place.
    #[inline(always)]
    pub(super) fn load_from<S: Simd, const PLAIN: bool>(
        &self,
        simd: S,
        cells: &[Cell<E>],
        at: usize,
    ) -> (Wide<S, E>, Wide<S, E>) {
        let x = E::load(simd, cells);
        if PLAIN {
            return (x, Vector::splat(simd, E::Compute::ONE));
        }
        let (x, slope) = self.capped(simd, x);
        let below = Vector::splat(simd, E::Compute::NEG_INFINITY);
        (self.mask.map_or(x, |mask| keep(x, &mask[at..], below)), slope)
    }

    /// The same of a vector that may not be whole: -inf also in the lanes that are not there.
    #[inline(always)]
    pub(super) fn load_part<S: Simd, const PLAIN: bool>(
        &self,
        simd: S,
        lanes: Lanes,
    ) -> (Wide<S, E>, Wide<S, E>) {
        if lanes.are_whole::<E::Compute>() {
            return self.load::<S, PLAIN>(simd, lanes.at);
        }
        let x = load_part(simd, self.cells, lanes);
        let one = Vector::splat(simd, E::Compute::ONE);
        let (x, slope) = if PLAIN { (x, one) } else { self.capped(simd, x) };
        let below = Vector::splat(simd, E::Compute::NEG_INFINITY);
        (keep(x, &self.part(lanes), below), slope)
    }

    #[inline(always)]
    fn capped<S: Simd>(&self, simd: S, x: Wide<S, E>) -> (Wide<S, E>, Wide<S, E>) {
        match self.softcap {
            Some(softcap) => softcap.apply(simd, x),
            None => (x, Vector::splat(simd, E::Compute::ONE)),
        }
    }

    /// `value`, with `other` in the lanes that are masked or not there.
    #[inline(always)]
    pub(super) fn keep<S: Simd, V: Vector<S>>(&self, value: V, lanes: Lanes, other: V) -> V {
        match self.mask {
            _ if !lanes.are_whole::<V::Scalar>() => keep(value, &self.part(lanes), other),
            Some(mask) => keep(value, &mask[lanes.at..], other),
            None => value,
        }
    }

    /// 1 for each lane that is there and not masked.
    #[inline(always)]
    fn part(&self, lanes: Lanes) -> [Cell<u8>; MAX_LANES] {
        let part = [const { Cell::new(0) }; MAX_LANES];
        match self.mask {
            Some(mask) => part.iter().zip(&mask[lanes.at..lanes.end]).for_each(copy),
            None => part.iter().take(lanes.end - lanes.at).for_each(|byte| byte.set(1)),
        }
        if let Some(byte) = lanes.skip.and_then(|skip| part.get(skip.wrapping_sub(lanes.at))) {
            byte.set(0);
        }
        part
    }
}

/// A vector that may not be whole, 0 in the lanes that are beyond the end.
#[inline(always)]
fn load_part<S: Simd, A: Element>(simd: S, cells: &[Cell<A>], lanes: Lanes) -> Wide<S, A> {
    if lanes.are_in_memory::<A::Compute>() {
        return A::load(simd, &cells[lanes.at..]);
    }
    let padded: [Cell<A>; MAX_LANES] = std::array::from_fn(|_| Cell::new(A::default()));
    padded.iter().zip(&cells[lanes.at..lanes.end]).for_each(copy);
    A::load(simd, &padded)
}

#[inline(always)]
fn copy<T: Copy>((to, from): (&Cell<T>, &Cell<T>)) {
    to.set(from.get());
}

/// What the logits of a chunk are weighted with: `w (of_targets t + of_allowed)` for class weights w and
/// probability targets t, the second term only for classes that are not masked.
#[derive(Clone, Copy)]
pub struct Weights<'a, E: Element> {
    /// One weight for each class.
    pub classes: Along<'a, E>,
    /// One target for each class.
    pub targets: Along<'a, E>,
    /// The factor of the targets.
    pub of_targets: E::Compute,
    /// What is added to the targets of all allowed classes.
    pub of_allowed: E::Compute,
}

/// Numbers along a chunk.
#[derive(Clone, Copy)]
pub enum Along<'a, E: Element> {
    /// One for each class, in the precision of the computation.
    Each(&'a [Cell<E::Compute>]),
    /// One for each class, of the dtype of the logits.
    Stored(&'a [Cell<E>]),
    /// The same for all.
    Same(E::Compute),
}

impl<E: Element<Compute: Exp>> Along<'_, E> {
    /// Whole vectors.
    #[inline(always)]
    fn load<S: Simd, const N: usize>(self, simd: S, places: [usize; N]) -> [Wide<S, E>; N] {
        let mut vectors = [Vector::splat(simd, E::Compute::ONE); N];
        match self {
            Self::Same(value) => vectors = [Vector::splat(simd, value); N],
            Self::Each(cells) => {
                for (vector, at) in vectors.iter_mut().zip(places) {
                    *vector = E::Compute::load(simd, &cells[at..]);
                }
            }
            Self::Stored(cells) => {
                for (vector, at) in vectors.iter_mut().zip(places) {
                    *vector = E::load(simd, &cells[at..]);
                }
            }
        }
        vectors
    }

    /// A vector that may not be whole; 0 in the lanes beyond the end, if there is something for each class.
    #[inline(always)]
    fn load_part<S: Simd>(self, simd: S, lanes: Lanes) -> Wide<S, E> {
        match self {
            Self::Each(cells) => load_part(simd, cells, lanes),
            Self::Stored(cells) => load_part(simd, cells, lanes),
            Self::Same(value) => Vector::splat(simd, value),
        }
    }
}

/// What is read beside the logits, class by class.
#[derive(Clone, Copy)]
pub enum Beside<'a, E: Element> {
    /// What they are weighted with.
    Weights(Weights<'a, E>),
    /// Other logits of the same classes.
    Logits(Chunk<'a, E::Compute>),
}

impl<E: Element<Compute: Exp>> Beside<'_, E> {
    /// Asks for what is read so many elements after some places.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd, const N: usize>(
        &self,
        simd: S,
        places: [usize; N],
        ahead: usize,
    ) {
        for at in places {
            let at = at + ahead;
            match self {
                Self::Weights(Weights { targets: Along::Stored(cells), .. }) => {
                    simd.prefetch(cells.as_ptr().wrapping_add(at));
                }
                Self::Weights(_) => {}
                Self::Logits(other) => simd.prefetch(other.cells.as_ptr().wrapping_add(at)),
            }
        }
    }

    /// Whole vectors.
    #[inline(always)]
    pub(super) fn load<S: Simd, const N: usize>(
        &self,
        simd: S,
        chunk: &Chunk<'_, E>,
        places: [usize; N],
    ) -> [Wide<S, E>; N] {
        match self {
            Self::Weights(weights) => weights.load(simd, chunk, places),
            Self::Logits(other) => {
                let mut vectors = [Vector::splat(simd, E::Compute::NEG_INFINITY); N];
                for (vector, at) in vectors.iter_mut().zip(places) {
                    *vector = other.load::<S, false>(simd, at).0;
                }
                vectors
            }
        }
    }

    /// A vector that may not be whole: in the lanes that are not there weights are 0 and logits -inf.
    #[inline(always)]
    pub(super) fn load_part<S: Simd>(
        &self,
        simd: S,
        chunk: &Chunk<'_, E>,
        lanes: Lanes,
    ) -> Wide<S, E> {
        match self {
            Self::Weights(weights) => weights.load_part(simd, chunk, lanes),
            Self::Logits(other) => other.load_part::<S, false>(simd, lanes).0,
        }
    }
}

impl<E: Element<Compute: Exp>> Weights<'_, E> {
    /// Whether they are 1 for every class that takes part.
    pub fn are_even(&self) -> bool {
        match (self.classes, self.targets) {
            (Along::Same(class), Along::Same(target)) => {
                let [class, target] = [class.to_f64(), target.to_f64()];
                let all = self.of_targets.to_f64() * target + self.of_allowed.to_f64();
                class == 1.0 && all == 1.0
            }
            _ => false,
        }
    }

    /// The weights of whole vectors.
    #[inline(always)]
    fn load<S: Simd, const N: usize>(
        &self,
        simd: S,
        chunk: &Chunk<'_, E>,
        places: [usize; N],
    ) -> [Wide<S, E>; N] {
        let zero = <Wide<S, E>>::splat(simd, E::Compute::from_f64(0.0));
        let mut allowed = [<Wide<S, E>>::splat(simd, self.of_allowed); N];
        if let Some(mask) = chunk.mask {
            for (allowed, at) in allowed.iter_mut().zip(places) {
                *allowed = keep(*allowed, &mask[at..], zero);
            }
        }
        let classes = self.classes.load(simd, places);
        let mut weights = self.targets.load(simd, places);
        for ((weight, class), allowed) in weights.iter_mut().zip(classes).zip(allowed) {
            *weight = self.combined(simd, class, *weight, allowed);
        }
        weights
    }

    /// The weights of a vector that may not be whole, 0 in the lanes that are not there.
    #[inline(always)]
    fn load_part<S: Simd>(&self, simd: S, chunk: &Chunk<'_, E>, lanes: Lanes) -> Wide<S, E> {
        let zero = <Wide<S, E>>::splat(simd, E::Compute::from_f64(0.0));
        let allowed = chunk.keep(Vector::splat(simd, self.of_allowed), lanes, zero);
        let classes = self.classes.load_part(simd, lanes);
        let weights = self.combined(simd, classes, self.targets.load_part(simd, lanes), allowed);
        Chunk { mask: None, ..*chunk }.keep(weights, lanes, zero)
    }

    #[inline(always)]
    fn combined<S: Simd>(
        &self,
        simd: S,
        class: Wide<S, E>,
        target: Wide<S, E>,
        allowed: Wide<S, E>,
    ) -> Wide<S, E> {
        class.mul(target.mul_add(Vector::splat(simd, self.of_targets), allowed))
    }
}
