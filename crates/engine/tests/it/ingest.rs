//! Images straight into containerd: as whole as by an archive, resumed, collected, and never into
//! another engine's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use engine::docker::LoadWay;
use engine::fixture::FakeDocker;
use engine::{Docker, DockerSink};
use tokio::io::{AsyncReadExt as _, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use transfer::fixture::{Faulty, image};
use transfer::store::MemoryStore;
use transfer::{
    BlobError, BlobSource, BlobStream, Digest, Image, ImageSink as _, LoadError, Missing, StoreKind,
};

use crate::content::published;
use crate::real::{CONTAINERD, Range};
use crate::sink::bring;
use crate::{before_and_after, image_of, name, opened, store_of};

/// Where an engine's own containerd listens, from the folder of the engine's socket.
const SOCKET: &str = "docker/containerd/containerd.sock";

/// A sink that loads by this way alone, with containerd in the usual place.
fn by(way: LoadWay, docker: &Docker) -> DockerSink {
    DockerSink::new(docker.clone()).with_way(way, None)
}

/// A sink that would rather go straight into the containerd at `socket`.
fn over(socket: impl Into<PathBuf>, way: LoadWay, docker: &Docker) -> DockerSink {
    DockerSink::new(docker.clone()).with_way(way, Some(socket.into()))
}

impl Range {
    /// What a command inside prints.
    async fn inside(&self, command: &[&str]) -> String {
        let ended = self.host.exec(&self.id, command, Duration::from_secs(60)).await.unwrap();
        let told = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
        assert_eq!(ended.exit_code, 0, "{command:?}: {told}");
        told
    }

    /// What `ctr` prints, asked in the engine's own namespace.
    async fn ctr(&self, words: &str) -> String {
        let address = format!("ctr --address /run/{SOCKET} --namespace moby {words}");
        self.inside(&address.split_whitespace().collect::<Vec<_>>()).await
    }

    /// Has containerd collect what nobody needs, and waits for it.
    async fn collect(&self) {
        self.ctr("leases create --id collect").await;
        self.ctr("leases delete --sync collect").await;
    }

    /// Everything that containerd holds for the engine, each with its labels, sizes left out.
    async fn holds(&self) -> BTreeMap<&'static str, Vec<String>> {
        let mut held = BTreeMap::new();
        for (kind, words, columns) in [
            ("images", "images list --quiet", 0..1),
            ("content", "content list --quiet", 0..1),
            ("snapshots", "snapshots list", 0..3),
            ("leases", "leases list --quiet", 0..1),
            ("ingests", "content active", 0..1),
        ] {
            let told = self.ctr(words).await;
            let lines =
                told.lines().filter(|line| !line.starts_with("KEY") && !line.starts_with("REF"));
            let cut = |line: &str| {
                let words: Vec<_> = line.split_whitespace().collect();
                words[columns.start..columns.end.min(words.len())].join(" ")
            };
            let mut lines: Vec<String> = lines.map(cut).filter(|line| !line.is_empty()).collect();
            lines.sort();
            held.insert(kind, lines);
        }
        held
    }
}

fn is_empty(held: &BTreeMap<&'static str, Vec<String>>) -> bool {
    held.values().all(Vec::is_empty)
}

/// A source that remembers where each blob was opened.
#[derive(Clone)]
struct Watched {
    source: Arc<dyn BlobSource>,
    opened: Arc<Mutex<Vec<(Digest, u64)>>>,
}

impl Watched {
    fn new(source: Arc<dyn BlobSource>) -> Self {
        Self { source, opened: Arc::default() }
    }

    fn opened(&self) -> Vec<(Digest, u64)> {
        self.opened.lock().unwrap().clone()
    }
}

#[async_trait]
impl BlobSource for Watched {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.source.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.opened.lock().unwrap().push((*digest, offset));
        self.source.open(digest, offset).await
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_containerd_holds_the_same_as_after_an_archive() {
    let range = Range::start(CONTAINERD).await;
    let made_up = image(1, &[100_000, 2_500_000, 10]);
    let original = published(7);
    let store = store_of(&made_up.1).await;
    for blob in &original.blobs {
        store.insert(blob.clone());
    }
    for (image, tag) in [(&made_up.0, "made-up:1"), (&original.image, "original:1")] {
        let mut seen = Vec::new();
        for way in [LoadWay::Archive, LoadWay::Containerd] {
            let sink = by(way, &range.docker);
            assert_eq!(sink.prove(image).await.unwrap(), None, "{way}");
            sink.load(&opened(image, &store), &Missing::all(image)).await.unwrap();
            let unnamed = range.holds().await;
            assert!(unnamed["images"][0].starts_with("moby-dangling@"), "{way}: {unnamed:?}");
            assert_eq!(unnamed["images"].len(), 1, "{way}: {unnamed:?}");
            let proof = sink.prove(image).await.unwrap().expect("a good load is proven");
            assert_eq!(proof.references, []);
            sink.tag(&proof, &name(tag)).await.unwrap();
            range.collect().await;
            let proof = sink.prove(image).await.unwrap().expect("nothing needed was collected");
            assert_eq!(proof.references, [name(tag)], "{way}");
            assert_eq!(sink.missing(image).await.unwrap().0, vec![false; image.layers.len()]);
            seen.push((proof, range.holds().await));
            range.docker.remove_image(&name(tag)).await.unwrap();
            range.collect().await;
            let left = range.holds().await;
            assert!(is_empty(&left), "{way}: after rmi: {left:?}");
        }
        assert_eq!(seen[0], seen[1], "{tag}");
    }
    range.remove().await;
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_an_ingested_image_without_a_name_is_discarded_and_pruned() {
    let range = Range::start(CONTAINERD).await;
    let sink = by(LoadWay::Containerd, &range.docker);
    let (image, blobs) = image(3, &[50_000, 70_000]);
    let store = store_of(&blobs).await;
    let load = async || {
        sink.load(&opened(&image, &store), &Missing::all(&image)).await.unwrap();
        assert!(sink.prove(&image).await.unwrap().is_some());
    };
    load().await;
    sink.discard(&image).await.unwrap();
    range.collect().await;
    assert!(is_empty(&range.holds().await), "after discard: {:?}", range.holds().await);
    load().await;
    range.inside(&["docker", "image", "prune", "--force"]).await;
    range.collect().await;
    assert!(is_empty(&range.holds().await), "after prune: {:?}", range.holds().await);
    load().await;
    let proof = sink.prove(&image).await.unwrap().unwrap();
    sink.tag(&proof, &name("app:1")).await.unwrap();
    range.inside(&["docker", "image", "prune", "--all", "--force"]).await;
    range.collect().await;
    assert!(is_empty(&range.holds().await), "after prune --all: {:?}", range.holds().await);
    range.remove().await;
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_a_lost_agent_is_followed_in_mid_blob() {
    let range = Range::start(CONTAINERD).await;
    let (image, blobs) = image(4, &[20 << 20, 1000]);
    let store = store_of(&blobs).await;
    let (large, missing) = (image.layers[0].blob.digest, Missing::all(&image));
    // Dropped as a killed process drops it, when a part has come.
    let slow = Faulty::slow(store.clone(), Duration::from_millis(150));
    let sink = by(LoadWay::Containerd, &range.docker);
    let slow = opened(&image, &slow);
    let cut = tokio::time::timeout(Duration::from_secs(2), sink.load(&slow, &missing));
    assert!(cut.await.is_err(), "the load was to be cut off in the middle");
    drop(sink);
    let held = range.holds().await;
    assert_eq!((held["ingests"].len(), held["leases"].len()), (1, 1), "{held:?}");
    range.collect().await;

    let sink = by(LoadWay::Containerd, &range.docker);
    let source = Watched::new(Arc::new(store.clone()));
    assert!(bring(&sink, &image, &source, "app:1").await.0[0]);
    let opened = source.opened();
    let offset = opened.iter().find(|(digest, _)| *digest == large).unwrap().1;
    assert!((1 << 20..20 << 20).contains(&offset), "{opened:?}");
    assert_eq!(opened.iter().filter(|(digest, _)| *digest == large).count(), 1, "{opened:?}");
    let held = range.holds().await;
    assert_eq!((held["ingests"].len(), held["leases"].len()), (0, 0), "{held:?}");
    range.remove().await;
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_a_corrupt_blob_is_never_committed() {
    let range = Range::start(CONTAINERD).await;
    let (image, blobs) = image(5, &[5 << 20]);
    let store = store_of(&blobs).await;
    let missing = Missing::all(&image);
    let sink = by(LoadWay::Containerd, &range.docker);
    // Not even when nobody but containerd looks.
    let corrupt = Faulty::corrupt_at(store.clone(), 1 << 20);
    let refused = sink.load(&opened(&image, &corrupt), &missing).await;
    assert!(matches!(refused, Err(LoadError::Refused { .. })), "{refused:?}");
    assert_eq!(sink.missing(&image).await.unwrap(), missing);
    let held = range.holds().await;
    assert!(held["ingests"].is_empty() && held["images"].is_empty(), "{held:?}");

    // A corrupt beginning that an earlier process left costs that beginning, and nothing else.
    let cut_off = Faulty::cut_off_at(Faulty::corrupt_at(store.clone(), 100), 4 << 20);
    let broken = sink.load(&opened(&image, &cut_off), &missing).await;
    assert!(matches!(broken, Err(LoadError::Source(BlobError::Unavailable { .. }))), "{broken:?}");
    let source = Watched::new(Arc::new(store.clone()));
    bring(&sink, &image, &source, "app:1").await;
    let offsets: Vec<u64> = source.opened().iter().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets.len(), 2, "{offsets:?}");
    assert!(0 < offsets[0] && offsets[1] == 0, "{offsets:?}");
    range.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_a_layer_of_several_images_is_ingested_once() {
    let range = Range::start(CONTAINERD).await;
    let (base, mut all) = image(6, &[8 << 20, 100]);
    let mut images = vec![base.clone()];
    for seed in 7..10 {
        let (top, blobs) = image(seed, &[3 << 20]);
        all.extend(blobs);
        images.push(image_of(&[&base.layers[..], &top.layers[..]].concat()));
    }
    let source = Watched::new(Arc::new(store_of(&all).await));
    let sink = by(LoadWay::Containerd, &range.docker);
    let loads = images.iter().map(async |image: &Image| {
        sink.load(&opened(image, &source), &Missing::all(image)).await.unwrap();
        assert!(sink.prove(image).await.unwrap().is_some());
    });
    futures::future::join_all(loads).await;
    assert_eq!(source.opened().len(), all.len(), "{:?}", source.opened());
    let held = range.holds().await;
    assert_eq!((held["snapshots"].len(), held["leases"].len()), (5, 0), "{held:?}");
    range.remove().await;
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_another_engines_containerd_is_left_alone() {
    let (range, stranger) = (Range::start(CONTAINERD).await, Range::start(CONTAINERD).await);
    let socket = stranger.folder.path().join(SOCKET);
    let (image, blobs) = image(8, &[10_000]);
    let store = store_of(&blobs).await;
    let forced = over(&socket, LoadWay::Containerd, &range.docker);
    let refused = forced.load(&opened(&image, &store), &Missing::all(&image)).await;
    let Err(LoadError::Refused { message }) = refused else { panic!("{refused:?}") };
    assert!(message.contains("another engine's"), "{message}");
    let free = over(&socket, LoadWay::Auto, &range.docker);
    bring(&free, &image, &store, "app:1").await;
    stranger.collect().await;
    assert!(is_empty(&stranger.holds().await), "{:?}", stranger.holds().await);
    assert_eq!(range.holds().await["images"], ["docker.io/library/app:1"]);
    range.remove().await;
    stranger.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_an_ingest_that_breaks_off_is_followed_by_an_archive() {
    let range = Range::start(CONTAINERD).await;
    let folder = tempfile::tempdir().unwrap();
    let (front, back) = (folder.path().join("front.sock"), range.folder.path().join(SOCKET));
    // Enough for documents, not for a layer.
    let proxy = tokio::spawn(breaks_off(front.clone(), back, 2 << 20));
    while !front.exists() {
        tokio::task::yield_now().await;
    }
    let (image, blobs) = image(9, &[9 << 20]);
    let store = store_of(&blobs).await;
    let missing = Missing::all(&image);
    let forced = over(&front, LoadWay::Containerd, &range.docker);
    let broken = forced.load(&opened(&image, &store), &missing).await;
    assert!(matches!(broken, Err(LoadError::Unavailable { .. })), "{broken:?}");
    let free = over(&front, LoadWay::Auto, &range.docker);
    bring(&free, &image, &store, "app:1").await;
    proxy.abort();
    range.remove().await;
}

/// Passes each connection on until so many bytes went in.
async fn breaks_off(front: PathBuf, back: PathBuf, limit: u64) {
    let listener = UnixListener::bind(front).unwrap();
    loop {
        let (near, _) = listener.accept().await.unwrap();
        let back = back.clone();
        tokio::spawn(async move {
            let mut far = UnixStream::connect(back).await.unwrap();
            let (reader, writer) = near.into_split();
            let mut near = tokio::io::join(reader.take(limit), writer);
            // Its end is what is tested.
            drop(copy_bidirectional(&mut near, &mut far).await);
        });
    }
}

#[tokio::test]
async fn without_a_containerd_images_go_in_by_an_archive() {
    for kind in [StoreKind::Graphdriver, StoreKind::Containerd] {
        let folder = tempfile::tempdir().unwrap();
        let deaf = folder.path().join("deaf.sock");
        let listener = UnixListener::bind(&deaf).unwrap();
        let hang_up = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        for socket in [folder.path().join("none.sock"), deaf] {
            let docker = FakeDocker::start(kind);
            let (image, _, blobs) = before_and_after();
            let store: MemoryStore = store_of(&blobs).await;
            let engine = docker.connect().await;
            let forced = over(&socket, LoadWay::Containerd, &engine);
            let refused = forced.load(&opened(&image, &store), &Missing::all(&image)).await;
            match (kind, refused) {
                (StoreKind::Graphdriver, Err(LoadError::Refused { message })) => {
                    assert!(message.contains("without containerd"), "{message}");
                }
                (StoreKind::Containerd, Err(LoadError::Unavailable { source, .. })) => {
                    assert!(source.to_string().contains("--containerd-socket"), "{source}");
                }
                (_, refused) => panic!("{kind}: {refused:?}"),
            }
            bring(&over(&socket, LoadWay::Auto, &engine), &image, &store, "app:1").await;
            assert!(docker.named(&name("app:1")).is_some());
        }
        hang_up.abort();
    }
}
