//! Posting to an address, with an end to everything: time, bytes, redirects.

use std::fmt;
use std::io::Read;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use ureq::http::header::{CONTENT_TYPE, RETRY_AFTER};
use ureq::http::{HeaderMap, HeaderValue, Uri};
use ureq::tls::{RootCerts, TlsConfig};

use super::Failure;
use crate::secret::Secret;

/// Of an answer. Nobody reads it: a receiver may repeat in it what it was sent.
const MOST_ANSWER: u64 = 64 << 10;
/// A receiver cannot silence us for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// An http or https address. Path and query may hold keys: it shows scheme and host only, and can be stated as a secret is.
#[derive(Clone, Deserialize)]
#[serde(try_from = "Secret")]
pub struct Endpoint(Uri);

impl TryFrom<Secret> for Endpoint {
    type Error = String;

    fn try_from(text: Secret) -> Result<Self, String> {
        // What came is not repeated in the message: it may hold a password.
        let wrong = || "expected an http or https URL such as \"https://example.com/alerts\", got something else".to_owned();
        let uri: Uri = text.expose().parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err("expected a URL with no user or password in it".to_owned());
        }
        if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() || authority.port_u16() == Some(0) {
            return Err(wrong());
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme_str().unwrap_or_default(), self.0.authority().map_or("", |part| part.as_str()))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Endpoint {
    /// The address with more at the end of its path.
    ///
    /// # Errors
    /// If that is no address.
    pub fn below(&self, path: &str) -> Result<Self, String> {
        let query = self.0.query().map_or_else(String::new, |query| format!("?{query}"));
        let whole = format!("{self}{}{path}{query}", self.0.path().trim_end_matches('/'));
        whole.parse().map(Self).map_err(|_| format!("{self} has a path that cannot be extended"))
    }
}

/// Posts to one address.
pub struct Post {
    agent: ureq::Agent,
    endpoint: Endpoint,
    timeout: Duration,
}

impl Post {
    /// `timeout` is for an attempt as a whole.
    pub fn new(endpoint: &Endpoint, timeout: Duration) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would carry keys and alerts to an address that nobody stated.
            .max_redirects(0)
            .proxy(None)
            .user_agent("barograph")
            // Alerts are rare: a kept connection would be dead by the next one.
            .max_idle_connections(0)
            .max_idle_connections_per_host(0)
            .timeout_connect(Some(timeout))
            .timeout_per_read(Some(timeout))
            .timeout_global(Some(timeout))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::WebPki).build())
            .build()
            .new_agent();
        Self { agent, endpoint: endpoint.clone(), timeout }
    }

    /// Posts; 2xx is success. What is worth another attempt: no answer, 408, 425, 429 and 5xx.
    ///
    /// # Errors
    /// `Failure` naming scheme and host, and no more of the address.
    pub fn send(&self, kind: &'static str, headers: &HeaderMap, body: &str) -> Result<(), Failure> {
        let mut request = self.agent.post(&self.endpoint.0);
        if let Some(own) = request.headers_mut() {
            own.extend(headers.clone());
            own.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let mut answer = request.send(body).map_err(|error| self.unreached(&error))?;
        let status = answer.status();
        let after = answer.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, Timestamp::now()));
        // To its end if it has one: a receiver that is cut off may think that it failed.
        let _ = std::io::copy(&mut answer.body_mut().as_reader().take(MOST_ANSWER), &mut std::io::sink());
        let why = format!("{} answered {}", self.endpoint, status.as_u16());
        match status.as_u16() {
            200..=299 => Ok(()),
            408 | 425 | 429 | 500.. => Err(Failure::Retry { after, why }),
            300..=399 => Err(Failure::permanent(format!("{why}, a redirect that is not followed"))),
            _ => Err(Failure::permanent(why)),
        }
    }

    fn unreached(&self, error: &ureq::Error) -> Failure {
        let endpoint = &self.endpoint;
        let why = match error {
            ureq::Error::Timeout(_) => return Failure::retry(format!("{endpoint} did not answer within {:?}", self.timeout)),
            ureq::Error::Protocol(_) => return Failure::retry(format!("{endpoint} gave an answer that is no HTTP")),
            ureq::Error::HostNotFound => "there is no such host".to_owned(),
            ureq::Error::Io(error) => error.kind().to_string(),
            ureq::Error::Rustls(error) => format!("TLS: {error}"),
            ureq::Error::Tls(why) => format!("TLS: {why}"),
            // Others may repeat parts of the address.
            _ => "the connection failed".to_owned(),
        };
        Failure::retry(format!("{endpoint} could not be reached: {why}"))
    }
}

/// Seconds, or a date as RFC 9110 writes it.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let wait = value.trim().parse().map(Duration::from_secs).ok().or_else(|| {
        let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value.trim()).ok()?;
        // A date that is over is no wait.
        Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
    })?;
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::time::Instant;

    use super::super::tests::Receiver;
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        serde_json::from_value(serde_json::json!(url)).unwrap()
    }

    fn sent(url: &str) -> Result<(), Failure> {
        Post::new(&endpoint(&format!("{url}/hush?key=hush")), Duration::from_millis(300)).send("text/plain", &HeaderMap::new(), "x")
    }

    fn retried(result: Result<(), Failure>, says: &str) {
        match result {
            Err(Failure::Retry { why, .. }) => assert!(why.contains(says) && !why.contains("hush"), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_2xx_is_success_and_some_failures_are_worth_another_attempt() {
        for (answer, expected) in [
            ("200 OK", Ok(())),
            ("204 No Content", Ok(())),
            ("400 Bad Request", Err(false)),
            ("401 Unauthorized", Err(false)),
            ("404 Not Found", Err(false)),
            ("408 Request Timeout", Err(true)),
            ("425 Too Early", Err(true)),
            ("429 Too Many Requests", Err(true)),
            ("500 Internal Server Error", Err(true)),
            ("503 Service Unavailable", Err(true)),
            ("307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/", Err(false)),
        ] {
            let receiver = Receiver::with(&[answer]);
            let found = sent(&receiver.url).map_err(|failure| {
                assert!(failure.why().starts_with(&receiver.url) && !failure.why().contains("hush"), "{}", failure.why());
                matches!(failure, Failure::Retry { .. })
            });
            assert_eq!(found, expected, "{answer}");
            assert_eq!(receiver.got().len(), 1, "{answer}");
            assert!(receiver.got()[0].0.starts_with("post /hush?key=hush http/1.1\r\n"));
        }
    }

    #[test]
    fn a_receiver_says_when_to_come_back_and_not_for_ever() {
        for (value, seconds) in [("30", Some(30)), ("99999999999", Some(3600)), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", Some(0))]
        {
            let receiver = Receiver::with(&[&format!("429 Too Many Requests\r\nretry-after: {value}")]);
            match sent(&receiver.url) {
                Err(Failure::Retry { after, .. }) => assert_eq!(after.map(|after| after.as_secs()), seconds, "{value}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_slow_the_dead_and_the_lying_end_in_time() {
        let began = Instant::now();
        let slow = Receiver::acting(|_, stream| {
            std::thread::sleep(Duration::from_secs(5));
            drop(stream);
        });
        retried(sent(&slow.url), "did not answer within 300ms");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        retried(sent(&url), "could not be reached: connection refused");
        let garbage = Receiver::acting(|_, mut stream| drop(stream.write_all(&[0xff; 4096])));
        retried(sent(&garbage.url), "");
        let silent = Receiver::acting(|_, stream| drop(stream));
        retried(sent(&silent.url), "");
        let head = Receiver::acting(|_, mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            while stream.write_all(b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n").is_ok() {}
        });
        retried(sent(&head.url), "");
        // One letter at a time would keep a timeout per read busy for ever.
        let dribble = Receiver::acting(|_, mut stream| {
            while stream.write_all(b"H").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        retried(sent(&dribble.url), "");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    #[test]
    fn an_endless_body_is_left_after_its_first_bytes() {
        let (told, passed) = std::sync::mpsc::channel();
        let endless = Receiver::acting(move |_, mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let mut passed = 0;
            while stream.write_all(&vec![b'x'; 65536]).is_ok() {
                passed += 65536;
            }
            let _ = told.send(passed);
        });
        let began = Instant::now();
        assert_eq!(sent(&endless.url), Ok(()));
        assert!(began.elapsed() < Duration::from_secs(1));
        // What buffers of sockets hold comes on top.
        assert!(passed.recv_timeout(Duration::from_secs(5)).unwrap() < 16 << 20);
    }

    #[test]
    fn an_address_shows_scheme_and_host_only() {
        let endpoint = endpoint("https://hooks.example:8443/services/hush?key=hush");
        assert_eq!(
            (format!("{endpoint}"), format!("{endpoint:?}")),
            ("https://hooks.example:8443".into(), "https://hooks.example:8443".into())
        );
        let below = endpoint.below("/api/v2/alerts").unwrap();
        assert_eq!(below.0.path_and_query().unwrap().as_str(), "/services/hush/api/v2/alerts?key=hush");
    }

    #[test]
    fn a_certificate_that_nobody_vouches_for_is_refused() {
        let receiver = Receiver::with(&["200 OK"]);
        retried(sent(&receiver.url.replace("http:", "https:")), "https://127.0.0.1");
        assert!(receiver.got().is_empty());
    }
}
