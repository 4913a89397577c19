//! A caller's settings and requests: engine, host agent, and which ranges and images are meant.

use std::path::PathBuf;
use std::time::Duration;

use control::identity::InvalidRangeName;
use control::{Pattern, RangeName};
use engine::docker::LoadWay;
use transfer::Reference;

use crate::isolation::Mode;
use crate::labels::Labels;

/// Maximum time from a range's start until agent and engine answer.
///
/// An engine is up in about 2 s on an idle machine. Many that start at once on few cores, over data
/// that must be recovered first, take much longer. A range that crashes is reported at once.
pub const READY_TIMEOUT: Duration = Duration::from_secs(180);

/// The default of [`Settings::seed_limit`], in bytes: some stacks of a few images.
pub const SEED_LIMIT: u64 = 20 << 30;

/// The default of [`Settings::locks`]. Only root can make it; for others a folder beside
/// `$XDG_RUNTIME_DIR` is a good choice.
pub const LOCKS: &str = "/run/longshore/locks";

/// Use of seeds. A seed is the data of a range that has the same images, on the same engine, sealed
/// after its engine was stopped; new ranges begin with a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SeedUse {
    /// With one that is there; it is made where two or more ranges of a call are new.
    #[default]
    Auto,
    /// With one, which is made for a single range too.
    Always,
    /// Never: each brings its images in by itself.
    Never,
}

/// Settings of ranges: paths, addresses and methods.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engine that runs the ranges, as a `DOCKER_HOST` value: `unix:///var/run/docker.sock`.
    pub runner_engine: String,
    /// The host agent's administrator's listener: `unix:///var/lib/longshore/admin.sock`. It
    /// must be on the same machine as `runner_engine`, since its folders are mounted into ranges.
    pub host_agent: String,
    /// The dind agent's binary, statically linked: it runs inside any range image.
    pub agent_binary: PathBuf,
    /// The start of containers' names, and the label that tells the ranges of one owner from those of
    /// others on the same engine. Letters, digits, `-`.
    pub project: String,
    /// Isolation mode for the engine of a range.
    pub mode: Mode,
    /// The network of the containers; the engine's default when absent.
    pub network: Option<String>,
    /// Load method of the agents.
    pub load_way: LoadWay,
    /// The folder of the locks by which calls for the same ranges wait for each other. It is made when
    /// it is first needed. All callers that work on one project must name the same folder.
    pub locks: PathBuf,
    /// Ranges synced at once, and asked at once; at least 1. An engine's load keeps about one core
    /// busy.
    pub concurrency: usize,
    /// Engines that start at once; chosen from cores and free memory when absent.
    pub starts: Option<usize>,
    /// Use of seeds by new ranges.
    pub seeds: SeedUse,
    /// Bytes that the seeds of a project may take together: [`SEED_LIMIT`]. Those used longest ago go
    /// first.
    pub seed_limit: u64,
    /// True to create ranges without checking first that there is room for them.
    pub unchecked: bool,
    /// Maximum time for a range to come up: [`READY_TIMEOUT`].
    pub ready_timeout: Duration,
}

impl Settings {
    /// The settings that most callers want: project `longshore`, [`Mode::Auto`], the engine's
    /// default network, as many ranges at once as there are cores.
    pub fn new(
        runner_engine: impl Into<String>,
        host_agent: impl Into<String>,
        agent_binary: impl Into<PathBuf>,
    ) -> Self {
        Self {
            runner_engine: runner_engine.into(),
            host_agent: host_agent.into(),
            agent_binary: agent_binary.into(),
            project: "longshore".to_owned(),
            mode: Mode::Auto,
            network: None,
            load_way: LoadWay::Auto,
            locks: LOCKS.into(),
            concurrency: cores(),
            starts: None,
            seeds: SeedUse::default(),
            seed_limit: SEED_LIMIT,
            unchecked: false,
            ready_timeout: READY_TIMEOUT,
        }
    }
}

/// A request for ranges, and the images that they should have.
#[derive(Clone, Debug)]
pub struct UpRequest {
    /// Names of the ranges; see [`numbered`].
    pub names: Vec<RangeName>,
    /// The Docker-in-Docker image that they are made from. The engine must have it; it is not pulled.
    pub range_image: String,
    /// The images that each should have; they replace those wanted before. Empty: no change.
    pub images: Vec<Reference>,
    /// Patterns of images that each may read beside those; they replace those that it was granted
    /// before. Empty: no change.
    pub grants: Vec<Pattern>,
    /// Labels to tell the ranges apart by; they replace those that a range has. Empty: no change.
    pub labels: Labels,
}

/// Ranges that a call concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of the project.
    All,
    /// These.
    Names(Vec<RangeName>),
    /// Those of the project that were given all of these labels.
    Labelled(Labels),
}

/// `prefix-1` to `prefix-count`.
///
/// # Errors
/// [`InvalidRangeName`] when that is not a range's name.
pub fn numbered(prefix: &str, count: usize) -> Result<Vec<RangeName>, InvalidRangeName> {
    (1..=count).map(|number| format!("{prefix}-{number}").parse()).collect()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_numbered_from_one() {
        let names: Vec<String> =
            numbered("lab", 3).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["lab-1", "lab-2", "lab-3"]);
        assert_eq!(numbered("lab", 0).unwrap(), []);
        assert!(numbered("Lab!", 1).is_err());
    }
}
