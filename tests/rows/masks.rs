//! Masked and capped rows are summarized as the rows that they stand for: with -inf where a class is masked,
//! whatever it holds, and with the capped logits in memory.

use crate::twin::{on_every_level, thinned};
use crate::{
    Capped, Item, Mask, Naive, cells, for_every_element, lengths, logits, masks, partial_bits,
    places, plain, summaries,
};
use softxent::element::Element;
use softxent::exp::{Base, Softcap};
use softxent::row::{CHUNK, Chunk};
use std::cell::Cell;

/// A row with something that must not be read wherever a class is masked.
pub(crate) fn spoilt<E: Item>(row: &[Cell<E>], mask: &Mask) -> Vec<Cell<E>> {
    let spoils = [f64::NAN, f64::INFINITY, 1e4, f64::NEG_INFINITY, -f64::NAN].map(E::from_f64);
    replaced(row, mask, |i| spoils[i % spoils.len()])
}

/// A row with -inf wherever a class is masked.
pub(crate) fn without<E: Element>(row: &[Cell<E>], mask: &Mask) -> Vec<Cell<E>> {
    replaced(row, mask, |_| E::from_f64(f64::NEG_INFINITY))
}

fn replaced<E: Element>(row: &[Cell<E>], mask: &Mask, masked: impl Fn(usize) -> E) -> Vec<Cell<E>> {
    let element = |(i, x): (usize, &Cell<E>)| if mask.allows(i) { x.get() } else { masked(i) };
    row.iter().enumerate().map(element).map(Cell::new).collect()
}

/// Compares the summaries of a masked row, on every level, with those of the row that it stands for.
fn check_mask<E: Item>(row: &[Cell<E>], mask: &Mask, skip: Option<usize>) {
    let base = Base::new(0.7);
    let (spoilt, without) = (spoilt(row, mask), without(row, mask));
    let got = summaries(Chunk { mask: Some(mask.bytes()), ..plain(&spoilt) }, skip, &base);
    let expected = summaries(plain(&without), skip, &base);
    let there = (0..row.len()).filter(|&i| mask.allows(i) && Some(i) != skip);
    let naive = Naive::new::<E>(there.map(|i| row[i].get().to_f64()), 0.7);
    for ((level, got), (_, expected)) in got.into_iter().zip(expected) {
        let about = || format!("{} {:?}, {:?}, skip {skip:?}", row.len(), E::KIND, mask.bytes());
        naive.check(level, got, &about);
        assert!(
            partial_bits(got) == partial_bits(expected),
            "{level}: {got:?}, not {expected:?}, of {}",
            about()
        );
    }
}

#[test]
fn a_masked_class_acts_as_minus_infinity_whatever_it_holds() {
    fn check<E: Item>() {
        for length in lengths() {
            let row = logits::<E>(length, length as u64);
            for (n, mask) in masks(length).iter().enumerate() {
                check_mask(&row, mask, None);
                if length > 0 {
                    check_mask(&row, mask, Some(n * 31 % length));
                }
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn a_masked_nan_does_no_harm_to_an_infinity_nor_a_masked_infinity_to_a_nan() {
    fn check<E: Item>() {
        for length in lengths().step_by(9) {
            let row = logits::<E>(length, 5);
            for (n, mask) in masks(length).iter().enumerate() {
                let Some(at) = (0..length).filter(|&i| mask.allows(i)).nth(n % 5) else { continue };
                for special in [f64::INFINITY, f64::NAN] {
                    let before = row[at].replace(E::from_f64(special));
                    check_mask(&row, mask, None);
                    check_mask(&row, mask, Some(at));
                    row[at].set(before);
                }
            }
        }
    }
    for_every_element!(check());
}

#[test]
fn the_first_classes_of_a_row_may_be_masked_for_any_length() {
    fn check<E: Item>(length: usize) {
        // Rising where the classes are allowed, so that the reference is raised from -inf on.
        let row = cells::<E>((0..length).map(|i| i as f64 * 0.01));
        for first in [1, 15, 16, 17, 1023, 1024, 1025, length / 4, length / 2, length - 1, length] {
            check_mask(&row, &Mask::new(length, |i| i >= first), None);
            check_mask(&row, &Mask::new(length, |i| i >= first && i % 3 == 0), None);
        }
    }
    for_every_element!(check(CHUNK / thinned(16)));
}

#[test]
fn a_capped_row_is_summarized_as_the_row_of_its_capped_logits() {
    fn check<E: Item>() {
        for length in lengths().step_by(5) {
            let row = logits::<E>(length, length as u64);
            if length > 3 {
                row[length - 2].set(E::from_f64(f64::NEG_INFINITY));
                row[length / 2].set(E::from_f64(f64::INFINITY));
            }
            let (base, skip) = (Base::new(0.7), places(length).last().copied());
            for cap in [30.0, 5.0, 0.5].map(Softcap::new) {
                for mask in [None, Some(Mask::new(length, |i| i % 5 > 1))] {
                    let cells = mask.as_ref().map_or(row.clone(), |mask| spoilt(&row, mask));
                    let bytes = mask.as_ref().map(Mask::bytes);
                    let chunk = Chunk { cells: &cells, mask: bytes, softcap: Some(&cap) };
                    let got = summaries(chunk, skip, &base);
                    let capped = on_every_level(|| Capped { softcap: Some(&cap), cells: &row });
                    for (i, (level, capped)) in capped.into_iter().enumerate() {
                        let capped: Vec<_> = capped.iter().map(|x| Cell::new(x[0])).collect();
                        let stands_for = mask.as_ref().map(|mask| without(&capped, mask));
                        let stands_for = stands_for.as_ref().unwrap_or(&capped);
                        let (_, expected) = summaries(plain(stands_for), skip, &base)[i];
                        let (_, got) = got[i];
                        assert!(
                            partial_bits(got) == partial_bits(expected),
                            "{level}: {got:?}, not {expected:?}, of {length} {:?} under {cap:?}",
                            E::KIND
                        );
                    }
                }
            }
        }
    }
    for_every_element!(check());
}
