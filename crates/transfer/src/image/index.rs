//! The image index: which manifest for which platform. Attestations are left alone.
//!
//! Spec: <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md>.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::config::filled;
use super::json;
use super::limits::{InvalidImage, MAX_MANIFEST};
use super::manifest::{DOCKER_MANIFEST, DescriptorDocument};
use super::platform::Platform;
use crate::descriptor::{Descriptor, MediaType};

const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What buildkit puts on a child that tells about another child: not an image.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// Most children of an index; real ones have a few dozen.
const MAX_ENTRIES: usize = 1_000;

/// A child of an index that is an image, or an index of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The child: a manifest or another index.
    pub descriptor: Descriptor,
    /// What it runs on; absent when the index does not say, as in an image layout's `index.json`.
    pub platform: Option<Platform>,
}

impl IndexEntry {
    /// Whether the child is an index in turn.
    #[must_use]
    pub fn is_index(&self) -> bool {
        [MediaType::INDEX, DOCKER_INDEX].contains(&self.descriptor.media_type.as_str())
    }

    fn is_manifest(&self) -> bool {
        [MediaType::MANIFEST, DOCKER_MANIFEST].contains(&self.descriptor.media_type.as_str())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Vec<Child>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Child {
    #[serde(flatten)]
    descriptor: DescriptorDocument,
    platform: Option<PlatformDocument>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct PlatformDocument {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Child {
    fn is_attestation(&self) -> bool {
        let told = self.annotations.as_ref().is_some_and(|all| all.contains_key(ATTESTATION));
        let unknown = |platform: &PlatformDocument| {
            platform.os == "unknown" && platform.architecture == "unknown"
        };
        told || self.platform.as_ref().is_some_and(unknown)
    }
}

/// Reads an index of at most [`MAX_MANIFEST`] bytes: its images and indexes in order, without
/// attestations and whatever else is no image.
///
/// # Errors
/// [`InvalidImage`]; besides being malformed: a document that is a manifest as well, or more than
/// a thousand children.
pub fn parse_index(index: &[u8]) -> Result<Vec<IndexEntry>, InvalidImage> {
    let document: Document = json::parse("index", index, MAX_MANIFEST)?;
    let rule = |reason: String| Err(InvalidImage::rule("index", reason));
    if document.config.is_some() || document.layers.is_some() {
        return rule("it is an index and a manifest at once".into());
    }
    if document.schema_version != 2 {
        return rule(format!("its schema version is {}, not 2", document.schema_version));
    }
    if let Some(media_type) = &document.media_type
        && ![MediaType::INDEX, DOCKER_INDEX].contains(&media_type.as_str())
    {
        return rule(format!("it says to be {media_type:?}, not an index"));
    }
    if MAX_ENTRIES < document.manifests.len() {
        return rule(format!("it has {} children", document.manifests.len()));
    }
    let mut entries = Vec::new();
    for child in document.manifests {
        if child.is_attestation() {
            continue;
        }
        let platform = child.platform.map(|platform| Platform {
            os: platform.os,
            architecture: platform.architecture,
            variant: filled(platform.variant),
        });
        let entry = IndexEntry { descriptor: child.descriptor.check("index")?, platform };
        if entry.is_index() || entry.is_manifest() {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// The child that runs on `wanted`: the very platform, else the nearest variant that it can run,
/// else a child that names no platform if it is the only one. `None` when none fits.
#[must_use]
pub fn choose_platform<'a>(entries: &'a [IndexEntry], wanted: &Platform) -> Option<&'a IndexEntry> {
    let rank = |entry: &IndexEntry| match &entry.platform {
        Some(platform) => variant_rank(platform, wanted),
        None => None,
    };
    let best =
        entries.iter().filter_map(|entry| Some((rank(entry)?, entry))).reduce(|best, next| {
            // The first of equals wins, as in every engine.
            if next.0 < best.0 { next } else { best }
        });
    match (best, entries) {
        (Some((_, entry)), _) => Some(entry),
        (None, [only]) if only.platform.is_none() => Some(only),
        _ => None,
    }
}

/// How far a platform's variant lies below the wanted one; `None` when it does not run there.
fn variant_rank(platform: &Platform, wanted: &Platform) -> Option<u32> {
    if platform.os != wanted.os || platform.architecture != wanted.architecture {
        return None;
    }
    let level = |platform: &Platform| -> Option<u32> {
        match (&platform.variant, platform.architecture.as_str()) {
            (Some(variant), _) => variant.strip_prefix('v')?.parse().ok(),
            (None, "arm64") => Some(8),
            (None, "arm") => Some(7),
            (None, _) => Some(1),
        }
    };
    if platform.variant == wanted.variant {
        return Some(0);
    }
    level(wanted)?.checked_sub(level(platform)?)
}
