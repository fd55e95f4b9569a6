//! What the sidecar counts of itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use barograph_core::sketches::ExponentialHistogram;

use crate::record::Oddities;
use crate::shard::Ack;

/// What came by one protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Taken {
    pub bodies: u64,
    pub bytes: u64,
    pub accepted: u64,
    pub refused: u64,
    pub repeated: u64,
    pub undecoded: u64,
    pub unknown_fields: u64,
    pub mistyped_fields: u64,
}

#[derive(Debug, Default)]
struct Inner {
    answers: BTreeMap<(&'static str, u16), u64>,
    taken: BTreeMap<&'static str, Taken>,
    latency: BTreeMap<&'static str, (ExponentialHistogram, f64)>,
}

/// Counters of a sidecar.
#[derive(Debug, Default)]
pub struct Counters {
    inner: Mutex<Inner>,
    /// Connections that are open.
    pub connections: AtomicU64,
    /// Connections that were refused because there were too many.
    pub refused_connections: AtomicU64,
    /// Datagrams that came, and those that could not be handed on.
    pub datagrams: AtomicU64,
}

/// Routes whose answers are timed.
const TIMED: [&str; 4] = ["events", "labels", "drift", "metrics"];

impl Counters {
    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A request was answered.
    pub fn answered(&self, route: &'static str, status: u16, took: Duration) {
        self.with(|inner| {
            *inner.answers.entry((route, status)).or_default() += 1;
            if TIMED.contains(&route) {
                if !inner.latency.contains_key(route)
                    && let Ok(empty) = ExponentialHistogram::new(6)
                {
                    inner.latency.insert(route, (empty, 0.0));
                }
                if let Some((histogram, sum)) = inner.latency.get_mut(route) {
                    histogram.update(took.as_secs_f64());
                    *sum += took.as_secs_f64();
                }
            }
        });
    }

    /// A body was taken.
    pub fn taken(&self, protocol: &'static str, ack: &Ack, bytes: u64, odd: &Oddities) {
        self.with(|inner| {
            let taken = inner.taken.entry(protocol).or_default();
            taken.bodies += 1;
            taken.bytes += bytes;
            if ack.repeated {
                taken.repeated += 1;
            } else {
                taken.accepted += ack.accepted;
                taken.refused += ack.refused;
                taken.unknown_fields += odd.unknown;
                taken.mistyped_fields += odd.mistyped;
            }
        });
    }

    /// A body could not be decoded.
    pub fn undecoded(&self, protocol: &'static str) {
        self.with(|inner| inner.taken.entry(protocol).or_default().undecoded += 1);
    }

    /// Answers by route and status.
    pub fn answers(&self) -> Vec<(&'static str, u16, u64)> {
        self.with(|inner| inner.answers.iter().map(|((route, status), count)| (*route, *status, *count)).collect())
    }

    /// What came by each protocol.
    pub fn by_protocol(&self) -> Vec<(&'static str, Taken)> {
        self.with(|inner| inner.taken.iter().map(|(protocol, taken)| (*protocol, *taken)).collect())
    }

    /// How long answers took, in seconds, and their sum.
    pub fn latencies(&self) -> Vec<(&'static str, ExponentialHistogram, f64)> {
        self.with(|inner| inner.latency.iter().map(|(route, (histogram, sum))| (*route, histogram.clone(), *sum)).collect())
    }

    /// Events that were accepted and refused.
    pub fn totals(&self) -> (u64, u64) {
        self.with(|inner| inner.taken.values().fold((0, 0), |sum, taken| (sum.0 + taken.accepted, sum.1 + taken.refused)))
    }

    /// One more connection, if that is not too many.
    pub fn connect(&self, most: usize) -> bool {
        let open = self.connections.fetch_add(1, Ordering::Relaxed);
        if open < most as u64 {
            return true;
        }
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.refused_connections.fetch_add(1, Ordering::Relaxed);
        false
    }
}
