//! Options of a run, and the result of one read.

use std::time::Duration;

use anyhow::Context as _;
use engine::docker::way::Places;
use transfer::{Reference, StoreKind};

/// State of the page cache before each read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Unchanged since the last read.
    Warm,
    /// Empty.
    Cold,
}

impl Cache {
    /// Brings the page cache into this state.
    pub(super) fn prepare(self) -> anyhow::Result<()> {
        rustix::fs::sync();
        match self {
            Self::Warm => Ok(()),
            Self::Cold => {
                std::fs::write("/proc/sys/vm/drop_caches", "3").context("emptying the page cache")
            }
        }
    }
}

/// Options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The engine's address.
    pub docker: String,
    /// The image.
    pub image: Reference,
    /// Number of rounds.
    pub rounds: usize,
    /// Locations of the engine's files.
    pub places: Places,
    /// State of the page cache.
    pub cache: Cache,
    /// Measure every export method of the engine, not only the default one.
    pub all: bool,
}

/// Bytes and time of one read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) bytes: u64,
    pub(super) time: Duration,
    /// CPU time of this process; zero for the peer, whose work happens in the engine.
    pub(super) cpu: Duration,
}

/// The store's name in the output.
pub(super) fn store_name(store: StoreKind) -> &'static str {
    match store {
        StoreKind::Graphdriver => "overlay2",
        StoreKind::Containerd => "containerd",
    }
}
