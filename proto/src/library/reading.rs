//! Streams that are being read: how many there may be, and what each keeps alive.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use transfer::BlobStream;

use super::lease::Granted;
use super::{Meter, ReadError};
use crate::identity::Caller;
use crate::wire::PROGRESS_TIMEOUT;

/// Lets so many streams in at once, and no more of one caller than its share.
#[derive(Debug)]
pub(super) struct Turnstile {
    all: Arc<Semaphore>,
    reads: usize,
    reads_per_caller: usize,
    /// As many as there are listeners.
    callers: Mutex<HashMap<Caller, Arc<Semaphore>>>,
}

/// A stream's place; dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Turn {
    _of_caller: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Turnstile {
    pub(super) fn new(reads: usize, reads_per_caller: usize) -> Self {
        let all = Arc::new(Semaphore::new(reads));
        Self { all, reads, reads_per_caller, callers: Mutex::default() }
    }

    /// Waits for a place: among the caller's own first, so that one caller's crowd does not stand
    /// in the way of another.
    pub(super) async fn enter(&self, caller: &Caller) -> Result<Turn, ReadError> {
        let own = self.of(caller);
        Ok(Turn {
            _of_caller: place(own, self.reads_per_caller).await?,
            _of_all: place(self.all.clone(), self.reads).await?,
        })
    }

    /// Forgets a caller; its streams keep their places until they end.
    pub(super) fn forget(&self, caller: &Caller) {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).remove(caller);
    }

    fn of(&self, caller: &Caller) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        callers
            .entry(caller.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(self.reads_per_caller)))
            .clone()
    }
}

async fn place(semaphore: Arc<Semaphore>, limit: usize) -> Result<OwnedSemaphorePermit, ReadError> {
    match tokio::time::timeout(PROGRESS_TIMEOUT, semaphore.acquire_owned()).await {
        Ok(permit) => Ok(permit.expect("the turnstile's semaphores are never closed")),
        Err(_elapsed) => Err(ReadError::Busy { limit }),
    }
}

/// The same stream; it keeps its place and its lease while it moves, and its bytes are counted.
pub(super) fn lend(
    stream: BlobStream,
    lease: Arc<Granted>,
    turn: Turn,
    meter: Arc<Meter>,
) -> BlobStream {
    stream
        .inspect(move |frame| {
            let _held = &turn;
            if let Ok(frame) = frame {
                meter.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
                // A lease that ran out all the same is told to the next read.
                let _alive = lease.renew();
            }
        })
        .boxed()
}
