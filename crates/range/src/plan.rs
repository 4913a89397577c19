//! Plans of ranges that are up: what a sync would move.

use control::RangeName;
use control::range::ImagePlan;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use transfer::Reference;

use crate::error::RangeError;
use crate::liveness::runs;
use crate::project::Project;

/// Plan of a sync of one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePlan {
    /// The range.
    pub range: RangeName,
    /// A plan for each image, in the order asked; empty when the range could not be asked.
    pub images: Vec<ImagePlan>,
    /// Error text with advice if it could not be asked; `None` on success.
    pub error: Option<String>,
}

/// One line of JSON per range and image that was planned: what scripts read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanLine {
    /// The range.
    pub range: String,
    /// The requested image.
    pub image: String,
    /// Its name across engines; null when the host does not know it.
    pub config_digest: Option<String>,
    /// Layer bytes that would move.
    pub bytes_to_move: u64,
    /// Layer bytes that would not have to.
    pub bytes_saved: u64,
    /// True if it is there already, proven, under this name.
    pub already_there: bool,
    /// Error text with advice if there is no plan; null when there is one.
    pub error: Option<String>,
}

/// Plans for several ranges at once; without `images`, of those that each should have.
pub(crate) async fn plan(
    project: &Project,
    ranges: Vec<RangeName>,
    images: &[Reference],
) -> Vec<RangePlan> {
    let plans = ranges.into_iter().map(|range| async move {
        match plan_one(project, &range, images).await {
            Ok(images) => RangePlan { range, images, error: None },
            Err(error) => RangePlan { range, images: Vec::new(), error: Some(error.explain()) },
        }
    });
    futures::stream::iter(plans).buffered(project.concurrency()).collect().await
}

async fn plan_one(
    project: &Project,
    range: &RangeName,
    images: &[Reference],
) -> Result<Vec<ImagePlan>, RangeError> {
    runs(project, range).await?;
    if !images.is_empty() {
        return project.host.plan(range, images).await;
    }
    match project.host.wanted(range).await?.references.as_slice() {
        [] => Err(RangeError::NothingWanted { range: range.clone() }),
        wanted => project.host.plan(range, wanted).await,
    }
}

impl RangePlan {
    /// The lines of this range, one for each image.
    pub fn lines(&self) -> impl Iterator<Item = PlanLine> + '_ {
        self.images.iter().map(|image| PlanLine {
            range: self.range.to_string(),
            image: image.reference.to_string(),
            config_digest: image.config_digest.map(|digest| digest.to_string()),
            bytes_to_move: image.bytes_to_move,
            bytes_saved: image.bytes_saved,
            already_there: image.already_there,
            error: image.error.clone(),
        })
    }
}
