//! The service that a range's agent offers inside the range, and what it reports.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

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
    /// Duration of the whole sync.
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
    /// Names of the image in the engine. Sorted; empty for an image without a tag.
    pub references: Vec<Reference>,
    /// Its name across engines; absent when the engine does not tell.
    pub config_digest: Option<ConfigDigest>,
    /// ID of the image in the engine.
    pub engine_image_id: EngineImageId,
    /// True if the engine confirms every layer of it.
    pub proven: bool,
}

/// Plan of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePlan {
    /// The requested image.
    pub reference: Reference,
    /// Its name across engines; absent when the host does not know the image.
    pub config_digest: Option<ConfigDigest>,
    /// Bytes of layers that the engine lacks.
    pub bytes_to_move: u64,
    /// Bytes of layers that it has.
    pub bytes_saved: u64,
    /// True if the engine has the image under this name and confirms every layer of it.
    pub already_there: bool,
    /// Error text: what was attempted, on what, why it failed, and what to do; `None` when there is
    /// a plan.
    pub error: Option<String>,
}

impl ImagePlan {
    /// No plan for an image, and why.
    #[must_use]
    pub fn failed(reference: Reference, error: String) -> Self {
        Self {
            reference,
            config_digest: None,
            bytes_to_move: 0,
            bytes_saved: 0,
            already_there: false,
            error: Some(error),
        }
    }
}

/// One thing that was found when images were verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyEvent {
    /// One image was checked.
    Checked(ImageCheck),
    /// All images are; the last event.
    Finished(VerifySummary),
}

/// Check of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageCheck {
    /// A name of the image; absent for one without.
    pub reference: Option<Reference>,
    /// ID of the image in the engine; `None` when the engine does not have it.
    pub engine_image_id: Option<EngineImageId>,
    /// True if the engine confirms every layer of it.
    pub proven: bool,
    /// Files whose content was compared; 0 without a deep check.
    pub files: u64,
    /// Bytes read from the engine.
    pub bytes_read: u64,
    /// Problems of the image, at most [`MAX_PROBLEMS`]; empty without problems.
    pub problems: Vec<String>,
    /// Problems beyond those.
    pub more_problems: u64,
}

/// Most problems that are reported of one image: an image with more needs no list.
pub const MAX_PROBLEMS: usize = 100;

impl ImageCheck {
    /// True without any problem.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.proven && self.problems.is_empty() && self.more_problems == 0
    }

    /// Takes note of a problem.
    pub fn problem(&mut self, problem: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        } else {
            self.more_problems += 1;
        }
    }
}

/// Summary of a check over all images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifySummary {
    /// Images that were checked.
    pub images: u32,
    /// Images that are not well.
    pub failed: u32,
    /// Files whose content was compared.
    pub files: u64,
    /// Bytes read from the engine.
    pub bytes_read: u64,
    /// Duration of the whole check.
    pub duration: Duration,
}

impl VerifySummary {
    /// Counts one image more.
    pub fn add(&mut self, check: &ImageCheck) {
        self.images += 1;
        self.failed += u32::from(!check.is_well());
        self.files += check.files;
        self.bytes_read += check.bytes_read;
    }
}

/// Most lines on images that a status has: a range that lacks more needs no list.
pub const MAX_LACKING: usize = 20;

/// Result of the last sync of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastSync {
    /// End of the sync, by the range's clock.
    pub finished: SystemTime,
    /// Reason why it did not bring in everything; `None` when it did.
    pub error: Option<String>,
}

/// State of the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach<T> {
    /// Its answer.
    Up(T),
    /// It did not answer, for this reason.
    Down(String),
    /// It was not asked yet.
    Unknown,
}

/// State of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeStatus {
    /// The agent's version.
    pub agent_version: String,
    /// Time since the agent started.
    pub uptime: Duration,
    /// The range's engine.
    pub engine: Reach<EngineInfo>,
    /// The host agent.
    pub host: Reach<()>,
    /// Syncs under way.
    pub syncs: u32,
    /// The most memory that the agent held at any time, in bytes; 0 where the system does not say.
    pub peak_rss_bytes: u64,
    /// Images that are wanted.
    pub wanted: u32,
    /// True if the engine has every wanted image and confirmed every layer; false while the wanted
    /// set is not known.
    pub in_step: bool,
    /// Result of the last sync; `None` when there was none.
    pub last_sync: Option<LastSync>,
    /// Number of times that the supervisor restarted the engine; 0 without a supervisor.
    pub engine_restarts: u32,
    /// A line on each wanted image that is not present, with the reason. At most
    /// [`MAX_LACKING`].
    pub lacking: Vec<String>,
}

/// Failures of a request to a range.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Too much is under way already.
    #[error("{limit} such calls are under way already")]
    Busy {
        /// The limit.
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
    /// nothing. A reader that falls behind may miss stages and progress, never a result.
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

    /// Plans bringing images in, in the order asked; changes nothing in the range.
    ///
    /// # Errors
    /// [`ControlError::Busy`].
    async fn plan(
        &self,
        caller: &Caller,
        references: Vec<Reference>,
    ) -> Result<Vec<ImagePlan>, ControlError>;

    /// Has the engine confirm its images again, and with `deep` reads every file of them. No
    /// references: every image that it has. The stream ends after [`VerifyEvent::Finished`];
    /// dropping it ends the work.
    ///
    /// # Errors
    /// [`ControlError::Busy`], [`ControlError::Unavailable`].
    async fn verify(
        &self,
        caller: &Caller,
        references: Vec<Reference>,
        deep: bool,
    ) -> Result<BoxStream<'static, VerifyEvent>, ControlError>;

    /// Returns the state of the agent and its engine; also when the engine does not answer.
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

    async fn plan(
        &self,
        caller: &Caller,
        references: Vec<Reference>,
    ) -> Result<Vec<ImagePlan>, ControlError> {
        (**self).plan(caller, references).await
    }

    async fn verify(
        &self,
        caller: &Caller,
        references: Vec<Reference>,
        deep: bool,
    ) -> Result<BoxStream<'static, VerifyEvent>, ControlError> {
        (**self).verify(caller, references, deep).await
    }

    async fn status(&self, caller: &Caller) -> RangeStatus {
        (**self).status(caller).await
    }
}
