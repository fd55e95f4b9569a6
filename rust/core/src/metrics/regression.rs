//! Numbers against numbers.

use super::binary::{check, thinning};
use super::{Metric, ratio};
use crate::codec::{Reader, Writer};
use crate::distributions::normal_quantile;
use crate::error::{Error, Result};
use crate::sketches::{ExponentialHistogram, Moments};

/// Metrics of a regression over any number of rows. Sums are exact and rounded once; error quantiles are within 0.54 %.
#[derive(Clone, Debug, PartialEq)]
pub struct RegressionMetrics {
    rows: u64,
    unlabelled: u64,
    /// Sum of the squares of what each row stands for.
    stood: u64,
    labels: Moments,
    errors: Moments,
    absolute: Moments,
    relative: Moments,
    symmetric: Moments,
    /// Prediction minus label.
    histogram: ExponentialHistogram,
}

impl RegressionMetrics {
    /// No rows yet.
    ///
    /// # Errors
    /// None in practice.
    pub fn new() -> Result<Self> {
        let new = Moments::new;
        let histogram = ExponentialHistogram::new(6)?;
        Ok(Self {
            rows: 0,
            unlabelled: 0,
            stood: 0,
            labels: new(),
            errors: new(),
            absolute: new(),
            relative: new(),
            symmetric: new(),
            histogram,
        })
    }

    /// Adds rows: labels (NaN for missing) and finite predictions.
    ///
    /// # Errors
    /// `InvalidArgument` naming argument and position; nothing is added then.
    pub fn update_many(&mut self, labels: &[f64], predictions: &[f64]) -> Result<()> {
        check("y_true", Some(labels), labels.len(), "finite or missing", |value| !value.is_infinite())?;
        check("y_pred", Some(predictions), labels.len(), "finite", f64::is_finite)?;
        self.rows += labels.len() as u64;
        self.stood = self.stood.saturating_add(labels.len() as u64);
        let kept: Vec<(f64, f64)> = labels.iter().copied().zip(predictions.iter().copied()).filter(|(label, _)| !label.is_nan()).collect();
        self.unlabelled += (labels.len() - kept.len()) as u64;
        let each = |of: &dyn Fn(f64, f64) -> f64| kept.iter().map(|(label, prediction)| of(*label, *prediction)).collect::<Vec<f64>>();
        let errors = each(&|label, prediction| prediction - label);
        self.labels.update_many(&each(&|label, _| label));
        self.errors.update_many(&errors);
        self.absolute.update_many(&each(&|label, prediction| (prediction - label).abs()));
        // As scikit-learn: a label of 0 counts as 2^-52.
        self.relative.update_many(&each(&|label, prediction| (prediction - label).abs() / label.abs().max(f64::EPSILON)));
        self.symmetric.update_many(&each(&|label, prediction| {
            let size = label.abs() + prediction.abs();
            if size > 0.0 { 2.0 * (prediction - label).abs() / size } else { 0.0 }
        }));
        self.histogram.update_many(&errors);
        Ok(())
    }

    /// Adds another's rows.
    ///
    /// # Errors
    /// None in practice.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.histogram.merge(&other.histogram)?;
        self.rows += other.rows;
        self.stood = self.stood.saturating_add(other.stood);
        self.unlabelled += other.unlabelled;
        self.labels.merge(&other.labels);
        self.errors.merge(&other.errors);
        self.absolute.merge(&other.absolute);
        self.relative.merge(&other.relative);
        self.symmetric.merge(&other.symmetric);
        Ok(())
    }

    /// Takes rows away that were added before, as another's rows.
    ///
    /// # Errors
    /// `InvalidArgument` if they cannot be among these; nothing is done then.
    pub fn subtract(&mut self, other: &Self) -> Result<()> {
        let mut out = self.clone();
        out.histogram.subtract(&other.histogram)?;
        out.rows = self.rows.saturating_sub(other.rows);
        out.stood = self.stood.saturating_sub(other.stood);
        out.unlabelled = self.unlabelled.saturating_sub(other.unlabelled);
        let pairs = [
            (&mut out.labels, &other.labels),
            (&mut out.errors, &other.errors),
            (&mut out.absolute, &other.absolute),
            (&mut out.relative, &other.relative),
            (&mut out.symmetric, &other.symmetric),
        ];
        if pairs.into_iter().any(|(from, moments)| !from.subtract(moments)) {
            return Err(Error::invalid("rows that were never added cannot be taken away"));
        }
        *self = out;
        Ok(())
    }

    /// Every row stands for twice as many, the others having been left out by fair coins: values stay, limits get wider.
    ///
    /// # Errors
    /// None in practice.
    pub fn double(&mut self) -> Result<()> {
        let stood = self.stood.saturating_mul(4);
        self.merge(&self.clone())?;
        self.stood = stood;
        Ok(())
    }

    /// Rows seen, and those of them without a label.
    pub fn rows(&self) -> (u64, u64) {
        (self.rows, self.unlabelled)
    }

    /// A quantile of prediction minus label; `None` without rows.
    ///
    /// # Errors
    /// `InvalidArgument` unless `q` is in [0, 1].
    pub fn error_quantile(&self, q: f64) -> Result<Option<f64>> {
        self.histogram.quantile(q)
    }

    /// The mean pinball loss at `alpha`: `alpha` times what predictions fall short by, plus the rest times what they exceed by.
    ///
    /// # Errors
    /// `InvalidArgument` unless `alpha` is in [0, 1].
    pub fn pinball(&self, alpha: f64) -> Result<Option<f64>> {
        if !(0.0..=1.0).contains(&alpha) {
            return Err(Error::invalid(format!("`alpha` must be in [0, 1], got {alpha}")).hint("0.5 gives half the MAE"));
        }
        // Mean absolute error and bias are the sum and the difference of both parts.
        Ok(self.absolute.mean().zip(self.errors.mean()).map(|(absolute, bias)| 0.5 * absolute + (0.5 - alpha) * bias))
    }

    /// All metrics; normal limits at `confidence` for means. Rows that stand for several count as many as they are worth (Kish).
    pub fn metrics(&self, confidence: f64) -> Vec<Metric> {
        let z = normal_quantile(f64::midpoint(1.0, confidence));
        let thinning = thinning(self.rows, self.stood);
        let mean = |name, moments: &Moments| {
            let limits = moments.mean().zip(moments.variance()).map(|(mean, variance)| {
                let reach = z * libm::sqrt(variance * thinning / moments.count() as f64);
                (mean - reach, mean + reach)
            });
            Metric::new(name, moments.mean()).within(limits)
        };
        let n = self.errors.count() as f64;
        // Mean square from variance and mean, both exact until rounded once.
        let square =
            self.errors.mean().map(|mean| self.errors.variance().map_or(mean * mean, |variance| variance * (n - 1.0) / n + mean * mean));
        let r2 = self
            .labels
            .variance()
            .zip(square)
            .and_then(|(variance, square)| ratio(square * n, variance * (n - 1.0)))
            .map(|share| 1.0 - share);
        vec![
            mean("mae", &self.absolute),
            Metric::new("rmse", square.map(libm::sqrt)),
            Metric::new("mse", square),
            mean("mape", &self.relative),
            mean("smape", &self.symmetric),
            Metric::new("r2", r2),
            mean("bias", &self.errors),
        ]
    }

    /// Appends the state to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u64(self.rows);
        writer.u64(self.unlabelled);
        writer.u64(self.stood);
        [&self.labels, &self.errors, &self.absolute, &self.relative, &self.symmetric]
            .into_iter()
            .for_each(|moments| moments.encode(writer));
        self.histogram.encode(writer);
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// `Decode` for bytes that no `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let (rows, unlabelled, stood) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let mut moments = || Moments::decode(reader);
        let (labels, errors, absolute, relative, symmetric) = (moments()?, moments()?, moments()?, moments()?, moments()?);
        let histogram = ExponentialHistogram::decode(reader)?;
        if histogram.scale() != 6 || histogram.count() != errors.count() {
            return Err(Error::decode("the counters of a metric contradict each other"));
        }
        Ok(Self { rows, unlabelled, stood, labels, errors, absolute, relative, symmetric, histogram })
    }
}
