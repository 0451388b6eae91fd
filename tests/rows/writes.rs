//! Rows written: by every formula, masked, capped and weighted, in place, past the caches, and nothing beside them.

use crate::masks::spoilt;
use crate::moments::Weighting;
use crate::twin::{bits, on_every_level, run, thinned};
use crate::{
    Capped, Item, Mask, cells, check_fused, check_near, element_bits, epsilon, for_every_element,
    lengths, logits, masks, places, plain,
};
use softxent::element::Element;
use softxent::exp::{Base, Exp, Softcap};
use softxent::row::{Affine, Beside, Chunk, Formula, Logarithm, Slope, Write};
use softxent::simd::{Float, Level, Number};
use std::cell::Cell;

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

/// A row written by a formula: nothing masked, no weights, no patch, ordinary stores.
pub(crate) fn write<'a, E: Item, O: Element<Compute = E::Compute>, F: Formula<E::Compute>>(
    from: Chunk<'a, E>,
    to: &'a [Cell<O>],
    formula: F,
) -> Write<'a, E, O, F> {
    let masked = E::Compute::from_f64(0.0);
    Write { from, to, formula, masked, beside: None, patch: None, stream: false, next: 0 }
}

/// What is written on every level, each time to new room and nothing beside it; those that have to agree with the
/// twin do.
pub(crate) fn written<'a, E, O, F>(
    write: impl Fn() -> Write<'a, E, O, F>,
) -> Vec<(&'static str, Vec<Cell<O>>)>
where
    E: Item,
    O: Item<Compute = E::Compute>,
    F: Formula<E::Compute>,
{
    let length = write().from.cells.len();
    let outputs: Vec<Guarded<O>> =
        Level::available().iter().map(|_| Guarded::new(length, 1)).collect();
    let twin = Guarded::new(length, 0);
    let next = Cell::new(0);
    let results = on_every_level(|| {
        let output = outputs.get(next.replace(next.get() + 1)).unwrap_or(&twin);
        Write { to: output.room(), ..write() }
    });
    let written = results.into_iter().zip(outputs.iter().chain([&twin]));
    let written = written.map(|((level, ()), output)| {
        output.check_guards();
        (level, output.room().to_vec())
    });
    let written: Vec<_> = written.collect();
    check_fused(&written, |row| row_bits(row), &|| {
        format!("{length} {:?} as {:?}", E::KIND, O::KIND)
    });
    written
}

fn row_bits<E: Element>(row: &[Cell<E>]) -> Vec<u64> {
    row.iter().map(element_bits).collect()
}

/// Compares what is written: as elements of its own dtype and in place with the same in the precision of the
/// computation; and returns that.
fn check_write<'a, E, F>(
    write: impl Fn() -> Write<'a, E, E::Compute, F>,
) -> Vec<(&'static str, Vec<Cell<E::Compute>>)>
where
    E: Item<Compute: Item>,
    F: Formula<E::Compute>,
{
    let own = || {
        let Write { from, formula, masked, beside, patch, stream, next, .. } = write();
        Write::<E, E, F> { from, to: &[], formula, masked, beside, patch, stream, next }
    };
    let wide = written(&write);
    for ((level, own), (_, wide)) in written(own).into_iter().zip(&wide) {
        let narrow = |x: &Cell<E::Compute>| bits(E::narrow(x.get()).to_f64());
        let narrow: Vec<u64> = wide.iter().map(narrow).collect();
        assert!(row_bits(&own) == narrow, "{level}: {own:?}, not {wide:?} narrowed");
    }
    for level in Level::available() {
        let place: Vec<Cell<E>> = write().from.cells.to_vec();
        let from = Chunk { cells: &place, ..write().from };
        run(level, Write { from, to: &place, ..own() });
        let (_, wide) = wide.iter().find(|(name, _)| *name == level.name()).unwrap();
        let narrow = wide.iter().map(|x| bits(E::narrow(x.get()).to_f64()));
        assert!(row_bits(&place).into_iter().eq(narrow), "{}: in place", level.name());
    }
    wide
}

/// Writes on every level, and compares with the formula.
fn check_formula<E, F>(from: &[Cell<E>], formula: F, at: Option<usize>)
where
    E: Item<Compute: Item>,
    F: Twofold<E::Compute>,
{
    let patch = at.map(|at| (at, E::Compute::from_f64(0.625)));
    for (level, got) in check_write(|| Write { patch, ..write(plain(from), &[], formula) }) {
        for (i, x) in from.iter().enumerate() {
            let about = || format!("{level}: element {i} of {} {:?}", from.len(), E::KIND);
            let got = got[i].get().to_f64();
            if at == Some(i) {
                assert_eq!(got, 0.625, "{}, patched", about());
                continue;
            }
            let (exact, slack) = formula.exact(x.get().to_f64());
            check_near(got, exact, slack * epsilon::<E>() + f64::from(f32::MIN_POSITIVE), &about);
        }
    }
}

#[test]
fn rows_of_every_length_are_written_and_nothing_beside_them() {
    fn check<E: Item<Compute: Item>>() {
        let number = |x: f64| <E::Compute as Number>::from_f64(x);
        let bases = [1.0, 0.3].map(Base::new);
        for length in lengths() {
            let row = logits::<E>(length, length as u64);
            for base in &bases {
                let (max, alpha) = (number(11.5), number(0.0371));
                check_formula(&row, Affine { max, base, alpha, beta: number(0.0) }, None);
                check_formula(&row, Affine { max, base, alpha, beta: number(-0.25) }, None);
                let inverse_temperature = number(1.0 / base.temperature);
                let minus_log_sum = number(-3.7);
                check_formula(&row, Logarithm { max, inverse_temperature, minus_log_sum }, None);
            }
            for at in places(length) {
                let (max, alpha, beta) = (number(11.5), number(-0.5), number(0.0));
                check_formula(&row, Affine { max, base: &bases[0], alpha, beta }, Some(at));
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn special_logits_are_written_in_every_lane_as_ieee_says() {
    fn check<E: Item<Compute: Item>>() {
        let number = |x: f64| <E::Compute as Number>::from_f64(x);
        let base = &Base::new(1.0);
        let row = logits::<E>(150, 2);
        for logit in [f64::NEG_INFINITY, f64::NAN, f64::INFINITY].map(E::from_f64) {
            for at in (0..row.len()).step_by(thinned(11)) {
                let before = row[at].replace(logit);
                let (max, minus_log_sum) = (number(12.0), number(-2.0));
                if logit.to_f64() != f64::INFINITY {
                    let (alpha, beta) = (number(0.5), number(0.125));
                    check_formula(&row, Affine { max, base, alpha, beta }, None);
                }
                let inverse_temperature = number(1.0);
                check_formula(&row, Logarithm { max, inverse_temperature, minus_log_sum }, None);
                row[at].set(before);
            }
        }
        let nan = number(f64::NAN);
        check_formula(
            &row,
            Affine { max: number(12.0), base, alpha: nan, beta: number(0.0) },
            Some(70),
        );
    }
    for_every_element!(check());
}

/// A part of a softmax gradient: `(alpha exp((x - max) / T) + beta q) slope`, capped or not, weighted or not.
#[test]
fn a_slope_is_that_of_doubles() {
    fn check<E: Item<Compute: Item>>() {
        let number = |x: f64| <E::Compute as Number>::from_f64(x);
        let base = &Base::new(0.7);
        let (max, alpha, beta) = (number(4.9), number(0.25), number(-0.5));
        let formula = Slope(Affine { max, base, alpha, beta });
        let cap = Softcap::new(5.0);
        for length in lengths().step_by(5) {
            let row = logits::<E>(length, length as u64);
            for weighting in Weighting::all(length).iter().map(Some).chain([None]) {
                let beside = weighting.map(|weighting| Beside::Weights(weighting.part(0, length)));
                for softcap in [None, Some(&cap)] {
                    let from = Chunk { softcap, ..plain(&row) };
                    let results = check_write(|| Write { beside, ..write(from, &[], formula) });
                    let capped = on_every_level(|| Capped { softcap, cells: &row });
                    for ((level, got), (_, capped)) in results.iter().zip(capped) {
                        for i in 0..length {
                            let [x, slope] = capped[i].map(Number::to_f64);
                            let weight = weighting.map_or(1.0, |all| all.weight(i, true));
                            let (exact, mut slack) = formula.0.exact(x);
                            let exact = exact + beta.to_f64() * (weight - 1.0);
                            slack += 8.0 * weight.abs() + exact.abs();
                            let slack = slack * slope * epsilon::<E>() + f64::MIN_POSITIVE;
                            check_near(got[i].get().to_f64(), exact * slope, slack, &|| {
                                format!("{level}: element {i} of {length} {:?}", E::KIND)
                            });
                        }
                    }
                }
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn a_slope_without_weights_or_cap_is_affine_bit_for_bit() {
    fn check<E: Item<Compute: Item>>() {
        let number = |x: f64| <E::Compute as Number>::from_f64(x);
        let base = &Base::new(1.0);
        for length in lengths().step_by(3) {
            let row = logits::<E>(length, 11);
            let (max, alpha, beta) = (number(11.5), number(0.0371), number(-0.25));
            let affine = Affine { max, base, alpha, beta };
            let expected = check_write(|| write(plain(&row), &[], affine));
            let got = check_write(|| write(plain(&row), &[], Slope(affine)));
            for ((level, got), (_, expected)) in got.iter().zip(&expected) {
                assert!(row_bits(got) == row_bits(expected), "{level}: {length} {:?}", E::KIND);
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn a_capped_row_is_written_as_the_row_of_its_capped_logits() {
    fn check<E: Item<Compute: Item>>() {
        let number = |x: f64| <E::Compute as Number>::from_f64(x);
        let base = &Base::new(1.0);
        let affine = Affine { max: number(4.9), base, alpha: number(0.25), beta: number(-0.125) };
        let (inverse_temperature, minus_log_sum) = (number(1.5), number(-3.0));
        let logarithm = Logarithm { max: number(4.9), inverse_temperature, minus_log_sum };
        let softcap = Some(&Softcap::new(5.0));
        for length in lengths().step_by(5) {
            let row = logits::<E>(length, 12);
            let from = Chunk { softcap, ..plain(&row) };
            let got = check_write(|| write(from, &[], affine));
            let got_logarithms = check_write(|| write(from, &[], logarithm));
            let capped = on_every_level(|| Capped { softcap, cells: &row });
            for (i, (level, capped)) in capped.into_iter().enumerate() {
                let capped: Vec<_> = capped.iter().map(|x| Cell::new(x[0])).collect();
                let expected = &check_write(|| write(plain(&capped), &[], affine))[i].1;
                assert!(row_bits(&got[i].1) == row_bits(expected), "{level}: {length}");
                let expected = &check_write(|| write(plain(&capped), &[], logarithm))[i].1;
                assert!(row_bits(&got_logarithms[i].1) == row_bits(expected), "{level}: {length}");
            }
        }
    }
    for_every_element!(check());
}

/// Compares what is written of a masked row with what is written of all of it.
fn check_masked<'a, E, F>(mask: &Mask, spoilt: &[Cell<E>], write: Write<'a, E, E::Compute, F>)
where
    E: Item<Compute: Item>,
    F: Formula<E::Compute>,
{
    for masked in [0.0, f64::NEG_INFINITY, f64::NAN].map(E::Compute::from_f64) {
        let from = Chunk { cells: spoilt, mask: Some(mask.bytes()), ..write.from };
        let got = check_write(|| Write { from, masked, ..write });
        for ((level, got), (_, all)) in got.into_iter().zip(check_write(|| Write { ..write })) {
            for (i, all) in all.into_iter().enumerate() {
                let expected = if mask.allows(i) { all } else { Cell::new(masked) };
                assert_eq!(
                    element_bits(&got[i]),
                    element_bits(&expected),
                    "{level}: element {i} of {} {:?} behind {:?}",
                    spoilt.len(),
                    E::KIND,
                    mask.bytes()
                );
            }
        }
    }
}

#[test]
fn a_masked_place_gets_its_value_and_all_others_what_they_would_without_a_mask() {
    fn check<E: Item<Compute: Item>>() {
        let number = |x: f64| <E::Compute as Number>::from_f64(x);
        let base = &Base::new(1.0);
        let softcap = &Softcap::new(5.0);
        let affine = Affine { max: number(11.5), base, alpha: number(0.5), beta: number(-0.25) };
        let (inverse_temperature, minus_log_sum) = (number(1.5), number(-3.0));
        let logarithm = Logarithm { max: number(11.5), inverse_temperature, minus_log_sum };
        for length in lengths().step_by(3) {
            let row = logits::<E>(length, length as u64);
            let weighting = &Weighting::all(length)[2];
            for (n, mask) in masks(length).iter().enumerate().step_by(2) {
                let spoilt = spoilt(&row, mask);
                // On a masked place as on others: there it must not be written.
                let patch = places(length).get(n % 20).map(|&at| (at, number(9.0)));
                check_masked(mask, &spoilt, Write { patch, ..write(plain(&row), &[], affine) });
                check_masked(mask, &spoilt, write(plain(&row), &[], logarithm));
                let capped = Chunk { softcap: Some(softcap), ..plain(&row) };
                let beside = Some(Beside::Weights(weighting.part(0, length)));
                let slope = write(capped, &[], Slope(affine));
                check_masked(mask, &spoilt, Write { beside, patch, ..slope });
            }
        }
    }
    for_every_element!(check());
}

/// Writes past the caches at every distance from a cache line, and compares with ordinary stores. Odd distances also
/// move the logits, of which there is one more.
fn check_streamed<'a, E, O, F>(length: usize, write: impl Fn(usize) -> Write<'a, E, O, F>)
where
    E: Item,
    O: Item<Compute = E::Compute>,
    F: Formula<E::Compute>,
{
    for level in Level::available() {
        for misalignment in 0..64 / size_of::<O>() {
            let (plain, streamed) =
                (Guarded::<O>::new(length, 0), Guarded::new(length, misalignment));
            let write = |to| Write { to, ..write(misalignment % 2) };
            run(level, write(plain.room()));
            run(level, Write { stream: true, next: length, ..write(streamed.room()) });
            level.fence();
            streamed.check_guards();
            let [plain, streamed] = [plain, streamed].map(|output| row_bits(output.room()));
            assert_eq!(streamed, plain, "{}: {misalignment} beside a line", level.name());
        }
    }
}

#[test]
fn streaming_writes_the_same_at_every_alignment() {
    fn check<E: Item, O: Item<Compute = E::Compute>>() {
        let number = |x: f64| <E::Compute as Number>::from_f64(x);
        let base = &Base::new(1.0);
        let formula = Affine { max: number(12.0), base, alpha: number(0.5), beta: number(0.125) };
        let softcap = Some(&Softcap::new(5.0));
        let lengths = [0, 1, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 96, 127, 128, 129, 255, 1000];
        let every_place = (0..200).step_by(thinned(29)).map(|at| (200, Some(at)));
        for (length, patched) in lengths.map(|length| (length, None)).into_iter().chain(every_place)
        {
            let row = &logits::<E>(length + 1, 3);
            let patch = patched.map(|at| (at, number(9.0)));
            check_streamed::<E, O, _>(length, |start| {
                let from = plain(&row[start..][..length]);
                Write { patch, ..write(from, &[], formula) }
            });
            let mask = &Mask::new(length + 1, |i| i % 5 != 2);
            let weighting = &Weighting::all(length + 1)[3];
            check_streamed::<E, O, _>(length, |start| {
                let mask = Some(&mask.bytes()[start..][..length]);
                let from = Chunk { cells: &row[start..][..length], mask, softcap };
                let beside = Some(Beside::Weights(weighting.part(start, start + length)));
                Write { patch, beside, ..write(from, &[], Slope(formula)) }
            });
        }
    }
    for_every_element!(check_both());
    fn check_both<E: Item<Compute: Item>>() {
        check::<E, E>();
        check::<E, E::Compute>();
    }
}
