//! Results of a process: the exit codes that scripts rely on.

use std::process::ExitCode;

/// Result of a process.
///
/// A usage error, 2, is clap's, or a [`Usage`]: it ends the process before any work begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for was done; a server drained when it was asked to stop.
    Ok,
    /// It could not be done.
    Failure,
    /// It was done for some images or ranges and not for others.
    SomeFailed,
    /// A signal ended it before it was done.
    Interrupted,
    /// The code of a command that this process ran for its caller.
    Code(u8),
}

impl Exit {
    /// [`Exit::Ok`] when `whole`, else [`Exit::SomeFailed`].
    #[must_use]
    pub fn whole(whole: bool) -> Self {
        if whole { Self::Ok } else { Self::SomeFailed }
    }

    /// The number that the caller sees: 0, 1, 3, 130, or that of the command.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::SomeFailed => 3,
            Self::Interrupted => 130,
            Self::Code(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A command line that clap accepts and that still contradicts itself, or a file with a mistake: the
/// process exits with 2, as it does for clap's own errors.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Exit code of a command that ended with `error`: 2 for a [`Usage`] anywhere in its chain, else 1.
#[must_use]
pub fn of(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(|cause| cause.downcast_ref::<Usage>().is_some()) {
        ExitCode::from(2)
    } else {
        Exit::Failure.into()
    }
}
