//! Errors of copying a seed.

use std::path::PathBuf;

/// The reason why a seed was not copied.
#[derive(Debug)]
pub(super) enum SeedError {
    /// The seed has no seal, or differs from it.
    Unusable { reason: String },
    /// A file could not be read or written.
    Io { path: PathBuf, source: std::io::Error },
}

impl SeedError {
    /// The seed cannot be used, for this `reason`.
    pub(super) fn unusable(reason: impl Into<String>) -> Self {
        Self::Unusable { reason: reason.into() }
    }

    /// An error of the system at `path`.
    pub(super) fn at(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
