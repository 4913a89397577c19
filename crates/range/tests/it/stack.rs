//! The main job: a whole stack into both stores, the same as on the host, file by file.

use range::{Outcome, StoreKind};

use crate::docker::Docker;
use crate::rootfs;
use crate::site::{Site, stack};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_a_stack_is_the_same_in_both_stores() {
    let site = Site::start().await;
    let images = stack();
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    for (store, range) in [(StoreKind::Graphdriver, "layers"), (StoreKind::Containerd, "blobs")] {
        let report = site.up(store, &[range], &images).await;
        assert!(report.is_whole(), "{report:#?}");
        assert_eq!(report.ranges[0].engine.as_ref().unwrap().store, store);
        for image in &report.ranges[0].images {
            assert_eq!((image.outcome, image.proven), (Outcome::Synced, true), "{image:#?}");
        }
        for image in &images {
            check_same(&site.docker, &site.inside(range), image, store);
        }
        nothing_moves_again(&site, range).await;
        a_deleted_image_comes_back_alone(&site, range, &images).await;
    }
    let admin = site.admin();
    let stats = admin.stats().await.unwrap();
    assert_eq!(
        stats.max_ingests_per_digest, 1,
        "a layer was taken from the engine twice: {stats:?}"
    );
}

/// Compares an image on the host and in a range: identity, layers, every file, and a program's words.
fn check_same(host: &Docker, range: &Docker, image: &str, store: StoreKind) {
    let (host_id, host_layers) = host.image(image).unwrap();
    let (id, layers) = range.image(image).unwrap_or_else(|| panic!("the range has no {image}"));
    assert_eq!(layers, host_layers, "{image}");
    if store == StoreKind::Graphdriver {
        assert_eq!(id, host_id, "{image}: on a graphdriver the ID is the config digest");
    }
    assert_eq!(range.program(image, &[]), host.program(image, &[]), "{image}");

    if host.run(&["run", "--rm", "--entrypoint", "sleep", image, "0"]).is_err() {
        // Nothing in it can wait, so its root cannot be read; its one layer was compared above.
        assert_eq!(layers.len(), 1, "{image} has neither a shell's tools nor a single layer");
        return;
    }
    let roots = [host, range].map(|docker| {
        let (container, root) = docker.hold(image);
        let read =
            rootfs::read(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
        docker.must(&format!("rm --force {container}"));
        read
    });
    assert!(roots[0].len() > 100, "{image}: only {} files were compared", roots[0].len());
    let differences = rootfs::differences(&roots[0], &roots[1]);
    assert!(differences.is_empty(), "{image}: host and range differ:\n{}", differences.join("\n"));
}

async fn nothing_moves_again(site: &Site, range: &str) {
    let report = site.sync(&[range], &[]).await;
    let totals = report.totals();
    assert_eq!((totals.synced, totals.failed, totals.bytes_moved), (0, 0, 0), "{report:#?}");
}

async fn a_deleted_image_comes_back_alone(site: &Site, range: &str, images: &[&str]) {
    site.inside(range).must(&format!("image rm --force {}", images[0]));
    assert!(site.inside(range).image(images[0]).is_none());
    let report = site.sync(&[range], &[]).await;
    for image in &report.ranges[0].images {
        let expected = match image.reference.to_string() == images[0] {
            true => Outcome::Synced,
            false => Outcome::Skipped,
        };
        assert_eq!(image.outcome, expected, "{image:#?}");
    }
    assert!(site.inside(range).image(images[0]).is_some());
}
