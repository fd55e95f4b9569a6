//! Load for a sidecar: bodies are built once and sent again and again, so that what is measured is the sidecar.
//!
//! With a rate, bodies are due at fixed times whatever the sidecar does, and latency counts from when a body was due: a sidecar that
//! stalls is charged for all that had to wait. Without one, every connection sends as soon as it has its answers.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;
use barograph_core::sketches::ExponentialHistogram;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::config::{Address, is_name};

/// Different bodies that are sent in turn.
const BODIES: usize = 16;
/// Bytes that all of them may take together.
const MOST_BYTES: usize = 64 << 20;
/// Values of the category, `kind_00` and so on.
const KINDS: u64 = 20;
/// Share of true in the boolean.
const TRUE_SHARE: f64 = 0.3;
/// Bytes of a datagram over UDP, which fits an Ethernet frame, and over a Unix socket: what clients of `DogStatsD` use.
const UDP_BYTES: usize = 1432;
const UNIX_BYTES: usize = 8 << 10;
/// A sidecar that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses before a connection is tried again, or a body that was refused.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of an answer's head and body.
const MOST_HEAD: usize = 16 << 10;
const MOST_BODY: usize = 1 << 20;

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

/// Pseudo-random numbers: `SplitMix64` (Steele, Lea, Flood 2014).
struct Draw(u64);

impl Draw {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let word = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ word >> 31
    }

    /// Uniform on (0, 1].
    fn unit(&mut self) -> f64 {
        ((self.word() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// A number with 17 significant digits, which is what readers have to be able to take.
fn digits(value: f64) -> String {
    let places = if value == 0.0 { 0.0 } else { 16.0 - value.abs().log10().floor() };
    format!("{value:.*}", places.clamp(0.0, 300.0) as usize)
}

/// Events by column: eight numbers, a category and a boolean.
struct Events {
    numbers: Vec<Vec<f64>>,
    kinds: Vec<String>,
    flags: Vec<bool>,
}

impl Events {
    fn new(rows: usize, draw: &mut Draw) -> Self {
        Self {
            numbers: (0..8).map(|_| (0..rows).map(|_| draw.normal()).collect()).collect(),
            kinds: (0..rows).map(|_| format!("kind_{:02}", draw.word() % KINDS)).collect(),
            flags: (0..rows).map(|_| draw.unit() <= TRUE_SHARE).collect(),
        }
    }

    fn arrow(self) -> Result<RecordBatch, String> {
        let numbers = self.numbers.into_iter().map(|values| Arc::new(Float64Array::from(values)) as ArrayRef);
        let kinds: ArrayRef = Arc::new(StringArray::from_iter_values(self.kinds));
        let flags: ArrayRef = Arc::new(BooleanArray::from(self.flags));
        let named = numbers.chain([kinds, flags]).enumerate().map(|(at, values)| (format!("x{at}"), values));
        RecordBatch::try_from_iter(named).map_err(|error| error.to_string())
    }

    /// All columns as JSON, one text each.
    fn json(self) -> Vec<Vec<String>> {
        let numbers = self.numbers.into_iter().map(|values| values.into_iter().map(digits).collect());
        let kinds = self.kinds.into_iter().map(|kind| format!("\"{kind}\"")).collect();
        let flags = self.flags.into_iter().map(|flag| flag.to_string()).collect();
        numbers.chain([kinds, flags]).collect()
    }
}

/// A body but for what is its own each time it is sent.
enum Template {
    Arrow(RecordBatch),
    /// What follows the opening brace and the ids.
    Columns(String, usize),
    /// The same, line by line.
    Ndjson(Vec<String>),
    /// The data of a request and of its response.
    Halves([Arc<Body>; 2]),
    Datagram(Arc<Body>),
}

/// What is sent, and how many events that makes: none for a request without its response.
struct Body {
    bytes: Vec<u8>,
    events: u64,
}

impl Template {
    fn new(plan: &Plan, room: usize, draw: &mut Draw) -> Result<Self, String> {
        let rows = plan.batch();
        let events = |draw: &mut Draw| Events::new(rows, draw);
        Ok(match plan.protocol {
            Protocol::Arrow => Self::Arrow(events(draw).arrow()?),
            Protocol::Columns => {
                let columns = events(draw).json();
                let columns: Vec<String> =
                    columns.into_iter().enumerate().map(|(at, values)| format!("\"x{at}\":[{}]", values.join(","))).collect();
                Self::Columns(columns.join(",") + "}", rows)
            }
            Protocol::Ndjson => {
                let mut lines = vec![String::new(); rows];
                for (at, values) in events(draw).json().into_iter().enumerate() {
                    for (line, value) in lines.iter_mut().zip(values) {
                        let _ = write!(line, "{}\"x{at}\":{value}", if at == 0 { "" } else { "," });
                    }
                }
                lines.iter_mut().for_each(|line| line.push_str("}\n"));
                Self::Ndjson(lines)
            }
            Protocol::CloudEvents => {
                let columns = events(draw).json().into_iter().enumerate().map(|(at, values)| {
                    let datatype = ["FP64"; 8].into_iter().chain(["BYTES", "BOOL"]).nth(at).unwrap_or_default();
                    format!("{{\"name\":\"x{at}\",\"shape\":[1],\"datatype\":\"{datatype}\",\"data\":[{}]}}", values.join(","))
                });
                let request = format!("{{\"inputs\":[{}]}}", columns.collect::<Vec<_>>().join(","));
                let response = format!(
                    "{{\"model_name\":\"{}\",\"outputs\":[{{\"name\":\"predict\",\"shape\":[1],\"datatype\":\"FP64\",\"data\":[{}]}}]}}",
                    plan.model,
                    digits(draw.unit())
                );
                Self::Halves([(request, 0), (response, 1)].map(|(text, events)| Arc::new(Body { bytes: text.into_bytes(), events })))
            }
            Protocol::Statsd => {
                let (mut text, mut events) = (String::new(), 0);
                loop {
                    // A latency in milliseconds, about 12, with a long tail.
                    let line = format!("model.latency:{:.3}|ms|#model:{}", 12.0 * (0.5 * draw.normal()).exp(), plan.model);
                    if events > 0 && text.len() + 1 + line.len() > room {
                        break Self::Datagram(Arc::new(Body { bytes: text.into_bytes(), events }));
                    }
                    text.push_str(if events > 0 { "\n" } else { "" });
                    text.push_str(&line);
                    events += 1;
                }
            }
        })
    }

    /// The body, with ids from a number on if there is one.
    fn body(&self, half: usize, first: Option<u64>) -> Result<Arc<Body>, String> {
        let ids = |rows: usize| first.map(|first| first..first + rows as u64);
        let (bytes, rows) = match self {
            Self::Halves(halves) => return halves.get(half).cloned().ok_or_else(|| "an event has two halves".to_owned()),
            Self::Datagram(body) => return Ok(Arc::clone(body)),
            Self::Arrow(batch) => (stream(batch, ids(batch.num_rows())).map_err(|error| error.to_string())?, batch.num_rows()),
            Self::Columns(rest, rows) => {
                let mut text = "{".to_owned();
                if let Some(ids) = ids(*rows) {
                    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
                    let _ = write!(text, "\"_id\":[{}],", ids.join(","));
                }
                ((text + rest).into_bytes(), *rows)
            }
            Self::Ndjson(lines) => {
                let mut text = String::with_capacity(lines.iter().map(|line| line.len() + 32).sum());
                for (at, line) in lines.iter().enumerate() {
                    let _ = match first {
                        Some(first) => write!(text, "{{\"_id\":{},{line}", first + at as u64),
                        None => write!(text, "{{{line}"),
                    };
                }
                (text.into_bytes(), lines.len())
            }
        };
        Ok(Arc::new(Body { bytes, events: rows as u64 }))
    }
}

/// A batch as an IPC stream, with a column of ids if there are any.
fn stream(batch: &RecordBatch, ids: Option<std::ops::Range<u64>>) -> Result<Vec<u8>, arrow_schema::ArrowError> {
    let with_ids = ids.map(|ids| {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids.map(|id| id as i64)));
        let schema = batch.schema();
        let named = schema.fields().iter().map(|field| field.name().clone()).zip(batch.columns().iter().cloned());
        RecordBatch::try_from_iter(named.chain([("_id".to_owned(), ids)]))
    });
    let with_ids = with_ids.transpose()?;
    let batch = with_ids.as_ref().unwrap_or(batch);
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(batch)?;
    writer.finish()?;
    writer.into_inner()
}

/// Everything that is sent, ready but for what is its own each time.
struct Content {
    /// The head of a request as far as it is always the same.
    head: Vec<u8>,
    templates: Vec<Template>,
    /// Bodies as they are sent, in turn; none where each has its own ids. Halves follow each other.
    ready: Vec<Arc<Body>>,
}

impl Content {
    fn new(plan: &Plan, address: &Address) -> Result<Self, String> {
        let (host, room) = match address {
            Address::Net(address) => (address.to_string(), UDP_BYTES),
            Address::Unix(_) => ("localhost".to_owned(), UNIX_BYTES),
        };
        let mut draw = Draw(plan.seed);
        let (mut templates, mut ready, mut bytes) = (Vec::new(), Vec::new(), 0);
        // Single events are small, and many different ones are needed for their values to be like those of the others.
        let wanted = if plan.protocol.default_batch() == 1 { 1000 } else { BODIES };
        while templates.len() < wanted && bytes < MOST_BYTES {
            let template = Template::new(plan, room, &mut draw)?;
            for half in 0..plan.protocol.halves() as usize {
                let body = template.body(half, None)?;
                bytes += body.bytes.len();
                if !plan.ids {
                    ready.push(body);
                }
            }
            templates.push(template);
        }
        let head = format!(
            "POST /v1/models/{}/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nContent-Type: {}\r\n",
            plan.model,
            plan.token,
            plan.protocol.content_type()
        );
        Ok(Self { head: head.into_bytes(), templates, ready })
    }
}

/// A connection, or what datagrams go through.
enum Link {
    Tcp(TcpStream),
    Unix(UnixStream),
    Udp(UdpSocket),
    Datagrams(UnixDatagram),
}

impl Link {
    fn open(address: &Address, protocol: Protocol) -> Result<Self, String> {
        let link = match (address, protocol == Protocol::Statsd) {
            (Address::Net(to), false) => TcpStream::connect_timeout(to, PATIENCE).and_then(|link| {
                link.set_nodelay(true)?;
                link.set_read_timeout(Some(PATIENCE))?;
                link.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Tcp(link))
            }),
            (Address::Unix(path), false) => UnixStream::connect(path).and_then(|link| {
                link.set_read_timeout(Some(PATIENCE))?;
                link.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Unix(link))
            }),
            (Address::Net(to), true) => {
                let own = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                UdpSocket::bind(own).and_then(|link| link.connect(to).map(|()| Self::Udp(link)))
            }
            (Address::Unix(path), true) => UnixDatagram::unbound().and_then(|link| {
                link.connect(path)?;
                link.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Datagrams(link))
            }),
        };
        link.map_err(|error| format!("{address} could not be reached: {error}"))
    }

    fn write(&mut self, parts: &[IoSlice<'_>]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(link) => link.write_vectored(parts),
            Self::Unix(link) => link.write_vectored(parts),
            Self::Udp(link) => link.send(parts.first().map_or(&[], |part| part)),
            Self::Datagrams(link) => link.send(parts.first().map_or(&[], |part| part)),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(link) => link.read(into),
            Self::Unix(link) => link.read(into),
            Self::Udp(_) | Self::Datagrams(_) => Err(ErrorKind::Unsupported.into()),
        }
    }
}

/// What an answer to events says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Taken {
    accepted: u64,
    rejected_count: Option<u64>,
    rejected: Vec<IgnoredAny>,
    repeated: bool,
}

/// An answer to a request.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Vec<u8>,
    /// Whether the connection ends with it.
    last: bool,
}

impl Answer {
    fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        format!("status {}: {}", self.status, text.chars().take(300).collect::<String>())
    }
}

/// A connection with what was read of answers and not yet used.
struct Wire {
    link: Link,
    read: Vec<u8>,
}

impl Wire {
    fn send(&mut self, mut parts: &mut [IoSlice<'_>]) -> Result<(), String> {
        while !parts.is_empty() {
            match self.link.write(parts) {
                Ok(0) => return Err("the connection takes no more".to_owned()),
                Ok(written) => IoSlice::advance_slices(&mut parts, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("a request could not be sent: {error}")),
            }
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<(), String> {
        let mut part = [0; 16 << 10];
        loop {
            match self.link.read(&mut part) {
                Ok(0) => return Err("the connection was closed without an answer".to_owned()),
                Ok(count) => {
                    self.read.extend_from_slice(part.get(..count).unwrap_or_default());
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("no answer came: {error}")),
            }
        }
    }

    /// The next answer, whole.
    fn answer(&mut self) -> Result<Answer, String> {
        loop {
            let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") else {
                if self.read.len() > MOST_HEAD {
                    return Err("the head of an answer does not end".to_owned());
                }
                self.fill()?;
                continue;
            };
            let head: Vec<u8> = self.read.drain(..end + 4).collect();
            let (status, length, last) = headers(&head)?;
            // An announcement of the answer that follows.
            if status < 200 {
                continue;
            }
            while self.read.len() < length {
                self.fill()?;
            }
            return Ok(Answer { status, body: self.read.drain(..length).collect(), last });
        }
    }
}

/// Status, bytes of the body, and whether the connection ends.
fn headers(head: &[u8]) -> Result<(u16, usize, bool), String> {
    let text = std::str::from_utf8(head).map_err(|_| "the head of an answer is not UTF-8".to_owned())?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
    let status = status.ok_or_else(|| format!("an answer must begin with HTTP/1.1 and a status, got {first:?}"))?;
    let (mut length, mut last) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            let value = value.trim();
            let number = value.parse::<usize>().ok().filter(|number| *number <= MOST_BODY);
            length = Some(number.ok_or_else(|| format!("`Content-Length` of an answer must be in [0, {MOST_BODY}], got {value:?}"))?);
        } else if name.eq_ignore_ascii_case("connection") {
            last = value.trim().eq_ignore_ascii_case("close");
        }
    }
    let empty = status < 200 || status == 204 || status == 304;
    let length = if empty { Some(0) } else { length };
    Ok((status, length.ok_or("an answer has no `Content-Length`")?, last))
}

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
struct Shared<'a> {
    plan: &'a Plan,
    address: Address,
    content: Content,
    start: Instant,
    stop: &'a AtomicBool,
    tell: &'a (dyn Fn(&str) + Sync),
    /// The number of the next body.
    next: AtomicU64,
    /// Why there is no use in going on.
    fatal: Mutex<Option<String>>,
}

impl Shared<'_> {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.fatal.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What one connection does.
    fn work(&self, at: usize) -> Result<Outcome, String> {
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Cursor;
    use std::net::TcpListener;

    use arrow_ipc::reader::StreamReader;

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
