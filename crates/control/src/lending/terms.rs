//! The terms of lending: limits, leases, and the errors of a read.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use transfer::{BlobError, ConfigDigest};

/// Maximum time that a stream of a blob waits for its turn before the caller gets
/// [`ReadError::Busy`]: less than the time after which callers give up a silent host.
pub(super) const TURN_TIMEOUT: Duration = Duration::from_secs(20);

/// Limits of a library.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Lifetime of a lease without a read.
    pub lease: Duration,
    /// Streams of blobs open at once, for all callers.
    pub reads: usize,
    /// Streams of blobs open at once, for one caller.
    pub reads_per_caller: usize,
    /// Bytes of blobs in memory between the source and the callers, for all of them. A stream
    /// begins when there is room for its share: [`transfer::limited::WINDOW`], or the rest of the
    /// blob.
    pub bytes_in_flight: u64,
    /// The same for one caller.
    pub bytes_in_flight_per_caller: u64,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(600),
            reads: 24,
            reads_per_caller: 8,
            bytes_in_flight: 96 << 20,
            bytes_in_flight_per_caller: 24 << 20,
        }
    }
}

/// A lease on the blobs of one image, for one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseGrant {
    /// ID that the caller shows when it reads.
    pub id: String,
    /// Lifetime of the lease without a read.
    pub ttl: Duration,
    /// Time at which it ends unless a read extends it.
    pub expires: SystemTime,
}

/// The image that a blob is asked for as a part of, and the lease on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loan {
    /// The image.
    pub config_digest: ConfigDigest,
    /// The lease, as [`LeaseGrant::id`] says.
    pub lease_id: String,
}

/// Reasons why a read was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The blob cannot be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The caller, or all callers together, had as many streams open as there may be, or as many
    /// bytes in flight, for as long as one waits for a turn.
    #[error("too many reads are under way already; at most {limit} blobs are read at once")]
    Busy {
        /// Limit of streams.
        limit: usize,
    },
}

/// Facts about a blob, from its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its size in bytes.
    pub size: u64,
    /// True if compressing may pay: the blob is an uncompressed layer.
    pub compresses: bool,
}

/// Counters of reads since the library opened.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) reads: AtomicU64,
    pub(super) bytes: AtomicU64,
}
