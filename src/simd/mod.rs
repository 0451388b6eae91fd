//! The vocabulary of the kernels: what a register can do, on every instruction set alike.
//!
//! One logical vector is 64 bytes everywhere: 16 `f32` or 8 `f64` lanes, made of as many registers as the
//! instruction set needs. A kernel is written once against [`Simd`] and gives the same bits wherever the
//! processor has a fused multiply-add, because width and order of the operations never change.
//!
//! A value of a type that implements [`Simd`] proves that the processor has the instructions: it is only
//! made after detection ([`Level`]). That proof is what every intrinsic's `unsafe` rests on.
//!
//! This folder knows registers. It knows nothing of softmax.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod float_state;
mod level;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod prefetch;

pub use float_state::with_default_float_state;
pub use level::{Level, UnknownLevel};
pub use prefetch::reads_far_ahead;

/// A number that a double can stand for.
pub trait Number: Copy + Send + Sync + 'static {
    /// The value as a double, exactly.
    fn to_f64(self) -> f64;
    /// A double, rounded to nearest even.
    fn from_f64(value: f64) -> Self;
}

/// A number that lives in lanes: `f32` or `f64`.
pub trait Float: Number + PartialOrd {
    /// Lanes of a logical vector.
    const LANES: usize;
    /// Negative infinity.
    const NEG_INFINITY: Self;
    /// The largest finite number.
    const MAX: Self;
    /// The largest number below this one.
    fn next_down(self) -> Self;
    /// One logical vector of this type on the level `S`.
    type V<S: Simd>: Vector<S, Scalar = Self>;
}

macro_rules! float {
    ($t:ident, $vector:ident, $lanes:literal) => {
        impl Float for $t {
            const LANES: usize = $lanes;
            const NEG_INFINITY: Self = $t::NEG_INFINITY;
            const MAX: Self = $t::MAX;
            type V<S: Simd> = S::$vector;
            fn next_down(self) -> Self {
                Self::next_down(self)
            }
        }
        impl Number for $t {
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $t
            }
        }
    };
}
float!(f32, F32, 16);
float!(f64, F64, 8);

/// The widest vector in lanes: room for one logical vector of any [`Float`].
pub const MAX_LANES: usize = 16;

/// Bytes of which one is 0, with as many others on both sides as a vector has lanes: from here or there on it is the byte
/// of any lane.
static ALL_BUT_ONE: [u8; 2 * MAX_LANES + 1] = {
    let mut bytes = [1; 2 * MAX_LANES + 1];
    bytes[MAX_LANES] = 0;
    bytes
};

/// What is added, for k sixteenths, to the bits that [`Vector::low_bits_to_power`] moves up by 19: they bring an exponent
/// that is one too small, so that the least normal number comes from 0, and k where the significand of `2^(k / 16)` is to
/// be. Sixteen singles are what one register holds, or one look-up among four.
static SIXTEENTHS: [i32; 16] = {
    let mut table = [
        0, 0x5_aac3, 0xb_95c2, 0x11_c3d3, 0x18_37f0, 0x1e_f532, 0x25_fed7, 0x2d_583f, 0x35_04f3,
        0x3d_08a4, 0x45_672a, 0x4e_248c, 0x57_44fd, 0x60_ccdf, 0x6a_c0c7, 0x75_257d,
    ];
    let mut k = 0;
    while k < 16 {
        table[k] += (1 << 23) - ((k as i32) << 19);
        k += 1;
    }
    table
};

/// The verbs of a logical vector on the level `S`. A value proves, like the token it was made with, that
/// the processor has the instructions.
///
/// Nothing here may be called through a function pointer or a closure that is not inlined into
/// [`Simd::vectorize`]: outside of it the compiler may not use the instruction set.
pub trait Vector<S: Simd>: Copy {
    /// What a lane holds.
    type Scalar: Float;

    /// The same value in every lane.
    fn splat(simd: S, value: Self::Scalar) -> Self;
    /// Reads a vector, at any address.
    ///
    /// # Safety
    /// `from` is valid for reading that many values.
    unsafe fn load(simd: S, from: *const Self::Scalar) -> Self;
    /// Writes a vector, at any address.
    ///
    /// # Safety
    /// `to` is valid for writing that many values.
    unsafe fn store(self, to: *mut Self::Scalar);
    /// Writes past the caches; needs [`Simd::fence`] before another thread reads.
    ///
    /// # Safety
    /// `to` is valid for writing a vector and aligned to 64 bytes.
    unsafe fn stream(self, to: *mut Self::Scalar);
    /// Reads the first `count` lanes, at most all; the others are `absent`.
    ///
    /// # Safety
    /// `from` is valid for reading that many values.
    #[inline(always)]
    unsafe fn load_part(
        simd: S,
        from: *const Self::Scalar,
        count: usize,
        absent: Self::Scalar,
    ) -> Self {
        let mut lanes = [absent; MAX_LANES];
        for (i, lane) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: the caller vouches for as many values; unaligned, as for a whole vector.
            *lane = unsafe { from.add(i).read_unaligned() };
        }
        // SAFETY: the array has MAX_LANES values, the most that a vector has.
        unsafe { Self::load(simd, lanes.as_ptr()) }
    }
    /// Writes the first `count` lanes, at most all.
    ///
    /// # Safety
    /// `to` is valid for writing that many values.
    #[inline(always)]
    unsafe fn store_part(self, to: *mut Self::Scalar, count: usize) {
        let lanes = self.to_array(Self::Scalar::NEG_INFINITY);
        for (i, lane) in lanes.into_iter().enumerate().take(count) {
            // SAFETY: as above.
            unsafe { to.add(i).write_unaligned(lane) };
        }
    }
    /// `self + b`
    fn add(self, b: Self) -> Self;
    /// `self - b`
    fn sub(self, b: Self) -> Self;
    /// `self * b`
    fn mul(self, b: Self) -> Self;
    /// `self / b`
    fn div(self, b: Self) -> Self;
    /// `self * b + c`, rounded once where the level has a fused multiply-add.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self > b ? self : b` in each lane, so a NaN in `b` stays and a NaN in `self` is dropped.
    fn max(self, b: Self) -> Self;
    /// `self`, with 0 in the lanes where `x < bound`. A NaN in `x` is not less.
    fn zero_where_less(self, x: Self, bound: Self) -> Self;
    /// `self`, with `other` in the lanes where `x < bound`. A NaN in `x` is not less.
    fn or_where_less(self, x: Self, bound: Self, other: Self) -> Self;
    /// `self`, with `other` in the lanes whose byte of `mask` is 0.
    ///
    /// # Safety
    /// `mask` is valid for reading as many bytes as there are lanes.
    unsafe fn keep(self, mask: *const u8, other: Self) -> Self;
    /// In how many lanes `self > b`.
    fn count_greater(self, b: Self) -> u32;
    /// Whether `self > b` in any lane.
    fn any_greater(self, b: Self) -> bool;
    /// The bits of each lane moved up into the exponent field: with a biased exponent in the lowest bits
    /// of `self`, this is a power of two.
    fn low_bits_to_exponent(self) -> Self;
    /// The power of two whose biased exponent, less one, is in the lowest bits of `self`: the smallest normal number for 0.
    /// Of singles it is there in sixteenths: `2^(i / 16 + 1 - bias)` for `i` in the lowest twelve bits.
    fn low_bits_to_power(self) -> Self;
    /// `self | (a ^ b)`, bit by bit.
    fn or_difference(self, a: Self, b: Self) -> Self;
    /// Whether any lane has any of the bits of that lane of `mask`.
    fn any_bit(self, mask: Self) -> bool;
    /// The biased exponent of each lane, none of which is negative, as a number.
    fn exponent_field(self) -> Self;
    /// Each lane with the exponent of 1: from 1 to 2 if it is a positive normal number.
    fn significand(self) -> Self;
    /// The lanes as eight doubles, neighbours at a distance of eight added in double precision.
    fn fold(self) -> S::F64;

    /// The lanes as an array; those that a vector does not have are `fill`.
    #[inline(always)]
    fn to_array(self, fill: Self::Scalar) -> [Self::Scalar; MAX_LANES] {
        let mut lanes = [fill; MAX_LANES];
        // SAFETY: the array has room for MAX_LANES values, the most that a vector has.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes
    }

    /// The vector with another value in one lane; in none if there is no such lane.
    #[inline(always)]
    fn with_lane(self, simd: S, lane: usize, value: Self::Scalar) -> Self {
        let bytes = &ALL_BUT_ONE[MAX_LANES - lane.min(MAX_LANES)..][..MAX_LANES];
        // SAFETY: these are as many bytes as the widest vector has lanes.
        unsafe { self.keep(bytes.as_ptr(), Self::splat(simd, value)) }
    }
}

/// An instruction set that this processor is known to have.
pub trait Simd: Copy + 'static {
    /// Sixteen singles.
    type F32: Vector<Self, Scalar = f32>;
    /// Eight doubles.
    type F64: Vector<Self, Scalar = f64>;
    /// Sixteen 16-bit patterns.
    type Half: Copy;
    /// Whether long functions are better called than inlined: where a vector is no register and every operation a
    /// loop, the copies would be most of the library.
    const OUTLINED: bool = false;

    /// Runs a kernel compiled for this instruction set.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;
    /// Makes streamed stores visible before any later store.
    fn fence(self);
    /// Asks for the line at an address, which need not be valid, to be brought into the first cache.
    fn prefetch<T>(self, address: *const T);
    /// The same, into the second cache.
    fn prefetch_far<T>(self, address: *const T);

    /// Reads sixteen 16-bit patterns.
    ///
    /// # Safety
    /// `from` is valid for reading them.
    unsafe fn load_half(self, from: *const u16) -> Self::Half;
    /// Writes sixteen 16-bit patterns.
    ///
    /// # Safety
    /// `to` is valid for writing them.
    unsafe fn store_half(self, to: *mut u16, value: Self::Half);
    /// Writes past the caches, as [`Vector::stream`].
    ///
    /// # Safety
    /// `to` is valid for writing sixteen patterns and aligned to 32 bytes.
    unsafe fn stream_half(self, to: *mut u16, value: Self::Half);
    /// Reads the first `count` of sixteen 16-bit patterns, at most all; the others are `absent`.
    ///
    /// # Safety
    /// `from` is valid for reading that many.
    #[inline(always)]
    unsafe fn load_half_part(self, from: *const u16, count: usize, absent: u16) -> Self::Half {
        let mut patterns = [absent; MAX_LANES];
        for (i, pattern) in patterns.iter_mut().enumerate().take(count) {
            // SAFETY: the caller vouches for as many patterns; unaligned, as for all sixteen.
            *pattern = unsafe { from.add(i).read_unaligned() };
        }
        // SAFETY: the array has sixteen patterns.
        unsafe { self.load_half(patterns.as_ptr()) }
    }
    /// Writes the first `count` of sixteen 16-bit patterns, at most all.
    ///
    /// # Safety
    /// `to` is valid for writing that many.
    #[inline(always)]
    unsafe fn store_half_part(self, to: *mut u16, count: usize, value: Self::Half) {
        let mut patterns = [0; MAX_LANES];
        // SAFETY: the array has room for sixteen patterns.
        unsafe { self.store_half(patterns.as_mut_ptr(), value) };
        for (i, pattern) in patterns.into_iter().enumerate().take(count) {
            // SAFETY: as above.
            unsafe { to.add(i).write_unaligned(pattern) };
        }
    }
    /// IEEE binary16 to single precision, exactly.
    fn widen_f16(self, value: Self::Half) -> Self::F32;
    /// Single precision to IEEE binary16, to nearest even.
    fn narrow_f16(self, value: Self::F32) -> Self::Half;
    /// bfloat16 to single precision, exactly.
    fn widen_bf16(self, value: Self::Half) -> Self::F32;
    /// Single precision to bfloat16, to nearest even.
    fn narrow_bf16(self, value: Self::F32) -> Self::Half;
}

/// Work that is compiled once for each instruction set. `run` and all it calls is `#[inline(always)]`.
pub trait Kernel {
    /// What the work returns.
    type Output;
    /// Does the work.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}
