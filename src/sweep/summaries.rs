//! Rows summarized: chunk by chunk with all that a job wants summed, and once more where digits would be missing.

use super::Selection;
use super::tile::{Part, chunk_of, chunks_of};
use super::walk::{Read, Tiles, Walk};
use crate::batch::Matrix;
use crate::element::Element;
use crate::exp::Exp;
use crate::loss::Summary;
use crate::row::{
    Beside, CHUNK, Chunk, Locate, Moments, Nothing, Partial, Statistics, Summarize, Weighted,
    Weights,
};
use crate::simd::Number;

impl<E, O> Walk<'_, E, O>
where
    E: Element<Compute: Exp>,
    O: Element<Compute = E::Compute>,
{
    /// Summarizes a part of `row`, one of a group that is gathered together.
    pub(super) fn summarize(
        &self,
        tiles: &mut Tiles<E, O>,
        part: &Part<'_>,
        row: usize,
        selection: Selection,
    ) -> Partial {
        let whole = part;
        let columns = self.within_window(&whole.columns);
        let skip = match selection {
            Selection::Nothing => return Partial::EMPTY,
            Selection::All => None,
            Selection::Aside(at) => at.checked_sub(columns.start).filter(|&at| at < columns.len()),
        };
        let start = columns.start;
        let part = Part { columns, ..*whole };
        let mut guarded = tiles.guarded || self.input.mask.is_some();
        let Read { chunk, beside } = self.read(tiles, &part, row);
        let weights = match beside {
            Some(Beside::Weights(weights)) => Some(weights),
            _ => None,
        };
        let logit = match selection {
            Selection::Aside(at) if self.job.wants_statistics() => Some(self.logit(row, at).0),
            _ => None,
        };
        let mut partial = self.sums(chunk, weights, skip, logit, guarded);
        // Products of zero and infinity are rare unless there is a mask: only where they have spoilt a sum it is
        // taken again. Both ways give the same bits where both give a number.
        if !guarded && !partial.sum.is_nan() && (partial.moment.is_nan() || partial.energy.is_nan())
        {
            guarded = true;
            partial = self.sums(chunk, weights, skip, logit, guarded);
        }
        tiles.guarded = guarded;
        let partial = Partial { chunk: start, ..partial };
        match self.outside(tiles, whole, row) {
            Some(outside) => partial.merge(outside, self.base.temperature),
            None => partial,
        }
    }

    /// Summarizes a chunk, with its weights if there are any, or with statistics against a logit.
    fn sums(
        &self,
        chunk: Chunk<'_, E>,
        weights: Option<Weights<'_, E>>,
        skip: Option<usize>,
        logit: Option<f64>,
        guarded: bool,
    ) -> Partial {
        if let Some(given) = weights {
            let (partial, (moment, weight)) = if chunk.mask.is_none() && given.are_even() {
                self.run_sums(chunk, weights, skip, Weighted::<true> { guarded })
            } else {
                self.run_sums(chunk, weights, skip, Weighted::<false> { guarded })
            };
            Partial { moment, weight, ..partial }
        } else if let Some(logit) = logit {
            let moments = Statistics { logit: Number::from_f64(logit), guarded };
            let (partial, (energy, greater)) = self.run_sums(chunk, None, skip, moments);
            Partial { energy, greater, ..partial }
        } else if self.job.needs_max() {
            self.run_sums(chunk, None, skip, Nothing::<true>).0
        } else {
            self.run_sums(chunk, None, skip, Nothing::<false>).0
        }
    }

    /// What probability targets outside of the window add: their classes are masked.
    fn outside(&self, tiles: &mut Tiles<E, O>, part: &Part<'_>, row: usize) -> Option<Partial> {
        let targets = self.weighting.and_then(|given| given.targets)?;
        let within = self.within_window(&part.columns);
        if within == part.columns {
            return None;
        }
        let mut outside = Partial::EMPTY;
        let targets = tiles.targets.row(targets, part, row);
        for (column, target) in part.columns.clone().zip(targets) {
            if !within.contains(&column) && target.get().to_f64() != 0.0 {
                let one = Partial::of_one(f64::NEG_INFINITY, self.weight(row, column));
                outside = outside.merge(one, self.base.temperature);
            }
        }
        Some(outside)
    }

    fn run_sums<M: Moments<E::Compute>>(
        &self,
        chunk: Chunk<'_, E>,
        weights: Option<Weights<'_, E>>,
        skip: Option<usize>,
        moments: M,
    ) -> (Partial, (f64, f64)) {
        self.level.run(Summarize { chunk, skip, base: &self.base, moments, weights })
    }

    /// The weight of a class.
    fn weight(&self, row: usize, column: usize) -> f64 {
        let Some(given) = self.weighting else { return 0.0 };
        let of = |matrix: Option<&Matrix>| matrix.map_or(1.0, |matrix| matrix.get(row, column));
        let allowed =
            if self.input.is_allowed(row, column) { self.job.of_allowed(row) } else { 0.0 };
        of(given.classes) * (given.of_targets * of(given.targets) + allowed)
    }

    /// From a row's partial summary to all that the job needs to know of the row.
    pub(super) fn whole(
        &self,
        tiles: &mut Tiles<E, O>,
        row: usize,
        partial: Partial,
    ) -> Option<Summary> {
        let temperature = self.base.temperature;
        let summary = match self.job.select(row) {
            Selection::Nothing => return None,
            Selection::Aside(at) => {
                let aside = Partial::of_one(self.logit(row, at).0, self.weight(row, at));
                let summary = Summary::with_aside(partial, aside, temperature);
                if self.job.wants_statistics() && !summary.total.is_nan() {
                    let largest = self.first_largest(tiles, row, &partial, (at, aside.max));
                    Summary { largest, ..summary }
                } else if self.job.needs_largest(&summary) {
                    let Summary { largest, others, .. } =
                        self.set_largest_aside(tiles, row, &partial);
                    Summary { largest, others_of_largest: others, ..summary }
                } else {
                    summary
                }
            }
            Selection::All => {
                let summary = Summary::of_row(partial, temperature);
                if self.job.needs_aside(&summary) {
                    self.set_largest_aside(tiles, row, &partial)
                } else {
                    summary
                }
            }
        };
        Some(summary)
    }

    /// The first column of a row at which `value`, the maximum of the chunk that begins at `start`, stands in
    /// it.
    fn locate(
        &self,
        tiles: &mut Tiles<E, O>,
        row: usize,
        start: usize,
        value: f64,
    ) -> Option<usize> {
        let group = row..row + 1;
        let columns = self.within_window(&chunk_of(self.input.logits.columns(), start / CHUNK));
        let first = columns.start;
        let Read { chunk, .. } = self.read(tiles, &Part { group: &group, columns }, row);
        self.level.run(Locate { chunk, value }).map(|at| first + at)
    }

    /// The first column of the largest logit of a row from which one was set aside, which has the column and
    /// the logit `aside`.
    fn first_largest(
        &self,
        tiles: &mut Tiles<E, O>,
        row: usize,
        rest: &Partial,
        aside: (usize, f64),
    ) -> usize {
        let (column, logit) = aside;
        if logit > rest.max {
            return column;
        }
        match self.locate(tiles, row, rest.chunk, rest.max) {
            Some(first) if logit < rest.max => first,
            Some(first) => first.min(column),
            None => column,
        }
    }

    /// Summarizes a row once more without the first of its largest logits.
    fn set_largest_aside(&self, tiles: &mut Tiles<E, O>, row: usize, whole: &Partial) -> Summary {
        let temperature = self.base.temperature;
        let group = row..row + 1;
        let largest = self.locate(tiles, row, whole.chunk, whole.max);
        let selection = largest.map_or(Selection::All, Selection::Aside);
        let mut rest = Partial::EMPTY;
        for columns in chunks_of(self.input.logits.columns()) {
            let part = Part { group: &group, columns };
            let summary = self.summarize(tiles, &part, row, selection);
            rest = rest.merge(summary, temperature);
        }
        let weight = largest.map_or(0.0, |column| self.weight(row, column));
        let summary = Summary::with_aside(rest, Partial::of_one(whole.max, weight), temperature);
        Summary { largest: largest.unwrap_or(0), ..summary }
    }
}
