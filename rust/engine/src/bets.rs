//! E-detectors of a monitor: once per closed tile, bets against "this column lies as near to its reference as ever".
//!
//! A bet is on a share of the tile's rows: values up to a cut, values above it, a name, nulls. While nothing beyond the
//! tolerance has changed, the share's conditional mean is at most β: the reference's share, the tolerance, the error of a
//! finite reference (Dvoretzky, Kiefer, Wolfowitz & Massart) and what the reference's own windows of that length reached.
//! Then `L = 1 + λ (share - β)` is a fair or losing bet, and `M ← L (M + w Δt / H)` alarms at 1 at most `w T / H` times in T,
//! in expectation: a budget on a calendar clock. Source: Shin, Ramdas & Rinaldo, NEJSDS 2024, arXiv 2203.03532; the budget
//! and the use of whole tiles are ours, see `docs/concepts/alerts.md`.

use std::collections::BTreeMap;

use barograph_core::distributions::binomial_upper;
use serde::{Deserialize, Serialize};

use crate::compare::short;
use crate::dependence::Dependence;
use crate::profile::{ColumnProfile, Content, Profile};
use crate::reference::{Reference, ReferenceColumn};

/// Kolmogorov-Smirnov distance that is no change: an eighth of a standard deviation.
pub const TOLERANCE: f64 = 0.05;
/// Rise of the share of nulls that is no change.
const NULL_TOLERANCE: f64 = 0.02;
/// Share of references for which the error bound may fail, over all columns.
const UNLUCKY: f64 = 0.001;
/// How much is bet, as parts of the most that could be.
const STAKES: [f64; 3] = [0.1, 0.3, 0.7];
/// Bins that cuts are taken from, and names that are bet on.
const CUTS: usize = 10;
/// Tiles without a share beyond its β after which an alert of this detector is over.
const QUIET: u32 = 3;

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
    /// Tiles in a row without a share beyond its β.
    quiet: u32,
}

/// What a tile came to for one column.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Mean wealth over the bets before any reset; an alarm at 1.
    pub wealth: f64,
    /// The alarm was raised by this tile, and why.
    pub alarm: Option<String>,
    /// The alert this detector raised is over.
    pub over: bool,
}

/// The e-detectors of all columns of a reference, and the wealth of each.
#[derive(Clone, Debug, Default)]
pub struct Bets {
    terms: BTreeMap<String, Vec<Bet>>,
    wealth: BTreeMap<String, Wealth>,
    /// Budget per nanosecond of one column.
    rate: f64,
}

impl Bets {
    /// Bets on the tested columns of a reference, for tiles of this length and a budget of one false alarm per `horizon`
    /// nanoseconds over all of them.
    pub fn new(reference: &Reference, tile: i64, horizon: f64) -> Self {
        let tested: Vec<&ReferenceColumn> = reference.columns.iter().filter(|column| column.profile.column.role.is_tested()).collect();
        let unlucky = UNLUCKY / tested.len().max(1) as f64;
        let bets = tested.iter().map(|column| (column.profile.column.name.clone(), terms(column, tile, unlucky)));
        Self { terms: bets.collect(), wealth: BTreeMap::new(), rate: 1.0 / (tested.len().max(1) as f64 * horizon) }
    }

    /// The wealth of every column's bets.
    pub fn wealth(&self) -> &BTreeMap<String, Wealth> {
        &self.wealth
    }

    /// Whether an alert of this column's detector is open.
    pub fn is_open(&self, column: &str) -> bool {
        self.wealth.get(column).is_some_and(|state| state.frozen)
    }

    /// Takes wealth back; what does not fit the bets begins anew.
    pub fn restore(&mut self, wealth: BTreeMap<String, Wealth>) {
        self.wealth = wealth;
        let terms = &self.terms;
        self.wealth.retain(|name, wealth| {
            terms.get(name).is_some_and(|bets| wealth.stakes.len() == bets.len() * STAKES.len())
                && wealth.stakes.iter().all(|wealth| wealth.is_finite() && *wealth >= 0.0)
        });
    }

    /// One step with a closed tile `[start, end)`, for every column it has.
    pub fn step(&mut self, tile: &Profile, (start, end): (i64, i64)) -> Vec<(String, Outcome)> {
        let mut out = Vec::new();
        for (name, bets) in &self.terms {
            let Some(column) = tile.column(name).filter(|column| column.unread.is_none()) else { continue };
            let shares: Vec<Option<f64>> = bets.iter().map(|bet| share(&bet.on, column, tile)).collect();
            let state = self.wealth.entry(name.clone()).or_default();
            state.stakes.resize(bets.len() * STAKES.len(), 0.0);
            let passed = end - state.until.unwrap_or(start).min(end);
            state.until = Some(state.until.unwrap_or(end).max(end));
            let beyond = bets.iter().zip(&shares).any(|(bet, share)| share.is_some_and(|share| share > bet.beta));
            state.quiet = if beyond { 0 } else { state.quiet.saturating_add(1) };
            if state.frozen {
                let over = state.quiet >= QUIET;
                state.frozen = !over;
                out.push((name.clone(), Outcome { wealth: 0.0, alarm: None, over }));
                continue;
            }
            let injected = self.rate * passed as f64;
            for ((bet, share), wealth) in bets.iter().zip(&shares).zip(state.stakes.chunks_mut(STAKES.len())) {
                for (stake, wealth) in STAKES.into_iter().zip(wealth) {
                    let factor = share.map_or(1.0, |share| 1.0 + stake / bet.beta * (share - bet.beta));
                    *wealth = (factor * (*wealth + injected)).min(1e12);
                }
            }
            let mean = state.stakes.iter().sum::<f64>() / state.stakes.len().max(1) as f64;
            let alarm = (mean >= 1.0).then(|| reason(bets, &shares, &state.stakes));
            if alarm.is_some() {
                state.stakes.fill(0.0);
                (state.frozen, state.quiet) = (true, 0);
            }
            out.push((name.clone(), Outcome { wealth: mean, alarm, over: false }));
        }
        out
    }
}

/// The bets on a column.
fn terms(column: &ReferenceColumn, tile: i64, unlucky: f64) -> Vec<Bet> {
    let profile = &column.profile;
    let known = column.dependence_over(tile);
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
            for (name, count) in names.ranked().into_iter().take(CUTS) {
                let usual = count as f64 / names.total().max(1) as f64;
                let (least, most) = known.and_then(|known| known.reached(name)).unwrap_or((usual, usual));
                add(On::Name(name.to_owned()), usual, most, error);
                add(On::NotName(name.to_owned()), 1.0 - usual, 1.0 - least, error);
            }
        }
        Content::Times(_) | Content::Counted => return bets,
    }
    let rows = profile.count.max(1) as f64 / factor(|known| known.nulls);
    let usual = profile.nulls as f64 / profile.count.max(1) as f64;
    let upper = binomial_upper((usual * rows).min(rows), rows.max(1.0), unlucky);
    let reached = known.map_or(0.0, |known| known.most_nulls);
    add(On::Nulls, usual, (upper + NULL_TOLERANCE).max(reached), NULL_TOLERANCE - TOLERANCE);
    bets
}

/// The inner edges of about ten unions of equal mass.
pub(crate) fn cuts(bins: &barograph_core::bins::Bins, counts: &[u64]) -> Vec<f64> {
    let unions = bins.unions(counts, CUTS, 1);
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
