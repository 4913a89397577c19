//! Images out of an engine: once, verified, and told clearly when that fails.

use std::sync::Arc;

use bytes::Bytes;
use engine::Export;
use engine::fixture::{FakeDocker, Fault, SaveLayout};
use futures::{StreamExt as _, TryStreamExt as _};
use transfer::store::MemoryStore;
use transfer::{BlobStore, Digest, Image, ImageSource, LayerForm, SourceError, StoreKind, fixture};

use crate::{Blobs, name};

const LAYOUTS: [SaveLayout; 2] = [SaveLayout::V1, SaveLayout::Oci];

/// An engine with two images that share their base.
async fn host() -> (FakeDocker, Export, Arc<MemoryStore>, [(Image, Blobs); 2]) {
    let docker = FakeDocker::start(StoreKind::Graphdriver);
    let images = two_that_share_a_base();
    docker.add(&images[0].0, &images[0].1, &name("app:1"));
    docker.add(&images[1].0, &images[1].1, &name("app:2"));
    let store = Arc::new(MemoryStore::default());
    let export = Export::new(docker.connect().await, store.clone() as Arc<dyn BlobStore>);
    (docker, export, store, images)
}

fn two_that_share_a_base() -> [(Image, Blobs); 2] {
    let (long, long_blobs) = fixture::image(7, &[100_000, 3_000_000, 5]);
    let (top, top_blobs) = fixture::image(8, &[2_000_000]);
    let layers = [&long.layers[..2], &top.layers[..]].concat();
    let other = crate::image_of(&layers);
    [(long, long_blobs.clone()), (other, [long_blobs, top_blobs].concat())]
}

async fn is_whole(export: &Export, image: &Image) {
    let blobs = export.blobs(&image.config_digest);
    for layer in &image.layers {
        let frames: Vec<Bytes> =
            blobs.open(&layer.blob.digest, 0).await.unwrap().try_collect().await.unwrap();
        assert_eq!(Digest::of(&frames.concat()), layer.blob.digest);
    }
}

#[tokio::test]
async fn an_image_comes_out_as_it_went_in_from_either_layout() {
    for layout in LAYOUTS {
        let (docker, export, _, images) = host().await;
        docker.layout(layout);
        for (image, _) in &images {
            assert_eq!(
                export.image(&image.config_digest, LayerForm::AsStored).await.unwrap(),
                *image,
                "{layout:?}"
            );
            is_whole(&export, image).await;
        }
    }
}

#[tokio::test]
async fn a_repeated_layer_is_one_blob_at_two_places() {
    for layout in LAYOUTS {
        let (one, blobs) = fixture::image(3, &[1000, 2000]);
        let layers = [&one.layers[..], &one.layers[..1]].concat();
        let image = crate::image_of(&layers);
        let docker = FakeDocker::start(StoreKind::Graphdriver);
        docker.layout(layout);
        docker.add(&image, &blobs, &name("twice"));
        let export = Export::new(docker.connect().await, Arc::new(MemoryStore::default()));
        assert_eq!(
            export.image(&image.config_digest, LayerForm::AsStored).await.unwrap(),
            image,
            "{layout:?}"
        );
    }
}

#[tokio::test]
async fn everyone_who_asks_at_once_shares_one_save() {
    let (docker, export, _, images) = host().await;
    let asked = (0..20).map(|turn| {
        let (export, image) = (export.clone(), images[turn % 2].0.clone());
        async move {
            assert_eq!(
                export.image(&image.config_digest, LayerForm::AsStored).await.unwrap(),
                image
            )
        }
    });
    futures::future::join_all(asked).await;
    assert_eq!(docker.saves(), 1);
    assert_eq!(export.stats().saves, 1);
    let layers: u64 = images[0].0.layers.iter().map(|layer| layer.blob.size).sum();
    assert!(layers < export.stats().bytes_read, "{:?}", export.stats());
}

#[tokio::test]
async fn what_the_store_has_is_not_exported_again() {
    let (docker, export, store, images) = host().await;
    export.image(&images[0].0.config_digest, LayerForm::AsStored).await.unwrap();
    let again = Export::new(docker.connect().await, store as Arc<dyn BlobStore>);
    assert_eq!(
        again.image(&images[0].0.config_digest, LayerForm::AsStored).await.unwrap(),
        images[0].0
    );
    assert_eq!(docker.saves(), 1);
}

#[tokio::test]
async fn an_export_goes_on_when_the_first_to_ask_leaves() {
    let (docker, export, _, images) = host().await;
    let digest = images[0].0.config_digest;
    {
        let mut left = std::pin::pin!(export.image(&digest, LayerForm::AsStored));
        assert!(futures::poll!(left.as_mut()).is_pending());
        // Until it waits for the export.
        while docker.saves() == 0 {
            tokio::task::yield_now().await;
            if futures::poll!(left.as_mut()).is_ready() {
                break;
            }
        }
    }
    assert_eq!(export.image(&digest, LayerForm::AsStored).await.unwrap(), images[0].0);
    assert_eq!(docker.saves(), 1);
}

#[tokio::test]
async fn a_blob_that_went_away_is_exported_once_more() {
    let (docker, export, store, images) = host().await;
    let image = export.image(&images[0].0.config_digest, LayerForm::AsStored).await.unwrap();
    let lost = image.layers[1].blob.digest;
    store.remove(&lost).await.unwrap();
    let blobs = export.blobs(&image.config_digest);
    let stream = blobs.open(&lost, 5).await.unwrap();
    let size: usize =
        stream.map(|frame| frame.unwrap().len()).fold(0, |a, b| async move { a + b }).await;
    assert_eq!(size as u64, image.layers[1].blob.size - 5);
    assert_eq!(docker.saves(), 2);
    assert_eq!(blobs.stat(&Digest::of(b"of no image")).await.unwrap(), None);
}

#[tokio::test]
async fn failures_are_told_apart() {
    let (docker, export, _, images) = host().await;
    let [(image, _), (other, _)] = &images;
    let unknown = fixture::image(99, &[1]).0.config_digest;
    let error = export.image(&unknown, LayerForm::AsStored).await.unwrap_err();
    assert!(matches!(error, SourceError::NotFound { .. }), "{error:?}");

    docker.fault(Fault::CutSave(50_000));
    let error = export.image(&image.config_digest, LayerForm::AsStored).await.unwrap_err();
    assert!(matches!(error, SourceError::Unavailable { .. }), "{error:?}");

    docker.fault(Fault::SaveWithout(image.layers[2].blob.digest));
    let error = export.image(&image.config_digest, LayerForm::AsStored).await.unwrap_err();
    assert!(error.to_string().contains(&image.layers[2].blob.digest.to_string()), "{error}");

    docker.fault(Fault::None);
    assert_eq!(export.image(&other.config_digest, LayerForm::AsStored).await.unwrap(), *other);
    assert_eq!(export.image(&image.config_digest, LayerForm::AsStored).await.unwrap(), *image);
}

#[tokio::test]
async fn one_deleted_image_does_not_spoil_the_others() {
    let (docker, export, _, images) = host().await;
    docker.remove(&name("app:2"));
    let [(kept, _), (gone, _)] = &images;
    let (kept_answer, gone_answer) = tokio::join!(
        export.image(&kept.config_digest, LayerForm::AsStored),
        export.image(&gone.config_digest, LayerForm::AsStored)
    );
    assert_eq!(kept_answer.unwrap(), *kept);
    assert!(matches!(gone_answer, Err(SourceError::NotFound { .. })), "{gone_answer:?}");
}

#[tokio::test]
async fn images_are_listed_and_resolved_without_exporting() {
    let (docker, export, _, images) = host().await;
    let listed = export.list().await.unwrap();
    assert_eq!(listed.len(), 2);
    let summary = export.resolve(&name("app:2")).await.unwrap();
    assert_eq!(summary.config_digest, images[1].0.config_digest);
    assert_eq!(summary.references, [name("app:2")]);
    assert_eq!(summary.diff_ids, images[1].0.diff_ids().collect::<Vec<_>>());
    assert!(listed.contains(&summary));
    let error = export.resolve(&name("app:3")).await.unwrap_err();
    assert!(matches!(error, SourceError::NotFound { .. }), "{error:?}");
    docker.fault(Fault::Broken);
    let error = export.resolve(&name("app:2")).await.unwrap_err();
    assert!(matches!(error, SourceError::Unavailable { .. }), "{error:?}");
    assert_eq!(docker.saves(), 0);
}

#[tokio::test]
async fn a_host_on_the_containerd_store_is_refused_in_plain_words() {
    let docker = FakeDocker::start(StoreKind::Containerd);
    let export = Export::new(docker.connect().await, Arc::new(MemoryStore::default()));
    let error = export.list().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("overlay2 store only"), "{cause}");
}

#[tokio::test]
async fn an_absent_engine_is_told_with_what_to_do() {
    let error = engine::Docker::connect("unix:///nonexistent/docker.sock").await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("/nonexistent/docker.sock") && text.contains("is the engine running?"),
        "{text}"
    );
}
