//! The products of a chunk, cut into tasks, and what they need.
//!
//! | product | a task | packed |
//! |---|---|---|
//! | logits | some classes, all rows | the weights of the classes, as it goes |
//! | d weight | some classes, all of D | their logits, as it goes; the hidden states, once a chunk |
//! | d hidden | some of D, all rows, a slab of classes | the slab's weights, as it goes |
//!
//! The last two read the same gradients of the logits and are one run of tasks, slab by slab. Only the sum over the
//! slabs has an order, which `Lines` keeps; no thread waits for the others between slabs.

use super::gradients::{Gradients, ROWS, Sum};
use super::{Linear, MOST_ROWS};
use crate::batch::Matrix;
use crate::error::{self, Error};
use crate::product::{
    ColumnSums, Factor, Kernels, Right, Sheet, Strip, To, depth_of_pieces, pieces,
};
use crate::simd::{Level, with_default_float_state};
use crate::sweep::{Input, Run};
use crate::threads::{self, Lines};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Classes, or columns of D, of a task: what is packed of them fits the second cache.
const BLOCK: usize = 256;

/// Classes after which the sum over classes is taken up by the next task.
const SLAB: usize = 2048;

/// Multiplications for one element of a sweep's threshold: below, one thread is faster than waking others.
const PRODUCTS_AN_ELEMENT: usize = 16;

/// The place where chunks are worked on.
pub(super) struct Desk<'a, T: 'static> {
    linear: Linear<'a>,
    input: &'a Input,
    pub(super) gradients: &'a Gradients<'a>,
    kernels: Kernels<T>,
    level: Level,
    threads: usize,
    bias: Option<Vec<T>>,
    /// Classes that are masked in all rows: their weights are no part of any gradient.
    masked: Option<Vec<bool>>,
    /// (B, D), the hidden states of the chunk; (B, V), its logits, then their gradient; (B, D), the gradient of the
    /// hidden states.
    hidden: Sheet,
    logits: Sheet,
    back: Sheet,
    /// The hidden states as an operand for the gradient of the weights, piece by piece of the rows.
    turned: Vec<T>,
    rooms: Mutex<Vec<Room<T>>>,
}

/// A thread's room for operands.
pub(super) struct Room<T> {
    left: Vec<T>,
    right: Vec<T>,
    pub(super) strip: Strip<T>,
}

/// A task of the way back.
enum Task {
    /// Some classes.
    Classes(Range<usize>),
    /// Some classes (the number of their slab first), some columns of D and some rows, which together are a line.
    Hidden(usize, Range<usize>, usize),
}

impl<'a, T: Factor> Desk<'a, T> {
    /// For chunks of at most that many rows.
    pub(super) fn new(
        run: &Run<'_>,
        linear: Linear<'a>,
        input: &'a Input,
        rows: usize,
        gradients: &'a Gradients<'a>,
    ) -> Result<Self, Error> {
        let (width, classes) = (linear.hidden.columns(), input.logits.columns());
        let products = rows.saturating_mul(input.window.end).saturating_mul(width);
        let few = products / PRODUCTS_AN_ELEMENT < run.thresholds.parallel;
        let threads = if few { 1 } else { run.threads.clamp(1, threads::MOST) };
        let kernels = T::kernels(run.level);
        let deepest = depth_of_pieces::<T>(width).max(depth_of_pieces::<T>(SLAB));
        let (for_weight, for_hidden) = (gradients.weight.is_some(), gradients.hidden.is_some());
        let mut rooms = error::reserve(threads)?;
        for _ in 0..threads {
            let of_rows = if for_weight { kernels.room_right(BLOCK, rows) } else { 0 };
            let sum = gradients.weight.as_ref().filter(|_| gradients.accumulate);
            let matrices = [linear.hidden, linear.weight].into_iter().chain(sum.map(Sum::result));
            let strip = Strip::new(run.level, deepest.max(BLOCK).max(width), matrices)?;
            let left = zeros(kernels.room(BLOCK, deepest))?;
            rooms.push(Room { left, right: zeros(of_rows)?, strip });
        }
        let of_bias = |bias: &[f64]| error::collect(bias.iter().map(|&number| T::from_f64(number)));
        let masked = input.mask.as_ref().filter(|mask| mask.repeats_one_row() && rows > 0);
        let masked =
            masked.map(|_| error::collect((0..classes).map(|class| !input.is_allowed(0, class))));
        Ok(Self {
            linear,
            input,
            gradients,
            kernels,
            level: run.level,
            threads,
            bias: linear.bias.map(of_bias).transpose()?,
            masked: masked.transpose()?,
            hidden: Sheet::new::<T>(rows, width)?,
            logits: Sheet::new::<T>(rows, classes)?,
            back: Sheet::new::<T>(if for_hidden { rows } else { 0 }, width)?,
            turned: zeros(if for_weight { kernels.room(width, rows) } else { 0 })?,
            rooms: Mutex::new(rooms),
        })
    }

    /// The columns of the products.
    pub(super) fn classes(&self) -> usize {
        self.input.window.end
    }

    fn width(&self) -> usize {
        self.linear.hidden.columns()
    }

    /// Runs tasks, each with a room of its own.
    pub(super) fn tasks(
        &self,
        run: &mut Run<'_>,
        count: usize,
        task: &(dyn Fn(usize, &mut Room<T>) + Sync),
    ) -> Result<(), Error> {
        let rooms = || self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let work = |number: usize| {
            // There are as many rooms as threads.
            let Some(mut room) = rooms().pop() else { return };
            with_default_float_state(|| task(number, &mut room));
            rooms().push(room);
        };
        threads::run(count, self.threads, &work, run.interrupted)
    }

    /// Takes up the rows of a chunk; what is read of their logits, once they are there.
    pub(super) fn lay_out(&mut self, run: &mut Run<'_>, part: &[usize]) -> Result<Input, Error> {
        let from = self.linear.hidden.pick(part);
        let hidden = self.hidden.rows(part.len());
        let blocks = blocks(0..part.len(), ROWS);
        self.tasks(run, blocks.len(), &|number, room| {
            room.strip.load(&from, blocks[number].clone(), &hidden);
        })?;
        if self.gradients.weight.is_some() {
            let columns = 0..self.width();
            let kernels = self.kernels;
            let strip = Strip::new(self.level, 0, [])?;
            for piece in pieces::<T>(0..part.len()) {
                let to = &mut self.turned[kernels.room(columns.len(), piece.start)..];
                kernels.pack_left(&strip, (&hidden, &piece, &columns), &|_| false, to);
            }
        }
        let input = self.input;
        let mask = input.mask.as_ref().map(|mask| mask.pick(part));
        let logits = self.logits.rows(part.len());
        Ok(Input::new(logits, input.temperature, input.softcap, self.classes(), mask))
    }

    /// The logits of a chunk of that many rows.
    pub(super) fn logits(&self, run: &mut Run<'_>, rows: usize) -> Result<(), Error> {
        let (hidden, logits) = (self.hidden.rows(rows), self.logits.rows(rows));
        let blocks = blocks(0..self.classes(), BLOCK);
        self.tasks(run, blocks.len(), &|number, room| {
            let columns = &blocks[number];
            let start = match &self.bias {
                Some(bias) => Some(&bias[columns.clone()]),
                None if self.width() == 0 => Some(&[][..]),
                None => None,
            };
            if let Some(start) = start {
                for row in 0..rows {
                    let cells = logits.cells::<T>(row, columns.clone());
                    let values = start.iter().copied().chain(std::iter::repeat(T::ZERO));
                    cells.iter().zip(values).for_each(|(cell, value)| cell.set(value));
                }
            }
            for piece in pieces::<T>(0..self.width()) {
                let weight = (self.linear.weight, columns, &piece);
                self.kernels.pack_transposed(&room.strip, weight, &mut room.left);
                let to = To { matrix: &logits, rows: 0..rows, columns: columns.clone() };
                let right = Right::Rows(&hidden, 0, piece.start);
                let add = piece.start > 0 || start.is_some();
                self.kernels.multiply(piece.len(), &room.left, right, to, add);
            }
        })
    }

    /// The gradients, from that of the logits; for the first chunk or a later one.
    pub(super) fn gradients(
        &self,
        run: &mut Run<'_>,
        part: &[usize],
        first: bool,
    ) -> Result<(), Error> {
        let rows = part.len();
        let logits = self.logits.rows(rows);
        let back = self.gradients.hidden.map(|_| self.back.rows(rows));
        let lines = self.lines(rows);
        let order = Lines::new(lines.len());
        let mut tasks = Vec::new();
        for (number, slab) in blocks(0..self.classes(), SLAB).into_iter().enumerate() {
            if self.gradients.weight.is_some() || self.gradients.bias.is_some() {
                tasks.extend(blocks(slab.clone(), BLOCK).into_iter().map(Task::Classes));
            }
            if back.is_some() {
                let of_line = |line| Task::Hidden(number, slab.clone(), line);
                tasks.extend((0..lines.len()).map(of_line));
            }
        }
        self.tasks(run, tasks.len(), &|number, room| match (&tasks[number], &back) {
            (Task::Classes(classes), _) => self.of_classes(room, &logits, classes, first),
            (Task::Hidden(number, slab, line), Some(back)) => {
                order.in_turn(*line, *number, || {
                    self.of_hidden(room, &logits, slab, back, &lines[*line]);
                });
            }
            (Task::Hidden(..), None) => {}
        })?;
        let (Some(from), Some(to)) = (&back, self.gradients.hidden) else { return Ok(()) };
        let to = to.pick(part);
        let blocks = blocks(0..rows, ROWS);
        self.tasks(run, blocks.len(), &|number, room| {
            let rows = blocks[number].clone();
            if self.gradients.accumulate {
                add_what_is_there::<T>(from, rows.clone(), &to);
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
    fn of_classes(&self, room: &mut Room<T>, logits: &Matrix, classes: &Range<usize>, first: bool) {
        if let Some(sums) = &self.gradients.bias {
            let to: &[Cell<f64>] = sums.to().cells(0, classes.clone());
            let (from, columns) = (logits, classes.clone());
            self.level.run(ColumnSums::<T> { from, columns, to, precision: PhantomData });
        }
        let Some(weight) = &self.gradients.weight else { return };
        let (kernels, rows) = (&self.kernels, 0..logits.rows());
        for piece in pieces::<T>(rows.clone()) {
            let to = &mut room.right[kernels.room_right(classes.len(), piece.start)..];
            kernels.pack_right(&room.strip, (logits, &piece, classes), to);
        }
        for columns in blocks(0..self.width(), BLOCK) {
            for piece in pieces::<T>(rows.clone()) {
                let depth = piece.len();
                let left = kernels.room(self.width(), piece.start) + columns.start * depth;
                let right = &room.right[kernels.room_right(classes.len(), piece.start)..];
                let to =
                    To { matrix: weight.to(), rows: classes.clone(), columns: columns.clone() };
                let add = piece.start > 0 || !first || self.gradients.accumulate;
                kernels.multiply(depth, &self.turned[left..], Right::Packed(right), to, add);
            }
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
        let masked = |class: usize| self.masked.as_ref().is_some_and(|masked| masked[class]);
        for piece in pieces::<T>(slab.clone()) {
            let weight = (self.linear.weight, &piece, columns);
            self.kernels.pack_left(&room.strip, weight, &masked, &mut room.left);
            let right = Right::Rows(logits, rows.start, piece.start);
            let to = To { matrix: to, rows: rows.clone(), columns: columns.clone() };
            self.kernels.multiply(piece.len(), &room.left, right, to, piece.start > 0);
        }
    }
}

/// Adds to rows of `to` what the same rows of another matrix hold.
fn add_what_is_there<T: Factor>(to: &Matrix, rows: Range<usize>, from: &Matrix) {
    for row in rows {
        for (column, cell) in to.cells::<T>(row, 0..to.columns()).iter().enumerate() {
            cell.set(T::from_f64(cell.get().to_f64() + from.get(row, column)));
        }
    }
}

/// A range in blocks of one length, but for the last.
pub(super) fn blocks(range: Range<usize>, length: usize) -> Vec<Range<usize>> {
    let end = range.end;
    range.step_by(length).map(|start| start..(start + length).min(end)).collect()
}

fn zeros<T: Factor>(length: usize) -> Result<Vec<T>, Error> {
    error::collect((0..length).map(|_| T::ZERO))
}

/// Chunks are made of whole blocks, so that the last piece of a sum over rows is the only short one.
const _: () = assert!(MOST_ROWS % BLOCK == 0);
