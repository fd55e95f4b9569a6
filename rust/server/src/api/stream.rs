//! `GET /v1/stream`: what happens, as server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::sync::{broadcast, mpsc};

use super::Asked;
use crate::http::Answer;
use crate::problem::{Outcome, Problem};
use crate::sidecar::Sidecar;

/// Streams at once.
const MOST: usize = 100;
/// A sign of life for proxies that close what is silent.
const SILENCE: Duration = Duration::from_secs(15);

pub(super) struct Events(pub(super) mpsc::Receiver<Bytes>);

/// A place among the streams: the receiver counts as long as it is kept.
///
/// # Errors
/// 429 if there are too many.
pub(super) fn place(sidecar: &Sidecar) -> Outcome<broadcast::Receiver<(String, String)>> {
    if sidecar.stream.receiver_count() >= MOST {
        return Err(Problem::busy(format!("there are {MOST} streams already")));
    }
    Ok(sidecar.stream.subscribe())
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Answers with events until the asker goes, or is too slow to take them.
pub(super) fn stream(asked: &Asked) -> Outcome<Answer> {
    asked.knows(&[])?;
    let sidecar = &asked.sidecar;
    let mut heard = place(sidecar)?;
    let (sender, receiver) = mpsc::channel(64);
    let access = sidecar.access.load_full();
    let (own, holder) = (Arc::clone(sidecar), asked.holder.clone());
    tokio::spawn(async move {
        let _ = sender.send(Bytes::from_static(b"retry: 1000\n\n")).await;
        loop {
            let text = match tokio::time::timeout(SILENCE, heard.recv()).await {
                Err(_) => Bytes::from_static(b": alive\n\n"),
                Ok(Ok((model, _))) if !access.sees(&holder, &model) => continue,
                Ok(Ok((_, text))) => Bytes::from(text),
                // It has missed some: it has to ask for what is.
                Ok(Err(tokio::sync::broadcast::error::RecvError::Lagged(_))) => Bytes::from_static(b"event: missed\ndata: {}\n\n"),
                Ok(Err(tokio::sync::broadcast::error::RecvError::Closed)) => return,
            };
            if own.stopping.load(Ordering::Relaxed) || sender.try_send(text).is_err() {
                return;
            }
        }
    });
    Ok(Answer { content: Events(receiver).boxed_unsync(), ..Answer::bytes(200, "text/event-stream", Bytes::new()) })
}
