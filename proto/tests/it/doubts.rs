//! A range's response to wrong bytes, and its report to the host.

use std::fs::File;
use std::sync::Arc;

use transfer::fixture::{bytes, drain, keep};
use transfer::store::FsStore;
use transfer::{BlobError, BlobSource, Digest, MAX_FRAME};

use crate::elsewhere::Elsewhere;
use crate::pipe::{LARGE, host, image_of, lent};

/// Changes a byte of a blob, as a disk does: nothing but the bytes shows it.
fn rot(store: &FsStore, digest: &Digest) {
    let path = store.root().join("blobs/sha256").join(digest.hex());
    let time = path.metadata().unwrap().modified().unwrap();
    let mut content = std::fs::read(&path).unwrap();
    content[7] ^= 1;
    std::fs::write(&path, content).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
}

#[tokio::test]
async fn a_range_that_got_wrong_bytes_says_so_and_the_host_finds_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::open(folder.path()).await.unwrap();
    let blobs = [bytes(1, 3 * MAX_FRAME), bytes(2, 1000)];
    let [rotten, good] =
        [keep(&store, &blobs[0]).await.digest, keep(&store, &blobs[1]).await.digest];
    let image = image_of(&blobs);
    let elsewhere = Elsewhere { image: image.clone(), blobs: Arc::new(store.clone()) };
    let (_served, host) = host(Arc::new(elsewhere), LARGE).await;
    let mut source = lent(&host, &image).await;
    let read =
        async |source: &Arc<dyn BlobSource>, digest| drain(source.open(digest, 0).await?).await.1;
    rot(&store, &rotten);
    // The host has hashed it once and believes its file; the range believes nobody.
    let error = read(&source, &rotten).await.unwrap_err();
    assert!(matches!(error, BlobError::DigestMismatch { .. }), "{error:?}");
    read(&source, &good).await.unwrap();
    // Asking for the image again says nothing about its bytes.
    source = lent(&host, &image).await;
    let error = read(&source, &rotten).await.unwrap_err();
    assert!(matches!(error, BlobError::DigestMismatch { .. }), "{error:?}");
    assert_eq!(store.quarantined(), 0);

    source.doubt(&rotten);
    let error = read(&source, &rotten).await.unwrap_err();
    assert!(matches!(error, BlobError::DigestMismatch { .. }), "{error:?}");
    assert_eq!(store.quarantined(), 1);
    read(&source, &good).await.unwrap();

    keep(&store, &blobs[0]).await;
    read(&source, &rotten).await.unwrap();
    assert_eq!(store.quarantined(), 1);
}

#[tokio::test]
async fn a_doubt_reaches_the_host_before_the_next_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::open(folder.path()).await.unwrap();
    let blob = bytes(3, 2 * MAX_FRAME);
    let digest = keep(&store, &blob).await.digest;
    let image = image_of(std::slice::from_ref(&blob));
    let elsewhere = Elsewhere { image: image.clone(), blobs: Arc::new(store.clone()) };
    let (_served, host) = host(Arc::new(elsewhere), LARGE).await;
    let blobs = lent(&host, &image).await;
    rot(&store, &digest);
    for (doubted, quarantined) in [(false, 0), (false, 0), (true, 1)] {
        if doubted {
            blobs.doubt(&digest);
        }
        let (_, end) = drain(blobs.open(&digest, 0).await.unwrap()).await;
        let error = end.unwrap_err();
        assert!(matches!(error, BlobError::DigestMismatch { .. }), "{error:?}");
        assert_eq!(store.quarantined(), quarantined, "doubted: {doubted}");
    }
}
