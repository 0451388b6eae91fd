//! The sweep over a batch: the same bits however the work is cut up and wherever the arrays lie.
//!
//! What a batch should give is computed once, on one thread, from a contiguous copy that the test reads out of
//! the array element by element. Everything else has to agree with that bit for bit, and to leave alone every
//! byte that is no element of its output.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod twin;

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
use twin::{BF16, F16, Random, bits, is_fused, thinned};

const FLOATS: [Kind; 4] = [Kind::F16, Kind::BF16, Kind::F32, Kind::F64];
const INTEGERS: [Kind; 8] =
    [Kind::I8, Kind::I16, Kind::I32, Kind::I64, Kind::U8, Kind::U16, Kind::U32, Kind::U64];
const TEMPERATURE: f64 = 0.7;

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
struct Layout {
    shape: Vec<usize>,
    /// In elements.
    strides: Vec<isize>,
    /// Bytes from a multiple of 64 to the lowest element.
    offset: usize,
    swapped: bool,
}

impl Layout {
    /// C order, each axis some elements longer in memory than it is.
    fn padded(shape: &[usize], padding: usize) -> Self {
        let mut strides = vec![1; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i] * (shape[i] + padding).cast_signed();
        }
        Self { shape: shape.to_vec(), strides, offset: 0, swapped: false }
    }

    fn contiguous(shape: &[usize]) -> Self {
        Self::padded(shape, 0)
    }

    /// The axes in memory in the opposite order.
    fn transposed(shape: &[usize]) -> Self {
        let reversed: Vec<usize> = shape.iter().copied().rev().collect();
        let mut layout = Self::contiguous(&reversed);
        layout.shape.reverse();
        layout.strides.reverse();
        layout
    }

    /// C order with other strides, each made from the number of its axis and the stride that it had.
    fn strided(shape: &[usize], stride: impl Fn(usize, isize) -> isize) -> Self {
        let layout = Self::contiguous(shape);
        let strides = layout.strides.iter().enumerate().map(|(axis, &s)| stride(axis, s)).collect();
        Self { strides, ..layout }
    }

    fn beside_a_line(self, offset: usize) -> Self {
        Self { offset, ..self }
    }

    fn swapped(self) -> Self {
        Self { swapped: true, ..self }
    }

    /// Layouts that an output can have.
    fn for_outputs(shape: &[usize]) -> Vec<Self> {
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
    fn for_inputs(shape: &[usize]) -> Vec<Self> {
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
    fn of_logits(kind: Kind, layout: &Layout, seed: u64) -> Self {
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

    /// Whether it is of the right byte order and every element has a place of its own.
    fn can_be_output(&self) -> bool {
        let mut starts: Vec<usize> = self.elements.iter().map(|element| element.start).collect();
        starts.sort_unstable();
        starts.dedup();
        !self.layout.swapped && starts.len() == self.elements.len()
    }

    /// The elements in C order.
    fn numbers(&self) -> Vec<f64> {
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
    fn background_is_untouched(self) -> bool {
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

    fn writes(self) -> bool {
        matches!(self, Self::Softmax | Self::LogSoftmax | Self::LossAndGradient)
    }

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
        if self.writes() {
            numbers.extend(out.numbers());
        }
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
    let small = [(1, 1), (0, 5), (4, 0), (1, 70), (17, 129), (2000, 5), (40, 3000)];
    let large = [(1, 3 * CHUNK + 77), (3, CHUNK), (3, CHUNK + 1), (5, 2 * CHUNK + 1)];
    small.into_iter().chain(large.into_iter().step_by(thinned(4))).collect()
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
                for threads in [7, 1, 2, 3, 4, 8].into_iter().step_by(thinned(6)) {
                    for (task, stream) in [(1, 0), (50_000, usize::MAX)] {
                        let thresholds = Thresholds { parallel: 0, stream, task };
                        let way = Way { level, threads, thresholds };
                        let got = function.bits(way, &logits, 1, &out);
                        let about = || format!("{function:?} of {rows} x {columns} {kind:?}");
                        assert!(got == expected, "{}, {way:?}", about());
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_alone_as_in_a_batch() {
    let (rows, columns) = (9, CHUNK / thinned(64) + 300);
    let level = Level::best();
    for kind in FLOATS {
        let logits = Place::of_logits(kind, &Layout::contiguous(&[rows, columns]), 2);
        let numbers = logits.numbers();
        for function in [Function::Softmax, Function::LogSoftmax] {
            let out = Place::new(kind, &logits.layout);
            let batch = function.bits(Way::divided(level, 2), &logits, 1, &out);
            for (row, expected) in numbers.chunks(columns).zip(batch.chunks(columns)) {
                let mut row = row.iter().copied();
                let alone =
                    Place::of(kind, &Layout::contiguous(&[columns]), || row.next().unwrap());
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
            let levels = || Level::available().into_iter().filter(|level| is_fused(level.name()));
            for function in Function::ALL {
                let results: Vec<_> =
                    levels().map(|level| function.plain_bits(level, &logits, 1)).collect();
                let same = results.iter().all(|result| *result == results[0]);
                assert!(same, "{function:?} of {rows} x {columns} {kind:?}");
            }
        }
    }
}

/// Computes from each layout of logits to each layout of outputs, and in place.
fn check_layouts(
    kind: Kind,
    axis: usize,
    functions: &[Function],
    layouts: &[Layout],
    outputs: &[Layout],
) {
    let out_kind = if kind.is_integer() { Kind::F64 } else { kind };
    let level = Level::best();
    for (seed, layout) in layouts.iter().enumerate() {
        let logits = || Place::of_logits(kind, layout, seed as u64);
        let from = logits();
        for &function in functions {
            let expected = function.plain_bits(level, &from, axis);
            for way in [Way::plain(level), Way::divided(level, 3)] {
                let about = || format!("{function:?} of {kind:?} {layout:?} along {axis}, {way:?}");
                for output in outputs {
                    let out = Place::new(out_kind, output);
                    let got = function.bits(way, &from, axis, &out);
                    assert!(got == expected, "{}, to {output:?}", about());
                    assert!(out.background_is_untouched(), "{}, beside {output:?}", about());
                }
                if from.can_be_output() && kind == out_kind {
                    let place = logits();
                    let got = function.bits(way, &place, axis, &place);
                    assert!(got == expected, "{}, in place", about());
                    assert!(place.background_is_untouched(), "{}, in place", about());
                }
            }
        }
    }
}

#[test]
fn every_layout_gives_what_a_contiguous_copy_gives() {
    let all = &Function::ALL;
    let shape = [4, 5, 37];
    let (layouts, outputs) = (Layout::for_inputs(&shape), Layout::for_outputs(&shape));
    for axis in (0..3).step_by(thinned(2)) {
        for kind in FLOATS.into_iter().step_by(thinned(2)) {
            check_layouts(kind, axis, all, &layouts, &outputs);
        }
        for kind in INTEGERS.into_iter().step_by(thinned(3)) {
            check_layouts(kind, axis, all, &layouts, &outputs[..1]);
        }
    }
    for kind in FLOATS {
        check_layouts(kind, 0, all, &Layout::for_inputs(&[9]), &Layout::for_outputs(&[9]));
    }
}

#[test]
fn rows_that_are_gathered_in_several_chunks_give_what_a_contiguous_copy_gives() {
    let functions = [Function::LogSoftmax, Function::LossAndGradient];
    let few = CHUNK + 5;
    let shapes = [([few, 3], 0), ([few, 20], 0), ([3, 2 * CHUNK + 5], 1)];
    for (shape, axis) in shapes.iter().step_by(thinned(3)) {
        let layouts = [
            Layout::contiguous(shape),
            Layout::transposed(shape),
            Layout::strided(shape, |_, stride| 2 * stride),
        ];
        let outputs = [Layout::contiguous(shape), Layout::strided(shape, |_, stride| -stride)];
        check_layouts(Kind::F32, *axis, &functions, &layouts, &outputs);
    }
}

#[test]
fn an_output_of_another_dtype_is_the_result_rounded_once() {
    let shape = [3, 300];
    for kind in FLOATS {
        let logits = Place::of_logits(kind, &Layout::contiguous(&shape), 4);
        let way = Way::plain(Level::best());
        for function in [Function::Softmax, Function::LogSoftmax] {
            let wide_kind = if kind == Kind::F64 { Kind::F64 } else { Kind::F32 };
            let wide = Place::new(wide_kind, &logits.layout);
            function.bits(way, &logits, 1, &wide);
            let wide = wide.numbers();
            for out_kind in FLOATS {
                let out = Place::new(out_kind, &logits.layout);
                let got = function.bits(way, &logits, 1, &out);
                let mut numbers = wide.iter().copied();
                let rounded = Place::of(out_kind, &logits.layout, || numbers.next().unwrap());
                let expected: Vec<u64> = rounded.numbers().into_iter().map(bits).collect();
                assert!(got == expected, "{function:?} of {kind:?} as {out_kind:?}");
            }
        }
    }
}

#[test]
fn large_integers_are_rounded_to_the_nearest_double() {
    fn lse(kind: Kind, bytes: [u8; 8]) -> f64 {
        let bytes = bytes.map(Cell::new);
        let data = bytes.as_ptr().cast_mut().cast();
        let array = Array { data, kind, swapped: false, shape: vec![1], strides: vec![8] };
        // SAFETY: the array is the eight bytes, which nothing else uses.
        let logits = unsafe { Matrix::new(&array, 0) };
        let Way { level, threads, thresholds } = Way::plain(Level::best());
        let run = Run { level, threads, thresholds, interrupted: &mut || false };
        compute::logsumexp(run, &logits, 1.0).unwrap()[0]
    }
    assert_eq!(lse(Kind::I64, (i64::MIN + 1).to_ne_bytes()), -9_223_372_036_854_775_808.0);
    assert_eq!(lse(Kind::I64, 9_007_199_254_740_993_i64.to_ne_bytes()), 9_007_199_254_740_992.0);
    assert_eq!(lse(Kind::I64, 9_007_199_254_740_995_i64.to_ne_bytes()), 9_007_199_254_740_996.0);
    assert_eq!(lse(Kind::U64, u64::MAX.to_ne_bytes()), 18_446_744_073_709_551_616.0);
}

/// Reads class ids from an array.
fn classes_of(
    targets: &Place,
    ignored: &[i128],
    classes: usize,
) -> Result<Vec<Option<usize>>, Error> {
    // SAFETY: every element lies in the bytes of `targets`.
    unsafe { read_classes(&targets.array(), ignored, classes) }
}

#[test]
fn class_ids_are_read_from_every_layout_of_every_integer_dtype() {
    for kind in INTEGERS {
        for (seed, layout) in Layout::for_inputs(&[3, 2, 5]).iter().enumerate() {
            let random = &mut Random(seed as u64);
            let targets = Place::of(kind, layout, || random.between(-3.0, 100.0).trunc());
            let numbers = targets.numbers();
            let class = |&id: &f64| (id != 7.0 && id >= 0.0).then_some(id as usize);
            let expected: Vec<Option<usize>> = numbers.iter().map(class).collect();
            let ignored = [7, -1, -2, -3];
            assert_eq!(classes_of(&targets, &ignored, 100), Ok(expected), "{kind:?} {layout:?}");
        }
    }
}

#[test]
fn a_class_id_out_of_range_is_named_with_its_position() {
    let layout = Layout::contiguous(&[2, 3]);
    for kind in INTEGERS {
        let mut ids = [0.0, 3.0, 9.0, 1.0, 10.0, 11.0].into_iter();
        let targets = Place::of(kind, &layout, || ids.next().unwrap());
        let error = Error::Class { position: vec![1, 1], class: 10, classes: 10 };
        assert_eq!(classes_of(&targets, &[], 10), Err(error), "{kind:?}");
        assert_eq!(
            classes_of(&targets, &[10, 11], 10).map(|ids| ids[4..].to_vec()),
            Ok(vec![None; 2])
        );
    }
    let minus_one = Place::of(Kind::I8, &Layout::contiguous(&[1]), || -1.0);
    let error = Error::Class { position: vec![0], class: -1, classes: usize::MAX };
    assert_eq!(classes_of(&minus_one, &[255], usize::MAX), Err(error));
    let largest = Place::of(Kind::U64, &Layout::contiguous(&[1]), || u64::MAX as f64);
    let error = Error::Class { position: vec![0], class: u64::MAX.into(), classes: 5 };
    assert_eq!(classes_of(&largest, &[-1], 5), Err(error));
}

#[test]
fn a_confident_row_keeps_the_digits_of_its_small_loss_and_gradient() {
    for kind in FLOATS {
        let logits = Place::of(kind, &Layout::contiguous(&[1, 2]), {
            let mut numbers = [0.0, -28.0].into_iter();
            move || numbers.next().unwrap()
        });
        let out = Place::new(Kind::F64, &logits.layout);
        for level in Level::available() {
            // The class of row 0 is 0; its loss is log1p(exp(-28 / 0.7)).
            let loss = Function::Loss.bits(Way::plain(level), &logits, 1, &out);
            let loss = f64::from_bits(loss[0]);
            assert!((loss / 4.248354255291589e-18 - 1.0).abs() < 1e-6, "{level:?}: {loss}");
        }
    }
}

#[test]
fn results_are_those_of_the_formula() {
    for kind in FLOATS {
        let (rows, columns) = (10, 700);
        let random = &mut Random(5);
        let logits =
            Place::of(kind, &Layout::contiguous(&[rows, columns]), || random.between(-9.0, 9.0));
        let numbers = logits.numbers();
        // Doubles, so that nothing is lost where the result is stored.
        let out = Place::new(Kind::F64, &logits.layout);
        for level in Level::available() {
            let way = Way::plain(level);
            let compute = |function: Function| -> Vec<f64> {
                function.bits(way, &logits, 1, &out).into_iter().map(f64::from_bits).collect()
            };
            let softmax = compute(Function::Softmax);
            let log_softmax = compute(Function::LogSoftmax);
            let lse = compute(Function::LogSumExp);
            let loss = compute(Function::Loss);
            let gradient = compute(Function::LossAndGradient);
            let precision = if kind == Kind::F64 { f64::EPSILON } else { f32::EPSILON.into() };
            let close = |got: f64, expected: f64, scale: f64, what: &str| {
                let near = (got - expected).abs() <= 60.0 * precision * scale;
                assert!(near, "{what} of {kind:?}, {level:?}: {got}, not {expected}");
            };
            let mut total = 0.0;
            for (row, x) in numbers.chunks(columns).enumerate() {
                let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let exps: Vec<f64> = x.iter().map(|x| ((x - max) / TEMPERATURE).exp()).collect();
                // In two stages: a single chain of additions would be off by more than the kernel.
                let sum: f64 = exps.chunks(180).map(|part| part.iter().sum::<f64>()).sum();
                let exact = max / TEMPERATURE + sum.ln();
                close(lse[row], exact, 1.0 + exact.abs(), "lse");
                let class = (row % 5 != 4).then_some(row * 7919 % columns);
                let nll = class.map_or(0.0, |class| exact - x[class] / TEMPERATURE);
                close(loss[row], nll, 1.0 + nll, "loss");
                total += nll;
                for (i, x) in x.iter().enumerate() {
                    let at = row * columns + i;
                    let log_p = x / TEMPERATURE - exact;
                    let p = exps[i] / sum;
                    close(softmax[at], p, p, "softmax");
                    close(log_softmax[at], log_p, 1.0 + log_p.abs(), "log-softmax");
                    let target = f64::from(class == Some(i));
                    let weight = if class.is_some() { row as f64 / 8.0 / 8.0 } else { 0.0 };
                    let expected = (p - target) * weight / TEMPERATURE;
                    close(gradient[1 + at], expected, expected.abs(), "gradient");
                }
            }
            close(gradient[0], total / 8.0, 1.0 + total / 8.0, "mean loss");
        }
    }
}
