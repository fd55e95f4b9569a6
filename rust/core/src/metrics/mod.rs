//! Quality of predictions against labels. Every sum is an integer: order, batches and shards leave no trace.

mod binary;
mod fixed;
mod logarithm;
mod multiclass;
mod ranking;
mod regression;
pub mod roc_auc;

pub use binary::{BinaryMetrics, CALIBRATION_BINS};
pub use multiclass::MulticlassMetrics;
pub use ranking::RankingMetrics;
pub use regression::RegressionMetrics;
pub use roc_auc::RocAuc;

/// A metric with its interval; `None` where it does not exist (no rows, one class only, a division by zero).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name in frames and dictionaries.
    pub name: &'static str,
    /// The value.
    pub value: Option<f64>,
    /// Limits at the confidence asked for, where there are any.
    pub limits: Option<(f64, f64)>,
}

impl Metric {
    pub(crate) fn new(name: &'static str, value: Option<f64>) -> Self {
        Self { name, value: value.filter(|value| value.is_finite()), limits: None }
    }

    pub(crate) fn within(mut self, limits: Option<(f64, f64)>) -> Self {
        self.limits = limits.filter(|(low, high)| low.is_finite() && high.is_finite() && self.value.is_some());
        self
    }
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}
