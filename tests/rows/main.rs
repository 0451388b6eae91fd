//! The row kernel, on every level that this processor has: against a naive twin in double precision within what
//! working precision costs, against the twin level bit for bit, and against itself (masked, capped, in place, past
//! the caches, at any alignment) bit for bit.
//!
//! The kernel reads four quarters side by side; a step is 16 singles or 8 doubles of each, a block 16 steps. The
//! lengths and places that are tried lie on both sides of every boundary.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod comparisons;
mod locate;
mod masks;
mod moments;
mod summaries;
#[path = "../twin/mod.rs"]
mod twin;
mod writes;

use softxent::element::Element;
use softxent::exp::{Base, Exp, Softcap};
use softxent::row::{CHUNK, Chunk, Moments, Nothing, Partial, Summarize};
use softxent::simd::{Float, Kernel, MAX_LANES, Number, Simd, Vector};
use std::cell::Cell;
use std::fmt::Debug;
use twin::{Random, bits, is_fused, on_every_level, thinned, vector};

/// Calls a check once for each dtype.
macro_rules! for_every_element {
    ($check:ident($($argument:expr),*)) => {
        $check::<half::f16>($($argument),*);
        $check::<half::bf16>($($argument),*);
        $check::<f32>($($argument),*);
        $check::<f64>($($argument),*);
    };
}
use for_every_element;

/// What rows can be made of.
trait Item: Element<Compute: Exp + Debug> + Debug {}
impl<E: Element<Compute: Exp + Debug> + Debug> Item for E {}

/// The distance from 1 to the next number, of the precision that `E` is computed in.
fn epsilon<E: Element>() -> f64 {
    if E::Compute::LANES == 16 { f32::EPSILON.into() } else { f64::EPSILON }
}

/// The bits of an element; one and the same for every NaN.
fn element_bits<E: Element>(element: &Cell<E>) -> u64 {
    bits(element.get().to_f64())
}

/// The bits of all that a summary holds; one and the same for every NaN.
fn partial_bits(partial: Partial) -> [u64; 7] {
    let Partial { max, sum, moment, weight, energy, greater, chunk } = partial;
    let [max, sum, moment, weight, energy, greater] =
        [max, sum, moment, weight, energy, greater].map(bits);
    [max, sum, moment, weight, energy, greater, chunk as u64]
}

fn cells<E: Element>(values: impl IntoIterator<Item = f64>) -> Vec<Cell<E>> {
    values.into_iter().map(|value| Cell::new(E::from_f64(value))).collect()
}

/// Logits like those of a model, and a few that are equal.
fn logits<E: Element>(length: usize, seed: u64) -> Vec<Cell<E>> {
    let random = &mut Random(seed);
    let value = |i: usize, x: f64| if i % 7 == 3 { 2.5 } else { x };
    cells((0..length).map(|i| value(i, random.between(-12.0, 12.0))))
}

/// Logits as they are.
fn plain<E: Item>(cells: &[Cell<E>]) -> Chunk<'_, E> {
    Chunk { cells, mask: None, softcap: None }
}

/// Every length up to some steps, and those around blocks and chunks.
fn lengths() -> impl Iterator<Item = usize> {
    let large = [511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097, CHUNK - 1, CHUNK];
    (0..=200).step_by(thinned(7)).chain(large.into_iter().step_by(thinned(4)))
}

/// The places of a row that are special to the kernel; all of them in a short row.
fn places(length: usize) -> Vec<usize> {
    let all = 0..length;
    if length <= 70 || [128, 129, 200].contains(&length) {
        return all.step_by(thinned(11)).collect();
    }
    let quarters = [length.div_ceil(64) * 16, length.div_ceil(32) * 8];
    let starts = quarters.into_iter().flat_map(|quarter| (0..4).map(move |i| i * quarter));
    let both_sides = starts.chain([length]).flat_map(|at| [at.wrapping_sub(1), at]);
    both_sides.filter(|at| all.contains(at)).step_by(thinned(3)).collect()
}

/// The summary of a chunk on every level; those that have to agree with the twin do.
fn summaries<E: Item>(
    chunk: Chunk<'_, E>,
    skip: Option<usize>,
    base: &Base<E::Compute>,
) -> Vec<(&'static str, Partial)> {
    summaries_with(chunk, skip, base, Nothing::<true>)
}

/// The same of any moments.
fn summaries_with<E: Item>(
    chunk: Chunk<'_, E>,
    skip: Option<usize>,
    base: &Base<E::Compute>,
    moments: impl Moments<E::Compute>,
) -> Vec<(&'static str, Partial)> {
    let results =
        on_every_level(|| Summarize { chunk, skip, base, moments, weights: None }).into_iter();
    let results: Vec<_> = results.map(|(level, (partial, _))| (level, partial)).collect();
    check_fused(&results, |partial| partial_bits(*partial), &|| {
        let start = &chunk.cells[..chunk.cells.len().min(8)];
        format!("{} {:?} {start:?}..., skip {skip:?}", chunk.cells.len(), E::KIND)
    });
    results
}

/// Compares the results of the levels that have a fused multiply-add with those of the twin, which is the last.
fn check_fused<R: Debug, B: PartialEq>(
    results: &[(&str, R)],
    bits: impl Fn(&R) -> B,
    about: &dyn Fn() -> String,
) {
    let (_, twin) = results.last().unwrap();
    for (level, got) in results.iter().filter(|(level, _)| is_fused(level)) {
        assert!(bits(got) == bits(twin), "{level}: {got:?}, not {twin:?}, of {}", about());
    }
}

/// A sum that loses next to nothing: what the additions round away is summed beside (Neumaier).
#[derive(Clone, Copy, Default)]
struct Total {
    sum: f64,
    lost: f64,
}

impl Total {
    fn add(&mut self, term: f64) {
        let sum = self.sum + term;
        let (large, small) =
            if self.sum.abs() > term.abs() { (self.sum, term) } else { (term, self.sum) };
        self.lost += (large - sum) + small;
        self.sum = sum;
    }

    fn value(self) -> f64 {
        if self.sum.is_finite() { self.sum + self.lost } else { self.sum }
    }
}

/// The largest of some logits and the sum of their exponentials, term by term.
struct Naive {
    max: f64,
    sum: f64,
    /// How far from that sum the kernel may be: what its terms lose in working precision.
    slack: f64,
}

impl Naive {
    fn new<E: Item>(logits: impl IntoIterator<Item = f64>, temperature: f64) -> Self {
        let row: Vec<f64> = logits.into_iter().collect();
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (mut sum, mut slack) = (Total::default(), 0.0);
        for x in &row {
            let d = if *x == max { 0.0 } else { (x - max) / temperature };
            let term = d.exp();
            sum.add(term);
            slack += term * (4.0 + 2.0 * d.abs().min(1e3)) * epsilon::<E>();
        }
        let sum = match max {
            _ if row.iter().any(|x| x.is_nan()) => f64::NAN,
            f64::INFINITY => f64::INFINITY,
            f64::NEG_INFINITY => 0.0,
            _ => sum.value(),
        };
        Self { max, sum, slack }
    }

    fn check(&self, level: &str, got: Partial, about: &dyn Fn() -> String) {
        let about = || format!("{level}: {got:?} of {}", about());
        if self.sum.is_nan() {
            return assert!(got.sum.is_nan(), "{}: there is a NaN", about());
        }
        assert!(got.max == self.max, "{}: the maximum is {}", about(), self.max);
        check_near(got.sum, self.sum, self.slack, &about);
    }

    /// Checks a summary relative to one of the logits that none exceeds by much.
    fn check_near_max(
        &self,
        level: &str,
        got: Partial,
        temperature: f64,
        about: &dyn Fn() -> String,
    ) {
        let below = (self.max - got.max) / temperature;
        if self.sum.is_nan() || got.max == self.max || !self.max.is_finite() {
            return self.check(level, got, about);
        }
        let about = || format!("{level}: {got:?} of {}", about());
        assert!((0.0..=1.37).contains(&below), "{}: the maximum is {}", about(), self.max);
        assert!(self.sum > 1.25, "{}: {} has four fifths of the sum", about(), self.max);
        let times = below.exp();
        check_near(got.sum, self.sum * times, 1.1 * self.slack * times, &about);
    }
}

/// Compares a number with what it should be.
fn check_near(got: f64, expected: f64, slack: f64, about: &dyn Fn() -> String) {
    let near =
        got == expected || (got - expected).abs() <= slack || (got.is_nan() && expected.is_nan());
    assert!(near, "{got}, not {expected} +- {slack}: {}", about());
}

/// What a soft cap makes of each logit, in the precision of the computation, with its derivative; or nothing of it.
struct Capped<'a, E: Item> {
    softcap: Option<&'a Softcap<E::Compute>>,
    cells: &'a [Cell<E>],
}

impl<E: Item> Kernel for Capped<'_, E> {
    type Output = Vec<[E::Compute; 2]>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let mut results = Vec::with_capacity(self.cells.len());
        for part in self.cells.chunks(E::Compute::LANES) {
            let mut lanes = [E::Compute::from_f64(0.0); MAX_LANES];
            for (lane, x) in lanes.iter_mut().zip(part) {
                *lane = x.get().widen();
            }
            let x = vector(simd, &lanes);
            let one = Vector::splat(simd, E::Compute::ONE);
            let (x, slope) = self.softcap.map_or((x, one), |softcap| softcap.apply(simd, x));
            let (x, slope) = (x.to_array(E::Compute::MAX), slope.to_array(E::Compute::MAX));
            results.extend((0..part.len()).map(|i| [x[i], slope[i]]));
        }
        results
    }
}

/// A mask, and bytes around it: the first is at no special address, and a yes is any byte but 0.
struct Mask {
    bytes: Vec<Cell<u8>>,
}

impl Mask {
    fn new(length: usize, allowed: impl Fn(usize) -> bool) -> Self {
        let byte = |i: usize| if allowed(i) { 1 + (i % 255) as u8 } else { 0 };
        let around = || std::iter::once(Cell::new(1));
        Self {
            bytes: around().chain((0..length).map(byte).map(Cell::new)).chain(around()).collect(),
        }
    }

    fn bytes(&self) -> &[Cell<u8>] {
        &self.bytes[1..self.bytes.len() - 1]
    }

    fn allows(&self, at: usize) -> bool {
        self.bytes()[at].get() != 0
    }
}

/// Masks of a row: one class alone, all but one, the first or the second half, runs of every length, at random, all
/// and none.
fn masks(length: usize) -> Vec<Mask> {
    let mut masks = Vec::new();
    for at in places(length).into_iter().step_by(1 + length / 16) {
        masks.push(Mask::new(length, |i| i != at));
        masks.push(Mask::new(length, |i| i == at));
        masks.push(Mask::new(length, |i| i < at));
        masks.push(Mask::new(length, |i| i > at));
    }
    let random = &mut Random(length as u64);
    for share in [0.0, 0.1, 0.5, 0.99, 1.0] {
        let allowed: Vec<bool> = (0..length).map(|_| random.between(0.0, 1.0) < share).collect();
        masks.push(Mask::new(length, |i| allowed[i]));
    }
    let runs: Vec<bool> = (0..20).flat_map(|n| vec![n % 2 == 0; 1 + n * 3]).collect();
    masks.push(Mask::new(length, |i| runs[i % runs.len()]));
    masks
}
