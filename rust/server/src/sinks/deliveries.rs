//! Alerts on their way to the sinks: written to the outbox first, sent from there by a thread per sink, until the sink took them or a day
//! is over.
//!
//! A change is written once per sink, whatever restarts. It is sent at least once: a process that ends between the receiver's answer and
//! the note of it sends again, with the same key (`Idempotency-Key`, `dedup_key`, `id`, `Message-ID`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use barograph_engine::alert::{Alert, State};

use super::{Failure, Notice, SECOND, Sink, SinkConfig, unwritten};
use crate::control::{Change, Control, Delivery};
use crate::note;
use crate::problem::{Outcome, Problem};
use crate::shard::clock;

/// Deliveries that a thread has in memory; the others stay on the disk.
const BATCH: u32 = 100;
/// Open alerts that are repeated, at most.
const MOST_REPEATED: u32 = 1000;
/// How long a stop waits for what is being sent.
const FAREWELL: Duration = Duration::from_secs(2);
/// A thread looks after its outbox this often, though nobody wakes it: the clock may have been set.
const LOOK: i64 = 60 * SECOND;
const HOUR: i64 = 3600 * SECOND;

/// How often something is tried.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Before the second attempt; twice that before the third, and so on.
    pub first: Duration,
    /// But not longer.
    pub longest: Duration,
    /// After so long it is given up: nobody wants to hear of it any more.
    pub give_up: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(300), give_up: Duration::from_secs(24 * 3600) }
    }
}

impl Pace {
    /// How long to wait after so many failures; a quarter more or less, so that what failed together is not tried together.
    fn wait(&self, failures: u32, seed: u64) -> i64 {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        let wait = nanoseconds(doubled.min(self.longest));
        // SplitMix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014).
        let mut mixed = seed.wrapping_add(u64::from(failures)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let share = (mixed >> 32) as i64 % 512 - 256;
        wait + wait / 1024 * share
    }
}

fn nanoseconds(length: Duration) -> i64 {
    i64::try_from(length.as_nanos()).unwrap_or(i64::MAX / 4)
}

/// What became of deliveries since the process began.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    retried: AtomicU64,
    failed: AtomicU64,
    given_up: AtomicU64,
}

/// A sink and its thread.
struct Lane {
    config: SinkConfig,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Lane {
    fn leave(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
    }
}

/// All sinks, and what is on its way to them.
pub struct Deliveries {
    control: Arc<Control>,
    pace: Pace,
    lanes: Mutex<Vec<Lane>>,
}

impl Deliveries {
    /// Starts a thread per sink. What the last process left in the outbox is sent by them.
    pub fn start(control: Arc<Control>, configs: &[SinkConfig], pace: Pace) -> Self {
        let out = Self { control, pace, lanes: Mutex::default() };
        out.restate(configs);
        out
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the sinks of another configuration. A sink of the same name goes on with what its predecessor left.
    pub fn restate(&self, configs: &[SinkConfig]) {
        let mut lanes = self.lanes();
        let mut former = std::mem::take(&mut *lanes);
        former.iter().for_each(Lane::leave);
        let names: Arc<[String]> = configs.iter().map(|config| config.name.clone()).collect();
        for config in configs {
            let before = former.iter().position(|lane| lane.config.name == config.name).map(|at| former.swap_remove(at));
            let (counts, before) = before.map_or_else(Default::default, |lane| (lane.counts, Some(lane.thread)));
            match self.lane(config, &names, counts, before) {
                Ok(lane) => lanes.push(lane),
                Err(why) => note::error(&format!("sink {} could not be started: {why}", config.name)),
            }
        }
    }

    fn lane(
        &self,
        config: &SinkConfig,
        names: &Arc<[String]>,
        counts: Arc<Counts>,
        before: Option<JoinHandle<()>>,
    ) -> Result<Lane, String> {
        let worker = Worker {
            control: Arc::clone(&self.control),
            name: config.name.clone(),
            page_url: config.page_url.clone(),
            sink: config.sink()?,
            pace: self.pace,
            counts: Arc::clone(&counts),
            stop: Arc::default(),
            names: Arc::clone(names),
            failures: 0,
            paused: i64::MIN,
            repeated: i64::MIN,
            swept: i64::MIN,
        };
        let stop = Arc::clone(&worker.stop);
        let thread = std::thread::Builder::new().name(format!("sink {}", config.name)).spawn(move || {
            // Its predecessor may be sending what is still in the outbox.
            if let Some(before) = before {
                let _ = before.join();
            }
            worker.run();
        });
        Ok(Lane { config: config.clone(), counts, stop, thread: thread.map_err(|error| error.to_string())? })
    }

    /// Puts a change of an alert on its way to the sinks that want it; `index` is how many the model had before. Once, however often it is
    /// told. A sink that was told of the alert is told of its end, whatever its severity is then and whoever muted it.
    ///
    /// # Errors
    /// 503 if it could not be written: tell it again.
    pub fn tell(&self, model: &str, generation: &str, index: u64, alert: &Alert, now: i64) -> Outcome<()> {
        let ends = alert.state == State::Resolved;
        let lanes = self.lanes();
        let muted = self.control.is_muted(model, &alert.column, now)?;
        let wanting = |lane: &Lane| !ends && lane.config.wants(alert.severity);
        let sinks: Vec<(&str, bool)> = lanes
            .iter()
            .filter(|lane| lane.config.watches(model) && (!muted || ends))
            .map(|lane| (lane.config.name.as_str(), wanting(lane)))
            .collect();
        self.enqueue(&lanes, &sinks, (model, generation, Some(index)), alert, None, now)
    }

    /// Puts it on its way that somebody looks after an alert, to sinks that can say so.
    ///
    /// # Errors
    /// 503 if it could not be written.
    pub fn acknowledge(&self, model: &str, generation: &str, alert: &Alert, by: &str, now: i64) -> Outcome<()> {
        let lanes = self.lanes();
        let sinks: Vec<(&str, bool)> =
            lanes.iter().filter(|lane| lane.config.hears_people()).map(|lane| (lane.config.name.as_str(), false)).collect();
        self.enqueue(&lanes, &sinks, (model, generation, None), alert, Some(by), now)
    }

    fn enqueue(
        &self,
        lanes: &[Lane],
        sinks: &[(&str, bool)],
        (model, generation, index): (&str, &str, Option<u64>),
        alert: &Alert,
        by: Option<&str>,
        now: i64,
    ) -> Outcome<()> {
        let notice = Notice {
            model: model.to_owned(),
            generation: generation.to_owned(),
            change: index,
            alert: alert.clone(),
            acknowledged_by: by.map(str::to_owned),
            sent_at: 0,
            page_url: None,
        };
        let payload = serde_json::to_string(&notice).map_err(|error| Problem::new(500, "internal error", unwritten(&error).why()))?;
        let ends = by.is_none() && alert.state == State::Resolved;
        let change = Change { model, generation, index, alert: alert.id, ends, payload: &payload };
        if self.control.enqueue(&change, sinks, now)? > 0 {
            lanes.iter().for_each(|lane| lane.thread.thread().unpark());
        }
        Ok(())
    }

    /// By sink, what became of deliveries since the process began: `sent`, `retried`, `failed`, `given_up`.
    pub fn counts(&self) -> Vec<(String, &'static str, u64)> {
        let mut out = Vec::new();
        for lane in self.lanes().iter() {
            let Counts { sent, retried, failed, given_up } = &*lane.counts;
            for (word, count) in [("sent", sent), ("retried", retried), ("failed", failed), ("given_up", given_up)] {
                out.push((lane.config.name.clone(), word, count.load(Ordering::Relaxed)));
            }
        }
        out
    }

    /// Ends: what is being sent may finish for two seconds, the rest stays in the outbox.
    pub fn stop(&self) {
        let lanes = std::mem::take(&mut *self.lanes());
        lanes.iter().for_each(Lane::leave);
        let began = Instant::now();
        while began.elapsed() < FAREWELL && lanes.iter().any(|lane| !lane.thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.lanes().iter().for_each(Lane::leave);
    }
}

/// What a sink's thread has.
struct Worker {
    control: Arc<Control>,
    name: String,
    page_url: Option<String>,
    sink: Box<dyn Sink>,
    pace: Pace,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    /// All sinks there are.
    names: Arc<[String]>,
    /// One after another.
    failures: u32,
    /// Nothing is sent before.
    paused: i64,
    /// When open alerts were told of again.
    repeated: i64,
    /// When it was looked after what belongs to no sink.
    swept: i64,
}

impl Worker {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn run(mut self) {
        while !self.stopped() {
            let now = clock();
            let wake = self.round(now).unwrap_or_else(|problem| {
                note::error(&format!("sink {}: {}", self.name, problem.detail));
                now.saturating_add(5 * SECOND)
            });
            let rest = wake.saturating_sub(clock()).clamp(0, LOOK);
            if !self.stopped() && rest > 0 {
                std::thread::park_timeout(Duration::from_nanos(rest.unsigned_abs()));
            }
        }
    }

    /// Sends all that may be sent now; when to look again.
    fn round(&mut self, now: i64) -> Outcome<i64> {
        if now.saturating_sub(self.swept) >= HOUR {
            self.swept = now;
            let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
            self.control.abandon(&names, now.saturating_sub(nanoseconds(self.pace.give_up)), now)?;
        }
        // A pause that is longer than any is one of a clock that was set back.
        while self.paused <= clock() || self.paused > clock().saturating_add(2 * HOUR) {
            let due = self.control.due(&self.name, clock(), BATCH)?;
            if due.is_empty() {
                return self.idle();
            }
            for delivery in due {
                if self.stopped() || self.paused > clock() {
                    break;
                }
                self.deliver(&delivery)?;
            }
            if self.stopped() {
                break;
            }
        }
        Ok(self.paused)
    }

    /// Nothing is due: says again what is open, if the receiver needs that.
    fn idle(&mut self) -> Outcome<i64> {
        let now = clock();
        let mut wake = self.control.next_due(&self.name)?.unwrap_or(i64::MAX);
        if let Some(every) = self.sink.repeats().map(nanoseconds) {
            if now >= self.repeated.saturating_add(every) {
                self.repeated = now;
                for payload in self.control.announced(&self.name, MOST_REPEATED)? {
                    // One that fails comes again with the next time; what is due is not kept waiting by it.
                    if self.stopped() || self.send(&payload, true).is_err() {
                        break;
                    }
                }
            }
            wake = wake.min(self.repeated.saturating_add(every));
        }
        Ok(wake)
    }

    fn send(&self, payload: &str, repeated: bool) -> Result<(), Failure> {
        let mut notice: Notice =
            serde_json::from_str(payload).map_err(|_| Failure::permanent("the outbox holds an alert of another version"))?;
        notice.sent_at = clock();
        notice.page_url.clone_from(&self.page_url);
        if repeated {
            // It says that the alert is open, and nothing of how it came to be.
            notice.alert.state = State::Opened;
        }
        catch_unwind(AssertUnwindSafe(|| self.sink.send(&notice))).unwrap_or_else(|_| Err(Failure::retry("the sink itself failed")))
    }

    fn deliver(&mut self, delivery: &Delivery) -> Outcome<()> {
        let result = self.send(&delivery.payload, false);
        let now = clock();
        let (after, why) = match result {
            Ok(()) => {
                self.failures = 0;
                self.counts.sent.fetch_add(1, Ordering::Relaxed);
                return self.control.ended(delivery.id, "sent", None, now);
            }
            Err(Failure::Permanent { why }) => {
                self.failures = 0;
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                note::error(&format!("sink {} refused an alert: {why}", self.name));
                return self.control.ended(delivery.id, "failed", Some(&why), now);
            }
            Err(Failure::Retry { after, why }) => (nanoseconds(after.unwrap_or_default()), why),
        };
        let over = delivery.created.saturating_add(nanoseconds(self.pace.give_up));
        if now >= over {
            self.counts.given_up.fetch_add(1, Ordering::Relaxed);
            note::error(&format!("sink {}: an alert was given up: {why}", self.name));
            return self.control.ended(delivery.id, "given_up", Some(&why), now);
        }
        self.failures = self.failures.saturating_add(1);
        self.counts.retried.fetch_add(1, Ordering::Relaxed);
        note::warn(&format!("sink {} is tried again: {why}", self.name));
        // The sink as a whole is left alone too, while nothing succeeds: what is dead need not be asked once per alert.
        let seed = delivery.id.unsigned_abs();
        self.paused = now.saturating_add(after.max(self.pace.wait(self.failures, seed)));
        let wait = after.max(self.pace.wait(delivery.attempts.saturating_add(1), seed));
        self.control.again(delivery.id, &why, now.saturating_add(wait).min(over))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::path::PathBuf;

    use barograph_engine::alert::Severity;

    use super::super::tests::{Receiver, config, notice, read_request};
    use super::*;

    const QUICK: Pace = Pace { first: Duration::from_millis(10), longest: Duration::from_millis(40), give_up: Duration::from_secs(3600) };

    fn path(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("barograph-deliveries-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder.join("control.sqlite")
    }

    fn control(name: &str) -> Arc<Control> {
        Arc::new(Control::open(&path(name)).unwrap().0)
    }

    fn hook(name: &str, url: &str, more: &str) -> SinkConfig {
        config(&format!("kind = \"webhook\"\nname = \"{name}\"\nurl = \"{url}/hush\"\n{more}"))
    }

    fn alert(id: u64, state: State, severity: Severity) -> Alert {
        Alert { id, ..notice(state, severity).alert }
    }

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(10), "{what} did not happen");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn count(deliveries: &Deliveries, sink: &str, word: &str) -> u64 {
        deliveries.counts().into_iter().find(|(name, outcome, _)| name == sink && *outcome == word).unwrap().2
    }

    fn open(deliveries: &Deliveries, index: u64) {
        deliveries.tell("m", "g", index, &alert(index, State::Opened, Severity::Page), clock()).unwrap();
    }

    #[test]
    fn what_fails_is_tried_again_until_it_is_taken() {
        let receiver = Receiver::with(&["500 Internal Server Error", "503 Service Unavailable", "200 OK"]);
        let control = control("again");
        let deliveries = Deliveries::start(Arc::clone(&control), &[hook("s", &receiver.url, "")], QUICK);
        open(&deliveries, 0);
        until("the delivery", || count(&deliveries, "s", "sent") == 1);
        assert_eq!((receiver.got().len(), count(&deliveries, "s", "retried")), (3, 2));
        let bodies: Vec<_> = receiver.got().into_iter().map(|(_, body)| body).collect();
        assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
        until("the note", || control.deliveries().unwrap() == [("s".to_owned(), "sent".to_owned(), 1)]);
    }

    #[test]
    fn what_is_refused_is_not_tried_again() {
        let receiver = Receiver::with(&["403 Forbidden", "200 OK"]);
        let deliveries = Deliveries::start(control("refused"), &[hook("s", &receiver.url, "")], QUICK);
        open(&deliveries, 0);
        open(&deliveries, 1);
        until("both", || count(&deliveries, "s", "failed") == 1 && count(&deliveries, "s", "sent") == 1);
        assert_eq!(receiver.got().len(), 2);
    }

    #[test]
    fn a_receiver_that_asks_to_be_left_alone_is() {
        let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let kept = Arc::clone(&times);
        let receiver = Receiver::acting(move |number, mut stream| {
            kept.lock().unwrap().push(Instant::now());
            let answer = if number == 0 { "429 Too Many Requests\r\nretry-after: 1" } else { "200 OK" };
            let _ = std::io::Write::write_all(&mut stream, format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes());
        });
        let deliveries = Deliveries::start(control("alone"), &[hook("s", &receiver.url, "")], QUICK);
        (0..3).for_each(|index| open(&deliveries, index));
        until("all", || count(&deliveries, "s", "sent") == 3);
        let times = times.lock().unwrap();
        assert!(times[1] - times[0] >= Duration::from_secs(1), "{:?}", times[1] - times[0]);
        assert_eq!(times.len(), 4);
    }

    #[test]
    fn one_slow_receiver_holds_up_no_other() {
        let slow = Receiver::acting(|_, stream| {
            std::thread::sleep(Duration::from_secs(20));
            drop(stream);
        });
        let fast = Receiver::with(&["200 OK"]);
        let configs = [hook("slow", &slow.url, "timeout = \"1s\""), hook("fast", &fast.url, "")];
        let deliveries = Deliveries::start(control("slow"), &configs, QUICK);
        let began = Instant::now();
        (0..20).for_each(|index| open(&deliveries, index));
        until("the fast one", || count(&deliveries, "fast", "sent") == 20);
        assert!(count(&deliveries, "slow", "retried") <= 1 + began.elapsed().as_secs());
        until("the slow one's timeout", || count(&deliveries, "slow", "retried") >= 2);
        assert_eq!(count(&deliveries, "slow", "sent"), 0);
    }

    #[test]
    fn a_receiver_that_comes_back_gets_what_it_missed_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let deliveries = Deliveries::start(control("dead"), &[hook("s", &format!("http://{address}"), "")], QUICK);
        deliveries.tell("m", "g", 0, &alert(1, State::Opened, Severity::Page), clock()).unwrap();
        deliveries.tell("m", "g", 1, &alert(1, State::Resolved, Severity::Page), clock()).unwrap();
        until("some attempts", || count(&deliveries, "s", "retried") >= 3);
        let listener = TcpListener::bind(address).unwrap();
        let mut states = Vec::new();
        for stream in listener.incoming().flatten().take(2) {
            let (_, body) = read_request(&stream).unwrap();
            states.push(serde_json::from_slice::<Alert>(&body).unwrap().state);
            let mut stream = stream;
            std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
        assert_eq!(states, [State::Opened, State::Resolved]);
    }

    #[test]
    fn a_restart_in_the_middle_delivers_once() {
        let path = path("restart");
        let fine = Receiver::with(&["200 OK"]);
        let down = Receiver::with(&["503 Service Unavailable"]);
        let tell_all = |deliveries: &Deliveries| (0..5).for_each(|index| open(deliveries, index));
        {
            let control = Arc::new(Control::open(&path).unwrap().0);
            let deliveries = Deliveries::start(control, &[hook("a", &fine.url, ""), hook("b", &down.url, "")], QUICK);
            tell_all(&deliveries);
            until("the first half", || count(&deliveries, "a", "sent") == 5 && count(&deliveries, "b", "retried") > 3);
            deliveries.stop();
        }
        let up = Receiver::with(&["200 OK"]);
        let control = Arc::new(Control::open(&path).unwrap().0);
        let deliveries = Deliveries::start(Arc::clone(&control), &[hook("a", &fine.url, ""), hook("b", &up.url, "")], QUICK);
        // The log is replayed: all changes are told again.
        tell_all(&deliveries);
        until("the second half", || count(&deliveries, "b", "sent") == 5);
        until("the note", || control.deliveries().unwrap().iter().all(|(_, outcome, _)| outcome == "sent"));
        let keys = |receiver: &Receiver| {
            let key = |head: &str| head.split("idempotency-key: ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned();
            receiver.got().iter().map(|(head, _)| key(head)).collect::<Vec<_>>()
        };
        for receiver in [&fine, &up] {
            let mut found = keys(receiver);
            found.sort();
            assert_eq!(found, ["m-g-0", "m-g-1", "m-g-2", "m-g-3", "m-g-4"]);
        }
    }

    #[test]
    fn stopping_does_not_wait_for_who_never_answers() {
        let slow = Receiver::acting(|_, stream| {
            std::thread::sleep(Duration::from_secs(30));
            drop(stream);
        });
        let control = control("stopping");
        let deliveries = Deliveries::start(Arc::clone(&control), &[hook("s", &slow.url, "")], QUICK);
        open(&deliveries, 0);
        until("the request", || slow.got().len() == 1);
        let began = Instant::now();
        deliveries.stop();
        assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
        assert_eq!(control.deliveries().unwrap(), [("s".to_owned(), "waiting".to_owned(), 1)]);
    }

    #[test]
    fn stopping_lets_what_is_in_flight_end() {
        let receiver = Receiver::acting(|_, mut stream| {
            std::thread::sleep(Duration::from_millis(300));
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        });
        let control = control("flight");
        let deliveries = Deliveries::start(Arc::clone(&control), &[hook("s", &receiver.url, "")], QUICK);
        (0..2).for_each(|index| open(&deliveries, index));
        until("the request", || !receiver.got().is_empty());
        deliveries.stop();
        let found = control.deliveries().unwrap();
        assert_eq!(found, [("s".to_owned(), "sent".to_owned(), 1), ("s".to_owned(), "waiting".to_owned(), 1)]);
    }

    #[test]
    fn what_nobody_takes_is_given_up() {
        let receiver = Receiver::with(&["500 Internal Server Error"]);
        let pace = Pace { give_up: Duration::from_millis(150), ..QUICK };
        let control = control("given-up");
        let deliveries = Deliveries::start(Arc::clone(&control), &[hook("s", &receiver.url, "")], pace);
        open(&deliveries, 0);
        until("giving up", || count(&deliveries, "s", "given_up") == 1);
        until("the note", || control.deliveries().unwrap() == [("s".to_owned(), "given_up".to_owned(), 1)]);
    }

    #[test]
    fn who_was_paged_hears_the_end_and_nobody_else_does() {
        let receiver = Receiver::with(&["200 OK"]);
        let configs = [hook("page", &receiver.url, "severities = \"page\""), hook("other", &receiver.url, "models = [\"churn*\"]")];
        let control = control("paged");
        let deliveries = Deliveries::start(Arc::clone(&control), &configs, QUICK);
        let changes = [
            (1, State::Opened, Severity::Ticket),
            (1, State::Resolved, Severity::Ticket),
            (2, State::Opened, Severity::Ticket),
            (2, State::Escalated, Severity::Page),
            (2, State::Eased, Severity::Ticket),
            (2, State::Resolved, Severity::Ticket),
        ];
        for (index, (id, state, severity)) in changes.into_iter().enumerate() {
            deliveries.tell("m", "g", index as u64, &alert(id, state, severity), clock()).unwrap();
        }
        until("three", || count(&deliveries, "page", "sent") == 3);
        let states: Vec<_> = (0..3).map(|number| receiver.json(number)["state"].as_str().unwrap().to_owned()).collect();
        assert_eq!(states, ["escalated", "eased", "resolved"]);
        assert_eq!((control.deliveries().unwrap().len(), count(&deliveries, "other", "sent")), (1, 0));
    }

    #[test]
    fn a_muted_column_is_quiet_but_what_was_open_ends() {
        let receiver = Receiver::with(&["200 OK"]);
        let control = control("muted");
        let deliveries = Deliveries::start(Arc::clone(&control), &[hook("s", &receiver.url, "")], QUICK);
        let first = alert(1, State::Opened, Severity::Page);
        deliveries.tell("m", "g", 0, &first, 100).unwrap();
        control.mute("m", "1", &first.column, 1000, "ada").unwrap();
        for (index, id, state) in [(1, 1, State::Escalated), (2, 1, State::Resolved), (3, 2, State::Opened), (4, 2, State::Resolved)] {
            deliveries.tell("m", "g", index, &alert(id, state, Severity::Page), 500).unwrap();
        }
        deliveries.tell("m", "g", 5, &alert(3, State::Opened, Severity::Page), 1000).unwrap();
        assert_eq!(control.told("m", "g").unwrap(), 6);
        until("three", || count(&deliveries, "s", "sent") == 3);
        let found: std::collections::BTreeSet<(u64, String)> = (0..3)
            .map(|number| receiver.json(number))
            .map(|told| (told["id"].as_u64().unwrap(), told["state"].as_str().unwrap().to_owned()))
            .collect();
        let expected = [(1, "opened"), (1, "resolved"), (3, "opened")];
        assert_eq!(found, expected.map(|(id, state)| (id, state.to_owned())).into());
    }

    #[test]
    fn who_looks_after_an_alert_is_told_where_it_was_paged() {
        let receiver = Receiver::with(&["202 Accepted"]);
        let pager = config(&format!("kind = \"pagerduty\"\nrouting_key = \"hush\"\nurl = \"{}\"", receiver.url));
        let deliveries = Deliveries::start(control("acknowledged"), &[pager, hook("s", &receiver.url, "models = [\"x\"]")], QUICK);
        let first = alert(1, State::Opened, Severity::Page);
        deliveries.tell("m", "g", 0, &first, clock()).unwrap();
        for _ in 0..2 {
            deliveries.acknowledge("m", "g", &first, "ada", clock()).unwrap();
        }
        deliveries.acknowledge("m", "g", &alert(9, State::Opened, Severity::Page), "ada", clock()).unwrap();
        until("two", || count(&deliveries, "pagerduty", "sent") == 2);
        assert_eq!(
            (receiver.json(0)["event_action"].as_str(), receiver.json(1)["event_action"].as_str()),
            (Some("trigger"), Some("acknowledge"))
        );
        assert_eq!(receiver.got().len(), 2);
    }

    #[test]
    fn another_configuration_goes_on_with_the_outbox() {
        let down = Receiver::with(&["500 Internal Server Error"]);
        let up = Receiver::with(&["200 OK"]);
        let deliveries = Deliveries::start(control("restated"), &[hook("s", &down.url, "")], QUICK);
        open(&deliveries, 0);
        until("a failure", || count(&deliveries, "s", "retried") >= 1);
        deliveries.restate(&[hook("s", &up.url, "")]);
        until("the delivery", || count(&deliveries, "s", "sent") == 1);
        assert!(count(&deliveries, "s", "retried") >= 1, "counters go on");
        assert_eq!(up.got().len(), 1);
    }

    struct Repeating(Arc<Mutex<Vec<Notice>>>);

    impl Sink for Repeating {
        fn send(&self, notice: &Notice) -> Result<(), Failure> {
            self.0.lock().unwrap().push(notice.clone());
            Ok(())
        }

        fn repeats(&self) -> Option<Duration> {
            Some(Duration::ZERO)
        }
    }

    #[test]
    fn what_is_open_is_told_again_where_that_is_needed() {
        let control = control("repeated");
        let told: Arc<Mutex<Vec<Notice>>> = Arc::default();
        let mut worker = Worker {
            control: Arc::clone(&control),
            name: "s".to_owned(),
            page_url: None,
            sink: Box::new(Repeating(Arc::clone(&told))),
            pace: QUICK,
            counts: Arc::default(),
            stop: Arc::default(),
            names: Arc::new(["s".to_owned()]),
            failures: 0,
            paused: i64::MIN,
            repeated: i64::MIN,
            swept: i64::MIN,
        };
        let payload = serde_json::to_string(&notice(State::Escalated, Severity::Page)).unwrap();
        let change = Change { model: "m", generation: "g", index: Some(0), alert: 1, ends: false, payload: &payload };
        control.enqueue(&change, &[("s", true)], 1).unwrap();
        worker.round(clock()).unwrap();
        worker.round(clock()).unwrap();
        let states: Vec<State> = told.lock().unwrap().iter().map(|notice| notice.alert.state).collect();
        assert_eq!(states, [State::Escalated, State::Opened, State::Opened]);
        control.enqueue(&Change { index: Some(1), ends: true, ..change }, &[("s", false)], 1).unwrap();
        worker.round(clock()).unwrap();
        worker.round(clock()).unwrap();
        assert_eq!(told.lock().unwrap().len(), 4, "what ended is told once more and then not again");
    }

    #[test]
    fn waits_double_up_to_a_limit_and_are_not_the_same_for_all() {
        let pace = Pace::default();
        for seed in 0..1000 {
            let mut before = 0;
            for failures in 1..=40 {
                let wait = pace.wait(failures, seed);
                let middle = nanoseconds(Duration::from_secs(1 << (failures - 1).min(9)).min(pace.longest));
                assert!((middle - wait).abs() <= middle / 4 + 1024, "{failures}: {wait}");
                assert!(failures > 8 || wait > before);
                before = wait;
            }
        }
        let all: std::collections::BTreeSet<i64> = (0..1000).map(|seed| pace.wait(3, seed)).collect();
        assert!(all.len() > 300);
        assert_eq!(pace.wait(3, 7), pace.wait(3, 7));
    }
}
