//! A drift report: rows for programs, columns for pages, one verdict. Every number in it is finite.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::schema::{Kind, Role};
use crate::settings::Settings;

/// Pseudo-column of rows about the model as a whole.
pub(crate) const MODEL: &str = "(model)";

/// What a row of a report measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Population stability index of ordinary values; tested.
    Psi,
    /// The same over all bins, special ones included.
    PsiTotal,
    /// Change of the share of nulls; tested.
    NullShare,
    /// Change of the share of NaN and infinities; tested.
    NonfiniteShare,
    /// Change of the share outside the reference's range; tested.
    OutOfRangeShare,
    /// Change of the share of names the reference never saw; tested.
    UnseenShare,
    /// Jensen-Shannon distance.
    JensenShannon,
    /// Total variation distance.
    TotalVariation,
    /// L-infinity distance.
    LInfinity,
    /// Kolmogorov-Smirnov statistic.
    KolmogorovSmirnov,
    /// Wasserstein-1 distance.
    Wasserstein,
    /// The same over the reference's spread.
    WassersteinNormalised,
    /// The same with both sides cut to the reference's 0.1 % and 99.9 % quantile.
    WassersteinClipped,
    /// Energy distance.
    Energy,
    /// Change of the share of different names among the values.
    DistinctShare,
    /// Events of a window.
    Events,
    /// Median latency of a window, in seconds.
    LatencyP50,
    /// 99 % latency of a window, in seconds.
    LatencyP99,
    /// Share of a window's events whose label has not come.
    MissingLabels,
    /// Share of a window's events that failed.
    ErrorRate,
    /// Share of bad calls against an objective's budget.
    BurnRate,
    /// A new version of the model.
    Deploy,
    /// Area under the precision-recall curve of a window's labelled events.
    AveragePrecision,
    /// Mean logarithmic loss of a window's labelled events.
    LogLoss,
    /// Mean squared error of a window's scores.
    Brier,
    /// Share of a window's labelled events that were predicted right.
    Accuracy,
    /// Mean recall of the classes.
    BalancedAccuracy,
    /// Mean F1 of the classes.
    F1Macro,
    /// Mean of the classes' areas against the rest.
    RocAucOvr,
    /// Mean absolute error of a window's labelled events.
    Mae,
    /// Root mean squared error of a window's labelled events.
    Rmse,
    /// Coefficient of determination of a window's labelled events.
    R2,
    /// Mean of prediction minus label of a window's labelled events.
    Bias,
    /// Area under the ROC curve of a window's labelled events.
    RocAuc,
    /// Wealth of a column's e-detector at the end of a window: an alarm at 1.
    EDetector,
    /// Says that a column is missing, extra, of another kind or not compared.
    Schema,
}

impl Method {
    /// Every score, by name.
    pub const SCORES: &'static [(&'static str, Self)] = &[
        ("psi", Self::Psi),
        ("psi_total", Self::PsiTotal),
        ("null_share", Self::NullShare),
        ("nonfinite_share", Self::NonfiniteShare),
        ("out_of_range_share", Self::OutOfRangeShare),
        ("unseen_share", Self::UnseenShare),
        ("jensen_shannon", Self::JensenShannon),
        ("total_variation", Self::TotalVariation),
        ("l_infinity", Self::LInfinity),
        ("kolmogorov_smirnov", Self::KolmogorovSmirnov),
        ("wasserstein", Self::Wasserstein),
        ("wasserstein_normalised", Self::WassersteinNormalised),
        ("wasserstein_clipped", Self::WassersteinClipped),
        ("energy", Self::Energy),
        ("distinct_share", Self::DistinctShare),
    ];
}

/// What a test, or all tests of a column, came to; in the order of what matters most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A large change is excluded.
    Ok,
    /// It could not be tested at all.
    Invalid,
    /// Too few rows to exclude a large change.
    Insufficient,
    /// Beyond the first tolerance.
    Info,
    /// Beyond the second: drifted.
    Warning,
    /// Beyond the third.
    Critical,
}

impl Verdict {
    /// Its word.
    pub fn word(self) -> &'static str {
        ["ok", "invalid", "insufficient", "info", "warning", "critical"][self as usize]
    }
}

impl Method {
    /// Its word.
    pub fn word(self) -> String {
        serde_json::to_string(&self).map_or_else(|_| String::new(), |quoted| quoted.trim_matches('"').to_owned())
    }
}

/// One column measured by one method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // named in docs/reference/report.md
pub struct Row {
    pub column: String,
    pub method: Method,
    pub value: Option<f64>,
    pub lower: Option<f64>,
    pub upper: Option<f64>,
    pub threshold: Option<f64>,
    pub verdict: Option<Verdict>,
    pub p_value: Option<f64>,
    pub adjusted_p: Option<f64>,
    pub interval: Option<Cow<'static, str>>,
    pub n_reference: Option<u64>,
    pub n_current: Option<u64>,
    pub window_start: Option<i64>,
    pub window_end: Option<i64>,
    pub segment: Option<String>,
    pub reference: Option<String>,
    pub reason: Option<String>,
}

impl Row {
    /// A row without numbers.
    pub fn blank(column: &str, method: Method) -> Self {
        Self {
            column: column.to_owned(),
            method,
            value: None,
            lower: None,
            upper: None,
            threshold: None,
            verdict: None,
            p_value: None,
            adjusted_p: None,
            interval: None,
            n_reference: None,
            n_current: None,
            window_start: None,
            window_end: None,
            segment: None,
            reference: None,
            reason: None,
        }
    }
}

/// The two histograms of a column, as shares.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Bars {
    pub labels: Vec<String>,
    pub reference: Vec<f64>,
    pub current: Vec<f64>,
    /// For numbers: one more than labels.
    pub edges: Option<Vec<f64>>,
}

/// A bin and what it added to the distance.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Moved {
    pub bin: String,
    pub reference: f64,
    pub current: f64,
    pub contribution: f64,
}

/// One column for the page.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct ColumnReport {
    pub column: String,
    pub kind: Kind,
    pub role: Role,
    pub verdict: Option<Verdict>,
    pub reason: Option<String>,
    pub score: Option<f64>,
    pub bars: Option<Bars>,
    pub moved: Vec<Moved>,
    pub reference_summary: Option<serde_json::Value>,
    pub current_summary: Option<serde_json::Value>,
}

/// The comparison of a current profile with its reference.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// One row per column and method.
    pub rows: Vec<Row>,
    /// One entry per column.
    pub columns: Vec<ColumnReport>,
    /// Some column is beyond the warning tolerance.
    pub drifted: bool,
    /// The worst verdict of a tested column.
    pub verdict: Option<Verdict>,
    /// Features that could not be judged.
    pub unjudged: Vec<String>,
    /// What to know when reading it.
    pub notes: Vec<String>,
    /// Tolerances, level, bins.
    pub settings: Settings,
    /// Identity of the reference.
    pub reference: String,
    /// Rows of the reference.
    pub n_reference: u64,
    /// Rows compared with it.
    pub n_current: u64,
}

impl Report {
    /// The report as JSON.
    ///
    /// # Errors
    /// `InvalidArgument` if a name cannot be written; names are UTF-8, so it can.
    pub fn to_json(&self) -> barograph_core::Result<String> {
        serde_json::to_string(self).map_err(|error| barograph_core::Error::invalid(error.to_string()))
    }
}
