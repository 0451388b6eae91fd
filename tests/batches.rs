//! The sweep over a batch: the same bits however the work is cut up and wherever the arrays lie.
//!
//! What a batch should give is computed once, on one thread, from a contiguous copy that the test reads out of
//! the array element by element. Everything else has to agree with that bit for bit, and to leave alone every
//! byte that is no element of its output.

mod twin;

use half::{bf16, f16};
use softxent::batch::{Array, Matrix, read_classes};
use softxent::compute::{self, Loss, Upstream};
use softxent::element::Kind;
use softxent::error::Error;
use softxent::loss::{CrossEntropy, OnEmpty, Reduction};
use softxent::row::CHUNK;
use softxent::simd::Level;
use softxent::sweep::{Run, Thresholds};
use std::cell::Cell;
use std::ops::Range;
use twin::{EMULATED, Random, bits, is_fused};

const FLOATS: [Kind; 4] = [Kind::F16, Kind::BF16, Kind::F32, Kind::F64];
const TEMPERATURE: f64 = 0.7;

macro_rules! codec {
    ($($kind:ident $t:ident $from_f64:expr, $to_f64:expr;)*) => {
        /// A number as the bytes of an element, in this machine's order.
        fn encode(kind: Kind, number: f64) -> Vec<u8> {
            match kind {
                $(Kind::$kind => {
                    let element: $t = $from_f64(number);
                    element.to_ne_bytes().to_vec()
                })*
            }
        }

        /// The number that those bytes stand for.
        fn decode(kind: Kind, bytes: &[u8]) -> f64 {
            match kind {
                $(Kind::$kind => $to_f64($t::from_ne_bytes(bytes.try_into().unwrap())),)*
            }
        }

        const INTEGERS: &[Kind] = {
            let [_, _, _, _, integers @ ..] = &[$(Kind::$kind),*];
            integers
        };
    };
}
codec! {
    F16 f16 f16::from_f64, f16::to_f64;
    BF16 bf16 bf16::from_f64, bf16::to_f64;
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
struct Layout {
    name: &'static str,
    shape: Vec<usize>,
    /// In elements.
    strides: Vec<isize>,
    /// Bytes from a multiple of 64 to the lowest element.
    offset: usize,
    swapped: bool,
}

impl Layout {
    /// C order, each axis some elements longer in memory than it is.
    fn padded(name: &'static str, shape: &[usize], padding: usize) -> Self {
        let mut strides = vec![1; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i] * (shape[i] + padding).cast_signed();
        }
        Self { name, shape: shape.to_vec(), strides, offset: 0, swapped: false }
    }

    fn contiguous(shape: &[usize]) -> Self {
        Self::padded("contiguous", shape, 0)
    }

    /// The axes in another order in memory than in the shape.
    fn transposed(shape: &[usize]) -> Self {
        let reversed: Vec<usize> = shape.iter().copied().rev().collect();
        let mut layout = Self::contiguous(&reversed);
        layout.shape.reverse();
        layout.strides.reverse();
        Self { name: "transposed", ..layout }
    }

    fn with_strides(name: &'static str, shape: &[usize], change: impl Fn(usize, isize) -> isize) -> Self {
        let layout = Self::contiguous(shape);
        let strides = layout.strides.iter().enumerate().map(|(i, &stride)| change(i, stride));
        Self { name, strides: strides.collect(), ..layout }
    }

    /// Those that an output can have.
    fn for_outputs(shape: &[usize]) -> Vec<Self> {
        let last = shape.len() - 1;
        vec![
            Self::contiguous(shape),
            Self { name: "4 bytes beside a line", offset: 4, ..Self::contiguous(shape) },
            Self { name: "8 bytes beside a line", offset: 8, ..Self::contiguous(shape) },
            Self { name: "misaligned", offset: 1, ..Self::contiguous(shape) },
            Self::padded("padded", shape, 3),
            Self::transposed(shape),
            Self::with_strides("every second column", shape, |_, stride| 2 * stride),
            Self::with_strides("reversed", shape, |_, stride| -stride),
            Self::with_strides("rows reversed", shape, |i, s| if i == 0 { -s } else { s }),
            Self::with_strides("columns reversed", shape, |i, s| if i == last { -s } else { s }),
            Self { offset: 3, ..Self::with_strides("reversed, misaligned", shape, |_, s| -3 * s) },
        ]
    }

    fn for_inputs(shape: &[usize]) -> Vec<Self> {
        let mut layouts = Self::for_outputs(shape);
        layouts.push(Self { name: "swapped", swapped: true, ..Self::contiguous(shape) });
        let transposed = Self::transposed(shape);
        layouts.push(Self { name: "transposed, misaligned, swapped", swapped: true, offset: 5, ..transposed });
        for axis in 0..shape.len() {
            let once = |i: usize, stride: isize| if i == axis { 0 } else { stride };
            layouts.push(Self::with_strides("broadcast", shape, once));
        }
        layouts.push(Self::with_strides("broadcast everywhere", shape, |_, _| 0));
        layouts
    }
}

/// An array somewhere in memory, with other bytes around and between its elements.
struct Place {
    layout: Layout,
    kind: Kind,
    bytes: Vec<Cell<u8>>,
    /// Where in the bytes each element lies, in C order.
    elements: Vec<Range<usize>>,
    /// Where in the bytes the first element lies, or would.
    first: usize,
}

impl Place {
    const BACKGROUND: u8 = 0xa5;

    fn new(kind: Kind, layout: &Layout) -> Self {
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

    fn of(kind: Kind, layout: &Layout, mut number: impl FnMut() -> f64) -> Self {
        let place = Self::new(kind, layout);
        for element in &place.elements {
            let mut bytes = encode(kind, number());
            if layout.swapped {
                bytes.reverse();
            }
            for (to, byte) in place.bytes[element.clone()].iter().zip(bytes) {
                to.set(byte);
            }
        }
        place
    }

    /// Logits, now and then one that is not finite.
    fn of_logits(kind: Kind, layout: &Layout, seed: u64) -> Self {
        let random = &mut Random(seed);
        Self::of(kind, layout, || match random.bits() % 400 {
            _ if kind.is_integer() => random.between(0.0, 25.0),
            0 => f64::NAN,
            1 => f64::INFINITY,
            2..10 => f64::NEG_INFINITY,
            _ => random.between(-12.0, 12.0),
        })
    }

    fn array(&self) -> Array {
        let size = self.kind.size().cast_signed();
        Array {
            data: self.bytes.as_ptr().wrapping_add(self.first).cast_mut().cast(),
            kind: self.kind,
            swapped: self.layout.swapped,
            shape: self.layout.shape.clone(),
            strides: self.layout.strides.iter().map(|stride| stride * size).collect(),
        }
    }

    fn matrix(&self, axis: usize) -> Matrix {
        // SAFETY: `bytes` holds every element, may be written through shared references, and outlives every
        // use in these tests, which only look at it in between.
        unsafe { Matrix::new(&self.array(), axis) }
    }

    /// The elements in C order.
    fn numbers(&self) -> Vec<f64> {
        let number = |element: &Range<usize>| {
            let mut bytes: Vec<u8> = self.bytes[element.clone()].iter().map(Cell::get).collect();
            if self.layout.swapped {
                bytes.reverse();
            }
            decode(self.kind, &bytes)
        };
        self.elements.iter().map(number).collect()
    }

    /// Whether the bytes that belong to no element are as they were.
    fn background_is_untouched(&self) -> bool {
        for byte in self.elements.iter().flat_map(|element| &self.bytes[element.clone()]) {
            byte.set(Self::BACKGROUND);
        }
        self.bytes.iter().all(|byte| byte.get() == Self::BACKGROUND)
    }

    /// The same numbers in C order; integers as the doubles that they are computed as.
    fn contiguous_copy(&self) -> Self {
        let kind = if self.kind.is_integer() { Kind::F64 } else { self.kind };
        let mut numbers = self.numbers().into_iter();
        Self::of(kind, &Layout::contiguous(&self.layout.shape), || numbers.next().unwrap())
    }
}

/// How a batch is computed.
#[derive(Clone, Copy, Debug)]
struct Way {
    level: Level,
    threads: usize,
    thresholds: Thresholds,
}

impl Way {
    /// One thread, whole rows, ordinary stores.
    fn plain(level: Level) -> Self {
        let thresholds = Thresholds { parallel: usize::MAX, stream: usize::MAX, task: 1 << 30 };
        Self { level, threads: 1, thresholds }
    }

    /// Several threads, the smallest tasks, rows in chunks where there are few, stores past the caches.
    fn divided(level: Level, threads: usize) -> Self {
        Self { level, threads, thresholds: Thresholds { parallel: 0, stream: 0, task: 1 } }
    }
}

/// The functions, each with all that comes out of it.
#[derive(Clone, Copy, Debug)]
enum Function {
    Softmax,
    LogSoftmax,
    LogSumExp,
    Loss,
    LossAndGradient,
}

impl Function {
    const ALL: [Self; 5] =
        [Self::Softmax, Self::LogSoftmax, Self::LogSumExp, Self::Loss, Self::LossAndGradient];

    /// The bits of everything that the function returns, and then of what it wrote to `out`.
    fn bits(self, way: Way, logits: &Place, axis: usize, out: &Place) -> Vec<u64> {
        let (x, to) = (logits.matrix(axis), out.matrix(axis));
        let mut never = || false;
        let Way { level, threads, thresholds } = way;
        let run = Run { level, threads, thresholds, interrupted: &mut never };
        let class = |row: usize| {
            (row % 5 != 4 && x.columns() > 0).then(|| row.wrapping_mul(7919) % x.columns())
        };
        let classes: Vec<Option<usize>> = (0..x.rows()).map(class).collect();
        let options = |reduction| CrossEntropy {
            temperature: TEMPERATURE,
            reduction,
            normalizer: None,
            on_empty: OnEmpty::Nan,
            sequences: 1,
        };
        let mut numbers = match self {
            Self::Softmax => {
                compute::softmax(run, &x, TEMPERATURE, &to).unwrap();
                vec![]
            }
            Self::LogSoftmax => {
                compute::log_softmax(run, &x, TEMPERATURE, &to).unwrap();
                vec![]
            }
            Self::LogSumExp => compute::logsumexp(run, &x, TEMPERATURE).unwrap(),
            Self::Loss => {
                match compute::cross_entropy(run, &x, &classes, &options(Reduction::None), None) {
                    Ok(Loss::PerRow(losses)) => losses,
                    other => unreachable!("{other:?}"),
                }
            }
            Self::LossAndGradient => {
                let upstream = Upstream::PerRow((0..x.rows()).map(|i| i as f64 / 8.0).collect());
                let (options, gradient) = (options(Reduction::Mean), Some((&to, &upstream)));
                match compute::cross_entropy(run, &x, &classes, &options, gradient) {
                    Ok(Loss::Reduced(loss)) => vec![loss],
                    other => unreachable!("{other:?}"),
                }
            }
        };
        numbers.extend(out.numbers());
        numbers.into_iter().map(bits).collect()
    }

    /// The bits that are expected, an output of the logits' dtype.
    fn plain_bits(self, level: Level, logits: &Place, axis: usize) -> Vec<u64> {
        let copy = logits.contiguous_copy();
        let out = Place::new(copy.kind, &copy.layout);
        self.bits(Way::plain(level), &copy, axis, &out)
    }
}

/// Rows and columns on both sides of the sizes at which the way of working changes.
fn batches() -> Vec<(usize, usize)> {
    let mut batches = vec![(1, 1), (0, 5), (4, 0), (1, 70), (17, 129), (2000, 5), (40, 3000)];
    if !EMULATED {
        batches.extend([(3, CHUNK), (3, CHUNK + 1), (1, 3 * CHUNK + 77), (5, 2 * CHUNK + 1)]);
    }
    batches
}

#[test]
fn results_do_not_depend_on_threads_tasks_or_stores() {
    let level = Level::best();
    for kind in FLOATS {
        for (rows, columns) in batches() {
            let logits = Place::of_logits(kind, &Layout::contiguous(&[rows, columns]), 1);
            let out = Place::new(kind, &logits.layout);
            for function in Function::ALL {
                let expected = function.plain_bits(level, &logits, 1);
                for threads in [1, 2, 3, 4, 7, 8] {
                    for task in [1, 50_000] {
                        for stream in [0, usize::MAX] {
                            let thresholds = Thresholds { parallel: 0, stream, task };
                            let way = Way { level, threads, thresholds };
                            let got = function.bits(way, &logits, 1, &out);
                            assert!(got == expected, "{function:?} of {rows} x {columns} {kind:?}, {way:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_alone_as_in_a_batch() {
    let (rows, columns) = (9, if EMULATED { 300 } else { CHUNK + 300 });
    let level = Level::best();
    for kind in FLOATS {
        let logits = Place::of_logits(kind, &Layout::contiguous(&[rows, columns]), 2);
        let numbers = logits.numbers();
        for function in [Function::Softmax, Function::LogSoftmax] {
            let batch = function.bits(Way::divided(level, 2), &logits, 1, &Place::new(kind, &logits.layout));
            for (row, expected) in numbers.chunks(columns).zip(batch.chunks(columns)) {
                let mut row = row.iter().copied();
                let alone = Place::of(kind, &Layout::contiguous(&[columns]), || row.next().unwrap());
                assert!(function.plain_bits(level, &alone, 0) == expected, "{function:?} {kind:?}");
            }
        }
    }
}

#[test]
fn every_level_with_a_fused_multiply_add_gives_the_same() {
    for kind in FLOATS {
        for (rows, columns) in batches() {
            let logits = Place::of_logits(kind, &Layout::contiguous(&[rows, columns]), 3);
            for function in Function::ALL {
                let expected = function.plain_bits(Level::best(), &logits, 1);
                for level in Level::available().into_iter().filter(|level| is_fused(level.name())) {
                    let got = function.plain_bits(level, &logits, 1);
                    assert!(got == expected, "{function:?} of {rows} x {columns} {kind:?}, {level:?}");
                }
            }
        }
    }
}

/// Computes from every layout of logits into every layout of outputs, and in place.
fn check_layouts(kind: Kind, shape: &[usize], axis: usize, ways: &[Way]) {
    let out_kind = if kind.is_integer() { Kind::F64 } else { kind };
    for (seed, layout) in Layout::for_inputs(shape).iter().enumerate() {
        let logits = Place::of_logits(kind, layout, seed as u64);
        for function in Function::ALL {
            for &way in ways {
                let expected = function.plain_bits(way.level, &logits, axis);
                let about = || format!("{function:?} of {kind:?} {layout:?} along {axis}, {way:?}");
                for out in Layout::for_outputs(shape) {
                    let out = Place::new(out_kind, &out);
                    let got = function.bits(way, &logits, axis, &out);
                    let blank = Place::new(out_kind, &out.layout).numbers();
                    let written = !matches!(function, Function::LogSumExp | Function::Loss);
                    let same = if written {
                        got == expected
                    } else {
                        let rows = got.len() - blank.len();
                        got[..rows] == expected[..rows]
                    };
                    assert!(same, "{}, to {}", about(), out.layout.name);
                    assert!(out.background_is_untouched(), "{}, beside {}", about(), out.layout.name);
                }
                let distinct = layout.strides.iter().all(|&stride| stride != 0);
                if distinct && !layout.swapped && kind == out_kind {
                    let place = Place::of_logits(kind, layout, seed as u64);
                    if matches!(function, Function::LogSumExp | Function::Loss) {
                        continue;
                    }
                    let got = function.bits(way, &place, axis, &place);
                    assert!(got == expected, "{}, in place", about());
                    assert!(place.background_is_untouched(), "{}, in place", about());
                }
            }
        }
    }
}
