//! Images over the wire: lists in pages, names, whole images.

use std::sync::Arc;

use transfer::fixture::{MemorySource, contract, image, twin};
use transfer::{BlobSource as _, ImageSource, LayerForm, SourceError};

use crate::pipe::{LARGE, NARROW, host};

#[tokio::test]
async fn every_image_is_listed_once_over_however_many_pages() {
    for count in [0, 1, 199, 200, 201, 450] {
        let source = MemorySource::default();
        for seed in 0..count {
            source.insert(&format!("image-{seed}"), image(seed, &[1]));
        }
        let (_served, host) = host(Arc::new(source.clone()), LARGE).await;
        assert_eq!(host.list().await.unwrap(), source.list().await.unwrap(), "{count} images");
    }
}

#[tokio::test]
async fn an_image_arrives_as_it_left() {
    let source = MemorySource::default();
    let (image, blobs) = image(1, &[10, 2000, 30]);
    source.insert("localhost:5000/team/app:1.2", (image.clone(), blobs));
    let (_served, host) = host(Arc::new(source.clone()), NARROW).await;
    let reference = "localhost:5000/team/app:1.2".parse().unwrap();
    let summary = host.resolve(&reference).await.unwrap();
    assert_eq!(summary, source.resolve(&reference).await.unwrap());
    let opened = host.open(&summary.key(), LayerForm::AsStored).await.unwrap();
    assert_eq!(opened.image, image);
}

#[tokio::test]
async fn a_remote_host_is_an_image_source() {
    let source = MemorySource::default();
    let (first, blobs) = image(1, &[10, 2_000_000]);
    let images = [("first:1", first.clone()), ("second:1", twin(&first))];
    let images = images.map(|(name, image)| {
        source.insert(name, (image.clone(), blobs.clone()));
        (name.parse().unwrap(), image)
    });
    let (_served, host) = host(Arc::new(source.clone()), LARGE).await;
    contract::image_source(&host, &images).await;
    let [(name, image), _] = images;
    contract::vanished_image(&host, &name, &image, async { source.remove(&image) }).await;
}

#[tokio::test]
async fn two_images_of_one_config_are_told_apart() {
    let source = MemorySource::default();
    let (one, blobs) = image(1, &[10]);
    let two = twin(&one);
    source.insert("one:1", (one.clone(), blobs.clone()));
    source.insert("two:1", (two.clone(), blobs));
    let (_served, host) = host(Arc::new(source), LARGE).await;
    assert_eq!(host.list().await.unwrap().len(), 2);
    // Both are read at once, each under a lease of its own.
    let mut opened = Vec::new();
    for (name, image) in [("one:1", &one), ("two:1", &two)] {
        let summary = host.resolve(&name.parse().unwrap()).await.unwrap();
        assert_eq!(summary.target_digest, Some(image.target_digest()), "{name}");
        let given = host.open(&summary.key(), LayerForm::AsStored).await.unwrap();
        assert_eq!(given.image, *image, "{name}");
        opened.push(given.blobs);
    }
    for (blobs, image, other) in [(&opened[0], &one, &two), (&opened[1], &two, &one)] {
        assert_eq!(blobs.stat(&other.manifest_digest).await.unwrap(), None);
        assert!(blobs.stat(&image.layers[0].blob.digest).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn an_image_of_the_largest_size_arrives() {
    let (image, blobs) = image(2, &[1; 125]);
    let source = MemorySource::default();
    source.insert("deep", (image.clone(), blobs));
    let (_served, host) = host(Arc::new(source), LARGE).await;
    let opened = host.open(&image.config_digest.into(), LayerForm::AsStored).await.unwrap();
    assert_eq!(opened.image, image);
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named() {
    let (_served, host) = host(Arc::new(MemorySource::default()), LARGE).await;
    let (other, _) = image(3, &[1]);
    let name = other.config_digest.to_string();
    match host.open(&other.config_digest.into(), LayerForm::AsStored).await.unwrap_err() {
        SourceError::NotFound { image } => assert_eq!(image, name),
        error => panic!("{error:?}"),
    }
    match host.resolve(&"nothing:1".parse().unwrap()).await.unwrap_err() {
        SourceError::NotFound { image } => assert_eq!(image, "nothing:1"),
        error => panic!("{error:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_not_there_is_told_of_quickly_and_by_name() {
    let endpoint = "unix:///nowhere/host.sock".parse().unwrap();
    let host = proto::RemoteHost::new(endpoint, crate::pipe::manners());
    let began = tokio::time::Instant::now();
    let error = host.resolve(&"python:3".parse().unwrap()).await.unwrap_err();
    assert!(began.elapsed().as_secs() < 5, "took {:?}", began.elapsed());
    let SourceError::Unavailable { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "no answer from unix:///nowhere/host.sock");
    let cause = source.source().unwrap().to_string();
    assert!(cause.contains("No such file"), "{cause}");
}
