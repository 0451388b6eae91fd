//! The products of a chunk, cut into tasks, and what they need.
//!
//! | product | a task | packed |
//! |---|---|---|
//! | logits | some classes, all rows | the weights of the classes, as it goes; if rows are few, these alone |
//! | d weight | some classes, all of D | their logits, as it goes; the hidden states, once a chunk |
//! | d hidden | some of D, all rows, a slab of classes | the slab's weights, as it goes; if rows are few, nothing |
//!
//! The last two read the same gradients of the logits and are one run of tasks, slab by slab. Only the sum over the
//! slabs has an order, which `Lines` keeps; no thread waits for the others between slabs.

use super::Linear;
use super::gradients::{Gradients, ROWS, Sum};
use crate::batch::Matrix;
use crate::error::{self, Error};
use crate::product::{
    ColumnSums, Factor, Kernels, Right, Sheet, Strip, To, depth_of_pieces, most_few, pieces,
    room_few,
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
    /// The hidden states, packed: if they are few for the logits, piece by piece of the columns, and for the gradient
    /// of the weights, piece by piece of the rows.
    few: Vec<T>,
    turned: Vec<T>,
    rooms: Mutex<Vec<Room<T>>>,
}

/// The class of each row of a chunk that was set apart, and the gradient of its logit. None at all if nothing was.
pub(super) type Apart = Vec<Option<(usize, f64)>>;

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
        let deepest = depth_of_pieces::<T>(width).max(depth_of_pieces::<T>(SLAB.min(classes)));
        let (for_weight, for_hidden) = (gradients.weight.is_some(), gradients.hidden.is_some());
        let (few, side) = (rows.min(most_few::<T>()), BLOCK.min(classes.max(width)));
        let of_left = if few < rows { kernels.room(side, deepest) } else { 0 };
        let of_right = if for_weight { kernels.room_right(side, rows) } else { 0 };
        let added_to =
            gradients.weight.as_ref().map(Sum::result).into_iter().chain(gradients.hidden);
        let added_to = added_to.filter(|_| gradients.accumulate);
        let mut rooms = error::reserve(threads)?;
        for _ in 0..threads {
            let matrices = [linear.hidden, linear.weight].into_iter().chain(added_to.clone());
            let strip = Strip::new(run.level, deepest.max(BLOCK).max(width), matrices)?;
            let left = zeros(of_left.max(few.saturating_mul(width)))?;
            rooms.push(Room { left, right: zeros(of_right)?, strip });
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
            few: zeros(room_few::<T>(few, width))?,
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
        let (kernels, columns, rows) = (self.kernels, 0..self.width(), 0..part.len());
        let (from, hidden) = (self.linear.hidden.pick(part), self.hidden.rows(rows.len()));
        let blocks_of_rows = blocks(rows.clone(), ROWS);
        self.tasks(run, blocks_of_rows.len(), &|number, room| {
            room.strip.load(&from, blocks_of_rows[number].clone(), &hidden);
        })?;
        if is_few::<T>(rows.len()) {
            let strip = Strip::new(self.level, 0, [])?;
            for piece in pieces::<T>(columns.clone()) {
                let to = &mut self.few[room_few::<T>(rows.len(), piece.start)..];
                strip.turn_few((&hidden, &rows, &piece), to);
            }
        }
        if self.gradients.weight.is_some() {
            let mut turned = std::mem::take(&mut self.turned);
            let (mut tasks, mut rest) = (Vec::new(), &mut turned[..]);
            for piece in pieces::<T>(rows) {
                let (to, others) = rest.split_at_mut(kernels.room(columns.len(), piece.len()));
                rest = others;
                let to = to.chunks_mut(BLOCK * piece.len()).map(Mutex::new);
                let of_piece = blocks(columns.clone(), BLOCK).into_iter().zip(to);
                tasks.extend(of_piece.map(|(columns, to)| (piece.clone(), columns, to)));
            }
            let done = self.tasks(run, tasks.len(), &|number, room| {
                let (piece, columns, to) = &tasks[number];
                let to = &mut to.lock().unwrap_or_else(PoisonError::into_inner);
                kernels.pack_left(&room.strip, (&hidden, piece, columns), &|_, _| false, to);
            });
            drop(tasks);
            self.turned = turned;
            done?;
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
            if is_few::<T>(rows) {
                for piece in pieces::<T>(0..self.width()) {
                    let few = &self.few[room_few::<T>(rows, piece.start)..];
                    let add = piece.start > 0 || start.is_some();
                    let weight = (self.linear.weight, columns, &piece);
                    room.strip.multiply_few(weight, few, &logits, add);
                }
                return;
            }
            for piece in pieces::<T>(0..self.width()) {
                let weight = (self.linear.weight, columns, &piece);
                self.kernels.turn_left(&room.strip, weight, &mut room.left);
                let to = To { matrix: &logits, rows: 0..rows, columns: columns.clone() };
                let right = Right::Rows(&hidden, 0, piece.start);
                let add = piece.start > 0 || start.is_some();
                self.kernels.multiply(piece.len(), &room.left, right, to, add);
            }
        })
    }

    /// Takes the gradients at the targets out of those of the logits, where they have one: a target's share of a sum
    /// is as a rule much larger than all others, which would be rounded as if they were as large.
    pub(super) fn set_apart(&self, chunk: &Input, class: impl Fn(usize) -> Option<usize>) -> Apart {
        let apart = |row| {
            let class = class(row).filter(|&class| chunk.is_allowed(row, class))?;
            let cell = &chunk.logits.cells::<T>(row, class..class + 1)[0];
            Some((class, cell.replace(T::ZERO).to_f64()))
        };
        (0..chunk.logits.rows()).map(apart).collect()
    }

    /// The gradients, from that of the logits and what was set apart; for the first chunk or a later one.
    pub(super) fn gradients(
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
                let sums = self.of_few(room, &logits, piece);
                order.in_turn(*line, *number, || add_sums(back, sums, *number > 0));
            }
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

/// Whether a chunk has few rows.
fn is_few<T: Factor>(rows: usize) -> bool {
    rows <= most_few::<T>()
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

/// A range in blocks of one length, but for the last.
pub(super) fn blocks(range: Range<usize>, length: usize) -> Vec<Range<usize>> {
    let end = range.end;
    range.step_by(length).map(|start| start..(start + length).min(end)).collect()
}

fn zeros<T: Factor>(length: usize) -> Result<Vec<T>, Error> {
    error::collect((0..length).map(|_| T::ZERO))
}
