//! Blobs in memory: for tests, and for documents that are at hand anyway.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;

use super::lease::Leases;
use crate::blob::{
    BlobError, BlobSource, BlobStore, BlobStream, Ingest, MAX_FRAME, Written, in_frames,
};
use crate::descriptor::Descriptor;
use crate::digest::{Digest, Hasher};

/// A store that forgets everything at its end. Clones are the same store.
#[derive(Clone, Default)]
pub struct MemoryStore {
    blobs: Arc<Mutex<HashMap<Digest, Bytes>>>,
    leases: Leases,
}

impl MemoryStore {
    /// Keeps bytes that are at hand, under the digest that they have.
    pub fn insert(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.blobs().insert(digest, bytes);
        digest
    }

    /// Who counts on which blobs.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The committed blobs, sorted.
    #[must_use]
    pub fn list(&self) -> Vec<Digest> {
        let mut digests: Vec<Digest> = self.blobs().keys().copied().collect();
        digests.sort_unstable();
        digests
    }

    fn blobs(&self) -> MutexGuard<'_, HashMap<Digest, Bytes>> {
        self.blobs.lock().expect("no holder of this lock panics")
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("blobs", &self.blobs().len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobSource for MemoryStore {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        Ok(self.blobs().get(digest).map(|bytes| bytes.len() as u64))
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let digest = *digest;
        let bytes = self.blobs().get(&digest).cloned().ok_or(BlobError::NotFound { digest })?;
        // Verified when it was committed, and memory does not change beneath us.
        in_frames(digest, &bytes, offset)
    }
}

#[async_trait]
impl BlobStore for MemoryStore {
    async fn ingest(&self) -> Result<Box<dyn Ingest>, BlobError> {
        Ok(Box::new(MemoryIngest {
            store: self.clone(),
            hasher: Hasher::default(),
            bytes: Arc::default(),
        }))
    }

    async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        self.leases.unless_leased(digest, || self.blobs().remove(digest));
        Ok(())
    }
}

struct MemoryIngest {
    store: MemoryStore,
    hasher: Hasher,
    bytes: Arc<MemoryWritten>,
}

#[derive(Default)]
struct MemoryWritten(Mutex<Vec<u8>>);

impl MemoryWritten {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

#[async_trait]
impl Ingest for MemoryIngest {
    async fn write(&mut self, frame: Bytes) -> Result<(), BlobError> {
        self.hasher.update(&frame);
        self.bytes.lock().extend_from_slice(&frame);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.bytes.lock().len() as u64
    }

    fn digest(&self) -> Digest {
        self.hasher.digest()
    }

    fn written(&self) -> Arc<dyn Written> {
        self.bytes.clone()
    }

    async fn verify(&mut self, expected: &Descriptor) -> Result<(), BlobError> {
        super::check_expected(expected, self.size(), || self.digest())
    }

    async fn commit(mut self: Box<Self>, expected: &Descriptor) -> Result<(), BlobError> {
        self.verify(expected).await?;
        let bytes = Bytes::copy_from_slice(&self.bytes.lock());
        self.store.blobs().insert(expected.digest, bytes);
        Ok(())
    }
}

#[async_trait]
impl Written for MemoryWritten {
    async fn read_at(&self, offset: u64, len: usize) -> std::io::Result<Bytes> {
        let bytes = self.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = bytes.len().min(start.saturating_add(len.min(MAX_FRAME)));
        Ok(Bytes::copy_from_slice(&bytes[start..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::contract;

    #[tokio::test]
    async fn memory_is_a_store() {
        contract::store(&MemoryStore::default()).await;
    }

    #[tokio::test]
    async fn a_leased_blob_stays() {
        let store = MemoryStore::default();
        let digest = store.insert("layer");
        let lease = store.leases().hold("test", [digest]);
        store.remove(&digest).await.unwrap();
        assert_eq!(store.list(), [digest]);
        drop(lease);
        store.remove(&digest).await.unwrap();
        assert_eq!(store.list(), []);
    }
}
