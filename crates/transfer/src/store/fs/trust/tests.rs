//! When a blob is hashed, and how often.

use futures::StreamExt as _;
use futures::future::join_all;
use tempfile::TempDir;

use super::super::FsStore;
use super::*;
use crate::MAX_FRAME;
use crate::blob::BlobError;
use crate::blob::BlobSource as _;
use crate::blob::BlobStore as _;
use crate::fixture::{bytes, descriptor_of, drain, frames, keep};

async fn store() -> (FsStore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (FsStore::open(folder.path().join("store")).await.unwrap(), folder)
}

fn is_good(store: &FsStore, digest: &Digest) -> bool {
    store.0.trust.table().known.get(digest).is_some_and(|known| known.good)
}

/// Spoils a blob as a disk does: nothing but the bytes shows it.
fn rot(store: &FsStore, digest: &Digest) {
    let path = store.0.blob(digest);
    let time = path.metadata().unwrap().modified().unwrap();
    let mut content = std::fs::read(&path).unwrap();
    content[0] ^= 1;
    std::fs::write(&path, content).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
}

async fn read(store: &FsStore, digest: &Digest) -> Result<(), BlobError> {
    drain(store.open(digest, 0).await?).await.1
}

#[tokio::test]
async fn what_was_taken_in_is_not_hashed_again() {
    let (store, _folder) = store().await;
    let digest = keep(&store, &bytes(1, 3 * MAX_FRAME)).await.digest;
    assert!(is_good(&store, &digest));
    rot(&store, &digest);
    for _ in 0..2 {
        read(&store, &digest).await.expect("nobody looks");
    }
    assert_eq!(store.quarantined(), 0);
}

#[tokio::test]
async fn what_a_reader_doubts_is_hashed_before_its_next_reader_has_the_end() {
    let (store, _folder) = store().await;
    let digest = keep(&store, &bytes(1, 3 * MAX_FRAME)).await.digest;
    store.doubt(&digest);
    assert!(!is_good(&store, &digest));
    read(&store, &digest).await.unwrap();
    assert!(is_good(&store, &digest), "it was right, and need not be hashed again");

    rot(&store, &digest);
    store.doubt(&digest);
    let (bytes, end) = drain(store.open(&digest, 0).await.unwrap()).await;
    assert!(matches!(end, Err(BlobError::DigestMismatch { .. })), "{end:?}");
    assert_eq!(bytes.len(), 2 * MAX_FRAME, "the last frame is held back");
    assert_eq!((store.quarantined(), store.stat(&digest).await.unwrap()), (1, None));
    store.doubt(&digest);
    let error = read(&store, &digest).await.unwrap_err();
    assert!(matches!(error, BlobError::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn a_file_that_another_wrote_is_hashed() {
    type Spoil = fn(&std::path::Path, Vec<u8>);
    let spoil: [(&str, Spoil); 3] = [
        ("written in place", |path, content| std::fs::write(path, content).unwrap()),
        ("put in its place", |path, content| {
            let other = path.with_extension("other");
            std::fs::write(&other, content).unwrap();
            let time = path.metadata().unwrap().modified().unwrap();
            File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
            std::fs::rename(other, path).unwrap();
        }),
        ("its time changed", |path, content| {
            std::fs::write(path, content).unwrap();
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }),
    ];
    for (what, spoil) in spoil {
        let (store, _folder) = store().await;
        let digest = keep(&store, &bytes(1, MAX_FRAME + 1)).await.digest;
        read(&store, &digest).await.unwrap();
        spoil(&store.0.blob(&digest), bytes(2, MAX_FRAME + 1).to_vec());
        let error = read(&store, &digest).await.expect_err(what);
        assert!(matches!(error, BlobError::DigestMismatch { .. }), "{what}: {error:?}");
        assert_eq!(store.quarantined(), 1, "{what}");
    }
}

#[tokio::test]
async fn a_store_that_is_opened_again_hashes_each_blob_once() {
    let (store, _folder) = store().await;
    let root = store.root().to_owned();
    let good = keep(&store, &bytes(1, MAX_FRAME)).await.digest;
    let bad = keep(&store, &bytes(2, MAX_FRAME)).await.digest;
    rot(&store, &bad);
    drop(store);
    let store = FsStore::open(root).await.unwrap();
    assert!(!is_good(&store, &good));
    read(&store, &good).await.unwrap();
    assert!(is_good(&store, &good));
    read(&store, &bad).await.unwrap_err();
    assert_eq!(store.quarantined(), 1);
}

#[tokio::test]
async fn many_who_read_at_once_share_one_hash_and_its_verdict() {
    for rotten in [false, true] {
        let (store, _folder) = store().await;
        let blob = bytes(1, 4 * MAX_FRAME);
        let digest = keep(&store, &blob).await.digest;
        if rotten {
            rot(&store, &digest);
        }
        store.doubt(&digest);
        let mut streams = Vec::new();
        for _ in 0..16 {
            streams.push(store.open(&digest, 0).await.unwrap());
        }
        // All are begun before any is at its end.
        let firsts = join_all(streams.iter_mut().map(|stream| stream.next())).await;
        firsts.into_iter().for_each(|first| assert_eq!(first.unwrap().unwrap().len(), MAX_FRAME));
        let rounds = store.0.trust.table().rounds;
        for (bytes, end) in join_all(streams.into_iter().map(drain)).await {
            assert_eq!(end.is_err(), rotten, "{end:?}");
            assert_eq!(bytes.len(), (if rotten { 2 } else { 3 }) * MAX_FRAME);
        }
        assert_eq!(store.quarantined(), u64::from(rotten));
        assert_eq!(is_good(&store, &digest), !rotten);
        assert_eq!(store.0.trust.table().rounds, rounds, "nobody had a reason of its own");
    }
}

#[tokio::test]
async fn a_doubt_while_it_is_hashed_has_it_hashed_again() {
    let (store, _folder) = store().await;
    let digest = keep(&store, &bytes(1, 3 * MAX_FRAME)).await.digest;
    store.doubt(&digest);
    let mut first = store.open(&digest, 0).await.unwrap();
    first.next().await.unwrap().unwrap();
    store.doubt(&digest);
    drain(first).await.1.unwrap();
    assert!(!is_good(&store, &digest));
    read(&store, &digest).await.unwrap();
    assert!(is_good(&store, &digest));
}

#[tokio::test]
async fn what_a_verified_stream_brought_is_kept_without_a_hash_and_read_at_once() {
    let (store, _folder) = store().await;
    let blob = bytes(1, 2 * MAX_FRAME + 1);
    let expected = descriptor_of(&blob);
    let mut ingest = store.ingest_verified(&expected).await.unwrap();
    for frame in frames(&blob, 1000) {
        ingest.write(frame).await.unwrap();
    }
    ingest.commit(&expected).await.unwrap();
    assert!(is_good(&store, &expected.digest));
    assert_eq!(drain(store.open(&expected.digest, 0).await.unwrap()).await.0, blob);

    let other = descriptor_of(b"other");
    let mut ingest = store.ingest_verified(&expected).await.unwrap();
    ingest.write(blob.slice(1..)).await.unwrap();
    let error = ingest.commit(&expected).await.unwrap_err();
    assert!(matches!(error, BlobError::SizeMismatch { .. }), "{error:?}");
    let mut ingest = store.ingest_verified(&other).await.unwrap();
    ingest.write(bytes::Bytes::from_static(b"other")).await.unwrap();
    let error = ingest.commit(&descriptor_of(b"third")).await.unwrap_err();
    assert!(matches!(error, BlobError::DigestMismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_not_here_any_more_is_forgotten() {
    let (store, _folder) = store().await;
    let [removed, collected] =
        [keep(&store, b"removed").await.digest, keep(&store, b"collected").await.digest];
    store.remove(&removed).await.unwrap();
    store.collect(super::super::Goal::default()).await.unwrap();
    assert_eq!(store.stat(&collected).await.unwrap(), None);
    assert!(store.0.trust.table().known.is_empty());
}
