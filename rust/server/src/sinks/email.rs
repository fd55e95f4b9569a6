//! Alerts by e-mail, as plain text.
//!
//! SMTP: RFC 5321; submission over TLS: RFC 8314; messages: RFC 5322; `Auto-Submitted`: RFC 3834.

use std::error::Error as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::{Error, SmtpTransport};
use lettre::{Address, Transport};
use serde::Deserialize;

use super::{Failure, Notice, Sink, at_most, one_line, severity, state};
use crate::note;
use crate::secret::Secret;

/// A list that is longer belongs into the mail server.
const MOST_RECIPIENTS: usize = 20;
/// Of a conversation, certificates included.
const MOST_ANSWERS: usize = 256 << 10;
/// Of a message with all its commands.
const MOST_MESSAGE: usize = 1 << 20;

/// How the conversation is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// From its first byte, port 465.
    Tls,
    /// After a greeting, port 587; a server that does not offer it gets nothing.
    #[default]
    Starttls,
    /// Not at all, port 25: for a server on this machine.
    None,
}

/// A mail server, and who writes to whom.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Name or address of the server.
    pub host: String,
    /// The usual one of `tls` unless it is stated.
    pub port: Option<u16>,
    /// How the conversation is encrypted.
    #[serde(default)]
    pub tls: Encryption,
    /// Who logs in, if somebody has to.
    pub username: Option<String>,
    /// And by what.
    pub password: Option<Secret>,
    /// Whom mails are from.
    pub from: String,
    /// Whom they go to.
    pub to: Vec<String>,
}

pub(super) struct Email {
    host: String,
    port: u16,
    tls: Option<(Encryption, TlsParameters)>,
    credentials: Option<Credentials>,
    from: Mailbox,
    to: Vec<Mailbox>,
    timeout: Duration,
}

fn mailbox(key: &str, text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|_| format!("`{key}` must be an address such as \"Alerts <alerts@example.com>\", got {text:?}"))
}

impl Settings {
    pub(super) fn sink(&self, timeout: Duration) -> Result<Email, String> {
        if self.host.is_empty() || !self.host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte)) {
            return Err(format!("`host` must be the name or address of a mail server, got {:?}", self.host));
        }
        if self.to.is_empty() || self.to.len() > MOST_RECIPIENTS {
            return Err(format!("`to` must name at least one address and at most {MOST_RECIPIENTS}, got {}", self.to.len()));
        }
        let here = self.host == "localhost" || self.host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
        let credentials = match (&self.username, &self.password) {
            (Some(_), Some(_)) if self.tls == Encryption::None && !here => {
                return Err("`tls` = \"none\" would send the password in the clear\nhint: \"starttls\" or \"tls\"".to_owned());
            }
            (Some(name), Some(password)) => Some(Credentials::new(name.clone(), password.expose().to_owned())),
            (None, None) => None,
            _ => return Err("`username` and `password` belong together".to_owned()),
        };
        let parameters = || TlsParameters::new(self.host.clone()).map_err(|error| format!("TLS cannot be used: {error}"));
        let (port, tls) = match self.tls {
            Encryption::Tls => (465, Some((self.tls, parameters()?))),
            Encryption::Starttls => (587, Some((self.tls, parameters()?))),
            Encryption::None => (25, None),
        };
        Ok(Email {
            host: self.host.clone(),
            port: self.port.unwrap_or(port),
            tls,
            credentials,
            from: mailbox("from", &self.from)?,
            to: self.to.iter().map(|to| mailbox("to", to)).collect::<Result<_, _>>()?,
            timeout,
        })
    }
}

impl Email {
    fn message(&self, notice: &Notice) -> Result<Message, String> {
        let alert = &notice.alert;
        let title = format!("[{}] {}: {} {}", severity(alert.severity), notice.model, alert.column, state(alert.state));
        let sent = UNIX_EPOCH + Duration::from_nanos(u64::try_from(notice.sent_at).unwrap_or(0));
        let mut builder = Message::builder()
            .from(self.from.clone())
            .date(sent)
            // The same for every attempt: a mailbox that has it already can leave it out.
            .message_id(Some(format!("<{}@barograph>", notice.key())))
            .references(format!("<{}@barograph>", notice.alert_id()))
            .subject(at_most(&one_line(&title), 200))
            .header(ContentType::TEXT_PLAIN)
            .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()));
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        let mut lines = vec![at_most(&notice.sentence(), 2000), String::new()];
        lines.extend(notice.facts().into_iter().map(|(name, value)| format!("{name}: {}", at_most(&value, 2000))));
        if let Some(url) = &notice.page_url {
            lines.extend([String::new(), url.clone()]);
        }
        builder.body(lines.join("\n") + "\n").map_err(|error| error.to_string())
    }

    fn deliver(&self, to: Vec<Address>, message: &[u8]) -> Result<(), Failure> {
        let server = format!("{}:{}", self.host, self.port);
        let envelope = Envelope::new(Some(self.from.email.clone()), to)
            .map_err(|error| Failure::permanent(format!("the mail cannot be addressed: {error}")))?;
        let deadline = Instant::now() + self.timeout;
        let far = self.connect().map_err(|error| Failure::retry(format!("{server} could not be reached: {}", error.kind())))?;
        let talked = carried(&far, deadline, |port| {
            let mut transport = SmtpTransport::builder_dangerous(Ipv4Addr::LOCALHOST.to_string()).port(port).timeout(Some(self.timeout));
            transport = match &self.tls {
                Some((Encryption::Tls, parameters)) => transport.tls(Tls::Wrapper(parameters.clone())),
                Some((_, parameters)) => transport.tls(Tls::Required(parameters.clone())),
                None => transport,
            };
            if let Some(credentials) = &self.credentials {
                transport = transport.credentials(credentials.clone());
            }
            transport.build().send_raw(&envelope, message)
        });
        match talked {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.failure(&server, &error, deadline)),
            Err(error) => Err(Failure::retry(format!("{server} could not be talked to: {}", error.kind()))),
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::from(ErrorKind::HostUnreachable);
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.timeout) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// What the server says is not repeated: it may repeat what it was told.
    fn failure(&self, server: &str, error: &Error, deadline: Instant) -> Failure {
        if let Some(code) = error.status() {
            let why = format!("{server} answered {code}");
            return if error.is_permanent() { Failure::permanent(why) } else { Failure::retry(why) };
        }
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).and_then(io::Error::get_ref);
        let tls = cause.and_then(|cause| cause.downcast_ref::<rustls::Error>());
        Failure::retry(match tls {
            Some(tls) => format!("{server} could not be trusted: {tls}"),
            None if Instant::now() >= deadline || error.is_timeout() => format!("{server} did not answer within {:?}", self.timeout),
            None if error.is_client() => format!("{server} does not offer the encryption or the log-in that is asked for"),
            None if error.is_response() => format!("{server} gave an answer that is no SMTP"),
            None => format!("{server} broke off"),
        })
    }
}

impl Sink for Email {
    fn send(&self, notice: &Notice) -> Result<(), Failure> {
        let message = self.message(notice).map_err(|why| Failure::permanent(format!("the mail could not be written: {why}")))?;
        let message = message.formatted();
        let all: Vec<Address> = self.to.iter().map(|to| to.email.clone()).collect();
        let refused = match self.deliver(all.clone(), &message) {
            Err(refused @ Failure::Permanent { .. }) if all.len() > 1 => refused,
            other => return other,
        };
        // A server refuses a mail as a whole for one address that is gone: the others must not miss the alert.
        let took = all.iter().filter(|to| self.deliver(vec![(*to).clone()], &message).is_ok()).count();
        if took == 0 {
            return Err(refused);
        }
        note::warn(&format!("{}:{} refused {} of {} addresses of `to`", self.host, self.port, all.len() - took, all.len()));
        Ok(())
    }
}

/// Talks over a connection that ends at the deadline, and after so many bytes. `lettre` connects by itself, gives every read a time of its
/// own and reads lines of any length: it talks to a port of this machine, and what passes there is counted. Encryption is between `lettre`
/// and the server, whoever else might connect.
fn carried<T>(far: &TcpStream, deadline: Instant, talk: impl FnOnce(u16) -> T) -> io::Result<T> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let over = AtomicBool::new(false);
    Ok(std::thread::scope(|scope| {
        scope.spawn(|| {
            let near = loop {
                match listener.accept() {
                    Ok((near, _)) => break near,
                    Err(_) if over.load(Ordering::Relaxed) || Instant::now() >= deadline => return,
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            };
            let _ = near.set_nonblocking(false);
            std::thread::scope(|both| {
                both.spawn(|| carry(&near, far, deadline, MOST_MESSAGE));
                carry(far, &near, deadline, MOST_ANSWERS);
            });
        });
        let found = talk(port);
        over.store(true, Ordering::Relaxed);
        let _ = far.shutdown(Shutdown::Both);
        found
    }))
}

/// Carries bytes one way until an end, the deadline, or the most that may pass; then nothing passes either way.
fn carry(mut from: &TcpStream, mut to: &TcpStream, deadline: Instant, most: usize) {
    let mut buffer = [0; 8192];
    let mut left = most;
    while left > 0 {
        let rest = deadline.saturating_duration_since(Instant::now());
        // No timeout at all is what zero would mean.
        if rest.is_zero() || from.set_read_timeout(Some(rest)).is_err() || to.set_write_timeout(Some(rest)).is_err() {
            break;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let count = count.min(left);
                if to.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
                    break;
                }
                left -= count;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::sync::{Arc, Mutex};

    use barograph_engine::alert::{Severity, State};

    use super::super::tests::{config, notice};
    use super::*;

    /// A mail server that answers commands by what `say` gives for them; the lines it was told are kept.
    fn server(say: impl Fn(&str) -> String + Send + Sync + 'static) -> (u16, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&told);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut stream = stream;
                let (mut line, mut in_data) = (String::new(), false);
                let _ = stream.write_all(say("").as_bytes());
                while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
                    kept.lock().unwrap().push(line.trim_end().to_owned());
                    if in_data && line != ".\r\n" {
                        line.clear();
                        continue;
                    }
                    let answer = say(line.trim_end());
                    in_data = answer.starts_with("354");
                    if stream.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                    line.clear();
                }
            }
        });
        (port, told)
    }

    fn fine(command: &str) -> String {
        match command.split(' ').next().unwrap_or_default() {
            "EHLO" => "250-mail.example\r\n250 AUTH PLAIN\r\n",
            "AUTH" => "235 welcome\r\n",
            "DATA" => "354 go on\r\n",
            "QUIT" => "221 bye\r\n",
            "" => "220 mail.example\r\n",
            _ => "250 fine\r\n",
        }
        .to_owned()
    }

    fn sink(port: u16, more: &str) -> Box<dyn Sink> {
        let text = format!(
            "kind = \"email\"\nhost = \"127.0.0.1\"\nport = {port}\ntimeout = \"1s\"\nfrom = \"Barograph <baro@example.com>\"\n\
             to = [\"ops@example.com\", \"Zoë <zoe@example.com>\"]\n{more}"
        );
        config(&text).sink().unwrap()
    }

    const PLAIN: &str = "tls = \"none\"";

    #[test]
    fn a_mail_is_addressed_and_names_from_outside_are_no_headers() {
        let (port, told) = server(fine);
        sink(port, PLAIN).send(&notice(State::Opened, Severity::Page)).unwrap();
        let told = told.lock().unwrap().clone();
        for line in
            ["MAIL FROM:<baro@example.com>", "RCPT TO:<ops@example.com>", "RCPT TO:<zoe@example.com>", "Auto-Submitted: auto-generated"]
        {
            assert!(told.iter().any(|found| found == line), "{line}: {told:#?}");
        }
        let head: Vec<&String> = told.iter().skip_while(|line| *line != "DATA").take_while(|line| !line.is_empty()).collect();
        assert!(!head.iter().any(|line| line.to_lowercase().starts_with("bcc")), "{head:#?}");
        assert!(head.iter().any(|line| line.starts_with("Subject: [page] fraud: amount")), "{head:#?}");
        assert!(head.iter().any(|line| *line == "Message-ID: <fraud-5-3@barograph>"), "{head:#?}");
        assert!(told.iter().any(|line| line == "threshold: 0.2000"), "{told:#?}");
        assert!(told.iter().all(|line| !line.starts_with("RCPT TO:<eve")), "{told:#?}");
    }

    #[test]
    fn names_of_any_length_and_letters_make_a_mail_that_can_be_sent() {
        let (port, told) = server(fine);
        for column in ["é".repeat(3000), "x".repeat(100_000), ".".to_owned(), "\0\u{202e}\u{2028}".to_owned(), String::new()] {
            let mut notice = notice(State::Eased, Severity::Ticket);
            notice.alert.column = column.clone();
            notice.alert.reason = Some(column);
            sink(port, PLAIN).send(&notice).unwrap();
        }
        assert!(told.lock().unwrap().iter().all(|line| line.len() <= 998 && line.is_ascii()));
    }

    #[test]
    fn who_logs_in_is_not_shown() {
        let (port, told) = server(|command| if command.starts_with("AUTH") { format!("535 {command} no\r\n") } else { fine(command) });
        let failure =
            sink(port, "tls = \"none\"\nusername = \"u\"\npassword = \"hush\"").send(&notice(State::Opened, Severity::Page)).unwrap_err();
        assert_eq!(failure, Failure::permanent(format!("127.0.0.1:{port} answered 535")));
        // base64 of "\0u\0hush".
        assert!(told.lock().unwrap().iter().any(|line| line == "AUTH PLAIN AHUAaHVzaA=="));
    }

    #[test]
    fn one_address_that_is_gone_does_not_silence_the_others() {
        let (port, told) = server(|command| if command.contains("zoe") { "550 no such user\r\n".to_owned() } else { fine(command) });
        sink(port, PLAIN).send(&notice(State::Opened, Severity::Page)).unwrap();
        assert_eq!(told.lock().unwrap().iter().filter(|line| *line == ".").count(), 1);
        let (port, _) = server(|command| if command.starts_with("RCPT") { "550 no\r\n".to_owned() } else { fine(command) });
        let failure = sink(port, PLAIN).send(&notice(State::Opened, Severity::Page)).unwrap_err();
        assert_eq!(failure, Failure::permanent(format!("127.0.0.1:{port} answered 550")));
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let retried = |port: u16, more: &str, says: &str| match sink(port, more).send(&notice(State::Opened, Severity::Page)) {
            Err(Failure::Retry { why, .. }) => assert!(why.contains(says), "{why}"),
            other => panic!("{other:?}"),
        };
        retried(
            server(|command| if command.starts_with("MAIL") { "451 later\r\n".to_owned() } else { fine(command) }).0,
            PLAIN,
            "answered 451",
        );
        retried(server(fine).0, "", "does not offer the encryption");
        retried(server(|_| "what?\r\n".to_owned()).0, PLAIN, "no SMTP");
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        retried(closed, PLAIN, "could not be reached: connection refused");
    }

    #[test]
    fn a_server_that_never_ends_is_left_in_time() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let began = Instant::now();
        let failure = sink(port, PLAIN).send(&notice(State::Opened, Severity::Page)).unwrap_err();
        assert_eq!(failure, Failure::retry(format!("127.0.0.1:{port} did not answer within 1s")));
        for pause in [0, 50] {
            // A line without an end, fast and slow.
            let endless = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = endless.local_addr().unwrap().port();
            let passed = std::thread::spawn(move || {
                let (mut stream, _) = endless.accept().unwrap();
                let mut passed = 0;
                while stream.write_all(&[b'2'; 100]).is_ok() {
                    passed += 100;
                    std::thread::sleep(Duration::from_millis(pause));
                }
                passed
            });
            assert!(matches!(sink(port, PLAIN).send(&notice(State::Opened, Severity::Page)), Err(Failure::Retry { .. })));
            // What buffers of sockets hold comes on top.
            assert!(passed.join().unwrap() < 32 << 20);
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}
