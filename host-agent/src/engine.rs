//! The source of this host's images: a folder or archive, or an engine. An engine may start after
//! the agent, go away, and come back as another.
//!
//! ```text
//!   engine that gives single layers ─────► Stored ──┐
//!                                                    ├──► Uncompressed ──► callers
//!   engine that exports whole images ───────────────┘
//! ```
//!
//! Layers of either kind end up in the blob store. `Stored` passes them on and keeps nothing while
//! its reader is the only range ([`Near`]).

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use engine::{Address, Engine, EngineError, ExportStats, ImageEvents, Options, Source};
use tokio::sync::Mutex;
use tokio::time::timeout;
use transfer::stored::Alone;
use transfer::{
    BlobError, BlobSource, BlobStore, BlobStream, Digest, EngineInfo, ImageKey, ImageSource,
    ImageSummary, LayerForm, OpenImage, Reference, SourceError, Stored, Uncompressed,
};

/// Maximum time that a start waits for the engine's first answer. A slower engine is asked again
/// later.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Source of images, and the method of reading them.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The engine, folder or archive.
    pub address: Address,
    /// The settings for it.
    pub options: Options,
}

/// The store of layers.
#[derive(Clone)]
pub struct Near {
    /// The blob store.
    pub store: Arc<dyn BlobStore>,
    /// Says when a layer that can be read again at any offset is not kept; all are when absent.
    pub alone: Option<Alone>,
}

impl std::fmt::Debug for Near {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Near").field("passes", &self.alone.is_some()).finish_non_exhaustive()
    }
}

impl Near {
    /// The images of a source of single layers, with the store in front.
    fn of(&self, images: Arc<dyn ImageSource>) -> Stored<Arc<dyn ImageSource>> {
        let stored = Stored::new(images, self.store.clone());
        match &self.alone {
            Some(alone) => stored.passing(alone.clone()),
            None => stored,
        }
    }
}

/// The images of this host: opened when their origin first answers, and asked for anew on each call
/// until then. Clones are the same.
#[derive(Clone)]
pub struct HostEngine(Arc<Inner>);

struct Inner {
    origin: Origin,
    near: Near,
    opened: RwLock<Option<Arc<Opened>>>,
    /// Held while the origin is opened: by one caller at a time.
    opening: Mutex<()>,
}

/// An origin that answered.
struct Opened {
    engine: Arc<dyn Engine>,
    /// The engine that answered.
    info: EngineInfo,
    /// Its images as the engine gives them.
    source: Source,
    /// The same for callers, in both forms.
    images: Arc<dyn ImageSource>,
    /// Reader that stores single layers; `None` if the engine exports whole images.
    stored: Option<Stored<Arc<dyn ImageSource>>>,
}

impl std::fmt::Debug for HostEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostEngine").field("origin", &self.0.origin).finish_non_exhaustive()
    }
}

impl HostEngine {
    /// The images of `origin`, which need not be there yet, with their layers kept in `near`.
    pub async fn at(origin: Origin, near: Near) -> Self {
        let inner = Inner { origin, near, opened: RwLock::default(), opening: Mutex::default() };
        if let Ok(Err(error)) = timeout(FIRST_LOOK, inner.open()).await {
            let error = transfer::explain(&error);
            tracing::warn!(engine = %inner.origin.address, error, "no images until it answers");
        }
        Self(Arc::new(inner))
    }

    /// Returns the engine's identity.
    ///
    /// # Errors
    /// It does not.
    pub async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.0.open().await?.engine.info().await
    }

    /// Asks for a sign of life. An archive that was written anew is opened anew.
    ///
    /// # Errors
    /// There is none.
    pub async fn ping(&self) -> Result<(), EngineError> {
        match self.0.open().await?.engine.ping().await {
            Err(EngineError::Changed { .. }) => {
                self.0.forget();
                self.0.open().await.map(drop)
            }
            answer => answer,
        }
    }

    /// Looks whether what answers again is still the engine that it was; another one, or one that
    /// keeps its images in another store now, is opened anew.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn came_back(&self) -> Result<(), EngineError> {
        let now = self.info().await?;
        let Some(before) = self.0.opened() else { return Ok(()) };
        let origin = &self.0.origin;
        if !same(&before.info, &now) {
            tracing::info!(engine = %origin.address, "another engine answers than before");
            self.0.forget();
        } else if before.source.may_improve {
            self.0.forget();
        }
        Ok(())
    }

    /// Follows changes of the origin's images; `None` where it has no events, or does not answer.
    pub async fn image_events(&self) -> Option<ImageEvents> {
        self.0.open().await.ok()?.engine.image_events().await.ok()
    }

    /// Waits until nothing is being read from the origin any more: for an orderly end.
    pub async fn drained(&self) {
        if let Some(stored) = self.0.opened().and_then(|opened| opened.stored.clone()) {
            stored.drained().await;
        }
    }

    /// Export method in a word; empty until the engine answered.
    #[must_use]
    pub fn way(&self) -> &'static str {
        self.0.opened().map_or("", |opened| opened.source.way)
    }

    /// Cost of reading from the engine so far.
    #[must_use]
    pub fn stats(&self) -> ExportStats {
        let Some(opened) = self.0.opened() else { return ExportStats::default() };
        let exported = opened.source.exported.as_ref();
        let saved = exported.map(|exported| exported()).unwrap_or_default();
        let single = opened.stored.as_ref().map(|stored| stored.read().snapshot().bytes);
        let single = single.unwrap_or_default();
        ExportStats { bytes_read: saved.bytes_read + single, ..saved }
    }
}

impl Inner {
    /// The next call opens the origin anew; streams under way end as they began.
    fn forget(&self) {
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn opened(&self) -> Option<Arc<Opened>> {
        self.opened.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the opened origin. The first caller opens it.
    async fn open(&self) -> Result<Arc<Opened>, EngineError> {
        if let Some(opened) = self.opened() {
            return Ok(opened);
        }
        let _opening = self.opening.lock().await;
        if let Some(opened) = self.opened() {
            return Ok(opened);
        }
        let opened = Arc::new(self.origin.open(&self.near).await?);
        let way = opened.source.way;
        tracing::info!(engine = %self.origin.address, way, "export method of layers");
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = Some(opened.clone());
        Ok(opened)
    }

    async fn images(&self, image: impl ToString) -> Result<Arc<Opened>, SourceError> {
        self.open().await.map_err(|error| SourceError::unavailable(image, error))
    }
}

/// True for the same engine with the same images, in any version.
fn same(before: &EngineInfo, now: &EngineInfo) -> bool {
    (before.store, &before.driver, &before.id) == (now.store, &now.driver, &now.id)
}

impl Origin {
    async fn open(&self, near: &Near) -> Result<Opened, EngineError> {
        let engine = engine::open(&self.address, &self.options).await?;
        let info = engine.info().await?;
        let source = engine.source(&near.store).await?;
        let stored = source.single_layers.then(|| near.of(source.images.clone()));
        let kept: Arc<dyn ImageSource> = match &stored {
            Some(stored) => Arc::new(stored.clone()),
            None => source.images.clone(),
        };
        let images = Arc::new(Uncompressed::new(kept, near.store.clone()));
        Ok(Opened { engine, info, source, images, stored })
    }
}

#[async_trait]
impl ImageSource for HostEngine {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.0.images("*").await?.images.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.0.images(reference).await?.images.resolve(reference).await
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        let origin = self.0.images(key).await?;
        let opened = origin.images.open(key, form).await?;
        Ok(opened.through(|blobs| {
            let now = RwLock::new((origin, blobs));
            Arc::new(Blobs { engine: self.0.clone(), key: *key, form, now })
        }))
    }
}

/// The blobs of one image, read from the origin as it is now: when that was opened anew, the image
/// is opened anew too.
struct Blobs {
    engine: Arc<Inner>,
    key: ImageKey,
    form: LayerForm,
    /// The origin that the image was opened from, and its blobs there.
    now: RwLock<(Arc<Opened>, Arc<dyn BlobSource>)>,
}

impl Blobs {
    async fn now(&self, digest: &Digest) -> Result<Arc<dyn BlobSource>, BlobError> {
        let (origin, blobs) = self.known();
        let Some(current) = self.engine.opened().filter(|now| !Arc::ptr_eq(now, &origin)) else {
            return Ok(blobs);
        };
        let opened = current.images.open(&self.key, self.form).await;
        let blobs = opened.map_err(|error| error.of_blob(*digest))?.blobs;
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        *now = (current, blobs.clone());
        Ok(blobs)
    }

    fn known(&self) -> (Arc<Opened>, Arc<dyn BlobSource>) {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl BlobSource for Blobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.now(digest).await?.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.now(digest).await?.open(digest, offset).await
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.now(digest).await?.open_unverified(digest, offset).await
    }

    fn doubt(&self, digest: &Digest) {
        self.known().1.doubt(digest);
    }
}
