//! The image manifest: which config, which layers.
//!
//! Specs: <https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md>, and Docker's
//! schema 2: <https://github.com/distribution/distribution/blob/v2.8.3/docs/spec/manifest-v2-2.md>.

use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::json;
use super::limits::{InvalidImage, MAX_LAYERS, MAX_MANIFEST};
use crate::descriptor::{Descriptor, MediaType};
use crate::digest::Digest;

pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What a layer's media type may be, before a compression is named.
const LAYER_TYPES: [&str; 4] = [
    MediaType::LAYER,
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];

/// A manifest: the config and the layer blobs, the base first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The image config's blob.
    pub config: Descriptor,
    /// The layers' blobs as stored or sent, the base first.
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    config: DescriptorDocument,
    layers: Option<Vec<DescriptorDocument>>,
    manifests: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// A descriptor as manifests and indexes spell it. A negative, fractional or too large size does
/// not parse.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DescriptorDocument {
    media_type: String,
    digest: Digest,
    size: u64,
}

impl DescriptorDocument {
    /// Checks that the size is one that engines can hold: they count in `i64`.
    pub(super) fn check(self, document: &'static str) -> Result<Descriptor, InvalidImage> {
        if i64::try_from(self.size).is_err() {
            let reason = format!("{} would have {} bytes", self.digest, self.size);
            return Err(InvalidImage::rule(document, reason));
        }
        let media_type = MediaType::new(self.media_type);
        Ok(Descriptor { media_type, digest: self.digest, size: self.size })
    }
}

impl Manifest {
    /// Reads an OCI or Docker schema 2 manifest of at most [`MAX_MANIFEST`] bytes.
    ///
    /// # Errors
    /// [`InvalidImage`]; besides being malformed: a document that is an index as well, a config or
    /// layers of a type that no engine unpacks, sizes that overflow, more than [`MAX_LAYERS`].
    pub fn parse(manifest: &[u8]) -> Result<Self, InvalidImage> {
        let document: Document = json::parse("manifest", manifest, MAX_MANIFEST)?;
        let rule = |reason: String| Err(InvalidImage::rule("manifest", reason));
        // A document that is two things shows one to us and the other to an engine: CVE-2021-41190.
        if document.manifests.is_some() || document.fs_layers.is_some() {
            return rule("it is a manifest and an index or a schema 1 manifest at once".into());
        }
        if document.schema_version != 2 {
            return rule(format!("its schema version is {}, not 2", document.schema_version));
        }
        if let Some(media_type) = &document.media_type
            && ![MediaType::MANIFEST, DOCKER_MANIFEST].contains(&media_type.as_str())
        {
            return rule(format!("it says to be {media_type:?}, not an image manifest"));
        }
        let config = document.config.check("manifest")?;
        if ![MediaType::CONFIG, DOCKER_CONFIG].contains(&config.media_type.as_str()) {
            return rule(format!("its config is {:?}, so this is no image", config.media_type));
        }
        let layers = document.layers.unwrap_or_default();
        if MAX_LAYERS < layers.len() {
            return rule(format!("it has {} layers, at most {MAX_LAYERS} load", layers.len()));
        }
        let layers = layers
            .into_iter()
            .map(|layer| layer.check("manifest"))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(layer) = layers.iter().find(|layer| !is_layer(&layer.media_type)) {
            return rule(format!("layer {} is {:?}", layer.digest, layer.media_type));
        }
        check_sizes(&layers)?;
        Ok(Self { config, layers })
    }

    /// The OCI manifest as bytes of fixed layout, so that its digest never changes.
    ///
    /// No white space, no final newline; keys in the order that Go's OCI types have:
    /// ```text
    /// {"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
    ///  "config":{"mediaType":…,"digest":"sha256:…","size":…},
    ///  "layers":[{"mediaType":…,"digest":"sha256:…","size":…},…]}
    /// ```
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":["#,
            MediaType::MANIFEST,
            encode(&self.config)
        );
        for (position, layer) in self.layers.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(text, "{comma}{}", encode(layer)).expect("a String takes all that is written");
        }
        text.push_str("]}");
        text
    }
}

fn encode(descriptor: &Descriptor) -> String {
    let media_type = serde_json::Value::from(descriptor.media_type.as_str());
    let Descriptor { digest, size, .. } = descriptor;
    format!(r#"{{"mediaType":{media_type},"digest":"{digest}","size":{size}}}"#)
}

fn is_layer(media_type: &MediaType) -> bool {
    LAYER_TYPES.iter().any(|layer| {
        matches!(
            media_type.as_str().strip_prefix(layer),
            Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd")
        )
    })
}

/// A blob has one size, and all of them together can be counted.
fn check_sizes(layers: &[Descriptor]) -> Result<(), InvalidImage> {
    let mut sizes = std::collections::HashMap::new();
    let mut total = 0u64;
    for Descriptor { digest, size, .. } in layers {
        if sizes.insert(digest, size).is_some_and(|before| before != size) {
            let reason = format!("layer {digest} occurs with two sizes");
            return Err(InvalidImage::rule("manifest", reason));
        }
        total = total
            .checked_add(*size)
            .ok_or_else(|| InvalidImage::rule("manifest", "its layers' sizes overflow"))?;
    }
    Ok(())
}
