//! One read for many: every reader of a digest follows the same ingest, while it is coming in.
//!
//! ```text
//!   far source ─► task ─┐                        ┌─► follower        store ─► reader
//!                       ├─► ingest ─► its file ──┼─► follower          ▲
//!   begin() ─► writer ──┘      │                 └─► follower          │
//!                              └───────────── commit ──────────────────┘
//! ```
//! A blob that is kept is read from the store. One that is coming in is followed: its bytes are
//! read back from the ingest, so that a slow reader holds nobody back, and the last frame waits until
//! the blob is verified; the disk takes its time after that. Otherwise a task takes it in from the far source; it goes on while anybody reads, and
//! ends some seconds after nobody does. Whoever sees blobs pass by (an export of an engine) offers them with
//! [`Shared::begin`]; such an ingest goes on without readers.
//!
//! What comes from the far source was hashed there ([`crate::BlobStream`]), what is offered is hashed
//! by the ingest: each byte once.
//!
//! Each digest is so taken in once, however many ask at once. An error reaches all who follow; the
//! next to ask begins anew.

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

/// Blobs that are taken in from the far source at once: each holds some MiB between source and disk,
/// whatever the number of its readers, and keeps a core busy.
fn taken_at_once() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).saturating_mul(2).clamp(4, 16)
}

/// A store, a far source, and what is coming in from there. Clones are the same.
#[derive(Clone)]
pub struct Shared {
    store: Arc<dyn BlobStore>,
    far: Arc<dyn BlobSource>,
    flights: Flights,
    tasks: TaskTracker,
    /// As many blobs as are taken in at once.
    taking: Arc<Semaphore>,
    /// Set once nobody new is to come.
    ending: CancellationToken,
}

impl Shared {
    /// Takes into `store` what is asked for, from `far`.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>, far: Arc<dyn BlobSource>) -> Self {
        let (flights, tasks, ending) = Default::default();
        let taking = Arc::new(Semaphore::new(taken_at_once()));
        Self { store, far, flights, tasks, taking, ending }
    }

    /// Has what `store` has, and what is offered by [`begin`](Self::begin).
    #[must_use]
    pub fn over(store: Arc<dyn BlobStore>) -> Self {
        Self::new(store, Arc::new(Nothing))
    }

    /// The same store and flights, with another far source for what is not there yet.
    #[must_use]
    pub fn with_far(&self, far: Arc<dyn BlobSource>) -> Self {
        Self { far, ..self.clone() }
    }

    /// Offers a blob that will pass by; others follow it from now on. `None` when it is kept
    /// already, or is coming in.
    ///
    /// # Errors
    /// [`BlobError::Storage`].
    pub async fn begin(&self, expected: &Descriptor) -> Result<Option<SharedIngest>, BlobError> {
        let Ok((flight, entry)) = self.flights.begin(expected.digest) else {
            return Ok(None);
        };
        let found = self.store.stat(&expected.digest).await;
        if let Some(_size) = found.map_err(|error| entry.fail(error))? {
            entry.kept();
            return Ok(None);
        }
        let ingest = self.store.ingest_of(expected).await.map_err(|error| entry.fail(error))?;
        let mut ingest = SharedIngest::new(ingest, entry, expected);
        // Its own reader, so that it goes on when nobody follows.
        ingest.flight = Some(flight);
        Ok(Some(ingest))
    }

    /// Whether the blob is coming in now.
    #[must_use]
    pub fn in_progress(&self, digest: &Digest) -> bool {
        self.flights.join(digest).is_some()
    }

    /// Waits until nothing is being taken in from the far source any more: for an orderly end. What
    /// nobody reads ends at once.
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
            // Those who follow are told; here is nobody else to tell.
            tracing::debug!(%error, "a blob was not taken in");
        }
    }

    /// A blob that was read from the far source whole and is right; none where the store has it.
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
/// It is committed, or those who follow are told that it was given up.
pub struct SharedIngest {
    ingest: Box<dyn Ingest>,
    entry: Arc<Entry>,
    expected: Descriptor,
    /// Keeps an offered ingest going without readers; absent where a reader asked for it.
    flight: Option<Arc<Flight>>,
}

impl SharedIngest {
    fn new(ingest: Box<dyn Ingest>, entry: impl Into<Arc<Entry>>, expected: &Descriptor) -> Self {
        let entry = entry.into();
        entry.growing(ingest.written(), expected.size, 0);
        Self { ingest, entry, expected: expected.clone(), flight: None }
    }

    /// Takes the next bytes, and shows them to those who follow.
    ///
    /// # Errors
    /// [`BlobError::SizeMismatch`] when there are more than expected, [`BlobError::Storage`]. The
    /// ingest is of no more use then.
    pub async fn write(&mut self, frame: Bytes) -> Result<(), BlobError> {
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

    /// Lets those who follow have their last frame.
    async fn verify(&mut self) -> Result<(), BlobError> {
        let verified = self.ingest.verify(&self.expected).await;
        verified.map_err(|error| self.entry.fail(error))?;
        self.entry.verified(self.ingest.written(), self.expected.size);
        Ok(())
    }

    /// Lets those who follow have their last frame, and keeps the blob.
    ///
    /// # Errors
    /// As [`Ingest::commit`].
    pub async fn commit(mut self) -> Result<(), BlobError> {
        self.verify().await?;
        let Self { ingest, entry, expected, flight } = self;
        let written = ingest.written();
        ingest.commit(&expected).await.map_err(|error| entry.fail(error))?;
        entry.done(written, expected.size);
        drop(flight);
        Ok(())
    }
}

impl fmt::Debug for SharedIngest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedIngest").field("expected", &self.expected).finish_non_exhaustive()
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
