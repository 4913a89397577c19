//! The engine crate against a Docker engine: the fixture's everywhere, real ones where named.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod archive;
mod content;
mod events;
mod export;
mod ingest;
mod oci_layout;
mod overlay2;
mod real;
mod registry;
mod sink;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use engine::DockerSink;
use transfer::fixture::Faulty;
use transfer::store::MemoryStore;
use transfer::{
    BlobError, BlobSource, BlobStore, BlobStream, Descriptor, Digest, Image, ImageSink as _,
    ImageSource, Layer, LayerForm, LoadError, Missing, OpenImage, Reference, fixture,
};

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

/// An image with its blobs, as a sink takes it.
fn opened(image: &Image, blobs: &(impl BlobSource + Clone + 'static)) -> OpenImage {
    OpenImage { image: image.clone(), blobs: Arc::new(blobs.clone()) }
}

/// An image of a source in the form that the source keeps it.
async fn open(source: &impl ImageSource, image: &Image) -> OpenImage {
    source.open(&image.config_digest.into(), LayerForm::AsStored).await.unwrap()
}

/// A source whose bytes are wrong for whoever verifies them by itself.
#[derive(Clone)]
struct Mistaken {
    blobs: MemoryStore,
    /// Whether they are right for whoever has them verified.
    mends: bool,
    doubted: Arc<Mutex<Vec<Digest>>>,
}

#[async_trait]
impl BlobSource for Mistaken {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.blobs.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        assert!(self.doubted.lock().unwrap().contains(digest), "hashed before it was doubted");
        if self.mends {
            return self.blobs.open(digest, offset).await;
        }
        Err(BlobError::DigestMismatch { expected: *digest, actual: Digest::of(b"other") })
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        Faulty::corrupt_at(self.blobs.clone(), 1).open(digest, offset).await
    }

    fn doubt(&self, digest: &Digest) {
        self.doubted.lock().unwrap().push(*digest);
    }
}

/// An engine that verifies by itself is given layers unhashed; what it refuses is read again, hashed.
async fn what_the_engine_refuses_is_read_again_verified(sink: &DockerSink) {
    let (image, _, blobs) = before_and_after();
    let blobs = store_of(&blobs).await;
    let missing = Missing::all(&image);
    for mends in [false, true] {
        let source = Mistaken { blobs: blobs.clone(), mends, doubted: Arc::default() };
        let loaded = sink.load(&opened(&image, &source), &missing).await;
        let proof = sink.prove(&image).await.unwrap();
        if mends {
            loaded.unwrap();
            assert!(proof.is_some(), "the right bytes are in");
        } else {
            let mismatch =
                |error: &_| matches!(error, LoadError::Source(BlobError::DigestMismatch { .. }));
            assert!(loaded.as_ref().is_err_and(mismatch), "{loaded:?}");
            assert_eq!(proof, None);
            sink.discard(&image).await.unwrap();
            assert_eq!(sink.missing(&image).await.unwrap(), missing, "wrong bytes were kept");
        }
    }
}
