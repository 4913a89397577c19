//! The identity of an engine, for people to read: nothing in this crate decides by it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How an engine keeps images, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// Layers by chain ID (overlay2 and its like).
    Graphdriver,
    /// Blobs in containerd's content store, unpacked by a snapshotter.
    Containerd,
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Graphdriver => "graphdriver",
            Self::Containerd => "containerd",
        })
    }
}

/// The identity of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// Product and version: `docker 28.5.2`.
    pub engine: String,
    /// How it keeps images.
    pub store: StoreKind,
    /// The engine's own word for it: `overlay2`, `overlayfs`.
    pub driver: String,
    /// An ID that changes with the engine's data.
    pub id: String,
}
