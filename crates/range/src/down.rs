//! Removes ranges with all that belongs to them.

use control::RangeName;
use engine::docker::VolumeSummary;
use futures::StreamExt as _;

use crate::container::RANGE;
use crate::error::RangeError;
use crate::project::Project;
use crate::status::Removal;

/// Removes ranges, several at once.
pub(crate) async fn down(project: &Project, ranges: Vec<RangeName>) -> Vec<Removal> {
    let removals = ranges.into_iter().map(|range| async move {
        match remove(project, &range).await {
            Ok(found) => Removal { range, found, error: None },
            Err(error) => Removal { range, found: true, error: Some(error.explain()) },
        }
    });
    futures::stream::iter(removals).buffered(project.concurrency()).collect().await
}

/// Removes what there is of a range, and says whether there was anything.
async fn remove(project: &Project, range: &RangeName) -> Result<bool, RangeError> {
    let owned = &project.owned;
    let names = owned.names(range);
    let container = owned.range(range).await?;
    let volumes = owned.engine.volumes(&format!("{RANGE}={range}")).await?;
    let mut found = container.is_some();
    owned.remove_container(range, &names.cloning()).await?;
    if let Some(container) = container {
        owned.engine.remove_container(&container.id).await?;
    }
    // The mark of half-made volumes goes last.
    let half = names.half();
    for name in names.volumes().into_iter().chain([half.as_str()]) {
        let ours =
            |volume: &&VolumeSummary| volume.name == name && owned.owns(range, &volume.labels);
        if let Some(volume) = volumes.iter().find(ours) {
            owned.engine.remove_volume(&volume.name).await?;
            found = true;
        }
    }
    found |= project.host.remove(range).await?;
    Ok(found)
}
