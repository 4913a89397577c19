//! The host's side: an engine's images, exported once for everyone who asks.
//!
//! A save writes every layer of an image to the engine's temporary folder before its first byte,
//! and can neither select nor resume. So what one save can give is asked for once: requests that
//! come while a save runs, or shortly before one, go together into one call, and what arrives is
//! kept in the blob store, where all ranges read it. An image whose layers are all in the store is
//! answered from there; the manifest is made up from config and sizes, the same for all times.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;
use transfer::image::ConfigFile;
use transfer::{
    BlobError, BlobSource, BlobStore, BlobStream, ConfigDigest, Descriptor, Digest, Image,
    ImageSource, ImageSummary, MediaType, Reference, SourceError, StoreKind,
};

use super::flight::{Answer, Failure, Flight, Pilot};
use super::images::Inspected;
use super::split::{SplitError, Splitter, Wanted};
use super::{Docker, EngineError};

const SAVING: &str = "exporting images";

/// How long an export waits for company: ranges that start together ask within this time, and each
/// save that is not made saves the engine seconds of work per gigabyte.
const GATHER: Duration = Duration::from_millis(50);

/// How long the engine may be silent in a save. It writes all layers to its temporary folder before
/// the first byte, which takes minutes for tens of gigabytes.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Images inspected at once for a list.
const INSPECTIONS: usize = 8;

/// What exporting has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportStats {
    /// Saves begun.
    pub saves: u64,
    /// Bytes read from the engine in saves.
    pub bytes_read: u64,
}

/// An engine's images as a source, exported into a blob store when somebody asks for them.
///
/// Cheap to clone; the clones are one export. Dropping the last ends a save under way.
#[derive(Clone)]
pub struct Export {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export")
            .field("docker", &self.inner.state.docker)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

struct Inner {
    state: Arc<State>,
    /// The exporter, if one runs. It holds `state` and never `Inner`, so that it ends with it.
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

struct State {
    docker: Docker,
    store: Arc<dyn BlobStore>,
    flight: Arc<Flight>,
    saves: AtomicU64,
    bytes_read: AtomicU64,
}

impl Export {
    /// Exports images of `docker` into `store`.
    #[must_use]
    pub fn new(docker: Docker, store: Arc<dyn BlobStore>) -> Self {
        let state = State {
            docker,
            store,
            flight: Arc::default(),
            saves: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
        };
        Self { inner: Arc::new(Inner { state: Arc::new(state), task: Mutex::new(None) }) }
    }

    /// What exporting has cost since this was made.
    #[must_use]
    pub fn stats(&self) -> ExportStats {
        let state = &self.inner.state;
        ExportStats {
            saves: state.saves.load(Ordering::Relaxed),
            bytes_read: state.bytes_read.load(Ordering::Relaxed),
        }
    }

    /// The engine that is exported from.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.inner.state.docker
    }
}

#[async_trait]
impl ImageSource for Export {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        let docker = self.docker();
        supported(docker).await.map_err(|error| error.about("*"))?;
        let listed = docker.list_images().await.map_err(|error| error.about("*"))?;
        let inspections = listed.into_iter().map(|image| async move {
            docker.inspect(&image.id.to_string()).await.map_err(|error| error.about("*"))
        });
        let inspected: Vec<Option<Inspected>> =
            futures::stream::iter(inspections).buffer_unordered(INSPECTIONS).try_collect().await?;
        // What was deleted meanwhile is not listed.
        let mut summaries: Vec<_> = inspected.iter().flatten().map(summary).collect();
        summaries.sort_by_key(|summary| summary.config_digest);
        Ok(summaries)
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        let docker = self.docker();
        supported(docker).await.map_err(|error| error.about(reference))?;
        let inspected = docker.inspect(&reference.to_string()).await;
        match inspected.map_err(|error| error.about(reference))? {
            Some(inspected) if inspected.is_named(reference) => Ok(summary(&inspected)),
            _ => Err(SourceError::NotFound { image: reference.to_string() }),
        }
    }

    async fn image(&self, config_digest: &ConfigDigest) -> Result<Image, SourceError> {
        self.inner.image(config_digest).await
    }

    fn blobs(&self, config_digest: &ConfigDigest) -> Arc<dyn BlobSource> {
        Arc::new(ImageBlobs { inner: self.inner.clone(), config_digest: *config_digest })
    }
}

/// On a graphdriver an image's ID is its config digest. The containerd store has manifests and
/// indexes of its own, which are not read yet.
async fn supported(docker: &Docker) -> Result<(), EngineError> {
    match docker.info().await?.store {
        StoreKind::Graphdriver => Ok(()),
        StoreKind::Containerd => Err(EngineError::Unsupported {
            engine: docker.address().to_owned(),
            what: "images are exported from the overlay2 store only; \
                   this engine keeps them in the containerd store",
        }),
    }
}

fn summary(inspected: &Inspected) -> ImageSummary {
    ImageSummary {
        config_digest: ConfigDigest(inspected.id.0),
        references: inspected.references(),
        diff_ids: inspected.diff_ids().to_vec(),
        unpacked_size: inspected.size(),
        platform: inspected.platform(),
    }
}

/// One image's blobs: what went away or bad in the store is exported once more.
struct ImageBlobs {
    inner: Arc<Inner>,
    config_digest: ConfigDigest,
}

impl ImageBlobs {
    async fn restore(&self, digest: &Digest) -> Result<(), BlobError> {
        match self.inner.image(&self.config_digest).await {
            Ok(_) => Ok(()),
            Err(SourceError::NotFound { .. }) => Err(BlobError::NotFound { digest: *digest }),
            Err(SourceError::Export { source, .. }) => Err(source),
            Err(error) => Err(BlobError::unavailable(*digest, error)),
        }
    }
}

#[async_trait]
impl BlobSource for ImageBlobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let store = &self.inner.state.store;
        if let Some(size) = store.stat(digest).await? {
            return Ok(Some(size));
        }
        match self.restore(digest).await {
            Err(BlobError::NotFound { .. }) => Ok(None),
            restored => {
                restored?;
                store.stat(digest).await
            }
        }
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let store = &self.inner.state.store;
        match store.open(digest, offset).await {
            Err(BlobError::NotFound { .. }) => {}
            opened => return opened,
        }
        self.restore(digest).await?;
        store.open(digest, offset).await
    }
}

impl Inner {
    async fn image(&self, config_digest: &ConfigDigest) -> Result<Image, SourceError> {
        let stored = self.state.assemble(config_digest).await;
        if let Some(image) = stored.map_err(|failure| failure.about(config_digest))? {
            return Ok(image);
        }
        let (answer, starts) = self.state.flight.join(*config_digest);
        if starts {
            self.start();
        }
        let stopped = |_| Err(Failure::engine("the export was stopped"));
        answer.await.unwrap_or_else(stopped).map_err(|failure| failure.about(config_digest))
    }

    fn start(&self) {
        let state = self.state.clone();
        let pilot = Pilot::new(state.flight.clone());
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(GATHER).await;
                let batch = state.flight.take_off();
                if batch.is_empty() {
                    return pilot.landed();
                }
                state.export(batch).await;
            }
        });
        *self.task.lock().expect("invariant: storing a task does not panic") =
            Some(AbortOnDropHandle::new(task));
    }
}

/// Images of one save, and the blobs that each still lacks.
type Lacking = HashMap<ConfigDigest, HashSet<Digest>>;

impl State {
    /// The image from what the store has; `None` unless it has all of it.
    async fn assemble(&self, config_digest: &ConfigDigest) -> Result<Option<Image>, Failure> {
        let blob = |error| Failure::Blob(Arc::new(error));
        let Some(config) = self.read_small(&config_digest.0).await.map_err(blob)? else {
            return Ok(None);
        };
        let malformed =
            |error: transfer::image::InvalidImage| Failure::Malformed(error.to_string());
        let file = ConfigFile::parse(&config).map_err(malformed)?;
        let mut sizes = Vec::with_capacity(file.diff_ids.len());
        for diff_id in &file.diff_ids {
            match self.store.stat(&diff_id.0).await.map_err(blob)? {
                Some(size) => sizes.push(size),
                None => return Ok(None),
            }
        }
        let image = Image::from_layers(config, &sizes).map_err(malformed)?;
        self.keep_manifest(&image).await.map_err(blob)?;
        Ok(Some(image))
    }

    /// A document from the store; `None` where it is not there or was found to be corrupt.
    async fn read_small(&self, digest: &Digest) -> Result<Option<Bytes>, BlobError> {
        if self.store.stat(digest).await?.is_none() {
            return Ok(None);
        }
        let read = async {
            let mut stream = self.store.open(digest, 0).await?;
            let mut bytes = BytesMut::new();
            while let Some(frame) = stream.next().await {
                bytes.extend_from_slice(&frame?);
            }
            Ok(Some(bytes.freeze()))
        };
        match read.await {
            Err(
                BlobError::NotFound { .. }
                | BlobError::DigestMismatch { .. }
                | BlobError::SizeMismatch { .. },
            ) => Ok(None),
            read => read,
        }
    }

    async fn keep_manifest(&self, image: &Image) -> Result<(), BlobError> {
        if self.store.stat(&image.manifest_digest).await?.is_some() {
            return Ok(());
        }
        let mut ingest = self.store.ingest().await?;
        ingest.write(image.manifest.clone()).await?;
        ingest.commit(&Descriptor::of(MediaType::MANIFEST, &image.manifest)).await
    }

    /// Exports a batch and answers everyone who waits for one of its images.
    async fn export(&self, batch: Vec<ConfigDigest>) {
        let mut lacking = Lacking::new();
        for image in batch {
            match self.lacks(&image).await {
                Ok(lacks) => drop(lacking.insert(image, lacks)),
                Err(failure) => self.flight.settle(&image, &Err(failure)),
            }
        }
        self.save(&mut lacking).await.unwrap_or_else(|failure| {
            tracing::debug!(?failure, images = lacking.len(), "an export failed");
            for image in lacking.keys() {
                self.flight.settle(image, &Err(failure.clone()));
            }
            lacking.clear();
        });
        for (image, lacks) in lacking {
            let reason = match lacks.iter().next() {
                Some(digest) => format!("the engine's export lacks blob {digest}"),
                None => "blobs of it went away while it was exported".into(),
            };
            self.flight.settle(&image, &Err(Failure::Malformed(reason)));
        }
    }

    /// What has to come out of a save for an image: its config and its layers.
    async fn lacks(&self, image: &ConfigDigest) -> Result<HashSet<Digest>, Failure> {
        let inspected = self.docker.inspect(&image.to_string()).await.map_err(Failure::engine)?;
        // The containerd store finds an image by other digests than its config's.
        let inspected = inspected.filter(|inspected| inspected.id.0 == image.0);
        let inspected = inspected.ok_or(Failure::NotFound)?;
        let mut lacks: HashSet<_> = inspected.diff_ids().iter().map(|diff_id| diff_id.0).collect();
        lacks.insert(image.0);
        Ok(lacks)
    }

    /// One save of all images. When the engine refuses them together, since one was deleted, each
    /// has a save of its own.
    async fn save(&self, lacking: &mut Lacking) -> Result<(), Failure> {
        let names: Vec<_> = lacking.keys().copied().collect();
        match self.open_save(&names).await {
            Ok(answer) => self.split(answer, lacking).await,
            Err(error) if names.len() == 1 => Err(failure(error)),
            Err(EngineError::NotFound { .. } | EngineError::Refused { .. }) => {
                for name in names {
                    let Some(lacks) = lacking.remove(&name) else { continue };
                    let mut alone = Lacking::from([(name, lacks)]);
                    let saved = match self.open_save(&[name]).await {
                        Ok(answer) => self.split(answer, &mut alone).await,
                        Err(error) => Err(failure(error)),
                    };
                    if let Err(failure) = saved {
                        self.flight.settle(&name, &Err(failure));
                        alone.clear();
                    }
                    lacking.extend(alone);
                }
                Ok(())
            }
            Err(error) => Err(failure(error)),
        }
    }

    /// By ID, so that moving a tag meanwhile changes nothing.
    async fn open_save(&self, images: &[ConfigDigest]) -> Result<super::http::Answer, EngineError> {
        let names: Vec<_> = images.iter().map(|image| format!("names={image}")).collect();
        let path = format!("/images/get?{}", names.join("&"));
        self.saves.fetch_add(1, Ordering::Relaxed);
        self.docker.http.get(SAVING, &path, PATIENCE).await
    }

    /// Takes what is wanted out of a save, and answers for each image as soon as it is whole.
    async fn split(&self, save: super::http::Answer, lacking: &mut Lacking) -> Result<(), Failure> {
        let wanted = Wanted {
            configs: lacking.keys().copied().collect(),
            layers: lacking.values().flatten().copied().collect(),
        };
        let counted = save.inspect_ok(|piece| {
            self.bytes_read.fetch_add(piece.len() as u64, Ordering::Relaxed);
        });
        let reader = StreamReader::new(counted);
        let mut splitter = Splitter::new(reader, &*self.store, &wanted).map_err(Failure::from)?;
        while let Some(digest) = splitter.next().await.map_err(Failure::from)? {
            let mut whole = Vec::new();
            for (image, lacks) in &mut *lacking {
                if lacks.remove(&digest) && lacks.is_empty() {
                    whole.push(*image);
                }
            }
            for image in whole {
                lacking.remove(&image);
                let answer: Answer = self.assemble(&image).await.and_then(|assembled| {
                    let reason = "blobs of it went away while it was exported";
                    assembled.ok_or_else(|| Failure::Malformed(reason.into()))
                });
                self.flight.settle(&image, &answer);
            }
        }
        Ok(())
    }
}

fn failure(error: EngineError) -> Failure {
    match error {
        EngineError::NotFound { .. } => Failure::NotFound,
        error => Failure::engine(error),
    }
}

impl From<SplitError> for Failure {
    fn from(error: SplitError) -> Self {
        match error {
            SplitError::Store(error) => Self::Blob(Arc::new(error)),
            error @ SplitError::Read(_) => Self::engine(error),
        }
    }
}
