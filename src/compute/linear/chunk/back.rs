//! The way back from the gradient of a chunk's logits to those of its hidden states, the weights and the bias.
//!
//! The products of both read the same gradients of the logits and are one run of tasks, slab by slab. Only the sum
//! over the slabs has an order, which `Lines` keeps; no thread waits for the others between slabs.

use super::{BLOCK, Desk, Room, SLAB, blocks, is_few};
use crate::batch::Matrix;
use crate::compute::linear::gradients::ROWS;
use crate::error::Error;
use crate::product::{ColumnSums, Factor, Right, To, pieces};
use crate::sweep::{Input, Run};
use crate::threads::Lines;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

/// The class of each row of a chunk that was set apart, and the gradient of its logit. None at all if nothing was.
pub(in crate::compute::linear) type Apart = Vec<Option<(usize, f64)>>;

/// A task of the way back.
enum Task {
    /// Some classes.
    Classes(Range<usize>),
    /// Some classes (the number of their slab first), some columns of D and some rows, which together are a line.
    Hidden(usize, Range<usize>, usize),
}

impl<T: Factor> Desk<'_, T> {
    /// Takes the gradients at the targets out of those of the logits, where they have one: a target's share of a sum
    /// is as a rule much larger than all others, which would be rounded as if they were as large.
    pub(in crate::compute::linear) fn set_apart(
        &self,
        chunk: &Input,
        class: impl Fn(usize) -> Option<usize>,
    ) -> Apart {
        let apart = |row| {
            let class = class(row).filter(|&class| chunk.is_allowed(row, class))?;
            let cell = &chunk.logits.cells::<T>(row, class..class + 1)[0];
            Some((class, cell.replace(T::ZERO).to_f64()))
        };
        (0..chunk.logits.rows()).map(apart).collect()
    }

    /// The gradients, from that of the logits and what was set apart; for the first chunk or a later one.
    pub(in crate::compute::linear) fn gradients(
        &self,
        run: &mut Run<'_>,
        part: &[usize],
        apart: &Apart,
        first: bool,
    ) -> Result<(), Error> {
        let rows = part.len();
        let logits = self.logits.rows(rows);
        let back = self.gradients.hidden.map(|_| self.back.rows(rows));
        let few = is_few::<T>(rows);
        let lines = if few { vec![(0..rows, 0..self.width())] } else { self.lines(rows) };
        let order = Lines::new(lines.len());
        let (mut tasks, mut number) = (Vec::new(), 0);
        for slab in blocks(0..self.classes(), SLAB) {
            if self.gradients.weight.is_some() || self.gradients.bias.is_some() {
                tasks.extend(blocks(slab.clone(), BLOCK).into_iter().map(Task::Classes));
            }
            let parts: Vec<_> = if few { pieces::<T>(slab).collect() } else { vec![slab] };
            for part in parts.into_iter().filter(|_| back.is_some()) {
                let of_line = |line| Task::Hidden(number, part.clone(), line);
                tasks.extend((0..lines.len()).map(of_line));
                number += 1;
            }
        }
        self.tasks(run, tasks.len(), &|number, room| match (&tasks[number], &back) {
            (Task::Classes(classes), _) => self.of_classes(room, &logits, apart, classes, first),
            (Task::Hidden(number, piece, line), Some(back)) if few => {
                let turn = order.turn(*line, *number);
                let sums = self.of_few(room, &logits, piece);
                turn.wait();
                add_sums(back, sums, *number > 0);
            }
            (Task::Hidden(number, slab, line), Some(back)) => {
                let turn = order.turn(*line, *number);
                turn.wait();
                self.of_hidden(room, &logits, slab, back, &lines[*line]);
            }
            (Task::Hidden(..), None) => {}
        })?;
        let (Some(from), Some(to)) = (&back, self.gradients.hidden) else { return Ok(()) };
        let to = to.pick(part);
        let blocks = blocks(0..rows, ROWS);
        self.tasks(run, blocks.len(), &|number, room| {
            let rows = blocks[number].clone();
            for row in rows.clone() {
                if let Some((class, slope)) = apart.get(row).copied().flatten() {
                    add(from, row, T::from_f64(slope), room.strip.row(self.linear.weight, class));
                }
            }
            if self.gradients.accumulate {
                for row in rows.clone() {
                    add(from, row, T::from_f64(1.0), room.strip.row(&to, row));
                }
            }
            room.strip.store(from, rows, &to);
        })
    }

    /// The blocks of the gradient of the hidden states, rows and columns, enough of them for all threads.
    fn lines(&self, rows: usize) -> Vec<(Range<usize>, Range<usize>)> {
        let columns = blocks(0..self.width(), BLOCK);
        let wanted = if self.threads == 1 { 1 } else { self.threads + 1 };
        let parts = wanted.div_ceil(columns.len().max(1)).min(rows.div_ceil(ROWS)).max(1);
        let high = rows.div_ceil(parts).next_multiple_of(self.kernels.room_right(1, 1)).max(1);
        let rows = blocks(0..rows, high);
        let of_rows = |rows: &Range<usize>| -> Vec<_> {
            columns.iter().map(|columns| (rows.clone(), columns.clone())).collect()
        };
        rows.iter().flat_map(of_rows).collect()
    }

    /// What some classes' gradients add to those of the weights and the bias.
    fn of_classes(
        &self,
        room: &mut Room<T>,
        logits: &Matrix,
        apart: &Apart,
        classes: &Range<usize>,
        first: bool,
    ) {
        let apart = apart.iter().enumerate().filter_map(|(row, apart)| Some((row, (*apart)?)));
        let apart = apart.filter(|(_, (class, _))| classes.contains(class));
        if let Some(sums) = &self.gradients.bias {
            let to: &[Cell<f64>] = sums.to().cells(0, classes.clone());
            let (from, columns) = (logits, classes.clone());
            self.level.run(ColumnSums::<T> { from, columns, to, precision: PhantomData });
            for (_, (class, slope)) in apart.clone() {
                let cell = &to[class - classes.start];
                cell.set(cell.get() + slope);
            }
        }
        let Some(weight) = &self.gradients.weight else { return };
        let (kernels, rows) = (&self.kernels, 0..logits.rows());
        for piece in pieces::<T>(rows.clone()) {
            let to = &mut room.right[kernels.room_right(classes.len(), piece.start)..];
            kernels.pack_right(&room.strip, (logits, &piece, classes), to);
        }
        let side = if is_few::<T>(rows.len()) { self.width().max(1) } else { BLOCK };
        for columns in blocks(0..self.width(), side) {
            for piece in pieces::<T>(rows.clone()) {
                let depth = piece.len();
                let left = kernels.room(self.width(), piece.start) + columns.start * depth;
                let right = &room.right[kernels.room_right(classes.len(), piece.start)..];
                let (classes, columns) = (classes.clone(), columns.clone());
                let to = To { matrix: weight.to(), rows: classes, columns };
                let add = piece.start > 0 || !first || self.gradients.accumulate;
                kernels.multiply(depth, &self.turned[left..], Right::Packed(right), to, add);
            }
        }
        let hidden = self.hidden.rows(logits.rows());
        for (row, (class, slope)) in apart {
            let from = hidden.cells(row, 0..self.width());
            add(weight.to(), class, T::from_f64(slope), from);
        }
    }

    /// What a piece of the classes adds to the gradient of the hidden states of few rows: the weights are not packed,
    /// and the sums are the registers.
    fn of_few<'r>(
        &self,
        room: &'r mut Room<T>,
        logits: &Matrix,
        piece: &Range<usize>,
    ) -> &'r [Cell<T>] {
        let sums = &mut room.left[..logits.rows() * self.width()];
        sums.fill(T::ZERO);
        let sums = Cell::from_mut(sums).as_slice_of_cells();
        let skip = |class, weights: &[Cell<T>]| self.leaves_out(class, weights);
        room.strip.add_multiples(self.linear.weight, piece, &skip, logits, sums);
        sums
    }

    /// Whether a class is no part of the gradient of the hidden states: masked in all rows, or not finite where it may
    /// be masked in some, for 0 times that would be NaN. (To a row that does not mask it its probability is 0 or NaN.)
    fn leaves_out(&self, class: usize, weights: &[Cell<T>]) -> bool {
        match (&self.masked, &self.input.mask) {
            (Some(masked), _) => masked[class],
            (None, Some(_)) => weights.iter().any(|weight| !weight.get().to_f64().is_finite()),
            (None, None) => false,
        }
    }

    /// What a slab of classes adds to a block of the gradient of the hidden states.
    fn of_hidden(
        &self,
        room: &mut Room<T>,
        logits: &Matrix,
        slab: &Range<usize>,
        to: &Matrix,
        (rows, columns): &(Range<usize>, Range<usize>),
    ) {
        let skip = |class, weights: &[Cell<T>]| self.leaves_out(class, weights);
        for piece in pieces::<T>(slab.clone()) {
            let weight = (self.linear.weight, &piece, columns);
            self.kernels.pack_left(&room.strip, weight, &skip, &mut room.left);
            let right = Right::Rows(logits, rows.start, piece.start);
            let (rows, columns) = (rows.clone(), columns.clone());
            let to = To { matrix: to, rows, columns };
            self.kernels.multiply(piece.len(), &room.left, right, to, piece.start > 0);
        }
    }
}

/// Adds sums, row by row, to what is there, or writes them.
fn add_sums<T: Factor>(to: &Matrix, sums: &[Cell<T>], add: bool) {
    for (row, sums) in sums.chunks(to.columns().max(1)).enumerate() {
        for (to, sum) in to.cells::<T>(row, 0..sums.len()).iter().zip(sums) {
            to.set(if add { to.get() + sum.get() } else { sum.get() });
        }
    }
}

/// Adds a multiple of some numbers to a row of a matrix.
fn add<T: Factor>(to: &Matrix, row: usize, times: T, from: &[Cell<T>]) {
    let to = to.cells::<T>(row, 0..from.len());
    to.iter().zip(from).for_each(|(to, from)| to.set(to.get() + times * from.get()));
}
