//! The Rust API: batches in, results out. Each file is a family of functions and the jobs that do them.

mod cross_entropy;
mod divergence;
mod evaluation;
mod grad_hess;
mod linear;
mod probabilities;
mod reduced;
mod shards;
mod sparse;
mod tokens;

pub use cross_entropy::{LossWeights, Targets, cross_entropy};
pub use divergence::{Teacher, divergence};
pub use evaluation::{Evaluation, evaluate};
pub use grad_hess::{Labels, softmax_grad_hess};
pub use linear::{Linear, LinearGradients, linear_cross_entropy, linear_products};
pub use probabilities::{log_softmax, logsumexp, softmax};
pub use reduced::{Loss, Upstream};
pub use shards::{
    Merged, Pieces, ShardGradient, ShardTarget, finish_cross_entropy, partial_cross_entropy,
    shard_grad,
};
pub use sparse::{Groups, Named, groups, teacher_groups, write_gradient};
pub use tokens::token_logprobs;

use crate::error::{self, Error};
use std::sync::atomic::{AtomicU64, Ordering};

/// One double per row, or several, written by whichever thread has the row.
struct PerRow(Vec<AtomicU64>);

impl PerRow {
    fn new(rows: usize) -> Result<Self, Error> {
        Ok(Self(error::collect((0..rows).map(|_| AtomicU64::default()))?))
    }

    fn set(&self, row: usize, value: f64) {
        // Relaxed: the end of the sweep orders all of these before the values are read.
        self.0[row].store(value.to_bits(), Ordering::Relaxed);
    }

    fn into_values(self) -> Result<Vec<f64>, Error> {
        error::collect(self.0.into_iter().map(|bits| f64::from_bits(bits.into_inner())))
    }
}

/// What gives a job the logit at a column of the row that it finishes.
type Logit<'a> = &'a dyn Fn(usize) -> f64;
