//! An e-detector on ranks: bets against "every value lies within a tolerance of the reference's law".
//!
//! Each bet watches the share of values on one side of a reference quantile. While every conditional law lies within
//! Kolmogorov-Smirnov distance `tolerance` of the reference's, a bet's factor has mean at most 1, so the expected number of alarms
//! in T values is at most T over the threshold, for any distribution. The finite reference is paid for with the
//! Dvoretzky-Kiefer-Wolfowitz-Massart term. Values must be independent of each other given the past, as stated; for streams
//! with memory bet once per tile. Source: Shin, Ramdas & Rinaldo, NEJSDS 2024, arXiv 2203.03532.

use super::{Detect, Domain, between};
use crate::error::{Error, Result};

/// Quantiles of the reference at which bets are made, on both sides,
/// with their weights: a shift that is little more than the tolerance shows at the median first.
const CUTS: [(f64, f64); 7] = [(0.02, 0.03), (0.1, 0.07), (0.25, 0.15), (0.5, 0.5), (0.75, 0.15), (0.9, 0.07), (0.98, 0.03)];
/// Stakes as a share of the largest that is allowed, with their weights.
const STAKES: [(f64, f64); 3] = [(0.1, 0.6), (0.3, 0.25), (0.7, 0.15)];
/// Probability over references that the bound does not hold.
const REFERENCE_RISK: f64 = 0.001;

/// One side of one cut with its stakes.
#[derive(Clone, Debug, PartialEq)]
struct Bet {
    /// The value the bet is about.
    cut: f64,
    /// Whether it bets on values above the cut, or at most there.
    above: bool,
    /// Factors for a value on the other side and on this side, per stake.
    factors: [[f64; STAKES.len()]; 2],
    wealth: [f64; STAKES.len()],
    weight: f64,
}

/// The detector: the weighted mean of Shiryaev-Roberts wealths over all bets, alarm at the threshold, then anew.
#[derive(Clone, Debug, PartialEq)]
pub struct Rank {
    rows: f64,
    tolerance: f64,
    threshold: f64,
    /// Cut value, the reference's share above it and its weight, kept for the snapshot.
    cuts: Vec<(f64, f64, f64)>,
    bets: Vec<Bet>,
    changed: bool,
}

impl Rank {
    /// `values` ascending with their `counts` in the reference; `tolerance` a Kolmogorov-Smirnov distance in (0, 1), 0.05 by
    /// default (an eighth of a standard deviation); `threshold` the average number of values between false alarms, at least.
    ///
    /// # Errors
    /// `InvalidArgument` for values that are not ascending, an empty reference or parameters outside their ranges.
    pub fn new(values: &[f64], counts: &[u64], tolerance: f64, threshold: f64) -> Result<Self> {
        let total: u64 = counts.iter().sum();
        if values.len() != counts.len() || total == 0 || !values.is_sorted_by(|a, b| a < b) || !values.iter().all(|value| value.is_finite())
        {
            return Err(Error::invalid("`values` must be finite and ascending, with as many counts and at least one row"));
        }
        let mut cuts: Vec<(f64, f64, f64)> = Vec::new();
        for (cut, weight) in CUTS {
            let mut below = 0u64;
            let found = values.iter().zip(counts).find_map(|(value, count)| {
                below += count;
                (below as f64 >= cut * total as f64).then_some((*value, 1.0 - below as f64 / total as f64))
            });
            let Some((value, share)) = found else { continue };
            match cuts.last_mut() {
                // Atoms make several cuts one.
                Some(last) if last.0 == value => last.2 += weight,
                _ => cuts.push((value, share, weight)),
            }
        }
        Self::from_cuts(total as f64, cuts, tolerance, threshold)
    }

    fn from_cuts(rows: f64, cuts: Vec<(f64, f64, f64)>, tolerance: f64, threshold: f64) -> Result<Self> {
        between("tolerance", tolerance, 0.0, 1.0)?;
        between("threshold", threshold, 1.0, 1e15)?;
        let slack = tolerance + libm::sqrt(libm::log(2.0 / REFERENCE_RISK) / (2.0 * rows));
        let mut bets = Vec::new();
        for (cut, share, weight) in &cuts {
            for (above, share) in [(true, *share), (false, 1.0 - share)] {
                let most = share + slack;
                if most < 1.0 {
                    let factor = |hit: f64| STAKES.map(|(stake, _)| 1.0 + stake / most * (hit - most));
                    bets.push(Bet { cut: *cut, above, factors: [factor(0.0), factor(1.0)], wealth: [0.0; STAKES.len()], weight: *weight });
                }
            }
        }
        if bets.is_empty() {
            return Err(Error::invalid(format!("{rows} reference rows leave nothing to bet on at a tolerance of {tolerance}"))
                .hint("use more reference rows or a smaller tolerance"));
        }
        let total: f64 = bets.iter().map(|bet| bet.weight).sum();
        bets.iter_mut().for_each(|bet| bet.weight /= total);
        Ok(Self { rows, tolerance, threshold, cuts, bets, changed: false })
    }
}

impl Detect for Rank {
    const NAME: &'static str = "rank";
    const DOMAIN: Domain = Domain::Finite;

    fn step(&mut self, value: f64) -> bool {
        if self.changed {
            self.bets.iter_mut().for_each(|bet| bet.wealth = [0.0; STAKES.len()]);
        }
        let mut sum = 0.0;
        for bet in &mut self.bets {
            let factors = &bet.factors[usize::from((value > bet.cut) == bet.above)];
            let mut own = 0.0;
            for ((wealth, factor), (_, weight)) in bet.wealth.iter_mut().zip(factors).zip(STAKES) {
                *wealth = factor * (*wealth + 1.0);
                own += weight * *wealth;
            }
            sum += bet.weight * own;
        }
        self.changed = sum >= self.threshold;
        self.changed
    }

    fn state(&self, number: &mut dyn FnMut(f64)) {
        [self.rows, self.tolerance, self.threshold, f64::from(u8::from(self.changed)), self.cuts.len() as f64]
            .into_iter()
            .for_each(&mut *number);
        for (cut, share, weight) in &self.cuts {
            [*cut, *share, *weight].into_iter().for_each(&mut *number);
        }
        self.bets.iter().flat_map(|bet| bet.wealth).for_each(number);
    }

    fn restored(next: &mut dyn FnMut() -> Result<f64>) -> Result<Self> {
        let (rows, tolerance, threshold, changed, cuts) = (next()?, next()?, next()?, next()? > 0.0, next()?);
        if !((1.0..=CUTS.len() as f64).contains(&cuts) && rows >= 1.0 && rows.is_finite()) {
            return Err(Error::decode("the cuts of a detector are out of range"));
        }
        let cuts = (0..cuts as usize).map(|_| Ok((next()?, next()?, next()?))).collect::<Result<Vec<(f64, f64, f64)>>>()?;
        if !cuts.iter().all(|(cut, share, weight)| cut.is_finite() && (0.0..=1.0).contains(share) && *weight > 0.0 && *weight <= 1.0) {
            return Err(Error::decode("the cuts of a detector are out of range"));
        }
        let mut out = Self::from_cuts(rows, cuts, tolerance, threshold)?;
        out.changed = changed;
        for wealth in out.bets.iter_mut().flat_map(|bet| &mut bet.wealth) {
            *wealth = next()?;
            if wealth.is_nan() || *wealth < 0.0 {
                return Err(Error::decode("the wealth of a bet is negative"));
            }
        }
        Ok(out)
    }
}
