//! What an engine calls an image, and where its parts begin: a config or a manifest.
//!
//! ```text
//!   graphdriver        image ID = config digest ─► diff IDs ─► layers, uncompressed
//!   containerd store   image ID = target ─► manifest ─► config, layers as stored
//! ```
//! An engine on the containerd store says which manifests a target has, but not which configs those
//! name: that stands in the manifest's bytes alone.

use serde::Serialize;
use transfer::image::{IndexEntry, choose_platform};
use transfer::{ConfigDigest, Descriptor, Digest, EngineImageId, MediaType, Platform};

use crate::docker::api::http::percent_encoded;
use crate::docker::api::images::Inspected;

/// An image as an engine has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// What the engine calls it.
    pub(super) id: EngineImageId,
    /// The document from which the others are found.
    pub(super) root: Root,
    /// What a save has to be told so that it leaves other platforms out, as it stands in a query;
    /// absent where there are none.
    pub(super) platform: Option<String>,
}

/// The document of an image from which the others are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// The graphdriver has no manifests: one is made up.
    Config(ConfigDigest),
    /// The containerd store has the original, and the index that it was published under where a
    /// save gives that: not when other platforms have to be left out.
    Manifest { manifest: Digest, index: Option<Digest> },
}

impl Target {
    /// An image of a graphdriver, whose ID is its config digest.
    pub(super) fn config(config_digest: ConfigDigest) -> Self {
        let (id, root) = (EngineImageId(config_digest.0), Root::Config(config_digest));
        Self { id, root, platform: None }
    }

    /// The image for `wanted` of a target of the containerd store.
    ///
    /// # Errors
    /// Why there is none, as a sentence's end.
    pub(super) fn choose(target: &Inspected, wanted: &Platform) -> Result<Self, String> {
        let manifests = target.images().ok_or(
            "the engine does not tell its manifests: engines since 28 do, and older ones give \
             single blobs by containerd's socket or files",
        )?;
        let id = target.id;
        // A manifest that has a name of its own is taken whatever it runs on, as engines do.
        if manifests.iter().any(|manifest| manifest.digest == id.0 && manifest.available) {
            let root = Root::Manifest { manifest: id.0, index: None };
            return Ok(Self { id, root, platform: None });
        }
        let entries: Vec<_> = manifests
            .iter()
            .map(|manifest| IndexEntry {
                descriptor: Descriptor {
                    media_type: MediaType::new(MediaType::MANIFEST),
                    digest: manifest.digest,
                    size: 0,
                },
                platform: manifest.platform.clone(),
            })
            .collect();
        let chosen = choose_platform(&entries, wanted)
            .ok_or_else(|| format!("the engine has nothing of it for {wanted}"))?;
        let digest = chosen.descriptor.digest;
        if !manifests.iter().any(|manifest| manifest.digest == digest && manifest.available) {
            return Err(format!(
                "the engine has only a part of it: pull the image again for {wanted}"
            ));
        }
        if manifests.iter().filter(|manifest| manifest.available).count() == 1 {
            let root = Root::Manifest { manifest: digest, index: Some(id.0) };
            return Ok(Self { id, root, platform: None });
        }
        let platform = chosen.platform.as_ref().map(query);
        Ok(Self { id, root: Root::Manifest { manifest: digest, index: None }, platform })
    }
}

/// A platform as the engine's API takes it in a query.
fn query(platform: &Platform) -> String {
    #[derive(Serialize)]
    struct Document<'a> {
        os: &'a str,
        architecture: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        variant: Option<&'a str>,
    }
    let Platform { os, architecture, variant } = platform;
    let document = Document { os, architecture, variant: variant.as_deref() };
    let text = serde_json::to_string(&document).expect("texts always serialize");
    percent_encoded(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    /// A target with manifests as `(name, kind, architecture, available)`.
    fn target(name: &str, manifests: &[(&str, &str, &str, bool)]) -> Inspected {
        let manifests: Vec<_> = manifests
            .iter()
            .map(|(name, kind, architecture, available)| {
                serde_json::json!({
                    "ID": digest(name), "Kind": kind, "Available": available,
                    "ImageData": { "Platform": { "os": "linux", "architecture": architecture } },
                })
            })
            .collect();
        let told = serde_json::json!({ "Id": digest(name), "Manifests": manifests });
        serde_json::from_value(told).unwrap()
    }

    fn amd64() -> Platform {
        Platform { os: "linux".into(), architecture: "amd64".into(), variant: None }
    }

    #[test]
    fn the_platforms_manifest_is_chosen_and_others_are_left_out() {
        let index = target(
            "index",
            &[
                ("arm", "image", "arm64", true),
                ("amd", "image", "amd64", true),
                ("att", "attestation", "amd64", true),
            ],
        );
        let chosen = Target::choose(&index, &amd64()).unwrap();
        assert_eq!(chosen.id.0, digest("index"));
        assert_eq!(chosen.root, Root::Manifest { manifest: digest("amd"), index: None });
        let query = "%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22amd64%22%7D";
        assert_eq!(chosen.platform.as_deref(), Some(query));
    }

    #[test]
    fn a_manifest_with_a_name_is_taken_whatever_it_runs_on() {
        let alone = target("arm", &[("arm", "image", "arm64", true)]);
        let chosen = Target::choose(&alone, &amd64()).unwrap();
        let root = Root::Manifest { manifest: digest("arm"), index: None };
        assert_eq!((chosen.root, chosen.platform), (root, None));
        // Of an index of which nothing else is there, all is asked for: the index comes with it.
        let pulled =
            target("index", &[("arm", "image", "arm64", false), ("amd", "image", "amd64", true)]);
        let chosen = Target::choose(&pulled, &amd64()).unwrap();
        let root = Root::Manifest { manifest: digest("amd"), index: Some(digest("index")) };
        assert_eq!((chosen.root, chosen.platform), (root, None));
    }

    #[test]
    fn what_cannot_be_given_is_told_with_what_to_do() {
        let table = [
            (target("i", &[("amd", "image", "amd64", false)]), "pull the image again"),
            (target("i", &[("arm", "image", "arm64", true)]), "nothing of it for linux/amd64"),
            (target("i", &[("att", "attestation", "amd64", true)]), "nothing of it"),
            (
                serde_json::from_value(serde_json::json!({ "Id": digest("i") })).unwrap(),
                "does not tell its manifests",
            ),
        ];
        for (target, expected) in table {
            let reason = Target::choose(&target, &amd64()).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
