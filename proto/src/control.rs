//! What the agent of a range offers, in the core's words: `RangeService`'s other side.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use transfer::event::ImageReport;
use transfer::{ConfigDigest, EngineImageId, EngineInfo, Event, Outcome, Reference};

use crate::identity::Caller;

/// One thing that happened in a sync.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every event is the large one, and there are a few a second"
)]
pub enum SyncEvent {
    /// Something happened to one image.
    Image(Event),
    /// All images are done; the last event.
    Finished(SyncSummary),
}

/// The result of a sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncSummary {
    /// Images that were loaded or named.
    pub synced: u32,
    /// Images that were there already.
    pub skipped: u32,
    /// Images that are not there.
    pub failed: u32,
    /// Layer bytes moved into the range.
    pub bytes_moved: u64,
    /// Layer bytes that did not have to move.
    pub bytes_saved: u64,
    /// How long it took in all.
    pub duration: Duration,
}

impl SyncSummary {
    /// Sums up what the images' reports say.
    #[must_use]
    pub fn of(reports: &[ImageReport], duration: Duration) -> Self {
        let mut summary = Self { duration, ..Self::default() };
        for report in reports {
            match report.outcome {
                Outcome::Synced => summary.synced += 1,
                Outcome::Skipped => summary.skipped += 1,
                Outcome::Failed => summary.failed += 1,
            }
            summary.bytes_moved += report.bytes_moved;
            summary.bytes_saved += report.bytes_saved;
        }
        summary
    }
}

/// An image that a range's engine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeImage {
    /// What it is called there. Sorted; empty for an image without a tag.
    pub references: Vec<Reference>,
    /// Its name across engines; absent when the engine does not tell.
    pub config_digest: Option<ConfigDigest>,
    /// What the engine calls it.
    pub engine_image_id: EngineImageId,
    /// Whether the engine confirms every layer of it.
    pub proven: bool,
}

/// Whether the other side answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach<T> {
    /// It answered, and this is what it said.
    Up(T),
    /// It did not, for this reason.
    Down(String),
    /// It was not asked yet.
    Unknown,
}

/// How a range is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeStatus {
    /// The agent's version.
    pub agent_version: String,
    /// How long the agent has been running.
    pub uptime: Duration,
    /// The range's engine.
    pub engine: Reach<EngineInfo>,
    /// The host agent.
    pub host: Reach<()>,
    /// Syncs under way.
    pub syncs: u32,
    /// The most memory that the agent held at any time, in bytes; 0 where the system does not say.
    pub peak_rss_bytes: u64,
}

/// What can go wrong with asking a range.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Too much is under way already.
    #[error("{limit} syncs are under way already")]
    Busy {
        /// How many there may be.
        limit: usize,
    },
    /// The range's engine did not answer; trying again may help.
    #[error("the range's engine did not answer")]
    Unavailable(#[source] transfer::LoadError),
}

/// Keeps the engine of one range in step.
#[async_trait]
pub trait RangeControl: Send + Sync {
    /// Brings images in. The stream ends after [`SyncEvent::Finished`]; dropping it cancels
    /// nothing. A reader that falls behind may miss [`transfer::event::EventKind::Moved`], and no
    /// other event.
    ///
    /// # Errors
    /// [`ControlError::Busy`].
    async fn sync(
        &self,
        caller: &Caller,
        references: Vec<Reference>,
    ) -> Result<BoxStream<'static, SyncEvent>, ControlError>;

    /// The images that the engine has, sorted by engine image ID.
    ///
    /// # Errors
    /// [`ControlError::Unavailable`].
    async fn images(&self, caller: &Caller) -> Result<Vec<RangeImage>, ControlError>;

    /// How the agent and its engine are; says so in the status when the engine does not answer.
    async fn status(&self, caller: &Caller) -> RangeStatus;
}

#[async_trait]
impl<C: RangeControl + ?Sized> RangeControl for Arc<C> {
    async fn sync(
        &self,
        caller: &Caller,
        references: Vec<Reference>,
    ) -> Result<BoxStream<'static, SyncEvent>, ControlError> {
        (**self).sync(caller, references).await
    }

    async fn images(&self, caller: &Caller) -> Result<Vec<RangeImage>, ControlError> {
        (**self).images(caller).await
    }

    async fn status(&self, caller: &Caller) -> RangeStatus {
        (**self).status(caller).await
    }
}
