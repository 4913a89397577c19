//! Errors of calls to an agent, as a caller treats them.

use tonic::Code;

use crate::convert::status::reason;
use crate::failure::Failure;

/// The error of a call to an agent.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It understood and would not: the request is wrong, or not allowed, or too much.
    #[error("{action} was refused")]
    Refused {
        /// The attempted action.
        action: &'static str,
        /// The reason as a program reads it: `RANGE_NOT_FOUND`. Empty when none was given.
        reason: String,
        /// The agent's answer.
        #[source]
        source: Box<Failure>,
    },
    /// It could not be reached, or failed; trying again may help.
    #[error("{action} failed")]
    Unavailable {
        /// The attempted action.
        action: &'static str,
        /// Cause of the failure.
        #[source]
        source: transfer::blob::Cause,
    },
}

impl RemoteError {
    pub(crate) fn new(action: &'static str, failure: Failure) -> Self {
        let code = failure.status().code();
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
            let reason = reason(failure.status());
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
