//! The HTTP client that speaks to S3: `ureq`, on threads that may wait.

use std::io::Read;

use async_trait::async_trait;
use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use ureq::http::{Response, Uri};

/// Bytes of an answer: a page of a listing has about 300,000, and objects are looked at before they are asked for.
const MOST_ANSWER: u64 = 64 << 20;

/// Makes clients of one agent.
#[derive(Debug)]
pub(super) struct Connector(pub(super) ureq::Agent);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let open = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        Ok(HttpClient::new(Client { agent: self.0.clone(), open }))
    }
}

#[derive(Debug)]
struct Client {
    agent: ureq::Agent,
    /// Whether http:// will do, which otherwise goes no further than this machine.
    open: bool,
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if request.uri().scheme_str() != Some("https") && !self.open && !is_local(request.uri()) {
            let text = "the address must begin with https:// where it names another machine, or AWS_ALLOW_HTTP be true";
            return Err(HttpError::new_boxed(HttpErrorKind::Unknown, text.into()));
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let agent = self.agent.clone();
        let exchange = move || {
            let answer = if body.is_empty() {
                agent.run(ureq::http::Request::from_parts(parts, ()))
            } else {
                agent.run(ureq::http::Request::from_parts(parts, body.as_ref()))
            };
            let (parts, mut body) = answer.map_err(failed)?.into_parts();
            let mut bytes = Vec::new();
            let read = body.as_reader().take(MOST_ANSWER + 1).read_to_end(&mut bytes);
            read.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
            if bytes.len() as u64 > MOST_ANSWER {
                let text = format!("the answer has more than {MOST_ANSWER} bytes");
                return Err(HttpError::new_boxed(HttpErrorKind::Decode, text.into()));
            }
            Ok(Response::from_parts(parts, HttpResponseBody::from(bytes)))
        };
        tokio::task::spawn_blocking(exchange).await.unwrap_or_else(|error| Err(HttpError::new(HttpErrorKind::Interrupted, error)))
    }
}

/// Whether an address is on this machine.
pub(super) fn is_local(uri: &Uri) -> bool {
    uri.host().is_some_and(|host| ["localhost", "[::1]"].contains(&host) || host.starts_with("127."))
}

fn failed(error: ureq::Error) -> HttpError {
    let kind = match &error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => HttpErrorKind::Connect,
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => HttpErrorKind::Connect,
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::Io(_) => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}
