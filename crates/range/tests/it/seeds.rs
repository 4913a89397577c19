//! New ranges begin with a copy of a seed: the same as without, and never from half a seed.

use std::fs::{self, File};
use std::ops::Deref;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use range::{
    Outcome, Provision, RangeEvent, RangeEventKind, Report, SeedStatus, SeedUse, Selection,
    StoreKind, UpRequest,
};
use tokio::task::block_in_place;

use crate::docker::Docker;
use crate::images::{Made, busybox};
use crate::site::{Site, range_image, references};

/// Bytes of noise in each layer.
const LAYERS: [usize; 2] = [1 << 20, 2 << 20];

/// Maximum time that a test waits for another task.
const SOON: Duration = Duration::from_secs(90);

/// Blob folder of a range's engine on the containerd store.
const CONTENT: &str =
    "/var/lib/docker/containerd/daemon/io.containerd.content.v1.content/blobs/sha256";

/// An image that only one test has, in the engine of the host, gone with the test.
pub(crate) struct Own {
    image: Made,
    docker: Docker,
}

impl Own {
    pub(crate) fn new(site: &Site, word: &str) -> Self {
        let reference = format!("longshore-test/seeds-{word}:{}", std::process::id());
        block_in_place(|| {
            let seed = word.bytes().map(u64::from).sum();
            let image = Made::new(&busybox(&site.docker), &reference, seed, &LAYERS);
            image.load_into(&site.docker);
            Self { image, docker: site.docker.clone() }
        })
    }
}

impl Deref for Own {
    type Target = Made;

    fn deref(&self) -> &Made {
        &self.image
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = self.docker.run(&["image", "rm", &self.image.reference]) {
            eprintln!("{} stays: {error}", self.image.reference);
        }
    }
}

/// Brings ranges up; also returns the notes of that time.
pub(crate) async fn up(
    site: &Site,
    store: StoreKind,
    names: &[&str],
    images: &[&str],
) -> (Report, Vec<String>) {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let told = notes.clone();
    let observer = move |event: RangeEvent| {
        if let RangeEventKind::Noted(text) = event.kind {
            told.lock().expect("invariant: no one panics with it").push(text);
        }
    };
    let report = site.ranges.up(&request(store, names, images), Arc::new(observer)).await.unwrap();
    assert!(report.is_whole(), "{report:#?}");
    let notes = notes.lock().unwrap().clone();
    (report, notes)
}

fn request(store: StoreKind, names: &[&str], images: &[&str]) -> UpRequest {
    UpRequest {
        names: names.iter().map(|name| name.parse().unwrap()).collect(),
        range_image: range_image(store),
        images: references(images),
        grants: Vec::new(),
        labels: range::Labels::default(),
    }
}

/// Work done on each range.
pub(crate) fn provisions(report: &Report) -> Vec<Provision> {
    report.ranges.iter().map(|range| range.provision.unwrap()).collect()
}

/// The only seed there is.
pub(crate) async fn only_seed(site: &Site) -> SeedStatus {
    let mut seeds = site.ranges.seeds().await.unwrap();
    assert_eq!(seeds.len(), 1, "{seeds:#?}");
    let seed = seeds.remove(0);
    assert!(seed.card.is_some(), "{seed:?}");
    seed
}

/// An engine's report of its images and, on the containerd store, its blobs.
fn held(site: &Site, range: &str, store: StoreKind) -> String {
    let inside = site.inside(range);
    let images = inside.must("image ls --all --no-trunc --digests");
    match store {
        StoreKind::Graphdriver => images,
        StoreKind::Containerd => {
            format!("{images}\n{}", inside.command_around(&["ls", CONTENT]).unwrap())
        }
    }
}

async fn cloned_as_without(store: StoreKind) {
    let mut site = Site::start().await;
    let image = Own::new(&site, &format!("{store}"));
    let images = [image.reference.as_str()];
    let begun = Instant::now();
    let (report, notes) = up(&site, store, &["a", "b"], &images).await;
    println!(
        "{store}: a seed and two clones in {:.1} s: {:?}",
        begun.elapsed().as_secs_f64(),
        report.totals()
    );
    assert_eq!((provisions(&report), notes), (vec![Provision::Cloned; 2], Vec::new()));
    for range in &report.ranges {
        let image = &range.images[0];
        assert_eq!((image.outcome, image.proven, image.bytes_moved), (Outcome::Skipped, true, 0));
    }
    let seed = only_seed(&site).await;
    assert_eq!(seed.images, image.reference);
    // It is there already, so one range is worth a copy too.
    let (report, _) = up(&site, store, &["c"], &images).await;
    assert_eq!(provisions(&report), [Provision::Cloned]);
    assert_eq!(only_seed(&site).await.name, seed.name);
    // A live one is left alone.
    let (report, _) = up(&site, store, &["a", "b"], &images).await;
    assert_eq!(provisions(&report), [Provision::Kept; 2]);

    site.set(|settings| settings.seeds = SeedUse::Never).await;
    let (report, _) = up(&site, store, &["plain-1", "plain-2"], &images).await;
    assert_eq!(provisions(&report), [Provision::Made; 2]);
    block_in_place(|| {
        let expected = held(&site, "plain-1", store);
        let mut ids = Vec::new();
        for range in ["a", "b", "c"] {
            image.check(&site.inside(range)).unwrap();
            assert_eq!(held(&site, range, store), expected, "{range}");
            ids.push(site.inside(range).must("info --format {{.ID}}"));
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3, "each engine has an identity of its own");
    });
    // The record of blobs came along: another tag moves nothing.
    let listed = site.ranges.list().await.unwrap();
    let names: Vec<_> = listed.iter().map(|status| status.range.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "plain-1", "plain-2"], "a seed is no range of anybody's");
    let removals = site.ranges.down(&Selection::All).await.unwrap();
    assert!(removals.iter().all(|removal| removal.error.is_none()), "{removals:?}");
    assert_eq!(site.ranges.seeds().await.unwrap(), [], "with all ranges the seeds go");
    let left = block_in_place(|| {
        let label = format!("label={}", site.labels("a")[1]);
        site.docker.must(&format!("volume ls --quiet --filter {label}"))
    });
    assert_eq!(left, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_a_range_from_a_seed_is_as_one_without_on_overlay2() {
    cloned_as_without(StoreKind::Graphdriver).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_a_range_from_a_seed_is_as_one_without_on_the_containerd_store() {
    cloned_as_without(StoreKind::Containerd).await;
}

/// The container of the seed that is being made, once it runs.
async fn builder(site: &Site) -> String {
    let begun = Instant::now();
    loop {
        let label = format!("label={}", site.labels("a")[1]);
        let words = format!("ps --quiet --filter label=dev.longshore.seed --filter {label}");
        let found = block_in_place(|| site.docker.must(&words));
        if !found.is_empty() {
            return found;
        }
        assert!(begun.elapsed() < SOON, "no seed is made");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_a_seed_whose_making_was_cut_off_is_never_used() {
    let store = StoreKind::Containerd;
    let site = Arc::new(Site::start().await);
    let image = Own::new(&site, "cut");
    let images = [image.reference.as_str()];

    // Its maker goes away: an aborted task holds its lock no longer, as a killed process does not.
    let request = request(store, &["a", "b"], &images);
    let maker = site.clone();
    let making = tokio::spawn(async move {
        let report = maker.ranges.up(&request, Arc::new(|_: RangeEvent| {})).await;
        report.map(|report| report.is_whole())
    });
    builder(&site).await;
    making.abort();
    assert!(making.await.unwrap_err().is_cancelled());
    let half = site.ranges.seeds().await.unwrap();
    assert!(half.iter().all(|seed| seed.card.is_none()) && half.len() == 1, "{half:#?}");
    let (report, notes) = up(&site, store, &["a", "b"], &images).await;
    assert_eq!(provisions(&report), [Provision::Cloned; 2]);
    assert!(notes.iter().any(|note| note.contains("was cut off")), "{notes:?}");
    assert_ne!(only_seed(&site).await.name, half[0].name);

    // Its range goes away: those that wait for it go the plain way.
    site.ranges.down(&Selection::All).await.unwrap();
    let removed = tokio::spawn({
        let site = site.clone();
        async move {
            let builder = builder(&site).await;
            block_in_place(|| site.docker.must(&format!("rm --force {builder}")));
        }
    });
    let (report, notes) = up(&site, store, &["a", "b"], &images).await;
    removed.await.unwrap();
    assert_eq!(provisions(&report), [Provision::Made; 2], "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("there is no seed")), "{notes:?}");
    assert_eq!(site.ranges.seeds().await.unwrap(), []);
    block_in_place(|| ["a", "b"].map(|range| image.check(&site.inside(range)).unwrap()));
}

/// The folder of a volume of a seed, as this machine sees it.
fn volume(site: &Site, seed: &SeedStatus, which: &str) -> PathBuf {
    let volume = format!("{}-{which}", site.container(seed.name.as_str()));
    PathBuf::from(
        site.docker.must(&format!("volume inspect --format {{{{.Mountpoint}}}} {volume}")),
    )
}

/// Damage to a file.
type Harm<'a> = &'a (dyn Fn(&Path) + Sync);

/// A file of a layer.
fn noise_in(folder: &Path) -> PathBuf {
    let mut folders = vec![folder.join("overlay2")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false if entry.file_name() == "noise-1" => return entry.path(),
                false => {}
            }
        }
    }
    panic!("no layer of the image in {}", folder.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_a_damaged_seed_is_never_used() {
    let store = StoreKind::Graphdriver;
    let mut site = Site::start().await;
    let image = Own::new(&site, "damaged");
    let images = [image.reference.as_str()];
    site.set(|settings| settings.seeds = SeedUse::Always).await;
    let (report, _) = up(&site, store, &["first"], &images).await;
    assert_eq!(provisions(&report), [Provision::Cloned]);
    let flip = |file: &Path| {
        let file = File::options().write(true).open(file).unwrap();
        let before = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"rot", 100_000).unwrap();
        file.set_modified(before).unwrap();
    };
    let cut = |file: &Path| File::options().write(true).open(file).unwrap().set_len(5).unwrap();
    let remove = |file: &Path| fs::remove_file(file).unwrap();
    let damages: [(&str, &str, Harm<'_>, &str); 4] = [
        ("flipped", "data", &flip, "was changed"),
        ("truncated", "data", &cut, "was changed"),
        ("removed", "data", &remove, "was changed"),
        ("unsealed", "agent", &remove, "never sealed"),
    ];
    for (word, which, harm, reason) in damages {
        let seed = only_seed(&site).await;
        block_in_place(|| {
            let folder = volume(&site, &seed, which);
            let file = if which == "data" { noise_in(&folder) } else { folder.join("seal") };
            harm(&file);
        });
        let (report, notes) = up(&site, store, &[word], &images).await;
        assert!(notes.iter().any(|note| note.contains(reason)), "{word}: {notes:?}");
        assert_eq!(provisions(&report), [Provision::Cloned], "{word}: from a new one");
        assert_ne!(only_seed(&site).await.name, seed.name, "{word}");
        block_in_place(|| image.check(&site.inside(word))).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_seeds_are_kept_within_their_limit_and_half_a_copy_is_made_anew() {
    let store = StoreKind::Graphdriver;
    let mut site = Site::start().await;
    let (one, two) = (Own::new(&site, "one"), Own::new(&site, "two"));
    site.set(|settings| settings.seeds = SeedUse::Always).await;
    up(&site, store, &["a"], &[&one.reference]).await;
    let first = only_seed(&site).await;
    // There is room for one and a half.
    let limit = first.card.unwrap().bytes * 3 / 2;
    site.set(|settings| settings.seed_limit = limit).await;
    up(&site, store, &["b"], &[&two.reference]).await;
    assert_ne!(only_seed(&site).await.name, first.name, "the older one went");
    let (report, notes) = up(&site, store, &["c"], &[&one.reference]).await;
    assert_eq!((provisions(&report), notes), (vec![Provision::Cloned], Vec::new()));
    // There is no seed of these, and they are larger than seeds may be: they are brought in plainly.
    site.set(|settings| settings.seed_limit = 1).await;
    let (report, _) = up(&site, store, &["d"], &[&two.reference]).await;
    assert_eq!(provisions(&report), [Provision::Made]);
    assert_eq!(site.ranges.seeds().await.unwrap(), []);

    // As a command leaves it that is killed while it copies: a volume with something in it, and the
    // sign that it is half made.
    let container = site.container("half");
    block_in_place(|| {
        let labels = site.labels("half").map(|label| format!("--label {label}")).join(" ");
        for volume in [format!("{container}.half"), format!("{container}-data")] {
            site.docker.must(&format!("volume create {labels} {volume}"));
        }
        let format = "volume inspect --format {{.Mountpoint}}";
        let folder = PathBuf::from(site.docker.must(&format!("{format} {container}-data")));
        fs::create_dir_all(folder.join("overlay2/rubbish")).unwrap();
    });
    site.set(|settings| settings.seed_limit = range::SEED_LIMIT).await;
    let (report, _) = up(&site, store, &["half"], &[&one.reference]).await;
    assert_eq!(provisions(&report), [Provision::Cloned]);
    block_in_place(|| {
        one.check(&site.inside("half")).unwrap();
        let listed =
            site.inside("half").command_around(&["ls", "/var/lib/docker/overlay2"]).unwrap();
        assert!(!listed.contains("rubbish"), "{listed}");
    });
}
