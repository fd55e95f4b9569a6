//! How good the predictions of a tile were, by the labels that have come.

use barograph_core::codec::{Reader, Writer};
use barograph_core::metrics::{BinaryMetrics, Metric, RegressionMetrics};
use barograph_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::report::Method;

/// What a model predicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// A score of the positive class, in [0, 1]; labels 0 and 1.
    #[default]
    Binary,
    /// A number; labels are numbers.
    Regression,
}

/// The metrics of a task that a monitor shows, and their rows.
const BINARY: [(&str, Method); 4] =
    [("roc_auc", Method::RocAuc), ("average_precision", Method::AveragePrecision), ("log_loss", Method::LogLoss), ("brier", Method::Brier)];
const REGRESSION: [(&str, Method); 4] = [("mae", Method::Mae), ("rmse", Method::Rmse), ("r2", Method::R2), ("bias", Method::Bias)];

/// Metrics of labelled events.
#[derive(Clone, Debug, PartialEq)]
pub enum Quality {
    /// Scores by label.
    Binary(Box<BinaryMetrics>),
    /// Numbers by label.
    Regression(Box<RegressionMetrics>),
}

impl Task {
    /// Names of the metrics, and what their rows are called.
    pub(crate) fn metrics(self) -> &'static [(&'static str, Method)] {
        match self {
            Self::Binary => &BINARY,
            Self::Regression => &REGRESSION,
        }
    }
}

impl Quality {
    /// No labels yet.
    ///
    /// # Errors
    /// None in practice.
    pub fn new(task: Task) -> Result<Self> {
        Ok(match task {
            Task::Binary => Self::Binary(Box::default()),
            Task::Regression => Self::Regression(Box::new(RegressionMetrics::new()?)),
        })
    }

    /// What it is about.
    pub fn task(&self) -> Task {
        match self {
            Self::Binary(_) => Task::Binary,
            Self::Regression(_) => Task::Regression,
        }
    }

    /// Adds predictions with their labels; a score outside [0, 1] and what is not finite are left out.
    ///
    /// # Errors
    /// None in practice.
    pub fn update(&mut self, pairs: &[(f64, f64)]) -> Result<()> {
        match self {
            Self::Binary(metrics) => {
                let kept = pairs.iter().filter(|(_, score)| (0.0..=1.0).contains(score));
                let (labels, scores): (Vec<f64>, Vec<f64>) = kept.map(|(label, score)| (f64::from(u8::from(*label > 0.5)), *score)).unzip();
                metrics.update_many(&labels, Some(&scores), None, None)
            }
            Self::Regression(metrics) => {
                let kept = pairs.iter().filter(|(label, number)| label.is_finite() && number.is_finite());
                let (labels, numbers): (Vec<f64>, Vec<f64>) = kept.copied().unzip();
                metrics.update_many(&labels, &numbers)
            }
        }
    }

    /// Adds another's rows, of the same task.
    ///
    /// # Errors
    /// `Incompatible` for another task.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        match (self, other) {
            (Self::Binary(mine), Self::Binary(theirs)) => mine.merge(theirs),
            (Self::Regression(mine), Self::Regression(theirs)) => mine.merge(theirs)?,
            _ => return Err(Error::incompatible("metrics of a binary and of a regression model do not add up")),
        }
        Ok(())
    }

    /// The metrics a monitor shows, with two-sided limits at `confidence`.
    pub fn metrics(&self, confidence: f64) -> Vec<(Method, Metric)> {
        let all = match self {
            Self::Binary(metrics) => metrics.metrics(confidence),
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
            1 => Self::Regression(Box::new(RegressionMetrics::decode(reader)?)),
            other => return Err(Error::decode(format!("a tile of the snapshot has metrics of task {other}"))),
        })
    }
}
