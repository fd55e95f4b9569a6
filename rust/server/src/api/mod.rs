//! What can be asked of a sidecar over HTTP, and who may ask.

mod alerts;
mod columns;
mod events;
mod feedback;
pub(crate) mod fleet;
mod models;
mod overview;
mod quality;
mod read;
mod segments;
mod series;
mod stream;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header;
use hyper::{HeaderMap, Method, Request};
use tokio::sync::OwnedSemaphorePermit;

use crate::access::Scope;
use crate::http::{self, Answer};
use crate::idle::Reach;
use crate::problem::{Outcome, Problem};
use crate::sidecar::Sidecar;

/// What a request is about, and the scope it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Page,
    Health,
    Ready,
    Metrics,
    OpenApi,
    Version,
    Stream,
    OtlpMetrics,
    Overview,
    Models,
    Model,
    Reference,
    Policy,
    Events,
    Labels,
    Profiles,
    Deltas,
    Deploys,
    Drift,
    History,
    Alerts,
    Series,
    Columns,
    Column,
    Segments,
    Quality,
    Feedback,
    Profile,
    Decisions,
    Examples,
    Acknowledge,
    Mute,
    Erase,
    Save,
    Audit,
}

/// A request, taken apart.
pub(crate) struct Asked {
    /// The sidecar.
    pub(crate) sidecar: Arc<Sidecar>,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Pairs of its query, decoded.
    pub(crate) query: Vec<(String, String)>,
    /// The model in its path.
    pub(crate) model: String,
    /// What else is in its path.
    pub(crate) object: String,
    /// Who asks.
    pub(crate) holder: String,
    reach: Arc<Reach>,
}

impl Asked {
    /// The value of a parameter.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Its body, decoded, within `limit` bytes; see [`http::body`].
    pub(crate) async fn body(&self, request: &mut Request<Incoming>, limit: usize) -> Outcome<(Bytes, OwnedSemaphorePermit)> {
        let reach = Some(&self.reach).filter(|_| self.sidecar.spending.is_tight());
        http::body(&self.headers, request, limit, &self.sidecar.models, reach).await
    }

    /// The tags of a header, if they are any.
    pub(crate) fn tag(&self, name: &str) -> Outcome<Option<String>> {
        let Some(value) = self.headers.get(name) else { return Ok(None) };
        let quoted = |tag: &str| {
            let tag = tag.trim().trim_start_matches("W/");
            tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"') && !tag.get(1..tag.len() - 1).unwrap_or("\"").contains('"')
        };
        let text = value.to_str().ok().filter(|text| *text == "*" || text.split(',').all(quoted));
        let text = text.ok_or_else(|| Problem::bad(format!("`{name}` must be a tag in quotes, or *")).hint("as `ETag` gave it"))?;
        Ok(Some(text.to_owned()))
    }

    /// Refuses parameters that are not known.
    pub(crate) fn knows(&self, known: &[&str]) -> Outcome<()> {
        match self.query.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => Err(Problem::bad(format!("parameter {key:?} is not known")).hint(if known.is_empty() {
                "there are none here".to_owned()
            } else {
                format!("known are {}", known.join(", "))
            })),
            None => Ok(()),
        }
    }

    /// A parameter that is a whole number in a range.
    pub(crate) fn number(&self, name: &str, default: i64, range: std::ops::RangeInclusive<i64>) -> Outcome<i64> {
        let Some(text) = self.parameter(name) else { return Ok(default) };
        text.parse()
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| Problem::bad(format!("`{name}` must be a whole number in [{}, {}], got {text:?}", range.start(), range.end())))
    }
}

fn find<'a>(parts: &[&'a str]) -> Option<(About, &'a str, &'a str)> {
    let found = match parts {
        [""] => (About::Page, "", ""),
        ["assets", file] => (About::Page, "", *file),
        ["healthz" | "livez"] => (About::Health, "", ""),
        ["readyz" | "startupz"] => (About::Ready, "", ""),
        ["metrics"] => (About::Metrics, "", ""),
        ["openapi.json"] => (About::OpenApi, "", ""),
        ["version"] => (About::Version, "", ""),
        ["v1", "stream"] => (About::Stream, "", ""),
        ["v1", "metrics"] => (About::OtlpMetrics, "", ""),
        ["v1", "audit"] => (About::Audit, "", ""),
        ["v1", "overview"] => (About::Overview, "", ""),
        ["v1", "models"] => (About::Models, "", ""),
        ["v1", "models", model] => (About::Model, *model, ""),
        ["v1", "models", model, "columns", column] => (About::Column, *model, *column),
        ["v1", "models", model, "alerts", id, "examples"] => (About::Examples, *model, *id),
        ["v1", "models", model, "alerts", id, "acknowledge"] => (About::Acknowledge, *model, *id),
        ["v1", "models", model, "alerts", id, "mute"] => (About::Mute, *model, *id),
        ["v1", "models", model, rest] => {
            let about = match *rest {
                "reference" => About::Reference,
                "policy" => About::Policy,
                "events" => About::Events,
                "labels" => About::Labels,
                "profiles" => About::Profiles,
                "deltas" => About::Deltas,
                "deploys" => About::Deploys,
                "drift" => About::Drift,
                "history" => About::History,
                "alerts" => About::Alerts,
                "series" => About::Series,
                "columns" => About::Columns,
                "segments" => About::Segments,
                "quality" => About::Quality,
                "feedback" => About::Feedback,
                "profile" => About::Profile,
                "decisions" => About::Decisions,
                "erase" => About::Erase,
                "save" => About::Save,
                _ => return None,
            };
            (about, *model, "")
        }
        _ => return None,
    };
    Some(found)
}

fn methods(about: About) -> &'static [(Method, Option<Scope>)] {
    use About as A;
    const GET: (Method, Option<Scope>) = (Method::GET, Some(Scope::Read));
    const OPEN: (Method, Option<Scope>) = (Method::GET, None);
    const INGEST: (Method, Option<Scope>) = (Method::POST, Some(Scope::Ingest));
    const PUT: (Method, Option<Scope>) = (Method::PUT, Some(Scope::Admin));
    const ADMIN: (Method, Option<Scope>) = (Method::POST, Some(Scope::Admin));
    match about {
        A::Page | A::Health | A::Ready => &[OPEN],
        A::Metrics
        | A::OpenApi
        | A::Version
        | A::Stream
        | A::Overview
        | A::Models
        | A::Drift
        | A::History
        | A::Alerts
        | A::Series
        | A::Columns
        | A::Column
        | A::Segments
        | A::Quality
        | A::Examples
        | A::Profile => &[GET],
        A::Decisions => &[GET, (Method::POST, Some(Scope::Read))],
        A::Feedback => &[GET, INGEST],
        A::Audit => &[(Method::GET, Some(Scope::Admin))],
        A::Model => &[GET, PUT, (Method::DELETE, Some(Scope::Admin))],
        A::Reference | A::Policy => &[GET, PUT],
        A::Events | A::Labels | A::Profiles | A::Deltas | A::Deploys | A::OtlpMetrics => &[INGEST],
        A::Acknowledge | A::Mute | A::Erase | A::Save => &[ADMIN],
    }
}

/// Whether somebody goes to an address, rather than a page asking for something.
fn is_visit(headers: &HeaderMap) -> bool {
    let is = |name: &str, word: &str| http::text(headers, name) == Some(word);
    is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document")
}

/// A part of a path as it is meant: a plus is a plus there.
fn plain(part: &str) -> Outcome<Cow<'_, str>> {
    if part.contains('%') { decoded(&part.replace('+', "%2B")).map(Cow::Owned) } else { Ok(Cow::Borrowed(part)) }
}

/// Undoes the percent signs of a part of a path or query.
fn decoded(text: &str) -> Outcome<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| (digit as char).to_digit(16));
                let (high, low) = (digit(), digit());
                let both = high.zip(low).map(|(high, low)| (high * 16 + low) as u8);
                both.ok_or_else(|| Problem::bad("a percent sign in the address is not followed by two hexadecimal digits"))?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(out).map_err(|_| Problem::bad("the address is not UTF-8"))
}

fn query(text: &str) -> Outcome<Vec<(String, String)>> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(100);
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(key)?, decoded(value)?))
        })
        .collect()
}

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The address of everything.
    Main,
    /// A Unix socket, where everything can be asked.
    Unix,
    /// Where only health is asked, and metrics and decisions if the flag says so.
    Health(bool),
}

/// Whoever sent too slowly is not waited for once more.
const TOO_SLOW: u16 = 408;

/// Answers a request.
pub async fn answer(sidecar: Arc<Sidecar>, mut request: Request<Incoming>, door: Door, reach: Arc<Reach>) -> Answer {
    let began = Instant::now();
    let mut route = "none";
    let expects = request.headers().contains_key(header::EXPECT);
    let answer = asked(&sidecar, &mut request, door, reach, &mut route).await.unwrap_or_else(Answer::from);
    // Who asks first whether he may send the body does not send it when he may not.
    if answer.status != TOO_SLOW && !expects {
        http::pass_over(request.body_mut(), sidecar.config.load().max_body).await;
    }
    sidecar.counters.answered(route, answer.status, began.elapsed());
    answer
}

async fn asked(
    sidecar: &Arc<Sidecar>,
    request: &mut Request<Incoming>,
    door: Door,
    reach: Arc<Reach>,
    route: &mut &'static str,
) -> Outcome<Answer> {
    let uri = request.uri().clone();
    let path = uri.path();
    let parts = path.trim_start_matches('/').split('/').map(plain).collect::<Outcome<Vec<_>>>()?;
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    let (about, model, object) =
        find(&parts).ok_or_else(|| Problem::missing(format!("there is nothing at {path:?}")).hint("see /openapi.json"))?;
    *route = name(about);
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let allowed = methods(about);
    let Some((_, scope)) = allowed.iter().find(|(known, _)| *known == method) else {
        let known: Vec<&str> = allowed.iter().map(|(method, _)| method.as_str()).collect();
        let problem = Problem::new(405, "method not allowed", format!("{} is not possible here", request.method())).hint(known.join(", "));
        return Ok(Answer::from(problem).with(header::ALLOW, known.join(", ")));
    };
    let mut holder = String::new();
    match door {
        Door::Health(metrics) => {
            let fine = matches!(about, About::Health | About::Ready) || metrics && matches!(about, About::Metrics | About::Decisions);
            if !fine {
                return Err(Problem::missing("only health is told here"));
            }
        }
        Door::Main | Door::Unix => {
            if !matches!(about, About::Health | About::Ready) {
                let authority = uri.authority().map(hyper::http::uri::Authority::as_str);
                let access = sidecar.access.load();
                access.named(request.headers(), authority, door == Door::Unix)?;
                // A link somewhere else may lead to the page, which holds no data; what it asks for comes from itself.
                if about != About::Page || !is_visit(request.headers()) {
                    access.own_origin(request.headers(), authority)?;
                }
                if let Some(scope) = scope {
                    let model = Some(model).filter(|model| !model.is_empty());
                    holder = access.allow(request.headers(), *scope, model)?;
                }
            }
        }
    }
    let mut asked = Asked {
        sidecar: Arc::clone(sidecar),
        headers: std::mem::take(request.headers_mut()),
        query: query(uri.query().unwrap_or_default())?,
        model: model.to_owned(),
        object: object.to_owned(),
        holder,
        reach,
    };
    asked.tag("if-none-match")?;
    let get = method == Method::GET;
    if sidecar.fleet.is_some() && fleet::is_for_aggregator(about, get) {
        let local = asked.parameter("local") == Some("true");
        asked.query.retain(|(key, _)| key != "local");
        if !local {
            return fleet::asked_there(&asked, about, path).await;
        }
    }
    dispatch(&asked, request, about, &method).await
}

/// Whoever has the answer gives it.
async fn dispatch(asked: &Asked, request: &mut Request<Incoming>, about: About, method: &Method) -> Outcome<Answer> {
    let get = *method == Method::GET;
    match about {
        About::Page => crate::page::answer(&asset(&asked.object), &asked.headers),
        About::Health => Ok(Answer::bytes(200, "text/plain; charset=utf-8", "alive\n")),
        About::Ready => read::ready(asked),
        About::Metrics => read::metrics(asked).await,
        About::OpenApi => {
            asked.knows(&[])?;
            Ok(Answer::bytes(200, "application/json", crate::OPENAPI))
        }
        About::Version => {
            asked.knows(&[])?;
            Answer::json(200, &serde_json::json!({"version": env!("CARGO_PKG_VERSION")}))
        }
        About::Stream => stream::stream(asked),
        About::OtlpMetrics => events::measured(asked, request).await,
        About::Overview => overview::overview(asked).await,
        About::Models => read::models(asked).await,
        About::Model if get => models::get(asked).await,
        About::Model if *method == Method::PUT => models::put(asked, request).await,
        About::Model => models::delete(asked).await,
        About::Reference if get => models::get_reference(asked).await,
        About::Reference => models::put_reference(asked, request).await,
        About::Policy if get => models::get_policy(asked).await,
        About::Policy => models::put_policy(asked, request).await,
        About::Events => events::events(asked, request, false).await,
        About::Labels => events::events(asked, request, true).await,
        About::Profiles => events::profiles(asked, request).await,
        About::Deltas => fleet::deltas(asked, request).await,
        About::Deploys => events::deploys(asked, request).await,
        About::Drift => read::drift(asked).await,
        About::History => read::history(asked).await,
        About::Alerts => alerts::alerts(asked).await,
        About::Series => series::series(asked).await,
        About::Columns => columns::columns(asked).await,
        About::Column => columns::column(asked).await,
        About::Segments => segments::segments(asked).await,
        About::Quality => quality::quality(asked).await,
        About::Feedback if get => feedback::feedback(asked),
        About::Feedback => feedback::tell(asked, request).await,
        About::Profile => read::profile(asked).await,
        About::Decisions => read::decisions(asked, get).await,
        About::Examples => alerts::examples(asked).await,
        About::Acknowledge | About::Mute => models::stand(asked, request, about == About::Mute).await,
        About::Erase => models::erase(asked, request).await,
        About::Save => models::save(asked).await,
        About::Audit => read::audit(asked),
    }
}

/// Where the page has a file of this name; the page itself has none.
fn asset(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("assets/{name}") }
}

fn name(about: About) -> &'static str {
    use About as A;
    match about {
        A::Page => "page",
        A::Health => "health",
        A::Ready => "ready",
        A::Metrics => "metrics",
        A::OpenApi => "openapi",
        A::Version => "version",
        A::Stream => "stream",
        A::OtlpMetrics => "otlp",
        A::Overview => "overview",
        A::Models => "models",
        A::Model => "model",
        A::Reference => "reference",
        A::Policy => "policy",
        A::Events => "events",
        A::Labels => "labels",
        A::Profiles => "profiles",
        A::Deltas => "deltas",
        A::Deploys => "deploys",
        A::Drift => "drift",
        A::History => "history",
        A::Alerts => "alerts",
        A::Series => "series",
        A::Columns => "columns",
        A::Column => "column",
        A::Segments => "segments",
        A::Quality => "quality",
        A::Feedback => "feedback",
        A::Profile => "profile",
        A::Decisions => "decisions",
        A::Examples => "examples",
        A::Acknowledge => "acknowledge",
        A::Mute => "mute",
        A::Erase => "erase",
        A::Save => "save",
        A::Audit => "audit",
    }
}

/// What is wrong, in words, and whether the sidecar takes work nevertheless: what was lost is told for as long as it runs.
pub(crate) fn readiness(sidecar: &Sidecar) -> (bool, Vec<String>) {
    let mut problems = sidecar.models.troubles();
    problems.extend(sidecar.reader.iter().flat_map(|reader| reader.troubles()));
    let mut hindrances = Vec::new();
    if sidecar.models.replaying() || !sidecar.opened.load(Ordering::Relaxed) {
        hindrances.push("replaying: what was acknowledged before the last stop is counted first".into());
    }
    if sidecar.stopping.load(Ordering::Relaxed) {
        hindrances.push("shutting down".into());
    }
    hindrances.extend(sidecar.control.trouble().map(str::to_owned));
    let ready = hindrances.is_empty() && sidecar.models.able();
    problems.extend(hindrances);
    (ready, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(find(&["v1", "models", "m", "alerts", "7", "mute"]), Some((About::Mute, "m", "7")));
        assert_eq!(find(&["v1", "models", "m", "columns", "a/b"]), Some((About::Column, "m", "a/b")));
        assert_eq!(find(&[""]), Some((About::Page, "", "")));
        assert_eq!(find(&["v1", "models", "m", "nothing"]), None);
        assert_eq!(decoded("a%2Fb+c").unwrap(), "a/b c");
        assert!(decoded("%zz").is_err() && decoded("%e").is_err() && decoded("%ff").is_err());
        assert_eq!(query("a=1&b=%20x").unwrap(), [("a".into(), "1".into()), ("b".into(), " x".into())]);
    }
}
