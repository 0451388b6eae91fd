//! A walk over a batch: every row is summarized, the job says what follows from the summary, the row is written.
//!
//! ```text
//! for each row:  summary = summarize(row)        one read
//!                action  = job.finish(summary)   scalar
//!                write(row, action)              one more read, from cache, and one write
//! ```
//!
//! 1. *Rows to threads*: a task is a run of rows. If there are too few rows for that, or they are very long, they
//!    are cut into chunks, and the three lines above become three loops, the first and the last on all threads.
//!    Chunks are always cut at the same places, so both ways give the same bits.
//! 2. *Rows that are not contiguous* are gathered into a tile, one chunk at a time; several rows at once where
//!    neighbouring rows are closer in memory than neighbouring columns (class axis 1 of an image-like batch).
//!    Outputs that can't be written in place go through a tile as well.
//! 3. *Large outputs* are written past the caches.

use crate::batch::Matrix;
use crate::element::Element;
use crate::error::{self, Error};
use crate::exp::{Base, Exp};
use crate::loss::Summary;
use crate::row::{Affine, CHUNK, Formula, Logarithm, Partial, Summarize, Write};
use crate::simd::{Float, Level, Number, with_default_float_state};
use crate::threads;
use std::cell::Cell;
use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Rows gathered at a time when neighbouring rows are neighbours in memory: a cache line of singles.
const GATHERED_ROWS: usize = 16;

/// Columns from which on a row is no longer a single task: no cache holds it until it is written, and a caller
/// who wants to stop should not wait for its end.
const LONG_ROW: usize = 4 << 20;

/// Sizes at which the way of working changes. None of them changes a result.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// Elements below which one thread is faster than waking others.
    pub parallel: usize,
    /// Bytes of output from which on it is written past the caches.
    pub stream: usize,
    /// Elements of a task.
    pub task: usize,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { parallel: 64 * 1024, stream: 8 * 1024 * 1024, task: 256 * 1024 }
    }
}

/// How a call is to be run.
pub struct Run<'a> {
    /// The instruction set.
    pub level: Level,
    /// The most threads to use.
    pub threads: usize,
    /// When to do what.
    pub thresholds: Thresholds,
    /// Whether the caller wants to stop; asked now and then on the calling thread.
    pub interrupted: &'a mut dyn FnMut() -> bool,
}

/// Which logits of a row are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// None: the row is not read.
    Nothing,
    /// All of them.
    All,
    /// All of them, with the one at this column kept apart.
    Aside(usize),
}

/// What is written to a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// Nothing.
    Leave,
    /// The same value everywhere.
    Fill(f64),
    /// `alpha * exp((x - max) / temperature) + beta`, and something else in one place.
    Affine {
        /// The row's maximum.
        max: f64,
        /// The factor.
        alpha: f64,
        /// The same for every class.
        beta: f64,
        /// A column and its value.
        patch: Option<(usize, f64)>,
    },
    /// `(x - max) / temperature - log_total`
    Logarithm {
        /// The row's maximum.
        max: f64,
        /// The logarithm of the row's sum.
        log_total: f64,
    },
}

/// What a sweep is for.
pub trait Job: Sync {
    /// Divides the logits.
    fn temperature(&self) -> f64;
    /// Which logits of this row are summed.
    fn select(&self, _row: usize) -> Selection {
        Selection::All
    }
    /// Whether the summary has too few digits for this job unless the largest logit is set aside.
    fn needs_aside(&self, _summary: &Summary) -> bool {
        false
    }
    /// Takes a row's summary (None if nothing was selected) and says what to write.
    fn finish(&self, row: usize, summary: Option<&Summary>) -> Action;
}

/// Walks over all rows of `logits` and writes `out`, which may be the same memory.
pub fn sweep<E: Element<Compute: Exp>>(
    run: Run<'_>,
    logits: &Matrix,
    out: Option<&Matrix>,
    job: &impl Job,
) -> Result<(), Error> {
    match out {
        Some(to) if !to.is_contiguous::<E>() => {
            Sweep::<E, E::Compute, _>::run(run, logits, out, job)
        }
        _ => Sweep::<E, E, _>::run(run, logits, out, job),
    }
}

/// A sweep with input elements `E` whose results are computed as elements `O`.
struct Sweep<'a, E: Element, O, J> {
    logits: &'a Matrix,
    out: Option<&'a Matrix>,
    job: &'a J,
    level: Level,
    base: Base<E::Compute>,
    stream: bool,
    /// Rows gathered at a time.
    group: usize,
    tiles: Mutex<Vec<Tile<E, O>>>,
}

/// Room for the chunks of a group of rows that are not used where they lie.
struct Tile<E, O> {
    input: Vec<Cell<E>>,
    output: Vec<Cell<O>>,
    /// The rows and the first column that `input` holds.
    holds: Option<(Range<usize>, usize)>,
}

impl<E, O, J> Sweep<'_, E, O, J>
where
    E: Element<Compute: Exp>,
    O: Element<Compute = E::Compute>,
    J: Job,
{
    fn run(run: Run<'_>, logits: &Matrix, out: Option<&Matrix>, job: &J) -> Result<(), Error> {
        let (rows, columns) = (logits.rows(), logits.columns());
        let elements = rows.saturating_mul(columns);
        let threads =
            if elements < run.thresholds.parallel { 1 } else { run.threads.min(threads::MOST) };
        let gathered = !logits.is_contiguous::<E>();
        let scattered = out.is_some_and(|out| !out.is_contiguous::<O>());
        let group = if gathered && logits.rows_are_neighbours() {
            GATHERED_ROWS.min(rows).max(1)
        } else {
            1
        };
        let room = group * columns.min(CHUNK);
        let mut tiles: Vec<Tile<E, O>> = error::reserve(threads)?;
        for _ in 0..threads {
            tiles.push(Tile {
                input: cells(if gathered { room } else { 0 })?,
                output: cells(if scattered { room } else { 0 })?,
                holds: None,
            });
        }
        let sweep = Sweep {
            logits,
            out,
            job,
            level: run.level,
            base: Base::new(job.temperature()),
            stream: !scattered && elements.saturating_mul(size_of::<O>()) >= run.thresholds.stream,
            group,
            tiles: Mutex::new(tiles),
        };
        let shared = threads > 1 && rows < 4 * threads && columns > CHUNK;
        if shared || columns > LONG_ROW {
            sweep.by_chunks(threads, run.thresholds.task, run.interrupted)
        } else {
            // Small enough that every thread gets some, large enough that taking one costs nothing.
            let share = rows.div_ceil(4 * threads);
            let task = run.thresholds.task.div_ceil(columns.max(1)).min(share);
            sweep.by_rows(threads, task.next_multiple_of(group).max(1), run.interrupted)
        }
    }

    /// Whole rows to threads.
    fn by_rows(
        &self,
        threads: usize,
        task: usize,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        let rows = self.logits.rows();
        let work = |i: usize| {
            self.with_tile(|tile| {
                let end = (i * task + task).min(rows);
                for start in (i * task..end).step_by(self.group) {
                    let group = start..(start + self.group).min(end);
                    let mut partials = [Partial::EMPTY; GATHERED_ROWS];
                    for columns in self.chunks() {
                        for (row, partial) in group.clone().zip(&mut partials) {
                            let part =
                                self.summarize(tile, &group, row, &columns, self.job.select(row));
                            *partial = partial.merge(part, self.base.temperature);
                        }
                    }
                    let mut actions = [Action::Leave; GATHERED_ROWS];
                    for ((row, partial), action) in group.clone().zip(partials).zip(&mut actions) {
                        *action = self.finish(tile, row, partial);
                    }
                    for columns in self.chunks() {
                        self.write(tile, &group, &columns, &actions);
                    }
                }
            });
        };
        threads::run(rows.div_ceil(task), threads, &work, interrupted)
    }

    /// Chunks of rows to threads; `group` plays no part, since rows are too few to gain from it.
    fn by_chunks(
        &self,
        threads: usize,
        task: usize,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        let rows = self.logits.rows();
        let per_row = self.logits.columns().div_ceil(CHUNK);
        let chunk = |i: usize| (i / per_row, self.chunk(i % per_row));
        let count = rows * per_row;
        let per_task = (task / CHUNK).min(count.div_ceil(4 * threads)).max(1);
        let tasks = count.div_ceil(per_task);
        let chunks_of = |task: usize| task * per_task..(task * per_task + per_task).min(count);

        let partials: Vec<OnceLock<Partial>> = error::collect((0..count).map(|_| OnceLock::new()))?;
        let summarize = |task: usize| {
            self.with_tile(|tile| {
                for i in chunks_of(task) {
                    let (row, columns) = chunk(i);
                    let group = row..row + 1;
                    let part = self.summarize(tile, &group, row, &columns, self.job.select(row));
                    partials[i].get_or_init(|| part);
                }
            });
        };
        threads::run(tasks, threads, &summarize, interrupted)?;

        let mut actions = error::reserve(rows)?;
        self.with_tile(|tile| {
            for (row, parts) in partials.chunks(per_row).enumerate() {
                let part = |part: &OnceLock<Partial>| part.get().copied().unwrap_or(Partial::EMPTY);
                let merge = |a: Partial, b| a.merge(b, self.base.temperature);
                actions.push(self.finish(
                    tile,
                    row,
                    parts.iter().map(part).fold(Partial::EMPTY, merge),
                ));
            }
        });

        if self.out.is_none() {
            return Ok(());
        }
        let write = |task: usize| {
            self.with_tile(|tile| {
                for i in chunks_of(task) {
                    let (row, columns) = chunk(i);
                    self.write(tile, &(row..row + 1), &columns, &actions[row..=row]);
                }
            });
        };
        threads::run(tasks, threads, &write, interrupted)
    }

    /// The columns of all chunks of a row.
    fn chunks(&self) -> impl Iterator<Item = Range<usize>> {
        (0..self.logits.columns().div_ceil(CHUNK)).map(|i| self.chunk(i))
    }

    /// The columns of the i-th chunk.
    fn chunk(&self, i: usize) -> Range<usize> {
        i * CHUNK..((i + 1) * CHUNK).min(self.logits.columns())
    }

    /// Runs a task in the default floating-point state, with a tile of its own.
    fn with_tile(&self, task: impl FnOnce(&mut Tile<E, O>)) {
        with_default_float_state(|| {
            let taken = self.tiles.lock().unwrap_or_else(PoisonError::into_inner).pop();
            // There are as many tiles as threads; an empty one is never used.
            let mut tile =
                taken.unwrap_or(Tile { input: Vec::new(), output: Vec::new(), holds: None });
            task(&mut tile);
            if self.stream {
                self.level.fence();
            }
            self.tiles.lock().unwrap_or_else(PoisonError::into_inner).push(tile);
        });
    }

    /// Summarizes a part of `row`, one of a group that is gathered together.
    fn summarize(
        &self,
        tile: &mut Tile<E, O>,
        group: &Range<usize>,
        row: usize,
        columns: &Range<usize>,
        selection: Selection,
    ) -> Partial {
        let skip = match selection {
            Selection::Nothing => return Partial::EMPTY,
            Selection::All => None,
            Selection::Aside(at) => at.checked_sub(columns.start).filter(|&at| at < columns.len()),
        };
        let chunk = self.source(tile, group, row, columns);
        self.level.run(Summarize { chunk, skip, base: &self.base })
    }

    /// The logits of a part of a row: where they lie, or in the tile.
    fn source<'t>(
        &'t self,
        tile: &'t mut Tile<E, O>,
        group: &Range<usize>,
        row: usize,
        columns: &Range<usize>,
    ) -> &'t [Cell<E>] {
        if tile.input.is_empty() {
            return self.logits.cells(row, columns.clone());
        }
        let holds = (group.clone(), columns.start);
        let width = columns.len();
        if tile.holds.as_ref() != Some(&holds) {
            self.logits.gather(group.clone(), columns.clone(), &tile.input);
            tile.holds = Some(holds);
        }
        &tile.input[(row - group.start) * width..][..width]
    }

    /// From a row's partial summary to what is written.
    fn finish(&self, tile: &mut Tile<E, O>, row: usize, partial: Partial) -> Action {
        let temperature = self.base.temperature;
        let summary = match self.job.select(row) {
            Selection::Nothing => return self.job.finish(row, None),
            Selection::Aside(at) => {
                Summary::with_aside(partial, self.logits.get(row, at), temperature)
            }
            Selection::All => {
                let summary = Summary::of_row(partial, temperature);
                if self.job.needs_aside(&summary) {
                    self.set_largest_aside(tile, row, partial.max)
                } else {
                    summary
                }
            }
        };
        self.job.finish(row, Some(&summary))
    }

    /// Summarizes a row once more without the first of its largest logits.
    fn set_largest_aside(&self, tile: &mut Tile<E, O>, row: usize, max: f64) -> Summary {
        let group = row..row + 1;
        let mut selection = Selection::All;
        let mut rest = Partial::EMPTY;
        for columns in self.chunks() {
            if selection == Selection::All {
                let cells = self.source(tile, &group, row, &columns);
                let largest = cells.iter().position(|x| x.get().to_f64() == max);
                if let Some(at) = largest {
                    selection = Selection::Aside(columns.start + at);
                }
            }
            let part = self.summarize(tile, &group, row, &columns, selection);
            rest = rest.merge(part, self.base.temperature);
        }
        Summary::with_aside(rest, max, self.base.temperature)
    }

    /// Writes a part of each row of a group, one action a row.
    fn write(
        &self,
        tile: &mut Tile<E, O>,
        group: &Range<usize>,
        columns: &Range<usize>,
        actions: &[Action],
    ) {
        let Some(out) = self.out else { return };
        if tile.output.is_empty() {
            for (row, &action) in group.clone().zip(actions) {
                let to = out.cells(row, columns.clone());
                self.write_row(tile, group, row, columns, action, to);
            }
        } else {
            let width = columns.len();
            let output = std::mem::take(&mut tile.output);
            for ((row, &action), to) in group.clone().zip(actions).zip(output.chunks(width)) {
                self.write_row(tile, group, row, columns, action, to);
            }
            out.scatter(group.clone(), columns.clone(), &output);
            tile.output = output;
        }
    }

    /// Writes a part of one row to `to`.
    fn write_row(
        &self,
        tile: &mut Tile<E, O>,
        group: &Range<usize>,
        row: usize,
        columns: &Range<usize>,
        action: Action,
        to: &[Cell<O>],
    ) {
        match action {
            Action::Leave => {}
            Action::Fill(value) => fill(to, value),
            // Where everything is NaN it is always the same NaN: what arithmetic makes of several depends on the
            // order of operands, which compilers choose.
            Action::Affine { alpha, .. } if alpha.is_nan() => fill(to, f64::NAN),
            Action::Logarithm { log_total, .. } if log_total.is_nan() => fill(to, f64::NAN),
            Action::Affine { max, alpha, beta, patch } => {
                let formula = Affine {
                    max: Number::from_f64(max),
                    base: &self.base,
                    alpha: Number::from_f64(within::<E>(alpha)),
                    beta: Number::from_f64(beta),
                };
                let patch = patch.and_then(|(at, value)| {
                    let at = at.checked_sub(columns.start).filter(|&at| at < columns.len())?;
                    Some((at, Number::from_f64(value)))
                });
                let from = self.source(tile, group, row, columns);
                self.apply(from, to, formula, patch);
            }
            Action::Logarithm { max, log_total } => {
                let formula = Logarithm {
                    max: Number::from_f64(max),
                    inverse_temperature: Number::from_f64(within::<E>(1.0 / self.base.temperature)),
                    minus_log_sum: Number::from_f64(-log_total),
                };
                let from = self.source(tile, group, row, columns);
                self.apply(from, to, formula, None);
            }
        }
    }

    fn apply<F: Formula<E::Compute>>(
        &self,
        from: &[Cell<E>],
        to: &[Cell<O>],
        formula: F,
        patch: Option<(usize, E::Compute)>,
    ) {
        self.level.run(Write { from, to, formula, patch, stream: self.stream });
    }
}

fn fill<O: Element>(to: &[Cell<O>], value: f64) {
    to.iter().for_each(|cell| cell.set(O::from_f64(value)));
}

/// A factor kept finite in the precision of the computation, so that 0 times it stays 0.
fn within<E: Element>(factor: f64) -> f64 {
    let largest = E::Compute::MAX.to_f64();
    factor.clamp(-largest, largest)
}

/// Room for that many elements.
fn cells<E: Element>(length: usize) -> Result<Vec<Cell<E>>, Error> {
    error::collect((0..length).map(|_| Cell::new(E::default())))
}
