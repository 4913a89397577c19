//! Descriptors: a blob's media type, digest and size.
//!
//! Spec: <https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md>.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// What a blob's bytes are, as its manifest says. Unknown types are kept as they came.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaType(String);

impl MediaType {
    /// An OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An OCI image config.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// An uncompressed layer.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

    /// Wraps a media type as a document spells it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The media type as the document spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is an uncompressed layer, in OCI's or Docker's name: then its digest is its
    /// diff ID.
    #[must_use]
    pub fn is_uncompressed_layer(&self) -> bool {
        matches!(self.as_str(), Self::LAYER | "application/vnd.docker.image.rootfs.diff.tar")
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A blob by name and size, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Descriptor {
    /// What the bytes are.
    pub media_type: MediaType,
    /// The digest of the bytes as stored or sent.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
}

impl Descriptor {
    /// Describes bytes that are at hand.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: MediaType::new(media_type),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        }
    }
}
