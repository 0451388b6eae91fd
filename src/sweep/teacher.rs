//! What the rows of a batch are compared with, and what comes of it for a row.

use super::tile::{Part, Tile};
use crate::batch::Matrix;
use crate::element::{Element, Widen};
use crate::error::Error;
use crate::exp::Exp;
use crate::loss::Divergence;
use crate::row::{Logarithms, Pair};
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
