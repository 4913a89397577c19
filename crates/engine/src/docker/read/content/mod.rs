//! The images of an engine on the containerd store, each blob as it is stored, from any byte.
//!
//! ```text
//!   names ─► the engine's API ─► target ─► index ─► manifest ─► config   documents.rs
//!                                              │        │          │
//!                    content store, by digest ─┴────────┴──────────┴─► layers
//!                       service.rs   through the engine's socket or containerd's
//!                       files.rs     from its files
//! ```
//! Manifest and config are the original bytes, so that digests are what a registry says. Nothing is
//! kept but documents, nothing is decompressed: that is for whoever stands in front.

mod files;
mod service;
mod way;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use transfer::metered::Metered;
use transfer::{
    BlobError, BlobSource, BlobStream, Digest, Image, ImageKey, ImageSource, ImageSummary,
    LayerForm, OpenImage, Platform, Reference, SourceError, StoreKind,
};

pub(in crate::docker) use self::service::Line;
pub use self::way::ContentWay;
use self::way::{ContentError, check_own, find};
use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::docker::api::images::INSPECTIONS;
use crate::docker::api::images::Inspected;
use crate::docker::read::documents::{self, Documents};

/// What reading content has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentStats {
    /// Blobs that were opened, documents too, from whatever offset.
    pub streams: u64,
    /// Bytes read of them.
    pub bytes_read: u64,
}

/// The images of an engine on the containerd store as a source.
///
/// Cheap to clone; the clones are one.
#[derive(Clone)]
pub struct ContainerdContent {
    inner: Arc<Inner>,
}

struct Inner {
    docker: Docker,
    way: ContentWay,
    content: Metered<Arc<dyn BlobSource>>,
    platform: Platform,
    /// What targets that are there stand for; a target is a digest, so that never changes.
    images: Mutex<HashMap<Digest, Arc<Image>>>,
}

impl fmt::Debug for ContainerdContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerdContent")
            .field("docker", &self.inner.docker)
            .field("way", &self.inner.way)
            .finish_non_exhaustive()
    }
}

impl ContainerdContent {
    /// Reads the content of `docker` by `way`, after trying whether that works.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] for an engine on a graphdriver; [`EngineError::Files`] with
    /// what to do when there is no content that way, or it is not this engine's.
    pub async fn open(docker: Docker, way: ContentWay) -> Result<Self, EngineError> {
        if docker.info().await?.store != StoreKind::Containerd {
            return Err(EngineError::Unsupported {
                engine: docker.address().to_owned(),
                what: "single blobs are read from the containerd store only",
            });
        }
        let engine = docker.address().to_owned();
        let failed = |error: ContentError| EngineError::Files { engine, source: error.into() };
        let targets = docker.list_described().await?;
        let content = match find(&docker, &way).await {
            Ok(content) => content,
            Err(error) => return Err(failed(error)),
        };
        if let Err(error) = check_own(&*content, &targets).await {
            return Err(failed(error));
        }
        let content = Metered::new(content);
        let (platform, images) = (Platform::host(), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { docker, way, content, platform, images }) })
    }

    /// What reading has cost since this was made.
    #[must_use]
    pub fn stats(&self) -> ContentStats {
        let counted = self.inner.content.counters().snapshot();
        ContentStats { streams: counted.opens, bytes_read: counted.bytes }
    }

    /// By which way blobs are read.
    #[must_use]
    pub fn way(&self) -> &ContentWay {
        &self.inner.way
    }

    /// The engine whose content this is.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.inner.docker
    }
}

#[async_trait]
impl ImageSource for ContainerdContent {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        let images = self.inner.refresh().await?;
        let summaries = images.iter().map(|(target, image)| documents::summary(target, image));
        Ok(documents::sorted(summaries.collect()))
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        let inspected = self.docker().inspect_manifests(reference).await;
        let inspected = inspected.map_err(|error| error.about(reference))?;
        match inspected.filter(|inspected| inspected.is_named(reference)) {
            Some(target) => {
                let image = self.inner.read(&target.id.0, reference).await?;
                Ok(documents::summary(&target, &image))
            }
            None => Err(SourceError::NotFound { image: reference.to_string() }),
        }
    }

    async fn open(&self, key: &ImageKey, _: LayerForm) -> Result<OpenImage, SourceError> {
        let (target, image) = self.inner.find(key).await?;
        self.inner.check_whole(&target, &image).await?;
        let blobs = ImageBlobs { inner: self.inner.clone(), image: image.clone() };
        Ok(OpenImage { image: (*image).clone(), blobs: Arc::new(blobs) })
    }
}

impl Inner {
    /// What `target` stands for.
    async fn read(
        &self,
        target: &Digest,
        about: &impl ToString,
    ) -> Result<Arc<Image>, SourceError> {
        if let Some(image) = self.images().get(target) {
            return Ok(image.clone());
        }
        let image = about.to_string();
        match documents::read(&self.content, target, &self.platform).await {
            Ok(Documents::Image(image)) => {
                let image = Arc::new(*image);
                self.images().insert(*target, image.clone());
                Ok(image)
            }
            Ok(Documents::Lacks(digest)) => Err(self.partial(image, &digest)),
            Ok(Documents::Malformed(reason)) => Err(SourceError::Malformed { image, reason }),
            Err(source) => Err(SourceError::Export { image, source }),
        }
    }

    /// Every image that the engine has, with what it tells of it. What is none for our platform, or
    /// is only there in part, is left out.
    async fn refresh(&self) -> Result<Vec<(Inspected, Arc<Image>)>, SourceError> {
        let targets = self.docker.list_described().await.map_err(|error| error.about("*"))?;
        let is_there = |known: &Digest| targets.iter().any(|target| target.id.0 == *known);
        self.images().retain(|known, _| is_there(known));
        let reads = targets.into_iter().map(|target| async move {
            match self.read(&target.id.0, &target.id).await {
                Ok(image) => Ok(Some((target, image))),
                Err(error @ (SourceError::Malformed { .. } | SourceError::NotFound { .. })) => {
                    tracing::debug!(error = transfer::explain(&error), "an image is not listed");
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        });
        let reads = stream::iter(reads).buffer_unordered(INSPECTIONS);
        reads.try_filter_map(async |read| Ok(read)).try_collect().await
    }

    /// The image and the engine's target for it, looked for among all where it is not known.
    async fn find(&self, key: &ImageKey) -> Result<(Digest, Arc<Image>), SourceError> {
        if let Some(found) = self.known(key) {
            return Ok(found);
        }
        self.refresh().await?;
        self.known(key).ok_or_else(|| key.not_found())
    }

    fn known(&self, key: &ImageKey) -> Option<(Digest, Arc<Image>)> {
        let images = self.images();
        let named = |image: &Image| key.names(&image.config_digest, &image.target_digest());
        let found = images.iter().find(|(_, image)| named(image));
        found.map(|(target, image)| (*target, image.clone()))
    }

    /// That every layer is there: a pull for another platform, or one that was broken off, leaves
    /// some out.
    async fn check_whole(&self, target: &Digest, image: &Arc<Image>) -> Result<(), SourceError> {
        let about = image.config_digest.to_string();
        let digests: Vec<_> = image.layers.iter().map(|layer| layer.blob.digest).collect();
        let looks = digests.into_iter().map(|digest| async move {
            Ok::<_, BlobError>(self.content.stat(&digest).await?.is_none().then_some(digest))
        });
        let lacking: Result<Vec<_>, _> =
            stream::iter(looks).buffer_unordered(INSPECTIONS).try_collect().await;
        let lacking =
            lacking.map_err(|source| SourceError::Export { image: about.clone(), source })?;
        let Some(lacking) = lacking.into_iter().flatten().next() else { return Ok(()) };
        let there = self.docker.inspect(&target.to_string()).await;
        match there.map_err(|error| error.about(&about))? {
            Some(_) => Err(self.partial(about, &lacking)),
            None => {
                self.images().remove(target);
                Err(SourceError::NotFound { image: about })
            }
        }
    }

    fn partial(&self, image: String, lacking: &Digest) -> SourceError {
        let reason = format!(
            "the engine has only a part of it: {lacking} is not in its content store; pull the \
             image again for {}",
            self.platform
        );
        SourceError::Malformed { image, reason }
    }

    fn images(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Image>>> {
        self.images.lock().expect("invariant: no one panics while holding the images")
    }
}

/// The blobs of one image: its layers and its documents.
struct ImageBlobs {
    inner: Arc<Inner>,
    image: Arc<Image>,
}

impl ImageBlobs {
    /// The content store, where the blob is one of the image's.
    fn content_of(&self, digest: &Digest) -> Option<&Metered<Arc<dyn BlobSource>>> {
        let image = &self.image;
        let is_own = *digest == image.manifest_digest
            || *digest == image.config_digest.0
            || image.layers.iter().any(|layer| layer.blob.digest == *digest)
            || *digest == image.target_digest();
        is_own.then_some(&self.inner.content)
    }
}

#[async_trait]
impl BlobSource for ImageBlobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        match self.content_of(digest) {
            Some(content) => content.stat(digest).await,
            None => Ok(None),
        }
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        match self.content_of(digest) {
            Some(content) => content.open(digest, offset).await,
            None => Err(BlobError::NotFound { digest: *digest }),
        }
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        match self.content_of(digest) {
            Some(content) => content.open_unverified(digest, offset).await,
            None => Err(BlobError::NotFound { digest: *digest }),
        }
    }
}
