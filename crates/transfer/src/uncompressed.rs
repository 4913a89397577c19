//! Images in the form that a graphdriver wants: each compressed layer decompressed once, for all.
//!
//! ```text
//!   image(c, AsStored)      ─► inner
//!   image(c, Uncompressed)  ─► inner's image ─► each compressed layer: in the store by diff ID?
//!                                                  └─ no: decompressed into it, once for all callers
//!                              ─► the made-up manifest of fixed layout
//!   blobs(c)                ─► decompressed layers and that manifest: the store; all else: inner
//! ```
//! A layer that is uncompressed already is inner's to give and is not kept twice. What was
//! collected or found to be corrupt is decompressed again when it is asked for.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::blob::{BlobError, BlobSource, BlobStore, BlobStream};
use crate::decompress::{DecompressError, Limits, decompress};
use crate::descriptor::{Descriptor, MediaType};
use crate::digest::{ConfigDigest, DiffId, Digest};
use crate::image::{Image, Layer, LayerForm};
use crate::reference::Reference;
use crate::source::{ImageSource, ImageSummary, SourceError};

/// Images of which is remembered what they consist of; the next ask makes an entry again.
const MAX_REMEMBERED: usize = 1024;

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
    forms: Mutex<HashMap<ConfigDigest, Arc<Form>>>,
    /// Held by whoever keeps a made-up manifest, so that callers at once keep it once.
    keeping: tokio::sync::Mutex<()>,
}

/// A layer on its way into the store: its size in bytes, or why it does not come.
type Flight = BoxFuture<'static, Result<u64, Arc<DecompressError>>>;

/// What an image consists of besides what its source has.
#[derive(Debug)]
struct Form {
    /// The compressed blobs by the diff IDs that they become.
    compressed: HashMap<DiffId, Descriptor>,
    /// The made-up manifest's digest, once it is known.
    manifest: Option<Digest>,
}

impl Uncompressed {
    /// Keeps in `store` what becomes of `source`'s compressed layers.
    #[must_use]
    pub fn new(source: Arc<dyn ImageSource>, store: Arc<dyn BlobStore>) -> Self {
        Self::with_limits(source, store, Limits::default())
    }

    /// The same with other limits on what a layer may become.
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
            forms: Mutex::default(),
            keeping: tokio::sync::Mutex::default(),
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

    async fn image(
        &self,
        config_digest: &ConfigDigest,
        form: LayerForm,
    ) -> Result<Image, SourceError> {
        match form {
            LayerForm::AsStored => self.0.source.image(config_digest, form).await,
            LayerForm::Uncompressed => self.0.uncompressed(config_digest).await,
        }
    }

    fn blobs(&self, config_digest: &ConfigDigest) -> Arc<dyn BlobSource> {
        Arc::new(Blobs {
            inner: self.0.clone(),
            config_digest: *config_digest,
            source: self.0.source.blobs(config_digest),
        })
    }
}

impl Inner {
    async fn uncompressed(
        self: &Arc<Self>,
        config_digest: &ConfigDigest,
    ) -> Result<Image, SourceError> {
        let stored = self.source.image(config_digest, LayerForm::AsStored).await?;
        let failed = |error: Arc<DecompressError>| told(config_digest, &error);
        // No more at once than decoders may run: a caller holds few flights.
        let ahead = std::thread::available_parallelism().map_or(1, usize::from);
        let layers = stored.layers.clone().into_iter();
        let sizes = layers.map(|layer| self.clone().size(*config_digest, layer));
        let sizes: Vec<u64> =
            stream::iter(sizes).buffered(ahead).try_collect().await.map_err(failed)?;
        let image = Image::from_layers(stored.config.clone(), &sizes).map_err(|error| {
            SourceError::Malformed { image: config_digest.to_string(), reason: error.to_string() }
        })?;
        let kept = self.keep_manifest(&image).await;
        kept.map_err(|source| SourceError::Export { image: config_digest.to_string(), source })?;
        self.remember(&stored, Some(image.manifest_digest));
        Ok(image)
    }

    /// The layer's uncompressed size, which is known when it is there.
    async fn size(
        self: Arc<Self>,
        config_digest: ConfigDigest,
        layer: Layer,
    ) -> Result<u64, Arc<DecompressError>> {
        if layer.blob.digest == layer.diff_id.0 {
            return Ok(layer.blob.size);
        }
        match self.store.stat(&layer.diff_id.0).await.map_err(|error| Arc::new(error.into()))? {
            Some(size) => Ok(size),
            None => self.join(&config_digest, layer.diff_id, &layer.blob).await,
        }
    }

    /// Waits for the layer's decompression, which goes on while anybody waits for it.
    async fn join(
        self: &Arc<Self>,
        config_digest: &ConfigDigest,
        diff_id: DiffId,
        blob: &Descriptor,
    ) -> Result<u64, Arc<DecompressError>> {
        let flight = {
            let mut flights = lock(&self.flights);
            match flights.get(&diff_id).and_then(WeakShared::upgrade) {
                Some(flight) => flight,
                None => {
                    let flight = self.begin(*config_digest, diff_id, blob.clone());
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
        config_digest: ConfigDigest,
        diff_id: DiffId,
        blob: Descriptor,
    ) -> Shared<Flight> {
        let span = tracing::info_span!("decompress", blob.digest = %blob.digest, blob.size);
        let (inner, digest) = (self.clone(), blob.digest);
        let work = async move { inner.decompress(&config_digest, diff_id, &blob).await };
        let task = AbortOnDropHandle::new(tokio::spawn(work.instrument(span)));
        let flight = async move {
            let stopped = |error| Err(BlobError::unavailable(digest, error).into());
            task.await.unwrap_or_else(stopped).map_err(Arc::new)
        };
        flight.boxed().shared()
    }

    async fn decompress(
        &self,
        config_digest: &ConfigDigest,
        diff_id: DiffId,
        blob: &Descriptor,
    ) -> Result<u64, DecompressError> {
        let _core = self.cores.acquire().await.expect("invariant: the semaphore is never closed");
        // It may have come between the caller's look into the store and this flight.
        if let Some(size) = self.store.stat(&diff_id.0).await? {
            return Ok(size);
        }
        let stream = self.source.blobs(config_digest).open(&blob.digest, 0).await?;
        let size = decompress(stream, blob, diff_id, &*self.store, self.limits).await?;
        tracing::debug!(%diff_id, size, "a layer was decompressed");
        Ok(size)
    }

    /// The made-up manifest is a blob of the image like any other.
    async fn keep_manifest(&self, image: &Image) -> Result<(), BlobError> {
        let _alone = self.keeping.lock().await;
        self.store.keep(MediaType::MANIFEST, &image.manifest).await
    }

    fn remember(&self, stored: &Image, manifest: Option<Digest>) -> Arc<Form> {
        let layers = stored.layers.iter().filter(|layer| layer.blob.digest != layer.diff_id.0);
        let compressed = layers.map(|layer| (layer.diff_id, layer.blob.clone())).collect();
        let form = Arc::new(Form { compressed, manifest });
        let mut forms = lock(&self.forms);
        if MAX_REMEMBERED <= forms.len() {
            forms.clear();
        }
        forms.insert(stored.config_digest, form.clone());
        form
    }

    /// What the image consists of, asked for where it is not remembered.
    async fn form(&self, config_digest: &ConfigDigest) -> Result<Arc<Form>, SourceError> {
        let remembered = lock(&self.forms).get(config_digest).cloned();
        match remembered {
            Some(form) => Ok(form),
            None => {
                let stored = self.source.image(config_digest, LayerForm::AsStored).await?;
                Ok(self.remember(&stored, None))
            }
        }
    }
}

/// One image's blobs in both forms.
struct Blobs {
    inner: Arc<Inner>,
    config_digest: ConfigDigest,
    source: Arc<dyn BlobSource>,
}

impl Blobs {
    /// Whether the blob is one that the store has to give; then it has it.
    async fn made(&self, digest: &Digest) -> Result<bool, BlobError> {
        let form = match self.inner.form(&self.config_digest).await {
            Ok(form) => form,
            // Then the source has no blobs of it either, and says so.
            Err(SourceError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(BlobError::unavailable(*digest, error)),
        };
        if form.manifest == Some(*digest) {
            return self.made_up(digest).await;
        }
        let Some(blob) = form.compressed.get(&DiffId(*digest)) else { return Ok(false) };
        if self.inner.store.stat(digest).await?.is_none() {
            let made = self.inner.join(&self.config_digest, DiffId(*digest), blob).await;
            made.map_err(|error| again(*digest, &error))?;
        }
        Ok(true)
    }

    async fn made_up(&self, manifest: &Digest) -> Result<bool, BlobError> {
        if self.inner.store.stat(manifest).await?.is_none() {
            let made = self.inner.uncompressed(&self.config_digest).await;
            made.map_err(|error| BlobError::unavailable(*manifest, error))?;
        }
        Ok(true)
    }
}

#[async_trait]
impl BlobSource for Blobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        match self.made(digest).await? {
            true => self.inner.store.stat(digest).await,
            false => self.source.stat(digest).await,
        }
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        match self.made(digest).await? {
            true => self.inner.store.open(digest, offset).await,
            false => self.source.open(digest, offset).await,
        }
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        match self.made(digest).await? {
            true => self.inner.store.open_unverified(digest, offset).await,
            false => self.source.open_unverified(digest, offset).await,
        }
    }

    fn doubt(&self, digest: &Digest) {
        self.inner.store.doubt(digest);
        self.source.doubt(digest);
    }
}

/// The failure as one caller's error about one image. A layer that cannot be decompressed makes the
/// image malformed: trying again does not help.
fn told(image: &ConfigDigest, error: &Arc<DecompressError>) -> SourceError {
    let image = image.to_string();
    match &**error {
        DecompressError::Blob(source) => SourceError::Export { image, source: source.again() },
        error => SourceError::Malformed { image, reason: crate::explain(error) },
    }
}

fn again(digest: Digest, error: &Arc<DecompressError>) -> BlobError {
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
