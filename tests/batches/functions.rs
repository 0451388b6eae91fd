//! The functions of the crate behind one face: how each is run on an array, and all the bits that come out of it.

use crate::TEMPERATURE;
use crate::arrays::{Layout, Place};
use crate::twin::{Random, bits};
use softxent::compute::{self, Labels, Loss, LossWeights, Targets, Teacher, Upstream};
use softxent::element::Kind;
use softxent::loss::{CrossEntropy, Divergence, OnEmpty, Reducing, Reduction};
use softxent::simd::Level;
use softxent::sweep::{Input, Run, Thresholds};

/// How a batch is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) level: Level,
    pub(crate) threads: usize,
    pub(crate) thresholds: Thresholds,
}

impl Way {
    /// One thread, whole rows, ordinary stores.
    pub(crate) fn plain(level: Level) -> Self {
        let thresholds = Thresholds { parallel: usize::MAX, stream: usize::MAX, task: 1 << 30 };
        Self { level, threads: 1, thresholds }
    }

    /// Several threads, the smallest tasks, rows in chunks where there are few, stores past the caches.
    pub(crate) fn divided(level: Level, threads: usize) -> Self {
        Self { level, threads, thresholds: Thresholds { parallel: 0, stream: 0, task: 1 } }
    }
}

/// The functions, each with all that comes out of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Function {
    Softmax,
    LogSoftmax,
    LogSumExp,
    Loss,
    LossAndGradient,
    /// The loss and its gradient with weights, smoothing, a z-loss, a soft cap and a mask.
    WithOptions,
    /// A Jensen-Shannon divergence and its gradient, from a teacher in another precision.
    Divergence,
    /// The gradient and the Hessian, the latter to an array like the output.
    GradHess,
}

impl Function {
    pub(crate) const ALL: [Self; 8] = [
        Self::Softmax,
        Self::LogSoftmax,
        Self::LogSumExp,
        Self::Loss,
        Self::LossAndGradient,
        Self::WithOptions,
        Self::Divergence,
        Self::GradHess,
    ];

    pub(crate) fn writes(self) -> bool {
        !matches!(self, Self::LogSumExp | Self::Loss)
    }

    /// The bits of everything that the function returns, and then of what it wrote to `out`.
    pub(crate) fn bits(self, way: Way, logits: &Place, axis: usize, out: &Place) -> Vec<u64> {
        let (x, to) = (logits.matrix(axis), out.matrix(axis));
        let mut never = || false;
        let Way { level, threads, thresholds } = way;
        let run = Run { level, threads, thresholds, interrupted: &mut never };
        let class = |row: usize| {
            (row % 5 != 4 && x.columns() > 0).then(|| row.wrapping_mul(7919) % x.columns())
        };
        let classes: Vec<Option<usize>> = (0..x.rows()).map(class).collect();
        let targets = Targets::Classes(classes.clone());
        let weights = LossWeights::default();
        let reducing = |reduction| Reducing {
            reduction,
            normalizer: None,
            on_empty: OnEmpty::Nan,
            sequences: 1,
        };
        let options = |reduction| CrossEntropy {
            label_smoothing: 0.0,
            z_loss: 0.0,
            reducing: reducing(reduction),
        };
        let shape = &logits.layout.shape;
        let input = Input::plain(x.clone(), TEMPERATURE);
        let mut numbers = match self {
            Self::Softmax => {
                compute::softmax(run, &input, &to).unwrap();
                vec![]
            }
            Self::LogSoftmax => {
                compute::log_softmax(run, &input, &to).unwrap();
                vec![]
            }
            Self::LogSumExp => compute::logsumexp(run, &input).unwrap(),
            Self::Loss => {
                let options = options(Reduction::None);
                match compute::cross_entropy(run, &input, &targets, &weights, &options, None) {
                    Ok(Loss::PerRow(losses)) => losses,
                    other => unreachable!("{other:?}"),
                }
            }
            Self::LossAndGradient => {
                let upstream = Upstream::PerRow((0..x.rows()).map(|i| i as f64 / 8.0).collect());
                let (options, gradient) = (options(Reduction::Mean), Some((&to, &upstream)));
                match compute::cross_entropy(run, &input, &targets, &weights, &options, gradient) {
                    Ok(Loss::Reduced(loss)) => vec![loss],
                    other => unreachable!("{other:?}"),
                }
            }
            Self::WithOptions => {
                // A quarter of the classes of each row are masked; of the others every weight is its own.
                let random = &mut Random(11);
                let mask = Place::of(Kind::U8, &Layout::contiguous(shape), || {
                    f64::from(u8::from(!random.bits().is_multiple_of(4)))
                });
                let columns = x.columns();
                let by_class = |i: usize| 1.0 + (i % 7) as f64 / 8.0;
                let mut strides = vec![0; shape.len()];
                strides[axis] = 1;
                let layout = Layout { strides, ..Layout::contiguous(shape) };
                let index = axis_index(shape, axis);
                let mut places = index.iter();
                let classes = Place::of(Kind::F64, &layout, || by_class(*places.next().unwrap()));
                let weights = LossWeights {
                    classes: Some(((0..columns).map(by_class).collect(), classes.matrix(axis))),
                    rows: Some((0..x.rows()).map(|row| (row % 3) as f64).collect()),
                };
                let input = Input::new(x, TEMPERATURE, Some(9.0), columns, Some(mask.matrix(axis)));
                let options = CrossEntropy {
                    label_smoothing: 0.25,
                    z_loss: 0.125,
                    ..options(Reduction::None)
                };
                let gradient = Some((&to, &Upstream::Scalar(0.5)));
                match compute::cross_entropy(run, &input, &targets, &weights, &options, gradient) {
                    Ok(Loss::PerRow(losses)) => losses,
                    other => unreachable!("{other:?}"),
                }
            }
            Self::Divergence => {
                // Integers are computed as doubles, and a copy of them in doubles needs the same teacher.
                let doubles = logits.kind == Kind::F64 || logits.kind.is_integer();
                let kind = if doubles { Kind::F32 } else { Kind::F64 };
                let teacher = Place::of_logits(kind, &Layout::contiguous(shape), 12);
                let divergence = Divergence::jensen_shannon(0.25);
                let logits = &teacher.matrix(axis);
                let teacher = Teacher { logits, are_probabilities: false, divergence };
                let ignored: Vec<bool> = classes.iter().map(Option::is_none).collect();
                let (ignored, gradient) = (Some(&*ignored), Some((&to, &Upstream::Scalar(0.5))));
                let reducing = reducing(Reduction::None);
                match compute::divergence(run, &input, teacher, ignored, &reducing, gradient) {
                    Ok(Loss::PerRow(losses)) => losses,
                    other => unreachable!("{other:?}"),
                }
            }
            Self::GradHess => {
                let hess = Place::new(out.kind, &out.layout);
                let labels = Labels { classes: &classes, class_weights: None, row_weights: None };
                compute::softmax_grad_hess(run, x, labels, &to, &hess.matrix(axis)).unwrap();
                let numbers = hess.numbers();
                assert!(hess.background_is_untouched(), "beside the Hessian, {way:?}");
                numbers
            }
        };
        if self.writes() {
            numbers.extend(out.numbers());
        }
        numbers.into_iter().map(bits).collect()
    }

    /// The bits that are expected, an output of the logits' dtype.
    pub(crate) fn plain_bits(self, level: Level, logits: &Place, axis: usize) -> Vec<u64> {
        let copy = logits.contiguous_copy();
        let out = Place::new(copy.kind, &copy.layout);
        self.bits(Way::plain(level), &copy, axis, &out)
    }
}

/// For each element in C order its place along an axis.
fn axis_index(shape: &[usize], axis: usize) -> Vec<usize> {
    let inner: usize = shape[axis + 1..].iter().product();
    (0..shape.iter().product()).map(|i: usize| i / inner % shape[axis]).collect()
}
