//! A walk over a batch: every row is summarized, the job says what follows from the summary, the row is written.
//!
//! ```text
//! for each row:  summary = summarize(row)        one read
//!                action  = job.finish(summary)   scalar
//!                write(row, action)              one more read, from cache, and one write; for each output
//! ```
//!
//! 1. *Rows to threads*: a task is a run of rows. If there are too few rows for that, or they are very long, they
//!    are cut into chunks, and the three lines above become three loops, the first and the last on all threads.
//!    Chunks are always cut at the same places, so both ways give the same bits.
//! 2. *Rows that are not contiguous* are gathered into a tile, one chunk at a time; several rows at once where
//!    neighbouring rows are closer in memory than neighbouring columns (class axis 1 of an image-like batch).
//!    Outputs that can't be written in place go through a tile as well. The same holds for masks and weights.
//! 3. *Large outputs* are written past the caches.
//! 4. *A teacher's rows* are read beside the logits. A divergence needs both summaries before its terms can be
//!    summed, so there is a second look at both rows, as a rule from cache.
//! 5. *Two outputs* are written chunk by chunk, one after the other, the one that overwrites the logits last.

mod comparisons;
mod input;
mod outputs;
mod schedule;
mod summaries;
mod teacher;
mod tile;
mod walk;

pub use input::Input;
pub use teacher::{Compared, Teacher};

use crate::batch::Matrix;
use crate::element::{Element, Kind};
use crate::error::Error;
use crate::exp::Exp;
use crate::loss::{Coefficients, Divergence, Summary};
use crate::row::{Pair, Partial};
use crate::simd::Level;
use crate::threads;
use half::{bf16, f16};
use walk::Walk;

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
        Self { parallel: 64 * 1024, stream: 8 * 1024 * 1024, task: 128 * 1024 }
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

impl Run<'_> {
    /// How many threads are used where that pays, at least one.
    pub(crate) fn threads(&self) -> usize {
        self.threads.clamp(1, threads::MOST)
    }

    /// The same for one of several sweeps.
    pub fn again(&mut self) -> Run<'_> {
        Run { interrupted: &mut *self.interrupted, ..*self }
    }
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
    /// `alpha * exp((x - max) / temperature)`
    Exponential {
        /// The row's maximum.
        max: f64,
        /// The factor.
        alpha: f64,
    },
    /// `alpha * exp((x - max) / temperature) + beta * weight`, and something else in one place; as a
    /// derivative with respect to the logits in memory, if they are capped.
    Slope {
        /// The row's maximum.
        max: f64,
        /// The factor.
        alpha: f64,
        /// What each class has beside it, times its weight if the job has weights.
        beta: f64,
        /// A column and its value.
        patch: Option<(usize, f64)>,
        /// What all of it is multiplied with in the end, rarely other than 1.
        times: f64,
    },
    /// `alpha e (1 - e / total)` with `e = exp((x - max) / temperature)`, and something else in one place.
    Hessian {
        /// The row's maximum.
        max: f64,
        /// The factor.
        alpha: f64,
        /// The row's sum.
        total: f64,
        /// A column and its value.
        patch: Option<(usize, f64)>,
    },
    /// `scale` times the derivative of a divergence from the teacher's row.
    Nearer {
        /// Both rows.
        pair: Pair,
        /// The divergence.
        divergence: Divergence,
        /// What all classes have in common: see [`Divergence::center`].
        center: f64,
        /// The factor; NaN if one of the rows has no probabilities.
        scale: f64,
    },
    /// `(x - max) / temperature - log_total`
    Logarithm {
        /// The row's maximum.
        max: f64,
        /// The logarithm of the row's sum.
        log_total: f64,
    },
}

impl Action {
    /// The gradient of a row with these coefficients, whose target is `class` if it has one.
    pub fn slope(row: &Summary, gradient: Coefficients, class: Option<usize>) -> Self {
        Self::Slope {
            max: row.max,
            alpha: gradient.alpha,
            beta: gradient.beta,
            patch: class.map(|class| (class, gradient.at_target)),
            times: gradient.times,
        }
    }
}

/// What each class counts, in a job that weights them: `classes * (of_targets * targets + of_allowed)`, with
/// [`Job::of_allowed`].
#[derive(Clone, Copy, Debug)]
pub struct Weighting<'a> {
    /// One weight for each class, the same in all rows; 1 if there are none.
    pub classes: Option<&'a Matrix>,
    /// Probability targets.
    pub targets: Option<&'a Matrix>,
    /// The factor of the targets.
    pub of_targets: f64,
}

impl Weighting<'_> {
    /// Whether all allowed classes count the same.
    fn is_even(self) -> bool {
        self.classes.is_none() && self.targets.is_none()
    }
}

/// What a sweep is for.
pub trait Job: Sync {
    /// Which logits of this row are summed.
    fn select(&self, _row: usize) -> Selection {
        Selection::All
    }
    /// The weights of the classes, if the job has any.
    fn weighting(&self) -> Option<Weighting<'_>> {
        None
    }
    /// What the weight of a class gets for not being masked.
    fn of_allowed(&self, _row: usize) -> f64 {
        1.0
    }
    /// Whether entropy, rank and the place of the maximum are wanted.
    fn wants_statistics(&self) -> bool {
        false
    }
    /// Whether the summary has to be relative to the largest logit, and not only to one that none exceeds by much: see
    /// [`Partial::max`]. A job that does not need it can have the largest set aside only if the row is peaked.
    fn needs_max(&self) -> bool {
        true
    }
    /// Whether the summary has too few digits for this job unless the largest logit is set aside.
    fn needs_aside(&self, _summary: &Summary) -> bool {
        false
    }
    /// Whether, where a logit was set aside, `1 - p` of the largest one is needed as well. It takes another look
    /// at the row.
    fn needs_largest(&self, _summary: &Summary) -> bool {
        false
    }
    /// Takes a row's summary (None if nothing was selected) and says what to write. `logit` gives the logit
    /// at a column.
    fn finish(&self, row: usize, summary: Option<&Summary>, logit: &dyn Fn(usize) -> f64)
    -> Action;
    /// What the rows are compared with, if they are.
    fn teacher(&self) -> Option<Teacher<'_>> {
        None
    }
    /// In place of `finish` where there is a teacher: takes both rows and what the divergence sums over the classes
    /// (None if nothing was selected), and says what to write.
    fn finish_pair(&self, _row: usize, _compared: Option<Compared>) -> Action {
        Action::Leave
    }
    /// Classes of a row that are read as if they were masked, each in [0, V).
    fn leaves_out(&self, _row: usize) -> &[Option<usize>] {
        &[]
    }
    /// Takes what all chunks of a row together sum, before it becomes a summary.
    fn take(&self, _row: usize, _partial: &Partial) {}
    /// Columns of a row and what they get in the end in place of what was written.
    fn patches(&self, _row: usize) -> Vec<(usize, f64)> {
        Vec::new()
    }
    /// What to write to the second output, if there is one.
    fn finish_second(&self, _row: usize, _summary: Option<&Summary>) -> Action {
        Action::Leave
    }
}

/// The most outputs of a sweep.
const OUTPUTS: usize = 2;

/// Walks over all rows of the input and writes the outputs, none, one or two; one of them may be the input's own
/// memory.
pub fn sweep<'a>(
    run: Run<'_>,
    input: &Input,
    outs: impl IntoIterator<Item = &'a Matrix>,
    job: &dyn Job,
) -> Result<(), Error> {
    let mut outs = outs.into_iter();
    let outs = std::array::from_fn(|_| outs.next());
    match input.logits.kind() {
        Kind::F16 => sweep_of::<f16>(run, input, outs, job),
        Kind::BF16 => sweep_of::<bf16>(run, input, outs, job),
        Kind::F32 => sweep_of::<f32>(run, input, outs, job),
        _ => sweep_of::<f64>(run, input, outs, job),
    }
}

/// A walk with elements of one type to outputs of the same, or through a tile in the precision of the
/// computation.
fn sweep_of<E: Element<Compute: Exp>>(
    run: Run<'_>,
    input: &Input,
    outs: [Option<&Matrix>; OUTPUTS],
    job: &dyn Job,
) -> Result<(), Error> {
    if outs.iter().flatten().all(|out| out.is_contiguous::<E>()) {
        Walk::<E, E>::run(run, input, outs, job)
    } else {
        Walk::<E, E::Compute>::run(run, input, outs, job)
    }
}
