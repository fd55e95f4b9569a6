//! Datagrams of `DogStatsD`: lossy by contract, folded together and handed on once a second.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use barograph_core::{Error, Result};
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::sync::watch;

use crate::config::Address;
use crate::ingest::statsd::Aggregator;
use crate::note;
use crate::record::Happening;
use crate::sidecar::Sidecar;

/// The largest datagram.
const LARGEST: usize = 64 << 10;
/// Measurements are handed on so often.
const EVERY: Duration = Duration::from_secs(1);
/// What the system keeps of datagrams that wait, if it allows.
const WAITING: usize = 8 << 20;

enum Socket {
    Net(UdpSocket),
    Unix(UnixDatagram),
}

impl Socket {
    async fn receive(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Net(socket) => socket.recv(buffer).await,
            Self::Unix(socket) => socket.recv(buffer).await,
        }
    }

    fn try_receive(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Net(socket) => socket.try_recv(buffer),
            Self::Unix(socket) => socket.try_recv(buffer),
        }
    }
}

/// Receives datagrams where the configuration says so.
///
/// # Errors
/// `InvalidArgument` for an address that cannot be used.
pub fn start(sidecar: &Arc<Sidecar>, stopped: &watch::Receiver<bool>) -> Result<()> {
    let config = sidecar.config.load_full();
    let Some(address) = &config.statsd else { return Ok(()) };
    let failed = |error: std::io::Error| Error::invalid(format!("`statsd` {address} cannot be listened on: {error}"));
    let socket = match address {
        Address::Net(net) => {
            if !net.ip().is_loopback() {
                return Err(Error::invalid(format!(
                    "`statsd` names {net}, which others can reach: datagrams say nothing of who sent them"
                ))
                .hint("listen on 127.0.0.1 or a Unix socket"));
            }
            let socket = std::net::UdpSocket::bind(net).map_err(failed)?;
            socket.set_nonblocking(true).map_err(failed)?;
            widen(&socket);
            Socket::Net(UdpSocket::from_std(socket).map_err(failed)?)
        }
        Address::Unix(path) => {
            if path.exists() {
                let probe = std::os::unix::net::UnixDatagram::unbound().map_err(failed)?;
                if probe.connect(path).is_err() {
                    fs::remove_file(path).map_err(failed)?;
                }
            }
            let socket = UnixDatagram::bind(path).map_err(failed)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
            Socket::Unix(socket)
        }
    };
    note::info(&format!("receiving DogStatsD on {address}"));
    let (sidecar, mut stopped) = (Arc::clone(sidecar), stopped.clone());
    tokio::spawn(async move {
        let mut aggregator = Aggregator::new(&sidecar.config.load().naming);
        let mut buffer = vec![0; LARGEST];
        let mut timer = tokio::time::interval(EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                received = socket.receive(&mut buffer) => {
                    let Ok(length) = received else { continue };
                    let mut count = 1;
                    aggregator.add(buffer.get(..length).unwrap_or_default());
                    // What waits already is taken at once: waking up for each would cost more than reading it.
                    while count < 1024 && let Ok(length) = socket.try_receive(&mut buffer) {
                        aggregator.add(buffer.get(..length).unwrap_or_default());
                        count += 1;
                    }
                    sidecar.counters.datagrams.fetch_add(count, Ordering::Relaxed);
                }
                _ = timer.tick() => hand_on(&sidecar, &mut aggregator).await,
                _ = stopped.changed() => {
                    hand_on(&sidecar, &mut aggregator).await;
                    return;
                }
            }
        }
    });
    Ok(())
}

async fn hand_on(sidecar: &Arc<Sidecar>, aggregator: &mut Aggregator) {
    for measurement in aggregator.take() {
        let Ok(entry) = sidecar.entry_or_new(&measurement.model, "statsd").await else { continue };
        // Of what cannot be written the sender hears nothing, and could do nothing.
        let _ = sidecar.models.happen(&entry, Happening::Measured(measurement)).await;
    }
}

/// Asks for room for datagrams that wait.
fn widen(socket: &std::net::UdpSocket) {
    let _ = socket2::SockRef::from(socket).set_recv_buffer_size(WAITING);
}
