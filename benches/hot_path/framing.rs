//! Framing of the archive that an engine loads.

use criterion::Criterion;
use engine::docker::ThinArchive;
use transfer::{BlobError, DiffId, Image, Layer, Missing};

use crate::{Frames, descriptor_of, image_of, runtime};

/// Frames a thin archive with one layer, which shows the cost beyond the layer's bytes.
pub(crate) fn framing(criterion: &mut Criterion) {
    let runtime = runtime();
    let frames = Frames::noise();
    let layer =
        Layer { diff_id: DiffId(descriptor_of(&frames.0).digest), blob: descriptor_of(&frames.0) };
    let image = Image { layers: vec![layer], ..image_of(0, 0) };
    // Throughput would mislead: frames are not copied, so their size does not change the time.
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
