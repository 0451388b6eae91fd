//! `linear_cross_entropy`, `linear_cross_entropy_with_grad`.

use super::arguments::wrong_type;
use super::arrays::{Accept, View, doubles};
use super::loss_call::{LossCall, LossOptions};
use super::reading::{ReadOptions, Reading};
use super::reducing::ReduceOptions;
use super::results::ResultType;
use super::runtime::detached;
use crate::batch::{Array, Matrix};
use crate::compute::{self, Linear, LinearGradients};
use crate::element::Kind;
use crate::error::{Error, shape};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyList, PyString, PyTuple};

/// The names of the gradients, in the order of `LinearGrads`; and as parts of `out`.
const NAMES: [&str; 3] = ["hidden", "linear_weight", "linear_bias"];
const OUT: [&str; 3] = ["out[0]", "out[1]", "out[2]"];

/// A gradient for each of [`NAMES`].
type Three<'py> = [Option<Bound<'py, PyAny>>; 3];

#[pyfunction]
#[pyo3(signature = (hidden, linear_weight, targets, linear_bias, reading, options, reducing, /))]
pub(super) fn linear_cross_entropy<'py>(
    hidden: &Bound<'py, PyAny>,
    linear_weight: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    linear_bias: Option<&Bound<'py, PyAny>>,
    reading: ReadOptions<'py>,
    options: LossOptions<'py>,
    reducing: ReduceOptions<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let operands = Operands::new(hidden, linear_weight, linear_bias)?;
    let call = operands.call(targets, reading, options, reducing)?;
    let (matrices, values) = (operands.matrices(), operands.bias_values()?);
    let LossCall { input, targets, weights, options, .. } = &call;
    let loss = detached(hidden.py(), call.reading.threads, |run| {
        let linear = linear(&matrices, values.as_deref());
        compute::linear_cross_entropy(run, linear, input, targets, weights, options, None)
    })?;
    call.reduced.result(hidden.py(), loss)
}

#[pyfunction]
#[pyo3(signature = (
    hidden, linear_weight, targets, linear_bias, reading, options, reducing, grad_output, grads, out,
    accumulate, /
))]
#[expect(clippy::too_many_arguments, reason = "each has its name in Python")]
pub(super) fn linear_cross_entropy_with_grad<'py>(
    hidden: &Bound<'py, PyAny>,
    linear_weight: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    linear_bias: Option<&Bound<'py, PyAny>>,
    reading: ReadOptions<'py>,
    options: LossOptions<'py>,
    reducing: ReduceOptions<'py>,
    grad_output: Option<&Bound<'py, PyAny>>,
    grads: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    accumulate: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyAny>, Three<'py>)> {
    let py = hidden.py();
    let operands = Operands::new(hidden, linear_weight, linear_bias)?;
    let call = operands.call(targets, reading, options, reducing)?;
    let given =
        grad_output.map(|given| View::of(given, "grad_output", Accept::Numbers)).transpose()?;
    let upstream = call.reduced.upstream(given.as_ref())?;
    let Ok(accumulate) = accumulate.cast::<PyBool>() else {
        return Err(wrong_type(accumulate, "accumulate", "a bool"));
    };
    let accumulate = accumulate.is_true();
    let inputs: Vec<&View<'_>> = operands.inputs().chain(call.inputs()).chain(&given).collect();
    let places = operands.places(wanted(grads)?, out, accumulate, &inputs)?;

    let (matrices, values) = (operands.matrices(), operands.bias_values()?);
    // The last axis is that of the columns; a bias is one row.
    let to = places
        .each_ref()
        .map(|place| place.as_ref().map(|place| place.matrix(place.array.shape.len() - 1)));
    let LossCall { input, targets, weights, options, .. } = &call;
    let loss = detached(py, call.reading.threads, |run| {
        let linear = linear(&matrices, values.as_deref());
        let [hidden, weight, bias] = to.each_ref().map(Option::as_ref);
        let upstream = &upstream;
        let gradients = LinearGradients { hidden, weight, bias, accumulate, upstream };
        let gradients = Some(gradients);
        compute::linear_cross_entropy(run, linear, input, targets, weights, options, gradients)
    })?;
    let arrays = places.map(|place| place.map(|view| view.object.into_any()));
    Ok((call.reduced.result(py, loss)?, arrays))
}

/// For benchmarks: the products that the loss and its gradients are made of, in the same chunks, and nothing else.
#[pyfunction]
#[pyo3(signature = (hidden, linear_weight, out, threads, /))]
pub(super) fn _linear_products<'py>(
    hidden: &Bound<'py, PyAny>,
    linear_weight: &Bound<'py, PyAny>,
    out: &Bound<'py, PyAny>,
    threads: Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = hidden.py();
    let operands = Operands::new(hidden, linear_weight, None)?;
    let options = ReadOptions::plain(py, (-1i64).into_pyobject(py)?.into_any(), Some(threads));
    let reading = operands.reading(options)?;
    let inputs: Vec<&View<'_>> = operands.inputs().collect();
    let given = three(Some(out))?.map(|place| place.is_some());
    let places = operands.places(given, Some(out), false, &inputs)?;
    let (matrices, input) = (operands.matrices(), reading.input());
    let to = places.each_ref().map(|place| place.as_ref().map(|place| place.matrix(1)));
    detached(py, reading.threads, |run| {
        let linear = linear(&matrices, None);
        let [hidden, weight, bias] = to.each_ref().map(Option::as_ref);
        let upstream = &compute::Upstream::Scalar(1.0);
        let gradients = LinearGradients { hidden, weight, bias, accumulate: false, upstream };
        compute::linear_products(run, linear, &input, gradients)
    })
}

fn linear<'a>((hidden, weight): &'a (Matrix, Matrix), bias: Option<&'a [f64]>) -> Linear<'a> {
    Linear { hidden, weight, bias }
}

/// What is multiplied, checked.
struct Operands<'py> {
    hidden: View<'py>,
    weight: View<'py>,
    bias: Option<View<'py>>,
}

impl<'py> Operands<'py> {
    fn new(
        hidden: &Bound<'py, PyAny>,
        weight: &Bound<'py, PyAny>,
        bias: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let hidden = View::of(hidden, NAMES[0], Accept::Numbers)?;
        let axis = hidden.axis(NAMES[0], -1)?;
        let weight = View::of(weight, NAMES[1], Accept::Numbers)?;
        let (width, got) = (hidden.array.shape[axis], shape(&weight.array.shape));
        let classes = match weight.array.shape[..] {
            [0, _] => return Err(Error::value(NAMES[1], "at least one class", got).into()),
            [classes, columns] if columns == width => classes,
            _ => {
                let all = shape(&hidden.array.shape);
                let expected = format!("shape (V, {width}) to match hidden {all}");
                return Err(Error::value(NAMES[1], expected, got).into());
            }
        };
        let bias = bias.map(|bias| View::of(bias, NAMES[2], Accept::Numbers)).transpose()?;
        if let Some(bias) = bias.as_ref().filter(|bias| bias.array.shape != [classes]) {
            let expected = format!("shape ({classes},) to match linear_weight {got}");
            return Err(Error::value(NAMES[2], expected, shape(&bias.array.shape)).into());
        }
        Ok(Self { hidden, weight, bias })
    }

    /// All arguments of the loss, checked.
    fn call(
        &self,
        targets: &Bound<'py, PyAny>,
        reading: ReadOptions<'py>,
        options: LossOptions<'py>,
        reducing: ReduceOptions<'py>,
    ) -> PyResult<LossCall<'py>> {
        LossCall::of(self.reading(reading)?, targets, options, reducing)
    }

    /// How the logits are to be read, which are never there.
    fn reading(&self, options: ReadOptions<'py>) -> PyResult<Reading<'py>> {
        /// What stands for every logit. Nobody reads it.
        static NOTHING: f64 = 0.0;
        let mut shape = self.hidden.array.shape.clone();
        if let Some(columns) = shape.last_mut() {
            *columns = self.weight.array.shape[0];
        }
        let double = Linear::is_double(self.hidden.array.kind, self.weight.array.kind);
        let array = Array {
            data: (&raw const NOTHING).cast_mut().cast(),
            kind: if double { Kind::F64 } else { Kind::F32 },
            swapped: false,
            strides: vec![0; shape.len()],
            shape,
        };
        let logits = View { object: self.hidden.object.clone(), array };
        Reading::of_view("the logits", logits, options)
    }

    fn matrices(&self) -> (Matrix, Matrix) {
        let columns = self.hidden.array.shape.len() - 1;
        (self.hidden.matrix(columns), self.weight.matrix(1))
    }

    fn bias_values(&self) -> PyResult<Option<Vec<f64>>> {
        self.bias.as_ref().map(doubles).transpose()
    }

    fn inputs(&self) -> impl Iterator<Item = &View<'py>> {
        [&self.hidden, &self.weight].into_iter().chain(&self.bias)
    }

    /// Arrays for the gradients that are wanted, the caller's own where there are any.
    fn places(
        &self,
        wanted: [bool; 3],
        out: Option<&Bound<'py, PyAny>>,
        accumulate: bool,
        inputs: &[&View<'py>],
    ) -> PyResult<[Option<View<'py>>; 3]> {
        let operands = [Some(&self.hidden), Some(&self.weight), self.bias.as_ref()];
        let mut given = three(out)?;
        let mut places: [Option<View<'py>>; 3] = [None, None, None];
        // All that is the caller's is checked before anything is made.
        for (i, operand) in operands.iter().enumerate() {
            match (operand.filter(|_| wanted[i]), given[i].take()) {
                (Some(operand), Some(out)) => {
                    let result = ResultType::like_logits(operand, None)?;
                    let place = result.like(&out, OUT[i], operand, NAMES[i])?;
                    place.check_apart(OUT[i], inputs)?;
                    for other in places.iter().flatten() {
                        if place.overlaps(other)? {
                            let expected = "arrays with no memory in common";
                            return Err(Error::value("out", expected, "some").into());
                        }
                    }
                    places[i] = Some(place);
                }
                (None, Some(_)) => {
                    let expected = "None for a gradient that is not wanted";
                    return Err(Error::value(OUT[i], expected, "an array").into());
                }
                (Some(_), None) if accumulate => {
                    let expected = "an array to add to, for each gradient";
                    return Err(Error::value(OUT[i], expected, "None").into());
                }
                (_, None) => {}
            }
        }
        for (i, operand) in operands.iter().enumerate() {
            if let Some(operand) = operand.filter(|_| wanted[i] && places[i].is_none()) {
                let result = ResultType::like_logits(operand, None)?;
                places[i] = Some(result.empty_like(operand)?);
            }
        }
        Ok(places)
    }
}

/// Which gradients are named.
fn wanted(grads: &Bound<'_, PyAny>) -> PyResult<[bool; 3]> {
    let expected = format!("names among {NAMES:?}");
    let names = grads.try_iter().ok().filter(|_| !grads.is_instance_of::<PyString>());
    let Some(names) = names else { return Err(wrong_type(grads, "grads", &expected)) };
    let mut wanted = [false; 3];
    for name in names {
        let name = name?;
        let Ok(text) = name.cast::<PyString>() else {
            return Err(wrong_type(&name, "grads", &expected));
        };
        let text = text.to_cow()?;
        match NAMES.iter().position(|&known| known == text) {
            Some(i) => wanted[i] = true,
            None => return Err(Error::value("grads", expected, name.repr()?).into()),
        }
    }
    Ok(wanted)
}

/// The caller's arrays, None where he has none.
fn three<'py>(out: Option<&Bound<'py, PyAny>>) -> PyResult<Three<'py>> {
    let Some(out) = out else { return Ok([None, None, None]) };
    let expected = "three arrays or None (hidden, linear_weight, linear_bias)";
    if !out.is_instance_of::<PyTuple>() && !out.is_instance_of::<PyList>() {
        return Err(wrong_type(out, "out", expected));
    }
    if out.len()? != 3 {
        return Err(Error::value("out", expected, format!("{} of them", out.len()?)).into());
    }
    let item = |i| PyResult::Ok(Some(out.get_item(i)?).filter(|item| !item.is_none()));
    Ok([item(0)?, item(1)?, item(2)?])
}
