//! A connection: which HTTP it speaks, what it may take at once, how it ends.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::api::{self, Door};
use crate::idle::{Reach, Watched};
use crate::prompt::Prompt;
use crate::sidecar::Sidecar;

/// A request's head has to come within this time.
const HEAD: Duration = Duration::from_secs(5);
/// A connection on which nothing happens is closed after this time.
const IDLE: Duration = Duration::from_secs(75);
/// How long requests may take to end when the sidecar stops.
pub(crate) const FAREWELL: Duration = Duration::from_secs(10);
/// The most bytes of a request's head.
const MOST_HEAD: usize = 64 << 10;
/// The most bytes that are read at once of a body for which there is memory, on a tight budget: with fewer the system tells its sender of
/// room so often that this costs more than the bytes do. Without one they come sooner in smaller parts.
const MOST_AT_ONCE: usize = 512 << 10;
/// What HTTP/2 begins with (RFC 9113, section 3.4), and its name within TLS (section 3.2).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HTTP2: &[u8] = b"h2";

/// Serves a connection on a task of its own.
pub(crate) fn welcome<S>(sidecar: &Arc<Sidecar>, stream: S, tls: Option<TlsAcceptor>, door: Door, stopped: &watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if !sidecar.counters.connect(sidecar.config.load().max_connections) {
        return;
    }
    let (sidecar, mut stopped) = (Arc::clone(sidecar), stopped.clone());
    tokio::spawn(async move {
        let mut stream = Watched::new(stream, HEAD, IDLE);
        let reach = stream.reach();
        match tls {
            None => {
                let begins = tokio::time::timeout(HEAD, stream.begins_with(PREFACE));
                let begins = tokio::select! { begins = begins => begins.ok().and_then(Result::ok), _ = stopped.changed() => None };
                if let Some(http2) = begins {
                    converse(&sidecar, stream, http2, reach, door, stopped).await;
                }
            }
            Some(tls) => {
                if let Ok(Ok(stream)) = tokio::time::timeout(HEAD, tls.accept(stream)).await {
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
                    converse(&sidecar, stream, http2, reach, door, stopped).await;
                }
            }
        }
        sidecar.counters.connections.fetch_sub(1, Ordering::Relaxed);
    });
}

async fn converse<S>(sidecar: &Arc<Sidecar>, stream: S, http2: bool, reach: Arc<Reach>, door: Door, stopped: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let (sidecar, reach) = (Arc::clone(sidecar), Arc::clone(&reach));
        async move { Ok::<_, std::convert::Infallible>(crate::http::finished(api::answer(sidecar, request, door, reach).await)) }
    });
    // Timers have to be given: without one the limit on heads is none.
    if http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .max_concurrent_streams(64)
            .max_header_list_size(16 << 10)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        until_stopped(builder.serve_connection(TokioIo::new(stream), service), stopped).await;
    } else {
        // hyper makes room for twice of what it reads: only where larger parts can come.
        let at_once = if sidecar.config.load().budget.cpu.is_some() { MOST_AT_ONCE } else { MOST_HEAD };
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_header_size(MOST_HEAD).max_buf_size(at_once).half_close(false);
        until_stopped(builder.serve_connection(TokioIo::new(stream), service), stopped).await;
    }
}

/// Goes on with a connection until it ends or the sidecar stops.
async fn until_stopped(connection: impl GracefulConnection, mut stopped: watch::Receiver<bool>) {
    let mut connection = pin!(connection);
    let prompt = Prompt::new();
    tokio::select! {
        // What goes wrong with a connection is its client's matter, and was answered as far as it could be.
        _ = poll_fn(|context| prompt.poll(context, |context| connection.as_mut().poll(context))) => return,
        _ = stopped.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(FAREWELL, connection).await;
}
