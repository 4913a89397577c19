//! The thin archive, read back by the `tar` crate.

use std::io::Read as _;

use layer::tar::BLOCK;
use transfer::fixture;
use transfer::store::MemoryStore;

use super::*;

async fn store_of(blobs: &[(Descriptor, Bytes)]) -> MemoryStore {
    use transfer::BlobStore as _;
    let store = MemoryStore::default();
    for (descriptor, bytes) in blobs {
        let mut ingest = store.ingest().await.unwrap();
        for frame in bytes.chunks(transfer::MAX_FRAME) {
            ingest.write(Bytes::copy_from_slice(frame)).await.unwrap();
        }
        ingest.commit(descriptor).await.unwrap();
    }
    store
}

async fn whole(image: &Image, missing: &Missing, blobs: &dyn BlobSource) -> Vec<u8> {
    let mut archive = ThinArchive::new(image, missing, blobs);
    let mut all = Vec::new();
    while let Some(frame) = archive.next_frame().await.unwrap() {
        all.extend_from_slice(&frame);
    }
    all
}

fn entries(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    });
    entries.collect()
}

#[tokio::test]
async fn every_layer_is_named_and_only_the_missing_are_inside() {
    let (image, blobs) = fixture::image(1, &[10, 3000, 512]);
    let store = store_of(&blobs).await;
    let archive = whole(&image, &Missing(vec![false, true, true]), &store).await;
    assert_eq!(archive.len() % BLOCK, 0);
    let entries = entries(&archive);
    let names: Vec<_> = entries.iter().map(|(name, _)| name.as_str()).collect();
    let paths: Vec<_> = image.layers.iter().map(|layer| blob_path(&layer.blob.digest)).collect();
    assert_eq!(names[..3], ["oci-layout", "index.json", "manifest.json"]);
    assert_eq!(names[3], blob_path(&image.config_digest.0));
    assert_eq!(names[4], blob_path(&image.manifest_digest));
    assert_eq!(names[5..], paths[1..]);
    for (name, bytes) in &entries[3..] {
        assert_eq!(name, &blob_path(&Digest::of(bytes)));
    }
    let legacy: serde_json::Value = serde_json::from_slice(&entries[2].1).unwrap();
    assert_eq!(legacy[0]["Layers"], serde_json::json!(paths));
    assert_eq!(legacy[0].get("RepoTags"), None);
    let index: serde_json::Value = serde_json::from_slice(&entries[1].1).unwrap();
    assert_eq!(index["manifests"][0]["digest"], image.manifest_digest.to_string());
    assert_eq!(index["manifests"][0].get("annotations"), None);
}

#[tokio::test]
async fn a_layer_that_comes_twice_is_sent_once() {
    let (mut image, blobs) = fixture::image(1, &[10, 20]);
    image.layers.push(image.layers[0].clone());
    let store = store_of(&blobs).await;
    let archive = whole(&image, &Missing(vec![true, true, true]), &store).await;
    assert_eq!(entries(&archive).len(), 5 + 2);
    let archive = whole(&image, &Missing(vec![false, false, true]), &store).await;
    assert_eq!(entries(&archive).len(), 5 + 1);
}

#[tokio::test]
async fn a_layer_of_another_length_never_becomes_an_archive() {
    let (mut image, blobs) = fixture::image(1, &[3000]);
    let store = store_of(&blobs).await;
    let right = image.layers[0].blob.size;
    for size in [right - 1, right + 1] {
        image.layers[0].blob.size = size;
        let missing = Missing::all(&image);
        let mut archive = ThinArchive::new(&image, &missing, &store);
        let error = loop {
            match archive.next_frame().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("an archive with {size} instead of {right} bytes"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, BlobError::SizeMismatch { .. }), "{size}: {error}");
    }
}
