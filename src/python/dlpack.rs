//! Arrays of other libraries, by the DLPack protocol: read where they lie, on the CPU only.

use crate::error::Error;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// DLPack's number for memory that the CPU owns.
const CPU: i64 = 1;

/// The NumPy array that shares its memory with `object`, which has `__dlpack__`.
pub(super) fn import<'py>(
    object: &Bound<'py, PyAny>,
    argument: &'static str,
) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    let (device, _): (i64, i64) = object.call_method0("__dlpack_device__")?.extract()?;
    let name = object.get_type().name()?;
    if device != CPU {
        let expected = "an array in the memory of the CPU (copy it there first)";
        return Err(
            Error::of_type(argument, expected, format!("a {name} on another device")).into()
        );
    }
    static FROM_DLPACK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let from_dlpack = FROM_DLPACK.import(py, "numpy", "from_dlpack")?;
    from_dlpack.call1((object,)).map_err(|error| {
        // An exporter says why it can't share its memory: "use tensor.detach()".
        Error::of_type(argument, "an array that can be shared", error.value(py)).into()
    })
}
