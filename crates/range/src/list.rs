//! Lists ranges: the state of their containers, and what their agents reported to the host agent.

use std::collections::BTreeMap;

use control::RangeName;
use control::admin::ServedRange;
use control::link::{Attachment, ImageState, ImageStatus, WantedBy};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::container::IMAGE;
use crate::error::RangeError;
use crate::labels::Labels;
use crate::project::Project;
use crate::status::{HeldImage, RangeState, RangeStatus, Step};
use crate::watch::engine_of;

/// Ranges that the host agent serves, or the reason why it could not be asked.
type Served = Result<BTreeMap<RangeName, ServedRange>, String>;

/// The status of each range, several containers asked at once.
///
/// # Errors
/// [`RangeError::Engine`]. A range that does not answer, or is not there, is listed as such, and so is
/// every range while the host agent does not answer.
pub(crate) async fn list(
    project: &Project,
    ranges: Vec<RangeName>,
) -> Result<Vec<RangeStatus>, RangeError> {
    let served = project.host.ranges().await.map_err(|error| error.explain());
    let statuses = ranges.into_iter().map(|range| status(project, range, &served));
    futures::stream::iter(statuses).buffered(project.concurrency()).try_collect().await
}

async fn status(
    project: &Project,
    range: RangeName,
    served: &Served,
) -> Result<RangeStatus, RangeError> {
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
    match served.as_ref().map(|served| served.get(&status.range)) {
        Err(reason) => {
            status.state = RangeState::Unreachable;
            status.reason = Some(reason.clone());
        }
        Ok(None) => {
            status.state = RangeState::Unreachable;
            status.reason = Some("the host agent does not know it; bring it up again".to_owned());
        }
        Ok(Some(served)) => report(&mut status, served),
    }
    Ok(status)
}

/// Adds what the range's agent reported.
fn report(status: &mut RangeStatus, served: &ServedRange) {
    let is_attached = matches!(served.attachment, Attachment::Attached { .. });
    match engine_of(Some(served)) {
        Ok(engine) => {
            status.state = RangeState::Ready;
            status.reason = None;
            status.engine = Some(engine);
        }
        Err(reason) => {
            let silent = if is_attached { RangeState::Starting } else { RangeState::Unreachable };
            status.state = silent;
            status.reason = Some(reason);
        }
    }
    let Some(state) = served.state.as_ref().filter(|_| is_attached) else { return };
    status.step = Some(Step {
        wanted: u32::try_from(served.wanted.references.len()).unwrap_or(u32::MAX),
        in_step: served.is_in_step(),
        last_error: state.images.values().find_map(failure),
        engine_restarts: state.agent.engine_restarts,
    });
    if status.state == RangeState::Ready {
        status.images = state.images.values().filter_map(held).collect();
    }
}

/// The failure of an image that is wanted.
fn failure(image: &ImageStatus) -> Option<String> {
    match &image.state {
        ImageState::Failed { error, .. } if image.wanted_by != WantedBy::Nobody => {
            Some(error.clone())
        }
        _ => None,
    }
}

/// The image as the engine has it; `None` where it does not.
fn held(image: &ImageStatus) -> Option<HeldImage> {
    Some(HeldImage {
        reference: Some(image.reference.clone()),
        config_digest: image.config_digest,
        engine_image_id: image.engine_image_id?,
        proven: image.state == ImageState::Present,
    })
}

#[cfg(test)]
mod tests;
