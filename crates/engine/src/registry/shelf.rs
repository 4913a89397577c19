//! What an endpoint gives: manifests, blobs and tags of repositories.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use transfer::{BlobSource, Descriptor, Digest, Image, MediaType};

use super::{ManifestName, Refusal, Repository};
use crate::document::described;

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Bytes,
}

/// A blob that can be read.
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) content: Content,
}

/// Where a blob's bytes are.
pub(crate) enum Content {
    /// At hand, as a config is.
    Here(Bytes),
    /// To be read, from any offset.
    From(Arc<dyn BlobSource>),
}

/// Tells which manifests and blobs there are.
#[async_trait]
pub(crate) trait Shelf: Send + Sync + 'static {
    /// A manifest or index of the repository.
    ///
    /// # Errors
    /// [`Refusal::UnknownManifest`], or that whoever has it cannot give it.
    async fn manifest(
        &self,
        repository: &Repository,
        name: &ManifestName,
    ) -> Result<Document, Refusal>;

    /// A config or layer of an image in the repository.
    ///
    /// # Errors
    /// [`Refusal::UnknownBlob`], or that whoever has it cannot give it.
    async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Blob, Refusal>;

    /// The tags in the repository, sorted.
    ///
    /// # Errors
    /// [`Refusal::UnknownName`], or that whoever has it does not answer.
    async fn tags(&self, repository: &Repository) -> Result<Vec<String>, Refusal>;
}

impl Document {
    pub(crate) fn manifest(bytes: Bytes) -> Self {
        Self { descriptor: described(&bytes, MediaType::MANIFEST), bytes }
    }

    pub(crate) fn index(bytes: Bytes) -> Self {
        Self { descriptor: described(&bytes, MediaType::INDEX), bytes }
    }

    /// What stands for an image: its index, else its manifest.
    pub(super) fn target(image: &Image) -> Self {
        match &image.index {
            Some(index) => Self::index(index.clone()),
            None => Self::manifest(image.manifest.clone()),
        }
    }
}

/// The document of `image` with this digest; `None` where it has none.
pub(crate) fn document_of(image: &Image, digest: &Digest) -> Option<Document> {
    if image.manifest_digest == *digest {
        return Some(Document::manifest(image.manifest.clone()));
    }
    let index = image.index.clone().filter(|index| Digest::of(index) == *digest)?;
    Some(Document::index(index))
}

/// The blob of `image` with this digest, a layer read from `blobs`; `None` where it has none.
pub(crate) fn blob_of(image: &Image, digest: &Digest, blobs: &Arc<dyn BlobSource>) -> Option<Blob> {
    if image.config_digest.0 == *digest {
        let content = Content::Here(image.config.clone());
        return Some(Blob { digest: *digest, size: image.config.len() as u64, content });
    }
    let layer = image.layers.iter().find(|layer| layer.blob.digest == *digest)?;
    Some(Blob { digest: *digest, size: layer.blob.size, content: Content::From(blobs.clone()) })
}
