//! What is being taken in: for whoever looks, and so that there is room for all of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{FsStore, Inner, Space};
use crate::blob::{BlobError, MAX_FRAME};
use crate::blocking::blocking;
use crate::digest::Digest;

/// Bytes that are let in at a time where nobody knows how many will come: so often is looked whether
/// there is still room.
const STEP: u64 = 8 * MAX_FRAME as u64;

/// Bytes of an ingest that may not be in its file yet, and so still show as free.
const BEHIND: u64 = 2 * MAX_FRAME as u64;

/// A blob that is being taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its number, from 1 on since the store was opened.
    pub serial: u64,
    /// When it began.
    pub started: SystemTime,
    /// Which blob it will be, and its size in bytes; absent while that is being found out.
    pub expected: Option<(Digest, u64)>,
    /// Bytes taken so far.
    pub bytes: u64,
}

impl FsStore {
    /// What is being taken in now, in the order in which it began.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        let table = self.0.arrivals.table();
        table.under_way.iter().map(|(serial, known)| known.arrival(*serial)).collect()
    }
}

/// The table of them. Clones are the same table.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    begun: u64,
    under_way: BTreeMap<u64, Arc<Known>>,
}

#[derive(Debug)]
struct Known {
    started: SystemTime,
    expected: Option<(Digest, u64)>,
    /// Bytes for which there is room, those taken included.
    admitted: AtomicU64,
    bytes: AtomicU64,
    /// Bytes of disk that its file has already.
    allocated: AtomicU64,
}

/// An ingest's line in the table; dropping it takes it out.
#[derive(Debug)]
pub(super) struct Ticket {
    arrivals: Arrivals,
    serial: u64,
    known: Arc<Known>,
}

impl Ticket {
    /// Bytes for which room was found, those taken included.
    pub(super) fn admitted(&self) -> u64 {
        self.known.admitted.load(Ordering::Relaxed)
    }

    /// Which blob is to come; that of no bytes while that is being found out.
    pub(super) fn expected(&self) -> Digest {
        self.known.expected.map_or_else(|| Digest::of(b""), |(digest, _)| digest)
    }

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

    /// Takes note of the bytes of disk that the file has by now, whatever was written: they do not
    /// show as free any more.
    pub(super) fn allocated(&self, bytes: u64) {
        self.known.allocated.store(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that were taken.
    pub(super) fn took(&self, size: usize) {
        self.known.bytes.fetch_add(size as u64, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.arrivals.table().under_way.remove(&self.serial);
    }
}

impl Known {
    fn arrival(&self, serial: u64) -> Arrival {
        let bytes = self.bytes.load(Ordering::Relaxed);
        Arrival { serial, started: self.started, expected: self.expected, bytes }
    }

    /// Bytes that were let in and may still take room.
    fn left(&self) -> u64 {
        let in_file = self.bytes.load(Ordering::Relaxed).saturating_sub(BEHIND);
        let taken = in_file.max(self.allocated.load(Ordering::Relaxed));
        self.admitted.load(Ordering::Relaxed).saturating_sub(taken)
    }
}

impl Arrivals {
    fn begin(&self, expected: Option<(Digest, u64)>) -> Ticket {
        let known = Arc::new(Known {
            started: SystemTime::now(),
            expected,
            admitted: AtomicU64::new(expected.map_or(STEP, |(_, size)| size)),
            bytes: AtomicU64::new(0),
            allocated: AtomicU64::new(0),
        });
        let mut table = self.table();
        table.begun += 1;
        let serial = table.begun;
        table.under_way.insert(serial, known.clone());
        Ticket { arrivals: self.clone(), serial, known }
    }

    /// Bytes that those under way still need.
    fn left(&self) -> u64 {
        let table = self.table();
        // Sizes are what somebody claims.
        table.under_way.values().fold(0, |sum: u64, known| sum.saturating_add(known.left()))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
