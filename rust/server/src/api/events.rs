//! What comes in: events, labels, profiles, deploys, measurements.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_buffer::BooleanBuffer;
use barograph_core::hash::murmur3_x64_128;
use barograph_engine::policy::Length;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{HeaderMap, Request};
use serde::{Deserialize, Serialize};

use super::Asked;
use crate::http::{self, Answer};
use crate::ingest::{arrow, cloudevents, columns, ndjson, open_inference, otlp, sagemaker};
use crate::measurement::Measurement;
use crate::problem::{Outcome, Problem};
use crate::record::{Happening, Oddities};
use crate::rows::{Decoded, Refusal, bounded_instant};
use crate::shape::{Mark, Shape};
use crate::shard::{Ack, Entry, Ticket, clock};
use crate::sidecar::Sidecar;
use crate::streams::{self, Numbered};

/// Bodies from this size on are decoded where they do not keep others waiting.
const LARGE: usize = 64 << 10;
/// And from this one on a tight budget where they lie ready and are only looked through: it takes about a millisecond.
const LARGE_READY: usize = 4 << 20;
/// Events may be so far ahead of the clock; what is farther would keep a window open for years.
const AHEAD: i64 = 24 * 3600 * 1_000_000_000;

/// What became of a body.
#[derive(Serialize)]
struct Taken<'a> {
    accepted: u64,
    rejected_count: u64,
    rejected: &'a [Refusal],
    unknown_fields: u64,
    mistyped_fields: u64,
    repeated: bool,
    sampled_out: u64,
}

/// The formats of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Arrow,
    Lines,
    Json,
    CloudEvents,
    OpenInference,
    SageMaker,
}

impl Format {
    fn of(asked: &Asked) -> Outcome<Self> {
        match asked.parameter("protocol") {
            Some("sagemaker") => return Ok(Self::SageMaker),
            Some("open_inference") => return Ok(Self::OpenInference),
            Some(other) => return Err(Problem::bad(format!("`protocol` must be sagemaker or open_inference, got {other:?}"))),
            None => {}
        }
        if asked.headers.contains_key("ce-type") {
            return Ok(Self::CloudEvents);
        }
        Ok(match http::kind(&asked.headers).as_str() {
            "application/vnd.apache.arrow.stream" => Self::Arrow,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Self::Lines,
            "application/json" => Self::Json,
            "application/cloudevents+json" | "application/cloudevents-batch+json" => Self::CloudEvents,
            other => {
                return Err(Problem::new(415, "unsupported type", format!("`Content-Type` {other:?} is not known here")).hint(
                    "application/vnd.apache.arrow.stream, application/json (an array of events, or an object of columns), \
                     application/x-ndjson, application/cloudevents+json",
                ));
            }
        })
    }

    /// Its name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Arrow => "arrow",
            Self::Lines => "ndjson",
            Self::Json => "json",
            Self::CloudEvents => "cloudevents",
            Self::OpenInference => "open_inference",
            Self::SageMaker => "sagemaker",
        }
    }
}

/// A body as what happens by it.
struct Part {
    happening: Happening,
    decoded: Decoded,
}

fn decode(format: Format, headers: &HeaderMap, body: &Bytes, shape: &Arc<Shape>, labels: bool) -> Outcome<Vec<Part>> {
    let events = |decoded: Decoded| {
        let batch = decoded.batch.clone();
        vec![Part { happening: if labels { Happening::Labels(batch) } else { Happening::Events(batch) }, decoded }]
    };
    let header = |name: &str| http::text(headers, name).map(str::to_owned);
    let length = || header("inference-header-content-length").and_then(|length| length.parse().ok());
    Ok(match format {
        Format::Arrow => events(arrow::decode(body, shape)?),
        Format::Lines => events(ndjson::lines(body, Arc::clone(shape))?),
        Format::Json => match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'[') => events(ndjson::array(body, Arc::clone(shape))?),
            _ => events(columns::decode(body, Arc::clone(shape))?),
        },
        Format::SageMaker => events(sagemaker::decode(body, Arc::clone(shape))?),
        Format::OpenInference => events(open_inference::both(body, length(), shape)?),
        Format::CloudEvents => {
            let halves = cloudevents::decode(&header, body, shape)?;
            let part = |half: cloudevents::Half| Part {
                happening: Happening::Half(half.side, half.batch.clone()),
                decoded: Decoded {
                    batch: half.batch,
                    refused: Vec::new(),
                    refusals: 0,
                    unknown: half.unknown,
                    mistyped: half.mistyped,
                    ids: None,
                },
            };
            halves.into_iter().map(part).collect()
        }
    })
}

/// Bytes of what a batch holds: columns of an Arrow body share its bytes, which are counted once.
fn memory_of(batch: &RecordBatch) -> usize {
    let of = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
    batch.columns().iter().map(of).sum()
}

/// Refuses what cannot be kept.
fn check(part: &Part, labels: bool) -> Outcome<()> {
    check_batch(&part.decoded.batch, labels)
}

/// Refuses events or labels that cannot be kept.
pub(super) fn check_batch(batch: &RecordBatch, labels: bool) -> Outcome<()> {
    if labels {
        for mark in [Mark::Id, Mark::Label] {
            if batch.num_rows() > 0 && batch.column_by_name(mark.name()).is_none() {
                return Err(Problem::bad(format!("labels need the field {}", mark.name()))
                    .hint("rename it by `roles` of the model, or in the body"));
            }
        }
    }
    let times = batch.column_by_name(Mark::Time.name()).and_then(|times| barograph_engine::frame::nanoseconds(times.as_ref()));
    let latest = clock() + AHEAD;
    if let Some(row) = times.and_then(|times| times.iter().position(|time| time.is_some_and(|time| time > latest))) {
        return Err(Problem::bad(format!("`_time` of row {row} lies more than a day ahead")).hint("times are UTC; is the unit right?"));
    }
    Ok(())
}

/// What a body is told from others by, if it is to count once.
fn once(headers: &HeaderMap, entry: &Entry, body: &[u8], labels: bool) -> Outcome<Option<Ticket>> {
    match (headers.get("idempotency-key"), headers.get(streams::HEADER)) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Problem::bad("`Idempotency-Key` and `Barograph-Sequence` came together").hint("one of them is enough")),
        (None, Some(place)) => Ok(Some(Ticket::Number(Numbered::parse(place.as_bytes())?))),
        (Some(key), None) => {
            if key.is_empty() || key.len() > 255 {
                return Err(Problem::bad("`Idempotency-Key` must have 1 to 255 characters"));
            }
            let (high, low) = murmur3_x64_128(key.as_bytes(), 0);
            // The same bytes are another body where they are labels: they are not to be taken for events that came before.
            let (hash, _) = murmur3_x64_128(body, entry.name.len() as u64 | u64::from(labels) << 32);
            Ok(Some(Ticket::Key(u128::from(high) << 64 | u128::from(low), hash)))
        }
    }
}

/// For which rows each of so many fair coins shows its head.
fn heads(rows: usize, coins: u32) -> BooleanBuffer {
    // Nobody outside can foresee them: the keys are the process's own.
    let hat = std::hash::RandomState::new();
    let mut thrown = 0u64;
    // 64 rows throw together, until all of them have lost.
    let words = std::iter::repeat_with(|| {
        let mut heads = u64::MAX;
        for _ in 0..coins {
            heads &= hat.hash_one(thrown);
            thrown += 1;
            if heads == 0 {
                break;
            }
        }
        heads
    });
    BooleanBuffer::new(words.take(rows.div_ceil(64)).collect::<Vec<_>>().into(), 0, rows)
}

/// Leaves out every event for which one of so many fair coins says so. Halves stay: one without the other would be no event.
fn thinned(happening: Happening, halvings: u32) -> Outcome<Happening> {
    let Happening::Events(batch) = happening else { return Ok(happening) };
    if halvings == 0 || batch.num_rows() == 0 {
        return Ok(Happening::Events(batch));
    }
    let halvings = halvings.min(16);
    let kept = BooleanArray::new(heads(batch.num_rows(), halvings), None);
    let batch =
        arrow_select::filter::filter_record_batch(&batch, &kept).map_err(|error| Problem::new(500, "internal error", error.to_string()))?;
    Ok(Happening::Sample(halvings, batch))
}

/// `POST …/events` and `…/labels`.
pub(super) async fn events(asked: &Asked, request: &mut Request<Incoming>, labels: bool) -> Outcome<Answer> {
    asked.knows(&["protocol"])?;
    let sidecar = &asked.sidecar;
    let format = Format::of(asked)?;
    let entry = sidecar.entry_or_new(&asked.model, &asked.holder).await?;
    let (body, mut permit) = asked.body(request, sidecar.config.load().max_body).await?;
    let size = body.len();
    if size == 0 {
        return Err(Problem::bad("the body is empty"));
    }
    let once = once(&asked.headers, &entry, &body, labels)?;
    let shape = entry.shape.load_full();
    let work = || -> Outcome<Vec<Part>> {
        let parts = decode(format, &asked.headers, &body, &shape, labels)?;
        parts.iter().try_for_each(|part| check(part, labels))?;
        Ok(parts)
    };
    let large = if format == Format::Arrow && sidecar.spending.is_tight() { LARGE_READY } else { LARGE };
    let parts = if size < large { work() } else { tokio::task::block_in_place(work) };
    let parts = parts.inspect_err(|_| sidecar.counters.undecoded(format.name()))?;
    let memory: usize = parts.iter().map(|part| memory_of(&part.decoded.batch)).sum();
    if memory > 2 * size {
        permit.merge(sidecar.models.reserve(memory - 2 * size)?);
    }
    // Of what the load asks for and what the budget asks for the deeper one.
    let crowded = if sidecar.config.load().sampling { sidecar.models.halvings(&permit) } else { 0 };
    let halvings = if labels { 0 } else { crowded.max(sidecar.spending.halvings()) };
    let mut permit = Some(permit);
    let mut sampled_out = 0;
    let (mut all, mut refused, mut odd) = (Ack { accepted: 0, refused: 0, repeated: false }, Vec::new(), Oddities::default());
    for (number, part) in parts.into_iter().enumerate() {
        // Each part of a body is counted once by itself.
        let once = once.as_ref().map(|ticket| ticket.part(number));
        let own = Oddities { refused: part.decoded.refusals, unknown: part.decoded.unknown, mistyped: part.decoded.mistyped };
        (odd.unknown, odd.mistyped) = (odd.unknown + own.unknown, odd.mistyped + own.mistyped);
        refused.extend(part.decoded.refused);
        let rows = part.decoded.batch.num_rows() as u64;
        let (ids, whole) =
            (part.decoded.ids, shape.examples.filter(|_| matches!(part.happening, Happening::Events(_))).map(|_| part.decoded.batch));
        let happening = thinned(part.happening, halvings)?;
        if let Happening::Sample(_, kept) = &happening {
            sampled_out += rows - kept.num_rows() as u64;
        }
        let ack = sidecar.models.send(&entry, happening, (rows, own), once, permit.take()).await?;
        if let Some(whole) = whole.filter(|_| !ack.repeated) {
            entry.examples.add(&whole, ids.as_ref(), &shape, clock());
        }
        all = Ack { accepted: all.accepted + ack.accepted, refused: all.refused + ack.refused, repeated: all.repeated || ack.repeated };
    }
    sidecar.counters.taken(format.name(), &all, size as u64, &odd);
    let taken = Taken {
        accepted: all.accepted,
        rejected_count: all.refused,
        rejected: &refused,
        unknown_fields: odd.unknown,
        mistyped_fields: odd.mistyped,
        repeated: all.repeated,
        sampled_out: if all.repeated { 0 } else { sampled_out },
    };
    // A body without one good row is a mistake of its sender.
    Answer::json(if all.accepted == 0 && all.refused > 0 { 422 } else { 200 }, &taken)
}

/// `POST …/profiles`: a profile that was made elsewhere with this model's reference.
pub(super) async fn profiles(asked: &Asked, request: &mut Request<Incoming>) -> Outcome<Answer> {
    asked.knows(&["time"])?;
    let time = match asked.parameter("time") {
        Some(text) => bounded_instant(text)
            .ok_or_else(|| Problem::bad(format!("`time` must be an instant such as 2026-01-31T12:00:00Z, got {text:?}")))?,
        None => clock(),
    };
    let sidecar = &asked.sidecar;
    let entry = sidecar.models.entry(&asked.model)?;
    let (body, permit) = asked.body(request, sidecar.config.load().max_body).await?;
    let once = once(&asked.headers, &entry, &body, false)?;
    let profile = barograph_engine::Profile::from_bytes(&body)?;
    let happening = Happening::Profile(body.to_vec(), time);
    let ack = sidecar.models.send(&entry, happening, (profile.rows, Oddities::default()), once, Some(permit)).await?;
    sidecar.counters.taken("profile", &ack, body.len() as u64, &Oddities::default());
    let taken = Taken {
        accepted: ack.accepted,
        rejected_count: 0,
        rejected: &[],
        unknown_fields: 0,
        mistyped_fields: 0,
        repeated: ack.repeated,
        sampled_out: 0,
    };
    Answer::json(200, &taken)
}

/// A declared deploy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deploy {
    version: String,
    time: Option<String>,
    mute: Option<Length>,
}

/// `POST …/deploys`.
pub(super) async fn deploys(asked: &Asked, request: &mut Request<Incoming>) -> Outcome<Answer> {
    asked.knows(&[])?;
    let sidecar = &asked.sidecar;
    let entry = sidecar.models.entry(&asked.model)?;
    let deploy: Deploy = super::models::document(asked, request).await?;
    if deploy.version.is_empty() || deploy.version.len() > 200 {
        return Err(Problem::bad("`version` must have 1 to 200 characters"));
    }
    let time = match &deploy.time {
        Some(text) => bounded_instant(text)
            .ok_or_else(|| Problem::bad(format!("`time` must be an instant such as 2026-01-31T12:00:00Z, got {text:?}")))?,
        None => clock(),
    };
    let until = time.saturating_add(deploy.mute.map_or(0, |mute| mute.0));
    sidecar.models.happen(&entry, Happening::Deploy(deploy.version, time, until)).await?;
    Ok(Answer::empty(204))
}

/// `POST /v1/metrics`: measurements by OTLP.
pub(super) async fn measured(asked: &Asked, request: &mut Request<Incoming>) -> Outcome<Answer> {
    asked.knows(&[])?;
    let sidecar = &asked.sidecar;
    let json = match http::kind(&asked.headers).as_str() {
        "application/json" => true,
        "application/x-protobuf" => false,
        other => return Err(Problem::new(415, "unsupported type", format!("`Content-Type` {other:?} is not OTLP"))),
    };
    let (body, mut permit) = asked.body(request, sidecar.config.load().max_body).await?;
    let size = body.len();
    let undecoded = |_: &Problem| sidecar.counters.undecoded("otlp");
    let weight = otlp::weight(&body, json).inspect_err(undecoded)?;
    permit.merge(sidecar.models.reserve(weight.saturating_sub(2 * size))?);
    let read = || otlp::read(&body, json);
    let metrics = if size < LARGE { read() } else { tokio::task::block_in_place(read) }.inspect_err(undecoded)?;
    let (own, holder) = (Arc::clone(sidecar), asked.holder.clone());
    // On a task of its own: if the client goes away in between, what was logged has to be settled all the same.
    let work = tokio::spawn(async move {
        let _permit = permit;
        let batch = if size < LARGE { own.otlp(&metrics) } else { tokio::task::block_in_place(|| own.otlp(&metrics)) };
        drop(metrics);
        handed_on(&own, batch, &holder).await
    });
    let partial = work.await.map_err(|_| Problem::unavailable("the request was not finished"))??;
    let ack = Ack { accepted: 0, refused: partial.rejected(), repeated: false };
    sidecar.counters.taken("otlp", &ack, size as u64, &Oddities::default());
    let kind = if json { "application/json" } else { "application/x-protobuf" };
    Ok(Answer::bytes(200, kind, otlp::response(&partial, json)))
}

/// Hands the parts of a batch to their models, and says what became of them.
async fn handed_on(sidecar: &Arc<Sidecar>, mut batch: otlp::Batch, holder: &str) -> Outcome<otlp::Partial> {
    let memory = sidecar.models.reserve(batch.size());
    let mut outcomes: Vec<Outcome<()>> = Vec::new();
    let mut failed: Option<(String, Problem)> = None;
    for part in &mut batch.parts {
        let measurement = &part.measurement;
        let known = failed.as_ref().filter(|(model, _)| *model == measurement.model).map(|(_, problem)| problem.clone());
        let outcome = match (&memory, known) {
            (Err(problem), _) => Err(problem.clone()),
            // A cumulative series is settled in the order of its points.
            (Ok(_), Some(problem)) => Err(problem),
            (Ok(_), None) if measurement.is_empty() => Ok(()),
            (Ok(_), None) => logged(sidecar, measurement.clone(), part.once, holder).await,
        };
        if let Err(problem) = &outcome {
            failed = Some((part.measurement.model.clone(), problem.clone()));
        }
        outcomes.push(outcome);
    }
    sidecar.otlp_done(batch, outcomes)
}

async fn logged(sidecar: &Arc<Sidecar>, measurement: Measurement, once: Option<(u128, u64)>, holder: &str) -> Outcome<()> {
    let entry = sidecar.entry_or_new(&measurement.model, holder).await?;
    sidecar
        .models
        .send(&entry, Happening::Measured(measurement), (0, Oddities::default()), once.map(|(key, body)| Ticket::Key(key, body)), None)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_coin_leaves_half() {
        const ROWS: usize = 1_000_003;
        for coins in [1, 2, 5, 10, 16] {
            let (one, other) = (heads(ROWS, coins), heads(ROWS, coins));
            assert_eq!(one.len(), ROWS);
            let share = 0.5f64.powi(coins as i32);
            // Six standard deviations of a binomial count.
            let bound = 6.0 * (ROWS as f64 * share * (1.0 - share)).sqrt() + 1.0;
            assert!((one.count_set_bits() as f64 - ROWS as f64 * share).abs() < bound, "{coins}: {}", one.count_set_bits());
            // Neither do neighbours keep together, nor do two batches lose the same rows.
            let pairs = (1..ROWS).filter(|row| one.value(row - 1) && one.value(*row)).count() as f64;
            let both = (&one & &other).count_set_bits() as f64;
            let bound = 9.0 * (ROWS as f64 * share * share).sqrt() + 9.0;
            assert!((pairs - ROWS as f64 * share * share).abs() < bound, "{coins}: {pairs}");
            assert!((both - ROWS as f64 * share * share).abs() < bound, "{coins}: {both}");
        }
        assert_eq!(heads(0, 3).len(), 0);
        assert_eq!(heads(70, 0).count_set_bits(), 70);
    }
}
