//! E-detectors of a monitor: once per closed moment, bets against "this column lies as near to its reference as ever".
//!
//! A moment is a minute for hourly windows, a 48th of longer ones; for a column whose rows resemble each other it is the whole tile, which the reference's own windows can be measured by. A bet is on a share of the moment's rows: values up to a cut, values above it, a name, nulls. While nothing beyond the
//! tolerance has changed, the share's conditional mean is at most β: the reference's share, the tolerance, the error of a
//! finite reference (Dvoretzky, Kiefer, Wolfowitz & Massart) and what the reference's own windows of that length reached.
//! Then `L = 1 + λ (share - β)` is a fair or losing bet, and `M ← L (M + w Δt / H)` alarms at 1 at most `w T / H` times in T,
//! in expectation: a budget on a calendar clock. Source: Shin, Ramdas & Rinaldo, NEJSDS 2024, arXiv 2203.03532; the budget
//! and the use of whole moments are ours, see `docs/concepts/alerts.md`.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use barograph_core::Result;
use barograph_core::bins::Bins;
use barograph_core::distributions::binomial_upper;
use serde::{Deserialize, Serialize};

use crate::coarse::{Counters, GROUPS, Grouping, Groups};
use crate::compare::short;
use crate::dependence::Dependence;
use crate::frame;
use crate::profile::{ColumnProfile, Content, Profile};
use crate::reference::{Reference, ReferenceColumn};
use crate::spread;
use crate::window::{HOUR, MINUTE};

/// Kolmogorov-Smirnov distance that is no change: an eighth of a standard deviation.
pub const TOLERANCE: f64 = 0.05;
/// Rise of the share of nulls that is no change.
const NULL_TOLERANCE: f64 = 0.02;
/// Share of references for which the error bound may fail, over all columns.
const UNLUCKY: f64 = 0.001;
/// How much is bet, as parts of the most that could be.
const STAKES: [f64; 3] = [0.1, 0.3, 0.7];
/// Bins that cuts are taken from, and names that are bet on.
const CUTS: usize = GROUPS;
/// Windows without a share beyond its β after which an alert of this detector is over.
const QUIET: u32 = 2;

/// What a bet is on.
#[derive(Clone, Debug, PartialEq)]
enum On {
    /// Values above the cut, and the counter that ends there.
    Above(f64, usize),
    /// Values up to the cut, and the counter that ends there.
    UpTo(f64, usize),
    /// A name.
    Name(String),
    /// All other names.
    NotName(String),
    /// Nulls.
    Nulls,
}

/// A bet's terms.
#[derive(Clone, Debug, PartialEq)]
struct Bet {
    on: On,
    /// The share in the reference.
    usual: f64,
    /// The largest conditional mean of the share that is no change.
    beta: f64,
}

/// The wealth of a column's bets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wealth {
    /// Per bet and stake.
    stakes: Vec<f64>,
    /// End of the last tile.
    until: Option<i64>,
    /// An alert is open: nothing is bet until it is over.
    frozen: bool,
    /// Windows in a row without a share beyond its β.
    quiet: u32,
}

/// What a tile came to for one column.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Mean wealth over the bets before any reset; an alarm at 1.
    pub wealth: f64,
    /// The alarm was raised by this tile, and why.
    pub alarm: Option<String>,
}

/// Part of a row's variance that its window may explain for moments to be bet on: the window's share then moves by half the
/// tolerance (one standard deviation). Windows of fewer rows do not show it.
const EXPLAINED: f64 = TOLERANCE * TOLERANCE;
const LEAST_ROWS: f64 = 20.0;
/// Lengths of moments: the longest that is at most a 48th of a window, but a minute at least.
const MOMENTS: [i64; 9] = [MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR];

/// The bets on one column.
#[derive(Clone, Debug)]
struct Column {
    bets: Vec<Bet>,
    /// False alarms per nanosecond that are allowed.
    rate: f64,
    /// Present if minutes are bet on, not whole tiles.
    fine: Option<Groups>,
}

/// The e-detectors of all columns of a reference, the wealth of each, and the moments that are not closed yet.
#[derive(Clone, Debug, Default)]
pub struct Bets {
    columns: BTreeMap<String, Column>,
    wealth: BTreeMap<String, Wealth>,
    /// Per moment and column that is bet on finely, in the order of names.
    moments: Counters,
    length: i64,
    tile: i64,
    most: usize,
    /// Moments that were given up because there were too many.
    pub(crate) forgotten: u64,
}

impl Bets {
    /// Bets on the tested columns of a reference, for windows and tiles of these lengths, with the false alarms per nanosecond that
    /// each is allowed, and so many bytes for moments that are not closed.
    pub fn new(reference: &Reference, window: i64, tile: i64, rates: &BTreeMap<String, f64>, memory: usize) -> Self {
        let tested: Vec<&ReferenceColumn> = reference.columns.iter().filter(|column| column.profile.column.role.is_tested()).collect();
        let unlucky = UNLUCKY / tested.len().max(1) as f64;
        let length = MOMENTS.into_iter().rev().find(|length| *length <= window / 48 && tile % length == 0).unwrap_or(MINUTE);
        let length = if tile % length == 0 { length } else { tile };
        let columns = tested.iter().map(|column| {
            let name = column.profile.column.name.clone();
            let terms = Column { rate: rates.get(&name).copied().unwrap_or(0.0), ..terms(column, length, tile, unlucky) };
            (name, terms)
        });
        let columns: BTreeMap<String, Column> = columns.collect();
        let counters: usize = columns.values().filter_map(|column| Some(column.fine.as_ref()?.counters() + 4)).sum();
        let most = (memory / (8 * counters.max(1))).max(100);
        Self { columns, wealth: BTreeMap::new(), moments: BTreeMap::new(), length, tile, most, forgotten: 0 }
    }

    /// Counts rows of one tile, given with their times, into their moments; each stands for `2^halvings`.
    ///
    /// # Errors
    /// None in practice.
    pub fn count(&mut self, batch: &RecordBatch, times: &[i64], reference: &Reference, halvings: u32) -> Result<()> {
        if !self.columns.values().any(|column| column.fine.is_some()) {
            return Ok(());
        }
        let times: Vec<Option<i64>> = times.iter().map(|time| Some(*time)).collect();
        for (moment, rows) in frame::by_tile(batch, &times, self.length)? {
            let fine = self.columns.iter().filter_map(|(name, column)| Some((name, column, column.fine.as_ref()?)));
            let empty = || fine.clone().map(|(_, _, groups)| vec![0; groups.counters()]).collect();
            let counts = self.moments.entry(moment).or_insert_with(empty);
            let mut fine: Vec<_> = fine.zip(counts).collect();
            spread::on_each(spread::of_monitors(), rows.num_rows(), &mut fine, |((name, _, groups), counts)| {
                let Some(array) = rows.column_by_name(name) else { return };
                let bins = reference.column(name).and_then(|fixed| fixed.bins.as_ref());
                if halvings == 0 {
                    return groups.count(array.as_ref(), bins, counts);
                }
                let mut part = vec![0; groups.counters()];
                groups.count(array.as_ref(), bins, &mut part);
                counts.iter_mut().zip(part).for_each(|(to, from)| *to += from << halvings);
            });
        }
        self.keep_within();
        Ok(())
    }

    /// Adds another's moments of the same columns, those that begin at or after `closed`.
    pub(crate) fn merge(&mut self, other: &Self, closed: i64) {
        self.forgotten += other.forgotten;
        self.add(&other.moments, closed);
    }

    /// Counters of a moment, column by column.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.columns.values().filter_map(|column| Some(column.fine.as_ref()?.counters())).collect()
    }

    /// How long a moment is.
    pub(crate) fn length(&self) -> i64 {
        self.length
    }

    /// Takes the moments out.
    pub(crate) fn take(&mut self) -> Counters {
        std::mem::take(&mut self.moments)
    }

    /// Adds moments of the same columns, those that begin at or after `closed`.
    pub(crate) fn add(&mut self, moments: &Counters, closed: i64) {
        for (moment, theirs) in moments.range(closed..) {
            match self.moments.get_mut(moment) {
                Some(mine) => mine.iter_mut().flatten().zip(theirs.iter().flatten()).for_each(|(to, from)| *to += from),
                None => drop(self.moments.insert(*moment, theirs.clone())),
            }
        }
        self.keep_within();
    }

    fn keep_within(&mut self) {
        while self.moments.len() > self.most {
            self.moments.pop_first();
            self.forgotten += 1;
        }
    }

    /// Bytes of the moments that are not closed.
    pub(crate) fn bytes(&self) -> usize {
        self.moments.len() * self.columns.values().filter_map(|column| Some(8 * (column.fine.as_ref()?.counters() + 4))).sum::<usize>()
    }

    /// The moments that are not closed yet, for a snapshot.
    pub fn moments(&self) -> &Counters {
        &self.moments
    }

    /// The wealth of every column's bets.
    pub fn wealth(&self) -> &BTreeMap<String, Wealth> {
        &self.wealth
    }

    /// Whether an alert of this column's detector is open.
    pub fn is_open(&self, column: &str) -> bool {
        self.wealth.get(column).is_some_and(|state| state.frozen)
    }

    /// Takes wealth and moments back; what does not fit the bets begins anew.
    pub fn restore(&mut self, wealth: BTreeMap<String, Wealth>, moments: Counters) {
        let columns = &self.columns;
        self.wealth = wealth;
        self.wealth.retain(|name, wealth| {
            columns.get(name).is_some_and(|column| wealth.stakes.len() == column.bets.len() * STAKES.len())
                && wealth.stakes.iter().all(|wealth| wealth.is_finite() && *wealth >= 0.0)
        });
        let sizes: Vec<usize> = columns.values().filter_map(|column| Some(column.fine.as_ref()?.counters())).collect();
        self.moments = moments;
        self.moments.retain(|_, counts| counts.iter().map(Vec::len).eq(sizes.iter().copied()));
    }

    /// Steps through the moments and tiles of a closed window, in order of time; `whole` is all of it.
    pub fn close<'a>(
        &mut self,
        window: (i64, i64),
        whole: &Profile,
        tiles: impl Iterator<Item = (i64, &'a Profile)>,
    ) -> Vec<(String, (i64, i64), Outcome)> {
        let mut out = Vec::new();
        for (name, state) in self.wealth.iter_mut().filter(|(_, state)| state.frozen) {
            let (Some(column), Some(profile)) = (self.columns.get(name), whole.column(name)) else { continue };
            let beyond = column.bets.iter().any(|bet| share(&bet.on, profile, whole).is_some_and(|share| share > bet.beta));
            state.quiet = if beyond { 0 } else { state.quiet + 1 };
            if state.quiet >= QUIET {
                (state.frozen, state.quiet) = (false, 0);
            }
        }
        let later = self.moments.split_off(&window.1);
        let moments = std::mem::replace(&mut self.moments, later);
        for (start, counts) in moments.range(window.0..) {
            let fine = self.columns.iter().filter_map(|(name, column)| Some((name, column, column.fine.as_ref()?)));
            for ((name, column, groups), counts) in fine.zip(counts) {
                let shares: Vec<Option<f64>> = column.bets.iter().map(|bet| share_of(&bet.on, counts, groups)).collect();
                let at = (*start, start + self.length);
                out.push((name.clone(), at, step(self.wealth.entry(name.clone()).or_default(), &column.bets, &shares, at, column.rate)));
            }
        }
        for (start, tile) in tiles {
            for (name, column) in self.columns.iter().filter(|(_, column)| column.fine.is_none()) {
                let Some(profile) = tile.column(name).filter(|profile| profile.unread.is_none()) else { continue };
                let shares: Vec<Option<f64>> = column.bets.iter().map(|bet| share(&bet.on, profile, tile)).collect();
                let at = (start, start + self.tile);
                out.push((name.clone(), at, step(self.wealth.entry(name.clone()).or_default(), &column.bets, &shares, at, column.rate)));
            }
        }
        out
    }
}

/// One step of a column's bets.
fn step(state: &mut Wealth, bets: &[Bet], shares: &[Option<f64>], (start, end): (i64, i64), rate: f64) -> Outcome {
    state.stakes.resize(bets.len() * STAKES.len(), 0.0);
    let passed = end - state.until.unwrap_or(start).min(end);
    state.until = Some(state.until.unwrap_or(end).max(end));
    if state.frozen {
        return Outcome { wealth: 0.0, alarm: None };
    }
    let injected = rate * passed as f64;
    for ((bet, share), wealth) in bets.iter().zip(shares).zip(state.stakes.chunks_mut(STAKES.len())) {
        for (stake, wealth) in STAKES.into_iter().zip(wealth) {
            let factor = share.map_or(1.0, |share| 1.0 + stake / bet.beta * (share - bet.beta));
            *wealth = (factor * (*wealth + injected)).min(1e12);
        }
    }
    let mean = state.stakes.iter().sum::<f64>() / state.stakes.len().max(1) as f64;
    let alarm = (mean >= 1.0).then(|| reason(bets, shares, &state.stakes));
    if alarm.is_some() {
        state.stakes.fill(0.0);
        (state.frozen, state.quiet) = (true, 0);
    }
    Outcome { wealth: mean, alarm }
}

/// The bets on a column.
fn terms(column: &ReferenceColumn, moment: i64, tile: i64, unlucky: f64) -> Column {
    let profile = &column.profile;
    let mut telling = column.dependence.iter().filter(|known| known.rows >= LEAST_ROWS).peekable();
    let fine = column.dependence.is_empty() || telling.peek().is_some() && telling.all(|known| known.shared() <= EXPLAINED);
    let known = column.dependence_over(if fine { moment } else { tile }).filter(|_| !fine);
    // What the reference is worth in independent rows: by its most dependent windows.
    let factor = |of: fn(&Dependence) -> f64| column.dependence.iter().map(of).fold(1.0, f64::max);
    let error = |rows: u64| libm::sqrt(libm::log(2.0 / unlucky) / (2.0 * rows as f64 / factor(|known| known.values)).max(1e-9));
    let mut bets = Vec::new();
    let mut add = |on: On, usual: f64, reached: f64, error: f64| {
        let beta = (usual + TOLERANCE + error).max(reached);
        // Where β leaves no room above it, a bet could only lose.
        if beta < 0.999 {
            bets.push(Bet { on, usual, beta });
        }
    };
    match &profile.content {
        Content::Numbers(numbers) => {
            if let (Some(bins), Some(counts)) = (&column.bins, &numbers.bins) {
                let error = error(numbers.finite());
                for edge in cuts(bins, counts) {
                    let at = bins.index(edge).min(counts.len() - 1);
                    let below = counts[..=at].iter().sum::<u64>() as f64 / numbers.finite().max(1) as f64;
                    let (least, most) = known.and_then(|known| known.reached(&edge.to_string())).unwrap_or((below, below));
                    add(On::UpTo(edge, at), below, most, error);
                    add(On::Above(edge, at), 1.0 - below, 1.0 - least, error);
                }
            }
        }
        Content::Names(names) => {
            let error = error(names.total());
            let ranked = names.ranked();
            for (name, count) in ranked.into_iter().take(CUTS) {
                let usual = count as f64 / names.total().max(1) as f64;
                let (least, most) = known.and_then(|known| known.reached(name)).unwrap_or((usual, usual));
                add(On::Name(name.to_owned()), usual, most, error);
                add(On::NotName(name.to_owned()), 1.0 - usual, 1.0 - least, error);
            }
        }
        Content::Times(_) | Content::Counted => return Column { bets, rate: 0.0, fine: None },
    }
    let rows = profile.count.max(1) as f64 / factor(|known| known.nulls);
    let usual = profile.nulls as f64 / profile.count.max(1) as f64;
    let upper = binomial_upper((usual * rows).min(rows), rows.max(1.0), unlucky);
    let reached = known.map_or(0.0, |known| known.most_nulls);
    add(On::Nulls, usual, (upper + NULL_TOLERANCE).max(reached), NULL_TOLERANCE - TOLERANCE);
    Column { bets, rate: 0.0, fine: Groups::of(profile).filter(|_| fine) }
}

/// The share of a moment; `None` without rows to take it of.
fn share_of(on: &On, counts: &[u64], groups: &Groups) -> Option<f64> {
    let (grouping, groups) = (&groups.grouping, groups.len);
    let (values, nulls, rows) = (counts[groups], counts[groups + 1], counts[groups + 2]);
    let of = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    match (on, grouping) {
        (On::Nulls, _) => of(nulls, rows),
        (On::UpTo(_, at) | On::Above(_, at), Grouping::Unions(unions)) => {
            let below: u64 = counts[..=unions[*at]].iter().sum();
            of(if matches!(on, On::UpTo(..)) { below } else { values.saturating_sub(below) }, values)
        }
        (On::Name(name), Grouping::Names(names)) => of(counts[*names.get(name)?], values),
        (On::NotName(name), Grouping::Names(names)) => of(values.saturating_sub(counts[*names.get(name)?]), values),
        _ => None,
    }
}

/// The inner edges of about ten unions of equal mass.
pub(crate) fn cuts(bins: &barograph_core::bins::Bins, counts: &[u64]) -> Vec<f64> {
    let unions = Bins::unions(counts, CUTS, 1);
    let ends = (1..unions.len()).filter(|at| unions[*at] != unions[at - 1]).map(|at| at - 1);
    ends.filter_map(|at| bins.edges().get(at).copied()).collect()
}

/// The share of a tile; `None` without rows to take it of.
fn share(on: &On, column: &ColumnProfile, tile: &Profile) -> Option<f64> {
    let of = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    match (on, &column.content) {
        (On::Nulls, _) => of(column.nulls, tile.rows),
        (On::UpTo(_, at) | On::Above(_, at), Content::Numbers(numbers)) => {
            let below: u64 = numbers.bins.as_ref()?.get(..=*at)?.iter().sum();
            let all = numbers.finite();
            of(if matches!(on, On::UpTo(..)) { below } else { all - below.min(all) }, all)
        }
        (On::Name(name), Content::Names(names)) => of(names.count(name), names.total()),
        (On::NotName(name), Content::Names(names)) => of(names.total() - names.count(name).min(names.total()), names.total()),
        _ => None,
    }
}

/// The bet that won most, in words.
fn reason(bets: &[Bet], shares: &[Option<f64>], wealth: &[f64]) -> String {
    let won = wealth.chunks(STAKES.len()).map(|stakes| stakes.iter().sum::<f64>());
    let best = bets.iter().zip(shares).zip(won).max_by(|a, b| a.1.total_cmp(&b.1));
    let Some(((bet, share), _)) = best else { return "its law changed".to_owned() };
    let what = match &bet.on {
        On::Above(edge, _) => format!("values above {}", short(*edge)),
        On::UpTo(edge, _) => format!("values up to {}", short(*edge)),
        On::Name(name) => format!("{name:?}"),
        On::NotName(name) => format!("names other than {name:?}"),
        On::Nulls => "nulls".to_owned(),
    };
    let now = share.map_or_else(String::new, |share| format!(", last {:.1} %", 100.0 * share));
    format!("{what} came to more than {:.1} % of the rows (reference {:.1} %{now})", 100.0 * bet.beta, 100.0 * bet.usual)
}
