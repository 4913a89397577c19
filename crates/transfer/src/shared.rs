//! One read for many: every reader of a digest follows the same ingest, while it is coming in.
//!
//! ```text
//!                                                ┌─► follower        store ─► reader
//!   far source ─► task ───► ingest ─► its file ──┼─► follower          ▲
//!                              │                 └─► follower          │
//!                              └───────────── commit ──────────────────┘
//! ```
//! Readers get a kept blob from the store. They follow a blob that is coming in: its bytes are read
//! back from the ingest, so a slow reader delays nobody. The last frame waits until the blob is
//! verified, and not for the disk. For any other blob a task begins an ingest from the far source.
//! The task continues while anybody reads, and ends some seconds after the last reader left.
//!
//! The far source hashes its bytes ([`crate::BlobStream`]), so the ingest does not.
//!
//! So each digest is ingested once, however many readers ask at once. All followers get the error of
//! a failed ingest; the next reader begins a new one.

mod flight;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use self::flight::{Entry, Flight, Flights, State};
use crate::blob::{BlobError, BlobSource, BlobStore, BlobStream, Ingest};
use crate::descriptor::{Descriptor, MediaType};
use crate::digest::Digest;
use crate::verify::check_frame;

/// Number of ingests at once. Each holds some MiB between source and disk, whatever the number of
/// its readers, and keeps a core busy.
fn taken_at_once() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).saturating_mul(2).clamp(4, 16)
}

/// A store, a far source, and the ingests under way from it. Clones share all three.
#[derive(Clone)]
pub struct Shared {
    store: Arc<dyn BlobStore>,
    far: Arc<dyn BlobSource>,
    flights: Flights,
    tasks: TaskTracker,
    /// One permit for each ingest at once.
    taking: Arc<Semaphore>,
    /// Cancelled once the end was asked for.
    ending: CancellationToken,
}

impl Shared {
    /// Ingests requested blobs from `far` into `store`.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>, far: Arc<dyn BlobSource>) -> Self {
        let (flights, tasks, ending) = Default::default();
        let taking = Arc::new(Semaphore::new(taken_at_once()));
        Self { store, far, flights, tasks, taking, ending }
    }

    /// Has what `store` has, and no far source.
    #[must_use]
    pub fn over(store: Arc<dyn BlobStore>) -> Self {
        Self::new(store, Arc::new(Nothing))
    }

    /// The same store and flights, with another far source for what is not there yet.
    #[must_use]
    pub fn with_far(&self, far: Arc<dyn BlobSource>) -> Self {
        Self { far, ..self.clone() }
    }

    /// Whether the blob is coming in now.
    #[must_use]
    pub fn in_progress(&self, digest: &Digest) -> bool {
        self.flights.join(digest).is_some()
    }

    /// Waits until no ingest is under way, for an orderly end. Ingests without readers end at once.
    pub async fn drained(&self) {
        self.ending.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The ingest that is under way, or a new one.
    fn join_or_fetch(&self, digest: &Digest) -> Arc<Flight> {
        match self.flights.begin(*digest) {
            Err(flight) => flight,
            Ok((flight, entry)) => {
                let (shared, held) = (self.clone(), flight.clone());
                let fetch = async move {
                    shared.fetch(entry).await;
                    // Until here it can be joined.
                    drop(held);
                };
                self.tasks.spawn(fetch.in_current_span());
                flight
            }
        }
    }

    async fn fetch(self, entry: Entry) {
        let entry = Arc::new(entry);
        let taken = tokio::select! {
            biased;
            () = entry.deserted(&self.ending) => Ok(None),
            taken = self.take_in(entry.clone()) => taken,
        };
        let kept = match taken {
            // Also when all who read it have their end, and are gone.
            Ok(Some(ingest)) => ingest.commit().await,
            Ok(None) => Ok(()),
            Err(error) => Err(entry.fail(error)),
        };
        if let Err(error) = kept {
            // The followers have the error.
            tracing::debug!(%error, "a blob was not taken in");
        }
    }

    /// Reads the whole blob from the far source and verifies it; `None` if the store has it.
    async fn take_in(&self, entry: Arc<Entry>) -> Result<Option<SharedIngest>, BlobError> {
        let digest = entry.digest();
        let taking = self.taking.acquire().await;
        let _turn = taking.expect("invariant: the semaphore is never closed");
        // It may have been committed between a reader's look into the store and this flight.
        if self.store.stat(&digest).await?.is_some() {
            entry.kept();
            return Ok(None);
        }
        let size = self.far.stat(&digest).await?.ok_or(BlobError::NotFound { digest })?;
        // A far source that takes whole images at a time may have put it there just now.
        if self.store.stat(&digest).await?.is_some() {
            entry.kept();
            return Ok(None);
        }
        let mut stream = self.far.open(&digest, 0).await?;
        let media_type = MediaType::new("application/octet-stream");
        let expected = Descriptor { media_type, digest, size };
        let mut ingest =
            SharedIngest::new(self.store.ingest_verified(&expected).await?, entry, &expected);
        while let Some(frame) = stream.next().await {
            let frame = frame?;
            check_frame(&frame).map_err(|error| BlobError::unavailable(digest, error))?;
            ingest.write(frame).await?;
        }
        ingest.verify().await?;
        Ok(Some(ingest))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("flights", &self.flights).finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobSource for Shared {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        if let Some(size) = self.store.stat(digest).await? {
            return Ok(Some(size));
        }
        match self.flights.join(digest).and_then(|flight| flight.size()) {
            Some(size) => Ok(Some(size)),
            None => self.far.stat(digest).await,
        }
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let flight = match self.flights.join(digest) {
            Some(flight) => flight,
            // Asked by opening it: between two questions it could be collected.
            None => match self.store.open(digest, offset).await {
                Err(BlobError::NotFound { .. }) => self.join_or_fetch(digest),
                opened => return opened,
            },
        };
        match flight.started().await? {
            State::Kept => self.store.open(digest, offset).await,
            _ => flight::follow(flight, offset),
        }
    }

    fn doubt(&self, digest: &Digest) {
        self.store.doubt(digest);
        self.far.doubt(digest);
    }
}

/// A blob on its way into the store, followed by its readers.
///
/// Its followers get the error when it is dropped before it was committed.
struct SharedIngest {
    ingest: Box<dyn Ingest>,
    entry: Arc<Entry>,
    expected: Descriptor,
}

impl SharedIngest {
    fn new(ingest: Box<dyn Ingest>, entry: Arc<Entry>, expected: &Descriptor) -> Self {
        entry.growing(ingest.written(), expected.size, 0);
        Self { ingest, entry, expected: expected.clone() }
    }

    /// Writes the next bytes, and shows them to the followers.
    ///
    /// # Errors
    /// [`BlobError::SizeMismatch`] when there are more bytes than expected, [`BlobError::Storage`].
    /// The ingest cannot be used after an error.
    async fn write(&mut self, frame: Bytes) -> Result<(), BlobError> {
        let so_far = self.ingest.size() + frame.len() as u64;
        let Descriptor { digest, size, .. } = self.expected;
        if size < so_far {
            let error = BlobError::SizeMismatch { digest, expected: size, actual: so_far };
            return Err(self.entry.fail(error));
        }
        self.ingest.write(frame).await.map_err(|error| self.entry.fail(error))?;
        self.entry.growing(self.ingest.written(), size, so_far);
        Ok(())
    }

    /// Verifies the blob, which gives the followers their last frame.
    async fn verify(&mut self) -> Result<(), BlobError> {
        let verified = self.ingest.verify(&self.expected).await;
        verified.map_err(|error| self.entry.fail(error))?;
        self.entry.verified(self.ingest.written(), self.expected.size);
        Ok(())
    }

    /// Keeps the verified blob.
    ///
    /// # Errors
    /// As [`Ingest::commit`].
    async fn commit(self) -> Result<(), BlobError> {
        let Self { ingest, entry, expected } = self;
        let written = ingest.written();
        ingest.commit(&expected).await.map_err(|error| entry.fail(error))?;
        entry.done(written, expected.size);
        Ok(())
    }
}

/// A source that has nothing.
struct Nothing;

#[async_trait]
impl BlobSource for Nothing {
    async fn stat(&self, _: &Digest) -> Result<Option<u64>, BlobError> {
        Ok(None)
    }

    async fn open(&self, digest: &Digest, _: u64) -> Result<BlobStream, BlobError> {
        Err(BlobError::NotFound { digest: *digest })
    }
}
