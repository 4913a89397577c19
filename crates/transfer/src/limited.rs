//! Bounds on streams and bytes in flight.
//!
//! A stream reserves what it may have in flight when it is opened, and keeps the reservation until
//! it is dropped. So a stream that began can always go on: bounds that are taken frame by frame can
//! leave every stream waiting for another's last frame.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::blob::{BlobError, BlobSource, BlobStream, MAX_FRAME};
use crate::digest::Digest;

/// What one stream may have in flight, in bytes: two frames that a source reads ahead, one that is
/// at work between, and three in a connection: being written, queued, and looked at for the next.
pub const WINDOW: usize = 6 * MAX_FRAME;

/// Reservations are counted in units of this many bytes, so that any limit fits a semaphore.
const UNIT: u64 = 1024;

/// How many streams, and how many bytes in flight. Clones share the same bounds.
#[derive(Clone, Debug)]
pub struct Limits {
    streams: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// All that `bytes` has, in [`UNIT`]s: no stream reserves more.
    most: u32,
}

impl Limits {
    /// At most `streams` streams with `bytes` bytes in flight together; at least one stream.
    ///
    /// Fewer bytes than [`WINDOW`] for each stream lower the number of large blobs that are read at
    /// once, not that of small ones.
    #[must_use]
    pub fn new(streams: usize, bytes: u64) -> Self {
        let most = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        Self {
            streams: Arc::new(Semaphore::new(streams.clamp(1, Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(most as usize)),
            most,
        }
    }

    /// How many streams may begin now without waiting for another's end.
    #[must_use]
    pub fn free_streams(&self) -> usize {
        self.streams.available_permits()
    }

    /// Waits until one more stream with `bytes` still to come may begin: it is given as many as it
    /// may have in flight, [`WINDOW`] at most.
    pub async fn reserve(&self, bytes: u64) -> Reserved {
        let units = bytes.min(WINDOW as u64).div_ceil(UNIT);
        let units = u32::try_from(units).unwrap_or(self.most).clamp(1, self.most);
        let open = "invariant: these semaphores are never closed";
        // Always in this order: two openers never wait for each other.
        let stream = self.streams.clone().acquire_owned().await.expect(open);
        let bytes = self.bytes.clone().acquire_many_owned(units).await.expect(open);
        Reserved { _permits: [stream, bytes] }
    }
}

/// Room for one stream; dropping it makes room for the next.
#[derive(Debug)]
pub struct Reserved {
    _permits: [OwnedSemaphorePermit; 2],
}

/// A source whose streams stay within [`Limits`]; opening waits its turn.
#[derive(Clone)]
pub struct Limited<S> {
    source: S,
    limits: Limits,
}

impl<S: BlobSource> Limited<S> {
    /// Bounds `source`. Nest them for bounds per caller within bounds for all.
    pub fn new(source: S, limits: Limits) -> Self {
        Self { source, limits }
    }
}

impl<S> fmt::Debug for Limited<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<S: BlobSource> Limited<S> {
    /// Room for the rest of a blob.
    async fn turn(&self, digest: &Digest, offset: u64) -> Result<Reserved, BlobError> {
        let size = self.source.stat(digest).await?;
        let left = size.map_or(0, |size| size.saturating_sub(offset));
        Ok(self.limits.reserve(left).await)
    }
}

#[async_trait]
impl<S: BlobSource> BlobSource for Limited<S> {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.source.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let reserved = self.turn(digest, offset).await?;
        let stream = self.source.open(digest, offset).await?;
        Ok(Permitted { stream, _reserved: reserved }.boxed())
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let reserved = self.turn(digest, offset).await?;
        let stream = self.source.open_unverified(digest, offset).await?;
        Ok(Permitted { stream, _reserved: reserved }.boxed())
    }

    fn doubt(&self, digest: &Digest) {
        self.source.doubt(digest);
    }
}

/// A stream that gives its reservation back when it is dropped.
struct Permitted {
    stream: BlobStream,
    _reserved: Reserved,
}

impl Stream for Permitted {
    type Item = Result<Bytes, BlobError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.poll_next_unpin(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::fixture::contract;
    use crate::store::MemoryStore;

    fn store() -> MemoryStore {
        let store = MemoryStore::default();
        for blob in contract::blobs() {
            store.insert(blob);
        }
        store
    }

    #[tokio::test]
    async fn limited_is_a_source() {
        let limited = Limited::new(store(), Limits::new(8, 1 << 30));
        contract::source(&limited, &contract::blobs()).await;
    }

    #[tokio::test]
    async fn a_stream_more_than_allowed_waits_for_another_to_go() {
        let blob = contract::blobs().pop().unwrap();
        let limited = Limited::new(store(), Limits::new(2, 1 << 30));
        let digest = Digest::of(&blob);
        let first = limited.open(&digest, 0).await.unwrap();
        let _second = limited.open(&digest, 0).await.unwrap();
        assert!(limited.open(&digest, 0).now_or_never().is_none());
        drop(first);
        let third = limited.open(&digest, 0).now_or_never();
        assert!(third.expect("there is room again").is_ok());
    }

    #[tokio::test]
    async fn bytes_bound_large_blobs_and_let_small_ones_pass() {
        let store = store();
        let large = store.insert(vec![0; WINDOW * 2]);
        let small = store.insert("small");
        let limited = Limited::new(store, Limits::new(100, WINDOW as u64 + 2 * UNIT));
        let _large = limited.open(&large, 0).await.unwrap();
        assert!(limited.open(&large, 0).now_or_never().is_none());
        let _small = limited.open(&small, 0).now_or_never().expect("a small one fits").unwrap();
    }

    #[tokio::test]
    async fn a_blob_larger_than_all_that_is_allowed_still_passes_alone() {
        let store = store();
        let large = store.insert(vec![0; WINDOW * 2]);
        let limited = Limited::new(store, Limits::new(1, 1));
        drop(limited.open(&large, 0).await.unwrap());
        assert_eq!(limited.limits.free_streams(), 1);
        limited.open(&Digest::of(b"unknown"), 0).await.err().expect("it is not here");
        assert_eq!(limited.limits.free_streams(), 1, "a failed open gives its room back");
    }
}
