//! Arrays of other libraries, by the DLPack protocol: read where they lie, on the CPU only.
//!
//! NumPy does the work but for one dtype: it can't import bfloat16, which it does not know. Such a tensor is
//! handed to it as one of 16-bit integers; what the bits mean is remembered here.

use crate::element::Kind;
use crate::error::Error;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCapsule, PyCapsuleMethods, PyDict, PyTuple};
use std::ffi::c_void;

/// DLPack's number for memory that the CPU owns.
const CPU: i64 = 1;
/// DLPack's numbers for the kinds of dtypes.
const UNSIGNED: u8 = 1;
const BFLOAT: u8 = 4;

/// The beginning of DLPack's `DLManagedTensor`, as far as the dtype.
#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
}

/// The NumPy array that shares its memory with `object`, which has `__dlpack__`, and the dtype of its elements
/// where NumPy has no name for it.
pub(super) fn import<'py>(
    object: &Bound<'py, PyAny>,
    argument: &'static str,
) -> PyResult<(Bound<'py, PyAny>, Option<Kind>)> {
    let py = object.py();
    let refused = |error: &PyErr| -> PyErr {
        // An exporter says why it can't share its memory: "use tensor.detach()".
        Error::of_type(argument, "an array whose memory can be shared", error.value(py)).into()
    };
    let device = object.call_method0("__dlpack_device__").map_err(|error| refused(&error))?;
    let (device_type, _): (i64, i64) = device.extract()?;
    if device_type != CPU {
        let expected = "an array in the memory of the CPU (copy it there first)";
        let got = format!("a {} on another device", object.get_type().name()?);
        return Err(Error::of_type(argument, expected, got).into());
    }
    static FROM_DLPACK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let from_dlpack = FROM_DLPACK.import(py, "numpy", "from_dlpack")?;
    let error = match from_dlpack.call1((object,)) {
        Ok(array) => return Ok((array, None)),
        Err(error) => error,
    };
    match as_integers(object, device)? {
        Some(integers) => Ok((from_dlpack.call1((integers,))?, Some(Kind::BF16))),
        None => Err(refused(&error)),
    }
}

/// A bfloat16 tensor relabelled as 16-bit integers; None if it is something else, or is not handed out.
fn as_integers<'py>(
    object: &Bound<'py, PyAny>,
    device: Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, Relabelled>>> {
    let Ok(exported) = object.call_method0("__dlpack__") else { return Ok(None) };
    let capsule = exported.cast_into::<PyCapsule>()?;
    let tensor = capsule.pointer_checked(Some(c"dltensor"))?.cast::<Tensor>();
    // SAFETY: a capsule of that name holds a DLManagedTensor, which begins with these fields, and it is ours
    // until we pass it on.
    let tensor = unsafe { &mut *tensor.as_ptr() };
    if (tensor.code, tensor.bits, tensor.lanes) != (BFLOAT, 16, 1) {
        return Ok(None);
    }
    tensor.code = UNSIGNED;
    Bound::new(object.py(), Relabelled { capsule: capsule.unbind(), device: device.unbind() })
        .map(Some)
}

/// A capsule that already exists, in the form in which NumPy asks for one.
#[pyclass]
struct Relabelled {
    capsule: Py<PyCapsule>,
    device: Py<PyAny>,
}

#[pymethods]
impl Relabelled {
    #[pyo3(signature = (*_args, **_kwargs))]
    fn __dlpack__(
        &self,
        py: Python<'_>,
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> Py<PyCapsule> {
        self.capsule.clone_ref(py)
    }

    fn __dlpack_device__(&self, py: Python<'_>) -> Py<PyAny> {
        self.device.clone_ref(py)
    }
}
