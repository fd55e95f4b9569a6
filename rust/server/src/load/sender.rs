//! What each connection does: when a body is due, what came of it, and what is sent again.

use std::collections::VecDeque;
use std::io::{IoSlice, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::bodies::{Body, Content};
use super::wire::{Answer, Link, Taken, Wire};
use super::{Outcome, Plan, Protocol, first_id};
use crate::config::Address;

/// Pauses before a connection is tried again, or a body that was refused.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// When a connection sends.
struct Pace {
    start: Instant,
    end: Instant,
    /// What is due and not sent by now stays unsent.
    limit: Instant,
    /// Seconds from one body to the next, if there is a rate.
    step: Option<f64>,
    offset: f64,
    /// So many are due at once: waking up for each request would cost more than sending it.
    burst: u64,
    taken: u64,
}

/// What a pace says.
enum Turn {
    /// A body that is or was due then.
    Now(Instant),
    /// Nothing before then.
    At(Instant),
    Over,
}

impl Pace {
    fn new(plan: &Plan, start: Instant, at: usize, batch: f64) -> Self {
        let connections = plan.connections() as f64;
        let step = plan.rate.map(|rate| batch / plan.protocol.halves() as f64 / rate * connections);
        let end = start + Duration::from_secs_f64(plan.seconds);
        let limit = end + Duration::from_secs_f64(plan.seconds + 1.0);
        Self {
            start,
            end,
            limit,
            step,
            offset: step.unwrap_or(0.0) * plan.depth() as f64 * at as f64 / connections,
            burst: plan.depth() as u64,
            taken: 0,
        }
    }

    /// When the next body is due, if that is before the end.
    fn due(&self, step: f64) -> Option<Instant> {
        let before = self.taken - self.taken % self.burst;
        let after = Duration::try_from_secs_f64(self.offset + step * before as f64).ok()?;
        self.start.checked_add(after).filter(|due| *due < self.end)
    }

    fn next(&mut self) -> Turn {
        let now = Instant::now();
        let Some(step) = self.step else { return if now < self.end { Turn::Now(now) } else { Turn::Over } };
        match self.due(step) {
            Some(due) if now < self.limit => {
                if due > now {
                    return Turn::At(due);
                }
                self.taken += 1;
                Turn::Now(due)
            }
            _ => Turn::Over,
        }
    }

    /// Counts what was due and not sent, and how long it has waited at least.
    fn leave(mut self, out: &mut Outcome) {
        let Some(step) = self.step else { return };
        let now = Instant::now();
        while let Some(due) = self.due(step).filter(|due| *due < now) {
            out.bodies_unsent += 1;
            out.waited(now - due);
            self.taken += 1;
        }
    }
}

/// A body on its way.
struct Waiting {
    number: u64,
    half: usize,
    due: Instant,
    body: Arc<Body>,
    tried: bool,
}

/// What all connections have in common.
pub(super) struct Shared<'a> {
    pub(super) plan: &'a Plan,
    pub(super) address: Address,
    pub(super) content: Content,
    pub(super) start: Instant,
    pub(super) stop: &'a AtomicBool,
    pub(super) tell: &'a (dyn Fn(&str) + Sync),
    /// The number of the next body.
    pub(super) next: AtomicU64,
    /// Why there is no use in going on.
    pub(super) fatal: Mutex<Option<String>>,
}

impl Shared<'_> {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.fatal.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What one connection does.
    pub(super) fn work(&self, at: usize) -> Result<Outcome, String> {
        let before = thread_seconds();
        let mut out = if self.plan.protocol == Protocol::Statsd { self.datagrams(at)? } else { self.requests(at)? };
        out.cpu_seconds = before.zip(thread_seconds()).map(|(before, after)| after - before);
        Ok(out)
    }

    /// The next body of a connection; halves take turns, and have one number.
    fn take(&self, due: Instant, last: Option<(u64, usize)>) -> Result<Waiting, String> {
        let halves = self.plan.protocol.halves() as usize;
        let (number, half) = match last {
            Some((number, half)) if half + 1 < halves => (number, half + 1),
            _ => (self.next.fetch_add(1, Ordering::Relaxed), 0),
        };
        let all = self.content.templates.len() as u64;
        let turn = (number % all.max(1)) as usize;
        let body = match self.content.ready.get(turn * halves + half) {
            Some(ready) => Arc::clone(ready),
            None => self.content.templates.get(turn).ok_or("there is nothing to send")?.body(half, Some(first_id(self.plan, number)))?,
        };
        Ok(Waiting { number, half, due, body, tried: false })
    }

    fn requests(&self, at: usize) -> Result<Outcome, String> {
        let mut out = Outcome::new()?;
        let mut pace = Pace::new(self.plan, self.start, at, self.plan.batch() as f64);
        let (mut wire, mut last) = (None, None);
        let mut waiting: VecDeque<Waiting> = VecDeque::new();
        let (mut broken, mut pause) = (None::<Instant>, FIRST_PAUSE);
        while !self.is_over() && Instant::now() < pace.limit {
            let mut later = None;
            while waiting.len() < self.plan.depth() {
                match pace.next() {
                    Turn::Now(due) => {
                        let taken = self.take(due, last)?;
                        last = Some((taken.number, taken.half));
                        waiting.push_back(taken);
                    }
                    Turn::At(due) => {
                        later = Some(due);
                        break;
                    }
                    Turn::Over => break,
                }
            }
            if waiting.is_empty() {
                let Some(due) = later else { break };
                // Not for so long that being told to stop goes unheard.
                std::thread::sleep(due.saturating_duration_since(Instant::now()).min(LAST_PAUSE));
                continue;
            }
            let refused = out.refused;
            let acknowledged = out.bodies_acknowledged;
            let failure = self.exchange(&mut wire, &mut waiting, &mut out);
            if out.bodies_acknowledged > acknowledged {
                let outage = broken.take().map_or(0.0, |since| since.elapsed().as_secs_f64());
                out.outage_seconds = out.outage_seconds.max(outage);
                pause = FIRST_PAUSE;
            }
            if let Err(failure) = failure {
                // One outage is one error, however often it is tried.
                if broken.is_none() {
                    broken = Some(Instant::now());
                    out.failed(failure);
                }
                if !self.plan.once {
                    self.give_up(&mut waiting, &mut out);
                }
            } else if out.refused == refused || self.plan.rate.is_some() && !self.plan.once {
                continue;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
        self.give_up(&mut waiting, &mut out);
        if !self.is_over() {
            pace.leave(&mut out);
        }
        Ok(out)
    }

    /// Counts bodies that will have no answer any more.
    fn give_up(&self, waiting: &mut VecDeque<Waiting>, out: &mut Outcome) {
        for left in waiting.drain(..) {
            if left.tried {
                out.events_unanswered += left.body.events;
            } else {
                out.bodies_unsent += 1;
            }
            if self.plan.rate.is_some() {
                out.waited(left.due.elapsed());
            }
        }
    }

    /// Sends all that waits and reads the answers; what has to be sent again stays.
    fn exchange(&self, wire: &mut Option<Wire>, waiting: &mut VecDeque<Waiting>, out: &mut Outcome) -> Result<(), String> {
        // It is put back when it can be used again.
        let mut own = match wire.take() {
            Some(own) => own,
            None => Wire { link: Link::open(&self.address, self.plan.protocol)?, read: Vec::new() },
        };
        let heads: Vec<Vec<u8>> = waiting.iter().map(|one| self.head(one)).collect();
        let mut parts: Vec<IoSlice<'_>> =
            heads.iter().zip(waiting.iter()).flat_map(|(head, one)| [IoSlice::new(head), IoSlice::new(&one.body.bytes)]).collect();
        // A sidecar that refuses may answer before it has read everything: what it says counts more than that the connection broke.
        let sent = own.send(&mut parts);
        for one in waiting.iter_mut().filter(|one| !one.tried) {
            one.tried = true;
            out.bodies += 1;
            out.events_sent += one.body.events;
        }
        let mut usable = sent.is_ok();
        let mut again = VecDeque::new();
        let mut result = Ok(());
        while !waiting.is_empty() {
            let answer = match own.answer() {
                Ok(answer) => answer,
                Err(error) => {
                    result = Err(sent.err().unwrap_or(error));
                    usable = false;
                    break;
                }
            };
            let Some(one) = waiting.pop_front() else { break };
            if !self.is_settled(&one, &answer, out) && self.plan.once {
                again.push_back(one);
            }
            if answer.last {
                usable = false;
                if !waiting.is_empty() {
                    result = Err("the connection was closed while requests had no answer".to_owned());
                }
                break;
            }
        }
        again.append(waiting);
        *waiting = again;
        *wire = usable.then_some(own);
        result
    }

    fn head(&self, one: &Waiting) -> Vec<u8> {
        let mut head = self.content.head.clone();
        let (seed, number) = (self.plan.seed, one.number);
        if self.plan.protocol == Protocol::CloudEvents {
            let kind = if one.half == 0 { "request" } else { "response" };
            let _ = write!(
                head,
                "ce-specversion: 1.0\r\nce-id: {seed:x}-{number}\r\nce-source: http://localhost:9081/\r\n\
                 ce-type: org.kubeflow.serving.inference.{kind}\r\nce-inferenceservicename: {}\r\nce-namespace: default\r\n\
                 ce-component: predictor\r\nce-endpoint: \r\n",
                self.plan.model
            );
        }
        if self.plan.once {
            let _ = write!(head, "Idempotency-Key: {seed:x}-{number}-{}\r\n", one.half);
        }
        let _ = write!(head, "Content-Length: {}\r\n\r\n", one.body.bytes.len());
        head
    }

    /// Counts an answer; whether it is final.
    fn is_settled(&self, one: &Waiting, answer: &Answer, out: &mut Outcome) -> bool {
        match answer.status {
            200..=299 => {
                let taken = serde_json::from_slice::<Taken>(&answer.body).unwrap_or_else(|error| {
                    out.failed(format!("an answer must count what was accepted: {error}"));
                    Taken::default()
                });
                out.waited(one.due.elapsed());
                out.bodies_acknowledged += 1;
                out.bodies_repeated += u64::from(taken.repeated);
                out.events_rejected += taken.rejected_count.unwrap_or(taken.rejected.len() as u64);
                if one.body.events > 0 {
                    out.events_accepted += taken.accepted;
                }
                if self.plan.once {
                    (self.tell)(&format!("acknowledged {} {}", one.number, taken.accepted));
                }
                return true;
            }
            429 | 503 => out.refused += 1,
            408 | 500..=599 => {
                out.failed(answer.words());
                if !self.plan.once {
                    out.events_unanswered += one.body.events;
                }
            }
            // The next one would be answered the same.
            _ => {
                self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| answer.words());
            }
        }
        false
    }

    fn datagrams(&self, at: usize) -> Result<Outcome, String> {
        let mut out = Outcome::new()?;
        let ready = &self.content.ready;
        let lines = ready.iter().map(|body| body.events).sum::<u64>() as f64 / ready.len().max(1) as f64;
        let mut pace = Pace::new(self.plan, self.start, at, lines);
        let mut link = Link::open(&self.address, self.plan.protocol)?;
        while !self.is_over() {
            match pace.next() {
                Turn::Over => break,
                Turn::At(due) => std::thread::sleep(due.saturating_duration_since(Instant::now()).min(LAST_PAUSE)),
                Turn::Now(due) => {
                    let one = self.take(due, None)?;
                    match link.write(&[IoSlice::new(&one.body.bytes)]) {
                        Ok(_) => {
                            out.bodies += 1;
                            out.events_sent += one.body.events;
                        }
                        Err(error) => {
                            out.failed(format!("a datagram could not be sent: {error}"));
                            std::thread::sleep(FIRST_PAUSE);
                            link = Link::open(&self.address, self.plan.protocol).unwrap_or(link);
                        }
                    }
                }
            }
        }
        Ok(out)
    }
}

/// Processor time of this thread, where the system tells it.
fn thread_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse::<u64>().ok().map(|nanoseconds| nanoseconds as f64 / 1e9)
}
