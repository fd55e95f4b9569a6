//! All models of a sidecar: where they are, how to reach the thread that owns each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use barograph_core::hash::murmur3_x64_128;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::config::{NAMES, is_name};
use crate::model::{Model, Settings};
use crate::problem::{Outcome, Problem};
use crate::record::{Happening, Oddities};
use crate::shard::{Ack, Acknowledge, Arrival, Entry, Job, Setup, Shard, Ticket, clock};

/// Memory is given out in pieces of so many bytes: a semaphore counts no further than a few billions.
const PIECE: usize = 1024;
/// A shard that has not moved for so many seconds is stuck.
const STUCK: u64 = 10;

/// All models.
#[derive(Debug)]
pub struct Models {
    folder: PathBuf,
    entries: RwLock<BTreeMap<String, Arc<Entry>>>,
    shards: Vec<Shard>,
    pulses: Vec<Arc<AtomicU64>>,
    acknowledge: Acknowledge,
    /// Memory for what is on its way.
    budget: Arc<Semaphore>,
    pieces: usize,
    most: usize,
}

impl Models {
    /// Starts so many shards; models are opened apart. `budget` bytes may be on their way at once.
    ///
    /// # Errors
    /// Those of the system.
    pub fn start(folder: PathBuf, shards: usize, budget: usize, most: usize, setup: &Setup) -> std::io::Result<Self> {
        let pulses: Vec<Arc<AtomicU64>> = (0..shards).map(|_| Arc::default()).collect();
        let start = |(number, pulse): (usize, &Arc<AtomicU64>)| Shard::start(number, Setup { pulse: Arc::clone(pulse), ..setup.clone() });
        let shards = pulses.iter().enumerate().map(start).collect::<std::io::Result<_>>()?;
        let pieces = budget / PIECE;
        Ok(Self {
            folder,
            entries: RwLock::default(),
            shards,
            pulses,
            acknowledge: setup.acknowledge,
            budget: Arc::new(Semaphore::new(pieces)),
            pieces,
            most,
        })
    }

    fn shard(&self, name: &str) -> Option<&Shard> {
        let (hash, _) = murmur3_x64_128(name.as_bytes(), 0);
        self.shards.get(hash as usize % self.shards.len().max(1))
    }

    fn tell(&self, name: &str, job: Job) -> Outcome<()> {
        let told = self.shard(name).is_some_and(|shard| shard.tell(job));
        if told {
            Ok(())
        } else {
            Err(Problem::unavailable("the thread of this model has ended").hint("restart the sidecar, and see its log"))
        }
    }

    /// Names of all models, in order.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The model of this name.
    ///
    /// # Errors
    /// 404.
    pub fn entry(&self, name: &str) -> Outcome<Arc<Entry>> {
        let found = self.entries.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        found.ok_or_else(|| Problem::missing(format!("there is no model {name:?}")).hint(format!("PUT /v1/models/{name} makes one")))
    }

    /// Opens a model, or makes it; answers once its log can be written to.
    ///
    /// # Errors
    /// 400 for a name that cannot be, 409 beyond the number of models, 503 for a folder that cannot be opened.
    pub async fn open(&self, name: &str, settings: Settings, generation: String) -> Outcome<Arc<Entry>> {
        if !is_name(name) {
            return Err(Problem::bad(format!("{name:?} is no name of a model")).hint(NAMES));
        }
        let entry = {
            let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = entries.get(name) {
                return Ok(Arc::clone(known));
            }
            if entries.len() >= self.most {
                return Err(Problem::new(
                    409,
                    "too many models",
                    format!("there are {} models, the most that `max_models` allows", entries.len()),
                ));
            }
            let entry = Arc::new(Entry::new(name, self.folder.join(name), generation));
            entries.insert(name.to_owned(), Arc::clone(&entry));
            entry
        };
        let (reply, answer) = oneshot::channel();
        self.tell(name, Job::Open(Arc::clone(&entry), settings, reply))?;
        answer.await.unwrap_or_else(|_| Err(gone()))?;
        Ok(entry)
    }

    /// Removes a model and all that is kept of it.
    ///
    /// # Errors
    /// 404, or 503 for a folder that cannot be removed.
    pub async fn remove(&self, name: &str) -> Outcome<()> {
        let entry = self.entry(name)?;
        let (reply, answer) = oneshot::channel();
        self.tell(name, Job::Remove(entry, reply))?;
        answer.await.unwrap_or_else(|_| Err(gone()))?;
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    /// Memory for so many bytes on their way.
    ///
    /// # Errors
    /// 429 if they do not fit now, 413 if they never will.
    pub fn reserve(&self, bytes: usize) -> Outcome<OwnedSemaphorePermit> {
        let pieces = bytes / PIECE + 1;
        if pieces > self.pieces {
            return Err(
                Problem::too_large(format!("{bytes} bytes do not fit into the memory for what is on its way")).hint("send less at once")
            );
        }
        Arc::clone(&self.budget)
            .try_acquire_many_owned(pieces as u32)
            .map_err(|_| Problem::busy("more is on its way than there is memory for").hint("try again, or send less"))
    }

    /// Bytes on their way, and how many may be.
    pub fn queued(&self) -> (usize, usize) {
        ((self.pieces - self.budget.available_permits().min(self.pieces)) * PIECE, self.pieces * PIECE)
    }

    /// By how many halvings the events that hold `own` are to be thinned out: none while the others on their way take at most half of the
    /// memory for that, one more with each sixteenth from there on.
    pub fn halvings(&self, own: &OwnedSemaphorePermit) -> u32 {
        let (queued, most) = self.queued();
        let others = queued.saturating_sub(own.num_permits() * PIECE);
        (16 * others.saturating_sub(most / 2)).div_ceil(most.max(1)) as u32
    }

    /// Hands something to a model and waits for its acknowledgement.
    ///
    /// # Errors
    /// Those of the happening, 503 if it cannot be written.
    pub async fn send(
        &self,
        entry: &Arc<Entry>,
        happening: Happening,
        (rows, odd): (u64, Oddities),
        once: Option<Ticket>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Outcome<Ack> {
        let (reply, answer) = oneshot::channel();
        // Labels and events may be acknowledged before they are written; what an owner states may not.
        let early = self.acknowledge == Acknowledge::None
            && once.is_none()
            && matches!(happening, Happening::Events(_) | Happening::Sample(..) | Happening::Half(..));
        self.tell(&entry.name, Job::Arrive(Arc::clone(entry), Arrival { happening, rows, odd, once, reply, permit }))?;
        if early {
            return Ok(Ack { accepted: rows, refused: odd.refused, repeated: false });
        }
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Something that happens once, such as a deploy.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn happen(&self, entry: &Arc<Entry>, happening: Happening) -> Outcome<()> {
        self.send(entry, happening, (0, Oddities::default()), None, None).await.map(drop)
    }

    /// Looks at a model, on its thread.
    ///
    /// # Errors
    /// 503 if its thread has ended.
    pub async fn look<T: Send + 'static>(&self, entry: &Arc<Entry>, look: impl FnOnce(&mut Model) -> T + Send + 'static) -> Outcome<T> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |model: &mut Model| {
            let _ = reply.send(look(model));
        });
        self.tell(&entry.name, Job::Look(Arc::clone(entry), look))?;
        answer.await.map_err(|_| Problem::unavailable("the model's store is not open").hint("see /readyz"))
    }

    /// Writes a model's state now.
    ///
    /// # Errors
    /// 503 if it cannot be written.
    pub async fn save(&self, entry: &Arc<Entry>) -> Outcome<()> {
        let (reply, answer) = oneshot::channel();
        self.tell(&entry.name, Job::Save(Arc::clone(entry), reply))?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Forgets what is held for an id, in files too.
    ///
    /// # Errors
    /// As for [`send`](Self::send) and [`save`](Self::save).
    pub async fn erase(&self, entry: &Arc<Entry>, key: u128) -> Outcome<()> {
        self.happen(entry, Happening::Erase(key)).await?;
        self.rewrite(entry).await
    }

    /// Writes two states, each of another record: log and older states from before are gone then.
    ///
    /// # Errors
    /// As for [`save`](Self::save).
    pub async fn rewrite(&self, entry: &Arc<Entry>) -> Outcome<()> {
        self.save(entry).await?;
        self.happen(entry, Happening::Tick).await?;
        self.save(entry).await
    }

    /// Whether any log is still being replayed.
    pub fn replaying(&self) -> bool {
        self.entries().iter().any(|entry| entry.replaying.load(Ordering::Relaxed))
    }

    /// What is wrong, in words.
    pub fn troubles(&self) -> Vec<String> {
        let mut out: Vec<String> = self.entries().iter().flat_map(|entry| entry.troubles()).collect();
        out.extend(self.stuck().map(|(number, seconds)| format!("shard {number} has not moved for {seconds} s")));
        out
    }

    /// Whether all models can do their work.
    pub fn able(&self) -> bool {
        self.stuck().next().is_none() && !self.entries().iter().any(|entry| entry.hampered())
    }

    /// Threads that do not move, and for how many seconds.
    fn stuck(&self) -> impl Iterator<Item = (usize, u64)> {
        let now = (clock() / 1_000_000_000) as u64;
        let last = self.pulses.iter().map(|pulse| pulse.load(Ordering::Relaxed)).enumerate();
        last.filter(move |(_, last)| *last > 0 && now.saturating_sub(*last) > STUCK).map(move |(number, last)| (number, now - last))
    }

    /// Writes everything down and ends all threads.
    pub fn stop(&self) {
        for shard in &self.shards {
            shard.tell(Job::Stop);
        }
        self.shards.iter().for_each(Shard::stop);
    }
}

fn gone() -> Problem {
    Problem::unavailable("the sidecar is shutting down")
}
