//! The cross-entropy of rows whose classes are split in shards: what each shard sums, and what follows from all.
//!
//! A shard's summary of a row is the kernel's own (`row::Partial`), with the target set aside by the shard that has it;
//! so the pieces of a row are merged as its chunks are, and its loss is that of a whole row.

use super::reduced::Scales;
use super::{Logit, Loss, LossWeights, PerRow, Upstream};
use crate::batch::Matrix;
use crate::error::{self, Error};
use crate::loss::{CrossEntropy, Denominator, RowLoss, Summary};
use crate::row::Partial;
use crate::sweep::{Action, Input, Job, Run, Selection, Weighting, sweep};

/// Where the class of a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardTarget {
    /// The row is ignored.
    Ignored,
    /// In another shard.
    Elsewhere,
    /// At this column.
    Here(usize),
}

/// What shards know of rows; each field has one number for each shard and row, the rows of a shard side by side.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// The largest logit.
    pub max: Vec<f64>,
    /// `sum exp((x - max) / temperature)`, without the target.
    pub sum: Vec<f64>,
    /// `sum w (x - max)` for class weights w, without the target.
    pub moment: Vec<f64>,
    /// `sum w`, without the target.
    pub weight: Vec<f64>,
    /// How many classes are not masked, the target included.
    pub allowed: Vec<f64>,
    /// The logit of the target where the shard has it.
    pub target_logit: Vec<f64>,
    /// Its class weight.
    pub target_weight: Vec<f64>,
    /// 1 unless it is masked.
    pub target_allowed: Vec<f64>,
}

/// What a shard adds to the loss of each row.
pub fn partial_cross_entropy(
    run: Run<'_>,
    input: &Input,
    targets: &[ShardTarget],
    weights: Option<&(Vec<f64>, Matrix)>,
) -> Result<Pieces, Error> {
    let new = || PerRow::new(targets.len());
    let (max, sum, moment, weight) = (new()?, new()?, new()?, new()?);
    let target_logit = new()?;
    let rows = [&max, &sum, &moment, &weight, &target_logit];
    sweep(run, input, None, &Summing { targets, weights, rows })?;
    let of_here = |row: usize, value: &dyn Fn(usize) -> f64| match targets[row] {
        ShardTarget::Here(class) => value(class),
        _ => 0.0,
    };
    let weight_of = |class: usize| weights.map_or(1.0, |(weights, _)| weights[class]);
    let all = 0..targets.len();
    let target_weight = all.clone().map(|row| of_here(row, &weight_of));
    let target_allowed =
        all.map(|row| of_here(row, &|class| f64::from(u8::from(input.is_allowed(row, class)))));
    Ok(Pieces {
        max: max.into_values()?,
        sum: sum.into_values()?,
        moment: moment.into_values()?,
        weight: weight.into_values()?,
        allowed: error::collect((0..targets.len()).map(|row| input.allowed(row) as f64))?,
        target_logit: target_logit.into_values()?,
        target_weight: error::collect(target_weight)?,
        target_allowed: error::collect(target_allowed)?,
    })
}

struct Summing<'a> {
    targets: &'a [ShardTarget],
    weights: Option<&'a (Vec<f64>, Matrix)>,
    /// Maximum, sum, moment, weight, and the logit of the target.
    rows: [&'a PerRow; 5],
}

impl Job for Summing<'_> {
    fn select(&self, row: usize) -> Selection {
        match self.targets[row] {
            ShardTarget::Ignored => Selection::Nothing,
            ShardTarget::Elsewhere => Selection::All,
            ShardTarget::Here(class) => Selection::Aside(class),
        }
    }

    fn weighting(&self) -> Option<Weighting<'_>> {
        Some(class_weights(self.weights))
    }

    fn take(&self, row: usize, Partial { max, sum, moment, weight, .. }: &Partial) {
        for (values, value) in self.rows.iter().zip([max, sum, moment, weight]) {
            values.set(row, *value);
        }
    }

    fn finish(&self, row: usize, _: Option<&Summary>, logit: Logit<'_>) -> Action {
        if let ShardTarget::Here(class) = self.targets[row] {
            self.rows[4].set(row, logit(class));
        }
        Action::Leave
    }
}

/// Every allowed class by its class weight.
fn class_weights(weights: Option<&(Vec<f64>, Matrix)>) -> Weighting<'_> {
    let classes = weights.map(|(_, matrix)| matrix);
    Weighting { classes, targets: None, of_targets: 0.0 }
}

/// All pieces of some rows.
#[derive(Clone, Debug)]
pub struct Merged {
    /// Those of each shard, in the order of the classes.
    pub pieces: Pieces,
    /// Which shard has the target of each row; None: the row is ignored.
    pub holders: Vec<Option<usize>>,
    /// Divides the logits.
    pub temperature: f64,
}

impl Merged {
    /// The row as if it were one, and how many of its classes are not masked; None if it is ignored.
    fn row(&self, row: usize) -> Option<(Summary, f64)> {
        let (rows, p) = (self.holders.len(), &self.pieces);
        let held = self.holders[row]? * rows + row;
        let (mut whole, mut allowed) = (Partial::EMPTY, 0.0);
        for i in (row..p.max.len()).step_by(rows) {
            let (max, sum, moment, weight) = (p.max[i], p.sum[i], p.moment[i], p.weight[i]);
            let piece = Partial { max, sum, moment, weight, ..Partial::EMPTY };
            whole = whole.merge(piece, self.temperature);
            allowed += p.allowed[i];
        }
        let weight = if p.target_allowed[held] == 0.0 { 0.0 } else { p.target_weight[held] };
        let aside = Partial::of_one(p.target_logit[held], weight);
        Some((Summary::with_aside(whole, aside, self.temperature), allowed))
    }

    fn target_weight(&self, row: usize) -> Option<f64> {
        let holder = self.holders[row]?;
        Some(self.pieces.target_weight[holder * self.holders.len() + row])
    }
}

/// The loss of whole rows.
struct WholeLoss<'a> {
    merged: &'a Merged,
    row_weights: Option<&'a [f64]>,
    options: &'a CrossEntropy,
}

impl WholeLoss<'_> {
    fn row_weight(&self, row: usize) -> f64 {
        self.row_weights.map_or(1.0, |weights| weights[row])
    }

    fn denominator(&self) -> Result<Denominator, Error> {
        self.options.reducing.denominator((0..self.merged.holders.len()).filter_map(|row| {
            let weight = self.row_weight(row);
            self.merged
                .target_weight(row)
                .filter(|_| weight != 0.0)
                .map(|of_class| of_class * weight)
        }))
    }

    /// The row and the coefficients of its loss, unless it is ignored.
    fn row(&self, row: usize) -> Option<(Summary, RowLoss)> {
        let weight = self.row_weight(row);
        if weight == 0.0 {
            return None;
        }
        let (summary, allowed) = self.merged.row(row)?;
        let smoothing = self.options.label_smoothing;
        let own = (1.0 - smoothing) * self.merged.target_weight(row)?;
        let spread = if smoothing == 0.0 { 0.0 } else { smoothing / allowed };
        let square = weight * self.options.z_loss;
        Some((summary, RowLoss { own: weight * own, spread: weight * spread, square }))
    }
}

/// The loss, of all pieces of all rows.
pub fn finish_cross_entropy(
    merged: &Merged,
    row_weights: Option<&[f64]>,
    options: &CrossEntropy,
) -> Result<Loss, Error> {
    let whole = WholeLoss { merged, row_weights, options };
    let rows = PerRow::new(merged.holders.len())?;
    for row in 0..merged.holders.len() {
        let loss = whole.row(row).map_or(0.0, |(summary, loss)| loss.value(&summary));
        rows.set(row, loss);
    }
    Loss::of_rows(rows, &options.reducing, whole.denominator()?)
}

/// What the gradient of a shard is made of, beside its logits.
pub struct ShardGradient<'a> {
    /// All pieces of all rows.
    pub merged: &'a Merged,
    /// The shard's part of the targets.
    pub targets: &'a [ShardTarget],
    /// The weights of the shard's classes and of the rows.
    pub weights: &'a LossWeights,
    /// The options of the loss.
    pub options: &'a CrossEntropy,
    /// What comes after.
    pub upstream: &'a Upstream,
}

/// Writes the gradient of that loss with respect to the logits of one shard.
pub fn shard_grad(
    run: Run<'_>,
    input: &Input,
    shard: &ShardGradient<'_>,
    out: &Matrix,
) -> Result<(), Error> {
    let (merged, options) = (shard.merged, shard.options);
    let whole = WholeLoss { merged, row_weights: shard.weights.rows.as_deref(), options };
    let scales = Scales::new(shard.upstream, whole.denominator()?);
    sweep(run, input, Some(out), &Writing { shard, whole, scales })
}

struct Writing<'a> {
    shard: &'a ShardGradient<'a>,
    whole: WholeLoss<'a>,
    scales: Scales<'a>,
}

impl Job for Writing<'_> {
    fn select(&self, _: usize) -> Selection {
        Selection::Nothing
    }

    fn weighting(&self) -> Option<Weighting<'_>> {
        let smoothing = self.shard.options.label_smoothing;
        (smoothing != 0.0).then(|| class_weights(self.shard.weights.classes.as_ref()))
    }

    fn finish(&self, row: usize, _: Option<&Summary>, _: Logit<'_>) -> Action {
        let Some((summary, loss)) = self.whole.row(row) else { return Action::Fill(0.0) };
        let q = self.whole.merged.target_weight(row).unwrap_or(0.0);
        let scale = self.scales.of_row(row);
        let gradient = loss.gradient(&summary, q, scale, self.whole.merged.temperature);
        Action::slope(
            &summary,
            gradient,
            match self.shard.targets[row] {
                ShardTarget::Here(class) => Some(class),
                _ => None,
            },
        )
    }
}
