//! What is sent: events that are drawn once, and the bodies that they make.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;

use super::{Plan, Protocol};
use crate::config::Address;

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
pub(super) const UNIX_BYTES: usize = 8 << 10;

/// Pseudo-random numbers: `SplitMix64` (Steele, Lea, Flood 2014).
pub(super) struct Draw(pub(super) u64);

impl Draw {
    pub(super) fn word(&mut self) -> u64 {
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
    pub(super) fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// A number with 17 significant digits, which is what readers have to be able to take.
pub(super) fn digits(value: f64) -> String {
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
pub(super) enum Template {
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
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) events: u64,
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
    pub(super) fn body(&self, half: usize, first: Option<u64>) -> Result<Arc<Body>, String> {
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
pub(super) struct Content {
    /// The head of a request as far as it is always the same.
    pub(super) head: Vec<u8>,
    pub(super) templates: Vec<Template>,
    /// Bodies as they are sent, in turn; none where each has its own ids. Halves follow each other.
    pub(super) ready: Vec<Arc<Body>>,
}

impl Content {
    pub(super) fn new(plan: &Plan, address: &Address) -> Result<Self, String> {
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
