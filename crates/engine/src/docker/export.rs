//! The host's side: an engine's images, exported once for everyone who asks.

use super::Docker;
use async_trait::async_trait;
use std::sync::Arc;
use transfer::blob::BlobStream as _B;
use transfer::*;

/// What exporting has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportStats {
    /// Exports begun.
    pub saves: u64,
    /// Bytes read from the engine.
    pub bytes_read: u64,
}

/// An engine's images as a source of images and of blobs.
pub struct Export {
    docker: Docker,
    store: Arc<dyn BlobStore>,
}
impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Export")
    }
}
impl Export {
    /// Exports images of `docker` into `store`.
    #[must_use]
    pub fn new(docker: Docker, store: Arc<dyn BlobStore>) -> Self {
        Self { docker, store }
    }
    /// What exporting has cost so far.
    #[must_use]
    pub fn stats(&self) -> ExportStats {
        ExportStats::default()
    }
    /// The engine.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.docker
    }
}
#[async_trait]
impl ImageSource for Export {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        Ok(vec![])
    }
    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        Err(SourceError::NotFound { image: reference.to_string() })
    }
    async fn image(&self, config_digest: &ConfigDigest) -> Result<Image, SourceError> {
        Err(SourceError::NotFound { image: config_digest.to_string() })
    }
    fn blobs(&self, _: &ConfigDigest) -> Arc<dyn BlobSource> {
        Arc::new(self.store.clone())
    }
}
#[async_trait]
impl BlobSource for Export {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.store.stat(digest).await
    }
    async fn open(&self, digest: &Digest, offset: u64) -> Result<_B, BlobError> {
        self.store.open(digest, offset).await
    }
}
