//! Where images come from: an engine, a folder, a remote host.
//!
//! ```text
//!   reference ─ resolve ─► ImageSummary ─ key ─► ImageKey ─ open ─► OpenImage
//!                          what it is            which one          its documents, and its blobs
//! ```

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::blob::{BlobError, BlobSource, Cause};
use crate::digest::{ConfigDigest, DiffId, Digest};
use crate::image::{Image, LayerForm, Platform};
use crate::reference::Reference;

/// Which image is meant.
///
/// Two images may share one config: an index that was published anew, or the same layers compressed
/// in another way. The target digest tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageKey {
    /// The image's name across engines.
    pub config_digest: ConfigDigest,
    /// The digest of its index or else of its manifest, as the source keeps it. When absent, any
    /// image of that config will do: a graphdriver has only one.
    pub target_digest: Option<Digest>,
}

impl ImageKey {
    /// Whether the key names an image of this config and this target.
    #[must_use]
    pub fn names(&self, config_digest: &ConfigDigest, target_digest: &Digest) -> bool {
        self.config_digest == *config_digest
            && self.target_digest.is_none_or(|target| target == *target_digest)
    }

    /// The error of a source that has no such image.
    #[must_use]
    pub fn not_found(&self) -> SourceError {
        SourceError::NotFound { image: self.to_string() }
    }
}

impl From<ConfigDigest> for ImageKey {
    fn from(config_digest: ConfigDigest) -> Self {
        Self { config_digest, target_digest: None }
    }
}

impl fmt::Display for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.config_digest, f)
    }
}

/// Properties of an image that a source knows without exporting it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// The image's name across engines.
    pub config_digest: ConfigDigest,
    /// The digest of its index or else of its manifest, as in a registry; absent where the source
    /// does not know it without reading the image.
    pub target_digest: Option<Digest>,
    /// Its names; empty for an image without a tag. Sorted.
    pub references: Vec<Reference>,
    /// Its layers, the base first.
    pub diff_ids: Vec<DiffId>,
    /// Bytes that the unpacked layers take, as the source counts them; 0 when it does not say.
    pub unpacked_size: u64,
    /// The platform that it runs on.
    pub platform: Platform,
}

impl ImageSummary {
    /// The key to open this image by.
    #[must_use]
    pub fn key(&self) -> ImageKey {
        ImageKey { config_digest: self.config_digest, target_digest: self.target_digest }
    }
}

/// One image that is being read.
///
/// The handle keeps what makes its blobs readable, such as a host's lease, and gives it up when it
/// is dropped. A sink gets everything that it loads through this handle.
#[derive(Clone)]
pub struct OpenImage {
    /// Manifest, config, and each layer with its size.
    pub image: Image,
    /// The blobs of this image, and perhaps others of its source.
    pub blobs: Arc<dyn BlobSource>,
}

impl OpenImage {
    /// The same image with its blobs behind a decorator.
    #[must_use]
    pub fn through(
        self,
        decorate: impl FnOnce(Arc<dyn BlobSource>) -> Arc<dyn BlobSource>,
    ) -> Self {
        Self { image: self.image, blobs: decorate(self.blobs) }
    }
}

impl fmt::Debug for OpenImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenImage").field("image", &self.image).finish_non_exhaustive()
    }
}

/// Reasons why a source does not give an image.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such image, or this caller may not know of it.
    #[error("image {image} is not on the host")]
    NotFound {
        /// The reference or config digest that was asked for.
        image: String,
    },
    /// The image is there, but its documents are not what the specification allows.
    #[error("image {image} is malformed: {reason}")]
    Malformed {
        /// The reference or config digest that was asked for.
        image: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// A blob of the image could not be taken in.
    #[error("image {image} could not be exported")]
    Export {
        /// The reference or config digest that was asked for.
        image: String,
        /// The blob, and why it failed.
        #[source]
        source: BlobError,
    },
    /// The source could not be reached or failed; trying again may help.
    #[error("the image source did not answer for {image}")]
    Unavailable {
        /// The reference or config digest that was asked for; `*` for the list of all.
        image: String,
        /// The cause.
        #[source]
        source: Cause,
    },
}

impl SourceError {
    /// Wraps a failure of the thing behind a source.
    pub fn unavailable(image: impl ToString, source: impl Into<Cause>) -> Self {
        Self::Unavailable { image: image.to_string(), source: source.into() }
    }

    /// The same failure for a reader of the image's blob `digest`.
    #[must_use]
    pub fn of_blob(self, digest: Digest) -> BlobError {
        match self {
            Self::NotFound { .. } => BlobError::NotFound { digest },
            Self::Export { source, .. } => source,
            error => BlobError::unavailable(digest, error),
        }
    }
}

/// Lists images, finds them by name, and opens them.
///
/// `fixture::contract::image_source` holds every implementation to this.
#[async_trait]
pub trait ImageSource: Send + Sync {
    /// Every image, sorted by key.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`].
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError>;

    /// The image that `reference` names now.
    ///
    /// # Errors
    /// [`SourceError::NotFound`], [`SourceError::Unavailable`].
    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError>;

    /// The images that `references` name now, in their order.
    ///
    /// # Errors
    /// Each as of [`resolve`](Self::resolve).
    async fn resolve_all(
        &self,
        references: &[Reference],
    ) -> Vec<Result<ImageSummary, SourceError>> {
        let mut resolved = Vec::with_capacity(references.len());
        for reference in references {
            resolved.push(self.resolve(reference).await);
        }
        resolved
    }

    /// Opens the image that `key` names, for a caller that wants its layers in `form`.
    ///
    /// A source that has to export the image to learn its documents does so here, once for all
    /// callers; this may take as long as the export takes. Dropping the future does not end an
    /// export that others wait for.
    ///
    /// A source that has the layers in one form only gives that one, and leaves it to
    /// [`Uncompressed`](crate::Uncompressed) to make the other.
    ///
    /// # Errors
    /// Any [`SourceError`].
    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError>;
}

#[async_trait]
impl<S: ImageSource + ?Sized> ImageSource for Arc<S> {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        (**self).list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        (**self).resolve(reference).await
    }

    async fn resolve_all(
        &self,
        references: &[Reference],
    ) -> Vec<Result<ImageSummary, SourceError>> {
        (**self).resolve_all(references).await
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        (**self).open(key, form).await
    }
}
