//! What went through a source or into a store: counters, and one span for each blob.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tracing::Span;

use crate::blob::{BlobError, BlobSource, BlobStore, BlobStream, Ingest, Written};
use crate::descriptor::Descriptor;
use crate::digest::Digest;

/// Counts what happened to a source's blobs; shared by all who look at it.
#[derive(Debug, Default)]
pub struct Counters {
    opens: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

/// The counters at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Streams that were opened.
    pub opens: u64,
    /// Bytes that were handed over.
    pub bytes: u64,
    /// Opens that failed, and streams that ended with an error.
    pub errors: u64,
}

impl Counters {
    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            opens: self.opens.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }
}

/// A source that is counted and traced: a span `blob` from each open to the stream's end, with
/// `blob.digest`, `blob.offset` and, once it ended well, `blob.size`.
#[derive(Clone)]
pub struct Metered<S> {
    source: S,
    counters: Arc<Counters>,
}

impl<S: BlobSource> Metered<S> {
    /// Observes `source` with counters of its own.
    pub fn new(source: S) -> Self {
        Self::with(source, Arc::default())
    }

    /// Observes `source` with counters that others add to as well.
    pub fn with(source: S, counters: Arc<Counters>) -> Self {
        Self { source, counters }
    }

    /// What was counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

impl<S> fmt::Debug for Metered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl<S> Metered<S> {
    /// The stream that `opening` comes to, counted.
    async fn observed(
        &self,
        digest: &Digest,
        offset: u64,
        opening: impl Future<Output = Result<BlobStream, BlobError>>,
    ) -> Result<BlobStream, BlobError> {
        let span = tracing::debug_span!(
            "blob",
            blob.digest = %digest,
            blob.offset = offset,
            blob.size = tracing::field::Empty,
        );
        self.counters.opens.fetch_add(1, Ordering::Relaxed);
        let opened = tracing::Instrument::instrument(opening, span.clone());
        let stream = opened.await.inspect_err(|_| {
            self.counters.errors.fetch_add(1, Ordering::Relaxed);
        })?;
        Ok(Counted { stream, span, counters: self.counters.clone(), offset }.boxed())
    }
}

#[async_trait]
impl<S: BlobSource> BlobSource for Metered<S> {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.source.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.observed(digest, offset, self.source.open(digest, offset)).await
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.observed(digest, offset, self.source.open_unverified(digest, offset)).await
    }

    fn doubt(&self, digest: &Digest) {
        self.source.doubt(digest);
    }
}

/// A stream whose frames are counted; frames are never logged.
struct Counted {
    stream: BlobStream,
    span: Span,
    counters: Arc<Counters>,
    offset: u64,
}

impl Stream for Counted {
    type Item = Result<Bytes, BlobError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let polled = this.span.in_scope(|| this.stream.poll_next_unpin(cx));
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.offset += frame.len() as u64;
                this.counters.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
            }
            Poll::Ready(Some(Err(_))) => {
                this.counters.errors.fetch_add(1, Ordering::Relaxed);
            }
            Poll::Ready(None) => {
                this.span.record("blob.size", this.offset);
            }
            Poll::Pending => {}
        }
        polled
    }
}

/// What was taken into a store.
#[derive(Debug, Default)]
pub struct IngestCounters(Mutex<Ingests>);

/// The ingests of a store at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingests {
    /// How often each digest was committed, ones that were there already included: 1 for each when
    /// nothing was taken in twice. As long as the list of blobs ever taken in.
    pub committed: HashMap<Digest, u64>,
    /// Ingests that were given up or were not what they should have been.
    pub dropped: u64,
    /// Bytes that were written, dropped ingests included.
    pub bytes: u64,
}

impl IngestCounters {
    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> Ingests {
        self.lock().clone()
    }

    /// How often `digest` was committed.
    #[must_use]
    pub fn committed(&self, digest: &Digest) -> u64 {
        self.lock().committed.get(digest).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Ingests> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// A store whose ingests are counted by digest, and its reads as by [`Metered`].
#[derive(Clone)]
pub struct MeteredStore<S> {
    store: Metered<S>,
    ingests: Arc<IngestCounters>,
}

impl<S: BlobStore> MeteredStore<S> {
    /// Observes `store`.
    pub fn new(store: S) -> Self {
        Self { store: Metered::new(store), ingests: Arc::default() }
    }

    /// What was taken in.
    pub fn ingests(&self) -> &Arc<IngestCounters> {
        &self.ingests
    }

    /// What was read.
    pub fn counters(&self) -> &Arc<Counters> {
        self.store.counters()
    }

    fn counted(&self, ingest: Box<dyn Ingest>) -> Box<dyn Ingest> {
        Box::new(CountedIngest { ingest: Some(ingest), counters: self.ingests.clone() })
    }
}

impl<S> fmt::Debug for MeteredStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeteredStore").field("ingests", &self.ingests).finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: BlobStore> BlobSource for MeteredStore<S> {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.store.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.store.open(digest, offset).await
    }

    fn doubt(&self, digest: &Digest) {
        self.store.doubt(digest);
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for MeteredStore<S> {
    async fn ingest(&self) -> Result<Box<dyn Ingest>, BlobError> {
        Ok(self.counted(self.store.source.ingest().await?))
    }

    async fn ingest_of(&self, expected: &Descriptor) -> Result<Box<dyn Ingest>, BlobError> {
        Ok(self.counted(self.store.source.ingest_of(expected).await?))
    }

    async fn ingest_verified(&self, expected: &Descriptor) -> Result<Box<dyn Ingest>, BlobError> {
        Ok(self.counted(self.store.source.ingest_verified(expected).await?))
    }

    async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        self.store.source.remove(digest).await
    }
}

struct CountedIngest {
    /// Absent once it is committed; so the drop of this knows.
    ingest: Option<Box<dyn Ingest>>,
    counters: Arc<IngestCounters>,
}

impl CountedIngest {
    fn inner(&self) -> &dyn Ingest {
        self.ingest.as_deref().expect("invariant: only commit takes the ingest, and consumes this")
    }
}

impl Drop for CountedIngest {
    fn drop(&mut self) {
        if self.ingest.is_some() {
            self.counters.lock().dropped += 1;
        }
    }
}

#[async_trait]
impl Ingest for CountedIngest {
    async fn write(&mut self, frame: Bytes) -> Result<(), BlobError> {
        let size = frame.len() as u64;
        let ingest = self.ingest.as_mut();
        ingest.expect("invariant: only commit takes the ingest").write(frame).await?;
        self.counters.lock().bytes += size;
        Ok(())
    }

    fn size(&self) -> u64 {
        self.inner().size()
    }

    fn digest(&self) -> Digest {
        self.inner().digest()
    }

    fn written(&self) -> Arc<dyn Written> {
        self.inner().written()
    }

    async fn verify(&mut self, expected: &Descriptor) -> Result<(), BlobError> {
        let ingest = self.ingest.as_mut();
        ingest.expect("invariant: only commit takes the ingest").verify(expected).await
    }

    async fn commit(mut self: Box<Self>, expected: &Descriptor) -> Result<(), BlobError> {
        let ingest = self.ingest.take().expect("invariant: an ingest is committed once");
        let result = ingest.commit(expected).await;
        let mut counters = self.counters.lock();
        match result {
            Ok(()) => *counters.committed.entry(expected.digest).or_default() += 1,
            Err(_) => counters.dropped += 1,
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Faulty, contract, descriptor_of, drain, keep};
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn metered_is_a_source_and_a_store() {
        contract::store(&MeteredStore::new(MemoryStore::default())).await;
    }

    #[tokio::test]
    async fn what_passes_is_counted() {
        let store = MemoryStore::default();
        let digest = store.insert("layer");
        let metered = Metered::new(store.clone());
        drain(metered.open(&digest, 2).await.unwrap()).await.1.unwrap();
        metered.open(&Digest::of(b"unknown"), 0).await.err().expect("it is not here");
        assert_eq!(metered.counters().snapshot(), Snapshot { opens: 2, bytes: 3, errors: 1 });

        let shared = metered.counters().clone();
        let metered = Metered::with(Faulty::cut_off_at(store, 1), shared.clone());
        drain(metered.open(&digest, 0).await.unwrap()).await.1.unwrap_err();
        assert_eq!(shared.snapshot(), Snapshot { opens: 3, bytes: 4, errors: 2 });
    }

    #[tokio::test]
    async fn ingests_are_counted_by_digest() {
        let store = MeteredStore::new(MemoryStore::default());
        let layer = keep(&store, b"layer").await;
        keep(&store, b"layer").await;
        let mut ingest = store.ingest().await.unwrap();
        ingest.write(Bytes::from_static(b"la")).await.unwrap();
        drop(ingest);
        let ingest = store.ingest().await.unwrap();
        ingest.commit(&descriptor_of(b"other")).await.unwrap_err();
        let ingests = store.ingests().snapshot();
        assert_eq!(store.ingests().committed(&layer.digest), 2);
        assert_eq!(ingests.committed.len(), 1);
        assert_eq!((ingests.dropped, ingests.bytes), (2, 12));
    }
}
