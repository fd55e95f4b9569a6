//! KSWIN: Kolmogorov-Smirnov test of the newest values against a random sample of the older ones in a sliding window.
//!
//! Source: Raab, Heusinger & Schleif, Neurocomputing 2020, as in river 0.26: same parameters, same test, same reset; the draws
//! are a function of seed and position, so that positions have river's law without being river's. The window is kept in
//! order, so that no value costs a sort.

use std::collections::VecDeque;

use super::{Detect, Domain, between, count};
use crate::error::{Error, Result};
use crate::hash::murmur3_of_word;

/// The detector.
#[derive(Clone, Debug, PartialEq)]
pub struct Kswin {
    alpha: f64,
    window: usize,
    stat: usize,
    seed: u64,
    /// Values, oldest first, each with its number modulo the window's size, which names it in `sorted`.
    values: VecDeque<f64>,
    /// The window in ascending order with the number of each value.
    sorted: Vec<(f64, u64)>,
    /// Values since the last reset, and draws since the start.
    taken: u64,
    drawn: u64,
    /// The smallest number of ranks between both distributions that the test rejects.
    critical: usize,
}

impl Kswin {
    /// Level, length of the window, length of its newest part, seed. Defaults: 0.005, 100, 30, 0.
    ///
    /// # Errors
    /// `InvalidArgument` outside their ranges, or for a window shorter than twice its newest part.
    pub fn new(alpha: f64, window_size: f64, stat_size: f64, seed: f64) -> Result<Self> {
        let window = count("window_size", window_size, 4.0, 1e6)? as usize;
        let stat = count("stat_size", stat_size, 2.0, 5e5)? as usize;
        if window < 2 * stat {
            return Err(Error::invalid(format!("`window_size` must be at least twice `stat_size`, got {window} and {stat}"))
                .hint("as many older values are drawn as there are newest ones"));
        }
        let alpha = between("alpha", alpha, 0.0, 1.0)?;
        let seed = if seed == 0.0 { 0 } else { count("seed", seed, 0.0, 9e15)? as u64 };
        Ok(Self {
            alpha,
            window,
            stat,
            seed,
            values: VecDeque::with_capacity(window),
            sorted: Vec::with_capacity(window),
            taken: 0,
            drawn: 0,
            critical: critical(alpha, stat),
        })
    }

    fn reset(&mut self) {
        self.values.clear();
        self.sorted.clear();
        self.taken = 0;
    }

    fn insert(&mut self, value: f64) {
        let number = self.taken;
        self.taken += 1;
        if self.values.len() == self.window {
            let oldest = number - self.window as u64;
            self.values.pop_front();
            self.sorted.retain(|(_, at)| *at != oldest);
        }
        self.values.push_back(value);
        let at = self.sorted.partition_point(|(other, _)| *other <= value);
        self.sorted.insert(at, (value, number));
    }

    /// The largest distance in ranks of the newest values and of as many drawn ones.
    fn distance(&mut self) -> usize {
        let older = self.window - self.stat;
        // Floyd's sampling: `stat` different places of the older part.
        let mut drawn = vec![false; older];
        for top in older - self.stat..older {
            self.drawn += 1;
            let pick = ((u128::from(murmur3_of_word(self.drawn, self.seed).0) * (top as u128 + 1)) >> 64) as usize;
            let place = if drawn[pick] { top } else { pick };
            drawn[place] = true;
        }
        let first = self.taken - self.window as u64;
        let (mut gap, mut most) = (0i64, 0i64);
        for ties in self.sorted.chunk_by(|a, b| a.0 == b.0) {
            for (_, number) in ties {
                let place = (number - first) as usize;
                if place >= older {
                    gap += 1;
                } else if drawn[place] {
                    gap -= 1;
                }
            }
            most = most.max(gap.abs());
        }
        most as usize
    }
}

/// The smallest k with `P[D >= k/n] <= alpha` and `k/n > 0.1` for two samples of n values; n + 1 if there is none.
fn critical(alpha: f64, n: usize) -> usize {
    // P = 2 Σ (-1)^(j-1) C(2n, n - jk) / C(2n, n) (Gnedenko & Korolyuk 1951).
    let choose = |below: usize| libm::lgamma((n - below) as f64 + 1.0) + libm::lgamma((n + below) as f64 + 1.0);
    let tail = |k: usize| -> f64 {
        let term = |j: usize| libm::exp(choose(0) - choose(j * k)) * if j % 2 == 1 { 2.0 } else { -2.0 };
        (1..=n / k).map(term).sum::<f64>().min(1.0)
    };
    (1..=n).find(|k| *k * 10 > n && tail(*k) <= alpha).unwrap_or(n + 1)
}

impl Detect for Kswin {
    const NAME: &'static str = "kswin";
    const DOMAIN: Domain = Domain::Finite;

    fn step(&mut self, value: f64) -> bool {
        self.insert(value);
        if self.values.len() < self.window || self.distance() < self.critical {
            return false;
        }
        self.reset();
        true
    }

    fn state(&self, number: &mut dyn FnMut(f64)) {
        [self.alpha, self.window as f64, self.stat as f64, self.seed as f64, self.drawn as f64, self.values.len() as f64]
            .into_iter()
            .for_each(&mut *number);
        self.values.iter().copied().for_each(number);
    }

    fn restored(next: &mut dyn FnMut() -> Result<f64>) -> Result<Self> {
        let mut out = Self::new(next()?, next()?, next()?, next()?)?;
        let (drawn, kept) = (next()?, next()?);
        if !(0.0..9e15).contains(&drawn) || !(0.0..=out.window as f64).contains(&kept) {
            return Err(Error::decode("a kswin detector holds more values than its window"));
        }
        out.drawn = drawn as u64;
        for _ in 0..kept as usize {
            let value = next()?;
            if !value.is_finite() {
                return Err(Error::decode("a kswin detector holds a value that is not finite"));
            }
            out.insert(value);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::critical;

    #[test]
    fn critical_ranks_are_those_of_the_exact_law() {
        // scipy.stats.ks_2samp(method="exact") for 30 and 30 values: p = 0.006548 at 13/30 and 0.002530 at 14/30.
        assert_eq!([critical(0.005, 30), critical(0.0065, 30), critical(0.0066, 30), critical(1e-9, 10)], [14, 14, 13, 11]);
    }
}
