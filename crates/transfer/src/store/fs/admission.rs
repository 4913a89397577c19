//! Room for ingests: none begins, and none goes on, that would not fit.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::arrivals::{Arrival, STEP, Ticket};
use super::folder::{FsStore, Inner};
use super::policy::Space;
use crate::blob::BlobError;
use crate::blocking::blocking;
use crate::digest::Digest;

impl FsStore {
    /// What is being taken in now, in the order in which it began.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.0.arrivals.list()
    }
}

impl Ticket {
    /// Finds room for the next bytes, where they are more than was found room for before. `so_far`
    /// names the blob in the error.
    pub(super) async fn admit(
        &self,
        inner: &Arc<Inner>,
        size: usize,
        so_far: impl FnOnce() -> Digest,
    ) -> Result<(), BlobError> {
        let bytes = self.known.bytes.load(Ordering::Relaxed) + size as u64;
        if bytes <= self.known.admitted.load(Ordering::Relaxed) {
            return Ok(());
        }
        // First ours, then the look: two that look at once must not both find the same room.
        let before = self.known.admitted.swap(bytes + STEP, Ordering::Relaxed);
        let (inner, digest) = (inner.clone(), self.expected());
        let found = blocking(move || inner.find_room(digest)).await;
        found.map_err(|error| {
            self.known.admitted.store(before, Ordering::Relaxed);
            match error {
                BlobError::NoSpace { path, need, free, .. } => {
                    BlobError::NoSpace { digest: so_far(), path, need, free }
                }
                error => error,
            }
        })
    }
}

/// Lets a blob in, or the first bytes of one whose size is not known.
pub(super) async fn admit(
    inner: Arc<Inner>,
    expected: Option<(Digest, u64)>,
) -> Result<Ticket, BlobError> {
    let ticket = inner.arrivals.begin(expected);
    let digest = expected.map_or_else(|| Digest::of(b""), |(digest, _)| digest);
    blocking(move || inner.find_room(digest).map(|()| ticket)).await
}

impl Inner {
    /// Sees to it that all that was let in fits and leaves the reserve free. Where it does not, what
    /// nobody counts on is removed first.
    fn find_room(&self, digest: Digest) -> Result<(), BlobError> {
        let (need, free) = self.need_and_free();
        let missing = need.saturating_sub(free);
        if missing == 0 {
            return Ok(());
        }
        let made = self.make_room(missing);
        tracing::info!(missing, ?made, "too little room for a blob, looked for more");
        match self.need_and_free() {
            (need, free) if free < need => {
                let path = self.root.display().to_string();
                Err(BlobError::NoSpace { digest, path, need, free })
            }
            _ => Ok(()),
        }
    }

    /// Bytes that must be free for all that was let in, and those that are. A file system that does
    /// not tell has room until it says otherwise.
    fn need_and_free(&self) -> (u64, u64) {
        let space = self.space().unwrap_or(Space { size: 0, free: u64::MAX });
        (self.arrivals.left().saturating_add(self.reserved(space)), space.free)
    }
}

#[cfg(test)]
mod tests;
