//! The image model: ordered layers with both digests, read from manifest and config by pure,
//! limited parsing.
//!
//! ```text
//!   index ──► manifest ──► config ──► diff IDs          json.rs      strict JSON, size caps
//!   (choose a    │                       │              config.rs    ConfigFile
//!    platform)   └──► layer blobs ◄──────┘              manifest.rs  Manifest, our fixed layout
//!                     position by position              index.rs     parse_index, choose
//!                                                       walk.rs      from the index to the image
//! ```
//!
//! Specs: <https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md>, `config.md` and
//! `image-index.md` beside it. Whoever wrote the documents may be hostile: what engines would read
//! in two ways is refused here, before anything is moved.

mod config;
mod index;
mod json;
mod limits;
mod manifest;
mod platform;
mod walk;

use bytes::Bytes;

pub use self::config::ConfigFile;
pub use self::index::{IndexEntry, choose_platform, parse_index};
pub use self::limits::{InvalidImage, MAX_CONFIG, MAX_LAYERS, MAX_MANIFEST};
pub use self::manifest::Manifest;
pub use self::platform::Platform;
pub use self::walk::{Step, Walk, Wanted};
use crate::descriptor::{Descriptor, MediaType};
use crate::digest::{ConfigDigest, DiffId, Digest};

/// In which form an engine wants the layers of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LayerForm {
    /// The blobs that the image's own manifest names, often compressed: digests stay what they are
    /// in a registry.
    #[default]
    AsStored,
    /// Uncompressed, by diff ID, under the manifest of [`Image::from_layers`]: what an engine that
    /// keeps no blobs would only decompress again.
    Uncompressed,
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
    /// The index under which the image was published, byte for byte: its digest is what a registry
    /// calls an image for several platforms. Absent where the image came without one.
    pub index: Option<Bytes>,
}

impl Image {
    /// Reads an image from its two documents and checks each against the other.
    ///
    /// # Errors
    /// [`InvalidImage`] when a document is too large, malformed or ambiguous; when the config is
    /// not the one that the manifest names; when layers and diff IDs do not pair up.
    pub fn parse(manifest: Bytes, config: Bytes) -> Result<Self, InvalidImage> {
        let document = Manifest::parse(&manifest)?;
        let file = ConfigFile::parse(&config)?;
        let named = &document.config;
        let config_digest = Digest::of(&config);
        if named.digest != config_digest || named.size != config.len() as u64 {
            let reason = format!(
                "it names config {} of {} bytes, the config is {config_digest} of {} bytes",
                named.digest,
                named.size,
                config.len()
            );
            return Err(InvalidImage::rule("manifest", reason));
        }
        Ok(Self {
            manifest_digest: Digest::of(&manifest),
            layers: pair_up(document.layers, file.diff_ids)?,
            platform: file.platform,
            config_digest: ConfigDigest(config_digest),
            manifest,
            config,
            index: None,
        })
    }

    /// The same image under the index that names it.
    ///
    /// # Errors
    /// [`InvalidImage`] when the index is too large, malformed or ambiguous, or does not have the
    /// manifest among its own children.
    pub fn under(mut self, index: Bytes) -> Result<Self, InvalidImage> {
        let children = parse_index(&index)?;
        if !children.iter().any(|child| child.descriptor.digest == self.manifest_digest) {
            let reason = format!("it does not name manifest {}", self.manifest_digest);
            return Err(InvalidImage::rule("index", reason));
        }
        self.index = Some(index);
        Ok(self)
    }

    /// The digest that a registry calls the image by: the index's, else the manifest's.
    #[must_use]
    pub fn target_digest(&self) -> Digest {
        self.index.as_deref().map_or(self.manifest_digest, Digest::of)
    }

    /// Makes the image of a config whose layers are kept uncompressed, `sizes` bytes long, base
    /// first: an engine on the graphdriver store has no manifest of its own.
    ///
    /// The manifest is always the same bytes for the same config and sizes, so that its digest is
    /// the same in every range and at all times ([`Manifest::encode`] has the layout).
    ///
    /// # Errors
    /// [`InvalidImage`] when the config is malformed, or `sizes` are not one for each diff ID.
    pub fn from_layers(config: Bytes, sizes: &[u64]) -> Result<Self, InvalidImage> {
        let file = ConfigFile::parse(&config)?;
        if file.diff_ids.len() != sizes.len() {
            let reason =
                format!("it has {} diff IDs for {} layers", file.diff_ids.len(), sizes.len());
            return Err(InvalidImage::rule("config", reason));
        }
        let layer = |(diff_id, size): (&DiffId, &u64)| Descriptor {
            media_type: MediaType::new(MediaType::LAYER),
            digest: diff_id.0,
            size: *size,
        };
        let manifest = Manifest {
            config: Descriptor::of(MediaType::CONFIG, &config),
            layers: file.diff_ids.iter().zip(sizes).map(layer).collect(),
        };
        Self::parse(manifest.encode().into(), config)
    }

    /// The diff IDs, the base first.
    pub fn diff_ids(&self) -> impl ExactSizeIterator<Item = DiffId> + '_ {
        self.layers.iter().map(|layer| layer.diff_id)
    }
}

fn pair_up(blobs: Vec<Descriptor>, diff_ids: Vec<DiffId>) -> Result<Vec<Layer>, InvalidImage> {
    if blobs.len() != diff_ids.len() {
        let reason = format!("it has {} layers for {} diff IDs", blobs.len(), diff_ids.len());
        return Err(InvalidImage::rule("manifest", reason));
    }
    let layer = |(blob, diff_id): (Descriptor, DiffId)| {
        if blob.media_type.is_uncompressed_layer() && blob.digest != diff_id.0 {
            let reason = format!("uncompressed layer {} has diff ID {diff_id}", blob.digest);
            return Err(InvalidImage::rule("manifest", reason));
        }
        Ok(Layer { diff_id, blob })
    };
    blobs.into_iter().zip(diff_ids).map(layer).collect()
}

#[cfg(test)]
mod tests;
