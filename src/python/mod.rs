//! The Python boundary: arguments in, arrays out, the interpreter's lock released in between. No arithmetic.
//!
//! Functions here take all arguments by position; names, defaults and documentation are in
//! `python/softxent/functions.py`.

mod arrays;
mod dlpack;
mod errors;

use crate::batch::{Matrix, read_classes};
use crate::compute::{self, Loss, Upstream};
use crate::error::{Error, shape};
use crate::loss::{CrossEntropy, OnEmpty, Reduction};
use crate::simd::Level;
use crate::sweep::{Run, Thresholds};
use crate::threads;
use arrays::{Accept, ResultType, View, doubles};
use pyo3::exceptions::{PyImportError, PyOverflowError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

/// The instruction set, chosen at import.
static LEVEL: OnceLock<Level> = OnceLock::new();
/// What the environment says about threads, read at import.
static DEFAULT_THREADS: OnceLock<usize> = OnceLock::new();
/// What `set_threads` said; 0 for nothing.
static CHOSEN_THREADS: AtomicUsize = AtomicUsize::new(0);
/// What `_set_thresholds` said.
static THRESHOLDS: RwLock<Option<Thresholds>> = RwLock::new(None);

#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::{
        _set_thresholds, cross_entropy, cross_entropy_with_grad, get_threads, log_softmax,
        logsumexp, runtime, set_threads, softmax,
    };
    use super::{DEFAULT_THREADS, LEVEL, default_threads, level_from_environment};
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        let (level, threads) = (level_from_environment()?, default_threads()?);
        LEVEL.get_or_init(|| level);
        DEFAULT_THREADS.get_or_init(|| threads);
        Ok(())
    }
}

fn level_from_environment() -> PyResult<Level> {
    match std::env::var("SOFTXENT_ISA") {
        Ok(name) if !name.is_empty() => Level::named(&name).map_err(|unknown| {
            PyImportError::new_err(format!(
                "SOFTXENT_ISA: expected one of {} on this processor, got {}",
                unknown.available.join(", "),
                unknown.name
            ))
        }),
        _ => Ok(Level::best()),
    }
}

fn default_threads() -> PyResult<usize> {
    if let Ok(text) = std::env::var("SOFTXENT_NUM_THREADS")
        && !text.is_empty()
    {
        let number = text.trim().parse().ok().filter(|&number: &usize| number >= 1);
        return number.ok_or_else(|| {
            PyImportError::new_err(format!(
                "SOFTXENT_NUM_THREADS: expected a number >= 1, got {text}"
            ))
        });
    }
    // A list gives the threads of nested levels; the first is ours. What is not a number is not ours to judge.
    let openmp = std::env::var("OMP_NUM_THREADS").ok();
    let openmp = openmp.as_deref().and_then(|list| list.split(',').next()?.trim().parse().ok());
    Ok(openmp.filter(|&number: &usize| number >= 1).unwrap_or_else(threads::available))
}

/// The number of threads of a call.
fn threads_of(asked: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
    if let Some(asked) = asked {
        let number: i64 = integer(asked, "threads")?;
        return match usize::try_from(number) {
            Ok(number) if number >= 1 => Ok(number),
            _ => Err(Error::value("threads", "a number >= 1", number).into()),
        };
    }
    Ok(match CHOSEN_THREADS.load(Ordering::Relaxed) {
        0 => DEFAULT_THREADS.get().copied().unwrap_or(1),
        chosen => chosen,
    })
}

#[pyfunction]
#[pyo3(signature = (threads, /))]
fn set_threads(threads: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let number = threads.map_or(Ok(0), |threads| threads_of(Some(threads)))?;
    CHOSEN_THREADS.store(number, Ordering::Relaxed);
    Ok(())
}

#[pyfunction]
fn get_threads() -> PyResult<usize> {
    threads_of(None)
}

#[pyfunction]
fn runtime(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let facts = PyDict::new(py);
    facts.set_item("version", env!("CARGO_PKG_VERSION"))?;
    facts.set_item("isa", LEVEL.get().map_or("none", |level| level.name()))?;
    facts.set_item("threads", get_threads()?)?;
    facts.set_item("profile", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    Ok(facts)
}

/// For tests: sets the sizes at which the way of working changes; None is the default.
#[pyfunction]
#[pyo3(signature = (parallel, stream, task, /))]
fn _set_thresholds(parallel: Option<usize>, stream: Option<usize>, task: Option<usize>) {
    let default = Thresholds::default();
    *THRESHOLDS.write().unwrap_or_else(PoisonError::into_inner) = Some(Thresholds {
        parallel: parallel.unwrap_or(default.parallel),
        stream: stream.unwrap_or(default.stream),
        task: task.unwrap_or(default.task).max(1),
    });
}

/// Runs `work` without the interpreter's lock. Ctrl-C and panics come back as errors.
fn detached<T: Send>(
    py: Python<'_>,
    threads: usize,
    work: impl FnOnce(Run<'_>) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let thresholds = THRESHOLDS.read().unwrap_or_else(PoisonError::into_inner).unwrap_or_default();
    let level = LEVEL.get().copied().unwrap_or_else(Level::best);
    let (result, signal) = py.detach(|| {
        let mut signal = None;
        let mut interrupted = || {
            signal = Python::attach(|py| py.check_signals()).err();
            signal.is_some()
        };
        let run = Run { level, threads, thresholds, interrupted: &mut interrupted };
        let result = catch_unwind(AssertUnwindSafe(|| work(run)))
            .unwrap_or_else(|_| Err(Error::Panic(String::from("outside of the tasks"))));
        (result, signal)
    });
    signal.map_or(Ok(()), Err)?;
    Ok(result?)
}

/// Python's bool or NumPy's: a number to Python, but never one that was meant.
fn is_bool(value: &Bound<'_, PyAny>) -> bool {
    let numpys = || value.getattr("dtype")?.getattr("kind")?.eq("b");
    value.is_instance_of::<PyBool>() || numpys().unwrap_or(false)
}

fn wrong_type(value: &Bound<'_, PyAny>, argument: &'static str, expected: &str) -> PyErr {
    match value.get_type().name() {
        Ok(name) => Error::of_type(argument, expected, name).into(),
        Err(error) => error,
    }
}

/// An integer; the nearest there is for those that do not fit.
fn integer(value: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<i64> {
    if is_bool(value) {
        return Err(wrong_type(value, argument, "an integer"));
    }
    match value.extract() {
        Ok(number) => Ok(number),
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            Ok(if value.lt(0)? { i64::MIN } else { i64::MAX })
        }
        Err(_) => Err(wrong_type(value, argument, "an integer")),
    }
}

fn number(value: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<f64> {
    if is_bool(value) || value.is_instance_of::<PyString>() {
        return Err(wrong_type(value, argument, "a number"));
    }
    match value.extract() {
        Ok(number) => Ok(number),
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => Ok(f64::INFINITY),
        Err(_) => Err(wrong_type(value, argument, "a number")),
    }
}

fn positive(value: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<f64> {
    let number = number(value, argument)?;
    if number > 0.0 && number.is_finite() {
        Ok(number)
    } else {
        Err(Error::value(argument, "a positive finite number", number).into())
    }
}

/// One of a few words.
fn choice<T: Copy>(
    value: &Bound<'_, PyAny>,
    argument: &'static str,
    choices: &[(&str, T)],
) -> PyResult<T> {
    let text = value.cast::<PyString>().ok().map(|text| text.to_cow()).transpose()?;
    match choices.iter().find(|(name, _)| Some(*name) == text.as_deref()) {
        Some((_, choice)) => Ok(*choice),
        None => {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
            Err(Error::value(argument, names.join(", "), value.repr()?).into())
        }
    }
}

/// Softmax or its logarithm.
fn probabilities<'py>(
    logits: &Bound<'py, PyAny>,
    axis: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    dtype: Option<&Bound<'py, PyAny>>,
    threads: Option<&Bound<'py, PyAny>>,
    compute: impl FnOnce(Run<'_>, &Matrix, f64, &Matrix) -> Result<(), Error> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    let py = logits.py();
    let view = View::of(logits, "logits", Accept::Numbers)?;
    let axis = view.axis(integer(axis, "axis")? as isize)?;
    let temperature = positive(temperature, "temperature")?;
    let threads = threads_of(threads)?;
    let result_type = ResultType::like_logits(&view, dtype)?;
    let result = match out {
        Some(out) => result_type.checked_out(out, &view, &[])?,
        None => result_type.empty_like(&view)?,
    };
    let (from, to) = (view.matrix(axis), result.matrix(axis));
    detached(py, threads, |run| compute(run, &from, temperature, &to))?;
    Ok(out.cloned().unwrap_or_else(|| result.object.into_any()))
}

#[pyfunction]
#[pyo3(signature = (logits, axis, temperature, out, dtype, threads, /))]
fn softmax<'py>(
    logits: &Bound<'py, PyAny>,
    axis: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    dtype: Option<&Bound<'py, PyAny>>,
    threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    probabilities(logits, axis, temperature, out, dtype, threads, compute::softmax)
}

#[pyfunction]
#[pyo3(signature = (logits, axis, temperature, out, dtype, threads, /))]
fn log_softmax<'py>(
    logits: &Bound<'py, PyAny>,
    axis: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    dtype: Option<&Bound<'py, PyAny>>,
    threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    probabilities(logits, axis, temperature, out, dtype, threads, compute::log_softmax)
}

#[pyfunction]
#[pyo3(signature = (logits, axis, keepdims, temperature, dtype, threads, /))]
fn logsumexp<'py>(
    logits: &Bound<'py, PyAny>,
    axis: &Bound<'py, PyAny>,
    keepdims: &Bound<'py, PyAny>,
    temperature: &Bound<'py, PyAny>,
    dtype: Option<&Bound<'py, PyAny>>,
    threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = logits.py();
    let view = View::of(logits, "logits", Accept::Numbers)?;
    let axis = view.axis(integer(axis, "axis")? as isize)?;
    let temperature = positive(temperature, "temperature")?;
    let threads = threads_of(threads)?;
    let result_type = ResultType::like_loss(&view, dtype)?;
    let mut shape = view.rows_shape(axis);
    let keepdims = keepdims.extract().map_err(|_| wrong_type(keepdims, "keepdims", "a bool"))?;
    if keepdims {
        shape.insert(axis, 1);
    }
    let from = view.matrix(axis);
    let lse = detached(py, threads, |run| compute::logsumexp(run, &from, temperature))?;
    result_type.array_of(py, lse, &shape)
}

/// The arguments that `cross_entropy` and `cross_entropy_with_grad` share, checked.
struct LossCall<'py> {
    logits: View<'py>,
    axis: usize,
    /// Everything else that was read.
    inputs: Vec<View<'py>>,
    classes: Vec<Option<usize>>,
    options: CrossEntropy,
    result_type: ResultType<'py>,
    threads: usize,
}

impl<'py> LossCall<'py> {
    #[expect(clippy::too_many_arguments, reason = "one for each option of the Python function")]
    fn new(
        logits: &Bound<'py, PyAny>,
        targets: &Bound<'py, PyAny>,
        axis: &Bound<'py, PyAny>,
        ignore_index: Option<&Bound<'py, PyAny>>,
        temperature: &Bound<'py, PyAny>,
        reduction: &Bound<'py, PyAny>,
        offsets: Option<&Bound<'py, PyAny>>,
        normalizer: Option<&Bound<'py, PyAny>>,
        on_empty: &Bound<'py, PyAny>,
        dtype: Option<&Bound<'py, PyAny>>,
        threads: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let logits = View::of(logits, "logits", Accept::Numbers)?;
        let axis = logits.axis(integer(axis, "axis")? as isize)?;
        let rows_shape = logits.rows_shape(axis);
        let class_count = logits.array.shape[axis];
        if class_count == 0 {
            return Err(
                Error::value("logits", "at least one class", shape(&logits.array.shape)).into()
            );
        }
        let reduction = choice(
            reduction,
            "reduction",
            &[
                ("mean", Reduction::Mean),
                ("sum", Reduction::Sum),
                ("none", Reduction::None),
                ("sequence_mean", Reduction::SequenceMean),
            ],
        )?;
        let on_empty = choice(
            on_empty,
            "on_empty",
            &[("nan", OnEmpty::Nan), ("zero", OnEmpty::Zero), ("raise", OnEmpty::Raise)],
        )?;
        if normalizer.is_some() && reduction != Reduction::Mean {
            return Err(Error::value(
                "normalizer",
                "None unless reduction is \"mean\"",
                "a number",
            )
            .into());
        }
        let offsets =
            offsets.map(|offsets| View::of(offsets, "offsets", Accept::Integers)).transpose()?;
        let options = CrossEntropy {
            temperature: positive(temperature, "temperature")?,
            reduction,
            normalizer: normalizer.map(|number| positive(number, "normalizer")).transpose()?,
            on_empty,
            sequences: sequences(reduction, offsets.as_ref(), &logits, &rows_shape)?,
        };
        let threads = threads_of(threads)?;
        let result_type = ResultType::like_loss(&logits, dtype)?;
        let ignored = ignored_classes(ignore_index)?;
        let targets = View::of(targets, "targets", Accept::Integers)?;
        if targets.array.shape != rows_shape {
            let all = shape(&logits.array.shape);
            let expected = format!("shape {} to match logits {all}", shape(&rows_shape));
            return Err(Error::value("targets", expected, shape(&targets.array.shape)).into());
        }
        // SAFETY: a live NumPy array, as `View::matrix` says.
        let classes = unsafe { read_classes(&targets.array, &ignored, class_count) }?;
        let inputs = std::iter::once(targets).chain(offsets).collect();
        Ok(Self { logits, axis, inputs, classes, options, result_type, threads })
    }

    fn result(&self, loss: Loss) -> PyResult<Bound<'py, PyAny>> {
        let py = self.logits.object.py();
        match loss {
            Loss::Reduced(value) => self.result_type.array_of(py, vec![value], &[]),
            Loss::PerRow(values) => {
                self.result_type.array_of(py, values, &self.logits.rows_shape(self.axis))
            }
        }
    }
}

/// The number of sequences that the rows make up.
fn sequences(
    reduction: Reduction,
    offsets: Option<&View<'_>>,
    logits: &View<'_>,
    rows_shape: &[usize],
) -> PyResult<usize> {
    match (offsets, rows_shape) {
        (Some(_), _) if reduction != Reduction::SequenceMean => {
            Err(Error::value("offsets", "None unless reduction is \"sequence_mean\"", "an array")
                .into())
        }
        (None, _) if reduction != Reduction::SequenceMean => Ok(0),
        (None, &[batch, _]) => Ok(batch),
        (None, _) => {
            let expected = "shape (B, T, V) for reduction \"sequence_mean\" without offsets";
            Err(Error::value("logits", expected, shape(&logits.array.shape)).into())
        }
        (Some(offsets), _) => {
            let rows = rows_shape.iter().product();
            count_sequences(offsets, rows)
        }
    }
}

/// The number of sequences that `offsets` cuts the rows into.
fn count_sequences(offsets: &View<'_>, rows: usize) -> PyResult<usize> {
    let &[length] = offsets.array.shape.as_slice() else {
        return Err(Error::value("offsets", "one dimension", shape(&offsets.array.shape)).into());
    };
    // Doubles hold every possible offset exactly: rows are far below 2^53.
    let bounds = doubles(offsets)?;
    let complete = bounds.first() == Some(&0.0) && bounds.last() == Some(&(rows as f64));
    if complete && bounds.is_sorted() {
        Ok(length - 1)
    } else {
        let expected = format!("numbers that rise from 0 to {rows}, the number of rows");
        Err(Error::value("offsets", expected, offsets.object.str()?).into())
    }
}

/// One class id or several to ignore.
fn ignored_classes(ignore_index: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<i128>> {
    let Some(given) = ignore_index else { return Ok(Vec::new()) };
    let number = |value: &Bound<'_, PyAny>| -> PyResult<i128> {
        match value.call_method0("__index__") {
            // Beyond 128 bits it is no class id of any dtype; any such number stands for it.
            Ok(index) if !is_bool(value) => Ok(index.extract().unwrap_or(i128::MAX)),
            _ => Err(wrong_type(value, "ignore_index", "an int or several")),
        }
    };
    let several = !given.is_instance_of::<PyString>() && !given.hasattr("__index__")?
        || given.hasattr("ndim")? && !given.getattr("ndim")?.eq(0)?;
    if several && let Ok(items) = given.try_iter() {
        return items.map(|item| number(&item?)).collect();
    }
    Ok(vec![number(given)?])
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "one for each option of the Python function")]
#[pyo3(signature = (
    logits, targets, axis, ignore_index, temperature, reduction, offsets, normalizer, on_empty, dtype,
    threads, /
))]
fn cross_entropy<'py>(
    logits: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    axis: &Bound<'py, PyAny>,
    ignore_index: Option<&Bound<'py, PyAny>>,
    temperature: &Bound<'py, PyAny>,
    reduction: &Bound<'py, PyAny>,
    offsets: Option<&Bound<'py, PyAny>>,
    normalizer: Option<&Bound<'py, PyAny>>,
    on_empty: &Bound<'py, PyAny>,
    dtype: Option<&Bound<'py, PyAny>>,
    threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let call = LossCall::new(
        logits,
        targets,
        axis,
        ignore_index,
        temperature,
        reduction,
        offsets,
        normalizer,
        on_empty,
        dtype,
        threads,
    )?;
    let from = call.logits.matrix(call.axis);
    let loss = detached(logits.py(), call.threads, |run| {
        compute::cross_entropy(run, &from, &call.classes, &call.options, None)
    })?;
    call.result(loss)
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "one for each option of the Python function")]
#[pyo3(signature = (
    logits, targets, axis, ignore_index, temperature, reduction, offsets, normalizer, on_empty, dtype,
    threads, grad_output, out, /
))]
fn cross_entropy_with_grad<'py>(
    logits: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    axis: &Bound<'py, PyAny>,
    ignore_index: Option<&Bound<'py, PyAny>>,
    temperature: &Bound<'py, PyAny>,
    reduction: &Bound<'py, PyAny>,
    offsets: Option<&Bound<'py, PyAny>>,
    normalizer: Option<&Bound<'py, PyAny>>,
    on_empty: &Bound<'py, PyAny>,
    dtype: Option<&Bound<'py, PyAny>>,
    threads: Option<&Bound<'py, PyAny>>,
    grad_output: Option<&Bound<'py, PyAny>>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let call = LossCall::new(
        logits,
        targets,
        axis,
        ignore_index,
        temperature,
        reduction,
        offsets,
        normalizer,
        on_empty,
        dtype,
        threads,
    )?;
    let given =
        grad_output.map(|given| View::of(given, "grad_output", Accept::Numbers)).transpose()?;
    let inputs: Vec<&View<'_>> = call.inputs.iter().chain(&given).collect();
    let upstream = upstream(given.as_ref(), &call)?;
    let grad_type = ResultType::like_logits(&call.logits, None)?;
    let grad = match out {
        Some(out) => grad_type.checked_out(out, &call.logits, &inputs)?,
        None => grad_type.empty_like(&call.logits)?,
    };
    let (from, to) = (call.logits.matrix(call.axis), grad.matrix(call.axis));
    let loss = detached(logits.py(), call.threads, |run| {
        compute::cross_entropy(run, &from, &call.classes, &call.options, Some((&to, &upstream)))
    })?;
    Ok((call.result(loss)?, out.cloned().unwrap_or_else(|| grad.object.into_any())))
}

/// The gradient that comes from above: for every row, or one for all.
fn upstream(given: Option<&View<'_>>, call: &LossCall<'_>) -> PyResult<Upstream> {
    let Some(view) = given else { return Ok(Upstream::Scalar(1.0)) };
    let values = doubles(view)?;
    let rows_shape = call.logits.rows_shape(call.axis);
    match values.as_slice() {
        &[scalar] if view.array.shape.is_empty() => Ok(Upstream::Scalar(scalar)),
        _ if call.options.reduction == Reduction::None && view.array.shape == rows_shape => {
            Ok(Upstream::PerRow(values))
        }
        _ => {
            let expected = match call.options.reduction {
                Reduction::None => format!("a scalar or shape {}", shape(&rows_shape)),
                _ => String::from("a scalar"),
            };
            Err(Error::value("grad_output", expected, shape(&view.array.shape)).into())
        }
    }
}
