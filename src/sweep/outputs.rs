//! Outputs written: what a job said is to stand in a row, chunk by chunk, where the row lies or through a tile.

use super::tile::Part;
use super::walk::{Known, Read, Tiles, Walk};
use super::{Action, Weighting};
use crate::batch::Matrix;
use crate::element::Element;
use crate::exp::Exp;
use crate::loss::Divergence;
use crate::row::{
    Affine, Beside, Chunk, Classes, Formula, Forward, Hessian, JensenShannon, Logarithm, Nearer,
    Reverse, Slope, Write,
};
use crate::simd::{Float, Number};
use std::cell::Cell;

impl<E, O> Walk<'_, E, O>
where
    E: Element<Compute: Exp>,
    O: Element<Compute = E::Compute>,
{
    /// Writes a part of each row of a group, one action a row and output. What overwrites the logits comes last:
    /// until then they are read.
    pub(super) fn write_group(&self, tiles: &mut Tiles<E, O>, part: &Part<'_>, known: &[Known]) {
        let overwrites = |out: &Matrix| out.begins_where(&self.input.logits);
        // Once is enough to ask for what is read next.
        let mut next = self.next;
        for last in [false, true] {
            for (i, out) in self.outs.iter().enumerate() {
                if let Some(out) = out.filter(|out| overwrites(out) == last) {
                    let actions = known.iter().map(|known| &known.actions[i]);
                    self.write_to(tiles, part, out, actions, next);
                    next = 0;
                }
            }
        }
    }

    /// Writes a part of each row of a group to one output, one action a row.
    fn write_to<'k>(
        &self,
        tiles: &mut Tiles<E, O>,
        part: &Part<'_>,
        out: &Matrix,
        actions: impl Iterator<Item = &'k Action>,
        next: usize,
    ) {
        let Part { group, columns } = part;
        if tiles.output.is_empty() {
            for (row, action) in (*group).clone().zip(actions) {
                let to = out.cells(row, columns.clone());
                self.write_row(tiles, part, row, action, to, next);
                self.patch(part, row, to);
            }
        } else {
            let output = std::mem::take(&mut tiles.output);
            for ((row, action), to) in
                (*group).clone().zip(actions).zip(output.chunks(columns.len()))
            {
                self.write_row(tiles, part, row, action, to, next);
                self.patch(part, row, to);
            }
            out.scatter((*group).clone(), columns.clone(), &output);
            tiles.output = output;
        }
    }

    /// Writes what a job has for single columns, where they are not masked.
    fn patch(&self, part: &Part<'_>, row: usize, to: &[Cell<O>]) {
        let columns = &part.columns;
        for (column, value) in self.job.patches(row) {
            if columns.contains(&column) && self.input.is_allowed(row, column) {
                to[column - columns.start].set(O::narrow(Number::from_f64(value)));
            }
        }
    }

    /// Writes a part of one row to `to`.
    fn write_row(
        &self,
        tiles: &mut Tiles<E, O>,
        part: &Part<'_>,
        row: usize,
        action: &Action,
        to: &[Cell<O>],
        next: usize,
    ) {
        let masked = match *action {
            Action::Leave => return,
            Action::Fill(value) => return fill(to, value),
            Action::Logarithm { .. } => f64::NEG_INFINITY,
            _ => 0.0,
        };
        let columns = self.within_window(&part.columns);
        let (before, rest) = to.split_at(columns.start - part.columns.start);
        let (to, after) = rest.split_at(columns.len());
        fill(before, masked);
        fill(after, masked);

        let part = Part { columns: columns.clone(), ..*part };
        let Read { chunk: from, beside } = self.read(tiles, &part, row);
        let affine = |max, alpha, beta| Affine {
            max: Number::from_f64(max),
            base: &self.base,
            alpha: Number::from_f64(within::<E>(alpha)),
            beta: Number::from_f64(within::<E>(beta)),
        };
        let within_part = |patch: Option<(usize, f64)>| {
            let (at, value) = patch?;
            let place = at.checked_sub(columns.start).filter(|&at| at < columns.len())?;
            Some((place, Number::from_f64(value)))
        };
        let place = Place { from, to, masked: Number::from_f64(masked), next };
        // Where everything is NaN it is always the same NaN: what arithmetic makes of several depends on the
        // order of operands, which compilers choose.
        match *action {
            Action::Leave | Action::Fill(_) => {}
            Action::Exponential { alpha: number, .. }
            | Action::Slope { alpha: number, .. }
            | Action::Hessian { alpha: number, .. }
            | Action::Logarithm { log_total: number, .. }
            | Action::Nearer { scale: number, .. }
                if number.is_nan() =>
            {
                fill(to, masked);
                each_unmasked(place, |cell| cell.set(O::from_f64(f64::NAN)));
            }
            Action::Exponential { max, alpha } => {
                self.apply(place, affine(max, alpha, 0.0), None, None);
            }
            Action::Slope { max, alpha, beta, patch, times } => {
                let formula = affine(max, alpha, beta);
                let patch = patch.map(|(at, value)| (at, value * self.logit(row, at).1));
                let patch = within_part(patch);
                let beside = beside.filter(|_| !self.weighting.is_some_and(Weighting::is_even));
                if beside.is_none() && self.softcap.is_none() {
                    self.apply(place, formula, None, patch);
                } else {
                    self.apply(place, Slope(formula), beside, patch);
                }
                if times != 1.0 {
                    let times = |cell: &Cell<O>| O::from_f64(cell.get().to_f64() * times);
                    each_unmasked(place, |cell| cell.set(times(cell)));
                }
            }
            Action::Hessian { max, alpha, total, patch } => {
                let formula = Hessian(affine(max, alpha, -1.0 / total));
                self.apply(place, formula, None, within_part(patch));
            }
            Action::Logarithm { max, log_total } => {
                let inverse = (1.0 / self.base.temperature).min(f64::MAX);
                let formula = Logarithm {
                    max: Number::from_f64(max),
                    inverse_temperature: Number::from_f64(within::<E>(inverse)),
                    minus_log_sum: Number::from_f64(-log_total),
                };
                self.apply(place, formula, None, None);
            }
            Action::Nearer { pair, divergence, center, scale } => {
                let classes = Classes::new(&pair, &self.base);
                let (center, scale) =
                    (Number::from_f64(center), Number::from_f64(within::<E>(scale)));
                match divergence {
                    Divergence::Forward => {
                        let formula = Nearer { classes, measure: Forward, center, scale };
                        self.apply(place, formula, beside, None);
                    }
                    Divergence::Reverse => {
                        let formula = Nearer { classes, measure: Reverse, center, scale };
                        self.apply(place, formula, beside, None);
                    }
                    Divergence::JensenShannon { beta } => {
                        let measure = JensenShannon::new(beta, &self.unit);
                        let formula = Nearer { classes, measure, center, scale };
                        self.apply(place, formula, beside, None);
                    }
                }
            }
        }
    }

    fn apply<F: Formula<E::Compute>>(
        &self,
        Place { from, to, masked, next }: Place<'_, E, O>,
        formula: F,
        beside: Option<Beside<'_, E>>,
        patch: Option<(usize, E::Compute)>,
    ) {
        let stream = self.stream;
        self.level.run(Write { from, to, formula, masked, beside, patch, stream, next });
    }
}

/// A part of a row to be written.
#[derive(Clone, Copy)]
struct Place<'a, E: Element, O> {
    from: Chunk<'a, E>,
    to: &'a [Cell<O>],
    /// What masked classes get.
    masked: E::Compute,
    /// See [`Write::next`].
    next: usize,
}

fn fill<O: Element>(to: &[Cell<O>], value: f64) {
    to.iter().for_each(|cell| cell.set(O::from_f64(value)));
}

/// Visits the outputs of all classes that are not masked.
fn each_unmasked<E: Element, O>(place: Place<'_, E, O>, mut visit: impl FnMut(&Cell<O>)) {
    for (i, cell) in place.to.iter().enumerate() {
        if place.from.mask.is_none_or(|mask| mask[i].get() != 0) {
            visit(cell);
        }
    }
}

/// A factor kept finite in the precision of the computation, so that 0 times it stays 0; one that is infinite
/// is meant so.
fn within<E: Element>(factor: f64) -> f64 {
    let largest = E::Compute::MAX.to_f64();
    if factor.is_finite() { factor.clamp(-largest, largest) } else { factor }
}
