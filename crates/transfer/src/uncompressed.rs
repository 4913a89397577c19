//! Images in the form that a graphdriver wants: each compressed layer decompressed once, for all.
//!
//! ```text
//!   open(key, AsStored)      ─► inner's image and blobs
//!   open(key, Uncompressed)  ─► inner's image ─► each compressed layer: in the store by diff ID?
//!                                                   └─ no: decompressed into it, once for all callers
//!                               ─► a synthesised manifest of fixed layout
//!      its blobs             ─► that manifest, decompressed layers from the store, inner's blobs
//! ```
//! A layer that is uncompressed already comes from inner and is not kept twice. A decompressed layer
//! that was collected or found to be corrupt is made again when it is read.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::blob::{BlobError, BlobSource, BlobStore, BlobStream, in_frames};
use crate::decompress::{DecompressError, Limits, decompress};
use crate::descriptor::Descriptor;
use crate::digest::{DiffId, Digest};
use crate::image::{Image, Layer, LayerForm};
use crate::reference::Reference;
use crate::source::{ImageKey, ImageSource, ImageSummary, OpenImage, SourceError};

/// An image source that also gives uncompressed layers. Clones are the same.
#[derive(Clone)]
pub struct Uncompressed(Arc<Inner>);

struct Inner {
    source: Arc<dyn ImageSource>,
    store: Arc<dyn BlobStore>,
    limits: Limits,
    /// A decoder takes a core.
    cores: Semaphore,
    flights: Mutex<HashMap<DiffId, WeakShared<Flight>>>,
}

/// A layer on its way into the store: its size in bytes, or why it does not come.
type Flight = BoxFuture<'static, Result<u64, Arc<DecompressError>>>;

impl Uncompressed {
    /// Keeps in `store` the decompressed layers of `source`.
    #[must_use]
    pub fn new(source: Arc<dyn ImageSource>, store: Arc<dyn BlobStore>) -> Self {
        Self::with_limits(source, store, Limits::default())
    }

    /// The same with other limits on the size of a decompressed layer.
    #[must_use]
    pub fn with_limits(
        source: Arc<dyn ImageSource>,
        store: Arc<dyn BlobStore>,
        limits: Limits,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Inner {
            source,
            store,
            limits,
            cores: Semaphore::new(cores),
            flights: Mutex::default(),
        }))
    }
}

impl fmt::Debug for Uncompressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uncompressed").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

#[async_trait]
impl ImageSource for Uncompressed {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.0.source.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.0.source.resolve(reference).await
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        let stored = self.0.source.open(key, LayerForm::AsStored).await?;
        match form {
            LayerForm::AsStored => Ok(stored),
            LayerForm::Uncompressed => self.0.uncompressed(key, stored).await,
        }
    }
}

impl Inner {
    async fn uncompressed(
        self: &Arc<Self>,
        key: &ImageKey,
        stored: OpenImage,
    ) -> Result<OpenImage, SourceError> {
        let failed = |error: Arc<DecompressError>| as_source_error(key, &error);
        // No more at once than decoders may run: a caller holds few flights.
        let ahead = std::thread::available_parallelism().map_or(1, usize::from);
        let layers = stored.image.layers.clone().into_iter();
        let sizes = layers.map(|layer| self.clone().size(stored.blobs.clone(), layer));
        let sizes: Vec<u64> =
            stream::iter(sizes).buffered(ahead).try_collect().await.map_err(failed)?;
        let image = Image::from_layers(stored.image.config.clone(), &sizes).map_err(|error| {
            SourceError::Malformed { image: key.to_string(), reason: error.to_string() }
        })?;
        if image == stored.image {
            return Ok(stored);
        }
        let layers = stored.image.layers.into_iter();
        let layers = layers.filter(|layer| layer.blob.digest != layer.diff_id.0);
        let blobs = Blobs {
            inner: self.clone(),
            manifest: (image.manifest_digest, image.manifest.clone()),
            compressed: layers.map(|layer| (layer.diff_id, layer.blob)).collect(),
            stored: stored.blobs,
        };
        Ok(OpenImage { image, blobs: Arc::new(blobs) })
    }

    /// The layer's uncompressed size, which is known when it is there.
    async fn size(
        self: Arc<Self>,
        stored: Arc<dyn BlobSource>,
        layer: Layer,
    ) -> Result<u64, Arc<DecompressError>> {
        if layer.blob.digest == layer.diff_id.0 {
            return Ok(layer.blob.size);
        }
        match self.store.stat(&layer.diff_id.0).await.map_err(|error| Arc::new(error.into()))? {
            Some(size) => Ok(size),
            None => self.join(&stored, layer.diff_id, &layer.blob).await,
        }
    }

    /// Waits for the layer's decompression, which goes on while anybody waits for it.
    async fn join(
        self: &Arc<Self>,
        stored: &Arc<dyn BlobSource>,
        diff_id: DiffId,
        blob: &Descriptor,
    ) -> Result<u64, Arc<DecompressError>> {
        let flight = {
            let mut flights = lock(&self.flights);
            match flights.get(&diff_id).and_then(WeakShared::upgrade) {
                Some(flight) => flight,
                None => {
                    let flight = self.begin(stored.clone(), diff_id, blob.clone());
                    flights.retain(|_, flight| flight.upgrade().is_some());
                    flights.extend(flight.downgrade().map(|weak| (diff_id, weak)));
                    flight
                }
            }
        };
        flight.await
    }

    /// A task of its own, so that one caller that is slow to look does not hold up the others; it
    /// ends with the last who waits.
    fn begin(
        self: &Arc<Self>,
        stored: Arc<dyn BlobSource>,
        diff_id: DiffId,
        blob: Descriptor,
    ) -> Shared<Flight> {
        let span = tracing::info_span!("decompress", blob.digest = %blob.digest, blob.size);
        let (inner, digest) = (self.clone(), blob.digest);
        let work = async move { inner.decompress(&*stored, diff_id, &blob).await };
        let task = AbortOnDropHandle::new(tokio::spawn(work.instrument(span)));
        let flight = async move {
            let stopped = |error| Err(BlobError::unavailable(digest, error).into());
            task.await.unwrap_or_else(stopped).map_err(Arc::new)
        };
        flight.boxed().shared()
    }

    async fn decompress(
        &self,
        stored: &dyn BlobSource,
        diff_id: DiffId,
        blob: &Descriptor,
    ) -> Result<u64, DecompressError> {
        let _core = self.cores.acquire().await.expect("invariant: the semaphore is never closed");
        // It may have come between the caller's look into the store and this flight.
        if let Some(size) = self.store.stat(&diff_id.0).await? {
            return Ok(size);
        }
        let stream = stored.open(&blob.digest, 0).await?;
        let size = decompress(stream, blob, diff_id, &*self.store, self.limits).await?;
        tracing::debug!(%diff_id, size, "a layer was decompressed");
        Ok(size)
    }
}

/// The blobs of one image in its uncompressed form.
struct Blobs {
    inner: Arc<Inner>,
    /// The synthesised manifest, which is in no store.
    manifest: (Digest, Bytes),
    /// The compressed blobs by the diff IDs that they become.
    compressed: HashMap<DiffId, Descriptor>,
    /// The blobs of the image as it is stored.
    stored: Arc<dyn BlobSource>,
}

impl Blobs {
    fn is_manifest(&self, digest: &Digest) -> bool {
        self.manifest.0 == *digest
    }

    /// The source that has the blob: the store, which has the decompressed layer when this returns,
    /// or the blobs of the stored image.
    async fn source(&self, digest: &Digest) -> Result<&dyn BlobSource, BlobError> {
        let store = &self.inner.store;
        let Some(blob) = self.compressed.get(&DiffId(*digest)) else { return Ok(&*self.stored) };
        if store.stat(digest).await?.is_none() {
            let made = self.inner.join(&self.stored, DiffId(*digest), blob).await;
            made.map_err(|error| as_blob_error(*digest, &error))?;
        }
        Ok(store)
    }
}

#[async_trait]
impl BlobSource for Blobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        if self.is_manifest(digest) {
            return Ok(Some(self.manifest.1.len() as u64));
        }
        self.source(digest).await?.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        if self.is_manifest(digest) {
            return in_frames(*digest, &self.manifest.1, offset);
        }
        self.source(digest).await?.open(digest, offset).await
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        if self.is_manifest(digest) {
            return in_frames(*digest, &self.manifest.1, offset);
        }
        self.source(digest).await?.open_unverified(digest, offset).await
    }

    fn doubt(&self, digest: &Digest) {
        self.inner.store.doubt(digest);
        self.stored.doubt(digest);
    }
}

/// The failure as one caller's error about one image. A layer that cannot be decompressed makes the
/// image malformed: trying again does not help.
fn as_source_error(image: &ImageKey, error: &Arc<DecompressError>) -> SourceError {
    let image = image.to_string();
    match &**error {
        DecompressError::Blob(source) => SourceError::Export { image, source: source.again() },
        error => SourceError::Malformed { image, reason: crate::explain(error) },
    }
}

/// The failure as one caller's error about one blob.
fn as_blob_error(digest: Digest, error: &Arc<DecompressError>) -> BlobError {
    match &**error {
        DecompressError::Blob(error) => error.again(),
        _ => BlobError::unavailable(digest, error.clone()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("invariant: no one panics while holding this")
}

#[cfg(test)]
mod tests;
