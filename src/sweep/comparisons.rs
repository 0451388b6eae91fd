//! Rows compared with those of a teacher: its logits, or the logarithms of its probabilities, beside our own.

use super::tile::{Part, Tile};
use super::walk::{Read, Tiles, Walk};
use crate::batch::Matrix;
use crate::element::Element;
use crate::error::Error;
use crate::exp::Exp;
use crate::loss::Divergence;
use crate::row::{
    Beside, Classes, Compare, Forward, JensenShannon, Logarithms, Measure, Nothing, Pair, Partial,
    Reverse, Summarize, Widen,
};
use crate::simd::Level;
use std::cell::Cell;

/// What the rows are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Teacher<'a> {
    /// As many rows and columns as the logits.
    pub logits: &'a Matrix,
    /// Whether they are probabilities; their logarithms are taken as logits.
    pub are_probabilities: bool,
    /// How far apart they are by which measure.
    pub divergence: Divergence,
}

/// A row beside the teacher's.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// Both rows.
    pub pair: Pair,
    /// What the divergence sums over the classes.
    pub sums: [f64; 2],
    /// By how much the row's probabilities were more than the teacher's, all together.
    pub surplus: f64,
}

impl<'a> Teacher<'a> {
    /// Room for `size` elements, if the logits can't be used where they lie.
    pub(super) fn tile<T: Element<Compute = T>>(&self, size: usize) -> Result<Tile<T>, Error> {
        if self.are_probabilities {
            Tile::with_room(size)
        } else {
            Tile::new(Some(self.logits), size)
        }
    }

    /// A part of a row.
    pub(super) fn row<'t, E: Element<Compute: Exp>>(
        self,
        level: Level,
        tile: &'t mut Tile<E::Compute>,
        part: &Part<'_>,
        row: usize,
    ) -> &'t [Cell<E::Compute>]
    where
        'a: 't,
    {
        tile.filled_row(self.logits, part, row, |rows, columns, cells| {
            if self.logits.is_contiguous::<E>() {
                for (row, to) in rows.zip(cells.chunks(columns.len().max(1))) {
                    let from = self.logits.cells::<E>(row, columns.clone());
                    level.run(Widen { from, to });
                }
            } else {
                self.logits.gather(rows, columns, cells);
            }
            if self.are_probabilities {
                level.run(Logarithms { cells });
            }
        })
    }
}

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
                let (base, moments) = (&self.base, Nothing);
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
