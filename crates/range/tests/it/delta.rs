//! A changed top layer moves alone.

use range::{Outcome, StoreKind};

use crate::docker::noise;
use crate::site::{Site, stack_image};

/// Bytes that a delta may cost beside the layer's own content: tar headers, config, manifest.
const OVERHEAD: u64 = 64 << 10;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_a_changed_top_layer_moves_alone() {
    let site = Site::start().await;
    let base = stack_image("python");
    let image = format!("longshore-test/delta-{}:1", std::process::id());
    let build = |version: &str, seed| {
        let files = [("noise", noise(seed, 5 << 20)), ("version", version.into())];
        site.docker.build(&image, &base, &[&[("below", noise(1, 1 << 20))], &files]);
    };
    build("one", 2);
    for (store, range) in [(StoreKind::Graphdriver, "layers"), (StoreKind::Containerd, "blobs")] {
        let report = site.up(store, &[range], &[&image]).await;
        assert!(report.is_whole(), "{report:#?}");
    }
    build("two", 3);
    for range in ["layers", "blobs"] {
        let report = site.sync(&[range], &[]).await;
        let moved = &report.ranges[0].images[0];
        assert_eq!(moved.outcome, Outcome::Synced, "{moved:#?}");
        println!("{range}: {} bytes moved, {} saved", moved.bytes_moved, moved.bytes_saved);
        assert!((5 << 20..=(5 << 20) + OVERHEAD).contains(&moved.bytes_moved), "{moved:#?}");
        let printed = site.inside(range).program(&image, &["cat", "/layer-1/version"]);
        assert_eq!(printed.as_deref(), Ok("two"));
    }
    site.docker.must(&format!("image rm --force {image}"));
}
