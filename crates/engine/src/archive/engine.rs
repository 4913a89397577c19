//! A tar file of images as an [`Engine`] that takes none.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use transfer::{BlobStore, EngineImageId, EngineInfo, ImageSink};

use super::{Archive, ArchiveError};
use crate::engine::{Engine, HeldImage, ImageEvents, Source, Verification};
use crate::error::EngineError;

/// An archive that images are read from.
#[derive(Debug)]
pub struct ArchiveEngine {
    archive: Archive,
}

impl ArchiveEngine {
    /// Opens the archive at `path`.
    ///
    /// # Errors
    /// Any [`ArchiveError`], as its source.
    pub async fn open(path: &Path) -> Result<Self, EngineError> {
        let opened = Archive::open(path).await;
        Ok(Self { archive: opened.map_err(|error| failed(path, error))? })
    }

    fn takes_none(&self) -> EngineError {
        EngineError::Unsupported {
            engine: address(self.archive.path()),
            what: "an archive takes no images",
        }
    }
}

fn address(path: &Path) -> String {
    format!("archive:{}", path.display())
}

fn failed(path: &Path, error: ArchiveError) -> EngineError {
    let (engine, source) = (address(path), error.into());
    EngineError::Failed { engine, action: "reading the archive", source }
}

#[async_trait]
impl Engine for ArchiveEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.archive.info().await.map_err(|error| match error {
            ArchiveError::Changed { path } => EngineError::Changed { engine: address(&path) },
            error => failed(self.archive.path(), error),
        })
    }

    async fn source(&self, _: &Arc<dyn BlobStore>) -> Result<Source, EngineError> {
        Ok(Source {
            way: "archive",
            images: Arc::new(self.archive.clone()),
            single_layers: true,
            may_improve: false,
            exported: None,
        })
    }

    async fn sink(&self) -> Result<Arc<dyn ImageSink>, EngineError> {
        Err(self.takes_none())
    }

    async fn images_since(&self, _: &[HeldImage]) -> Result<Vec<HeldImage>, EngineError> {
        Err(self.takes_none())
    }

    async fn image_events(&self) -> Result<ImageEvents, EngineError> {
        let engine = address(self.archive.path());
        Err(EngineError::Unsupported { engine, what: "a file has no events" })
    }

    async fn verify(&self, _: EngineImageId) -> Result<Option<Verification>, EngineError> {
        Ok(None)
    }
}
