//! A connection that ends when nothing has moved on it for too long: before its first byte, between requests, or in the middle of an answer
//! that nobody reads.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A stream that is watched.
pub struct Watched<S> {
    stream: S,
    /// Until the first byte, and from then on.
    limit: Duration,
    later: Duration,
    /// When it is too long. Set anew only when it rings: a timer that is moved with every byte would cost more than the byte.
    alarm: Pin<Box<Sleep>>,
    last: Instant,
}

impl<S> Watched<S> {
    /// A stream that may be silent for so long before its first byte, and so long later.
    pub fn new(stream: S, limit: Duration, later: Duration) -> Self {
        Self { stream, limit, later, alarm: Box::pin(sleep(limit)), last: Instant::now() }
    }

    fn moved(&mut self) {
        self.limit = self.later;
        self.last = Instant::now();
    }

    fn waits(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        while self.alarm.as_mut().poll(context).is_ready() {
            if self.last.elapsed() >= self.limit {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "nothing has moved for too long"));
            }
            let until = self.last + self.limit;
            self.alarm.as_mut().reset(until);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.waits(context).map(Err),
            Poll::Ready(done) => {
                self.moved();
                Poll::Ready(done)
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => self.waits(context).map(Err),
            Poll::Ready(done) => {
                self.moved();
                Poll::Ready(done)
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(context, slices) {
            Poll::Pending => self.waits(context).map(Err),
            Poll::Ready(done) => {
                self.moved();
                Poll::Ready(done)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
