//! Images over the wire: lists in pages, names, whole images.

use std::sync::Arc;

use transfer::fixture::{MemorySource, image};
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
    assert_eq!(host.image(&summary.config_digest, LayerForm::AsStored).await.unwrap(), image);
}

#[tokio::test]
async fn an_image_of_the_largest_size_arrives() {
    let (image, blobs) = image(2, &[1; 125]);
    let source = MemorySource::default();
    source.insert("deep", (image.clone(), blobs));
    let (_served, host) = host(Arc::new(source), LARGE).await;
    assert_eq!(host.image(&image.config_digest, LayerForm::AsStored).await.unwrap(), image);
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named() {
    let (_served, host) = host(Arc::new(MemorySource::default()), LARGE).await;
    let (other, _) = image(3, &[1]);
    let name = other.config_digest.to_string();
    match host.image(&other.config_digest, LayerForm::AsStored).await.unwrap_err() {
        SourceError::NotFound { image } => assert_eq!(image, name),
        error => panic!("{error:?}"),
    }
    match host.resolve(&"nothing:1".parse().unwrap()).await.unwrap_err() {
        SourceError::NotFound { image } => assert_eq!(image, "nothing:1"),
        error => panic!("{error:?}"),
    }
    let blobs = host.blobs(&other.config_digest);
    assert!(blobs.stat(&other.config_digest.0).await.is_err());
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
