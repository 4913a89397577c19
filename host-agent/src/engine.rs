//! Where this host's images come from: an engine that may come up after the agent, go away under it
//! and come back as another, or a folder or archive of images.
//!
//! ```text
//!   folder, archive ────────────────────────────────────┐
//!   files, content service ──────► Fallback ────────────┴► Stored ──┐
//!                                    │ it cannot                     ├──► Uncompressed ──► callers
//!   engine by save ──────────────► Export ──────────────────────────┘
//! ```
//!
//! Both `Stored` and `Export` keep layers in the blob store; `Stored` passes them on and keeps nothing
//! while the one who asks is alone ([`Near`]).

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use engine::docker::ImageEvents;
use engine::docker::way::{self, Places, Way};
use engine::{Address, Archive, ArchiveError, Docker, Export, ExportStats, OciLayout};
use tokio::sync::Mutex;
use tokio::time::timeout;
use transfer::stored::Alone;
use transfer::{
    BlobError, BlobSource, BlobStore, BlobStream, Digest, EngineInfo, Fallback, ImageKey,
    ImageSource, ImageSummary, LayerForm, OpenImage, Reference, SourceError, Stored, Uncompressed,
};

/// How long a start waits for the engine's first answer. What is slower is asked again later.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Where images come from, and how they are read.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The engine, folder or archive.
    pub address: Address,
    /// The way in which an engine's layers are read; the first that can be gone when absent.
    pub way: Option<Way>,
    /// Where the engine's own files can be read.
    pub places: Places,
}

/// Where layers are kept.
#[derive(Clone)]
pub struct Near {
    /// What keeps them.
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
    images: Arc<dyn ImageSource>,
    /// How layers are read, in a word.
    way: &'static str,
    place: Place,
    /// Who answered.
    info: EngineInfo,
    /// What gives single layers; absent where only `save` does.
    stored: Option<Stored<Arc<dyn ImageSource>>>,
    /// What saves; absent for a folder or an archive.
    export: Option<Export>,
}

/// What is asked for a sign of life.
enum Place {
    Docker(Docker),
    Layout(OciLayout),
    Archive(Archive),
}

impl Place {
    async fn info(&self) -> anyhow::Result<EngineInfo> {
        Ok(match self {
            Self::Docker(docker) => docker.info().await?,
            Self::Layout(layout) => layout.info().await?,
            Self::Archive(archive) => archive.info().await?,
        })
    }
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
            let error = format!("{error:#}");
            tracing::warn!(engine = %inner.origin.address, error, "no images until it answers");
        }
        Self(Arc::new(inner))
    }

    /// Who the engine is, if it answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn info(&self) -> anyhow::Result<EngineInfo> {
        self.0.open().await?.place.info().await
    }

    /// Asks for a sign of life. An archive that was written anew is opened anew.
    ///
    /// # Errors
    /// There is none.
    pub async fn ping(&self) -> anyhow::Result<()> {
        let opened = self.0.open().await?;
        let Err(error) = opened.sign_of_life().await else { return Ok(()) };
        if matches!(error.downcast_ref(), Some(ArchiveError::Changed { .. })) {
            self.0.forget();
            self.0.open().await?;
            return Ok(());
        }
        Err(error)
    }

    /// Looks whether what answers again is still the engine that it was; another one, or one that
    /// keeps its images in another store now, is opened anew.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn came_back(&self) -> anyhow::Result<()> {
        let now = self.info().await?;
        let Some(before) = self.0.opened() else { return Ok(()) };
        let origin = &self.0.origin;
        if !same(&before.info, &now) {
            tracing::info!(engine = %origin.address, "another engine answers than before");
            self.0.forget();
        } else if before.stored.is_none() && origin.way.is_none() {
            // A more direct way may be there by now.
            self.0.forget();
        }
        Ok(())
    }

    /// Follows what happens to the origin's images; absent where it has no events, or does not answer.
    pub async fn image_events(&self) -> Option<ImageEvents> {
        let opened = self.0.open().await.ok()?;
        match &opened.place {
            Place::Docker(docker) => docker.image_events().await.ok(),
            Place::Layout(_) | Place::Archive(_) => None,
        }
    }

    /// Waits until nothing is being read from the origin any more: for an orderly end.
    pub async fn drained(&self) {
        if let Some(stored) = self.0.opened().and_then(|opened| opened.stored.clone()) {
            stored.drained().await;
        }
    }

    /// How layers are read, in a word; empty until the engine answered.
    #[must_use]
    pub fn way(&self) -> &'static str {
        self.0.opened().map_or("", |opened| opened.way)
    }

    /// What reading from the engine has cost so far.
    #[must_use]
    pub fn stats(&self) -> ExportStats {
        let Some(opened) = self.0.opened() else { return ExportStats::default() };
        let saved = opened.export.as_ref().map(Export::stats).unwrap_or_default();
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

    /// What the origin has, opened by the first caller.
    async fn open(&self) -> anyhow::Result<Arc<Opened>> {
        if let Some(opened) = self.opened() {
            return Ok(opened);
        }
        let _opening = self.opening.lock().await;
        if let Some(opened) = self.opened() {
            return Ok(opened);
        }
        let opened = Arc::new(self.origin.open(&self.near).await?);
        tracing::info!(engine = %self.origin.address, way = opened.way, "this is how layers are read");
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = Some(opened.clone());
        Ok(opened)
    }

    async fn images(&self, image: impl ToString) -> Result<Arc<Opened>, SourceError> {
        self.open().await.map_err(|error| SourceError::unavailable(image, error))
    }
}

/// Whether this is the same engine with the same images, whatever its version is by now.
fn same(before: &EngineInfo, now: &EngineInfo) -> bool {
    (before.store, &before.driver, &before.id) == (now.store, &now.driver, &now.id)
}

impl Origin {
    async fn open(&self, near: &Near) -> anyhow::Result<Opened> {
        match &self.address {
            Address::Docker(address) => self.open_engine(address, near).await,
            Address::OciLayout(path) => {
                let layout = OciLayout::open(path).await?;
                Opened::files(Place::Layout(layout.clone()), Arc::new(layout), near).await
            }
            Address::Archive(path) => {
                let archive = Archive::open(path).await?;
                Opened::files(Place::Archive(archive.clone()), Arc::new(archive), near).await
            }
        }
    }

    async fn open_engine(&self, address: &str, near: &Near) -> anyhow::Result<Opened> {
        let docker = Docker::connect(address).await?;
        let info = docker.info().await?;
        let (way, direct) = match self.way {
            Some(way) => {
                let opened = way::open(&docker, way, &self.places).await;
                (way, opened.with_context(|| format!("reading layers by --export-way {way}"))?)
            }
            None => way::open_best(&docker, &self.places).await?,
        };
        let export = Export::new(docker.clone(), near.store.clone());
        let stored = direct.map(|direct| {
            let images: Arc<dyn ImageSource> = match self.way {
                // What was asked for is what is done.
                Some(_) => direct,
                None => Arc::new(Fallback::new(direct, export.clone())),
            };
            near.of(images)
        });
        let images: Arc<dyn ImageSource> = match &stored {
            Some(stored) => Arc::new(stored.clone()),
            None => Arc::new(export.clone()),
        };
        let images = Arc::new(Uncompressed::new(images, near.store.clone()));
        let place = Place::Docker(docker);
        Ok(Opened { images, way: way.as_str(), place, info, stored, export: Some(export) })
    }
}

impl Opened {
    /// Images that lie in files of this machine.
    async fn files(
        place: Place,
        images: Arc<dyn ImageSource>,
        near: &Near,
    ) -> anyhow::Result<Self> {
        let info = place.info().await?;
        let stored = near.of(images);
        let images = Arc::new(Uncompressed::new(Arc::new(stored.clone()), near.store.clone()));
        let way = match place {
            Place::Archive(_) => "archive",
            _ => "layout",
        };
        Ok(Self { images, way, place, info, stored: Some(stored), export: None })
    }

    async fn sign_of_life(&self) -> anyhow::Result<()> {
        match &self.place {
            // Cheaper than asking who it is.
            Place::Docker(docker) => Ok(docker.ping().await?),
            place => place.info().await.map(drop),
        }
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
