//! The walk itself, as a plan: what is read of a row, what follows from it, and where it is written.
//!
//! Summaries are in `summaries.rs`, the comparison with a second row in `comparisons.rs`, the outputs in `outputs.rs`;
//! here is what they share.

use super::schedule::{GROUP, Plan, SHORT, Schedule};
use super::teacher::{Compared, Teacher};
use super::tile::{LeftOut, Part, Tile, cells};
use super::{Action, Input, Job, OUTPUTS, Run, Selection, Weighting};
use crate::batch::Matrix;
use crate::element::Element;
use crate::error::{self, Error};
use crate::exp::{Base, Exp, Softcap};
use crate::loss::Summary;
use crate::row::{Along, At, Beside, Chunk, Pair, Partial, Weights};
use crate::simd::{Float, Level, Number, with_default_float_state};
use std::cell::Cell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// A walk over input elements `E` whose results are computed as elements `O`.
pub(super) struct Walk<'a, E: Element, O> {
    pub(super) input: &'a Input,
    pub(super) weighting: Option<Weighting<'a>>,
    pub(super) teacher: Option<Teacher<'a>>,
    pub(super) outs: [Option<&'a Matrix>; OUTPUTS],
    pub(super) job: &'a dyn Job,
    pub(super) level: Level,
    pub(super) base: Base<E::Compute>,
    /// The base for the temperature 1.
    pub(super) unit: Base<E::Compute>,
    pub(super) softcap: Option<Softcap<E::Compute>>,
    pub(super) stream: bool,
    /// Elements from a row that is written to the one that is read next, as a rule; 0 if there is none.
    pub(super) next: usize,
    tiles: Mutex<Vec<Tiles<E, O>>>,
}

/// A thread's room for what is not used where it lies.
pub(super) struct Tiles<E: Element, O> {
    pub(super) logits: Tile<E>,
    pub(super) mask: Tile<u8>,
    left_out: LeftOut,
    pub(super) classes: Tile<E::Compute>,
    pub(super) targets: Tile<E::Compute>,
    pub(super) teacher: Tile<E::Compute>,
    pub(super) output: Vec<Cell<O>>,
    /// Whether sums have been spoilt here by products of zero and infinity; where there was one there are more.
    pub(super) guarded: bool,
}

impl<E: Element, O> Tiles<E, O> {
    const EMPTY: Self = Self {
        logits: Tile::EMPTY,
        mask: Tile::EMPTY,
        left_out: LeftOut::EMPTY,
        classes: Tile::EMPTY,
        targets: Tile::EMPTY,
        teacher: Tile::EMPTY,
        output: Vec::new(),
        guarded: false,
    };
}

/// All that is read of a part of a row.
pub(super) struct Read<'t, E: Element> {
    pub(super) chunk: Chunk<'t, E>,
    pub(super) beside: Option<Beside<'t, E>>,
}

/// What a pass finds in a part of a row.
#[derive(Clone, Copy)]
pub(super) enum Found {
    /// The first: the summary of the logits, and that of the teacher's.
    Summaries(Partial, Partial),
    /// The second, what the comparison of both sums: a measure's two sums, and by how much the probabilities of the row
    /// are more.
    Sums([f64; 3]),
}

impl Default for Found {
    fn default() -> Self {
        Self::Summaries(Partial::EMPTY, Partial::EMPTY)
    }
}

/// What is known of a row after a pass.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// The row and the teacher's, if they are compared.
    pair: Option<Pair>,
    /// What is to be written.
    pub(super) actions: [Action; OUTPUTS],
}

impl Default for Known {
    fn default() -> Self {
        Self { pair: None, actions: [Action::Leave; OUTPUTS] }
    }
}

impl<E, O> Walk<'_, E, O>
where
    E: Element<Compute: Exp>,
    O: Element<Compute = E::Compute>,
{
    pub(super) fn run(
        run: Run<'_>,
        input: &Input,
        outs: [Option<&Matrix>; OUTPUTS],
        job: &dyn Job,
    ) -> Result<(), Error> {
        let logits = &input.logits;
        let (rows, columns) = (logits.rows(), logits.columns());
        let elements = rows.saturating_mul(columns);
        let threads = if elements < run.thresholds.parallel { 1 } else { run.threads() };
        let (weighting, teacher) = (job.weighting(), job.teacher());
        let scattered = outs.iter().flatten().any(|out| !out.is_contiguous::<O>());
        let gathered = !logits.is_contiguous::<E>() || scattered;
        let together = if gathered { logits.rows_are_neighbours() } else { columns <= SHORT };
        let group = if together { GROUP.min(rows).max(1) } else { 1 };
        let room = group * columns.min(crate::row::CHUNK);
        let mut tiles: Vec<Tiles<E, O>> = error::reserve(threads)?;
        for _ in 0..threads {
            tiles.push(Tiles {
                logits: Tile::new(Some(logits), room)?,
                mask: Tile::new(input.mask.as_ref(), room)?,
                left_out: LeftOut::EMPTY,
                classes: Tile::of_one_row(weighting.and_then(|given| given.classes))?,
                targets: Tile::new(weighting.and_then(|given| given.targets), room)?,
                teacher: teacher.map_or(Ok(Tile::EMPTY), |teacher| teacher.tile(room))?,
                output: cells(if scattered { room } else { 0 })?,
                guarded: false,
            });
        }
        let schedule = Schedule { rows, columns, group, threads, thresholds: run.thresholds };
        let in_place = outs.iter().flatten().any(|out| out.begins_where(logits));
        let walk = Walk {
            input,
            weighting,
            teacher,
            outs,
            job,
            level: run.level,
            base: Base::new(input.temperature),
            unit: Base::new(1.0),
            // A cap beyond the largest number of this precision bounds none.
            softcap: input.softcap.filter(|&cap| cap <= E::Compute::MAX.to_f64()).map(Softcap::new),
            stream: !scattered && elements.saturating_mul(size_of::<O>()) >= run.thresholds.stream,
            next: if gathered || in_place || schedule.is_by_chunks() { 0 } else { group * columns },
            tiles: Mutex::new(tiles),
        };
        schedule.run(&walk, run.interrupted)
    }

    /// Those of some columns that lie within the window.
    pub(super) fn within_window(&self, columns: &Range<usize>) -> Range<usize> {
        let Range { start, end } = self.input.window;
        columns.start.clamp(start, end).clamp(columns.start, columns.end)
            ..columns.end.clamp(start, end).clamp(columns.start, columns.end)
    }

    /// All that is read of a part of a row, which lies within the window.
    pub(super) fn read<'t>(
        &'t self,
        tiles: &'t mut Tiles<E, O>,
        part: &Part<'_>,
        row: usize,
    ) -> Read<'t, E> {
        let mut mask = self.input.mask.as_ref().map(|mask| tiles.mask.row(mask, part, row));
        let left_out = self.job.leaves_out(row);
        if !left_out.is_empty() {
            mask = Some(tiles.left_out.without(mask, &part.columns, left_out));
        }
        let chunk = Chunk {
            cells: tiles.logits.row(&self.input.logits, part, row),
            mask,
            softcap: self.softcap.as_ref(),
        };
        if let Some(teacher) = self.teacher {
            let cells = teacher.row::<E>(self.level, &mut tiles.teacher, part, row);
            let other = Chunk { cells, mask, softcap: None };
            return Read { chunk, beside: Some(Beside::Logits(other)) };
        }
        let weights = self.weighting.map(|given| Weights {
            classes: match given.classes {
                Some(classes) => Along::Each(tiles.classes.row(classes, part, row)),
                None => Along::Same(E::Compute::ONE),
            },
            targets: match given.targets {
                Some(targets) if targets.is_contiguous::<E>() => {
                    Along::Stored(targets.cells(row, part.columns.clone()))
                }
                Some(targets) => Along::Each(tiles.targets.row(targets, part, row)),
                None => Along::Same(E::Compute::ONE),
            },
            of_targets: Number::from_f64(given.of_targets),
            of_allowed: Number::from_f64(self.job.of_allowed(row)),
        });
        Read { chunk, beside: weights.map(Beside::Weights) }
    }

    /// The logit at a place as it is summed, -inf if it is masked, and its derivative with respect to the one
    /// in memory.
    pub(super) fn logit(&self, row: usize, column: usize) -> (f64, f64) {
        let given = self.input.logits.at::<E>(row, column);
        if !self.input.is_allowed(row, column) {
            return (f64::NEG_INFINITY, 0.0);
        }
        if self.softcap.is_none() {
            return (given, 1.0);
        }
        let cells = [Cell::new(E::from_f64(given))];
        let chunk = Chunk { cells: &cells, mask: None, softcap: self.softcap.as_ref() };
        self.level.run(At { chunk, at: 0 })
    }

    /// What a job makes of a row's summary.
    fn finish(&self, row: usize, summary: Option<&Summary>) -> [Action; OUTPUTS] {
        let first = self.job.finish(row, summary, &|column| self.logit(row, column).0);
        [first, self.job.finish_second(row, summary)]
    }
}

impl<E, O> Plan for Walk<'_, E, O>
where
    E: Element<Compute: Exp>,
    O: Element<Compute = E::Compute>,
{
    type Tiles = Tiles<E, O>;
    type Found = Found;
    type Known = Known;

    fn reads(&self) -> usize {
        if self.teacher.is_some() { 2 } else { 1 }
    }

    fn writes(&self) -> bool {
        self.outs.iter().any(Option::is_some)
    }

    fn with_tiles(&self, task: impl FnOnce(&mut Tiles<E, O>)) {
        with_default_float_state(|| {
            let taken = self.tiles.lock().unwrap_or_else(PoisonError::into_inner).pop();
            // There are as many tiles as threads; an empty one is never used.
            let mut tiles = taken.unwrap_or(Tiles::EMPTY);
            task(&mut tiles);
            if self.stream {
                self.level.fence();
            }
            self.tiles.lock().unwrap_or_else(PoisonError::into_inner).push(tiles);
        });
    }

    fn look(
        &self,
        pass: usize,
        tiles: &mut Tiles<E, O>,
        part: &Part<'_>,
        row: usize,
        known: &Known,
    ) -> Found {
        let selection = self.job.select(row);
        if selection == Selection::Nothing {
            return Found::default();
        }
        if pass > 0 {
            let sums = known.pair.map_or([0.0; 3], |pair| self.compare(tiles, part, row, &pair));
            return Found::Sums(sums);
        }
        let summary = self.summarize(tiles, part, row, selection);
        Found::Summaries(summary, self.summarize_teacher(tiles, part, row))
    }

    fn merge(&self, a: Found, b: Found) -> Found {
        let temperature = self.base.temperature;
        match (a, b) {
            (Found::Summaries(a, x), Found::Summaries(b, y)) => {
                Found::Summaries(a.merge(b, temperature), x.merge(y, temperature))
            }
            (Found::Sums(a), Found::Sums(b)) => Found::Sums(std::array::from_fn(|i| a[i] + b[i])),
            // A row of which nothing is read.
            (Found::Summaries(..), sums) | (sums, Found::Summaries(..)) => sums,
        }
    }

    fn settle(
        &self,
        pass: usize,
        tiles: &mut Tiles<E, O>,
        row: usize,
        found: Found,
        known: &mut Known,
    ) {
        match found {
            Found::Summaries(partial, _) if self.teacher.is_none() => {
                self.job.take(row, &partial);
                let summary = self.whole(tiles, row, partial);
                known.actions = self.finish(row, summary.as_ref());
            }
            Found::Summaries(partial, teacher) if pass == 0 => {
                known.pair = self.whole(tiles, row, partial).map(|summary| {
                    summary.beside(&Summary::of_row(teacher, self.base.temperature))
                });
            }
            Found::Summaries(..) => known.actions[0] = self.job.finish_pair(row, None),
            Found::Sums([first, second, surplus]) => {
                let compared = known.pair.map(|pair| Compared {
                    pair: pair.corrected(surplus),
                    sums: [first, second],
                    surplus,
                });
                known.actions[0] = self.job.finish_pair(row, compared);
            }
        }
    }

    fn write(&self, tiles: &mut Tiles<E, O>, part: &Part<'_>, known: &[Known]) {
        self.write_group(tiles, part, known);
    }
}
