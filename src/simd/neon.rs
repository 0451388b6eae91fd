//! NEON, which every aarch64 processor has: four registers are one logical vector.

use super::{Kernel, SIXTEENTHS, Simd, Vector};
use core::arch::aarch64::*;
use half::f16;

/// Proof that the processor has NEON.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// The proof, if the processor has the instructions.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

/// An intrinsic on values: it touches no memory.
macro_rules! op {
    ($e:expr) => {{
        // SAFETY: a token or a vector of this level exists, so the processor has the instruction.
        unsafe { $e }
    }};
}
/// An intrinsic on memory.
macro_rules! memory {
    ($e:expr) => {{
        // SAFETY: as above; and the caller vouches for the address, as the trait asks.
        unsafe { $e }
    }};
}

/// One logical vector of `f32`.
#[derive(Clone, Copy)]
pub struct F32([float32x4_t; 4]);

impl Vector<Neon> for F32 {
    type Scalar = f32;

    #[inline(always)]
    fn splat(_: Neon, value: f32) -> Self {
        op!(Self([vdupq_n_f32(value); 4]))
    }
    #[inline(always)]
    unsafe fn load(_: Neon, from: *const f32) -> Self {
        memory!(Self([
            vld1q_f32(from),
            vld1q_f32(from.add(4)),
            vld1q_f32(from.add(8)),
            vld1q_f32(from.add(12))
        ]))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        memory!({
            vst1q_f32(to, self.0[0]);
            vst1q_f32(to.add(4), self.0[1]);
            vst1q_f32(to.add(8), self.0[2]);
            vst1q_f32(to.add(12), self.0[3]);
        })
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // There is no intrinsic for stnp; processors detect streams of plain stores.
        // SAFETY: the same memory as the caller vouches for.
        unsafe { self.store(to) }
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        op!(Self([
            vaddq_f32(self.0[0], b.0[0]),
            vaddq_f32(self.0[1], b.0[1]),
            vaddq_f32(self.0[2], b.0[2]),
            vaddq_f32(self.0[3], b.0[3])
        ]))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        op!(Self([
            vsubq_f32(self.0[0], b.0[0]),
            vsubq_f32(self.0[1], b.0[1]),
            vsubq_f32(self.0[2], b.0[2]),
            vsubq_f32(self.0[3], b.0[3])
        ]))
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        op!(Self([
            vmulq_f32(self.0[0], b.0[0]),
            vmulq_f32(self.0[1], b.0[1]),
            vmulq_f32(self.0[2], b.0[2]),
            vmulq_f32(self.0[3], b.0[3])
        ]))
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        op!(Self([
            vdivq_f32(self.0[0], b.0[0]),
            vdivq_f32(self.0[1], b.0[1]),
            vdivq_f32(self.0[2], b.0[2]),
            vdivq_f32(self.0[3], b.0[3])
        ]))
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        op!(Self([
            vfmaq_f32(c.0[0], self.0[0], b.0[0]),
            vfmaq_f32(c.0[1], self.0[1], b.0[1]),
            vfmaq_f32(c.0[2], self.0[2], b.0[2]),
            vfmaq_f32(c.0[3], self.0[3], b.0[3])
        ]))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // Not vmaxq: its NaN and its order of zeros differ from the other levels.
        op!(Self([
            vbslq_f32(vcgtq_f32(self.0[0], b.0[0]), self.0[0], b.0[0]),
            vbslq_f32(vcgtq_f32(self.0[1], b.0[1]), self.0[1], b.0[1]),
            vbslq_f32(vcgtq_f32(self.0[2], b.0[2]), self.0[2], b.0[2]),
            vbslq_f32(vcgtq_f32(self.0[3], b.0[3]), self.0[3], b.0[3])
        ]))
    }
    #[inline(always)]
    fn zero_where_less(self, x: Self, bound: Self) -> Self {
        op!(Self([
            vbslq_f32(vcltq_f32(x.0[0], bound.0[0]), vdupq_n_f32(0.0), self.0[0]),
            vbslq_f32(vcltq_f32(x.0[1], bound.0[1]), vdupq_n_f32(0.0), self.0[1]),
            vbslq_f32(vcltq_f32(x.0[2], bound.0[2]), vdupq_n_f32(0.0), self.0[2]),
            vbslq_f32(vcltq_f32(x.0[3], bound.0[3]), vdupq_n_f32(0.0), self.0[3])
        ]))
    }
    #[inline(always)]
    fn or_where_less(self, x: Self, bound: Self, other: Self) -> Self {
        op!(Self([
            vbslq_f32(vcltq_f32(x.0[0], bound.0[0]), other.0[0], self.0[0]),
            vbslq_f32(vcltq_f32(x.0[1], bound.0[1]), other.0[1], self.0[1]),
            vbslq_f32(vcltq_f32(x.0[2], bound.0[2]), other.0[2], self.0[2]),
            vbslq_f32(vcltq_f32(x.0[3], bound.0[3]), other.0[3], self.0[3])
        ]))
    }
    #[inline(always)]
    unsafe fn keep(self, mask: *const u8, other: Self) -> Self {
        memory!({
            let gone = vceqzq_u8(vld1q_u8(mask));
            // Every byte twice and then four times: a mask of 32 bits.
            let (low, high) = (vzip1q_u8(gone, gone), vzip2q_u8(gone, gone));
            let (low, high) = (vreinterpretq_u16_u8(low), vreinterpretq_u16_u8(high));
            let gone = [
                vreinterpretq_u32_u16(vzip1q_u16(low, low)),
                vreinterpretq_u32_u16(vzip2q_u16(low, low)),
                vreinterpretq_u32_u16(vzip1q_u16(high, high)),
                vreinterpretq_u32_u16(vzip2q_u16(high, high)),
            ];
            Self(std::array::from_fn(|i| vbslq_f32(gone[i], other.0[i], self.0[i])))
        })
    }
    #[inline(always)]
    fn count_greater(self, b: Self) -> u32 {
        op!({
            let greater = [
                vcgtq_f32(self.0[0], b.0[0]),
                vcgtq_f32(self.0[1], b.0[1]),
                vcgtq_f32(self.0[2], b.0[2]),
                vcgtq_f32(self.0[3], b.0[3]),
            ];
            // A lane that is greater is all ones: minus one.
            let minus =
                vaddq_u32(vaddq_u32(greater[0], greater[1]), vaddq_u32(greater[2], greater[3]));
            vaddvq_u32(minus).wrapping_neg()
        })
    }
    #[inline(always)]
    fn any_greater(self, b: Self) -> bool {
        op!({
            let greater = [
                vcgtq_f32(self.0[0], b.0[0]),
                vcgtq_f32(self.0[1], b.0[1]),
                vcgtq_f32(self.0[2], b.0[2]),
                vcgtq_f32(self.0[3], b.0[3]),
            ];
            vmaxvq_u32(vorrq_u32(
                vorrq_u32(greater[0], greater[1]),
                vorrq_u32(greater[2], greater[3]),
            )) != 0
        })
    }
    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        op!(Self([
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(self.0[0]))),
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(self.0[1]))),
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(self.0[2]))),
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(self.0[3])))
        ]))
    }
    #[inline(always)]
    fn low_bits_to_power(self) -> Self {
        Self([power(self.0[0]), power(self.0[1]), power(self.0[2]), power(self.0[3])])
    }
    #[inline(always)]
    fn or_difference(self, a: Self, b: Self) -> Self {
        Self([
            or_difference_f32(self.0[0], a.0[0], b.0[0]),
            or_difference_f32(self.0[1], a.0[1], b.0[1]),
            or_difference_f32(self.0[2], a.0[2], b.0[2]),
            or_difference_f32(self.0[3], a.0[3], b.0[3]),
        ])
    }
    #[inline(always)]
    fn any_bit(self, mask: Self) -> bool {
        op!({
            let [first, second, third, fourth] = [
                and_f32(self.0[0], mask.0[0]),
                and_f32(self.0[1], mask.0[1]),
                and_f32(self.0[2], mask.0[2]),
                and_f32(self.0[3], mask.0[3]),
            ];
            let any = vorrq_u32(vorrq_u32(first, second), vorrq_u32(third, fourth));
            vmaxvq_u32(any) != 0
        })
    }
    #[inline(always)]
    fn exponent_field(self) -> Self {
        op!(Self([
            vcvtq_f32_u32(vshrq_n_u32::<23>(vreinterpretq_u32_f32(self.0[0]))),
            vcvtq_f32_u32(vshrq_n_u32::<23>(vreinterpretq_u32_f32(self.0[1]))),
            vcvtq_f32_u32(vshrq_n_u32::<23>(vreinterpretq_u32_f32(self.0[2]))),
            vcvtq_f32_u32(vshrq_n_u32::<23>(vreinterpretq_u32_f32(self.0[3])))
        ]))
    }
    #[inline(always)]
    fn significand(self) -> Self {
        op!({
            let (kept, one) = (vdupq_n_u32((1 << 23) - 1), vdupq_n_u32(1.0_f32.to_bits()));
            Self([
                vreinterpretq_f32_u32(vorrq_u32(
                    vandq_u32(vreinterpretq_u32_f32(self.0[0]), kept),
                    one,
                )),
                vreinterpretq_f32_u32(vorrq_u32(
                    vandq_u32(vreinterpretq_u32_f32(self.0[1]), kept),
                    one,
                )),
                vreinterpretq_f32_u32(vorrq_u32(
                    vandq_u32(vreinterpretq_u32_f32(self.0[2]), kept),
                    one,
                )),
                vreinterpretq_f32_u32(vorrq_u32(
                    vandq_u32(vreinterpretq_u32_f32(self.0[3]), kept),
                    one,
                )),
            ])
        })
    }
    #[inline(always)]
    fn fold(self) -> F64 {
        op!({
            let [a, b, c, d] = self.0;
            F64([
                vaddq_f64(vcvt_f64_f32(vget_low_f32(a)), vcvt_f64_f32(vget_low_f32(c))),
                vaddq_f64(vcvt_high_f64_f32(a), vcvt_high_f64_f32(c)),
                vaddq_f64(vcvt_f64_f32(vget_low_f32(b)), vcvt_f64_f32(vget_low_f32(d))),
                vaddq_f64(vcvt_high_f64_f32(b), vcvt_high_f64_f32(d)),
            ])
        })
    }
}

/// One logical vector of `f64`.
#[derive(Clone, Copy)]
pub struct F64([float64x2_t; 4]);

impl Vector<Neon> for F64 {
    type Scalar = f64;

    #[inline(always)]
    fn splat(_: Neon, value: f64) -> Self {
        op!(Self([vdupq_n_f64(value); 4]))
    }
    #[inline(always)]
    unsafe fn load(_: Neon, from: *const f64) -> Self {
        memory!(Self([
            vld1q_f64(from),
            vld1q_f64(from.add(2)),
            vld1q_f64(from.add(4)),
            vld1q_f64(from.add(6))
        ]))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f64) {
        memory!({
            vst1q_f64(to, self.0[0]);
            vst1q_f64(to.add(2), self.0[1]);
            vst1q_f64(to.add(4), self.0[2]);
            vst1q_f64(to.add(6), self.0[3]);
        })
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f64) {
        // There is no intrinsic for stnp; processors detect streams of plain stores.
        // SAFETY: the same memory as the caller vouches for.
        unsafe { self.store(to) }
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        op!(Self([
            vaddq_f64(self.0[0], b.0[0]),
            vaddq_f64(self.0[1], b.0[1]),
            vaddq_f64(self.0[2], b.0[2]),
            vaddq_f64(self.0[3], b.0[3])
        ]))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        op!(Self([
            vsubq_f64(self.0[0], b.0[0]),
            vsubq_f64(self.0[1], b.0[1]),
            vsubq_f64(self.0[2], b.0[2]),
            vsubq_f64(self.0[3], b.0[3])
        ]))
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        op!(Self([
            vmulq_f64(self.0[0], b.0[0]),
            vmulq_f64(self.0[1], b.0[1]),
            vmulq_f64(self.0[2], b.0[2]),
            vmulq_f64(self.0[3], b.0[3])
        ]))
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        op!(Self([
            vdivq_f64(self.0[0], b.0[0]),
            vdivq_f64(self.0[1], b.0[1]),
            vdivq_f64(self.0[2], b.0[2]),
            vdivq_f64(self.0[3], b.0[3])
        ]))
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        op!(Self([
            vfmaq_f64(c.0[0], self.0[0], b.0[0]),
            vfmaq_f64(c.0[1], self.0[1], b.0[1]),
            vfmaq_f64(c.0[2], self.0[2], b.0[2]),
            vfmaq_f64(c.0[3], self.0[3], b.0[3])
        ]))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // Not vmaxq: its NaN and its order of zeros differ from the other levels.
        op!(Self([
            vbslq_f64(vcgtq_f64(self.0[0], b.0[0]), self.0[0], b.0[0]),
            vbslq_f64(vcgtq_f64(self.0[1], b.0[1]), self.0[1], b.0[1]),
            vbslq_f64(vcgtq_f64(self.0[2], b.0[2]), self.0[2], b.0[2]),
            vbslq_f64(vcgtq_f64(self.0[3], b.0[3]), self.0[3], b.0[3])
        ]))
    }
    #[inline(always)]
    fn zero_where_less(self, x: Self, bound: Self) -> Self {
        op!(Self([
            vbslq_f64(vcltq_f64(x.0[0], bound.0[0]), vdupq_n_f64(0.0), self.0[0]),
            vbslq_f64(vcltq_f64(x.0[1], bound.0[1]), vdupq_n_f64(0.0), self.0[1]),
            vbslq_f64(vcltq_f64(x.0[2], bound.0[2]), vdupq_n_f64(0.0), self.0[2]),
            vbslq_f64(vcltq_f64(x.0[3], bound.0[3]), vdupq_n_f64(0.0), self.0[3])
        ]))
    }
    #[inline(always)]
    fn or_where_less(self, x: Self, bound: Self, other: Self) -> Self {
        op!(Self([
            vbslq_f64(vcltq_f64(x.0[0], bound.0[0]), other.0[0], self.0[0]),
            vbslq_f64(vcltq_f64(x.0[1], bound.0[1]), other.0[1], self.0[1]),
            vbslq_f64(vcltq_f64(x.0[2], bound.0[2]), other.0[2], self.0[2]),
            vbslq_f64(vcltq_f64(x.0[3], bound.0[3]), other.0[3], self.0[3])
        ]))
    }
    #[inline(always)]
    unsafe fn keep(self, mask: *const u8, other: Self) -> Self {
        memory!({
            let gone = vceqz_u8(vld1_u8(mask));
            // Every byte twice, four and eight times: a mask of 64 bits.
            let twice =
                vreinterpretq_u16_u8(vcombine_u8(vzip1_u8(gone, gone), vzip2_u8(gone, gone)));
            let low = vreinterpretq_u32_u16(vzip1q_u16(twice, twice));
            let high = vreinterpretq_u32_u16(vzip2q_u16(twice, twice));
            let gone = [
                vreinterpretq_u64_u32(vzip1q_u32(low, low)),
                vreinterpretq_u64_u32(vzip2q_u32(low, low)),
                vreinterpretq_u64_u32(vzip1q_u32(high, high)),
                vreinterpretq_u64_u32(vzip2q_u32(high, high)),
            ];
            Self(std::array::from_fn(|i| vbslq_f64(gone[i], other.0[i], self.0[i])))
        })
    }
    #[inline(always)]
    fn count_greater(self, b: Self) -> u32 {
        op!({
            let greater = [
                vcgtq_f64(self.0[0], b.0[0]),
                vcgtq_f64(self.0[1], b.0[1]),
                vcgtq_f64(self.0[2], b.0[2]),
                vcgtq_f64(self.0[3], b.0[3]),
            ];
            let minus =
                vaddq_u64(vaddq_u64(greater[0], greater[1]), vaddq_u64(greater[2], greater[3]));
            vaddvq_u64(minus).wrapping_neg() as u32
        })
    }
    #[inline(always)]
    fn any_greater(self, b: Self) -> bool {
        op!({
            let greater = [
                vcgtq_f64(self.0[0], b.0[0]),
                vcgtq_f64(self.0[1], b.0[1]),
                vcgtq_f64(self.0[2], b.0[2]),
                vcgtq_f64(self.0[3], b.0[3]),
            ];
            vmaxvq_u32(vreinterpretq_u32_u64(vorrq_u64(
                vorrq_u64(greater[0], greater[1]),
                vorrq_u64(greater[2], greater[3]),
            ))) != 0
        })
    }
    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        op!(Self([
            vreinterpretq_f64_u64(vshlq_n_u64::<52>(vreinterpretq_u64_f64(self.0[0]))),
            vreinterpretq_f64_u64(vshlq_n_u64::<52>(vreinterpretq_u64_f64(self.0[1]))),
            vreinterpretq_f64_u64(vshlq_n_u64::<52>(vreinterpretq_u64_f64(self.0[2]))),
            vreinterpretq_f64_u64(vshlq_n_u64::<52>(vreinterpretq_u64_f64(self.0[3])))
        ]))
    }
    #[inline(always)]
    fn low_bits_to_power(self) -> Self {
        let Self([first, second, third, fourth]) = self.low_bits_to_exponent();
        Self([doubled(first), doubled(second), doubled(third), doubled(fourth)])
    }
    #[inline(always)]
    fn or_difference(self, a: Self, b: Self) -> Self {
        Self([
            or_difference_f64(self.0[0], a.0[0], b.0[0]),
            or_difference_f64(self.0[1], a.0[1], b.0[1]),
            or_difference_f64(self.0[2], a.0[2], b.0[2]),
            or_difference_f64(self.0[3], a.0[3], b.0[3]),
        ])
    }
    #[inline(always)]
    fn any_bit(self, mask: Self) -> bool {
        op!({
            let [first, second, third, fourth] = [
                and_f64(self.0[0], mask.0[0]),
                and_f64(self.0[1], mask.0[1]),
                and_f64(self.0[2], mask.0[2]),
                and_f64(self.0[3], mask.0[3]),
            ];
            let any = vorrq_u32(vorrq_u32(first, second), vorrq_u32(third, fourth));
            vmaxvq_u32(any) != 0
        })
    }
    #[inline(always)]
    fn exponent_field(self) -> Self {
        op!(Self([
            vcvtq_f64_u64(vshrq_n_u64::<52>(vreinterpretq_u64_f64(self.0[0]))),
            vcvtq_f64_u64(vshrq_n_u64::<52>(vreinterpretq_u64_f64(self.0[1]))),
            vcvtq_f64_u64(vshrq_n_u64::<52>(vreinterpretq_u64_f64(self.0[2]))),
            vcvtq_f64_u64(vshrq_n_u64::<52>(vreinterpretq_u64_f64(self.0[3])))
        ]))
    }
    #[inline(always)]
    fn significand(self) -> Self {
        op!({
            let (kept, one) = (vdupq_n_u64((1 << 52) - 1), vdupq_n_u64(1.0_f64.to_bits()));
            Self([
                vreinterpretq_f64_u64(vorrq_u64(
                    vandq_u64(vreinterpretq_u64_f64(self.0[0]), kept),
                    one,
                )),
                vreinterpretq_f64_u64(vorrq_u64(
                    vandq_u64(vreinterpretq_u64_f64(self.0[1]), kept),
                    one,
                )),
                vreinterpretq_f64_u64(vorrq_u64(
                    vandq_u64(vreinterpretq_u64_f64(self.0[2]), kept),
                    one,
                )),
                vreinterpretq_f64_u64(vorrq_u64(
                    vandq_u64(vreinterpretq_u64_f64(self.0[3]), kept),
                    one,
                )),
            ])
        })
    }
    #[inline(always)]
    fn fold(self) -> F64 {
        self
    }
}

impl Simd for Neon {
    type F32 = F32;
    type F64 = F64;
    type Half = [uint16x8_t; 2];

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn compiled<K: Kernel>(kernel: K, simd: Neon) -> K::Output {
            kernel.run(simd)
        }
        op!(compiled(kernel, self))
    }
    #[inline(always)]
    fn fence(self) {}
    #[inline(always)]
    fn prefetch<T>(self, _: *const T) {}
    #[inline(always)]
    fn prefetch_far<T>(self, _: *const T) {}
    #[inline(always)]
    unsafe fn load_half(self, from: *const u16) -> Self::Half {
        memory!([vld1q_u16(from), vld1q_u16(from.add(8))])
    }
    #[inline(always)]
    unsafe fn store_half(self, to: *mut u16, value: Self::Half) {
        memory!({
            vst1q_u16(to, value[0]);
            vst1q_u16(to.add(8), value[1]);
        })
    }
    #[inline(always)]
    unsafe fn stream_half(self, to: *mut u16, value: Self::Half) {
        // SAFETY: the same memory as the caller vouches for.
        unsafe { self.store_half(to, value) }
    }
    #[inline(always)]
    fn widen_f16(self, value: Self::Half) -> F32 {
        // The intrinsics for binary16 are not stable: lane by lane, with fcvt where there is one.
        let mut lanes = [0_u16; 16];
        // SAFETY: the array holds sixteen patterns.
        unsafe { self.store_half(lanes.as_mut_ptr(), value) };
        let wide = lanes.map(|bits| f16::from_bits(bits).to_f32());
        // SAFETY: the array holds sixteen values.
        unsafe { F32::load(self, wide.as_ptr()) }
    }
    #[inline(always)]
    fn narrow_f16(self, value: F32) -> Self::Half {
        let narrow = value.to_array(0.0).map(|lane| f16::from_f32(lane).to_bits());
        // SAFETY: the array holds sixteen patterns.
        unsafe { self.load_half(narrow.as_ptr()) }
    }
    #[inline(always)]
    fn widen_bf16(self, value: Self::Half) -> F32 {
        op!(F32([
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(value[0]))),
            vreinterpretq_f32_u32(vshll_high_n_u16::<16>(value[0])),
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(value[1]))),
            vreinterpretq_f32_u32(vshll_high_n_u16::<16>(value[1])),
        ]))
    }
    #[inline(always)]
    fn narrow_bf16(self, value: F32) -> Self::Half {
        [
            narrow_registers_to_bf16(self, value.0[0], value.0[1]),
            narrow_registers_to_bf16(self, value.0[2], value.0[3]),
        ]
    }
}

/// Eight lanes to bfloat16: to nearest even by adding just under half a unit, plus one if the kept part
/// is odd; a NaN keeps its upper bits and is made quiet.
#[inline(always)]
fn narrow_registers_to_bf16(_proof: Neon, low: float32x4_t, high: float32x4_t) -> uint16x8_t {
    op!({
        let narrow = [low, high].map(|value| {
            let bits = vreinterpretq_u32_f32(value);
            let upper = vshrq_n_u32::<16>(bits);
            let odd = vandq_u32(upper, vdupq_n_u32(1));
            let up = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
            let quiet = vorrq_u32(upper, vdupq_n_u32(0x40));
            vmovn_u32(vbslq_u32(vceqq_f32(value, value), vshrq_n_u32::<16>(up), quiet))
        });
        vcombine_u16(narrow[0], narrow[1])
    })
}

/// [`Vector::low_bits_to_power`] of a register.
#[inline(always)]
fn power(lanes: float32x4_t) -> float32x4_t {
    // SAFETY: only the verbs of this level get here, so the processor has the instructions; and the table has sixteen
    // entries.
    unsafe {
        let bits = vreinterpretq_u32_f32(lanes);
        // The places of the four bytes of entry k: 4 k to 4 k + 3.
        let entry = vandq_u32(bits, vdupq_n_u32(15));
        let bytes = vmlaq_n_u32(vdupq_n_u32(0x0302_0100), entry, 0x0404_0404);
        let table = vld1q_u8_x4(SIXTEENTHS.as_ptr().cast());
        let significand = vreinterpretq_u32_u8(vqtbl4q_u8(table, vreinterpretq_u8_u32(bytes)));
        vreinterpretq_f32_u32(vaddq_u32(vshlq_n_u32::<19>(bits), significand))
    }
}

/// `a | (b ^ c)`, bit by bit.
#[inline(always)]
fn or_difference_f32(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    op!({
        let difference = veorq_u32(vreinterpretq_u32_f32(b), vreinterpretq_u32_f32(c));
        vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(a), difference))
    })
}
/// The same.
#[inline(always)]
fn or_difference_f64(a: float64x2_t, b: float64x2_t, c: float64x2_t) -> float64x2_t {
    op!({
        let difference = veorq_u64(vreinterpretq_u64_f64(b), vreinterpretq_u64_f64(c));
        vreinterpretq_f64_u64(vorrq_u64(vreinterpretq_u64_f64(a), difference))
    })
}
/// `a & b`, bit by bit.
#[inline(always)]
fn and_f32(a: float32x4_t, b: float32x4_t) -> uint32x4_t {
    op!(vandq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)))
}
/// The same.
#[inline(always)]
fn and_f64(a: float64x2_t, b: float64x2_t) -> uint32x4_t {
    op!(vandq_u32(vreinterpretq_u32_f64(a), vreinterpretq_u32_f64(b)))
}
/// A power of two with one more in the exponent field.
#[inline(always)]
fn doubled(lanes: float64x2_t) -> float64x2_t {
    op!(vreinterpretq_f64_u64(vaddq_u64(vreinterpretq_u64_f64(lanes), vdupq_n_u64(1 << 52))))
}
