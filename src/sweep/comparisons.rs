//! Rows compared with those of a teacher: its logits, or the logarithms of its probabilities, beside our own.

use super::tile::Part;
use super::walk::{Read, Tiles, Walk};
use crate::element::Element;
use crate::exp::Exp;
use crate::loss::Divergence;
use crate::row::{
    Beside, Classes, Compare, Forward, JensenShannon, Measure, Nothing, Pair, Partial, Reverse,
    Summarize,
};

impl<E, O> Walk<'_, E, O>
where
    E: Element<Compute: Exp>,
    O: Element<Compute = E::Compute>,
{
    /// Summarizes a part of the teacher's row, if there is a teacher.
    pub(super) fn summarize_teacher(
        &self,
        tiles: &mut Tiles<E, O>,
        part: &Part<'_>,
        row: usize,
    ) -> Partial {
        let part = Part { columns: self.within_window(&part.columns), ..*part };
        match self.read(tiles, &part, row).beside {
            Some(Beside::Logits(chunk)) => {
                let (base, moments) = (&self.base, Nothing::<true>);
                self.level.run(Summarize { chunk, skip: None, base, moments, weights: None }).0
            }
            _ => Partial::EMPTY,
        }
    }

    /// What the teacher's measure sums over a part of a row.
    pub(super) fn compare(
        &self,
        tiles: &mut Tiles<E, O>,
        part: &Part<'_>,
        row: usize,
        pair: &Pair,
    ) -> [f64; 3] {
        if !pair.is_defined() {
            return [f64::NAN; 3];
        }
        match self.teacher.map(|teacher| teacher.divergence) {
            None => [0.0; 3],
            Some(Divergence::Forward) => self.sums_of(tiles, part, row, pair, Forward),
            Some(Divergence::Reverse) => self.sums_of(tiles, part, row, pair, Reverse),
            Some(Divergence::JensenShannon { beta }) => {
                let measure = JensenShannon::new(beta, &self.unit);
                self.sums_of(tiles, part, row, pair, measure)
            }
        }
    }

    fn sums_of<M: Measure<E::Compute>>(
        &self,
        tiles: &mut Tiles<E, O>,
        part: &Part<'_>,
        row: usize,
        pair: &Pair,
        measure: M,
    ) -> [f64; 3] {
        let part = Part { columns: self.within_window(&part.columns), ..*part };
        match self.read(tiles, &part, row) {
            Read { chunk, beside: Some(Beside::Logits(other)) } => {
                let classes = Classes::new(pair, &self.base);
                self.level.run(Compare { chunk, other, classes, measure })
            }
            _ => [0.0; 3],
        }
    }
}
