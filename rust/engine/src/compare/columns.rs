//! Measures one column: its scores, and the p-values of those that are tested.

use barograph_core::Result;
use barograph_core::bins::Bins;
use barograph_core::scores::energy::energy;
use barograph_core::scores::psi::{PsiTest, psi_total};
use barograph_core::scores::share::ShareTest;
use barograph_core::scores::wasserstein::wasserstein;
use barograph_core::scores::{Interval, Score, jensen_shannon, kolmogorov_smirnov, l_infinity, total_variation};
use barograph_core::sketches::Categories;

use super::pairs::{LEAST_IN_BIN, NameCounts, by_cells, clipped, distinct_share, normalised, single_values, united, with_sides};
use super::{Draft, Judged, Test, blank, joined, pictures};
use crate::nearest::nearest;
use crate::profile::{ColumnProfile, Content, Numbers, Profile};
use crate::reference::{Reference, ReferenceColumn};
use crate::report::{ColumnReport, Method, Moved, Row, Verdict};
use crate::schema::{Kind, Role};
use crate::settings::Settings;

/// Everything that is the same for all rows of a column.
struct Context<'a> {
    name: &'a str,
    reference: &'a Reference,
    current: &'a Profile,
    settings: &'a Settings,
    tested: bool,
    /// Distances, pictures and summaries too.
    full: bool,
    /// What counts of values and of nulls are divided by.
    factors: (f64, f64),
    /// And what those of the current side are divided by besides, see [`Profile::thinning`].
    thinning: f64,
}

impl Context<'_> {
    fn row(&self, method: Method) -> Row {
        blank(self.name, method, self.reference, self.current)
    }

    /// A row that says why there is no number.
    fn absent(&self, method: Method, verdict: Option<Verdict>, reason: impl Into<String>) -> Draft {
        let row = self.row(method);
        Draft { row: Row { verdict, reason: joined(Some(reason.into()), row.reason.clone()), ..row }, test: None }
    }

    fn scored(&self, method: Method, score: Result<Score>, n: (u64, u64)) -> Draft {
        match score {
            Ok(mut score) => {
                let mut own = self.row(method);
                if self.thinning > 1.0 && score.interval == Some(Interval::Certain) {
                    if method == Method::KolmogorovSmirnov {
                        // So far the law of the rows kept may lie from that of all (Dvoretzky, Kiefer, Wolfowitz & Massart).
                        let reach = libm::sqrt(libm::log(2.0 / self.settings.alpha()) * self.thinning / (2.0 * n.1.max(1) as f64));
                        score.lower = score.lower.map(|lower| (lower - reach).max(0.0));
                        score.upper = score.upper.map(|upper| (upper + reach).min(1.0));
                        score.interval = Some(Interval::Confidence);
                    } else {
                        own.reason = joined(own.reason, Some("the interval is certain for the rows kept".into()));
                    }
                }
                let row = Row {
                    value: Some(score.value),
                    lower: score.lower,
                    upper: score.upper,
                    p_value: score.p_value,
                    interval: score
                        .interval
                        .map(|interval| if interval == Interval::Certain { "certain".into() } else { "confidence".into() }),
                    n_reference: Some(n.0),
                    n_current: Some(n.1),
                    ..own
                };
                Draft { row, test: None }
            }
            Err(error) => self.absent(method, None, error.message),
        }
    }

    fn share(&self, method: Method, reference: (u64, u64), current: (u64, u64)) -> Draft {
        let tolerances = self.settings.share_tolerances;
        let factor = match method {
            Method::NullShare => self.factors.1,
            // How often it happened in the reference says nothing about how it clusters: as the values do.
            Method::OutOfRangeShare | Method::UnseenShare => self.factors.0,
            _ => 1.0,
        };
        // A share of less than one independent row is still one row's.
        let over = |(count, total): (u64, u64), factor: f64| {
            let factor = factor.min(total as f64).max(1.0);
            (count as f64 / factor, total as f64 / factor)
        };
        let (p, q) = (over(reference, factor), over(current, factor * self.thinning));
        let Ok(test) = ShareTest::new(p.0, p.1, q.0, q.1) else {
            return self.absent(method, self.tested.then_some(Verdict::Insufficient), "no rows to take a share of");
        };
        let score = test.score(tolerances[1], self.settings.confidence);
        let excluded = score.lower.is_some_and(|lower| lower >= -tolerances[2]) && score.upper.is_some_and(|upper| upper <= tolerances[2]);
        let mut draft = self.scored(method, Ok(score), (reference.1, current.1));
        if self.tested {
            draft.row.threshold = Some(tolerances[1]);
            draft.test = Some(Test { p: tolerances.map(|tolerance| test.p_value(tolerance)), excluded, shortage: None });
        }
        draft
    }

    fn psi(&self, reference: &[f64], current: &[f64], n: (u64, u64)) -> Draft {
        let [_, warning, critical] = self.settings.psi_tolerances;
        let bins = reference.len();
        if bins < 2 {
            return self.absent(
                Method::Psi,
                self.tested.then_some(Verdict::Invalid),
                "one bin: the reference holds a single value, the shares decide",
            );
        }
        let least = 10 * bins as u64;
        let factors = (self.factors.0, self.factors.0 * self.thinning);
        let worth = (n.0 as f64 / factors.0, n.1 as f64 / factors.1);
        let (few, worth, factor) = if worth.0 <= worth.1 { (n.0, worth.0, factors.0) } else { (n.1, worth.1, factors.1) };
        let shortage = (worth < least as f64).then(|| {
            let dependent =
                if factor > 1.0 { format!(" count as {worth:.0} independent ones (factor {factor:.1})") } else { String::new() };
            format!("{few} ordinary values{dependent}, the test needs {least} (10 per bin)")
        });
        let over = |counts: &[f64], factor: f64| -> Vec<f64> { counts.iter().map(|count| count / factor).collect() };
        let Ok(test) = PsiTest::new(&over(reference, factors.0), &over(current, factors.1), self.settings.smoothing) else {
            return self.absent(Method::Psi, self.tested.then_some(Verdict::Insufficient), "no ordinary values on one side");
        };
        let score = test.score(warning, self.settings.confidence);
        let excluded = score.upper.is_some_and(|upper| upper <= critical);
        let mut draft = self.scored(Method::Psi, Ok(score), n);
        if self.tested {
            draft.row.threshold = Some(warning);
            draft.test = Some(Test { p: self.settings.psi_tolerances.map(|tolerance| test.p_value(tolerance)), excluded, shortage });
        }
        draft
    }
}

fn empty(column: &ColumnProfile) -> ColumnReport {
    ColumnReport {
        column: column.column.name.clone(),
        kind: column.column.kind,
        role: column.column.role,
        verdict: None,
        reason: None,
        score: None,
        bars: None,
        moved: Vec::new(),
        reference_summary: None,
        current_summary: None,
    }
}

/// A column the reference does not know.
pub(super) fn extra(reference: &Reference, column: &ColumnProfile, current: &Profile) -> Judged {
    let mut row = blank(&column.column.name, Method::Schema, reference, current);
    row.reason = Some("not in the reference: not compared".to_owned());
    let report = ColumnReport { reason: row.reason.clone(), current_summary: Some(pictures::summary(column)), ..empty(column) };
    Judged { report, drafts: vec![Draft { row, test: None }], in_family: false }
}

/// Measures a column of the reference on the current profile.
pub(super) fn judge(
    reference: &Reference,
    fixed: &ReferenceColumn,
    current: &Profile,
    settings: &Settings,
    exact: bool,
    full: bool,
) -> Result<Judged> {
    let profile = &fixed.profile;
    let name = profile.column.name.as_str();
    let tested = profile.column.role.is_tested();
    let known = if settings.dependence { fixed.dependence_over(current.span().unwrap_or(i64::MAX)) } else { None };
    let factors = known.map_or((1.0, 1.0), |known| (known.values, known.nulls));
    let context = Context { name, reference, current, settings, tested, full, factors, thinning: current.thinning() };
    let mut report = ColumnReport { reference_summary: full.then(|| pictures::summary(profile)), ..empty(profile) };
    let broken = |reason: String, report: ColumnReport| {
        let draft = context.absent(Method::Schema, tested.then_some(Verdict::Invalid), reason);
        Ok(Judged { report, drafts: vec![draft], in_family: false })
    };
    let Some(now) = current.column(name) else {
        let near = nearest(name, current.columns.iter().map(|c| c.column.name.as_str()).filter(|other| reference.column(other).is_none()));
        let near = near.map_or_else(String::new, |near| format!("; the nearest name is {near:?}"));
        return broken(format!("missing: the reference has it, the current frame has not{near}"), report);
    };
    report.current_summary = full.then(|| pictures::summary(now));
    if let Some(unread) = &now.unread {
        let supported = !matches!(profile.column.kind, Kind::Embedding | Kind::Unsupported);
        return broken(if supported { format!("of another type than the reference: {unread}") } else { unread.clone() }, report);
    }
    if profile.column.kind != now.column.kind {
        let (was, is) = (profile.column.kind.word(), now.column.kind.word());
        return broken(format!("of another type than the reference: expected {was}, got {is}"), report);
    }
    if let Some(unread) = &profile.unread {
        return broken(format!("in the reference: {unread}"), report);
    }
    if matches!(profile.column.role, Role::Id | Role::Time) || matches!(profile.content, Content::Counted | Content::Times(_)) {
        let what =
            if matches!(profile.column.role, Role::Id | Role::Time) { profile.column.role.word() } else { profile.column.kind.word() };
        let draft = context.absent(Method::Schema, None, format!("{what}: counted, not compared"));
        report.reason.clone_from(&draft.row.reason);
        return Ok(Judged { report, drafts: vec![draft], in_family: false });
    }

    let mut drafts = match (&profile.content, &now.content) {
        (Content::Numbers(was), Content::Numbers(is)) => numbers(&context, fixed, was, is, exact, &mut report)?,
        (Content::Names(was), Content::Names(is)) => names(&context, profile, was, now, is, &mut report),
        _ => return broken("of another type than the reference".to_owned(), report),
    };
    drafts.insert(1, context.share(Method::NullShare, (profile.nulls, profile.count), (now.nulls, now.count)));
    report.score = drafts.iter().filter(|draft| draft.row.method == Method::Psi).find_map(|draft| draft.row.value);
    // A column whose values are too few to judge must not weaken the others.
    let in_family = tested && drafts.iter().all(|draft| draft.test.as_ref().is_none_or(|test| test.shortage.is_none()));
    Ok(Judged { report, drafts, in_family })
}

/// Both sides' counters on the same bins.
struct Counted {
    edges: Vec<f64>,
    reference: Vec<u64>,
    current: Vec<u64>,
    unions: Vec<usize>,
}

fn on_same_bins(fixed: &ReferenceColumn, was: &Numbers, is: &Numbers, exact: bool, settings: &Settings) -> Result<Option<Counted>> {
    let (Some(bins), Some(counts)) = (&fixed.bins, &was.bins) else { return Ok(None) };
    let (edges, reference, current) = if let (true, Some(current)) = (exact, &is.bins) {
        (bins.edges().to_vec(), counts.clone(), current.clone())
    } else {
        let (bins, reference, current) = by_cells(was, is)?;
        (bins.edges().to_vec(), reference, current)
    };
    let unions = Bins::unions(&reference, settings.unions, LEAST_IN_BIN);
    Ok(Some(Counted { edges, reference, current, unions }))
}

fn numbers(
    context: &Context<'_>,
    fixed: &ReferenceColumn,
    was: &Numbers,
    is: &Numbers,
    exact: bool,
    report: &mut ColumnReport,
) -> Result<Vec<Draft>> {
    let n = (was.finite(), is.finite());
    let nonfinite = context.share(Method::NonfiniteShare, (was.non_finite(), fixed.profile.count), (is.non_finite(), context.current.rows));
    let Some(counted) = on_same_bins(fixed, was, is, exact, context.settings)? else {
        let psi = context.absent(
            Method::Psi,
            context.tested.then_some(Verdict::Invalid),
            "the reference holds no finite value: the shares decide",
        );
        return Ok(vec![psi, nonfinite]);
    };
    let united = |counts: &[u64]| united(&counted.unions, counts).into_iter().map(|count| count as f64).collect::<Vec<_>>();
    let (p, q) = (united(&counted.reference), united(&counted.current));
    let outside = |counts: &[u64]| counts[0] + counts[counts.len() - 1];
    let mut drafts = vec![context.psi(&p, &q, n), nonfinite];
    drafts.push(context.share(Method::OutOfRangeShare, (outside(&counted.reference), n.0), (outside(&counted.current), n.1)));
    drafts.push(total(context, &counted, &p, was, is, report, fixed));
    if !context.full {
        return Ok(drafts);
    }
    if n.1 == 0 {
        drafts.push(context.absent(Method::KolmogorovSmirnov, None, "no finite value among the current rows: no distance"));
        return Ok(drafts);
    }
    let single = single_values(&counted.edges);
    for (method, score) in [
        (Method::JensenShannon, jensen_shannon::jensen_shannon(&p, &q)),
        (Method::TotalVariation, total_variation::total_variation(&p, &q)),
        (Method::LInfinity, l_infinity::l_infinity(&p, &q)),
        (
            Method::KolmogorovSmirnov,
            kolmogorov_smirnov::kolmogorov_smirnov(&counted.reference, &counted.current, &single, context.factors.0 * context.thinning),
        ),
    ] {
        drafts.push(context.scored(method, score, n));
    }
    drafts.extend(wasserstein_rows(context, was, is, n));
    report.bars = pictures::number_bars(was, &counted.edges, &counted.reference, &counted.current);
    Ok(drafts)
}

fn wasserstein_rows(context: &Context<'_>, was: &Numbers, is: &Numbers, n: (u64, u64)) -> Vec<Draft> {
    vec![
        context.scored(Method::Wasserstein, with_sides(was, is, |a, b| wasserstein(a, b, None)), n),
        context.scored(Method::WassersteinNormalised, normalised(was, is), n),
        context.scored(Method::WassersteinClipped, clipped(was, is), n),
        context.scored(Method::Energy, with_sides(was, is, energy), n),
    ]
}

/// What bins are called that hold no ordinary values, or no single name.
pub(super) const BELOW: &str = "below the reference";
pub(super) const ABOVE: &str = "above the reference";
pub(super) const NULL: &str = "null";
pub(super) const NAN: &str = "NaN";
pub(super) const INFINITE: &str = "+inf";
pub(super) const MINUS_INFINITE: &str = "-inf";
pub(super) const UNSEEN: &str = "unseen";

/// What a union of bins is called: its value, or the values between which it lies.
pub(super) fn union_label(edges: &[f64], unions: &[usize], group: usize) -> String {
    let members = || (1..unions.len().saturating_sub(1)).filter(|at| unions[*at] == group);
    let low = members().next().map_or(f64::NAN, |at| edges[at - 1]);
    let high = members().next_back().map_or(f64::NAN, |at| edges[at]);
    if low.next_up() == high { pictures::short(high) } else { format!("({}, {}]", pictures::short(low), pictures::short(high)) }
}

/// PSI over ordinary and special bins, and the bins that moved most.
fn total(
    context: &Context<'_>,
    counted: &Counted,
    groups: &[f64],
    was: &Numbers,
    is: &Numbers,
    report: &mut ColumnReport,
    fixed: &ReferenceColumn,
) -> Draft {
    let last = counted.reference.len() - 1;
    let mut bins: Vec<(String, u64, u64)> = (0..groups.len())
        .map(|group| {
            let members = || (1..last).filter(|at| counted.unions[*at] == group);
            let label = union_label(&counted.edges, &counted.unions, group);
            (label, members().map(|at| counted.reference[at]).sum(), members().map(|at| counted.current[at]).sum())
        })
        .collect();
    let nulls = context.current.column(context.name).map_or(0, |column| column.nulls);
    let special = [
        (BELOW, counted.reference[0], counted.current[0]),
        (ABOVE, counted.reference[last], counted.current[last]),
        (NULL, fixed.profile.nulls, nulls),
        (NAN, was.nan, is.nan),
        (INFINITE, was.positive_infinity, is.positive_infinity),
        (MINUS_INFINITE, was.negative_infinity, is.negative_infinity),
    ];
    bins.extend(special.into_iter().map(|(name, p, q)| (name.to_owned(), p, q)));
    total_of(context, bins, report)
}

fn total_of(context: &Context<'_>, mut bins: Vec<(String, u64, u64)>, report: &mut ColumnReport) -> Draft {
    bins.retain(|(_, p, q)| p + q > 0);
    let (p, q): (Vec<f64>, Vec<f64>) = bins.iter().map(|(_, p, q)| (*p as f64, *q as f64)).unzip();
    let (n, m) = (p.iter().sum::<f64>(), q.iter().sum::<f64>());
    let score = psi_total(&p, &q);
    if let Ok(score) = &score {
        let mut order: Vec<usize> = (0..bins.len()).collect();
        order.sort_by(|a, b| score.contributions[*b].total_cmp(&score.contributions[*a]));
        let moved = order.into_iter().filter(|at| score.contributions[*at] > 0.0);
        report.moved = moved
            .map(|at| Moved { bin: bins[at].0.clone(), reference: p[at] / n, current: q[at] / m, contribution: score.contributions[at] })
            .collect();
    }
    context.scored(Method::PsiTotal, score, (n as u64, m as u64))
}

fn names(
    context: &Context<'_>,
    profile: &ColumnProfile,
    was: &Categories,
    now: &ColumnProfile,
    is: &Categories,
    report: &mut ColumnReport,
) -> Vec<Draft> {
    let (n, m) = (was.total(), is.total());
    let NameCounts { kept, rest, unseen, known, reference, current } = NameCounts::new(was, is);
    let doubles = |counts: Vec<u64>| counts.into_iter().map(|count| count as f64).collect::<Vec<_>>();
    let (p, q) = (doubles(reference), doubles(current));
    let sizes = (n, known);
    let mut drafts = vec![context.psi(&p, &q, sizes)];
    drafts.push(if was.error() > 0 {
        context.absent(
            Method::UnseenShare,
            None,
            format!("the reference holds about {:.0} names: too many to tell what is unseen", was.distinct()),
        )
    } else {
        context.share(Method::UnseenShare, (0, n), (unseen, m))
    });
    let mut bins: Vec<(String, u64, u64)> = kept.iter().map(|(name, p, q)| ((*name).to_owned(), *p, *q)).collect();
    bins.push(("other".to_owned(), rest.0, rest.1));
    bins.push((UNSEEN.to_owned(), 0, unseen));
    if context.full {
        report.bars = pictures::name_bars(&bins, n, m);
    }
    bins.push((NULL.to_owned(), profile.nulls, now.nulls));
    drafts.push(total_of(context, bins, report));
    if context.full && known > 0 && n > 0 {
        for (method, score) in [
            (Method::JensenShannon, jensen_shannon::jensen_shannon(&p, &q)),
            (Method::TotalVariation, total_variation::total_variation(&p, &q)),
            (Method::LInfinity, l_infinity::l_infinity(&p, &q)),
        ] {
            drafts.push(context.scored(method, score, sizes));
        }
    }
    if let (true, Some(change)) = (context.full, distinct_share(was, is)) {
        drafts.push(context.scored(Method::DistinctShare, Ok(change), (n, m)));
    }
    drafts
}
