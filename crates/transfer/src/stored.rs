//! Images whose blobs are read from a slow source once, and from a store ever after.
//!
//! ```text
//!   image() ────────────────────────────────► inner
//!   blobs() ─► store has it? ─► store
//!                   └─► one read of inner's for all who ask ([`crate::shared`]), kept on the way
//! ```
//! For a source that gives single layers: an engine's own files or content service, a folder, an
//! archive. What was collected or found to be corrupt is read from there again.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::blob::{BlobSource, BlobStore};
use crate::digest::ConfigDigest;
use crate::image::{Image, LayerForm};
use crate::metered::{Counters, Metered};
use crate::reference::Reference;
use crate::shared::Shared;
use crate::source::{ImageSource, ImageSummary, SourceError};

/// An image source with a blob store in front. Clones are the same.
#[derive(Clone)]
pub struct Stored<S> {
    inner: S,
    shared: Shared,
    read: Arc<Counters>,
}

impl<S: ImageSource> Stored<S> {
    /// Keeps in `store` what is read of `inner`'s blobs.
    #[must_use]
    pub fn new(inner: S, store: Arc<dyn BlobStore>) -> Self {
        Self { inner, shared: Shared::over(store), read: Arc::default() }
    }

    /// What was read of `inner`'s blobs.
    #[must_use]
    pub fn read(&self) -> &Arc<Counters> {
        &self.read
    }

    /// Waits until nothing is being taken in: for an orderly end, after the last reader has gone.
    pub async fn drained(&self) {
        self.shared.drained().await;
    }
}

impl<S> fmt::Debug for Stored<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("shared", &self.shared).finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: ImageSource> ImageSource for Stored<S> {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.inner.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.inner.resolve(reference).await
    }

    async fn image(
        &self,
        config_digest: &ConfigDigest,
        form: LayerForm,
    ) -> Result<Image, SourceError> {
        self.inner.image(config_digest, form).await
    }

    fn blobs(&self, config_digest: &ConfigDigest) -> Arc<dyn BlobSource> {
        let far = Metered::with(self.inner.blobs(config_digest), self.read.clone());
        Arc::new(self.shared.with_far(Arc::new(far)))
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;
    use crate::fixture::{self, MemorySource, drain};
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn a_layer_is_read_from_the_source_once_however_many_ask() {
        let source = MemorySource::default();
        let (image, blobs) = fixture::image(1, &[1000, 2000]);
        source.insert("app:1", (image.clone(), blobs));
        let store = MemoryStore::default();
        let stored = Stored::new(source, Arc::new(store.clone()));
        let given = stored.image(&image.config_digest, LayerForm::AsStored).await.unwrap();
        assert_eq!(given, image);
        for _ in 0..2 {
            let reads = (0..4).flat_map(|_| &image.layers).map(|layer| {
                let blobs = stored.blobs(&image.config_digest);
                async move { drain(blobs.open(&layer.blob.digest, 0).await.unwrap()).await.1 }
            });
            join_all(reads).await.into_iter().for_each(Result::unwrap);
        }
        let read = stored.read().snapshot();
        let whole: u64 = image.layers.iter().map(|layer| layer.blob.size).sum();
        assert_eq!((read.opens, read.bytes), (2, whole));
        assert_eq!(store.list().len(), 2);

        store.remove(&image.layers[0].blob.digest).await.unwrap();
        let blobs = stored.blobs(&image.config_digest);
        let (_, end) = drain(blobs.open(&image.layers[0].blob.digest, 0).await.unwrap()).await;
        end.unwrap();
        assert_eq!(stored.read().snapshot().opens, 3);
    }
}
