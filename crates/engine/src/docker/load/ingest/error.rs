//! Errors between a source and containerd.

use transfer::{BlobError, Digest};

use super::client::Fault;

/// An ingest failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum IngestError {
    /// The source's side.
    #[error(transparent)]
    Source(#[from] BlobError),
    /// containerd's.
    #[error(transparent)]
    Way(#[from] Fault),
    /// A layer that was planned to be there has gone: the full set heals that.
    #[error("layer {0} is not in the content store any more")]
    Gone(Digest),
}
