//! An image put together from the blobs that the store has.

use std::sync::Arc;

use transfer::image::{ConfigFile, InvalidImage};
use transfer::{BlobError, BlobStore, ConfigDigest, Digest, Image, MediaType, Platform};

use crate::docker::read::documents::{self, Documents};
use crate::docker::read::flight::Failure;
use crate::docker::read::target::Root;

/// The image; `None` unless the store has all of it.
pub(super) async fn assemble(
    store: &dyn BlobStore,
    root: &Root,
    platform: &Platform,
) -> Result<Option<Image>, Failure> {
    match root {
        Root::Config(config_digest) => from_config(store, config_digest).await,
        Root::Manifest { manifest, index } => {
            from_target(store, index.as_ref().unwrap_or(manifest), platform).await
        }
    }
}

fn blob(error: BlobError) -> Failure {
    Failure::Blob(Arc::new(error))
}

async fn from_config(
    store: &dyn BlobStore,
    config_digest: &ConfigDigest,
) -> Result<Option<Image>, Failure> {
    let Some(config) = documents::config(store, config_digest).await.map_err(blob)? else {
        return Ok(None);
    };
    let malformed = |error: InvalidImage| Failure::Malformed(error.to_string());
    let file = ConfigFile::parse(&config).map_err(malformed)?;
    let mut sizes = Vec::with_capacity(file.diff_ids.len());
    for diff_id in &file.diff_ids {
        match store.stat(&diff_id.0).await.map_err(blob)? {
            Some(size) => sizes.push(size),
            None => return Ok(None),
        }
    }
    let image = Image::from_layers(config, &sizes).map_err(malformed)?;
    store.keep(MediaType::MANIFEST, &image.manifest).await.map_err(blob)?;
    Ok(Some(image))
}

async fn from_target(
    store: &dyn BlobStore,
    target: &Digest,
    platform: &Platform,
) -> Result<Option<Image>, Failure> {
    let image = match documents::read(store, target, platform).await.map_err(blob)? {
        Documents::Image(image) => image,
        Documents::Lacks(_) => return Ok(None),
        Documents::Malformed(reason) => return Err(Failure::Malformed(reason)),
    };
    for layer in &image.layers {
        if store.stat(&layer.blob.digest).await.map_err(blob)?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(*image))
}
