//! Models as their owner states them: settings, reference, policy; and what people say about alerts.

use std::collections::BTreeMap;
use std::sync::Arc;

use barograph_engine::policy::{Length, Policy};
use barograph_engine::quality::Task;
use barograph_engine::{Reference, ReferenceBuilder, Schema};
use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Asked;
use crate::http::{self, Answer};
use crate::ingest::arrow;
use crate::model::{Learn, PolicyOf, Settings, State};
use crate::problem::{Outcome, Problem};
use crate::record::Happening;
use crate::shard::{Entry, clock};

/// Bytes of a document.
const DOCUMENT: usize = 1 << 20;

/// A small JSON document.
///
/// # Errors
/// 400 naming the key, 415.
pub(super) async fn document<T: DeserializeOwned>(asked: &Asked, request: &mut Request<Incoming>) -> Outcome<T> {
    let kind = http::kind(&asked.headers);
    if kind != "application/json" {
        return Err(Problem::new(415, "unsupported type", format!("`Content-Type` must be application/json, got {kind:?}")));
    }
    let (body, _permit) = asked.body(request, DOCUMENT).await?;
    http::is_object(&body)?;
    let mut json = serde_json::Deserializer::from_slice(&body);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!("`{path}`: ") };
        Problem::bad(format!("{place}{}", error.inner()))
    })?;
    json.end().map_err(|error| Problem::bad(error.to_string()))?;
    Ok(read)
}

/// What a PUT of a model says; the policy has an address of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Stated {
    task: Option<Task>,
    classes: Option<Vec<String>>,
    roles: Option<BTreeMap<String, String>>,
    learn: Option<Learn>,
    segments: Option<Vec<String>>,
    examples: Option<usize>,
    privacy: Option<Value>,
}

/// The model as a document.
fn shown(name: &str, settings: &Settings, (state, sampling, fleet): &(Value, Value, Value)) -> Value {
    json!({
        "name": name,
        "task": settings.policy.0.task,
        "classes": settings.policy.0.classes,
        "roles": settings.roles,
        "learn": settings.learn,
        "segments": settings.segments,
        "examples": settings.examples,
        "privacy": settings.privacy,
        "state": state,
        "sampling": sampling,
        "fleet": fleet,
    })
}

/// The sidecars that tell this model what they see, and what this one has for its aggregator.
pub(super) fn fleet(model: &crate::model::Model) -> Value {
    let streams: BTreeMap<&str, &crate::streams::Stream> = model.streams.iter().collect();
    let sources = model.sources.iter().map(|(name, source)| {
        let stream = streams.get(name);
        json!({
            "source": name,
            "last_seen": source.seen,
            "sequence": stream.and_then(|stream| stream.last()),
            "missing": stream.map_or(0, |stream| stream.missing()),
            "behind_seconds": (model.now - source.until).max(0) as f64 / 1e9,
            "deltas": source.deltas,
            "events": source.events,
        })
    });
    let outbox = model.outbox.as_ref().map(|outbox| {
        json!({"stream": &*outbox.stream, "sequence": outbox.last(), "waiting": outbox.parcels().count(), "bytes": outbox.bytes()})
    });
    json!({"sources": sources.collect::<Vec<_>>(), "outdated_events": model.outdated, "outbox": outbox})
}

/// Where a model is with its reference.
pub(super) fn state(model: &crate::model::Model) -> Value {
    match &model.state {
        State::Watching(monitor) => json!({"word": "watching", "reference": monitor.reference().id()}),
        State::Learning(learning) => json!({
            "word": "learning",
            "events": learning.seen,
            "of": model.settings.learn.events,
            "days": model.settings.learn.days,
            "trouble": learning.trouble,
        }),
    }
}

/// `GET /v1/models/{model}`.
pub(super) async fn get(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&[])?;
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let inclusion = asked.sidecar.spending.inclusion();
    let about = move |model: &mut crate::model::Model| {
        let sampling = json!({"inclusion": inclusion, "sampled_out": model.counts.sampled_out, "given_up": model.detail.words()});
        (model.settings.clone(), (state(model), sampling, fleet(model)))
    };
    let (settings, state) = asked.sidecar.models.look(&entry, about).await?;
    let etag = asked.sidecar.etag(&asked.model)?;
    Ok(Answer::json(200, &shown(&asked.model, &settings, &state))?.tagged(&etag, &asked.headers))
}

/// `PUT /v1/models/{model}`.
pub(super) async fn put(asked: &Asked, request: &mut Request<Incoming>) -> Outcome<Answer> {
    asked.knows(&[])?;
    crate::fleet::alone(&asked.sidecar)?;
    let stated: Stated = document(asked, request).await?;
    let sidecar = &asked.sidecar;
    let known = sidecar.models.entry(&asked.model).ok();
    let mut settings = match &known {
        Some(entry) => sidecar.models.look(entry, |model| model.settings.clone()).await?,
        None => Settings::default(),
    };
    let policy = &mut settings.policy.0;
    policy.task = stated.task.unwrap_or(policy.task);
    policy.classes = stated.classes.unwrap_or_else(|| std::mem::take(&mut policy.classes));
    settings.roles = stated.roles.unwrap_or(settings.roles);
    settings.learn = stated.learn.unwrap_or(settings.learn);
    settings.segments = stated.segments.unwrap_or(settings.segments);
    settings.examples = stated.examples.unwrap_or(settings.examples);
    settings.privacy = stated.privacy.or(settings.privacy);
    let forgets = settings.examples == 0;
    let created = sidecar.state(&asked.model, settings, asked.tag("if-match")?.as_deref(), &asked.holder).await?;
    if let Some(entry) = known.filter(|_| forgets) {
        entry.examples.clear();
    }
    let etag = sidecar.etag(&asked.model)?;
    Ok(Answer::empty(if created { 201 } else { 204 }).with(header::ETAG, etag))
}

/// `DELETE /v1/models/{model}`.
pub(super) async fn delete(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&[])?;
    asked.sidecar.models.entry(&asked.model)?;
    asked.sidecar.delete(&asked.model, asked.tag("if-match")?.as_deref(), &asked.holder).await?;
    Ok(Answer::empty(204))
}

/// `GET …/policy`.
pub(super) async fn get_policy(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&[])?;
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let policy = asked.sidecar.models.look(&entry, |model| model.settings.policy.clone()).await?;
    let etag = asked.sidecar.etag(&asked.model)?;
    Ok(Answer::json(200, &policy)?.tagged(&etag, &asked.headers))
}

/// `PUT …/policy`, as JSON or TOML.
pub(super) async fn put_policy(asked: &Asked, request: &mut Request<Incoming>) -> Outcome<Answer> {
    asked.knows(&[])?;
    crate::fleet::alone(&asked.sidecar)?;
    let sidecar = &asked.sidecar;
    let entry = sidecar.models.entry(&asked.model)?;
    let kind = http::kind(&asked.headers);
    let (body, _permit) = asked.body(request, DOCUMENT).await?;
    let text = std::str::from_utf8(&body).map_err(|_| Problem::bad("the body is not UTF-8"))?;
    let (mut policy, says_memory) = match kind.as_str() {
        "application/json" => (Policy::from_json(text)?, text.contains("\"memory\"")),
        "application/toml" => (Policy::from_toml(text, &asked.model, "the body")?, text.contains("memory")),
        other => {
            return Err(Problem::new(
                415,
                "unsupported type",
                format!("`Content-Type` must be application/json or application/toml, got {other:?}"),
            ));
        }
    };
    policy.check()?;
    if !says_memory {
        policy.memory = PolicyOf::default().0.memory;
    }
    let mut settings = sidecar.models.look(&entry, |model| model.settings.clone()).await?;
    settings.policy = PolicyOf(policy);
    sidecar.state(&asked.model, settings, asked.tag("if-match")?.as_deref(), &asked.holder).await?;
    Ok(Answer::empty(204).with(header::ETAG, sidecar.etag(&asked.model)?))
}

/// `GET …/reference`.
pub(super) async fn get_reference(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&[])?;
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let reference = asked.sidecar.models.look(&entry, |model| model.monitor().map(|monitor| Arc::clone(monitor.reference()))).await?;
    let reference = reference.ok_or_else(|| Problem::missing("the model has no reference yet: it is learning one"))?;
    let etag = format!("\"{}\"", reference.id());
    Ok(Answer::bytes(200, "application/vnd.barograph.snapshot", reference.to_bytes()).tagged(&etag, &asked.headers))
}

/// `PUT …/reference`: a snapshot, or rows as an Arrow stream.
pub(super) async fn put_reference(asked: &Asked, request: &mut Request<Incoming>) -> Outcome<Answer> {
    asked.knows(&[])?;
    crate::fleet::alone(&asked.sidecar)?;
    let sidecar = &asked.sidecar;
    let entry = sidecar.entry_or_new(&asked.model, &asked.holder).await?;
    let kind = http::kind(&asked.headers);
    let (body, _permit) = asked.body(request, sidecar.config.load().max_body).await?;
    let reference = match kind.as_str() {
        "application/vnd.barograph.snapshot" | "application/octet-stream" => Reference::from_bytes(&body)?,
        "application/vnd.apache.arrow.stream" => tokio::task::block_in_place(|| of_rows(&body, &entry))?,
        other => {
            return Err(Problem::new(415, "unsupported type", format!("`Content-Type` {other:?} is no reference"))
                .hint("application/vnd.barograph.snapshot (what `bg.Reference(...).save` writes) or application/vnd.apache.arrow.stream"));
        }
    };
    if let Some(wanted) = asked.tag("if-match")? {
        let current =
            sidecar.models.look(&entry, |model| model.monitor().map(|monitor| format!("\"{}\"", monitor.reference().id()))).await?;
        if current.as_deref() != Some(wanted.as_str()) {
            return Err(Problem::new(412, "precondition failed", "the reference is another one than `If-Match` says"));
        }
    }
    let id = reference.id().to_owned();
    check_fits(sidecar, &entry, &reference).await?;
    sidecar.models.happen(&entry, Happening::Reference(reference.to_bytes())).await?;
    sidecar.audit(&asked.holder, "reference", &asked.model, &json!({"reference": id}));
    Ok(Answer::empty(204).with(header::ETAG, format!("\"{id}\"")))
}

/// Refuses a reference that the model's policy cannot be held to, before it is written down.
async fn check_fits(sidecar: &crate::sidecar::Sidecar, entry: &Arc<Entry>, reference: &Reference) -> Outcome<()> {
    let (settings, name) = sidecar.models.look(entry, |model| (model.settings.clone(), model.name.clone())).await?;
    let config = barograph_engine::monitor::Config { name, privacy: settings.described(), policy: settings.policy.0 };
    barograph_engine::Monitor::new(config, Arc::new(reference.clone()))?;
    Ok(())
}

/// A reference of rows.
fn of_rows(body: &Bytes, entry: &Entry) -> Outcome<Reference> {
    let privacy = entry.shape.load().privacy.clone();
    let shape = crate::shape::Shape { open: true, privacy, ..crate::shape::Shape::default() };
    let batch = arrow::decode(body, &shape)?.batch;
    let mut builder = ReferenceBuilder::new(&Schema::infer(&batch)?, None, None)?;
    builder.update(&batch)?;
    while builder.fix()? {
        builder.count(&batch)?;
    }
    Ok(builder.finish(Some(clock()))?)
}

/// What somebody says about an alert.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Said {
    until: Option<Length>,
}

/// `POST …/alerts/{id}/acknowledge` and `…/mute`.
pub(super) async fn stand(asked: &Asked, request: &mut Request<Incoming>, mute: bool) -> Outcome<Answer> {
    asked.knows(&[])?;
    // Alerts are the aggregator's: here there are none of these ids.
    crate::fleet::alone(&asked.sidecar)?;
    let sidecar = &asked.sidecar;
    let entry = sidecar.models.entry(&asked.model)?;
    let id: u64 = asked.object.parse().map_err(|_| Problem::missing(format!("there is no alert {:?}", asked.object)))?;
    let alert = sidecar
        .models
        .look(&entry, move |model| {
            let alerts = model.monitor().map(barograph_engine::Monitor::alerts).unwrap_or_default();
            alerts.iter().rev().find(|alert| alert.id == id).cloned()
        })
        .await?;
    let alert = alert.ok_or_else(|| Problem::missing(format!("there is no alert {id} of model {:?}", asked.model)))?;
    let said: Said = if mute { document(asked, request).await? } else { Said::default() };
    let now = clock();
    let until = now.saturating_add(said.until.map_or(24 * 3600 * 1_000_000_000, |length| length.0));
    sidecar.stand(&asked.model, &asked.object, &alert.column, mute.then_some(until), &asked.holder)?;
    if !mute && let Some(deliveries) = sidecar.deliveries.get() {
        tokio::task::block_in_place(|| deliveries.acknowledge(&asked.model, &entry.generation, &alert, &asked.holder, now))?;
    }
    Ok(Answer::empty(204))
}

/// `POST …/save`: writes the model's state now, for instance before its folder is copied.
pub(super) async fn save(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&[])?;
    let entry = asked.sidecar.models.entry(&asked.model)?;
    asked.sidecar.models.save(&entry).await?;
    Ok(Answer::empty(204))
}

/// An id whose traces go.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Traces {
    id: Value,
}

/// `POST …/erase`: forgets what is held for an id.
pub(super) async fn erase(asked: &Asked, request: &mut Request<Incoming>) -> Outcome<Answer> {
    asked.knows(&[])?;
    let entry = asked.sidecar.models.entry(&asked.model)?;
    let traces: Traces = document(asked, request).await?;
    let key = entry.shape.load().key_of(&traces.id)?;
    entry.examples.erase(key);
    asked.sidecar.models.erase(&entry, key).await?;
    asked.sidecar.audit(&asked.holder, "erase", &asked.model, &json!({}));
    Ok(Answer::empty(204))
}
