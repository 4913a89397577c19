//! What happened to an image on its way, as data: for progress, reports and the protocol alike.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::{ConfigDigest, EngineImageId};
use crate::reference::Reference;

/// Where an image is on its way; each begins when the one before is done, and may come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The host is asked which image the reference names.
    Resolve,
    /// The host makes the image's layers readable; here it may export from its engine.
    Export,
    /// The engine is asked what it has and what it lacks.
    Plan,
    /// Another image brings in what this one lacks too, there is no room for it yet, or as many
    /// images are being loaded as the engine gains from.
    Wait,
    /// Missing layers go into the engine.
    Load,
    /// The first load was not proven: the full set goes in, once.
    Heal,
    /// The engine is asked to confirm every layer.
    Prove,
    /// The proven image gets its name.
    Tag,
}

/// How it ended for an image: `loaded`, `present` or `failed` for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was loaded or named, and proven.
    #[serde(rename = "loaded")]
    Synced,
    /// It was already there under its name, proven again; nothing was moved.
    #[serde(rename = "present")]
    Skipped,
    /// It is not there, or not proven; `error` says why.
    Failed,
}

/// The outcome for people.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Synced => "loaded",
            Self::Skipped => "already there",
            Self::Failed => "failed",
        })
    }
}

/// One thing that happened to one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The image as it was asked for.
    pub reference: Reference,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "few at a time, and read as plain data everywhere")]
pub enum EventKind {
    /// A stage began.
    Entered(Stage),
    /// The plan is made.
    Planned {
        /// Bytes of layers that the engine lacks.
        bytes_to_move: u64,
        /// Bytes of layers that it has.
        bytes_saved: u64,
    },
    /// Layer bytes handed to the engine since the load began; told a few times a second at most.
    Moved {
        /// Bytes so far.
        bytes_moved: u64,
    },
    /// The image's result; its last event.
    Done(ImageReport),
}

/// The result for one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageReport {
    /// The image as it was asked for.
    pub reference: Reference,
    /// Its name across engines; absent when the host did not know it.
    pub config_digest: Option<ConfigDigest>,
    /// What the range's engine calls it; absent unless proven.
    pub engine_image_id: Option<EngineImageId>,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the engine confirmed every layer, after the load.
    pub proven: bool,
    /// Layer bytes moved into the range, failed attempts and healing included.
    pub bytes_moved: u64,
    /// Layer bytes of the image that did not have to move.
    pub bytes_saved: u64,
    /// Seconds spent per stage, in the order they were entered.
    pub stages: Vec<(Stage, f64)>,
    /// What was attempted, on what, why it failed, and what to do; absent on success.
    pub error: Option<String>,
}

impl ImageReport {
    /// Seconds from the first stage to the last.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        // Not `sum`, which makes -0.0 of nothing.
        self.stages.iter().fold(0.0, |sum, (_, seconds)| sum + seconds)
    }
}

/// Is told what happens, from any task; must not block.
pub trait Observer: Send + Sync {
    /// Takes note of one event.
    fn observe(&self, event: Event);
}

impl<F: Fn(Event) + Send + Sync> Observer for F {
    fn observe(&self, event: Event) {
        self(event);
    }
}
