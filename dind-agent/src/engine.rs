//! The range's engine, which may start after the agent, stop under it and come back.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::docker::LoadWay;
use engine::{
    Address, Engine, EngineError, HeldImage, ImageEvents, InvalidAddress, Options, Verification,
};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use transfer::{
    EngineImageId, EngineInfo, Image, ImageSink, ImageSummary, Intake, LoadError, Missing,
    OpenImage, Overlap, Proof, Reference, Room,
};

/// Maximum time that a start waits for the engine's first answer. A slower engine is asked again
/// later.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// An engine at an address: connected to when it first answers, and asked anew on each call until
/// then.
pub struct RangeEngine {
    address: Address,
    /// The address as people write it.
    text: String,
    options: Options,
    opened: OnceCell<Opened>,
}

/// An engine that answered.
struct Opened {
    engine: Arc<dyn Engine>,
    sink: Arc<dyn ImageSink>,
}

impl fmt::Debug for RangeEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeEngine").field("address", &self.text).finish_non_exhaustive()
    }
}

impl RangeEngine {
    /// Connects to the engine at `address`, which need not exist yet. The file `journal` keeps a
    /// record of its blobs.
    ///
    /// # Errors
    /// [`InvalidAddress`]: no engine will ever answer there.
    pub fn at(address: &str, journal: PathBuf) -> Result<Self, InvalidAddress> {
        let address: Address = address.parse()?;
        let text = address.to_string();
        if let Address::Archive(_) = address {
            return Err(InvalidAddress { text, reason: "an archive takes no images" });
        }
        let mut options = Options::default();
        options.docker.journal = Some(journal);
        Ok(Self { address, text, options, opened: OnceCell::new() })
    }

    /// Loads images by `way`; `containerd` is the socket of the containerd beneath the engine, when
    /// it is not in one of the usual places.
    #[must_use]
    pub fn loading_by(mut self, way: LoadWay, containerd: Option<PathBuf>) -> Self {
        self.options.docker.load_way = way;
        self.options.docker.places.containerd_socket = containerd;
        self
    }

    /// Gives the engine a moment for its first answer.
    pub async fn look(&self) {
        if let Ok(Err(error)) = timeout(FIRST_LOOK, self.open()).await {
            let error = transfer::explain(&error);
            tracing::info!(engine = self.text, error, "waiting for the engine");
        }
    }

    /// The engine's address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.text
    }

    async fn open(&self) -> Result<&Opened, EngineError> {
        let open = || async {
            let engine = engine::open(&self.address, &self.options).await?;
            let sink = engine.sink().await?;
            Ok(Opened { engine, sink })
        };
        self.opened.get_or_try_init(open).await
    }

    async fn engine(&self) -> Result<&dyn Engine, EngineError> {
        Ok(&*self.open().await?.engine)
    }

    async fn sink(&self) -> Result<&dyn ImageSink, LoadError> {
        Ok(&*self.open().await?.sink)
    }
}

impl RangeEngine {
    /// The engine's identity.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn who(&self) -> Result<EngineInfo, EngineError> {
        self.engine().await?.info().await
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// There is none.
    pub async fn ping(&self) -> Result<(), EngineError> {
        self.engine().await?.ping().await
    }

    /// Reads every file of an image through the engine; `None` where the engine unpacks nothing.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn verify(&self, image: EngineImageId) -> Result<Option<Verification>, EngineError> {
        self.engine().await?.verify(image).await
    }

    /// Removes what verifications left in the engine when they were cut off.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn sweep_verifications(&self) -> Result<(), EngineError> {
        self.engine().await?.sweep_verifications().await
    }

    /// Every image that the engine holds, sorted by its own IDs.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn images(&self) -> Result<Vec<HeldImage>, EngineError> {
        self.images_since(&[]).await
    }

    /// The same; images that are proven in `known` need not be inspected again.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn images_since(&self, known: &[HeldImage]) -> Result<Vec<HeldImage>, EngineError> {
        self.engine().await?.images_since(known).await
    }

    /// An item for each change of the engine's images or their names.
    ///
    /// # Errors
    /// Any [`EngineError`]; [`EngineError::Unsupported`] where the engine has no events.
    pub async fn image_events(&self) -> Result<ImageEvents, EngineError> {
        self.engine().await?.image_events().await
    }
}

#[async_trait]
impl ImageSink for RangeEngine {
    async fn intake(&self) -> Result<Intake, LoadError> {
        self.sink().await?.intake().await
    }

    async fn overlap(&self) -> Result<Overlap, LoadError> {
        self.sink().await?.overlap().await
    }

    async fn confirm(&self, summary: &ImageSummary) -> Result<Option<Proof>, LoadError> {
        self.sink().await?.confirm(summary).await
    }

    async fn missing(&self, image: &Image) -> Result<Missing, LoadError> {
        self.sink().await?.missing(image).await
    }

    async fn room(&self, image: &Image, missing: &Missing) -> Result<Room, LoadError> {
        self.sink().await?.room(image, missing).await
    }

    async fn load(&self, opened: &OpenImage, missing: &Missing) -> Result<(), LoadError> {
        self.sink().await?.load(opened, missing).await
    }

    async fn prove(&self, image: &Image) -> Result<Option<Proof>, LoadError> {
        self.sink().await?.prove(image).await
    }

    async fn tag(&self, proof: &Proof, reference: &Reference) -> Result<(), LoadError> {
        self.sink().await?.tag(proof, reference).await
    }

    async fn discard(&self, image: &Image) -> Result<(), LoadError> {
        self.sink().await?.discard(image).await
    }

    async fn sweep(&self) -> Result<(), LoadError> {
        self.sink().await?.sweep().await
    }
}
