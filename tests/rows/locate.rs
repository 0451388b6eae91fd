//! Where a value stands, and what the kernels see at one place.

use crate::masks::spoilt;
use crate::twin::{on_every_level, thinned};
use crate::{
    Capped, Item, Mask, cells, check_fused, for_every_element, lengths, logits, masks, places,
    plain,
};
use softxent::exp::Softcap;
use softxent::row::{At, Chunk, Locate};
use softxent::simd::Number;

/// Looks for a value on every level.
fn check_first<E: Item>(chunk: Chunk<'_, E>, value: f64, expected: Option<usize>) {
    for (level, got) in on_every_level(|| Locate { chunk, value }) {
        let (length, kind) = (chunk.cells.len(), E::KIND);
        assert_eq!(got, expected, "{level}: {value} in {length} {kind:?}");
    }
}

#[test]
fn the_first_of_equal_maxima_is_found_at_every_place() {
    fn check<E: Item>() {
        for length in lengths() {
            let row = logits::<E>(length, 6);
            check_first(plain(&row), 300.0, None);
            for first in places(length) {
                for second in [first, first + 1, first + 16, first + length / 3, length - 1] {
                    let second = second.clamp(first, length - 1);
                    let before = [first, second].map(|at| row[at].replace(E::from_f64(300.0)));
                    check_first(plain(&row), 300.0, Some(first));
                    row[second].set(before[1]);
                    row[first].set(before[0]);
                }
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn a_value_is_not_found_where_it_is_masked() {
    fn check<E: Item>() {
        for length in lengths().step_by(thinned(3)) {
            let row = cells::<E>((0..length).map(|i| if i % 11 < 3 { 7.0 } else { -7.0 }));
            for mask in masks(length) {
                let spoilt = spoilt(&row, &mask);
                let chunk = Chunk { mask: Some(mask.bytes()), ..plain(&spoilt) };
                let expected = (0..length).find(|&i| i % 11 < 3 && mask.allows(i));
                check_first(chunk, 7.0, expected);
                check_first(chunk, -7.0, (0..length).find(|&i| mask.allows(i)));
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn a_nan_is_not_found_and_nothing_is_at_least_nan() {
    fn check<E: Item>() {
        let number = |i: usize| if i == 90 { 1.0 } else { f64::NAN };
        let row = cells::<E>((0..100).map(number));
        check_first(plain(&row), 1.0, Some(90));
        check_first(plain(&row), f64::NAN, None);
        row[95].set(E::from_f64(f64::INFINITY));
        check_first(plain(&row), f64::INFINITY, Some(95));
        check_first(plain(&row[..90]), 1.0, None);
        check_first(plain(&row[..0]), 1.0, None);
    }
    for_every_element!(check());
}

#[test]
fn the_first_that_the_cap_makes_as_large_as_the_largest_is_found() {
    fn check<E: Item>() {
        // So far beyond the cap that they can't be told apart.
        let row = cells::<E>((0..100).map(|i| if i < 70 { 0.5 } else { f64::from(1000 - i) }));
        let softcap = Softcap::new(2.0);
        let chunk = Chunk { softcap: Some(&softcap), ..plain(&row) };
        let seen = on_every_level(|| At { chunk, at: 71 });
        for ((level, got), (_, (value, _))) in
            on_every_level(|| Locate { chunk, value: seen[0].1.0 }).into_iter().zip(&seen)
        {
            assert_eq!((got, *value), (Some(70), seen[0].1.0), "{level}: {:?}", E::KIND);
        }
    }
    for_every_element!(check());
}

#[test]
fn the_kernels_see_the_capped_logit_with_its_derivative_and_minus_infinity_behind_a_mask() {
    fn check<E: Item>() {
        let row = logits::<E>(150, 7);
        row[77].set(E::from_f64(f64::NAN));
        let mask = Mask::new(150, |i| i % 3 != 1);
        let softcap = Softcap::new(5.0);
        let capped = on_every_level(|| Capped { softcap: Some(&softcap), cells: &row });
        for at in 0..row.len() {
            let bits = |&(x, slope): &(f64, f64)| [x, slope].map(crate::bits);
            let seen = |chunk| {
                let results = on_every_level(|| At { chunk, at });
                check_fused(&results, bits, &|| format!("place {at} of {:?}", E::KIND));
                results.into_iter().map(|(_, result)| bits(&result))
            };
            let x = row[at].get().to_f64();
            assert!(seen(plain(&row)).all(|got| got == bits(&(x, 1.0))), "place {at}");
            let chunk = Chunk { softcap: Some(&softcap), ..plain(&row) };
            for (got, (level, capped)) in seen(chunk).zip(&capped) {
                let expected = capped[at].map(|x| crate::bits(x.to_f64()));
                assert_eq!(got, expected, "{level}: place {at}");
            }
            let (plain, masked) = (seen(chunk), seen(Chunk { mask: Some(mask.bytes()), ..chunk }));
            for (plain, masked) in plain.zip(masked) {
                let hidden = crate::bits(f64::NEG_INFINITY);
                assert_eq!(masked[0], if mask.allows(at) { plain[0] } else { hidden });
                assert!(!mask.allows(at) || masked[1] == plain[1]);
            }
        }
    }
    for_every_element!(check());
}
