//! What happens to ranges while a command runs, as data: for progress on a terminal or a log.

use std::fmt;

use proto::identity::RangeName;
use serde::{Deserialize, Serialize};

use crate::report::RangeReport;

/// Where a range is on its way to having its images; each begins when the one before is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RangeStage {
    /// The host agent opens the range's own socket.
    Register,
    /// Volume and container are looked for, and made where they are missing.
    Create,
    /// A seed is copied into its volumes; what it waited for the seed is not counted.
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

/// One thing that happened to one range.
#[derive(Clone, Debug)]
pub struct RangeEvent {
    /// Which range.
    pub range: RangeName,
    /// What happened.
    pub kind: RangeEventKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum RangeEventKind {
    /// A stage began.
    Entered(RangeStage),
    /// Something happened to one of its images.
    Image(transfer::Event),
    /// Something went another way than it should, and was got over: what, as a sentence.
    Noted(String),
    /// The range's result; its last event.
    Done(RangeReport),
}

/// Is told what happens, from any task; must not block.
pub trait RangeObserver: Send + Sync {
    /// Takes note of one event.
    fn observe(&self, event: RangeEvent);
}

impl<F: Fn(RangeEvent) + Send + Sync> RangeObserver for F {
    fn observe(&self, event: RangeEvent) {
        self(event);
    }
}
