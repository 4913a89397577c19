//! The link between a range and its host: what either end sends, and what each must be able to do.
//!
//! ```text
//!   range's agent ── FromRange: reports, answers to tasks ──► host agent
//!                 ◄── ToRange: wanted set, tasks ──────────── keeps the latest report
//! ```
//!
//! All of it is state: a report replaces what it reports on, and a link that broke begins again with
//! a whole report. Nothing is lost with a link but the tasks under way.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::stream::BoxStream;
use transfer::blob::Cause;
use transfer::event::ImageReport;
use transfer::{ConfigDigest, Digest, EngineImageId, EngineInfo, Reference, Stage};

use crate::identity::RangeName;
use crate::range::{ImageCheck, ImagePlan, Reach, VerifySummary};
use crate::wanted::WantedSet;

/// Most images in one report; a range with more sends the rest in further reports.
pub const MAX_REPORTED: usize = 200;

/// Most images that a range may have in its reports: all that can be wanted, twice, and as many that
/// nobody wants.
pub const MAX_IMAGES: usize = 3000;

/// Most images in a range's reports that nobody wants.
pub const MAX_UNWANTED: usize = 1000;

/// Sides that may want an image in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedBy {
    /// The wanted set that the host agent keeps.
    Host,
    /// The range's own agent, as it was started.
    Agent,
    /// Nobody; the engine has it.
    Nobody,
}

/// The state of an image in a range, as the range's engine last said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageState {
    /// The range has not looked at it yet.
    Pending,
    /// The range is bringing it in.
    OnItsWay(Stage),
    /// The engine has it under its name and confirmed every layer.
    Present,
    /// It was present; the engine does not have it any more.
    Gone,
    /// It was present; another image has its name now.
    Replaced,
    /// It is not there, or not confirmed. The range tries again by itself.
    Failed {
        /// Error text: what was attempted, on what, why it failed, and what to do.
        error: String,
        /// True if only a person can fix it, since trying again does not help.
        is_permanent: bool,
    },
}

/// The state of one image in a range, and how it got there.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageStatus {
    /// The image as it is wanted, or as the range's engine calls it.
    pub reference: Reference,
    /// The side that wants it.
    pub wanted_by: WantedBy,
    /// The state.
    pub state: ImageState,
    /// Bytes of layers that the engine lacked when the image was last planned.
    pub bytes_to_move: u64,
    /// Layer bytes moved into the range for it so far, failed attempts included.
    pub bytes_moved: u64,
    /// Layer bytes of the image that did not have to move.
    pub bytes_saved: u64,
    /// Its name across engines; absent when it is not known.
    pub config_digest: Option<ConfigDigest>,
    /// Its name in a registry; absent when it is not known.
    pub target_digest: Option<Digest>,
    /// ID of the image in the range's engine; `None` unless the engine has it.
    pub engine_image_id: Option<EngineImageId>,
    /// The round in which the range last finished looking at it, whether that succeeded or not;
    /// absent when it never did.
    pub looked_round: Option<u64>,
    /// The round in which it was last loaded or named; absent when the engine had it from the
    /// beginning.
    pub loaded_round: Option<u64>,
    /// Seconds spent per stage in the last attempt, in the order they were entered.
    pub stages: Vec<(Stage, f64)>,
}

impl ImageStatus {
    /// An image without a look yet.
    #[must_use]
    pub fn pending(reference: Reference, wanted_by: WantedBy) -> Self {
        Self {
            reference,
            wanted_by,
            state: ImageState::Pending,
            bytes_to_move: 0,
            bytes_moved: 0,
            bytes_saved: 0,
            config_digest: None,
            target_digest: None,
            engine_image_id: None,
            looked_round: None,
            loaded_round: None,
            stages: Vec::new(),
        }
    }

    /// Takes over what a report of an attempt says; the state and the rounds stay.
    pub fn take(&mut self, report: &ImageReport) {
        self.config_digest = report.config_digest.or(self.config_digest);
        self.engine_image_id = report.engine_image_id;
        self.bytes_moved = report.bytes_moved;
        self.bytes_saved = report.bytes_saved;
        self.stages.clone_from(&report.stages);
    }

    /// True if the range finished looking at the image in `round` or later, and it is present or
    /// failed.
    #[must_use]
    pub fn is_settled(&self, round: u64) -> bool {
        let is_final = matches!(self.state, ImageState::Present | ImageState::Failed { .. });
        is_final && self.looked_round.is_some_and(|looked| round <= looked)
    }

    /// True if the image was loaded or named in `round` or later.
    #[must_use]
    pub fn was_loaded(&self, round: u64) -> bool {
        self.loaded_round.is_some_and(|loaded| round <= loaded)
    }

    /// Seconds from the first stage of the last attempt to the last.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        // Not `sum`, which makes -0.0 of nothing.
        self.stages.iter().fold(0.0, |sum, (_, seconds)| sum + seconds)
    }
}

/// The state of a range's agent and engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// The agent's version.
    pub version: String,
    /// Time since the agent started.
    pub uptime: Duration,
    /// The range's engine.
    pub engine: Reach<EngineInfo>,
    /// Number of times that the supervisor restarted the engine; 0 without a supervisor.
    pub engine_restarts: u32,
    /// The most memory that the agent held at any time, in bytes; 0 where the system does not say.
    pub peak_rss_bytes: u64,
}

/// One message of a range about its state.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeReport {
    /// True if this replaces all earlier reports; otherwise only the images given here changed.
    pub is_whole: bool,
    /// The agent and its engine.
    pub agent: AgentStatus,
    /// Images, at most [`MAX_REPORTED`].
    pub images: Vec<ImageStatus>,
    /// References that are neither wanted nor in the engine any more.
    pub removed: Vec<Reference>,
}

/// The latest that is known of a range: its reports, put together.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeState {
    /// The agent and its engine.
    pub agent: AgentStatus,
    /// Every image of its reports, at most [`MAX_IMAGES`].
    pub images: BTreeMap<Reference, ImageStatus>,
}

/// A report that does not follow those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitReport {
    /// The first report of a link is not whole.
    #[error("the first report of a link is not whole")]
    NotWhole,
    /// The range reports more images than it may.
    #[error("more than {MAX_IMAGES} images are reported")]
    TooManyImages,
}

impl RangeState {
    /// Puts a report on top of those before it; `state` is absent at the beginning of a link.
    ///
    /// # Errors
    /// [`UnfitReport`]; `state` is then incomplete.
    pub fn take(state: &mut Option<Self>, report: RangeReport) -> Result<(), UnfitReport> {
        let RangeReport { is_whole, agent, images, removed } = report;
        let known = match state.take() {
            _ if is_whole => BTreeMap::new(),
            Some(state) => state.images,
            None => return Err(UnfitReport::NotWhole),
        };
        let state = state.insert(Self { agent, images: known });
        for reference in &removed {
            state.images.remove(reference);
        }
        state.images.extend(images.into_iter().map(|image| (image.reference.clone(), image)));
        if MAX_IMAGES < state.images.len() {
            return Err(UnfitReport::TooManyImages);
        }
        Ok(())
    }

    /// The whole state as reports of at most [`MAX_REPORTED`] images; the first replaces all others.
    #[must_use]
    pub fn reports(&self) -> Vec<RangeReport> {
        let images: Vec<&ImageStatus> = self.images.values().collect();
        let report = |is_whole, images: &[&ImageStatus]| RangeReport {
            is_whole,
            agent: self.agent.clone(),
            images: images.iter().map(|image| (*image).clone()).collect(),
            removed: Vec::new(),
        };
        let mut reports: Vec<_> =
            images.chunks(MAX_REPORTED).map(|images| report(false, images)).collect();
        match reports.first_mut() {
            Some(first) => first.is_whole = true,
            None => reports.push(report(true, &[])),
        }
        reports
    }

    /// True if the range finished looking at all of `wanted` in its round, and the engine has them.
    #[must_use]
    pub fn is_in_step(&self, wanted: &WantedSet) -> bool {
        wanted.references.iter().all(|reference| {
            let image = self.images.get(reference);
            image.is_some_and(|image| {
                image.state == ImageState::Present && image.is_settled(wanted.round)
            })
        })
    }
}

/// Attachment of a range's agent; times by the host's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// It never was since the host agent started.
    Never,
    /// It is.
    Attached {
        /// Time at which it attached.
        since: SystemTime,
        /// Time of its last message.
        last_seen: SystemTime,
    },
    /// It was.
    Detached {
        /// Time of its last message.
        last_seen: SystemTime,
    },
}

/// Work for a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Says what bringing images in would move; ends with [`TaskEvent::Planned`].
    Plan {
        /// The images, 1 to 1000.
        references: Vec<Reference>,
    },
    /// Verifies images; ends with [`TaskEvent::Finished`].
    Verify {
        /// The images; empty for every image that the engine has.
        references: Vec<Reference>,
        /// True if every file is read as well.
        deep: bool,
    },
}

/// A part of the answer to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEvent {
    /// The plans, in the order asked; the last event of a plan.
    Planned(Vec<ImagePlan>),
    /// One image was verified.
    Verified(ImageCheck),
    /// All images were verified; the last event.
    Finished(VerifySummary),
    /// The range does not do the task; its only event.
    Refused {
        /// True if too much is under way; trying again later helps.
        is_busy: bool,
        /// The reason.
        error: String,
    },
}

impl TaskEvent {
    /// True if no event of the task follows.
    #[must_use]
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Verified(_))
    }
}

/// One message of a range to its host.
#[derive(Clone, Debug, PartialEq)]
pub enum FromRange {
    /// A report; the first message of a link is a whole one.
    Report(RangeReport),
    /// A part of the answer to a task.
    Task {
        /// The task's id.
        id: u64,
        /// The part.
        event: TaskEvent,
    },
}

/// One message of a host to a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToRange {
    /// The range's wanted images: at once, and after each change.
    Wanted(WantedSet),
    /// Work.
    Task {
        /// Names the task in its events; unique within a link.
        id: u64,
        /// The work.
        task: Task,
    },
    /// Nobody waits for a task any more; one that is not under way is ignored.
    Cancel {
        /// The task's id.
        id: u64,
    },
}

/// Reasons why a host ends a link.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkEnd {
    /// The range opened another link.
    #[error("another link of range {name} replaced this one")]
    Replaced {
        /// The range.
        name: RangeName,
    },
    /// The range is not served, or not any more.
    #[error("there is no range {name}")]
    UnknownRange {
        /// The range.
        name: RangeName,
    },
    /// The range's messages are not what they should be.
    #[error("the link of range {name} was ended because of its message: {reason}")]
    Unfit {
        /// The range.
        name: RangeName,
        /// The error in them.
        reason: String,
    },
    /// The host agent is ending.
    #[error("the host agent is ending; ask again")]
    HostEnding,
}

/// The messages of a range, as a host gets them. Ends with the link; an error is the last item, and
/// says what a message is that is not of the protocol.
pub type FromRangeStream = BoxStream<'static, Result<FromRange, String>>;

/// The messages for a range, as a host sends them. An error is the last item, and says why.
pub type ToRangeStream = BoxStream<'static, Result<ToRange, LinkEnd>>;

/// The host's end of links.
#[async_trait]
pub trait LinkHost: Send + Sync {
    /// Takes a link of a range, in place of an older one. Dropping the messages for the range ends
    /// the link.
    ///
    /// # Errors
    /// [`LinkEnd`].
    async fn attach(
        &self,
        range: &RangeName,
        messages: FromRangeStream,
    ) -> Result<ToRangeStream, LinkEnd>;
}

/// Reasons why a range has no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The host agent does not know links: it is older than this agent.
    #[error("the host agent is too old to keep a link; upgrade it")]
    Unsupported(#[source] Cause),
    /// The host agent does not want this link; trying again soon does not help.
    #[error("the host agent refused the link")]
    Refused(#[source] Cause),
    /// The link broke or could not be opened; trying again helps.
    #[error("the link to the host agent broke")]
    Broken(#[source] Cause),
}

/// The messages of a host, as a range gets them. An error is the last item.
pub type FromHostStream = BoxStream<'static, Result<ToRange, LinkError>>;

/// The range's end of a link.
#[async_trait]
pub trait LinkRange: Send + Sync {
    /// Opens a link that sends `messages`, of which the first is a whole report.
    ///
    /// # Errors
    /// [`LinkError`].
    async fn attach(
        &self,
        messages: BoxStream<'static, FromRange>,
    ) -> Result<FromHostStream, LinkError>;
}
