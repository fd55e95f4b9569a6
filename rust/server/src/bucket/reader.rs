//! What an aggregator does with a bucket: it counts the parcels in it, each once, and states what its models are.
//!
//! A turn looks at all objects. Those whose numbers were counted are passed by, and go once they have been here for long enough and a state
//! on the disk has them counted; the rest is read, stream by stream in order, and happens to its model as what is posted does. What cannot
//! be counted stays, is told, and is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use object_store::path::Path;
use tokio::sync::OwnedSemaphorePermit;

use super::edge::Statement;
use super::parcel::Held;
use super::{Bucket, Got, Listed};
use crate::fleet::{AGAIN, LONGEST_WAIT};
use crate::outbox::Parcels;
use crate::problem::Problem;
use crate::sidecar::Sidecar;
use crate::streams::{MOST_STREAMS, Numbered, Streams};

/// Objects that are read in one turn; the next one goes on.
const MOST_READ: usize = 20_000;
/// Objects that are removed in one turn.
const MOST_REMOVED: usize = 20_000;
/// Refused objects that are remembered: what is beyond is looked at in every turn.
const MOST_REFUSED: usize = 10_000;
/// Objects that are on their way at once.
const AT_ONCE: usize = 8;
/// How long memory for an object is waited for, and how long until it is asked for again.
const MOST_WAIT: Duration = Duration::from_secs(5);
const A_MOMENT: Duration = Duration::from_millis(20);
/// How long windows wait for a bucket that cannot be reached.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of objects, ever since the start.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Counts {
    pub counted: AtomicU64,
    pub repeated: AtomicU64,
    pub refused: AtomicU64,
    pub removed: AtomicU64,
    /// Objects that are there now and are not counted.
    pub waiting: AtomicU64,
}

/// The way out of a bucket.
#[derive(Debug)]
pub struct Reader {
    bucket: Bucket,
    interval: Duration,
    keep: Duration,
    /// A file that says of which bucket this is the reader.
    claim: PathBuf,
    trouble: Mutex<BTreeMap<&'static str, String>>,
    /// What became of objects.
    pub counts: Counts,
    /// What lies in the bucket was not all counted since the start: until then no window is closed, or it would be closed without that.
    pub behind: Arc<AtomicBool>,
}

/// Why an object is not counted, and which one it was.
#[derive(Debug)]
struct Refused {
    object: Listed,
    why: String,
    at: Instant,
}

/// What the streams of models, by name, have counted; each with the model's generation.
type Counted = BTreeMap<String, (String, Streams)>;

fn has(of: &Counted, model: &str, place: &Numbered) -> bool {
    of.get(model).is_some_and(|(_, streams)| streams.contains(place))
}

/// What is known from turn to turn.
struct Seen {
    /// By model, what was stated last: its settings and its reference.
    stated: BTreeMap<String, (String, Option<String>)>,
    /// Whether it was looked what the bucket says.
    looked: bool,
    refused: BTreeMap<Path, Refused>,
    /// Models that are not here, although deltas of them lie there, and since when that is known.
    absent: BTreeMap<String, Instant>,
    /// The last name that was come to, if there are more than one turn reads.
    from: Option<Path>,
    /// As it was after the last turn.
    last: Counted,
    /// As states on the disk have it, since when.
    written: (Instant, Counted),
    /// Whether the last turn was not finished.
    failed: bool,
}

/// Why an object was not counted now.
enum Not {
    /// It may be at any time.
    Now(String),
    /// It has to be another one, or the model has.
    Ever(String),
    /// There is no such model.
    Absent(String),
}

impl From<Problem> for Not {
    fn from(problem: Problem) -> Self {
        match problem.status {
            429 | 500.. => Self::Now(problem.detail),
            _ => Self::Ever(problem.detail),
        }
    }
}

/// Reads the bucket, if there is one.
pub fn start(sidecar: &Arc<Sidecar>) {
    let Some(reader) = sidecar.reader.clone() else { return };
    let sidecar = Arc::clone(sidecar);
    tokio::spawn(async move {
        let now = Instant::now();
        let mut seen = Seen {
            stated: BTreeMap::new(),
            looked: false,
            refused: BTreeMap::new(),
            absent: BTreeMap::new(),
            from: None,
            last: Counted::new(),
            written: (now, Counted::new()),
            failed: false,
        };
        let (mut failures, mut reached) = (0u32, now);
        while !sidecar.stopping.load(Ordering::Relaxed) {
            let done = reader.turn(&sidecar, &mut seen).await;
            let wait = if let Ok(more) = &done {
                (failures, reached) = (0, Instant::now());
                if more.is_none() {
                    reader.behind.store(false, Ordering::Relaxed);
                }
                more.unwrap_or(reader.interval)
            } else {
                failures = failures.saturating_add(1);
                // As for a sidecar that is silent: nobody is waited for longer.
                if reached.elapsed() > PATIENCE {
                    reader.behind.store(false, Ordering::Relaxed);
                }
                (reader.interval / 4 * 2u32.saturating_pow(failures.min(10))).min(LONGEST_WAIT)
            };
            reader.trouble("bucket", done.err());
            tokio::time::sleep(wait).await;
        }
    });
}

impl Reader {
    pub(crate) fn new(bucket: Bucket, interval: Duration, keep: Duration, claim: PathBuf) -> Self {
        let behind = Arc::new(AtomicBool::new(true));
        Self { bucket, interval, keep, claim, trouble: Mutex::default(), counts: Counts::default(), behind }
    }

    /// What is wrong, in words.
    pub fn troubles(&self) -> Vec<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.iter().map(|(about, what)| format!("fleet: {about}: {what}")).collect()
    }

    fn trouble(&self, about: &'static str, what: Option<String>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match what {
            Some(what) => {
                if trouble.get(about) != Some(&what) {
                    crate::note::warn(&format!("fleet: {about}: {what}"));
                }
                trouble.insert(about, what);
            }
            None => drop(trouble.remove(about)),
        }
    }

    /// One turn; if there is more to do, when.
    async fn turn(&self, sidecar: &Arc<Sidecar>, seen: &mut Seen) -> Result<Option<Duration>, String> {
        self.claimed(&sidecar.identity).await?;
        // Who cannot be told what is stated can be heard all the same.
        let stated = self.state(sidecar, seen).await;
        self.trouble("models", stated.err());
        self.read(sidecar, seen).await
    }

    /// That this sidecar, and no other, reads the bucket.
    async fn claimed(&self, identity: &str) -> Result<(), String> {
        let (name, address) = (self.bucket.name(["aggregator"]), &self.bucket.address);
        let own = std::fs::read_to_string(&self.claim).is_ok_and(|text| text.trim() == address);
        match self.bucket.get(&name, None).await? {
            Got::Bytes(bytes, _) if bytes.trim_ascii() == identity.as_bytes() => {}
            Got::Bytes(bytes, _) => {
                let other: String = String::from_utf8_lossy(&bytes).trim().chars().take(100).collect();
                return Err(format!(
                    "{address}: aggregator {other} reads there, and this is {identity}: two would each count a part; if this one takes its \
                     place, remove the object `aggregator`"
                ));
            }
            _ if self.bucket.is_gone() => return Err(format!("{address}: there is no such folder; is it mounted?")),
            _ if own => {
                return Err(format!(
                    "{address}: what this aggregator left there is gone; is it mounted, does another one take its place? If it was emptied, \
                     remove {}",
                    self.claim.display()
                ));
            }
            _ => {
                if !self.bucket.create(&name, format!("{identity}\n").into_bytes()).await? {
                    return Err(format!("{address}: another aggregator came first"));
                }
            }
        }
        if !own {
            std::fs::write(&self.claim, address).map_err(|error| format!("{} could not be written: {error}", self.claim.display()))?;
        }
        Ok(())
    }

    /// States what models are, where that has changed.
    async fn state(&self, sidecar: &Arc<Sidecar>, seen: &mut Seen) -> Result<(), String> {
        let mut known = BTreeSet::new();
        if !std::mem::replace(&mut seen.looked, true) {
            // What an earlier life has stated is stated again, or taken back.
            let before = self.bucket.parts(&self.bucket.name(["models"])).await.inspect_err(|_| seen.looked = false)?;
            seen.stated = before.into_iter().map(|model| (model, (String::new(), None))).collect();
        }
        for entry in sidecar.models.entries() {
            known.insert(entry.name.clone());
            if entry.replaying.load(Ordering::Relaxed) {
                continue;
            }
            let look = |model: &mut crate::model::Model| {
                (model.settings.to_json(), model.monitor().map(|monitor| Arc::clone(monitor.reference())))
            };
            // One whose store is not open is what it was.
            let Ok((settings, reference)) = sidecar.models.look(&entry, look).await else { continue };
            let settings = settings.map_err(|error| error.message)?;
            let wanted = (settings, reference.as_ref().map(|reference| reference.id().to_owned()));
            if seen.stated.get(&entry.name) == Some(&wanted) {
                continue;
            }
            let name = |part: &str| self.bucket.name(["models", &entry.name, part]);
            let own = reference.as_ref().map(|reference| name(&format!("reference-{}", reference.id())));
            if let (Some(own), Some(reference)) = (&own, reference) {
                self.bucket.put(own, reference.to_bytes()).await?;
            }
            let statement = serde_json::to_vec(&Statement::new(wanted.0.clone(), wanted.1.clone())).map_err(|error| error.to_string())?;
            self.bucket.put(&name("settings.json"), statement).await?;
            // Whoever looks for an older one looks again.
            let mut older = Vec::new();
            let mut all = self.bucket.list(&self.bucket.name(["models", &entry.name]));
            while let Some(found) = all.next().await {
                let found = found?.name;
                let reference = found.filename().is_some_and(|part| part.starts_with("reference-"));
                older.extend(Some(found).filter(|found| reference && Some(found) != own.as_ref()));
            }
            self.bucket.remove(older).await.1.map_or(Ok(()), Err)?;
            seen.stated.insert(entry.name.clone(), wanted);
        }
        let gone: Vec<String> = seen.stated.keys().filter(|name| !known.contains(*name)).cloned().collect();
        for model in gone {
            let name = self.bucket.name(["models", &model, "settings.json"]);
            self.bucket.remove(vec![name]).await.1.map_or(Ok(()), Err)?;
            seen.stated.remove(&model);
        }
        Ok(())
    }

    /// What all models have counted; and those of which that cannot be said, with whether it can soon.
    async fn counted(sidecar: &Arc<Sidecar>) -> (Counted, BTreeMap<String, bool>) {
        let (mut out, mut shut) = (Counted::new(), BTreeMap::new());
        for entry in sidecar.models.entries() {
            let streams = sidecar.models.look(&entry, |model| model.streams.clone()).await;
            match (streams, entry.replaying.load(Ordering::Relaxed)) {
                (Ok(streams), false) => drop(out.insert(entry.name.clone(), (entry.generation.clone(), streams))),
                (_, replaying) => drop(shut.insert(entry.name.clone(), replaying)),
            }
        }
        (out, shut)
    }

    /// Counts what was not; if there is more, when.
    async fn read(&self, sidecar: &Arc<Sidecar>, seen: &mut Seen) -> Result<Option<Duration>, String> {
        let (counted, shut) = Self::counted(sidecar).await;
        let due = seen.written.0.elapsed() >= self.keep;
        let (mut wanted, mut removed, mut refused, mut more) = (BTreeSet::new(), Vec::new(), BTreeSet::new(), None);
        let (mut absent, mut cut) = (0, false);
        seen.absent.retain(|_, since| since.elapsed() < AGAIN);
        // Of models that are gone since the last turn, or were made anew.
        let gone =
            |name: &String, generation: &String| !shut.contains_key(name) && counted.get(name).is_none_or(|(own, _)| own != generation);
        let former = seen.last.iter().filter(|(name, (generation, _))| gone(name, generation));
        let former: Counted = former.map(|(name, own)| (name.clone(), own.clone())).collect();
        let mut all = self.bucket.list(&self.bucket.name(["parcels"]));
        while let Some(object) = all.next().await {
            let object = object?;
            let Some((model, place)) = self.bucket.parcel_of(&object.name) else {
                refused.insert(object.name.clone());
                self.refuse(seen, object, "its name is not MODEL/STREAM/NUMBER.parquet, with 20 digits".to_owned());
                continue;
            };
            if let Some(replaying) = shut.get(&model) {
                more = more.or(replaying.then_some(Duration::from_secs(1)));
            } else if has(&counted, &model, &place) {
                let written = seen.written.1.get(&model).map(|(generation, _)| generation) == counted.get(&model).map(|(own, _)| own);
                if due && written && has(&seen.written.1, &model, &place) && removed.len() < MOST_REMOVED {
                    removed.push(object.name);
                }
            } else if has(&former, &model, &place) {
                // They counted for a model that is no more.
                removed.push(object.name);
            } else if !counted.contains_key(&model) && seen.absent.contains_key(&model) {
                absent += 1;
            } else if seen.from.as_ref().is_none_or(|from| object.name > *from) {
                if let Some(known) = seen.refused.get(&object.name) {
                    refused.insert(object.name.clone());
                    if known.object == object && known.at.elapsed() < AGAIN {
                        continue;
                    }
                }
                wanted.insert(object);
                if wanted.len() > MOST_READ {
                    // Those that come first are read first: numbers of a stream are to come in order.
                    wanted.pop_last();
                    cut = true;
                }
            } else if seen.refused.contains_key(&object.name) {
                refused.insert(object.name);
            }
        }
        seen.refused.retain(|name, _| refused.contains(name));
        let counts = || self.counts.counted.load(Ordering::Relaxed) + self.counts.repeated.load(Ordering::Relaxed);
        let (before, last) = (counts(), wanted.last().map(|last| last.name.clone()));
        let outcome = self.count_all(sidecar, seen, wanted).await;
        if outcome.is_ok() {
            // Round and round, so that what cannot be counted never keeps the others from it.
            if (cut || seen.from.is_some()) && counts() > before {
                more = Some(Duration::ZERO);
            }
            seen.from = last.filter(|_| cut);
        }
        let first = seen.refused.values().next().map(|first| format!("{}: {}", self.bucket.shown(&first.object.name), first.why));
        let waiting = seen.refused.len() + absent;
        self.counts.waiting.store(waiting as u64, Ordering::Relaxed);
        self.trouble("objects", first.map(|first| format!("{waiting} in {} are not counted; {first}", self.bucket.address)));
        let all_removed = removed.len() < MOST_REMOVED;
        let (count, failed) = self.bucket.remove(removed).await;
        self.counts.removed.fetch_add(count, Ordering::Relaxed);
        self.trouble("removal", failed.map(|why| format!("what was counted cannot be removed: {why}")));
        let (counted, _) = Self::counted(sidecar).await;
        if due && all_removed {
            seen.written = (Instant::now(), Self::written(sidecar, &counted, std::mem::take(&mut seen.written.1)).await);
        }
        seen.last = counted;
        outcome.map(|()| more)
    }

    /// What states on the disk have counted, at least.
    async fn written(sidecar: &Arc<Sidecar>, counted: &Counted, mut before: Counted) -> Counted {
        for (name, own) in counted {
            let Ok(entry) = sidecar.models.entry(name) else { continue };
            if before.get(name) != Some(own) && sidecar.models.save(&entry).await.is_ok() {
                before.insert(name.clone(), own.clone());
            }
        }
        before.retain(|name, _| counted.contains_key(name));
        before
    }

    /// Reads objects and counts them, in their order. What is on its way takes memory of that for requests, one after the other, so that
    /// the first of them never waits for a later one; one parcel at a time is unpacked.
    async fn count_all(&self, sidecar: &Arc<Sidecar>, seen: &mut Seen, wanted: BTreeSet<Listed>) -> Result<(), String> {
        // Where that was too much, nothing is asked for before its turn.
        let at_once = if std::mem::take(&mut seen.failed) { 1 } else { AT_ONCE };
        let (mut rest, mut on_way) = (wanted.into_iter().peekable(), FuturesOrdered::new());
        let mut stuck: BTreeMap<String, String> = BTreeMap::new();
        loop {
            while on_way.len() < at_once
                && let Some(object) = rest.peek()
            {
                let permit = Self::reserve(sidecar, object, on_way.is_empty()).await;
                if matches!(permit, Err(Not::Now(_))) && !on_way.is_empty() {
                    break;
                }
                on_way.extend(rest.next().map(|object| self.fetch(object, permit)));
            }
            let Some((fetched, object)) = on_way.next().await else { break };
            let model = self.bucket.parcel_of(&object.name).map(|(model, _)| model).unwrap_or_default();
            if stuck.contains_key(&model) || seen.absent.contains_key(&model) {
                continue;
            }
            let (bytes, permit) = match fetched {
                Ok((Got::Bytes(bytes, _), permit)) => (bytes, permit),
                // Somebody has removed it.
                Ok(_) => continue,
                Err(Not::Ever(why) | Not::Absent(why)) => {
                    self.refuse(seen, object, why);
                    continue;
                }
                Err(Not::Now(why)) => {
                    seen.failed = true;
                    return Err(why);
                }
            };
            match self.count(sidecar, &object, bytes, permit).await {
                Ok(()) => drop(seen.refused.remove(&object.name)),
                Err(Not::Ever(why)) => self.refuse(seen, object, why),
                Err(Not::Absent(why)) => {
                    seen.absent.insert(model, Instant::now());
                    self.refuse(seen, object, why);
                }
                // The others are not to wait for it.
                Err(Not::Now(why)) => drop(stuck.insert(model, why)),
            }
        }
        seen.failed = !stuck.is_empty();
        stuck.into_iter().next().map_or(Ok(()), |(model, why)| Err(format!("model {model}: {why}")))
    }

    /// Memory for an object; what others have is waited for, if at all.
    async fn reserve(sidecar: &Arc<Sidecar>, object: &Listed, wait: bool) -> Result<OwnedSemaphorePermit, Not> {
        let most = sidecar.config.load().max_body;
        if object.size > most as u64 {
            return Err(Not::Ever(format!("it has {} bytes, at most `max_body`, {most}, are taken", object.size)));
        }
        let began = Instant::now();
        loop {
            match sidecar.models.reserve(2 * object.size as usize) {
                Err(problem) if wait && problem.status == 429 && began.elapsed() < MOST_WAIT => tokio::time::sleep(A_MOMENT).await,
                reserved => return Ok(reserved?),
            }
        }
    }

    async fn fetch(&self, object: Listed, permit: Result<OwnedSemaphorePermit, Not>) -> (Result<(Got, OwnedSemaphorePermit), Not>, Listed) {
        let fetched = match permit {
            Ok(permit) => self.bucket.get(&object.name, None).await.map(|got| (got, permit)).map_err(Not::Now),
            Err(not) => Err(not),
        };
        (fetched, object)
    }

    /// Lets a parcel happen to its model.
    async fn count(&self, sidecar: &Arc<Sidecar>, object: &Listed, bytes: Bytes, permit: OwnedSemaphorePermit) -> Result<(), Not> {
        let most = sidecar.config.load().max_body;
        let size = bytes.len() as u64;
        let read = tokio::task::spawn_blocking(move || Held::from_bytes(&bytes, most)).await;
        let held = read.map_err(|error| Not::Now(error.to_string()))?.map_err(|error| Not::Ever(error.message))?;
        if self.bucket.parcel(&held.model, &held.place) != object.name {
            return Err(Not::Ever(format!("it is parcel {} of {} of model {}", held.place.number, held.place.stream, held.model)));
        }
        let entry = match held.what {
            Parcels::Delta => sidecar.models.entry(&held.model).map_err(|problem| Not::Absent(problem.detail))?,
            Parcels::Events | Parcels::Labels => sidecar.entry_or_new(&held.model, "bucket").await?,
        };
        let place = held.place.clone();
        let room = sidecar.models.look(&entry, move |model| {
            (model.streams.contains(&place), model.streams.is_crowded(&place), model.streams.would_forget(&place))
        });
        let (known, crowded, forgotten) = room.await?;
        if crowded && !known {
            return Err(Not::Ever("too many numbers before it are missing: those would never be counted".to_owned()));
        }
        if let Some(stream) = forgotten {
            // What lies here of a stream that nothing is known of is counted: of that one it was.
            let mut rest = self.bucket.list(&self.bucket.name(["parcels", &held.model, &stream]));
            if rest.next().await.is_some() {
                return Err(Not::Ever(format!("{MOST_STREAMS} other sidecars tell this model, the most that can be")));
            }
        }
        let ack = crate::api::fleet::receive(sidecar, &entry, "bucket", (held.what, held.bytes, size), held.place, permit).await?;
        let counter = if ack.repeated { &self.counts.repeated } else { &self.counts.counted };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Remembers that an object is not counted.
    fn refuse(&self, seen: &mut Seen, object: Listed, why: String) {
        let known = seen.refused.get(&object.name).is_some_and(|known| known.object == object);
        if !known {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
        }
        if known || seen.refused.len() < MOST_REFUSED {
            seen.refused.insert(object.name.clone(), Refused { object, why, at: Instant::now() });
        }
    }
}
