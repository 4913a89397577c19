//! Streams that are being read: how many there may be, and what each keeps alive.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use futures::StreamExt as _;
use futures::future::ready;
use tokio::time::{Instant, timeout_at};
use transfer::limited::{Limits, Reserved};
use transfer::{BlobError, BlobStream, ConfigDigest, Digest};

use super::lease::Granted;
use super::terms::{Meter, ReadError, TURN_TIMEOUT, Terms};
use crate::identity::Caller;
use crate::transfers::{Transfer, TransferId, TransferKind};

/// Lets so many streams in at once with so many bytes in flight, and no more of one caller than its
/// share.
#[derive(Debug)]
pub(super) struct Turnstile {
    all: Limits,
    terms: Terms,
    /// As many as there are listeners.
    callers: Mutex<HashMap<Caller, Limits>>,
}

/// A stream's place, and the bytes that it may have in flight; dropping it lets the next one in.
#[derive(Debug)]
pub struct Turn {
    _of_caller: Reserved,
    _of_all: Reserved,
}

impl Turnstile {
    pub(super) fn new(terms: Terms) -> Self {
        let all = Limits::new(terms.reads, terms.bytes_in_flight);
        Self { all, terms, callers: Mutex::default() }
    }

    /// Waits for a place for a stream of `bytes`: among the caller's own first, so that one caller's
    /// crowd does not stand in the way of another.
    pub(super) async fn enter(&self, caller: &Caller, bytes: u64) -> Result<Turn, ReadError> {
        let own = self.of(caller);
        let until = Instant::now() + TURN_TIMEOUT;
        Ok(Turn {
            _of_caller: place(&own, bytes, self.terms.reads_per_caller, until).await?,
            _of_all: place(&self.all, bytes, self.terms.reads, until).await?,
        })
    }

    /// Forgets a caller; its streams keep their places until they end.
    pub(super) fn forget(&self, caller: &Caller) {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).remove(caller);
    }

    fn of(&self, caller: &Caller) -> Limits {
        let Terms { reads_per_caller, bytes_in_flight_per_caller, .. } = self.terms;
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = || Limits::new(reads_per_caller, bytes_in_flight_per_caller);
        callers.entry(caller.clone()).or_insert_with(limits).clone()
    }
}

async fn place(
    limits: &Limits,
    bytes: u64,
    limit: usize,
    until: Instant,
) -> Result<Reserved, ReadError> {
    let reserved = timeout_at(until, limits.reserve(bytes)).await;
    reserved.map_err(|_elapsed| ReadError::Busy { limit })
}

/// The streams that are being read, by the number under which they began. At most as many as the
/// turnstile lets in.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    begun: u64,
    reads: BTreeMap<u64, Arc<Read>>,
}

/// Facts and progress of a stream.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) caller: Caller,
    pub(super) config_digest: ConfigDigest,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) offset: u64,
    pub(super) started: SystemTime,
    pub(super) bytes: AtomicU64,
}

/// A stream's line in the table; dropping it takes it out.
#[derive(Debug)]
pub(super) struct Line {
    reads: Reads,
    serial: u64,
    read: Arc<Read>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.reads.table().reads.remove(&self.serial);
    }
}

impl Reads {
    pub(super) fn begin(&self, read: Read) -> Line {
        let (mut table, read) = (self.table(), Arc::new(read));
        table.begun += 1;
        let serial = table.begun;
        table.reads.insert(serial, read.clone());
        Line { reads: self.clone(), serial, read }
    }

    pub(super) fn list(&self) -> Vec<Transfer> {
        let table = self.table();
        table.reads.iter().map(|(serial, read)| read.transfer(*serial)).collect()
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read {
    fn transfer(&self, serial: u64) -> Transfer {
        let bytes = self.bytes.load(Ordering::Relaxed);
        Transfer {
            id: TransferId::Read(serial),
            started: self.started,
            bytes,
            kind: TransferKind::Read {
                caller: self.caller.to_string(),
                config_digest: self.config_digest,
                digest: self.digest,
                size: self.size,
                offset: self.offset + bytes,
            },
        }
    }
}

/// The same stream; it keeps its lease while it moves, its bytes are counted, and it ends with
/// [`BlobError::NotFound`] once the image is not granted any more.
pub(super) fn lend(
    stream: BlobStream,
    lease: Arc<Granted>,
    digest: Digest,
    meter: Arc<Meter>,
    line: Line,
) -> BlobStream {
    let lent = stream.scan(false, move |is_over, frame| {
        if *is_over {
            return ready(None);
        }
        if lease.is_revoked() {
            *is_over = true;
            return ready(Some(Err(BlobError::NotFound { digest })));
        }
        if let Ok(frame) = &frame {
            meter.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
            line.read.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
            // If the lease ran out all the same, the next read reports it.
            let _alive = lease.renew();
        }
        ready(Some(frame))
    });
    lent.boxed()
}
