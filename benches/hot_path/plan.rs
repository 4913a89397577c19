//! Planning: the layers that an engine lacks of an image.

use std::collections::HashSet;

use criterion::{BatchSize, Criterion};
use transfer::plan::{missing_above_prefix, missing_blobs, present_chains};
use transfer::{DiffId, Digest, Image};

use crate::image_of;

/// Plans one more image for an engine that has 1,000, all with 100 layers.
pub(crate) fn planning(criterion: &mut Criterion) {
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
