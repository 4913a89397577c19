//! Layers from the files of a real engine: each bit as it went in, whatever a layer has inside.
#![expect(clippy::print_stdout, reason = "figures for the log of a test run")]

mod adversarial;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use engine::{Docker, DockerSink, Export, Overlay2Files};
use futures::TryStreamExt as _;
use transfer::store::MemoryStore;
use transfer::{BlobSource, BlobStore, Digest, Hasher, Image, ImageSource, LayerForm};

use crate::sink::bring;
use crate::{Blobs, name, store_of};

/// How much of a stream that begins in the middle is compared, in bytes.
const WINDOW: u64 = 2 << 20;

async fn engine_with_files() -> (Docker, Overlay2Files) {
    let address = std::env::var("LONGSHORE_TEST_DOCKER");
    let address = address.expect("LONGSHORE_TEST_DOCKER names the host's engine");
    let docker = Docker::connect(&address).await.unwrap();
    let data_root = docker.data_root().await.unwrap().expect("an engine says where its files are");
    let files = Overlay2Files::open(docker.clone(), data_root).await.unwrap();
    (docker, files)
}

async fn read(source: &dyn BlobSource, digest: &Digest, offset: u64) -> Vec<u8> {
    let frames: Vec<Bytes> =
        source.open(digest, offset).await.unwrap().try_collect().await.unwrap();
    frames.concat()
}

/// Reads a layer whole, and parts of it from offsets, all compared.
async fn layer_is_exact(source: &dyn BlobSource, digest: &Digest, size: u64) {
    let offsets = [1, size / 3, size / 2 + 1, size - size.min(WINDOW), size];
    let mut windows: Vec<(u64, Vec<u8>)> =
        offsets.iter().map(|offset| ((*offset).min(size), Vec::new())).collect();
    let mut hasher = Hasher::default();
    let mut at = 0;
    let mut whole = source.open(digest, 0).await.unwrap();
    while let Some(frame) = whole.try_next().await.unwrap() {
        hasher.update(&frame);
        let end = at + frame.len() as u64;
        for (offset, window) in &mut windows {
            let (from, to) = ((*offset).max(at), (*offset + WINDOW).min(end));
            if from < to {
                let place = |position: u64| usize::try_from(position - at).unwrap();
                window.extend_from_slice(&frame[place(from)..place(to)]);
            }
        }
        at = end;
    }
    assert_eq!((hasher.digest(), at), (*digest, size));
    for (offset, window) in windows {
        let mut stream = source.open(digest, offset).await.unwrap();
        let mut seen = Vec::new();
        while (seen.len() as u64) < WINDOW {
            let Some(frame) = stream.try_next().await.unwrap() else { break };
            seen.extend_from_slice(&frame);
        }
        seen.truncate(usize::try_from(WINDOW).unwrap());
        assert!(seen == window, "layer {digest} of {size} bytes from {offset}");
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine whose files can be read: cargo xtask test runs it"]
async fn docker_every_layer_rebuilt_from_files_equals_saves_digest() {
    let (docker, files) = engine_with_files().await;
    let stack = std::env::var("LONGSHORE_TEST_STACK").expect("LONGSHORE_TEST_STACK names images");
    let mut seen = HashSet::new();
    for reference in stack.split(',') {
        let summary = files.resolve(&name(reference)).await.unwrap();
        let began = Instant::now();
        let image =
            files.open(&summary.config_digest.into(), LayerForm::AsStored).await.unwrap().image;
        println!("{reference}: {} layers, told in {:?}", image.layers.len(), began.elapsed());
        assert_eq!(image.config_digest, summary.config_digest);
        assert_eq!(image.diff_ids().collect::<Vec<_>>(), summary.diff_ids);
        let blobs = crate::open(&files, &image).await.blobs;
        for layer in &image.layers {
            if !seen.insert(layer.diff_id) {
                continue;
            }
            let began = Instant::now();
            drop(blobs.open(&layer.blob.digest, 0).await.unwrap().try_next().await.unwrap());
            let first = began.elapsed();
            layer_is_exact(&*blobs, &layer.blob.digest, layer.blob.size).await;
            let took = began.elapsed();
            println!(
                "  {}: {} bytes, first frame {first:?}, all {took:?}",
                layer.diff_id, layer.blob.size
            );
        }
    }
    println!("{} layers, {:?}", seen.len(), files.stats());
    assert!(!seen.is_empty());
    // What the one way gives is what the other gives, documents included.
    let small = name(stack.split(',').next_back().unwrap());
    let config_digest = files.resolve(&small).await.unwrap().config_digest;
    same_as_save(&docker, &files, &config_digest).await;
}

#[tokio::test]
#[ignore = "needs a Docker engine whose files can be read: cargo xtask test runs it"]
async fn docker_whatever_a_layer_has_inside_is_rebuilt() {
    let (docker, files) = engine_with_files().await;
    let (image, blobs) = adversarial::image();
    let tag = "longshore-test/adversarial:1";
    load(&docker, &image, &blobs, tag).await;

    assert_eq!(crate::open(&files, &image).await.image, image);
    let source = crate::open(&files, &image).await.blobs;
    let mut seen = BTreeSet::new();
    for (descriptor, bytes) in &blobs {
        let read = read(&*source, &descriptor.digest, 0).await;
        assert!(read == *bytes, "layer {}", descriptor.digest);
        seen.extend(adversarial::kinds(&read));
        layer_is_exact(&*source, &descriptor.digest, descriptor.size).await;
    }
    let wanted: BTreeSet<_> = adversarial::KINDS.iter().copied().collect();
    let unseen: Vec<_> = wanted.difference(&seen).collect();
    assert!(unseen.is_empty(), "never read: {unseen:?}");
    println!("{} kinds of content: {seen:?}", seen.len());

    // A small layer from each of its bytes on.
    let (small, bytes) = &blobs[1];
    for offset in 0..=bytes.len() {
        let tail = read(&*source, &small.digest, offset as u64).await;
        assert!(tail == bytes[offset..], "from {offset}");
    }
    same_as_save(&docker, &files, &image.config_digest).await;
    docker.remove_image(&name(tag)).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Docker engine whose files can be read: cargo xtask test runs it"]
async fn docker_what_save_cannot_give_is_still_in_the_files() {
    let (docker, files) = engine_with_files().await;
    let (image, blobs) = adversarial::old_hard_link();
    let tag = "longshore-test/old-hard-link:1";
    load(&docker, &image, &blobs, tag).await;
    assert_eq!(crate::open(&files, &image).await.image, image);
    let source = crate::open(&files, &image).await.blobs;
    assert!(read(&*source, &blobs[0].0.digest, 0).await == blobs[0].1);
    let export =
        Export::new(docker.clone(), Arc::new(MemoryStore::default()) as Arc<dyn BlobStore>);
    let saved = export.open(&image.config_digest.into(), LayerForm::AsStored).await;
    println!("and save: {saved:?}");
    assert!(saved.is_err(), "this engine's save has learnt it: choose something else here");
    docker.remove_image(&name(tag)).await.unwrap();
}

async fn load(docker: &Docker, image: &Image, blobs: &Blobs, tag: &str) {
    let sink = DockerSink::new(docker.clone());
    bring(&sink, image, &store_of(blobs).await, tag).await;
}

/// Asserts that a save gives the same image of the same layers.
async fn same_as_save(docker: &Docker, files: &Overlay2Files, image: &transfer::ConfigDigest) {
    let store = Arc::new(MemoryStore::default());
    let export = Export::new(docker.clone(), store as Arc<dyn BlobStore>);
    let key = (*image).into();
    let saved = export.open(&key, LayerForm::AsStored).await.unwrap();
    let read_from_files = files.open(&key, LayerForm::AsStored).await.unwrap();
    assert_eq!(read_from_files.image, saved.image);
    let (one, two) = (read_from_files.blobs, saved.blobs);
    for layer in &saved.image.layers {
        let digest = layer.blob.digest;
        assert!(read(&*one, &digest, 0).await == read(&*two, &digest, 0).await, "layer {digest}");
    }
}
