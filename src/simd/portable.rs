//! The level that every processor has: plain Rust over arrays, left to the compiler to vectorise.
//!
//! It has no fused multiply-add. In single precision it computes one through doubles (the product of two
//! singles is exact there), so that accuracy holds; in double precision it multiplies and adds.

use super::{Kernel, SIXTEENTHS, Simd, Vector};
use half::{bf16, f16};

/// Plain Rust.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

macro_rules! portable_vector {
    ($name:ident, $t:ty, $lanes:literal, $mantissa:literal, $mul_add:expr, $power:expr, $fold:expr) => {
        /// One logical vector.
        #[derive(Clone, Copy)]
        pub struct $name([$t; $lanes]);

        impl Vector<Portable> for $name {
            type Scalar = $t;

            #[inline(always)]
            fn splat(_: Portable, value: $t) -> Self {
                Self([value; $lanes])
            }
            #[inline(always)]
            unsafe fn load(_: Portable, from: *const $t) -> Self {
                // SAFETY: the caller vouches for the memory; an unaligned read asks for no more.
                Self(unsafe { from.cast::<[$t; $lanes]>().read_unaligned() })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $t) {
                // SAFETY: the caller vouches for the memory; an unaligned write asks for no more.
                unsafe { to.cast::<[$t; $lanes]>().write_unaligned(self.0) }
            }
            #[inline(always)]
            unsafe fn stream(self, to: *mut $t) {
                // SAFETY: the same memory as the caller vouches for.
                unsafe { self.store(to) }
            }
            #[inline(always)]
            fn add(self, b: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] + b.0[i]))
            }
            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] - b.0[i]))
            }
            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] * b.0[i]))
            }
            #[inline(always)]
            fn div(self, b: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] / b.0[i]))
            }
            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                Self(std::array::from_fn(|i| $mul_add(self.0[i], b.0[i], c.0[i])))
            }
            #[inline(always)]
            fn max(self, b: Self) -> Self {
                Self(std::array::from_fn(|i| if self.0[i] > b.0[i] { self.0[i] } else { b.0[i] }))
            }
            #[inline(always)]
            fn zero_where_less(self, x: Self, bound: Self) -> Self {
                Self(std::array::from_fn(|i| if x.0[i] < bound.0[i] { 0.0 } else { self.0[i] }))
            }
            #[inline(always)]
            fn or_where_less(self, x: Self, bound: Self, other: Self) -> Self {
                let lane = |i: usize| if x.0[i] < bound.0[i] { other.0[i] } else { self.0[i] };
                Self(std::array::from_fn(lane))
            }
            #[inline(always)]
            unsafe fn keep(self, mask: *const u8, other: Self) -> Self {
                // SAFETY: the caller vouches for the memory.
                let mask = unsafe { mask.cast::<[u8; $lanes]>().read() };
                Self(std::array::from_fn(|i| if mask[i] == 0 { other.0[i] } else { self.0[i] }))
            }
            #[inline(always)]
            fn count_greater(self, b: Self) -> u32 {
                std::iter::zip(self.0, b.0).map(|(a, b)| u32::from(a > b)).sum()
            }
            #[inline(always)]
            fn any_greater(self, b: Self) -> bool {
                std::iter::zip(self.0, b.0).any(|(a, b)| a > b)
            }
            #[inline(always)]
            fn low_bits_to_exponent(self) -> Self {
                Self(self.0.map(|lane| <$t>::from_bits(lane.to_bits() << $mantissa)))
            }
            #[inline(always)]
            fn low_bits_to_power(self) -> Self {
                Self(self.0.map(|lane| <$t>::from_bits($power(lane.to_bits()))))
            }
            #[inline(always)]
            fn or_difference(self, a: Self, b: Self) -> Self {
                Self(std::array::from_fn(|i| {
                    <$t>::from_bits(self.0[i].to_bits() | (a.0[i].to_bits() ^ b.0[i].to_bits()))
                }))
            }
            #[inline(always)]
            fn any_bit(self, mask: Self) -> bool {
                std::iter::zip(self.0, mask.0).any(|(a, b)| a.to_bits() & b.to_bits() != 0)
            }
            #[inline(always)]
            fn exponent_field(self) -> Self {
                Self(self.0.map(|lane| (lane.to_bits() >> $mantissa) as $t))
            }
            #[inline(always)]
            fn significand(self) -> Self {
                let kept = (1 << $mantissa) - 1;
                let one = (1.0 as $t).to_bits();
                Self(self.0.map(|lane| <$t>::from_bits(lane.to_bits() & kept | one)))
            }
            #[inline(always)]
            fn fold(self) -> F64 {
                $fold(self)
            }
        }
    };
}

portable_vector!(
    F32,
    f32,
    16,
    23,
    |a: f32, b: f32, c: f32| (f64::from(a) * f64::from(b) + f64::from(c)) as f32,
    |bits: u32| (bits << 19).wrapping_add_signed(SIXTEENTHS[bits as usize % 16]),
    |v: Self| F64(std::array::from_fn(|i| f64::from(v.0[i]) + f64::from(v.0[i + 8])))
);
portable_vector!(
    F64,
    f64,
    8,
    52,
    |a: f64, b: f64, c: f64| a * b + c,
    |bits: u64| (bits << 52).wrapping_add(1 << 52),
    |v: Self| v
);

impl Simd for Portable {
    type F32 = F32;
    type F64 = F64;
    type Half = [u16; 16];
    const OUTLINED: bool = true;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
    #[inline(always)]
    fn fence(self) {}
    #[inline(always)]
    fn prefetch<T>(self, _: *const T) {}
    #[inline(always)]
    fn prefetch_far<T>(self, _: *const T) {}
    #[inline(always)]
    unsafe fn load_half(self, from: *const u16) -> Self::Half {
        // SAFETY: the caller vouches for the memory; an unaligned read asks for no more.
        unsafe { from.cast::<Self::Half>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_half(self, to: *mut u16, value: Self::Half) {
        // SAFETY: the caller vouches for the memory; an unaligned write asks for no more.
        unsafe { to.cast::<Self::Half>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn stream_half(self, to: *mut u16, value: Self::Half) {
        // SAFETY: the same memory as the caller vouches for.
        unsafe { self.store_half(to, value) }
    }
    #[inline(always)]
    fn widen_f16(self, value: Self::Half) -> F32 {
        F32(value.map(|bits| f16::from_bits(bits).to_f32()))
    }
    #[inline(always)]
    fn narrow_f16(self, value: F32) -> Self::Half {
        value.0.map(|lane| f16::from_f32(lane).to_bits())
    }
    #[inline(always)]
    fn widen_bf16(self, value: Self::Half) -> F32 {
        F32(value.map(|bits| bf16::from_bits(bits).to_f32()))
    }
    #[inline(always)]
    fn narrow_bf16(self, value: F32) -> Self::Half {
        value.0.map(|lane| bf16::from_f32(lane).to_bits())
    }
}
