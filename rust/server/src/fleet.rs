//! A sidecar of a fleet: what it has seen goes to an aggregator, which judges for all.
//!
//! Parcels leave the outbox of a model in order, each once the aggregator, or the bucket that it reads, has it: each number of a stream is
//! counted once. What is refused, such as a delta of another reference, stays, is told in `/readyz`, and is tried again.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use barograph_core::{Error, Result};
use barograph_engine::Reference;
use barograph_engine::policy::Length;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use crate::bucket::edge::Post;
use crate::bucket::reader::Reader;
use crate::bucket::{self, Bucket};
use crate::config::{Size, is_name};
use crate::link::{self, Link};
use crate::model::Settings;
use crate::outbox::Parcel;
use crate::problem::{Outcome, Problem};
use crate::record::Happening;
use crate::secret::Secret;
use crate::shard::Entry;
use crate::sidecar::Sidecar;

/// What was refused is tried again after this time.
pub(crate) const AGAIN: Duration = Duration::from_secs(60);
/// Seconds between looks at which models the aggregator has, for each second of the interval.
const DISCOVER: Duration = Duration::from_secs(6);
/// Until an aggregator that did not answer is asked again, at most.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What an operator states about a fleet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// Where what is seen goes: the address of the aggregator, or a bucket that it reads.
    pub to: Option<String>,
    /// The bucket that this sidecar reads, as the aggregator.
    pub from: Option<String>,
    /// Where a bucket is told: the address of the aggregator, for what is asked of this sidecar.
    pub ask: Option<String>,
    /// A token of the aggregator with the scopes `ingest` and `read`.
    pub token: Option<Secret>,
    /// From delta to delta, and from look to look into a bucket.
    #[serde(default = "interval")]
    pub interval: Length,
    /// What this sidecar is called there; made and kept unless it is stated.
    pub name: Option<String>,
    /// Bytes that may wait for the aggregator; an eighth of `memory` unless stated.
    pub outbox: Option<Size>,
    /// Identity of the aggregator, where it is another one than before.
    pub aggregator: Option<String>,
    /// PEM file of the authority of its certificate, or of that of the bucket, unless it is a public one.
    pub ca: Option<PathBuf>,
    /// How long a parcel that was counted stays in the bucket, at least; a minute unless stated.
    pub keep: Option<Length>,
}

fn interval() -> Length {
    Length(10_000_000_000)
}

/// Of counted parcels unless it is stated.
const KEEP: Length = Length(60_000_000_000);

impl Fleet {
    /// Refuses what cannot be.
    ///
    /// # Errors
    /// `InvalidArgument` naming the key.
    pub fn check(&self) -> Result<()> {
        let others = match (&self.to, &self.from) {
            (Some(to), None) => {
                if bucket::is_address(to) {
                    bucket::check("to", to)?;
                } else {
                    link::check("to", to)?;
                    if self.ask.is_some() {
                        return Err(Error::invalid("`fleet.ask` goes with a bucket in `fleet.to`, which is an aggregator's address here")
                            .hint("that one is asked"));
                    }
                }
                self.ask.as_ref().map_or(Ok(()), |ask| link::check("ask", ask))?;
                vec![("keep", self.keep.is_some())]
            }
            (None, Some(from)) => {
                bucket::check("from", from)?;
                let [ask, token, name] = [self.ask.is_some(), self.token.is_some(), self.name.is_some()];
                vec![
                    ("ask", ask),
                    ("token", token),
                    ("name", name),
                    ("outbox", self.outbox.is_some()),
                    ("aggregator", self.aggregator.is_some()),
                ]
            }
            _ => {
                return Err(Error::invalid("[fleet] must state either `to` or `from`").hint(
                    "`to` says where what is seen goes, an aggregator or a bucket; `from` the bucket that is read by the aggregator",
                ));
            }
        };
        if let Some((key, _)) = others.iter().find(|(_, stated)| *stated) {
            let (own, other) = if self.to.is_some() { ("to", "from") } else { ("from", "to") };
            return Err(Error::invalid(format!("`fleet.{key}` goes with `fleet.{other}`, and `fleet.{own}` is stated")));
        }
        if !(1_000_000_000..=3_600_000_000_000).contains(&self.interval.0) {
            return Err(Error::invalid(format!("`fleet.interval` must be in [1s, 1h], got {}", self.interval)));
        }
        if let Some(keep) = self.keep.filter(|keep| !(0..=30 * 86_400_000_000_000).contains(&keep.0)) {
            return Err(Error::invalid(format!("`fleet.keep` must be in [0s, 30d], got {keep}")));
        }
        if let Some(name) = self.name.as_ref().filter(|name| !is_name(name)) {
            return Err(Error::invalid(format!("`fleet.name` is {name:?}")).hint(crate::config::NAMES));
        }
        Ok(())
    }

    /// The part in a fleet that is stated.
    ///
    /// # Errors
    /// `InvalidArgument` for certificates, keys or a folder that cannot be read.
    pub fn part(&self, memory: usize, data: &Path) -> Result<Part> {
        let agent = link::agent(self.ca.as_deref())?;
        if let Some(from) = &self.from {
            let keep = Duration::from_nanos(self.keep.unwrap_or(KEEP).0.unsigned_abs());
            let bucket = Bucket::open("from", from, agent)?;
            return Ok(Part::Aggregator(Arc::new(Reader::new(bucket, self.spaced(), keep, data.join("bucket")))));
        }
        let name = match &self.name {
            Some(name) => name.clone(),
            None => kept(&data.join("name"), || Ok(format!("sidecar-{}", random(4)?)))?,
        };
        let outbox = self.outbox.map_or(memory / 8, |size| size.0);
        let pin = Arc::new(Pin::new(self.aggregator.as_deref(), data.join("aggregator")));
        let membership = Arc::new(Membership { name, interval: self.spaced(), outbox });
        let to = self.to.as_deref().unwrap_or_default();
        let link = |address: &str| Arc::new(Link::new(address, self, agent.clone(), Arc::clone(&pin)));
        let (way, asked) = if bucket::is_address(to) {
            let post = Post::new(Bucket::open("to", to, agent.clone())?, self.spaced(), Arc::clone(&pin));
            (Way::Bucket(Arc::new(post)), self.ask.as_deref().map(link))
        } else {
            let link = link(to);
            (Way::Link(Arc::clone(&link)), Some(link))
        };
        Ok(Part::Member(Arc::new(Member { membership, way, asked })))
    }

    fn spaced(&self) -> Duration {
        Duration::from_nanos(self.interval.0.unsigned_abs())
    }
}

/// A part in a fleet.
pub enum Part {
    /// It sees.
    Member(Arc<Member>),
    /// It judges, and reads a bucket.
    Aggregator(Arc<Reader>),
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

/// A sidecar that has an aggregator.
pub struct Member {
    /// How models tell it.
    pub membership: Arc<Membership>,
    way: Way,
    /// Who answers what is asked of this one, if he can be reached.
    pub(crate) asked: Option<Arc<Link>>,
}

impl Member {
    /// Where the aggregator is, or the bucket.
    pub fn place(&self) -> &str {
        match &self.way {
            Way::Link(link) => link.base(),
            Way::Bucket(post) => post.address(),
        }
    }
}

/// Which aggregator has what was told before; kept in a file.
pub(crate) struct Pin {
    known: Mutex<Option<String>>,
    file: PathBuf,
}

impl Pin {
    fn new(stated: Option<&str>, file: PathBuf) -> Self {
        let known = stated.map(str::to_owned).or_else(|| fs::read_to_string(&file).ok());
        Self { known: Mutex::new(known.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())), file }
    }

    /// Its identity.
    pub(crate) fn known(&self) -> Option<String> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The aggregator has something that was told: from now on it is this one.
    pub(crate) fn set(&self, identity: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_deref() != Some(identity) {
            *known = Some(identity.to_owned());
            if let Err(error) = fs::write(&self.file, identity) {
                crate::note::warn(&format!("{} could not be written: {error}", self.file.display()));
            }
        }
    }
}

/// What became of a parcel.
pub(crate) enum Given {
    /// It is there, for good.
    Taken,
    /// It is not taken, and why.
    Refused(String),
}

/// What is stated about a model at the aggregator.
pub(crate) enum Stated {
    /// The model is not known there.
    Nothing,
    /// What was known already.
    Same,
    /// These, and what tells them from others.
    These(Box<Settings>, Option<String>),
}

/// How an aggregator is told.
enum Way {
    Link(Arc<Link>),
    Bucket(Arc<Post>),
}

impl Way {
    async fn models(&self) -> std::result::Result<Vec<String>, String> {
        match self {
            Self::Link(link) => link.models().await,
            Self::Bucket(post) => post.models().await,
        }
    }

    async fn stated(&self, model: &str, tag: Option<String>) -> std::result::Result<Stated, String> {
        match self {
            Self::Link(link) => link.stated(model, tag).await,
            Self::Bucket(post) => post.stated(model, tag).await,
        }
    }

    async fn reference(&self, model: &str, own: Option<String>) -> std::result::Result<Option<Bytes>, String> {
        match self {
            Self::Link(link) => link.reference(model, own).await,
            Self::Bucket(post) => post.reference(model, own).await,
        }
    }

    async fn give(&self, model: &str, stream: &Arc<str>, parcel: Parcel) -> std::result::Result<Given, String> {
        match self {
            Self::Link(link) => link.give(model, stream, parcel).await,
            Self::Bucket(post) => post.give(model, stream, parcel).await,
        }
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
    let Some(member) = sidecar.fleet.clone() else { return };
    let sidecar = Arc::clone(sidecar);
    tokio::spawn(async move {
        let mut known: HashMap<(String, String), Known> = HashMap::new();
        let turn = (member.membership.interval / 4).clamp(Duration::from_millis(50), Duration::from_secs(1));
        let mut failures = 0u32;
        let mut discovered: Option<Instant> = None;
        while !sidecar.stopping.load(Ordering::Relaxed) {
            let mut failed = None;
            if discovered.is_none_or(|at| at.elapsed() > DISCOVER * member.membership.interval.as_secs().max(1) as u32) {
                match discover(&sidecar, &member).await {
                    Ok(()) => discovered = Some(Instant::now()),
                    Err(why) => failed = Some(why),
                }
            }
            let entries = sidecar.models.entries();
            if let Some(why) = failed.as_ref().filter(|_| entries.is_empty()) {
                // No model can tell it.
                crate::note::warn(&format!("fleet: {why}"));
            }
            for entry in entries.into_iter().filter(|entry| !entry.replaying.load(Ordering::Relaxed)) {
                let own = known.entry((entry.name.clone(), entry.generation.clone())).or_default();
                let done = match &failed {
                    None => told(&sidecar, &member, &entry, own).await,
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
    let Some(member) = sidecar.fleet.clone() else { return };
    let all = async {
        for entry in sidecar.models.entries().into_iter().filter(|entry| !entry.replaying.load(Ordering::Relaxed)) {
            // What cannot be cut or sent now stays in the log.
            let _ = sidecar.models.happen(&entry, Happening::Cut).await;
            let mut known = Known { asked: Some(Instant::now()), ..Known::default() };
            if told(sidecar, &member, &entry, &mut known).await.is_err() {
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

/// Makes the models here that the aggregator has, so that what comes is counted by their references from the first event on.
async fn discover(sidecar: &Arc<Sidecar>, member: &Member) -> std::result::Result<(), String> {
    for name in member.way.models().await? {
        sidecar.entry_or_new(&name, "fleet").await.map_err(|problem| problem.detail)?;
    }
    Ok(())
}

/// Learns what the aggregator has of a model, and gives it what waits.
async fn told(sidecar: &Arc<Sidecar>, member: &Member, entry: &Arc<Entry>, known: &mut Known) -> std::result::Result<(), String> {
    if known.asked.is_none_or(|asked| asked.elapsed() >= member.membership.interval) {
        adopt(sidecar, member, entry, known).await?;
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
        let number = parcel.number;
        match member.way.give(&entry.name, &stream, parcel).await? {
            Given::Taken => sidecar.models.happen(entry, Happening::Sent(number)).await.map_err(|problem| problem.detail)?,
            Given::Refused(why) => {
                known.refused.insert(number, why);
                known.refused_at.get_or_insert_with(Instant::now);
                known.asked = None;
            }
        }
    }
}

/// Takes over what is stated about a model at the aggregator, and its reference.
async fn adopt(sidecar: &Arc<Sidecar>, member: &Member, entry: &Arc<Entry>, known: &mut Known) -> std::result::Result<(), String> {
    match member.way.stated(&entry.name, known.tag.clone()).await? {
        Stated::These(settings, tag) => {
            let own = sidecar.models.look(entry, |model| model.settings.clone()).await.map_err(|problem| problem.detail)?;
            if own != *settings {
                let stated = sidecar.state(&entry.name, *settings, None, "fleet").await;
                stated.map_err(|problem| format!("its settings cannot be kept to: {}", problem.detail))?;
            }
            known.refused.clear();
            known.tag = tag;
        }
        Stated::Same => {}
        // Nobody has told it of this model yet.
        Stated::Nothing => return Ok(()),
    }
    let own = sidecar.models.look(entry, |model| model.monitor().map(|monitor| monitor.reference().id().to_owned()));
    let own = own.await.map_err(|problem| problem.detail)?;
    let Some(bytes) = member.way.reference(&entry.name, own).await? else { return Ok(()) };
    let reference = Reference::from_bytes(&bytes).map_err(|error| format!("its reference cannot be read: {}", error.message))?;
    let taken = sidecar.models.happen(entry, Happening::Reference(bytes.to_vec())).await;
    taken.map_err(|problem| format!("its reference does not fit: {}", problem.detail))?;
    sidecar.audit("fleet", "reference", &entry.name, &json!({"reference": reference.id()}));
    Ok(())
}

/// Refuses to state here what the aggregator states.
///
/// # Errors
/// 409 in a sidecar that has an aggregator.
pub(crate) fn alone(sidecar: &Sidecar) -> Outcome<()> {
    match &sidecar.fleet {
        None => Ok(()),
        Some(member) => {
            Err(Problem::new(409, "conflict", format!("models of this sidecar are stated at its aggregator, {}", member.place()))
                .hint("say it there; it is taken over"))
        }
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
        for fine in [
            "to = \"https://a:7464\"",
            "to = \"http://127.0.0.1:1\"\ninterval = \"1s\"\nname = \"pod-1\"\noutbox = \"1MB\"",
            "to = \"s3://bucket/fleet\"\nask = \"https://a\"\ntoken = \"t\"",
            "to = \"file:///shared\"",
            "from = \"s3://bucket/fleet\"\nkeep = \"10m\"\ninterval = \"1m\"",
        ] {
            assert_eq!(says(fine), "");
        }
        for (text, expected) in [
            ("to = \"http://aggregator:7464\"", "must begin with https://"),
            ("to = \"aggregator\"", "must be an address"),
            ("to = \"https://user:hush@a\"", "must be an address"),
            ("to = \"https://a\"\ninterval = \"2h\"", "`fleet.interval` must be in"),
            ("to = \"https://a\"\nname = \"a b\"", "`fleet.name`"),
            ("to = \"https://a\"\ntokn = \"x\"", "unknown field `tokn`"),
            ("interval = \"1s\"", "either `to` or `from`"),
            ("to = \"https://a\"\nfrom = \"s3://bucket\"", "either `to` or `from`"),
            ("from = \"https://a\"", "`fleet.from` must be \"s3://bucket/prefix\""),
            ("from = \"s3://bucket\"\nname = \"a\"", "`fleet.name` goes with `fleet.to`"),
            ("to = \"s3://bucket\"\nkeep = \"1m\"", "`fleet.keep` goes with `fleet.from`"),
            ("to = \"https://a\"\nask = \"https://b\"", "`fleet.ask` goes with a bucket"),
            ("to = \"s3://bucket\"\nask = \"http://b\"", "`fleet.ask` must begin with https://"),
            ("from = \"s3://bucket\"\nkeep = \"31d\"", "`fleet.keep` must be in [0s, 30d]"),
        ] {
            assert!(says(text).contains(expected), "{text}: {}", says(text));
        }
    }
}
