//! The cross-entropy of `hidden @ weight.T + bias`, and its gradients, without ever holding all of the logits.
//!
//! ```text
//! for each chunk of rows:  logits = hidden @ weight.T + bias         one product
//!                          losses, logits <- their gradient          the sweep of `cross_entropy`, in place
//!                          d hidden  = logits @ weight               one product
//!                          d weight += logits.T @ hidden             one product
//!                          d bias   += sum of the rows of logits
//! ```
//!
//! 1. *Rows that do not count* are in no chunk: they cost no product. Classes beyond the window are no columns of one.
//! 2. *A chunk is a sixth of the rows*, within bounds. More rows at a time save reading and writing `d weight` more
//!    often, fewer hold less: of 2048 x 768 x 50257 a half, a quarter, a fifth and an eighth of the rows took 1.056, 1.066,
//!    1.09 and 1.132 s, of 2048 x 4096 x 50257 5.58, 5.56, 5.67 and 5.88; but a fifth of these needed 0.26 of the memory
//!    that torch takes beside the gradients, which is to be no more than a quarter.
//! 3. *What a loss is* is not known here: the job of `cross_entropy` runs over each chunk, and only the denominator,
//!    which needs no logits, is the batch's.
//! 4. *A target's gradient is no part of a product* but is added afterwards: it is as a rule far larger than those of
//!    the other classes, and a sum that begins with it would round them all as if they were as large. The root mean
//!    square error of the gradients of 700 x 256 x 3000 was 2.5e-8 and 1.6e-7 with it in the products (torch: 1.6e-8 and
//!    1.2e-7).
//! 5. *Few rows* are limited by reading the weights, not by multiplying: then these are not packed, see `chunk`.
//! 6. *The order of additions* is fixed by the shapes alone, see `product`: same bits for every number of threads.
//!    Losses and the gradient of the hidden states are sums along a row or the classes, so a row's do not depend on
//!    the other rows either; those of weight and bias are sums over rows, chunk by chunk.

mod chunk;
mod gradients;

use super::cross_entropy::{LossWeights, TargetLoss, Targets};
use super::reduced::Scales;
use super::{Loss, PerRow, Upstream};
use crate::batch::Matrix;
use crate::element::Kind;
use crate::error::{self, Error};
use crate::loss::CrossEntropy;
use crate::product::Factor;
use crate::sweep::{Input, Job, Run, Selection, sweep};
use crate::threads::POLL;
use chunk::Desk;
use gradients::Gradients;
use std::time::Instant;

/// The most bytes of a chunk, if that is more than one row.
const CHUNK_BYTES: usize = 192 << 20;

/// The least number of chunks, if each then has enough rows.
const CHUNKS: usize = 6;

/// Rows at a time, if there are so many: fewer make products slow.
const ENOUGH_ROWS: usize = 320;

/// The most rows at a time: products are no faster with more.
const MOST_ROWS: usize = 1024;

/// The operands.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// (N, D)
    pub hidden: &'a Matrix,
    /// (V, D)
    pub weight: &'a Matrix,
    /// (V,)
    pub bias: Option<&'a [f64]>,
}

/// Where the gradients go that are wanted.
#[derive(Clone, Copy)]
pub struct LinearGradients<'a> {
    /// (N, D)
    pub hidden: Option<&'a Matrix>,
    /// (V, D)
    pub weight: Option<&'a Matrix>,
    /// (V,), as one row.
    pub bias: Option<&'a Matrix>,
    /// Whether they are added to what is there.
    pub accumulate: bool,
    /// The gradient of what comes after.
    pub upstream: &'a Upstream,
}

impl Linear<'_> {
    /// The precision of the products: double if one of the operands is.
    pub fn is_double(hidden: Kind, weight: Kind) -> bool {
        [hidden, weight].iter().any(|kind| !matches!(kind, Kind::F16 | Kind::BF16 | Kind::F32))
    }

    /// How many rows are worked on at a time. Each needs its logits and three rows of (N, D), of elements of `size` bytes.
    fn rows_at_a_time(rows: usize, classes: usize, width: usize, size: usize) -> usize {
        let of_row = classes.saturating_add(width.saturating_mul(3)).saturating_mul(size);
        let wanted = rows.div_ceil(CHUNKS).clamp(ENOUGH_ROWS, MOST_ROWS);
        let most = (CHUNK_BYTES / of_row.max(1)).clamp(1, wanted);
        // Chunks of one size.
        rows.div_ceil(rows.div_ceil(most).max(1))
    }
}

/// The cross-entropy of every row with its target, and the gradients that there is a place for. The logits of `input`
/// only lend their shape.
pub fn linear_cross_entropy(
    run: Run<'_>,
    linear: Linear<'_>,
    input: &Input,
    targets: &Targets,
    weights: &LossWeights,
    options: &CrossEntropy,
    gradients: Option<LinearGradients<'_>>,
) -> Result<Loss, Error> {
    let rows = PerRow::new(input.logits.rows())?;
    let mut loss = TargetLoss::new(input, targets, weights, options, &rows);
    let denominator = loss.denominator()?;
    loss.gradient = gradients.map(|given| Scales::new(given.upstream, denominator));
    by_chunks(run, linear, input, Some(loss), gradients)?;
    Loss::of_rows(rows, &options.reducing, denominator)
}

/// The products alone, with the logits in place of their gradient: what the loss is measured against.
pub fn linear_products(
    run: Run<'_>,
    linear: Linear<'_>,
    input: &Input,
    gradients: LinearGradients<'_>,
) -> Result<(), Error> {
    by_chunks(run, linear, input, None, Some(gradients))
}

fn by_chunks(
    run: Run<'_>,
    linear: Linear<'_>,
    input: &Input,
    loss: Option<TargetLoss<'_>>,
    gradients: Option<LinearGradients<'_>>,
) -> Result<(), Error> {
    if Linear::is_double(linear.hidden.kind(), linear.weight.kind()) {
        by_chunks_of::<f64>(run, linear, input, loss, gradients)
    } else {
        by_chunks_of::<f32>(run, linear, input, loss, gradients)
    }
}

fn by_chunks_of<T: Factor>(
    mut run: Run<'_>,
    linear: Linear<'_>,
    input: &Input,
    loss: Option<TargetLoss<'_>>,
    gradients: Option<LinearGradients<'_>>,
) -> Result<(), Error> {
    let counts = |row: &usize| loss.is_none_or(|loss| loss.select(*row) != Selection::Nothing);
    let mut counting = error::reserve(input.logits.rows())?;
    counting.extend((0..input.logits.rows()).filter(counts));
    let (classes, width) = (input.logits.columns(), linear.hidden.columns());
    let most = Linear::rows_at_a_time(counting.len(), classes, width, size_of::<T>());

    let gradients = Gradients::new::<T>(gradients, input.window.end)?;
    let mut desk = Desk::<T>::new(&run, linear, input, most, &gradients)?;
    desk.open(&mut run, &counting)?;
    let mut patience = Patience::new();
    for (number, part) in counting.chunks(most.max(1)).enumerate() {
        patience.ask(&mut run)?;
        let chunk = desk.lay_out(&mut run, part)?;
        desk.logits(&mut run, part.len())?;
        patience.ask(&mut run)?;
        let mut apart = Vec::new();
        if let Some(loss) = loss {
            let targets = match loss.targets {
                Targets::Probabilities(all) => &Targets::Probabilities(all.pick(part)),
                classes @ Targets::Classes(_) => classes,
            };
            let job = loss.of_part(&chunk, targets, part);
            sweep(run.again(), &chunk, gradients.any().then_some(&chunk.logits), &job)?;
            if gradients.any() {
                apart = desk.set_apart(&chunk, |row| job.class(row));
            }
        }
        patience.ask(&mut run)?;
        desk.gradients(&mut run, part, &apart, number == 0)?;
    }
    desk.close(&mut run, &counting)
}

/// Asks the caller now and then whether to stop, however short the runs in between are.
struct Patience {
    asked: Instant,
}

impl Patience {
    fn new() -> Self {
        Self { asked: Instant::now() }
    }

    fn ask(&mut self, run: &mut Run<'_>) -> Result<(), Error> {
        if self.asked.elapsed() < POLL {
            return Ok(());
        }
        self.asked = Instant::now();
        if (run.interrupted)() { Err(Error::Interrupted) } else { Ok(()) }
    }
}
