//! A chunk of logits as the kernels see it: capped and masked while it is read, never in memory.
//!
//! Plain logits have a path of their own, chosen once for each chunk, so that the options cost nothing where
//! they are off.

use crate::element::{Element, Wide, keep};
use crate::exp::{Exp, Softcap};
use crate::simd::{Float, MAX_LANES, Simd, Vector};
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
    /// Whether all of them are there, and surely so. (In which of several vectors one is left out no processor can foresee:
    /// they are treated alike.)
    #[inline(always)]
    fn are_whole<T: Float>(self) -> bool {
        self.at + T::LANES <= self.end && self.skip.is_none()
    }

    /// The lane that is left out, or one that there is not.
    #[inline(always)]
    fn skipped(self) -> Option<usize> {
        Some(self.skip?.wrapping_sub(self.at))
    }

    /// What there is of them in memory, and perhaps more.
    #[inline(always)]
    pub(super) fn of<T>(self, cells: &[T]) -> &[T] {
        &cells[self.at..self.end]
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
        let below = E::Compute::NEG_INFINITY;
        let x = E::load_part(simd, lanes.of(self.cells), E::narrow(below));
        if PLAIN {
            let x = lanes.skipped().map_or(x, |lane| x.with_lane(simd, lane, below));
            return (x, Vector::splat(simd, E::Compute::ONE));
        }
        let (x, slope) = self.capped(simd, x);
        (keep(x, &self.bytes(lanes), Vector::splat(simd, below)), slope)
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
            _ if !lanes.are_whole::<V::Scalar>() => keep(value, &self.bytes(lanes), other),
            Some(mask) => keep(value, &mask[lanes.at..], other),
            None => value,
        }
    }

    /// 1 for each lane that is there and not masked.
    #[inline(always)]
    fn bytes(&self, lanes: Lanes) -> [Cell<u8>; MAX_LANES] {
        let bytes = [const { Cell::new(0) }; MAX_LANES];
        match self.mask {
            Some(mask) => {
                bytes.iter().zip(lanes.of(mask)).for_each(|(to, from)| to.set(from.get()))
            }
            None => bytes.iter().take(lanes.end - lanes.at).for_each(|byte| byte.set(1)),
        }
        if let Some(byte) = lanes.skipped().and_then(|lane| bytes.get(lane)) {
            byte.set(0);
        }
        bytes
    }
}
