//! The images that an engine holds, for reports.

use std::collections::HashMap;

use futures::{StreamExt as _, TryStreamExt as _};
use transfer::{ConfigDigest, StoreKind};

use crate::docker::api::error::EngineError;
use crate::docker::api::images::INSPECTIONS;
use crate::docker::api::images::Inspected;
use crate::docker::load::DockerSink;
use crate::engine::HeldImage;

impl DockerSink {
    /// Every image of the engine with a name or without, sorted by what the engine calls it.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn images(&self) -> Result<Vec<HeldImage>, EngineError> {
        self.images_since(&[]).await
    }

    /// The same, but images that are proven in `known` are not inspected again, only their names are
    /// new: a list of names costs an engine little, an inspection of each image does not.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn images_since(&self, known: &[HeldImage]) -> Result<Vec<HeldImage>, EngineError> {
        let docker = self.docker();
        let store = docker.info().await?.store;
        let proven = known.iter().filter(|image| image.proven);
        let proven: HashMap<_, _> = proven.map(|image| (image.engine_image_id, image)).collect();
        let (mut held, mut strange) = (Vec::new(), Vec::new());
        for image in docker.list_images().await? {
            match proven.get(&image.id) {
                Some(known) => {
                    held.push(HeldImage { references: image.references(), ..(*known).clone() });
                }
                None => strange.push(image.id),
            }
        }
        let inspections =
            strange.into_iter().map(|id| async move { docker.inspect_manifests(&id.0).await });
        let inspected: Vec<Option<Inspected>> =
            futures::stream::iter(inspections).buffer_unordered(INSPECTIONS).try_collect().await?;
        // An image that was deleted meanwhile is not held.
        held.extend(inspected.into_iter().flatten().map(|image| self.describe(store, &image)));
        held.sort_by_key(|image| image.engine_image_id);
        Ok(held)
    }

    fn describe(&self, store: StoreKind, image: &Inspected) -> HeldImage {
        let (config_digest, proven) = match store {
            // The graphdriver registers an image only when each layer hashed to its diff ID.
            StoreKind::Graphdriver => (Some(ConfigDigest(image.id.0)), true),
            StoreKind::Containerd => {
                let manifests = image.images().into_iter().flatten().map(|told| told.digest);
                // The one that was brought; of an index only one is.
                let mut known = manifests.chain([image.id.0]);
                let config_digest = known.find_map(|id| self.journal().config_of(&id));
                (config_digest, image.is_whole().unwrap_or(false))
            }
        };
        HeldImage {
            engine_image_id: image.id,
            references: image.references(),
            config_digest,
            proven,
        }
    }
}
