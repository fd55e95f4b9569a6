//! Level, tolerances and bins of a comparison.

use barograph_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// How the p-values of the columns are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combination {
    /// Benjamini-Hochberg: independent or positively dependent columns.
    Bh,
    /// Benjamini-Yekutieli: any dependence.
    By,
}

/// Level, tolerances and bins of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// One minus the level of every test and limit.
    pub confidence: f64,
    /// Bins of the PSI test: unions of the reference's fine bins.
    pub unions: usize,
    /// Rows added to each bin by the PSI test.
    pub smoothing: f64,
    /// Whether counts are divided by the reference's dependence factors.
    pub dependence: bool,
    /// Combination of the columns.
    pub combination: Combination,
    /// PSI beyond which a column is info, warning, critical.
    pub psi_tolerances: [f64; 3],
    /// Change of a share beyond which a column is info, warning, critical.
    pub share_tolerances: [f64; 3],
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            confidence: 0.99,
            unions: 10,
            smoothing: barograph_core::scores::psi::DEFAULT_SMOOTHING,
            dependence: true,
            combination: Combination::Bh,
            psi_tolerances: [0.02, 0.1, 0.25],
            share_tolerances: [0.005, 0.02, 0.1],
        }
    }
}

impl Settings {
    /// Refuses what is out of range.
    ///
    /// # Errors
    /// `InvalidArgument` naming the setting.
    pub fn check(&self) -> Result<()> {
        if !(self.confidence > 0.5 && self.confidence < 1.0) {
            return Err(
                Error::invalid(format!("`confidence` must lie between 0.5 and 1, got {}", self.confidence)).hint("0.99 is the default")
            );
        }
        if !(2..=1000).contains(&self.unions) {
            return Err(Error::invalid(format!("`unions` must be in [2, 1000], got {}", self.unions)).hint("10 and 20 are usual"));
        }
        for (name, tolerances) in [("psi_tolerances", self.psi_tolerances), ("share_tolerances", self.share_tolerances)] {
            if !(tolerances[0] > 0.0 && tolerances.is_sorted() && tolerances[2].is_finite()) {
                return Err(Error::invalid(format!("`{name}` must be three ascending positive numbers, got {tolerances:?}")));
            }
        }
        Ok(())
    }

    /// The level of every test.
    pub fn alpha(&self) -> f64 {
        1.0 - self.confidence
    }
}
