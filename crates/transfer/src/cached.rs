//! A far source with a near store in front of it, for one reader at a time.
//!
//! A blob that is near is read there. Otherwise the far stream is forwarded and kept on the way:
//! the reader's own polls drive both, so nothing runs ahead of a reader and nothing is left running
//! when it goes. A near store that fails (a full disk) costs the copy, not the read. Where many
//! readers want the same blob at once, use [`crate::shared`]: here each would fetch it.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};

use crate::blob::{BlobError, BlobSource, BlobStore, BlobStream, Ingest};
use crate::descriptor::{Descriptor, MediaType};
use crate::digest::Digest;

/// A blob source made of a near store and a far source.
#[derive(Clone)]
pub struct Cached<N, F> {
    near: N,
    far: F,
}

impl<N: BlobStore, F: BlobSource> Cached<N, F> {
    /// Puts `near` in front of `far`.
    pub fn new(near: N, far: F) -> Self {
        Self { near, far }
    }
}

impl<N, F> fmt::Debug for Cached<N, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").finish_non_exhaustive()
    }
}

#[async_trait]
impl<N: BlobStore, F: BlobSource> BlobSource for Cached<N, F> {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        match self.near.stat(digest).await {
            Ok(Some(size)) => Ok(Some(size)),
            Ok(None) | Err(_) => self.far.stat(digest).await,
        }
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        match self.near.open(digest, offset).await {
            Err(BlobError::NotFound { .. }) => {}
            Err(error @ (BlobError::Storage { .. } | BlobError::Unavailable { .. })) => {
                give_up(digest, &error);
                return self.far.open(digest, offset).await;
            }
            opened => return opened,
        }
        let far = self.far.open(digest, offset).await?;
        if offset != 0 {
            // A part of a blob cannot be kept; the reader asked for this part only.
            return Ok(far);
        }
        let ingest = self.near.ingest().await;
        let keeping = Keeping { digest: *digest, far, copy: None, held: None };
        Ok(match ingest {
            Ok(ingest) => Keeping { copy: Some(ingest), ..keeping }.into_stream(),
            Err(error) => {
                give_up(digest, &error);
                keeping.far
            }
        })
    }

    fn doubt(&self, digest: &Digest) {
        self.near.doubt(digest);
        self.far.doubt(digest);
    }
}

/// A far stream on its way to the reader, and its copy.
struct Keeping {
    digest: Digest,
    far: BlobStream,
    /// Absent once it is committed, or the near store failed.
    copy: Option<Box<dyn Ingest>>,
    /// The last frame waits for the commit: a reader that has all bytes may stop polling.
    held: Option<Bytes>,
}

impl Keeping {
    fn into_stream(self) -> BlobStream {
        stream::try_unfold(self, async |mut state| {
            Ok(state.next().await?.map(|frame| (frame, state)))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        loop {
            let Some(frame) = self.far.next().await else {
                self.commit().await?;
                self.far = stream::empty().boxed();
                return Ok(self.held.take());
            };
            let frame = frame?;
            self.keep(frame.clone()).await;
            if let Some(ready) = self.held.replace(frame) {
                return Ok(Some(ready));
            }
        }
    }

    async fn keep(&mut self, frame: Bytes) {
        let Some(copy) = &mut self.copy else {
            return;
        };
        if let Err(error) = copy.write(frame).await {
            give_up(&self.digest, &error);
            self.copy = None;
        }
    }

    async fn commit(&mut self) -> Result<(), BlobError> {
        let Some(copy) = self.copy.take() else {
            return Ok(());
        };
        let media_type = MediaType::new("application/octet-stream");
        let expected = Descriptor { media_type, digest: self.digest, size: copy.size() };
        match copy.commit(&expected).await {
            // The far source did not verify what it gave.
            Err(error @ BlobError::DigestMismatch { .. }) => Err(error),
            Err(error) => {
                give_up(&self.digest, &error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

fn give_up(digest: &Digest, error: &BlobError) {
    tracing::warn!(blob.digest = %digest, %error, "blob is passed on without being kept");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Faulty, contract, drain};
    use crate::metered::Metered;
    use crate::store::{FsStore, MemoryStore};

    fn far() -> MemoryStore {
        let far = MemoryStore::default();
        for blob in contract::blobs() {
            far.insert(blob);
        }
        far
    }

    #[tokio::test]
    async fn cached_is_a_source() {
        let cached = Cached::new(MemoryStore::default(), far());
        contract::source(&cached, &contract::blobs()).await;
        contract::source(&cached, &contract::blobs()).await;
    }

    #[tokio::test]
    async fn what_was_read_once_is_near() {
        let far = Metered::new(far());
        let counters = far.counters().clone();
        let cached = Cached::new(MemoryStore::default(), far);
        let blob = contract::blobs().pop().unwrap();
        let digest = Digest::of(&blob);
        for _ in 0..3 {
            let (bytes, end) = drain(cached.open(&digest, 0).await.unwrap()).await;
            end.unwrap();
            assert_eq!(bytes, blob);
        }
        assert_eq!(counters.snapshot().opens, 1);
    }

    #[tokio::test]
    async fn a_broken_near_store_costs_the_copy_and_not_the_read() {
        let folder = tempfile::tempdir().unwrap();
        let near = FsStore::open(folder.path().join("store")).await.unwrap();
        let cached = Cached::new(near, far());
        let blob = contract::blobs().pop().unwrap();
        for folder in ["store/ingest", "store/blobs"].map(|name| folder.path().join(name)) {
            std::fs::remove_dir_all(&folder).unwrap();
            std::fs::write(&folder, "in the way").unwrap();
            let stream = cached.open(&Digest::of(&blob), 0).await.unwrap();
            let (bytes, end) = drain(stream).await;
            end.unwrap();
            assert_eq!(bytes, blob);
        }
    }

    #[tokio::test]
    async fn what_was_not_read_to_its_end_is_not_kept() {
        let near = MemoryStore::default();
        let blob = contract::blobs().pop().unwrap();
        let digest = Digest::of(&blob);
        for far in [Faulty::cut_off_at(far(), 10), Faulty::corrupt_at(far(), 10)] {
            let cached = Cached::new(near.clone(), far);
            let (_, end) = drain(cached.open(&digest, 0).await.unwrap()).await;
            end.unwrap_err();
            assert_eq!(near.list(), []);
        }
        let cached = Cached::new(near.clone(), far());
        drop(cached.open(&digest, 0).await.unwrap().next().await);
        assert_eq!(near.list(), []);
    }
}
