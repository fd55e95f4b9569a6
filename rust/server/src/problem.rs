//! What goes wrong with a request, as RFC 9457 problem details.

use barograph_core::{Error, ErrorKind};
use serde::Serialize;

/// A refusal: a status for programs, words for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// What kind of problem, the same for all of a kind.
    pub title: &'static str,
    /// What it was this time.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When to try again, in seconds.
    #[serde(skip)]
    pub retry_after: Option<u32>,
}

/// A result whose error answers a request.
pub type Outcome<T> = std::result::Result<T, Problem>;

impl Problem {
    /// A problem of this status.
    pub fn new(status: u16, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into(), hint: None, retry_after: None }
    }

    /// A body or parameter that cannot be taken.
    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(400, "invalid request", detail)
    }

    /// Something that is not there.
    pub fn missing(detail: impl Into<String>) -> Self {
        Self::new(404, "not found", detail)
    }

    /// More than fits: try again.
    pub fn busy(detail: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(429, "too many requests", detail) }
    }

    /// Something that does not work now: try again.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self { retry_after: Some(5), ..Self::new(503, "unavailable", detail) }
    }

    /// Larger than allowed.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(413, "too large", detail)
    }

    /// Adds the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        let error = Self::invalid(problem.detail);
        match problem.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, title) = match error.kind {
            ErrorKind::InvalidArgument | ErrorKind::Decode | ErrorKind::Unsupported => (400, "invalid request"),
            ErrorKind::Incompatible => (409, "conflict"),
            ErrorKind::NotFound => (404, "not found"),
        };
        Self { hint: error.hint, ..Self::new(status, title, error.message) }
    }
}
