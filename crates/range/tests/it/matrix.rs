//! Every kind of host with every kind of range, in every way to load: proven, and under the digests
//! that they should have.

use std::collections::BTreeSet;
use std::path::Path;

use range::{LoadWay, StoreKind};
use tokio::task::block_in_place;
use transfer::Digest;

use crate::docker::Docker;
use crate::images::{Made, busybox, load};
use crate::nested::Nested;
use crate::oci::Layout;
use crate::site::{Options, Site, range_image, variable};

/// Bytes of noise in each layer.
const LAYERS: [usize; 2] = [1 << 20, 2 << 20];

/// Blob folder of a range's engine on the containerd store.
const CONTENT: &str = "/var/lib/docker/containerd/daemon/io.containerd.content.v1.content/blobs";

/// A kind of host.
struct Source {
    name: &'static str,
    /// As the host agent takes it.
    engine: String,
    flags: Vec<String>,
    /// The way that the host agent says it takes.
    way: &'static str,
    /// True if it has the image's own manifest and compressed layers; false if only what a
    /// graphdriver keeps.
    original: bool,
}

/// A range.
struct Target {
    name: &'static str,
    /// The variable with its range image.
    image: &'static str,
    store: StoreKind,
    /// Load method of its agent.
    load: LoadWay,
}

/// A range of each kind, for each way to load that its store has.
const RANGES: [Target; 7] = [
    target("overlay2-26", "OVERLAY2", StoreKind::Graphdriver, LoadWay::Archive),
    target("overlay2-28", "OVERLAY2_28", StoreKind::Graphdriver, LoadWay::Archive),
    target("containerd-28", "CONTAINERD", StoreKind::Containerd, LoadWay::Archive),
    target("ingested-28", "CONTAINERD", StoreKind::Containerd, LoadWay::Containerd),
    target("pulled-26", "OVERLAY2", StoreKind::Graphdriver, LoadWay::Registry),
    target("pulled-28", "OVERLAY2_28", StoreKind::Graphdriver, LoadWay::Registry),
    target("pulled-blobs-28", "CONTAINERD", StoreKind::Containerd, LoadWay::Registry),
];

const fn target(
    name: &'static str,
    image: &'static str,
    store: StoreKind,
    load: LoadWay,
) -> Target {
    Target { name, image, store, load }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_every_host_brings_every_range_an_image_under_the_right_digests() {
    let folder = tempfile::Builder::new().prefix("lsm-").tempdir().unwrap();
    let outer = Docker::at(variable("LONGSHORE_TEST_DOCKER"));
    let reference = format!("longshore-test/matrix:{}", std::process::id());
    let image = block_in_place(|| Made::new(&busybox(&outer), &reference, 5, &LAYERS));
    let layout = Layout::of(&image);
    let containerd = block_in_place(|| prepare(&outer, folder.path(), &image, &layout));
    assert_eq!(
        containerd.docker.image(&reference).unwrap().0,
        layout.manifest.to_string(),
        "the host on the containerd store is to have the original manifest"
    );

    let mut site = Site::start().await;
    for Target { name, image, load, .. } in RANGES {
        site.load_by(load).await;
        let range_image = variable(&format!("LONGSHORE_TEST_RANGE_{image}"));
        let report = site.up_from(&range_image, &[name], &[]).await;
        assert!(report.is_whole(), "{report:#?}");
    }
    let mut made_up = BTreeSet::new();
    let mut troubles = Vec::new();
    for source in sources(&outer, &containerd, folder.path()) {
        site.serve_again(&Options {
            engine: source.engine.clone(),
            flags: source.flags.clone(),
            ..Options::default()
        })
        .await;
        let way = site.admin().stats().await.unwrap().export_way;
        assert_eq!(way, source.way, "{}", source.name);
        let report = site.sync(&RANGES.map(|target| target.name), &[&reference]).await;
        for (told, Target { name: range, store, .. }) in report.ranges.iter().zip(RANGES) {
            let inside = site.inside(range);
            let proven = told.error.is_none() && told.images.iter().all(|image| image.proven);
            let outcome = match proven {
                true => block_in_place(|| check(&inside, store, &source, &image, &layout)),
                false => Err(format!("{:?} {:?}", told.error, told.images)),
            };
            println!("{:32} × {range:15} {outcome:?}", source.name);
            match outcome {
                Ok(id) if store == StoreKind::Containerd && !source.original => {
                    made_up.insert(id);
                }
                Ok(_) => {}
                Err(error) => troubles.push(format!("{} × {range}: {error}", source.name)),
            }
            site.want_nothing(range).await;
            drop(block_in_place(|| inside.run(&["image", "rm", "--force", &reference])));
        }
    }
    outer.must(&format!("image rm --force {reference}"));
    assert!(troubles.is_empty(), "{}", troubles.join("\n"));
    assert_eq!(made_up.len(), 1, "a made-up manifest is the same from every host: {made_up:?}");
}

/// Puts the image where each source looks for it; the engine on the containerd store.
fn prepare(outer: &Docker, folder: &Path, image: &Made, layout: &Layout) -> Nested {
    image.load_into(outer);
    let containerd = range_image(StoreKind::Containerd);
    let containerd = Nested::start(outer, "matrix-host", &containerd, &folder.join("engine"));
    load(&containerd.docker, &layout.archive());
    layout.write(&folder.join("layout"));
    std::fs::write(folder.join("docker.tar"), image.docker_archive()).unwrap();
    std::fs::write(folder.join("oci.tar"), layout.archive()).unwrap();
    containerd
}

fn sources(outer: &Docker, containerd: &Nested, folder: &Path) -> Vec<Source> {
    let data_root = outer.must("info --format {{.DockerRootDir}}");
    let source = |name, way: &'static str, engine: &str, original, flags: &[&str]| Source {
        name,
        engine: engine.to_owned(),
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        way,
        original,
    };
    let of = |kind: &str, name: &str| format!("{kind}:{}", folder.join(name).display());
    let (graphdriver, blobs) = (outer.host(), containerd.docker.host());
    let data_root = format!("--data-root={data_root}");
    let [save, files, service] =
        ["save", "files", "content-service"].map(|way| format!("--export-way={way}"));
    vec![
        source("overlay2 by save", "save", graphdriver, false, &[&save]),
        source("overlay2 by files", "files", graphdriver, false, &[&files, &data_root]),
        source("containerd by content service", "content-service", blobs, true, &[&service]),
        source("containerd by save", "save", blobs, true, &[&save]),
        source("OCI folder", "layout", &of("oci", "layout"), true, &[]),
        source("docker-archive", "archive", &of("docker-archive", "docker.tar"), false, &[]),
        source("OCI tar", "archive", &of("oci-archive", "oci.tar"), true, &[]),
    ]
}

/// Checks the image in a range through the plain client: its files, and its names. Returns the
/// engine's name for it, or the failure.
fn check(
    inside: &Docker,
    store: StoreKind,
    source: &Source,
    image: &Made,
    layout: &Layout,
) -> Result<String, String> {
    image.check(inside)?;
    let (id, _) = inside.image(&image.reference).ok_or("it is gone")?;
    let expected = match (store, source.original) {
        (StoreKind::Graphdriver, _) => Some(image.config_digest()),
        (StoreKind::Containerd, true) => Some(layout.manifest.to_string()),
        // Synthesised: it is compared with those of other hosts.
        (StoreKind::Containerd, false) => None,
    };
    if expected.as_ref().is_some_and(|expected| *expected != id) {
        return Err(format!("its ID is {id} and should be {expected:?}"));
    }
    if store == StoreKind::Containerd && source.original {
        layout.blobs.iter().try_for_each(|blob| has_blob(inside, blob))?;
    }
    Ok(id)
}

/// Checks that a range's content store has a blob, byte for byte.
fn has_blob(inside: &Docker, blob: &[u8]) -> Result<(), String> {
    let hex = Digest::of(blob).hex();
    let printed = inside.command_around(&["sha256sum", &format!("{CONTENT}/sha256/{hex}")])?;
    match printed.starts_with(&hex) {
        true => Ok(()),
        false => Err(format!("blob {hex} has become {printed}")),
    }
}
