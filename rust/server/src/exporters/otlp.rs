//! OTLP/HTTP: metrics pushed to an OpenTelemetry collector, histograms as exponential ones.
//!
//! Protocol: <https://opentelemetry.io/docs/specs/otlp/#otlphttp>. Messages:
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/metrics/v1/metrics.proto>
//!
//! Everything is cumulative: a push that fails loses nothing, the next one says it all again.

use std::fmt;
use std::io::{Read, Write};
use std::time::Duration;

use barograph_core::sketches::ExponentialHistogram;
use barograph_engine::policy::Length;
use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use prost::Message;
use serde::{Deserialize, Deserializer};
use ureq::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Uri};

use self::messages::{
    AnyValue, Buckets, CUMULATIVE, Data, ExponentialHistogramDataPoint, ExportMetricsServiceRequest, ExportMetricsServiceResponse, Gauge,
    InstrumentationScope, KeyValue, Metric, NumberDataPoint, Resource, ResourceMetrics, Scalar, ScopeMetrics, Sum,
};
use super::{Exposition, Family, Kind, Series, Unit, Value};

pub(crate) mod messages;

/// Buckets of one side of a histogram. They are sent without gaps, so two far values would send thousands of zeros: a wider
/// histogram is sent in cells twice as wide, as often as needed, exactly.
const MOST_BUCKETS: usize = 4096;
const SECOND: i64 = 1_000_000_000;
/// Of an answer: nobody needs more to say why.
const MOST_ANSWER: u64 = 64 << 10;
/// A receiver cannot silence us for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// An `ExportMetricsServiceRequest`.
///
/// resource: what sends, such as `service.name`. `began` and `now`: nanoseconds since 1970; when the process began to count (families that
/// are [`kept`](Family::kept) say no beginning), and the moment that is shown.
pub fn encode(exposition: &Exposition, resource: &[(String, String)], began: i64, now: i64) -> Vec<u8> {
    let span = (u64::try_from(began).unwrap_or(0), u64::try_from(now).unwrap_or(0));
    request(exposition, resource, env!("CARGO_PKG_VERSION"), span).encode_to_vec()
}

fn request(exposition: &Exposition, resource: &[(String, String)], version: &str, span: (u64, u64)) -> ExportMetricsServiceRequest {
    let attributes = resource.iter().map(|(key, value)| attribute(key, value)).collect();
    let scope = InstrumentationScope { name: "barograph".to_owned(), version: version.to_owned(), attributes: Vec::new() };
    let scope = ScopeMetrics { scope: Some(scope), metrics: exposition.families().map(|family| metric(family, span)).collect() };
    let resource = ResourceMetrics { resource: Some(Resource { attributes }), scope_metrics: vec![scope] };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Scalar::Text(value.to_owned())) }) }
}

/// OpenTelemetry's words: dots for the namespace, no unit and no kind in the name. The same names as the Python adapter's.
fn otlp_name(family: &Family) -> String {
    match family.name {
        "barograph_call_seconds" => return "barograph.latency".to_owned(),
        // Its own name would be that of the histogram.
        "barograph_latency_seconds" => return "barograph.latency.percentile".to_owned(),
        _ => {}
    }
    let stem = family.stem();
    let bare = family.unit.and_then(|unit| stem.strip_suffix(unit.word())?.strip_suffix('_')).unwrap_or(stem);
    bare.replacen('_', ".", 1)
}

fn attributes(series: &Series) -> Vec<KeyValue> {
    series.labels.iter().map(|(key, value)| attribute(if *key == "model" { "barograph.model" } else { key }, value)).collect()
}

fn metric(family: &Family, (began, now): (u64, u64)) -> Metric {
    // 0 is a beginning that is not known: receivers take the first point as the base.
    let began = if family.kept { 0 } else { began };
    // UCUM.
    let unit = match family.unit {
        Some(Unit::Seconds) => "s",
        Some(Unit::Bytes) => "By",
        Some(Unit::Ratio) | None => "1",
    };
    let numbers = |start: u64| family.series.iter().filter_map(move |series| number_point(series, start, now)).collect();
    let data = match family.kind {
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers(0) }),
        Kind::Counter => Data::Sum(Sum { data_points: numbers(began), aggregation_temporality: CUMULATIVE, is_monotonic: true }),
        Kind::Histogram => Data::ExponentialHistogram(messages::ExponentialHistogram {
            data_points: family.series.iter().filter_map(|series| histogram_point(series, began, now)).collect(),
            aggregation_temporality: CUMULATIVE,
        }),
    };
    Metric { name: otlp_name(family), description: family.help.to_owned(), unit: unit.to_owned(), data: Some(data) }
}

fn number_point(series: &Series, start: u64, now: u64) -> Option<NumberDataPoint> {
    let (as_int, as_double) = match &series.value {
        Value::Count(count) => (Some(i64::try_from(*count).unwrap_or(i64::MAX)), None),
        Value::Number(number) => (None, Some(*number)),
        Value::Histogram(..) => return None,
    };
    let attributes = attributes(series);
    Some(NumberDataPoint { start_time_unix_nano: start, time_unix_nano: now, as_double, as_int, attributes, flags: 0 })
}

fn histogram_point(series: &Series, began: u64, now: u64) -> Option<ExponentialHistogramDataPoint> {
    let Value::Histogram(sketch, sum) = &series.value else { return None };
    let (scale, [positive, negative]) = sides(sketch);
    Some(ExponentialHistogramDataPoint {
        attributes: attributes(series),
        start_time_unix_nano: began,
        time_unix_nano: now,
        count: sketch.count(),
        // With negative values it would not be a counter; the specification wants none then.
        sum: (sketch.negative_count() == 0).then_some(*sum),
        scale: scale.into(),
        zero_count: sketch.zero_count(),
        positive,
        negative,
        ..ExponentialHistogramDataPoint::default()
    })
}

/// Both signs' buckets, at the sketch's scale or the finest below it that has at most `MOST_BUCKETS` of a sign.
fn sides(sketch: &ExponentialHistogram) -> (u8, [Option<Buckets>; 2]) {
    let scale = sketch.scale();
    let cells = [false, true].map(|negative| sketch.indexed(negative));
    // Of cells in ascending order; halving the scale halves the indices.
    let width = |scale_down: u8| {
        let widths = cells.iter().filter_map(|side| Some((side.last()?.0 >> scale_down) - (side.first()?.0 >> scale_down) + 1));
        widths.max().unwrap_or(0) as usize
    };
    // At scale 0 all doubles fit.
    let down = (0..scale).find(|down| width(*down) <= MOST_BUCKETS).unwrap_or(scale);
    let buckets = |side: &Vec<(i32, u64)>| {
        let (first, last) = (side.first()?.0 >> down, side.last()?.0 >> down);
        let mut bucket_counts = vec![0; (last - first) as usize + 1];
        for (index, count) in side {
            if let Some(sum) = bucket_counts.get_mut(((index >> down) - first) as usize) {
                *sum += count;
            }
        }
        Some(Buckets { offset: first, bucket_counts })
    };
    (scale - down, cells.each_ref().map(buckets))
}

/// Where metrics are pushed to, as a config file says it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// Of a collector: `http://…` or `https://…`. Without a path, `/v1/metrics` is added.
    pub endpoint: Endpoint,
    /// Sent along, such as `authorization`. Values are secrets: they are in no message and no debug form.
    #[serde(default, deserialize_with = "secret_headers")]
    pub headers: HeaderMap,
    /// From push to push, 1 s to 1 day; a minute unless stated, as OpenTelemetry's SDKs have it.
    #[serde(default = "minute", deserialize_with = "interval")]
    pub interval: Length,
    /// For a whole push, 1 s to 1 min; 10 s unless stated. A push that takes longer failed.
    #[serde(default = "ten_seconds", deserialize_with = "timeout")]
    pub timeout: Length,
    /// Whether bodies are compressed; every collector reads gzip.
    #[serde(default)]
    pub compression: Encoding,
    /// Attributes of the resource, besides `service.name` (barograph) and `service.version`, which they may replace.
    #[serde(default)]
    pub resource: std::collections::BTreeMap<String, String>,
}

/// How a body is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// To a tenth or so.
    #[default]
    Gzip,
    /// As it is.
    None,
}

/// The address of a collector. Shown without its query, which may hold a key.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Endpoint(Uri);

impl TryFrom<String> for Endpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // What came is not repeated in the message: it may hold a password.
        let wrong = || "`endpoint` must be an address such as \"http://collector:4318\", got something else".to_owned();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err("`endpoint` must not hold a user or a password\nhint: put an `authorization` into `headers`".to_owned());
        }
        if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
            return Err(wrong());
        }
        if !matches!(uri.path(), "" | "/") {
            return Ok(Self(uri));
        }
        let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
        let whole = format!("{}://{authority}/v1/metrics{query}", uri.scheme_str().unwrap_or("http"));
        whole.parse().map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = &self.0;
        write!(f, "{}://{}{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |part| part.as_str()), uri.path())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn secret_headers<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderMap, D::Error> {
    use serde::de::Error;
    let mut headers = HeaderMap::new();
    for (name, value) in std::collections::BTreeMap::<String, String>::deserialize(from)? {
        let key = HeaderName::try_from(&name)
            .map_err(|_| D::Error::custom(format!("`headers` has a name that HTTP does not allow, {name:?}")))?;
        if [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH, HOST].contains(&key) {
            return Err(D::Error::custom(format!("`headers` must not hold {name:?}: the push sets it")));
        }
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| D::Error::custom(format!("the value of {name:?} in `headers` has characters that HTTP does not allow")))?;
        // Its debug form says no more than that.
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

fn minute() -> Length {
    Length(60 * SECOND)
}

fn ten_seconds() -> Length {
    Length(10 * SECOND)
}

fn interval<'de, D: Deserializer<'de>>(from: D) -> Result<Length, D::Error> {
    within(from, "interval", 86_400 * SECOND)
}

fn timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Length, D::Error> {
    within(from, "timeout", 60 * SECOND)
}

fn within<'de, D: Deserializer<'de>>(from: D, name: &str, most: i64) -> Result<Length, D::Error> {
    let length = Length::deserialize(from)?;
    if (SECOND..=most).contains(&length.0) {
        return Ok(length);
    }
    Err(serde::de::Error::custom(format!("`{name}` must be in [1s, {}], got {length}", Length(most))))
}

/// A push that did not arrive, or not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// For people.
    pub message: String,
    /// How long the receiver wants to be left alone, at most an hour.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Push {
    /// The resource's attributes, for [`encode`].
    pub fn resource(&self) -> Vec<(String, String)> {
        let mut out = self.resource.clone();
        for (key, value) in [("service.name", "barograph"), ("service.version", env!("CARGO_PKG_VERSION"))] {
            out.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        out.into_iter().collect()
    }

    /// Sends what [`encode`] made, and waits for the answer, at most `timeout`. Redirects are not followed: the headers are secrets.
    ///
    /// # Errors
    /// `Refused` if the receiver cannot be reached, refuses, or takes a part only. Do not send the same body again: the next push holds
    /// newer numbers of the same counters. After `retry_after` only, if it says so.
    pub fn send(&self, agent: &ureq::Agent, body: Vec<u8>) -> Result<(), Refused> {
        let refused =
            |why: &dyn fmt::Display| Refused { message: format!("metrics were not taken by {}: {why}", self.endpoint), retry_after: None };
        let body = match self.compression {
            Encoding::Gzip => gzip(&body).map_err(|error| refused(&error))?,
            Encoding::None => body,
        };
        let settings = agent.post(&self.endpoint.0).config().http_status_as_error(false).max_redirects(0);
        let mut request = settings.timeout_global(Some(Duration::from_nanos(self.timeout.0.unsigned_abs()))).build();
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers.clone());
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            if self.compression == Encoding::Gzip {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        let mut answer = request.send(body).map_err(|error| refused(&error))?;
        let status = answer.status().as_u16();
        let wait = answer.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, Timestamp::now()));
        let binary = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-protobuf"));
        let mut said = Vec::new();
        // An answer that breaks off or is too long still has its status.
        let _ = answer.body_mut().as_reader().take(MOST_ANSWER).read_to_end(&mut said);
        if answer.status().is_success() {
            let partial = ExportMetricsServiceResponse::decode(&*said).ok().filter(|_| binary).and_then(|said| said.partial_success);
            let partial = partial.filter(|partial| partial.rejected_data_points > 0);
            return partial.map_or(Ok(()), |partial| {
                let (points, why) = (partial.rejected_data_points, shown(&partial.error_message));
                Err(refused(&format_args!("{points} points were rejected{why}")))
            });
        }
        let why = if binary { Status::decode(&*said).map(|status| status.message).unwrap_or_default() } else { String::new() };
        let retry_after = wait.filter(|_| matches!(status, 429 | 503));
        Err(Refused { retry_after, ..refused(&format_args!("HTTP {status}{}", shown(&why))) })
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
}

/// A receiver's words, fit for a line of a log.
fn shown(words: &str) -> String {
    let line: String = words.chars().filter(|letter| !letter.is_control()).take(200).collect();
    if line.is_empty() { line } else { format!(", {line:?}") }
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

/// Seconds, or a date as RFC 9110 writes it.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let wait = value.trim().parse().map(Duration::from_secs).ok().or_else(|| {
        let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value.trim()).ok()?;
        // A date that is over is no wait.
        Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
    })?;
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::super::tests::example;
    use super::*;

    /// Written by opentelemetry-proto 1.45 for Python: `tests/golden/make_exporters.py`.
    const EXPECTED: &[u8] = include_bytes!("golden/example.otlp");

    fn push(text: &str) -> Push {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_request_is_the_one_that_another_implementation_writes() {
        let resource = [("service.name".to_owned(), "barograph".to_owned()), ("host.name".to_owned(), "é\"\n".to_owned())];
        let found = request(&example(), &resource, "0.1.0", (1_700_000_000_000_000_000, 1_700_000_060_000_000_001)).encode_to_vec();
        assert!(found == EXPECTED, "{}", found.escape_ascii());
    }

    #[test]
    fn counts_that_outlive_the_process_do_not_say_that_they_began_with_it() {
        let starts = |family: Family| match metric(&family, (7, 9)).data.unwrap() {
            Data::Sum(sum) => sum.data_points[0].start_time_unix_nano,
            Data::ExponentialHistogram(histogram) => histogram.data_points[0].start_time_unix_nano,
            _ => panic!("a counter"),
        };
        let mut events = Family::new(Kind::Counter, "barograph_events_total", "Events.", None);
        events.push([], Value::Count(1));
        assert_eq!([starts(events.clone()), starts(events.kept())], [7, 0]);
        let mut calls = Family::new(Kind::Histogram, "barograph_call_seconds", "Calls.", Some(Unit::Seconds)).kept();
        calls.push([], Value::Histogram(ExponentialHistogram::new(6).unwrap(), 0.0));
        assert_eq!(starts(calls), 0);
    }

    #[test]
    fn a_histogram_of_far_values_is_sent_in_wider_cells_and_loses_nothing() {
        let mut sketch = ExponentialHistogram::new(6).unwrap();
        let values = [1e-300, 0.001, 0.0011, 3.0, 1e300, -2.0, -1e-5];
        sketch.update_many(&values);
        let series = Series { labels: Vec::new(), value: Value::Histogram(sketch.clone(), 1e300) };
        assert_eq!(histogram_point(&series, 1, 2).unwrap().sum, None, "of negative values too there is no sum");
        let (scale, sides) = sides(&sketch);
        let [positive, negative] = sides.map(Option::unwrap);
        assert_eq!(scale, 1);
        assert!(positive.bucket_counts.len() <= MOST_BUCKETS);
        assert_eq!((positive.bucket_counts.iter().sum::<u64>(), negative.bucket_counts.iter().sum::<u64>()), (5, 2));
        let coarse = sketch.downscale(1).unwrap();
        for (side, buckets) in [(false, positive), (true, negative)] {
            for (index, count) in coarse.indexed(side) {
                assert_eq!(buckets.bucket_counts[(index - buckets.offset) as usize], count);
            }
        }
        let mut near = ExponentialHistogram::new(6).unwrap();
        near.update_many(&[1e-6, 3600.0]);
        assert_eq!(super::sides(&near).0, 6);
    }

    #[test]
    fn a_config_is_checked_and_its_secrets_are_not_shown() {
        let full = push(
            "endpoint = \"https://otel.example/?key=hush\"\nheaders = { authorization = \"Bearer hush\" }\ninterval = \"15s\"\n\
             resource = { \"service.name\" = \"fraud\" }\n",
        );
        assert!(!format!("{full:?}").contains("hush"), "{full:?}");
        assert_eq!((full.endpoint.to_string().as_str(), full.interval), ("https://otel.example/v1/metrics", Length(15 * SECOND)));
        assert_eq!(full.endpoint.0.query(), Some("key=hush"));
        assert_eq!(full.resource()[0], ("service.name".to_owned(), "fraud".to_owned()));
        let short = push("endpoint = \"http://127.0.0.1:4318/custom\"");
        assert_eq!(
            (short.endpoint.to_string().as_str(), short.interval, short.timeout),
            ("http://127.0.0.1:4318/custom", minute(), ten_seconds())
        );
        for (text, expected) in [
            ("", "missing field `endpoint`"),
            ("endpoint = \"collector:4318\"", "`endpoint` must be an address"),
            ("endpoint = \"ftp://hush/\"", "`endpoint` must be an address"),
            ("endpoint = \"http://user:hush@host\"", "`endpoint` must not hold a user"),
            ("endpoint = \"http://h\"\ninterval = \"0s\"", "`interval` must be in [1s, 1d], got 0s"),
            ("endpoint = \"http://h\"\ntimeout = \"2m\"", "`timeout` must be in [1s, 1m], got 2m"),
            ("endpoint = \"http://h\"\nheaders = { \"a b\" = \"hush\" }", "`headers` has a name that HTTP does not allow, \"a b\""),
            ("endpoint = \"http://h\"\nheaders = { a = \"hush\\n\" }", "the value of \"a\" in `headers` has characters"),
            ("endpoint = \"http://h\"\nheaders = { Host = \"hush\" }", "`headers` must not hold \"Host\""),
            ("endpoint = \"http://h\"\ncolour = 1", "unknown field `colour`"),
        ] {
            let error = toml::from_str::<Push>(text).unwrap_err();
            assert!(error.message().contains(expected) && !error.message().contains("hush"), "{}", error.message());
        }
    }

    /// Answers one request, and gives what it read.
    fn receiver(answer: Vec<u8>) -> (String, JoinHandle<(String, Vec<u8>)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).unwrap();
            }
            let length = head.to_lowercase().split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            reader.get_mut().write_all(&answer).unwrap();
            (head.to_lowercase(), body)
        });
        (address, thread)
    }

    fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        [format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).as_bytes(), body].concat()
    }

    fn sent(extra: &str, answer: Vec<u8>) -> (Result<(), Refused>, String, Vec<u8>) {
        let (address, thread) = receiver(answer);
        let push = push(&format!("endpoint = \"{address}\"\nheaders = {{ x-key = \"hush\" }}\n{extra}"));
        let result = push.send(&ureq::Agent::new_with_defaults(), b"metrics metrics".to_vec());
        let (head, body) = thread.join().unwrap();
        (result, head, body)
    }

    #[test]
    fn a_push_carries_headers_and_a_packed_body() {
        let (result, head, body) = sent("", answer("200 OK", "", b""));
        assert_eq!(result, Ok(()));
        assert!(head.starts_with("post /v1/metrics http/1.1\r\n"), "{head}");
        for line in ["x-key: hush", "content-type: application/x-protobuf", "content-encoding: gzip"] {
            assert!(head.contains(&format!("{line}\r\n")), "{head}");
        }
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, b"metrics metrics");
        let (_, head, body) = sent("compression = \"none\"", answer("200 OK", "", b""));
        assert!(!head.contains("content-encoding") && body == b"metrics metrics");
    }

    #[test]
    fn a_refusal_says_why_and_when_to_come_back() {
        let binary = "content-type: application/x-protobuf\r\n";
        // Status {code: 3, message: "too much\n"}.
        let status = b"\x08\x03\x12\x09too much\n";
        let (result, ..) = sent("", answer("429 Too Many Requests", &format!("retry-after: 30\r\n{binary}"), status));
        let refused = result.unwrap_err();
        assert!(refused.message.ends_with("/v1/metrics: HTTP 429, \"too much\"") && !refused.message.contains("hush"), "{refused}");
        assert_eq!(refused.retry_after, Some(Duration::from_secs(30)));
        let (result, ..) = sent("", answer("503 Service Unavailable", "", b"<html>"));
        assert_eq!(result.as_ref().map_err(|refused| refused.retry_after), Err(None));
        assert!(result.unwrap_err().message.ends_with(": HTTP 503"));
        let (result, ..) = sent("", answer("400 Bad Request", "retry-after: 30\r\n", b""));
        assert_eq!(result.unwrap_err().retry_after, None);
        // ExportMetricsServiceResponse {partial_success: {rejected_data_points: 3, error_message: "old"}}.
        let (result, ..) = sent("", answer("200 OK", binary, b"\x0a\x07\x08\x03\x12\x03old"));
        assert!(result.unwrap_err().message.ends_with(": 3 points were rejected, \"old\""));
        // A warning without rejected points, and bytes that are no message, are no failure.
        assert_eq!(sent("", answer("200 OK", binary, b"\x0a\x05\x12\x03old")).0, Ok(()));
        assert_eq!(sent("", answer("200 OK", binary, b"\xff\xff")).0, Ok(()));
        let (result, ..) = sent("", answer("307 Temporary Redirect", "location: http://127.0.0.1:1/\r\n", b""));
        assert!(result.unwrap_err().message.ends_with(": HTTP 307"));
    }

    #[test]
    fn a_receiver_that_is_silent_or_absent_ends_in_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let push = push(&format!("endpoint = \"http://{address}\"\ntimeout = \"1s\""));
        let agent = ureq::Agent::new_with_defaults();
        assert!(push.send(&agent, Vec::new()).unwrap_err().message.contains("timeout"));
        drop(listener);
        assert!(push.send(&agent, Vec::new()).is_err());
    }

    #[test]
    fn waits_are_read_as_seconds_or_dates_and_are_bounded() {
        let now: Timestamp = "2015-10-21T07:27:00Z".parse().unwrap();
        let seconds = |value| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        // RFC 9110, 5.6.7, writes dates so.
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(60));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:00:00 GMT"), Some(0));
        assert_eq!(seconds("99999999999"), Some(3600));
        assert_eq!(seconds("soon"), None);
    }
}
