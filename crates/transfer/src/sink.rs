//! Where images go: an engine that takes what it lacks, and can be asked to prove that it has it.

use std::any::Any;
use std::fmt;

use async_trait::async_trait;

use crate::blob::{BlobError, Cause};
use crate::digest::EngineImageId;
use crate::image::{Image, LayerForm};
use crate::reference::Reference;
use crate::source::{ImageSummary, OpenImage};

/// How the images of a sink share layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sharing {
    /// A layer on top of the same layers is the same layer: only a present *prefix* of an image's
    /// layers can be left out of a load.
    ByChain,
    /// A layer with the same blob is the same layer: any present one can be left out.
    ByBlob,
}

/// How a sink takes images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intake {
    /// How it shares layers.
    pub sharing: Sharing,
    /// The form of layers that it takes with the least work.
    pub form: LayerForm,
}

impl Intake {
    /// A sink that only unpacks layers and knows them by what is beneath them.
    pub const UNPACKS: Self = Self { sharing: Sharing::ByChain, form: LayerForm::Uncompressed };

    /// A sink that keeps the blobs.
    pub const KEEPS_BLOBS: Self = Self { sharing: Sharing::ByBlob, form: LayerForm::AsStored };
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ByChain => "by chain",
            Self::ByBlob => "by blob",
        })
    }
}

/// What an engine lacks of an image: for each layer, whether its bytes must be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub Vec<bool>);

impl Missing {
    /// Everything must be sent.
    #[must_use]
    pub fn all(image: &Image) -> Self {
        Self(vec![true; image.layers.len()])
    }

    /// The bytes that are to be sent, and those that are not.
    #[must_use]
    pub fn sizes(&self, image: &Image) -> (u64, u64) {
        image.layers.iter().zip(&self.0).fold((0, 0), |(sent, saved), (layer, missing)| {
            if *missing { (sent + layer.blob.size, saved) } else { (sent, saved + layer.blob.size) }
        })
    }
}

/// What loads under way at once see of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// Nothing before they are done: two loads of one new layer would both unpack it.
    Images,
    /// Every layer: whoever needs one that is on its way waits for that layer alone.
    Layers,
}

/// Room on an engine's disk for one load, until it is dropped.
#[derive(Default)]
pub struct Room(Option<Box<dyn Any + Send>>);

impl Room {
    /// Room that is given back when `guard` is dropped.
    #[must_use]
    pub fn held_by(guard: impl Any + Send) -> Self {
        Self(Some(Box::new(guard)))
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Room").field(&self.0.is_some()).finish()
    }
}

/// The engine itself confirmed every layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What the engine calls the image.
    pub engine_image_id: EngineImageId,
    /// The names that the engine has for it now. Sorted.
    pub references: Vec<Reference>,
}

/// What can go wrong with a load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A blob could not be read from the source.
    #[error("a layer could not be read from the host")]
    Source(#[from] BlobError),
    /// The engine took the bytes and refused them; the full set may heal it.
    #[error("the engine refused the image: {message}")]
    Refused {
        /// What the engine said.
        message: String,
    },
    /// The engine has no space left.
    #[error("the engine has no space left: {message}")]
    NoSpace {
        /// What the engine said.
        message: String,
    },
    /// The engine could not be reached, stopped answering or failed; trying again may help.
    #[error("the engine at {engine} did not answer while {action}")]
    Unavailable {
        /// The socket or address.
        engine: String,
        /// What was attempted.
        action: &'static str,
        /// What failed.
        #[source]
        source: Cause,
    },
}

/// An engine that takes images.
///
/// The order is always [`missing`](Self::missing), [`room`](Self::room), [`load`](Self::load) without a name,
/// [`prove`](Self::prove), and only then [`tag`](Self::tag): so a load that goes wrong never moves a
/// good tag to a broken image ([`crate::pull`]).
#[async_trait]
pub trait ImageSink: Send + Sync {
    /// How the engine takes images now. An engine may come back with another store.
    ///
    /// # Errors
    /// [`LoadError::Unavailable`].
    async fn intake(&self) -> Result<Intake, LoadError>;

    /// What loads at once see of each other.
    ///
    /// # Errors
    /// [`LoadError::Unavailable`].
    async fn overlap(&self) -> Result<Overlap, LoadError> {
        Ok(Overlap::Images)
    }

    /// [`prove`](Self::prove) by what the source tells of an image at once. `None` also where that
    /// is too little to know the image by: then [`prove`](Self::prove) is asked.
    ///
    /// # Errors
    /// [`LoadError::Unavailable`].
    async fn confirm(&self, _summary: &ImageSummary) -> Result<Option<Proof>, LoadError> {
        Ok(None)
    }

    /// Which layers of `image` must be sent, by the rule of the engine's own store.
    ///
    /// # Errors
    /// [`LoadError::Unavailable`].
    async fn missing(&self, image: &Image) -> Result<Missing, LoadError>;

    /// Room for a load, waited for while other loads take it. Held until the load is over.
    ///
    /// # Errors
    /// [`LoadError::NoSpace`] when the load does not fit although nobody else is loading, and
    /// [`LoadError::Unavailable`].
    async fn room(&self, _image: &Image, _missing: &Missing) -> Result<Room, LoadError> {
        Ok(Room::default())
    }

    /// Takes the image in without a name, reading the missing layers from its handle as fast as the
    /// engine can take them. `Ok` says nothing of success: [`prove`](Self::prove) does.
    ///
    /// The handle is all that a sink gets of an image. A source that can give a layer in another way
    /// than by its bytes offers it there, and the sinks that can use it take it from there.
    ///
    /// Dropping the future ends the load; the engine may be left with untagged leftovers, which
    /// [`discard`](Self::discard) removes.
    ///
    /// # Errors
    /// Any [`LoadError`].
    async fn load(&self, opened: &OpenImage, missing: &Missing) -> Result<(), LoadError>;

    /// Asks the engine whether it has the image, every layer of it. `None` when it has not, or has
    /// it broken, or cannot tell.
    ///
    /// # Errors
    /// [`LoadError::Unavailable`].
    async fn prove(&self, image: &Image) -> Result<Option<Proof>, LoadError>;

    /// Names a proven image.
    ///
    /// # Errors
    /// [`LoadError::Unavailable`], [`LoadError::Refused`].
    async fn tag(&self, proof: &Proof, reference: &Reference) -> Result<(), LoadError>;

    /// Removes what a failed load left under no name. What has a name stays.
    ///
    /// # Errors
    /// [`LoadError::Unavailable`].
    async fn discard(&self, image: &Image) -> Result<(), LoadError>;

    /// Removes bases that pulls loaded ([`crate::pull::BASE_LABEL`]), those of pulls that were
    /// killed too. Their layers stay where an image has them.
    ///
    /// # Errors
    /// [`LoadError::Unavailable`].
    async fn sweep(&self) -> Result<(), LoadError> {
        Ok(())
    }
}
