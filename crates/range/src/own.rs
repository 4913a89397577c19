//! Whose a container or a volume is: what has a name of a range's and not its labels is never touched.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::docker::{ContainerState, VolumeSummary};
use proto::identity::RangeName;

use crate::container::{PROJECT, RANGE};
use crate::error::RangeError;
use crate::ranges::Ranges;

/// How long what an engine refuses is tried again: a container may be on its way out.
const STUBBORN: Duration = Duration::from_secs(5);

/// How long it is waited in between.
const PAUSE: Duration = Duration::from_millis(250);

impl Ranges {
    /// Whether labels say that something belongs to `range` of this project.
    pub(crate) fn owns(&self, range: &RangeName, labels: &BTreeMap<String, String>) -> bool {
        labels.get(PROJECT) == Some(&self.settings.project)
            && labels.get(RANGE).is_some_and(|name| name == range.as_str())
    }

    /// The container of this name, which should be `range`'s; `None` when there is none.
    ///
    /// # Errors
    /// [`RangeError::Taken`] when it is somebody else's.
    pub(crate) async fn own_container(
        &self,
        range: &RangeName,
        name: &str,
    ) -> Result<Option<ContainerState>, RangeError> {
        match self.engine.container(name).await? {
            Some(container) if !self.owns(range, &container.labels) => {
                Err(RangeError::Taken { container: container.name })
            }
            container => Ok(container),
        }
    }

    /// The volume of this name, which should be `range`'s; `None` when there is none.
    ///
    /// # Errors
    /// [`RangeError::TakenVolume`] when it is somebody else's.
    pub(crate) async fn own_volume(
        &self,
        range: &RangeName,
        name: &str,
    ) -> Result<Option<VolumeSummary>, RangeError> {
        match self.engine.volume(name).await? {
            Some(volume) if !self.owns(range, &volume.labels) => {
                Err(RangeError::TakenVolume { volume: volume.name })
            }
            volume => Ok(volume),
        }
    }

    /// Removes a container of `range` by its name, and says whether there was one.
    ///
    /// # Errors
    /// As [`own_container`](Self::own_container).
    pub(crate) async fn remove_own_container(
        &self,
        range: &RangeName,
        name: &str,
    ) -> Result<bool, RangeError> {
        let Some(container) = self.own_container(range, name).await? else { return Ok(false) };
        self.engine.remove_container(&container.id).await?;
        Ok(true)
    }

    /// Removes a volume of `range` by its name, and says whether there was one.
    ///
    /// # Errors
    /// As [`own_volume`](Self::own_volume).
    pub(crate) async fn remove_own_volume(
        &self,
        range: &RangeName,
        name: &str,
    ) -> Result<bool, RangeError> {
        let Some(volume) = self.own_volume(range, name).await? else { return Ok(false) };
        self.engine.remove_volume(&volume.name).await?;
        Ok(true)
    }
}

/// Does what can be done again, again while the engine refuses it.
pub(crate) async fn stubbornly<T, F, R>(mut attempt: F) -> Result<T, RangeError>
where
    F: FnMut() -> R,
    R: Future<Output = Result<T, RangeError>>,
{
    let begun = Instant::now();
    loop {
        match attempt().await {
            Err(RangeError::Engine(_)) if begun.elapsed() < STUBBORN => {
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}
