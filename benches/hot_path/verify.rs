//! Verification, compared with the hash alone.

use criterion::{Criterion, Throughput};
use futures::TryStreamExt as _;
use transfer::Digest;
use transfer::verify::verify;

use crate::{Frames, SIZE, descriptor_of, runtime, stream_of};

/// Verifies a stream of frames, compared with hashing the bytes in one piece.
pub(crate) fn verifying(criterion: &mut Criterion) {
    let runtime = runtime();
    let Frames(frames) = Frames::noise();
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
