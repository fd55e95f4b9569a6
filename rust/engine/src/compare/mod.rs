//! Reference against current profile: scores per column, tests of tolerances, one verdict for the frame.
//!
//! `columns` measures, `verdicts` combines, `pictures` draws. The method is described in `docs/concepts/verdicts.md`.

mod columns;
mod pictures;
mod verdicts;

use barograph_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::profile::Profile;
use crate::reference::Reference;
use crate::report::{ColumnReport, Method, Report, Row, Verdict};
use crate::schema::Role;

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
            combination: Combination::Bh,
            psi_tolerances: [0.02, 0.1, 0.25],
            share_tolerances: [0.005, 0.02, 0.1],
        }
    }
}

impl Settings {
    fn check(&self) -> Result<()> {
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

    fn alpha(&self) -> f64 {
        1.0 - self.confidence
    }
}

/// A row with what its verdict rests on.
struct Draft {
    row: Row,
    test: Option<Test>,
}

/// One tested number.
struct Test {
    /// P-values against the info, warning and critical tolerance.
    p: [f64; 3],
    /// The limits exclude the critical tolerance.
    excluded: bool,
    /// Too few rows for the test, and why.
    shortage: Option<String>,
}

/// A column on its way to the report.
struct Judged {
    report: ColumnReport,
    drafts: Vec<Draft>,
    /// Enough rows on both sides to be counted among the columns that are combined.
    in_family: bool,
}

/// Compares a current profile with a reference.
///
/// # Errors
/// `InvalidArgument` for settings outside their ranges.
pub fn compare(reference: &Reference, current: &Profile, settings: &Settings) -> Result<Report> {
    settings.check()?;
    let exact = current.reference.as_deref() == Some(reference.id());
    let mut judged = Vec::new();
    for fixed in &reference.columns {
        judged.push(columns::judge(reference, fixed, current, settings, exact)?);
    }
    for extra in current.columns.iter().filter(|column| reference.column(&column.column.name).is_none()) {
        judged.push(columns::extra(reference, extra, current));
    }
    verdicts::combine(&mut judged, settings);

    let mut notes = vec!["rows are taken as independent".to_owned()];
    if !exact {
        notes.push(
            "the current profile was made without this reference: both sides are compared on the cells of their histograms".to_owned(),
        );
    } else if !reference.from_rows {
        notes.push("the reference was made from a profile: its bins follow the cells of its histograms".to_owned());
    }
    let tested = |column: &&Judged| column.report.role.is_tested() && reference.column(&column.report.column).is_some();
    let unjudged = judged.iter().filter(tested).filter(|column| column.report.role == Role::Feature);
    let unjudged = unjudged.filter(|column| matches!(column.report.verdict, Some(Verdict::Insufficient | Verdict::Invalid)));
    let verdict = judged.iter().filter(tested).filter_map(|column| column.report.verdict).max();
    let report = Report {
        drifted: verdict.is_some_and(|verdict| verdict >= Verdict::Warning),
        verdict,
        unjudged: unjudged.map(|column| column.report.column.clone()).collect(),
        notes,
        settings: settings.clone(),
        reference: reference.id().to_owned(),
        n_reference: reference.rows,
        n_current: current.rows,
        rows: Vec::new(),
        columns: Vec::new(),
    };
    let (columns, rows): (Vec<_>, Vec<_>) = judged.into_iter().map(|column| (column.report, column.drafts)).unzip();
    Ok(Report { columns, rows: rows.into_iter().flatten().map(|draft| finite(draft.row)).collect(), ..report })
}

/// A row without numbers.
fn blank(column: &str, method: Method, reference: &Reference, current: &Profile) -> Row {
    Row {
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
        n_reference: Some(reference.rows),
        n_current: Some(current.rows),
        window_start: current.window.map(|window| window.0),
        window_end: current.window.map(|window| window.1),
        segment: None,
        reference: Some(reference.id().to_owned()),
        reason: None,
    }
}

/// Whatever could not be computed is absent, never NaN.
fn finite(mut row: Row) -> Row {
    for number in [&mut row.value, &mut row.lower, &mut row.upper, &mut row.threshold, &mut row.p_value, &mut row.adjusted_p] {
        *number = number.filter(|value| value.is_finite());
    }
    row
}
