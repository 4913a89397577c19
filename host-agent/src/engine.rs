//! The host's engine as a source that may come up after the agent, and go away under it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::{Docker, EngineError, Export, ExportStats};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use transfer::{
    BlobSource, BlobStore, ConfigDigest, EngineInfo, Image, ImageSource, ImageSummary, LayerForm,
    Reference, SourceError,
};

/// How long a start waits for the engine's first answer. What is slower is asked again later.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// An engine at an address: connected to when it first answers, and asked anew on each call until
/// then.
pub struct HostEngine {
    address: String,
    store: Arc<dyn BlobStore>,
    export: OnceCell<Export>,
}

impl std::fmt::Debug for HostEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostEngine").field("address", &self.address).finish_non_exhaustive()
    }
}

impl HostEngine {
    /// The engine at `address`, which need not be there yet; its layers are kept in `store`.
    ///
    /// # Errors
    /// [`EngineError::Address`]: no engine will ever answer there.
    pub async fn at(address: &str, store: Arc<dyn BlobStore>) -> Result<Self, EngineError> {
        let engine = Self { address: address.into(), store, export: OnceCell::new() };
        match timeout(FIRST_LOOK, engine.connect()).await {
            Ok(Err(error @ EngineError::Address { .. })) => Err(error),
            Ok(Err(error)) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(engine = address, error, "no images until the engine answers");
                Ok(engine)
            }
            Ok(Ok(_)) | Err(_) => Ok(engine),
        }
    }

    /// Who the engine is, if it answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.connect().await?.docker().info().await
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// There is none.
    pub async fn ping(&self) -> Result<(), EngineError> {
        self.connect().await?.docker().ping().await
    }

    /// What exporting has cost so far.
    #[must_use]
    pub fn stats(&self) -> ExportStats {
        self.export.get().map(Export::stats).unwrap_or_default()
    }

    async fn connect(&self) -> Result<&Export, EngineError> {
        let connect = || async {
            let docker = Docker::connect(&self.address).await?;
            Ok(Export::new(docker, self.store.clone()))
        };
        self.export.get_or_try_init(connect).await
    }

    async fn export(&self, image: impl ToString) -> Result<&Export, SourceError> {
        self.connect().await.map_err(|error| SourceError::unavailable(image, error))
    }
}

#[async_trait]
impl ImageSource for HostEngine {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.export("*").await?.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.export(reference).await?.resolve(reference).await
    }

    async fn image(
        &self,
        config_digest: &ConfigDigest,
        form: LayerForm,
    ) -> Result<Image, SourceError> {
        self.export(config_digest).await?.image(config_digest, form).await
    }

    fn blobs(&self, config_digest: &ConfigDigest) -> Arc<dyn BlobSource> {
        match self.export.get() {
            Some(export) => export.blobs(config_digest),
            // Nobody was given an image yet; what the store has can be read all the same.
            None => Arc::new(self.store.clone()),
        }
    }
}
