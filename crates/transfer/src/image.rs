//! The image model: ordered layers with both digests, read from manifest and config by pure,
//! limited parsing.

use bytes::Bytes;

use crate::descriptor::Descriptor;
use crate::digest::{ConfigDigest, DiffId, Digest};

/// What an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …: Go's names.
    pub architecture: String,
    /// `v7`, `v8`; absent for architectures without variants.
    pub variant: Option<String>,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The blob as the manifest names it; equal digests when it is uncompressed.
    pub blob: Descriptor,
}

/// An image: its documents as bytes, and what they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of `manifest`: the target digest on a containerd store.
    pub manifest_digest: Digest,
    /// The OCI or Docker manifest, byte for byte.
    pub manifest: Bytes,
    /// The digest of `config`.
    pub config_digest: ConfigDigest,
    /// The image config, byte for byte.
    pub config: Bytes,
    /// The layers, the base first.
    pub layers: Vec<Layer>,
    /// What it runs on.
    pub platform: Platform,
}
