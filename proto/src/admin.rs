//! What an operator sees and does on a host, in the core's words: `AdminService`'s other side.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use transfer::blob::Cause;
use transfer::{Digest, EngineInfo};

use crate::identity::{Caller, RangeName};

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
}

/// A range that a host agent serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedRange {
    /// Its name.
    pub name: RangeName,
    /// The path of its socket, as the host sees it.
    pub socket_path: PathBuf,
    /// Connections open at the moment.
    pub connections: u32,
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
    /// The range's socket could not be made or removed.
    #[error("the socket {} could not be made or removed", path.display())]
    Socket {
        /// The socket or its folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The store could not be read.
    #[error("the store could not be verified")]
    Store(#[source] Cause),
}

/// Runs a host agent. The server lets only [`Caller::Admin`] through to it.
#[async_trait]
pub trait HostAdmin: Send + Sync {
    /// What the agent did since it started.
    async fn stats(&self, caller: &Caller) -> HostStats;

    /// The ranges served, sorted by name.
    async fn ranges(&self, caller: &Caller) -> Vec<ServedRange>;

    /// Serves a range; one that is served already is returned as it is.
    ///
    /// # Errors
    /// [`AdminError::TooManyRanges`], [`AdminError::Socket`].
    async fn add_range(&self, caller: &Caller, name: RangeName) -> Result<ServedRange, AdminError>;

    /// Stops serving a range, ends its connections and removes its socket.
    ///
    /// # Errors
    /// [`AdminError::UnknownRange`], [`AdminError::Socket`].
    async fn remove_range(&self, caller: &Caller, name: &RangeName) -> Result<(), AdminError>;

    /// Reads every blob again, and puts aside what is corrupt.
    ///
    /// # Errors
    /// [`AdminError::Store`].
    async fn verify_store(&self, caller: &Caller) -> Result<StoreCheck, AdminError>;
}
