//! The range's side: images into an engine, in the way that its store takes them fastest.
//!
//! ```text
//!   graphdriver         archive
//!   containerd store    containerd (direct ingest) ─► archive
//!   either, when told   registry (the engine pulls)
//! ```
//! Every way ends alike: the image has no name of the user's yet, and nothing is believed before its
//! proof.

mod archive;
mod held;
mod ingest;
mod journal;
mod method;
mod prove;
mod registry;
mod space;
mod thin;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use transfer::{
    BlobSource, Image, ImageSink, ImageSummary, Intake, LoadError, Missing, OpenImage, Overlap,
    Proof, Reference, Room, StoreKind,
};

use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::docker::load::journal::Journal;
use crate::docker::load::prove::Presence;
use crate::docker::load::space::Space;
use archive::ArchiveLoader;
use ingest::{Detour, Ingester, WayError};
pub use method::{InvalidLoadWay, LoadWay};
use registry::RegistryLoader;
pub use thin::ThinArchive;
use watch::{PING_DEADLINE, is_alive};

/// A Docker engine that takes images, whichever store it has.
#[derive(Debug)]
pub struct DockerSink {
    docker: Docker,
    presence: Presence,
    way: LoadWay,
    archive: ArchiveLoader,
    registry: RegistryLoader,
    ingester: Ingester,
    space: Space,
}

impl DockerSink {
    /// Loads into `docker`. What is learnt of its blobs is kept in memory only.
    #[must_use]
    pub fn new(docker: Docker) -> Self {
        let archive = ArchiveLoader::new(docker.clone());
        let registry = RegistryLoader::new(docker.clone());
        let ingester = Ingester::new(docker.clone(), None);
        let presence = Presence::default();
        let (way, space) = (LoadWay::Auto, Space::default());
        Self { docker, presence, way, archive, registry, ingester, space }
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
        self.way = way;
        self.ingester = Ingester::new(self.docker.clone(), containerd);
        self
    }

    fn journal(&self) -> &Journal {
        self.presence.journal()
    }

    /// The engine that images are loaded into.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Whether images go straight into containerd where the engine has one.
    fn ingests(&self) -> bool {
        matches!(self.way, LoadWay::Auto | LoadWay::Containerd)
    }

    /// Straight into containerd; by an archive where that cannot be gone and is not the only way.
    async fn ingest(
        &self,
        image: &Image,
        missing: &Missing,
        blobs: &Arc<dyn BlobSource>,
    ) -> Result<(), LoadError> {
        match self.ingester.load(image, missing, blobs).await {
            Err(Detour::Way(error)) if self.way == LoadWay::Auto => {
                tell(&error);
                self.archive.load(image, missing, blobs).await
            }
            ended => ended.map_err(|error| error.into_load_error(&self.docker)),
        }
    }
}

/// Tells that images go in by an archive, and why.
fn tell(error: &WayError) {
    let reason = transfer::explain(error);
    match error {
        WayError::Graphdriver | WayError::NoSocket { .. } => {
            tracing::debug!(reason, "loading by an archive");
        }
        _ => tracing::info!(reason, "loading by an archive"),
    }
}

#[async_trait]
impl ImageSink for DockerSink {
    async fn intake(&self) -> Result<Intake, LoadError> {
        Ok(match self.docker.store_kind().await? {
            StoreKind::Graphdriver => Intake::UNPACKS,
            StoreKind::Containerd => Intake::KEEPS_BLOBS,
        })
    }

    async fn confirm(&self, summary: &ImageSummary) -> Result<Option<Proof>, LoadError> {
        Ok(self.presence.confirm(&self.docker, summary).await?)
    }

    async fn overlap(&self) -> Result<Overlap, LoadError> {
        let direct = self.ingests() && self.ingester.is_near().await;
        Ok(if direct { Overlap::Layers } else { Overlap::Images })
    }

    async fn missing(&self, image: &Image) -> Result<Missing, LoadError> {
        if self.ingests()
            && let Some(missing) = self.ingester.missing(image).await
        {
            return Ok(missing);
        }
        Ok(self.presence.missing(&self.docker, image).await?)
    }

    async fn room(&self, image: &Image, missing: &Missing) -> Result<Room, LoadError> {
        match self.docker.data_root().await? {
            Some(root) => self.space.room(&root, image, missing).await,
            None => Ok(Room::default()),
        }
    }

    async fn load(&self, opened: &OpenImage, missing: &Missing) -> Result<(), LoadError> {
        let OpenImage { image, blobs } = opened;
        match self.way {
            LoadWay::Auto | LoadWay::Containerd => self.ingest(image, missing, blobs).await,
            LoadWay::Archive => self.archive.load(image, missing, blobs).await,
            LoadWay::Registry => self.registry.load(image, blobs).await,
        }
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

    async fn sweep(&self) -> Result<(), LoadError> {
        Ok(self.presence.sweep(&self.docker).await?)
    }
}
