//! One trait for every kind of engine: who it is, what it holds, and how its images are read and
//! taken in. Another kind of engine is one more folder with an implementation, and one more line in
//! [`open`](crate::open()).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use transfer::{
    BlobStore, ConfigDigest, EngineImageId, EngineInfo, ImageSink, ImageSource, Reference,
};

use crate::error::EngineError;

/// A place that has images, takes images, or both.
///
/// Nothing here needs a daemon: a folder is an engine, and so could be the data-root of one that is
/// not started.
#[async_trait]
pub trait Engine: fmt::Debug + Send + Sync {
    /// The engine's identity.
    ///
    /// # Errors
    /// It does not answer.
    async fn info(&self) -> Result<EngineInfo, EngineError>;

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// There is none; [`EngineError::Changed`] when the engine must be opened anew.
    async fn ping(&self) -> Result<(), EngineError> {
        self.info().await.map(drop)
    }

    /// Its images for readers. A source that can only export whole images keeps them in `store`.
    ///
    /// # Errors
    /// Its images cannot be read.
    async fn source(&self, store: &Arc<dyn BlobStore>) -> Result<Source, EngineError>;

    /// The engine for images that are to go in.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] where it takes none.
    async fn sink(&self) -> Result<Arc<dyn ImageSink>, EngineError>;

    /// Every image that it holds, sorted by the engine's own ID. Images that are proven in `known`
    /// need not be inspected again.
    ///
    /// # Errors
    /// It does not answer.
    async fn images_since(&self, known: &[HeldImage]) -> Result<Vec<HeldImage>, EngineError>;

    /// An item for each change of its images or their names.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] where it has no events.
    async fn image_events(&self) -> Result<ImageEvents, EngineError>;

    /// Reads every file of an image through the engine; `None` where the engine unpacks nothing.
    ///
    /// # Errors
    /// It does not answer, or cannot run what reads the files.
    async fn verify(&self, image: EngineImageId) -> Result<Option<Verification>, EngineError>;

    /// Removes what verifications left in the engine when they were cut off.
    ///
    /// # Errors
    /// It does not answer.
    async fn sweep_verifications(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// The images of an engine, and how they are read.
pub struct Source {
    /// The read method in a word: `files`, `save`, `layout`.
    pub way: &'static str,
    /// The images.
    pub images: Arc<dyn ImageSource>,
    /// Whether `images` reads any one layer from any offset and keeps nothing. Otherwise it exports
    /// whole images, and keeps their layers in the store that it was opened with.
    pub single_layers: bool,
    /// Whether opening the source again may find a better read method.
    pub may_improve: bool,
    /// Reports the cost of exports so far; absent where the engine never exports.
    pub exported: Option<Exported>,
}

/// Reports the cost of exports so far.
pub type Exported = Arc<dyn Fn() -> ExportStats + Send + Sync>;

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("way", &self.way).finish_non_exhaustive()
    }
}

/// An image that an engine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldImage {
    /// What the engine calls it.
    pub engine_image_id: EngineImageId,
    /// Its names. Sorted; empty for an image without a tag.
    pub references: Vec<Reference>,
    /// Its name across engines; absent on the containerd store for an image that another program
    /// brought, since the engine does not report it.
    pub config_digest: Option<ConfigDigest>,
    /// Whether the engine confirms that every layer of it is there and unpacked.
    pub proven: bool,
}

/// Findings of a verification of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Files whose content was compared.
    pub files: u64,
    /// Bytes read from the engine.
    pub bytes_read: u64,
    /// At most a hundred problems; empty when the image is right.
    pub problems: Vec<String>,
    /// Problems beyond those.
    pub more_problems: u64,
}

/// One item for each time that an engine's images or their names may have changed. Ends with an
/// error, or when the engine ends.
pub type ImageEvents = BoxStream<'static, Result<(), EngineError>>;

/// The cost of exports so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportStats {
    /// Saves begun.
    pub saves: u64,
    /// Bytes read from the engine in saves.
    pub bytes_read: u64,
}
