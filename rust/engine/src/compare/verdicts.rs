//! One verdict for the frame: Bonferroni inside a column, Benjamini-Hochberg over columns, once per severity.
//!
//! A column with too few ordinary values stays out of that family, so that it does not weaken the others; its shares, which
//! a flood of nulls shows in, are held to Bonferroni over all columns instead.

use barograph_core::combination::{benjamini_hochberg, benjamini_yekutieli};

use super::{Judged, joined};
use crate::report::{Row, Verdict};
use crate::settings::{Combination, Settings};

const SEVERITIES: [Verdict; 3] = [Verdict::Info, Verdict::Warning, Verdict::Critical];
const WARNING: usize = 1;

/// Fills in verdicts and adjusted p-values.
pub(super) fn combine(columns: &mut [Judged], settings: &Settings) {
    let mut severities: Vec<Vec<Option<Verdict>>> = columns.iter().map(|column| vec![None; column.drafts.len()]).collect();
    for (severity, verdict) in SEVERITIES.into_iter().enumerate() {
        let own: Vec<Vec<Option<f64>>> = columns.iter().map(|column| bonferroni(column, severity)).collect();
        let family: Vec<f64> =
            own.iter().zip(columns.iter()).filter(|(_, column)| column.in_family).filter_map(|(p, _)| least(p)).collect();
        let adjusted = match settings.combination {
            Combination::Bh => benjamini_hochberg(&family),
            Combination::By => benjamini_yekutieli(&family),
        };
        let dependence = match settings.combination {
            Combination::Bh => 1.0,
            Combination::By => (1..=family.len()).map(|rank| 1.0 / rank as f64).sum(),
        };
        let tested = own.iter().filter(|p| least(p).is_some()).count() as f64;
        for ((column, p), found) in columns.iter_mut().zip(&own).zip(&mut severities) {
            for ((draft, p), found) in column.drafts.iter_mut().zip(p).zip(found) {
                let Some(p) = p else { continue };
                let value = if column.in_family { adjusted_of(*p, &family, &adjusted, dependence) } else { (tested * p).min(1.0) };
                if severity == WARNING {
                    draft.row.adjusted_p = Some(value);
                }
                if value <= settings.alpha() {
                    *found = Some(verdict);
                }
            }
        }
    }
    for (column, found) in columns.iter_mut().zip(severities) {
        for (draft, found) in column.drafts.iter_mut().zip(found) {
            if let Some(test) = &draft.test {
                let (verdict, reason) = settle(&draft.row, found, test.excluded, test.shortage.as_deref(), settings);
                draft.row.verdict = Some(verdict);
                draft.row.reason = joined(reason, draft.row.reason.take());
            }
        }
        // A single value leaves nothing to test but the shares: that is no reason to call the column invalid.
        let judged = column.drafts.iter().any(|draft| draft.test.is_some());
        let worst = column.drafts.iter().filter(|draft| draft.row.verdict.is_some_and(|verdict| !judged || verdict != Verdict::Invalid));
        if let Some(worst) = worst.max_by(|a, b| a.row.verdict.cmp(&b.row.verdict).then(std::cmp::Ordering::Greater)) {
            column.report.verdict = worst.row.verdict;
            column.report.reason.clone_from(&worst.row.reason);
            if worst.row.value.is_some() && worst.row.verdict >= Some(Verdict::Info) {
                column.report.score = worst.row.value.map(f64::abs);
            }
        }
    }
}

fn bonferroni(column: &Judged, severity: usize) -> Vec<Option<f64>> {
    let tests = || column.drafts.iter().map(|draft| draft.test.as_ref().filter(|test| test.shortage.is_none()));
    let r = tests().flatten().count() as f64;
    tests().map(|test| test.map(|test| (r * test.p[severity]).min(1.0))).collect()
}

fn least(p: &[Option<f64>]) -> Option<f64> {
    p.iter().flatten().copied().min_by(f64::total_cmp)
}

/// A row is rejected with its column's family: at the level at which as many columns would be rejected as have a p-value up to its own.
fn adjusted_of(p: f64, family: &[f64], adjusted: &[f64], dependence: f64) -> f64 {
    let rank = family.iter().filter(|other| **other <= p).count().max(1) as f64;
    let own = (dependence * family.len() as f64 * p / rank).min(1.0);
    let above = family.iter().zip(adjusted).filter(|(other, _)| **other >= p).map(|(_, adjusted)| *adjusted);
    above.fold(own, f64::min).max(p)
}

fn settle(row: &Row, found: Option<Verdict>, excluded: bool, shortage: Option<&str>, settings: &Settings) -> (Verdict, Option<String>) {
    let psi = row.method == crate::report::Method::Psi;
    let tolerances = if psi { settings.psi_tolerances } else { settings.share_tolerances };
    if let Some(verdict) = found {
        let tolerance = tolerances[SEVERITIES.iter().position(|one| *one == verdict).unwrap_or(0)];
        let what = if psi { "PSI is above".to_owned() } else { "the share changed by more than".to_owned() };
        return (verdict, Some(format!("{what} {tolerance} with confidence {}", settings.confidence)));
    }
    if let Some(shortage) = shortage {
        return (Verdict::Insufficient, Some(shortage.to_owned()));
    }
    if excluded {
        return (Verdict::Ok, None);
    }
    let what = if psi { "PSI" } else { "a change of the share by" };
    (Verdict::Insufficient, Some(format!("cannot exclude {what} {} with {} rows", tolerances[2], row.n_current.unwrap_or(0))))
}
