//! Numbers that are pushed to an OpenTelemetry collector.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::exporters::otlp;
use crate::note;
use crate::shard::clock;
use crate::sidecar::Sidecar;

/// Pushes as often as the configuration says, if it does.
pub fn start(sidecar: &Arc<Sidecar>) {
    let sidecar = Arc::clone(sidecar);
    let began = clock();
    tokio::spawn(async move {
        let agent = ureq::Agent::new_with_defaults();
        while !sidecar.stopping.load(Ordering::Relaxed) {
            let Some(push) = sidecar.config.load().otlp.clone() else {
                tokio::time::sleep(Duration::from_secs(5)).await;
                continue;
            };
            tokio::time::sleep(Duration::from_nanos(push.interval.0.max(1_000_000_000) as u64)).await;
            if !sidecar.spending.may_push() {
                // The next push tells as much: counters go on.
                continue;
            }
            let exposition = crate::exposition::of(&sidecar, "").await;
            let body = otlp::encode(&exposition, &push.resource(), began, clock());
            let agent = agent.clone();
            sidecar.spending.pushed(body.len());
            if let Ok(Err(refused)) = tokio::task::spawn_blocking(move || push.send(&agent, body)).await {
                note::warn(&refused.message);
                tokio::time::sleep(refused.retry_after.unwrap_or_default()).await;
            }
        }
    });
}
