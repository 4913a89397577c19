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
use tokio_util::task::AbortOnDropHandle;
use transfer::{
    BlobError, BlobSource, BlobStore, BlobStream, ConfigDigest, Digest, Image, ImageSource,
    ImageSummary, LayerForm, Reference, SourceError,
};

use super::flight::{Failure, Pilot};
use super::save::{ExportStats, State};
use super::{Docker, catalogue};

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
        catalogue::list(self.docker()).await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        catalogue::resolve(self.docker(), reference).await
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
