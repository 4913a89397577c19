//! How a process ends: the exit codes that scripts rely on.

use std::process::ExitCode;

/// How a process ended.
///
/// A usage error, 2, is clap's: it ends the process before there is anything to end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for was done; a server was told to stop and drained.
    Ok,
    /// It could not be done.
    Failure,
    /// It was done for some images and not for others.
    SomeFailed,
    /// A signal ended it before it was done.
    Interrupted,
}

impl Exit {
    /// The number that the caller sees: 0, 1, 3 or 130.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::SomeFailed => 3,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
