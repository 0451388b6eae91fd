//! The dtypes: what stands in memory, and how it becomes lanes to compute with.
//!
//! An [`Element`] widens when it is loaded and narrows, to nearest even, when it is stored; 16-bit and
//! single-precision logits are computed in `f32`, doubles in `f64`. Memory is seen as slices of [`Cell`],
//! because input and output may be the same array.
//!
//! This file knows no mathematics. It is where vectors touch memory: the length checks that make that
//! safe are here and nowhere else.

use crate::simd::{Float, Kernel, Number, Simd, Vector};
use half::{bf16, f16};
use std::cell::Cell;

/// A dtype of logits or of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IEEE binary16.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
    /// Signed 8-bit integers; like all integers they are computed as doubles, and are never an output.
    I8,
    /// Signed 16-bit integers.
    I16,
    /// Signed 32-bit integers.
    I32,
    /// Signed 64-bit integers.
    I64,
    /// Unsigned 8-bit integers.
    U8,
    /// Unsigned 16-bit integers.
    U16,
    /// Unsigned 32-bit integers.
    U32,
    /// Unsigned 64-bit integers.
    U64,
}

impl Kind {
    /// Whether it is one of the integers.
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }
}

/// The vector of lanes that elements of type `E` become on the level `S`.
pub type Wide<S, E> = <<E as Element>::Compute as Float>::V<S>;

/// What can be read where it lies.
pub trait Stored: Number + Default {
    /// The dtype as a value.
    const KIND: Kind;
    /// 0.
    const ZERO: Self;
}

/// A floating-point dtype of logits.
pub trait Element: Stored {
    /// The precision to compute in.
    type Compute: Float + Element<Compute = Self::Compute>;

    /// One value, widened.
    fn widen(self) -> Self::Compute;
    /// One value, rounded to nearest even.
    fn narrow(value: Self::Compute) -> Self;

    /// The same cells, if they hold what is computed with.
    fn as_computed(cells: &[Cell<Self>]) -> Option<&[Cell<Self::Compute>]>;

    /// Reads one logical vector from the start of `from`.
    fn load<S: Simd>(simd: S, from: &[Cell<Self>]) -> Wide<S, Self>;
    /// Reads as much of a logical vector as there is in `from`; the other lanes are `absent`.
    fn load_part<S: Simd>(simd: S, from: &[Cell<Self>], absent: Self) -> Wide<S, Self>;
    /// Writes one logical vector to the start of `to`; past the caches if `STREAM` (then `to` is aligned
    /// to the vector's size in memory).
    fn store<S: Simd, const STREAM: bool>(simd: S, to: &[Cell<Self>], value: Wide<S, Self>);
    /// Writes as much of a logical vector as `to` has room for.
    fn store_part<S: Simd>(simd: S, to: &[Cell<Self>], value: Wide<S, Self>);
}

/// Panics unless there is room for one logical vector. With the constant slice lengths that the kernels
/// use, the compiler removes it.
#[inline(always)]
fn check_length<E: Element>(cells: &[Cell<E>]) {
    assert!(cells.len() >= E::Compute::LANES, "a slice of cells shorter than a vector");
}

macro_rules! full_width {
    ($t:ident, $kind:ident) => {
        impl Stored for $t {
            const KIND: Kind = Kind::$kind;
            const ZERO: Self = 0.0;
        }

        impl Element for $t {
            type Compute = $t;

            #[inline(always)]
            fn widen(self) -> $t {
                self
            }
            #[inline(always)]
            fn narrow(value: $t) -> Self {
                value
            }
            #[inline(always)]
            fn as_computed(cells: &[Cell<Self>]) -> Option<&[Cell<$t>]> {
                Some(cells)
            }
            #[inline(always)]
            fn load<S: Simd>(simd: S, from: &[Cell<Self>]) -> Wide<S, Self> {
                check_length(from);
                // SAFETY: the slice holds a vector, and a `Cell` is laid out as its value.
                unsafe { Vector::load(simd, from.as_ptr().cast()) }
            }
            #[inline(always)]
            fn load_part<S: Simd>(simd: S, from: &[Cell<Self>], absent: Self) -> Wide<S, Self> {
                if from.len() >= Self::LANES {
                    return Self::load(simd, from);
                }
                // SAFETY: the slice holds as many values as are read, a `Cell` being laid out as its value.
                unsafe { Vector::load_part(simd, from.as_ptr().cast(), from.len(), absent) }
            }
            #[inline(always)]
            fn store_part<S: Simd>(simd: S, to: &[Cell<Self>], value: Wide<S, Self>) {
                if to.len() >= Self::LANES {
                    return Self::store::<S, false>(simd, to, value);
                }
                // SAFETY: the slice has room for as many values as are written, and cells may be written through
                // a shared reference.
                unsafe { value.store_part(to.as_ptr().cast_mut().cast(), to.len()) }
            }
            #[inline(always)]
            fn store<S: Simd, const STREAM: bool>(_: S, to: &[Cell<Self>], value: Wide<S, Self>) {
                check_length(to);
                let to: *mut $t = to.as_ptr().cast_mut().cast();
                debug_assert!(!STREAM || to.addr() % 64 == 0);
                // SAFETY: the slice has room for a vector, cells may be written through a shared
                // reference, and who streams has aligned the address.
                unsafe { if STREAM { value.stream(to) } else { value.store(to) } }
            }
        }
    };
}
full_width!(f32, F32);
full_width!(f64, F64);

/// A mask: 0 is no.
impl Number for u8 {
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as Self
    }
}
impl Stored for u8 {
    const KIND: Kind = Kind::U8;
    const ZERO: Self = 0;
}

/// A double in single precision, rounded such that a second rounding to 16 bits gives what a single one
/// would: towards zero, with the lowest bit set if anything was lost (rounding to odd; Boldo and Melquiond
/// 2008). The conversions from doubles of the crate half ignore the lowest bits, and so miss that a value is
/// above a tie.
#[inline(always)]
fn to_odd_f32(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) == value || !near.is_finite() {
        return near;
    }
    let bits = near.to_bits();
    let towards_zero = if f64::from(near).abs() > value.abs() { bits - 1 } else { bits };
    f32::from_bits(towards_zero | 1)
}

macro_rules! half_width {
    ($t:ident, $kind:ident, $widen:ident, $narrow:ident) => {
        impl Number for $t {
            #[inline(always)]
            fn to_f64(self) -> f64 {
                Self::to_f64(self)
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                Self::from_f32(to_odd_f32(value))
            }
        }

        impl Stored for $t {
            const KIND: Kind = Kind::$kind;
            const ZERO: Self = $t::ZERO;
        }

        impl Element for $t {
            type Compute = f32;

            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn narrow(value: f32) -> Self {
                Self::from_f32(value)
            }
            #[inline(always)]
            fn as_computed(_: &[Cell<Self>]) -> Option<&[Cell<f32>]> {
                None
            }
            #[inline(always)]
            fn load<S: Simd>(simd: S, from: &[Cell<Self>]) -> Wide<S, Self> {
                check_length(from);
                // SAFETY: the slice holds sixteen elements, each a transparent 16-bit pattern in a `Cell`.
                simd.$widen(unsafe { simd.load_half(from.as_ptr().cast()) })
            }
            #[inline(always)]
            fn load_part<S: Simd>(simd: S, from: &[Cell<Self>], absent: Self) -> Wide<S, Self> {
                if from.len() >= f32::LANES {
                    return Self::load(simd, from);
                }
                let (first, absent) = (from.as_ptr().cast(), absent.to_bits());
                // SAFETY: the slice holds as many elements as are read, each a 16-bit pattern as above.
                simd.$widen(unsafe { simd.load_half_part(first, from.len(), absent) })
            }
            #[inline(always)]
            fn store_part<S: Simd>(simd: S, to: &[Cell<Self>], value: Wide<S, Self>) {
                if to.len() >= f32::LANES {
                    return Self::store::<S, false>(simd, to, value);
                }
                let first = to.as_ptr().cast_mut().cast();
                // SAFETY: the slice has room for as many elements as are written, and cells may be written through
                // a shared reference.
                unsafe { simd.store_half_part(first, to.len(), simd.$narrow(value)) }
            }
            #[inline(always)]
            fn store<S: Simd, const STREAM: bool>(
                simd: S,
                to: &[Cell<Self>],
                value: Wide<S, Self>,
            ) {
                check_length(to);
                let to: *mut u16 = to.as_ptr().cast_mut().cast();
                debug_assert!(!STREAM || to.addr() % 32 == 0);
                let value = simd.$narrow(value);
                // SAFETY: the slice has room for sixteen elements, cells may be written through a shared
                // reference, and who streams has aligned the address.
                unsafe {
                    if STREAM { simd.stream_half(to, value) } else { simd.store_half(to, value) }
                }
            }
        }
    };
}
half_width!(f16, F16, widen_f16, narrow_f16);
half_width!(bf16, BF16, widen_bf16, narrow_bf16);

/// `x`, with `other` in the lanes whose byte of `mask` is 0; there are at least as many bytes as lanes.
#[inline(always)]
pub fn keep<S: Simd, V: Vector<S>>(x: V, mask: &[Cell<u8>], other: V) -> V {
    assert!(mask.len() >= V::Scalar::LANES, "a mask shorter than a vector");
    // SAFETY: the slice holds a byte for every lane, and a `Cell` is laid out as its value.
    unsafe { x.keep(mask.as_ptr().cast(), other) }
}

/// Elements as numbers of the precision in which they are computed, or of a wider one.
pub struct Widen<'a, E, T> {
    /// The elements.
    pub from: &'a [Cell<E>],
    /// Room for as many.
    pub to: &'a [Cell<T>],
}

impl<E: Element, T: Number> Kernel for Widen<'_, E, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { from, to } = self;
        let whole = from.len() - from.len() % E::Compute::LANES;
        for at in (0..whole).step_by(E::Compute::LANES) {
            let (from, to) = (&from[at..], &to[at..at + E::Compute::LANES]);
            let lanes = E::load(simd, from).to_array(E::Compute::ZERO);
            // Between equal types the way through doubles is none: the compiler removes it.
            for i in 0..to.len() {
                to[i].set(T::from_f64(lanes[i].to_f64()));
            }
        }
        for (from, to) in from[whole..].iter().zip(&to[whole..]) {
            to.set(T::from_f64(from.get().to_f64()));
        }
    }
}

/// Numbers as elements of 16 bits, each rounded once.
pub struct Narrow<'a, T, E> {
    /// The numbers.
    pub from: &'a [Cell<T>],
    /// Room for as many.
    pub to: &'a [Cell<E>],
}

impl<T: Number, E: Element<Compute = f32>> Kernel for Narrow<'_, T, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (from, to) in self.from.chunks(f32::LANES).zip(self.to.chunks(f32::LANES)) {
            let lanes = [const { Cell::new(0.0) }; f32::LANES];
            lanes.iter().zip(from).for_each(|(lane, x)| lane.set(to_odd_f32(x.get().to_f64())));
            E::store_part(simd, to, f32::load(simd, &lanes));
        }
    }
}
