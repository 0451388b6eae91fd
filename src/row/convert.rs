//! What becomes of another row's cells before it is compared: probabilities are replaced by their logarithms. Knows
//! neither masks nor what the cells are for.

use crate::element::Element;
use crate::exp::Exp;
use crate::log::log;
use crate::simd::{Kernel, Simd};
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
        T::store_part(simd, rest, log(simd, T::load_part(simd, rest, T::ONE)));
    }
}
