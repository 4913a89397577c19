//! Blobs over the wire: the contract, and what breaks on the way.

use std::sync::Arc;

use control::lending::AllImages;
use futures::TryStreamExt as _;
use proto::RemoteHost;
use transfer::fixture::{Faulty, MemorySource, bytes, contract, descriptor_of, drain, keep};
use transfer::store::FsStore;
use transfer::{BlobError, BlobSource as _, Digest, MAX_FRAME};

use crate::elsewhere::Elsewhere;
use crate::pipe::{
    LARGE, NARROW, Noted, ODD, Served, host, image_of, lent, library, manners, memory_of, range,
    services,
};

/// Every mistake in framing shows in a pipe this narrow.
#[tokio::test]
async fn a_source_behind_a_narrow_pipe_is_still_a_source() {
    let blobs = [0, 1, 63, 64, 65, 10_000].map(|size| bytes(size as u64, size));
    let (memory, image) = memory_of(&blobs);
    let (_served, host) = host(Arc::new(memory), NARROW).await;
    let source = lent(&host, &image).await;
    contract::source(&source, &blobs).await;
}

#[tokio::test]
async fn a_source_behind_the_wire_is_still_a_source() {
    let (memory, image) = memory_of(&contract::blobs());
    let (_served, host) = host(Arc::new(memory), ODD).await;
    let source = lent(&host, &image).await;
    contract::source(&source, &contract::blobs()).await;
}

#[tokio::test]
async fn files_behind_the_wire_are_still_a_source() {
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::open(folder.path()).await.unwrap();
    for blob in contract::blobs() {
        keep(&store, &blob).await;
    }
    let image = image_of(&contract::blobs());
    let elsewhere = Elsewhere { image: image.clone(), blobs: Arc::new(store) };
    let (_served, host) = host(Arc::new(elsewhere), LARGE).await;
    let source = lent(&host, &image).await;
    contract::source(&source, &contract::blobs()).await;
}

#[tokio::test]
async fn a_blob_whose_connection_breaks_anywhere_goes_on_where_it_was() {
    let blob = bytes(5, 3 * MAX_FRAME + 17);
    let size = blob.len() as u64;
    let cuts = (0..size + 2000).step_by(MAX_FRAME / 5 + 13).chain([1, 100, size, size + 300]);
    for cut in cuts {
        let (memory, image) = memory_of(std::slice::from_ref(&blob));
        let noted = Noted { source: memory, ..Noted::default() };
        let (served, host) = host(Arc::new(noted.clone()), LARGE).await;
        // The image comes over the connection for control, and is not cut.
        let source = lent(&host, &image).await;
        served.cut(&[cut]);
        let read = source.open(&Digest::of(&blob), 0).await.unwrap();
        let (read, end) = drain(read).await;
        end.unwrap_or_else(|error| panic!("cut at {cut}: {error:?}"));
        assert!(read == blob, "cut at {cut}: other bytes came");
        let opened = noted.opened.lock().unwrap().clone();
        for (_, offset) in &opened[1..] {
            assert!(*offset <= cut, "cut at {cut}: went on at {offset}");
            let again = cut - offset;
            assert!(again <= MAX_FRAME as u64 + 1000, "cut at {cut}: {again} bytes came again");
        }
    }
}

#[tokio::test]
async fn a_blob_survives_many_breaks_if_each_brings_it_further() {
    let blob = bytes(6, 8 * MAX_FRAME);
    let (memory, image) = memory_of(std::slice::from_ref(&blob));
    let (served, host) = host(Arc::new(memory), LARGE).await;
    let source = lent(&host, &image).await;
    served.cut(&[MAX_FRAME as u64 + 2000; 7]);
    let read = source.open(&Digest::of(&blob), 0).await.unwrap();
    let (read, end) = drain(read).await;
    end.unwrap();
    assert!(read == blob);
    assert_eq!(served.dials(), 9, "one for control, eight for the blob");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_stays_away_is_given_up() {
    let blob = bytes(7, 3 * MAX_FRAME);
    let (memory, image) = memory_of(std::slice::from_ref(&blob));
    let (served, host) = host(Arc::new(memory), LARGE).await;
    let source = lent(&host, &image).await;
    served.cut(&[MAX_FRAME as u64 + 2000]);
    let mut read = source.open(&Digest::of(&blob), 0).await.unwrap();
    drop(served);
    let began = tokio::time::Instant::now();
    let error = loop {
        match read.try_next().await {
            Ok(frame) => assert!(frame.is_some(), "half a blob ended well"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BlobError::Unavailable { .. }), "{error:?}");
    assert!(began.elapsed() < 3 * manners().patience, "took {:?}", began.elapsed());
}

#[tokio::test]
async fn a_host_that_was_restarted_goes_on_with_the_same_image() {
    let blob = bytes(8, 8 * MAX_FRAME);
    let (memory, image) = memory_of(std::slice::from_ref(&blob));
    let noted = Noted { source: memory, ..Noted::default() };
    let fresh = || services(range("a"), library(Arc::new(noted.clone()), Arc::new(AllImages)));
    let mut served = Served::new(fresh().await, LARGE);
    let host = RemoteHost::new(served.endpoint(), manners());
    let source = lent(&host, &image).await;
    let mut read = source.open(&Digest::of(&blob), 0).await.unwrap();
    let mut bytes = read.try_next().await.unwrap().unwrap().to_vec();
    // The new host knows nothing of the lease.
    served.restart(fresh().await);
    let (rest, end) = drain(read).await;
    end.unwrap();
    bytes.extend(rest);
    assert!(bytes == blob);
    let opened = noted.opened.lock().unwrap().clone();
    assert_eq!(opened.len(), 2);
    assert!(0 < opened[1].1, "began from the start");
}

#[tokio::test]
async fn a_lease_that_is_lost_with_its_image_is_said_to_be_lost() {
    let blob = bytes(9, 10);
    let (memory, image) = memory_of(std::slice::from_ref(&blob));
    let (mut served, host) = host(Arc::new(memory), LARGE).await;
    let source = lent(&host, &image).await;
    // The image is gone from the host that comes back.
    let empty = library(Arc::new(MemorySource::default()), Arc::new(AllImages));
    served.restart(services(range("a"), empty).await);
    let error = source.open(&Digest::of(&blob), 0).await.map(drop).unwrap_err();
    assert!(matches!(error, BlobError::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn bytes_that_went_bad_never_end_well() {
    let blob = bytes(10, 2 * MAX_FRAME + 5);
    for at in [0, MAX_FRAME as u64, blob.len() as u64 - 1] {
        let memory = transfer::store::MemoryStore::default();
        memory.insert(blob.clone());
        let image = image_of(std::slice::from_ref(&blob));
        let blobs = Arc::new(Faulty::corrupt_at(memory, at));
        let (_served, host) =
            host(Arc::new(Elsewhere { image: image.clone(), blobs }), LARGE).await;
        let source = lent(&host, &image).await;
        contract::damaged_blob(&source, &blob).await;
        let read = source.open(&Digest::of(&blob), 0).await.unwrap();
        let (read, end) = drain(read).await;
        let error = end.unwrap_err();
        assert!(matches!(error, BlobError::DigestMismatch { .. }), "at {at}: {error:?}");
        assert!(read.len() < blob.len(), "the last frame was given away");
    }
}

#[tokio::test]
async fn a_host_that_fails_in_the_middle_is_asked_again() {
    let blob = bytes(11, 3 * MAX_FRAME);
    let memory = transfer::store::MemoryStore::default();
    memory.insert(blob.clone());
    let image = image_of(std::slice::from_ref(&blob));
    let blobs = Arc::new(Faulty::cut_off_at(memory, 1_500_000).only(2));
    let (_served, host) = host(Arc::new(Elsewhere { image: image.clone(), blobs }), LARGE).await;
    let source = lent(&host, &image).await;
    let read = source.open(&Digest::of(&blob), 0).await.unwrap();
    let (read, end) = drain(read).await;
    end.unwrap();
    assert!(read == blob);
}

#[tokio::test]
async fn manifest_and_config_are_blobs_of_their_image() {
    let (memory, image) = memory_of(&[bytes(12, 10)]);
    memory.store().insert(image.manifest.clone());
    memory.store().insert(image.config.clone());
    let (_served, host) = host(Arc::new(memory), LARGE).await;
    let source = lent(&host, &image).await;
    for document in [&image.manifest, &image.config] {
        let digest = descriptor_of(document).digest;
        let read = source.open(&digest, 0).await.unwrap();
        assert_eq!(drain(read).await.0, *document);
    }
}
