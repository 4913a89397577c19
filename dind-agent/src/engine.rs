//! The range's engine as a sink that may come up after the agent, and go away under it.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use engine::docker::{LoadWay, Verification};
use engine::{
    Address, Docker, DockerSink, EngineError, HeldImage, ImageEvents, InvalidAddress, OciLayoutSink,
};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use transfer::blob::Cause;
use transfer::{
    EngineImageId, EngineInfo, Image, ImageSink, ImageSummary, LoadError, Missing, OpenImage,
    Overlap, Proof, Reference, Room, StoreKind,
};

use crate::space::Space;

/// How long a start waits for the engine's first answer. What is slower is asked again later.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// An engine at an address: connected to when it first answers, and asked anew on each call until
/// then.
#[derive(Debug)]
pub struct RangeEngine {
    address: Address,
    /// The address as people write it.
    text: String,
    journal: PathBuf,
    way: LoadWay,
    /// The socket of the containerd beneath the engine, when not in one of the usual places.
    containerd: Option<PathBuf>,
    sink: OnceCell<Sink>,
    space: Space,
}

/// What takes images, by its kind.
#[derive(Debug)]
enum Sink {
    Docker(Box<DockerSink>),
    /// A folder in the place of an engine.
    Layout(OciLayoutSink),
}

impl RangeEngine {
    /// The engine at `address`, which need not be there yet; what is learnt of its blobs is kept in
    /// the file `journal`.
    ///
    /// # Errors
    /// [`InvalidAddress`]: no engine will ever answer there.
    pub fn at(address: &str, journal: PathBuf) -> Result<Self, InvalidAddress> {
        let address: Address = address.parse()?;
        let text = address.to_string();
        if let Address::Archive(_) = address {
            return Err(InvalidAddress { text, reason: "an archive takes no images" });
        }
        let (way, containerd) = (LoadWay::Auto, None);
        Ok(Self {
            address,
            text,
            journal,
            way,
            containerd,
            sink: OnceCell::new(),
            space: Space::default(),
        })
    }

    /// Brings images in by `way`; `containerd` is the socket of the containerd beneath the engine,
    /// when it is not in one of the usual places.
    #[must_use]
    pub fn loading_by(mut self, way: LoadWay, containerd: Option<PathBuf>) -> Self {
        (self.way, self.containerd) = (way, containerd);
        self
    }

    /// Gives the engine a moment for its first answer.
    pub async fn look(&self) {
        if let Ok(Err(error)) = timeout(FIRST_LOOK, self.connect()).await {
            let error = transfer::explain(&error);
            tracing::info!(engine = self.text, error, "waiting for the engine");
        }
    }

    /// Where the engine is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.text
    }

    async fn connect(&self) -> Result<&Sink, EngineError> {
        self.sink.get_or_try_init(|| self.open()).await
    }

    async fn open(&self) -> Result<Sink, EngineError> {
        match &self.address {
            Address::OciLayout(root) => {
                let opened = OciLayoutSink::open(root).await;
                opened.map(Sink::Layout).map_err(|error| self.failed("opening the folder", error))
            }
            Address::Docker(_) | Address::Archive(_) => {
                let docker = Docker::connect(&self.text).await?;
                let sink = DockerSink::new(docker).with_journal(&self.journal);
                Ok(Sink::Docker(Box::new(sink.with_way(self.way, self.containerd.clone()))))
            }
        }
    }

    /// What a folder says, as an engine would.
    fn failed(&self, action: &'static str, source: impl Into<Cause>) -> EngineError {
        EngineError::Failed { engine: self.text.clone(), action, source: source.into() }
    }

    async fn sink(&self) -> Result<&dyn ImageSink, LoadError> {
        Ok(match self.connect().await? {
            Sink::Docker(sink) => &**sink,
            Sink::Layout(sink) => sink,
        })
    }
}

impl RangeEngine {
    /// Who the engine is.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn who(&self) -> Result<EngineInfo, EngineError> {
        match self.connect().await? {
            Sink::Docker(sink) => sink.docker().info().await,
            Sink::Layout(sink) => {
                sink.info().await.map_err(|error| self.failed("looking at the folder", error))
            }
        }
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// There is none.
    pub async fn ping(&self) -> Result<(), EngineError> {
        match self.connect().await? {
            Sink::Docker(sink) => sink.docker().ping().await,
            Sink::Layout(_) => self.who().await.map(|_| ()),
        }
    }

    /// Reads every file of an image through the engine; `None` where a folder is in its place.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn verify(&self, image: EngineImageId) -> Result<Option<Verification>, EngineError> {
        match self.connect().await? {
            Sink::Docker(sink) => sink.docker().verify(image).await.map(Some),
            Sink::Layout(_) => Ok(None),
        }
    }

    /// Removes what verifications left in the engine when they were ended.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn sweep_verifications(&self) -> Result<(), EngineError> {
        match self.connect().await? {
            Sink::Docker(sink) => sink.docker().sweep_verifications().await,
            Sink::Layout(_) => Ok(()),
        }
    }

    /// Every image that the engine has, sorted by what it calls them.
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
        match self.connect().await? {
            Sink::Docker(sink) => sink.images_since(known).await,
            Sink::Layout(sink) => {
                sink.images().await.map_err(|error| self.failed("listing its images", error))
            }
        }
    }
}

impl RangeEngine {
    /// An item for each change of the engine's images or their names.
    ///
    /// # Errors
    /// Any [`EngineError`]; [`EngineError::Unsupported`] where a folder is in its place.
    pub async fn image_events(&self) -> Result<ImageEvents, EngineError> {
        match self.connect().await? {
            Sink::Docker(sink) => sink.docker().image_events().await,
            Sink::Layout(_) => {
                let engine = self.text.clone();
                Err(EngineError::Unsupported { engine, what: "a folder has no events" })
            }
        }
    }
}

#[async_trait]
impl ImageSink for RangeEngine {
    async fn info(&self) -> Result<EngineInfo, LoadError> {
        self.sink().await?.info().await
    }

    async fn store(&self) -> Result<StoreKind, LoadError> {
        self.sink().await?.store().await
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
        let Sink::Docker(sink) = self.connect().await? else { return Ok(Room::default()) };
        match sink.docker().data_root().await? {
            Some(root) => self.space.room(&root, image, missing).await,
            None => Ok(Room::default()),
        }
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
