//! Layers straight from the files of an engine with the overlay2 driver: any one, from any byte,
//! each bit as it was.
//!
//! ```text
//!  config ──► diff IDs ──► chain IDs ──► layerdb ─┬─► tar-split    headers, padding: verbatim
//!  (imagedb)                                      └─► diff folder  the files' contents
//!                                                          │
//!                              rebuild: one tar stream ◄───┘  ► verify ► reader
//! ```
//! The engine is asked only what there is and what it is called. Nothing of a layer is read before
//! its reader asks, nothing twice for one reader, nothing is kept, nothing is written: a read-only
//! mount of the data-root is enough.
//!
//! What cannot be given exactly ends in an error: then there is still the engine's save. Seen so
//! far are only archives with sparse files, of which tar-split loses the map, and of which `save`
//! fails too. Archives that have a name twice are taken in by no engine.

mod beneath;
mod layer;
mod layerdb;
mod plan;
mod rebuild;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use transfer::blob::in_frames;
use transfer::blocking::blocking;
use transfer::image::ConfigFile;
use transfer::{
    BlobError, BlobSource, BlobStream, ChainId, ConfigDigest, DiffId, Digest, Image, ImageKey,
    ImageSource, ImageSummary, LayerForm, OpenImage, Reference, SourceError, StoreKind,
};

use self::layer::Layer;
use self::layerdb::{DataRoot, FilesError};
use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::docker::read::catalogue;
use crate::file_blob::from_start;

/// How many layers' sizes are remembered. To find one out, a tar-split file is read to its end: tens
/// of milliseconds for ten thousand files.
const MAX_SIZES: usize = 1 << 14;

/// What reading an engine's files has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilesStats {
    /// Layers that were opened, from whatever offset.
    pub streams: u64,
    /// Bytes read of the files that layers consist of.
    pub bytes_read: u64,
    /// Bytes read of what the engine keeps about layers and images, as it is stored.
    pub metadata_read: u64,
}

/// An engine's images as a source, its layers read from the files under its data-root.
///
/// Cheap to clone; the clones are one.
#[derive(Clone)]
pub struct Overlay2Files {
    inner: Arc<Inner>,
}

impl fmt::Debug for Overlay2Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overlay2Files")
            .field("docker", &self.inner.docker)
            .field("root", &self.inner.root)
            .finish_non_exhaustive()
    }
}

struct Inner {
    docker: Docker,
    root: DataRoot,
    /// Sizes of tars in bytes. What a diff ID stands for never changes, and so its size.
    sizes: Mutex<HashMap<DiffId, Arc<Size>>>,
}

/// A size once it is known; locked while it is found out, so that all who ask wait for one.
type Size = Mutex<Option<u64>>;

impl Overlay2Files {
    /// Reads the layers of `docker` from its data-root, which is mounted at `data_root` here.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] for an engine with another driver, [`EngineError::Files`] with
    /// path and next step when its files cannot be read or are those of another engine, and what
    /// asking the engine can end in.
    pub async fn open(docker: Docker, data_root: PathBuf) -> Result<Self, EngineError> {
        let info = docker.info().await?;
        if info.store != StoreKind::Graphdriver || info.driver != "overlay2" {
            return Err(EngineError::Unsupported {
                engine: docker.address().to_owned(),
                what: "layers are read from files of the overlay2 driver only",
            });
        }
        let listed = docker.list_images().await?;
        let root = DataRoot::new(data_root);
        let engine = docker.address().to_owned();
        let inner = Arc::new(Inner { docker, root, sizes: Mutex::default() });
        let checking = inner.clone();
        let check = move || {
            checking.root.check(&info.id)?;
            // One is enough: others may be deleted at this moment.
            let mut ids = listed.iter().map(|image| ConfigDigest(image.id.0));
            if listed.is_empty() || ids.any(|id| checking.root.has_image(&id)) {
                return Ok(());
            }
            Err(checking.root.stranger("it has none of this engine's images"))
        };
        let checked = tokio::task::spawn_blocking(check).await;
        let failed = |source: transfer::blob::Cause| EngineError::Files { engine, source };
        match checked {
            Ok(Ok(())) => Ok(Self { inner }),
            Ok(Err(error)) => Err(failed(error.into())),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// What reading has cost since this was made.
    #[must_use]
    pub fn stats(&self) -> FilesStats {
        let counters = &self.inner.root.counters;
        FilesStats {
            streams: counters.streams.load(Ordering::Relaxed),
            bytes_read: counters.bytes_read.load(Ordering::Relaxed),
            metadata_read: counters.metadata_read.load(Ordering::Relaxed),
        }
    }

    /// The engine whose files these are.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.inner.docker
    }
}

#[async_trait]
impl ImageSource for Overlay2Files {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        catalogue::list(self.docker()).await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        catalogue::resolve(self.docker(), reference).await
    }

    async fn open(&self, key: &ImageKey, _: LayerForm) -> Result<OpenImage, SourceError> {
        let (inner, config_digest) = (self.inner.clone(), key.config_digest);
        let image = match blocking(move || inner.image(&config_digest)).await {
            Ok(Ok(Some(image))) => image,
            Ok(Ok(None)) => return Err(self.absent(&config_digest).await),
            Ok(Err(reason)) => {
                return Err(SourceError::Malformed { image: key.to_string(), reason });
            }
            Err(source) => return Err(SourceError::Export { image: key.to_string(), source }),
        };
        if !key.names(&image.config_digest, &image.target_digest()) {
            return Err(key.not_found());
        }
        let blobs = Arc::new(ImageFiles { inner: self.inner.clone(), config_digest });
        Ok(OpenImage { image, blobs })
    }
}

impl Overlay2Files {
    /// Why the files have no such image: an engine without images was believed to be theirs, and it
    /// may have got some since.
    async fn absent(&self, config_digest: &ConfigDigest) -> SourceError {
        let image = config_digest.to_string();
        match self.docker().inspect(&image).await {
            Ok(Some(_)) => {
                let reason =
                    "the engine has it, and the files of its data-root do not: they may be \
                              another engine's"
                        .to_owned();
                SourceError::Malformed { image, reason }
            }
            Ok(None) => SourceError::NotFound { image },
            Err(error) => error.about(&image),
        }
    }
}

/// What reading an image's documents tells: what they say, or why they say nothing.
type Read<T> = Result<Result<T, String>, BlobError>;

impl Inner {
    /// The image; `None` where the engine has no such.
    fn image(&self, config_digest: &ConfigDigest) -> Read<Option<Image>> {
        let about = |error: FilesError| error.about(config_digest.0);
        let Some(config) = self.root.config(config_digest).map_err(about)? else {
            return Ok(Ok(None));
        };
        let image = self.image_of(config);
        // An image that is deleted meanwhile loses its layers first.
        if image.is_err() && !self.root.has_image(config_digest) {
            return Ok(Ok(None));
        }
        image.map(|image| image.map(Some))
    }

    fn image_of(&self, config: Bytes) -> Read<Image> {
        let file = match ConfigFile::parse(&config) {
            Ok(file) => file,
            Err(error) => return Ok(Err(transfer::explain(&error))),
        };
        let chain = ChainId::chain(&file.diff_ids);
        let layers: Vec<_> = chain.iter().zip(&file.diff_ids).collect();
        let sizes = self.sizes(&layers)?;
        Ok(Image::from_layers(config, &sizes).map_err(|error| transfer::explain(&error)))
    }

    /// The sizes of these layers' tars in bytes, found out on as many cores as there are.
    fn sizes(&self, layers: &[(&ChainId, &DiffId)]) -> Result<Vec<u64>, BlobError> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut found = Vec::new();
            while let Some((chain, diff)) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                found.push((*diff, self.size(chain, diff)?));
            }
            Ok(found)
        };
        let unknown = layers.iter().filter(|(_, diff)| !self.is_known(diff)).count();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let found: Result<Vec<_>, BlobError> = std::thread::scope(|scope| {
            let others = 1..cores.min(unknown);
            let others: Vec<_> = others.map(|_| scope.spawn(work)).collect();
            let mut found = vec![work()];
            found.extend(others.into_iter().map(|other| match other.join() {
                Ok(found) => found,
                Err(panic) => std::panic::resume_unwind(panic),
            }));
            found.into_iter().collect()
        });
        let found: HashMap<_, _> = found?.into_iter().flatten().collect();
        Ok(layers.iter().map(|(_, diff)| found[diff]).collect())
    }

    fn is_known(&self, diff_id: &DiffId) -> bool {
        let sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sizes.get(diff_id).map(|size| size.try_lock().map(|size| size.is_some()));
        matches!(known, Some(Ok(true)))
    }

    /// The size of a layer's tar in bytes, which the engine itself keeps nowhere.
    fn size(&self, chain_id: &ChainId, diff_id: &DiffId) -> Result<u64, BlobError> {
        let known = {
            let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
            if MAX_SIZES <= sizes.len() {
                sizes.clear();
            }
            sizes.entry(*diff_id).or_default().clone()
        };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(size) = *known {
            return Ok(size);
        }
        let size = self.root.layer(chain_id, diff_id).and_then(|layer| layer.size());
        let size = size.map_err(|error| error.about(diff_id.0))?;
        *known = Some(size);
        Ok(size)
    }
}

/// The blobs of one image: its layers, and the two documents.
struct ImageFiles {
    inner: Arc<Inner>,
    config_digest: ConfigDigest,
}

/// What a digest of an image stands for.
enum Found {
    Document(Bytes),
    Layer { chain_id: ChainId, diff_id: DiffId, size: u64 },
}

impl Found {
    fn size(&self) -> u64 {
        match self {
            Self::Document(bytes) => bytes.len() as u64,
            Self::Layer { size, .. } => *size,
        }
    }
}

impl ImageFiles {
    async fn find(&self, digest: &Digest) -> Result<Option<Found>, BlobError> {
        let (inner, config_digest, digest) = (self.inner.clone(), self.config_digest, *digest);
        blocking(move || inner.find(&config_digest, &digest)).await
    }
}

impl Inner {
    fn find(
        &self,
        config_digest: &ConfigDigest,
        digest: &Digest,
    ) -> Result<Option<Found>, BlobError> {
        let config = self.root.config(config_digest).map_err(|error| error.about(*digest))?;
        let Some(config) = config else { return Ok(None) };
        if *digest == config_digest.0 {
            return Ok(Some(Found::Document(config)));
        }
        let Ok(file) = ConfigFile::parse(&config) else { return Ok(None) };
        let diff_id = DiffId(*digest);
        if let Some(position) = file.diff_ids.iter().position(|id| *id == diff_id) {
            let chain_id = ChainId::chain(&file.diff_ids)[position];
            let size = self.size(&chain_id, &diff_id)?;
            return Ok(Some(Found::Layer { chain_id, diff_id, size }));
        }
        let image = self.image_of(config)?.ok();
        let manifest = image.filter(|image| image.manifest_digest == *digest);
        Ok(manifest.map(|image| Found::Document(image.manifest)))
    }
}

#[async_trait]
impl BlobSource for ImageFiles {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        Ok(self.find(digest).await?.map(|found| found.size()))
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let (size, frames) = self.frames(digest, offset).await?;
        Ok(from_start(offset, frames, *digest, size))
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        Ok(self.frames(digest, offset).await?.1)
    }
}

impl ImageFiles {
    /// The blob's size, and its bytes from `offset` on, of which only the number is known to be right.
    async fn frames(&self, digest: &Digest, offset: u64) -> Result<(u64, BlobStream), BlobError> {
        let digest = *digest;
        let found = self.find(&digest).await?.ok_or(BlobError::NotFound { digest })?;
        let size = found.size();
        if size < offset {
            return Err(BlobError::OffsetBeyondEnd { digest, size, offset });
        }
        let (chain_id, diff_id) = match found {
            Found::Document(bytes) => return Ok((size, in_frames(digest, &bytes, offset)?)),
            Found::Layer { chain_id, diff_id, .. } => (chain_id, diff_id),
        };
        let inner = self.inner.clone();
        let open = move || {
            inner.root.counters.streams.fetch_add(1, Ordering::Relaxed);
            let files = inner.root.layer(&chain_id, &diff_id).map_err(|e| e.about(digest))?;
            rebuild::frames(Layer::open(files, digest, size)?, offset)
        };
        Ok((size, blocking(open).await?))
    }
}

#[cfg(test)]
mod tests;
