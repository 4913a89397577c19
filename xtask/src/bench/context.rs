//! The bench that is running: what every measure knows of it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::build::Agents;
use crate::setup::{Machine, Store};

/// A measure; some give several rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Measure {
    /// One live cold range on both stores, compared with all peers.
    Cold,
    /// A sync without changes, on both stores.
    Unchanged,
    /// One more layer of 21 MB, on both stores.
    TopLayer,
    /// Four live cold ranges at once.
    Four,
    /// Cost on the host of four ranges, compared with one.
    HostCost,
    /// Every load method of a range's engine, forced.
    Ways,
    /// A cold range from a seed: by reflink, and by plain copy on both stores.
    Seeds,
    /// Twenty unchanged images in fifty ranges, with simulated engines.
    Fleet,
    /// The wire, compared with raw sockets.
    Wire,
    /// Export from a host's files, compared with `docker save`.
    Export,
    /// Peak memory with sixteen ranges at once.
    Memory,
    /// Peak memory with a large layer, compared with a small one.
    LargeLayer,
}

/// A running bench.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) machine: Machine,
    pub(super) agents: Agents,
    /// The folder of its files, within set-up's state folder.
    pub(super) folder: PathBuf,
    pub(super) images: Vec<String>,
    pub(super) rounds: usize,
    pub(super) quick: bool,
    pub(super) only: Vec<Measure>,
    pub(super) started: Instant,
}

impl Bench {
    /// Whether the command line selects a measure.
    pub(super) fn wants(&self, measure: Measure) -> bool {
        self.only.is_empty() || self.only.contains(&measure)
    }

    /// The address of the engine that has the images.
    pub(super) fn host(&self) -> &str {
        &self.machine.docker_host
    }

    /// The default range image for a store.
    pub(super) fn range_image(&self, store: Store) -> Result<&str> {
        let found = self.machine.range_images.iter().find(|image| image.store == store);
        let found = found.with_context(|| format!("set-up made no range image on {store}"))?;
        Ok(&found.reference)
    }

    /// Prints a contender's failure, and returns the message for the row.
    pub(super) fn report_failure(&self, name: &str, error: &anyhow::Error) -> String {
        let words = format!("{name} failed: {error:#}");
        self.say(&words);
        words
    }

    /// Prints progress.
    pub(super) fn say(&self, words: &str) {
        eprintln!("{:6.1} s  {words}", self.started.elapsed().as_secs_f64());
    }
}

/// Free bytes on the file system of `folder`.
pub(super) fn free_bytes(folder: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(folder)
        .with_context(|| format!("reading the free space of {}", folder.display()))?;
    Ok(found.f_bavail * found.f_frsize)
}
