//! Why an image is not there, and what a person can do about it.

use crate::blob::BlobError;
use crate::reference::Reference;
use crate::sink::LoadError;
use crate::source::SourceError;

/// Why an image is not there.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The host could not give the image.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The engine could not take it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The engine took everything and still does not confirm the image.
    #[error("the engine took all layers and does not confirm the image")]
    Unproven,
    /// The engine confirmed the image, and then did not show it under its name.
    #[error("the engine has the image and does not show it as {reference}")]
    Unnamed {
        /// The name that was given.
        reference: Reference,
    },
}

impl PullError {
    /// What a person can do about it; absent where the message says it all.
    #[must_use]
    pub fn next_step(&self) -> Option<&'static str> {
        match self {
            Self::Source(SourceError::NotFound { .. }) => {
                Some("build or pull it on the host first, and look for it with `docker images`")
            }
            Self::Source(SourceError::Unavailable { .. })
            | Self::Load(LoadError::Source(BlobError::Unavailable { .. })) => Some(
                "look at the host agent and at what it takes its images from \
                     (`longshore-host-agent status`, its log), then sync again",
            ),
            Self::Source(SourceError::Export { source: BlobError::NoSpace { .. }, .. })
            | Self::Load(LoadError::Source(BlobError::NoSpace { .. })) => {
                Some("free space on the host, or give its agent a --state-dir on a larger disk")
            }
            Self::Load(LoadError::NoSpace { .. }) => {
                Some("free space in the range's data-root, or give it a larger volume")
            }
            Self::Load(LoadError::Unavailable { .. }) => {
                Some("check the range's engine and its log, then sync again")
            }
            Self::Load(LoadError::Refused { .. }) | Self::Unproven => Some(
                "nothing was tagged; run the sync again, and if it repeats keep the engine's log",
            ),
            _ => None,
        }
    }

    /// Whether somebody was away who may be back soon: the engine, the host agent or what is behind
    /// it. All else stays as it is until a person acts.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Source(
                SourceError::Unavailable { .. }
                    | SourceError::Export { source: BlobError::Unavailable { .. }, .. }
            ) | Self::Load(
                LoadError::Unavailable { .. } | LoadError::Source(BlobError::Unavailable { .. })
            )
        )
    }

    /// The message with all its causes and the next step, on one line.
    #[must_use]
    pub fn explain(&self) -> String {
        let text = crate::explain(self);
        match self.next_step() {
            Some(step) => format!("{text}; {step}"),
            None => text,
        }
    }
}
