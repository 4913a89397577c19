//! An administrator's view of a host agent, and the requests an administrator can make.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::stream::BoxStream;
use transfer::blob::Cause;
use transfer::{Digest, EngineInfo, Reference};

use crate::grants::Pattern;
use crate::identity::{Caller, RangeName};
use crate::link::{Attachment, RangeState};
use crate::range::{ImagePlan, VerifyEvent};
use crate::transfers::Transfer;
use crate::wanted::WantedSet;

/// Counters of a host agent since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostStats {
    /// The agent's version.
    pub version: String,
    /// Time since the agent started.
    pub uptime: Duration,
    /// The engine that images come from; absent when it does not answer.
    pub engine: Option<EngineInfo>,
    /// Blobs taken into the store.
    pub ingests: u64,
    /// Distinct digests among them.
    pub ingested_digests: u64,
    /// Ingests of the digest with the most of them; 0 without any.
    pub max_ingests_per_digest: u64,
    /// Bytes read from the engine in exports.
    pub engine_bytes_read: u64,
    /// Exports asked of the engine.
    pub saves: u64,
    /// Streams of blobs opened by callers.
    pub reads: u64,
    /// Bytes of blobs sent to callers.
    pub bytes_served: u64,
    /// Blobs found corrupt and put aside.
    pub quarantined: u64,
    /// The most memory that the agent held at any time, in bytes; 0 where the system does not say.
    pub peak_rss_bytes: u64,
    /// Export method of the engine's layers: `files`, `content-service`, `save` and so on. Empty
    /// while the engine did not answer yet.
    pub export_way: String,
    /// The store, and its collections.
    pub store: StoreStats,
}

/// Usage of a host agent's store; in bytes unless a field says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Number of blobs.
    pub blobs: u64,
    /// Their size together.
    pub bytes: u64,
    /// Above this the store is collected; 0 when it is not.
    pub high_water: u64,
    /// Down to this it is collected; 0 when it is not.
    pub low_water: u64,
    /// Blobs removed by collection, also on demand.
    pub collected_blobs: u64,
    /// The size of those.
    pub collected_bytes: u64,
    /// Free on the store's file system; 0 where the system does not say.
    pub free: u64,
}

/// A range that a host agent serves.
#[derive(Clone, Debug, PartialEq)]
pub struct ServedRange {
    /// Its name.
    pub name: RangeName,
    /// The path of its socket, as the host sees it.
    pub socket_path: PathBuf,
    /// Connections open at the moment, over TCP included.
    pub connections: u32,
    /// Additional TCP address; `None` without one.
    pub tcp_endpoint: Option<SocketAddr>,
    /// The images that it is to have.
    pub wanted: WantedSet,
    /// Patterns of other images that it may read.
    pub grants: Vec<Pattern>,
    /// Attachment of its agent.
    pub attachment: Attachment,
    /// Its latest state; absent when it reported none since the host agent started, and perhaps out
    /// of date while its agent is not attached.
    pub state: Option<RangeState>,
}

impl ServedRange {
    /// True if the range's agent is attached, and every wanted image is present since the wanted
    /// set's last round.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        let is_attached = matches!(self.attachment, Attachment::Attached { .. });
        is_attached && self.state.as_ref().is_some_and(|state| state.is_in_step(&self.wanted))
    }
}

/// A range that is to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRange {
    /// Its name.
    pub name: RangeName,
    /// An additional TCP address; port 0 takes a free one, or the one that it has.
    pub tcp: Option<SocketAddr>,
    /// The images that it is to have.
    pub wanted: Vec<Reference>,
    /// Patterns of other images that it may read.
    pub grants: Vec<Pattern>,
}

impl NewRange {
    /// A range that wants nothing and is granted nothing yet.
    #[must_use]
    pub fn named(name: RangeName) -> Self {
        Self { name, tcp: None, wanted: Vec::new(), grants: Vec::new() }
    }
}

/// Wanted images of a range, and its grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeWants {
    /// The images that it is to have.
    pub wanted: WantedSet,
    /// Patterns of other images that it may read.
    pub grants: Vec<Pattern>,
}

/// The state of one range, for a watcher.
#[derive(Clone, Debug, PartialEq)]
pub enum RangeChange {
    /// The range as it is now.
    Now(Box<ServedRange>),
    /// There is no such range.
    Removed(RangeName),
}

/// The result of removing blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blobs removed, or that would be.
    pub blobs: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Blobs that stayed since a lease keeps them, or since they are new and an image is being
    /// exported.
    pub kept_leased: u64,
}

/// Limits of a prune.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruning {
    /// Bytes of blobs that may stay; absent removes all that may be removed.
    pub target: Option<u64>,
    /// Only says what would be removed.
    pub dry_run: bool,
}

/// The result of reading the whole store again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreCheck {
    /// Blobs read.
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// The blobs that were corrupt and put aside.
    pub quarantined: Vec<Digest>,
}

/// Failures of an administrator's request.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is no such range.
    #[error("there is no range {name}")]
    UnknownRange {
        /// The requested range.
        name: RangeName,
    },
    /// The wanted set has another revision than the caller expected: somebody else changed it.
    #[error(
        "the wanted set of range {name} has revision {revision} by now: read it, and try again"
    )]
    Revision {
        /// The range.
        name: RangeName,
        /// The set's revision.
        revision: u64,
    },
    /// The range's agent is not attached, or its link broke before it answered.
    #[error("the agent of range {name} is not attached{}", seen(*last_seen))]
    NotAttached {
        /// The range.
        name: RangeName,
        /// Time of its agent's last message; `None` if there was none since the host agent started.
        last_seen: Option<SystemTime>,
    },
    /// The range has too much under way.
    #[error("range {name} has too much under way; try again later")]
    Busy {
        /// The range.
        name: RangeName,
    },
    /// The range could not do it; trying again may help.
    #[error("range {name} could not do it: {reason}")]
    RangeFailed {
        /// The range.
        name: RangeName,
        /// The reason that the range gave.
        reason: String,
    },
    /// There are as many ranges as the agent will serve.
    #[error("{limit} ranges are served already")]
    TooManyRanges {
        /// The limit.
        limit: usize,
    },
    /// Other machines can reach the address, and nobody insisted on that.
    #[error(
        "{address} can be reached from other machines, and every caller there is taken for range \
         {name}: use a loopback address, or start the host agent with --remote-any"
    )]
    RemoteNotAllowed {
        /// The range.
        name: RangeName,
        /// The requested address.
        address: SocketAddr,
    },
    /// The address of a range could not be listened on.
    #[error("range {name} could not be served on {address}")]
    Listen {
        /// The range.
        name: RangeName,
        /// The requested address.
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The record of a range could not be written.
    #[error("the record of range {name} could not be written")]
    Record {
        /// The range.
        name: RangeName,
        /// The system's error, and its file.
        #[source]
        source: Cause,
    },
    /// The range's socket could not be made or removed.
    #[error("the socket {} could not be made or removed", path.display())]
    Socket {
        /// The socket or its folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The store could not be read, or a blob not be removed.
    #[error("the store could not be read or tidied")]
    Store(#[source] Cause),
}

/// Completes a sentence about an agent with the time at which it was last seen.
fn seen(last_seen: Option<SystemTime>) -> String {
    let ago = last_seen.map(|at| at.elapsed().unwrap_or_default().as_secs());
    ago.map(|seconds| format!("; it was last seen {seconds} s ago")).unwrap_or_default()
}

/// Runs a host agent. Each method gets the caller that the server let through.
#[async_trait]
pub trait HostAdmin: Send + Sync {
    /// Returns the agent's counters since it started.
    async fn stats(&self, caller: &Caller) -> HostStats;

    /// The ranges served, sorted by name.
    async fn ranges(&self, caller: &Caller) -> Vec<ServedRange>;

    /// The state of ranges: of each at once, then of each that changed, a few times a second at
    /// most. No names: all that there are, and all that are added later. Ends with the agent.
    async fn watch_ranges(
        &self,
        caller: &Caller,
        names: Vec<RangeName>,
    ) -> BoxStream<'static, RangeChange>;

    /// Serves a range; one that is served already keeps its wanted set and its grants. An address
    /// takes the place of another that the range had.
    ///
    /// # Errors
    /// [`AdminError::TooManyRanges`], [`AdminError::Socket`], [`AdminError::RemoteNotAllowed`],
    /// [`AdminError::Listen`], [`AdminError::Record`].
    async fn add_range(&self, caller: &Caller, range: NewRange) -> Result<ServedRange, AdminError>;

    /// Stops serving a range, ends its connections, removes its socket and forgets its record.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`], [`AdminError::Socket`].
    async fn remove_range(&self, caller: &Caller, name: &RangeName) -> Result<(), AdminError>;

    /// Replaces the images that a range is to have, if the set still has the expected revision, and
    /// sends it to the range. The same references again change nothing.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`], [`AdminError::Revision`], [`AdminError::Record`].
    async fn set_wanted(
        &self,
        caller: &Caller,
        name: &RangeName,
        references: Vec<Reference>,
        expected_revision: Option<u64>,
    ) -> Result<WantedSet, AdminError>;

    /// The images that a range is to have, and its grants.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`].
    async fn wanted(&self, caller: &Caller, name: &RangeName) -> Result<RangeWants, AdminError>;

    /// Replaces the patterns of images that a range may read beside its wanted ones. Reads that are
    /// not granted any more end.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`], [`AdminError::Record`].
    async fn set_grants(
        &self,
        caller: &Caller,
        name: &RangeName,
        grants: Vec<Pattern>,
    ) -> Result<Vec<Pattern>, AdminError>;

    /// Lets a range look at all its wanted images again, and returns the round of that look.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`], [`AdminError::Record`].
    async fn sync_range(&self, caller: &Caller, name: &RangeName) -> Result<u64, AdminError>;

    /// Plans bringing images into a range, in the order asked. The range may read these images
    /// meanwhile.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`], [`AdminError::NotAttached`], [`AdminError::Busy`],
    /// [`AdminError::RangeFailed`].
    async fn plan_range(
        &self,
        caller: &Caller,
        name: &RangeName,
        references: Vec<Reference>,
    ) -> Result<Vec<ImagePlan>, AdminError>;

    /// Has a range's engine confirm its images again, and with `deep` reads every file of them. No
    /// references: every image that it has. The stream ends after [`VerifyEvent::Finished`] or an
    /// error; dropping it ends the work.
    ///
    /// # Errors
    /// As [`plan_range`](Self::plan_range); the errors of the range come in the stream.
    async fn verify_range(
        &self,
        caller: &Caller,
        name: &RangeName,
        references: Vec<Reference>,
        deep: bool,
    ) -> Result<BoxStream<'static, Result<VerifyEvent, AdminError>>, AdminError>;

    /// Lists the transfers under way, sorted by id.
    async fn transfers(&self, caller: &Caller) -> Vec<Transfer>;

    /// Removes blobs that no lease keeps, the least recently read first.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    async fn prune(&self, caller: &Caller, pruning: Pruning) -> Result<Pruned, AdminError>;

    /// Reads every blob again, and puts aside the corrupt ones.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    async fn verify_store(&self, caller: &Caller) -> Result<StoreCheck, AdminError>;
}
