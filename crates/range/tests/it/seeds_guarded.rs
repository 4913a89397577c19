//! Seeds and their copies among other calls, other containers and other people's volumes.

use std::fs::{self, File};
use std::path::PathBuf;

use range::{Provision, RangeState, SeedUse, Selection, StoreKind};
use rustix::fs::FlockOperation;
use tokio::task::block_in_place;

use crate::seeds::{Own, only_seed, provisions, up};
use crate::site::{Site, range_image};

const STORE: StoreKind = StoreKind::Graphdriver;

/// Makes a volume, with the labels of a range's or with none, and answers its folder.
fn volume(site: &Site, name: &str, labels: &[String]) -> PathBuf {
    let labels: Vec<_> = labels.iter().map(|label| format!("--label {label}")).collect();
    site.docker.must(&format!("volume create {} {name}", labels.join(" ")));
    PathBuf::from(site.docker.must(&format!("volume inspect --format {{{{.Mountpoint}}}} {name}")))
}

/// Makes a container that has a volume mounted and never runs; it goes with the test's ranges.
fn user_of(site: &Site, volume: &str) -> String {
    let label = &site.labels("a")[1];
    let image = range_image(STORE);
    site.docker.must(&format!("create --label {label} --volume {volume}:/mnt:ro {image}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_two_calls_for_the_same_new_ranges_make_each_once() {
    let site = Site::start().await;
    let image = Own::new(&site, "twice");
    let images = [image.reference.as_str()];
    let names = ["a", "b", "c"];
    let ((one, said), (two, too)) =
        tokio::join!(up(&site, STORE, &names, &images), up(&site, STORE, &names, &images));
    // One makes the seed, and the other says that it waits for that, and for nothing else.
    let [said, too] = [said, too].map(|notes| {
        assert!(notes.iter().all(|note| note.contains("waits for another call")), "{notes:?}");
        notes.len()
    });
    assert!(said == 0 || too == 0, "both waited");
    only_seed(&site).await;
    for (one, two) in provisions(&one).into_iter().zip(provisions(&two)) {
        let mut both = [one, two];
        both.sort_by_key(|provision| *provision != Provision::Cloned);
        assert_eq!(both[0], Provision::Cloned, "{both:?}");
        assert!([Provision::Kept, Provision::Started].contains(&both[1]), "{both:?}");
    }
    block_in_place(|| names.map(|range| image.check(&site.inside(range)).unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_a_seed_that_is_copied_stays_whole() {
    let mut site = Site::start().await;
    let image = Own::new(&site, "copied");
    let images = [image.reference.as_str()];
    site.set(|settings| settings.seeds = SeedUse::Always).await;
    up(&site, STORE, &["a"], &images).await;
    let seed = only_seed(&site).await;
    assert_eq!(site.admin().ranges().await.unwrap().len(), 1, "the host agent serves no seed");

    let stays = async |reason: &str| {
        let removals = site.ranges.prune_seeds(0).await.unwrap();
        let error = removals[0].error.clone().unwrap_or_default();
        assert!(error.contains(reason), "{error}");
        assert_eq!(only_seed(&site).await.name, seed.name);
    };
    // Another call copies it.
    let lock = site.path(&format!("locks/{}.seed.lock", site.container(seed.name.as_str())));
    let lock = File::create(lock).unwrap();
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).unwrap();
    stays("a call makes or copies it").await;
    drop(lock);
    assert_eq!(site.admin().ranges().await.unwrap().len(), 1, "waiting makes no sockets");
    // A call left a container behind that does.
    let data = format!("{}-data", site.container(seed.name.as_str()));
    let user = block_in_place(|| user_of(&site, &data));
    stays("has it mounted").await;
    block_in_place(|| site.docker.must(&format!("rm --volumes {user}")));
    let (report, notes) = up(&site, STORE, &["b"], &images).await;
    assert_eq!((provisions(&report), notes), (vec![Provision::Cloned], Vec::new()));
    assert_eq!(only_seed(&site).await.name, seed.name);
    let removals = site.ranges.prune_seeds(0).await.unwrap();
    assert!(removals.iter().all(|removal| removal.error.is_none()), "{removals:?}");
    assert_eq!(site.ranges.seeds().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_nothing_is_made_over_half_a_copy() {
    let mut site = Site::start().await;
    let image = Own::new(&site, "half");
    let images = [image.reference.as_str()];
    site.set(|settings| settings.seeds = SeedUse::Always).await;
    up(&site, STORE, &["a"], &images).await;
    let container = site.container("half");
    let data = format!("{container}-data");
    let user = block_in_place(|| {
        let labels = site.labels("half");
        volume(&site, &format!("{container}.half"), &labels);
        let folder = volume(&site, &data, &labels);
        fs::create_dir_all(folder.join("overlay2/rubbish")).unwrap();
        // While this has it mounted it cannot be removed.
        user_of(&site, &data)
    });
    let report = site.up(STORE, &["half"], &images).await;
    assert!(report.ranges[0].error.is_some(), "{report:#?}");
    let listed = site.ranges.list_of(&Selection::Names(vec!["half".parse().unwrap()])).await;
    assert_eq!(listed.unwrap()[0].state, RangeState::Unmade);
    block_in_place(|| site.docker.must(&format!("rm --volumes {user}")));
    let (report, _) = up(&site, STORE, &["half"], &images).await;
    assert_eq!(provisions(&report), [Provision::Cloned]);
    block_in_place(|| image.check(&site.inside("half"))).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_somebody_elses_volume_is_refused_and_kept() {
    let mut site = Site::start().await;
    let image = Own::new(&site, "theirs");
    let images = [image.reference.as_str()];
    site.set(|settings| settings.seeds = SeedUse::Always).await;
    up(&site, STORE, &["a"], &images).await;
    // As this call's own, and as one that a copy was to become of.
    for (range, part) in [("data", "-data"), ("agent", "-agent"), ("half", ".half")] {
        let name = format!("{}{part}", site.container(range));
        let folder = block_in_place(|| volume(&site, &name, &[]));
        fs::write(folder.join("theirs"), "theirs").unwrap();
        for seeds in [SeedUse::Always, SeedUse::Never] {
            site.set(|settings| settings.seeds = seeds).await;
            let report = site.up(STORE, &[range], &images).await;
            let error = report.ranges[0].error.clone().unwrap_or_default();
            assert!(error.contains(&format!("volume {name} is there already")), "{error}");
        }
        let selection = Selection::Names(vec![range.parse().unwrap()]);
        site.ranges.down(&selection).await.unwrap();
        let kept = fs::read_to_string(folder.join("theirs"));
        block_in_place(|| site.docker.must(&format!("volume rm {name}")));
        assert_eq!(kept.unwrap(), "theirs", "{name}");
    }
}
