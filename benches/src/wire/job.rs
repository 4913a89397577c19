//! The job of a peer, and the result that it reports.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use transfer::{Descriptor, Digest, MediaType};

use super::route::Route;

/// The job of a peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The route.
    pub route: Route,
    /// The blob's digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The end that this peer is.
    pub role: Role,
}

impl Job {
    /// Offset in bytes at which each receiver starts.
    pub(super) fn offset(&self) -> u64 {
        self.route.offset(self.size)
    }

    /// The moved blob.
    pub(super) fn blob(&self) -> Descriptor {
        let (media_type, digest, size) = (MediaType::new(MediaType::LAYER), self.digest, self.size);
        Descriptor { media_type, digest, size }
    }

    /// Number of bytes that each receiver must get.
    pub(super) fn expected(&self) -> u64 {
        self.size - self.offset()
    }
}

/// One end of the socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sends the blob.
    Serve {
        /// The folder of the blob store.
        store: PathBuf,
        /// The path for a Unix socket.
        socket: PathBuf,
    },
    /// Receives the blob.
    Fetch {
        /// The server's address: `http://host:port` or `unix:///path`.
        from: String,
        /// A folder for the received blob, if the route stores it.
        folder: PathBuf,
    },
}

/// Resources that a process used.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time of all its threads since it was ready, in seconds.
    pub cpu_seconds: f64,
    /// Peak memory in bytes (`VmHWM`).
    pub peak_rss_bytes: u64,
}

/// Result of a fetch.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Fetched {
    /// Number of received bytes.
    pub bytes: u64,
    /// Time from before the connection until the last byte was handled.
    pub seconds: f64,
    /// Resources that the receiver used.
    pub usage: Usage,
}
