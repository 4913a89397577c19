//! Where blobs are kept: in memory or as files, and the leases that keep them.

pub mod fs;
pub mod lease;
pub mod memory;

pub use self::fs::{
    Arrival, CheckReport, Collected, FsStore, Goal, Mark, Policy, Space, StoreError, Usage,
};
pub use self::lease::{Arriving, Lease, Leases};
pub use self::memory::MemoryStore;
use crate::blob::BlobError;
use crate::descriptor::Descriptor;
use crate::digest::Digest;

/// What every ingest asks itself before it commits.
fn check_expected(
    expected: &Descriptor,
    size: u64,
    digest: impl FnOnce() -> Digest,
) -> Result<(), BlobError> {
    if size != expected.size {
        let Descriptor { digest, size: expected, .. } = *expected;
        return Err(BlobError::SizeMismatch { digest, expected, actual: size });
    }
    let actual = digest();
    if actual != expected.digest {
        return Err(BlobError::DigestMismatch { expected: expected.digest, actual });
    }
    Ok(())
}
