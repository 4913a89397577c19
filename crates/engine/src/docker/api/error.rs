//! Failures of bollard's calls, as an engine's errors.

use std::io;
use std::time::Duration;

pub(in crate::docker) use crate::error::EngineError;
pub(in crate::docker) use crate::error::says_no_space;

impl EngineError {
    pub(crate) fn from_bollard(
        engine: &str,
        action: &'static str,
        limit: Duration,
        error: bollard::errors::Error,
    ) -> Self {
        use bollard::errors::Error;
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Self::status(engine, action, status_code, message)
            }
            Error::RequestTimeoutError => Self::timed_out(engine, action, limit),
            Error::SocketNotFoundError(path) => Self::transport(
                engine,
                action,
                io::Error::new(io::ErrorKind::NotFound, format!("{path}: no such file")),
            ),
            error => Self::transport(engine, action, error),
        }
    }
}
