//! What is given back: the dtype of a result, new arrays, the caller's own `out`, NumPy scalars.

use super::arrays::{View, kind_of, plain};
use super::memory::Memory;
use crate::element::Kind;
use crate::error::{self, Error, shape};
use crate::memory;
use numpy::npyffi::{NPY_ORDER, PY_ARRAY_API};
use numpy::prelude::*;
use numpy::{PyArray1, PyArrayDescr, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

/// A floating-point dtype for a result, and its kind.
pub(super) struct ResultType<'py> {
    pub(super) kind: Kind,
    pub(super) dtype: Bound<'py, PyArrayDescr>,
}

impl<'py> ResultType<'py> {
    /// The dtype that was asked for, or the one of the logits; float64 for integers.
    pub(super) fn like_logits(
        logits: &View<'py>,
        asked: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        match (asked, logits.array.kind) {
            (Some(asked), _) => Self::asked(asked),
            (None, kind) if kind.is_integer() => Ok(Self::float64(logits.object.py())),
            (None, Kind::BF16) if kind_of(&logits.object.dtype()).is_none_or(Kind::is_integer) => {
                Self::bfloat16(logits.object.py())
            }
            (None, kind) if logits.array.swapped => {
                let dtype = logits.object.dtype().call_method1("newbyteorder", ("=",))?;
                Ok(Self { kind, dtype: dtype.cast_into()? })
            }
            (None, kind) => Ok(Self { kind, dtype: logits.object.dtype() }),
        }
    }

    /// The dtype that was asked for, or the one for losses and statistics.
    pub(super) fn like_loss(
        logits: &View<'py>,
        asked: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let single = matches!(logits.array.kind, Kind::F16 | Kind::BF16 | Kind::F32);
        Self::of_loss(logits.object.py(), single, asked)
    }

    /// The same of logits of which is known only whether they are computed in single precision.
    pub(super) fn of_loss(
        py: Python<'py>,
        single: bool,
        asked: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        match asked {
            Some(asked) => Self::asked(asked),
            None if single => Ok(Self { kind: Kind::F32, dtype: numpy::dtype::<f32>(py) }),
            None => Ok(Self::float64(py)),
        }
    }

    fn float64(py: Python<'py>) -> Self {
        Self { kind: Kind::F64, dtype: numpy::dtype::<f64>(py) }
    }

    /// The dtype for tensors of other libraries; NumPy's users get it from ml_dtypes.
    fn bfloat16(py: Python<'py>) -> PyResult<Self> {
        static BFLOAT16: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        match BFLOAT16.import(py, "ml_dtypes", "bfloat16") {
            Ok(scalar) => Ok(Self { kind: Kind::BF16, dtype: PyArrayDescr::new(py, scalar)? }),
            Err(_) => {
                let expected =
                    "a dtype that NumPy knows for the result (install ml_dtypes, or name one)";
                Err(Error::of_type("dtype", expected, "bfloat16").into())
            }
        }
    }

    fn asked(asked: &Bound<'py, PyAny>) -> PyResult<Self> {
        let expected = "float16, bfloat16, float32 or float64 in native byte order";
        let Ok(dtype) = PyArrayDescr::new(asked.py(), asked) else {
            return Err(Error::of_type("dtype", expected, asked.repr()?).into());
        };
        match kind_of(&dtype).filter(|kind| !kind.is_integer()) {
            Some(kind) if dtype.is_native_byteorder() != Some(false) => Ok(Self { kind, dtype }),
            _ => Err(Error::of_type("dtype", expected, dtype.str()?).into()),
        }
    }

    /// A new array of this dtype, with the shape of `prototype` and its order of axes.
    pub(super) fn empty_like(&self, prototype: &View<'py>) -> PyResult<View<'py>> {
        let py = prototype.object.py();
        if let Some(array) = self.recycled(prototype)? {
            return Ok(View::with_kind(array, self.kind));
        }
        // SAFETY: a live array and a live dtype, whose reference the call takes over.
        let array = unsafe {
            let pointer = PY_ARRAY_API.PyArray_NewLikeArray(
                py,
                prototype.object.as_array_ptr(),
                NPY_ORDER::NPY_KEEPORDER,
                self.dtype.clone().into_dtype_ptr(),
                0,
            );
            Bound::from_owned_ptr_or_err(py, pointer)?
        };
        Ok(View::with_kind(array.cast_into::<PyUntypedArray>()?, self.kind))
    }

    /// A large one in C order, on memory that an earlier result may have left; None if it is not such a one.
    fn recycled(&self, prototype: &View<'py>) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
        let shape = &prototype.array.shape;
        let elements = shape.iter().try_fold(1usize, |all, &length| all.checked_mul(length));
        let size = elements.and_then(|elements| elements.checked_mul(self.kind.size()));
        let Some(size) = size.filter(|&size| size >= memory::LEAST) else { return Ok(None) };
        if !prototype.object.is_c_contiguous() {
            return Ok(None);
        }
        let py = prototype.object.py();
        let base = Bound::new(py, Memory::new(size)?)?;
        let shape = PyTuple::new(py, shape)?;
        let array = py.get_type::<PyUntypedArray>().call1((shape, &self.dtype, base))?;
        Ok(Some(array.cast_into()?))
    }

    /// The array for the results: the caller's, checked, or a new one like the logits.
    pub(super) fn output(
        &self,
        out: Option<&Bound<'py, PyAny>>,
        logits: &View<'py>,
        inputs: &[&View<'py>],
    ) -> PyResult<View<'py>> {
        match out {
            Some(out) => self.checked(out, "out", logits, inputs),
            None => self.empty_like(logits),
        }
    }

    /// The caller's array, under the name that an error gives it, checked: of this dtype, of the shape of the
    /// logits, its memory apart from every input or exactly that of the logits.
    pub(super) fn checked(
        &self,
        out: &Bound<'py, PyAny>,
        name: &'static str,
        logits: &View<'py>,
        inputs: &[&View<'py>],
    ) -> PyResult<View<'py>> {
        let out = self.like(out, name, logits, "logits")?;
        if !out.is_same_memory(logits) && out.overlaps(logits)? {
            return Err(Error::value(
                name,
                "logits itself, or no memory in common",
                "a part of it",
            )
            .into());
        }
        out.check_apart(name, inputs)?;
        Ok(out)
    }

    /// The caller's array, of this dtype and the shape of another argument, each element with memory of its own.
    pub(super) fn like(
        &self,
        out: &Bound<'py, PyAny>,
        name: &'static str,
        prototype: &View<'py>,
        argument: &'static str,
    ) -> PyResult<View<'py>> {
        let Ok(array) = out.cast::<PyUntypedArray>() else {
            return Err(Error::of_type(name, "a NumPy array", out.get_type().name()?).into());
        };
        let dtype = array.dtype();
        if kind_of(&dtype) != Some(self.kind) || dtype.is_native_byteorder() == Some(false) {
            return Err(Error::of_type(name, format!("dtype {}", self.dtype), dtype).into());
        }
        let out = Self::writeable(plain(array.clone(), name)?, self.kind, name)?;
        if out.array.shape != prototype.array.shape {
            let expected = format!("shape {} like {argument}", shape(&prototype.array.shape));
            return Err(Error::value(name, expected, shape(&out.array.shape)).into());
        }
        if out.overlaps_itself() {
            let expected = "memory of its own for each element";
            return Err(Error::value(name, expected, "overlapping strides").into());
        }
        Ok(out)
    }

    fn writeable(
        array: Bound<'py, PyUntypedArray>,
        kind: Kind,
        name: &'static str,
    ) -> PyResult<View<'py>> {
        // SAFETY: a live array object; its flags may be read.
        let flags = unsafe { (*array.as_array_ptr()).fields.flags };
        if flags & numpy::npyffi::NPY_ARRAY_WRITEABLE == 0 {
            return Err(
                Error::value(name, "an array that can be written", "a read-only one").into()
            );
        }
        Ok(View::with_kind(array, kind))
    }

    /// Doubles as an array of this dtype and the given shape, or as a NumPy scalar if that is `()`. What
    /// becomes 16 bits is rounded to single precision first, like everything that is computed from such data.
    pub(super) fn array_of(
        &self,
        py: Python<'py>,
        values: Vec<f64>,
        shape: &[usize],
    ) -> PyResult<Bound<'py, PyAny>> {
        let single = || error::collect(values.iter().map(|&value| value as f32));
        let flat = match self.kind {
            Kind::F64 => PyArray1::from_vec(py, values).into_any(),
            Kind::F32 => PyArray1::<f32>::from_vec(py, single()?).into_any(),
            _ => PyArray1::<f32>::from_vec(py, single()?).call_method1("astype", (&self.dtype,))?,
        };
        let array = flat.call_method1("reshape", (shape,))?;
        if shape.is_empty() { array.get_item(()) } else { Ok(array) }
    }
}
