//! What an operator sees and does on a host, in the core's words: `AdminService`'s other side.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use transfer::blob::Cause;
use transfer::{Digest, EngineInfo, Reference};

use crate::identity::{Caller, RangeName};
use crate::transfers::Transfer;
use crate::wanted::WantedSet;

/// What a host agent did since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostStats {
    /// The agent's version.
    pub version: String,
    /// How long it has been running.
    pub uptime: Duration,
    /// The engine that images come from; absent when it does not answer.
    pub engine: Option<EngineInfo>,
    /// Blobs taken into the store.
    pub ingests: u64,
    /// Distinct digests among them.
    pub ingested_digests: u64,
    /// How often the digest taken in most often was taken in; 0 when there was none.
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
    /// How layers are taken from the engine: `files`, `content-service`, `save` and so on. Empty
    /// while the engine did not answer yet.
    pub export_way: String,
    /// The store, and what was collected from it.
    pub store: StoreStats,
}

/// How full a host agent's store is, in bytes where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// How many blobs there are.
    pub blobs: u64,
    /// What they take together.
    pub bytes: u64,
    /// Above this the store is collected; 0 when it is not.
    pub high_water: u64,
    /// Down to this it is collected; 0 when it is not.
    pub low_water: u64,
    /// Blobs removed by collection, also on demand.
    pub collected_blobs: u64,
    /// What those took.
    pub collected_bytes: u64,
    /// Free on the store's file system; 0 where the system does not say.
    pub free: u64,
}

/// A range that a host agent serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedRange {
    /// Its name.
    pub name: RangeName,
    /// The path of its socket, as the host sees it.
    pub socket_path: PathBuf,
    /// Connections open at the moment, over TCP included.
    pub connections: u32,
    /// Images in its wanted set.
    pub wanted: u32,
    /// Where it is served over TCP besides; absent where it is not.
    pub tcp_endpoint: Option<SocketAddr>,
}

/// What removing blobs came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blobs removed, or that would be.
    pub blobs: u64,
    /// What they took, in bytes.
    pub bytes: u64,
    /// Blobs that stayed since a lease keeps them, or since they are new and an image is being
    /// exported.
    pub kept_leased: u64,
}

/// What may be removed from a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruning {
    /// Bytes of blobs that may stay; absent removes all that may be removed.
    pub target: Option<u64>,
    /// Only says what would be removed.
    pub dry_run: bool,
}

/// What reading the whole store again found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreCheck {
    /// Blobs read.
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// The blobs that were corrupt and put aside.
    pub quarantined: Vec<Digest>,
}

/// What can go wrong with an operator's request.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is no such range.
    #[error("there is no range {name}")]
    UnknownRange {
        /// The range asked for.
        name: RangeName,
    },
    /// There are as many ranges as the agent will serve.
    #[error("{limit} ranges are served already")]
    TooManyRanges {
        /// How many there may be.
        limit: usize,
    },
    /// Other machines can reach the address, and nobody insisted on that.
    #[error(
        "{address} can be reached from other machines, and whoever reaches it is taken for range \
         {name}: use a loopback address, or start the host agent with --remote-any"
    )]
    RemoteNotAllowed {
        /// The range.
        name: RangeName,
        /// What was asked for.
        address: SocketAddr,
    },
    /// The address of a range could not be listened on.
    #[error("range {name} could not be served on {address}")]
    Listen {
        /// The range.
        name: RangeName,
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// What is to be remembered of a range could not be written down.
    #[error("the record of range {name} could not be written")]
    Record {
        /// The range.
        name: RangeName,
        /// What the system said, and on which file.
        #[source]
        source: Cause,
    },
    /// The range's socket could not be made or removed.
    #[error("the socket {} could not be made or removed", path.display())]
    Socket {
        /// The socket or its folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The store could not be read, or a blob not be removed.
    #[error("the store could not be read or tidied")]
    Store(#[source] Cause),
}

/// Runs a host agent. The server lets only those callers through that [`crate::server::RPCS`] names.
#[async_trait]
pub trait HostAdmin: Send + Sync {
    /// What the agent did since it started.
    async fn stats(&self, caller: &Caller) -> HostStats;

    /// The ranges served, sorted by name.
    async fn ranges(&self, caller: &Caller) -> Vec<ServedRange>;

    /// Serves a range; one that is served already is returned as it is. With `tcp`, it is served on
    /// that address besides, in place of another that it had; port 0 takes a free one, or the one
    /// that it has already.
    ///
    /// # Errors
    /// [`AdminError::TooManyRanges`], [`AdminError::Socket`], [`AdminError::RemoteNotAllowed`],
    /// [`AdminError::Listen`], [`AdminError::Record`].
    async fn add_range(
        &self,
        caller: &Caller,
        name: RangeName,
        tcp: Option<SocketAddr>,
    ) -> Result<ServedRange, AdminError>;

    /// Stops serving a range, ends its connections, removes its socket and forgets what it wanted.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`], [`AdminError::Socket`].
    async fn remove_range(&self, caller: &Caller, name: &RangeName) -> Result<(), AdminError>;

    /// Replaces what a range is to have, and tells the range.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`], [`AdminError::Record`].
    async fn set_wanted(
        &self,
        caller: &Caller,
        name: &RangeName,
        references: Vec<Reference>,
    ) -> Result<WantedSet, AdminError>;

    /// What a range is to have.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`].
    async fn wanted(&self, caller: &Caller, name: &RangeName) -> Result<WantedSet, AdminError>;

    /// What the range that asks is to have: at once, and after each change, until the agent ends.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`].
    async fn watch_wanted(
        &self,
        range: &RangeName,
    ) -> Result<BoxStream<'static, WantedSet>, AdminError>;

    /// What moves at the moment, sorted by id.
    async fn transfers(&self, caller: &Caller) -> Vec<Transfer>;

    /// Removes blobs that no lease keeps, the least recently read first.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    async fn prune(&self, caller: &Caller, pruning: Pruning) -> Result<Pruned, AdminError>;

    /// Reads every blob again, and puts aside what is corrupt.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    async fn verify_store(&self, caller: &Caller) -> Result<StoreCheck, AdminError>;
}
