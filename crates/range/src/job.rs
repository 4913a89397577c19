//! A short container with the agent's binary and some volumes: work where the engine's disk is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use control::RangeName;
use engine::docker::{Bind, ContainerSpec, ContainerState, Docker};
use serde::Deserialize;

use crate::container::AGENT_BINARY;
use crate::context::Recipe;
use crate::error::RangeError;
use crate::project::Project;

/// The folder of the volumes that a job reads or seals.
pub(crate) const ROOT: &str = "/seed";

/// The folder of the volumes that a job fills.
pub(crate) const TARGET: &str = "/clone";

/// The pause between two looks at a short container.
const POLL: Duration = Duration::from_millis(50);

/// Longest job: a seed of some dozen gigabytes on a slow disk.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Number of lines read from the end of its log.
const LOG_LINES: usize = 20;

/// The agent's last line about its work on a seed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "seed", rename_all = "lowercase")]
pub(crate) enum Ended {
    /// It is sealed.
    Sealed {
        /// Bytes of its files.
        bytes: u64,
    },
    /// It is copied.
    Cloned {
        /// Bytes of its files.
        bytes: u64,
        /// Files that share their bytes with it.
        reflinked: u64,
        /// Duration of the copy in seconds.
        seconds: f64,
    },
    /// It is damaged.
    Unusable {
        /// The reason.
        reason: String,
    },
}

/// A job and its volumes.
pub(crate) struct Job<'a> {
    /// The range that its container belongs to.
    pub(crate) range: &'a RangeName,
    /// The container's name.
    pub(crate) name: &'a str,
    /// The action in errors.
    pub(crate) action: &'static str,
    /// Labels of the container.
    pub(crate) labels: BTreeMap<String, String>,
    /// The agent's arguments after `seed`.
    pub(crate) arguments: Vec<String>,
    /// Volumes by name, where each is mounted, and whether it is only read.
    pub(crate) volumes: Vec<(String, &'static str, bool)>,
}

/// Runs a job to its end. Its container stays, as a sign for the caller; one of that name from before
/// is replaced.
///
/// # Errors
/// [`RangeError::Seed`] when it failed, [`RangeError::Engine`], [`RangeError::Taken`].
pub(crate) async fn run(
    project: &Project,
    recipe: &Recipe<'_>,
    job: Job<'_>,
) -> Result<Ended, RangeError> {
    let owned = &project.owned;
    owned.remove_container(job.range, job.name).await?;
    let agent = Bind {
        source: project.settings.agent_binary.display().to_string(),
        target: AGENT_BINARY.to_owned(),
        read_only: true,
    };
    let volumes = job.volumes.into_iter().map(|(volume, target, read_only)| Bind {
        source: volume,
        target: target.to_owned(),
        read_only,
    });
    let command = [AGENT_BINARY, "seed"].map(str::to_owned);
    let spec = ContainerSpec {
        name: job.name.to_owned(),
        image: recipe.image.id.clone(),
        labels: job.labels,
        entrypoint: Some(command.into_iter().chain(job.arguments).collect()),
        cmd: Some(Vec::new()),
        binds: std::iter::once(agent).chain(volumes).collect(),
        // Devices, owners and trusted attributes are copied too.
        powers: recipe.powers(),
        network: Some("none".to_owned()),
        ..ContainerSpec::default()
    };
    owned.create_container(spec).await?;
    owned.engine.start_container(job.name).await?;
    let container = wait(&owned.engine, job.name, job.action).await?;
    let log = owned.engine.container_log(&container.id, LOG_LINES).await?;
    let log = String::from_utf8_lossy(&log);
    let last = log.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    match last {
        Some(ended) if container.exit_code == 0 => Ok(ended),
        _ => {
            let reason = format!("exit code {}; {}", container.exit_code, log.trim_end());
            Err(RangeError::seed(job.action, reason))
        }
    }
}

/// Waits for the end of a short container.
async fn wait(
    engine: &Docker,
    name: &str,
    action: &'static str,
) -> Result<ContainerState, RangeError> {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        match engine.container(name).await? {
            None => return Err(RangeError::seed(action, "somebody removed its container")),
            Some(container) if ["exited", "dead"].contains(&container.state.as_str()) => {
                return Ok(container);
            }
            Some(_) => tokio::time::sleep(POLL).await,
        }
    }
    Err(RangeError::seed(action, "it took too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_last_line_is_understood() {
        let check = |line: &str, expected: Ended| {
            assert_eq!(serde_json::from_str::<Ended>(line).unwrap(), expected, "{line}");
        };
        check(r#"{"seed":"sealed","entries":2,"bytes":7}"#, Ended::Sealed { bytes: 7 });
        check(
            r#"{"seed":"cloned","entries":2,"bytes":7,"reflinked":1,"seconds":0.5}"#,
            Ended::Cloned { bytes: 7, reflinked: 1, seconds: 0.5 },
        );
        check(
            r#"{"seed":"unusable","reason":"x is missing"}"#,
            Ended::Unusable { reason: "x is missing".to_owned() },
        );
        assert!(serde_json::from_str::<Ended>("longshore-dind-agent: error: no").is_err());
    }
}
