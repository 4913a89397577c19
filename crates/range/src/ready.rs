//! Reaching the agent in a range, and waiting until its engine answers.

use std::time::{Duration, Instant};

use control::identity::RangeName;
use engine::docker::ContainerState;
use transfer::EngineInfo;

use crate::agents::{AgentStatus, RangeAgent};
use crate::container::AGENT;
use crate::error::RangeError;
use crate::project::Project;

/// The pause between two questions to a range that comes up.
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// How long a range that already ran may take to answer, before its container is made again.
///
/// Long enough for an engine that is busy extracting on few cores; a range whose agent is stuck
/// costs this much once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How many lines of the log of a range that ended go into the error.
const LOG_LINES: usize = 12;

/// The exit code of a process that was killed.
const KILLED: i64 = 128 + 9;

/// Waits at most `limit` until agent and engine of `range` answer.
///
/// # Errors
/// [`RangeError::Unknown`], [`RangeError::Ended`] with the end of its log,
/// [`RangeError::NotReady`] after `limit`.
pub(crate) async fn ready(
    project: &Project,
    range: &RangeName,
    limit: Duration,
) -> Result<EngineInfo, RangeError> {
    let started = Instant::now();
    loop {
        let Some(container) = project.owned.range(range).await? else {
            return Err(RangeError::Unknown { range: range.clone() });
        };
        if !is_up(&container) {
            return Err(ended(project, range, &container).await);
        }
        let reason = match agent_in(range, &container)?.status().await {
            Ok(AgentStatus { engine: Some(engine), .. }) => return Ok(engine),
            Ok(status) => status.reason,
            Err(error) => transfer::explain(&error),
        };
        if limit <= started.elapsed() {
            let seconds = limit.as_secs();
            return Err(RangeError::NotReady { range: range.clone(), seconds, reason });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The agent of `range`, when its container runs.
///
/// # Errors
/// [`RangeError::Unknown`], [`RangeError::Stopped`], [`RangeError::Engine`].
pub(crate) async fn running(
    project: &Project,
    range: &RangeName,
) -> Result<RangeAgent, RangeError> {
    match project.owned.range(range).await? {
        Some(container) if is_up(&container) => agent_in(range, &container),
        Some(_) => Err(RangeError::Stopped { range: range.clone() }),
        None => Err(RangeError::Unknown { range: range.clone() }),
    }
}

/// The agent in a container of ours.
pub(crate) fn agent_in(
    range: &RangeName,
    container: &ContainerState,
) -> Result<RangeAgent, RangeError> {
    let endpoint = container.labels.get(AGENT).map_or("", String::as_str);
    RangeAgent::at(range, endpoint)
}

/// Whether a range's program runs, or was killed and is about to be started again by its engine. One
/// that ended by itself will do so again.
pub(crate) fn is_up(container: &ContainerState) -> bool {
    container.is_running() || (container.state == "restarting" && container.exit_code == KILLED)
}

/// The error about a range that does not run any more, with the end of its log.
async fn ended(project: &Project, range: &RangeName, container: &ContainerState) -> RangeError {
    let log = project.owned.engine.container_log(&container.id, LOG_LINES).await;
    let log = String::from_utf8_lossy(&log.unwrap_or_default()).trim_end().to_owned();
    RangeError::Ended { range: range.clone(), exit_code: container.exit_code, log }
}
