//! From Python objects to views.
//!
//! Everything that is wrong with an argument's type, shape or memory is found here, before anything is
//! computed or written.

use crate::batch::{Array, Matrix, read_classes};
use crate::element::Kind;
use crate::error::{self, Error};
use numpy::prelude::*;
use numpy::{PyArray1, PyArrayDescr, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::PyTypeInfo;
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// A Python array and how its memory is laid out.
pub(super) struct View<'py> {
    pub(super) object: Bound<'py, PyUntypedArray>,
    pub(super) array: Array,
}

/// What an argument may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accept {
    /// Any real number but bool.
    Numbers,
    /// Integers; anything else is no class id.
    Integers,
    /// Class ids, or numbers that are probabilities.
    Targets,
    /// Bool alone.
    Mask,
}

impl<'py> View<'py> {
    /// The array that an argument is, or that NumPy makes of it.
    pub(super) fn of(
        object: &Bound<'py, PyAny>,
        argument: &'static str,
        accept: Accept,
    ) -> PyResult<Self> {
        let (array, known) = as_array(object, argument)?;
        let kind = match accept {
            Accept::Mask => (array.dtype().kind() == b'b').then_some(Kind::U8),
            _ => known
                .or_else(|| kind_of(&array.dtype()))
                .filter(|kind| accept != Accept::Integers || kind.is_integer()),
        };
        // NumPy gives an empty list the dtype float64.
        let ids = matches!(accept, Accept::Integers | Accept::Targets);
        let empty = ids && array.len() == 0 && !object.is_instance_of::<PyUntypedArray>();
        match empty.then_some(Kind::I64).or(kind) {
            Some(kind) => Ok(Self::with_kind(array, kind)),
            None => Err(wrong_dtype(&array.dtype(), argument, accept)?.into()),
        }
    }

    pub(super) fn with_kind(object: Bound<'py, PyUntypedArray>, kind: Kind) -> Self {
        let array = Array {
            // SAFETY: a live array object; its data pointer may be read.
            data: unsafe { (*object.as_array_ptr()).fields.data.cast() },
            kind,
            swapped: object.dtype().is_native_byteorder() == Some(false),
            shape: object.shape().to_vec(),
            strides: object.strides().to_vec(),
        };
        Self { object, array }
    }

    /// The array as rows of columns, the columns along `axis`.
    pub(super) fn matrix(&self, axis: usize) -> Matrix {
        // SAFETY: NumPy vouches for the memory within shape and strides as long as the array object lives, and
        // every caller keeps it beyond the use of the view. Python code that writes to the array meanwhile can
        // change values, which are only ever numbers: class ids are copied before they are used.
        unsafe { Matrix::new(&self.array, axis) }
    }

    /// The class ids that the array holds: see [`read_classes`].
    pub(super) fn class_ids(
        &self,
        argument: &'static str,
        classes: usize,
        ignores: impl Fn(usize, i128) -> bool,
    ) -> Result<Vec<Option<usize>>, Error> {
        // SAFETY: the array object lives, as for `matrix`.
        unsafe { read_classes(&self.array, argument, &ignores, classes) }
    }

    /// The shape without `axis`.
    pub(super) fn rows_shape(&self, axis: usize) -> Vec<usize> {
        let mut shape = self.array.shape.clone();
        shape.remove(axis);
        shape
    }

    /// An axis counted from either end.
    pub(super) fn axis(&self, argument: &'static str, axis: isize) -> Result<usize, Error> {
        let ndim = self.array.shape.len();
        if ndim == 0 {
            return Err(Error::value(argument, "at least one dimension", "a 0-d array"));
        }
        let from_start = if axis < 0 { axis + ndim.cast_signed() } else { axis };
        usize::try_from(from_start)
            .ok()
            .filter(|&axis| axis < ndim)
            .ok_or(Error::Axis { axis, ndim })
    }

    /// The lowest address, and one past the highest.
    fn bounds(&self) -> (usize, usize) {
        let (mut low, mut high) = (self.array.data.addr(), self.array.data.addr());
        if self.array.shape.contains(&0) {
            return (low, high);
        }
        for (&length, &stride) in self.array.shape.iter().zip(&self.array.strides) {
            let reach = (length - 1).cast_signed() * stride;
            low = low.wrapping_add_signed(reach.min(0));
            high = high.wrapping_add_signed(reach.max(0));
        }
        (low, high + self.array.kind.size())
    }

    pub(super) fn is_same_memory(&self, other: &Self) -> bool {
        let (a, b) = (&self.array, &other.array);
        a.data == b.data
            && a.shape == b.shape
            && a.strides == b.strides
            && a.kind.size() == b.kind.size()
    }

    /// Whether any byte belongs to both arrays.
    pub(super) fn overlaps(&self, other: &Self) -> PyResult<bool> {
        let ((low, high), (other_low, other_high)) = (self.bounds(), other.bounds());
        if high <= other_low || other_high <= low {
            return Ok(false);
        }
        // Bounds say maybe; NumPy solves the rest exactly.
        static SHARES_MEMORY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let shares = SHARES_MEMORY.import(self.object.py(), "numpy", "shares_memory")?;
        shares.call1((&self.object, &other.object))?.is_truthy()
    }

    /// An error if an output, of that name, shares memory with something that is read.
    pub(super) fn check_apart(&self, name: &'static str, inputs: &[&Self]) -> PyResult<()> {
        for input in inputs {
            if self.overlaps(input)? {
                return Err(Error::value(name, "no memory in common with an input", "some").into());
            }
        }
        Ok(())
    }

    /// Whether two of its own elements may lie on the same byte.
    pub(super) fn overlaps_itself(&self) -> bool {
        let mut axes: Vec<(usize, usize)> = self
            .array
            .shape
            .iter()
            .zip(&self.array.strides)
            .filter(|&(&length, _)| length > 1)
            .map(|(&length, stride)| (stride.unsigned_abs(), length))
            .collect();
        axes.sort_unstable();
        let mut reach = self.array.kind.size();
        !self.array.shape.contains(&0)
            && axes.iter().any(|&(stride, length)| {
                let overlap = stride < reach;
                reach += stride * (length - 1);
                overlap
            })
    }
}

/// The array that `object` is, or that NumPy or the exporter of a DLPack capsule makes of it; and the dtype of
/// its elements, where NumPy has no name for it.
fn as_array<'py>(
    object: &Bound<'py, PyAny>,
    argument: &'static str,
) -> PyResult<(Bound<'py, PyUntypedArray>, Option<Kind>)> {
    let py = object.py();
    if let Ok(array) = object.cast::<PyUntypedArray>() {
        return Ok((plain(array.clone(), argument)?, None));
    }
    let (array, known) = if object.hasattr("__dlpack__")? {
        super::dlpack::import(object, argument)?
    } else {
        static AS_ARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let as_array = AS_ARRAY.import(py, "numpy", "asarray")?;
        (as_array.call1((object,)).map_err(|error| not_an_array(py, argument, &error))?, None)
    };
    Ok((array.cast_into::<PyUntypedArray>()?, known))
}

/// An array, unless it is of a subclass that gives its elements another meaning.
pub(super) fn plain<'py>(
    array: Bound<'py, PyUntypedArray>,
    argument: &'static str,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = array.py();
    if array.get_type().is(PyUntypedArray::type_object(py)) {
        return Ok(array);
    }
    static MASKED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static MATRIX: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    if array.is_instance(MASKED.import(py, "numpy.ma", "MaskedArray")?)? {
        let instead = "an array without a mask (use ignore_index, or fill the masked elements)";
        return Err(Error::of_type(argument, instead, "a masked array").into());
    }
    if array.is_instance(MATRIX.import(py, "numpy", "matrix")?)? {
        return Err(Error::of_type(argument, "an array (use np.asarray)", "a np.matrix").into());
    }
    Ok(array)
}

/// What to say when NumPy can't make an array of something.
fn not_an_array(py: Python<'_>, argument: &'static str, error: &PyErr) -> PyErr {
    if error.is_instance_of::<PyMemoryError>(py) {
        return error.clone_ref(py);
    }
    if error.is_instance_of::<PyValueError>(py) {
        return Error::value(argument, "rows of one length", error.value(py)).into();
    }
    Error::of_type(argument, "an array of numbers", error.value(py)).into()
}

/// The dtype as the kernels know it, if they do.
pub(super) fn kind_of(dtype: &Bound<'_, PyArrayDescr>) -> Option<Kind> {
    // Dtypes that NumPy does not know itself have numbers from 256 on.
    if dtype.num() >= 256 {
        let name = dtype.getattr("name").ok()?;
        return name.eq("bfloat16").ok()?.then_some(Kind::BF16);
    }
    match (dtype.kind(), dtype.itemsize()) {
        (b'f', 2) => Some(Kind::F16),
        (b'f', 4) => Some(Kind::F32),
        (b'f', 8) => Some(Kind::F64),
        (b'i', 1) => Some(Kind::I8),
        (b'i', 2) => Some(Kind::I16),
        (b'i', 4) => Some(Kind::I32),
        (b'i', 8) => Some(Kind::I64),
        (b'u', 1) => Some(Kind::U8),
        (b'u', 2) => Some(Kind::U16),
        (b'u', 4) => Some(Kind::U32),
        (b'u', 8) => Some(Kind::U64),
        _ => None,
    }
}

fn wrong_dtype(
    dtype: &Bound<'_, PyArrayDescr>,
    argument: &'static str,
    accept: Accept,
) -> PyResult<Error> {
    let expected = match (accept, dtype.kind()) {
        (Accept::Mask, _) => "a bool dtype, True for the classes that take part",
        (Accept::Targets, b'b') => "an integer dtype, not a mask, or probabilities",
        (Accept::Targets, _) => "class ids of an integer dtype, or probabilities",
        (Accept::Integers, b'f') => "an integer dtype (use .astype(np.int64))",
        (Accept::Integers, b'b') => "an integer dtype, not a mask",
        (Accept::Integers, _) => "an integer dtype",
        (_, b'c') => "real numbers (use .real)",
        (_, b'b') => "numbers (use .astype(np.float32))",
        (_, b'O') => "an array of numbers (a sparse or ragged one can't be read: make it dense)",
        _ => "float16, bfloat16, float32, float64 or integers (use .astype)",
    };
    Ok(Error::of_type(argument, expected, dtype.str()?))
}

/// Doubles along the class axis, the same in every row of the logits. They have to outlive the matrix.
pub(super) fn repeated(values: &[f64], logits: &View<'_>, axis: usize) -> Matrix {
    let mut strides = vec![0; logits.array.shape.len()];
    strides[axis] = size_of::<f64>().cast_signed();
    let array = Array {
        data: values.as_ptr().cast_mut().cast(),
        kind: Kind::F64,
        swapped: false,
        shape: logits.array.shape.clone(),
        strides,
    };
    // SAFETY: as many doubles as the logits have classes; nobody writes to them.
    unsafe { Matrix::new(&array, axis) }
}

/// Real numbers of any dtype as doubles, in C order.
pub(super) fn doubles(view: &View<'_>) -> PyResult<Vec<f64>> {
    if kind_of(&view.object.dtype()) == Some(view.array.kind) {
        return doubles_of(&view.object);
    }
    // A tensor of a dtype that NumPy does not know: to it these are integers.
    let mut array = view.array.clone();
    array.shape.push(1);
    array.strides.push(0);
    let view = View { object: view.object.clone(), array };
    let matrix = view.matrix(view.array.shape.len() - 1);
    Ok(error::collect((0..matrix.rows()).map(|row| matrix.get(row, 0)))?)
}

/// The same of an array that is known to hold them.
pub(super) fn doubles_of(array: &Bound<'_, PyAny>) -> PyResult<Vec<f64>> {
    let double = array.call_method1("astype", (numpy::dtype::<f64>(array.py()), "C"))?;
    let flat = double.call_method1("reshape", (-1,))?;
    let flat = flat.cast::<PyArray1<f64>>().map_err(PyErr::from)?.readonly();
    let values = flat.as_slice().map_err(PyErr::from)?;
    Ok(error::collect(values.iter().copied())?)
}
