//! Connections, requests and answers, by blocking sockets: what a runtime costs would be charged to the sidecar.

use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Protocol;
use crate::config::Address;

/// A sidecar that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer's head and body.
const MOST_HEAD: usize = 16 << 10;
const MOST_BODY: usize = 1 << 20;

/// A connection, or what datagrams go through.
pub(super) enum Link {
    Tcp(TcpStream),
    Unix(UnixStream),
    Udp(UdpSocket),
    Datagrams(UnixDatagram),
}

impl Link {
    pub(super) fn open(address: &Address, protocol: Protocol) -> Result<Self, String> {
        let link = match (address, protocol == Protocol::Statsd) {
            (Address::Net(to), false) => TcpStream::connect_timeout(to, PATIENCE).and_then(|link| {
                link.set_nodelay(true)?;
                link.set_read_timeout(Some(PATIENCE))?;
                link.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Tcp(link))
            }),
            (Address::Unix(path), false) => UnixStream::connect(path).and_then(|link| {
                link.set_read_timeout(Some(PATIENCE))?;
                link.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Unix(link))
            }),
            (Address::Net(to), true) => {
                let own = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                UdpSocket::bind(own).and_then(|link| link.connect(to).map(|()| Self::Udp(link)))
            }
            (Address::Unix(path), true) => UnixDatagram::unbound().and_then(|link| {
                link.connect(path)?;
                link.set_write_timeout(Some(PATIENCE))?;
                Ok(Self::Datagrams(link))
            }),
        };
        link.map_err(|error| format!("{address} could not be reached: {error}"))
    }

    pub(super) fn write(&mut self, parts: &[IoSlice<'_>]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(link) => link.write_vectored(parts),
            Self::Unix(link) => link.write_vectored(parts),
            Self::Udp(link) => link.send(parts.first().map_or(&[], |part| part)),
            Self::Datagrams(link) => link.send(parts.first().map_or(&[], |part| part)),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(link) => link.read(into),
            Self::Unix(link) => link.read(into),
            Self::Udp(_) | Self::Datagrams(_) => Err(ErrorKind::Unsupported.into()),
        }
    }
}

/// What an answer to events says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Taken {
    pub(super) accepted: u64,
    pub(super) rejected_count: Option<u64>,
    pub(super) rejected: Vec<IgnoredAny>,
    pub(super) repeated: bool,
}

/// An answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// Whether the connection ends with it.
    pub(super) last: bool,
}

impl Answer {
    pub(super) fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        format!("status {}: {}", self.status, text.chars().take(300).collect::<String>())
    }
}

/// A connection with what was read of answers and not yet used.
pub(super) struct Wire {
    pub(super) link: Link,
    pub(super) read: Vec<u8>,
}

impl Wire {
    pub(super) fn send(&mut self, mut parts: &mut [IoSlice<'_>]) -> Result<(), String> {
        while !parts.is_empty() {
            match self.link.write(parts) {
                Ok(0) => return Err("the connection takes no more".to_owned()),
                Ok(written) => IoSlice::advance_slices(&mut parts, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("a request could not be sent: {error}")),
            }
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<(), String> {
        let mut part = [0; 16 << 10];
        loop {
            match self.link.read(&mut part) {
                Ok(0) => return Err("the connection was closed without an answer".to_owned()),
                Ok(count) => {
                    self.read.extend_from_slice(part.get(..count).unwrap_or_default());
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("no answer came: {error}")),
            }
        }
    }

    /// The next answer, whole.
    pub(super) fn answer(&mut self) -> Result<Answer, String> {
        loop {
            let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") else {
                if self.read.len() > MOST_HEAD {
                    return Err("the head of an answer does not end".to_owned());
                }
                self.fill()?;
                continue;
            };
            let head: Vec<u8> = self.read.drain(..end + 4).collect();
            let (status, length, last) = headers(&head)?;
            // An announcement of the answer that follows.
            if status < 200 {
                continue;
            }
            while self.read.len() < length {
                self.fill()?;
            }
            return Ok(Answer { status, body: self.read.drain(..length).collect(), last });
        }
    }
}

/// Status, bytes of the body, and whether the connection ends.
pub(super) fn headers(head: &[u8]) -> Result<(u16, usize, bool), String> {
    let text = std::str::from_utf8(head).map_err(|_| "the head of an answer is not UTF-8".to_owned())?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
    let status = status.ok_or_else(|| format!("an answer must begin with HTTP/1.1 and a status, got {first:?}"))?;
    let (mut length, mut last) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            let value = value.trim();
            let number = value.parse::<usize>().ok().filter(|number| *number <= MOST_BODY);
            length = Some(number.ok_or_else(|| format!("`Content-Length` of an answer must be in [0, {MOST_BODY}], got {value:?}"))?);
        } else if name.eq_ignore_ascii_case("connection") {
            last = value.trim().eq_ignore_ascii_case("close");
        }
    }
    let empty = status < 200 || status == 204 || status == 304;
    let length = if empty { Some(0) } else { length };
    Ok((status, length.ok_or("an answer has no `Content-Length`")?, last))
}
