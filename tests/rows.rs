//! The row kernel, on every level that this processor has: against a naive twin in double precision within what
//! working precision costs, against the twin level bit for bit, and against itself (in place, past the caches, at
//! any alignment) bit for bit.
//!
//! The kernel reads four quarters side by side; a step is 16 singles or 8 doubles of each, a block 16 steps. The
//! lengths and places that are tried lie on both sides of every boundary.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod twin;

use half::{bf16, f16};
use softxent::element::Element;
use softxent::exp::{Base, Exp};
use softxent::row::{Affine, CHUNK, Formula, Logarithm, Partial, Summarize, Write};
use softxent::simd::{Float, Level, Number};
use std::cell::Cell;
use std::fmt::Debug;
use twin::{Random, bits, is_fused, on_every_level, thinned};

/// Calls a check once for each dtype.
macro_rules! for_every_element {
    ($check:ident($($argument:expr),*)) => {
        $check::<f16>($($argument),*);
        $check::<bf16>($($argument),*);
        $check::<f32>($($argument),*);
        $check::<f64>($($argument),*);
    };
}

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

fn cells<E: Element>(values: impl IntoIterator<Item = f64>) -> Vec<Cell<E>> {
    values.into_iter().map(|value| Cell::new(E::from_f64(value))).collect()
}

/// Logits like those of a model, and a few that are equal.
fn logits<E: Element>(length: usize, seed: u64) -> Vec<Cell<E>> {
    let random = &mut Random(seed);
    let value = |i: usize, x: f64| if i % 7 == 3 { 2.5 } else { x };
    cells((0..length).map(|i| value(i, random.between(-12.0, 12.0))))
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

/// The summary, term by term.
struct Naive {
    max: f64,
    sum: f64,
    /// How far from that sum the kernel may be: what its terms lose in working precision.
    slack: f64,
}

impl Naive {
    fn new<E: Item>(row: &[Cell<E>], skip: Option<usize>, temperature: f64) -> Self {
        let row = row.iter().map(|x| x.get().to_f64()).enumerate();
        let row: Vec<f64> = row.filter(|(i, _)| Some(*i) != skip).map(|(_, x)| x).collect();
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (mut sum, mut lost, mut slack) = (0.0, 0.0, 0.0);
        for x in &row {
            let d = if *x == max { 0.0 } else { (x - max) / temperature };
            let term = d.exp();
            let next: f64 = sum + term;
            lost += if sum > term { (sum - next) + term } else { (term - next) + sum };
            sum = next;
            slack += term * (4.0 + 2.0 * d.abs().min(1e3)) * epsilon::<E>();
        }
        let sum = match max {
            _ if row.iter().any(|x| x.is_nan()) => f64::NAN,
            f64::INFINITY => f64::INFINITY,
            f64::NEG_INFINITY => 0.0,
            _ => sum + lost,
        };
        Self { max, sum, slack }
    }

    fn check(&self, level: &str, got: Partial, about: &dyn Fn() -> String) {
        let about = || format!("{level}: {got:?} of {}", about());
        if self.sum.is_nan() {
            return assert!(got.sum.is_nan(), "{}: there is a NaN", about());
        }
        assert!(got.max == self.max, "{}: the maximum is {}", about(), self.max);
        let right = got.sum == self.sum || (got.sum - self.sum).abs() <= self.slack;
        assert!(right, "{}: the sum is {} +- {}", about(), self.sum, self.slack);
    }
}

/// Summarizes a row on every level, and compares.
fn check_summary<E: Item>(row: &[Cell<E>], skip: Option<usize>, temperature: f64) {
    let base = Base::new(temperature);
    let results = on_every_level(|| Summarize { chunk: row, skip, base: &base });
    let naive = Naive::new(row, skip, temperature);
    let about = || {
        let start = &row[..row.len().min(8)];
        let (kind, length) = (E::KIND, row.len());
        format!("{length} {kind:?} {start:?}..., skip {skip:?}, temperature {temperature}")
    };
    let (_, twin) = results.last().unwrap();
    for (level, got) in &results {
        naive.check(level, *got, &about);
        if is_fused(level) {
            assert_eq!(bits(got.max), bits(twin.max), "{level}: {}", about());
            assert_eq!(bits(got.sum), bits(twin.sum), "{level}: {}", about());
        }
    }
}

/// The summary of a row, which all levels agree on.
fn summary<E: Item>(row: &[Cell<E>], skip: Option<usize>) -> Partial {
    let base = Base::new(1.0);
    let results = on_every_level(|| Summarize { chunk: row, skip, base: &base });
    assert!(results.iter().all(|(_, result)| *result == results[0].1), "{results:?}");
    results[0].1
}

#[test]
fn rows_of_every_length_without_any_of_their_elements_are_summarized() {
    fn check<E: Item>() {
        for length in lengths() {
            let row = logits::<E>(length, length as u64);
            for temperature in [1.0, 0.3, 40.0] {
                check_summary(&row, None, temperature);
            }
            for skip in places(length) {
                check_summary(&row, Some(skip), 1.0);
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn equal_logits_sum_to_exactly_their_number() {
    fn check<E: Item>() {
        let largest = if E::KIND == f16::KIND { 65504.0 } else { E::Compute::MAX.to_f64() };
        for length in lengths().skip(1) {
            for logit in [0.0, 1.0, -1.0, largest, -largest] {
                let row = cells::<E>(vec![logit; length]);
                let max = row[0].get().to_f64();
                assert_eq!(summary(&row, None), Partial { max, sum: length as f64 });
                if length > 1 {
                    let but_one = Partial { max, sum: (length - 1) as f64 };
                    assert_eq!(summary(&row, Some(length / 2)), but_one);
                }
            }
        }
    }
    check::<f16>();
    check::<f32>();
    check::<f64>();
}

#[test]
fn a_sum_of_many_equal_doubles_keeps_its_last_digits() {
    // Found as a log-sum-exp that was off by 57 units in the last place: when all terms are equal, so are the
    // roundings of a long chain of additions, and they don't cancel.
    let base = &Base::new(1.0);
    for logit in [-8.166751317235178, -5.710773519594845, -0.1, -1.3, -2.2, -3.7, -6.4, -9.5] {
        let row = cells::<f64>((0..CHUNK).map(|i| if i == 0 { 0.0 } else { logit }));
        for level in Level::available() {
            let term = [Cell::new(logit)];
            let formula = Affine { max: 0.0, base, alpha: 1.0, beta: 0.0 };
            level.run(Write { from: &term, to: &term, formula, patch: None, stream: false });
            let exact = 1.0 + (CHUNK - 1) as f64 * term[0].get();
            let got = level.run(Summarize { chunk: &row, skip: None, base });
            let ulps = (got.sum - exact).abs() / (exact * f64::EPSILON);
            assert!(ulps <= 4.0, "{}: exp({logit}) is summed {ulps} ulp off", level.name());
        }
    }
}

#[test]
fn a_single_logit_among_masked_ones_is_found_at_every_place() {
    fn check<E: Item>() {
        for length in lengths() {
            let row = cells::<E>(vec![f64::NEG_INFINITY; length]);
            assert_eq!(summary(&row, None), Partial::EMPTY);
            for at in places(length) {
                row[at].set(E::from_f64(-300.0));
                assert_eq!(summary(&row, None), Partial { max: -300.0, sum: 1.0 });
                assert_eq!(summary(&row, Some(at)), Partial::EMPTY);
                row[at].set(E::from_f64(f64::NEG_INFINITY));
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn a_nan_at_any_place_makes_the_sum_nan_unless_it_is_left_out() {
    fn check<E: Item>() {
        for length in lengths() {
            // Rising, so that sums before the NaN and after it are scaled.
            let row = cells::<E>((0..length).map(|i| i as f64 * 0.01));
            for at in places(length) {
                let before = row[at].replace(E::from_f64(f64::NAN));
                check_summary(&row, None, 1.0);
                check_summary(&row, Some(at), 1.0);
                check_summary(&row, Some((at + 1) % length), 1.0);
                row[at].set(before);
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn an_infinity_at_any_place_is_the_maximum_and_the_sum() {
    fn check<E: Item>() {
        for length in lengths() {
            let row = logits::<E>(length, 1);
            for at in places(length) {
                let before = row[at].replace(E::from_f64(f64::INFINITY));
                check_summary(&row, None, 1.0);
                check_summary(&row, Some(at), 1.0);
                let other = (at + length / 2) % length;
                let also = row[other].replace(E::from_f64(f64::NAN));
                check_summary(&row, None, 1.0);
                check_summary(&row, Some(other), 1.0);
                check_summary(&row, Some(at), 1.0);
                row[other].set(also);
                row[at].set(before);
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn the_reference_is_raised_as_often_as_a_rising_row_asks() {
    fn check<E: Item>(length: usize) {
        for temperature in [1.0, 0.25, 30.0] {
            for run in [1, 7, 64, 1024] {
                for step in [0.01, 0.9, 1.1, 60.0, 2000.0].map(|step| step * temperature) {
                    let rising = |i: usize| ((i / run) as f64 * step).min(60_000.0);
                    check_summary(&cells::<E>((0..length).map(rising)), None, temperature);
                    let sawtooth = |i: usize| (i / run % 9) as f64 * step - 100.0;
                    check_summary(&cells::<E>((0..length).map(sawtooth)), None, temperature);
                    let falling = |i: usize| -rising(i);
                    check_summary(&cells::<E>((0..length).map(falling)), None, temperature);
                }
            }
        }
    }
    for_every_element!(check(CHUNK / thinned(16)));
}

#[test]
fn merged_parts_are_the_whole() {
    fn check<E: Item>() {
        let row = logits::<E>(1000, 9);
        for temperature in [1.0, 0.1, 25.0] {
            let naive = Naive::new(&row, None, temperature);
            for cut in (0..=row.len()).step_by(37) {
                let base = Base::new(temperature);
                let part = |chunk| on_every_level(|| Summarize { chunk, skip: None, base: &base });
                let (left, right) = row.split_at(cut);
                for ((level, left), (_, right)) in part(left).into_iter().zip(part(right)) {
                    naive.check(level, left.merge(right, temperature), &|| format!("cut at {cut}"));
                    naive.check(level, right.merge(left, temperature), &|| format!("cut at {cut}"));
                }
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn merging_keeps_infinities_and_nan() {
    let of = |max: f64, sum: f64| Partial { max, sum };
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let two = of(1.0, 2.0);
    for (a, b, max, sum) in [
        (two, Partial::EMPTY, 1.0, 2.0),
        (Partial::EMPTY, Partial::EMPTY, -inf, 0.0),
        (two, of(1.0, 3.0), 1.0, 5.0),
        (two, of(-1e308, 3.0), 1.0, 2.0),
        (of(f64::MAX, 1.0), of(-f64::MAX, 1.0), f64::MAX, 1.0),
        (two, of(inf, inf), inf, inf),
        (of(inf, inf), of(inf, inf), inf, inf),
        (Partial::EMPTY, of(inf, inf), inf, inf),
        (two, of(5.0, nan), 5.0, nan),
        (two, of(-inf, nan), 1.0, nan),
        (of(inf, inf), of(-inf, nan), inf, nan),
        (of(inf, nan), of(inf, inf), inf, nan),
    ] {
        for merged in [a.merge(b, 0.5), b.merge(a, 0.5)] {
            assert_eq!([merged.max, merged.sum].map(bits), [max, sum].map(bits), "{a:?} and {b:?}");
        }
    }
}

/// Room for some elements, with others around it that must not be written.
struct Guarded<O> {
    cells: Vec<Cell<O>>,
    start: usize,
    length: usize,
}

impl<O: Element> Guarded<O> {
    /// What stands around.
    const GUARD: f64 = -7.0;

    /// Room that begins so many elements after a multiple of 64 bytes.
    fn new(length: usize, misalignment: usize) -> Self {
        let line = 64 / size_of::<O>();
        let cells = cells::<O>(vec![Self::GUARD; length + 4 * line]);
        let to_line = cells.as_ptr().addr().wrapping_neg() % 64 / size_of::<O>();
        Self { cells, start: to_line + line + misalignment, length }
    }

    fn room(&self) -> &[Cell<O>] {
        &self.cells[self.start..][..self.length]
    }

    fn check_guards(&self) {
        let room = self.start..self.start + self.length;
        let mut around = self.cells.iter().enumerate().filter(|(i, _)| !room.contains(i));
        assert!(
            around.all(|(_, cell)| cell.get().to_f64() == Self::GUARD),
            "written outside of {room:?}"
        );
    }
}

/// A formula, and the same in double precision with how far off working precision may be.
trait Twofold<T: Float>: Formula<T> {
    fn exact(&self, x: f64) -> (f64, f64);
}

impl<T: Exp> Twofold<T> for Affine<'_, T> {
    fn exact(&self, x: f64) -> (f64, f64) {
        let d = (x - self.max.to_f64()) / self.base.temperature;
        let (alpha, beta) = (self.alpha.to_f64(), self.beta.to_f64());
        let product = alpha * d.exp();
        (product + beta, product.abs() * (4.0 + 2.0 * d.abs().min(1e3)) + (product + beta).abs())
    }
}

impl<T: Float> Twofold<T> for Logarithm<T> {
    fn exact(&self, x: f64) -> (f64, f64) {
        let d = (x - self.max.to_f64()) * self.inverse_temperature.to_f64();
        let result = d + self.minus_log_sum.to_f64();
        (result, if result.is_finite() { 3.0 * d.abs() + result.abs() } else { 0.0 })
    }
}

/// Writes on every level, and compares: with the twin, with the formula, with doing it in place and with the
/// same in working precision.
fn check_write<E: Item, F: Twofold<E::Compute>>(from: &[Cell<E>], formula: F, at: Option<usize>) {
    let patch = at.map(|at| (at, E::Compute::from_f64(0.625)));
    let wide = on_every_level_written::<E, E::Compute, F>(from, formula, patch);
    let own = on_every_level_written::<E, E, F>(from, formula, patch);
    let (_, twin) = wide.last().unwrap();
    for ((level, wide), (_, own)) in wide.iter().zip(&own) {
        let about = |i: usize| {
            format!("{level}: element {i} of {} {:?} is {:?}", from.len(), E::KIND, wide[i])
        };
        for (i, x) in from.iter().enumerate() {
            let got = wide[i].get().to_f64();
            let narrow = E::narrow(wide[i].get()).to_f64();
            assert_eq!(bits(own[i].get().to_f64()), bits(narrow), "{}, narrowed", about(i));
            if at == Some(i) {
                assert_eq!(got, 0.625, "{}, patched", about(i));
                continue;
            }
            if is_fused(level) {
                assert_eq!(element_bits(&wide[i]), element_bits(&twin[i]), "{}", about(i));
            }
            let (exact, slack) = formula.exact(x.get().to_f64());
            if exact.is_nan() {
                assert!(got.is_nan(), "{}, not NaN", about(i));
                continue;
            }
            let slack = slack * epsilon::<E>() + f64::from(f32::MIN_POSITIVE);
            assert!(
                got == exact || (got - exact).abs() <= slack,
                "{}, not {exact} +- {slack}",
                about(i)
            );
        }
    }
    for (level, name) in Level::available().into_iter().map(|level| (level, level.name())) {
        let place: Vec<Cell<E>> = from.to_vec();
        level.run(Write { from: &place, to: &place, formula, patch, stream: false });
        let (_, own) = own.iter().find(|(level, _)| *level == name).unwrap();
        assert!(
            place.iter().map(element_bits).eq(own.iter().map(element_bits)),
            "{name}: in place"
        );
    }
}

/// What is written on every level.
fn on_every_level_written<E: Item, O: Element<Compute = E::Compute>, F: Formula<E::Compute>>(
    from: &[Cell<E>],
    formula: F,
    patch: Option<(usize, E::Compute)>,
) -> Vec<(&'static str, Vec<Cell<O>>)> {
    let outputs: Vec<Guarded<O>> =
        Level::available().iter().map(|_| Guarded::new(from.len(), 1)).collect();
    let twin = Guarded::new(from.len(), 0);
    let next = Cell::new(0);
    let results = on_every_level(|| {
        let output = outputs.get(next.replace(next.get() + 1)).unwrap_or(&twin);
        Write { from, to: output.room(), formula, patch, stream: false }
    });
    let written = results.into_iter().zip(outputs.into_iter().chain([twin]));
    written
        .map(|((level, ()), output)| {
            output.check_guards();
            (level, output.room().to_vec())
        })
        .collect()
}

#[test]
fn rows_of_every_length_are_written_and_nothing_beside_them() {
    fn check<E: Item>() {
        let number = |x: f64| <E::Compute as Number>::from_f64(x);
        let bases = [1.0, 0.3].map(Base::new);
        for length in lengths() {
            let row = logits::<E>(length, length as u64);
            for base in &bases {
                let (max, alpha) = (number(11.5), number(0.0371));
                check_write(&row, Affine { max, base, alpha, beta: number(0.0) }, None);
                check_write(&row, Affine { max, base, alpha, beta: number(-0.25) }, None);
                let inverse_temperature = number(1.0 / base.temperature);
                let minus_log_sum = number(-3.7);
                check_write(&row, Logarithm { max, inverse_temperature, minus_log_sum }, None);
            }
            for at in places(length) {
                let (max, alpha, beta) = (number(11.5), number(-0.5), number(0.0));
                check_write(&row, Affine { max, base: &bases[0], alpha, beta }, Some(at));
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn special_logits_are_written_in_every_lane_as_ieee_says() {
    fn check<E: Item>() {
        let number = |x: f64| <E::Compute as Number>::from_f64(x);
        let base = &Base::new(1.0);
        let row = logits::<E>(150, 2);
        for logit in [f64::NEG_INFINITY, f64::NAN, f64::INFINITY].map(E::from_f64) {
            for at in (0..row.len()).step_by(thinned(11)) {
                let before = row[at].replace(logit);
                let (max, minus_log_sum) = (number(12.0), number(-2.0));
                if logit.to_f64() != f64::INFINITY {
                    let (alpha, beta) = (number(0.5), number(0.125));
                    check_write(&row, Affine { max, base, alpha, beta }, None);
                }
                let inverse_temperature = number(1.0);
                check_write(&row, Logarithm { max, inverse_temperature, minus_log_sum }, None);
                row[at].set(before);
            }
        }
        let nan = number(f64::NAN);
        check_write(
            &row,
            Affine { max: number(12.0), base, alpha: nan, beta: number(0.0) },
            Some(70),
        );
    }
    for_every_element!(check());
}

/// Writes past the caches at every distance from a cache line, and compares with ordinary stores.
fn check_streamed<E: Item, O: Element<Compute = E::Compute>>(length: usize, patches: &[usize]) {
    let base = &Base::new(1.0);
    let number = |x: f64| <E::Compute as Number>::from_f64(x);
    let formula = Affine { max: number(12.0), base, alpha: number(0.5), beta: number(0.125) };
    let from = logits::<E>(length + 1, 3);
    let patches = std::iter::once(None).chain(patches.iter().copied().map(Some));
    for patch in patches.map(|at| at.map(|at| (at, number(9.0)))) {
        for level in Level::available() {
            for misalignment in 0..64 / size_of::<O>() {
                // Odd misalignments also misalign the logits.
                let from = &from[misalignment % 2..][..length];
                let (plain, streamed) =
                    (Guarded::<O>::new(length, 0), Guarded::new(length, misalignment));
                level.run(Write { from, to: plain.room(), formula, patch, stream: false });
                level.run(Write { from, to: streamed.room(), formula, patch, stream: true });
                level.fence();
                streamed.check_guards();
                let [plain, streamed] = [plain, streamed]
                    .map(|output| output.room().iter().map(element_bits).collect::<Vec<_>>());
                assert_eq!(streamed, plain, "{}: {misalignment} beside a line", level.name());
            }
        }
    }
}

#[test]
fn streaming_writes_the_same_at_every_alignment() {
    fn check<E: Item>() {
        for length in [0, 1, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 96, 127, 128, 129, 255, 1000] {
            check_streamed::<E, E>(length, &[]);
            check_streamed::<E, E::Compute>(length, &[]);
        }
        let every_place: Vec<usize> = (0..200).step_by(thinned(29)).collect();
        check_streamed::<E, E>(200, &every_place);
    }
    for_every_element!(check());
}
