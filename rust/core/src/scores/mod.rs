//! Distances of a current profile from its reference.

pub mod chi_square;
pub mod domain_classifier;
pub mod energy;
pub mod hellinger;
pub mod jensen_shannon;
pub mod kolmogorov_smirnov;
pub mod kullback_leibler;
pub mod l_infinity;
pub mod mmd;
pub mod pca_reconstruction;
pub mod psi;
pub mod share;
pub mod sliced_wasserstein;
pub mod total_variation;
pub mod wasserstein;

use crate::error::{Error, Result};

/// What the interval of a score means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// The exact statistic of the two samples lies in it for sure.
    Certain,
    /// The statistic of the two populations lies in it with the stated confidence.
    Confidence,
}

/// One number that compares two samples. Never NaN, never infinite.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The score.
    pub value: f64,
    /// Lower end of the interval, where there is one.
    pub lower: Option<f64>,
    /// Upper end of the interval, where there is one.
    pub upper: Option<f64>,
    /// What the interval means, where there is one.
    pub interval: Option<Interval>,
    /// p-value of the test the score's documentation names, where there is one.
    pub p_value: Option<f64>,
    /// What each bin adds to the value, in bin order; empty where it has no such parts.
    pub contributions: Vec<f64>,
}

impl Score {
    /// A value with its parts, without interval and test.
    pub fn plain(value: f64, contributions: Vec<f64>) -> Self {
        Self { value, lower: None, upper: None, interval: None, p_value: None, contributions }
    }
}

/// Both sides' counts as shares.
fn shares(reference: &[f64], current: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
    if reference.len() != current.len() {
        return Err(Error::invalid(format!(
            "`reference` and `current` must count the same bins, got {} and {}",
            reference.len(),
            current.len()
        )));
    }
    let share = |name: &str, counts: &[f64]| {
        let total: f64 = counts.iter().sum();
        if !(total.is_finite() && total > 0.0 && counts.iter().all(|count| *count >= 0.0)) {
            return Err(Error::invalid(format!("`{name}` must hold counts of at least one row, got a total of {total}")));
        }
        Ok(counts.iter().map(|count| count / total).collect())
    };
    Ok((share("reference", reference)?, share("current", current)?))
}
