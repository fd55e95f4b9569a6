//! A connection that ends when nothing has moved on it for too long: before its first byte, between requests, or in the middle of an answer
//! that nobody reads. Answers to requests that came together go together: each by itself would wake its reader. And no more is read at once
//! than there is memory for.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Bytes of answers that are held back, and how many answers.
const MOST_HELD: usize = 16 << 10;
const MOST_PUT_OFF: u32 = 16;

/// Bytes that are read at once of what has no memory of its own yet.
const USUAL: usize = 64 << 10;

/// How many bodies that have their memory are being read from a stream: of those more is read at once than of what else may come.
#[derive(Debug, Default)]
pub struct Reach(AtomicUsize);

impl Reach {
    /// Whether a body has its memory now.
    pub fn stretch(self: &Arc<Self>) -> Stretched {
        self.0.fetch_add(1, Ordering::Relaxed);
        Stretched(Arc::clone(self))
    }
}

/// While a body is read that has its memory.
#[derive(Debug)]
pub struct Stretched(Arc<Reach>);

impl Drop for Stretched {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that is watched.
pub struct Watched<S> {
    stream: S,
    /// Bytes that were looked at and not read.
    first: Vec<u8>,
    reach: Arc<Reach>,
    /// Whether the reader has asked for more than there is: until then it has requests before it, and their answers will follow.
    drained: bool,
    /// Bytes that were written and not sent yet; how often they should have been.
    held: Vec<u8>,
    put_off: u32,
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
        Self {
            stream,
            first: Vec::new(),
            reach: Arc::default(),
            drained: true,
            held: Vec::new(),
            put_off: 0,
            limit,
            later,
            alarm: Box::pin(sleep(limit)),
            last: Instant::now(),
        }
    }

    /// What says how much is read of it at once.
    pub fn reach(&self) -> Arc<Reach> {
        Arc::clone(&self.reach)
    }

    fn moved(&mut self) {
        self.limit = self.later;
        self.last = Instant::now();
    }

    /// Whether bytes can be held back; they are then.
    fn holds(&mut self, slices: &[io::IoSlice<'_>]) -> Option<usize> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        let holds = !self.drained && self.put_off < MOST_PUT_OFF && self.held.len().saturating_add(length) <= MOST_HELD;
        holds.then(|| {
            slices.iter().for_each(|slice| self.held.extend_from_slice(slice));
            length
        })
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

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    /// Whether it begins with these bytes, of which as many are waited for as are the same.
    ///
    /// # Errors
    /// Of the stream; or it is silent for too long.
    pub async fn begins_with(&mut self, start: &[u8]) -> io::Result<bool> {
        let mut first = vec![0; start.len()];
        let mut length = 0;
        while length < start.len() && first[..length] == start[..length] {
            match self.read(&mut first[length..]).await? {
                0 => break,
                read => length += read,
            }
        }
        first.truncate(length);
        self.first = first;
        Ok(self.first == start)
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    /// Sends what was held back.
    fn send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, &self.held) {
                Poll::Pending => return self.waits(context).map(Err),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.moved();
                    drop(self.held.drain(..written));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        self.put_off = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.first.is_empty() {
            let length = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first[..length]);
            drop(this.first.drain(..length));
            this.drained = false;
            return Poll::Ready(Ok(()));
        }
        let read = if buffer.remaining() <= USUAL || this.reach.0.load(Ordering::Relaxed) > 0 {
            Pin::new(&mut this.stream).poll_read(context, buffer)
        } else {
            Pin::new(&mut (&mut this.stream).take(USUAL as u64)).poll_read(context, buffer)
        };
        match read {
            Poll::Pending => {
                self.drained = true;
                if let Poll::Ready(Err(error)) = self.send(context) {
                    return Poll::Ready(Err(error));
                }
                self.waits(context).map(Err)
            }
            Poll::Ready(done) => {
                self.drained = false;
                self.moved();
                Poll::Ready(done)
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(length) = self.holds(&[io::IoSlice::new(bytes)]) {
            return Poll::Ready(Ok(length));
        }
        ready!(self.send(context))?;
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => self.waits(context).map(Err),
            Poll::Ready(done) => {
                self.moved();
                Poll::Ready(done)
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.drained && !self.held.is_empty() && self.put_off < MOST_PUT_OFF {
            self.put_off += 1;
            return Poll::Ready(Ok(()));
        }
        ready!(self.send(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(length) = self.holds(slices) {
            return Poll::Ready(Ok(length));
        }
        ready!(self.send(context))?;
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn answers_wait_for_those_that_follow_and_no_longer() {
        let (mut client, server) = duplex(1 << 20);
        let mut server = Watched::new(server, LONG, LONG);
        let mut room = [0; 64];
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut arrived = |client: &mut tokio::io::DuplexStream| {
            let mut buffer = ReadBuf::new(&mut room);
            let _ = Pin::new(client).poll_read(&mut context, &mut buffer);
            buffer.filled().to_vec()
        };
        client.write_all(b"two requests").await.unwrap();
        assert_eq!(server.read(&mut [0; 64]).await.unwrap(), 12);
        server.write_all(b"one").await.unwrap();
        server.flush().await.unwrap();
        assert_eq!(arrived(&mut client), b"");
        server.write_all(b" two").await.unwrap();
        // Whoever wants more has answered all there was.
        assert!(tokio::time::timeout(Duration::from_millis(1), server.read(&mut [0; 64])).await.is_err());
        assert_eq!(arrived(&mut client), b"one two");
        server.write_all(b"three").await.unwrap();
        server.flush().await.unwrap();
        assert_eq!(arrived(&mut client), b"three");
        // What is long, or put off for long, goes.
        client.write_all(b"more").await.unwrap();
        assert_eq!(server.read(&mut [0; 64]).await.unwrap(), 4);
        for _ in 0..=MOST_PUT_OFF {
            server.write_all(b"x").await.unwrap();
            server.flush().await.unwrap();
        }
        assert_eq!(arrived(&mut client).len(), MOST_PUT_OFF as usize + 1);
        server.write_all(&vec![0; MOST_HELD + 1]).await.unwrap();
        server.write_all(b"end").await.unwrap();
        server.shutdown().await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() == MOST_HELD + 4 && rest.ends_with(b"end"));
    }

    #[tokio::test]
    async fn what_was_looked_at_is_read_again() {
        for (parts, begins) in [(&["st", "a", "rt and more"][..], true), (&["sta", "ys"], false), (&["x"], false), (&["star"], false)] {
            let (mut client, server) = duplex(64);
            let mut server = Watched::new(server, LONG, LONG);
            let sending = async {
                for part in parts {
                    client.write_all(part.as_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                }
                drop(client);
            };
            let reading = async {
                assert_eq!(server.begins_with(b"start").await.unwrap(), begins, "{parts:?}");
                let mut all = String::new();
                server.read_to_string(&mut all).await.unwrap();
                assert_eq!(all, parts.concat());
            };
            tokio::join!(sending, reading);
        }
    }

    #[tokio::test]
    async fn more_is_read_at_once_only_of_what_has_its_memory() {
        let (mut client, server) = duplex(1 << 20);
        let mut server = Watched::new(server, LONG, LONG);
        client.write_all(&vec![7; 1 << 20]).await.unwrap();
        let mut room = vec![0; 256 << 10];
        assert_eq!(server.read(&mut room).await.unwrap(), USUAL);
        let reach = server.reach();
        let (one, other) = (reach.stretch(), reach.stretch());
        drop(one);
        assert_eq!(server.read(&mut room).await.unwrap(), 256 << 10);
        drop(other);
        assert_eq!(server.read(&mut room).await.unwrap(), USUAL);
        assert!(room.iter().all(|byte| *byte == 7));
    }
}
