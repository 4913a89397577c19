//! The container of a range: whether it runs, or why it does not.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use control::RangeName;
use engine::docker::ContainerState;

use crate::error::RangeError;
use crate::project::Project;

/// Minimum time in which a container must be stopped before a person is assumed to have stopped it:
/// an engine that restarted starts its containers one after the other.
const STOPPED: Duration = Duration::from_secs(30);

/// Number of log lines of an ended range in the error.
const LOG_LINES: usize = 12;

/// The exit code of a process that was killed.
const KILLED: i64 = 128 + 9;

/// True if a range's program runs, or was killed and is about to be started again by its engine.
/// One that ended by itself will do so again.
fn is_up(container: &ContainerState) -> bool {
    container.is_running() || (container.state == "restarting" && container.exit_code == KILLED)
}

/// An error unless `range` runs.
///
/// # Errors
/// [`RangeError::Unknown`], [`RangeError::Stopped`], [`RangeError::Engine`].
pub(crate) async fn runs(project: &Project, range: &RangeName) -> Result<(), RangeError> {
    match project.owned.range(range).await? {
        Some(container) if is_up(&container) => Ok(()),
        Some(_) => Err(RangeError::Stopped { range: range.clone() }),
        None => Err(RangeError::Unknown { range: range.clone() }),
    }
}

/// A look at the container of a range that is waited for.
#[async_trait]
pub(crate) trait Check: Send {
    /// An error when waiting is of no use any more.
    async fn check(&mut self) -> Result<(), RangeError>;
}

/// A range that was started, and must still run.
#[derive(Debug)]
pub(crate) struct Started<'a> {
    pub(crate) project: &'a Project,
    pub(crate) range: &'a RangeName,
}

#[async_trait]
impl Check for Started<'_> {
    /// [`RangeError::Unknown`], [`RangeError::Ended`] with the end of its log, [`RangeError::Engine`].
    async fn check(&mut self) -> Result<(), RangeError> {
        let Self { project, range } = *self;
        let Some(container) = project.owned.range(range).await? else {
            return Err(RangeError::Unknown { range: range.clone() });
        };
        if is_up(&container) {
            return Ok(());
        }
        let log = project.owned.engine.container_log(&container.id, LOG_LINES).await;
        let log = String::from_utf8_lossy(&log.unwrap_or_default()).trim_end().to_owned();
        Err(RangeError::Ended { range: range.clone(), exit_code: container.exit_code, log })
    }
}

/// A range that was up, and may be stopped for a while.
#[derive(Debug)]
pub(crate) struct Up<'a> {
    project: &'a Project,
    range: &'a RangeName,
    stopped: Option<Instant>,
}

impl<'a> Up<'a> {
    pub(crate) fn new(project: &'a Project, range: &'a RangeName) -> Self {
        Self { project, range, stopped: None }
    }
}

#[async_trait]
impl Check for Up<'_> {
    /// [`RangeError::Gone`], [`RangeError::Stopped`], [`RangeError::Engine`].
    async fn check(&mut self) -> Result<(), RangeError> {
        match self.project.owned.range(self.range).await? {
            None => Err(RangeError::Gone { range: self.range.clone() }),
            Some(container) if is_up(&container) => {
                self.stopped = None;
                Ok(())
            }
            // Its engine starts it again, unless somebody stopped it.
            Some(_) if self.stopped.get_or_insert_with(Instant::now).elapsed() < STOPPED => Ok(()),
            Some(_) => Err(RangeError::Stopped { range: self.range.clone() }),
        }
    }
}
