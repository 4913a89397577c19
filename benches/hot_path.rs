//! `cargo bench -p benches --bench hot_path`: the parts of a layer's way, each by itself.

use std::collections::HashSet;

use async_trait::async_trait;
use benches::blob;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::docker::ThinArchive;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::runtime::Runtime;
use transfer::plan::{missing_above_prefix, missing_blobs, present_chains};
use transfer::store::FsStore;
use transfer::verify::verify;
use transfer::{
    BlobError, BlobSource, BlobStore as _, BlobStream, Descriptor, DiffId, Digest, Image, Layer,
    MediaType, Missing, Platform,
};

/// As in the agents.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Large enough that what is done once per blob does not count.
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

/// What remains of a verified stream's speed, beside hashing in one piece.
fn verifying(criterion: &mut Criterion) {
    let runtime = runtime();
    let frames: Vec<_> = blob::frames(SEED, SIZE).collect();
    let descriptor = descriptor_of(&frames);
    let mut group = criterion.benchmark_group("verify");
    group.throughput(Throughput::Bytes(SIZE));
    group.bench_function("sha256 alone", |bencher| {
        let bytes = frames.concat();
        bencher.iter(|| Digest::of(&bytes));
    });
    group.bench_function("verify 1 MiB frames", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let verified = verify(stream_of(&frames), &descriptor);
            verified.try_fold(0, |seen, frame| async move { Ok(seen + frame.len()) }).await
        });
    });
    group.finish();
}

/// A blob into the file store: hash, write, fsync, rename, fsync of the folder.
fn ingesting(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let store = runtime.block_on(FsStore::open(folder.path())).expect("a fresh folder opens");
    let frames: Vec<_> = blob::frames(SEED, SIZE).collect();
    let descriptor = descriptor_of(&frames);
    let mut group = criterion.benchmark_group("ingest");
    group.throughput(Throughput::Bytes(SIZE)).sample_size(10);
    group.bench_function("into files", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            ingest(&store, &frames, &descriptor).await.expect("the disk has room");
        });
    });
    group.finish();
}

async fn ingest(store: &FsStore, frames: &[Bytes], blob: &Descriptor) -> Result<(), BlobError> {
    // Removed first: what is there already would not be renamed again.
    store.remove(&blob.digest).await?;
    let mut ingest = store.ingest().await?;
    for frame in frames {
        ingest.write(frame.clone()).await?;
    }
    ingest.commit(blob).await
}

/// A thin archive with one layer inside: what the framing costs beside the bytes themselves.
fn framing(criterion: &mut Criterion) {
    let runtime = runtime();
    let frames = Frames(blob::frames(SEED, SIZE).collect());
    let layer =
        Layer { diff_id: DiffId(descriptor_of(&frames.0).digest), blob: descriptor_of(&frames.0) };
    let image = Image { layers: vec![layer], ..image_of(0, 0) };
    // No throughput: frames pass through uncopied, so the time is that of 64 frames of any size.
    let mut group = criterion.benchmark_group("thin archive");
    group.bench_function("one layer of 64 frames", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let mut archive = ThinArchive::new(&image, &Missing::all(&image), &frames);
            let mut seen = 0;
            while let Some(frame) = archive.next_frame().await? {
                seen += frame.len();
            }
            Ok::<_, BlobError>(seen)
        });
    });
    group.finish();
}

/// Frames at hand, whatever is asked for: nothing is read or hashed.
struct Frames(Vec<Bytes>);

#[async_trait]
impl BlobSource for Frames {
    async fn stat(&self, _: &Digest) -> Result<Option<u64>, BlobError> {
        Ok(Some(SIZE))
    }

    async fn open(&self, _: &Digest, _: u64) -> Result<BlobStream, BlobError> {
        Ok(stream_of(&self.0))
    }
}

/// What an engine with 1,000 images lacks of one more, all of 100 layers.
fn planning(criterion: &mut Criterion) {
    let held: Vec<Image> = (0..1_000).map(|image| image_of(image, 100)).collect();
    let diff_ids: Vec<Vec<DiffId>> = held.iter().map(diff_ids_of).collect();
    let wanted = image_of(1_000, 100);
    let mut group = criterion.benchmark_group("plan 1,000 images of 100 layers");
    group.sample_size(20);
    group.bench_function("chains of all images", |bencher| {
        bencher.iter(|| present_chains(diff_ids.iter().map(Vec::as_slice)));
    });
    let chains = present_chains(diff_ids.iter().map(Vec::as_slice));
    group.bench_function("missing above the prefix", |bencher| {
        bencher.iter(|| missing_above_prefix(&wanted, &chains));
    });
    let blobs: HashSet<Digest> = diff_ids.iter().flatten().map(|diff_id| diff_id.0).collect();
    group.bench_function("missing blobs", |bencher| {
        bencher.iter_batched(
            || &wanted,
            |wanted| missing_blobs(wanted, &blobs),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn diff_ids_of(image: &Image) -> Vec<DiffId> {
    image.layers.iter().map(|layer| layer.diff_id).collect()
}

/// An image whose lower half all images share, as real ones share a base.
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

criterion_group!(hot_path, verifying, ingesting, framing, planning);
criterion_main!(hot_path);
