//! One blob for many readers: ingested once, while all readers follow the ingest.

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use futures::future::try_join_all;
use transfer::shared::Shared;
use transfer::store::FsStore;
use transfer::{BlobError, BlobSource as _, BlobStore as _};

use crate::{Frames, SIZE, descriptor_of, drained, runtime};

/// Numbers of concurrent readers.
const READERS: [u64; 3] = [1, 4, 16];

/// Reads a blob that the store lacks, by several readers at once. Throughput counts the bytes of all
/// readers.
pub(crate) fn fanning_out(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let store = runtime.block_on(FsStore::open(folder.path())).expect("a fresh folder opens");
    let frames = Frames::noise();
    let digest = descriptor_of(&frames.0).digest;
    let shared = Shared::new(Arc::new(store.clone()), Arc::new(frames));
    let mut group = criterion.benchmark_group("fan-out");
    group.sample_size(10);
    for readers in READERS {
        group.throughput(Throughput::Bytes(readers * SIZE));
        group.bench_function(BenchmarkId::from_parameter(readers), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                store.remove(&digest).await?;
                let reads = (0..readers).map(|_| async {
                    let stream = shared.open(&digest, 0).await?;
                    drained(stream).await
                });
                try_join_all(reads).await?;
                Ok::<_, BlobError>(())
            });
        });
    }
    group.finish();
}
