//! What a call runs on: instruction set, threads, thresholds; and the run itself, without the interpreter's lock.

use super::arguments::integer;
use crate::error::Error;
use crate::simd::{Level, with_default_float_state};
use crate::sweep::{Run, Thresholds};
use crate::threads;
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
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

/// Reads the environment, once, at import.
pub(super) fn start() -> PyResult<()> {
    let (level, threads) = (level_from_environment()?, default_threads()?);
    LEVEL.get_or_init(|| level);
    DEFAULT_THREADS.get_or_init(|| threads);
    Ok(())
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
pub(super) fn threads_of(asked: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
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
pub(super) fn set_threads(threads: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let number = threads.map_or(Ok(0), |threads| threads_of(Some(threads)))?;
    CHOSEN_THREADS.store(number, Ordering::Relaxed);
    Ok(())
}

#[pyfunction]
pub(super) fn get_threads() -> PyResult<usize> {
    threads_of(None)
}

#[pyfunction]
pub(super) fn runtime(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
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
pub(super) fn _set_thresholds(parallel: Option<usize>, stream: Option<usize>, task: Option<usize>) {
    let default = Thresholds::default();
    *THRESHOLDS.write().unwrap_or_else(PoisonError::into_inner) = Some(Thresholds {
        parallel: parallel.unwrap_or(default.parallel),
        stream: stream.unwrap_or(default.stream),
        task: task.unwrap_or(default.task).max(1),
    });
}

/// Runs `work` without the interpreter's lock. Ctrl-C and panics come back as errors.
pub(super) fn detached<T: Send>(
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
        let result = catch_unwind(AssertUnwindSafe(|| with_default_float_state(|| work(run))))
            .unwrap_or_else(|_| Err(Error::Panic(String::from("outside of the tasks"))));
        (result, signal)
    });
    signal.map_or(Ok(()), Err)?;
    Ok(result?)
}
