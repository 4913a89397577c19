//! What a call came back with instead of an answer.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tonic::{Code, Status};

use crate::convert::status::{is_transient, reason};

/// A status, and who sent it; or that nobody did.
#[derive(Clone)]
pub struct Failure {
    endpoint: Arc<str>,
    status: Status,
    /// What the other side said beneath what it said first; absent when that was all.
    cause: Option<String>,
}

impl Failure {
    pub(crate) fn new(endpoint: &str, status: Status) -> Self {
        Self { endpoint: endpoint.into(), status, cause: None }
    }

    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// The same, said as the cause only: for an error that says the rest itself.
    pub(crate) fn beneath(self, cause: Option<&String>) -> Self {
        Self { cause: cause.cloned(), ..self }
    }

    /// Whether the other side answered at all, if only with an error.
    #[must_use]
    pub fn was_answered(&self) -> bool {
        self.status.source().is_none()
    }

    /// Whether asking again may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        is_transient(&self.status)
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

/// What can go wrong with asking an agent.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It understood and would not: the request is wrong, or not allowed, or too much.
    #[error("{action} was refused")]
    Refused {
        /// What was attempted.
        action: &'static str,
        /// The reason as a program reads it: `RANGE_NOT_FOUND`. Empty when none was given.
        reason: String,
        /// What the agent said.
        #[source]
        source: Box<Failure>,
    },
    /// It could not be reached, or failed; trying again may help.
    #[error("{action} failed")]
    Unavailable {
        /// What was attempted.
        action: &'static str,
        /// What failed.
        #[source]
        source: transfer::blob::Cause,
    },
}

impl RemoteError {
    pub(crate) fn new(action: &'static str, failure: Failure) -> Self {
        let code = failure.status.code();
        let refused = matches!(
            code,
            Code::InvalidArgument
                | Code::NotFound
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::ResourceExhausted
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::Aborted
        );
        if refused && failure.was_answered() {
            let reason = reason(&failure.status);
            Self::Refused { action, reason, source: Box::new(failure) }
        } else {
            Self::unavailable(action, failure)
        }
    }

    /// The reason of a refusal as a program reads it; empty for anything else.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused { reason, .. } => reason,
            Self::Unavailable { .. } => "",
        }
    }

    pub(crate) fn unavailable(
        action: &'static str,
        source: impl Into<transfer::blob::Cause>,
    ) -> Self {
        Self::Unavailable { action, source: source.into() }
    }
}
