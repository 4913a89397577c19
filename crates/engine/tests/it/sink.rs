//! Images into an engine, on both stores: thin, proven, and never at the cost of a good tag.

use engine::DockerSink;
use engine::fixture::{FakeDocker, Fault};
use transfer::store::MemoryStore;
use transfer::{
    BlobSource, Digest, Image, ImageSink, ImageSource as _, ImageSummary, LoadError, MediaType,
    Missing, Platform, Sharing, StoreKind, fixture,
};

use crate::{
    before_and_after, name, opened, store_of, what_the_engine_refuses_is_read_again_verified,
};

const STORES: [StoreKind; 2] = [StoreKind::Graphdriver, StoreKind::Containerd];

async fn engine(kind: StoreKind) -> (FakeDocker, DockerSink) {
    let docker = FakeDocker::start(kind);
    let sink = DockerSink::new(docker.connect().await);
    (docker, sink)
}

/// Load, prove and tag, as a pull does.
pub(crate) async fn bring(
    sink: &DockerSink,
    image: &Image,
    blobs: &(impl BlobSource + Clone + 'static),
    tag: &str,
) -> Missing {
    let missing = sink.missing(image).await.unwrap();
    sink.load(&opened(image, blobs), &missing).await.unwrap();
    let proof = sink.prove(image).await.unwrap().expect("a good load is proven");
    sink.tag(&proof, &name(tag)).await.unwrap();
    missing
}

#[tokio::test]
async fn an_engine_is_an_image_sink_on_either_store() {
    for kind in STORES {
        let (_docker, sink) = engine(kind).await;
        fixture::contract::image_sink(&sink).await;
    }
}

#[tokio::test]
async fn an_image_is_loaded_proven_and_named() {
    for kind in STORES {
        let (docker, sink) = engine(kind).await;
        let (image, _, blobs) = before_and_after();
        let store = store_of(&blobs).await;
        let intake = sink.intake().await.unwrap();
        assert_eq!(intake.sharing == Sharing::ByChain, kind == StoreKind::Graphdriver, "{kind}");
        assert_eq!(sink.prove(&image).await.unwrap(), None, "{kind}");
        assert_eq!(bring(&sink, &image, &store, "app:1").await, Missing::all(&image), "{kind}");
        let proof = sink.prove(&image).await.unwrap().unwrap();
        assert_eq!(proof.references, [name("app:1")], "{kind}");
        assert_eq!(docker.named(&name("app:1")), Some(proof.engine_image_id.0), "{kind}");
        assert!(docker.runs(&proof.engine_image_id.0), "{kind}");
        assert_eq!(sink.missing(&image).await.unwrap().0, [false; 3], "{kind}");
    }
}

#[tokio::test]
async fn what_was_proven_is_confirmed_by_what_a_host_tells_of_it_at_once() {
    for kind in STORES {
        let (docker, sink) = engine(kind).await;
        let (image, _, blobs) = before_and_after();
        let host = fixture::MemorySource::default();
        host.insert("app:1", (image.clone(), blobs.clone()));
        let summary = host.resolve(&name("app:1")).await.unwrap();
        assert_eq!(sink.confirm(&summary).await.unwrap(), None, "{kind}");
        bring(&sink, &image, &store_of(&blobs).await, "app:1").await;
        let proof = sink.prove(&image).await.unwrap();
        assert!(proof.is_some(), "{kind}");
        assert_eq!(sink.confirm(&summary).await.unwrap(), proof, "{kind}");
        let untold = ImageSummary { target_digest: None, ..summary.clone() };
        assert_eq!(sink.confirm(&untold).await.unwrap(), proof, "{kind}");

        // The same config under another manifest is another image where manifests are kept.
        let anew = ImageSummary { target_digest: Some(fixture::unknown()), ..summary.clone() };
        let same = (kind == StoreKind::Graphdriver).then(|| proof.clone()).flatten();
        assert_eq!(sink.confirm(&anew).await.unwrap(), same, "{kind}");
        docker.remove(&name("app:1"));
        assert_eq!(sink.confirm(&summary).await.unwrap(), None, "{kind}: it is gone");
    }
}

#[tokio::test]
async fn an_image_that_was_published_under_an_index_has_its_digest() {
    for kind in STORES {
        let (docker, sink) = engine(kind).await;
        let (image, _, blobs) = before_and_after();
        let size = image.manifest.len();
        let child = |digest: Digest, architecture: &str| {
            serde_json::json!({
                "mediaType": MediaType::MANIFEST, "digest": digest, "size": size,
                "platform": { "os": "linux", "architecture": architecture },
            })
        };
        let children = [child(fixture::unknown(), "s390x"), child(image.manifest_digest, "amd64")];
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": children,
        });
        let mut image = image.under(index.to_string().into()).unwrap();
        image.platform = Platform::host();
        bring(&sink, &image, &store_of(&blobs).await, "app:1").await;
        let expected = match kind {
            StoreKind::Graphdriver => image.config_digest.0,
            StoreKind::Containerd => image.target_digest(),
        };
        assert_eq!(docker.named(&name("app:1")), Some(expected), "{kind}");
        assert_eq!(sink.prove(&image).await.unwrap().unwrap().engine_image_id.0, expected);
        assert_eq!(sink.missing(&image).await.unwrap().0, [false; 3], "{kind}");
        let held = sink.images().await.unwrap();
        assert_eq!(held[0].config_digest, Some(image.config_digest), "{kind}");
    }
}

#[tokio::test]
async fn a_new_top_layer_is_all_that_moves() {
    for kind in STORES {
        let (docker, sink) = engine(kind).await;
        let (before, after, blobs) = before_and_after();
        let store = store_of(&blobs).await;
        bring(&sink, &before, &store, "app:1").await;
        assert_eq!(bring(&sink, &after, &store, "app:1").await.0, [false, false, true], "{kind}");
        let sent = docker.loads().pop().unwrap();
        assert_eq!(sent.len(), 5 + 1, "{kind}: {sent:?}");
    }
}

#[tokio::test]
async fn what_was_learnt_lets_a_new_process_be_thin_too() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let docker = FakeDocker::start(StoreKind::Containerd);
    let (before, after, blobs) = before_and_after();
    let store = store_of(&blobs).await;
    let sink = DockerSink::new(docker.connect().await).with_journal(&journal);
    bring(&sink, &before, &store, "app:1").await;
    let sink = DockerSink::new(docker.connect().await).with_journal(&journal);
    assert_eq!(sink.missing(&after).await.unwrap().0, [false, false, true]);
    // Without it the engine does not tell of what its manifests consist: more bytes, no more.
    let sink = DockerSink::new(docker.connect().await);
    assert_eq!(sink.missing(&after).await.unwrap(), Missing::all(&after));
    // Proving what is there teaches it again.
    sink.prove(&before).await.unwrap().unwrap();
    assert_eq!(sink.missing(&after).await.unwrap().0, [false, false, true]);
}

#[tokio::test]
async fn only_a_prefix_is_left_out_on_a_graphdriver_and_any_blob_on_containerd() {
    for (kind, expected) in STORES.into_iter().zip([[true, true, true], [true, false, false]]) {
        let (_docker, sink) = engine(kind).await;
        let (known, _, blobs) = before_and_after();
        let store = store_of(&blobs).await;
        bring(&sink, &known, &store, "known").await;
        let (fresh, _) = fixture::image(9, &[50]);
        let image = crate::image_of(&[&fresh.layers[..], &known.layers[1..]].concat());
        assert_eq!(sink.missing(&image).await.unwrap().0, expected, "{kind}");
    }
}

#[tokio::test]
async fn a_base_that_goes_away_is_found_and_the_old_tag_keeps_running() {
    for kind in STORES {
        let (docker, sink) = engine(kind).await;
        let (before, after, blobs) = before_and_after();
        let store = store_of(&blobs).await;
        let (good, good_blobs) = fixture::image(5, &[777]);
        docker.add(&good, &good_blobs, &name("app:1"));
        bring(&sink, &before, &store, "base").await;
        let old = docker.named(&name("app:1")).unwrap();

        let missing = sink.missing(&after).await.unwrap();
        docker.fault(Fault::LoseBeforeLoad(before.layers[0].blob.digest));
        let error = sink.load(&opened(&after, &store), &missing).await.unwrap_err();
        assert!(matches!(error, LoadError::Refused { .. }), "{kind}: {error:?}");
        assert_eq!(sink.prove(&after).await.unwrap(), None, "{kind}");
        assert_eq!(docker.named(&name("app:1")), Some(old), "{kind}");
        assert!(docker.runs(&old), "{kind}");

        // Healed by the full set.
        sink.load(&opened(&after, &store), &Missing::all(&after)).await.unwrap();
        assert!(sink.prove(&after).await.unwrap().is_some(), "{kind}");
    }
}

#[tokio::test]
async fn what_a_failed_load_leaves_is_removed_and_what_has_a_name_stays() {
    for kind in STORES {
        let (docker, sink) = engine(kind).await;
        let (image, _, blobs) = before_and_after();
        let store = store_of(&blobs).await;
        let id = match kind {
            StoreKind::Graphdriver => image.config_digest.0,
            StoreKind::Containerd => image.manifest_digest,
        };
        sink.load(&opened(&image, &store), &Missing::all(&image)).await.unwrap();
        assert!(docker.knows(&id), "{kind}");
        sink.discard(&image).await.unwrap();
        assert!(!docker.knows(&id), "{kind}");
        sink.discard(&image).await.unwrap();
        bring(&sink, &image, &store, "app:1").await;
        sink.discard(&image).await.unwrap();
        assert!(docker.runs(&id), "{kind}");
    }
}

#[tokio::test]
async fn an_engine_that_does_not_tell_of_its_manifests_proves_nothing() {
    let (docker, sink) = engine(StoreKind::Containerd).await;
    let (image, _, blobs) = before_and_after();
    let store = store_of(&blobs).await;
    docker.fault(Fault::NoManifests);
    sink.load(&opened(&image, &store), &Missing::all(&image)).await.unwrap();
    assert_eq!(sink.prove(&image).await.unwrap(), None);
    assert_eq!(sink.missing(&image).await.unwrap(), Missing::all(&image));
}

#[tokio::test]
async fn failures_of_a_load_are_told_apart() {
    for kind in STORES {
        let (docker, sink) = engine(kind).await;
        let (image, _, blobs) = before_and_after();
        let store = store_of(&blobs).await;
        let missing = Missing::all(&image);

        docker.fault(Fault::RefuseLoad("write /x: no space left on device".into()));
        let error = sink.load(&opened(&image, &store), &missing).await.unwrap_err();
        assert!(matches!(error, LoadError::NoSpace { .. }), "{kind}: {error:?}");

        docker.fault(Fault::HangUp);
        let error = sink.load(&opened(&image, &store), &missing).await.unwrap_err();
        assert!(matches!(error, LoadError::Unavailable { .. }), "{kind}: {error:?}");

        docker.fault(Fault::Broken);
        let error = sink.load(&opened(&image, &store), &missing).await.unwrap_err();
        assert!(matches!(error, LoadError::Refused { .. }), "{kind}: {error:?}");

        docker.fault(Fault::None);
        let empty = MemoryStore::default();
        let error = sink.load(&opened(&image, &empty), &missing).await.unwrap_err();
        assert!(matches!(error, LoadError::Source(_)), "{kind}: {error:?}");
        assert_eq!(docker.loads().len(), 1, "{kind}: a half archive was taken for a whole one");
    }
}

#[tokio::test]
async fn a_graphdriver_hashes_by_itself() {
    let (docker, sink) = engine(StoreKind::Graphdriver).await;
    what_the_engine_refuses_is_read_again_verified(&sink).await;
    // One that it refused each time, and the good one; what broke off is none.
    assert_eq!(docker.loads().len(), 3);
}

#[tokio::test]
async fn a_report_tells_what_is_held_under_which_name_and_whether_it_is_whole() {
    for kind in STORES {
        let (docker, sink) = engine(kind).await;
        let (image, _, blobs) = before_and_after();
        let store = store_of(&blobs).await;
        assert_eq!(sink.images().await.unwrap(), [], "{kind}");
        bring(&sink, &image, &store, "app:1").await;
        let held = sink.images().await.unwrap().pop().unwrap();
        assert_eq!(held.references, [name("app:1")], "{kind}");
        assert_eq!(held.config_digest, Some(image.config_digest), "{kind}");
        assert!(held.proven, "{kind}");
        if kind == StoreKind::Containerd {
            docker.lose(&image.layers[0].blob.digest);
            assert!(!sink.images().await.unwrap()[0].proven, "a lost blob went unnoticed");
        }
    }
}

#[tokio::test]
async fn a_frozen_engine_is_found_within_a_minute() {
    let (docker, sink) = engine(StoreKind::Graphdriver).await;
    let (image, _, blobs) = before_and_after();
    let store = store_of(&blobs).await;
    docker.fault(Fault::Freeze);
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let error = sink.load(&opened(&image, &store), &Missing::all(&image)).await.unwrap_err();
    assert!(matches!(error, LoadError::Unavailable { .. }), "{error:?}");
    assert!(begun.elapsed().as_secs() <= 60, "{:?}", begun.elapsed());
}
