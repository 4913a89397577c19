//! A failed call: the status, and the endpoint that was called.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tonic::Status;

/// The status of a failed call. Without an answer it says that nobody answered at the endpoint.
#[derive(Clone)]
pub struct Failure {
    endpoint: Arc<str>,
    status: Status,
    /// The cause that the other side gave besides its message; `None` without one.
    cause: Option<String>,
}

impl Failure {
    pub(crate) fn new(endpoint: &str, status: Status) -> Self {
        Self { endpoint: endpoint.into(), status, cause: None }
    }

    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// The same failure with `cause` as its message, for an error that says the rest itself.
    pub(crate) fn beneath(self, cause: Option<&String>) -> Self {
        Self { cause: cause.cloned(), ..self }
    }

    /// True if the other side answered, with an error.
    #[must_use]
    pub fn was_answered(&self) -> bool {
        self.status.source().is_none()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.was_answered() {
            f.write_str(self.cause.as_deref().unwrap_or(self.status.message()))
        } else {
            write!(f, "no answer from {}", self.endpoint)
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("endpoint", &self.endpoint)
            .field("code", &self.status.code())
            .field("message", &self.status.message())
            .field("cause", &self.source())
            .finish()
    }
}

impl Error for Failure {
    /// The deepest cause: what lies above it says only that a transport had an error.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let mut deepest = self.status.source()?;
        while let Some(cause) = deepest.source() {
            deepest = cause;
        }
        Some(deepest)
    }
}
