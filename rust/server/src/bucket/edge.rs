//! What a sidecar that sees does with a bucket: it puts parcels there, and takes over what the aggregator has stated.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use barograph_core::{Error, Result};
use barograph_engine::Reference;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::parcel::Held;
use super::{Bucket, Got, is_stream};
use crate::config::is_name;
use crate::fleet::{Given, Pin, Stated};
use crate::model::Settings;
use crate::outbox::{Parcel, Parcels};

/// Bytes of a parcel that is read back.
const MOST: usize = 64 << 20;

/// What an aggregator states about a model, as an object.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Statement {
    /// Version of this document.
    barograph: u32,
    /// Settings, as JSON.
    settings: String,
    /// Identity of the reference, unless it is still learned.
    pub(super) reference: Option<String>,
    /// Of both.
    sha256: String,
}

impl Statement {
    pub(super) fn new(settings: String, reference: Option<String>) -> Self {
        let sha256 = Self::hash(&settings, reference.as_deref());
        Self { barograph: 1, settings, reference, sha256 }
    }

    fn hash(settings: &str, reference: Option<&str>) -> String {
        crate::control::hex(&Sha256::digest(format!("{settings}\n{}", reference.unwrap_or_default())))
    }

    /// Reads one, with its settings.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, Settings)> {
        let out: Self = serde_json::from_slice(bytes).map_err(|error| Error::decode(format!("it is no statement: {error}")))?;
        if out.barograph != 1 {
            return Err(Error::decode("a newer barograph wrote it").hint("update this one"));
        }
        if out.sha256 != Self::hash(&out.settings, out.reference.as_deref()) {
            return Err(Error::decode("its hash is another one: it was changed after it was written"));
        }
        let settings = Settings::from_json(&out.settings)?;
        Ok((out, settings))
    }
}

/// The way to an aggregator through a bucket.
pub struct Post {
    bucket: Bucket,
    interval: Duration,
    /// The aggregator that has what was put before.
    pin: Arc<Pin>,
    /// When it was seen that the bucket is this one's, and there.
    seen: Mutex<Option<(Instant, String)>>,
    /// References of models as they were stated last.
    stated: Mutex<BTreeMap<String, Option<String>>>,
}

impl Post {
    pub(crate) fn new(bucket: Bucket, interval: Duration, pin: Arc<Pin>) -> Self {
        Self { bucket, interval, pin, seen: Mutex::default(), stated: Mutex::default() }
    }

    /// The bucket.
    pub(crate) fn address(&self) -> &str {
        &self.bucket.address
    }

    /// That an aggregator reads here, the one that has the earlier parcels: a folder that is not mounted is empty, and so is a bucket of a
    /// name that somebody misspelt. Gives its identity.
    async fn reader(&self) -> std::result::Result<String, String> {
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, identity)) = known.filter(|(at, _)| !self.bucket.is_folder() && at.elapsed() < self.interval) {
            return Ok(identity);
        }
        let Got::Bytes(bytes, _) = self.bucket.get(&self.bucket.name(["aggregator"]), None).await? else {
            return Err(format!("{}: no aggregator reads there: none has left its `aggregator` in it", self.bucket.address));
        };
        let identity = String::from_utf8_lossy(bytes.get(..bytes.len().min(100)).unwrap_or_default()).trim().to_owned();
        if let Some(pinned) = self.pin.known().filter(|pinned| *pinned != identity) {
            return Err(format!(
                "{}: aggregator {identity} reads there, not {pinned}, which has the earlier deltas; if it takes that one's place, state its \
                 identity as `fleet.aggregator`",
                self.bucket.address
            ));
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), identity.clone()));
        Ok(identity)
    }

    /// The models that the aggregator has stated.
    ///
    /// # Errors
    /// Why the bucket does not say, in words; so do the others.
    pub(crate) async fn models(&self) -> std::result::Result<Vec<String>, String> {
        self.reader().await?;
        let mut names = self.bucket.parts(&self.bucket.name(["models"])).await?;
        names.retain(|name| is_name(name));
        Ok(names)
    }

    /// What is stated about a model, unless it is what this tag says.
    pub(crate) async fn stated(&self, model: &str, tag: Option<String>) -> std::result::Result<Stated, String> {
        self.reader().await?;
        let name = self.bucket.name(["models", model, "settings.json"]);
        let (bytes, tag) = match self.bucket.get(&name, tag.as_deref()).await? {
            Got::Missing => {
                self.stated.lock().unwrap_or_else(PoisonError::into_inner).remove(model);
                return Ok(Stated::Nothing);
            }
            Got::Same => return Ok(Stated::Same),
            Got::Bytes(bytes, tag) => (bytes, tag),
        };
        let (statement, settings) = Statement::read(&bytes)
            .map_err(|error| format!("{}: {} cannot be read: {}", self.bucket.address, self.bucket.shown(&name), error.message))?;
        self.stated.lock().unwrap_or_else(PoisonError::into_inner).insert(model.to_owned(), statement.reference);
        Ok(Stated::These(Box::new(settings), tag))
    }

    /// The snapshot of a model's reference, if it is another one than `own`.
    pub(crate) async fn reference(&self, model: &str, own: Option<String>) -> std::result::Result<Option<Bytes>, String> {
        let stated = self.stated.lock().unwrap_or_else(PoisonError::into_inner).get(model).cloned().flatten();
        let Some(stated) = stated.filter(|stated| own.as_ref() != Some(stated)) else { return Ok(None) };
        let name = self.bucket.name(["models", model, &format!("reference-{stated}")]);
        // One that is gone was replaced: the next look finds which by.
        let Got::Bytes(bytes, _) = self.bucket.get(&name, None).await? else { return Ok(None) };
        let wrong = |why: &str| format!("{}: {} is not that reference: {why}", self.bucket.address, self.bucket.shown(&name));
        let read = Reference::from_bytes(&bytes).map_err(|error| wrong(&error.message))?;
        if read.id() == stated { Ok(Some(bytes)) } else { Err(wrong("it is another one")) }
    }

    /// Puts a parcel, once.
    pub(crate) async fn give(&self, model: &str, stream: &Arc<str>, parcel: Parcel) -> std::result::Result<Given, String> {
        let identity = self.reader().await?;
        if !is_stream(stream) {
            return Ok(Given::Refused(format!("its stream {stream:?} cannot be a part of an object's name")));
        }
        // While it learns it is told of models that it does not have.
        let known = self.stated.lock().unwrap_or_else(PoisonError::into_inner).contains_key(model);
        if parcel.what == Parcels::Delta && !known {
            return Ok(Given::Refused(format!("the aggregator states no model {model:?}")));
        }
        let (name, stream) = (model.to_owned(), Arc::clone(stream));
        let packed = tokio::task::spawn_blocking(move || {
            let held = Held::new(&name, &stream, &parcel);
            held.to_bytes().map(|bytes| (held, bytes))
        });
        let (held, bytes) = packed.await.map_err(|error| error.to_string())?.map_err(|error| error.message)?;
        let name = self.bucket.parcel(model, &held.place);
        if !self.bucket.create(&name, bytes.clone()).await? {
            // This sidecar put it, and was killed before it had written that down; or it is not what it was then.
            match self.bucket.get(&name, None).await? {
                // It was counted meanwhile.
                Got::Missing | Got::Same => {}
                Got::Bytes(found, _) => match Held::from_bytes(&found, MOST.max(held.bytes.len())) {
                    Ok(found) if found.hash == held.hash => {}
                    // Half of it, or what is left of it: here it is whole.
                    Err(_) if found.len() <= bytes.len() => self.bucket.put(&name, bytes).await?,
                    _ => {
                        return Ok(Given::Refused(format!(
                            "{} holds another parcel: was this sidecar set back to an older copy of its folder?",
                            self.bucket.shown(&name)
                        )));
                    }
                },
            }
        }
        self.pin.set(&identity);
        Ok(Given::Taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_was_changed_is_refused() {
        let settings = Settings::from_json(r#"{"policy": {"window": "1d"}}"#).unwrap();
        let bytes = serde_json::to_vec(&Statement::new(settings.to_json().unwrap(), Some("abc".to_owned()))).unwrap();
        let (statement, read) = Statement::read(&bytes).unwrap();
        assert_eq!((statement.reference.as_deref(), read), (Some("abc"), settings));
        let text = String::from_utf8(bytes).unwrap();
        for (from, to, says) in [("abc", "abd", "hash"), ("1d", "2d", "hash"), ("\"barograph\":1", "\"barograph\":2", "newer")] {
            assert!(text.contains(from), "{text}");
            let error = Statement::read(text.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.message.contains(says), "{error}");
        }
        (0..text.len()).for_each(|length| assert!(Statement::read(&text.as_bytes()[..length]).is_err()));
    }
}
