//! A short container with the agent's binary and some volumes: work where the engine's disk is.

use std::time::{Duration, Instant};

use engine::docker::{Bind, ContainerSpec, ContainerState};
use proto::identity::RangeName;
use serde::Deserialize;

use crate::call::Recipe;
use crate::container::AGENT_BINARY;
use crate::error::RangeError;
use crate::ranges::Ranges;

/// How often a short container is asked whether it has ended.
const POLL: Duration = Duration::from_millis(50);

/// How long one may take: a seed of some dozen gigabytes on a slow disk.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// How many lines of its log are looked at, from the end.
const LOG_LINES: usize = 20;

/// How the agent says that work on a seed ended.
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
        /// How long the copying took.
        seconds: f64,
    },
    /// It is not what it should be.
    Unusable {
        /// In what.
        reason: String,
    },
}

/// What is to be done, and on what.
pub(crate) struct Job<'a> {
    /// Whose container it is.
    pub(crate) range: &'a RangeName,
    /// The container's name.
    pub(crate) name: &'a str,
    /// What is being done, for errors.
    pub(crate) action: &'static str,
    /// Labels of the container.
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    /// What the agent is told after `seed`.
    pub(crate) arguments: Vec<String>,
    /// Volumes by name, where each is mounted, and whether it is only read.
    pub(crate) volumes: Vec<(String, &'static str, bool)>,
}

impl Ranges {
    /// Does a job and waits for its end. The container stays, for whoever takes its being there for
    /// a sign; one of that name from before is replaced.
    pub(crate) async fn work(
        &self,
        recipe: &Recipe<'_>,
        job: Job<'_>,
    ) -> Result<Ended, RangeError> {
        self.remove_own_container(job.range, job.name).await?;
        let agent = Bind {
            source: self.settings.agent_binary.display().to_string(),
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
        self.create(spec).await?;
        self.engine.start_container(job.name).await?;
        let ended = self.ended_job(job.name, job.action).await?;
        let log = self.engine.container_log(&ended.id, LOG_LINES).await?;
        let log = String::from_utf8_lossy(&log);
        let told = log.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        match told {
            Some(told) if ended.exit_code == 0 => Ok(told),
            _ => Err(RangeError::Seed {
                action: job.action,
                reason: format!("exit code {}; {}", ended.exit_code, log.trim_end()),
            }),
        }
    }

    async fn ended_job(
        &self,
        name: &str,
        action: &'static str,
    ) -> Result<ContainerState, RangeError> {
        let failed = |reason: &str| RangeError::Seed { action, reason: reason.to_owned() };
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            match self.engine.container(name).await? {
                None => return Err(failed("somebody removed its container")),
                Some(container) if ["exited", "dead"].contains(&container.state.as_str()) => {
                    return Ok(container);
                }
                Some(_) => tokio::time::sleep(POLL).await,
            }
        }
        Err(failed("it took too long"))
    }
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
