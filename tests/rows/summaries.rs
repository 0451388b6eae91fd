//! Maximum and sum of exponentials of plain rows: of every length, with every element left out, rising and falling,
//! with infinities and NaN at every place; and their merging.

use crate::twin::{bits, run, thinned};
use crate::writes::write;
use crate::{
    Item, Naive, cells, for_every_element, lengths, logits, places, plain, summaries,
    summaries_with,
};
use half::f16;
use softxent::element::Stored;
use softxent::exp::Base;
use softxent::row::{Affine, CHUNK, Nothing, Partial, Summarize};
use softxent::simd::{Float, Level, Number};
use std::cell::Cell;

/// The logits of a row without one of them.
fn but<E: Item>(row: &[Cell<E>], skip: Option<usize>) -> impl Iterator<Item = f64> {
    row.iter().enumerate().filter(move |(i, _)| Some(*i) != skip).map(|(_, x)| x.get().to_f64())
}

/// Summarizes a row on every level, and compares.
fn check_summary<E: Item>(row: &[Cell<E>], skip: Option<usize>, temperature: f64) {
    let naive = Naive::new::<E>(but(row, skip), temperature);
    let about = || {
        let start = &row[..row.len().min(8)];
        let (kind, length) = (E::KIND, row.len());
        format!("{length} {kind:?} {start:?}..., skip {skip:?}, temperature {temperature}")
    };
    let base = &Base::new(temperature);
    for (level, got) in summaries(plain(row), skip, base) {
        naive.check(level, got, &about);
    }
    for (level, got) in summaries_with(plain(row), skip, base, Nothing::<false>) {
        naive.check_near_max(level, got, temperature, &about);
    }
}

/// The summary of a row, which all levels agree on.
fn summary<E: Item>(row: &[Cell<E>], skip: Option<usize>) -> Partial {
    let results = summaries(plain(row), skip, &Base::new(1.0));
    assert!(results.iter().all(|(_, result)| *result == results[0].1), "{results:?}");
    results[0].1
}

/// A summary of which only the maximum and the sum are known.
fn of(max: f64, sum: f64) -> Partial {
    Partial { max, sum, ..Partial::EMPTY }
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
                assert_eq!(summary(&row, None), of(max, length as f64));
                if length > 1 {
                    let but_one = of(max, (length - 1) as f64);
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
            run(level, write(plain(&term), &term, formula));
            let exact = 1.0 + (CHUNK - 1) as f64 * term[0].get();
            let (chunk, moments) = (plain(&row), Nothing::<false>);
            let (got, _) =
                run(level, Summarize { chunk, skip: None, base, moments, weights: None });
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
                assert_eq!(summary(&row, None), of(-300.0, 1.0));
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
fn logits_far_below_the_largest_are_as_nothing_wherever_they_stand() {
    fn check<E: Item>() {
        for length in lengths() {
            let row = logits::<E>(length, 3);
            for at in places(length) {
                let before = row[at].get();
                for far in [80.0, 87.0, 87.3, 87.36, 100.0, 709.0, 1000.0, 60_000.0] {
                    row[at].set(E::from_f64(12.0 - far));
                    check_summary(&row, None, 1.0);
                }
                row[at].set(before);
            }
            // All but a few.
            let sparse = |i: usize| if i % 97 == 5 { 1.0 } else { -200.0 - i as f64 };
            check_summary(&cells::<E>((0..length).map(sparse)), None, 1.0);
        }
    }
    for_every_element!(check());
}

#[test]
fn merged_parts_are_the_whole() {
    fn check<E: Item>() {
        let row = logits::<E>(1000, 9);
        for temperature in [1.0, 0.1, 25.0] {
            let naive = Naive::new::<E>(but(&row, None), temperature);
            for cut in (0..=row.len()).step_by(37) {
                let base = Base::new(temperature);
                let part = |part| summaries(plain(part), None, &base);
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
