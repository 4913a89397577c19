//! A Docker engine as an [`Engine`].

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use transfer::{BlobStore, EngineImageId, EngineInfo, Fallback, ImageSink, ImageSource};

use super::api::Docker;
use super::load::{DockerSink, LoadWay};
use super::read::Export;
use super::read::method::{self, Places, Way};
use crate::engine::{Engine, Exported, HeldImage, ImageEvents, Source, Verification};
use crate::error::EngineError;

/// How a Docker engine is used.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The read method for layers; the most direct one that works when absent.
    pub way: Option<Way>,
    /// Where the engine's own files and sockets are on this machine.
    pub places: Places,
    /// The load method for images.
    pub load_way: LoadWay,
    /// The file that keeps what is learnt of the engine's blobs; only memory does when absent.
    pub journal: Option<PathBuf>,
}

/// A Docker engine, for reading and for loading.
#[derive(Debug)]
pub struct DockerEngine {
    docker: Docker,
    sink: Arc<DockerSink>,
    way: Option<Way>,
    places: Places,
}

impl DockerEngine {
    /// Connects to the engine at `address`.
    ///
    /// # Errors
    /// As [`Docker::connect`].
    pub async fn open(address: &str, options: Options) -> Result<Self, EngineError> {
        let Options { way, places, load_way, journal } = options;
        let docker = Docker::connect(address).await?;
        let sink = DockerSink::new(docker.clone());
        let sink = sink.with_way(load_way, places.containerd_socket.clone());
        let sink = match journal {
            Some(path) => sink.with_journal(path),
            None => sink,
        };
        Ok(Self { docker, sink: Arc::new(sink), way, places })
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.docker.info().await
    }

    /// Cheaper for the engine than its identity.
    async fn ping(&self) -> Result<(), EngineError> {
        self.docker.ping().await
    }

    async fn source(&self, store: &Arc<dyn BlobStore>) -> Result<Source, EngineError> {
        let (way, direct) = match self.way {
            Some(way) => (way, method::open(&self.docker, way, &self.places).await?),
            None => method::open_best(&self.docker, &self.places).await?,
        };
        let export = Export::new(self.docker.clone(), store.clone());
        let single_layers = direct.is_some();
        let images: Arc<dyn ImageSource> = match (direct, self.way) {
            // A forced read method has nothing behind it.
            (Some(direct), Some(_)) => direct,
            (Some(direct), None) => Arc::new(Fallback::new(direct, export.clone())),
            (None, _) => Arc::new(export.clone()),
        };
        let may_improve = !single_layers && self.way.is_none();
        let exported: Exported = Arc::new(move || export.stats());
        let exported = Some(exported);
        Ok(Source { way: way.as_str(), images, single_layers, may_improve, exported })
    }

    async fn sink(&self) -> Result<Arc<dyn ImageSink>, EngineError> {
        Ok(self.sink.clone())
    }

    async fn images_since(&self, known: &[HeldImage]) -> Result<Vec<HeldImage>, EngineError> {
        self.sink.images_since(known).await
    }

    async fn image_events(&self) -> Result<ImageEvents, EngineError> {
        self.docker.image_events().await
    }

    async fn verify(&self, image: EngineImageId) -> Result<Option<Verification>, EngineError> {
        self.docker.verify(image).await.map(Some)
    }

    async fn sweep_verifications(&self) -> Result<(), EngineError> {
        self.docker.sweep_verifications().await
    }
}
