//! The host's side: an engine's images, exported once for everyone who asks.
//!
//! A save writes every layer of an image to the engine's temporary folder before its first byte,
//! and can neither select nor resume. So what one save can give is asked for once: requests that
//! come while a save runs, or shortly before one, go together into one call, and what arrives is
//! kept in the blob store, where all ranges read it. An image whose layers are all in the store is
//! answered from there; the manifest is made up from config and sizes, the same for all times.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio_util::task::AbortOnDropHandle;
use transfer::{
    BlobError, BlobSource, BlobStore, BlobStream, ConfigDigest, Digest, Image, ImageSource,
    ImageSummary, LayerForm, Reference, SourceError, StoreKind,
};

use super::flight::{Failure, Pilot};
use super::images::Inspected;
use super::prove::INSPECTIONS;
use super::save::{ExportStats, State};
use super::{Docker, EngineError};

/// How long an export waits for company: ranges that start together ask within this time, and each
/// save that is not made saves the engine seconds of work per gigabyte.
const GATHER: Duration = Duration::from_millis(50);

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

impl Export {
    /// Exports images of `docker` into `store`.
    #[must_use]
    pub fn new(docker: Docker, store: Arc<dyn BlobStore>) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Arc::new(State::new(docker, store)),
                task: Mutex::new(None),
            }),
        }
    }

    /// What exporting has cost since this was made.
    #[must_use]
    pub fn stats(&self) -> ExportStats {
        self.inner.state.stats()
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

    async fn image(
        &self,
        config_digest: &ConfigDigest,
        _: LayerForm,
    ) -> Result<Image, SourceError> {
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
