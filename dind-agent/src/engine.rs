//! The range's engine as a sink that may come up after the agent, and go away under it.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use engine::{Docker, DockerSink, EngineError, HeldImage};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use transfer::{BlobSource, EngineInfo, Image, ImageSink, LoadError, Missing, Proof, Reference};

/// How long a start waits for the engine's first answer. What is slower is asked again later.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// An engine at an address: connected to when it first answers, and asked anew on each call until
/// then.
#[derive(Debug)]
pub struct RangeEngine {
    address: String,
    journal: PathBuf,
    sink: OnceCell<DockerSink>,
}

impl RangeEngine {
    /// The engine at `address`, which need not be there yet; what is learnt of its blobs is kept in
    /// the file `journal`.
    ///
    /// # Errors
    /// [`EngineError::Address`]: no engine will ever answer there.
    pub async fn at(address: &str, journal: PathBuf) -> Result<Self, EngineError> {
        let engine = Self { address: address.into(), journal, sink: OnceCell::new() };
        match timeout(FIRST_LOOK, engine.connect()).await {
            Ok(Err(error @ EngineError::Address { .. })) => Err(error),
            Ok(Err(error)) => {
                tracing::info!(engine = address, %error, "waiting for the engine");
                Ok(engine)
            }
            Ok(Ok(_)) | Err(_) => Ok(engine),
        }
    }

    /// Where the engine is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The engine's own sink.
    ///
    /// # Errors
    /// The engine does not answer yet.
    pub async fn connect(&self) -> Result<&DockerSink, EngineError> {
        self.sink
            .get_or_try_init(|| async {
                let docker = Docker::connect(&self.address).await?;
                Ok(DockerSink::new(docker).with_journal(&self.journal))
            })
            .await
    }
}

impl RangeEngine {
    /// Who the engine is.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn who(&self) -> Result<EngineInfo, EngineError> {
        self.connect().await?.docker().info().await
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// There is none.
    pub async fn ping(&self) -> Result<(), EngineError> {
        self.connect().await?.docker().ping().await
    }

    /// Every image that the engine has, sorted by what it calls them.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn images(&self) -> Result<Vec<HeldImage>, EngineError> {
        self.connect().await?.images().await
    }
}

#[async_trait]
impl ImageSink for RangeEngine {
    async fn info(&self) -> Result<EngineInfo, LoadError> {
        self.connect().await?.info().await
    }

    async fn missing(&self, image: &Image) -> Result<Missing, LoadError> {
        self.connect().await?.missing(image).await
    }

    async fn load(
        &self,
        image: &Image,
        missing: &Missing,
        blobs: &dyn BlobSource,
    ) -> Result<(), LoadError> {
        self.connect().await?.load(image, missing, blobs).await
    }

    async fn prove(&self, image: &Image) -> Result<Option<Proof>, LoadError> {
        self.connect().await?.prove(image).await
    }

    async fn tag(&self, proof: &Proof, reference: &Reference) -> Result<(), LoadError> {
        self.connect().await?.tag(proof, reference).await
    }

    async fn discard(&self, image: &Image) -> Result<(), LoadError> {
        self.connect().await?.discard(image).await
    }
}
