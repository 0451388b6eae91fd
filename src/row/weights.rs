//! What is read beside the logits, class by class: weights, made of up to three factors, or the logits of another row.

use super::chunk::{Chunk, Lanes};
use crate::element::{Element, Stored, Wide, keep};
use crate::exp::Exp;
use crate::simd::{Number, Simd, Vector};
use std::cell::Cell;

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
    /// A whole vector.
    #[inline(always)]
    fn load<S: Simd>(self, simd: S, at: usize) -> Wide<S, E> {
        match self {
            Self::Same(value) => Vector::splat(simd, value),
            Self::Each(cells) => E::Compute::load(simd, &cells[at..]),
            Self::Stored(cells) => E::load(simd, &cells[at..]),
        }
    }

    /// A vector that may not be whole; 0 in the lanes beyond the end, if there is something for each class.
    #[inline(always)]
    fn load_part<S: Simd>(self, simd: S, lanes: Lanes) -> Wide<S, E> {
        match self {
            Self::Each(cells) => E::Compute::load_part(simd, lanes.of(cells), Stored::ZERO),
            Self::Stored(cells) => E::load_part(simd, lanes.of(cells), E::ZERO),
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

impl<'a, E: Element<Compute: Exp>> Beside<'a, E> {
    /// What stands beside a chunk, if it is in memory as it is used.
    #[inline(always)]
    pub(super) fn in_place(&self, chunk: &Chunk<'_, E>) -> Option<&'a [Cell<E::Compute>]> {
        match *self {
            Self::Weights(weights) if chunk.mask.is_none() => weights.in_place(),
            Self::Logits(other) if other.is_plain() => Some(other.cells),
            _ => None,
        }
    }

    /// Where its largest part is in memory, and the bytes of an element.
    #[inline(always)]
    pub(super) fn address(&self) -> Option<(*const u8, usize)> {
        match *self {
            Self::Weights(Weights { targets: Along::Stored(cells), .. }) => {
                Some((cells.as_ptr().cast(), size_of::<E>()))
            }
            Self::Weights(_) => None,
            Self::Logits(other) => Some((other.cells.as_ptr().cast(), size_of::<E::Compute>())),
        }
    }

    /// A whole vector.
    #[inline(always)]
    pub(super) fn load<S: Simd>(&self, simd: S, chunk: &Chunk<'_, E>, at: usize) -> Wide<S, E> {
        match self {
            Self::Weights(weights) => weights.load(simd, chunk, at),
            Self::Logits(other) => other.load::<S, false>(simd, at).0,
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

impl<'a, E: Element<Compute: Exp>> Weights<'a, E> {
    /// Whether they are 1 for every class that takes part.
    pub fn are_even(&self) -> bool {
        match (self.classes, self.targets) {
            (Along::Same(class), Along::Same(target)) => is_one(class) && self.is_one_for(target),
            _ => false,
        }
    }

    /// Whether a class that takes part and has that target counts 1, but for its class weight.
    #[inline(always)]
    fn is_one_for(&self, target: E::Compute) -> bool {
        self.of_targets.to_f64() * target.to_f64() + self.of_allowed.to_f64() == 1.0
    }

    /// The one factor that is not 1, if it is in memory as it is used and the only one.
    #[inline(always)]
    fn in_place(&self) -> Option<&'a [Cell<E::Compute>]> {
        let are_targets = self.of_targets.to_f64() == 1.0 && self.of_allowed.to_f64() == 0.0;
        match (self.classes, self.targets) {
            (Along::Same(class), Along::Each(cells)) if is_one(class) => {
                are_targets.then_some(cells)
            }
            (Along::Same(class), Along::Stored(cells)) if is_one(class) => {
                E::as_computed(cells).filter(|_| are_targets)
            }
            (Along::Each(cells), Along::Same(target)) => self.is_one_for(target).then_some(cells),
            _ => None,
        }
    }

    /// The weights of a whole vector.
    #[inline(always)]
    fn load<S: Simd>(&self, simd: S, chunk: &Chunk<'_, E>, at: usize) -> Wide<S, E> {
        let zero = <Wide<S, E>>::splat(simd, E::Compute::from_f64(0.0));
        let allowed = <Wide<S, E>>::splat(simd, self.of_allowed);
        let allowed = chunk.mask.map_or(allowed, |mask| keep(allowed, &mask[at..], zero));
        self.combined(simd, self.classes.load(simd, at), self.targets.load(simd, at), allowed)
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

fn is_one(number: impl Number) -> bool {
    number.to_f64() == 1.0
}
