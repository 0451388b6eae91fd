//! The twin: one more level, of plain scalars, that is right by inspection.
//!
//! Each verb is the line of its documentation, lane by lane, with the fused multiply-add of the standard
//! library and with 16-bit floats spelled out from their definition. Kernels run on it as on any other
//! level. So it says, bit for bit, what every level with a fused multiply-add has to give, whichever of them
//! the processor at hand has.
//!
//! It knows nothing of registers, and it is slow. Its verbs are called, not inlined: lane by lane, every kernel would
//! be a hundred times as large as on a level of registers, and take minutes to compile.

#![allow(dead_code, reason = "each test file is a crate of its own and uses its part of this one")]

use softxent::simd::{Float, Kernel, Level, Simd, Vector};

/// One, but `rarely` where the tests most likely run on an emulated processor, some forty times slower: the step
/// with which they go through what is not worth that time.
pub(crate) fn thinned(rarely: usize) -> usize {
    if cfg!(target_arch = "aarch64") { rarely } else { 1 }
}

/// The proof of nothing: every processor has scalars.
#[derive(Clone, Copy)]
pub(crate) struct Twin;

/// A logical vector.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<T, const N: usize>([T; N]);

macro_rules! lanes {
    ($t:ident, $lanes:literal, $power:expr, $fold:expr) => {
        impl Vector<Twin> for Lanes<$t, $lanes> {
            type Scalar = $t;

            fn splat(_: Twin, value: $t) -> Self {
                Self([value; $lanes])
            }
            unsafe fn load(_: Twin, from: *const $t) -> Self {
                // SAFETY: the caller vouches for the memory; an unaligned read asks for no more.
                Self(std::array::from_fn(|i| unsafe { from.add(i).read_unaligned() }))
            }
            unsafe fn store(self, to: *mut $t) {
                for (i, lane) in self.0.into_iter().enumerate() {
                    // SAFETY: the caller vouches for the memory; an unaligned write asks for no more.
                    unsafe { to.add(i).write_unaligned(lane) };
                }
            }
            unsafe fn stream(self, to: *mut $t) {
                // SAFETY: the same memory as the caller vouches for.
                unsafe { self.store(to) }
            }
            #[inline(never)]
            fn add(self, b: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] + b.0[i]))
            }
            #[inline(never)]
            fn sub(self, b: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] - b.0[i]))
            }
            #[inline(never)]
            fn mul(self, b: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] * b.0[i]))
            }
            #[inline(never)]
            fn div(self, b: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i] / b.0[i]))
            }
            #[inline(never)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                Self(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
            }
            #[inline(never)]
            fn max(self, b: Self) -> Self {
                Self(std::array::from_fn(|i| if self.0[i] > b.0[i] { self.0[i] } else { b.0[i] }))
            }
            #[inline(never)]
            fn zero_where_less(self, x: Self, bound: Self) -> Self {
                Self(std::array::from_fn(|i| if x.0[i] < bound.0[i] { 0.0 } else { self.0[i] }))
            }
            #[inline(never)]
            fn or_where_less(self, x: Self, bound: Self, other: Self) -> Self {
                let lane = |i: usize| if x.0[i] < bound.0[i] { other.0[i] } else { self.0[i] };
                Self(std::array::from_fn(lane))
            }
            #[inline(never)]
            unsafe fn keep(self, mask: *const u8, other: Self) -> Self {
                Self(std::array::from_fn(|i| {
                    // SAFETY: the caller vouches for a byte for each lane.
                    if unsafe { mask.add(i).read() } == 0 { other.0[i] } else { self.0[i] }
                }))
            }
            fn count_greater(self, b: Self) -> u32 {
                (0..$lanes).map(|i| u32::from(self.0[i] > b.0[i])).sum()
            }
            fn any_greater(self, b: Self) -> bool {
                (0..$lanes).any(|i| self.0[i] > b.0[i])
            }
            #[inline(never)]
            fn low_bits_to_exponent(self) -> Self {
                const MANTISSA_BITS: u32 = $t::MANTISSA_DIGITS - 1;
                Self(self.0.map(|lane| $t::from_bits(lane.to_bits() << MANTISSA_BITS)))
            }
            #[inline(never)]
            fn low_bits_to_power(self) -> Self {
                Self(self.0.map(|lane| $power(lane.to_bits())))
            }
            #[inline(never)]
            fn or_difference(self, a: Self, b: Self) -> Self {
                Self(std::array::from_fn(|i| {
                    $t::from_bits(self.0[i].to_bits() | (a.0[i].to_bits() ^ b.0[i].to_bits()))
                }))
            }
            fn any_bit(self, mask: Self) -> bool {
                (0..$lanes).any(|i| self.0[i].to_bits() & mask.0[i].to_bits() != 0)
            }
            #[inline(never)]
            fn exponent_field(self) -> Self {
                const MANTISSA_BITS: u32 = $t::MANTISSA_DIGITS - 1;
                Self(self.0.map(|lane| (lane.to_bits() >> MANTISSA_BITS) as $t))
            }
            #[inline(never)]
            fn significand(self) -> Self {
                const MANTISSA_BITS: u32 = $t::MANTISSA_DIGITS - 1;
                let (kept, one) = ((1 << MANTISSA_BITS) - 1, (1.0 as $t).to_bits());
                Self(self.0.map(|lane| $t::from_bits(lane.to_bits() & kept | one)))
            }
            #[inline(never)]
            fn fold(self) -> Lanes<f64, 8> {
                $fold(self)
            }
        }
    };
}
lanes!(f32, 16, single_power, |v: Self| Lanes(std::array::from_fn(
    |i| f64::from(v.0[i]) + f64::from(v.0[i + 8])
)));
lanes!(f64, 8, |bits: u64| f64::from_bits((bits << 52).wrapping_add(1 << 52)), |v: Self| v);

/// The significand from the standard library, and the exponent.
fn single_power(bits: u32) -> f32 {
    let significand = (f64::from(bits % 16) / 16.0).exp2() as f32;
    f32::from_bits(((bits / 16 + 1) << 23).wrapping_add(significand.to_bits() - 1.0f32.to_bits()))
}

impl Simd for Twin {
    type F32 = Lanes<f32, 16>;
    type F64 = Lanes<f64, 8>;
    type Half = [u16; 16];
    const OUTLINED: bool = true;

    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
    fn fence(self) {}
    fn prefetch<T>(self, _: *const T) {}
    fn prefetch_far<T>(self, _: *const T) {}
    unsafe fn load_half(self, from: *const u16) -> [u16; 16] {
        // SAFETY: the caller vouches for the memory; an unaligned read asks for no more.
        std::array::from_fn(|i| unsafe { from.add(i).read_unaligned() })
    }
    unsafe fn store_half(self, to: *mut u16, value: [u16; 16]) {
        for (i, pattern) in value.into_iter().enumerate() {
            // SAFETY: the caller vouches for the memory; an unaligned write asks for no more.
            unsafe { to.add(i).write_unaligned(pattern) };
        }
    }
    unsafe fn stream_half(self, to: *mut u16, value: [u16; 16]) {
        // SAFETY: the same memory as the caller vouches for.
        unsafe { self.store_half(to, value) }
    }
    fn widen_f16(self, value: [u16; 16]) -> Lanes<f32, 16> {
        Lanes(value.map(|pattern| F16.widen(pattern)))
    }
    fn narrow_f16(self, value: Lanes<f32, 16>) -> [u16; 16] {
        value.0.map(|lane| F16.narrow(lane.into()))
    }
    fn widen_bf16(self, value: [u16; 16]) -> Lanes<f32, 16> {
        Lanes(value.map(|pattern| BF16.widen(pattern)))
    }
    fn narrow_bf16(self, value: Lanes<f32, 16>) -> [u16; 16] {
        value.0.map(|lane| BF16.narrow(lane.into()))
    }
}

/// A 16-bit floating-point format: a sign, an exponent, and a mantissa of so many bits.
#[derive(Clone, Copy)]
pub(crate) struct Format {
    mantissa_bits: i32,
    bias: i32,
    /// The pattern of infinity.
    pub(crate) infinity: u16,
}

/// IEEE binary16.
pub(crate) const F16: Format = Format { mantissa_bits: 10, bias: 15, infinity: 0x7c00 };
/// bfloat16.
pub(crate) const BF16: Format = Format { mantissa_bits: 7, bias: 127, infinity: 0x7f80 };

impl Format {
    /// The number that a pattern without sign stands for. For rounding, infinity is where the next larger
    /// number would be.
    pub(crate) fn magnitude(self, pattern: u16) -> f64 {
        let exponent = i32::from(pattern >> self.mantissa_bits);
        let mantissa = f64::from(pattern & ((1 << self.mantissa_bits) - 1));
        let unit = |exponent: i32| power_of_two(exponent - self.bias - self.mantissa_bits);
        if exponent == 0 {
            mantissa * unit(1)
        } else {
            (mantissa + f64::from(1 << self.mantissa_bits)) * unit(exponent)
        }
    }

    /// The value of a pattern.
    pub(crate) fn widen(self, pattern: u16) -> f32 {
        let magnitude = match pattern & 0x7fff {
            finite if finite < self.infinity => self.magnitude(finite) as f32,
            infinity if infinity == self.infinity => f32::INFINITY,
            _ => f32::NAN,
        };
        if pattern >> 15 == 0 { magnitude } else { -magnitude }
    }

    /// The pattern nearest to a value, the even one of two that are equally near.
    pub(crate) fn narrow(self, value: f64) -> u16 {
        let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
        if value.is_nan() {
            return sign | self.infinity | 1 << (self.mantissa_bits - 1);
        }
        let value = value.abs();
        // The largest pattern not above the value; the last one below infinity if the value is larger still.
        let (mut below, mut above) = (0, self.infinity);
        while above - below > 1 {
            let middle = below.midpoint(above);
            if self.magnitude(middle) <= value { below = middle } else { above = middle }
        }
        let (down, up) = (value - self.magnitude(below), self.magnitude(above) - value);
        let round_up = if down == up { below % 2 == 1 } else { up < down };
        sign | if round_up { above } else { below }
    }
}

/// `2^exponent`, if that is a normal double.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// Runs a kernel on every level that this processor has, the best one first, and last on the twin.
pub(crate) fn on_every_level<K: Kernel>(kernel: impl Fn() -> K) -> Vec<(&'static str, K::Output)> {
    let levels = Level::available().into_iter();
    let mut results: Vec<_> = levels.map(|level| (level.name(), run(level, kernel()))).collect();
    results.push(("twin", run_on_twin(kernel())));
    results
}

/// Runs a kernel on a level. It is called, not inlined, because the plain level is part of whatever function asks for
/// it: one copy for each kernel, not one for each test that runs it.
#[inline(never)]
pub(crate) fn run<K: Kernel>(level: Level, kernel: K) -> K::Output {
    level.run(kernel)
}

/// The same on the twin.
#[inline(never)]
fn run_on_twin<K: Kernel>(kernel: K) -> K::Output {
    Twin.vectorize(kernel)
}

/// The vector at the start of a slice.
#[inline(always)]
pub(crate) fn vector<S: Simd, V: Vector<S>>(simd: S, from: &[V::Scalar]) -> V {
    assert!(from.len() >= V::Scalar::LANES);
    // SAFETY: the slice holds a vector.
    unsafe { V::load(simd, from.as_ptr()) }
}

/// Whether the level rounds a multiply-add once, and so has to agree with the twin in every bit.
pub(crate) fn is_fused(level: &str) -> bool {
    level != "portable"
}

/// The bits of a number; one and the same for every NaN.
pub(crate) fn bits<T: Float>(value: T) -> u64 {
    let value = value.to_f64();
    if value.is_nan() { u64::MAX } else { value.to_bits() }
}

/// Numbers that look random and are the same every time (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A double in `[low, high)`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.bits() >> 11) as f64 * 2f64.powi(-53)
    }
}
