//! What is being taken in: for whoever looks, and so that there is room for all of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{FsStore, Inner, blocking};
use crate::blob::BlobError;
use crate::digest::Digest;

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
    bytes: AtomicU64,
}

/// An ingest's line in the table; dropping it takes it out.
#[derive(Debug)]
pub(super) struct Ticket {
    arrivals: Arrivals,
    serial: u64,
    known: Arc<Known>,
}

impl Ticket {
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

    /// Bytes that are still to come, as far as that is known.
    fn left(&self) -> u64 {
        let size = self.expected.map_or(0, |(_, size)| size);
        size.saturating_sub(self.bytes.load(Ordering::Relaxed))
    }
}

impl Arrivals {
    fn begin(&self, expected: Option<(Digest, u64)>) -> Ticket {
        let known = Known { started: SystemTime::now(), expected, bytes: AtomicU64::new(0) };
        let (mut table, known) = (self.table(), Arc::new(known));
        table.begun += 1;
        let serial = table.begun;
        table.under_way.insert(serial, known.clone());
        Ticket { arrivals: self.clone(), serial, known }
    }

    /// Bytes that those under way still need.
    fn left(&self) -> u64 {
        self.table().under_way.values().map(|known| known.left()).sum()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a blob in. Where there is no room for it beside the others that are coming in, what nobody
/// counts on is removed first.
pub(super) async fn admit(
    inner: Arc<Inner>,
    expected: Option<(Digest, u64)>,
) -> Result<Ticket, BlobError> {
    let ticket = inner.arrivals.begin(expected);
    let Some((digest, _)) = expected else {
        return Ok(ticket);
    };
    blocking(move || {
        let need = inner.arrivals.left();
        let free = || inner.space().map_or(u64::MAX, |space| space.free);
        let missing = need.saturating_sub(free());
        if missing != 0 {
            let made = inner.make_room(missing);
            tracing::info!(missing, ?made, "too little room for a blob, looked for more");
        }
        match free() {
            free if free < need => {
                let path = inner.root.display().to_string();
                Err(BlobError::NoSpace { digest, path, need, free })
            }
            _ => Ok(ticket),
        }
    })
    .await
}
