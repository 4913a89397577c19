//! The thin archive: every layer named, only the missing ones inside.
//!
//! ```text
//! oci-layout              {"imageLayoutVersion":"1.0.0"}
//! index.json              one manifest, or the index that it was published under; no name
//! manifest.json           config and every layer's path, no RepoTags
//! blobs/sha256/<config>
//! blobs/sha256/<manifest>
//! blobs/sha256/<index>    where it was published under one; other platforms stay away
//! blobs/sha256/<layer>    only those that the engine lacks, each once, the base first
//! ```
//!
//! A graphdriver reads `manifest.json` and opens a layer's file only when it lacks its chain ID;
//! the containerd store reads the OCI layout and takes the blobs that are inside. No entry carries
//! a name for the image: it is given after the proof. We write the archive ourselves, header by
//! header, so that what engines read has no two readings.
//!
//! Spec: <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md> and
//! <https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md>.

use std::collections::{HashSet, VecDeque};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use layer::tar::{END, header, padding};
use serde::Serialize;
use transfer::{
    BlobError, BlobSource, BlobStream, Descriptor, Digest, Image, MediaType, Missing, Platform,
};

use crate::document::described;

/// The archive as frames, made as they are asked for: whoever does not ask holds everything back.
pub struct ThinArchive<'a> {
    blobs: &'a dyn BlobSource,
    /// Whether layers are hashed on their way into the archive.
    verified: bool,
    /// Frames that are ready, the documents at first.
    ready: VecDeque<Bytes>,
    /// Layers that are still to come.
    layers: VecDeque<Descriptor>,
    /// The layer that is under way, and how many of its bytes have come.
    current: Option<(Descriptor, BlobStream, u64)>,
    ended: bool,
}

impl std::fmt::Debug for ThinArchive<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThinArchive").field("layers", &self.layers).finish_non_exhaustive()
    }
}

impl<'a> ThinArchive<'a> {
    /// The archive of `image` with the layers that are `missing`, which come from `blobs`.
    #[must_use]
    pub fn new(image: &Image, missing: &Missing, blobs: &'a dyn BlobSource) -> Self {
        Self {
            blobs,
            verified: true,
            ready: VecDeque::from([documents(image)]),
            layers: sent(image, missing).cloned().collect(),
            current: None,
            ended: false,
        }
    }

    /// The same, for an engine that hashes every layer by itself before it keeps it: ours would be
    /// the second hash of the same bytes on the same cores.
    #[must_use]
    pub fn unverified(self) -> Self {
        Self { verified: false, ..self }
    }

    /// The next frame; `None` after the archive's end.
    ///
    /// # Errors
    /// That a layer could not be read, or is not as long as its descriptor says. The archive is of
    /// no more use then.
    pub async fn next_frame(&mut self) -> Result<Option<Bytes>, BlobError> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            if let Some((layer, stream, seen)) = &mut self.current {
                match stream.next().await.transpose()? {
                    Some(frame) => {
                        *seen += frame.len() as u64;
                        if layer.size < *seen {
                            return Err(wrong_size(layer, *seen));
                        }
                        return Ok(Some(frame));
                    }
                    None if *seen != layer.size => return Err(wrong_size(layer, *seen)),
                    None => self.ready.extend(padding(layer.size)),
                }
                self.current = None;
                continue;
            }
            match self.layers.pop_front() {
                Some(layer) => {
                    let stream = match self.verified {
                        true => self.blobs.open(&layer.digest, 0).await?,
                        false => self.blobs.open_unverified(&layer.digest, 0).await?,
                    };
                    let header = header(&blob_path(&layer.digest), layer.size);
                    self.ready.push_back(Bytes::copy_from_slice(&header));
                    self.current = Some((layer, stream, 0));
                }
                None if self.ended => return Ok(None),
                None => {
                    self.ended = true;
                    self.ready.push_back(Bytes::from_static(END));
                }
            }
        }
    }
}

/// The layers that go into the archive, each blob once.
pub(super) fn sent<'a>(
    image: &'a Image,
    missing: &'a Missing,
) -> impl Iterator<Item = &'a Descriptor> {
    let mut seen = HashSet::new();
    let layers = image.layers.iter().map(|layer| &layer.blob).zip(&missing.0);
    layers
        .filter(move |(blob, missing)| **missing && seen.insert(blob.digest))
        .map(|(blob, _)| blob)
}

fn wrong_size(layer: &Descriptor, actual: u64) -> BlobError {
    BlobError::SizeMismatch { digest: layer.digest, expected: layer.size, actual }
}

/// Everything but the layers, as one frame: the engine can begin with it at once.
fn documents(image: &Image) -> Bytes {
    let mut archive = BytesMut::new();
    let mut put = |path: &str, bytes: &[u8]| {
        archive.put_slice(&header(path, bytes.len() as u64));
        archive.put_slice(bytes);
        if let Some(padding) = padding(bytes.len() as u64) {
            archive.put_slice(&padding);
        }
    };
    put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    put("index.json", &index(image));
    put("manifest.json", &legacy_manifest(image));
    put(&blob_path(&image.config_digest.0), &image.config);
    put(&blob_path(&image.manifest_digest), &image.manifest);
    if let Some(index) = published(image) {
        put(&blob_path(&Digest::of(index)), index);
    }
    archive.freeze()
}

fn index(image: &Image) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u32,
        media_type: &'a str,
        manifests: [Child; 1],
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Child {
        media_type: MediaType,
        digest: Digest,
        size: u64,
    }
    let (target, or) = match published(image) {
        Some(index) => (index, MediaType::INDEX),
        None => (&image.manifest, MediaType::MANIFEST),
    };
    let Descriptor { media_type, digest, size } = described(target, or);
    let child = Child { media_type, digest, size };
    json(&Index { schema_version: 2, media_type: MediaType::INDEX, manifests: [child] })
}

/// The index that the image is loaded under, so that its digest is a registry's. An engine chooses
/// by its own platform in an index, so one of another platform is loaded by its manifest.
pub(super) fn published(image: &Image) -> Option<&Bytes> {
    let (own, host) = (&image.platform, Platform::host());
    image.index.as_ref().filter(|_| (&own.os, &own.architecture) == (&host.os, &host.architecture))
}

fn legacy_manifest(image: &Image) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        config: String,
        layers: Vec<String>,
    }
    json(&[Entry {
        config: blob_path(&image.config_digest.0),
        layers: image.layers.iter().map(|layer| blob_path(&layer.blob.digest)).collect(),
    }])
}

fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("texts and numbers always serialize")
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

#[cfg(test)]
mod tests;
