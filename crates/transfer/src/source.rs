//! Where images come from: an engine, a folder, a remote host.

use std::sync::Arc;

use async_trait::async_trait;

use crate::blob::{BlobError, BlobSource, Cause};
use crate::digest::{ConfigDigest, DiffId, Digest};
use crate::image::{Image, LayerForm, Platform};
use crate::reference::Reference;

/// What a source tells of an image at once, without exporting anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// The image's name across engines.
    pub config_digest: ConfigDigest,
    /// What a registry calls it, the digest of its index or else of its manifest; absent where the
    /// source does not know that without reading the image.
    pub target_digest: Option<Digest>,
    /// What it is called; empty for an image without a tag. Sorted.
    pub references: Vec<Reference>,
    /// Its layers, the base first.
    pub diff_ids: Vec<DiffId>,
    /// Bytes that the unpacked layers take, as the source counts them; 0 when it does not say.
    pub unpacked_size: u64,
    /// What it runs on.
    pub platform: Platform,
}

/// What can go wrong with asking for an image.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such image, or this caller may not know of it.
    #[error("image {image} is not on the host")]
    NotFound {
        /// What was asked for: a reference or a config digest.
        image: String,
    },
    /// The image is there, but its documents are not what the specification allows.
    #[error("image {image} is malformed: {reason}")]
    Malformed {
        /// What was asked for.
        image: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A blob of the image could not be taken in.
    #[error("image {image} could not be exported")]
    Export {
        /// What was asked for.
        image: String,
        /// What went wrong with which blob.
        #[source]
        source: BlobError,
    },
    /// The source could not be reached or failed; trying again may help.
    #[error("the image source did not answer for {image}")]
    Unavailable {
        /// What was asked for; `*` for the list of all.
        image: String,
        /// What failed.
        #[source]
        source: Cause,
    },
}

impl SourceError {
    /// Wraps a failure of whatever is behind a source.
    pub fn unavailable(image: impl ToString, source: impl Into<Cause>) -> Self {
        Self::Unavailable { image: image.to_string(), source: source.into() }
    }
}

/// Tells which images there are, and what they are made of.
#[async_trait]
pub trait ImageSource: Send + Sync {
    /// Every image, sorted by config digest.
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

    /// The image whole: manifest, config, and each layer with its size.
    ///
    /// A source that learns these only by exporting the image does so here, once for all callers;
    /// this may take as long as the export takes. Dropping the future does not end an export that
    /// others wait for.
    ///
    /// `form` says in which form the caller's engine wants the layers; where the source keeps them
    /// uncompressed anyway, both forms are the same image, byte for byte.
    ///
    /// # Errors
    /// Any [`SourceError`].
    async fn image(
        &self,
        config_digest: &ConfigDigest,
        form: LayerForm,
    ) -> Result<Image, SourceError>;

    /// The blobs of an image that [`image`](Self::image) returned: a source scoped to it, since
    /// blobs may be readable only as part of an image and under its lease.
    fn blobs(&self, config_digest: &ConfigDigest) -> Arc<dyn BlobSource>;
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

    async fn image(
        &self,
        config_digest: &ConfigDigest,
        form: LayerForm,
    ) -> Result<Image, SourceError> {
        (**self).image(config_digest, form).await
    }

    fn blobs(&self, config_digest: &ConfigDigest) -> Arc<dyn BlobSource> {
        (**self).blobs(config_digest)
    }
}
