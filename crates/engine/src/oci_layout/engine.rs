//! A folder of the OCI image layout as an [`Engine`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use transfer::blob::Cause;
use transfer::blocking::blocking;
use transfer::{BlobStore, EngineImageId, EngineInfo, ImageSink};

use super::{OciLayout, OciLayoutSink, info};
use crate::engine::{Engine, HeldImage, ImageEvents, Source, Verification};
use crate::error::EngineError;

/// A folder that images are read from or go into. A reader needs a layout; a sink makes one.
#[derive(Debug)]
pub struct LayoutEngine {
    root: PathBuf,
    sink: OnceCell<OciLayoutSink>,
}

impl LayoutEngine {
    /// The folder `root`, which need not be there yet.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), sink: OnceCell::new() }
    }

    async fn taking(&self) -> Result<&OciLayoutSink, EngineError> {
        let open = || OciLayoutSink::open(&self.root);
        let opened = self.sink.get_or_try_init(open).await;
        opened.map_err(|error| failed(&self.root, "opening the folder", error))
    }
}

/// What went wrong with the folder, as an engine's error.
fn failed(root: &Path, action: &'static str, source: impl Into<Cause>) -> EngineError {
    EngineError::Failed { engine: format!("oci:{}", root.display()), action, source: source.into() }
}

#[async_trait]
impl Engine for LayoutEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        let root = self.root.clone();
        let told = blocking(move || info(&root)).await;
        told.map_err(|error| failed(&self.root, "looking at the folder", error))
    }

    async fn source(&self, _: &Arc<dyn BlobStore>) -> Result<Source, EngineError> {
        let layout = OciLayout::open(&self.root).await;
        let layout = layout.map_err(|error| failed(&self.root, "opening the folder", error))?;
        Ok(Source {
            way: "layout",
            images: Arc::new(layout),
            single_layers: true,
            may_improve: false,
            exported: None,
        })
    }

    async fn sink(&self) -> Result<Arc<dyn ImageSink>, EngineError> {
        Ok(Arc::new(self.taking().await?.clone()))
    }

    async fn images_since(&self, _: &[HeldImage]) -> Result<Vec<HeldImage>, EngineError> {
        let held = self.taking().await?.images().await;
        held.map_err(|error| failed(&self.root, "listing its images", error))
    }

    async fn image_events(&self) -> Result<ImageEvents, EngineError> {
        let engine = format!("oci:{}", self.root.display());
        Err(EngineError::Unsupported { engine, what: "a folder has no events" })
    }

    async fn verify(&self, _: EngineImageId) -> Result<Option<Verification>, EngineError> {
        Ok(None)
    }
}
