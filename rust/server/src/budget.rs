//! What the sidecar may cost: it measures itself once a second, and leaves events or detail out to keep to it.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use barograph_engine::governor::{Detail, Governor, PERIOD, Used, halvings_of};
use barograph_engine::limits::Limits;
use serde_json::{Value, json};

use crate::record::Happening;
use crate::sidecar::{Sidecar, memory};
use crate::{cpu, note};

/// How often the data folder is looked through, in steps.
const DISK_EVERY: u32 = 10;
/// Logs become states, and go, no more often than this where the disk is short.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// The part of the limit on the disk at which they do.
const SHORT: f64 = 0.8;
/// Folders in one another that are looked into.
const DEEPEST_FOLDER: u32 = 8;

/// What is spent, and what is allowed.
#[derive(Debug)]
pub struct Spending {
    governor: Mutex<Governor>,
    /// The bits of the depth of sampling.
    depth: AtomicU64,
    /// Coins that nobody outside can foresee, and how many were thrown.
    coins: RandomState,
    thrown: AtomicU64,
    memory: AtomicU64,
    disk: AtomicU64,
    /// Bytes that were pushed since the last step, and pushes that were left out.
    pushed: AtomicU64,
    held_back: AtomicU64,
}

impl Spending {
    /// Nothing is spent yet.
    pub fn new(limits: Limits) -> Self {
        let zero = AtomicU64::default;
        Self {
            governor: Mutex::new(Governor::new(limits)),
            depth: zero(),
            coins: RandomState::new(),
            thrown: zero(),
            memory: zero(),
            disk: zero(),
            pushed: zero(),
            held_back: zero(),
        }
    }

    fn with<T>(&self, of: impl FnOnce(&mut Governor) -> T) -> T {
        of(&mut self.governor.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps to other limits from now on.
    pub fn restate(&self, limits: Limits) {
        self.with(|governor| {
            governor.restate(limits);
            self.depth.store(governor.depth().to_bits(), Ordering::Relaxed);
        });
    }

    /// How many times the next batch of events is halved.
    pub fn halvings(&self) -> u32 {
        let depth = f64::from_bits(self.depth.load(Ordering::Relaxed));
        if depth == 0.0 { 0 } else { halvings_of(self.coins.hash_one(self.thrown.fetch_add(1, Ordering::Relaxed)), depth) }
    }

    /// Whether events are left out: what is done at once then saves processor time, even if others wait longer for their turn.
    pub fn is_tight(&self) -> bool {
        f64::from_bits(self.depth.load(Ordering::Relaxed)) > 0.0
    }

    /// The probability with which an event is kept.
    pub fn inclusion(&self) -> f64 {
        self.with(|governor| governor.inclusion())
    }

    /// What is kept of models.
    pub fn detail(&self) -> Detail {
        self.with(|governor| governor.detail())
    }

    /// Why there can be no new models now.
    pub fn no_new_models(&self) -> Option<String> {
        self.detail().words().map(|words| format!("memory, disk or wire is beyond its limit in [budget]: {words}"))
    }

    /// Whether something may be pushed now; if not, that is counted.
    pub fn may_push(&self) -> bool {
        let may = self.with(|governor| governor.limits().wire.is_none_or(|limit| governor.used().1 <= limit.0));
        self.held_back.fetch_add(u64::from(!may), Ordering::Relaxed);
        may
    }

    /// So many bytes were pushed.
    pub fn pushed(&self, bytes: usize) {
        self.pushed.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn measure(&self, seconds: f64, cpu: f64) -> Detail {
        let used = Used {
            seconds,
            cpu,
            memory: self.memory.load(Ordering::Relaxed),
            disk: self.disk.load(Ordering::Relaxed),
            wire: self.pushed.swap(0, Ordering::Relaxed) as f64,
        };
        self.with(|governor| {
            governor.measure(&used);
            self.depth.store(governor.depth().to_bits(), Ordering::Relaxed);
            governor.detail()
        })
    }

    fn is_short_of_disk(&self) -> bool {
        let disk = self.disk.load(Ordering::Relaxed) as f64;
        self.with(|governor| governor.limits().disk.is_some_and(|limit| disk > SHORT * limit.0 as f64))
    }

    /// What is used and allowed, by name; what has no limit is told all the same.
    pub fn used(&self) -> [(&'static str, f64, Option<f64>); 4] {
        let bytes = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        self.with(|governor| {
            let (limits, (cpu, wire)) = (governor.limits(), governor.used());
            [
                ("cpu", cpu, limits.cpu.map(|limit| limit.0)),
                ("memory", bytes(&self.memory), limits.memory.map(|limit| limit.0 as f64)),
                ("disk", bytes(&self.disk), limits.disk.map(|limit| limit.0 as f64)),
                ("wire", wire, limits.wire.map(|limit| limit.0)),
            ]
        })
    }

    /// How often it did what.
    pub fn counts(&self) -> [(&'static str, u64); 7] {
        let counts = self.with(|governor| governor.counts());
        [
            ("sampled_less", counts.sampled_less),
            ("sampled_more", counts.sampled_more),
            ("detail_given_up", counts.detail_given_up),
            ("detail_taken_back", counts.detail_taken_back),
            ("over", counts.over),
            ("discarded", counts.discarded),
            ("pushes_held_back", self.held_back.load(Ordering::Relaxed)),
        ]
    }

    /// All of it as a document.
    pub fn told(&self) -> Value {
        let (limits, used): (serde_json::Map<String, Value>, serde_json::Map<String, Value>) =
            self.used().into_iter().map(|(name, used, limit)| ((name.to_owned(), json!(limit)), (name.to_owned(), json!(used)))).unzip();
        let (inclusion, over) = self.with(|governor| (governor.inclusion(), governor.is_over()));
        let detail = self.detail();
        let counts: serde_json::Map<String, Value> =
            self.counts().into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
        json!({
            "limits": limits,
            "used": used,
            "inclusion": inclusion,
            "level": detail.level,
            "given_up": detail.words(),
            "over": over,
            "counts": counts,
        })
    }
}

/// Measures once a second until the sidecar stops.
pub fn start(sidecar: &Arc<Sidecar>) {
    let sidecar = Arc::clone(sidecar);
    tokio::spawn(async move {
        let (mut last, mut cpu, mut steps) = (Instant::now(), cpu::of_process(), 0u32);
        // What models were left with by the process before this one is not known yet.
        let (mut saved, mut level, mut was_over) = (Instant::now(), None::<u8>, false);
        while !sidecar.stopping.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_secs_f64(PERIOD)).await;
            let spending = &sidecar.spending;
            spending.memory.store(memory(), Ordering::Relaxed);
            let disk = sidecar.config.load().budget.disk.is_some();
            if disk && steps % DISK_EVERY == 0 {
                let folder = sidecar.config.load().data.clone();
                let size = tokio::task::spawn_blocking(move || size_of(&folder, 0)).await.unwrap_or(0);
                spending.disk.store(size, Ordering::Relaxed);
            }
            steps = steps.wrapping_add(1);
            let (now, used) = (Instant::now(), cpu::of_process());
            let detail = spending.measure((now - last).as_secs_f64(), used.saturating_sub(cpu) as f64 / 1e9);
            (last, cpu) = (now, used);
            if level != Some(detail.level) && sidecar.opened.load(Ordering::Relaxed) {
                let words = detail.words();
                if let Some(words) = &words {
                    note::warn(&format!("to keep to [budget]: {words}"));
                } else if level.is_some() {
                    note::warn("there is room in [budget] again: nothing is given up");
                }
                level = Some(detail.level);
                tell(&sidecar, detail).await;
            }
            let over = spending.with(|governor| governor.is_over());
            if over && !was_over {
                note::warn("a limit of [budget] cannot be kept: nothing more can be left out for it");
            }
            was_over = over;
            if disk && spending.is_short_of_disk() && saved.elapsed() > SAVE_EVERY {
                saved = Instant::now();
                for entry in sidecar.models.entries() {
                    // What a state holds goes from the log.
                    let _ = sidecar.models.save(&entry).await;
                }
            }
        }
    });
}

/// Tells models what is kept of them from now on, where that is something else.
async fn tell(sidecar: &Arc<Sidecar>, detail: Detail) {
    for entry in sidecar.models.entries() {
        let known = sidecar.models.look(&entry, |model| model.detail).await;
        if known.is_ok_and(|known| known != detail)
            && let Err(problem) = sidecar.models.happen(&entry, Happening::Keep(detail.level)).await
        {
            note::warn(&format!("model {}: {}", entry.name, problem.detail));
        }
    }
}

/// Bytes of the files in a folder; what cannot be read counts as nothing.
fn size_of(folder: &Path, depth: u32) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let mut size = 0;
    for entry in entries.flatten() {
        let Ok(about) = entry.metadata() else { continue };
        if about.is_file() {
            size += about.len();
        } else if about.is_dir() && depth < DEEPEST_FOLDER {
            size += size_of(&entry.path(), depth + 1);
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use barograph_engine::limits::{Rate, Share};

    use super::*;

    #[test]
    fn a_budget_is_told_and_pushes_wait_for_the_wire() {
        let spending = Spending::new(Limits { cpu: Some(Share(0.01)), wire: Some(Rate(100.0)), ..Limits::default() });
        assert!(spending.may_push() && spending.halvings() == 0 && !spending.is_tight() && spending.no_new_models().is_none());
        spending.pushed(1000);
        spending.measure(1.0, 0.5);
        assert!(!spending.may_push() && spending.inclusion() < 1.0 && spending.is_tight());
        assert!((0..1000).any(|_| spending.halvings() > 0));
        let told = spending.told();
        assert_eq!((&told["limits"]["cpu"], &told["limits"]["disk"], &told["used"]["wire"]), (&json!(0.01), &Value::Null, &json!(1000.0)));
        assert_eq!(told["counts"]["pushes_held_back"], json!(1));
        spending.restate(Limits::default());
        assert!(spending.may_push() && spending.halvings() == 0);
    }
}
