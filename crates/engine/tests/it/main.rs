//! The engine crate against a Docker engine: the fixture's everywhere, real ones where named.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod archive;
mod content;
mod export;
mod ingest;
mod oci_layout;
mod overlay2;
mod real;
mod registry;
mod sink;

use std::sync::Arc;

use bytes::Bytes;
use transfer::store::MemoryStore;
use transfer::{BlobSource, BlobStore, Descriptor, Image, Layer, Reference, fixture};

type Blobs = Vec<(Descriptor, Bytes)>;

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

async fn store_of(blobs: &Blobs) -> MemoryStore {
    let store = MemoryStore::default();
    for (descriptor, bytes) in blobs {
        let mut ingest = store.ingest().await.unwrap();
        for frame in bytes.chunks(transfer::MAX_FRAME) {
            ingest.write(Bytes::copy_from_slice(frame)).await.unwrap();
        }
        ingest.commit(descriptor).await.unwrap();
    }
    store
}

/// An image, and the same with another top layer.
fn before_and_after() -> (Image, Image, Blobs) {
    let (before, blobs) = fixture::image(1, &[100_000, 2_500_000, 10]);
    let (top, top_blobs) = fixture::image(2, &[3000]);
    let after = image_of(&[&before.layers[..2], &top.layers[..]].concat());
    (before, after, [blobs, top_blobs].concat())
}

/// An image of layers that other images have too; its config is made from their diff IDs.
fn image_of(layers: &[Layer]) -> Image {
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let sizes: Vec<_> = layers.iter().map(|layer| layer.blob.size).collect();
    Image::from_layers(config.to_string().into(), &sizes).unwrap()
}

/// A source as a sink takes it.
fn shared(source: &(impl BlobSource + Clone + 'static)) -> Arc<dyn BlobSource> {
    Arc::new(source.clone())
}
