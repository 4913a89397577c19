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
use engine::docker::way::{self, Places, Way};
use engine::{Address, Archive, ArchiveError, Docker, Export, ExportStats, OciLayout};
use tokio::sync::Mutex;
use tokio::time::timeout;
use transfer::stored::Alone;
use transfer::{
    BlobSource, BlobStore, ConfigDigest, EngineInfo, Fallback, Image, ImageSource, ImageSummary,
    LayerForm, Reference, SourceError, Stored, Uncompressed,
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
/// until then.
pub struct HostEngine {
    origin: Origin,
    near: Near,
    opened: RwLock<Option<Arc<Opened>>>,
    /// Held by whoever opens it: one at a time.
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
        f.debug_struct("HostEngine").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl HostEngine {
    /// The images of `origin`, which need not be there yet, with their layers kept in `near`.
    pub async fn at(origin: Origin, near: Near) -> Self {
        let images = Self { origin, near, opened: RwLock::default(), opening: Mutex::default() };
        if let Ok(Err(error)) = timeout(FIRST_LOOK, images.open()).await {
            let error = format!("{error:#}");
            tracing::warn!(engine = %images.origin.address, error, "no images until it answers");
        }
        images
    }

    /// Who the engine is, if it answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn info(&self) -> anyhow::Result<EngineInfo> {
        self.open().await?.place.info().await
    }

    /// Asks for a sign of life. An archive that was written anew is opened anew.
    ///
    /// # Errors
    /// There is none.
    pub async fn ping(&self) -> anyhow::Result<()> {
        let opened = self.open().await?;
        let Err(error) = opened.sign_of_life().await else { return Ok(()) };
        if matches!(error.downcast_ref(), Some(ArchiveError::Changed { .. })) {
            self.forget();
            self.open().await?;
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
        let Some(before) = self.opened() else { return Ok(()) };
        if !same(&before.info, &now) {
            tracing::info!(engine = %self.origin.address, "another engine answers than before");
            self.forget();
        } else if before.stored.is_none() && self.origin.way.is_none() {
            // A more direct way may be there by now.
            self.forget();
        }
        Ok(())
    }

    /// The next call opens the origin anew; streams under way end as they began.
    fn forget(&self) {
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits until nothing is being read from the origin any more: for an orderly end.
    pub async fn drained(&self) {
        if let Some(stored) = self.opened().and_then(|opened| opened.stored.clone()) {
            stored.drained().await;
        }
    }

    /// How layers are read, in a word; empty until the engine answered.
    #[must_use]
    pub fn way(&self) -> &'static str {
        self.opened().map_or("", |opened| opened.way)
    }

    /// What reading from the engine has cost so far.
    #[must_use]
    pub fn stats(&self) -> ExportStats {
        let Some(opened) = self.opened() else { return ExportStats::default() };
        let saved = opened.export.as_ref().map(Export::stats).unwrap_or_default();
        let single = opened.stored.as_ref().map(|stored| stored.read().snapshot().bytes);
        let single = single.unwrap_or_default();
        ExportStats { bytes_read: saved.bytes_read + single, ..saved }
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

    async fn images(&self, image: impl ToString) -> Result<Arc<dyn ImageSource>, SourceError> {
        match self.open().await {
            Ok(opened) => Ok(opened.images.clone()),
            Err(error) => Err(SourceError::unavailable(image, error)),
        }
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
        self.images("*").await?.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.images(reference).await?.resolve(reference).await
    }

    async fn image(
        &self,
        config_digest: &ConfigDigest,
        form: LayerForm,
    ) -> Result<Image, SourceError> {
        self.images(config_digest).await?.image(config_digest, form).await
    }

    fn blobs(&self, config_digest: &ConfigDigest) -> Arc<dyn BlobSource> {
        match self.opened() {
            Some(opened) => opened.images.blobs(config_digest),
            // Nobody was given an image yet; what the store has can be read all the same.
            None => Arc::new(self.near.store.clone()),
        }
    }
}
