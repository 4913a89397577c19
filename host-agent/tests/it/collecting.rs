//! The store is tidied beneath its readers, and nobody misses anything.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use control::Caller;
use control::admin::Pruning;
use control::transfers::TransferKind;
use engine::fixture::FakeDocker;
use futures::TryStreamExt as _;
use futures::future::try_join_all;
use process::shutdown::Shutdown;
use proto::AdminClient;
use transfer::{
    BlobSource as _, Image, ImageSource as _, LayerForm, OpenImage, StoreKind, fixture,
};

use crate::host::{HostAgent, app, config, engine, folder, read_all, size};

/// Readers, and the ranges that they are spread over.
const READERS: usize = 100;
const RANGES: usize = 10;

/// Images that they read, one after the other, each so often.
const IMAGES: usize = 5;
const ROUNDS: usize = 3;

/// So short that the lease on an image runs out before it is its turn again, or else nothing would
/// ever be collected; and still far longer than an image takes where many tests share a core.
const LEASE: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(500);

/// Removes all that may be removed, again and again; how many blobs that were.
async fn prune_until(admin: AdminClient, done: Arc<AtomicBool>) -> u64 {
    let mut removed = 0;
    while !done.load(Ordering::Relaxed) {
        removed += admin.prune(Pruning::default()).await.unwrap().blobs;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    removed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_readers_miss_nothing_while_the_store_is_collected() {
    let (docker, folder) = (FakeDocker::start(StoreKind::Graphdriver), folder());
    let images: Vec<Image> = (0..IMAGES as u64)
        .map(|seed| {
            let (image, blobs) = fixture::image(10 + seed, &[100, 30_000]);
            docker.add(&image, &blobs, &format!("app:{seed}").parse().unwrap());
            image
        })
        .collect();
    let mut config = config(folder.path(), &docker.address());
    config.lease = LEASE;
    let agent = HostAgent::start_with(config);
    let mut hosts = Vec::new();
    for range in 0..RANGES {
        hosts.push(agent.range(&format!("lab-{range}")).await);
    }
    let done = Arc::new(AtomicBool::new(false));
    let pruning = tokio::spawn(prune_until(agent.admin(), done.clone()));
    let readers = (0..READERS).map(|reader| {
        let (host, images) = (hosts[reader % RANGES].clone(), images.clone());
        async move {
            for round in 0..ROUNDS * IMAGES {
                let image = &images[round % IMAGES];
                let read = read_all(&host, image).await;
                let read =
                    read.map_err(|error| format!("reader {reader}, round {round}: {error:#}"));
                assert_eq!(read?, size(image));
                tokio::time::sleep(PAUSE).await;
            }
            Ok::<(), String>(())
        }
    });
    let read = try_join_all(readers).await;
    done.store(true, Ordering::Relaxed);
    let removed = pruning.await.unwrap();
    read.unwrap();
    let stats = agent.admin().stats().await.unwrap();
    assert_eq!(stats.store.collected_blobs, removed);
    assert!(IMAGES as u64 * 2 < removed, "only {removed} blobs were removed: there was no race");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_under_way_is_shown_and_stays() {
    let (docker, folder) = (FakeDocker::start(StoreKind::Graphdriver), folder());
    // More than fits into what may be under way to a reader that does not read.
    let (image, blobs) = fixture::image(1, &[10, 24 << 20]);
    docker.add(&image, &blobs, &app());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let admin = agent.admin();
    let host = agent.range("lab-1").await;
    let key = image.config_digest.into();
    let OpenImage { image: given, blobs } = host.open(&key, LayerForm::AsStored).await.unwrap();
    let largest = given.layers.iter().max_by_key(|layer| layer.blob.size).unwrap();
    let mut stream = blobs.open(&largest.blob.digest, 0).await.unwrap();
    let first = stream.try_next().await.unwrap().unwrap();

    let moving = admin.transfers().await.unwrap();
    let [transfer] = moving.as_slice() else { panic!("{moving:?}") };
    let reader = Caller::Range("lab-1".parse().unwrap());
    assert!(transfer.kind.is_read_of(&reader), "{transfer:?}");
    let TransferKind::Read { digest, size, offset, .. } = transfer.kind else { panic!() };
    assert_eq!((digest, size), (largest.blob.digest, largest.blob.size));
    assert!(first.len() as u64 <= offset && offset == transfer.bytes, "{transfer:?}");

    let pruned = admin.prune(Pruning::default()).await.unwrap();
    let stored = admin.stats().await.unwrap().store.blobs;
    assert_eq!((pruned.blobs, pruned.kept_leased), (0, stored));
    assert!(given.layers.len() as u64 <= stored);
    let rest: Vec<_> = stream.try_collect().await.unwrap();
    let rest: usize = rest.iter().map(bytes::Bytes::len).sum();
    assert_eq!((first.len() + rest) as u64, largest.blob.size);
    let mut moving = admin.transfers().await.unwrap();
    for _ in 0..100 {
        if moving.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        moving = admin.transfers().await.unwrap();
    }
    assert_eq!(moving, [], "a stream that has ended is still shown");

    // With the range go its leases.
    admin.remove_range(&"lab-1".parse().unwrap()).await.unwrap();
    let dry = admin.prune(Pruning { target: None, dry_run: true }).await.unwrap();
    assert_eq!(dry.blobs, stored);
    let stats = admin.stats().await.unwrap().store;
    assert_eq!((stats.blobs, stats.bytes), (dry.blobs, dry.bytes));
    assert!(0 < stats.free && stats.low_water < stats.high_water, "{stats:?}");
    assert_eq!(admin.prune(Pruning::default()).await.unwrap(), dry);
    assert_eq!(admin.stats().await.unwrap().store.blobs, 0);
    let host = agent.range("lab-2").await;
    assert_eq!(read_all(&host, &image).await.unwrap(), crate::host::size(&image));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_says_what_to_do() {
    let ((docker, _image), folder) = (engine(), folder());
    fs::write(folder.path().join("store"), "a file in the folder's place").unwrap();
    let config = config(folder.path(), &docker.address());
    let error = host_agent::serve(config.clone(), Shutdown::default()).await.unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("--state-dir") && error.contains("store"), "{error}");

    fs::remove_file(folder.path().join("store")).unwrap();
    let first = HostAgent::start_with(config.clone());
    first.admin().stats().await.unwrap();
    let error = host_agent::serve(config, Shutdown::default()).await.unwrap_err();
    let error = format!("{error:#}");
    let holder = format!("process {}", std::process::id());
    assert!(error.contains(&holder) && error.contains("--state-dir"), "{error}");
    first.stop().await.unwrap();
}
