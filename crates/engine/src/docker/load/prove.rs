//! Which layers an engine has, by the rule of its own store, and whether it has an image whole.
//!
//! | | graphdriver | containerd store |
//! |---|---|---|
//! | a layer can be left out when | its chain is a prefix of an image's that is there | its blob is in the content store: a manifest that we know consists of it and is available |
//! | an image is proven when | its ID is the config digest, its diff IDs are the image's | its manifest is available and unpacked, its diff IDs are the image's |
//!
//! A wrong guess is found by the proof and healed by the full set, so both rules may be cautious
//! and need not lock anything.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use futures::{StreamExt as _, TryStreamExt as _};
use transfer::plan::{missing_above_prefix, missing_blobs};
use transfer::pull::BASE_LABEL;
use transfer::{
    ChainId, Digest, EngineImageId, Image, ImageKey, ImageSummary, Missing, Proof, StoreKind,
};

use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::docker::api::images::{INSPECTIONS, Inspected, Listed};
use crate::docker::load::journal::Journal;
use crate::docker::load::thin::published;

/// How many proven images are remembered, about 200 bytes each. Beyond them all are learnt anew.
const MAX_PROVEN: usize = 1 << 12;

/// What is known of an engine's layers beyond what it says in one answer.
#[derive(Debug, Default)]
pub(super) struct Presence {
    journal: Journal,
    chains: Mutex<Arc<Chains>>,
    /// By target and by config alone, since not every host knows its images' targets.
    proven: Mutex<HashMap<ImageKey, Proven>>,
}

/// What a containerd store calls an image that was proven: so it is asked again by what a host tells
/// of the image at once. That the image is still there, only the engine can say.
#[derive(Clone, Copy, Debug)]
struct Proven {
    /// The engine's name for it: not the published one, where only one manifest of an index was
    /// loaded.
    target: Digest,
    manifest: Digest,
}

/// The chains of graphdriver images. An ID is the digest of the document that they come from, so an
/// entry is right for ever; images that are gone are dropped.
#[derive(Debug, Default)]
struct Chains {
    of: HashMap<EngineImageId, Vec<ChainId>>,
    /// All of them.
    present: HashSet<ChainId>,
}

impl Presence {
    pub(super) fn new(journal: Journal) -> Self {
        Self { journal, ..Self::default() }
    }

    /// What is known of manifests.
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Which layers of `image` must be sent.
    pub(super) async fn missing(
        &self,
        docker: &Docker,
        image: &Image,
    ) -> Result<Missing, EngineError> {
        match docker.store_kind().await? {
            StoreKind::Graphdriver => {
                let chains = self.chains(docker).await?;
                Ok(missing_above_prefix(image, &chains.present))
            }
            StoreKind::Containerd => {
                let listed = docker.list_manifests().await?;
                let available: HashSet<_> = listed.iter().flat_map(Listed::available).collect();
                let mut present = self.journal.blobs_of(&available);
                if available.contains(&image.manifest_digest) {
                    present.extend(image.layers.iter().map(|layer| layer.blob.digest));
                }
                Ok(missing_blobs(image, &present))
            }
        }
    }

    /// Asks the engine to confirm every layer of `image`.
    pub(super) async fn prove(
        &self,
        docker: &Docker,
        image: &Image,
    ) -> Result<Option<Proof>, EngineError> {
        let target = target(docker, image).await?;
        let inspected = docker.inspect_manifests(&target).await?;
        let Some(inspected) = inspected.filter(|inspected| has_layers(inspected, image)) else {
            return Ok(None);
        };
        if target == image.config_digest.0 {
            // The graphdriver registers an image only when each layer hashed to its diff ID.
            if inspected.id.0 != target {
                return Ok(None);
            }
        } else {
            if inspected.is_unpacked(&image.manifest_digest) != Some(true) {
                return Ok(None);
            }
            self.journal.learn(image).await;
            self.remember(image, target);
        }
        let references = inspected.references();
        Ok(Some(Proof { engine_image_id: inspected.id, references }))
    }

    /// The same by what the host tells of an image at once: enough for a graphdriver, where an
    /// image's ID is its config digest and so stands for its diff IDs. The containerd store calls an
    /// image by its manifest, which is known from an earlier proof or not at all.
    pub(super) async fn confirm(
        &self,
        docker: &Docker,
        summary: &ImageSummary,
    ) -> Result<Option<Proof>, EngineError> {
        let inspected = match docker.store_kind().await? {
            StoreKind::Graphdriver => {
                let inspected = docker.inspect(&summary.config_digest.to_string()).await?;
                inspected.filter(|inspected| inspected.id.0 == summary.config_digest.0)
            }
            StoreKind::Containerd => {
                let Some(known) = self.recall(summary) else { return Ok(None) };
                let inspected = docker.inspect_manifests(&known.target).await?;
                inspected.filter(|inspected| inspected.is_unpacked(&known.manifest) == Some(true))
            }
        };
        let proven = inspected.filter(|inspected| inspected.diff_ids() == summary.diff_ids);
        Ok(proven.map(|inspected| {
            let references = inspected.references();
            Proof { engine_image_id: inspected.id, references }
        }))
    }

    fn remember(&self, image: &Image, target: Digest) {
        let known = Proven { target, manifest: image.manifest_digest };
        let by_config = ImageKey::from(image.config_digest);
        let by_target = ImageKey { target_digest: Some(image.target_digest()), ..by_config };
        let mut proven = self.proven.lock().expect("invariant: no one panics while holding it");
        if MAX_PROVEN <= proven.len() {
            proven.clear();
        }
        proven.extend([by_config, by_target].map(|key| (key, known)));
    }

    /// The proof of the image that the host has now. One of the same config that was published anew
    /// is another image.
    fn recall(&self, summary: &ImageSummary) -> Option<Proven> {
        let proven = self.proven.lock().expect("invariant: no one panics while holding it");
        proven.get(&summary.key()).copied()
    }

    /// Removes what was made up to bring in shared layers.
    pub(super) async fn sweep(&self, docker: &Docker) -> Result<(), EngineError> {
        for image in docker.list_labelled(BASE_LABEL).await? {
            match docker.delete(image.id).await {
                // Gone, or somebody gave it a name or runs it: then it is theirs.
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                deleted => deleted?,
            }
        }
        Ok(())
    }

    /// Removes `image` unless it has a name. Between looking and deleting, a name given by someone
    /// else would go with it: the engine has no call for both.
    pub(super) async fn discard(&self, docker: &Docker, image: &Image) -> Result<(), EngineError> {
        let target = target(docker, image).await?;
        match docker.inspect(&target.to_string()).await? {
            Some(inspected) if !inspected.has_names() => {}
            _ => return Ok(()),
        }
        match docker.delete(EngineImageId(target)).await {
            // Gone, or a container runs from it.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            deleted => deleted,
        }
    }

    /// The chains of every image that a graphdriver has; computed anew only for images that it did
    /// not have when it was last asked.
    async fn chains(&self, docker: &Docker) -> Result<Arc<Chains>, EngineError> {
        let listed: HashSet<_> = docker.list_images().await?.iter().map(|image| image.id).collect();
        let known = self.lock().clone();
        if listed.len() == known.of.len() && listed.iter().all(|id| known.of.contains_key(id)) {
            return Ok(known);
        }
        let inspections = listed.into_iter().map(|id| {
            let known = known.of.get(&id).cloned();
            async move {
                let chain = match known {
                    Some(chain) => Some(chain),
                    None => docker
                        .inspect(&id.to_string())
                        .await?
                        .map(|inspected| ChainId::chain(inspected.diff_ids())),
                };
                Ok::<_, EngineError>(chain.map(|chain| (id, chain)))
            }
        });
        let inspected: Vec<_> =
            futures::stream::iter(inspections).buffer_unordered(INSPECTIONS).try_collect().await?;
        let of: HashMap<_, _> = inspected.into_iter().flatten().collect();
        let present = of.values().flatten().copied().collect();
        let chains = Arc::new(Chains { of, present });
        *self.lock() = chains.clone();
        Ok(chains)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Chains>> {
        self.chains.lock().expect("invariant: no one panics while holding the chains")
    }
}

/// What the engine calls `image` when it has it.
pub(super) async fn target(docker: &Docker, image: &Image) -> Result<Digest, EngineError> {
    Ok(match docker.store_kind().await? {
        StoreKind::Graphdriver => image.config_digest.0,
        StoreKind::Containerd => published(image).map_or(image.manifest_digest, |i| Digest::of(i)),
    })
}

fn has_layers(inspected: &Inspected, image: &Image) -> bool {
    inspected.diff_ids().iter().eq(image.layers.iter().map(|layer| &layer.diff_id))
}
