//! Alerts posted as JSON, signed: the same body and the same signature as Python's `Webhook`, so that one receiver serves both.
//!
//! Signature: HMAC-SHA256 of the body (RFC 2104), `Barograph-Signature: sha256=` and hexadecimal digits.

use std::collections::BTreeMap;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;
use ureq::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use super::post::{Endpoint, Post};
use super::{Failure, Notice, Sink};
use crate::control::hex;
use crate::secret::Secret;

pub(crate) const SIGNATURE: &str = "barograph-signature";
const KEY: &str = "idempotency-key";

/// A webhook.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where to post.
    pub url: Endpoint,
    /// What bodies are signed with; without it there is no signature.
    pub secret: Option<Secret>,
    /// More headers, such as `authorization`.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
}

pub(super) struct Webhook {
    post: Post,
    secret: Option<Secret>,
    headers: HeaderMap,
}

impl Settings {
    pub(super) fn sink(&self, timeout: Duration) -> Result<Webhook, String> {
        let mut headers = HeaderMap::new();
        let own = [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, HOST];
        for (name, value) in &self.headers {
            let name = HeaderName::try_from(name).map_err(|_| format!("`headers` has a name that HTTP does not allow, {name:?}"))?;
            if own.contains(&name) || [SIGNATURE, KEY].contains(&name.as_str()) {
                return Err(format!("`headers` must not hold {:?}: the sink sets it", name.as_str()));
            }
            let mut value = HeaderValue::try_from(value.expose())
                .map_err(|_| format!("the value of {:?} in `headers` has letters that HTTP does not allow", name.as_str()))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Webhook { post: Post::new(&self.url, timeout), secret: self.secret.clone(), headers })
    }
}

/// `sha256=` and the digits.
fn signature(secret: &Secret, body: &[u8]) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).ok()?;
    mac.update(body);
    Some(format!("sha256={}", hex(&mac.finalize().into_bytes())))
}

impl Sink for Webhook {
    fn send(&self, notice: &Notice) -> Result<(), Failure> {
        let body = notice.to_json()?;
        let mut headers = self.headers.clone();
        if let Ok(key) = HeaderValue::try_from(notice.key()) {
            headers.insert(KEY, key);
        }
        if let Some(secret) = &self.secret {
            let signed = signature(secret, body.as_bytes()).and_then(|text| HeaderValue::try_from(text).ok());
            headers.insert(SIGNATURE, signed.ok_or_else(|| Failure::permanent("the body could not be signed"))?);
        }
        self.post.send("application/json", &headers, &body)
    }
}

#[cfg(test)]
mod tests {
    use barograph_engine::alert::{Severity, State};

    use super::super::tests::{Receiver, config, notice};
    use super::*;

    fn secret(text: &str) -> Secret {
        serde_json::from_value(serde_json::json!(text)).unwrap()
    }

    #[test]
    fn the_signature_is_the_one_that_python_makes() {
        // Python 3.11, as tests/unit/test_triggers.py checks it: hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
        let body = br#"{"model":"fraud","id":7}"#;
        assert_eq!(signature(&secret("s3cret"), body).unwrap(), "sha256=a12a86cf510a97a68830523470ffd057f121307c1db9809d1fded04b27774b17");
        // RFC 4231, test case 2.
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature(&secret("Jefe"), b"what do ya want for nothing?").unwrap(), expected);
    }

    #[test]
    fn the_body_is_the_change_as_python_tells_it() {
        let receiver = Receiver::with(&["204 No Content"]);
        let text = format!("kind = \"webhook\"\nurl = \"{}/x\"\nsecret = \"s3cret\"\nheaders = {{ X-Team = \"risk\" }}", receiver.url);
        let notice = notice(State::Escalated, Severity::Page);
        config(&text).sink().unwrap().send(&notice).unwrap();
        let (head, body) = receiver.got().remove(0);
        for line in ["content-type: application/json", "x-team: risk", "idempotency-key: fraud-5-3", "user-agent: barograph"] {
            assert!(head.contains(&format!("{line}\r\n")), "{head}");
        }
        assert!(head.contains(&format!("{SIGNATURE}: {}\r\n", signature(&secret("s3cret"), &body).unwrap())), "{head}");
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let mut expected = serde_json::to_value(&notice.alert).unwrap();
        expected["model"] = "fraud".into();
        assert_eq!(told, expected);
        assert!(body.starts_with(b"{\"model\":\"fraud\",\"id\":7,"));
    }

    #[test]
    fn without_a_secret_there_is_no_signature() {
        let receiver = Receiver::with(&["200 OK"]);
        let sink = config(&format!("kind = \"webhook\"\nurl = \"{}\"", receiver.url)).sink().unwrap();
        sink.send(&notice(State::Opened, Severity::Ticket)).unwrap();
        assert!(!receiver.got()[0].0.contains(SIGNATURE));
    }
}
