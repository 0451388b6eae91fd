//! `kl_divergence`, `js_divergence`, both `_with_grad`.

use super::arguments::{choice, number_up_to};
use super::arrays::{Accept, View, doubles};
use super::reading::{ReadOptions, Reading};
use super::reducing::{ReduceOptions, Reduced};
use super::runtime::detached;
use crate::batch::Matrix;
use crate::compute::{self, Named, Teacher, Upstream};
use crate::element::Kind;
use crate::error::{self, Error, shape};
use crate::loss::Divergence;
use crate::sweep::Input;
use numpy::PyArray1;
use pyo3::prelude::*;

/// Which divergence from what, in the order in which Python hands it over.
#[derive(FromPyObject)]
pub(super) struct PairOptions<'py>(
    String,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
);

type Loss<'py> = Bound<'py, PyAny>;
type LossAndGradient<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>);

#[pyfunction]
#[pyo3(signature = (teacher_logits, student_logits, reading, comparing, reducing, /))]
pub(super) fn divergence<'py>(
    teacher_logits: &Bound<'py, PyAny>,
    student_logits: &Bound<'py, PyAny>,
    reading: ReadOptions<'py>,
    comparing: PairOptions<'py>,
    reducing: ReduceOptions<'py>,
) -> PyResult<Loss<'py>> {
    PairCall::new(teacher_logits, student_logits, reading, comparing, reducing)?.compute(None)
}

#[pyfunction]
#[pyo3(signature = (
    teacher_logits, student_logits, reading, comparing, reducing, grad_output, out, /
))]
pub(super) fn divergence_with_grad<'py>(
    teacher_logits: &Bound<'py, PyAny>,
    student_logits: &Bound<'py, PyAny>,
    reading: ReadOptions<'py>,
    comparing: PairOptions<'py>,
    reducing: ReduceOptions<'py>,
    grad_output: Option<&Bound<'py, PyAny>>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<LossAndGradient<'py>> {
    PairCall::new(teacher_logits, student_logits, reading, comparing, reducing)?
        .loss_and_gradient(grad_output, out)
}

/// Jensen and Shannon's divergence by its `beta`, or Kullback and Leibler's by its `direction`.
fn divergence_of(argument: &str, given: &Bound<'_, PyAny>) -> PyResult<Divergence> {
    if argument == "beta" {
        return Ok(Divergence::jensen_shannon(number_up_to(given, "beta", 1.0)?));
    }
    let choices = [("forward", Divergence::Forward), ("reverse", Divergence::Reverse)];
    choice(given, "direction", &choices)
}

/// The arguments that all divergences share, checked.
struct PairCall<'py> {
    divergence: Divergence,
    reading: Reading<'py>,
    input: Input,
    given: Given,
    ignored: Option<Vec<bool>>,
    /// What was read beside the student's logits, the mask and the offsets.
    others: Vec<View<'py>>,
    reduced: Reduced<'py>,
}

/// What the teacher gives.
enum Given {
    /// Something for each class.
    Dense { logits: Matrix, are_probabilities: bool },
    /// Logarithms of probabilities of some classes, the same number of them in every row.
    Sparse { classes: Vec<Option<usize>>, log_p: Vec<f64>, each: usize },
}

impl<'py> PairCall<'py> {
    fn new(
        teacher_logits: &Bound<'py, PyAny>,
        student_logits: &Bound<'py, PyAny>,
        reading: ReadOptions<'py>,
        comparing: PairOptions<'py>,
        reducing: ReduceOptions<'py>,
    ) -> PyResult<Self> {
        let PairOptions(argument, given, teacher, teacher_ids, ignore_rows) = comparing;
        let divergence = divergence_of(&argument, &given)?;
        let reading = Reading::with_classes("student_logits", student_logits, reading)?;
        let are_probabilities =
            choice(&teacher, "teacher", &[("logits", false), ("probabilities", true)])?;
        let mut others = Vec::new();
        let mut ignored = None;
        if let Some(given) = ignore_rows {
            let rows = reading.rows_shape();
            let view = reading.matching(&given, "ignore_rows", Accept::Mask, &rows)?;
            let flags = doubles(&view)?;
            ignored = Some(error::collect(flags.iter().map(|&flag| flag != 0.0))?);
            others.push(view);
        }
        let given = match teacher_ids {
            Some(_) if are_probabilities => {
                let expected = "\"logits\" with teacher_ids";
                return Err(Error::value("teacher", expected, "\"probabilities\"").into());
            }
            Some(ids) => {
                let ids = View::of(&ids, "teacher_ids", Accept::Integers)?;
                let log_p = View::of(teacher_logits, "teacher_logits", Accept::Numbers)?;
                let given = sparse(&reading, &ids, &log_p, ignored.as_deref())?;
                others.extend([ids, log_p]);
                given
            }
            None => {
                let all = reading.logits.array.shape.clone();
                let accept = Accept::Numbers;
                let view = reading.matching(teacher_logits, "teacher_logits", accept, &all)?;
                let logits = view.matrix(reading.axis);
                others.push(view);
                Given::Dense { logits, are_probabilities }
            }
        };
        let reduced = Reduced::new(&reading, reducing)?;
        let input = reading.input();
        Ok(Self { divergence, reading, input, given, ignored, others, reduced })
    }

    fn loss_and_gradient(
        &self,
        grad_output: Option<&Bound<'py, PyAny>>,
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<LossAndGradient<'py>> {
        let Self { reading, others, reduced, .. } = self;
        let (grad, upstream) = reduced.gradient(reading, others, grad_output, out)?;
        let to = grad.matrix(reading.axis);
        let loss = self.compute(Some((&to, &upstream)))?;
        Ok((loss, grad.object.into_any()))
    }

    fn compute(&self, gradient: Option<(&Matrix, &Upstream)>) -> PyResult<Loss<'py>> {
        let divergence = self.divergence;
        let (py, threads) = (self.reading.logits.object.py(), self.reading.threads);
        let (input, ignored) = (&self.input, self.ignored.as_deref());
        let reducing = &self.reduced.reducing;
        let loss = match &self.given {
            Given::Dense { logits, are_probabilities } => {
                let are_probabilities = *are_probabilities;
                detached(py, threads, |run| {
                    let teacher = Teacher { logits, are_probabilities, divergence };
                    compute::divergence(run, input, teacher, ignored, reducing, gradient)
                })?
            }
            Given::Sparse { classes, log_p, each } => {
                let named = Named { classes, each: *each, ignored };
                let (groups, teacher) = detached(py, threads, |run| {
                    let groups = compute::groups(run, input, named)?;
                    Ok((groups, compute::teacher_groups(input, named, log_p)?))
                })?;
                // The rows of groups, small arrays of doubles.
                let teacher = matrix_of(py, teacher, each + 1)?;
                let student =
                    matrix_of(py, error::collect(groups.logits.iter().copied())?, each + 1)?;
                let slopes =
                    matrix_of(py, error::collect(groups.logits.iter().map(|_| 0.0))?, each + 1)?;
                let (p, q, d) = (teacher.matrix(1), student.matrix(1), slopes.matrix(1));
                let loss = detached(py, threads, |run| {
                    let teacher = Teacher { logits: &p, are_probabilities: false, divergence };
                    let gradient = gradient.map(|(_, upstream)| (&d, upstream));
                    let input = Input::plain(q, 1.0);
                    compute::divergence(run, &input, teacher, ignored, reducing, gradient)
                })?;
                if let Some((out, _)) = gradient {
                    let slopes = doubles(&slopes)?;
                    detached(py, threads, |run| {
                        compute::write_gradient(run, input, named, &groups, &slopes, out)
                    })?;
                }
                loss
            }
        };
        self.reduced.result(py, loss)
    }
}

/// Doubles as rows of columns.
fn matrix_of<'py>(py: Python<'py>, values: Vec<f64>, columns: usize) -> PyResult<View<'py>> {
    let rows = values.len() / columns;
    let array = PyArray1::from_vec(py, values).call_method1("reshape", ((rows, columns),))?;
    Ok(View::with_kind(array.cast_into()?, Kind::F64))
}

/// The classes that a teacher names and their log-probabilities, checked.
fn sparse<'py>(
    reading: &Reading<'py>,
    ids: &View<'py>,
    log_p: &View<'py>,
    ignored: Option<&[bool]>,
) -> PyResult<Given> {
    let rows = reading.rows_shape();
    let each = match ids.array.shape.strip_prefix(rows.as_slice()) {
        Some(&[each]) => each,
        _ => {
            let expected = format!("shape {} and one axis more", shape(&rows));
            return Err(Error::value("teacher_ids", expected, shape(&ids.array.shape)).into());
        }
    };
    if log_p.array.shape != ids.array.shape {
        let expected = format!("shape {} of teacher_ids", shape(&ids.array.shape));
        return Err(Error::value("teacher_logits", expected, shape(&log_p.array.shape)).into());
    }
    let ignores = |i: usize, _| ignored.is_some_and(|ignored| ignored[i / each]);
    let classes = ids.class_ids("teacher_ids", reading.classes(), ignores)?;
    let mut seen: Vec<usize> = error::reserve(each)?;
    for (row, names) in classes.chunks(each.max(1)).enumerate() {
        seen.clear();
        seen.extend(names.iter().flatten());
        seen.sort_unstable();
        if let Some(twice) = seen.windows(2).find(|pair| pair[0] == pair[1]) {
            let got = format!("{} twice in row {row}", twice[0]);
            return Err(Error::value("teacher_ids", "each class once in a row", got).into());
        }
    }
    Ok(Given::Sparse { classes, log_p: doubles(log_p)?, each })
}
