//! One save for a batch of images: asked for by ID, split as it streams, each image answered as
//! soon as it is whole in the store.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio_util::io::StreamReader;
use transfer::image::ConfigFile;
use transfer::{BlobError, BlobStore, ConfigDigest, Descriptor, Digest, Image, MediaType};

use super::flight::{Answer, Failure, Flight};
use super::split::{SplitError, Splitter, Wanted};
use super::{Docker, EngineError};

const SAVING: &str = "exporting images";

/// How long the engine may be silent in a save. It writes all layers to its temporary folder before
/// the first byte, which takes minutes for tens of gigabytes.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What exporting has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportStats {
    /// Saves begun.
    pub saves: u64,
    /// Bytes read from the engine in saves.
    pub bytes_read: u64,
}

/// What exporting works on.
pub(super) struct State {
    pub(super) docker: Docker,
    pub(super) store: Arc<dyn BlobStore>,
    pub(super) flight: Arc<Flight>,
    saves: AtomicU64,
    bytes_read: AtomicU64,
}

/// Images of one save, and the blobs that each still lacks.
type Lacking = HashMap<ConfigDigest, HashSet<Digest>>;

impl State {
    pub(super) fn new(docker: Docker, store: Arc<dyn BlobStore>) -> Self {
        Self {
            docker,
            store,
            flight: Arc::default(),
            saves: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
        }
    }

    pub(super) fn stats(&self) -> ExportStats {
        ExportStats {
            saves: self.saves.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
        }
    }

    /// The image from what the store has; `None` unless it has all of it.
    pub(super) async fn assemble(
        &self,
        config_digest: &ConfigDigest,
    ) -> Result<Option<Image>, Failure> {
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
    pub(super) async fn export(&self, batch: Vec<ConfigDigest>) {
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
