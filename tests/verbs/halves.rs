//! The 16-bit formats on every level: widened exactly, narrowed to nearest even.

use crate::Lane;
use crate::twin::{BF16, F16, Format, Random, bits, on_every_level, thinned, vector};
use half::{bf16, f16};
use softxent::element::Element;
use softxent::simd::{Kernel, Number, Simd, Vector};

/// A 16-bit format, and the same on a level.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Half {
    F16,
    BF16,
}

impl Half {
    fn format(self) -> Format {
        match self {
            Self::F16 => F16,
            Self::BF16 => BF16,
        }
    }
}

struct Widen<'a>(Half, &'a [u16]);

impl Kernel for Widen<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<f32> {
        let mut results = Vec::with_capacity(self.1.len());
        for patterns in self.1.chunks_exact(16) {
            // SAFETY: the chunk holds sixteen patterns.
            let patterns = unsafe { simd.load_half(patterns.as_ptr()) };
            let wide = match self.0 {
                Half::F16 => simd.widen_f16(patterns),
                Half::BF16 => simd.widen_bf16(patterns),
            };
            results.extend_from_slice(&wide.to_array(0.0));
        }
        results
    }
}

struct Narrow<'a>(Half, &'a [f32]);

impl Kernel for Narrow<'_> {
    type Output = Vec<u16>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<u16> {
        let mut results = vec![0; self.1.len()];
        for (values, patterns) in self.1.chunks_exact(16).zip(results.chunks_exact_mut(16)) {
            let wide: S::F32 = vector(simd, values);
            let narrow = match self.0 {
                Half::F16 => simd.narrow_f16(wide),
                Half::BF16 => simd.narrow_bf16(wide),
            };
            // SAFETY: the chunk has room for sixteen patterns.
            unsafe { simd.store_half(patterns.as_mut_ptr(), narrow) };
        }
        results
    }
}

/// Narrows each value on every level and compares with what is expected of it.
fn check_narrow(half: Half, mut cases: Vec<(f32, u16)>) {
    cases.resize(cases.len().next_multiple_of(16), (0.0, 0));
    let values: Vec<f32> = cases.iter().map(|&(value, _)| value).collect();
    for (level, got) in on_every_level(|| Narrow(half, &values)) {
        for (&(value, expected), got) in cases.iter().zip(got) {
            assert_eq!(got, expected, "{level}: {value:e} to {half:?}");
        }
    }
}

#[test]
fn all_patterns_of_16_bits_are_widened_exactly() {
    let patterns: Vec<u16> = (0..=u16::MAX).collect();
    for half in [Half::F16, Half::BF16] {
        for (level, got) in on_every_level(|| Widen(half, &patterns)) {
            for (&pattern, got) in patterns.iter().zip(got) {
                let expected = half.format().widen(pattern);
                assert_eq!(bits(got), bits(expected), "{level}: {pattern:#06x} of {half:?}");
            }
        }
    }
}

#[test]
fn the_16_bit_formats_are_those_of_the_half_crate() {
    for pattern in 0..=u16::MAX {
        assert_eq!(bits(F16.widen(pattern)), bits(f16::from_bits(pattern).to_f32()));
        assert_eq!(bits(BF16.widen(pattern)), bits(bf16::from_bits(pattern).to_f32()));
    }
}

#[test]
fn narrowing_rounds_to_nearest_even_at_every_boundary() {
    for half in [Half::F16, Half::BF16] {
        let format = half.format();
        let mut cases = Vec::new();
        for below in 0..format.infinity {
            let above = below + 1;
            let (low, high) = (format.magnitude(below), format.magnitude(above));
            let middle = ((low + high) / 2.0) as f32;
            assert_eq!(f64::from(middle), (low + high) / 2.0, "a single holds the middle exactly");
            let even = below + below % 2;
            for (value, expected) in [
                (low as f32, below),
                ((low as f32).next_up(), below),
                (middle.next_down(), below),
                (middle, even),
                (middle.next_up(), above),
                ((high as f32).next_down(), above),
            ] {
                cases.push((value, expected));
                cases.push((-value, expected | 0x8000));
            }
        }
        for value in [f32::MAX, f32::INFINITY] {
            cases.push((value, format.infinity));
            cases.push((-value, format.infinity | 0x8000));
        }
        check_narrow(half, cases);
    }
}

#[test]
fn a_double_becomes_16_bits_with_a_single_rounding() {
    fn check<T: Element>(format: Format) {
        for below in 0..format.infinity {
            let (low, high) = (format.magnitude(below), format.magnitude(below + 1));
            let middle = (low + high) / 2.0;
            let even = below + below % 2;
            for (value, expected) in
                [(middle.next_down(), below), (middle, even), (middle.next_up(), below + 1)]
            {
                let got = <T as Number>::from_f64(value).to_f64();
                assert_eq!(got, f64::from(format.widen(expected)), "{value:e} to {:?}", T::KIND);
            }
        }
    }
    check::<f16>(F16);
    check::<bf16>(BF16);
}

#[test]
fn narrowing_random_singles_gives_the_nearest_pattern() {
    let random = &mut Random(5);
    let count = (1 << 19) / thinned(64);
    for half in [Half::F16, Half::BF16] {
        let values = (0..count).map(|_| f32::of(random.bits())).filter(|value| !value.is_nan());
        check_narrow(
            half,
            values.map(|value| (value, half.format().narrow(value.into()))).collect(),
        );
    }
}

#[test]
fn a_nan_of_any_payload_stays_nan_when_it_is_narrowed() {
    let infinity = f32::INFINITY.to_bits();
    let payloads = (1..1 << 23).step_by(31 * thinned(101));
    let all = payloads.chain([1, 0x1fff, 0x2000, 0xffff, 0x10000, 0x3f_ffff, 0x40_0000, 0x7f_ffff]);
    let mut values: Vec<f32> = all
        .flat_map(|payload| [infinity | payload, infinity | payload | 1 << 31])
        .map(f32::from_bits)
        .collect();
    values.resize(values.len().next_multiple_of(16), f32::NAN);
    for half in [Half::F16, Half::BF16] {
        for (level, got) in on_every_level(|| Narrow(half, &values)) {
            for (value, got) in values.iter().zip(got) {
                let wide = half.format().widen(got);
                assert!(wide.is_nan(), "{level}: {:#x} to {half:?}", value.to_bits());
                assert_eq!(got >> 15, (value.to_bits() >> 31) as u16, "{level}: the sign of a NaN");
            }
        }
    }
}
