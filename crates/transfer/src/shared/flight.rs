//! A blob that is coming in: who takes it in ([`Entry`]) and who reads it meanwhile ([`Flight`]).
//!
//! ```text
//!   Starting ─► Growing ─► Verified ─► Done     it is right: all may be read | it was committed
//!      │           └─────► Failed               it was given up, or is not what it should have been
//!      └─► Kept | Failed                        it was in the store all the time | it is nowhere
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::blob::{BlobError, BlobStream, MAX_FRAME, Written};
use crate::digest::Digest;

/// How long an ingest continues without readers: a range that was restarted, or lost its
/// connection, comes back within seconds, and what was read of the layer until then is not read twice.
const LINGER: Duration = Duration::from_secs(10);

/// The blobs that are coming in, each of them once.
#[derive(Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Digest, Weak<Flight>>>>);

impl Flights {
    /// The flight of a blob, if there is one.
    pub(super) fn join(&self, digest: &Digest) -> Option<Arc<Flight>> {
        self.lock().get(digest).and_then(Weak::upgrade)
    }

    /// Begins a flight, or joins the one that there is.
    pub(super) fn begin(&self, digest: Digest) -> Result<(Arc<Flight>, Entry), Arc<Flight>> {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(&digest).and_then(Weak::upgrade) {
            return Err(flight);
        }
        let (state, _) = watch::channel(State::Starting);
        let flight = Arc::new(Flight { digest, state: state.clone() });
        let this = Arc::downgrade(&flight);
        flights.insert(digest, this.clone());
        Ok((flight, Entry { flights: self.clone(), this, digest, state }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Weak<Flight>>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

#[derive(Clone)]
pub(super) enum State {
    /// Nothing is known yet.
    Starting,
    /// It is in the store.
    Kept,
    /// `so_far` of its `size` bytes can be read.
    Growing { written: Arc<dyn Written>, size: u64, so_far: u64 },
    /// It is what it should be, so all of it can be read; that it survives a power cut is the
    /// store's own matter, and nobody waits for the disk.
    Verified { written: Arc<dyn Written>, size: u64 },
    /// The end: it was committed, or at least verified.
    Done { written: Arc<dyn Written>, size: u64 },
    /// It will not come.
    Failed(Arc<BlobError>),
}

impl State {
    fn is_final(&self) -> bool {
        matches!(self, Self::Kept | Self::Done { .. } | Self::Failed(_))
    }
}

/// The writing end. Dropped before a final state, it fails for its followers.
pub(super) struct Entry {
    flights: Flights,
    /// To take only ourselves from the table: deserted, another flight may have begun.
    this: Weak<Flight>,
    digest: Digest,
    state: watch::Sender<State>,
}

impl Entry {
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn growing(&self, written: Arc<dyn Written>, size: u64, so_far: u64) {
        self.state.send_replace(State::Growing { written, size, so_far });
    }

    pub(super) fn kept(&self) {
        self.end(State::Kept);
    }

    pub(super) fn verified(&self, written: Arc<dyn Written>, size: u64) {
        self.state.send_replace(State::Verified { written, size });
    }

    pub(super) fn done(&self, written: Arc<dyn Written>, size: u64) {
        self.end(State::Done { written, size });
    }

    /// Tells all who follow; returns the error for whoever was writing.
    pub(super) fn fail(&self, error: BlobError) -> BlobError {
        let error = Arc::new(match error {
            // An ingest knows only the digest of what it has so far, which names nothing.
            BlobError::Storage { path, source, .. } => {
                BlobError::Storage { digest: self.digest, path, source }
            }
            error => error,
        });
        self.end(State::Failed(error.clone()));
        error.again()
    }

    /// Waits until nobody has been reading for some seconds, or nobody reads at the end.
    pub(super) async fn deserted(&self, ending: &CancellationToken) {
        loop {
            self.state.closed().await;
            tokio::select! {
                () = tokio::time::sleep(LINGER) => {}
                () = ending.cancelled() => {}
            }
            if self.state.is_closed() {
                return;
            }
        }
    }

    /// Leaves the table before telling, so that whoever hears of a failure and asks again does not
    /// join this one. The first final state stays.
    fn end(&self, state: State) {
        let mut flights = self.flights.lock();
        if flights.get(&self.digest).is_some_and(|flight| flight.ptr_eq(&self.this)) {
            flights.remove(&self.digest);
        }
        drop(flights);
        self.state.send_if_modified(|current| {
            let open = !current.is_final();
            if open {
                *current = match (&*current, state) {
                    // Followers have all bytes, even if the store could not keep them.
                    (State::Verified { written, size }, State::Failed(_)) => {
                        State::Done { written: written.clone(), size: *size }
                    }
                    (_, state) => state,
                };
            }
            open
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let error = BlobError::unavailable(self.digest, "taking it in was given up");
        self.end(State::Failed(Arc::new(error)));
    }
}

/// The reading end: whoever holds it keeps the flight in the table, whoever follows it keeps it
/// going.
pub(super) struct Flight {
    digest: Digest,
    /// To follow; only the entry changes it.
    state: watch::Sender<State>,
}

impl Flight {
    /// The blob's size in bytes, when it is known already.
    pub(super) fn size(&self) -> Option<u64> {
        match &*self.state.borrow() {
            State::Growing { size, .. }
            | State::Verified { size, .. }
            | State::Done { size, .. } => Some(*size),
            _ => None,
        }
    }

    /// Waits until it is known whether and from where the blob can be read.
    pub(super) async fn started(&self) -> Result<State, BlobError> {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| !matches!(state, State::Starting)).await;
        let state = state.expect("invariant: an entry is final before it is dropped").clone();
        match state {
            State::Failed(error) => Err(error.again()),
            state => Ok(state),
        }
    }
}

/// Reads a started flight from `offset` on.
pub(super) fn follow(flight: Arc<Flight>, offset: u64) -> Result<BlobStream, BlobError> {
    let digest = flight.digest;
    match flight.size() {
        Some(size) if size < offset => {
            return Err(BlobError::OffsetBeyondEnd { digest, size, offset });
        }
        _ => {}
    }
    let state = flight.state.subscribe();
    let follower = Follower { _flight: flight, state, digest, offset };
    let frames = stream::try_unfold(follower, async |mut follower| {
        Ok(follower.next().await?.map(|frame| (frame, follower)))
    });
    Ok(frames.boxed())
}

struct Follower {
    _flight: Arc<Flight>,
    state: watch::Receiver<State>,
    digest: Digest,
    offset: u64,
}

impl Follower {
    async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        loop {
            let state = self.state.borrow_and_update().clone();
            match state {
                // Whole frames only, and never the last bytes: those wait for the hash.
                State::Growing { written, so_far, .. }
                    if self.offset + (MAX_FRAME as u64) < so_far =>
                {
                    return self.read(&*written, so_far).await.map(Some);
                }
                State::Verified { size, .. } | State::Done { size, .. } if self.offset == size => {
                    return Ok(None);
                }
                State::Verified { written, size } | State::Done { written, size } => {
                    return self.read(&*written, size).await.map(Some);
                }
                State::Failed(error) => return Err(error.again()),
                State::Starting | State::Kept | State::Growing { .. } => {}
            }
            let changed = self.state.changed().await;
            changed.expect("invariant: an entry is final before it is dropped");
        }
    }

    async fn read(&mut self, written: &dyn Written, end: u64) -> Result<Bytes, BlobError> {
        let len = usize::try_from(end - self.offset).map_or(MAX_FRAME, |left| left.min(MAX_FRAME));
        let frame = written.read_at(self.offset, len).await;
        let frame = frame.map_err(|error| BlobError::unavailable(self.digest, error))?;
        if frame.is_empty() {
            let error = "bytes that were written could not be read back";
            return Err(BlobError::unavailable(self.digest, error));
        }
        self.offset += frame.len() as u64;
        Ok(frame)
    }
}
