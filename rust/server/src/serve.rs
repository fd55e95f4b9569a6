//! A sidecar from its start to its end: sockets, signals, an ordered shutdown.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use barograph_core::{Error, Result};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, watch};
use tokio_rustls::TlsAcceptor;

use crate::access::Access;
use crate::api::Door;
use crate::budget::Spending;
use crate::config::{Address, Config, Overrides, Tls};
use crate::connection::{FAREWELL, welcome};
use crate::control::Control;
use crate::counters::Counters;
use crate::files::Files;
use crate::fleet::Part;
use crate::ingest::otlp::Otlp;
use crate::model::Settings;
use crate::models::Models;
use crate::note;
use crate::record::Happening;
use crate::shard::Setup;
use crate::sidecar::{Sidecar, Told};
use crate::{bucket, budget, datagrams, deliver, fleet, push, strays};

/// What a process is sent that writes beyond its limit on the size of files.
const SIGXFSZ: i32 = 25;
/// A part of the memory is for what is on its way.
const ON_ITS_WAY: usize = 4;

pub(crate) fn failed(what: &str, error: &io::Error) -> Error {
    Error::invalid(format!("{what}: {error}"))
}

/// Runs a sidecar until it is told to stop.
///
/// # Errors
/// `InvalidArgument` for a configuration that cannot be, an address that is taken, a folder that cannot be used.
pub fn run(overrides: &Overrides) -> Result<()> {
    let config = Config::load(overrides)?;
    if overrides.test_alert {
        return deliver::test(&config);
    }
    // Large records are counted on all cores: one model may have all events.
    barograph_engine::spread::spread_monitors(crate::threads::on_all_cores);
    // More threads than cores would only take turns.
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(threads * 2)
        .enable_all()
        .build()
        .map_err(|error| failed("threads could not be started", &error))?;
    runtime.block_on(serve(config, overrides))
}

async fn serve(config: Config, overrides: &Overrides) -> Result<()> {
    let data = config.data.clone();
    fs::create_dir_all(&data).map_err(|error| failed(&format!("the data folder {} could not be made", data.display()), &error))?;
    let _ = fs::set_permissions(&data, fs::Permissions::from_mode(0o700));
    let _lock = locked(&data)?;
    let admin = token(&config, overrides)?;
    // A limit on the size of files is an error of the write, not the end of the process.
    let _beyond_limits = signal(SignalKind::from_raw(SIGXFSZ));
    let (control, warnings) = Control::open(&data.join("control.sqlite")).map_err(|problem| Error::invalid(problem.detail))?;
    warnings.iter().for_each(|warning| note::warn(warning));
    let control = Arc::new(control);
    let identity = fleet::kept(&data.join("identity"), || fleet::random(16))?;
    let (member, reader) = match config.fleet.as_ref().map(|stated| stated.part(config.memory, &data)).transpose()? {
        Some(Part::Member(member)) => (Some(member), None),
        Some(Part::Aggregator(reader)) => (None, Some(reader)),
        None => (None, None),
    };
    let (stream, _) = broadcast::channel(1024);
    let (sender, changes) = std::sync::mpsc::channel();
    let setup = Setup {
        files: Files::default(),
        acknowledge: config.acknowledge,
        outlet: Arc::new(Told { sender: sender.clone(), stream: stream.clone(), control: Arc::clone(&control) }),
        pulse: Arc::default(),
        key: config.privacy_key.clone(),
        fleet: member.as_ref().map(|member| Arc::clone(&member.membership)),
        behind: reader.as_ref().map(|reader| Arc::clone(&reader.behind)),
    };
    let models = Models::start(data.join("models"), config.shards, config.memory / ON_ITS_WAY, config.max_models, &setup)
        .map_err(|error| failed("threads could not be started", &error))?;
    let access = Access::new(&admin, &config);
    let sidecar = Arc::new(Sidecar {
        access: ArcSwap::from_pointee(access),
        models,
        control,
        counters: Counters::default(),
        spending: Spending::new(config.budget),
        opened: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
        stream,
        identity,
        fleet: member,
        reader,
        started: Instant::now(),
        otlp: std::sync::Mutex::new(Otlp::new(config.naming.clone())),
        deliveries: std::sync::OnceLock::new(),
        estimates: std::sync::Mutex::default(),
        config: ArcSwap::from_pointee(config),
    });
    let (stop, stopped) = watch::channel(false);
    let listening = listen(&sidecar, &stopped)?;
    let deliveries = deliver::start(&sidecar, sender, changes);
    open(&sidecar).await;
    apply(&sidecar).await;
    sidecar.opened.store(true, Ordering::Relaxed);
    datagrams::start(&sidecar, &stopped)?;
    push::start(&sidecar);
    fleet::start(&sidecar);
    bucket::reader::start(&sidecar);
    budget::start(&sidecar);
    signals(&sidecar, overrides, &admin).await?;
    note::info("shutting down");
    sidecar.stopping.store(true, Ordering::Relaxed);
    let _ = stop.send(true);
    // Who listens to the stream hears nothing of this, but its end.
    let _ = sidecar.stream.send((String::new(), String::new()));
    // Requests that are being answered end, then logs and states are written, then alerts that are on their way.
    let began = Instant::now();
    while sidecar.counters.connections.load(Ordering::Relaxed) > 0 && began.elapsed() < FAREWELL {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fleet::farewell(&sidecar, FAREWELL).await;
    listening.into_iter().for_each(|path| drop(fs::remove_file(path)));
    tokio::task::block_in_place(|| {
        sidecar.models.stop();
        deliver::stop(&sidecar, deliveries);
    });
    note::info("stopped");
    Ok(())
}

/// Only one process may write to a folder.
pub(crate) fn locked(data: &Path) -> Result<fs::File> {
    let path = data.join("lock");
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).or_else(|error| {
        // On a disk that cannot be written to what is there can still be read.
        let known = fs::File::open(&path).map_err(|_| error)?;
        note::warn(&format!("the data folder {} cannot be written to: nothing is taken until it can be", data.display()));
        Ok(known)
    });
    let file = file.map_err(|error| failed(&format!("the data folder {} cannot be written to", data.display()), &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(Error::invalid(format!("another sidecar uses the data folder {}", data.display())).hint("choose another one by `--data`"))
        }
        // A file system without locks: whoever uses it has to know.
        Err(fs::TryLockError::Error(error)) => {
            note::warn(&format!("the data folder could not be locked: {error}"));
            Ok(file)
        }
    }
}

/// The administrator's token: of the environment, of a file, or made.
fn token(config: &Config, overrides: &Overrides) -> Result<String> {
    if let Ok(token) = std::env::var("BAROGRAPH_TOKEN") {
        return checked(&token, "BAROGRAPH_TOKEN");
    }
    if let Some(path) = &overrides.token_file {
        let text =
            fs::read_to_string(path).map_err(|error| failed(&format!("the token file {} could not be read", path.display()), &error))?;
        return checked(&text, &path.display().to_string());
    }
    let path = config.path("token");
    if let Ok(text) = fs::read_to_string(&path)
        && !text.trim().is_empty()
    {
        return checked(&text, &path.display().to_string());
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Error::invalid(format!("no random bytes for a token: {error}")))?;
    let token = crate::control::hex(&bytes);
    // Whole or not at all: half a token would keep everybody out for good.
    Files::default()
        .write_whole(&path, format!("{token}\n").as_bytes())
        .map_err(|error| failed(&format!("the token file {} could not be written", path.display()), &error))?;
    note::info(&format!("a token was made: {}", path.display()));
    Ok(token)
}

fn checked(token: &str, place: &str) -> Result<String> {
    let token = token.trim();
    if token.is_empty() || token.len() > 1000 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::invalid(format!("the token of {place} must have 1 to 1000 printable characters without spaces")));
    }
    Ok(token.to_owned())
}

/// Opens the models of the last time.
async fn open(sidecar: &Arc<Sidecar>) {
    let (rows, told) = tokio::task::block_in_place(|| strays::all(&sidecar.control, &sidecar.models.folder()));
    told.iter().filter(|(name, _)| name.is_empty()).for_each(|(_, what)| note::error(what));
    for row in rows {
        let settings = Settings::from_json(&row.settings_json).unwrap_or_else(|error| {
            note::error(&format!("settings of model {} could not be read, defaults stand in: {}", row.name, error.message));
            Settings::default()
        });
        let opened = sidecar.models.open(&row.name, settings.clone(), row.created.to_string()).await;
        match opened {
            Ok(entry) => {
                let what = told.iter().find(|(name, _)| *name == row.name).map(|(_, what)| what.clone());
                entry.trouble("control", what);
                let known = sidecar.models.look(&entry, |model| model.settings.clone()).await;
                if known.is_ok_and(|known| known != settings)
                    && let Ok(json) = settings.to_json()
                {
                    // They were stated, and the process ended before the log had them.
                    let _ = sidecar.models.happen(&entry, Happening::Settings(json)).await;
                }
            }
            Err(problem) => note::error(&problem.detail),
        }
    }
}

/// Makes the models of the configuration what it states.
async fn apply(sidecar: &Arc<Sidecar>) {
    let config = sidecar.config.load_full();
    for (name, settings) in &config.models {
        let same =
            sidecar.control.model(name).ok().flatten().is_some_and(|row| settings.to_json().is_ok_and(|json| json == row.settings_json));
        if !same && let Err(problem) = sidecar.state(name, settings.clone(), None, "config").await {
            note::error(&format!("model {name}: {}", problem.detail));
        }
    }
}

/// Waits until it is told to stop; reads the configuration anew when it is told to.
async fn signals(sidecar: &Arc<Sidecar>, overrides: &Overrides, admin: &str) -> Result<()> {
    let on = |kind| signal(kind).map_err(|error| failed("signals cannot be heard", &error));
    let (mut terminate, mut interrupt, mut hangup) =
        (on(SignalKind::terminate())?, on(SignalKind::interrupt())?, on(SignalKind::hangup())?);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => reload(sidecar, overrides, admin).await,
        }
    }
}

async fn reload(sidecar: &Arc<Sidecar>, overrides: &Overrides, admin: &str) {
    match Config::load(overrides) {
        Ok(config) => {
            let admin = token(&config, overrides).unwrap_or_else(|_| admin.to_owned());
            sidecar.access.store(Arc::new(Access::new(&admin, &config)));
            deliver::restate(sidecar, &config);
            if config.budget != sidecar.config.load().budget {
                sidecar.spending.restate(config.budget);
            }
            sidecar.config.store(Arc::new(config));
            apply(sidecar).await;
            sidecar.audit("signal", "reload", "configuration", &serde_json::json!({}));
            note::info("the configuration was read anew");
        }
        Err(error) => note::error(&format!("the configuration stays as it was: {}", error.message)),
    }
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>> {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        read.map_err(|error| Error::invalid(format!("certificates of {} could not be read: {error}", path.display())))
    };
    let chain = certificates(&tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|error| Error::invalid(format!("the key {} could not be read: {error}", tls.key.display())))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let wrong = |error: rustls::Error| Error::invalid(format!("[tls] cannot be used: {error}"));
    let builder =
        rustls::ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().map_err(wrong)?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(wrong)?;
            }
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| Error::invalid(format!("`tls.client_ca` cannot be used: {error}")))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(wrong)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Listens; gives the sockets in the file system that have to go in the end.
fn listen(sidecar: &Arc<Sidecar>, stopped: &watch::Receiver<bool>) -> Result<Vec<PathBuf>> {
    let config = sidecar.config.load_full();
    let tls = config.tls.as_ref().map(acceptor).transpose()?;
    let mut paths = Vec::new();
    let doors = config.listen.iter().map(|address| (address, None));
    let health = config.health_listen.iter().map(|address| (address, Some(Door::Health(config.health_metrics))));
    for (address, door) in doors.chain(health) {
        let taken =
            |error: io::Error| Error::invalid(format!("{address} cannot be listened on: {error}")).hint("is another sidecar there?");
        match address {
            Address::Net(socket) => {
                let listener = std::net::TcpListener::bind(socket).map_err(taken)?;
                listener.set_nonblocking(true).map_err(taken)?;
                let listener = TcpListener::from_std(listener).map_err(taken)?;
                note::info(&format!("listening on {}", listener.local_addr().map_or_else(|_| address.to_string(), |own| own.to_string())));
                let (sidecar, tls, mut stopped) = (Arc::clone(sidecar), tls.clone().filter(|_| door.is_none()), stopped.clone());
                tokio::spawn(async move {
                    loop {
                        let accepted = tokio::select! { accepted = listener.accept() => accepted, _ = stopped.changed() => return };
                        match accepted {
                            Ok((stream, _)) => {
                                let _ = stream.set_nodelay(true);
                                welcome(&sidecar, stream, tls.clone(), door.unwrap_or(Door::Main), &stopped);
                            }
                            // Too many files are open: those that are have to end first.
                            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                        }
                    }
                });
            }
            Address::Unix(path) => {
                free(path)?;
                let listener = UnixListener::bind(path).map_err(taken)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(taken)?;
                note::info(&format!("listening on {address}"));
                paths.push(path.clone());
                let (sidecar, mut stopped) = (Arc::clone(sidecar), stopped.clone());
                tokio::spawn(async move {
                    loop {
                        let accepted = tokio::select! { accepted = listener.accept() => accepted, _ = stopped.changed() => return };
                        match accepted {
                            Ok((stream, _)) => welcome(&sidecar, stream, None, door.unwrap_or(Door::Unix), &stopped),
                            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                        }
                    }
                });
            }
        }
    }
    Ok(paths)
}

/// Removes a socket that nobody listens on any more, and nothing else.
pub(crate) fn free(path: &Path) -> Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        fs::remove_file(path)
            .map_err(|error| failed(&format!("the socket {} of an earlier time could not be removed", path.display()), &error))?;
    }
    Ok(())
}
