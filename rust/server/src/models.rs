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
use crate::shard::{Ack, Acknowledge, Arrival, Entry, Job, Setup, Shard, Ticket, uptime};

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

    /// Where the folders of models are.
    pub fn folder(&self) -> PathBuf {
        self.folder.clone()
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
        // On a sidecar with an aggregator this closes nothing, and moves nothing.
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
        out.extend(self.dead().map(|number| format!("shard {number} has ended: its models take nothing until the sidecar is restarted")));
        out
    }

    /// Whether all models can do their work.
    pub fn able(&self) -> bool {
        self.stuck().next().is_none() && self.dead().next().is_none() && !self.entries().iter().any(|entry| entry.hampered())
    }

    /// Shards of which a thread has ended.
    fn dead(&self) -> impl Iterator<Item = usize> {
        self.shards.iter().enumerate().filter(|(_, shard)| shard.is_dead()).map(|(number, _)| number)
    }

    /// Threads that do not move, and for how many seconds.
    fn stuck(&self) -> impl Iterator<Item = (usize, u64)> {
        let now = uptime();
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::atomic::AtomicUsize;
    use std::time::{Duration, Instant};

    use barograph_engine::alert::Alert;

    use super::*;
    use crate::files::{Files, Step};
    use crate::shard::Outlet;

    struct Nobody;

    impl Outlet for Nobody {
        fn changed(&self, _: &Entry, _: u64, _: &Alert) {}
        fn closed(&self, _: &Entry) {}
    }

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("barograph-models-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    fn started(folder: &Path, files: Files, acknowledge: Acknowledge) -> Models {
        let setup = Setup { files, acknowledge, outlet: Arc::new(Nobody), pulse: Arc::default(), key: None, fleet: None, behind: None };
        Models::start(folder.to_owned(), 1, 1 << 20, 10, &setup).unwrap()
    }

    fn waited(what: impl Fn() -> bool) {
        let began = Instant::now();
        while !what() {
            assert!(began.elapsed() < Duration::from_secs(20), "it did not happen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn blocked(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
    }

    fn deploy(number: u64) -> Happening {
        Happening::Deploy(number.to_string(), 1, 1)
    }

    #[test]
    fn a_shard_whose_thread_has_ended_is_told() {
        blocked(async {
            let folder = folder("dead");
            let files = Files::failing(Arc::new(|step| match step {
                Step::Write(path, _) if path.to_string_lossy().contains("doomed") => panic!("as a bug would"),
                Step::Write(_, bytes) => Ok(bytes),
                _ => Ok(0),
            }));
            let models = started(&folder, files, Acknowledge::Os);
            let good = models.open("good", Settings::default(), String::new()).await.unwrap();
            models.happen(&good, deploy(1)).await.unwrap();
            assert!(models.able());
            let doomed = models.open("doomed", Settings::default(), String::new()).await.unwrap();
            assert_eq!(models.happen(&doomed, deploy(1)).await.unwrap_err().status, 503);
            waited(|| !models.able());
            assert!(models.troubles().iter().any(|trouble| trouble.contains("shard 0 has ended")), "{:?}", models.troubles());
            assert_eq!(models.happen(&good, deploy(2)).await.unwrap_err().status, 503);
            models.stop();
            std::fs::remove_dir_all(folder).unwrap();
        });
    }

    #[test]
    fn a_disk_that_fails_is_told_and_gone_on_with() {
        blocked(async {
            let folder = folder("failing");
            let failing = Arc::new(AtomicUsize::new(0));
            let how = Arc::clone(&failing);
            let files = Files::failing(Arc::new(move |step| match (step, how.load(Ordering::Relaxed)) {
                (Step::Write(path, _), 1) if path.extension().is_some_and(|end| end == "wal") => Err(io::Error::from_raw_os_error(5)),
                (Step::Sync(path), 2) if path.extension().is_some_and(|end| end == "wal") => Err(io::Error::from_raw_os_error(5)),
                (Step::Write(path, _) | Step::Sync(path) | Step::Rename(path), 3) if path.to_string_lossy().contains("state-") => {
                    Err(io::Error::from_raw_os_error(28))
                }
                (Step::Write(_, bytes), _) => Ok(bytes),
                _ => Ok(0),
            }));
            let models = started(&folder, files, Acknowledge::Disk);
            let entry = models.open("m", Settings::default(), String::new()).await.unwrap();
            models.happen(&entry, deploy(0)).await.unwrap();
            for (number, about) in [(1, "log"), (2, "disk")] {
                failing.store(number, Ordering::Relaxed);
                let problem = models.happen(&entry, deploy(1)).await.unwrap_err();
                assert_eq!((problem.status, problem.retry_after), (503, Some(5)));
                assert!(number == 2 || !models.able(), "{:?}", models.troubles());
                assert!(number == 2 || models.troubles()[0].contains(&format!("model m: {about}")), "{:?}", models.troubles());
                failing.store(0, Ordering::Relaxed);
                models.happen(&entry, deploy(2)).await.unwrap();
                waited(|| models.able());
            }
            failing.store(3, Ordering::Relaxed);
            assert_eq!(models.save(&entry).await.unwrap_err().status, 503);
            waited(|| models.troubles().iter().any(|trouble| trouble.contains("no state can be written")));
            assert!(!models.able());
            // What can be looked at is.
            models.look(&entry, |model| model.counts).await.unwrap();
            failing.store(0, Ordering::Relaxed);
            models.save(&entry).await.unwrap();
            waited(|| models.able());
            models.stop();
            std::fs::remove_dir_all(folder).unwrap();
        });
    }

    #[test]
    fn a_model_that_could_not_be_opened_is_tried_again() {
        blocked(async {
            let folder = folder("again");
            // A file stands where its folder should be.
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("m"), b"in the way").unwrap();
            let models = started(&folder, Files::default(), Acknowledge::Os);
            assert_eq!(models.open("m", Settings::default(), String::new()).await.unwrap_err().status, 503);
            assert!(!models.able() && !models.replaying());
            let entry = models.entry("m").unwrap();
            assert_eq!(models.happen(&entry, deploy(1)).await.unwrap_err().status, 503);
            std::fs::remove_file(folder.join("m")).unwrap();
            waited(|| models.able());
            models.happen(&entry, deploy(1)).await.unwrap();
            models.stop();
            std::fs::remove_dir_all(folder).unwrap();
        });
    }

    #[test]
    fn a_model_of_the_name_of_one_that_was_removed_has_nothing_of_it() {
        blocked(async {
            let folder = folder("removed");
            let models = started(&folder, Files::default(), Acknowledge::Os);
            for _ in 0..20 {
                let entry = models.open("m", Settings::default(), String::new()).await.unwrap();
                assert_eq!(models.look(&entry, |model| model.now).await.unwrap(), 0);
                models.happen(&entry, deploy(1)).await.unwrap();
                // The state is still being written when the model goes.
                let (_, removed) = tokio::join!(models.save(&entry), models.remove("m"));
                removed.unwrap();
                assert!(!folder.join("m").exists());
            }
            models.stop();
            std::fs::remove_dir_all(folder).unwrap();
        });
    }
}
