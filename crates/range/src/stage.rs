//! The stages of a range on its way to having its images.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A stage of a range; each begins when the one before is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RangeStage {
    /// The host agent opens the range's own socket.
    Register,
    /// Volumes and container are looked up, and made where they are missing.
    Create,
    /// A seed is copied into its volumes; the wait for the seed is not counted.
    Clone,
    /// The container is started.
    Start,
    /// The agent and the engine inside come up.
    Ready,
    /// The wanted images go in.
    Sync,
}

impl fmt::Display for RangeStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Register => "register",
            Self::Create => "create",
            Self::Clone => "clone",
            Self::Start => "start",
            Self::Ready => "ready",
            Self::Sync => "sync",
        })
    }
}
