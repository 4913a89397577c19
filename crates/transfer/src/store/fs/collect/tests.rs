//! What goes, what stays, and in which order.

use std::fs::File;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::blob::{BlobError, BlobSource as _, BlobStore as _};
use crate::fixture::{bytes, descriptor_of, drain, keep};

const HOUR: Duration = Duration::from_secs(3600);

async fn store() -> (FsStore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (FsStore::open(folder.path().join("store")).await.unwrap(), folder)
}

/// Four blobs of ten bytes, the first read longest ago.
async fn four(store: &FsStore) -> Vec<Digest> {
    let mut digests = Vec::new();
    for (n, age) in [4, 3, 2, 1].into_iter().enumerate() {
        let digest = keep(store, &bytes(n as u64, 10)).await.digest;
        let file = File::open(store.0.blob(&digest)).unwrap();
        file.set_modified(SystemTime::now() - age * HOUR).unwrap();
        digests.push(digest);
    }
    digests
}

async fn left(store: &FsStore, all: &[Digest]) -> Vec<usize> {
    let listed = store.list().await.unwrap();
    let there = |digest: &Digest| listed.iter().any(|(listed, _)| listed == digest);
    (0..all.len()).filter(|n| there(&all[*n])).collect()
}

fn to(target: u64) -> Goal {
    Goal { target, ..Goal::default() }
}

#[tokio::test]
async fn the_least_recently_read_go_first_and_no_more_than_need_be() {
    let cases: [(u64, &[usize]); 6] = [
        (u64::MAX, &[0, 1, 2, 3]),
        (40, &[0, 1, 2, 3]),
        (39, &[1, 2, 3]),
        (20, &[2, 3]),
        (1, &[]),
        (0, &[]),
    ];
    for (target, expected) in cases {
        let (store, _folder) = store().await;
        let all = four(&store).await;
        let dry = store.collect(Goal { dry_run: true, ..to(target) }).await.unwrap();
        assert_eq!(left(&store, &all).await, [0, 1, 2, 3], "{target}: a dry run removed");
        let collected = store.collect(to(target)).await.unwrap();
        assert_eq!(left(&store, &all).await, expected, "{target}");
        assert_eq!(collected, dry, "{target}");
        assert_eq!(collected.bytes, 10 * collected.blobs, "{target}");
        assert_eq!(store.collected(), collected, "{target}");
        let usage = Usage { blobs: expected.len() as u64, bytes: 10 * expected.len() as u64 };
        assert_eq!(store.usage().await.unwrap(), usage);
    }
}

#[tokio::test]
async fn a_read_makes_a_blob_the_last_to_go() {
    let (store, _folder) = store().await;
    let all = four(&store).await;
    drain(store.open(&all[0], 3).await.unwrap()).await.1.unwrap();
    store.check().await.unwrap();
    store.collect(to(20)).await.unwrap();
    assert_eq!(left(&store, &all).await, [0, 3], "and a check of all of them is no read");
}

#[tokio::test]
async fn what_is_leased_or_was_just_taken_in_stays() {
    let (store, _folder) = store().await;
    let all = four(&store).await;
    let lease = store.leases().hold("test", [all[0], all[2]]);
    let collected = store.collect(to(0)).await.unwrap();
    assert_eq!(collected, Collected { blobs: 2, bytes: 20, kept_leased: 2 });
    assert_eq!(left(&store, &all).await, [0, 2]);
    drop(lease);
    let arriving = store.leases().hold_arrivals();
    let new = keep(&store, b"new").await.digest;
    drain(store.open(&all[0], 0).await.unwrap()).await.1.unwrap();
    assert_eq!(store.collect(to(0)).await.unwrap().kept_leased, 2);
    assert_eq!(left(&store, &all).await, [0], "what was read a moment ago is as new");
    assert_eq!(store.stat(&new).await.unwrap(), Some(3));
    drop(arriving);
    assert_eq!(store.collect(to(0)).await.unwrap().blobs, 2);
}

#[tokio::test]
async fn who_reads_a_blob_that_is_removed_reads_it_to_its_end() {
    let (store, _folder) = store().await;
    let layer = bytes(9, 3 << 20);
    let digest = keep(&store, &layer).await.digest;
    let stream = store.open(&digest, 0).await.unwrap();
    assert_eq!(store.collect(to(0)).await.unwrap().blobs, 1);
    let (read, end) = drain(stream).await;
    end.unwrap();
    assert_eq!(read, layer);
    assert!(matches!(store.open(&digest, 0).await, Err(BlobError::NotFound { .. })));
}

#[test]
fn a_policy_says_when_and_down_to_where() {
    let water = |high, low| Policy { water: Some((high, low)), reserve: Mark::Bytes(0) };
    let (high, low) = (Mark::Percent(80), Mark::Bytes(300));
    let space = Space { size: 1000, free: 200 };
    let cases = [
        (water(high, low), 800, None),
        (water(high, low), 801, Some(300)),
        // Low water above high water is high water.
        (water(Mark::Bytes(100), low), 101, Some(100)),
        (Policy { water: None, reserve: Mark::Bytes(0) }, u64::MAX, None),
        (Policy { water: None, reserve: Mark::Percent(5) }, 900, None),
        (Policy { water: None, reserve: Mark::Bytes(u64::MAX) }, 900, None),
    ];
    for (policy, stored, target) in cases {
        assert_eq!(policy.target(stored, space), target, "{policy:?} with {stored}");
    }
    let tight = Space { size: 1000, free: 40 };
    for (reserve, stored, target) in [
        (Mark::Percent(5), 900, Some(890)),
        (Mark::Percent(5), 3, Some(0)),
        (Mark::Percent(5), 0, None),
        // Never more than a tenth.
        (Mark::Bytes(u64::MAX), 900, Some(840)),
    ] {
        let policy = Policy { water: None, reserve };
        assert_eq!(policy.target(stored, tight), target, "{policy:?} with {stored}");
        let both = Policy { water: Some((Mark::Bytes(1), Mark::Bytes(1))), reserve };
        assert_eq!(both.target(stored, tight), (1 < stored).then(|| target.unwrap_or(1).min(1)));
    }
}

#[tokio::test]
async fn a_store_that_is_looked_after_keeps_within_its_marks() {
    let (store, _folder) = store().await;
    let all = four(&store).await;
    let water = Some((Mark::Bytes(35), Mark::Bytes(20)));
    let policy = Policy { water, reserve: Mark::Bytes(0) };
    let (told, mut hears) = tokio::sync::mpsc::channel(1);
    let keeping = store.keep_within(policy, move |result| told.try_send(result).unwrap());
    let collected = tokio::select! {
        () = keeping => unreachable!("it goes on for ever"),
        collected = hears.recv() => collected.unwrap().unwrap(),
    };
    assert_eq!(collected.blobs, 2);
    assert_eq!(left(&store, &all).await, [2, 3]);
}

#[tokio::test]
async fn a_blob_for_which_there_is_no_room_is_refused_before_its_first_byte() {
    let (store, _folder) = store().await;
    let all = four(&store).await;
    let free = store.space().await.unwrap().free;
    let huge = crate::Descriptor { size: free + (1 << 40), ..descriptor_of(b"huge") };
    match store.ingest_of(&huge).await.map(drop) {
        Err(BlobError::NoSpace { need, path, .. }) => {
            assert_eq!(need, huge.size);
            assert!(path.ends_with("store"), "{path}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(left(&store, &all).await, [0, 1, 2, 3], "what would not help was removed");
    assert_eq!(store.arrivals(), []);
    assert_eq!(store.0.make_room(41).unwrap(), Collected::default());
    assert_eq!(store.0.make_room(15).unwrap().blobs, 2);
    assert_eq!(left(&store, &all).await, [2, 3]);
}

#[tokio::test]
async fn what_is_coming_in_is_shown_and_has_its_room_kept() {
    let (store, _folder) = store().await;
    let layer = descriptor_of(b"layer");
    let mut known = store.ingest_of(&layer).await.unwrap();
    let unknown = store.ingest().await.unwrap();
    known.write(Bytes::from_static(b"lay")).await.unwrap();
    let shown: Vec<_> = store.arrivals().iter().map(|a| (a.serial, a.expected, a.bytes)).collect();
    assert_eq!(shown, [(1, Some((layer.digest, 5)), 3), (2, None, 0)]);
    drop(unknown);
    known.write(Bytes::from_static(b"er")).await.unwrap();
    known.commit(&layer).await.unwrap();
    assert_eq!(store.arrivals(), []);
}
