//! Cost of a layer on the host: its bytes once for any number of ranges, and the same memory for
//! any size.

use std::io::Write as _;
use std::process::{Command, Stdio};

use range::{SeedUse, StoreKind};

use crate::images::header;
use crate::site::{Site, stack};

/// The most that each agent may ever hold.
const HOST_AGENT_BYTES: u64 = 128 << 20;
const DIND_AGENT_BYTES: u64 = 64 << 20;

/// Sizes of the two layers that memory is measured with, in GiB. The larger one is a variable's,
/// since it takes five times its size of disk on the way.
fn layer_sizes() -> [u64; 2] {
    let larger = std::env::var("LONGSHORE_TEST_LARGE_LAYER_GIB").ok();
    [1, larger.map_or(3, |text| text.parse().expect("a whole number of GiB"))]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_four_cold_ranges_cost_the_host_one_export() {
    let mut site = Site::start().await;
    // Each is to take all of it from the host.
    site.set(|settings| settings.seeds = SeedUse::Never).await;
    let images: Vec<String> = stack().into_iter().filter(|image| !image.contains("llvm")).collect();
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let (layers, blobs) = tokio::join!(
        site.up(StoreKind::Graphdriver, &["one", "two"], &images),
        site.up(StoreKind::Containerd, &["three", "four"], &images),
    );
    for report in [&layers, &blobs] {
        assert!(report.is_whole(), "{report:#?}");
        let moved: Vec<u64> =
            report.ranges.iter().map(|r| r.images.iter().map(|i| i.bytes_moved).sum()).collect();
        assert_eq!(moved[0], moved[1], "a layer that several images share goes in once");
    }
    let stats = site.admin().stats().await.unwrap();
    println!(
        "4 ranges: {} ingests of {} digests, {} bytes read from the engine in {} saves, {} bytes served",
        stats.ingests,
        stats.ingested_digests,
        stats.engine_bytes_read,
        stats.saves,
        stats.bytes_served
    );
    assert_eq!(stats.max_ingests_per_digest, 1, "{stats:?}");
    // Less than twice what one range takes: four exports would be four times that.
    let one: u64 = layers.ranges[0].images.iter().map(|image| image.bytes_moved).sum();
    assert!(stats.engine_bytes_read < 2 * one, "{stats:?}, one range took {one} bytes");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_memory_does_not_grow_with_a_layer() {
    let mut peaks = Vec::new();
    for gibibytes in layer_sizes() {
        // Agents of their own for each size: a peak never falls.
        let site = Site::start().await;
        let image = format!("longshore-test/large-{}:{gibibytes}", std::process::id());
        import_large(&site, &image, gibibytes << 30);
        let report = site.up(StoreKind::Containerd, &["large"], &[&image]).await;
        assert!(report.is_whole(), "{report:#?}");
        assert!(gibibytes << 30 <= report.totals().bytes_moved, "{report:#?}");
        let host = site.admin().stats().await.unwrap().peak_rss_bytes;
        let dind = site.dind_peak_rss("large").await;
        println!("a layer of {gibibytes} GiB: host agent {host}, dind agent {dind} bytes at most");
        assert!(host <= HOST_AGENT_BYTES && dind <= DIND_AGENT_BYTES, "host {host}, dind {dind}");
        peaks.push((host, dind));
        site.docker.must(&format!("image rm --force {image}"));
    }
    let (small, large) = (peaks[0], peaks[1]);
    // "The same" up to what an allocator keeps: an eighth of the bound.
    assert!(large.0 < small.0 + HOST_AGENT_BYTES / 8, "{peaks:?}");
    assert!(large.1 < small.1 + DIND_AGENT_BYTES / 8, "{peaks:?}");
}

/// Imports an image of one layer with one large file, without a copy of it on disk here.
fn import_large(site: &Site, image: &str, size: u64) {
    let mut child = Command::new("docker")
        .args([
            "--host",
            &site.docker_host,
            "import",
            "--change",
            "LABEL dev.longshore=1",
            "-",
            image,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&header("large", size)).unwrap();
    let mut frame = vec![0_u8; 1 << 20];
    for number in 0..size >> 20 {
        // Different in every frame, so that no layer can hide in a cache of equal pages.
        frame[..8].copy_from_slice(&number.to_le_bytes());
        pipe.write_all(&frame).unwrap();
    }
    pipe.write_all(&[0; 1024]).unwrap();
    drop(pipe);
    assert!(child.wait().unwrap().success());
}
