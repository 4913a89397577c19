//! Who is let in while room is scarce.

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::MAX_FRAME;
use crate::blob::BlobStore as _;
use crate::fixture::{bytes, descriptor_of};
use crate::store::{Mark, Policy};

async fn store() -> (FsStore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (FsStore::open(folder.path().join("store")).await.unwrap(), folder)
}

/// Another that comes in and for which all the room in the world is kept.
fn greedy(store: &FsStore) -> Ticket {
    store.0.arrivals.begin(Some((Digest::of(b"greedy"), u64::MAX)))
}

#[tokio::test]
async fn an_ingest_of_unknown_size_ends_where_the_room_does() {
    let (store, _folder) = store().await;
    let frame = bytes(1, MAX_FRAME);
    let mut ingest = store.ingest().await.unwrap();
    let other = greedy(&store);
    for _ in 0..STEP / MAX_FRAME as u64 {
        ingest.write(frame.clone()).await.unwrap();
    }
    for _again in 0..2 {
        match ingest.write(frame.clone()).await {
            Err(BlobError::NoSpace { digest, need, free, .. }) => {
                assert!(free < need, "{need} bytes of {free}");
                assert_eq!(digest, ingest.digest());
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ingest.size(), STEP, "what was refused is no part of the blob");
    let refused = store.ingest().await.map(drop);
    assert!(matches!(refused, Err(BlobError::NoSpace { .. })), "{refused:?}");
    drop(other);
    for _ in 0..2 * STEP / MAX_FRAME as u64 {
        ingest.write(frame.clone()).await.unwrap();
    }
}

#[tokio::test]
async fn more_bytes_than_were_announced_are_looked_at_too() {
    let (store, _folder) = store().await;
    let mut ingest = store.ingest_of(&descriptor_of(b"layer")).await.unwrap();
    let _other = greedy(&store);
    ingest.write(Bytes::from_static(b"layer")).await.unwrap();
    let refused = ingest.write(Bytes::from_static(b"s")).await;
    assert!(matches!(refused, Err(BlobError::NoSpace { .. })), "{refused:?}");
}

#[tokio::test]
async fn nothing_is_taken_in_that_does_not_leave_the_reserve() {
    let (store, _folder) = store().await;
    let space = store.space().await.unwrap();
    // The largest that there is. Half of it: others use this disk at the same time.
    let reserved = space.size / 10;
    let size = space.free.saturating_sub(reserved / 2);
    let layer = crate::Descriptor { size, ..descriptor_of(b"large") };
    store.ingest_of(&layer).await.map(drop).expect("nothing is reserved yet");
    let policy = Policy { water: None, reserve: Mark::Percent(100) };
    let keeping = store.keep_within(policy, |_| {});
    let refused = tokio::select! {
        biased;
        () = keeping => unreachable!("it goes on for ever"),
        refused = store.ingest_of(&layer) => refused.map(drop),
    };
    match refused {
        Err(BlobError::NoSpace { need, .. }) => assert_eq!(need, size + reserved),
        other => panic!("{other:?}"),
    }
}
