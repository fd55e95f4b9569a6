//! Alerts on their way from the models to the sinks: through an outbox on the disk, so that each is written once per sink whatever happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use barograph_core::{Error, Result};
use barograph_engine::alert::Alert;

use crate::config::Config;
use crate::note;
use crate::shard::clock;
use crate::sidecar::Sidecar;
use crate::sinks::{Deliveries, Pace, test_alert};

/// What brings changes into the outbox.
pub struct Running {
    stop: Arc<AtomicBool>,
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
pub fn start(sidecar: &Arc<Sidecar>, changes: Receiver<(String, String, u64, Alert)>) -> Running {
    let deliveries = Deliveries::start(Arc::clone(&sidecar.control), &sidecar.config.load().sinks, Pace::default());
    let deliveries = Arc::clone(sidecar.deliveries.get_or_init(|| Arc::new(deliveries)));
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let thread = std::thread::Builder::new().name("alerts".to_owned()).spawn(move || {
        loop {
            match changes.recv_timeout(Duration::from_millis(100)) {
                Ok((model, generation, index, alert)) => {
                    while let Err(problem) = deliveries.tell(&model, &generation, index, &alert, clock()) {
                        note::error(&format!("an alert of {model} could not be put on its way: {}", problem.detail));
                        if stopping.load(Ordering::Relaxed) {
                            // It is told again when the model is opened.
                            return;
                        }
                        std::thread::sleep(Duration::from_secs(1));
                    }
                }
                Err(RecvTimeoutError::Timeout) if !stopping.load(Ordering::Relaxed) => {}
                Err(_) => return,
            }
        }
    });
    let thread = thread.map_err(|error| note::error(&format!("alerts cannot be delivered: {error}"))).ok();
    Running { stop, thread }
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
    let _ = running.thread.map(JoinHandle::join);
    if let Some(deliveries) = sidecar.deliveries.get() {
        deliveries.stop();
    }
}
