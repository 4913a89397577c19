//! The image config, as far as moving an image needs it.
//!
//! Spec: <https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md>.

use serde::Deserialize;

use super::json;
use super::limits::{InvalidImage, MAX_CONFIG, MAX_LAYERS};
use super::platform::Platform;
use crate::digest::DiffId;

/// What a config says about layers and platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// The uncompressed layers' digests, the base first; empty for an image without layers.
    pub diff_ids: Vec<DiffId>,
    /// For each step of the image's history, whether it made no layer; empty when the config tells
    /// no history.
    pub history_empties: Vec<bool>,
    /// What the image runs on. A config that does not say means this machine's, as for Docker.
    pub platform: Platform,
}

#[derive(Deserialize)]
struct Document {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    rootfs: RootFs,
    history: Option<Vec<History>>,
}

#[derive(Deserialize)]
struct RootFs {
    r#type: String,
    diff_ids: Option<Vec<DiffId>>,
}

#[derive(Deserialize)]
struct History {
    #[serde(default)]
    empty_layer: bool,
}

impl ConfigFile {
    /// Reads a config of at most [`MAX_CONFIG`] bytes.
    ///
    /// # Errors
    /// [`InvalidImage`]; besides being malformed: more than [`MAX_LAYERS`] diff IDs, or a history
    /// with more layers than there are.
    pub fn parse(config: &[u8]) -> Result<Self, InvalidImage> {
        let document: Document = json::parse("config", config, MAX_CONFIG)?;
        let rule = |reason: String| Err(InvalidImage::rule("config", reason));
        if document.rootfs.r#type != "layers" {
            return rule("its rootfs is not of type layers".into());
        }
        let diff_ids = document.rootfs.diff_ids.unwrap_or_default();
        if MAX_LAYERS < diff_ids.len() {
            return rule(format!("it has {} layers, at most {MAX_LAYERS} load", diff_ids.len()));
        }
        let history = document.history.unwrap_or_default();
        let history_empties: Vec<bool> = history.iter().map(|step| step.empty_layer).collect();
        let told = history_empties.iter().filter(|empty| !**empty).count();
        if diff_ids.len() < told {
            return rule(format!("its history has {told} layers for {} diff IDs", diff_ids.len()));
        }
        let host = Platform::host();
        let platform = Platform {
            os: filled(document.os).unwrap_or(host.os),
            architecture: filled(document.architecture).unwrap_or(host.architecture),
            variant: filled(document.variant),
        };
        Ok(Self { diff_ids, history_empties, platform })
    }
}

/// Go leaves out an empty string and writes it, meaning the same.
pub(super) fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
