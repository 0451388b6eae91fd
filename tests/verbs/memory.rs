//! Vectors in memory: loaded and stored at any address, past the caches, and what lies around them.

use crate::twin::{Random, run};
use softxent::simd::{Kernel, Level, Simd, Vector};

/// Memory at the start of a cache line.
#[derive(Clone, PartialEq, Debug)]
#[repr(align(64))]
struct Lines([u8; 256]);

/// How a vector goes from one place to another.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Store,
    Stream,
}

/// Moves 64 bytes of singles or doubles, or 32 bytes of 16-bit patterns.
struct Move<'a, T> {
    from: &'a [u8],
    to: &'a mut [u8],
    way: Way,
    kind: std::marker::PhantomData<T>,
}

/// A type that vectors are loaded and stored as.
trait Moved: Sized {
    /// Bytes of a vector.
    const BYTES: usize;
    fn load_and_store<S: Simd>(simd: S, bytes: Move<'_, Self>);
    /// Moves the first elements of a vector, as many as there are in `from`, to the start of `to`; and behind them, as a
    /// whole vector, what was loaded.
    fn load_and_store_part<S: Simd>(simd: S, from: &[u8], to: &mut [u8], absent: Self);
    fn bytes(self) -> Vec<u8>;
}

macro_rules! moved {
    ($t:ident, $bytes:literal, $load:expr, $store:expr, $stream:expr, $load_part:expr, $store_part:expr) => {
        impl Moved for $t {
            const BYTES: usize = $bytes;

            #[inline(always)]
            fn load_and_store<S: Simd>(simd: S, bytes: Move<'_, Self>) {
                assert!(bytes.from.len() >= $bytes && bytes.to.len() >= $bytes);
                let from: *const $t = bytes.from.as_ptr().cast();
                let to: *mut $t = bytes.to.as_mut_ptr().cast();
                assert!(bytes.way == Way::Store || to.addr() % $bytes == 0);
                // SAFETY: both slices have room for a vector, and a stream is aligned.
                unsafe {
                    let value = $load(simd, from);
                    match bytes.way {
                        Way::Store => $store(simd, to, value),
                        Way::Stream => $stream(simd, to, value),
                    }
                }
                simd.fence();
            }

            #[inline(always)]
            fn load_and_store_part<S: Simd>(simd: S, from: &[u8], to: &mut [u8], absent: Self) {
                let count = from.len() / size_of::<$t>();
                assert!(from.len() <= $bytes && to.len() >= from.len() + $bytes);
                let to: *mut $t = to.as_mut_ptr().cast();
                // SAFETY: as many elements are read as there are, and there is room for as many and a vector.
                unsafe {
                    let value = $load_part(simd, from.as_ptr().cast(), count, absent);
                    $store_part(simd, to, count, value);
                    $store(simd, to.wrapping_add(count), value);
                }
            }

            fn bytes(self) -> Vec<u8> {
                self.to_ne_bytes().to_vec()
            }
        }
    };
}
moved!(
    f32,
    64,
    S::F32::load,
    |_, to, x: S::F32| x.store(to),
    |_, to, x: S::F32| x.stream(to),
    S::F32::load_part,
    |_, to, count, x: S::F32| x.store_part(to, count)
);
moved!(
    f64,
    64,
    S::F64::load,
    |_, to, x: S::F64| x.store(to),
    |_, to, x: S::F64| x.stream(to),
    S::F64::load_part,
    |_, to, count, x: S::F64| x.store_part(to, count)
);
moved!(u16, 32, S::load_half, S::store_half, S::stream_half, S::load_half_part, S::store_half_part);

impl<T: Moved> Kernel for Move<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        T::load_and_store(simd, self);
    }
}

/// Moves a vector of any bits from one address to another on every level, and looks at every byte around it.
fn check_move<T: Moved>(way: Way, from: usize, to: usize) {
    let random = &mut Random(4);
    let source = Lines(std::array::from_fn(|_| random.bits() as u8));
    let before = Lines(std::array::from_fn(|_| random.bits() as u8));
    let mut expected = before.clone();
    expected.0[to..to + T::BYTES].copy_from_slice(&source.0[from..from + T::BYTES]);
    for level in Level::available() {
        let mut target = before.clone();
        run(
            level,
            Move::<T> {
                from: &source.0[from..],
                to: &mut target.0[to..],
                way,
                kind: std::marker::PhantomData,
            },
        );
        assert_eq!(target, expected, "{}: {way:?} from byte {from} to byte {to}", level.name());
    }
}

#[test]
fn a_vector_is_loaded_and_stored_at_any_address_bit_for_bit() {
    fn check<T: Moved>() {
        for from in 0..64 {
            for to in [0, 1, 2, 3, 4, 8, 16, 31, 32, 63].map(|offset| (from + offset) % 128) {
                check_move::<T>(Way::Store, from, to);
            }
        }
    }
    check::<f32>();
    check::<f64>();
    check::<u16>();
}

#[test]
fn a_vector_is_streamed_to_any_aligned_address_bit_for_bit() {
    fn check<T: Moved>() {
        for from in 0..64 {
            for to in (0..256).step_by(T::BYTES) {
                check_move::<T>(Way::Stream, from, to);
            }
        }
    }
    check::<f32>();
    check::<f64>();
    check::<u16>();
}

/// The first elements of a vector.
struct MovePart<'a, T> {
    from: &'a [u8],
    to: &'a mut [u8],
    absent: T,
}

impl<T: Moved> Kernel for MovePart<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        T::load_and_store_part(simd, self.from, self.to, self.absent);
    }
}

#[test]
fn as_much_of_a_vector_is_loaded_and_stored_as_there_is_and_nothing_beyond_is_touched() {
    fn check<T: Moved + Copy>(absent: T) {
        let random = &mut Random(5);
        let size = size_of::<T>();
        for count in 0..=T::BYTES / size {
            // A source of exactly that length: who reads beyond it is seen by a sanitizer.
            let from: Vec<u8> = (0..count * size).map(|_| random.bits() as u8).collect();
            let before: Vec<u8> = (0..256).map(|_| random.bits() as u8).collect();
            let rest = absent.bytes().repeat(T::BYTES / size - count);
            let loaded = [&from[..], &rest[..]].concat();
            let mut expected = before.clone();
            expected[3..3 + loaded.len() + from.len()]
                .copy_from_slice(&[&from[..], &loaded[..]].concat());
            for level in Level::available() {
                let mut target = before.clone();
                run(level, MovePart { from: &from, to: &mut target[3..], absent });
                assert_eq!(target, expected, "{}: {count} elements", level.name());
            }
        }
    }
    check::<f32>(f32::NEG_INFINITY);
    check::<f64>(1.5);
    check::<u16>(0x7c01);
}
