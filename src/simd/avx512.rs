//! AVX-512 (F, BW, DQ, VL): one register is one logical vector.

use super::{Kernel, SIXTEENTHS, Simd, Vector};
use core::arch::x86_64::*;

/// Proof that the processor has AVX-512 F, BW, DQ and VL, and all of AVX2's companions.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// The proof, if the processor has the instructions.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && super::avx2::Avx2::detect().is_some())
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
pub struct F32(__m512);

impl Vector<Avx512> for F32 {
    type Scalar = f32;

    #[inline(always)]
    fn splat(_: Avx512, value: f32) -> Self {
        op!(Self(_mm512_set1_ps(value)))
    }
    #[inline(always)]
    unsafe fn load(_: Avx512, from: *const f32) -> Self {
        memory!(Self(_mm512_loadu_ps(from)))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        memory!(_mm512_storeu_ps(to, self.0))
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        memory!(_mm512_stream_ps(to, self.0))
    }
    #[inline(always)]
    unsafe fn load_part(_: Avx512, from: *const f32, count: usize, absent: f32) -> Self {
        memory!(Self(_mm512_mask_loadu_ps(_mm512_set1_ps(absent), first(count) as _, from)))
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        memory!(_mm512_mask_storeu_ps(to, first(count) as _, self.0))
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        op!(Self(_mm512_add_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        op!(Self(_mm512_sub_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        op!(Self(_mm512_mul_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        op!(Self(_mm512_div_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        op!(Self(_mm512_fmadd_ps(self.0, b.0, c.0)))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        op!(Self(_mm512_max_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn zero_where_less(self, x: Self, bound: Self) -> Self {
        op!(Self(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x.0, bound.0), self.0)))
    }
    #[inline(always)]
    fn or_where_less(self, x: Self, bound: Self, other: Self) -> Self {
        op!({
            let less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x.0, bound.0);
            Self(_mm512_mask_blend_ps(less, self.0, other.0))
        })
    }
    #[inline(always)]
    unsafe fn keep(self, mask: *const u8, other: Self) -> Self {
        memory!({
            let bytes = _mm_loadu_si128(mask.cast());
            Self(_mm512_mask_blend_ps(_mm_test_epi8_mask(bytes, bytes), other.0, self.0))
        })
    }
    #[inline(always)]
    fn count_greater(self, b: Self) -> u32 {
        op!(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, b.0)).count_ones()
    }
    #[inline(always)]
    fn any_greater(self, b: Self) -> bool {
        op!(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, b.0)) != 0
    }
    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        op!(Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(self.0)))))
    }
    #[inline(always)]
    fn low_bits_to_power(self) -> Self {
        // SAFETY: a vector of this level exists, so the processor has the instructions; and the table has sixteen
        // entries.
        unsafe {
            let bits = _mm512_castps_si512(self.0);
            let table = _mm512_loadu_si512(SIXTEENTHS.as_ptr().cast());
            let significand = _mm512_permutexvar_epi32(bits, table);
            Self(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32::<19>(bits), significand)))
        }
    }
    #[inline(always)]
    fn or_difference(self, a: Self, b: Self) -> Self {
        op!(Self(_mm512_or_ps(self.0, _mm512_xor_ps(a.0, b.0))))
    }
    #[inline(always)]
    fn any_bit(self, mask: Self) -> bool {
        op!(_mm512_test_epi32_mask(_mm512_castps_si512(self.0), _mm512_castps_si512(mask.0))) != 0
    }
    #[inline(always)]
    fn exponent_field(self) -> Self {
        op!(Self(_mm512_cvtepi32_ps(_mm512_srli_epi32::<23>(_mm512_castps_si512(self.0)))))
    }
    #[inline(always)]
    fn significand(self) -> Self {
        op!({
            let kept = _mm512_and_ps(self.0, _mm512_set1_ps(f32::from_bits((1 << 23) - 1)));
            Self(_mm512_or_ps(kept, _mm512_set1_ps(1.0)))
        })
    }
    #[inline(always)]
    fn fold(self) -> F64 {
        op!(F64(_mm512_add_pd(
            _mm512_cvtps_pd(_mm512_castps512_ps256(self.0)),
            _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(self.0)),
        )))
    }
}

/// One logical vector of `f64`.
#[derive(Clone, Copy)]
pub struct F64(__m512d);

impl Vector<Avx512> for F64 {
    type Scalar = f64;

    #[inline(always)]
    fn splat(_: Avx512, value: f64) -> Self {
        op!(Self(_mm512_set1_pd(value)))
    }
    #[inline(always)]
    unsafe fn load(_: Avx512, from: *const f64) -> Self {
        memory!(Self(_mm512_loadu_pd(from)))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f64) {
        memory!(_mm512_storeu_pd(to, self.0))
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f64) {
        memory!(_mm512_stream_pd(to, self.0))
    }
    #[inline(always)]
    unsafe fn load_part(_: Avx512, from: *const f64, count: usize, absent: f64) -> Self {
        memory!(Self(_mm512_mask_loadu_pd(_mm512_set1_pd(absent), first(count) as _, from)))
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f64, count: usize) {
        memory!(_mm512_mask_storeu_pd(to, first(count) as _, self.0))
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        op!(Self(_mm512_add_pd(self.0, b.0)))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        op!(Self(_mm512_sub_pd(self.0, b.0)))
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        op!(Self(_mm512_mul_pd(self.0, b.0)))
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        op!(Self(_mm512_div_pd(self.0, b.0)))
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        op!(Self(_mm512_fmadd_pd(self.0, b.0, c.0)))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        op!(Self(_mm512_max_pd(self.0, b.0)))
    }
    #[inline(always)]
    fn zero_where_less(self, x: Self, bound: Self) -> Self {
        op!(Self(_mm512_maskz_mov_pd(_mm512_cmp_pd_mask::<_CMP_NLT_UQ>(x.0, bound.0), self.0)))
    }
    #[inline(always)]
    fn or_where_less(self, x: Self, bound: Self, other: Self) -> Self {
        op!({
            let less = _mm512_cmp_pd_mask::<_CMP_LT_OQ>(x.0, bound.0);
            Self(_mm512_mask_blend_pd(less, self.0, other.0))
        })
    }
    #[inline(always)]
    unsafe fn keep(self, mask: *const u8, other: Self) -> Self {
        memory!({
            let bytes = _mm_loadl_epi64(mask.cast());
            let kept = _mm_test_epi8_mask(bytes, bytes) as u8;
            Self(_mm512_mask_blend_pd(kept, other.0, self.0))
        })
    }
    #[inline(always)]
    fn count_greater(self, b: Self) -> u32 {
        op!(_mm512_cmp_pd_mask::<_CMP_GT_OQ>(self.0, b.0)).count_ones()
    }
    #[inline(always)]
    fn any_greater(self, b: Self) -> bool {
        op!(_mm512_cmp_pd_mask::<_CMP_GT_OQ>(self.0, b.0)) != 0
    }
    #[inline(always)]
    fn low_bits_to_exponent(self) -> Self {
        op!(Self(_mm512_castsi512_pd(_mm512_slli_epi64::<52>(_mm512_castpd_si512(self.0)))))
    }
    #[inline(always)]
    fn low_bits_to_power(self) -> Self {
        op!({
            let exponent = _mm512_slli_epi64::<52>(_mm512_castpd_si512(self.0));
            Self(_mm512_castsi512_pd(_mm512_add_epi64(exponent, _mm512_set1_epi64(1 << 52))))
        })
    }
    #[inline(always)]
    fn or_difference(self, a: Self, b: Self) -> Self {
        op!(Self(_mm512_or_pd(self.0, _mm512_xor_pd(a.0, b.0))))
    }
    #[inline(always)]
    fn any_bit(self, mask: Self) -> bool {
        op!(_mm512_test_epi64_mask(_mm512_castpd_si512(self.0), _mm512_castpd_si512(mask.0))) != 0
    }
    #[inline(always)]
    fn exponent_field(self) -> Self {
        op!(Self(_mm512_cvtepu64_pd(_mm512_srli_epi64::<52>(_mm512_castpd_si512(self.0)))))
    }
    #[inline(always)]
    fn significand(self) -> Self {
        op!({
            let kept = _mm512_and_pd(self.0, _mm512_set1_pd(f64::from_bits((1 << 52) - 1)));
            Self(_mm512_or_pd(kept, _mm512_set1_pd(1.0)))
        })
    }
    #[inline(always)]
    fn fold(self) -> F64 {
        self
    }
}

impl Simd for Avx512 {
    type F32 = F32;
    type F64 = F64;
    type Half = __m256i;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,popcnt")]
        fn compiled<K: Kernel>(kernel: K, simd: Avx512) -> K::Output {
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
    unsafe fn load_half(self, from: *const u16) -> __m256i {
        memory!(_mm256_loadu_si256(from.cast()))
    }
    #[inline(always)]
    unsafe fn store_half(self, to: *mut u16, value: __m256i) {
        memory!(_mm256_storeu_si256(to.cast(), value))
    }
    #[inline(always)]
    unsafe fn stream_half(self, to: *mut u16, value: __m256i) {
        memory!(_mm256_stream_si256(to.cast(), value))
    }
    #[inline(always)]
    unsafe fn load_half_part(self, from: *const u16, count: usize, absent: u16) -> __m256i {
        let absent = absent.cast_signed();
        memory!(_mm256_mask_loadu_epi16(_mm256_set1_epi16(absent), first(count), from.cast()))
    }
    #[inline(always)]
    unsafe fn store_half_part(self, to: *mut u16, count: usize, value: __m256i) {
        memory!(_mm256_mask_storeu_epi16(to.cast(), first(count), value))
    }
    #[inline(always)]
    fn widen_f16(self, value: __m256i) -> F32 {
        op!(F32(_mm512_cvtph_ps(value)))
    }
    #[inline(always)]
    fn narrow_f16(self, value: F32) -> __m256i {
        op!(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value.0))
    }
    #[inline(always)]
    fn widen_bf16(self, value: __m256i) -> F32 {
        op!(F32(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(value)))))
    }
    #[inline(always)]
    fn narrow_bf16(self, value: F32) -> __m256i {
        // Round to nearest even by adding just under half a unit, plus one if the kept part is odd;
        // a NaN keeps its upper bits and is made quiet. (vcvtneps2bf16 would flush denormals.)
        op!({
            let bits = _mm512_castps_si512(value.0);
            let high = _mm512_srli_epi32::<16>(bits);
            let odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
            let up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value.0, value.0);
            let quiet = _mm512_or_si512(high, _mm512_set1_epi32(0x40));
            _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32::<16>(up), nan, quiet))
        })
    }
}

/// The mask of the first lanes, at most sixteen.
#[inline(always)]
fn first(count: usize) -> u16 {
    ((1_u32 << count) - 1) as u16
}
