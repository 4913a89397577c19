//! The table of ingests under way, and the room that each may still take.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::blob::MAX_FRAME;
use crate::digest::Digest;

/// Bytes admitted at a time for an ingest of unknown size. Each time the store looks for room.
pub(super) const STEP: u64 = 8 * MAX_FRAME as u64;

/// Bytes of an ingest that may not be in its file yet, and so still show as free.
const BEHIND: u64 = 2 * MAX_FRAME as u64;

/// An ingest under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its number, from 1 on since the store was opened.
    pub serial: u64,
    /// When it began.
    pub started: SystemTime,
    /// Digest and size of the blob; absent while they are unknown.
    pub expected: Option<(Digest, u64)>,
    /// Bytes so far.
    pub bytes: u64,
}

/// The table. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    begun: u64,
    under_way: BTreeMap<u64, Arc<Known>>,
}

#[derive(Debug)]
pub(super) struct Known {
    started: SystemTime,
    expected: Option<(Digest, u64)>,
    /// Bytes for which there is room, those so far included.
    pub(super) admitted: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// Bytes of disk that its file has already.
    allocated: AtomicU64,
}

/// An ingest's line in the table; dropping it takes it out.
#[derive(Debug)]
pub(super) struct Ticket {
    arrivals: Arrivals,
    serial: u64,
    pub(super) known: Arc<Known>,
}

impl Ticket {
    /// Bytes for which room was found, those taken included.
    pub(super) fn admitted(&self) -> u64 {
        self.known.admitted.load(Ordering::Relaxed)
    }

    /// The blob's digest; that of no bytes while it is unknown.
    pub(super) fn expected(&self) -> Digest {
        self.known.expected.map_or_else(|| Digest::of(b""), |(digest, _)| digest)
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
    /// The ingests under way, in the order of their begin.
    pub(super) fn list(&self) -> Vec<Arrival> {
        let table = self.table();
        table.under_way.iter().map(|(serial, known)| known.arrival(*serial)).collect()
    }

    /// Adds an ingest.
    pub(super) fn begin(&self, expected: Option<(Digest, u64)>) -> Ticket {
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

    /// Bytes that the ingests under way still need.
    pub(super) fn left(&self) -> u64 {
        let table = self.table();
        // Sizes are what somebody claims.
        table.under_way.values().fold(0, |sum: u64, known| sum.saturating_add(known.left()))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
