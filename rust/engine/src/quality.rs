//! How good the predictions of a tile were, by the labels that have come.

use std::collections::BTreeMap;

use barograph_core::codec::{Reader, Writer};
use barograph_core::distributions::{binomial_lower, binomial_upper};
use barograph_core::metrics::{BinaryMetrics, Metric, MulticlassMetrics, RegressionMetrics};
use barograph_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::labels::Prediction;
use crate::report::Method;

/// What a model predicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// A score of the positive class, in [0, 1]; labels 0 and 1.
    #[default]
    Binary,
    /// One of several classes, with or without a probability for each; labels are classes.
    Multiclass,
    /// A number; labels are numbers.
    Regression,
}

/// The metrics of a task that a monitor shows, and their rows.
const BINARY: [(&str, Method); 4] =
    [("roc_auc", Method::RocAuc), ("average_precision", Method::AveragePrecision), ("log_loss", Method::LogLoss), ("brier", Method::Brier)];
const MULTICLASS: [(&str, Method); 4] = [
    ("accuracy", Method::Accuracy),
    ("balanced_accuracy", Method::BalancedAccuracy),
    ("f1_macro", Method::F1Macro),
    ("roc_auc_ovr", Method::RocAucOvr),
];
const REGRESSION: [(&str, Method); 4] = [("mae", Method::Mae), ("rmse", Method::Rmse), ("r2", Method::R2), ("bias", Method::Bias)];

/// Metrics of labelled events.
#[derive(Clone, Debug, PartialEq)]
pub enum Quality {
    /// Scores by label.
    Binary(Box<BinaryMetrics>),
    /// Classes by label.
    Multiclass(Box<MulticlassMetrics>),
    /// Numbers by label.
    Regression(Box<RegressionMetrics>),
}

impl Task {
    /// Names of the metrics, and what their rows are called.
    pub(crate) fn metrics(self) -> &'static [(&'static str, Method)] {
        match self {
            Self::Binary => &BINARY,
            Self::Multiclass => &MULTICLASS,
            Self::Regression => &REGRESSION,
        }
    }
}

impl Quality {
    /// No labels yet; `classes` counts those of a multiclass model.
    ///
    /// # Errors
    /// `InvalidArgument` for a number of classes that cannot be.
    pub fn new(task: Task, classes: usize) -> Result<Self> {
        Ok(match task {
            Task::Binary => Self::Binary(Box::default()),
            Task::Multiclass => Self::Multiclass(Box::new(MulticlassMetrics::new(classes)?)),
            Task::Regression => Self::Regression(Box::new(RegressionMetrics::new()?)),
        })
    }

    /// What it is about.
    pub fn task(&self) -> Task {
        match self {
            Self::Binary(_) => Task::Binary,
            Self::Multiclass(_) => Task::Multiclass,
            Self::Regression(_) => Task::Regression,
        }
    }

    /// Adds predictions with their labels, each as many times as it stands for; a score outside [0, 1] and what is not finite are left
    /// out. Classes are positions.
    ///
    /// # Errors
    /// None in practice.
    pub fn update(&mut self, joined: &[(Prediction, f64)]) -> Result<()> {
        if joined.iter().all(|(prediction, _)| prediction.halvings == 0) {
            return self.add(joined);
        }
        let mut by_halvings: BTreeMap<u8, Vec<(Prediction, f64)>> = BTreeMap::new();
        for (prediction, label) in joined {
            by_halvings.entry(prediction.halvings).or_default().push((prediction.clone(), *label));
        }
        for (halvings, rows) in by_halvings {
            let mut part = self.empty()?;
            part.add(&rows)?;
            for _ in 0..halvings {
                part.double()?;
            }
            self.merge(&part)?;
        }
        Ok(())
    }

    /// Of the same task, without rows.
    fn empty(&self) -> Result<Self> {
        let classes = if let Self::Multiclass(metrics) = self { metrics.confusion().len() } else { 0 };
        Self::new(self.task(), classes)
    }

    /// Every row stands for twice as many.
    fn double(&mut self) -> Result<()> {
        match self {
            Self::Binary(metrics) => metrics.double(),
            Self::Multiclass(metrics) => metrics.double()?,
            Self::Regression(metrics) => metrics.double()?,
        }
        Ok(())
    }

    /// Adds rows each of which stands for itself.
    fn add(&mut self, joined: &[(Prediction, f64)]) -> Result<()> {
        match self {
            Self::Multiclass(metrics) => {
                // Rows with a probability per class and rows without are different rows to the metrics.
                let (with, without): (Vec<_>, Vec<_>) = joined
                    .iter()
                    .filter(|(prediction, _)| prediction.score.is_some())
                    .partition(|(prediction, _)| !prediction.chances.is_empty());
                for rows in [with, without].into_iter().filter(|rows| !rows.is_empty()) {
                    let labels: Vec<i64> = rows.iter().map(|(_, label)| *label as i64).collect();
                    let classes: Vec<i64> = rows.iter().filter_map(|(prediction, _)| prediction.score).map(|class| class as i64).collect();
                    let chances: Vec<f64> =
                        rows.iter().flat_map(|(prediction, _)| prediction.chances.iter().map(|chance| f64::from(*chance))).collect();
                    let weights = weights(rows.iter().map(|(prediction, _)| prediction.weight));
                    metrics.update_many(&labels, &classes, (!chances.is_empty()).then_some(&chances), weights.as_deref())?;
                }
                Ok(())
            }
            Self::Binary(metrics) => {
                let scored = |prediction: &Prediction| prediction.score.filter(|score| (0.0..=1.0).contains(score));
                let kept: Vec<_> = joined.iter().filter_map(|(prediction, label)| Some((prediction, label, scored(prediction)?))).collect();
                let (labels, scores): (Vec<f64>, Vec<f64>) =
                    kept.iter().map(|(_, label, score)| (f64::from(u8::from(**label > 0.5)), *score)).unzip();
                let weights = weights(kept.iter().map(|(prediction, ..)| prediction.weight));
                metrics.update_many(&labels, Some(&scores), None, weights.as_deref())
            }
            Self::Regression(metrics) => {
                let pairs = joined.iter().filter_map(|(prediction, label)| Some((*label, prediction.score?)));
                let (labels, numbers): (Vec<f64>, Vec<f64>) = pairs.filter(|(a, b)| a.is_finite() && b.is_finite()).unzip();
                metrics.update_many(&labels, &numbers)
            }
        }
    }

    /// Takes rows away that were added before: the same state as if they had never come.
    ///
    /// # Errors
    /// `InvalidArgument` for rows that cannot be among these.
    pub fn remove(&mut self, joined: &[(Prediction, f64)]) -> Result<()> {
        let mut gone = self.empty()?;
        gone.update(joined)?;
        match (self, &gone) {
            (Self::Binary(mine), Self::Binary(gone)) => mine.subtract(gone),
            (Self::Multiclass(mine), Self::Multiclass(gone)) => mine.subtract(gone),
            (Self::Regression(mine), Self::Regression(gone)) => mine.subtract(gone)?,
            _ => {}
        }
        Ok(())
    }

    /// Adds another's rows, of the same task.
    ///
    /// # Errors
    /// `Incompatible` for another task.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        match (self, other) {
            (Self::Binary(mine), Self::Binary(theirs)) => mine.merge(theirs),
            (Self::Multiclass(mine), Self::Multiclass(theirs)) => mine.merge(theirs)?,
            (Self::Regression(mine), Self::Regression(theirs)) => mine.merge(theirs)?,
            _ => return Err(Error::incompatible("metrics of different tasks do not add up")),
        }
        Ok(())
    }

    /// The metrics a monitor shows, with two-sided limits at `confidence`.
    pub fn metrics(&self, confidence: f64) -> Vec<(Method, Metric)> {
        let all = match self {
            Self::Binary(metrics) => metrics.metrics(confidence),
            Self::Multiclass(metrics) => with_limits(metrics, confidence),
            Self::Regression(metrics) => metrics.metrics(confidence),
        };
        let shown = self.task().metrics();
        let found = all.into_iter().filter_map(|metric| Some((shown.iter().find(|(name, _)| *name == metric.name)?.1, metric)));
        found.collect()
    }

    /// Appends the metrics to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Binary(metrics) => {
                writer.u8(0);
                metrics.encode(writer);
            }
            Self::Multiclass(metrics) => {
                writer.u8(2);
                metrics.encode(writer);
            }
            Self::Regression(metrics) => {
                writer.u8(1);
                metrics.encode(writer);
            }
        }
    }

    /// Reads metrics back.
    ///
    /// # Errors
    /// `Decode` for bytes that no `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(match reader.u8()? {
            0 => Self::Binary(Box::new(BinaryMetrics::decode(reader)?)),
            2 => Self::Multiclass(Box::new(MulticlassMetrics::decode(reader)?)),
            1 => Self::Regression(Box::new(RegressionMetrics::decode(reader)?)),
            other => return Err(Error::decode(format!("a tile of the snapshot has metrics of task {other}"))),
        })
    }
}

/// Weights, unless all are 1.
fn weights(weights: impl Iterator<Item = f64> + Clone) -> Option<Vec<f64>> {
    weights.clone().any(|weight| weight != 1.0).then(|| weights.collect())
}

/// The metrics, the accuracy between its two-sided Clopper-Pearson limits.
fn with_limits(metrics: &MulticlassMetrics, confidence: f64) -> Vec<Metric> {
    let (rows, unlabelled) = metrics.rows();
    let (rows, alpha) = ((rows - unlabelled) as f64 / metrics.thinning(), 0.5 * (1.0 - confidence));
    let limited = metrics.metrics().into_iter().map(|metric| match metric.value {
        Some(share) if metric.name == "accuracy" => {
            let hits = libm::round(share * rows);
            Metric { limits: Some((binomial_lower(hits, rows, alpha), binomial_upper(hits, rows, alpha))), ..metric }
        }
        _ => metric,
    });
    limited.collect()
}
