//! How a command ends: the exit codes that scripts rely on.

use std::process::ExitCode;

/// How a command that could be carried out ended. One that could not is an error, and exits 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Ok,
    /// It was done for some ranges or images and not for others.
    SomeFailed,
    /// The person ended it before it was done.
    Interrupted,
    /// What the command ran inside a range ended with this.
    Code(u8),
}

impl Exit {
    /// [`Exit::Ok`] when `whole`, else [`Exit::SomeFailed`].
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

/// A command line that clap takes and that still makes no sense: exits 2, as clap's own refusals do.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}
