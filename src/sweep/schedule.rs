//! Which thread reads and writes what, and when (point 1 of the header of `sweep`).
//!
//! A plan has some passes that read the rows and one that writes them. What a pass finds in the chunks of a row is
//! merged from left to right, so that whole rows on one thread and chunks on several give the same bits. What is
//! found, and what follows from it, is not known here.

use super::Thresholds;
use super::tile::{Part, chunk_of, chunks_of};
use crate::error::{self, Error};
use crate::row::CHUNK;
use crate::threads;
use std::sync::OnceLock;

/// Rows that are worked on at a time when neighbouring rows are neighbours in memory: a cache line of singles. Short rows
/// are grouped as well, so that the scalar work on one overlaps with that on the next.
pub(super) const GROUP: usize = 16;

/// The most columns of a short row: the cache nearest to the processor has room for a group of them.
pub(super) const SHORT: usize = CHUNK / GROUP;

/// Columns from which on a row is no longer a single task: no cache holds it until it is written, and a
/// caller who wants to stop should not wait for its end.
const LONG_ROW: usize = 4 << 20;

/// What is done to rows.
pub(super) trait Plan: Sync {
    /// What a thread needs to work.
    type Tiles;
    /// What a pass finds in a part of a row.
    type Found: Copy + Default + Send + Sync;
    /// What is known of a row after a pass.
    type Known: Copy + Default + Send + Sync;

    /// How many passes read the rows.
    fn reads(&self) -> usize;
    /// Whether a pass writes them in the end.
    fn writes(&self) -> bool;
    /// Runs a task with tiles of its own.
    fn with_tiles(&self, task: impl FnOnce(&mut Self::Tiles));
    /// Reads a part of a row, one of a group that is gathered together.
    fn look(
        &self,
        pass: usize,
        tiles: &mut Self::Tiles,
        part: &Part<'_>,
        row: usize,
        known: &Self::Known,
    ) -> Self::Found;
    /// What was found in both of two parts.
    fn merge(&self, a: Self::Found, b: Self::Found) -> Self::Found;
    /// Concludes a pass over a row.
    fn settle(
        &self,
        pass: usize,
        tiles: &mut Self::Tiles,
        row: usize,
        found: Self::Found,
        known: &mut Self::Known,
    );
    /// Writes a part of each row of a group.
    fn write(&self, tiles: &mut Self::Tiles, part: &Part<'_>, known: &[Self::Known]);
}

/// The rows of a batch and how they are shared out.
pub(super) struct Schedule {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Rows worked on at a time.
    pub(super) group: usize,
    pub(super) threads: usize,
    pub(super) thresholds: Thresholds,
}

impl Schedule {
    /// Carries out a plan.
    pub(super) fn run(
        &self,
        plan: &impl Plan,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        if self.is_by_chunks() {
            self.by_chunks(plan, interrupted)
        } else {
            self.by_rows(plan, interrupted)
        }
    }

    /// Whether rows are shared out in chunks, each pass over all of them before the next.
    pub(super) fn is_by_chunks(&self) -> bool {
        let shared = self.threads > 1 && self.rows < 4 * self.threads && self.columns > CHUNK;
        shared || self.columns > LONG_ROW
    }

    /// Whole rows to threads.
    fn by_rows<P: Plan>(
        &self,
        plan: &P,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        let (rows, columns) = (self.rows, self.columns);
        // Small enough that every thread gets some, large enough that taking one costs nothing.
        let share = rows.div_ceil(4 * self.threads);
        let task = self.thresholds.task.div_ceil(columns.max(1)).min(share);
        let task = task.next_multiple_of(self.group).max(1);
        let work = |i: usize| {
            plan.with_tiles(|tiles| {
                let end = (i * task + task).min(rows);
                let (mut all_known, mut all_found) =
                    ([P::Known::default(); GROUP], [P::Found::default(); GROUP]);
                for start in (i * task..end).step_by(self.group) {
                    let group = start..(start + self.group).min(end);
                    let known = &mut all_known[..group.len()];
                    for pass in 0..plan.reads() {
                        let found = &mut all_found[..group.len()];
                        for columns in chunks_of(columns) {
                            let is_first = columns.start == 0;
                            let part = Part { group: &group, columns };
                            for ((row, found), known) in group.clone().zip(&mut *found).zip(&*known)
                            {
                                let here = plan.look(pass, tiles, &part, row, known);
                                *found = if is_first { here } else { plan.merge(*found, here) };
                            }
                        }
                        for ((row, found), known) in group.clone().zip(found).zip(&mut *known) {
                            plan.settle(pass, tiles, row, *found, known);
                        }
                    }
                    if plan.writes() {
                        for columns in chunks_of(columns) {
                            plan.write(tiles, &Part { group: &group, columns }, known);
                        }
                    }
                }
            });
        };
        threads::run(rows.div_ceil(task), self.threads, &work, interrupted)
    }

    /// Chunks of rows to threads; groups play no part, since rows are too few to gain from them.
    fn by_chunks<P: Plan>(
        &self,
        plan: &P,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        let per_row = self.columns.div_ceil(CHUNK);
        let chunk = |i: usize| (i / per_row, chunk_of(self.columns, i % per_row));
        let count = self.rows * per_row;
        let per_task = (self.thresholds.task / CHUNK).min(count.div_ceil(4 * self.threads)).max(1);
        let tasks = count.div_ceil(per_task);
        let chunks_of_task = |task: usize| task * per_task..(task * per_task + per_task).min(count);

        let mut known: Vec<P::Known> = error::collect((0..self.rows).map(|_| P::Known::default()))?;
        for pass in 0..plan.reads() {
            let found: Vec<OnceLock<P::Found>> =
                error::collect((0..count).map(|_| OnceLock::new()))?;
            let look = |task: usize| {
                plan.with_tiles(|tiles| {
                    for i in chunks_of_task(task) {
                        let (row, columns) = chunk(i);
                        let part = Part { group: &(row..row + 1), columns };
                        let here = plan.look(pass, tiles, &part, row, &known[row]);
                        found[i].get_or_init(|| here);
                    }
                });
            };
            threads::run(tasks, self.threads, &look, interrupted)?;
            plan.with_tiles(|tiles| {
                for ((row, parts), known) in found.chunks(per_row).enumerate().zip(&mut known) {
                    let parts = parts.iter().filter_map(|part| part.get().copied());
                    let whole = parts.reduce(|a, b| plan.merge(a, b));
                    plan.settle(pass, tiles, row, whole.unwrap_or_default(), known);
                }
            });
        }
        if !plan.writes() {
            return Ok(());
        }
        let write = |task: usize| {
            plan.with_tiles(|tiles| {
                for i in chunks_of_task(task) {
                    let (row, columns) = chunk(i);
                    let part = Part { group: &(row..row + 1), columns };
                    plan.write(tiles, &part, &known[row..=row]);
                }
            });
        };
        threads::run(tasks, self.threads, &write, interrupted)
    }
}
