//! The image calls of the engine's API, as this crate needs them.
//!
//! Read into types of our own: they carry the `manifests` details of the containerd store, which
//! bollard's queries leave out, and parse digests strictly. Paths without an API version mean the
//! engine's newest.

use std::collections::HashMap;

use bollard::query_parameters::{
    RemoveImageOptions, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use serde::Deserialize;
use transfer::{DiffId, Digest, EngineImageId, Platform, Reference};

use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::docker::api::http::percent_encoded;
use crate::docker::api::pulled::is_ours;

/// Images inspected at once: each opens a connection, and an engine serves all its clients.
pub(in crate::docker) const INSPECTIONS: usize = 8;

/// An image as the list tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::docker) struct Listed {
    /// What the engine calls it.
    pub(in crate::docker) id: EngineImageId,
    /// Its manifests; only on the containerd store, and only when asked for.
    manifests: Option<Vec<ManifestSummary>>,
    repo_tags: Option<Vec<String>>,
    labels: Option<HashMap<String, String>>,
}

/// An image looked at closely.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::docker) struct Inspected {
    pub(in crate::docker) id: EngineImageId,
    repo_tags: Option<Vec<String>>,
    repo_digests: Option<Vec<String>>,
    #[serde(rename = "RootFS")]
    root_fs: Option<RootFs>,
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
    size: Option<u64>,
    manifests: Option<Vec<ManifestSummary>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    layers: Option<Vec<DiffId>>,
}

/// What the containerd store knows of one manifest of an image.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestSummary {
    #[serde(rename = "ID")]
    id: Digest,
    /// Whether config and every layer are in the content store.
    #[serde(default)]
    available: bool,
    /// `image`, `attestation`, …; engines that do not say have images only.
    kind: Option<String>,
    image_data: Option<ImageData>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageData {
    platform: Option<ToldPlatform>,
    size: Option<ImageSize>,
}

/// As in OCI's documents, in lower case.
#[derive(Clone, Debug, Deserialize)]
struct ToldPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// A manifest of an image on the containerd store that is an image, not about one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::docker) struct ToldManifest {
    pub(in crate::docker) digest: Digest,
    /// Absent where the engine does not say.
    pub(in crate::docker) platform: Option<Platform>,
    /// Whether config and every layer are in the content store.
    pub(in crate::docker) available: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageSize {
    unpacked: Option<i64>,
}

impl Listed {
    /// The manifests of which every blob is in the content store.
    pub(in crate::docker) fn available(&self) -> impl Iterator<Item = Digest> {
        self.manifests.iter().flatten().filter(|manifest| manifest.available).map(|m| m.id)
    }

    /// The tags, as [`Inspected::references`] has them.
    pub(in crate::docker) fn references(&self) -> Vec<Reference> {
        tags(&self.repo_tags)
    }

    /// Whether it has `label`, and nothing names it.
    fn is_nameless(&self, label: &str) -> bool {
        self.labels.iter().any(|labels| labels.contains_key(label)) && !names(&self.repo_tags)
    }
}

impl Inspected {
    pub(in crate::docker) fn diff_ids(&self) -> &[DiffId] {
        self.root_fs.as_ref().and_then(|root_fs| root_fs.layers.as_deref()).unwrap_or_default()
    }

    /// The tags, sorted. Names that we could not have given are left out.
    pub(in crate::docker) fn references(&self) -> Vec<Reference> {
        tags(&self.repo_tags)
    }

    /// The names by digest, without a tag.
    pub(in crate::docker) fn pinned(&self) -> Vec<Reference> {
        self.repo_digests.iter().flatten().filter_map(|name| name.parse().ok()).collect()
    }

    /// Whether `reference` is really a name of this image: engines also take the beginning of an
    /// ID for a name.
    pub(in crate::docker) fn is_named(&self, reference: &Reference) -> bool {
        match reference.digest() {
            None => self.references().contains(reference),
            Some(digest) => self.pinned().iter().any(|named| {
                named.repository() == reference.repository() && named.digest() == Some(digest)
            }),
        }
    }

    /// Whether anything names this image.
    pub(in crate::docker) fn has_names(&self) -> bool {
        names(&self.repo_tags)
    }

    pub(in crate::docker) fn platform(&self) -> Platform {
        let variant = self.variant.clone().filter(|variant| !variant.is_empty());
        Platform { os: self.os.clone(), architecture: self.architecture.clone(), variant }
    }

    /// Bytes that the unpacked layers take; 0 when the engine does not say.
    pub(in crate::docker) fn size(&self) -> u64 {
        self.size.unwrap_or_default()
    }

    /// Whether the containerd store says that some manifest of the image is there and unpacked: an
    /// index names one for each platform. `None` where the engine does not tell.
    pub(in crate::docker) fn is_whole(&self) -> Option<bool> {
        let manifests = self.manifests.as_ref()?;
        Some(manifests.iter().any(|manifest| self.is_unpacked(&manifest.id) == Some(true)))
    }

    /// Whether the containerd store says that every blob of `manifest` is there and unpacked.
    /// `None` where the engine does not tell.
    pub(in crate::docker) fn is_unpacked(&self, manifest: &Digest) -> Option<bool> {
        let manifests = self.manifests.as_ref()?;
        let Some(summary) = manifests.iter().find(|summary| summary.id == *manifest) else {
            return Some(false);
        };
        let size = summary.image_data.as_ref()?.size.as_ref()?.unpacked?;
        // An image without layers has nothing to unpack.
        Some(summary.available && (0 < size || self.diff_ids().is_empty()))
    }

    /// The manifests that are images. `None` where the engine does not tell.
    pub(in crate::docker) fn images(&self) -> Option<Vec<ToldManifest>> {
        let told = self.manifests.as_ref()?.iter();
        let images = told.filter(|told| told.kind.as_deref().is_none_or(|kind| kind == "image"));
        let images = images.map(|told| {
            let platform = told.image_data.as_ref().and_then(|data| data.platform.clone());
            let platform = platform.map(|told| Platform {
                os: told.os,
                architecture: told.architecture,
                variant: told.variant.filter(|variant| !variant.is_empty()),
            });
            ToldManifest { digest: told.id, platform, available: told.available }
        });
        Some(images.collect())
    }

    /// Bytes that the unpacked layers of `manifest` take; 0 when the engine does not say.
    pub(in crate::docker) fn unpacked_size(&self, manifest: &Digest) -> u64 {
        let mut manifests = self.manifests.iter().flatten();
        let told = manifests.find(|summary| summary.id == *manifest);
        let size = told.and_then(|summary| summary.image_data.as_ref()?.size.as_ref()?.unpacked);
        size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default()
    }
}

fn tags(repo_tags: &Option<Vec<String>>) -> Vec<Reference> {
    let names = repo_tags.iter().flatten().filter_map(|name| name.parse().ok());
    // On the containerd store, names by digest are among them.
    let mut references: Vec<Reference> = names.filter(|name| !is_ours(name)).collect();
    references.sort();
    references.dedup();
    references
}

fn names(repo_tags: &Option<Vec<String>>) -> bool {
    let mut named = repo_tags.iter().flatten().filter(|name| !name.starts_with("<none>"));
    named.any(|name| !name.parse().is_ok_and(|name| is_ours(&name)))
}

impl Docker {
    /// Every image with a name or without; not what lies between the steps of a build.
    pub(in crate::docker) async fn list_images(&self) -> Result<Vec<Listed>, EngineError> {
        let listed = self.http.document("listing images", "/images/json").await?;
        Ok(listed.unwrap_or_default())
    }

    /// Every image that has `label` and no name.
    pub(in crate::docker) async fn list_labelled(
        &self,
        label: &str,
    ) -> Result<Vec<Listed>, EngineError> {
        let filters = format!(r#"{{"label":["{label}"],"dangling":["true"]}}"#);
        let path = format!("/images/json?filters={}", percent_encoded(&filters));
        let listed: Option<Vec<Listed>> = self.http.document("listing images", &path).await?;
        let mut listed = listed.unwrap_or_default();
        // An engine that does not know the filter has images that are somebody's.
        listed.retain(|image| image.is_nameless(label));
        Ok(listed)
    }

    /// Every image with what the containerd store knows of its manifests.
    pub(in crate::docker) async fn list_manifests(&self) -> Result<Vec<Listed>, EngineError> {
        let listed = self.http.document("listing images", "/images/json?manifests=1").await?;
        Ok(listed.unwrap_or_default())
    }

    /// The same, as far as a list tells what an image looked at closely does.
    pub(in crate::docker) async fn list_described(&self) -> Result<Vec<Inspected>, EngineError> {
        let listed = self.http.document("listing images", "/images/json?manifests=1").await?;
        Ok(listed.unwrap_or_default())
    }

    /// An image by reference, ID or target digest; `None` when it is not there.
    pub(in crate::docker) async fn inspect(
        &self,
        image: &str,
    ) -> Result<Option<Inspected>, EngineError> {
        self.http.document("inspecting an image", &format!("/images/{image}/json")).await
    }

    /// The same with what the containerd store knows of its manifests. Engines without such
    /// details leave them out.
    pub(in crate::docker) async fn inspect_manifests(
        &self,
        image: &impl std::fmt::Display,
    ) -> Result<Option<Inspected>, EngineError> {
        let path = format!("/images/{image}/json?manifests=1");
        self.http.document("inspecting an image", &path).await
    }

    pub(in crate::docker) async fn tag(
        &self,
        image: EngineImageId,
        reference: &Reference,
    ) -> Result<(), EngineError> {
        let options = TagImageOptionsBuilder::new()
            .repo(&reference.repository())
            .tag(reference.tag().unwrap_or("latest"))
            .build();
        let image = image.to_string();
        let call = self.client.tag_image(&image, Some(options));
        self.call("naming an image", call).await
    }

    /// Removes a name of an image, and the image with its last one. A name that is not there is not
    /// an error.
    ///
    /// # Errors
    /// A conflict while a container uses the image.
    pub async fn remove_image(&self, reference: &Reference) -> Result<(), EngineError> {
        let name = reference.to_string();
        let call = self.client.remove_image(&name, None::<RemoveImageOptions>, None);
        match self.call("removing an image", call).await {
            Err(error) if error.is_not_found() => Ok(()),
            removed => removed.map(|_| ()),
        }
    }

    /// Deletes an image by ID and nothing besides: no parents, and none that is in use.
    pub(in crate::docker) async fn delete(&self, image: EngineImageId) -> Result<(), EngineError> {
        let options = RemoveImageOptionsBuilder::new().force(false).noprune(true).build();
        let image = image.to_string();
        let call = self.client.remove_image(&image, Some(options), None);
        self.call("deleting an image", call).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(json: &str) -> Inspected {
        serde_json::from_str(json).unwrap()
    }

    const ID: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn the_beginning_of_an_id_is_not_a_name() {
        let image =
            inspected(&format!(r#"{{"Id":"{ID}","RepoTags":["python:3","<none>:<none>"]}}"#));
        assert!(image.is_named(&"docker.io/library/python:3".parse().unwrap()));
        assert!(!image.is_named(&"aaaa".parse().unwrap()));
        assert_eq!(image.references(), ["python:3".parse().unwrap()]);
    }

    #[test]
    fn an_engine_that_does_not_tell_is_not_a_proof() {
        let digest: Digest = ID.parse().unwrap();
        let check = |manifests: &str, expected| {
            let json = format!(r#"{{"Id":"{ID}","RootFS":{{"Layers":["{ID}"]}}{manifests}}}"#);
            assert_eq!(inspected(&json).is_unpacked(&digest), expected, "{manifests}");
        };
        let manifest = |available: bool, unpacked: i64| {
            format!(
                r#","Manifests":[{{"ID":"{ID}","Available":{available},"ImageData":{{"Size":{{"Unpacked":{unpacked}}}}}}}]"#
            )
        };
        check("", None);
        check(&format!(r#","Manifests":[{{"ID":"{ID}","Available":true}}]"#), None);
        check(r#","Manifests":[]"#, Some(false));
        check(&manifest(true, 0), Some(false));
        check(&manifest(false, 10), Some(false));
        check(&manifest(true, 10), Some(true));
    }
}
