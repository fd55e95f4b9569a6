//! A monitor that keeps to its budget: what it takes is measured here, and events are left out as the governor says.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use barograph_core::{Error, Result};
use barograph_engine::governor::{Coins, DEEPEST, Detail, Governor, PERIOD, Used, coins_of, halvings_of, is_kept};
use barograph_engine::limits::Limits;
use barograph_server::cpu;
use pyo3::prelude::*;
use serde_json::{Value, json};

use crate::errors::raised;
use crate::profiles::lock;

/// Of so many single events that are kept one is timed: the clock of processor time costs as much as counting a small event.
const TIMED: u64 = 64;
/// Single events between two looks at the clock.
const LOOK: u64 = 256;
/// How fast the mean cost of an event follows.
const FRESH: f64 = 0.1;

thread_local! {
    /// When the event that is timed on this thread began.
    static BEGAN: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Steps {
    governor: Governor,
    coins: Coins,
    last: Instant,
    /// Single events that came, and those of them that were kept, up to the last step.
    counted: (u64, u64),
}

/// What a budget needs beside the monitor.
pub struct Governed {
    steps: Mutex<Steps>,
    seed: AtomicU64,
    /// The bits of the depth of sampling.
    depth: AtomicU64,
    /// The depth is not the governor's.
    pinned: AtomicBool,
    level: AtomicU64,
    /// Single events and calls that came, and single events that were kept.
    came: AtomicU64,
    kept: AtomicU64,
    /// Events of frames and single ones that were left out.
    left_out: AtomicU64,
    /// Nanoseconds that were measured since the last step.
    spent: AtomicU64,
    /// The bits of the seconds that a call costs even if its event is left out, and of what one that is kept costs beside.
    entry: AtomicU64,
    single: AtomicU64,
    memory: AtomicU64,
    disk: AtomicU64,
    wire: AtomicU64,
    /// Nothing is counted while a call is being timed for what it costs.
    rehearsing: AtomicBool,
}

fn float(of: &AtomicU64) -> f64 {
    f64::from_bits(of.load(Ordering::Relaxed))
}

impl Governed {
    /// Keeps to these limits; `None` if there are none. Without a seed the coins are the process's own.
    pub fn new(limits: Limits) -> Option<Self> {
        if limits.is_empty() {
            return None;
        }
        let seed = RandomState::new().hash_one(0);
        let steps = Steps { governor: Governor::new(limits), coins: Coins::new(seed ^ 1), last: Instant::now(), counted: (0, 0) };
        let zero = AtomicU64::default;
        Some(Self {
            steps: Mutex::new(steps),
            seed: AtomicU64::new(seed),
            depth: zero(),
            pinned: AtomicBool::new(false),
            level: zero(),
            came: zero(),
            kept: zero(),
            left_out: zero(),
            spent: zero(),
            entry: zero(),
            single: zero(),
            memory: zero(),
            disk: zero(),
            wire: zero(),
            rehearsing: AtomicBool::new(false),
        })
    }

    fn steps<T>(&self, of: impl FnOnce(&mut Steps) -> T) -> T {
        of(&mut self.steps.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Throws the coins of a single event: how many times it was halved, or `None` if it is left out.
    pub fn admit(&self) -> Option<u32> {
        if self.rehearsing.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.came.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(LOOK) {
            self.step();
        }
        let bits = coins_of(number, self.seed.load(Ordering::Relaxed));
        let halvings = halvings_of(bits, float(&self.depth));
        if !is_kept(bits, halvings) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if self.kept.fetch_add(1, Ordering::Relaxed).is_multiple_of(TIMED) {
            BEGAN.set(Some(cpu::of_thread()));
        }
        Some(halvings)
    }

    /// The event that was admitted last on this thread is gathered.
    pub fn admitted(&self) {
        if let Some(began) = BEGAN.take() {
            let seconds = cpu::of_thread().saturating_sub(began) as f64 / 1e9;
            let mean = float(&self.single);
            let mean = if mean == 0.0 { seconds } else { mean + FRESH * (seconds - mean) };
            self.single.store(mean.to_bits(), Ordering::Relaxed);
        }
    }

    /// What is kept of a batch, and how many times it was halved.
    pub fn thinned(&self, batch: &RecordBatch) -> Result<(RecordBatch, u32)> {
        let kept = self.steps(|steps| {
            let halvings = steps.coins.halvings(float(&self.depth));
            (halvings > 0).then(|| (halvings, steps.coins.kept(batch.num_rows(), halvings)))
        });
        let Some((halvings, kept)) = kept else { return Ok((batch.clone(), 0)) };
        let out = filter_record_batch(batch, &BooleanArray::from(kept))
            .map_err(|error| Error::invalid(format!("the frame could not be read: {error}")))?;
        self.left_out.fetch_add((batch.num_rows() - out.num_rows()) as u64, Ordering::Relaxed);
        Ok((out, halvings))
    }

    /// Runs something and counts what it takes.
    pub fn measured<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = cpu::of_thread();
        let out = work();
        self.spend(cpu::of_thread().saturating_sub(began));
        out
    }

    /// So many nanoseconds of processor time were taken.
    pub fn spend(&self, nanoseconds: u64) {
        self.spent.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// A call came that is no event.
    pub fn called(&self) {
        self.came.fetch_add(1, Ordering::Relaxed);
    }

    /// What a call costs even if its event is left out.
    pub fn rehearse(&self, on: bool, entry: f64) {
        self.rehearsing.store(on, Ordering::Relaxed);
        self.entry.store(entry.max(0.0).to_bits(), Ordering::Relaxed);
    }

    /// Samples at this depth with the coins of this seed from now on, whatever it costs: what is measured and tested has to be known.
    pub fn pin(&self, depth: f64, seed: u64) {
        self.steps(|steps| steps.coins = Coins::new(seed));
        self.seed.store(seed ^ 1, Ordering::Relaxed);
        self.depth.store(depth.clamp(0.0, DEEPEST).to_bits(), Ordering::Relaxed);
        self.pinned.store(true, Ordering::Relaxed);
    }

    /// Bytes in memory now.
    pub fn holds(&self, memory: usize) {
        self.memory.store(memory as u64, Ordering::Relaxed);
    }

    /// Bytes that were written to the disk last, and bytes that were handed out.
    pub fn wrote(&self, disk: Option<u64>, wire: u64) {
        if let Some(disk) = disk {
            self.disk.store(disk, Ordering::Relaxed);
        }
        self.wire.fetch_add(wire, Ordering::Relaxed);
    }

    /// What is to be kept of the monitor.
    pub fn detail(&self) -> Detail {
        Detail { level: self.level.load(Ordering::Relaxed) as u8 }
    }

    /// Keeps another level of detail, until a step of the governor changes it.
    pub fn set_level(&self, level: u8) {
        self.level.store(level.into(), Ordering::Relaxed);
    }

    /// Takes a step if it is time.
    pub fn step(&self) {
        self.steps(|steps| {
            let seconds = steps.last.elapsed().as_secs_f64();
            if seconds < PERIOD {
                return;
            }
            steps.last = Instant::now();
            let counted = (self.came.load(Ordering::Relaxed), self.kept.load(Ordering::Relaxed));
            let [came, kept] = [counted.0 - steps.counted.0, counted.1 - steps.counted.1].map(|count| count as f64);
            steps.counted = counted;
            let singles = came * float(&self.entry) + kept * float(&self.single);
            let used = Used {
                seconds,
                cpu: self.spent.swap(0, Ordering::Relaxed) as f64 / 1e9 + singles,
                memory: self.memory.load(Ordering::Relaxed),
                disk: self.disk.load(Ordering::Relaxed),
                wire: self.wire.swap(0, Ordering::Relaxed) as f64,
            };
            let before = steps.governor.detail();
            steps.governor.measure(&used);
            if !self.pinned.load(Ordering::Relaxed) {
                self.depth.store(steps.governor.depth().to_bits(), Ordering::Relaxed);
            }
            if steps.governor.detail() != before {
                self.set_level(steps.governor.detail().level);
            }
        });
    }

    /// Events that were left out.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// What it costs, what is allowed, and what was given up for it.
    pub fn told(&self) -> Value {
        self.steps(|steps| {
            let governor = &steps.governor;
            let (cpu, wire) = governor.used();
            json!({
                "limits": governor.limits(),
                "cpu": cpu,
                "memory": self.memory.load(Ordering::Relaxed),
                "disk": self.disk.load(Ordering::Relaxed),
                "wire": wire,
                "inclusion": (-float(&self.depth)).exp2(),
                "left_out": self.left_out(),
                "given_up": governor.detail().words(),
                "level": governor.detail().level,
                "over": governor.is_over(),
                "counts": governor.counts(),
                "call_seconds": float(&self.entry),
                "event_seconds": float(&self.single),
            })
        })
    }
}

/// The controller alone, for whoever measures himself. `limits` is JSON.
#[pyclass(name = "Governor", module = "barograph._barograph", frozen)]
struct PyGovernor {
    inner: Mutex<Governor>,
}

#[pymethods]
impl PyGovernor {
    #[new]
    fn new(limits: &str) -> PyResult<Self> {
        Ok(Self { inner: Mutex::new(Governor::new(limits_of(limits)?)) })
    }

    /// Whether a step was taken.
    #[pyo3(signature = (seconds, cpu, memory, disk, wire))]
    fn measure(&self, seconds: f64, cpu: f64, memory: u64, disk: u64, wire: f64) -> bool {
        lock(&self.inner).measure(&Used { seconds, cpu, memory, disk, wire })
    }

    #[getter]
    fn inclusion(&self) -> f64 {
        lock(&self.inner).inclusion()
    }

    #[getter]
    fn level(&self) -> u8 {
        lock(&self.inner).detail().level
    }

    #[getter]
    fn over(&self) -> bool {
        lock(&self.inner).is_over()
    }

    fn counts(&self) -> PyResult<String> {
        serde_json::to_string(&lock(&self.inner).counts()).map_err(|error| raised(&Error::invalid(error.to_string())))
    }
}

fn limits_of(json: &str) -> PyResult<Limits> {
    serde_json::from_str(json).map_err(|error| raised(&Error::invalid(error.to_string().split(" at line ").next().unwrap_or_default())))
}

/// Limits of JSON, checked, as JSON with all their keys.
#[pyfunction]
fn limits_from_json(text: &str) -> PyResult<String> {
    serde_json::to_string(&limits_of(text)?).map_err(|error| raised(&Error::invalid(error.to_string())))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(limits_from_json, module)?)?;
    module.add_class::<PyGovernor>()
}
