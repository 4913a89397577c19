//! What survives: kills, rot, a second process, a full or read-only disk.

use std::collections::HashSet;
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tempfile::TempDir;

use super::*;
use crate::MAX_FRAME;
use crate::fixture::{bytes, contract, descriptor_of, drain, keep};

async fn store() -> (FsStore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (FsStore::open(folder.path().join("store")).await.unwrap(), folder)
}

fn files_in(path: &Path) -> usize {
    path.read_dir().unwrap().count()
}

#[tokio::test]
async fn a_folder_is_a_store() {
    let (store, _folder) = store().await;
    contract::store(&store).await;
    assert_eq!(files_in(&store.0.ingest()), 0, "an ingest left its file");
    assert_eq!(store.quarantined(), 0);
    assert_eq!(store.root().metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn blobs_are_there_when_the_store_is_opened_again() {
    let (store, _folder) = store().await;
    let root = store.root().to_owned();
    let layer = keep(&store, b"layer").await;
    let mut ingest = store.ingest().await.unwrap();
    ingest.write(Bytes::from_static(b"half a la")).await.unwrap();
    // A killed process runs no destructor.
    std::mem::forget(ingest);
    assert_eq!(files_in(&store.0.ingest()), 1);
    drop(store);
    std::fs::write(root.join("blobs/sha256/not-a-digest"), "x").unwrap();

    // The forgotten ingest still holds the lock, which a dead process would not.
    std::fs::remove_file(root.join("lock")).unwrap();
    let store = FsStore::open(&root).await.unwrap();
    assert_eq!(store.list().await.unwrap(), [(layer.digest, 5)]);
    assert_eq!(files_in(&store.0.ingest()), 0);
}

#[tokio::test]
async fn two_processes_do_not_share_a_store() {
    let (store, _folder) = store().await;
    let root = store.root().to_owned();
    let error = FsStore::open(&root).await.unwrap_err();
    assert!(matches!(&error, StoreError::InUse { path, .. } if *path == root), "{error:?}");
    let holder = format!("in use by process {}", std::process::id());
    assert!(error.to_string().ends_with(&holder), "{error}");
    drop(store);
    FsStore::open(&root).await.unwrap();
}

#[tokio::test]
async fn rot_is_found_by_its_reader_and_taken_out_of_service() {
    for (name, spoil) in [
        ("a flipped bit", (|bytes| bytes[MAX_FRAME + 7] ^= 1) as fn(&mut Vec<u8>)),
        ("cut short", |bytes| bytes.truncate(MAX_FRAME)),
        ("empty", Vec::clear),
        ("longer", |bytes| bytes.push(0)),
    ] {
        let (store, _folder) = store().await;
        let layer = keep(&store, &bytes(1, 2 * MAX_FRAME)).await;
        let path = store.0.blob(&layer.digest);
        let mut content = std::fs::read(&path).unwrap();
        spoil(&mut content);
        std::fs::write(&path, content).unwrap();

        let (read, end) = drain(store.open(&layer.digest, 0).await.unwrap()).await;
        assert!(matches!(end, Err(BlobError::DigestMismatch { .. })), "{name}: {end:?}");
        assert!(read.len() <= MAX_FRAME * 2, "{name}: the last frame is held back");
        assert_eq!(store.stat(&layer.digest).await.unwrap(), None, "{name}");
        assert_eq!(store.list().await.unwrap(), [], "{name}");
        assert_eq!(store.quarantined(), 1, "{name}");
        assert_eq!(files_in(&store.0.quarantine()), 1, "{name}");

        keep(&store, &bytes(1, 2 * MAX_FRAME)).await;
        drain(store.open(&layer.digest, 0).await.unwrap()).await.1.expect(name);
    }
}

#[tokio::test]
async fn a_good_blob_that_replaced_a_rotten_one_stays() {
    let (store, _folder) = store().await;
    let layer = keep(&store, &bytes(1, 3)).await;
    std::fs::write(store.0.blob(&layer.digest), "rot").unwrap();
    let rotten = store.open(&layer.digest, 0).await.unwrap();
    keep(&store, &bytes(1, 3)).await;
    drain(rotten).await.1.unwrap_err();
    assert_eq!(store.quarantined(), 0);
    drain(store.open(&layer.digest, 0).await.unwrap()).await.1.unwrap();
}

#[tokio::test]
async fn a_check_reads_everything_and_says_what_rotted() {
    let (store, _folder) = store().await;
    let good = keep(&store, b"good").await;
    let bad = keep(&store, b"bad").await;
    std::fs::write(store.0.blob(&bad.digest), "sad").unwrap();
    let report = store.check().await.unwrap();
    let expected =
        CheckReport { good: 1, bytes: 4, quarantined: vec![bad.digest], ..report.clone() };
    assert_eq!(report, expected);
    assert_eq!(report.unreadable, []);
    assert_eq!(store.list().await.unwrap(), [(good.digest, 4)]);
}

#[tokio::test]
async fn a_leased_blob_is_not_removed() {
    let (store, _folder) = store().await;
    let layer = keep(&store, b"layer").await;
    let lease = store.leases().hold("test", [layer.digest]);
    store.remove(&layer.digest).await.unwrap();
    assert_eq!(store.stat(&layer.digest).await.unwrap(), Some(5));
    drop(lease);
    store.remove(&layer.digest).await.unwrap();
    assert_eq!(store.stat(&layer.digest).await.unwrap(), None);
}

#[tokio::test]
async fn a_disk_that_refuses_is_named_and_does_not_end_the_store() {
    let (store, _folder) = store().await;
    let mut ingest = store.ingest().await.unwrap();
    ingest.write(Bytes::from_static(b"layer")).await.unwrap();
    // Stands for a disk that refuses the rename, since root is refused nothing.
    let away = store.root().join("away");
    std::fs::rename(store.0.blobs(), &away).unwrap();
    match ingest.commit(&descriptor_of(b"layer")).await {
        Err(BlobError::Storage { path, digest, .. }) => {
            assert!(path.contains("blobs/sha256"), "{path}");
            assert_eq!(digest, descriptor_of(b"layer").digest);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(files_in(&store.0.ingest()), 0);
    std::fs::rename(&away, store.0.blobs()).unwrap();
    keep(&store, b"layer").await;

    std::fs::remove_dir(store.0.ingest()).unwrap();
    let error = store.ingest().await.map(drop).unwrap_err();
    assert!(matches!(&error, BlobError::Storage { path, .. } if path.ends_with("ingest")));
    FsStore::open(store.root().join("lock")).await.map(drop).unwrap_err();
}

#[tokio::test]
async fn many_who_read_one_blob_share_what_one_of_them_read() {
    let (store, _folder) = store().await;
    let blob = bytes(1, 2 * MAX_FRAME + 100);
    let digest = keep(&store, &blob).await.digest;
    let many = std::thread::available_parallelism().map_or(1, NonZero::get).max(2);
    let mut streams = Vec::new();
    for _ in 0..=many {
        streams.push(store.open(&digest, 0).await.unwrap());
    }
    let mut shared = vec![BytesMut::new(); streams.len()];
    for _ in 0..3 {
        let mut places = HashSet::new();
        for (stream, seen) in streams.iter_mut().zip(&mut shared) {
            let frame = stream.next().await.unwrap().unwrap();
            places.insert(frame.as_ptr());
            seen.extend_from_slice(&frame);
        }
        assert_eq!(places.len(), 1, "each read for itself");
    }
    for (stream, seen) in streams.iter_mut().zip(&shared) {
        assert!(stream.next().await.is_none());
        assert_eq!(seen, &blob);
    }
    drop(streams);
    let out = store.0.pool.out();
    assert_eq!(out, 0, "nobody reads, and {out} bytes are still held");
}
