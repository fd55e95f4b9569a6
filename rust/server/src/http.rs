//! Requests and answers: bodies within limits, problems as RFC 9457, answers with the headers that keep browsers out.

use std::convert::Infallible;
use std::io::Read;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::idle::Reach;
use crate::models::Models;
use crate::problem::{Outcome, Problem};

/// A part of a body has to come within this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// And a whole one at this many bytes a second, after as long as a part may take.
const SLOWEST: f64 = 16_384.0;
/// Decoded bytes that a body may have for each of its own: text that machines write compresses by 5 to 30.
const MOST_RATIO: usize = 200;

/// The body of an answer.
pub type Content = UnsyncBoxBody<Bytes, Infallible>;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Headers besides those that every answer has.
    pub headers: Vec<(HeaderName, String)>,
    /// Its body.
    pub content: Content,
}

/// Bytes as a body.
pub fn content(bytes: impl Into<Bytes>) -> Content {
    Full::new(bytes.into()).boxed_unsync()
}

impl Answer {
    /// Nothing to say.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), content: content(Bytes::new()) }
    }

    /// A document.
    ///
    /// # Errors
    /// None in practice.
    pub fn json<T: Serialize>(status: u16, value: &T) -> Outcome<Self> {
        let bytes = serde_json::to_vec(value).map_err(|error| Problem::new(500, "internal error", error.to_string()))?;
        Ok(Self::bytes(status, "application/json", bytes))
    }

    /// Bytes of a type.
    pub fn bytes(status: u16, kind: &str, bytes: impl Into<Bytes>) -> Self {
        Self { status, headers: vec![(header::CONTENT_TYPE, kind.to_owned())], content: content(bytes) }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same, or 304 if the asker has it already: the tag is a hash of the bytes.
    #[must_use]
    pub fn tagged(self, tag: &str, headers: &HeaderMap) -> Self {
        let known = headers.get(header::IF_NONE_MATCH).and_then(|given| given.to_str().ok());
        let fresh = known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag || one.trim() == "*"));
        if fresh { Self::empty(304).with(header::ETAG, tag) } else { self.with(header::ETAG, tag) }
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let bytes = serde_json::to_vec(&problem).unwrap_or_default();
        let mut out = Self::bytes(problem.status, "application/problem+json", bytes);
        if let Some(seconds) = problem.retry_after {
            out = out.with(header::RETRY_AFTER, seconds.to_string());
        }
        if problem.status == 401 {
            out = out.with(header::WWW_AUTHENTICATE, "Bearer");
        }
        out
    }
}

/// What goes over the wire.
pub fn finished(answer: Answer) -> Response<Content> {
    let mut out = Response::new(answer.content);
    *out.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = out.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    out
}

/// A header as text.
pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The type of a body, without its parameters.
pub fn kind(headers: &HeaderMap) -> String {
    let kind = text(headers, "content-type").unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether JSON is an object, before a struct is read from it: it would be read from an array as well.
///
/// # Errors
/// 400 for anything else.
pub fn is_object(body: &[u8]) -> Outcome<()> {
    match body.trim_ascii_start().first() {
        Some(b'{') => Ok(()),
        _ => Err(Problem::bad("the body must be a JSON object")),
    }
}

/// Reads a body, decoded, within `limit` bytes; it holds memory of the budget until the permit is given back. With `reach` it comes in larger
/// parts.
///
/// # Errors
/// 408 for one that comes too slowly, 413, 415, 429.
pub async fn body(
    headers: &HeaderMap,
    request: &mut Request<Incoming>,
    limit: usize,
    models: &Models,
    reach: Option<&Arc<Reach>>,
) -> Outcome<(Bytes, OwnedSemaphorePermit)> {
    let incoming = request.body_mut();
    let large = || Problem::too_large(format!("a body has at most {limit} bytes, decoded")).hint("send several");
    let announced = incoming.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    // What is read, what it is decoded into, and what is written.
    if announced.is_some_and(|length| length > limit) {
        return Err(large());
    }
    let mut permit = models.reserve(2 * announced.unwrap_or(0))?;
    let stretched = announced.and(reach).map(Reach::stretch);
    let began = Instant::now();
    let (mut first, mut all, mut length) = (None::<Bytes>, Vec::new(), 0);
    // One clock for all parts, set anew only when it rings.
    let mut clock = pin!(tokio::time::sleep(PATIENCE));
    let mut heard = began;
    loop {
        let frame = tokio::select! {
            biased;
            frame = incoming.frame() => frame,
            () = clock.as_mut() => {
                if heard.elapsed() >= PATIENCE {
                    return Err(Problem::new(408, "too slow", "no part of the body came for 10 s"));
                }
                clock.as_mut().reset((heard + PATIENCE).into());
                continue;
            }
        };
        let Some(frame) = frame else { break };
        heard = Instant::now();
        let frame = frame.map_err(|_| Problem::bad("the body ended too early"))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > limit {
            return Err(large());
        }
        if announced.is_none() {
            permit.merge(models.reserve(2 * data.len())?);
        }
        if (heard - began).as_secs_f64() > PATIENCE.as_secs_f64() + length as f64 / SLOWEST {
            return Err(Problem::new(408, "too slow", "the body comes too slowly"));
        }
        if let Some(first) = first.take() {
            all.reserve(announced.unwrap_or(0).max(first.len() + data.len()));
            all.extend_from_slice(&first);
        }
        if length == data.len() {
            first = Some(data);
        } else {
            all.extend_from_slice(&data);
        }
    }
    drop(stretched);
    let raw = first.unwrap_or_else(|| all.into());
    let decoded = match text(headers, "content-encoding").map(str::trim) {
        None | Some("" | "identity") => raw,
        Some("gzip" | "x-gzip") => expand(flate2::read::MultiGzDecoder::new(raw.as_ref()), raw.len(), limit, models, &mut permit)?,
        Some("zstd") => {
            let decoder = zstd::stream::read::Decoder::with_buffer(raw.as_ref());
            let mut decoder = decoder.map_err(|error| Problem::bad(format!("the body is no zstd: {error}")))?;
            // A frame may ask for a window of gigabytes.
            decoder.window_log_max(23).map_err(|error| Problem::bad(format!("the body is no zstd: {error}")))?;
            expand(decoder, raw.len(), limit, models, &mut permit)?
        }
        Some(other) => {
            return Err(Problem::new(415, "unsupported encoding", format!("`Content-Encoding` must be gzip or zstd, got {other:?}")));
        }
    };
    Ok((decoded, permit))
}

/// Reads past what is left of a body that was refused, for a while: many clients listen only after they have sent everything, and would see
/// a broken connection in place of the answer.
pub async fn pass_over(incoming: &mut Incoming, limit: usize) {
    if incoming.is_end_stream() {
        return;
    }
    let mut length = 0;
    let to_the_end = async {
        while let Some(Ok(frame)) = incoming.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len);
            if length > limit {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, to_the_end).await;
}

/// Expands a compressed body within the limit.
fn expand(mut decoder: impl Read, compressed: usize, limit: usize, models: &Models, permit: &mut OwnedSemaphorePermit) -> Outcome<Bytes> {
    const STEP: usize = 256 << 10;
    let most = limit.min(compressed.saturating_mul(MOST_RATIO).max(STEP));
    let mut out = Vec::new();
    loop {
        permit.merge(models.reserve(2 * STEP)?);
        let before = out.len();
        out.reserve(STEP);
        let read = decoder.by_ref().take(STEP as u64).read_to_end(&mut out);
        read.map_err(|error| Problem::bad(format!("the body could not be decompressed: {error}")))?;
        if out.len() > most {
            return Err(Problem::too_large(format!("a body has at most {limit} bytes, decoded, and {MOST_RATIO} for each of its own"))
                .hint("send several"));
        }
        if out.len() == before {
            return Ok(out.into());
        }
    }
}
