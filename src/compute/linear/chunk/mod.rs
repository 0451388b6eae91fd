//! A chunk on a desk: what its products need, its rows taken up, its logits. The way back is in `back`.
//!
//! All products are cut into tasks:
//!
//! | product | a task | packed |
//! |---|---|---|
//! | logits | some classes, all rows | the weights of the classes, as it goes; if rows are few, only the rows, once a chunk |
//! | d weight | some classes, all of D | their logits, as it goes; the hidden states, once a chunk |
//! | d hidden | some of D, all rows, a slab of classes | the slab's weights, as it goes; if rows are few, nothing |

mod back;

use super::Linear;
use super::gradients::{Gradients, ROWS, Sum};
use crate::error::{self, Error};
use crate::product::{
    Factor, Kernels, Right, Sheet, Strip, To, depth_of_pieces, most_few, pieces, room_few,
};
use crate::simd::{Level, with_default_float_state};
use crate::sweep::{Input, Run};
use crate::threads;
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

/// A thread's room for operands.
pub(super) struct Room<T> {
    left: Vec<T>,
    right: Vec<T>,
    pub(super) strip: Strip<T>,
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
        let threads = if few { 1 } else { run.threads() };
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
            // There are as many rooms as threads; after a panic one is missing, but then no task matters.
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
            for piece in pieces::<T>(0..self.width()) {
                let weight = (self.linear.weight, columns, &piece);
                let add = piece.start > 0 || start.is_some();
                if is_few::<T>(rows) {
                    let few = &self.few[room_few::<T>(rows, piece.start)..];
                    room.strip.multiply_few(weight, few, &logits, add);
                    continue;
                }
                self.kernels.turn_left(&room.strip, weight, &mut room.left);
                let to = To { matrix: &logits, rows: 0..rows, columns: columns.clone() };
                let right = Right::Rows(&hidden, 0, piece.start);
                self.kernels.multiply(piece.len(), &room.left, right, to, add);
            }
        })
    }
}

/// Whether a chunk has few rows.
fn is_few<T: Factor>(rows: usize) -> bool {
    rows <= most_few::<T>()
}

/// A range in blocks of one length, but for the last.
pub(super) fn blocks(range: Range<usize>, length: usize) -> Vec<Range<usize>> {
    let end = range.end;
    range.step_by(length).map(|start| start..(start + length).min(end)).collect()
}

fn zeros<T: Factor>(length: usize) -> Result<Vec<T>, Error> {
    error::collect((0..length).map(|_| T::ZERO))
}
