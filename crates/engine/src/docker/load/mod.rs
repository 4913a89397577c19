//! The range's side: images into an engine, in the way that its store takes them fastest.
//!
//! ```text
//!   graphdriver         archive
//!   containerd store    containerd (direct ingest) ─► archive
//! ```
//! Every way ends alike: the image has no name yet, and nothing is believed before its proof.

mod archive;
mod registry;
mod watch;
mod way;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use transfer::{BlobSource, EngineInfo, Image, ImageSink, LoadError, Missing, Proof, Reference};

use super::journal::Journal;
use super::prove::Presence;
use super::{Docker, EngineError};
use archive::ArchiveLoader;
use registry::RegistryLoader;
pub use way::{InvalidLoadWay, LoadWay};

/// How long a sign of life may take, on a machine that is extracting several images.
const PING_DEADLINE: Duration = Duration::from_secs(20);

/// One way of taking an image into an engine.
#[async_trait]
trait Loader: Send + Sync {
    /// As [`ImageSink::load`].
    ///
    /// # Errors
    /// Any [`LoadError`].
    async fn load(
        &self,
        image: &Image,
        missing: &Missing,
        blobs: &Arc<dyn BlobSource>,
    ) -> Result<(), LoadError>;
}

/// A Docker engine that takes images, whichever store it has.
#[derive(Debug)]
pub struct DockerSink {
    docker: Docker,
    presence: Presence,
    way: LoadWay,
    containerd: Option<PathBuf>,
    archive: ArchiveLoader,
    registry: RegistryLoader,
}

impl DockerSink {
    /// Loads into `docker`. What is learnt of its blobs is kept in memory only.
    #[must_use]
    pub fn new(docker: Docker) -> Self {
        let archive = ArchiveLoader::new(docker.clone());
        let registry = RegistryLoader::new(docker.clone());
        Self {
            docker,
            presence: Presence::default(),
            way: LoadWay::Auto,
            containerd: None,
            archive,
            registry,
        }
    }

    /// Keeps what is learnt in the file `path` as well, so that it outlives the process. Losing the
    /// file costs bytes and nothing else. Best beside the engine's own data, so that whoever copies
    /// or deletes one does so with both.
    #[must_use]
    pub fn with_journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.presence = Presence::new(Journal::open(path.into()));
        self
    }

    /// Loads in this way; `containerd` is the socket of the containerd beneath the engine, when it
    /// is not in one of the usual places.
    #[must_use]
    pub fn with_way(mut self, way: LoadWay, containerd: Option<PathBuf>) -> Self {
        (self.way, self.containerd) = (way, containerd);
        self
    }

    pub(super) fn journal(&self) -> &Journal {
        self.presence.journal()
    }

    /// The engine that images are loaded into.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// What loads the next image.
    fn loader(&self) -> &dyn Loader {
        match self.way {
            LoadWay::Auto | LoadWay::Archive | LoadWay::Containerd => &self.archive,
            LoadWay::Registry => &self.registry,
        }
    }
}

#[async_trait]
impl ImageSink for DockerSink {
    async fn info(&self) -> Result<EngineInfo, LoadError> {
        Ok(self.docker.info().await?)
    }

    async fn missing(&self, image: &Image) -> Result<Missing, LoadError> {
        Ok(self.presence.missing(&self.docker, image).await?)
    }

    async fn load(
        &self,
        image: &Image,
        missing: &Missing,
        blobs: &Arc<dyn BlobSource>,
    ) -> Result<(), LoadError> {
        self.loader().load(image, missing, blobs).await
    }

    async fn prove(&self, image: &Image) -> Result<Option<Proof>, LoadError> {
        Ok(self.presence.prove(&self.docker, image).await?)
    }

    async fn tag(&self, proof: &Proof, reference: &Reference) -> Result<(), LoadError> {
        self.docker.tag(proof.engine_image_id, reference).await?;
        // Whichever way it came: an agent before this one may have had it pulled.
        Ok(registry::drop_names(&self.docker, proof.engine_image_id).await?)
    }

    async fn discard(&self, image: &Image) -> Result<(), LoadError> {
        // Often called after the engine stopped answering: then there is no use in waiting again.
        if !is_alive(&self.docker).await {
            let action = "removing what a failed load left";
            let dead = EngineError::timed_out(self.docker.address(), action, PING_DEADLINE);
            return Err(dead.into());
        }
        Ok(self.presence.discard(&self.docker, image).await?)
    }
}

/// Whether the engine shows a sign of life in time.
async fn is_alive(docker: &Docker) -> bool {
    matches!(tokio::time::timeout(PING_DEADLINE, docker.ping()).await, Ok(Ok(())))
}
