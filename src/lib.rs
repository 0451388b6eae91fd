//! Softmax, log-sum-exp and cross-entropy with gradients, over batches of large-vocabulary logits on a CPU.
//!
//! For a row of logits `x` and a target class `y`:
//!
//! ```text
//! softmax    p_i = exp(x_i) / sum_a exp(x_a)
//! logsumexp  lse = log sum_a exp(x_a)
//! loss       nll = -log p_y = lse - x_y
//! gradient   d nll / d x_i = p_i - [i == y]
//! ```
//!
//! From the ground up, each floor knowing only those below it:
//!
//! | module | what it is |
//! |---|---|
//! | [`simd`] | the vocabulary: vectors of one logical width on every instruction set |
//! | [`error`], [`threads`], [`memory`] | what can go wrong; tasks to threads; blocks for large results |
//! | [`element`] | dtypes: from memory to lanes and back |
//! | [`exp`], [`log`] | the exponential and the logarithm on vectors |
//! | [`batch`] | arrays as rows of columns; class ids, checked |
//! | [`row`] | the kernel: summarize a row, write a row |
//! | [`product`] | matrices multiplied, a block at a time |
//! | [`loss`] | from a row's summary to its loss and gradient |
//! | [`sweep`] | the walk over a batch |
//! | [`compute`] | the API |
//!
//! Invariants: the same bits for every number of threads, layout, position in the batch, and for every
//! instruction set with a fused multiply-add; no array of the size of the logits is allocated; `unsafe` only
//! where vectors, views, threads and blocks meet memory.

// What a user can cause is an error, never a panic. (Here and not in Cargo.toml, so that tests may unwrap.)
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod batch;
pub mod compute;
pub mod element;
pub mod error;
pub mod exp;
pub mod log;
pub mod loss;
pub mod memory;
pub mod product;
#[cfg(feature = "python")]
mod python;
pub mod row;
pub mod simd;
pub mod sweep;
pub mod threads;
