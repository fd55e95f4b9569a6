//! The sidecar as all its threads share it.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use barograph_engine::alert::Alert;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::access::Access;
use crate::bucket::reader::Reader;
use crate::budget::Spending;
use crate::config::Config;
use crate::control::Control;
use crate::counters::Counters;
use crate::deliver::Change;
use crate::exposition;
use crate::fleet::Member;
use crate::ingest::otlp::{self, Otlp};
use crate::model::Settings;
use crate::models::Models;
use crate::note;
use crate::problem::{Outcome, Problem};
use crate::record::Happening;
use crate::shard::{Entry, Outlet, clock};
use crate::strays;

/// The sidecar.
pub struct Sidecar {
    /// What its operator states.
    pub config: ArcSwap<Config>,
    /// Who may do what.
    pub access: ArcSwap<Access>,
    /// The models.
    pub models: Models,
    /// What is stated about models, said about alerts, done by administrators.
    pub control: Arc<Control>,
    /// What it counts.
    pub counters: Counters,
    /// What it costs.
    pub spending: Spending,
    /// Whether the models of the last time are open.
    pub opened: AtomicBool,
    /// Whether it is shutting down.
    pub stopping: AtomicBool,
    /// What happens, for whoever listens: a model and a server-sent event.
    pub stream: broadcast::Sender<(String, String)>,
    /// Tells it from all other sidecars.
    pub identity: String,
    /// Its part in a fleet, if it has an aggregator.
    pub fleet: Option<Arc<Member>>,
    /// The bucket that it reads, if it is an aggregator with one.
    pub reader: Option<Arc<Reader>>,
    /// When it began.
    pub started: Instant,
    /// Streams of cumulative measurements.
    pub(crate) otlp: Mutex<Otlp>,
    /// Sinks, and what became of alerts there.
    pub(crate) deliveries: std::sync::OnceLock<Arc<crate::sinks::Deliveries>>,
    /// By model the end of a window and the estimate of its quality: what takes long is done once.
    pub(crate) estimates: Mutex<BTreeMap<String, (i64, Value)>>,
}

impl Sidecar {
    /// The model of this name; it is made, and begins to learn, if it is not there.
    ///
    /// # Errors
    /// 400 for a name that cannot be, 409 beyond the number of models.
    pub async fn entry_or_new(&self, name: &str, holder: &str) -> Outcome<Arc<Entry>> {
        if let Ok(entry) = self.models.entry(name) {
            return Ok(entry);
        }
        if !crate::config::is_name(name) {
            return Err(Problem::bad(format!("{name:?} is no name of a model")).hint(crate::config::NAMES));
        }
        let settings = self.config.load().models.get(name).cloned().unwrap_or_default();
        self.state(name, settings, None, holder).await?;
        self.models.entry(name)
    }

    /// States what a model is: it is made, or changed. Whether it was made.
    ///
    /// # Errors
    /// 400 for settings that cannot be, 412 if they are others than `if_match` says.
    pub async fn state(&self, name: &str, settings: Settings, if_match: Option<&str>, holder: &str) -> Outcome<bool> {
        if !crate::config::is_name(name) {
            return Err(Problem::bad(format!("{name:?} is no name of a model")).hint(crate::config::NAMES));
        }
        settings.check()?;
        // Rules that cannot be kept to are refused before anything is.
        crate::model::Model::new(name, settings.clone()).shape(self.config.load().privacy_key.as_ref())?;
        let json = settings.to_json()?;
        let known = self.models.entry(name).ok();
        if let Some(entry) = &known {
            // What the monitor would refuse is refused before it is written anywhere.
            let wanted = settings.policy.0.clone();
            let fits =
                self.models.look(entry, move |model| model.monitor().map_or(Ok(()), |monitor| monitor.clone().restate(wanted))).await?;
            fits?;
        }
        if known.is_none() && self.models.entries().len() >= self.config.load().max_models {
            let most = self.config.load().max_models;
            return Err(Problem::new(409, "too many models", format!("there are {most} models, the most that `max_models` allows")));
        }
        if known.is_none()
            && let Some(why) = self.spending.no_new_models()
        {
            return Err(Problem::new(409, "over budget", why).hint("raise the limit, or wait until there is room"));
        }
        let (_, created) = tokio::task::block_in_place(|| self.control.put_model(name, &json, if_match, clock()))?;
        let generation = self.generation(name)?;
        let entry = self.models.open(name, settings, generation).await?;
        // The log of a new model begins with them, so that it can be understood alone.
        self.models.happen(&entry, Happening::Settings(json)).await?;
        self.audit(holder, if created { "create" } else { "change" }, name, &json!({}));
        Ok(created)
    }

    fn generation(&self, name: &str) -> Outcome<String> {
        Ok(self.control.model(name)?.map(|row| row.created.to_string()).unwrap_or_default())
    }

    /// Removes a model and all that is kept of it.
    ///
    /// # Errors
    /// 404, 412, 503.
    pub async fn delete(&self, name: &str, if_match: Option<&str>, holder: &str) -> Outcome<()> {
        let folder = self.models.folder();
        tokio::task::block_in_place(|| {
            strays::doom(&folder, name)?;
            self.control.delete_model(name, if_match).inspect_err(|_| strays::spare(&folder, name))
        })?;
        self.models.remove(name).await?;
        strays::spare(&folder, name);
        self.audit(holder, "delete", name, &json!({}));
        Ok(())
    }

    /// The tag of a model's settings.
    ///
    /// # Errors
    /// 404, 503.
    pub fn etag(&self, name: &str) -> Outcome<String> {
        let row = tokio::task::block_in_place(|| self.control.model(name))?;
        row.map(|row| row.etag).ok_or_else(|| Problem::missing(format!("there is no model {name:?}")))
    }

    /// Writes down what an administrator did. What cannot be written is told, and does not undo what was done.
    pub fn audit(&self, holder: &str, action: &str, object: &str, detail: &Value) {
        if let Err(problem) = tokio::task::block_in_place(|| self.control.audit(clock(), holder, action, object, &detail.to_string())) {
            note::error(&format!("the audit log could not be written: {}", problem.detail));
        }
    }

    /// A page of the audit log.
    ///
    /// # Errors
    /// 503.
    pub fn audit_page(&self, after: i64, limit: i64) -> Outcome<Value> {
        let rows = tokio::task::block_in_place(|| self.control.audit_page(after, limit))?;
        let next = rows.last().filter(|_| rows.len() as i64 == limit).map(|row| row.id.to_string());
        let rows = serde_json::to_value(&rows).map_err(|error| Problem::new(500, "internal error", error.to_string()))?;
        Ok(json!({"rows": rows, "next": next}))
    }

    /// What people said about alerts of a model, by id.
    pub fn standings(&self, model: &str) -> BTreeMap<String, Value> {
        let found = tokio::task::block_in_place(|| self.control.standings(model)).unwrap_or_default();
        found.into_iter().filter_map(|standing| Some((standing.alert_id.clone(), serde_json::to_value(standing).ok()?))).collect()
    }

    /// Acknowledges an alert, or mutes its column until a time.
    ///
    /// # Errors
    /// 503.
    pub fn stand(&self, model: &str, id: &str, column: &str, until: Option<i64>, holder: &str) -> Outcome<()> {
        let now = clock();
        tokio::task::block_in_place(|| match until {
            Some(until) => self.control.mute(model, id, column, until, holder),
            None => self.control.acknowledge(model, id, column, holder, now),
        })?;
        self.audit(holder, if until.is_some() { "mute" } else { "acknowledge" }, model, &json!({"alert": id, "column": column}));
        Ok(())
    }

    /// Tells whoever listens that something of a model is new.
    pub fn tell(&self, word: &str, model: &str) {
        // Nobody listening is no fault.
        let _ = self.stream.send((model.to_owned(), format!("event: {word}\ndata: {}\n\n", json!({"model": model}))));
    }

    /// Measurements of metrics that came by OTLP.
    pub fn otlp(&self, request: &otlp::Request) -> otlp::Batch {
        self.otlp.lock().unwrap_or_else(PoisonError::into_inner).take(request, clock())
    }

    /// What became of them; what to answer.
    ///
    /// # Errors
    /// Those of the parts that may be sent again.
    pub fn otlp_done(&self, batch: otlp::Batch, outcomes: Vec<Outcome<()>>) -> Outcome<otlp::Partial> {
        self.otlp.lock().unwrap_or_else(PoisonError::into_inner).done(batch, outcomes)
    }

    /// Alerts by sink and what became of them.
    pub fn delivered(&self) -> Vec<(String, &'static str, u64)> {
        self.deliveries.get().map(|deliveries| deliveries.counts()).unwrap_or_default()
    }

    /// Alerts by sink that are still to be delivered. What cannot be read is not told.
    pub fn undelivered(&self) -> Vec<(String, u64)> {
        let mut out: BTreeMap<String, u64> = self.delivered().into_iter().map(|(sink, _, _)| (sink, 0)).collect();
        let known = tokio::task::block_in_place(|| self.control.deliveries()).unwrap_or_default();
        out.extend(known.into_iter().filter(|(_, outcome, _)| outcome == "waiting").map(|(sink, _, count)| (sink, count)));
        out.into_iter().collect()
    }

    /// Everything that is exposed to the holder of a token, in the format that is accepted.
    pub async fn exposition(&self, accept: Option<&str>, holder: &str) -> (String, Vec<u8>) {
        let exposition = exposition::of(self, holder).await;
        let (kind, bytes) = crate::exporters::encode(crate::exporters::negotiate(accept), &exposition);
        (kind.to_owned(), bytes)
    }
}

/// Resident bytes of this process.
pub fn memory() -> u64 {
    // All of it at once: it is asked for often, and a file that tells no length is read in small pieces.
    let mut room = [0; 4096];
    let read = std::fs::File::open("/proc/self/status").and_then(|mut file| file.read(&mut room)).unwrap_or(0);
    let status = String::from_utf8_lossy(room.get(..read).unwrap_or_default());
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Tells what shards see: alerts into the outbox, both onto the stream.
pub struct Told {
    pub(crate) sender: std::sync::mpsc::Sender<Change>,
    pub(crate) stream: broadcast::Sender<(String, String)>,
    pub(crate) control: Arc<Control>,
}

impl Outlet for Told {
    fn changed(&self, entry: &Entry, index: u64, alert: &Alert) {
        // Nobody listening is no fault.
        let _ = self.sender.send(Some((entry.name.clone(), entry.generation.clone(), index, alert.clone())));
        let text = json!({"model": entry.name, "index": index, "alert": alert});
        let _ = self.stream.send((entry.name.clone(), format!("event: alert\ndata: {text}\n\n")));
    }

    fn told(&self, entry: &Entry) -> u64 {
        // What cannot be read is told once more: the outbox knows what it has.
        self.control.told(&entry.name, &entry.generation).unwrap_or(0)
    }

    fn closed(&self, entry: &Entry) {
        let text = json!({"model": entry.name});
        let _ = self.stream.send((entry.name.clone(), format!("event: window\ndata: {text}\n\n")));
    }
}
