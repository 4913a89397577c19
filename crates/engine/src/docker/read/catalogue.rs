//! Which images a graphdriver engine has, as its API tells: there an image's ID is its config
//! digest. What exports its images and what reads them from its files tell the same.

use futures::{StreamExt as _, TryStreamExt as _};
use transfer::{ConfigDigest, ImageSummary, Reference, SourceError, StoreKind};

use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::docker::api::images::INSPECTIONS;
use crate::docker::api::images::Inspected;

/// Every image, sorted by config digest.
pub(super) async fn list(docker: &Docker) -> Result<Vec<ImageSummary>, SourceError> {
    supported(docker).await.map_err(|error| error.about("*"))?;
    let listed = docker.list_images().await.map_err(|error| error.about("*"))?;
    let inspections = listed.into_iter().map(|image| async move {
        docker.inspect(&image.id.to_string()).await.map_err(|error| error.about("*"))
    });
    let inspected: Vec<Option<Inspected>> =
        futures::stream::iter(inspections).buffer_unordered(INSPECTIONS).try_collect().await?;
    // What was deleted meanwhile is not listed.
    let mut summaries: Vec<_> = inspected.iter().flatten().map(summary).collect();
    summaries.sort_by_key(|summary| summary.config_digest);
    Ok(summaries)
}

/// The image that `reference` names now.
pub(super) async fn resolve(
    docker: &Docker,
    reference: &Reference,
) -> Result<ImageSummary, SourceError> {
    supported(docker).await.map_err(|error| error.about(reference))?;
    let inspected = docker.inspect(&reference.to_string()).await;
    match inspected.map_err(|error| error.about(reference))? {
        Some(inspected) if inspected.is_named(reference) => Ok(summary(&inspected)),
        _ => Err(SourceError::NotFound { image: reference.to_string() }),
    }
}

/// The containerd store has manifests and indexes of its own, which are not read here.
async fn supported(docker: &Docker) -> Result<(), EngineError> {
    match docker.store_kind().await? {
        StoreKind::Graphdriver => Ok(()),
        StoreKind::Containerd => Err(EngineError::Unsupported {
            engine: docker.address().to_owned(),
            what: "its images are in the containerd store, not in that of a graphdriver",
        }),
    }
}

fn summary(inspected: &Inspected) -> ImageSummary {
    ImageSummary {
        config_digest: ConfigDigest(inspected.id.0),
        // A graphdriver keeps no manifest.
        target_digest: None,
        references: inspected.references(),
        diff_ids: inspected.diff_ids().to_vec(),
        unpacked_size: inspected.size(),
        platform: inspected.platform(),
    }
}
