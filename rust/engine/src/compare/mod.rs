//! Reference against current profile: scores per column, tests of tolerances, one verdict for the frame.
//!
//! `columns` measures with the counts of `pairs`, `verdicts` combines, `pictures` draws. The method is described in `docs/concepts/verdicts.md`.

mod columns;
pub mod pairs;
mod pictures;
pub mod placing;
mod verdicts;

use barograph_core::Result;

pub(crate) use self::pictures::short;

use crate::profile::Profile;
use crate::reference::Reference;
use crate::report::{ColumnReport, Method, Report, Row, Verdict};
use crate::schema::Role;
use crate::settings::Settings;

/// Bins of a column that a report names.
const MOVED: usize = 5;

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
    /// Enough ordinary values on both sides to be counted among the columns that are combined.
    in_family: bool,
}

/// Compares a current profile with a reference.
///
/// # Errors
/// `InvalidArgument` for settings outside their ranges.
pub fn compare(reference: &Reference, current: &Profile, settings: &Settings) -> Result<Report> {
    let mut report = measure(reference, current, settings, true)?;
    report.columns.iter_mut().for_each(|column| column.moved.truncate(MOVED));
    Ok(report)
}

/// One column of what [`compare`] finds, with every bin that adds to its distance, the one that adds most first, and its rows; `None`
/// for a column that neither side has. The other columns are compared too: verdicts are combined over all of them.
///
/// # Errors
/// `InvalidArgument` for settings outside their ranges.
pub fn compare_column(
    reference: &Reference,
    current: &Profile,
    settings: &Settings,
    name: &str,
) -> Result<Option<(ColumnReport, Vec<Row>)>> {
    let report = measure(reference, current, settings, true)?;
    let rows = report.rows.into_iter().filter(|row| row.column == name).collect();
    Ok(report.columns.into_iter().find(|column| column.column == name).map(|column| (column, rows)))
}

/// As [`compare`], without what has no verdict (distances, pictures, summaries): what a monitor asks of every window.
///
/// # Errors
/// `InvalidArgument` for settings outside their ranges.
pub fn compare_tested(reference: &Reference, current: &Profile, settings: &Settings) -> Result<Report> {
    measure(reference, current, settings, false)
}

fn measure(reference: &Reference, current: &Profile, settings: &Settings, full: bool) -> Result<Report> {
    settings.check()?;
    let exact = current.reference.as_deref() == Some(reference.id());
    let mut judged = Vec::new();
    for fixed in &reference.columns {
        judged.push(columns::judge(reference, fixed, current, settings, exact, full)?);
    }
    for extra in current.columns.iter().filter(|column| reference.column(&column.column.name).is_none()) {
        judged.push(columns::extra(reference, extra, current));
    }
    verdicts::combine(&mut judged, settings);

    let mut notes = vec![dependence_note(reference, current, settings)];
    notes.extend(current.sampled());
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

/// What is done about rows that resemble each other.
fn dependence_note(reference: &Reference, current: &Profile, settings: &Settings) -> String {
    let span = current.span().unwrap_or(i64::MAX);
    let known = || reference.columns.iter().filter_map(|column| Some((column, column.dependence_over(span)?)));
    let Some((_, any)) = known().next().filter(|_| settings.dependence) else { return "rows are taken as independent".to_owned() };
    let hours = any.length / crate::window::HOUR;
    let window = if hours % 24 == 0 { format!("{} d", hours / 24) } else { format!("{hours} h") };
    let tested = known().filter(|(column, _)| column.profile.column.role.is_tested());
    let most =
        tested.map(|(column, known)| (known.values.max(known.nulls), &column.profile.column.name)).max_by(|a, b| a.0.total_cmp(&b.0));
    let most = most
        .filter(|(factor, _)| *factor > 1.0)
        .map_or_else(String::new, |(factor, name)| format!("; the largest is {factor:.1}, of {name}"));
    format!("counts are divided by the dependence factors of the reference's windows of {window}{most}")
}

/// A row without numbers.
fn blank(column: &str, method: Method, reference: &Reference, current: &Profile) -> Row {
    Row {
        n_reference: Some(reference.rows),
        n_current: Some(current.rows),
        window_start: current.window.map(|window| window.0),
        window_end: current.window.map(|window| window.1),
        reference: Some(reference.id().to_owned()),
        reason: current.sampled(),
        ..Row::blank(column, method)
    }
}

/// What there is to say, and what was said before.
fn joined(reason: Option<String>, before: Option<String>) -> Option<String> {
    [reason, before].into_iter().flatten().reduce(|reason, before| format!("{reason}; {before}"))
}

/// Whatever could not be computed is absent, never NaN.
fn finite(mut row: Row) -> Row {
    for number in [&mut row.value, &mut row.lower, &mut row.upper, &mut row.threshold, &mut row.p_value, &mut row.adjusted_p] {
        *number = number.filter(|value| value.is_finite());
    }
    row
}
