//! Images of the containerd store, from the digest that the engine knows them by.
//!
//! The documents are read by digest from a source that verifies, so nobody trusts the giver of the
//! bytes. [`transfer::image::Walk`] says which comes next.

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use transfer::image::{MAX_CONFIG, MAX_MANIFEST, Manifest, Step, Walk, Wanted};
use transfer::{BlobError, BlobSource, ConfigDigest, Digest, Image, ImageSummary, Platform};

use crate::docker::api::images::Inspected;

/// What the documents of a target say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Documents {
    /// The image for the platform. Its layers need not be there.
    Image(Box<Image>),
    /// This document is not there.
    Lacks(Digest),
    /// They are no image, or none for the platform; why.
    Malformed(String),
}

/// Why reading ends before there is an image.
enum Stop {
    Lacks(Digest),
    Malformed(String),
    Blob(BlobError),
}

impl From<transfer::image::InvalidImage> for Stop {
    fn from(error: transfer::image::InvalidImage) -> Self {
        Self::Malformed(transfer::explain(&error))
    }
}

/// Reads the image for `platform` that `target`, a manifest or an index, stands for.
///
/// # Errors
/// That a document is there and could not be read.
pub(super) async fn read(
    blobs: &dyn BlobSource,
    target: &Digest,
    platform: &Platform,
) -> Result<Documents, BlobError> {
    match walk(blobs, target, platform).await {
        Ok(image) => Ok(Documents::Image(Box::new(image))),
        Err(Stop::Lacks(digest)) => Ok(Documents::Lacks(digest)),
        Err(Stop::Malformed(reason)) => Ok(Documents::Malformed(reason)),
        Err(Stop::Blob(error)) => Err(error),
    }
}

/// The config and the layers that a manifest names; `None` where it is not there or is no manifest.
///
/// # Errors
/// That it is there and could not be read.
pub(super) async fn blobs_of(
    blobs: &dyn BlobSource,
    manifest: &Digest,
) -> Result<Option<Vec<Digest>>, BlobError> {
    match document(blobs, manifest, MAX_MANIFEST).await {
        Ok(bytes) => Ok(Manifest::parse(&bytes).ok().map(|manifest| {
            let layers = manifest.layers.iter().map(|layer| layer.digest);
            layers.chain([manifest.config.digest]).collect()
        })),
        Err(Stop::Blob(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// A config; `None` where there is none, or what is there is too large for one.
///
/// # Errors
/// That it is there and could not be read.
pub(super) async fn config(
    blobs: &dyn BlobSource,
    digest: &ConfigDigest,
) -> Result<Option<Bytes>, BlobError> {
    match document(blobs, &digest.0, MAX_CONFIG).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Stop::Blob(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// What a source tells of an image: what the engine says of its target, and what documents say.
pub(super) fn summary(target: &Inspected, image: &Image) -> ImageSummary {
    ImageSummary {
        config_digest: image.config_digest,
        target_digest: Some(image.target_digest()),
        references: target.references(),
        diff_ids: image.diff_ids().collect(),
        unpacked_size: target.unpacked_size(&image.manifest_digest),
        platform: image.platform.clone(),
    }
}

/// The summaries sorted by key, each once: two targets can stand for the same image, such as an
/// index of indexes and the manifest that it leads to.
pub(super) fn sorted(mut summaries: Vec<ImageSummary>) -> Vec<ImageSummary> {
    summaries.sort_by_key(ImageSummary::key);
    summaries.dedup_by(|next, kept| {
        let same = next.key() == kept.key();
        if same {
            kept.references.append(&mut next.references);
            kept.references.sort();
            kept.references.dedup();
        }
        same
    });
    summaries
}

async fn walk(blobs: &dyn BlobSource, target: &Digest, platform: &Platform) -> Result<Image, Stop> {
    let mut walk = Walk::new(*target, platform.clone());
    loop {
        let Wanted { digest, limit, .. } = walk.wanted();
        match walk.take(document(blobs, &digest, limit).await?)? {
            Step::Read(next) => walk = next,
            Step::Image(image) => return Ok(*image),
        }
    }
}

/// A document of at most `limit` bytes.
async fn document(blobs: &dyn BlobSource, digest: &Digest, limit: usize) -> Result<Bytes, Stop> {
    let size = blobs.stat(digest).await.map_err(Stop::Blob)?.ok_or(Stop::Lacks(*digest))?;
    if (limit as u64) < size {
        let reason = format!("document {digest} has {size} bytes, at most {limit} are read");
        return Err(Stop::Malformed(reason));
    }
    let read = async {
        let mut stream = blobs.open(digest, 0).await?;
        let mut bytes = BytesMut::new();
        while let Some(frame) = stream.next().await {
            bytes.extend_from_slice(&frame?);
        }
        Ok(bytes.freeze())
    };
    match read.await {
        // Rotten ones are gone the next time somebody looks.
        Err(
            BlobError::NotFound { .. }
            | BlobError::DigestMismatch { .. }
            | BlobError::SizeMismatch { .. },
        ) => Err(Stop::Lacks(*digest)),
        read => read.map_err(Stop::Blob),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use transfer::store::MemoryStore;
    use transfer::{Descriptor, MediaType, fixture};

    use super::*;

    fn platform(architecture: &str) -> Platform {
        Platform { os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    fn index(children: &[(&Descriptor, &str)]) -> Bytes {
        let child = |(child, architecture): &(&Descriptor, &str)| {
            json!({
                "mediaType": child.media_type, "digest": child.digest, "size": child.size,
                "platform": { "os": "linux", "architecture": architecture },
            })
        };
        let manifests: Vec<_> = children.iter().map(child).collect();
        json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": manifests })
            .to_string()
            .into()
    }

    #[tokio::test]
    async fn a_target_is_followed_to_the_platforms_image() {
        let store = MemoryStore::default();
        let (image, _) = fixture::image(1, &[10, 20]);
        let manifest = Descriptor::of(MediaType::MANIFEST, &image.manifest);
        let absent = Descriptor::of(MediaType::MANIFEST, b"{}");
        let inner = index(&[(&manifest, "amd64")]);
        let inner_child = Descriptor::of(MediaType::INDEX, &inner);
        let outer = index(&[(&absent, "arm64"), (&inner_child, "amd64")]);
        let target = Digest::of(&outer);
        let read = async |target: Digest, on: &str| {
            super::read(&store, &target, &platform(on)).await.unwrap()
        };
        // Each document that comes makes the next one the one that is lacking.
        let chain = [&outer, &inner, &image.manifest, &image.config];
        for document in chain {
            assert_eq!(read(target, "amd64").await, Documents::Lacks(Digest::of(document)));
            store.insert(document.clone());
        }
        let found = Documents::Image(Box::new(image.clone()));
        assert_eq!(read(target, "amd64").await, found);
        assert_eq!(read(image.manifest_digest, "amd64").await, found);
        assert_eq!(read(target, "arm64").await, Documents::Lacks(absent.digest));
        assert!(matches!(read(target, "riscv64").await, Documents::Malformed(_)));
        assert!(matches!(read(image.config_digest.0, "amd64").await, Documents::Malformed(_)));
    }

    #[tokio::test]
    async fn a_document_that_is_too_large_is_not_read() {
        let store = MemoryStore::default();
        let large = fixture::bytes(1, MAX_MANIFEST + 1);
        let target = Digest::of(&large);
        store.insert(large);
        let Documents::Malformed(reason) = read(&store, &target, &platform("amd64")).await.unwrap()
        else {
            panic!("it was taken");
        };
        assert!(reason.contains("at most"), "{reason}");
    }
}
