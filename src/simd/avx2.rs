//! AVX2 with FMA, F16C and POPCNT: two registers are one logical vector.

use super::{Kernel, SIXTEENTHS, Simd, Vector};
use core::arch::x86_64::*;

/// Proof that the processor has AVX2, FMA, F16C and POPCNT.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The proof, if the processor has the instructions.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("popcnt"))
        .then_some(Self(()))
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
pub struct F32([__m256; 2]);

impl Vector<Avx2> for F32 {
    type Scalar = f32;

    #[inline(always)]
    fn splat(_: Avx2, value: f32) -> Self {
        op!(Self([_mm256_set1_ps(value); 2]))
    }
    #[inline(always)]
    unsafe fn load(_: Avx2, from: *const f32) -> Self {
        memory!(Self([_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        memory!({
            _mm256_storeu_ps(to, self.0[0]);
            _mm256_storeu_ps(to.add(8), self.0[1]);
        })
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        memory!({
            _mm256_stream_ps(to, self.0[0]);
            _mm256_stream_ps(to.add(8), self.0[1]);
        })
    }
    #[inline(always)]
    unsafe fn load_part(_: Avx2, from: *const f32, count: usize, absent: f32) -> Self {
        memory!({
            let (count, absent) = (_mm256_set1_epi32(count as _), _mm256_set1_ps(absent));
            let first = _mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
            let second = _mm256_cmpgt_epi32(count, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15));
            let above = from.wrapping_add(8);
            Self([
                _mm256_blendv_ps(
                    absent,
                    _mm256_maskload_ps(from, first),
                    _mm256_castsi256_ps(first),
                ),
                _mm256_blendv_ps(
                    absent,
                    _mm256_maskload_ps(above, second),
                    _mm256_castsi256_ps(second),
                ),
            ])
        })
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        op!(Self([_mm256_add_ps(self.0[0], b.0[0]), _mm256_add_ps(self.0[1], b.0[1])]))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        op!(Self([_mm256_sub_ps(self.0[0], b.0[0]), _mm256_sub_ps(self.0[1], b.0[1])]))
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        op!(Self([_mm256_mul_ps(self.0[0], b.0[0]), _mm256_mul_ps(self.0[1], b.0[1])]))
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        op!(Self([_mm256_div_ps(self.0[0], b.0[0]), _mm256_div_ps(self.0[1], b.0[1])]))
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        op!(Self([
            _mm256_fmadd_ps(self.0[0], b.0[0], c.0[0]),
            _mm256_fmadd_ps(self.0[1], b.0[1], c.0[1])
        ]))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        op!(Self([_mm256_max_ps(self.0[0], b.0[0]), _mm256_max_ps(self.0[1], b.0[1])]))
    }
    #[inline(always)]
    fn zero_where_less(self, x: Self, bound: Self) -> Self {
        op!(Self([
            _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x.0[0], bound.0[0]), self.0[0]),
            _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x.0[1], bound.0[1]), self.0[1])
        ]))
    }
    #[inline(always)]
    fn or_where_less(self, x: Self, bound: Self, other: Self) -> Self {
        op!({
            let first = _mm256_cmp_ps::<_CMP_LT_OQ>(x.0[0], bound.0[0]);
            let second = _mm256_cmp_ps::<_CMP_LT_OQ>(x.0[1], bound.0[1]);
            Self([
                _mm256_blendv_ps(self.0[0], other.0[0], first),
                _mm256_blendv_ps(self.0[1], other.0[1], second),
            ])
        })
    }
    #[inline(always)]
    unsafe fn keep(self, mask: *const u8, other: Self) -> Self {
        memory!({
            let bytes = _mm_loadu_si128(mask.cast());
            let gone = _mm_cmpeq_epi8(bytes, _mm_setzero_si128());
            let first = _mm256_castsi256_ps(_mm256_cvtepi8_epi32(gone));
            let second = _mm256_castsi256_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(gone, gone)));
            Self([
                _mm256_blendv_ps(self.0[0], other.0[0], first),
                _mm256_blendv_ps(self.0[1], other.0[1], second),
            ])
        })
    }
    #[inline(always)]
    fn count_greater(self, b: Self) -> u32 {
        op!({
            let first = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(self.0[0], b.0[0]));
            let second = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(self.0[1], b.0[1]));
            (first | second << 8).count_ones()
        })
    }
    #[inline(always)]
    fn any_greater(self, b: Self) -> bool {
        op!({
            let first = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0[0], b.0[0]);
            let second = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0[1], b.0[1]);
            _mm256_movemask_ps(_mm256_or_ps(first, second)) != 0
        })
    }
    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        op!(Self([
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(self.0[0]))),
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(self.0[1])))
        ]))
    }
    #[inline(always)]
    fn low_bits_to_power(self) -> Self {
        Self([power(self.0[0]), power(self.0[1])])
    }
    #[inline(always)]
    fn or_difference(self, a: Self, b: Self) -> Self {
        op!(Self([
            _mm256_or_ps(self.0[0], _mm256_xor_ps(a.0[0], b.0[0])),
            _mm256_or_ps(self.0[1], _mm256_xor_ps(a.0[1], b.0[1]))
        ]))
    }
    #[inline(always)]
    fn any_bit(self, mask: Self) -> bool {
        op!({
            let bits = _mm256_castps_si256(_mm256_or_ps(
                _mm256_and_ps(self.0[0], mask.0[0]),
                _mm256_and_ps(self.0[1], mask.0[1]),
            ));
            _mm256_testz_si256(bits, bits) == 0
        })
    }
    #[inline(always)]
    fn exponent_field(self) -> Self {
        op!(Self([
            _mm256_cvtepi32_ps(_mm256_srli_epi32::<23>(_mm256_castps_si256(self.0[0]))),
            _mm256_cvtepi32_ps(_mm256_srli_epi32::<23>(_mm256_castps_si256(self.0[1])))
        ]))
    }
    #[inline(always)]
    fn significand(self) -> Self {
        op!({
            let (kept, one) = (f32::from_bits((1 << 23) - 1), _mm256_set1_ps(1.0));
            let kept = _mm256_set1_ps(kept);
            Self([
                _mm256_or_ps(_mm256_and_ps(self.0[0], kept), one),
                _mm256_or_ps(_mm256_and_ps(self.0[1], kept), one),
            ])
        })
    }
    #[inline(always)]
    fn fold(self) -> F64 {
        op!(F64([
            _mm256_add_pd(
                _mm256_cvtps_pd(_mm256_castps256_ps128(self.0[0])),
                _mm256_cvtps_pd(_mm256_castps256_ps128(self.0[1])),
            ),
            _mm256_add_pd(
                _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(self.0[0])),
                _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(self.0[1])),
            ),
        ]))
    }
}

/// One logical vector of `f64`.
#[derive(Clone, Copy)]
pub struct F64([__m256d; 2]);

impl Vector<Avx2> for F64 {
    type Scalar = f64;

    #[inline(always)]
    fn splat(_: Avx2, value: f64) -> Self {
        op!(Self([_mm256_set1_pd(value); 2]))
    }
    #[inline(always)]
    unsafe fn load(_: Avx2, from: *const f64) -> Self {
        memory!(Self([_mm256_loadu_pd(from), _mm256_loadu_pd(from.add(4))]))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f64) {
        memory!({
            _mm256_storeu_pd(to, self.0[0]);
            _mm256_storeu_pd(to.add(4), self.0[1]);
        })
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f64) {
        memory!({
            _mm256_stream_pd(to, self.0[0]);
            _mm256_stream_pd(to.add(4), self.0[1]);
        })
    }
    #[inline(always)]
    unsafe fn load_part(_: Avx2, from: *const f64, count: usize, absent: f64) -> Self {
        memory!({
            let (count, absent) = (_mm256_set1_epi64x(count as _), _mm256_set1_pd(absent));
            let first = _mm256_cmpgt_epi64(count, _mm256_setr_epi64x(0, 1, 2, 3));
            let second = _mm256_cmpgt_epi64(count, _mm256_setr_epi64x(4, 5, 6, 7));
            let above = from.wrapping_add(4);
            Self([
                _mm256_blendv_pd(
                    absent,
                    _mm256_maskload_pd(from, first),
                    _mm256_castsi256_pd(first),
                ),
                _mm256_blendv_pd(
                    absent,
                    _mm256_maskload_pd(above, second),
                    _mm256_castsi256_pd(second),
                ),
            ])
        })
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        op!(Self([_mm256_add_pd(self.0[0], b.0[0]), _mm256_add_pd(self.0[1], b.0[1])]))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        op!(Self([_mm256_sub_pd(self.0[0], b.0[0]), _mm256_sub_pd(self.0[1], b.0[1])]))
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        op!(Self([_mm256_mul_pd(self.0[0], b.0[0]), _mm256_mul_pd(self.0[1], b.0[1])]))
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        op!(Self([_mm256_div_pd(self.0[0], b.0[0]), _mm256_div_pd(self.0[1], b.0[1])]))
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        op!(Self([
            _mm256_fmadd_pd(self.0[0], b.0[0], c.0[0]),
            _mm256_fmadd_pd(self.0[1], b.0[1], c.0[1])
        ]))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        op!(Self([_mm256_max_pd(self.0[0], b.0[0]), _mm256_max_pd(self.0[1], b.0[1])]))
    }
    #[inline(always)]
    fn zero_where_less(self, x: Self, bound: Self) -> Self {
        op!(Self([
            _mm256_andnot_pd(_mm256_cmp_pd::<_CMP_LT_OQ>(x.0[0], bound.0[0]), self.0[0]),
            _mm256_andnot_pd(_mm256_cmp_pd::<_CMP_LT_OQ>(x.0[1], bound.0[1]), self.0[1])
        ]))
    }
    #[inline(always)]
    fn or_where_less(self, x: Self, bound: Self, other: Self) -> Self {
        op!({
            let first = _mm256_cmp_pd::<_CMP_LT_OQ>(x.0[0], bound.0[0]);
            let second = _mm256_cmp_pd::<_CMP_LT_OQ>(x.0[1], bound.0[1]);
            Self([
                _mm256_blendv_pd(self.0[0], other.0[0], first),
                _mm256_blendv_pd(self.0[1], other.0[1], second),
            ])
        })
    }
    #[inline(always)]
    unsafe fn keep(self, mask: *const u8, other: Self) -> Self {
        memory!({
            let gone = _mm_cmpeq_epi8(_mm_loadl_epi64(mask.cast()), _mm_setzero_si128());
            let first = _mm256_castsi256_pd(_mm256_cvtepi8_epi64(gone));
            let second = _mm256_castsi256_pd(_mm256_cvtepi8_epi64(_mm_srli_si128::<4>(gone)));
            Self([
                _mm256_blendv_pd(self.0[0], other.0[0], first),
                _mm256_blendv_pd(self.0[1], other.0[1], second),
            ])
        })
    }
    #[inline(always)]
    fn count_greater(self, b: Self) -> u32 {
        op!({
            let first = _mm256_movemask_pd(_mm256_cmp_pd::<_CMP_GT_OQ>(self.0[0], b.0[0]));
            let second = _mm256_movemask_pd(_mm256_cmp_pd::<_CMP_GT_OQ>(self.0[1], b.0[1]));
            (first | second << 4).count_ones()
        })
    }
    #[inline(always)]
    fn any_greater(self, b: Self) -> bool {
        op!({
            let first = _mm256_cmp_pd::<_CMP_GT_OQ>(self.0[0], b.0[0]);
            let second = _mm256_cmp_pd::<_CMP_GT_OQ>(self.0[1], b.0[1]);
            _mm256_movemask_pd(_mm256_or_pd(first, second)) != 0
        })
    }
    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        op!(Self([
            _mm256_castsi256_pd(_mm256_slli_epi64::<52>(_mm256_castpd_si256(self.0[0]))),
            _mm256_castsi256_pd(_mm256_slli_epi64::<52>(_mm256_castpd_si256(self.0[1])))
        ]))
    }
    #[inline(always)]
    fn low_bits_to_power(self) -> Self {
        op!({
            let Self([first, second]) = self.low_bits_to_exponent();
            let one = _mm256_set1_epi64x(1 << 52);
            Self([
                _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(first), one)),
                _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(second), one)),
            ])
        })
    }
    #[inline(always)]
    fn or_difference(self, a: Self, b: Self) -> Self {
        op!(Self([
            _mm256_or_pd(self.0[0], _mm256_xor_pd(a.0[0], b.0[0])),
            _mm256_or_pd(self.0[1], _mm256_xor_pd(a.0[1], b.0[1]))
        ]))
    }
    #[inline(always)]
    fn any_bit(self, mask: Self) -> bool {
        op!({
            let bits = _mm256_castpd_si256(_mm256_or_pd(
                _mm256_and_pd(self.0[0], mask.0[0]),
                _mm256_and_pd(self.0[1], mask.0[1]),
            ));
            _mm256_testz_si256(bits, bits) == 0
        })
    }
    #[inline(always)]
    fn exponent_field(self) -> Self {
        // There is no conversion from 64-bit integers: the field becomes the last digits of 2^52, which is taken away.
        op!({
            let large = _mm256_set1_pd(f64::from_bits(0x433 << 52));
            let first = _mm256_srli_epi64::<52>(_mm256_castpd_si256(self.0[0]));
            let second = _mm256_srli_epi64::<52>(_mm256_castpd_si256(self.0[1]));
            Self([
                _mm256_sub_pd(_mm256_or_pd(_mm256_castsi256_pd(first), large), large),
                _mm256_sub_pd(_mm256_or_pd(_mm256_castsi256_pd(second), large), large),
            ])
        })
    }
    #[inline(always)]
    fn significand(self) -> Self {
        op!({
            let (kept, one) = (f64::from_bits((1 << 52) - 1), _mm256_set1_pd(1.0));
            let kept = _mm256_set1_pd(kept);
            Self([
                _mm256_or_pd(_mm256_and_pd(self.0[0], kept), one),
                _mm256_or_pd(_mm256_and_pd(self.0[1], kept), one),
            ])
        })
    }
    #[inline(always)]
    fn fold(self) -> F64 {
        self
    }
}

impl Simd for Avx2 {
    type F32 = F32;
    type F64 = F64;
    type Half = [__m128i; 2];

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,popcnt")]
        fn compiled<K: Kernel>(kernel: K, simd: Avx2) -> K::Output {
            kernel.run(simd)
        }
        op!(compiled(kernel, self))
    }
    #[inline(always)]
    fn fence(self) {
        op!(_mm_sfence())
    }
    #[inline(always)]
    fn prefetch<T>(self, address: *const T) {
        op!(_mm_prefetch::<_MM_HINT_T0>(address.cast()))
    }
    #[inline(always)]
    fn prefetch_far<T>(self, address: *const T) {
        op!(_mm_prefetch::<_MM_HINT_T1>(address.cast()))
    }
    #[inline(always)]
    unsafe fn load_half(self, from: *const u16) -> Self::Half {
        memory!([_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(8).cast())])
    }
    #[inline(always)]
    unsafe fn store_half(self, to: *mut u16, value: Self::Half) {
        memory!({
            _mm_storeu_si128(to.cast(), value[0]);
            _mm_storeu_si128(to.add(8).cast(), value[1]);
        })
    }
    #[inline(always)]
    unsafe fn stream_half(self, to: *mut u16, value: Self::Half) {
        memory!({
            _mm_stream_si128(to.cast(), value[0]);
            _mm_stream_si128(to.add(8).cast(), value[1]);
        })
    }
    #[inline(always)]
    fn widen_f16(self, value: Self::Half) -> F32 {
        op!(F32([_mm256_cvtph_ps(value[0]), _mm256_cvtph_ps(value[1])]))
    }
    #[inline(always)]
    fn narrow_f16(self, value: F32) -> Self::Half {
        op!([
            _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value.0[0]),
            _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value.0[1]),
        ])
    }
    #[inline(always)]
    fn widen_bf16(self, value: Self::Half) -> F32 {
        op!(F32([
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(value[0]))),
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(value[1]))),
        ]))
    }
    #[inline(always)]
    fn narrow_bf16(self, value: F32) -> Self::Half {
        [narrow_register_to_bf16(self, value.0[0]), narrow_register_to_bf16(self, value.0[1])]
    }
}

/// Eight lanes to bfloat16: to nearest even by adding just under half a unit, plus one if the kept part
/// is odd; a NaN keeps its upper bits and is made quiet.
#[inline(always)]
fn narrow_register_to_bf16(_proof: Avx2, value: __m256) -> __m128i {
    op!({
        let bits = _mm256_castps_si256(value);
        let high = _mm256_srli_epi32::<16>(bits);
        let odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
        let up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
        let quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
        let narrow = _mm256_blendv_epi8(_mm256_srli_epi32::<16>(up), quiet, nan);
        _mm_packus_epi32(_mm256_castsi256_si128(narrow), _mm256_extracti128_si256::<1>(narrow))
    })
}

/// [`Vector::low_bits_to_power`] of a register.
#[inline(always)]
fn power(lanes: __m256) -> __m256 {
    // SAFETY: only the verbs of this level get here, so the processor has the instructions; and the table has sixteen
    // entries.
    unsafe {
        let bits = _mm256_castps_si256(lanes);
        let below = _mm256_loadu_ps(SIXTEENTHS.as_ptr().cast());
        let above = _mm256_loadu_ps(SIXTEENTHS.as_ptr().add(8).cast());
        // The look-up goes by the lowest three bits; the fourth, moved to the sign, chooses between the halves.
        let significand = _mm256_blendv_ps(
            _mm256_permutevar8x32_ps(below, bits),
            _mm256_permutevar8x32_ps(above, bits),
            _mm256_castsi256_ps(_mm256_slli_epi32::<28>(bits)),
        );
        let significand = _mm256_castps_si256(significand);
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32::<19>(bits), significand))
    }
}
