//! The row kernel: summarize a row, write a row. It never learns what a loss is.
//!
//! ```text
//! summarize(x):     M = max x_i,   S = sum exp((x_i - M) / T)
//! write(x):         out_i = alpha exp((x_i - M) / T) + beta          probabilities, gradients
//! write_log(x):     out_i = (x_i - M) / T - log S                    log-probabilities
//! compare(x, y):    sum of what a measure says of each class         divergences
//! ```
//!
//! That is all the mathematics; where asked for there come beside S the sums of `q_i (x_i - M)` for weights q or
//! for the exponentials as weights, and the number of logits that exceed a given one. The departures:
//!
//! 1. *One pass.* The sum is taken against a reference that is close to the maximum seen so far. Only when a
//!    block's maximum exceeds the reference by 1.37 temperatures (a factor of 4 in the exponentials)
//!    is the reference raised and that block done again. The margin is no more than that because the rounding
//!    of `x - reference` grows with the distance, and so that the largest logit has less than four fifths of the sum
//!    unless it is the reference. The first reference is the maximum of the first block, found in a pass of its own over
//!    4 KiB. Taking maximum and sum of every block in two phases reached 70 % of the read limit where this reaches
//!    90-96 %. Where the maximum itself is not asked for it is not taken either: that no logit is far above or below the
//!    reference is seen from the bits of the exponents (point 5 of `exp`), for a whole block at once. In cache that is
//!    worth 5 % with AVX-512 and 18 % with AVX2 (EPYC, Zen 4). In the write pass it was worth nothing.
//! 2. *Sums in double precision.* Eight vectors of exponentials are added pairwise in working precision, the
//!    result is folded into eight doubles. Every addition in doubles would cost a quarter of the speed in
//!    cache, and folding after four 6 %; longer chains in single precision lose small terms beside a large one.
//!    Sums of doubles carry the rounding errors along: without, a row of one large logit and 50,000 small ones
//!    was 600 ulp off.
//! 3. *One element can be left out* of the summary (the target's). The loss `log1p(others / target)` of a
//!    confident row is then exact, where `lse - x_y` would cancel to nothing.
//! 4. *Four streams.* A chunk is cut into four quarters that are read side by side, one vector of each in a step.
//!    The processor's prefetcher follows every stream some twenty lines ahead, and no further; a single stream
//!    leaves the memory idle while the exponentials are computed. With four, a software prefetch pays as
//!    well, now 2 KiB ahead. Measured from memory on one thread, in GB/s, where reading alone reaches 16.4: one stream
//!    8.3, with prefetch at the best distance 9.1 (12.0 into L2); two streams 10.8; eight 13.8; four 13.7, with
//!    prefetch 256 bytes ahead 15.8, 512 16.6, 1024 17.4, 2048 17.4, 4096 16.2, 8192 14.5 (Xeon). With memory
//!    that is faster than the arithmetic (EPYC, Zen 5): 1024 27.4, 2048 32.3, 4096 28.7, 8192 32.0. In cache none
//!    of this changes anything. Short rows, and processors that like one stream better: see `streams`.
//! 5. *Long rows in chunks* of [`CHUNK`] elements, always cut at the same places whoever computes them, and
//!    merged from left to right, so that many threads can share a row and the bits are the same.
//! 6. *Steps that are not whole* come last: the one from which an element is left out, and the tail of the chunk. What is
//!    not there is -inf, whose exponential is exactly 0.
//! 7. NaN is sticky in the sum, though the maximum may drop it. Infinity is a maximum like any other; the
//!    sum says whether a NaN was there as well.
//!
//! 8. *Masks and the soft cap* act on a vector when it is loaded. Plain logits have loops of their own, so that they
//!    do not pay. The other sums are added in working precision within a block of sixteen steps, then folded into
//!    doubles, and a product of zero and infinity is guarded against only where there is one: folding every step
//!    and guarding every product made label smoothing take four times as long in cache as the plain loss, where
//!    it now takes 1.3 times as long.
//!
//! The write pass reads the row a second time, from cache if it fits, and computes the exponential again.
//! Keeping the exponentials in a scratch row instead is worth 3 % at 128,000 columns on a Xeon, 2 % on an EPYC
//! (Zen 4, where memory moves 70 GB/s and two cores compute no more than 48), and can't be done in place.
//!
//! While a row is written past the caches the next one is asked for, so that memory is read and written at the same
//! time. Softmax on two threads of an EPYC (Zen 5) whose memory was the limit, in GB/s: rows of 128,256 20.5 and 21.5, of
//! 32,000 20.5 and 23.5, of 4,096 19.0 and 20.5; where arithmetic is the limit it costs 4 %. In place nothing is asked
//! for: that took rows of 32,000 from 29 to 23. Writing a row and summing the next in turn, in pieces of 64 to 32,000
//! elements, gained nothing on either.

mod chunk;
mod compare;
mod convert;
mod locate;
mod measure;
mod moments;
mod streams;
mod sum;
mod summarize;
mod weights;
mod write;

pub use chunk::Chunk;
pub use compare::{Compare, Nearer};
pub use convert::Logarithms;
pub use locate::{At, Locate};
pub use measure::{Classes, Forward, JensenShannon, Measure, Pair, Reverse};
pub use moments::{Moments, Nothing, Statistics, Weighted};
pub use summarize::Summarize;
pub use weights::{Along, Beside, Weights};
pub use write::{Affine, Formula, Hessian, Logarithm, Slope, Write};

use crate::exp::exp_difference;

/// Elements that are summarized in one go.
pub const CHUNK: usize = 32_768;

/// Vectors in flight at a time: enough to hide the latency of the exponential. In the summary each comes from
/// a stream of its own.
const UNROLL: usize = 4;

/// What the logits of a part of a row add up to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Partial {
    /// The largest logit; -inf of nothing. If that was not asked for, a logit that none exceeds by more than 1.37
    /// temperatures: it is the largest one wherever that has four fifths of the sum.
    pub max: f64,
    /// The sum of `exp((x - max) / temperature)`; NaN if there is a NaN, +inf if the maximum is +inf.
    pub sum: f64,
    /// `sum q (x - max)` for weights q, if there are any.
    pub moment: f64,
    /// `sum q`
    pub weight: f64,
    /// `sum exp((x - max) / temperature) (x - max)`, if it was asked for.
    pub energy: f64,
    /// How many logits are greater than a given one, if that was asked for.
    pub greater: f64,
    /// Where the chunk begins in which the maximum stands, the first such chunk.
    pub chunk: usize,
}

impl Partial {
    /// The summary of no logits at all.
    pub const EMPTY: Self = Self {
        max: f64::NEG_INFINITY,
        sum: 0.0,
        moment: 0.0,
        weight: 0.0,
        energy: 0.0,
        greater: 0.0,
        chunk: 0,
    };

    /// A single logit with its weight.
    pub fn of_one(logit: f64, weight: f64) -> Self {
        let moment = if logit == f64::NEG_INFINITY && weight != 0.0 { logit * weight } else { 0.0 };
        let sum = match logit {
            f64::INFINITY => logit,
            f64::NEG_INFINITY => 0.0,
            _ => 1.0,
        };
        Self { max: logit, sum, moment, weight, ..Self::EMPTY }
    }

    /// The summary of both parts.
    pub fn merge(self, other: Self, temperature: f64) -> Self {
        let chunk = if other.max > self.max { other.chunk } else { self.chunk };
        let (a, b) = self.level_with(other, temperature);
        Self { chunk, ..a.plus(b) }
    }

    /// The summary of both parts, which have the same maximum.
    pub fn plus(self, other: Self) -> Self {
        Self {
            max: self.max,
            sum: self.sum + other.sum,
            moment: self.moment + other.moment,
            weight: self.weight + other.weight,
            energy: self.energy + other.energy,
            greater: self.greater + other.greater,
            chunk: self.chunk,
        }
    }

    /// Both parts, relative to the larger maximum.
    pub fn level_with(self, other: Self, temperature: f64) -> (Self, Self) {
        let max = if self.max > other.max { self.max } else { other.max };
        (self.relative_to(max, temperature), other.relative_to(max, temperature))
    }

    /// The sums relative to a maximum that is at least the part's own.
    fn relative_to(self, max: f64, temperature: f64) -> Self {
        // Equal maxima first: the difference of two infinities is not a number. Where all is -inf there are
        // no exponentials, and nothing moves a moment that is infinite; a NaN may be there.
        if self.max == max || self.max == f64::NEG_INFINITY {
            return Self { max, ..self };
        }
        let by = max - self.max;
        let factor = exp_difference(self.max, max, temperature);
        Self {
            max,
            sum: self.sum * factor,
            moment: self.moment - self.weight * by,
            energy: (self.energy - self.sum * by) * factor,
            ..self
        }
    }
}
