//! Load for a sidecar: bodies are built once and sent again and again, so that what is measured is the sidecar.
//!
//! With a rate, bodies are due at fixed times whatever the sidecar does, and latency counts from when a body was due: a sidecar that
//! stalls is charged for all that had to wait. Without one, every connection sends as soon as it has its answers.

mod bodies;
mod sender;
mod wire;

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use barograph_core::sketches::ExponentialHistogram;
use serde::{Deserialize, Serialize};

use self::bodies::Content;
use self::sender::Shared;
use self::wire::Link;
use crate::config::{Address, is_name};

/// How events are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Arrow IPC streams.
    Arrow,
    /// A JSON object of arrays.
    Columns,
    /// JSON objects, one a line.
    Ndjson,
    /// What `KServe`'s logger sends: `CloudEvents` in binary mode, a request and its response.
    CloudEvents,
    /// Latencies as `DogStatsD` datagrams, which nobody answers.
    Statsd,
}

impl Protocol {
    /// Events of a body: so many that the cost of a request does not count.
    pub fn default_batch(self) -> usize {
        match self {
            Self::Arrow => 16_384,
            Self::Columns => 1_000,
            Self::Ndjson => 500,
            Self::CloudEvents | Self::Statsd => 1,
        }
    }

    /// Connections at once.
    pub fn default_connections(self) -> usize {
        match self {
            Self::Arrow => 2,
            Self::Columns | Self::Ndjson => 4,
            // Those of six pods: a logger of `KServe` has five.
            Self::CloudEvents => 32,
            Self::Statsd => 1,
        }
    }

    /// Requests that a connection sends before it waits for answers.
    pub fn default_depth(self) -> usize {
        if self == Self::CloudEvents { 8 } else { 1 }
    }

    /// Requests that an event takes.
    fn halves(self) -> u64 {
        if self == Self::CloudEvents { 2 } else { 1 }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Ndjson => "application/x-ndjson",
            Self::Columns | Self::CloudEvents | Self::Statsd => "application/json",
        }
    }
}

/// What is sent where, how fast and for how long.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Host and port, or `unix:/path`; of datagrams too.
    pub address: String,
    /// Whoever may send events says this.
    #[serde(default)]
    pub token: String,
    /// The model whose events they are.
    pub model: String,
    /// How they are sent.
    pub protocol: Protocol,
    /// Events of a body; the protocol's own number if absent.
    #[serde(default)]
    pub events_per_body: Option<usize>,
    /// How long new bodies are sent.
    pub seconds: f64,
    /// Events per second; as fast as answers come if absent.
    #[serde(default)]
    pub rate: Option<f64>,
    /// Connections at once; the protocol's own number if absent.
    #[serde(default)]
    pub connections: Option<usize>,
    /// Requests on a connection before it waits for answers, which with a rate are due together; the protocol's own number if absent.
    #[serde(default)]
    pub depth: Option<usize>,
    /// Of everything drawn. Ids and keys begin with it: runs against one sidecar need different ones.
    #[serde(default)]
    pub seed: u64,
    /// Whether every event has an `_id` of its own.
    #[serde(default)]
    pub ids: bool,
    /// Whether bodies have an `Idempotency-Key` and are sent again until they are answered.
    #[serde(default)]
    pub once: bool,
}

impl Plan {
    fn batch(&self) -> usize {
        self.events_per_body.unwrap_or_else(|| self.protocol.default_batch())
    }

    fn connections(&self) -> usize {
        self.connections.unwrap_or_else(|| self.protocol.default_connections())
    }

    fn depth(&self) -> usize {
        self.depth.unwrap_or_else(|| self.protocol.default_depth())
    }

    fn check(&self) -> Result<Address, String> {
        let within = |name: &str, value: usize, most: usize| match value {
            value if (1..=most).contains(&value) => Ok(()),
            _ => Err(format!("`{name}` must be in [1, {most}], got {value}")),
        };
        within("events_per_body", self.batch(), 1_000_000)?;
        within("connections", self.connections(), 1024)?;
        within("depth", self.depth(), 64)?;
        if self.protocol == Protocol::CloudEvents && (self.batch() != 1 || self.ids) {
            return Err("`events_per_body` and `ids` must be absent for CloudEvents: a request is half an event and has its id".to_owned());
        }
        if self.protocol == Protocol::Statsd && (self.ids || self.once) {
            return Err("`ids` and `once` must be false for statsd: datagrams have no ids and are not answered".to_owned());
        }
        if !(self.seconds > 0.0 && self.seconds <= 3600.0) {
            return Err(format!("`seconds` must be in (0, 3600], got {}", self.seconds));
        }
        if self.rate.is_some_and(|rate| !(1e-3..=1e9).contains(&rate)) {
            return Err(format!("`rate` must be in [0.001, 1e9] events per second, got {}", self.rate.unwrap_or_default()));
        }
        if !is_name(&self.model) {
            return Err(format!("`model` must be a name of a model, got {:?}", self.model));
        }
        if !self.token.bytes().all(|letter| letter.is_ascii_graphic()) {
            return Err("`token` must be ASCII without spaces".to_owned());
        }
        Address::try_from(self.address.clone()).map_err(|error| format!("`address`: {error}"))
    }
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Events that were sent, each counted once however often it was sent again.
    pub events_sent: u64,
    /// Events that the sidecar says it took. Of datagrams it says nothing: 0.
    pub events_accepted: u64,
    /// Events that it refused row by row.
    pub events_rejected: u64,
    /// Events of which nobody knows whether they were counted: sent, and never answered.
    pub events_unanswered: u64,
    /// Bodies or datagrams that were sent.
    pub bodies: u64,
    /// Bodies that were taken.
    pub bodies_acknowledged: u64,
    /// Bodies that the sidecar knew already when they were sent again.
    pub bodies_repeated: u64,
    /// Bodies that were due and could not be sent in time. Their waiting is in `latency`.
    pub bodies_unsent: u64,
    /// Answers 429 and 503.
    pub refused: u64,
    /// Other answers that were no success, and connections that broke.
    pub errors: u64,
    /// From the start until the last answer.
    pub seconds: f64,
    /// Processor time of the threads that sent, where the system tells it.
    pub cpu_seconds: Option<f64>,
    /// The longest time from a broken connection to the next body that was taken.
    pub outage_seconds: f64,
    /// Seconds from when a body was due until it was acknowledged.
    #[serde(skip)]
    pub latency: ExponentialHistogram,
    /// Its median.
    pub p50: Option<f64>,
    /// Its 99 % quantile.
    pub p99: Option<f64>,
    /// Its maximum, exact.
    pub max: Option<f64>,
    /// The first thing that went wrong.
    pub trouble: Option<String>,
}

impl Outcome {
    fn new() -> Result<Self, String> {
        Ok(Self {
            events_sent: 0,
            events_accepted: 0,
            events_rejected: 0,
            events_unanswered: 0,
            bodies: 0,
            bodies_acknowledged: 0,
            bodies_repeated: 0,
            bodies_unsent: 0,
            refused: 0,
            errors: 0,
            seconds: 0.0,
            cpu_seconds: None,
            outage_seconds: 0.0,
            latency: ExponentialHistogram::new(6).map_err(|error| error.to_string())?,
            p50: None,
            p99: None,
            max: None,
            trouble: None,
        })
    }

    fn waited(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.latency.update(seconds);
        self.max = Some(self.max.map_or(seconds, |max| max.max(seconds)));
    }

    fn failed(&mut self, what: String) {
        self.errors += 1;
        self.trouble.get_or_insert(what);
    }

    fn add(&mut self, other: Self) -> Result<(), String> {
        self.events_sent += other.events_sent;
        self.events_accepted += other.events_accepted;
        self.events_rejected += other.events_rejected;
        self.events_unanswered += other.events_unanswered;
        self.bodies += other.bodies;
        self.bodies_acknowledged += other.bodies_acknowledged;
        self.bodies_repeated += other.bodies_repeated;
        self.bodies_unsent += other.bodies_unsent;
        self.refused += other.refused;
        self.errors += other.errors;
        self.outage_seconds = self.outage_seconds.max(other.outage_seconds);
        self.latency.merge(&other.latency).map_err(|error| error.to_string())?;
        self.max = self.max.into_iter().chain(other.max).reduce(f64::max);
        self.cpu_seconds = other.cpu_seconds.map(|seconds| seconds + self.cpu_seconds.unwrap_or(0.0)).or(self.cpu_seconds);
        self.trouble = self.trouble.take().or(other.trouble);
        Ok(())
    }
}

/// Sends what the plan says.
///
/// # Errors
/// A plan that cannot be, a sidecar that is not there at the start, and answers that say that all is wrong, such as 401.
pub fn run(plan: &Plan) -> Result<Outcome, String> {
    drive(plan, &AtomicBool::new(false), &|_| {})
}

/// Sends bodies that count once until it is told to stop, through any number of deaths of the sidecar.
///
/// Body n (from 0) has the key `SEED-n` and, where the plan has ids, the ids from [`first_id`] on. Each acknowledgement is told as
/// `acknowledged n EVENTS`. What was sent and never answered is counted in `events_unanswered`: the sidecar may or may not have it.
///
/// # Errors
/// As [`run`].
pub fn crash_load(plan: &Plan, stop: &AtomicBool, tell: &(dyn Fn(&str) + Sync)) -> Result<Outcome, String> {
    drive(&Plan { once: true, ..plan.clone() }, stop, tell)
}

/// The id of the first event of a body.
pub fn first_id(plan: &Plan, body: u64) -> u64 {
    ((plan.seed % (1 << 20)) << 40) | (body.wrapping_mul(plan.batch() as u64) % (1 << 40))
}

fn drive(plan: &Plan, stop: &AtomicBool, tell: &(dyn Fn(&str) + Sync)) -> Result<Outcome, String> {
    let address = plan.check()?;
    let content = Content::new(plan, &address)?;
    drop(Link::open(&address, plan.protocol)?);
    let start = Instant::now();
    let shared = Shared { plan, address, content, start, stop, tell, next: AtomicU64::new(0), fatal: Mutex::new(None) };
    let parts: Vec<Result<Outcome, String>> = std::thread::scope(|scope| {
        let shared = &shared;
        let threads: Vec<_> = (0..plan.connections()).map(|at| scope.spawn(move || shared.work(at))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread of the load died".to_owned()))).collect()
    });
    let mut out = Outcome::new()?;
    for part in parts {
        out.add(part?)?;
    }
    if let Some(fatal) = shared.fatal.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(fatal);
    }
    out.seconds = start.elapsed().as_secs_f64();
    let quantile = |q| out.latency.quantile(q).ok().flatten();
    (out.p50, out.p99) = (quantile(0.5), quantile(0.99));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::{Cursor, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixDatagram;
    use std::sync::Arc;

    use arrow_array::Int64Array;
    use arrow_ipc::reader::StreamReader;

    use super::bodies::{Draw, UNIX_BYTES, digits};
    use super::wire::headers;
    use super::*;

    /// How a server of these tests behaves: by the number of the request, from 0.
    type Manner = fn(u64) -> Reply;

    #[derive(Clone, Copy, PartialEq)]
    enum Reply {
        /// Counts and answers, a byte at a time.
        Slowly,
        Well,
        Status(u16),
        /// Counts and closes without an answer.
        Mute,
        /// Answers and closes.
        WellAndClose,
        /// Answers after a second.
        Late,
    }

    /// What a server has seen.
    #[derive(Default)]
    struct Seen {
        requests: u64,
        events: u64,
        /// Events by key, each counted once.
        keys: HashMap<String, u64>,
        ids: Vec<u64>,
        heads: Vec<String>,
        bodies: Vec<Vec<u8>>,
    }

    fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Events of a body and their ids, read by other means than they were written where there are any.
    fn counted(head: &str, body: &[u8]) -> (u64, Vec<u64>) {
        use serde_json::Value;
        let list = |ids: &Value| ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect::<Vec<_>>();
        if field(head, "ce-type").is_some() {
            let value: Value = serde_json::from_slice(body).unwrap();
            return (u64::from(value["inputs"].as_array().or(value["outputs"].as_array()).is_some()), Vec::new());
        }
        match field(head, "Content-Type").unwrap() {
            "application/vnd.apache.arrow.stream" => {
                let (mut rows, mut ids) = (0, Vec::new());
                for batch in StreamReader::try_new(Cursor::new(body), None).unwrap() {
                    let batch = batch.unwrap();
                    rows += batch.num_rows() as u64;
                    if let Some(column) = batch.column_by_name("_id") {
                        ids.extend(column.as_any().downcast_ref::<Int64Array>().unwrap().values().iter().map(|id| *id as u64));
                    }
                    assert!(batch.num_columns() >= 10);
                }
                (rows, ids)
            }
            "application/x-ndjson" => {
                let lines: Vec<Value> = body
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty())
                    .map(|line| serde_json::from_slice(line).unwrap())
                    .collect();
                assert!(lines.iter().all(|line| line["x9"].is_boolean() && line["x0"].is_f64()));
                (lines.len() as u64, lines.iter().filter_map(|line| line["_id"].as_u64()).collect())
            }
            _ => {
                let value: Value = serde_json::from_slice(body).unwrap();
                let rows = value["x8"].as_array().unwrap().len();
                assert!((0..10).all(|at| value[format!("x{at}")].as_array().unwrap().len() == rows));
                (rows as u64, value.get("_id").map(list).unwrap_or_default())
            }
        }
    }

    /// A small HTTP server on a free port.
    fn serve(manner: Manner) -> (String, Arc<Mutex<Seen>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, seen) = (stream.unwrap(), Arc::clone(&shared));
                std::thread::spawn(move || converse(stream, &seen, manner));
            }
        });
        (address, seen)
    }

    fn converse(mut stream: TcpStream, seen: &Mutex<Seen>, manner: Manner) {
        let mut read = Vec::new();
        let mut part = [0; 4096];
        loop {
            let end = loop {
                if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end + 4;
                }
                match stream.read(&mut part) {
                    Ok(count) if count > 0 => read.extend_from_slice(&part[..count]),
                    _ => return,
                }
            };
            let head = String::from_utf8(read.drain(..end).collect()).unwrap();
            let length: usize = field(&head, "Content-Length").unwrap().parse().unwrap();
            while read.len() < length {
                let count = stream.read(&mut part).unwrap();
                read.extend_from_slice(&part[..count]);
            }
            let body: Vec<u8> = read.drain(..length).collect();
            let (reply, events, repeated) = {
                let mut seen = seen.lock().unwrap();
                let reply = manner(seen.requests);
                seen.requests += 1;
                let (events, ids) = counted(&head, &body);
                let mut repeated = false;
                if !matches!(reply, Reply::Status(_)) {
                    repeated = field(&head, "Idempotency-Key").is_some_and(|key| seen.keys.insert(key.to_owned(), events).is_some());
                    if !repeated {
                        seen.events += events;
                        seen.ids.extend(ids);
                    }
                }
                seen.heads.push(head);
                seen.bodies.push(body);
                (reply, events, repeated)
            };
            let text = format!("{{\"accepted\":{events},\"rejected\":[],\"repeated\":{repeated}}}");
            let close = if reply == Reply::WellAndClose { "connection: close\r\n" } else { "" };
            let good = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{close}\r\n{text}", text.len());
            match reply {
                Reply::Well => stream.write_all(good.as_bytes()).unwrap(),
                Reply::Slowly => {
                    stream.set_nodelay(true).unwrap();
                    good.bytes().for_each(|byte| stream.write_all(&[byte]).unwrap());
                }
                Reply::Late => {
                    std::thread::sleep(Duration::from_secs(1));
                    stream.write_all(good.as_bytes()).unwrap();
                }
                Reply::Status(status) => {
                    let text = "{\"detail\":\"no\"}";
                    stream.write_all(format!("HTTP/1.1 {status} No\r\nContent-Length: {}\r\n\r\n{text}", text.len()).as_bytes()).unwrap();
                }
                Reply::Mute => return,
                Reply::WellAndClose => {
                    stream.write_all(good.as_bytes()).unwrap();
                    return;
                }
            }
        }
    }

    fn plan(address: &str, protocol: Protocol) -> Plan {
        let text = serde_json::json!({"address": address, "token": "t", "model": "m", "protocol": protocol, "seconds": 0.2, "seed": 7});
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn every_protocol_sends_what_the_server_counts() {
        for protocol in [Protocol::Arrow, Protocol::Columns, Protocol::Ndjson] {
            let (address, seen) = serve(|request| if request % 3 == 0 { Reply::Slowly } else { Reply::Well });
            let plan = Plan { ids: true, events_per_body: Some(20), ..plan(&address, protocol) };
            let out = run(&plan).unwrap();
            let mut seen = seen.lock().unwrap();
            assert_eq!((out.events_accepted, out.events_sent), (seen.events, seen.events), "{protocol:?}");
            assert!(out.bodies > 4 && out.bodies == out.bodies_acknowledged && out.bodies == seen.requests);
            assert_eq!((out.errors, out.refused, out.events_unanswered), (0, 0, 0));
            assert_eq!((out.latency.count(), out.p99.is_some()), (out.bodies, true));
            // Ids are those that were promised, each once.
            seen.ids.sort_unstable();
            let first = first_id(&plan, 0);
            assert_eq!(seen.ids, (first..first + seen.events).collect::<Vec<_>>());
            assert!(seen.heads.iter().all(|head| head.starts_with("POST /v1/models/m/events HTTP/1.1\r\n")));
        }
    }

    #[test]
    fn cloud_events_alternate_halves_of_one_id() {
        let (address, seen) = serve(|_| Reply::Well);
        let out = run(&Plan { connections: Some(3), ..plan(&address, Protocol::CloudEvents) }).unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!((out.bodies, 2 * out.events_accepted), (seen.requests, seen.requests));
        let mut sides: HashMap<&str, Vec<&str>> = HashMap::new();
        for head in &seen.heads {
            sides.entry(field(head, "ce-id").unwrap()).or_default().push(field(head, "ce-type").unwrap());
        }
        assert_eq!(sides.len() as u64, out.events_sent);
        let both = ["org.kubeflow.serving.inference.request", "org.kubeflow.serving.inference.response"];
        assert!(sides.values().all(|halves| halves == &both));
    }

    #[test]
    fn numbers_have_seventeen_digits_and_mean_what_was_drawn() {
        let mut draw = Draw(1);
        for _ in 0..1000 {
            let value = draw.normal();
            let text = digits(value);
            assert_eq!(text.parse::<f64>().unwrap(), value);
            let significant = text.trim_start_matches(['-', '0', '.']).chars().filter(char::is_ascii_digit).count();
            assert_eq!(significant, 17, "{text}");
        }
        // First outputs for seed 1234567: Rosetta Code, "Pseudo-random numbers/Splitmix64".
        let mut draw = Draw(1_234_567);
        assert_eq!([draw.word(), draw.word()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn what_is_refused_is_counted_and_not_acknowledged() {
        let (address, seen) = serve(|request| match request % 4 {
            1 => Reply::Status(429),
            2 => Reply::Status(503),
            3 => Reply::WellAndClose,
            _ => Reply::Well,
        });
        let out = run(&Plan { events_per_body: Some(10), ..plan(&address, Protocol::Ndjson) }).unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!((out.events_accepted, out.errors), (seen.events, 0));
        assert!(out.refused > 0 && out.refused + out.bodies_acknowledged == seen.requests);
        assert_eq!(out.latency.count(), out.bodies_acknowledged);
    }

    #[test]
    fn an_answer_that_says_all_is_wrong_ends_the_run() {
        let (address, seen) = serve(|_| Reply::Status(401));
        let error = run(&Plan { seconds: 60.0, ..plan(&address, Protocol::Columns) }).unwrap_err();
        assert_eq!(error, "status 401: {\"detail\":\"no\"}");
        assert!(seen.lock().unwrap().requests < 10);
    }

    #[test]
    fn bodies_that_count_once_are_sent_until_they_are_answered() {
        let (address, seen) = serve(|request| match request % 5 {
            1 => Reply::Mute,
            3 => Reply::Status(503),
            _ => Reply::Well,
        });
        let told = Mutex::new(Vec::new());
        let plan = Plan { ids: true, events_per_body: Some(8), ..plan(&address, Protocol::Arrow) };
        let out = crash_load(&plan, &AtomicBool::new(false), &|line| told.lock().unwrap().push(line.to_owned())).unwrap();
        let mut seen = seen.lock().unwrap();
        assert_eq!((out.events_accepted, out.events_unanswered), (seen.events, 0));
        assert!(out.bodies_repeated > 0 && out.errors > 0 && out.refused > 0 && out.outage_seconds > 0.0);
        seen.ids.sort_unstable();
        let all = seen.ids.len();
        seen.ids.dedup();
        assert_eq!(seen.ids.len(), all);
        let mut told = told.into_inner().unwrap();
        told.sort();
        told.dedup();
        assert_eq!(told.len() as u64, seen.events / 8);
    }

    #[test]
    fn what_is_never_answered_is_told() {
        let (address, seen) = serve(|request| if request == 0 { Reply::Well } else { Reply::Mute });
        let plan = Plan { connections: Some(1), events_per_body: Some(8), ..plan(&address, Protocol::Ndjson) };
        let out = run(&plan).unwrap();
        assert_eq!((out.events_accepted, out.events_accepted + out.events_unanswered), (8, seen.lock().unwrap().events));
        assert_eq!(out.trouble.as_deref(), Some("the connection was closed without an answer"));
    }

    #[test]
    fn waiting_counts_from_when_a_body_was_due() {
        // One answer takes a second: the 20 bodies that were due meanwhile waited, half a second on average.
        let (address, _) = serve(|request| if request == 5 { Reply::Late } else { Reply::Well });
        let plan =
            Plan { connections: Some(1), rate: Some(200.0), events_per_body: Some(10), seconds: 1.5, ..plan(&address, Protocol::Ndjson) };
        let out = run(&plan).unwrap();
        assert_eq!((out.bodies, out.bodies_unsent), (30, 0));
        assert!((0.2..0.9).contains(&out.p50.unwrap()), "{:?}", out.p50);
        assert!(out.max.unwrap() >= 1.0);
    }

    #[test]
    fn what_could_not_be_sent_in_time_has_waited_too() {
        let (address, _) = serve(|_| Reply::Late);
        let plan =
            Plan { connections: Some(1), rate: Some(1000.0), events_per_body: Some(10), seconds: 0.5, ..plan(&address, Protocol::Ndjson) };
        let out = run(&plan).unwrap();
        assert_eq!(out.bodies + out.bodies_unsent, 50);
        assert!(out.bodies_unsent > 40 && out.p50.unwrap() > 1.0);
    }

    #[test]
    fn datagrams_are_full_and_arrive() {
        let path = std::env::temp_dir().join(format!("barograph-load-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let server = UnixDatagram::bind(&path).unwrap();
        let reader = std::thread::spawn(move || {
            server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let (mut lines, mut largest, mut buffer) = (0, 0, vec![0; 1 << 16]);
            while let Ok(length) = server.recv(&mut buffer) {
                if length == 1 {
                    break;
                }
                let text = std::str::from_utf8(&buffer[..length]).unwrap();
                assert!(text.lines().all(|line| line.starts_with("model.latency:") && line.ends_with("|ms|#model:m")));
                (lines, largest) = (lines + text.lines().count() as u64, largest.max(length));
            }
            (lines, largest)
        });
        let out = run(&plan(&format!("unix:{}", path.display()), Protocol::Statsd)).unwrap();
        UnixDatagram::unbound().unwrap().send_to(b"x", &path).unwrap();
        let (lines, largest) = reader.join().unwrap();
        let _ = std::fs::remove_file(&path);
        assert_eq!((lines, out.events_accepted), (out.events_sent, 0));
        assert!(largest <= UNIX_BYTES && largest > UNIX_BYTES - 50, "{largest}");
    }

    #[test]
    fn plans_that_cannot_be_are_refused() {
        let good = plan("127.0.0.1:1", Protocol::Ndjson);
        for (plan, says) in [
            (Plan { seconds: f64::NAN, ..good.clone() }, "`seconds` must be in (0, 3600], got NaN"),
            (Plan { rate: Some(0.0), ..good.clone() }, "`rate` must be in"),
            (Plan { connections: Some(0), ..good.clone() }, "`connections` must be in [1, 1024], got 0"),
            (Plan { token: "a\r\nb".to_owned(), ..good.clone() }, "`token` must be ASCII"),
            (Plan { model: "../x".to_owned(), ..good.clone() }, "`model` must be a name"),
            (Plan { address: "nowhere".to_owned(), ..good.clone() }, "`address`: expected"),
            (good.clone(), "127.0.0.1:1 could not be reached"),
        ] {
            let error = run(&plan).unwrap_err();
            assert!(error.starts_with(says), "{error}");
        }
    }

    #[test]
    fn answers_that_are_none_are_errors() {
        let fails = |head: &str| headers(head.as_bytes()).unwrap_err();
        assert_eq!(headers(b"HTTP/1.1 204 No\r\n\r\n").unwrap(), (204, 0, false));
        assert_eq!(headers(b"HTTP/1.1 200 OK\r\ncontent-LENGTH:3\r\nConnection: Close\r\n\r\n").unwrap(), (200, 3, true));
        assert!(fails("SSH-2.0\r\n\r\n").contains("must begin with HTTP/1.1"));
        assert!(fails("HTTP/1.1 200 OK\r\n\r\n").contains("no `Content-Length`"));
        assert!(fails("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").contains("must be in [0, "));
    }
}
