//! The volumes of a new range, filled with a copy of sealed ones.
//!
//! While they are half made an empty volume marks them, which goes last.

use control::RangeName;

use crate::container::labels;
use crate::context::Recipe;
use crate::error::RangeError;
use crate::job::{self, Ended, Job};
use crate::labels::Labels;
use crate::ownership::persistently;
use crate::project::Project;

/// The action in errors.
const COPYING: &str = "copying a seed";

/// Volumes that were sealed, of a range that is there no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// The range that they were made as.
    pub(crate) name: RangeName,
    /// The key that they were sealed with.
    pub(crate) key: String,
}

/// The result of a copy, where nothing is left half made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// The volumes are whole.
    Whole,
    /// There are no volumes, and the sealed ones must not be used again, for this reason.
    Unusable(String),
    /// There are no volumes, and the sealed ones may be as good as before, for this reason.
    Failed(String),
}

/// Copies sealed volumes into fresh ones of `range`. Where that fails, the fresh ones are removed.
///
/// # Errors
/// When a volume is somebody else's, and when one that is half made could not be removed: no range
/// may be made over it.
pub(crate) async fn copy(
    project: &Project,
    recipe: &Recipe<'_>,
    range: &RangeName,
    sealed: &Sealed,
    given: &Labels,
) -> Result<Copied, RangeError> {
    let owned = &project.owned;
    let (from, to) = (owned.names(&sealed.name), owned.names(range));
    let all = labels(owned.project(), range, given);
    let half = to.half();
    let volumes = [half.as_str(), &to.data_volume, &to.agent_volume];
    for volume in volumes {
        owned.volume(range, volume).await?;
    }
    let arguments = ["clone", "--from", job::ROOT, "--to", job::TARGET, "--key", &sealed.key];
    let job = Job {
        range,
        name: &to.cloning(),
        action: COPYING,
        labels: all.clone(),
        arguments: arguments.map(str::to_owned).into(),
        volumes: vec![
            (from.data_volume, "/seed/data", true),
            (from.agent_volume, "/seed/agent", true),
            (to.data_volume.clone(), "/clone/data", false),
            (to.agent_volume.clone(), "/clone/agent", false),
        ],
    };
    let work = async {
        for volume in volumes {
            owned.engine.create_volume(volume, &all).await?;
        }
        job::run(project, recipe, job).await
    };
    let failed = match work.await {
        Ok(Ended::Cloned { bytes, reflinked, seconds }) => {
            tracing::info!(%range, seed = %sealed.name, bytes, reflinked, seconds, "copied a seed");
            persistently(async || {
                owned.remove_container(range, &to.cloning()).await?;
                owned.remove_volume(range, &half).await
            })
            .await?;
            return Ok(Copied::Whole);
        }
        Ok(Ended::Unusable { reason }) => Copied::Unusable(reason),
        Ok(other) => Copied::Failed(RangeError::seed(COPYING, format!("{other:?}")).explain()),
        Err(error) => Copied::Failed(error.explain()),
    };
    remove_half(project, range).await?;
    Ok(failed)
}

/// Removes the half-made volumes of a range.
///
/// # Errors
/// When the engine refuses it for longer than a container takes to go.
async fn remove_half(project: &Project, range: &RangeName) -> Result<(), RangeError> {
    let owned = &project.owned;
    let names = owned.names(range);
    persistently(async || {
        owned.remove_container(range, &names.cloning()).await?;
        for volume in names.volumes() {
            owned.remove_volume(range, volume).await?;
        }
        owned.remove_volume(range, &names.half()).await.map(|_| ())
    })
    .await
}

/// True if a range has no volumes yet; removes an interrupted copy. Only for the holder of the
/// range's lock.
///
/// # Errors
/// As [`copy`].
pub(crate) async fn is_new(project: &Project, range: &RangeName) -> Result<bool, RangeError> {
    let names = project.owned.names(range);
    if project.owned.volume(range, &names.half()).await?.is_some() {
        remove_half(project, range).await?;
    }
    Ok(project.owned.volume(range, &names.data_volume).await?.is_none())
}

/// An error while the volumes of a range are half a copy.
///
/// # Errors
/// [`RangeError::Seed`], [`RangeError::Engine`].
pub(crate) async fn is_no_half(project: &Project, range: &RangeName) -> Result<(), RangeError> {
    let half = project.owned.names(range).half();
    match project.owned.volume(range, &half).await? {
        None => Ok(()),
        Some(_) => Err(RangeError::seed(
            COPYING,
            "its volumes are half made; take it down, then bring it up again",
        )),
    }
}
