//! Two columns on the same bins, and distances of their values: what reports measure, also for column profiles alone.

use barograph_core::bins::{Bins, DEFAULT_BINS};
use barograph_core::scores::Score;
use barograph_core::scores::energy::energy;
use barograph_core::scores::share::ShareTest;
use barograph_core::scores::wasserstein::{Side, wasserstein};
use barograph_core::sketches::Categories;
use barograph_core::{Error, Result};

use crate::profile::{ColumnProfile, Numbers};
use crate::report::Method;

/// A bin of the PSI test needs this many rows on the reference's side.
pub(super) const LEAST_IN_BIN: u64 = 5;
/// Names with a bin of their own; the rest is `other`.
const MOST_CATEGORIES: usize = 50;

/// Counts of two columns in the same bins, in ascending order for numbers.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The reference's counts.
    pub reference: Vec<u64>,
    /// The current counts.
    pub current: Vec<u64>,
    /// Which bins can hold one value only.
    pub single: Vec<bool>,
}

/// Counts of two column profiles: of numbers in the bins of the reference both were made with (`exact`), else in the cells of their
/// histograms, united into about `unions` bins if that is given; of names one by one, `other` and `unseen`. Nulls and what is not
/// finite stay out.
///
/// # Errors
/// `Incompatible` for columns of different kinds or without values that can be counted.
pub fn counts(was: &ColumnProfile, is: &ColumnProfile, exact: bool, unions: Option<usize>) -> Result<Pair> {
    if let (Some(was), Some(is)) = (was.names(), is.names()) {
        let names = NameCounts::new(was, is);
        let (mut reference, mut current) = (names.reference, names.current);
        if names.unseen > 0 {
            reference.push(0);
            current.push(names.unseen);
        }
        return Ok(Pair { single: vec![false; reference.len()], reference, current });
    }
    let (Some(was), Some(is)) = (was.numbers(), is.numbers()) else {
        let words = (was.column.kind.word(), is.column.kind.word());
        return Err(Error::incompatible(format!("columns must both hold numbers or both hold names, got {} and {}", words.0, words.1)));
    };
    let (reference, current, single) = match (&was.bins, &is.bins) {
        // The profiles do not hold the edges: any of these bins may hold several values.
        (Some(p), Some(q)) if exact => (p.clone(), q.clone(), vec![false; p.len()]),
        _ => {
            let (bins, p, q) = by_cells(was, is)?;
            (p, q, single_values(bins.edges()))
        }
    };
    let Some(unions) = unions else { return Ok(Pair { reference, current, single }) };
    let groups = Bins::unions(&reference, unions, LEAST_IN_BIN);
    let (reference, current) = (united(&groups, &reference), united(&groups, &current));
    Ok(Pair { single: vec![false; reference.len()], reference, current })
}

/// A distance of the values, or the change of a share, of two column profiles.
///
/// # Errors
/// `Incompatible` for a method that is not one, or columns it does not apply to; `InvalidArgument` where a side has no value.
pub fn distance(method: Method, was: &ColumnProfile, is: &ColumnProfile, tolerance: f64, confidence: f64) -> Result<Score> {
    let other = || {
        let words = (was.column.kind.word(), is.column.kind.word());
        let name = Method::SCORES.iter().find(|(_, known)| *known == method).map_or("this", |(name, _)| name);
        Error::incompatible(format!("{name} does not apply to columns of kind {} and {}", words.0, words.1))
    };
    let share = |p: (u64, u64), q: (u64, u64)| {
        ShareTest::new(p.0 as f64, p.1 as f64, q.0 as f64, q.1 as f64).map(|test| test.score(tolerance, confidence))
    };
    match (method, was.numbers().zip(is.numbers()), was.names().zip(is.names())) {
        (Method::NullShare, ..) => share((was.nulls, was.count), (is.nulls, is.count)),
        (Method::NonfiniteShare, Some((a, b)), _) => share((a.non_finite(), was.count), (b.non_finite(), is.count)),
        (Method::UnseenShare, _, Some((a, b))) => {
            let names = NameCounts::new(a, b);
            share((0, a.total()), (names.unseen, b.total()))
        }
        (Method::DistinctShare, _, Some((a, b))) => distinct_share(a, b).ok_or_else(|| Error::invalid("both sides need at least one row")),
        (Method::Wasserstein, Some((a, b)), _) => with_sides(a, b, |a, b| wasserstein(a, b, None)),
        (Method::Energy, Some((a, b)), _) => with_sides(a, b, energy),
        (Method::WassersteinNormalised, Some((a, b)), _) => normalised(a, b),
        (Method::WassersteinClipped, Some((a, b)), _) => clipped(a, b),
        _ => Err(other()),
    }
}

pub(super) fn with_sides(was: &Numbers, is: &Numbers, score: impl Fn(Side<'_>, Side<'_>) -> Result<Score>) -> Result<Score> {
    let (a, b) = (was.histogram.cells(), is.histogram.cells());
    let (Some(min), Some(max), Some(low), Some(high)) = (was.min(), was.max(), is.min(), is.max()) else {
        return Err(Error::invalid("both sides need at least one finite value"));
    };
    score(Side { cells: &a, min, max }, Side { cells: &b, min: low, max: high })
}

/// Wasserstein-1 over the reference's robust standard deviation.
pub(super) fn normalised(was: &Numbers, is: &Numbers) -> Result<Score> {
    let score = with_sides(was, is, |a, b| wasserstein(a, b, None))?;
    let spread = spread(was).ok_or_else(|| Error::invalid("the reference has no spread: nothing to divide by"))?;
    let over = |value: Option<f64>| value.map(|value| value / spread);
    Ok(Score { value: score.value / spread, lower: over(score.lower), upper: over(score.upper), ..score })
}

/// Wasserstein-1 between the reference's 0.1 % and 99.9 % quantile.
pub(super) fn clipped(was: &Numbers, is: &Numbers) -> Result<Score> {
    let tail = |q: f64| was.quantile(q).ok().flatten();
    let clip = tail(0.001).zip(tail(0.999)).filter(|(low, high)| low < high);
    let clip = clip.ok_or_else(|| Error::invalid("the reference has no spread: nothing to clip to"))?;
    with_sides(was, is, |a, b| wasserstein(a, b, Some(clip)))
}

/// The reference's robust standard deviation: IQR/1.349, else (q95 - q05)/3.29, else the standard deviation.
fn spread(numbers: &Numbers) -> Option<f64> {
    let between = |low: f64, high: f64, sigmas: f64| {
        let low = numbers.histogram.quantile(low).ok()??;
        let high = numbers.histogram.quantile(high).ok()??;
        Some((high - low) / sigmas).filter(|spread| *spread > 0.0 && spread.is_finite())
    };
    let deviation = || numbers.moments.variance().map(libm::sqrt).filter(|sd| *sd > 0.0 && sd.is_finite());
    between(0.25, 0.75, 1.349).or_else(|| between(0.05, 0.95, 3.29)).or_else(deviation)
}

/// The change of distinct names per row; `None` without rows.
pub(super) fn distinct_share(was: &Categories, is: &Categories) -> Option<Score> {
    let (n, m) = (was.total(), is.total());
    (n > 0 && m > 0).then(|| Score::plain(is.distinct() / m as f64 - was.distinct() / n as f64, Vec::new()))
}

/// Both sides counted cell by cell, on bins that cut no cell of the reference.
pub(super) fn by_cells(was: &Numbers, is: &Numbers) -> Result<(Bins, Vec<u64>, Vec<u64>)> {
    let cells = was.histogram.cells();
    let bins = Bins::from_cells(&cells, f64::MIN, f64::MAX, DEFAULT_BINS)?;
    let count = |numbers: &Numbers| {
        let mut counts = vec![0; bins.len()];
        numbers.histogram.cells().iter().for_each(|cell| counts[bins.index(cell.value())] += cell.count);
        counts
    };
    let (reference, current) = (count(was), count(is));
    Ok((bins, reference, current))
}

/// Which counters can hold one value only.
pub(super) fn single_values(edges: &[f64]) -> Vec<bool> {
    let mut single = vec![false; edges.len() + 1];
    for (at, pair) in edges.windows(2).enumerate() {
        single[at + 1] = pair[0].next_up() == pair[1];
    }
    single
}

/// Counts added up by the union each bin joins.
pub(super) fn united(unions: &[usize], counts: &[u64]) -> Vec<u64> {
    let mut out = vec![0; unions.last().map_or(0, |last| last + 1)];
    unions.iter().zip(counts).for_each(|(union, count)| out[*union] += *count);
    out
}

/// Counts of names: the common ones of the reference, the rest of its names, and names it does not have.
pub(super) struct NameCounts<'a> {
    /// Name, reference count, current count.
    pub(super) kept: Vec<(&'a str, u64, u64)>,
    pub(super) rest: (u64, u64),
    pub(super) unseen: u64,
    /// Current rows with a name of the reference.
    pub(super) known: u64,
    /// The bins of a test: those kept and, unless it is too thin, the rest.
    pub(super) reference: Vec<u64>,
    pub(super) current: Vec<u64>,
}

impl<'a> NameCounts<'a> {
    pub(super) fn new(was: &'a Categories, is: &Categories) -> Self {
        let ranked = was.ranked();
        let (n, m) = (was.total(), is.total());
        let known: u64 = ranked.iter().map(|(name, _)| is.count(name)).sum();
        let keep = |count: u64| count >= LEAST_IN_BIN && m as f64 * count as f64 / n as f64 >= LEAST_IN_BIN as f64;
        let kept: Vec<(&str, u64, u64)> = ranked
            .iter()
            .take(MOST_CATEGORIES)
            .filter(|(_, count)| keep(*count))
            .map(|(name, count)| (*name, *count, is.count(name)))
            .collect();
        let rest = (n - kept.iter().map(|(_, p, _)| p).sum::<u64>(), known - kept.iter().map(|(.., q)| q).sum::<u64>());
        let (mut reference, mut current): (Vec<u64>, Vec<u64>) = kept.iter().map(|(_, p, q)| (*p, *q)).unzip();
        if rest.0 >= LEAST_IN_BIN || kept.is_empty() {
            reference.push(rest.0);
            current.push(rest.1);
        } else if let (Some(least), Some(also)) = (reference.last_mut(), current.last_mut()) {
            // Too thin for a bin of its own: it joins the smallest.
            *least += rest.0;
            *also += rest.1;
        }
        Self { kept, rest, unseen: m - known.min(m), known, reference, current }
    }
}
