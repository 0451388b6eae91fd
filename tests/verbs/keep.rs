//! Lanes chosen by the bytes of a mask: the verb, and the safe function over it.
//!
//! Every byte but 0 keeps its lane, and with it every bit of it; only the bytes of the lanes are read.

use crate::Lane;
use crate::twin::{Random, on_every_level, run, vector};
use softxent::element::{Kind, Stored, keep};
use softxent::simd::{Float, Kernel, Level, MAX_LANES, Number, Simd, Vector};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Chooses in whole slices, a vector at a time.
struct Keep<'a, T> {
    x: &'a [T],
    mask: &'a [u8],
    other: &'a [T],
}

impl<T: Float> Kernel for Keep<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<T> {
        assert!(self.mask.len() >= self.x.len());
        let mut results = Vec::with_capacity(self.x.len());
        for at in (0..self.x.len()).step_by(T::LANES) {
            let x: T::V<S> = vector(simd, &self.x[at..]);
            // SAFETY: there are as many bytes as numbers, and those come in whole vectors.
            let kept = unsafe { x.keep(self.mask[at..].as_ptr(), vector(simd, &self.other[at..])) };
            results.extend_from_slice(&kept.to_array(T::MAX)[..T::LANES]);
        }
        results
    }
}

/// Chooses on every level, and looks at every bit.
fn check_keep<T: Lane>(x: &[T], mask: &[u8], other: &[T]) {
    for (level, got) in on_every_level(|| Keep { x, mask, other }) {
        for (i, &got) in got.iter().enumerate() {
            let expected = if mask[i] == 0 { other[i] } else { x[i] };
            assert_eq!(
                got.pattern(),
                expected.pattern(),
                "{level}: {:?} or {:?} for the byte {} of {:?}",
                x[i],
                other[i],
                mask[i],
                &mask[i - i % T::LANES..][..T::LANES]
            );
        }
    }
}

/// So many numbers, all that are special in every lane; another order of them for another step.
fn special_numbers<T: Lane>(count: usize, step: usize) -> Vec<T> {
    let special = T::special();
    (0..count).map(|i| special[i * step % special.len()]).collect()
}

#[test]
fn a_mask_of_every_pattern_keeps_the_lanes_that_it_says() {
    fn check<T: Lane>() {
        let count = T::LANES << T::LANES;
        let kept = |i: usize| ((i / T::LANES) >> (i % T::LANES)) & 1 == 1;
        let mask: Vec<u8> =
            (0..count).map(|i| if kept(i) { 1 + (i % 255) as u8 } else { 0 }).collect();
        check_keep::<T>(&special_numbers(count, 1), &mask, &special_numbers(count, 5));
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn every_byte_but_zero_keeps_its_lane_and_no_other() {
    fn check<T: Lane>() {
        let (x, other) = (special_numbers::<T>(T::LANES, 1), special_numbers(T::LANES, 5));
        for lane in 0..T::LANES {
            for byte in 0..=u8::MAX {
                let mut mask = vec![0; T::LANES];
                mask[lane] = byte;
                check_keep(&x, &mask, &other);
                mask.fill(byte);
                mask[lane] = 0;
                check_keep(&x, &mask, &other);
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn a_mask_lies_at_any_address_and_the_bytes_around_it_do_not_matter() {
    fn check<T: Lane>() {
        let (x, other) = (special_numbers::<T>(T::LANES, 1), special_numbers(T::LANES, 5));
        let random = &mut Random(6);
        for start in 0..64 {
            for around in [0, 1, u8::MAX] {
                let mut bytes = [around; 64 + 2 * MAX_LANES];
                let mask = &mut bytes[start..][..T::LANES];
                mask.fill_with(|| (random.bits() % 2) as u8);
                check_keep(&x, &bytes[start..], &other);
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

/// A page before one that must not be touched: who reads on is killed.
#[cfg(unix)]
#[test]
fn no_byte_beyond_the_lanes_of_a_mask_is_read() {
    fn check<T: Lane>() {
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.cast_unsigned() as usize;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let private = libc::MAP_PRIVATE | libc::MAP_ANON;
        // SAFETY: memory of our own at an address that the system chooses; all zeros, which are bytes. The second
        // page is closed, and no slice reaches into it.
        let pages = unsafe {
            let pages = libc::mmap(std::ptr::null_mut(), 2 * page, access, private, -1, 0);
            assert_ne!(pages, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(pages.byte_add(page), page, libc::PROT_NONE), 0);
            std::slice::from_raw_parts_mut(pages.cast::<u8>(), page)
        };
        let mask = &mut pages[page - T::LANES..];
        mask[T::LANES - 1] = 1;
        check_keep(&special_numbers::<T>(T::LANES, 1), mask, &special_numbers(T::LANES, 5));
        // SAFETY: the pages of above, of which nothing is used any more.
        assert_eq!(unsafe { libc::munmap(pages.as_mut_ptr().cast(), 2 * page) }, 0);
    }
    check::<f32>();
    check::<f64>();
}

/// The safe function.
struct SafeKeep<'a, T> {
    x: &'a [T],
    mask: &'a [Cell<u8>],
    other: &'a [T],
}

impl<T: Float> Kernel for SafeKeep<'_, T> {
    type Output = [T; MAX_LANES];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [T; MAX_LANES] {
        let x: T::V<S> = vector(simd, self.x);
        keep(x, self.mask, vector(simd, self.other)).to_array(T::MAX)
    }
}

#[test]
fn the_safe_function_refuses_a_mask_that_is_shorter_than_a_vector() {
    fn check<T: Lane>() {
        let (x, other) = (vec![T::ONE; T::LANES], vec![T::from_f64(2.0); T::LANES]);
        for length in 0..2 * T::LANES {
            let mask: Vec<Cell<u8>> = (0..length).map(|i| Cell::new((i % 3) as u8)).collect();
            for level in Level::available() {
                let run = || {
                    run(level, SafeKeep { x: &x, mask: &mask, other: &other })[..T::LANES].to_vec()
                };
                let kept = catch_unwind(AssertUnwindSafe(run));
                if length < T::LANES {
                    let message = *kept.map(|_| ()).unwrap_err().downcast::<&str>().unwrap();
                    assert_eq!(message, "a mask shorter than a vector");
                } else {
                    let byte = |i: usize| mask[i].get();
                    let expected = (0..T::LANES).map(|i| if byte(i) == 0 { 2.0 } else { 1.0 });
                    assert!(kept.unwrap().into_iter().map(T::to_f64).eq(expected));
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn the_bytes_of_a_mask_are_numbers_like_others() {
    assert_eq!(u8::KIND, Kind::U8);
    for byte in 0..=u8::MAX {
        assert_eq!(byte.to_f64(), f64::from(byte));
        assert_eq!(<u8 as Number>::from_f64(f64::from(byte)), byte);
    }
}
