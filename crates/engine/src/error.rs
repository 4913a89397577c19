//! Failures of calls to an engine: which engine, what was attempted, and what to do.

use std::io;
use std::time::Duration;

use transfer::blob::Cause;
use transfer::{LoadError, SourceError};

/// A call to an engine that did not end well.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The address is of no kind that is known.
    #[error("{address:?} is not an engine's address: expected unix:///path or tcp://host:port")]
    Address {
        /// What was given.
        address: String,
    },
    /// Nothing answers at the address.
    #[error("the engine at {engine} could not be reached while {action}: {hint}")]
    Unreachable {
        /// The socket or address.
        engine: String,
        /// What was attempted.
        action: &'static str,
        /// What to do about it.
        hint: &'static str,
        /// What the system said.
        #[source]
        source: Cause,
    },
    /// The engine has no such image, container or volume.
    #[error("the engine at {engine} answered while {action}: {message}")]
    NotFound {
        /// The socket or address.
        engine: String,
        /// What was attempted.
        action: &'static str,
        /// What the engine said.
        message: String,
    },
    /// The engine refused the call.
    #[error("the engine at {engine} refused, while {action}: {message}")]
    Refused {
        /// The socket or address.
        engine: String,
        /// What was attempted.
        action: &'static str,
        /// The HTTP status.
        status: u16,
        /// What the engine said.
        message: String,
    },
    /// The engine did not answer in time, or a stream stood still.
    #[error("the engine at {engine} made no progress for {seconds} s while {action}")]
    TimedOut {
        /// The socket or address.
        engine: String,
        /// What was attempted.
        action: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The engine is another than the one that was opened: an archive that was written anew.
    #[error("{engine} was changed after it was opened; open it again to read it as it is now")]
    Changed {
        /// The socket, address or file.
        engine: String,
    },
    /// The engine cannot be used for this.
    #[error("the engine at {engine} cannot be used: {what}")]
    Unsupported {
        /// The socket or address.
        engine: String,
        /// What it lacks.
        what: &'static str,
    },
    /// The engine's own files cannot be read from here.
    #[error("the files of the engine at {engine} cannot be used")]
    Files {
        /// The socket or address.
        engine: String,
        /// Which file, why, and what to do.
        #[source]
        source: Cause,
    },
    /// The connection broke, or the answer makes no sense.
    #[error("the engine at {engine} failed while {action}")]
    Failed {
        /// The socket or address.
        engine: String,
        /// What was attempted.
        action: &'static str,
        /// What failed.
        #[source]
        source: Cause,
    },
}

impl EngineError {
    /// Whether the engine says that the object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the engine says that the object is there already or in use (HTTP 409).
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    pub(crate) fn timed_out(engine: &str, action: &'static str, limit: Duration) -> Self {
        Self::TimedOut { engine: engine.into(), action, seconds: limit.as_secs() }
    }

    /// Sorts a failure of the connection: where the system says why nothing answers, the error
    /// says what to do.
    pub(crate) fn transport(engine: &str, action: &'static str, source: impl Into<Cause>) -> Self {
        let source = source.into();
        let engine = engine.into();
        match io_kind(source.as_ref()).and_then(hint) {
            Some(hint) => Self::Unreachable { engine, action, hint, source },
            None => Self::Failed { engine, action, source },
        }
    }

    /// Sorts an HTTP status that is not a success.
    pub(crate) fn status(engine: &str, action: &'static str, status: u16, message: String) -> Self {
        let engine = engine.into();
        match status {
            404 => Self::NotFound { engine, action, message },
            _ => Self::Refused { engine, action, status, message },
        }
    }
}

impl From<EngineError> for LoadError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Refused { message, .. } if says_no_space(&message) => {
                Self::NoSpace { message }
            }
            EngineError::Refused { message, .. } => Self::Refused { message },
            error => {
                let (engine, action) = error.place();
                Self::Unavailable { engine, action, source: error.into() }
            }
        }
    }
}

impl EngineError {
    fn place(&self) -> (String, &'static str) {
        match self {
            Self::Address { address } => (address.clone(), "connecting"),
            Self::Unsupported { engine, .. } => (engine.clone(), "asking what it can do"),
            Self::Changed { engine } => (engine.clone(), "looking whether it is the same"),
            Self::Files { engine, .. } => (engine.clone(), "reading its files"),
            Self::Unreachable { engine, action, .. }
            | Self::NotFound { engine, action, .. }
            | Self::Refused { engine, action, .. }
            | Self::TimedOut { engine, action, .. }
            | Self::Failed { engine, action, .. } => (engine.clone(), action),
        }
    }

    /// As a source's error about `image`: what is not there is not found, all else unavailable.
    pub(crate) fn about(self, image: impl ToString) -> SourceError {
        match self {
            Self::NotFound { .. } => SourceError::NotFound { image: image.to_string() },
            error => SourceError::unavailable(image, error),
        }
    }
}

/// Whether an engine's message says that its disk is full.
pub(crate) fn says_no_space(message: &str) -> bool {
    message.contains("no space left on device") || message.contains("disk quota exceeded")
}

fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        next = error.source();
    }
    None
}

fn hint(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::NotFound => "there is no such socket; is the engine running?",
        io::ErrorKind::PermissionDenied => {
            "this user may not use the socket; be root or in the group that owns it"
        }
        io::ErrorKind::ConnectionRefused => "nothing listens there; is the engine running?",
        _ => return None,
    })
}
