//! Images out of an engine: once, verified, and told clearly when that fails.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use engine::Export;
use engine::fixture::{FakeDocker, Fault, SaveLayout};
use futures::{StreamExt as _, TryStreamExt as _};
use transfer::image::Manifest;
use transfer::store::MemoryStore;
use transfer::{
    BlobStore, Descriptor, Digest, Image, ImageSource, LayerForm, MediaType, OpenImage,
    SourceError, StoreKind, fixture,
};

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
    let blobs = crate::open(export, image).await.blobs;
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
            assert_eq!(crate::open(&export, image).await.image, *image, "{layout:?}");
            is_whole(&export, image).await;
        }
    }
}

#[tokio::test]
async fn an_export_is_an_image_source() {
    let (_docker, export, _, [first, second]) = host().await;
    let images = [(name("app:1"), first.0), (name("app:2"), second.0)];
    fixture::contract::image_source(&export, &images).await;
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
        assert_eq!(crate::open(&export, &image).await.image, image, "{layout:?}");
    }
}

#[tokio::test]
async fn everyone_who_asks_at_once_shares_one_save() {
    let (docker, export, _, images) = host().await;
    let asked = (0..20).map(|turn| {
        let (export, image) = (export.clone(), images[turn % 2].0.clone());
        async move {
            assert_eq!(crate::open(&export, &image).await.image, image);
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
    crate::open(&export, &images[0].0).await;
    let again = Export::new(docker.connect().await, store as Arc<dyn BlobStore>);
    assert_eq!(crate::open(&again, &images[0].0).await.image, images[0].0);
    assert_eq!(docker.saves(), 1);
}

#[tokio::test]
async fn an_export_goes_on_when_the_first_to_ask_leaves() {
    let (docker, export, _, images) = host().await;
    {
        let mut left = std::pin::pin!(crate::open(&export, &images[0].0));
        assert!(futures::poll!(left.as_mut()).is_pending());
        // Until it waits for the export.
        while docker.saves() == 0 {
            tokio::task::yield_now().await;
            if futures::poll!(left.as_mut()).is_ready() {
                break;
            }
        }
    }
    assert_eq!(crate::open(&export, &images[0].0).await.image, images[0].0);
    assert_eq!(docker.saves(), 1);
}

#[tokio::test]
async fn a_blob_that_went_away_is_exported_once_more() {
    let (docker, export, store, images) = host().await;
    let OpenImage { image, blobs } = crate::open(&export, &images[0].0).await;
    let lost = image.layers[1].blob.digest;
    store.remove(&lost).await.unwrap();
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
    let error = export.open(&unknown.into(), LayerForm::AsStored).await.unwrap_err();
    assert!(matches!(error, SourceError::NotFound { .. }), "{error:?}");

    docker.fault(Fault::CutSave(50_000));
    let error = export.open(&image.config_digest.into(), LayerForm::AsStored).await.unwrap_err();
    assert!(matches!(error, SourceError::Unavailable { .. }), "{error:?}");

    docker.fault(Fault::SaveWithout(image.layers[2].blob.digest));
    let error = export.open(&image.config_digest.into(), LayerForm::AsStored).await.unwrap_err();
    assert!(error.to_string().contains(&image.layers[2].blob.digest.to_string()), "{error}");

    docker.fault(Fault::None);
    assert_eq!(crate::open(&export, other).await.image, *other);
    assert_eq!(crate::open(&export, image).await.image, *image);
}

#[tokio::test]
async fn one_deleted_image_does_not_spoil_the_others() {
    let (docker, export, _, images) = host().await;
    docker.remove(&name("app:2"));
    let [(kept, _), (gone, _)] = &images;
    let keys = [kept, gone].map(|image| image.config_digest.into());
    let (kept_answer, gone_answer) = tokio::join!(
        export.open(&keys[0], LayerForm::AsStored),
        export.open(&keys[1], LayerForm::AsStored)
    );
    assert_eq!(kept_answer.unwrap().image, *kept);
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

/// An image whose layers are compressed, with their blobs.
fn compressed(seed: u64) -> (Image, Blobs) {
    let (plain, blobs) = fixture::image(seed, &[20_000, 30_000]);
    let gzip = |(_, bytes): &(Descriptor, Bytes)| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        let bytes: Bytes = encoder.finish().unwrap().into();
        (Descriptor::of("application/vnd.docker.image.rootfs.diff.tar.gzip", &bytes), bytes)
    };
    let blobs: Blobs = blobs.iter().map(gzip).collect();
    let manifest = Manifest {
        config: Descriptor::of(MediaType::CONFIG, &plain.config),
        layers: blobs.iter().map(|(blob, _)| blob.clone()).collect(),
    };
    // A space that nobody who makes manifests up would leave.
    let manifest = manifest.encode().replace("\"layers\":", "\"layers\": ");
    (Image::parse(manifest.into(), plain.config).unwrap(), blobs)
}

#[tokio::test]
async fn a_containerd_host_is_exported_as_it_is_stored() {
    let docker = FakeDocker::start(StoreKind::Containerd);
    let ((image, blobs), (other, other_blobs)) = (compressed(1), compressed(2));
    docker.add(&image, &blobs, &name("app:1"));
    docker.add(&other, &other_blobs, &name("app:2"));
    let store = Arc::new(MemoryStore::default());
    let export = Export::new(docker.connect().await, store.clone() as Arc<dyn BlobStore>);
    assert_eq!(export.list().await.unwrap(), [], "nothing is exported to be listed");
    assert_eq!(docker.saves(), 0);

    // The config's digest is in the manifest, and that comes with a save.
    let asked = (0..8).map(|_| {
        let (export, reference) = (export.clone(), name("app:1"));
        async move { export.resolve(&reference).await.unwrap() }
    });
    let summaries = futures::future::join_all(asked).await;
    let summary = &summaries[0];
    assert!(summaries.iter().all(|other| other == summary));
    assert_eq!(summary.config_digest, image.config_digest);
    assert_eq!(summary.references, [name("app:1")]);
    assert_eq!(export.list().await.unwrap(), summaries[..1]);
    let given = crate::open(&export, &image).await.image;
    assert_eq!(given, image);
    let all = blobs.iter().map(|(_, bytes)| bytes.clone());
    let all: Vec<_> = all.chain([image.config.clone(), image.manifest.clone()]).collect();
    fixture::contract::source(&*crate::open(&export, &image).await.blobs, &all).await;
    assert_eq!(docker.saves(), 1);

    // A restarted host knows what its store has; what is lost comes with one more save.
    let export = Export::new(docker.connect().await, store.clone() as Arc<dyn BlobStore>);
    let given = crate::open(&export, &image).await.image;
    assert_eq!(given, image);
    assert_eq!(docker.saves(), 1);
    store.remove(&image.layers[1].blob.digest).await.unwrap();
    fixture::contract::source(&*crate::open(&export, &image).await.blobs, &all).await;
    let unknown = export.open(&other.config_digest.into(), LayerForm::AsStored).await.unwrap_err();
    assert!(matches!(unknown, SourceError::NotFound { .. }), "{unknown:?}");
    assert_eq!(export.resolve(&name("app:2")).await.unwrap().config_digest, other.config_digest);
}

#[tokio::test]
async fn what_a_containerd_hosts_export_lacks_is_told() {
    let docker = FakeDocker::start(StoreKind::Containerd);
    let (image, blobs) = compressed(1);
    docker.add(&image, &blobs, &name("app:1"));
    let connection = docker.connect().await;
    let export = || Export::new(connection.clone(), Arc::new(MemoryStore::default()));
    for digest in [image.layers[1].blob.digest, image.manifest_digest] {
        docker.fault(Fault::SaveWithout(digest));
        let error = export().resolve(&name("app:1")).await.unwrap_err();
        assert!(error.to_string().contains(&digest.to_string()), "{error}");
    }
    docker.fault(Fault::CutSave(10_000));
    let export = export();
    let error = export.resolve(&name("app:1")).await.unwrap_err();
    assert!(matches!(error, SourceError::Unavailable { .. }), "{error:?}");
    docker.fault(Fault::NoManifests);
    let error = export.resolve(&name("app:1")).await.unwrap_err();
    assert!(error.to_string().contains("engines since 28"), "{error}");
    docker.fault(Fault::None);
    export.resolve(&name("app:1")).await.unwrap();
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
