//! A sidecar of a fleet: what it has seen goes to an aggregator, which judges for all, and what is asked of it is answered by that one.
//!
//! Parcels leave the outbox of a model in order, each until the aggregator has acknowledged it: it counts each number of a stream once. What
//! it refuses, such as a delta of another reference, stays, is told in `/readyz`, and is tried again when the aggregator has changed.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use barograph_core::{Error, Result};
use barograph_engine::Reference;
use barograph_engine::policy::{Length, Policy};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::{HeaderMap, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::config::{Size, is_name};
use crate::model::{PolicyOf, Settings};
use crate::outbox::Parcels;
use crate::problem::{Outcome, Problem};
use crate::record::Happening;
use crate::secret::Secret;
use crate::shard::Entry;
use crate::sidecar::Sidecar;
use crate::streams;

/// The header that says which sidecar took a parcel, and which is expected to.
pub const IDENTITY: &str = "barograph-aggregator";
/// For an exchange as a whole.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Of an answer.
const MOST_ANSWER: u64 = 64 << 20;
/// What was refused is tried again after this time.
const AGAIN: Duration = Duration::from_secs(60);
/// Seconds between looks at which models the aggregator has, for each second of the interval.
const DISCOVER: Duration = Duration::from_secs(6);
/// Until an aggregator that did not answer is asked again, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What an operator states about a fleet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// Address of the aggregator.
    pub to: String,
    /// A token of it with the scopes `ingest` and `read`.
    pub token: Option<Secret>,
    /// From delta to delta.
    #[serde(default = "interval")]
    pub interval: Length,
    /// What this sidecar is called there; made and kept unless it is stated.
    pub name: Option<String>,
    /// Bytes that may wait for the aggregator; an eighth of `memory` unless stated.
    pub outbox: Option<Size>,
    /// Identity of the aggregator, where it is another one than before.
    pub aggregator: Option<String>,
    /// PEM file of the authority of its certificate, unless it is a public one.
    pub ca: Option<PathBuf>,
}

fn interval() -> Length {
    Length(10_000_000_000)
}

impl Fleet {
    /// Refuses what cannot be.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn check(&self) -> Result<()> {
        let wrong = || Error::invalid("`fleet.to` must be an address such as \"https://aggregator:7464\"");
        let uri: Uri = self.to.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|part| !part.host().is_empty() && !part.as_str().contains('@')).ok_or_else(wrong)?;
        let local = ["localhost", "[::1]"].contains(&authority.host()) || authority.host().starts_with("127.");
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if local => {}
            Some("http") => {
                return Err(Error::invalid("`fleet.to` must begin with https:// where it names another machine")
                    .hint("counts and a token go there"));
            }
            _ => return Err(wrong()),
        }
        if uri.query().is_some() {
            return Err(wrong());
        }
        if !(1_000_000_000..=3_600_000_000_000).contains(&self.interval.0) {
            return Err(Error::invalid(format!("`fleet.interval` must be in [1s, 1h], got {}", self.interval)));
        }
        if let Some(name) = self.name.as_ref().filter(|name| !is_name(name)) {
            return Err(Error::invalid(format!("`fleet.name` is {name:?}")).hint(crate::config::NAMES));
        }
        Ok(())
    }
}

/// How the models of a sidecar tell an aggregator.
#[derive(Clone, Debug)]
pub struct Membership {
    /// What the sidecar is called there.
    pub name: String,
    /// From delta to delta.
    pub interval: Duration,
    /// Bytes that may wait.
    pub outbox: usize,
}

impl Membership {
    /// The stream of a model that begins to tell now: another one each time, as its numbers begin anew.
    pub fn stream(&self, now: i64) -> String {
        format!("{}.{now:x}", self.name)
    }
}

/// What came back.
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What a problem says.
    fn detail(&self) -> String {
        let problem: Option<Value> = serde_json::from_slice(&self.body).ok();
        let text = problem.as_ref().and_then(|problem| problem.get("detail")).and_then(Value::as_str).unwrap_or_default();
        let text: String = text.chars().take(300).collect();
        if text.is_empty() { format!("it answered {}", self.status) } else { text }
    }

    fn json(&self) -> std::result::Result<Value, String> {
        serde_json::from_slice(&self.body).map_err(|error| format!("it gave what is no JSON: {error}"))
    }
}

/// The way to the aggregator.
pub struct Link {
    /// How models tell it.
    pub membership: Arc<Membership>,
    agent: ureq::Agent,
    base: String,
    token: Option<Secret>,
    /// The aggregator that has what was told before.
    pinned: Mutex<Option<String>>,
    pin: PathBuf,
}

impl Link {
    /// By what is stated; the name and which aggregator it is are kept in the data folder.
    ///
    /// # Errors
    /// `InvalidArgument` for certificates or a folder that cannot be read.
    pub fn new(fleet: &Fleet, memory: usize, data: &Path) -> Result<Self> {
        let roots = match &fleet.ca {
            None => RootCerts::WebPki,
            Some(path) => {
                let pem = fs::read(path).map_err(|error| crate::serve::failed(&format!("`fleet.ca` {}", path.display()), &error))?;
                let read = parse_pem(&pem).filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                });
                let found: Vec<Certificate<'static>> = read.collect();
                if found.is_empty() {
                    return Err(Error::invalid(format!("`fleet.ca` names {}, which holds no certificate", path.display())));
                }
                RootCerts::new_with_certs(&found)
            }
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent("barograph")
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(TIMEOUT))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build()
            .new_agent();
        let name = match &fleet.name {
            Some(name) => name.clone(),
            None => kept(&data.join("name"), || Ok(format!("sidecar-{}", random(4)?)))?,
        };
        let pin = data.join("aggregator");
        let pinned = fleet.aggregator.clone().or_else(|| fs::read_to_string(&pin).ok()).map(|text| text.trim().to_owned());
        let outbox = fleet.outbox.map_or(memory / 8, |size| size.0);
        let interval = Duration::from_nanos(fleet.interval.0.unsigned_abs());
        Ok(Self {
            membership: Arc::new(Membership { name, interval, outbox }),
            agent,
            base: fleet.to.trim_end_matches('/').to_owned(),
            token: fleet.token.clone(),
            pinned: Mutex::new(pinned.filter(|text| !text.is_empty())),
            pin,
        })
    }

    /// Where the aggregator is.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn pinned(&self) -> Option<String> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The aggregator has something that was told: from now on it is this one.
    fn pin(&self, identity: &str) {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if pinned.as_deref() != Some(identity) {
            *pinned = Some(identity.to_owned());
            if let Err(error) = fs::write(&self.pin, identity) {
                crate::note::warn(&format!("{} could not be written: {error}", self.pin.display()));
            }
        }
    }

    fn authorization(&self) -> String {
        self.token.as_ref().map(|token| format!("Bearer {}", token.expose())).unwrap_or_default()
    }

    fn reply(&self, answer: std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> std::result::Result<Reply, String> {
        let unreached = |error: &dyn std::fmt::Display| format!("{} could not be reached: {error}", self.base);
        let (parts, mut body) = answer.map_err(|error| unreached(&error))?.into_parts();
        let mut bytes = Vec::new();
        let read = body.as_reader().take(MOST_ANSWER + 1).read_to_end(&mut bytes);
        read.map_err(|error| unreached(&error))?;
        if bytes.len() as u64 > MOST_ANSWER {
            return Err(format!("{} gave an answer of more than {MOST_ANSWER} bytes", self.base));
        }
        Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body: bytes.into() })
    }

    /// Asks.
    pub(crate) fn get(&self, path: &str, headers: &[(&str, &str)]) -> std::result::Result<Reply, String> {
        let mut request = self.agent.get(format!("{}{path}", self.base)).header("authorization", self.authorization());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.reply(request.call())
    }

    /// Sends.
    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> std::result::Result<Reply, String> {
        let mut request = self.agent.post(format!("{}{path}", self.base)).header("authorization", self.authorization());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.reply(request.send(body))
    }

    /// An answer that goes on for as long as it is listened to.
    pub(crate) fn listen(&self, path: &str) -> std::result::Result<(u16, Box<dyn Read + Send>), String> {
        let request = self.agent.get(format!("{}{path}", self.base)).header("authorization", self.authorization());
        let request = request.config().timeout_global(None).timeout_recv_body(None).timeout_per_read(Some(Duration::from_secs(60))).build();
        let answer = request.call().map_err(|error| format!("{} could not be reached: {error}", self.base))?;
        Ok((answer.status().as_u16(), Box::new(answer.into_body().into_reader())))
    }
}

/// The text of a file; made, and written, if there is none.
pub(crate) fn kept(path: &Path, make: impl FnOnce() -> Result<String>) -> Result<String> {
    if let Ok(text) = fs::read_to_string(path)
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    let text = make()?;
    fs::write(path, &text).map_err(|error| crate::serve::failed(&format!("{} could not be written", path.display()), &error))?;
    Ok(text)
}

/// So many random bytes, in hexadecimal digits.
pub(crate) fn random(bytes: usize) -> Result<String> {
    let mut raw = vec![0; bytes];
    getrandom::fill(&mut raw).map_err(|error| Error::invalid(format!("no random bytes: {error}")))?;
    Ok(crate::control::hex(&raw))
}

/// What is known of a model at the aggregator.
#[derive(Default)]
struct Known {
    /// Tag of the settings that were taken from there.
    tag: Option<String>,
    asked: Option<Instant>,
    /// Parcels that are not taken, and why.
    refused: BTreeMap<u64, String>,
    refused_at: Option<Instant>,
}

/// Tells the aggregator, if there is one.
pub fn start(sidecar: &Arc<Sidecar>) {
    let Some(link) = sidecar.fleet.clone() else { return };
    let sidecar = Arc::clone(sidecar);
    tokio::spawn(async move {
        let mut known: HashMap<(String, String), Known> = HashMap::new();
        let turn = (link.membership.interval / 4).clamp(Duration::from_millis(50), Duration::from_secs(1));
        let mut failures = 0u32;
        let mut discovered: Option<Instant> = None;
        while !sidecar.stopping.load(Ordering::Relaxed) {
            let mut failed = None;
            if discovered.is_none_or(|at| at.elapsed() > DISCOVER * link.membership.interval.as_secs().max(1) as u32) {
                match discover(&sidecar, &link).await {
                    Ok(()) => discovered = Some(Instant::now()),
                    Err(why) => failed = Some(why),
                }
            }
            for entry in sidecar.models.entries().into_iter().filter(|entry| !entry.replaying.load(Ordering::Relaxed)) {
                let own = known.entry((entry.name.clone(), entry.generation.clone())).or_default();
                let done = match &failed {
                    None => told(&sidecar, &link, &entry, own).await,
                    Some(why) => Err(String::clone(why)),
                };
                if let Err(why) = &done {
                    failed = Some(why.clone());
                }
                entry.trouble("fleet", done.err().or_else(|| refusals(own)));
            }
            failures = if failed.is_some() { failures.saturating_add(1) } else { 0 };
            let wait = if failures == 0 { turn } else { (turn * 2u32.saturating_pow(failures.min(10))).min(LONGEST_WAIT) };
            tokio::time::sleep(wait).await;
        }
    });
}

/// Before the end: what was seen is told, as far as that takes no longer than `most`. The rest is told after the next start.
pub async fn farewell(sidecar: &Arc<Sidecar>, most: Duration) {
    let Some(link) = sidecar.fleet.clone() else { return };
    let all = async {
        for entry in sidecar.models.entries().into_iter().filter(|entry| !entry.replaying.load(Ordering::Relaxed)) {
            // What cannot be cut or sent now stays in the log.
            let _ = sidecar.models.happen(&entry, Happening::Cut).await;
            let mut known = Known { asked: Some(Instant::now()), ..Known::default() };
            if told(sidecar, &link, &entry, &mut known).await.is_err() {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(most, all).await;
}

fn refusals(known: &Known) -> Option<String> {
    let (_, why) = known.refused.last_key_value()?;
    Some(format!("{} parcels are kept that the aggregator refuses: {why}", known.refused.len()))
}

/// Sends something on a thread that may wait.
async fn exchanged(
    link: &Arc<Link>,
    exchange: impl FnOnce(&Link) -> std::result::Result<Reply, String> + Send + 'static,
) -> std::result::Result<Reply, String> {
    let link = Arc::clone(link);
    tokio::task::spawn_blocking(move || exchange(&link)).await.unwrap_or_else(|_| Err("the exchange was given up".to_owned()))
}

/// Makes the models here that the aggregator has, so that what comes is counted by their references from the first event on.
async fn discover(sidecar: &Arc<Sidecar>, link: &Arc<Link>) -> std::result::Result<(), String> {
    let reply = exchanged(link, |link| link.get("/v1/models", &[])).await?;
    if reply.status != 200 {
        return Err(format!("the aggregator tells nothing: {}", reply.detail()));
    }
    let all = reply.json()?;
    let models = all.get("models").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<String> =
        models.filter_map(|model| Some(model.get("name")?.as_str()?.to_owned())).filter(|name| is_name(name)).collect();
    for name in names {
        sidecar.entry_or_new(&name, "fleet").await.map_err(|problem| problem.detail)?;
    }
    Ok(())
}

/// Learns what the aggregator has of a model, and gives it what waits.
async fn told(sidecar: &Arc<Sidecar>, link: &Arc<Link>, entry: &Arc<Entry>, known: &mut Known) -> std::result::Result<(), String> {
    if known.asked.is_none_or(|asked| asked.elapsed() >= link.membership.interval) {
        adopt(sidecar, link, entry, known).await?;
        known.asked = Some(Instant::now());
    }
    if known.refused_at.is_some_and(|at| at.elapsed() > AGAIN) {
        known.refused.clear();
        known.refused_at = None;
    }
    loop {
        let refused: Vec<u64> = known.refused.keys().copied().collect();
        let next = sidecar.models.look(entry, move |model| {
            let outbox = model.outbox.as_ref()?;
            let parcel = outbox.parcels().find(|parcel| !refused.contains(&parcel.number))?;
            Some((Arc::clone(&outbox.stream), parcel.clone()))
        });
        let Some((stream, parcel)) = next.await.map_err(|problem| problem.detail)? else { return Ok(()) };
        let (path, kind) = match parcel.what {
            Parcels::Delta => ("", "application/vnd.barograph.snapshot"),
            Parcels::Events => ("", "application/vnd.apache.arrow.stream"),
            Parcels::Labels => ("?labels=true", "application/vnd.apache.arrow.stream"),
        };
        let path = format!("/v1/models/{}/deltas{path}", entry.name);
        let place = format!("{stream}/{}", parcel.number);
        let number = parcel.number;
        let reply = exchanged(link, move |link| {
            let packed = zstd::encode_all(&parcel.bytes[..], 1).map_err(|error| error.to_string())?;
            let mut headers = vec![("content-type", kind), ("content-encoding", "zstd"), (streams::HEADER, place.as_str())];
            let pinned = link.pinned();
            headers.extend(pinned.as_deref().map(|identity| (IDENTITY, identity)));
            link.post(&path, &headers, &packed)
        });
        let reply = reply.await?;
        match reply.status {
            200 => {
                if let Some(identity) = reply.header(IDENTITY) {
                    link.pin(identity);
                }
                sidecar.models.happen(entry, Happening::Sent(number)).await.map_err(|problem| problem.detail)?;
            }
            // 421: it is not the one that has the others.
            400 | 404 | 409 | 413 | 415 | 422 => {
                known.refused.insert(number, reply.detail());
                known.refused_at.get_or_insert_with(Instant::now);
                known.asked = None;
            }
            _ => return Err(format!("the aggregator takes nothing: {}", reply.detail())),
        }
    }
}

/// Takes over what is stated about a model at the aggregator, and its reference.
async fn adopt(sidecar: &Arc<Sidecar>, link: &Arc<Link>, entry: &Arc<Entry>, known: &mut Known) -> std::result::Result<(), String> {
    let (name, tag) = (entry.name.clone(), known.tag.clone());
    let reply = exchanged(link, move |link| {
        let headers: Vec<(&str, &str)> = tag.iter().map(|tag| ("if-none-match", tag.as_str())).collect();
        link.get(&format!("/v1/models/{name}"), &headers)
    });
    let reply = reply.await?;
    match reply.status {
        200 => {
            let name = entry.name.clone();
            let policy = exchanged(link, move |link| link.get(&format!("/v1/models/{name}/policy"), &[])).await?;
            if policy.status != 200 {
                return Err(format!("the policy could not be read: {}", policy.detail()));
            }
            let settings =
                settings(&reply.json()?, &policy.body).map_err(|error| format!("its settings cannot be kept to: {}", error.message))?;
            let own = sidecar.models.look(entry, |model| model.settings.clone()).await.map_err(|problem| problem.detail)?;
            if own != settings {
                let stated = sidecar.state(&entry.name, settings, None, "fleet").await;
                stated.map_err(|problem| format!("its settings cannot be kept to: {}", problem.detail))?;
                known.refused.clear();
            }
            known.tag = reply.header("etag").map(str::to_owned);
        }
        304 => {}
        // Nobody has told it of this model yet.
        404 => return Ok(()),
        _ => return Err(format!("the aggregator tells nothing: {}", reply.detail())),
    }
    let own = sidecar.models.look(entry, |model| model.monitor().map(|monitor| monitor.reference().id().to_owned()));
    let own = own.await.map_err(|problem| problem.detail)?;
    let name = entry.name.clone();
    let reply = exchanged(link, move |link| {
        let tag = own.map(|own| format!("\"{own}\""));
        let headers: Vec<(&str, &str)> = tag.iter().map(|tag| ("if-none-match", tag.as_str())).collect();
        link.get(&format!("/v1/models/{name}/reference"), &headers)
    });
    let reply = reply.await?;
    match reply.status {
        200 => {
            let reference =
                Reference::from_bytes(&reply.body).map_err(|error| format!("its reference cannot be read: {}", error.message))?;
            let taken = sidecar.models.happen(entry, Happening::Reference(reply.body.to_vec())).await;
            taken.map_err(|problem| format!("its reference does not fit: {}", problem.detail))?;
            sidecar.audit("fleet", "reference", &entry.name, &json!({"reference": reference.id()}));
            Ok(())
        }
        304 | 404 => Ok(()),
        _ => Err(format!("the aggregator tells nothing: {}", reply.detail())),
    }
}

/// Settings of the two documents that tell them.
fn settings(model: &Value, policy: &[u8]) -> Result<Settings> {
    let text = std::str::from_utf8(policy).map_err(|_| Error::decode("the policy is not UTF-8"))?;
    let part = |name: &str| model.get(name).filter(|value| !value.is_null()).cloned();
    let mut stated = serde_json::Map::new();
    for name in ["roles", "learn", "segments", "privacy"] {
        part(name).into_iter().for_each(|value| drop(stated.insert(name.to_owned(), value)));
    }
    let mut out = Settings::from_json(&Value::Object(stated).to_string())?;
    out.policy = PolicyOf(Policy::from_json(text)?);
    out.check()?;
    Ok(out)
}

/// Refuses to state here what the aggregator states.
///
/// # Errors
/// 409 in a sidecar that has an aggregator.
pub(crate) fn alone(sidecar: &Sidecar) -> Outcome<()> {
    match &sidecar.fleet {
        None => Ok(()),
        Some(link) => Err(Problem::new(409, "conflict", format!("models of this sidecar are stated at its aggregator, {}", link.base()))
            .hint("say it there; it is taken over")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_that_cannot_be_is_told_at_once() {
        let says = |text: &str| match toml::from_str::<Fleet>(text) {
            Ok(fleet) => fleet.check().err().map(|error| error.message).unwrap_or_default(),
            Err(error) => error.message().to_owned(),
        };
        for fine in ["to = \"https://a:7464\"", "to = \"http://127.0.0.1:1\"\ninterval = \"1s\"\nname = \"pod-1\"\noutbox = \"1MB\""] {
            assert_eq!(says(fine), "");
        }
        for (text, expected) in [
            ("to = \"http://aggregator:7464\"", "must begin with https://"),
            ("to = \"aggregator\"", "must be an address"),
            ("to = \"https://user:hush@a\"", "must be an address"),
            ("to = \"https://a\"\ninterval = \"2h\"", "`fleet.interval` must be in"),
            ("to = \"https://a\"\nname = \"a b\"", "`fleet.name`"),
            ("to = \"https://a\"\ntokn = \"x\"", "unknown field `tokn`"),
        ] {
            assert!(says(text).contains(expected), "{text}: {}", says(text));
        }
    }

    #[test]
    fn settings_come_back_as_they_were_stated() {
        let own = Settings::from_json(r#"{"roles":{"id":"tx"},"learn":{"events":500},"segments":["c"],"policy":{"window":"1d"}}"#).unwrap();
        let told = json!({"roles": own.roles, "learn": own.learn, "segments": own.segments, "privacy": null, "state": {}, "name": "m"});
        let policy = serde_json::to_vec(&own.policy).unwrap();
        assert_eq!(settings(&told, &policy).unwrap(), own);
    }
}
