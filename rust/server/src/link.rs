//! The way to an aggregator that can be reached: its own HTTP.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use barograph_core::{Error, Result};
use barograph_engine::policy::Policy;
use bytes::Bytes;
use serde_json::Value;
use ureq::http::{HeaderMap, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::config::is_name;
use crate::fleet::{Fleet, Given, Pin, Stated};
use crate::model::{PolicyOf, Settings};
use crate::outbox::{Parcel, Parcels};
use crate::secret::Secret;
use crate::streams;

/// The header that says which sidecar took a parcel, and which is expected to.
pub const IDENTITY: &str = "barograph-aggregator";
/// For an exchange as a whole.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Of an answer.
const MOST_ANSWER: u64 = 64 << 20;

/// Refuses an address that cannot be an aggregator's.
///
/// # Errors
/// `InvalidArgument` naming the key.
pub(crate) fn check(key: &str, address: &str) -> Result<()> {
    let wrong = || Error::invalid(format!("`fleet.{key}` must be an address such as \"https://aggregator:7464\""));
    let uri: Uri = address.parse().map_err(|_| wrong())?;
    let authority = uri.authority().filter(|part| !part.host().is_empty() && !part.as_str().contains('@')).ok_or_else(wrong)?;
    let local = ["localhost", "[::1]"].contains(&authority.host()) || authority.host().starts_with("127.");
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if local => {}
        Some("http") => {
            return Err(Error::invalid(format!("`fleet.{key}` must begin with https:// where it names another machine"))
                .hint("counts and a token go there"));
        }
        _ => return Err(wrong()),
    }
    if uri.query().is_some() { Err(wrong()) } else { Ok(()) }
}

/// What speaks HTTP, and trusts the authorities of a PEM file, or else the public ones.
///
/// # Errors
/// `InvalidArgument` for a file that cannot be read or holds no certificate.
pub(crate) fn agent(ca: Option<&Path>) -> Result<ureq::Agent> {
    let roots = match ca {
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
    Ok(ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent("barograph")
        .timeout_connect(Some(Duration::from_secs(5)))
        .timeout_global(Some(TIMEOUT))
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .build()
        .new_agent())
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
    agent: ureq::Agent,
    base: String,
    token: Option<Secret>,
    /// The aggregator that has what was told before.
    pin: Arc<Pin>,
}

impl Link {
    /// To an address, by what is stated about it.
    pub(crate) fn new(address: &str, fleet: &Fleet, agent: ureq::Agent, pin: Arc<Pin>) -> Self {
        Self { agent, base: address.trim_end_matches('/').to_owned(), token: fleet.token.clone(), pin }
    }

    /// Where the aggregator is.
    pub fn base(&self) -> &str {
        &self.base
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

    /// Sends something on a thread that may wait.
    async fn exchanged(
        self: &Arc<Self>,
        exchange: impl FnOnce(&Link) -> std::result::Result<Reply, String> + Send + 'static,
    ) -> std::result::Result<Reply, String> {
        let link = Arc::clone(self);
        tokio::task::spawn_blocking(move || exchange(&link)).await.unwrap_or_else(|_| Err("the exchange was given up".to_owned()))
    }

    /// The models that the aggregator has.
    ///
    /// # Errors
    /// Why it does not say, in words; so do the others.
    pub(crate) async fn models(self: &Arc<Self>) -> std::result::Result<Vec<String>, String> {
        let reply = self.exchanged(|link| link.get("/v1/models", &[])).await?;
        if reply.status != 200 {
            return Err(format!("the aggregator tells nothing: {}", reply.detail()));
        }
        let all = reply.json()?;
        let models = all.get("models").and_then(Value::as_array).into_iter().flatten();
        Ok(models.filter_map(|model| Some(model.get("name")?.as_str()?.to_owned())).filter(|name| is_name(name)).collect())
    }

    /// What is stated about a model, unless it is what this tag says.
    pub(crate) async fn stated(self: &Arc<Self>, model: &str, tag: Option<String>) -> std::result::Result<Stated, String> {
        let name = model.to_owned();
        let reply = self.exchanged(move |link| {
            let headers: Vec<(&str, &str)> = tag.iter().map(|tag| ("if-none-match", tag.as_str())).collect();
            link.get(&format!("/v1/models/{name}"), &headers)
        });
        let reply = reply.await?;
        match reply.status {
            200 => {
                let name = model.to_owned();
                let policy = self.exchanged(move |link| link.get(&format!("/v1/models/{name}/policy"), &[])).await?;
                if policy.status != 200 {
                    return Err(format!("the policy could not be read: {}", policy.detail()));
                }
                let settings =
                    settings(&reply.json()?, &policy.body).map_err(|error| format!("its settings cannot be kept to: {}", error.message))?;
                Ok(Stated::These(Box::new(settings), reply.header("etag").map(str::to_owned)))
            }
            304 => Ok(Stated::Same),
            404 => Ok(Stated::Nothing),
            _ => Err(format!("the aggregator tells nothing: {}", reply.detail())),
        }
    }

    /// The snapshot of a model's reference, if it is another one than `own`.
    pub(crate) async fn reference(self: &Arc<Self>, model: &str, own: Option<String>) -> std::result::Result<Option<Bytes>, String> {
        let name = model.to_owned();
        let reply = self.exchanged(move |link| {
            let tag = own.map(|own| format!("\"{own}\""));
            let headers: Vec<(&str, &str)> = tag.iter().map(|tag| ("if-none-match", tag.as_str())).collect();
            link.get(&format!("/v1/models/{name}/reference"), &headers)
        });
        let reply = reply.await?;
        match reply.status {
            200 => Ok(Some(reply.body)),
            304 | 404 => Ok(None),
            _ => Err(format!("the aggregator tells nothing: {}", reply.detail())),
        }
    }

    /// Posts a parcel.
    pub(crate) async fn give(self: &Arc<Self>, model: &str, stream: &str, parcel: Parcel) -> std::result::Result<Given, String> {
        let (path, kind) = match parcel.what {
            Parcels::Delta => ("", "application/vnd.barograph.snapshot"),
            Parcels::Events => ("", "application/vnd.apache.arrow.stream"),
            Parcels::Labels => ("?labels=true", "application/vnd.apache.arrow.stream"),
        };
        let path = format!("/v1/models/{model}/deltas{path}");
        let place = format!("{stream}/{}", parcel.number);
        let reply = self.exchanged(move |link| {
            let packed = zstd::encode_all(&parcel.bytes[..], 1).map_err(|error| error.to_string())?;
            let mut headers = vec![("content-type", kind), ("content-encoding", "zstd"), (streams::HEADER, place.as_str())];
            let pinned = link.pin.known();
            headers.extend(pinned.as_deref().map(|identity| (IDENTITY, identity)));
            link.post(&path, &headers, &packed)
        });
        let reply = reply.await?;
        match reply.status {
            200 => {
                if let Some(identity) = reply.header(IDENTITY) {
                    self.pin.set(identity);
                }
                Ok(Given::Taken)
            }
            400 | 404 | 409 | 413 | 415 | 422 => Ok(Given::Refused(reply.detail())),
            _ => Err(format!("the aggregator takes nothing: {}", reply.detail())),
        }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_come_back_as_they_were_stated() {
        let own = Settings::from_json(r#"{"roles":{"id":"tx"},"learn":{"events":500},"segments":["c"],"policy":{"window":"1d"}}"#).unwrap();
        let told = json!({"roles": own.roles, "learn": own.learn, "segments": own.segments, "privacy": null, "state": {}, "name": "m"});
        let policy = serde_json::to_vec(&own.policy).unwrap();
        assert_eq!(settings(&told, &policy).unwrap(), own);
    }
}
