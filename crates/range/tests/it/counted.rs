//! What is read from the host's engine, counted at its socket: a layer once, and nothing else.

use std::path::Path;

use range::{Report, StoreKind};
use tokio::task::block_in_place;

use crate::images::{Made, busybox};
use crate::proxy::Proxy;
use crate::site::{Options, Site};

/// Bytes of noise in each layer of the image that the others are built on.
const LAYERS: [usize; 3] = [2 << 20, 3 << 20, 4 << 20];

/// Bytes of noise in the layer that is put on top.
const TOP: usize = 1 << 20;

/// What may be read beside layers: documents, HTTP headers, and a tar archive's own, for one image.
const DOCUMENTS: u64 = 64 << 10;

/// A way of reading the host's engine.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// As `--export-way` takes it.
    name: &'static str,
    /// Whether it reads layers one by one: then a changed layer is read alone.
    direct: bool,
}

const WAYS: [Way; 1] = [Way { name: "save", direct: false }];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_four_ranges_cost_the_engine_what_one_does() {
    for way in WAYS {
        let one = read(way, &["one"], &[]).await;
        let four = read(way, &["one", "two"], &["three", "four"]).await;
        println!("{}: {one:?} bytes read for one range, {four:?} for four", way.name);
        let close = |left: u64, right: u64| left.abs_diff(right) <= DOCUMENTS;
        assert!(close(one.whole, four.whole), "{}: {one:?}, {four:?}", way.name);
        assert!(close(one.changed, four.changed), "{}: {one:?}, {four:?}", way.name);
    }
}

/// Bytes that came out of the engine.
#[derive(Clone, Copy, Debug)]
struct Read {
    /// For an image of which nothing was known.
    whole: u64,
    /// For the same image with another layer on top.
    changed: u64,
}

/// Brings an image into ranges on either store, and then another with one layer more.
async fn read(way: Way, layers: &[&str], blobs: &[&str]) -> Read {
    let folder = tempfile::tempdir().unwrap();
    let front = folder.path().join("engine.sock");
    let host = crate::site::variable("LONGSHORE_TEST_DOCKER");
    let back = host.strip_prefix("unix://").expect("the engine of the tests has a Unix socket");
    let engine = Proxy::start(&front, Path::new(back));
    let site = Site::with(Options {
        engine: format!("unix://{}", front.display()),
        flags: Vec::new(),
        ..Options::default()
    });
    let site = site.await;

    let name = |tag: &str| format!("longshore-test/counted-{}:{tag}", std::process::id());
    let program = block_in_place(|| busybox(&site.docker));
    let image = Made::new(&program, &name("base"), 1, &LAYERS);
    let changed = image.with_layer(&name("changed"), 2, TOP);
    let mut read = Read { whole: 0, changed: 0 };
    for (image, count) in [(&image, &mut read.whole), (&changed, &mut read.changed)] {
        block_in_place(|| image.load_into(&site.docker));
        let before = engine.moved();
        let up = tokio::join!(
            up(&site, StoreKind::Graphdriver, layers, image),
            up(&site, StoreKind::Containerd, blobs, image),
        );
        *count = engine.moved() - before;
        for range in layers.iter().chain(blobs) {
            block_in_place(|| image.check(&site.inside(range))).unwrap();
        }
        drop(up);
    }
    site.docker.must(&format!("image rm --force {} {}", image.reference, changed.reference));
    assert!((image.size()..=image.size() + DOCUMENTS).contains(&read.whole), "{way:?}: {read:?}");
    let expected = if way.direct { TOP as u64 } else { changed.size() };
    assert!((expected..=expected + DOCUMENTS).contains(&read.changed), "{way:?}: {read:?}");
    read
}

async fn up(site: &Site, store: StoreKind, ranges: &[&str], image: &Made) -> Report {
    let report = site.up(store, ranges, &[&image.reference]).await;
    assert!(report.is_whole(), "{report:#?}");
    report
}
