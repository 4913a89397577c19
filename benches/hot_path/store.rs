//! Ingest into the file store and reads from it.

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use transfer::store::FsStore;
use transfer::{BlobError, BlobSource as _, BlobStore as _, Descriptor};

use crate::{Frames, SIZE, descriptor_of, drained, runtime};

/// Ingests a blob (hash, write, fsync, rename, fsync of the folder), then reads it back.
pub(crate) fn ingesting(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let store = runtime.block_on(FsStore::open(folder.path())).expect("a fresh folder opens");
    let Frames(frames) = Frames::noise();
    let descriptor = descriptor_of(&frames);
    let mut group = criterion.benchmark_group("ingest");
    group.throughput(Throughput::Bytes(SIZE)).sample_size(10);
    group.bench_function("into files", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            ingest(&store, &frames, &descriptor).await.expect("the disk has room");
        });
    });
    runtime.block_on(async {
        ingest(&store, &frames, &descriptor).await.expect("the disk has room");
    });
    group.bench_function("out of files", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            let stream = store.open(&descriptor.digest, 0).await?;
            drained(stream).await
        });
    });
    group.finish();
}

async fn ingest(store: &FsStore, frames: &[Bytes], blob: &Descriptor) -> Result<(), BlobError> {
    // Remove it first: the store would skip the rename of a blob that it has.
    store.remove(&blob.digest).await?;
    let mut ingest = store.ingest().await?;
    for frame in frames {
        ingest.write(frame.clone()).await?;
    }
    ingest.commit(blob).await
}
