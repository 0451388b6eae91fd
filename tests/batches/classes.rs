//! Class ids: read from any array of integers, and refused by name and position where there is no such class.

use crate::arrays::{INTEGERS, Layout, Place};
use crate::twin::Random;
use softxent::batch::read_classes;
use softxent::element::Kind;
use softxent::error::Error;

/// Reads class ids from an array.
fn classes_of(
    targets: &Place,
    ignored: &[i128],
    classes: usize,
) -> Result<Vec<Option<usize>>, Error> {
    // SAFETY: every element lies in the bytes of `targets`.
    unsafe { read_classes(&targets.array(), "targets", &|_, id| ignored.contains(&id), classes) }
}

#[test]
fn class_ids_are_read_from_every_layout_of_every_integer_dtype() {
    for kind in INTEGERS {
        for (seed, layout) in Layout::for_inputs(&[3, 2, 5]).iter().enumerate() {
            let random = &mut Random(seed as u64);
            let targets = Place::of(kind, layout, || random.between(-3.0, 100.0).trunc());
            let numbers = targets.numbers();
            let class = |&id: &f64| (id != 7.0 && id >= 0.0).then_some(id as usize);
            let expected: Vec<Option<usize>> = numbers.iter().map(class).collect();
            let ignored = [7, -1, -2, -3];
            assert_eq!(classes_of(&targets, &ignored, 100), Ok(expected), "{kind:?} {layout:?}");
        }
    }
}

#[test]
fn a_class_id_out_of_range_is_named_with_its_position() {
    let layout = Layout::contiguous(&[2, 3]);
    for kind in INTEGERS {
        let mut ids = [0.0, 3.0, 9.0, 1.0, 10.0, 11.0].into_iter();
        let targets = Place::of(kind, &layout, || ids.next().unwrap());
        let error =
            Error::Class { argument: "targets", position: vec![1, 1], class: 10, classes: 10 };
        assert_eq!(classes_of(&targets, &[], 10), Err(error), "{kind:?}");
        assert_eq!(
            classes_of(&targets, &[10, 11], 10).map(|ids| ids[4..].to_vec()),
            Ok(vec![None; 2])
        );
    }
    let minus_one = Place::of(Kind::I8, &Layout::contiguous(&[1]), || -1.0);
    let error =
        Error::Class { argument: "targets", position: vec![0], class: -1, classes: usize::MAX };
    assert_eq!(classes_of(&minus_one, &[255], usize::MAX), Err(error));
    let largest = Place::of(Kind::U64, &Layout::contiguous(&[1]), || u64::MAX as f64);
    let error =
        Error::Class { argument: "targets", position: vec![0], class: u64::MAX.into(), classes: 5 };
    assert_eq!(classes_of(&largest, &[-1], 5), Err(error));
}
