//! The ranges of one project: all that a caller can do with them.

use std::sync::Arc;
use std::time::Duration;

use control::RangeName;
use engine::docker::ExecOutput;
use transfer::{EngineInfo, Reference};

use crate::error::RangeError;
use crate::event::RangeObserver;
use crate::feed::Feed;
use crate::isolation::Isolation;
use crate::labels::Labels;
use crate::liveness::{Started, runs};
use crate::plan::{RangePlan, plan};
use crate::project::Project;
use crate::report::Report;
use crate::seed::{self, SeedStatus};
use crate::settings::{Selection, Settings, UpRequest};
use crate::status::{RangeStatus, Removal};
use crate::verify::{RangeCheck, verify};
use crate::watch::Watch;
use crate::{down, list, sync, up};

/// The ranges of one project.
#[derive(Debug)]
pub struct Ranges {
    project: Project,
}

impl Ranges {
    /// Connects to the engine that runs the ranges. The host agent is connected when it is first
    /// needed: working in ranges goes without it.
    ///
    /// # Errors
    /// [`RangeError::Engine`] when the engine does not answer, [`RangeError::HostAgent`] when its
    /// address is invalid.
    pub async fn connect(settings: Settings) -> Result<Self, RangeError> {
        Ok(Self { project: Project::connect(settings).await? })
    }

    /// The rights with which ranges that are made now run an engine.
    ///
    /// # Errors
    /// [`RangeError::Isolation`].
    pub fn isolation(&self) -> Result<Isolation, RangeError> {
        Ok(Isolation::choose(self.project.settings.mode)?)
    }

    /// Brings ranges up with their images, several at once. One that fails does not stop the
    /// others.
    ///
    /// A range that runs and answers, made from the same parts, is kept as it is; one that is
    /// stopped is started; one that is half made, does not answer or was made from older parts
    /// gets a new container over its old volumes, so its images stay.
    ///
    /// Cancel safe: the next call finds every part made before the future was dropped. Ranges that were
    /// started go on by themselves, and another call watches them again.
    ///
    /// # Errors
    /// Only what concerns all ranges: the range image, the agent's binary, the host's
    /// capabilities, the engine. The error of one range is in its report.
    pub async fn up(
        &self,
        request: &UpRequest,
        observer: Arc<dyn RangeObserver>,
    ) -> Result<Report, RangeError> {
        up::up(&self.project, request, observer).await
    }

    /// Has ranges look at the images that they should have, and watches them get there, several ranges
    /// at once. One that fails does not stop the others.
    ///
    /// Named images are added to what each should have first, and stay there if they fail; the range
    /// tries again by itself.
    ///
    /// Cancel safe: the ranges go on by themselves, and another call watches them again.
    ///
    /// # Errors
    /// When the ranges cannot be listed. The error of one range is in its report.
    pub async fn sync(
        &self,
        selection: &Selection,
        images: &[Reference],
        observer: Arc<dyn RangeObserver>,
    ) -> Result<Report, RangeError> {
        let ranges = self.selected(selection).await?;
        Ok(sync::sync(&self.project, ranges, images, observer).await)
    }

    /// The status of each range of the project, half-made ones included, sorted by name.
    ///
    /// # Errors
    /// [`RangeError::Engine`]. A range that does not answer is listed as such.
    pub async fn list(&self) -> Result<Vec<RangeStatus>, RangeError> {
        self.list_of(&Selection::All).await
    }

    /// The same for some of them.
    ///
    /// # Errors
    /// [`RangeError::Engine`]. A range that does not answer, or is not there, is listed as such.
    pub async fn list_of(&self, selection: &Selection) -> Result<Vec<RangeStatus>, RangeError> {
        list::list(&self.project, self.selected(selection).await?).await
    }

    /// Waits until the agent and the engine of `range` answer, and says which engine it is.
    ///
    /// # Errors
    /// [`RangeError::Unknown`], [`RangeError::Ended`] with the end of its log,
    /// [`RangeError::NotReady`] after [`Settings::ready_timeout`].
    pub async fn wait_ready(&self, range: &RangeName) -> Result<EngineInfo, RangeError> {
        let limit = self.project.settings.ready_timeout;
        let mut check = Started { project: &self.project, range };
        let feed = Feed::of(&self.project.host);
        feed.during(Watch::of(&feed, range, limit).ready(limit, &mut check)).await
    }

    /// Runs a command in the range's container, at most `limit`: `docker …` there speaks to the
    /// engine inside.
    ///
    /// # Errors
    /// [`RangeError::Unknown`], [`RangeError::Stopped`], [`RangeError::Engine`]. A command that
    /// fails is not an error: see its exit code.
    pub async fn exec(
        &self,
        range: &RangeName,
        command: &[&str],
        limit: Duration,
    ) -> Result<ExecOutput, RangeError> {
        runs(&self.project, range).await?;
        let owned = &self.project.owned;
        Ok(owned.engine.exec(&owned.names(range).container, command, limit).await?)
    }

    /// Plans a sync of ranges: what it would move; changes nothing in them. Without `images`, those
    /// that each range should have. The host may have to export an image to know.
    ///
    /// # Errors
    /// When the ranges cannot be listed. The error of one range is in its plan.
    pub async fn plan(
        &self,
        selection: &Selection,
        images: &[Reference],
    ) -> Result<Vec<RangePlan>, RangeError> {
        Ok(plan(&self.project, self.selected(selection).await?, images).await)
    }

    /// Has the engines of ranges confirm their images again; with `deep` every file of them is read
    /// through the engine. Without `images`, all that each range has.
    ///
    /// Cancel safe: dropping the future ends the checks.
    ///
    /// # Errors
    /// When the ranges cannot be listed. The error of one range is in its check.
    pub async fn verify(
        &self,
        selection: &Selection,
        images: &[Reference],
        deep: bool,
    ) -> Result<Vec<RangeCheck>, RangeError> {
        Ok(verify(&self.project, self.selected(selection).await?, images, deep).await)
    }

    /// Removes ranges with all that belongs to them, several at once: container, volumes, the host
    /// agent's listener and what it wanted; with all ranges their seeds go too. Nothing without the
    /// project's label is touched.
    ///
    /// Naming a range of which nothing is there is not an error; see [`Removal::found`].
    ///
    /// # Errors
    /// When the ranges cannot be listed. The error of one range is in its [`Removal`].
    pub async fn down(&self, selection: &Selection) -> Result<Vec<Removal>, RangeError> {
        let ranges = self.selected(selection).await?;
        let mut removals = down::down(&self.project, ranges).await;
        if *selection == Selection::All {
            removals.extend(self.prune_seeds(0).await?);
        }
        Ok(removals)
    }

    /// The seeds of the project, that used last first; those without a card come last.
    ///
    /// # Errors
    /// [`RangeError::Engine`].
    pub async fn seeds(&self) -> Result<Vec<SeedStatus>, RangeError> {
        seed::list(&self.project).await
    }

    /// Removes seeds until the others take at most `limit` bytes, and seeds whose making was cut
    /// off; 0 removes all. A seed that is being made or copied stays.
    ///
    /// # Errors
    /// When they cannot be listed. The error of one is in its [`Removal`].
    pub async fn prune_seeds(&self, limit: u64) -> Result<Vec<Removal>, RangeError> {
        seed::prune(&self.project, limit).await
    }

    async fn selected(&self, selection: &Selection) -> Result<Vec<RangeName>, RangeError> {
        match selection {
            Selection::Names(names) => Ok(names.clone()),
            Selection::All => self.project.owned.ranges(&Labels::default()).await,
            Selection::Labelled(labels) => self.project.owned.ranges(labels).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_send(_: impl Send) {}

    /// Compiles only while callers may run the calls on any thread.
    #[expect(dead_code, reason = "it is compiled, and needs an engine to run")]
    fn calls_can_be_spawned(
        ranges: &Ranges,
        request: &UpRequest,
        observer: Arc<dyn RangeObserver>,
    ) {
        is_send(ranges.up(request, observer.clone()));
        is_send(ranges.sync(&Selection::All, &[], observer));
        is_send(ranges.list());
        is_send(ranges.plan(&Selection::All, &[]));
        is_send(ranges.verify(&Selection::All, &[], true));
        is_send(ranges.down(&Selection::All));
    }
}
