//! Arrays for the tests: of every dtype, anywhere in memory, with other bytes around and between their elements.
//!
//! They are read and written element by element, independently of the crate.

use crate::twin::{BF16, F16, Random};
use softxent::batch::{Array, Matrix};
use softxent::element::Kind;
use std::cell::Cell;
use std::ops::Range;

pub(crate) const FLOATS: [Kind; 4] = [Kind::F16, Kind::BF16, Kind::F32, Kind::F64];
pub(crate) const INTEGERS: [Kind; 8] =
    [Kind::I8, Kind::I16, Kind::I32, Kind::I64, Kind::U8, Kind::U16, Kind::U32, Kind::U64];

macro_rules! codec {
    ($($kind:ident $t:ident $from_f64:expr, $to_f64:expr;)*) => {
        /// Writes a number as an element, in this machine's byte order.
        fn encode(kind: Kind, number: f64, to: &mut [u8]) {
            match kind {
                $(Kind::$kind => {
                    let element: $t = $from_f64(number);
                    to.copy_from_slice(&element.to_ne_bytes());
                })*
            }
        }

        /// The number that an element stands for.
        fn decode(kind: Kind, bytes: &[u8]) -> f64 {
            match kind {
                $(Kind::$kind => $to_f64($t::from_ne_bytes(bytes.try_into().unwrap())),)*
            }
        }
    };
}
codec! {
    F16 u16 |x| F16.narrow(x), |x| f64::from(F16.widen(x));
    BF16 u16 |x| BF16.narrow(x), |x| f64::from(BF16.widen(x));
    F32 f32 |x| x as f32, f64::from;
    F64 f64 |x| x, |x| x;
    I8 i8 |x| x as i8, f64::from;
    I16 i16 |x| x as i16, f64::from;
    I32 i32 |x| x as i32, f64::from;
    I64 i64 |x| x as i64, |x| x as f64;
    U8 u8 |x| x as u8, f64::from;
    U16 u16 |x| x as u16, f64::from;
    U32 u32 |x| x as u32, f64::from;
    U64 u64 |x| x as u64, |x| x as f64;
}

/// How an array lies in memory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) shape: Vec<usize>,
    /// In elements.
    pub(crate) strides: Vec<isize>,
    /// Bytes from a multiple of 64 to the lowest element.
    pub(crate) offset: usize,
    pub(crate) swapped: bool,
}

impl Layout {
    /// C order, each axis some elements longer in memory than it is.
    pub(crate) fn padded(shape: &[usize], padding: usize) -> Self {
        let mut strides = vec![1; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i] * (shape[i] + padding).cast_signed();
        }
        Self { shape: shape.to_vec(), strides, offset: 0, swapped: false }
    }

    pub(crate) fn contiguous(shape: &[usize]) -> Self {
        Self::padded(shape, 0)
    }

    /// The axes in memory in the opposite order.
    pub(crate) fn transposed(shape: &[usize]) -> Self {
        let reversed: Vec<usize> = shape.iter().copied().rev().collect();
        let mut layout = Self::contiguous(&reversed);
        layout.shape.reverse();
        layout.strides.reverse();
        layout
    }

    /// C order with other strides, each made from the number of its axis and the stride that it had.
    pub(crate) fn strided(shape: &[usize], stride: impl Fn(usize, isize) -> isize) -> Self {
        let layout = Self::contiguous(shape);
        let strides = layout.strides.iter().enumerate().map(|(axis, &s)| stride(axis, s)).collect();
        Self { strides, ..layout }
    }

    pub(crate) fn beside_a_line(self, offset: usize) -> Self {
        Self { offset, ..self }
    }

    pub(crate) fn swapped(self) -> Self {
        Self { swapped: true, ..self }
    }

    /// Layouts that an output can have.
    pub(crate) fn for_outputs(shape: &[usize]) -> Vec<Self> {
        let last = shape.len() - 1;
        vec![
            Self::contiguous(shape),
            Self::contiguous(shape).beside_a_line(4),
            Self::contiguous(shape).beside_a_line(8),
            Self::contiguous(shape).beside_a_line(1),
            Self::padded(shape, 3),
            Self::transposed(shape),
            Self::strided(shape, |_, stride| 2 * stride),
            Self::strided(shape, |_, stride| -stride),
            Self::strided(shape, |axis, stride| if axis == 0 { -stride } else { stride }),
            Self::strided(shape, |axis, stride| if axis == last { -stride } else { stride }),
            Self::strided(shape, |_, stride| -3 * stride).beside_a_line(3),
        ]
    }

    /// Those, and layouts that only an input can have: of the other byte order, and of elements that lie in
    /// several places of the array (the last two: sliding windows, and one element for all).
    pub(crate) fn for_inputs(shape: &[usize]) -> Vec<Self> {
        let mut layouts = Self::for_outputs(shape);
        layouts.push(Self::contiguous(shape).swapped());
        layouts.push(Self::transposed(shape).swapped().beside_a_line(5));
        for once in 0..shape.len() {
            layouts
                .push(Self::strided(shape, |axis, stride| if axis == once { 0 } else { stride }));
        }
        layouts.push(Self::strided(shape, |axis, stride| if axis == 0 { 2 } else { stride }));
        layouts.push(Self::strided(shape, |_, _| 0));
        layouts
    }
}

/// An array somewhere in memory, with other bytes around and between its elements.
pub(crate) struct Place {
    pub(crate) layout: Layout,
    pub(crate) kind: Kind,
    bytes: Vec<Cell<u8>>,
    /// Where in the bytes each element lies, in C order.
    elements: Vec<Range<usize>>,
    /// Where in the bytes the first element lies, or would.
    first: usize,
}

impl Place {
    const BACKGROUND: u8 = 0xa5;

    pub(crate) fn new(kind: Kind, layout: &Layout) -> Self {
        let size = kind.size();
        let mut offsets = vec![0];
        for (&length, &stride) in layout.shape.iter().zip(&layout.strides) {
            let stride = stride * size.cast_signed();
            let along = |offset: &isize| {
                let offset = *offset;
                (0..length.cast_signed()).map(move |i| offset + i * stride)
            };
            offsets = offsets.iter().flat_map(along).collect();
        }
        let lowest = offsets.iter().copied().min().unwrap_or(0);
        let highest = offsets.iter().copied().max().unwrap_or(0);
        let length = (highest - lowest).cast_unsigned() + size + layout.offset + 3 * 64;
        let bytes = vec![Cell::new(Self::BACKGROUND); length];
        let to_line = bytes.as_ptr().addr().wrapping_neg() % 64;
        let first = (to_line + 64 + layout.offset).cast_signed() - lowest;
        let start = |offset: isize| (first + offset).cast_unsigned();
        let elements = offsets.iter().map(|&offset| start(offset)..start(offset) + size).collect();
        Self { layout: layout.clone(), kind, bytes, elements, first: start(0) }
    }

    pub(crate) fn of(kind: Kind, layout: &Layout, mut number: impl FnMut() -> f64) -> Self {
        let place = Self::new(kind, layout);
        for element in &place.elements {
            let bytes = &mut [0; 8][..kind.size()];
            encode(kind, number(), bytes);
            if layout.swapped {
                bytes.reverse();
            }
            for (to, byte) in place.bytes[element.clone()].iter().zip(bytes) {
                to.set(*byte);
            }
        }
        place
    }

    /// Logits, now and then one that is not finite.
    pub(crate) fn of_logits(kind: Kind, layout: &Layout, seed: u64) -> Self {
        let random = &mut Random(seed);
        // So rare that most rows of a large array have neither NaN nor infinity.
        let rare = 2 * layout.shape.iter().product::<usize>() as u64;
        Self::of(kind, layout, || match random.bits() % rare {
            _ if kind.is_integer() => random.between(-12.0, 25.0),
            0 => f64::NAN,
            1 => f64::INFINITY,
            number if number % 50 == 2 => f64::NEG_INFINITY,
            _ => random.between(-12.0, 12.0),
        })
    }

    pub(crate) fn array(&self) -> Array {
        let size = self.kind.size().cast_signed();
        Array {
            data: self.bytes.as_ptr().wrapping_add(self.first).cast_mut().cast(),
            kind: self.kind,
            swapped: self.layout.swapped,
            shape: self.layout.shape.clone(),
            strides: self.layout.strides.iter().map(|stride| stride * size).collect(),
        }
    }

    pub(crate) fn matrix(&self, axis: usize) -> Matrix {
        // SAFETY: `bytes` holds every element, may be written through shared references, and outlives every
        // use in these tests, which only look at it in between.
        unsafe { Matrix::new(&self.array(), axis) }
    }

    /// Whether it is of the right byte order and every element has a place of its own.
    pub(crate) fn can_be_output(&self) -> bool {
        let mut starts: Vec<usize> = self.elements.iter().map(|element| element.start).collect();
        starts.sort_unstable();
        starts.dedup();
        !self.layout.swapped && starts.len() == self.elements.len()
    }

    /// The elements in C order.
    pub(crate) fn numbers(&self) -> Vec<f64> {
        let number = |element: &Range<usize>| {
            let bytes = &mut [0; 8][..element.len()];
            for (to, byte) in bytes.iter_mut().zip(&self.bytes[element.clone()]) {
                *to = byte.get();
            }
            if self.layout.swapped {
                bytes.reverse();
            }
            decode(self.kind, bytes)
        };
        self.elements.iter().map(number).collect()
    }

    /// Whether the bytes that belong to no element are as they were. Overwrites the elements.
    pub(crate) fn background_is_untouched(self) -> bool {
        for byte in self.elements.iter().flat_map(|element| &self.bytes[element.clone()]) {
            byte.set(Self::BACKGROUND);
        }
        self.bytes.iter().all(|byte| byte.get() == Self::BACKGROUND)
    }

    /// The same numbers in C order; integers as the doubles that they are computed as.
    pub(crate) fn contiguous_copy(&self) -> Self {
        let kind = if self.kind.is_integer() { Kind::F64 } else { self.kind };
        let mut numbers = self.numbers().into_iter();
        Self::of(kind, &Layout::contiguous(&self.layout.shape), || numbers.next().unwrap())
    }
}
