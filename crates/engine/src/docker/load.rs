//! The range's side: thin archives into the engine's socket as their frames arrive.

use super::Docker;
use async_trait::async_trait;
use std::path::PathBuf;
use transfer::*;

/// A Docker engine that takes images, whichever store it has.
#[derive(Debug)]
pub struct DockerSink {
    docker: Docker,
    journal: Option<PathBuf>,
}
impl DockerSink {
    /// Loads into `docker`. What was learnt of its blobs is kept in memory only.
    #[must_use]
    pub fn new(docker: Docker) -> Self {
        Self { docker, journal: None }
    }
    /// Keeps what is learnt in the file `path` as well, so that it outlives the process.
    #[must_use]
    pub fn with_journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }
    /// The engine.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.docker
    }
}
#[async_trait]
impl ImageSink for DockerSink {
    async fn info(&self) -> Result<EngineInfo, LoadError> {
        Ok(self.docker.info().await?)
    }
    async fn missing(&self, image: &Image) -> Result<Missing, LoadError> {
        Ok(Missing::all(image))
    }
    async fn load(&self, _: &Image, _: &Missing, _: &dyn BlobSource) -> Result<(), LoadError> {
        Err(LoadError::Refused { message: "not built".into() })
    }
    async fn prove(&self, _: &Image) -> Result<Option<Proof>, LoadError> {
        Ok(None)
    }
    async fn tag(&self, _: &Proof, _: &Reference) -> Result<(), LoadError> {
        Ok(())
    }
    async fn discard(&self, _: &Image) -> Result<(), LoadError> {
        Ok(())
    }
}
