//! Exit codes, on which scripts rely.

use std::process::ExitCode;

/// The outcome of a command that ran. A command that could not run is an error, with exit code 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything succeeded.
    Ok,
    /// Some ranges or images failed.
    SomeFailed,
    /// The user interrupted it.
    Interrupted,
    /// The exit code of the command that ran inside a range.
    Code(u8),
}

impl Exit {
    /// [`Exit::Ok`] if `whole`, else [`Exit::SomeFailed`].
    pub(crate) fn whole(whole: bool) -> Self {
        if whole { Self::Ok } else { Self::SomeFailed }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Ok => Self::SUCCESS,
            Exit::SomeFailed => Self::from(3),
            Exit::Interrupted => Self::from(130),
            Exit::Code(code) => Self::from(code),
        }
    }
}

/// An invalid command line that clap accepts. Its exit code is 2, as for clap's own errors.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}
