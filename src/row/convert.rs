//! What becomes of another row's cells before it is compared: widened to the precision of the computation, and
//! probabilities replaced by their logarithms. Knows neither masks nor what the cells are for.

use crate::element::{Element, store_part};
use crate::exp::Exp;
use crate::log::log;
use crate::simd::{Float, Kernel, MAX_LANES, Simd};
use std::cell::Cell;

/// The natural logarithm of each element, in its place.
pub struct Logarithms<'a, T> {
    /// The elements.
    pub cells: &'a [Cell<T>],
}

impl<T: Exp + Element<Compute = T>> Kernel for Logarithms<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut rest = self.cells;
        while let Some((whole, after)) = rest.split_at_checked(T::LANES) {
            T::store::<S, false>(simd, whole, log(simd, T::load(simd, whole)));
            rest = after;
        }
        let padded = [const { Cell::new(T::ONE) }; MAX_LANES];
        for (to, from) in padded.iter().zip(rest) {
            to.set(from.get());
        }
        store_part(simd, rest, log(simd, T::load(simd, &padded)));
    }
}

/// Elements in the precision in which they are computed.
pub struct Widen<'a, E: Element> {
    /// The elements.
    pub from: &'a [Cell<E>],
    /// Room for as many.
    pub to: &'a [Cell<E::Compute>],
}

impl<E: Element<Compute: Exp>> Kernel for Widen<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (from, to) = (self.from.chunks(E::Compute::LANES), self.to.chunks(E::Compute::LANES));
        for (from, to) in from.zip(to) {
            if from.len() == E::Compute::LANES {
                E::Compute::store::<S, false>(simd, to, E::load(simd, from));
            } else {
                from.iter().zip(to).for_each(|(from, to)| to.set(from.get().widen()));
            }
        }
    }
}
