//! Keeps monitoring within its limits: a function of what was measured and of its own state, without a clock.
//!
//! Processor time is kept to by leaving events out: the depth of the sampling is moved by the logarithm of what was used over what is
//! allowed, so whatever part of the cost does not depend on sampling, it comes to rest where both are equal, and never overshoots by
//! itself. What was saved or overdrawn goes into the next steps' allowance, so that the mean is kept and not only each step. Bytes are
//! kept to by giving up detail, one level after the other, and taking it back later.

use barograph_core::hash::murmur3_of_word;
use serde::Serialize;

use crate::limits::Limits;

/// A step is taken when so many seconds were measured.
pub const PERIOD: f64 = 1.0;
/// Of more than so many nothing is known: the clock jumped, or the process slept.
const LONGEST: f64 = 3600.0;
/// What was saved or overdrawn is made good within about so many seconds.
const HORIZON: f64 = 20.0;
/// The most that is saved up, and overdrawn, in seconds of the limit.
const SAVED: f64 = 5.0;
const OVERDRAWN: f64 = 20.0;
/// The part of a step's error that it makes good: less than all of it, as what was measured is noisy.
const GAIN: f64 = 0.6;
/// Halvings that a step changes at most, down and up.
const DOWN: f64 = 1.0;
const UP: f64 = 0.4;
/// Errors below this many halvings change nothing: 4 %.
const STILL: f64 = 0.06;
/// The deepest sampling: one event of 1024. Beyond it sampling saves nothing that counts.
pub const DEEPEST: f64 = 10.0;
/// A level has so many seconds to show what it saves, before the next.
const SETTLING: f64 = 10.0;
/// Below this part of the limit for so many seconds, detail comes back.
const CALM: f64 = 0.8;
const CALM_FOR: f64 = 60.0;
/// The last level of detail that is given up.
pub const LAST: u8 = 4;

/// What was used since the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Used {
    /// Seconds that passed, by a clock that does not go back.
    pub seconds: f64,
    /// Processor seconds of them.
    pub cpu: f64,
    /// Bytes in memory now.
    pub memory: u64,
    /// Bytes on disk now.
    pub disk: u64,
    /// Bytes sent since.
    pub wire: f64,
}

/// What is kept of a model, level by level of what is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// 0 for all of it, up to 4.
    pub level: u8,
}

impl Detail {
    /// Segments of each column that are counted apart; the rest is pooled.
    pub fn segments(self) -> usize {
        if self.level == 0 { usize::MAX } else { 10 }
    }

    /// How many times the memory for past windows is halved.
    pub fn lattice(self) -> u32 {
        u32::from(self.level.clamp(1, LAST)) - 1
    }

    /// What is given up, in words; `None` for nothing.
    pub fn words(self) -> Option<String> {
        let segments = format!("segments beyond the {} largest of each column are pooled", self.segments());
        match self.level {
            0 => None,
            1 => Some(format!("{segments}; no new models")),
            _ => Some(format!("{segments}; past windows have 1/{} of their memory; no new models", 1 << self.lattice())),
        }
    }
}

/// Keeps to limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Governor {
    limits: Limits,
    /// log2 of one over the inclusion probability.
    depth: f64,
    /// Seconds of the CPU limit that were saved; negative for overdrawn.
    credit: f64,
    pending: Used,
    detail: Detail,
    /// Seconds since the level changed, and seconds with room to spare.
    since: f64,
    calm: f64,
    /// Mean use over the last steps: CPU share, bytes per second.
    cpu: f64,
    wire: f64,
    counts: Counts,
}

/// What the governor did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Counts {
    pub steps: u64,
    /// Changes of the inclusion probability, down and up.
    pub sampled_less: u64,
    pub sampled_more: u64,
    /// Changes of the level of detail.
    pub detail_given_up: u64,
    pub detail_taken_back: u64,
    /// Steps at the end of what can be given up and still beyond a limit.
    pub over: u64,
    /// Measurements that cannot be, as after a jump of the clock.
    pub discarded: u64,
}

impl Governor {
    /// One that has given nothing up yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            depth: 0.0,
            credit: 0.0,
            pending: Used::default(),
            detail: Detail::default(),
            since: SETTLING,
            calm: 0.0,
            cpu: 0.0,
            wire: 0.0,
            counts: Counts::default(),
        }
    }

    /// What it keeps to.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Keeps to others from now on.
    pub fn restate(&mut self, limits: Limits) {
        self.limits = limits;
        if !limits.sampling || limits.cpu.is_none() {
            self.depth = 0.0;
        }
        self.credit = 0.0;
    }

    /// The probability with which an event is kept.
    pub fn inclusion(&self) -> f64 {
        libm::exp2(-self.depth)
    }

    /// How many times events are halved, on average.
    pub fn depth(&self) -> f64 {
        self.depth
    }

    /// What is kept of models.
    pub fn detail(&self) -> Detail {
        self.detail
    }

    /// The share of a core, and the bytes per second on the wire, of the last steps.
    pub fn used(&self) -> (f64, f64) {
        (self.cpu, self.wire)
    }

    /// What it did.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether a limit is passed by more than a fifth, and nothing more can be given up for it.
    pub fn is_over(&self) -> bool {
        let cpu = self.limits.cpu.is_some_and(|limit| self.cpu > 1.2 * limit.0);
        cpu && (!self.limits.sampling || self.depth >= DEEPEST) || self.detail.level >= LAST && self.excess() > 1.2
    }

    /// Adds a measurement; a step is taken once a second of them is there. Whether one was.
    pub fn measure(&mut self, used: &Used) -> bool {
        let sound = used.seconds > 0.0 && used.cpu >= 0.0 && used.wire >= 0.0 && used.cpu.is_finite() && used.wire.is_finite();
        if !(sound && used.seconds <= LONGEST) {
            self.counts.discarded += 1;
            return false;
        }
        let pending = &mut self.pending;
        pending.seconds += used.seconds;
        pending.cpu += used.cpu;
        pending.wire += used.wire;
        (pending.memory, pending.disk) = (used.memory, used.disk);
        if pending.seconds < PERIOD {
            return false;
        }
        let (cpu, wire) = (pending.cpu / pending.seconds, pending.wire / pending.seconds);
        let seconds = pending.seconds;
        // Means over about ten seconds, for whoever looks.
        let fresh = if self.counts.steps == 0 { 1.0 } else { 1.0 - libm::exp(-seconds / 10.0) };
        self.cpu += fresh * (cpu - self.cpu);
        self.wire += fresh * (wire - self.wire);
        self.counts.steps += 1;
        self.sample(cpu, seconds);
        self.give_up(seconds);
        (self.pending.seconds, self.pending.cpu, self.pending.wire) = (0.0, 0.0, 0.0);
        self.counts.over += u64::from(self.is_over());
        true
    }

    /// Moves the depth of sampling by what was used.
    fn sample(&mut self, cpu: f64, seconds: f64) {
        let Some(limit) = self.limits.cpu.filter(|_| self.limits.sampling) else { return };
        self.credit = (self.credit + seconds * (1.0 - cpu / limit.0)).clamp(-OVERDRAWN, SAVED);
        let allowed = limit.0 * (1.0 + self.credit / HORIZON).clamp(0.5, 1.25);
        // Nothing used is little used: a thousandth of the limit.
        let error = libm::log2((cpu / allowed).max(1e-3));
        if error.abs() < STILL {
            return;
        }
        // A long pause says as much as many steps.
        let steps = (seconds / PERIOD).max(1.0);
        let depth = (self.depth + (GAIN * error).clamp(-UP * steps, DOWN)).clamp(0.0, DEEPEST);
        self.counts.sampled_less += u64::from(depth > self.depth);
        self.counts.sampled_more += u64::from(depth < self.depth);
        self.depth = depth;
    }

    /// The largest part of a limit on bytes that is used.
    fn excess(&self) -> f64 {
        let part = |used: u64, limit: Option<crate::limits::Size>| limit.map_or(0.0, |limit| used as f64 / limit.0 as f64);
        let wire = self.limits.wire.map_or(0.0, |limit| self.wire / limit.0);
        part(self.pending.memory, self.limits.memory).max(part(self.pending.disk, self.limits.disk)).max(wire)
    }

    /// Gives detail up where bytes are beyond a limit, and takes it back where there has been room for a while.
    fn give_up(&mut self, seconds: f64) {
        let excess = self.excess();
        self.since += seconds;
        self.calm = if excess < CALM { self.calm + seconds } else { 0.0 };
        let level = match self.detail.level {
            level if excess > 1.0 && level < LAST && self.since >= SETTLING => level + 1,
            level if level > 0 && self.calm >= CALM_FOR => level - 1,
            level => level,
        };
        if level != self.detail.level {
            self.counts.detail_given_up += u64::from(level > self.detail.level);
            self.counts.detail_taken_back += u64::from(level < self.detail.level);
            self.detail.level = level;
            (self.since, self.calm) = (0.0, 0.0);
        }
    }
}

/// Coins that decide what is kept: seeded, one after the other.
#[derive(Clone, Debug)]
pub struct Coins {
    seed: u64,
    thrown: u64,
}

impl Coins {
    /// The coins of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, thrown: 0 }
    }

    fn throw(&mut self) -> u64 {
        self.thrown = self.thrown.wrapping_add(1);
        coins_of(self.thrown, self.seed)
    }

    /// How many times the next batch is halved: one of the two whole numbers beside `depth`, so that the mean inclusion probability is
    /// `2^-depth`. What is kept of the batch stands for two to the power of it.
    pub fn halvings(&mut self, depth: f64) -> u32 {
        halvings_of(self.throw(), depth)
    }

    /// Of so many events those that so many fair coins keep.
    pub fn kept(&mut self, rows: usize, halvings: u32) -> Vec<bool> {
        (0..rows).map(|_| is_kept(self.throw(), halvings)).collect()
    }
}

/// 64 fair bits of a number.
pub fn coins_of(number: u64, seed: u64) -> u64 {
    // The second half: for one seed of all the first one is always even.
    murmur3_of_word(number, seed).1
}

/// How many times something is halved, by 64 fair bits of its own; of these the upper half is used.
pub fn halvings_of(bits: u64, depth: f64) -> u32 {
    let depth = depth.clamp(0.0, DEEPEST);
    let whole = libm::floor(depth);
    // With this probability the smaller number, else the next.
    let smaller = libm::exp2(whole + 1.0 - depth) - 1.0;
    let draw = (bits >> 32) as f64 / (1u64 << 32) as f64;
    whole as u32 + u32::from(draw >= smaller)
}

/// Whether all of so many coins, 32 at most, fall on one side; of the bits the lower half is used.
pub fn is_kept(bits: u64, halvings: u32) -> bool {
    (bits as u32).trailing_zeros() >= halvings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Share, Size};

    /// Seconds of a cost model: a fixed part, a part per event that is kept, noise, and a burst now and then.
    struct Plant {
        fixed: f64,
        all: f64,
        noise: f64,
        burst: (u64, f64),
    }

    fn run(governor: &mut Governor, plant: &Plant, steps: u64, seed: u64) -> Vec<(f64, f64)> {
        let mut coins = Coins::new(seed);
        (0..steps)
            .map(|step| {
                let noise = 1.0 + plant.noise * ((coins.throw() >> 11) as f64 / (1u64 << 52) as f64 - 1.0);
                let burst = if plant.burst.0 > 0 && step % plant.burst.0 == 0 { plant.burst.1 } else { 0.0 };
                let cpu = plant.fixed + plant.all * governor.inclusion() * noise + burst;
                governor.measure(&Used { seconds: 1.0, cpu, ..Used::default() });
                (cpu, governor.depth())
            })
            .collect()
    }

    fn mean(values: &[(f64, f64)]) -> f64 {
        values.iter().map(|(cpu, _)| cpu).sum::<f64>() / values.len() as f64
    }

    fn one_percent() -> Governor {
        Governor::new(Limits { cpu: Some(Share(0.01)), ..Limits::default() })
    }

    #[test]
    fn the_limit_is_kept_whatever_part_of_the_cost_is_fixed() {
        for fixed in [0.0, 0.002, 0.005, 0.008] {
            for all in [0.012, 0.03, 0.2, 3.0] {
                for noise in [0.0, 0.3] {
                    let mut governor = one_percent();
                    let seen = run(&mut governor, &Plant { fixed, all, noise, burst: (0, 0.0) }, 400, 7);
                    let kept = mean(&seen[100..]);
                    let reachable = (fixed + all).min(0.01);
                    assert!((kept / reachable - 1.0).abs() < 0.1, "{fixed} {all} {noise}: {kept}");
                }
            }
        }
    }

    #[test]
    fn without_noise_it_comes_to_rest() {
        let mut governor = one_percent();
        let seen = run(&mut governor, &Plant { fixed: 0.002, all: 0.1, noise: 0.0, burst: (0, 0.0) }, 300, 1);
        let last: Vec<f64> = seen[200..].iter().map(|(_, depth)| *depth).collect();
        let spread = last.iter().copied().fold(f64::MIN, f64::max) - last.iter().copied().fold(f64::MAX, f64::min);
        assert!(spread < 0.15, "{spread}");
    }

    #[test]
    fn bursts_are_made_good_and_a_lighter_load_is_taken_whole() {
        let mut governor = one_percent();
        // A window closes once a minute: 60 ms, six seconds of the limit.
        let seen = run(&mut governor, &Plant { fixed: 0.001, all: 0.06, noise: 0.2, burst: (60, 0.06) }, 1200, 3);
        assert!((mean(&seen[300..]) / 0.01 - 1.0).abs() < 0.1, "{}", mean(&seen[300..]));
        let light = Plant { fixed: 0.001, all: 0.006, noise: 0.2, burst: (0, 0.0) };
        run(&mut governor, &light, 60, 4);
        assert_eq!(governor.inclusion(), 1.0);
    }

    #[test]
    fn without_leave_to_sample_it_says_that_it_is_over() {
        let mut governor = Governor::new(Limits { cpu: Some(Share(0.01)), sampling: false, ..Limits::default() });
        run(&mut governor, &Plant { fixed: 0.0, all: 0.05, noise: 0.0, burst: (0, 0.0) }, 60, 1);
        assert!(governor.inclusion() == 1.0 && governor.is_over() && governor.counts().over > 30);
        let mut governor = one_percent();
        run(&mut governor, &Plant { fixed: 0.02, all: 0.05, noise: 0.0, burst: (0, 0.0) }, 60, 1);
        assert!(governor.depth() == DEEPEST && governor.is_over());
    }

    #[test]
    fn clocks_that_jump_change_nothing() {
        let mut governor = one_percent();
        run(&mut governor, &Plant { fixed: 0.0, all: 0.05, noise: 0.0, burst: (0, 0.0) }, 60, 1);
        let before = governor.clone();
        for (seconds, cpu) in [(0.0, 1.0), (-5.0, 0.1), (f64::NAN, 0.1), (1.0, -1.0), (1.0, f64::NAN), (1e9, 1.0), (1.0, f64::INFINITY)] {
            assert!(!governor.measure(&Used { seconds, cpu, ..Used::default() }));
        }
        assert_eq!(governor.counts().discarded, 7);
        assert_eq!((governor.depth(), governor.detail()), (before.depth(), before.detail()));
    }

    #[test]
    fn detail_is_given_up_one_level_at_a_time_and_taken_back_later() {
        let mut governor = Governor::new(Limits { memory: Some(Size(100)), ..Limits::default() });
        let mut levels = Vec::new();
        let use_memory = |governor: &mut Governor, memory: u64, steps: usize, levels: &mut Vec<u8>| {
            for _ in 0..steps {
                governor.measure(&Used { seconds: 1.0, memory, ..Used::default() });
                levels.push(governor.detail().level);
            }
        };
        use_memory(&mut governor, 150, 60, &mut levels);
        assert_eq!((governor.detail().level, governor.is_over()), (LAST, true));
        assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1));
        // Between the two thresholds nothing changes.
        use_memory(&mut governor, 90, 200, &mut levels);
        assert_eq!((governor.detail().level, governor.is_over()), (LAST, false));
        use_memory(&mut governor, 50, 60, &mut levels);
        assert_eq!(governor.detail().level, LAST - 1);
        use_memory(&mut governor, 50, 240, &mut levels);
        assert_eq!((governor.detail().level, governor.detail().words()), (0, None));
        assert_eq!((Detail { level: 3 }.lattice(), Detail { level: 1 }.lattice(), Detail { level: 0 }.lattice()), (2, 0, 0));
    }

    #[test]
    fn coins_are_fair_for_every_seed() {
        for seed in 0..64 {
            let kept = (0..10_000).filter(|number| is_kept(coins_of(*number, seed), 1)).count();
            // Six standard errors: 2e-9 each.
            assert!(kept.abs_diff(5000) < 300, "{seed}: {kept}");
        }
    }

    #[test]
    fn coins_keep_as_many_as_the_depth_says() {
        let mut coins = Coins::new(5);
        for depth in [0.0, 0.3, 1.0, 2.5, 5.9] {
            let (mut kept, mut worth, batches, rows) = (0usize, 0.0, 4000, 64);
            for _ in 0..batches {
                let halvings = coins.halvings(depth);
                assert!((f64::from(halvings) - depth).abs() < 1.0 || depth == 0.0 && halvings == 0);
                let own = coins.kept(rows, halvings).into_iter().filter(|kept| *kept).count();
                kept += own;
                worth += own as f64 * f64::from(1u32 << halvings);
            }
            let all = (batches * rows) as f64;
            let expected = all * libm::exp2(-depth);
            // Five standard errors, with room for batches that share a coin.
            assert!((kept as f64 - expected).abs() <= 5.0 * libm::sqrt(expected * rows as f64), "{depth}: {kept} {expected}");
            assert!((worth / all - 1.0).abs() <= 5.0 * libm::sqrt(2.0 * libm::exp2(depth) / all), "{depth}: {worth}");
        }
    }
}
