//! A data folder while no sidecar runs on it: checked, compacted, exported, and what is to be forgotten erased.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use barograph_core::{Error, Result};
use barograph_engine::alert::Alert;
use barograph_engine::report::Row;
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{Config, Overrides};
use crate::control::Control;
use crate::files::Files;
use crate::model::{Model, Settings, State};
use crate::models::Models;
use crate::pending;
use crate::problem::Outcome;
use crate::serve::{failed, locked};
use crate::shard::{Acknowledge, Entry, Outlet, PENDING, Setup, clock};
use crate::strays;

/// How long it is waited for a thread that replays logs.
const LOOK: Duration = Duration::from_millis(10);

/// Alerts are told by the sidecar that starts next.
struct Nobody;

impl Outlet for Nobody {
    fn changed(&self, _: &Entry, _: u64, _: &Alert) {}
    fn closed(&self, _: &Entry) {}
}

/// What stands in a folder about a model.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct Found {
    pub model: String,
    pub state: &'static str,
    pub events: u64,
    pub labels: u64,
    pub alerts: usize,
    /// Events that wait for a label.
    pub waiting: usize,
    /// Bytes of its folder.
    pub bytes: u64,
}

/// What a check found.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct Checked {
    pub models: Vec<Found>,
    /// Rows of the audit log.
    pub audit: u64,
    pub bytes: u64,
    /// What is wrong, in words.
    pub damage: Vec<String>,
}

/// An open folder: all logs are replayed.
pub struct Store {
    folder: PathBuf,
    models: Models,
    control: Control,
    runtime: tokio::runtime::Runtime,
    /// What was wrong with the control plane.
    warnings: Vec<String>,
    _lock: fs::File,
}

impl Store {
    /// Opens the folder of a configuration.
    ///
    /// # Errors
    /// `InvalidArgument` for a folder that is not there, that a sidecar uses, or that cannot be read.
    pub fn open(config: &Config) -> Result<Self> {
        let folder = existing(config)?;
        let lock = locked(&folder)?;
        let (control, warnings) = Control::open(&folder.join("control.sqlite"))?;
        let setup = Setup {
            fleet: None,
            behind: None,
            files: Files::default(),
            acknowledge: Acknowledge::Disk,
            outlet: Arc::new(Nobody),
            pulse: Arc::default(),
            key: config.privacy_key.clone(),
        };
        let threads = |error: io::Error| failed("threads could not be started", &error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(threads)?;
        let models = Models::start(folder.join("models"), config.shards, 0, usize::MAX, &setup).map_err(threads)?;
        let mut store = Self { folder, models, control, runtime, warnings, _lock: lock };
        let (rows, told) = strays::all(&store.control, &store.folder.join("models"));
        store.warnings.extend(told.into_iter().map(|(name, what)| if name.is_empty() { what } else { format!("model {name}: {what}") }));
        for row in rows {
            let settings = Settings::from_json(&row.settings_json).unwrap_or_default();
            // What cannot be opened is among the troubles.
            let _ = store.runtime.block_on(store.models.open(&row.name, settings, row.created.to_string()));
        }
        while store.models.replaying() {
            std::thread::sleep(LOOK);
        }
        Ok(store)
    }

    /// Names of the models.
    pub fn names(&self) -> Vec<String> {
        self.models.entries().iter().map(|entry| entry.name.clone()).collect()
    }

    /// Looks at a model.
    ///
    /// # Errors
    /// `InvalidArgument` for one that is not there or whose files cannot be read.
    pub fn look<T: Send + 'static>(&self, name: &str, look: impl FnOnce(&mut Model) -> T + Send + 'static) -> Result<T> {
        let entry = self.entry(name)?;
        Ok(self.runtime.block_on(self.models.look(&entry, look))?)
    }

    fn entry(&self, name: &str) -> Result<Arc<Entry>> {
        let names = self.names().join(", ");
        let found = self.models.entry(name);
        found.map_err(|_| Error::invalid(format!("there is no model {name:?}")).hint(format!("the folder has {names}")))
    }

    /// The reference of a model as a snapshot; `None` while it learns.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn reference(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.look(name, |model| model.monitor().map(|monitor| monitor.reference().to_bytes()))
    }

    /// Rows of its closed windows.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn history(&self, name: &str) -> Result<Vec<Row>> {
        self.look(name, |model| model.monitor().map(|monitor| monitor.history(i64::MIN).cloned().collect()).unwrap_or_default())
    }

    /// Changes of its alerts.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn alerts(&self, name: &str) -> Result<Vec<Alert>> {
        self.look(name, |model| model.monitor().map(|monitor| monitor.alerts().to_vec()).unwrap_or_default())
    }

    /// The snapshot of the first tile that begins at `time` or later, with where it begins and ends.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub fn next_tile(&self, name: &str, time: i64) -> Result<Option<(i64, i64, Vec<u8>)>> {
        let tile = self.look(name, move |model| model.monitor().map_or(Ok(None), |monitor| monitor.next_tile(time)))??;
        Ok(tile.and_then(|profile| profile.window.map(|(start, end)| (start, end, profile.to_bytes()))))
    }

    fn troubles(&self) -> Vec<String> {
        let mut out = self.warnings.clone();
        out.extend(self.models.troubles());
        out
    }

    /// Writes everything down and ends; then the waiting events of these models are rewritten, without what was erased.
    fn finish(self, names: &[String]) -> Result<()> {
        let mut waiting = Vec::new();
        for name in names {
            let folder = self.entry(name)?.folder.join(PENDING);
            if folder.exists() {
                waiting.push(folder);
            }
        }
        self.models.stop();
        waiting.iter().try_for_each(|folder| pending::rewrite(folder))?;
        Ok(self.control.compact()?)
    }
}

/// The folder, if a sidecar has kept anything in it.
fn existing(config: &Config) -> Result<PathBuf> {
    let folder = config.data.clone();
    if folder.join("control.sqlite").is_file() || folder.join("models").is_dir() {
        return Ok(folder);
    }
    Err(Error::invalid(format!("{} is no data folder of a sidecar", folder.display())).hint("name it by --data, or its file by --config"))
}

/// Bytes of all files below.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => size(&entry.path()),
            Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |data| data.len()),
            _ => 0,
        })
        .sum()
}

/// A copy of a folder, which goes when it is dropped.
struct Copy(PathBuf);

impl Copy {
    fn of(folder: &Path) -> io::Result<Self> {
        let to = std::env::temp_dir().join(format!("barograph-check-{}-{}", std::process::id(), clock()));
        fs::DirBuilder::new().mode(0o700).create(&to)?;
        let copy = Self(to);
        Self::fill(folder, &copy.0)?;
        Ok(copy)
    }

    fn fill(from: &Path, to: &Path) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let (entry, kind) = entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind)))?;
            let to = to.join(entry.file_name());
            if kind.is_dir() {
                fs::DirBuilder::new().mode(0o700).create(&to)?;
                Self::fill(&entry.path(), &to)?;
            } else if kind.is_file() {
                fs::copy(entry.path(), to)?;
            }
        }
        Ok(())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Reads everything as a sidecar would that starts, on a copy in the system's folder for temporary files: nothing in the folder is changed.
///
/// # Errors
/// `InvalidArgument` for a folder that is not there, that a sidecar uses, or that cannot be copied.
pub fn check(overrides: &Overrides) -> Result<Checked> {
    let mut config = Config::load(overrides)?;
    let folder = existing(&config)?;
    let copy = {
        let lock = fs::File::open(folder.join("lock")).ok();
        if let Some(Err(fs::TryLockError::WouldBlock)) = lock.as_ref().map(fs::File::try_lock) {
            return Err(Error::invalid(format!("a sidecar uses the data folder {}", folder.display())).hint("ask its /readyz, or stop it"));
        }
        Copy::of(&folder).map_err(|error| failed(&format!("{} could not be copied to be checked", folder.display()), &error))?
    };
    config.data.clone_from(&copy.0);
    let store = Store::open(&config)?;
    let mut damage = store.troubles();
    let audit = store.control.check_audit();
    if let Err(problem) = &audit {
        damage.push(problem.detail.clone());
    }
    let names = store.names();
    for entry in fs::read_dir(folder.join("models")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !names.contains(&name) {
            damage.push(format!("{} belongs to no model", entry.path().display()));
        }
    }
    let mut models = Vec::new();
    for name in names {
        let bytes = size(&folder.join("models").join(&name));
        let look = |model: &mut Model| {
            let state = match &model.state {
                State::Learning(_) => "learning",
                State::Watching(_) => "watching",
            };
            let alerts = model.monitor().map_or(0, |monitor| monitor.alerts().len());
            (state, model.counts, alerts, model.waiting())
        };
        // One whose files cannot be read stands in the damage.
        if let Ok((state, counts, alerts, waiting)) = store.look(&name, look) {
            models.push(Found { model: name, state, events: counts.events, labels: counts.labels, alerts, waiting, bytes });
        }
    }
    let (was, is) = (copy.0.display().to_string(), folder.display().to_string());
    let damage = damage.into_iter().map(|text| text.replace(&was, &is)).collect();
    store.models.stop();
    Ok(Checked { models, audit: audit.unwrap_or(0), bytes: size(&folder), damage })
}

/// Writes states, so that logs can go, and gives the space of what was forgotten back to the disk. Bytes before and after.
///
/// # Errors
/// As for [`Store::open`], and if the disk takes nothing.
pub fn compact(overrides: &Overrides) -> Result<(u64, u64)> {
    let config = Config::load(overrides)?;
    let store = Store::open(&config)?;
    let (folder, names) = (store.folder.clone(), store.names());
    let before = size(&folder);
    for entry in store.models.entries() {
        store.runtime.block_on(store.models.rewrite(&entry))?;
    }
    store.finish(&names)?;
    Ok((before, size(&folder)))
}

/// Forgets a model, or what is held for one of its ids (a whole number or text, as JSON).
///
/// # Errors
/// As for [`Store::open`]; a model that is not there; an id that is neither.
pub fn erase(overrides: &Overrides, model: &str, id: Option<&str>) -> Result<()> {
    let config = Config::load(overrides)?;
    let id: Option<Value> = id.map(serde_json::from_str).transpose().map_err(|error| Error::invalid(format!("`id`: {error}")))?;
    let store = Store::open(&config)?;
    let entry = store.entry(model)?;
    let names = if let Some(id) = id {
        let key = entry.shape.load().key_of(&id)?;
        store.runtime.block_on(store.models.erase(&entry, key))?;
        vec![model.to_owned()]
    } else {
        let folder = store.models.folder();
        strays::doom(&folder, model)?;
        store.control.delete_model(model, None)?;
        store.runtime.block_on(store.models.remove(model))?;
        strays::spare(&folder, model);
        Vec::new()
    };
    let outcome: Outcome<()> =
        store.control.audit(clock(), "store", if names.is_empty() { "delete" } else { "erase" }, model, &json!({}).to_string());
    outcome?;
    store.finish(&names)
}
