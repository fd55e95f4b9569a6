//! What an operator states about a sidecar: one TOML file, everything of it optional.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use barograph_core::{Error, Result};
use barograph_engine::limits::Limits;
pub use barograph_engine::limits::Size;
use barograph_engine::policy::Policy;
use serde::{Deserialize, Serialize};

use crate::access::Scope;
use crate::exporters::otlp::Push;
use crate::fleet::Fleet;
use crate::measurement::Naming;
use crate::model::{Learn, PolicyOf, Settings};
use crate::secret::Secret;
use crate::shard::Acknowledge;
use crate::sinks::SinkConfig;

/// Where the sidecar listens unless it is told otherwise.
pub const ADDRESS: &str = "127.0.0.1:7464";

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Address {
    /// An address and port of TCP (or UDP, for datagrams).
    Net(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            return Ok(Self::Unix(path.into()));
        }
        let text = text.strip_prefix("udp:").unwrap_or(&text).replace("localhost:", "127.0.0.1:");
        text.parse().map(Self::Net).map_err(|_| format!("expected an address such as \"127.0.0.1:7464\" or \"unix:/path\", got {text:?}"))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Net(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Net(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// Certificates.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the server's certificate chain.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// PEM file of the authority whose clients are let in; without it clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// Somebody who may do something.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What he is called in the audit log.
    pub name: String,
    /// What he says.
    pub token: Secret,
    /// What he may do.
    pub scopes: Vec<Scope>,
    /// Models he may do it with; all if there are none.
    #[serde(default)]
    pub models: Vec<String>,
}

/// One thing or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// A file as it stands.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Option<OneOrMany<Address>>,
    health_listen: Option<Address>,
    health_metrics: bool,
    data: Option<PathBuf>,
    acknowledge: Acknowledge,
    budget: Limits,
    memory: Option<Size>,
    max_body: Option<Size>,
    max_connections: usize,
    max_models: usize,
    shards: Option<usize>,
    sampling: bool,
    hosts: Vec<String>,
    statsd: Option<Address>,
    naming: Vec<Naming>,
    tls: Option<Tls>,
    tokens: Vec<Token>,
    sinks: Vec<SinkConfig>,
    otlp: Option<Push>,
    roles: BTreeMap<String, BTreeMap<String, String>>,
    learn: BTreeMap<String, Learn>,
    segments: BTreeMap<String, Vec<String>>,
    examples: BTreeMap<String, usize>,
    privacy: BTreeMap<String, toml::Value>,
    privacy_key: Option<Secret>,
    fleet: Option<Fleet>,
    models: BTreeMap<String, toml::Value>,
}

/// Answers what the fields of a struct are called, and nothing else.
struct Fields(&'static [&'static str]);

impl<'de> serde::Deserializer<'de> for &mut Fields {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> std::result::Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("only asks for fields"))
    }

    fn deserialize_struct<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, Self::Error> {
        self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl Default for File {
    fn default() -> Self {
        Self {
            listen: None,
            health_listen: None,
            health_metrics: true,
            data: None,
            acknowledge: Acknowledge::default(),
            budget: Limits::default(),
            memory: None,
            max_body: None,
            max_connections: 12_000,
            max_models: 200,
            shards: None,
            sampling: false,
            hosts: Vec::new(),
            statsd: None,
            naming: Vec::new(),
            tls: None,
            tokens: Vec::new(),
            sinks: Vec::new(),
            otlp: None,
            roles: BTreeMap::new(),
            learn: BTreeMap::new(),
            segments: BTreeMap::new(),
            examples: BTreeMap::new(),
            privacy: BTreeMap::new(),
            privacy_key: None,
            fleet: None,
            models: BTreeMap::new(),
        }
    }
}

/// What an operator states.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where requests come in.
    pub listen: Vec<Address>,
    /// Where health is asked, and metrics if allowed, by whoever can reach it.
    pub health_listen: Option<Address>,
    /// Whether metrics are given there too.
    pub health_metrics: bool,
    /// The folder of everything that lasts.
    pub data: PathBuf,
    /// When arrivals are acknowledged.
    pub acknowledge: Acknowledge,
    /// What the process may cost.
    pub budget: Limits,
    /// Bytes that the process may take, about.
    pub memory: usize,
    /// The largest body, decoded.
    pub max_body: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Models at once.
    pub max_models: usize,
    /// Threads that own models.
    pub shards: usize,
    /// Whether events may be left out when too many come.
    pub sampling: bool,
    /// Names that requests may be addressed to.
    pub hosts: Vec<String>,
    /// Where datagrams of `DogStatsD` come in.
    pub statsd: Option<Address>,
    /// Which metrics are whose latency.
    pub naming: Vec<Naming>,
    /// Certificates.
    pub tls: Option<Tls>,
    /// Who may do what.
    pub tokens: Vec<Token>,
    /// Where alerts go.
    pub sinks: Vec<SinkConfig>,
    /// Where numbers go.
    pub otlp: Option<Push>,
    /// What columns are hashed with.
    pub privacy_key: Option<Secret>,
    /// The aggregator, if there is one.
    pub fleet: Option<Fleet>,
    /// Models that the file states.
    pub models: BTreeMap<String, Settings>,
}

/// What a command line or environment states beside the file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overrides {
    /// The file.
    pub config: Option<PathBuf>,
    /// Instead of the file's.
    pub listen: Vec<String>,
    /// Instead of the file's.
    pub health_listen: Option<String>,
    /// Instead of the file's.
    pub data: Option<PathBuf>,
    /// A file that holds the administrator's token.
    pub token_file: Option<PathBuf>,
    /// Instead of the file's.
    pub statsd: Option<String>,
    /// Sends a test alert to every sink and ends.
    pub test_alert: bool,
}

impl Config {
    /// The file of the overrides, if they name one, with what they state instead.
    ///
    /// # Errors
    /// `InvalidArgument` naming file, line and key.
    pub fn load(overrides: &Overrides) -> Result<Self> {
        let mut out = match &overrides.config {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Error::invalid(format!("{} could not be read: {error}", path.display())))?;
                Self::from_toml(&text, &path.display().to_string())?
            }
            None => Self::from_toml("", "no file")?,
        };
        let address = |text: &String| Address::try_from(text.clone()).map_err(|error| Error::invalid(format!("`--listen`: {error}")));
        if !overrides.listen.is_empty() {
            out.listen = overrides.listen.iter().map(address).collect::<Result<_>>()?;
        }
        if let Some(listen) = &overrides.health_listen {
            out.health_listen = Some(address(listen)?);
        }
        if let Some(statsd) = &overrides.statsd {
            out.statsd = Some(address(statsd)?);
        }
        if let Some(data) = &overrides.data {
            out.data.clone_from(data);
        }
        out.check()?;
        Ok(out)
    }

    /// The keys that a file may have at its top.
    pub fn keys() -> &'static [&'static str] {
        let mut fields = Fields(&[]);
        let _only_asks = File::deserialize(&mut fields);
        fields.0
    }

    /// A file's text.
    ///
    /// # Errors
    /// `InvalidArgument` naming file, line and key.
    pub fn from_toml(text: &str, source: &str) -> Result<Self> {
        let file: File = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            Error::invalid(format!("{source}:{}: {}", before.matches('\n').count() + 1, error.message()))
        })?;
        let policies = if file.models.is_empty() { BTreeMap::new() } else { Policy::all_from_toml(text, source)? };
        let names: std::collections::BTreeSet<&String> = policies
            .keys()
            .chain(file.roles.keys())
            .chain(file.learn.keys())
            .chain(file.segments.keys())
            .chain(file.examples.keys())
            .chain(file.privacy.keys())
            .collect();
        let mut models = BTreeMap::new();
        for name in names {
            let mut policy = policies.get(name).cloned().unwrap_or_else(|| PolicyOf::default().0);
            let stated = file.models.get(name).and_then(|table| table.get("memory")).is_some();
            if !stated {
                policy.memory = PolicyOf::default().0.memory;
            }
            let privacy = file.privacy.get(name).map(serde_json::to_value).transpose();
            let settings = Settings {
                roles: file.roles.get(name).cloned().unwrap_or_default(),
                learn: file.learn.get(name).copied().unwrap_or_default(),
                segments: file.segments.get(name).cloned().unwrap_or_default(),
                examples: file.examples.get(name).copied().unwrap_or_default(),
                privacy: privacy.map_err(|error| Error::invalid(format!("{source}: `privacy.{name}`: {error}")))?,
                policy: PolicyOf(policy),
            };
            settings.check().map_err(|error| Error { message: format!("{source}, model {name}: {}", error.message), ..error })?;
            models.insert(name.clone(), settings);
        }
        let listen = match file.listen {
            None => vec![Address::try_from(ADDRESS.to_owned()).map_err(Error::invalid)?],
            Some(OneOrMany::One(one)) => vec![one],
            Some(OneOrMany::Many(many)) => many,
        };
        // A limit that is measured is what the rest is made for, unless that is stated.
        let memory = file.memory.or(file.budget.memory).map_or(256 << 20, |size| size.0);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            listen,
            health_listen: file.health_listen,
            health_metrics: file.health_metrics,
            data: file.data.unwrap_or_else(|| PathBuf::from("barograph-data")),
            acknowledge: file.acknowledge,
            budget: file.budget,
            memory,
            max_body: file.max_body.map_or((memory / 4).min(32 << 20), |size| size.0),
            max_connections: file.max_connections,
            max_models: file.max_models,
            shards: file.shards.unwrap_or_else(|| (cores / 2).clamp(1, 8)),
            sampling: file.sampling,
            hosts: file.hosts,
            statsd: file.statsd,
            naming: file.naming,
            tls: file.tls,
            tokens: file.tokens,
            sinks: file.sinks,
            otlp: file.otlp,
            privacy_key: file.privacy_key,
            fleet: file.fleet,
            models,
        })
    }

    /// Refuses what cannot be, or must not be.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn check(&self) -> Result<()> {
        if let Some(open) = self.listen.iter().find(|address| !address.is_local()) {
            let mutual = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
            if self.tls.is_none() || self.tokens.is_empty() && !mutual {
                return Err(Error::invalid(format!(
                    "`listen` names {open}, which others can reach, without [tls] and [[tokens]] (or `tls.client_ca`)"
                ))
                .hint("listen on 127.0.0.1 or a Unix socket, or say who may come in, and encrypt"));
            }
        }
        if self.memory < 64 << 20 {
            return Err(Error::invalid(format!("`memory` must be at least 64MB, got {} bytes", self.memory)));
        }
        self.budget.check(64 << 20)?;
        if let Some(limit) = self.budget.memory.filter(|limit| limit.0 < self.memory) {
            return Err(Error::invalid(format!(
                "`memory` of [budget] ({} bytes) must be at least `memory` ({} bytes)",
                limit.0, self.memory
            ))
            .hint("state one of them: without `memory` that of the budget counts"));
        }
        if self.max_body < 1 << 10 || self.max_body > self.memory / 4 {
            return Err(Error::invalid(format!("`max_body` must be between 1kB and a quarter of `memory`, got {} bytes", self.max_body)));
        }
        self.fleet.as_ref().map_or(Ok(()), Fleet::check)?;
        crate::sinks::check(&self.sinks).map_err(|why| Error::invalid(format!("`sinks`: {why}")))?;
        if !(1..=64).contains(&self.shards) {
            return Err(Error::invalid(format!("`shards` must be in [1, 64], got {}", self.shards)));
        }
        if self.max_connections == 0 || self.max_models == 0 {
            return Err(Error::invalid("`max_connections` and `max_models` must be at least 1"));
        }
        for (at, token) in self.tokens.iter().enumerate() {
            // Names say whose a request is, in the audit log and when it is asked what he may see.
            let taken = self.tokens.iter().take(at).any(|other| other.name == token.name);
            if taken || ["", "admin", "certificate"].contains(&token.name.as_str()) {
                return Err(
                    Error::invalid(format!("`tokens` has the name {:?}, which is taken", token.name)).hint("give each token its own")
                );
            }
        }
        for (name, settings) in &self.models {
            if !is_name(name) {
                return Err(Error::invalid(format!("`models` names {name:?}")).hint(NAMES));
            }
            // Rules that cannot be kept to are told before anything is served.
            crate::model::Model::new(name, settings.clone())
                .shape(self.privacy_key.as_ref())
                .map_err(|problem| Error::invalid(format!("model {name:?}: {}", problem.detail)))?;
        }
        Ok(())
    }

    /// A path below the data folder.
    pub fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.data).join(name)
    }
}

/// What a model may be called.
pub const NAMES: &str = "names have 1 to 100 letters, digits, - _ and ., and begin with a letter or digit";

/// Whether a model may have this name: it becomes a folder and a part of addresses.
pub fn is_name(name: &str) -> bool {
    let fine = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_' | b'.');
    (1..=100).contains(&name.len()) && name.bytes().all(fine) && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_enough() {
        let config = Config::from_toml("", "x").unwrap();
        assert!(config.check().is_ok() && config.listen[0].is_local());
        assert_eq!((config.memory, config.acknowledge), (256 << 20, Acknowledge::Os));
    }

    #[test]
    fn listening_for_others_needs_to_say_who() {
        let open = "listen = \"0.0.0.0:7464\"\n";
        let tls = "[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
        let tokens = "[[tokens]]\nname = \"a\"\ntoken = \"secret\"\nscopes = [\"ingest\"]\n";
        for (text, fine) in [(open.to_owned(), false), (format!("{open}{tls}"), false), (format!("{open}{tokens}"), false)] {
            assert_eq!(Config::from_toml(&text, "x").unwrap().check().is_ok(), fine, "{text}");
        }
        assert!(Config::from_toml(&format!("{open}{tls}{tokens}"), "x").unwrap().check().is_ok());
        assert!(Config::from_toml(&format!("{open}{tls}client_ca = \"a\"\n"), "x").unwrap().check().is_ok());
    }

    #[test]
    fn models_have_policies_and_more() {
        let text = "memory = \"128MB\"\n[examples]\nfraud = 5\n[models.fraud]\nwindow = \"1d\"\n[roles.fraud]\nid = \"tx\"\n[learn.fraud]\nevents = 500\n";
        let config = Config::from_toml(text, "x").unwrap();
        let fraud = &config.models["fraud"];
        assert_eq!((config.memory, fraud.learn.events, fraud.roles["id"].as_str(), fraud.examples), (128 << 20, 500, "tx", 5));
        assert!(
            Config::from_toml("[examples]\nfraud = 21\n", "b.toml").unwrap_err().message.contains("`examples` must be in [0, 20], got 21")
        );
        assert_eq!(fraud.policy.0.window.to_string(), "1d");
        for (text, says) in [
            ("lisen = \"x\"", "x:1: unknown field"),
            ("\nmemory = \"many\"", "x:2: expected a size"),
            ("[roles.m]\nuser = \"u\"", "names role \"user\""),
            ("[models.m]\nwindo = \"1h\"", "x:2: unknown key \"windo\""),
        ] {
            let error = Config::from_toml(text, "x").unwrap_err();
            assert!(error.message.contains(says), "{error}");
        }
    }

    #[test]
    fn rules_and_names_that_cannot_be_are_told_at_once() {
        let says = |text: &str| Config::from_toml(text, "x").unwrap().check().err().map(|error| error.message).unwrap_or_default();
        let hash = "[privacy.m.columns]\nname = \"hash\"\n";
        assert!(says(hash).contains("model \"m\": "), "{}", says(hash));
        assert_eq!(says(&format!("privacy_key = \"{}\"\n{hash}", "k".repeat(32))), "");
        assert!(says("[privacy.m.columns]\nname = \"hide\"\n").contains("model \"m\": "));
        let token = |name: &str| format!("[[tokens]]\nname = \"{name}\"\ntoken = \"secret {name}\"\nscopes = [\"read\"]\n");
        assert_eq!(says(&(token("a") + &token("b"))), "");
        for text in [token("a") + &token("a"), token("admin"), token("")] {
            assert!(says(&text).contains("which is taken"), "{text}");
        }
    }

    #[test]
    fn a_budget_is_the_process_s() {
        let of = |text: &str| Config::from_toml(text, "x").and_then(|config| config.check().map(|()| config));
        let config = of("[budget]\ncpu = \"1%\"\nmemory = \"128MB\"\nwire = \"10kB/s\"\n").unwrap();
        assert_eq!((config.memory, config.budget.cpu.map(|share| share.0), config.budget.sampling), (128 << 20, Some(0.01), true));
        for (text, says) in [
            ("[budget]\ncpu = \"101%\"", "x:2: `cpu` of the budget: expected more than 0"),
            ("[budget]\ncpus = 1", "x:2: unknown field `cpus`"),
            ("[budget]\nmemory = \"1MB\"", "`memory` must be at least 64MB"),
            ("memory = \"1GB\"\n[budget]\nmemory = \"128MB\"", "`memory` of [budget]"),
            ("[models.m.budget]\ncpu = \"1%\"", "x, model m: `budget.cpu`"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.message.contains(says), "{error}");
        }
    }

    #[test]
    fn keys_are_told() {
        assert!(["listen", "privacy_key", "models"].iter().all(|key| Config::keys().contains(key)));
    }

    #[test]
    fn names_are_no_paths() {
        for name in ["", ".", "..", "../x", "a/b", "a\\b", "é", ".hidden", "a b"] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name("fraud-v2.1_x"));
    }
}
