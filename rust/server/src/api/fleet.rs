//! What sidecars of a fleet tell their aggregator, and what they have it answer.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::stream::Events;
use super::{About, Asked};
use crate::http::{self, Answer};
use crate::link::{IDENTITY, Link};
use crate::outbox::Parcels;
use crate::problem::{Outcome, Problem};
use crate::record::{Happening, Oddities, batch_from_stream};
use crate::shard::{Ack, Entry, Ticket};
use crate::sidecar::Sidecar;
use crate::streams::{self, Numbered};

/// `POST …/deltas`: what another sidecar has seen, or, while this one learns, events and labels as they came there.
pub(super) async fn deltas(asked: &Asked, request: &mut Request<Incoming>) -> Outcome<Answer> {
    asked.knows(&["labels"])?;
    let labels = match asked.parameter("labels") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(Problem::bad(format!("`labels` must be true or false, got {other:?}"))),
    };
    let place = asked.headers.get(streams::HEADER).ok_or_else(|| Problem::bad("a delta needs `Barograph-Sequence`"))?;
    let numbered = Numbered::parse(place.as_bytes())?;
    let sidecar = &asked.sidecar;
    if sidecar.fleet.is_some() {
        return Err(Problem::new(409, "conflict", "this sidecar has an aggregator itself").hint("send to that one"));
    }
    if let Some(expected) = http::text(&asked.headers, IDENTITY).filter(|expected| *expected != sidecar.identity) {
        return Err(Problem::new(
            409,
            "another aggregator",
            format!("this is aggregator {}, not {expected}, which has the earlier deltas", sidecar.identity),
        )
        .hint("if it takes that one's place, state its identity as `fleet.aggregator`"));
    }
    let kind = http::kind(&asked.headers);
    let what = match kind.as_str() {
        "application/vnd.barograph.snapshot" | "application/octet-stream" if !labels => Parcels::Delta,
        "application/vnd.apache.arrow.stream" if labels => Parcels::Labels,
        "application/vnd.apache.arrow.stream" => Parcels::Events,
        other => {
            return Err(Problem::new(415, "unsupported type", format!("`Content-Type` {other:?} is no delta"))
                .hint("application/vnd.barograph.snapshot, or application/vnd.apache.arrow.stream while the model learns"));
        }
    };
    let entry = match what {
        Parcels::Delta => sidecar.models.entry(&asked.model)?,
        Parcels::Events | Parcels::Labels => sidecar.entry_or_new(&asked.model, &asked.holder).await?,
    };
    let (body, permit) = asked.body(request, sidecar.config.load().max_body).await?;
    let size = body.len() as u64;
    let ack = receive(sidecar, &entry, "delta", (what, body, size), numbered, permit).await?;
    let identity = (HeaderName::from_static(IDENTITY), sidecar.identity.clone());
    Ok(Answer::json(200, &serde_json::json!({"accepted": ack.accepted, "repeated": ack.repeated}))?.with(identity.0, identity.1))
}

/// A parcel of another sidecar happens to a model, once. It came by `protocol`, as so many bytes.
///
/// # Errors
/// 400, 409 or 413 for one that cannot be added, 429 or 503 for one that can be tried again.
pub(crate) async fn receive(
    sidecar: &Sidecar,
    entry: &Arc<Entry>,
    protocol: &'static str,
    (what, body, size): (Parcels, Bytes, u64),
    place: Numbered,
    mut permit: OwnedSemaphorePermit,
) -> Outcome<Ack> {
    let (happening, rows) = if what == Parcels::Delta {
        (Happening::Delta(body, None), 0)
    } else {
        let batch = tokio::task::block_in_place(|| batch_from_stream(&body)).inspect_err(|_| sidecar.counters.undecoded(protocol))?;
        super::events::check_batch(&batch, what == Parcels::Labels)?;
        permit.merge(sidecar.models.reserve(batch.get_array_memory_size().saturating_sub(2 * body.len()))?);
        let rows = batch.num_rows() as u64;
        (if what == Parcels::Labels { Happening::Labels(batch) } else { Happening::Events(batch) }, rows)
    };
    let sent = sidecar.models.send(entry, happening, (rows, Oddities::default()), Some(Ticket::Number(place)), Some(permit)).await;
    let ack = sent.inspect_err(|problem| {
        if problem.status == 400 {
            sidecar.counters.undecoded(protocol);
        }
    })?;
    sidecar.counters.taken(protocol, &ack, size, &Oddities::default());
    Ok(ack)
}

/// Whether the aggregator answers this.
pub(super) fn is_for_aggregator(about: About, get: bool) -> bool {
    use About as A;
    get && matches!(
        about,
        A::Stream
            | A::Overview
            | A::Models
            | A::Model
            | A::Reference
            | A::Policy
            | A::Drift
            | A::History
            | A::Alerts
            | A::Examples
            | A::Series
            | A::Columns
            | A::Column
            | A::Segments
            | A::Quality
            | A::Feedback
            | A::Profile
            | A::Decisions
    )
}

/// The aggregator's answer.
pub(super) async fn asked_there(asked: &Asked, about: About, path: &str) -> Outcome<Answer> {
    let link = asked_link(asked)?;
    let query: Vec<String> = asked.query.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect();
    let whole = if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) };
    let gone = |why: String| Problem::new(502, "no aggregator", why).hint("ask with local=true for what this sidecar has itself");
    if about == About::Stream {
        return listened(asked, whole).await;
    }
    let known = http::text(&asked.headers, "if-none-match").map(str::to_owned);
    let reply = tokio::task::spawn_blocking(move || {
        let headers: Vec<(&str, &str)> = known.iter().map(|tag| ("if-none-match", tag.as_str())).collect();
        link.get(&whole, &headers)
    });
    let reply = reply.await.unwrap_or_else(|_| Err("the exchange was given up".to_owned())).map_err(gone)?;
    if matches!(reply.status, 401 | 403) {
        return Err(gone(format!("the aggregator does not let this sidecar in ({})", reply.status)));
    }
    let listed = matches!(about, About::Models | About::Overview) && reply.status == 200;
    let body = if listed { visible(asked, &reply.body)? } else { reply.body.clone() };
    let mut out = Answer::empty(reply.status);
    out.content = http::content(body);
    for name in [header::CONTENT_TYPE, header::ETAG, header::RETRY_AFTER] {
        if let Some(value) = reply.header(name.as_str()) {
            out = out.with(name, value);
        }
    }
    Ok(out)
}

/// The way to whoever is asked.
fn asked_link(asked: &Asked) -> Outcome<Arc<Link>> {
    let Some(member) = &asked.sidecar.fleet else { return Err(Problem::missing("there is no aggregator")) };
    member.asked.clone().ok_or_else(|| {
        Problem::new(
            502,
            "no aggregator",
            format!("between this sidecar and its aggregator lies {}, which answers nothing", member.place()),
        )
        .hint("state the aggregator's address as `fleet.ask`, or ask with local=true for what this sidecar has itself")
    })
}

/// Of the aggregator's models those that the asker may see.
fn visible(asked: &Asked, body: &Bytes) -> Outcome<Bytes> {
    let wrong = || Problem::new(502, "no aggregator", "the aggregator gave an answer that is no list of models");
    let mut all: Value = serde_json::from_slice(body).map_err(|_| wrong())?;
    let access = asked.sidecar.access.load();
    let models = all.get_mut("models").and_then(Value::as_array_mut).ok_or_else(wrong)?;
    models.retain(|model| model.get("name").and_then(Value::as_str).is_some_and(|name| access.sees(&asked.holder, name)));
    serde_json::to_vec(&all).map(Bytes::from).map_err(|_| wrong())
}

/// The aggregator's stream, as far as the asker may see it.
async fn listened(asked: &Asked, path: String) -> Outcome<Answer> {
    let link = asked_link(asked)?;
    let permit = super::stream::place(&asked.sidecar)?;
    let access = asked.sidecar.access.load_full();
    let holder = asked.holder.clone();
    let (sender, receiver) = mpsc::channel::<Bytes>(64);
    let (told, opened) = tokio::sync::oneshot::channel();
    // It waits for what comes for as long as it comes: on a thread of its own.
    let listening = move || {
        let _permit = permit;
        let mut source = match link.listen(&path) {
            Ok((200, source)) => {
                let _ = told.send(Ok(()));
                source
            }
            Ok((status, _)) => return drop(told.send(Err(format!("the aggregator answered {status}")))),
            Err(why) => return drop(told.send(Err(why))),
        };
        let (mut pending, mut chunk) = (Vec::new(), [0; 16 << 10]);
        while let Ok(count @ 1..) = source.read(&mut chunk) {
            pending.extend_from_slice(chunk.get(..count).unwrap_or_default());
            while let Some(end) = pending.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = pending.drain(..end + 2).collect();
                if seen(&event).is_none_or(|model| access.sees(&holder, &model)) && sender.blocking_send(event.into()).is_err() {
                    return;
                }
            }
            if pending.len() > 1 << 20 || sender.is_closed() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("stream".to_owned()).spawn(listening).map_err(|_| Problem::busy("no thread could be started"))?;
    let opened = opened.await.unwrap_or_else(|_| Err("the exchange was given up".to_owned()));
    opened.map_err(|why| Problem::new(502, "no aggregator", why).hint("ask with local=true for what this sidecar has itself"))?;
    Ok(Answer { content: Events(receiver).boxed_unsync(), ..Answer::bytes(200, "text/event-stream", Bytes::new()) })
}

/// The model that a server-sent event is about.
fn seen(event: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(event).ok()?;
    let data: Value = serde_json::from_str(text.lines().find_map(|line| line.strip_prefix("data: "))?).ok()?;
    data.get("model")?.as_str().map(str::to_owned)
}

/// A part of an address.
fn encoded(text: &str) -> String {
    let letter = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => (byte as char).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(letter).collect()
}
