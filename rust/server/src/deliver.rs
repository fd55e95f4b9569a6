//! Alerts on their way from the models to the sinks: through an outbox on the disk, so that each is written once per sink whatever happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use barograph_core::{Error, Result};
use barograph_engine::alert::Alert;

use crate::config::Config;
use crate::note;
use crate::shard::clock;
use crate::sidecar::Sidecar;
use crate::sinks::{Deliveries, Pace, test_alert};

/// A change of an alert: the model, its generation, the number of the change, the alert. None comes last.
pub type Change = Option<(String, String, u64, Alert)>;

/// What brings changes into the outbox.
pub struct Running {
    stop: Arc<AtomicBool>,
    last: Sender<Change>,
    thread: Option<JoinHandle<()>>,
}

/// Sends a test alert to every sink, and says what became of it.
///
/// # Errors
/// `InvalidArgument` naming the sinks that did not take it.
pub fn test(config: &Config) -> Result<()> {
    let mut refused = Vec::new();
    for (name, result) in test_alert(&config.sinks) {
        match result {
            Ok(()) => note::info(&format!("sink {name} took a test alert")),
            Err(why) => refused.push(format!("{name} ({why})")),
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(Error::invalid(format!("sinks that did not take a test alert: {}", refused.join(", ")))) }
}

/// Starts to deliver.
pub fn start(sidecar: &Arc<Sidecar>, last: Sender<Change>, changes: Receiver<Change>) -> Running {
    let deliveries = Deliveries::start(Arc::clone(&sidecar.control), &sidecar.config.load().sinks, Pace::default());
    let deliveries = Arc::clone(sidecar.deliveries.get_or_init(|| Arc::new(deliveries)));
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let thread = std::thread::Builder::new().name("alerts".to_owned()).spawn(move || {
        while let Ok(Some((model, generation, index, alert))) = changes.recv() {
            while let Err(problem) = deliveries.tell(&model, &generation, index, &alert, clock()) {
                note::error(&format!("an alert of {model} could not be put on its way: {}", problem.detail));
                if stopping.load(Ordering::Relaxed) {
                    // It is told again when the model is opened.
                    return;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    });
    let thread = thread.map_err(|error| note::error(&format!("alerts cannot be delivered: {error}"))).ok();
    Running { stop, last, thread }
}

/// Takes the sinks of another configuration.
pub fn restate(sidecar: &Arc<Sidecar>, config: &Config) {
    if let Some(deliveries) = sidecar.deliveries.get() {
        deliveries.restate(&config.sinks);
    }
}

/// Ends it: what models told is in the outbox, what is being sent may finish.
pub fn stop(sidecar: &Arc<Sidecar>, running: Running) {
    running.stop.store(true, Ordering::Relaxed);
    let _ = running.last.send(None);
    let _ = running.thread.map(JoinHandle::join);
    if let Some(deliveries) = sidecar.deliveries.get() {
        deliveries.stop();
    }
}
