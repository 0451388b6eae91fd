//! The logits of a call and how they are to be read: the arguments that all functions share, checked.

use super::arguments::{integer, positive};
use super::arrays::{Accept, View, doubles, repeated};
use super::runtime::threads_of;
use crate::batch::{Array, Matrix};
use crate::error::{Error, shape};
use crate::sweep::Input;
use pyo3::prelude::*;
use pyo3::types::PyFloat;

/// The options that all functions share, in the order in which `functions.py` hands them over.
#[derive(FromPyObject)]
pub(super) struct ReadOptions<'py>(
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
);

impl<'py> ReadOptions<'py> {
    /// For logits that are read as they are.
    pub(super) fn plain(
        py: Python<'py>,
        axis: Bound<'py, PyAny>,
        threads: Option<Bound<'py, PyAny>>,
    ) -> Self {
        Self(axis, PyFloat::new(py, 1.0).into_any(), None, None, None, None, threads)
    }
}

/// Logits, and how they are to be read.
pub(super) struct Reading<'py> {
    /// What the argument is called.
    name: &'static str,
    pub(super) logits: View<'py>,
    pub(super) axis: usize,
    temperature: f64,
    softcap: Option<f64>,
    valid_classes: usize,
    mask: Option<View<'py>>,
    /// The dtype that was asked for.
    pub(super) dtype: Option<Bound<'py, PyAny>>,
    pub(super) threads: usize,
}

impl<'py> Reading<'py> {
    pub(super) fn new(logits: &Bound<'py, PyAny>, reading: ReadOptions<'py>) -> PyResult<Self> {
        Self::named("logits", logits, reading)
    }

    fn named(
        name: &'static str,
        logits: &Bound<'py, PyAny>,
        reading: ReadOptions<'py>,
    ) -> PyResult<Self> {
        Self::of_view(name, View::of(logits, name, Accept::Numbers)?, reading)
    }

    /// The same of logits that are a view already.
    pub(super) fn of_view(
        name: &'static str,
        logits: View<'py>,
        reading: ReadOptions<'py>,
    ) -> PyResult<Self> {
        let ReadOptions(axis, temperature, softcap, valid_classes, class_mask, dtype, threads) =
            reading;
        let axis = logits.axis(name, integer(&axis, "axis")? as isize)?;
        let classes = logits.array.shape[axis];
        let mask = class_mask
            .map(|mask| {
                let view = View::of(&mask, "class_mask", Accept::Mask)?;
                let array = spread(&view.array, &logits.array.shape, axis)?;
                PyResult::Ok(View { array, ..view })
            })
            .transpose()?;
        Ok(Self {
            temperature: positive(&temperature, "temperature")?,
            softcap: softcap.map(|cap| positive(&cap, "softcap")).transpose()?,
            valid_classes: valid_classes.map_or(Ok(classes), |count| valid(&count, classes))?,
            mask,
            dtype,
            threads: threads_of(threads.as_ref())?,
            name,
            logits,
            axis,
        })
    }

    /// The same of an argument of some name, where there has to be a class at all.
    pub(super) fn with_classes(
        name: &'static str,
        logits: &Bound<'py, PyAny>,
        reading: ReadOptions<'py>,
    ) -> PyResult<Self> {
        let reading = Self::named(name, logits, reading)?;
        if reading.classes() == 0 {
            let got = shape(&reading.logits.array.shape);
            return Err(Error::value(name, "at least one class", got).into());
        }
        Ok(reading)
    }

    /// An array of real numbers, or whatever else is accepted, that has this shape.
    pub(super) fn matching(
        &self,
        given: &Bound<'py, PyAny>,
        argument: &'static str,
        accept: Accept,
        expected: &[usize],
    ) -> PyResult<View<'py>> {
        let view = View::of(given, argument, accept)?;
        self.check_shape(&view, argument, expected)?;
        Ok(view)
    }

    /// The `weight` of a call: one number for each class, and the same spread over the rows. What is read joins
    /// `others`.
    pub(super) fn class_weights(
        &self,
        given: &Bound<'py, PyAny>,
        others: &mut Vec<View<'py>>,
    ) -> PyResult<(Vec<f64>, Matrix)> {
        let view = self.matching(given, "weight", Accept::Numbers, &[self.classes()])?;
        let values = doubles(&view)?;
        let matrix = repeated(&values, &self.logits, self.axis);
        others.push(view);
        Ok((values, matrix))
    }

    /// The `sample_weight` of a call: one number for each row. What is read joins `others`.
    pub(super) fn row_weights(
        &self,
        given: &Bound<'py, PyAny>,
        others: &mut Vec<View<'py>>,
    ) -> PyResult<Vec<f64>> {
        let view = self.matching(given, "sample_weight", Accept::Numbers, &self.rows_shape())?;
        let values = doubles(&view)?;
        others.push(view);
        Ok(values)
    }

    /// An error unless an argument has this shape, which follows from that of the logits.
    pub(super) fn check_shape(
        &self,
        view: &View<'_>,
        argument: &'static str,
        expected: &[usize],
    ) -> Result<(), Error> {
        if view.array.shape == expected {
            return Ok(());
        }
        let (name, all) = (self.name, shape(&self.logits.array.shape));
        let expected = format!("shape {} to match {name} {all}", shape(expected));
        Err(Error::value(argument, expected, shape(&view.array.shape)))
    }

    /// What the core reads.
    pub(super) fn input(&self) -> Input {
        let mask = self.mask.as_ref().map(|mask| mask.matrix(self.axis));
        let logits = self.matrix();
        Input::new(logits, self.temperature, self.softcap, self.valid_classes, mask)
    }

    /// The logits as rows of columns.
    pub(super) fn matrix(&self) -> Matrix {
        self.logits.matrix(self.axis)
    }

    /// The number of classes, masked ones included.
    pub(super) fn classes(&self) -> usize {
        self.logits.array.shape[self.axis]
    }

    /// The shape of what has one value for each row.
    pub(super) fn rows_shape(&self) -> Vec<usize> {
        self.logits.rows_shape(self.axis)
    }

    /// What is read beside the logits.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &View<'py>> {
        self.mask.iter()
    }
}

fn valid(count: &Bound<'_, PyAny>, classes: usize) -> PyResult<usize> {
    let number = integer(count, "valid_classes")?;
    match usize::try_from(number) {
        Ok(valid) if (1..=classes).contains(&valid) => Ok(valid),
        _ => {
            let expected = format!("a number of classes from 1 to {classes}");
            Err(Error::value("valid_classes", expected, number).into())
        }
    }
}

/// A mask seen with the shape of the logits: along their classes if it has one axis of that length, else as NumPy
/// broadcasts.
fn spread(mask: &Array, logits: &[usize], axis: usize) -> Result<Array, Error> {
    let mut strides = vec![0; logits.len()];
    if mask.shape == [logits[axis]] {
        strides[axis] = mask.strides[0];
        return Ok(Array { shape: logits.to_vec(), strides, ..mask.clone() });
    }
    let missing = logits.len().checked_sub(mask.shape.len());
    let fits = |missing: usize| {
        mask.shape.iter().zip(&logits[missing..]).all(|(&own, &all)| own == all || own == 1)
    };
    let Some(missing) = missing.filter(|&missing| fits(missing)) else {
        let (all, classes) = (shape(logits), logits[axis]);
        let expected = format!("shape ({classes},), or one that broadcasts to the {all} of logits");
        return Err(Error::value("class_mask", expected, shape(&mask.shape)));
    };
    for (i, (&length, &stride)) in mask.shape.iter().zip(&mask.strides).enumerate() {
        strides[missing + i] = if length == 1 { 0 } else { stride };
    }
    Ok(Array { shape: logits.to_vec(), strides, ..mask.clone() })
}
