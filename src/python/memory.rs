//! Blocks of memory as objects that NumPy can build an array on, and `release_memory`.

use crate::memory::{self, Block};
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;

/// What an array of results has as its `base`; the block goes back when the last array that sees it is gone.
#[pyclass(frozen, name = "Memory", module = "softxent._core")]
pub(super) struct Memory {
    block: Block,
    size: usize,
}

impl Memory {
    pub(super) fn new(size: usize) -> PyResult<Self> {
        Ok(Self { block: Block::new(size)?, size })
    }
}

#[pymethods]
impl Memory {
    /// # Safety
    /// Python's own contract: `view` is null or can be filled in.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let memory = slf.get();
        let Ok(size) = ffi::Py_ssize_t::try_from(memory.size) else {
            return Err(PyBufferError::new_err("too large"));
        };
        let address = memory.block.address().cast();
        // SAFETY: the block has that many writable bytes and lives as long as this object, to which the view keeps a
        // reference.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), address, size, 0, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

#[pyfunction]
pub(super) fn release_memory() -> usize {
    memory::release()
}
