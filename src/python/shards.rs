//! `partial_cross_entropy`, `finish_cross_entropy`, `shard_grad`. How partials are put together is Python's affair.

use super::arguments::{ignored_classes, integer};
use super::arrays::{Accept, View, doubles, doubles_of};
use super::reading::{ReadOptions, Reading};
use super::reducing::{ReduceOptions, Reduced};
use super::results::ResultType;
use super::runtime::detached;
use crate::compute::{self, LossWeights, Merged, Pieces, ShardGradient, ShardTarget};
use crate::element::Kind;
use crate::error::{self, Error};
use crate::sweep::Input;
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// What is the same in all calls about a shard, in the order in which Python hands it over.
#[derive(FromPyObject)]
pub(super) struct ShardOptions<'py>(
    Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
);

/// Class ids end here, so that doubles hold them all.
const LAST_CLASS: usize = 1 << 53;

/// A shard's logits and targets, checked.
struct Shard<'py> {
    reading: Reading<'py>,
    input: Input,
    class_offset: usize,
    /// The class ids among all classes.
    ids: Vec<Option<usize>>,
    /// The same within the shard.
    targets: Vec<ShardTarget>,
    weights: LossWeights,
    /// What was read beside the logits and the mask.
    others: Vec<View<'py>>,
}

impl<'py> Shard<'py> {
    fn new(
        logits: &Bound<'py, PyAny>,
        targets: &Bound<'py, PyAny>,
        reading: ReadOptions<'py>,
        shard: ShardOptions<'py>,
    ) -> PyResult<Self> {
        let ShardOptions(class_offset, weight, ignore_index) = shard;
        let reading = Reading::with_classes("logits_shard", logits, reading)?;
        let given = integer(&class_offset, "class_offset")?;
        let last = LAST_CLASS.saturating_sub(reading.classes());
        let Some(offset) = usize::try_from(given).ok().filter(|&offset| offset <= last) else {
            let expected = format!("a number from 0 to {last}");
            return Err(Error::value("class_offset", expected, given).into());
        };
        let mut others = Vec::new();
        let mut weights = LossWeights::default();
        if let Some(weight) = weight {
            weights.classes = Some(reading.class_weights(&weight, &mut others)?);
        }
        let ignored = ignored_classes(ignore_index.as_ref())?;
        let rows = reading.rows_shape();
        let view = reading.matching(targets, "targets", Accept::Integers, &rows)?;
        let ids = view.class_ids("targets", LAST_CLASS, |_, id| ignored.contains(&id))?;
        others.push(view);
        let classes = reading.classes();
        let within = |id: &Option<usize>| match id {
            None => ShardTarget::Ignored,
            Some(id) => match id.checked_sub(offset).filter(|&class| class < classes) {
                Some(class) => ShardTarget::Here(class),
                None => ShardTarget::Elsewhere,
            },
        };
        let targets = error::collect(ids.iter().map(within))?;
        let input = reading.input();
        Ok(Self { reading, input, class_offset: offset, ids, targets, weights, others })
    }

    fn flags(&self, target: impl Fn(&ShardTarget) -> bool) -> Result<Vec<bool>, Error> {
        error::collect(self.targets.iter().map(target))
    }
}

#[pyfunction]
#[pyo3(signature = (logits_shard, targets, reading, shard, /))]
pub(super) fn partial_cross_entropy<'py>(
    logits_shard: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    reading: ReadOptions<'py>,
    shard: ShardOptions<'py>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = logits_shard.py();
    let shard = Shard::new(logits_shard, targets, reading, shard)?;
    let weights = shard.weights.classes.as_ref();
    let pieces = detached(py, shard.reading.threads, |run| {
        compute::partial_cross_entropy(run, &shard.input, &shard.targets, weights)
    })?;
    let result = PyDict::new(py);
    let rows = shard.reading.rows_shape();
    let set = |name: &str, array: Bound<'py, PyAny>| {
        result.set_item(name, array.call_method1("reshape", (&rows,))?)
    };
    let ids = error::collect(shard.ids.iter().map(id_or_none))?;
    set("target", PyArray1::from_vec(py, ids).into_any())?;
    let ignored = shard.flags(|target| matches!(target, ShardTarget::Ignored))?;
    set("ignored", PyArray1::from_vec(py, ignored).into_any())?;
    let held = shard.flags(|target| matches!(target, ShardTarget::Here(_)))?;
    set("held", PyArray1::from_vec(py, held).into_any())?;
    for (name, values) in [
        ("max", pieces.max),
        ("sum", pieces.sum),
        ("moment", pieces.moment),
        ("weight", pieces.weight),
        ("allowed", pieces.allowed),
        ("target_logit", pieces.target_logit),
        ("target_weight", pieces.target_weight),
        ("target_allowed", pieces.target_allowed),
    ] {
        set(name, PyArray1::from_vec(py, values).into_any())?;
    }
    let kind = shard.reading.logits.array.kind;
    result.set_item("classes", shard.reading.classes())?;
    result.set_item("single", matches!(kind, Kind::F16 | Kind::BF16 | Kind::F32))?;
    Ok(result)
}

/// A class id as partials have it: -1 in an ignored row.
fn id_or_none(id: &Option<usize>) -> i64 {
    id.map_or(-1, |id| id as i64)
}

#[pyfunction]
#[pyo3(signature = (merged, sample_weight, label_smoothing, z_loss, reducing, dtype, /))]
pub(super) fn finish_cross_entropy<'py>(
    merged: &Bound<'py, PyAny>,
    sample_weight: Option<&Bound<'py, PyAny>>,
    label_smoothing: &Bound<'py, PyAny>,
    z_loss: &Bound<'py, PyAny>,
    reducing: ReduceOptions<'py>,
    dtype: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = merged.py();
    let whole = Whole::new(merged)?;
    let weights = sample_weight.map(|given| whole.row_weights(given)).transpose()?;
    let result_type = whole.result_type(dtype)?;
    let reduced = Reduced::of_rows(whole.rows.clone(), result_type, reducing)?;
    let options = reduced.cross_entropy(label_smoothing, z_loss)?;
    let rows = weights.as_deref();
    let merged = &whole.merged;
    let loss = detached(py, 1, |_| compute::finish_cross_entropy(merged, rows, &options))?;
    reduced.result(py, loss)
}

#[pyfunction]
#[pyo3(signature = (
    logits_shard, targets, merged, reading, shard, sample_weight, label_smoothing, z_loss, reducing, grad_output, out, /
))]
#[expect(clippy::too_many_arguments, reason = "each has its name in Python")]
pub(super) fn shard_grad<'py>(
    logits_shard: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    merged: &Bound<'py, PyAny>,
    reading: ReadOptions<'py>,
    shard: ShardOptions<'py>,
    sample_weight: Option<&Bound<'py, PyAny>>,
    label_smoothing: &Bound<'py, PyAny>,
    z_loss: &Bound<'py, PyAny>,
    reducing: ReduceOptions<'py>,
    grad_output: Option<&Bound<'py, PyAny>>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = logits_shard.py();
    let mut shard = Shard::new(logits_shard, targets, reading, shard)?;
    let whole = Whole::new(merged)?;
    whole.check_piece(&shard)?;
    let reading = &shard.reading;
    let reduced = Reduced::new(reading, reducing)?;
    let options = reduced.cross_entropy(label_smoothing, z_loss)?;
    if let Some(given) = sample_weight {
        shard.weights.rows = Some(reading.row_weights(given, &mut shard.others)?);
    }
    let (grad, upstream) = reduced.gradient(reading, &shard.others, grad_output, out)?;
    let to = grad.matrix(reading.axis);
    let (merged, targets, weights) = (&whole.merged, shard.targets.as_slice(), &shard.weights);
    detached(py, reading.threads, |run| {
        let (options, upstream) = (&options, &upstream);
        let gradient = ShardGradient { merged, targets, weights, options, upstream };
        compute::shard_grad(run, &shard.input, &gradient, &to)
    })?;
    Ok(grad.object.into_any())
}

/// Merged partials, which Python has checked: one record for each shard and row.
struct Whole<'py> {
    records: Bound<'py, PyAny>,
    rows: Vec<usize>,
    merged: Merged,
}

impl<'py> Whole<'py> {
    fn new(records: &Bound<'py, PyAny>) -> PyResult<Self> {
        let field = |name: &str| -> PyResult<Vec<f64>> { doubles_of(&records.get_item(name)?) };
        let shape: Vec<usize> = records.getattr("shape")?.extract()?;
        let rows = shape[1..].to_vec();
        let count = rows.iter().product();
        let (held, ignored) = (field("held")?, field("ignored")?);
        let holder = |row: usize| -> Option<usize> {
            (ignored[row] == 0.0).then_some(0)?;
            (row..held.len()).step_by(count).position(|i| held[i] != 0.0)
        };
        let holders = error::collect((0..count).map(holder))?;
        let temperature = field("temperature")?.first().copied().unwrap_or(1.0);
        let pieces = Pieces {
            max: field("max")?,
            sum: field("sum")?,
            moment: field("moment")?,
            weight: field("weight")?,
            allowed: field("allowed")?,
            target_logit: field("target_logit")?,
            target_weight: field("target_weight")?,
            target_allowed: field("target_allowed")?,
        };
        let merged = Merged { pieces, holders, temperature };
        Ok(Self { records: records.clone(), rows, merged })
    }

    /// An error unless a shard is one of the pieces.
    fn check_piece(&self, shard: &Shard<'py>) -> PyResult<()> {
        let rows = shard.reading.rows_shape();
        if self.rows != rows {
            let expected = format!("rows of shape {}", error::shape(&rows));
            return Err(Error::value("merged", expected, error::shape(&self.rows)).into());
        }
        let field = |name: &str| doubles_of(&self.records.get_item(name)?);
        let (count, start) = (shard.ids.len(), shard.class_offset as f64);
        let end = start + shard.reading.classes() as f64;
        let bounds = field("class_offset")?.into_iter().zip(field("class_end")?);
        if count > 0 && !bounds.step_by(count).any(|bounds| bounds == (start, end)) {
            let expected = format!("the classes {start} to {end} among its pieces");
            return Err(Error::value("merged", expected, "others").into());
        }
        let same = |given: f64, wanted: f64| given == wanted || given.is_nan() && wanted.is_nan();
        let softcap = shard.input.softcap.unwrap_or(f64::NAN);
        let same_scale = same(self.merged.temperature, shard.input.temperature)
            && field("softcap")?.first().is_none_or(|&given| same(given, softcap));
        let ids = shard.ids.iter().map(|id| id_or_none(id) as f64);
        if (count > 0 && !same_scale) || !field("target")?.into_iter().take(count).eq(ids) {
            let expected = "the targets, temperature and softcap of the shard";
            return Err(Error::value("merged", expected, "others").into());
        }
        Ok(())
    }

    /// One number for each row.
    fn row_weights(&self, given: &Bound<'py, PyAny>) -> PyResult<Vec<f64>> {
        let view = View::of(given, "sample_weight", Accept::Numbers)?;
        if view.array.shape != self.rows {
            let expected = format!("shape {}", error::shape(&self.rows));
            let got = error::shape(&view.array.shape);
            return Err(Error::value("sample_weight", expected, got).into());
        }
        doubles(&view)
    }

    /// The dtype that was asked for, or that of the loss of such logits.
    fn result_type(&self, asked: Option<&Bound<'py, PyAny>>) -> PyResult<ResultType<'py>> {
        let single = self.records.get_item("single")?.call_method0("all")?.is_truthy()?;
        ResultType::of_loss(self.records.py(), single, asked)
    }
}
