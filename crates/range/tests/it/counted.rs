//! Reads from the host's engine, counted at its socket: a layer once, and nothing else.

use std::path::Path;
use std::time::Duration;

use range::StoreKind;
use tokio::task::block_in_place;

use crate::docker::Docker;
use crate::images::{Made, busybox, load};
use crate::nested::Nested;
use crate::oci::Layout;
use crate::proxy::Proxy;
use crate::site::{Options, Site, range_image, variable};

/// Bytes of noise in each layer of the image that the others are built on.
const NOISE: [usize; 3] = [2 << 20, 3 << 20, 4 << 20];

/// Bytes of noise in the layer that is put on top.
const TOP: usize = 1 << 20;

/// Bytes that may be read beside layers: documents, HTTP headers, and a tar archive's own, for one
/// image; and for the requests of each range about the image and the engine.
const DOCUMENTS: u64 = 64 << 10;
const QUESTIONS: u64 = 64 << 10;

/// An engine that gave nothing of a layer for so long has nothing more to give.
const SETTLED: Duration = Duration::from_secs(2);

/// A way of reading the host's engine.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// As `--export-way` takes it.
    name: &'static str,
    /// Image store of the host's engine.
    store: StoreKind,
    /// True if it reads layers one by one: then a changed layer is read alone.
    direct: bool,
}

const WAYS: [Way; 4] = [
    Way { name: "save", store: StoreKind::Graphdriver, direct: false },
    Way { name: "files", store: StoreKind::Graphdriver, direct: true },
    Way { name: "save", store: StoreKind::Containerd, direct: false },
    Way { name: "content-service", store: StoreKind::Containerd, direct: true },
];

/// Bytes that came out of the engine for one image.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    /// At its socket, and from its files.
    all: u64,
    /// Of those, what the host agent counts as read of layers or of an export.
    layers: u64,
}

/// Bytes that came out of the engine.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    /// For an image of which nothing was known.
    whole: Taken,
    /// For the same image with another layer on top.
    changed: Taken,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_four_ranges_cost_the_engine_what_one_does() {
    let folder = tempfile::Builder::new().prefix("lsc-").tempdir().unwrap();
    let outer = Docker::at(variable("LONGSHORE_TEST_DOCKER"));
    let containerd = range_image(StoreKind::Containerd);
    let containerd = block_in_place(|| {
        Nested::start(&outer, "counted-host", &containerd, &folder.path().join("engine"))
    });
    let mut site = Site::start().await;
    // Up beforehand: bytes read by then are of no interest.
    for (store, ranges) in [LAYERS, BLOBS] {
        assert!(site.up(store, ranges, &[]).await.is_whole());
    }
    let program = block_in_place(|| busybox(&outer));
    for (number, way) in WAYS.into_iter().enumerate() {
        let docker = match way.store {
            StoreKind::Graphdriver => &outer,
            StoreKind::Containerd => &containerd.docker,
        };
        let front = folder.path().join(format!("{number}.sock"));
        let place = docker.host().strip_prefix("unix://").expect("its socket is a Unix socket");
        let engine = Proxy::start(&front, Path::new(place));
        let name = |tag: &str| format!("longshore-test/counted-{number}:{tag}");
        let image = Made::new(&program, &name("base"), 1 + number as u64, &NOISE);
        let changed = image.with_layer(&name("changed"), 100 + number as u64, TOP);
        block_in_place(|| [&image, &changed].map(|image| put(docker, way.store, image)));

        let mut reads = [Read::default(); 2];
        for (read, ranges) in reads.iter_mut().zip([&ALL[..1], &ALL]) {
            site.serve_again(&Options {
                engine: format!("unix://{}", front.display()),
                flags: vec![format!("--export-way={}", way.name)],
                ..Options::default()
            })
            .await;
            read.whole = taken(&site, &engine, &image, ranges).await;
            read.changed = taken(&site, &engine, &changed, ranges).await;
            forget(&site, ranges, [&image, &changed]).await;
        }
        block_in_place(|| docker.must(&format!("image rm {} {}", name("base"), name("changed"))));
        judge(way, reads, [&image, &changed]);
    }
}

/// Ranges of either store.
const LAYERS: (StoreKind, &[&str]) = (StoreKind::Graphdriver, &["one", "two"]);
const BLOBS: (StoreKind, &[&str]) = (StoreKind::Containerd, &["three", "four"]);
const ALL: [&str; 4] = ["one", "two", "three", "four"];

/// Puts an image into the host's engine, compressed where that keeps it so.
fn put(docker: &Docker, store: StoreKind, image: &Made) {
    match store {
        StoreKind::Graphdriver => image.load_into(docker),
        StoreKind::Containerd => load(docker, &Layout::of(image).archive()),
    }
}

/// Brings an image into ranges; the bytes that came out of the host's engine for it.
async fn taken(site: &Site, engine: &Proxy, image: &Made, ranges: &[&str]) -> Taken {
    let before = settled(site, engine).await;
    let report = site.sync(ranges, &[&image.reference]).await;
    assert!(report.is_whole(), "{report:#?}");
    let after = settled(site, engine).await;
    block_in_place(|| {
        image.check(&site.inside(ranges[0])).unwrap();
        for range in ranges {
            let (_, diff_ids) = site.inside(range).image(&image.reference).unwrap();
            assert_eq!(diff_ids, image.diff_ids(), "{range}");
        }
    });
    Taken { all: after.all - before.all, layers: after.layers - before.layers }
}

/// Returns the bytes taken so far, once no more of a layer comes: a range has its image as soon as
/// all of it is in the host's store, and the end of an export may still be on its way then.
async fn settled(site: &Site, engine: &Proxy) -> Taken {
    let mut seen = None;
    loop {
        let stats = site.admin().stats().await.unwrap();
        let layers = stats.engine_bytes_read;
        if seen == Some(layers) {
            // Files are not read through the socket.
            let beside = if stats.export_way == "files" { layers } else { 0 };
            return Taken { all: engine.moved() + beside, layers };
        }
        seen = Some(layers);
        tokio::time::sleep(SETTLED).await;
    }
}

/// Leaves the ranges without the images, so that they are cold again.
async fn forget(site: &Site, ranges: &[&str], images: [&Made; 2]) {
    for range in ranges {
        // Else they would come back.
        site.want_nothing(range).await;
        for image in images {
            let words = format!("image rm --force {}", image.reference);
            block_in_place(|| site.inside(range).must(&words));
        }
    }
}

/// One range and four cost the same, and a changed layer no more than itself.
fn judge(way: Way, [one, four]: [Read; 2], [image, changed]: [&Made; 2]) {
    let Way { name, store, direct } = way;
    println!("{store} by {name}: {one:?} for one range, {four:?} for four");
    let blobs = |image: &Made| match store {
        StoreKind::Graphdriver => image.size(),
        StoreKind::Containerd => Layout::of(image).layers_size(),
    };
    let layer = blobs(changed) - blobs(image);
    let expected = if direct { layer } else { blobs(changed) };
    let layers = |read: Read| (read.whole.layers, read.changed.layers);
    assert_eq!(layers(one), layers(four), "{way:?}: layers are read once for all ranges");
    for (read, ranges) in [(one, 1), (four, ALL.len() as u64)] {
        let allowed = DOCUMENTS + ranges * QUESTIONS;
        let whole = blobs(image)..=blobs(image) + allowed;
        assert!(whole.contains(&read.whole.all), "{way:?}: {read:?}, not {whole:?}");
        let changed = expected..=expected + allowed;
        assert!(changed.contains(&read.changed.all), "{way:?}: {read:?}, not {changed:?}");
    }
}
