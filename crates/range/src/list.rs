//! Lists ranges: the state of their containers, and what their agents report.

use control::identity::RangeName;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::agents::AgentStatus;
use crate::container::IMAGE;
use crate::error::RangeError;
use crate::labels::Labels;
use crate::project::Project;
use crate::ready::agent_in;
use crate::status::{RangeState, RangeStatus};

/// The status of each range, several asked at once.
///
/// # Errors
/// [`RangeError::Engine`]. A range that does not answer, or is not there, is listed as such.
pub(crate) async fn list(
    project: &Project,
    ranges: Vec<RangeName>,
) -> Result<Vec<RangeStatus>, RangeError> {
    let statuses = ranges.into_iter().map(|range| status(project, range));
    futures::stream::iter(statuses).buffered(project.concurrency()).try_collect().await
}

async fn status(project: &Project, range: RangeName) -> Result<RangeStatus, RangeError> {
    let container = project.owned.range(&range).await?;
    let mut status = RangeStatus {
        state: RangeState::Unmade,
        reason: Some("it has no container; bring it up, or take it down".to_owned()),
        range_image: None,
        labels: Labels::default(),
        engine: None,
        step: None,
        images: Vec::new(),
        range,
    };
    let Some(container) = container else { return Ok(status) };
    status.range_image = container.labels.get(IMAGE).cloned();
    status.labels = Labels::given(&container.labels);
    if !container.is_running() {
        status.state = RangeState::Stopped;
        status.reason = Some(format!("its container is {}; bring it up", container.state));
        return Ok(status);
    }
    let agent = agent_in(&status.range, &container)?;
    (status.state, status.reason) = match agent.status().await {
        Ok(AgentStatus { engine: Some(engine), step, .. }) => {
            status.engine = Some(engine);
            status.step = Some(step);
            match agent.images().await {
                Ok(images) => {
                    status.images = images;
                    (RangeState::Ready, None)
                }
                Err(error) => (RangeState::Unreachable, Some(error.explain())),
            }
        }
        Ok(AgentStatus { reason, step, .. }) => {
            status.step = Some(step);
            (RangeState::Starting, Some(reason))
        }
        Err(error) => (RangeState::Unreachable, Some(error.explain())),
    };
    Ok(status)
}
