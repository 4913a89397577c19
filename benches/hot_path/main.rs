//! `cargo bench -p benches --bench hot_path`: each step of a layer's path by itself.
//!
//! ```text
//!   verify ► store ► read over gRPC ► fan-out ► plan ► framing of a thin archive
//! ```

mod fan_out;
mod framing;
mod plan;
mod read;
mod store;
mod verify;

use async_trait::async_trait;
use benches::blob;
use bytes::Bytes;
use criterion::{criterion_group, criterion_main};
use futures::{StreamExt as _, stream};
use tokio::runtime::Runtime;
use transfer::{
    BlobError, BlobSource, BlobStream, Descriptor, DiffId, Digest, Image, Layer, MediaType,
    Platform,
};

/// The agents' allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Size of the blob in bytes, large enough to hide costs per blob.
const SIZE: u64 = 64 << 20;

const SEED: u64 = 1;

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime needs two file descriptors")
}

fn stream_of(frames: &[Bytes]) -> BlobStream {
    stream::iter(frames.to_vec()).map(Ok).boxed()
}

fn descriptor_of(frames: &[Bytes]) -> Descriptor {
    Descriptor::of(MediaType::LAYER, &frames.concat())
}

/// Reads a stream to its end and returns the number of bytes.
async fn drained(mut stream: BlobStream) -> Result<usize, BlobError> {
    let mut seen = 0;
    while let Some(frame) = stream.next().await {
        seen += frame?.len();
    }
    Ok(seen)
}

/// A source that returns the same frames for every digest, without reading or hashing.
#[derive(Clone)]
struct Frames(Vec<Bytes>);

impl Frames {
    /// [`SIZE`] bytes of noise.
    fn noise() -> Self {
        Self(blob::frames(SEED, SIZE).collect())
    }
}

#[async_trait]
impl BlobSource for Frames {
    async fn stat(&self, _: &Digest) -> Result<Option<u64>, BlobError> {
        Ok(Some(SIZE))
    }

    async fn open(&self, _: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let mut frames = self.0.clone();
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        // Reads start at the beginning of the blob or within its first frame.
        frames[0] = frames[0].slice(first.min(frames[0].len() - 1)..);
        Ok(stream_of(&frames))
    }
}

/// An image that shares its lower half of layers with all others, as real images share a base.
fn image_of(image: u32, layers: u32) -> Image {
    let layer = |layer: u32| {
        let owner = if layer < layers / 2 { u32::MAX } else { image };
        let digest = Digest::of(format!("{owner} {layer}").as_bytes());
        let media_type = MediaType::new(MediaType::LAYER);
        Layer { diff_id: DiffId(digest), blob: Descriptor { media_type, digest, size: 1 } }
    };
    let config = Bytes::from(image.to_string());
    Image {
        index: None,
        manifest_digest: Digest::of(&config),
        manifest: config.clone(),
        config_digest: transfer::ConfigDigest(Digest::of(&config)),
        config,
        layers: (0..layers).map(layer).collect(),
        platform: Platform { os: "linux".into(), architecture: "amd64".into(), variant: None },
    }
}

criterion_group!(
    hot_path,
    verify::verifying,
    store::ingesting,
    read::reading,
    fan_out::fanning_out,
    plan::planning,
    framing::framing
);
criterion_main!(hot_path);
