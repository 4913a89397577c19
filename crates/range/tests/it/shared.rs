//! Shared layers go into a range once, and leave nothing of their own there.

use range::{LoadWay, StoreKind};
use tokio::task::block_in_place;

use crate::docker::Docker;
use crate::images::{Made, busybox};
use crate::site::{Site, variable};

/// Bytes of noise in the layers of the longest; all of them are built on the first two.
const LAYERS: [usize; 4] = [2 << 20, 3 << 20, 2 << 20, 4 << 20];

/// Bytes of noise in the layer that one has for itself.
const TOP: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_layers_that_images_share_come_in_once_and_leave_nothing() {
    let outer = Docker::at(variable("LONGSHORE_TEST_DOCKER"));
    let mut site = Site::start().await;
    let program = block_in_place(|| busybox(&outer));
    let name = |tag: &str| format!("longshore-test/shared:{tag}");
    // Of one seed, so each has the layers of the one before.
    let built = |tag: &str, count: usize| Made::new(&program, &name(tag), 71, &LAYERS[..count]);
    let (base, second, third) = (built("base", 2), built("second", 3), built("third", 4));
    let first = base.with_layer(&name("first"), 72, TOP);
    let images = [&first, &second, &third];
    block_in_place(|| images.iter().for_each(|image| image.load_into(&outer)));
    // Each layer once, for any number of images.
    let once = first.size() + third.size() - base.size();

    let ranges = [
        (StoreKind::Graphdriver, LoadWay::Archive, "layers"),
        (StoreKind::Containerd, LoadWay::Archive, "blobs"),
        (StoreKind::Containerd, LoadWay::Auto, "auto"),
    ];
    for (store, way, range) in ranges {
        site.load_by(way).await;
        assert!(site.up(store, &[range], &[]).await.is_whole());
        let references = images.map(|image| image.reference.as_str());
        let report = site.sync(&[range], &references).await;
        assert!(report.is_whole(), "{report:#?}");
        let moved: u64 = report.ranges[0].images.iter().map(|image| image.bytes_moved).sum();
        assert_eq!(moved, once, "{store} by {way}: {report:#?}");
        block_in_place(|| {
            let inside = site.inside(range);
            for image in images {
                image.check(&inside).unwrap();
                let (_, diff_ids) = inside.image(&image.reference).unwrap();
                assert_eq!(diff_ids, image.diff_ids(), "{store} by {way}");
            }
            // The synthesised image that brought the base in is gone, and took nothing with it.
            let all = inside.must("image ls --all --quiet --no-trunc");
            assert_eq!(all.lines().count(), images.len(), "{store} by {way}: {all}");
        });
    }
    block_in_place(|| {
        images.iter().for_each(|image| {
            outer.must(&format!("image rm {}", image.reference));
        });
    });
}
