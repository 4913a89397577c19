//! A range's own registry: an unmodified `docker pull` gets what only the host has, and an engine
//! that pulls is as good as one that loads.

use std::time::{Duration, Instant};

use range::{LoadWay, StoreKind};
use tokio::task::block_in_place;

use crate::docker::Docker;
use crate::images::{Made, busybox};
use crate::site::{Options, Site, range_image, variable};

/// Address of a range's registry.
const REGISTRY: &str = "127.0.0.1:5055";

/// Maximum time for an engine to be back after a restart.
const COMES_BACK: Duration = Duration::from_secs(60);

/// Bytes of noise in each layer.
const LAYERS: [usize; 2] = [1 << 20, 3 << 20];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_an_unmodified_pull_gets_what_only_the_host_has() {
    let outer = Docker::at(variable("LONGSHORE_TEST_DOCKER"));
    let reference = format!("longshore-test/pulled:{}", std::process::id());
    let image = block_in_place(|| Made::new(&busybox(&outer), &reference, 11, &LAYERS));
    block_in_place(|| image.load_into(&outer));
    let site = Site::start().await;
    let stores = [
        ("overlay2-26", variable("LONGSHORE_TEST_RANGE_OVERLAY2")),
        ("overlay2-28", variable("LONGSHORE_TEST_RANGE_OVERLAY2_28")),
        ("containerd-28", variable("LONGSHORE_TEST_RANGE_CONTAINERD")),
    ];
    let mut troubles = Vec::new();
    for (range, range_image) in &stores {
        let report = site.up_from(range_image, &[range], &[]).await;
        assert!(report.is_whole(), "{report:#?}");
        let inside = site.inside(range);
        if let Err(trouble) = block_in_place(|| pulls(&inside, &image)) {
            troubles.push(format!("{range}: {trouble}"));
        }
    }
    outer.must(&format!("image rm --force {reference}"));
    assert!(troubles.is_empty(), "{}", troubles.join("\n"));
}

/// Pulls in a range in every way that a person would; why not, where it does not work.
fn pulls(inside: &Docker, image: &Made) -> Result<(), String> {
    let pull = |name: &str| inside.run(&["pull", "--quiet", name]);
    let reference = &image.reference;
    let by_address = format!("{REGISTRY}/{reference}");

    pull(&by_address)?;
    let mut pulled = image.clone();
    pulled.reference.clone_from(&by_address);
    pulled.check(inside)?;
    let format = "{{index .RepoDigests 0}}";
    let pinned = inside.run(&["image", "inspect", "--format", format, &by_address])?;
    inside.run(&["image", "rm", "--force", &by_address])?;
    if inside.image(&by_address).is_some() {
        return Err("it is still there".to_owned());
    }

    // By digest alone: the registry has to look for it.
    pull(&pinned)?;
    inside.run(&["image", "rm", "--force", &pinned])?;

    // From docker.io, as it would be said anywhere: the registry is its mirror.
    pull(reference)?;
    image.check(inside)?;
    // A program that starts a missing image pulls it too.
    inside.run(&["image", "rm", "--force", reference])?;
    inside.program(reference, &["/bin/busybox", "true"])?;

    // An image that the host lacks is not found, and nothing else goes wrong.
    for absent in [format!("{REGISTRY}/longshore-test/absent:1"), "longshore-test/absent:1".into()]
    {
        if let Ok(said) = pull(&absent) {
            return Err(format!("{absent} is nowhere and was pulled: {said}"));
        }
    }
    // Nothing is written to the host.
    let mine = format!("{REGISTRY}/longshore-test/mine:1");
    inside.run(&["tag", reference, &mine])?;
    match inside.run(&["push", "--quiet", &mine]) {
        Ok(said) => Err(format!("it was pushed to the host: {said}")),
        Err(_) => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_what_is_pulled_is_what_is_loaded() {
    let outer = Docker::at(variable("LONGSHORE_TEST_DOCKER"));
    let reference = format!("longshore-test/both-ways:{}", std::process::id());
    let image = block_in_place(|| Made::new(&busybox(&outer), &reference, 12, &LAYERS));
    block_in_place(|| image.load_into(&outer));
    let mut site = Site::with(Options { load_way: LoadWay::Archive, ..Options::default() }).await;
    let mut troubles = Vec::new();
    for store in [StoreKind::Graphdriver, StoreKind::Containerd] {
        let mut ids = Vec::new();
        for way in [LoadWay::Archive, LoadWay::Registry] {
            site.load_by(way).await;
            let range = format!("{store}-{way}");
            let report = site.up_from(&range_image(store), &[&range], &[&reference]).await;
            let inside = site.inside(&range);
            let proven = report.is_whole() && report.ranges[0].images[0].proven;
            match block_in_place(|| image.check(&inside)) {
                Ok(()) if proven => ids.push(inside.image(&reference)),
                outcome => troubles.push(format!("{range}: {outcome:?} {report:#?}")),
            }
            let names = inside.must("images --all --digests --format {{.Repository}}@{{.Digest}}");
            if names.contains("127.0.0.1") || names.lines().count() != 1 {
                troubles.push(format!("{range}: it has other names: {names}"));
            }
        }
        if ids.windows(2).any(|two| two[0] != two[1]) {
            troubles.push(format!("{store}: {ids:?}"));
        }
    }
    outer.must(&format!("image rm --force {reference}"));
    assert!(troubles.is_empty(), "{}", troubles.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_an_engine_keeps_the_mirrors_that_it_was_given() {
    let site = Site::start().await;
    let report = site.up(StoreKind::Graphdriver, &["mirrored"], &[]).await;
    assert!(report.is_whole(), "{report:#?}");
    let inside = site.inside("mirrored");
    let mirrors = "info --format {{.RegistryConfig.Mirrors}}";
    assert_eq!(inside.must(mirrors), format!("[http://{REGISTRY}/]"));

    // Its own configuration says otherwise from the next start on.
    let own = r#"sed -i '1s|{|{"registry-mirrors": ["https://mirror.example"],|' "$1""#;
    let config = "/etc/longshore/daemon.json";
    inside.command_around(&["sh", "-c", own, "sh", config]).unwrap();
    site.docker.must(&format!("restart {}", site.container("mirrored")));
    let started = Instant::now();
    let words: Vec<_> = mirrors.split(' ').collect();
    while inside.run(&words).as_deref() != Ok("[https://mirror.example/]") {
        let told = inside.run(&words);
        assert!(started.elapsed() < COMES_BACK, "{told:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
