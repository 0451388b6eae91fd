//! Two rows compared: what each measure sums and the derivatives that are written, against the formulas in double
//! precision; masked and capped rows against the rows that they stand for.
//!
//! The largest logits and the totals of both rows are given to the kernel, so they are no part of what is tested. Nor
//! is what they are rounded to in working precision: the formulas take the rounded ones.

use crate::masks::{spoilt, without};
use crate::twin::{Random, bits, on_every_level, thinned};
use crate::writes::{write, written};
use crate::{
    Capped, Item, Mask, Total, cells, check_fused, check_near, epsilon, for_every_element, lengths,
    logits, masks, places, plain,
};
use softxent::exp::{Base, Softcap, two_sum};
use softxent::row::{
    Beside, Chunk, Classes, Compare, Forward, JensenShannon, Measure, Nearer, Pair, Reverse, Write,
};
use softxent::simd::Number;
use std::cell::Cell;

/// The share of the other row in the mixture of the Jensen-Shannon divergence.
const BETA: f64 = 0.25;

/// What the kernel loses for each term, in units of its size: its own roundings, and those of up to sixteen additions
/// in working precision.
const ROUNDINGS: f64 = 40.0;

/// The measures by name.
#[derive(Clone, Copy, Debug)]
enum Which {
    Forward,
    Reverse,
    JensenShannon,
}

/// Calls a check once for each measure.
macro_rules! for_every_measure {
    ($unit:expr, $check:ident($($argument:expr),*)) => {
        $check($($argument),*, Which::Forward, Forward);
        $check($($argument),*, Which::Reverse, Reverse);
        $check($($argument),*, Which::JensenShannon, JensenShannon::new(BETA, $unit));
    };
}

/// A number, and how far from it the kernel may be.
type Near = (f64, f64);

/// A class: its probabilities in this row and the other, and `log q - log p` with how far it may be off; the last in
/// units of the distance from 1 to the next number.
struct Class {
    q: f64,
    p: f64,
    r: Near,
    /// What the exponentials lose, in the same units.
    lost: f64,
}

impl Class {
    fn new<E: Item>(x: f64, y: f64, pair: &Pair, temperature: f64) -> Self {
        let (d, lost_in_d) = two_sum(x, -pair.max);
        let (e, lost_in_e) = two_sum(y, -pair.other_max);
        let (gap, lost_in_gap) = two_sum(d, -e);
        let lost = lost_in_gap + (lost_in_d - lost_in_e);
        let gap = (if lost.is_finite() { gap + lost } else { gap }) / temperature;
        let log_ratio = E::Compute::from_f64(pair.log_ratio).to_f64();
        let sizes = [d, e].map(|x| if x.is_finite() { x.abs() / temperature } else { 0.0 });
        let size = sizes[0] + sizes[1];
        Self {
            q: (d / temperature).exp() / pair.total,
            p: (e / temperature).exp() / pair.other_total,
            r: (gap - log_ratio, 4.0 * (gap.abs() + log_ratio.abs()) + size * epsilon::<E>()),
            lost: ROUNDINGS + 2.0 * size,
        }
    }

    /// `log(m / p)` and `log(m / q)` with `m = BETA p + (1 - BETA) q`. Neither moves further than r.
    fn of_middle(&self) -> (f64, [Near; 2]) {
        let (r, off) = self.r;
        let by_p = ((1.0 - BETA) * r.exp_m1()).ln_1p();
        let by_q = (BETA * (-r).exp_m1()).ln_1p();
        let m = BETA * self.p + (1.0 - BETA) * self.q;
        (m, [by_p, by_q].map(|by| (by, off + 8.0 * by.abs())))
    }

    /// The terms of a measure and `q - p`.
    fn terms(&self, which: Which) -> [Near; 3] {
        let Self { q, p, r: (r, off), lost } = *self;
        let nothing = (0.0, 0.0);
        let [first, second] = match which {
            Which::Forward => [term(p, q, (r, off), lost), nothing],
            Which::Reverse => [term(q, p, (-r, off), lost), nothing],
            Which::JensenShannon => {
                let (m, [by_p, by_q]) = self.of_middle();
                [term(p, m, by_p, lost), term(q, m, by_q, lost)]
            }
        };
        [first, second, self.difference()]
    }

    /// `q - p`
    fn difference(&self) -> Near {
        let Self { q, p, r: (r, off), lost } = *self;
        if r.abs() < 0.5 {
            let size = p * r.abs() * lost + p * off;
            return (p * r.exp_m1(), if r.abs() > 0.49 { size + (p + q) * lost } else { size });
        }
        (q - p, (p + q) * lost)
    }

    /// The derivative of a measure.
    fn slope(&self, which: Which, center: f64) -> Near {
        let Self { q, r, lost, .. } = *self;
        let product = |factor: f64, (by, off): Near| {
            let by = by - center;
            let value = if q == 0.0 { 0.0 } else { factor * q * by };
            let slack = q * ((by.abs() + center.abs()) * lost + off);
            (value, if slack.is_finite() { slack } else { 0.0 })
        };
        match which {
            Which::Forward => self.difference(),
            Which::Reverse => product(1.0, r),
            Which::JensenShannon => {
                let (_, [_, (by_q, off)]) = self.of_middle();
                product(1.0 - BETA, (-by_q, off))
            }
        }
    }
}

/// `q - p - p r` with `r = log(q / p)`; 0 log 0 is 0.
fn term(p: f64, q: f64, (r, off): Near, lost: f64) -> Near {
    let far = (p + q + if p == 0.0 { 0.0 } else { p * r.abs() }) * lost;
    if r.abs() < 0.5 {
        // p (e^r - 1 - r)
        let series = (2..=20).rev().fold(0.0, |sum, n| (sum * r + 1.0) / f64::from(n));
        let value = p * r * r * series;
        let slack = value * lost + 2.0 * p * r.abs() * off;
        return (value, if r.abs() > 0.49 { slack + far } else { slack });
    }
    let product = if p == 0.0 { 0.0 } else { p * r };
    let off = if p == 0.0 || r.is_infinite() { 0.0 } else { p * off };
    // A class that both rows exclude has no r.
    (q - p - product, if far.is_finite() { far + off } else { 0.0 })
}

/// Both rows, by their largest logits and totals.
fn pair(rows: &[(f64, f64)], temperature: f64) -> Pair {
    let of = |row: fn(&(f64, f64)) -> f64| {
        let max = rows.iter().map(row).fold(f64::NEG_INFINITY, f64::max);
        let mut total = Total::default();
        for x in rows.iter().map(row) {
            total.add(((x - max) / temperature).exp());
        }
        (max, total.value())
    };
    let ((max, total), (other_max, other_total)) = (of(|x| x.0), of(|x| x.1));
    Pair { max, total, other_max, other_total, log_ratio: (total / other_total).ln() }
}

/// The logits of both rows where a mask allows them.
fn allowed<E: Item>(
    row: &[Cell<E>],
    other: &[Cell<E::Compute>],
    mask: Option<&Mask>,
) -> Vec<(f64, f64)> {
    let allowed = |i: &usize| mask.is_none_or(|mask| mask.allows(*i));
    let logits = |i: usize| (row[i].get().to_f64(), other[i].get().to_f64());
    (0..row.len()).filter(allowed).map(logits).collect()
}

/// Two rows as the kernels get them, and what they stand for: where a mask excludes a class both hold something that
/// must not be read.
struct Rows<'a, E: Item> {
    /// The logits where the mask allows them.
    allowed: Vec<(f64, f64)>,
    pair: Pair,
    base: Base<E::Compute>,
    mask: Option<&'a Mask>,
    cells: Vec<Cell<E>>,
    others: Vec<Cell<E::Compute>>,
}

impl<'a, E: Item<Compute: Item>> Rows<'a, E> {
    fn new(
        row: &[Cell<E>],
        other: &[Cell<E::Compute>],
        mask: Option<&'a Mask>,
        temperature: f64,
    ) -> Self {
        let allowed = allowed(row, other, mask);
        let pair = pair(&allowed, temperature);
        let (cells, others) = match mask {
            Some(mask) => (spoilt(row, mask), spoilt(other, mask)),
            None => (row.to_vec(), other.to_vec()),
        };
        Self { allowed, pair, base: Base::new(temperature), mask, cells, others }
    }

    fn classes(&self) -> Classes<'_, E::Compute> {
        Classes::new(&self.pair, &self.base)
    }

    fn chunks(&self) -> (Chunk<'_, E>, Chunk<'_, E::Compute>) {
        let mask = self.mask.map(Mask::bytes);
        (Chunk { mask, ..plain(&self.cells) }, Chunk { mask, ..plain(&self.others) })
    }
}

/// What a measure sums on every level; those that have to agree with the twin do.
fn sums<E: Item, M: Measure<E::Compute>>(
    chunk: Chunk<'_, E>,
    other: Chunk<'_, E::Compute>,
    classes: Classes<'_, E::Compute>,
    measure: M,
) -> Vec<(&'static str, [f64; 3])> {
    let results = on_every_level(|| Compare { chunk, other, classes, measure });
    check_fused(&results, |sums| sums.map(bits), &|| {
        format!("{} {:?}", chunk.cells.len(), E::KIND)
    });
    results
}

/// Compares two rows on every level, under a mask also with what they stand for.
fn check_sums<E: Item<Compute: Item>, M: Measure<E::Compute>>(
    row: &[Cell<E>],
    other: &[Cell<E::Compute>],
    mask: Option<&Mask>,
    temperature: f64,
    which: Which,
    measure: M,
) {
    let rows = Rows::new(row, other, mask, temperature);
    let mut exact = [Total::default(); 3];
    let mut slack = [f64::from(f32::MIN_POSITIVE) * row.len() as f64; 3];
    for &(x, y) in &rows.allowed {
        for (i, (value, near)) in
            Class::new::<E>(x, y, &rows.pair, temperature).terms(which).into_iter().enumerate()
        {
            exact[i].add(value);
            slack[i] += near * epsilon::<E>();
        }
    }
    let (classes, (chunk, beside)) = (rows.classes(), rows.chunks());
    let (bytes, got) = (chunk.mask, sums(chunk, beside, classes, measure));
    for (level, got) in &got {
        for i in 0..3 {
            check_near(got[i], exact[i].value(), slack[i], &|| {
                let (length, kind) = (row.len(), E::KIND);
                format!(
                    "{level}: sum {i} of {which:?}, {length} {kind:?} / {temperature}, {bytes:?}"
                )
            });
        }
        assert!(got[0] >= 0.0 && got[1] >= 0.0, "{level}: {which:?} is {got:?}");
    }
    if let Some(mask) = mask {
        let (row, other) = (without(row, mask), without(other, mask));
        let expected = sums(plain(&row), plain(&other), classes, measure);
        for ((level, got), (_, expected)) in got.into_iter().zip(expected) {
            assert_eq!(got.map(bits), expected.map(bits), "{level}: {which:?} behind {bytes:?}");
        }
    }
}

/// Rows to compare one with: independent of it, and one that differs from it by so little that the differences of
/// the probabilities cancel.
fn others<E: Item>(row: &[Cell<E>]) -> [Vec<Cell<E::Compute>>; 2] {
    let random = &mut Random(row.len() as u64 + 100);
    let mut by =
        |size: f64| cells(row.iter().map(|x| x.get().to_f64() + random.between(-size, size)));
    [by(9.0), by(1e-3)]
}

/// Rows of every length but 0.
fn rows<E: Item>(step: usize) -> impl Iterator<Item = Vec<Cell<E>>> {
    lengths().filter(|&length| length > 0).step_by(step).map(|length| logits(length, length as u64))
}

#[test]
fn divergences_of_rows_of_every_length_are_those_of_doubles() {
    fn check<E: Item<Compute: Item>>() {
        let unit = &Base::new(1.0);
        for row in rows::<E>(1) {
            for other in &others(&row) {
                for temperature in [1.0, 0.3, 25.0] {
                    for_every_measure!(unit, check_sums(&row, other, None, temperature));
                }
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn divergences_of_masked_rows_are_those_of_the_allowed_classes() {
    fn check<E: Item<Compute: Item>>() {
        let unit = &Base::new(1.0);
        for row in rows::<E>(5) {
            let other = &others(&row)[0];
            for mask in masks(row.len()).iter().step_by(2 * thinned(2)) {
                if (0..row.len()).any(|i| mask.allows(i)) {
                    for_every_measure!(unit, check_sums(&row, other, Some(mask), 0.7));
                }
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn rows_that_are_equal_have_no_divergence_at_all() {
    fn check<E: Item<Compute: Item>>() {
        fn check<E: Item, M: Measure<E::Compute>>(row: &[Cell<E>], which: Which, measure: M) {
            let other: Vec<_> = row.iter().map(|x| Cell::new(x.get().widen())).collect();
            let base = Base::new(0.7);
            let pair = pair(&allowed(row, &other, None), 0.7);
            let classes = Classes::new(&pair, &base);
            for (level, got) in sums(
                plain(row),
                Chunk { cells: &other, mask: None, softcap: None },
                classes,
                measure,
            ) {
                assert_eq!(got, [0.0; 3], "{level}: {which:?} of {} {:?}", row.len(), E::KIND);
            }
        }
        let unit = &Base::new(1.0);
        for row in rows::<E>(3) {
            for_every_measure!(unit, check(&row));
        }
    }
    for_every_element!(check());
}

#[test]
fn a_class_that_one_row_excludes_is_as_the_formula_says_at_every_place() {
    fn check<E: Item<Compute: Item>>() {
        let (unit, below) = (&Base::new(1.0), f64::NEG_INFINITY);
        for row in rows::<E>(9).filter(|row| row.len() > 1) {
            let other = &others(&row)[0];
            for at in places(row.len()).into_iter().step_by(1 + row.len() / 16) {
                let in_row = row[at].replace(E::from_f64(below));
                for_every_measure!(unit, check_sums(&row, other, None, 1.0));
                let in_other = other[at].replace(E::Compute::from_f64(below));
                for_every_measure!(unit, check_sums(&row, other, None, 1.0));
                row[at].set(in_row);
                for_every_measure!(unit, check_sums(&row, other, None, 1.0));
                other[at].set(in_other);
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn a_capped_row_is_compared_as_the_row_of_its_capped_logits() {
    fn check<E: Item<Compute: Item>>() {
        fn check<E: Item<Compute: Item>, M: Measure<E::Compute>>(
            row: &[Cell<E>],
            mask: &Mask,
            which: Which,
            measure: M,
        ) {
            let other = &others(row)[0];
            let (base, softcap) = (Base::new(0.7), &Softcap::new(5.0));
            let pair = pair(&allowed(row, other, None), 0.7);
            let classes = Classes::new(&pair, &base);
            let mask = Some(mask.bytes());
            let beside = Chunk { mask, ..plain(other) };
            let chunk = Chunk { cells: row, mask, softcap: Some(softcap) };
            let got = sums(chunk, beside, classes, measure);
            let capped = on_every_level(|| Capped { softcap: Some(softcap), cells: row });
            for (i, (level, capped)) in capped.into_iter().enumerate() {
                let capped: Vec<_> = capped.iter().map(|x| Cell::new(x[0])).collect();
                let chunk = Chunk { mask, ..plain(&capped) };
                let (_, expected) = sums(chunk, beside, classes, measure)[i];
                let kind = E::KIND;
                assert_eq!(
                    got[i].1.map(bits),
                    expected.map(bits),
                    "{level}: {which:?} of {kind:?}"
                );
            }
        }
        let unit = &Base::new(1.0);
        for row in rows::<E>(11) {
            let mask = Mask::new(row.len(), |i| i % 5 != 2);
            for_every_measure!(unit, check(&row, &mask));
        }
    }
    for_every_element!(check());
}

/// Writes the derivatives on every level, and compares them with the formula.
fn check_slope<E: Item<Compute: Item>, M: Measure<E::Compute>>(
    row: &[Cell<E>],
    other: &[Cell<E::Compute>],
    mask: Option<&Mask>,
    temperature: f64,
    which: Which,
    measure: M,
) {
    let number = |x: f64| <E::Compute as Number>::from_f64(x);
    let rows = Rows::new(row, other, mask, temperature);
    let (classes, (from, beside)) = (rows.classes(), rows.chunks());
    // Numbers that all precisions have.
    let (center, scale, masked) = (0.375, -0.5, 9.0);
    let formula = Nearer { classes, measure, center: number(center), scale: number(scale) };
    let results = written(|| Write::<E, E::Compute, _> {
        beside: Some(Beside::Logits(beside)),
        masked: number(masked),
        ..write(from, &[], formula)
    });
    for (level, got) in results {
        for (i, got) in got.iter().enumerate() {
            let about = || {
                let (length, kind) = (row.len(), E::KIND);
                format!("{level}: element {i} of {length} {kind:?}, {which:?} / {temperature}")
            };
            if mask.is_some_and(|mask| !mask.allows(i)) {
                assert_eq!(got.get().to_f64(), masked, "{}, masked", about());
                continue;
            }
            let (x, y) = (row[i].get().to_f64(), other[i].get().to_f64());
            let class = Class::new::<E>(x, y, &rows.pair, temperature);
            let (exact, slack) = class.slope(which, center);
            let slack = slack * epsilon::<E>() + f64::from(f32::MIN_POSITIVE);
            check_near(got.get().to_f64(), exact * scale, slack, &about);
        }
    }
}

#[test]
fn derivatives_of_divergences_are_those_of_doubles() {
    fn check<E: Item<Compute: Item>>() {
        let unit = &Base::new(1.0);
        for row in rows::<E>(3) {
            for other in &others(&row) {
                for temperature in [1.0, 0.3] {
                    for_every_measure!(unit, check_slope(&row, other, None, temperature));
                }
            }
            let other = &others(&row)[0];
            for mask in masks(row.len()).iter().step_by(5) {
                if (0..row.len()).any(|i| mask.allows(i)) {
                    for_every_measure!(unit, check_slope(&row, other, Some(mask), 1.0));
                }
            }
        }
    }
    for_every_element!(check());
}
