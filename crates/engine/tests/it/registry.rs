//! The registry as other clients read it, and an engine that pulls from us.

use std::process::{Command, Stdio};
use std::sync::Arc;

use engine::docker::LoadWay;
use engine::{DockerSink, Loopback, OciLayout, Registry};
use tokio_util::task::AbortOnDropHandle;
use transfer::fixture::{self, Faulty, MemorySource};
use transfer::{BlobError, Digest, ImageSink, ImageSource, LayerForm, LoadError, Missing};

use crate::real::host;
use crate::sink::bring;
use crate::{before_and_after, name, opened, store_of};

/// Runs skopeo with words that are parted by spaces; what it printed.
async fn skopeo(words: String) -> Result<Vec<u8>, String> {
    let run = move || {
        let output = Command::new("skopeo")
            .arg("--insecure-policy")
            .args(words.split(' '))
            .stdin(Stdio::null())
            .output()
            .expect("skopeo is on this machine; cargo xtask test installs it");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(output.stdout) } else { Err(errors) }
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs skopeo: cargo xtask test runs it"]
async fn skopeo_reads_our_registry_and_cannot_write_to_it() {
    let (image, blobs) = fixture::image(1, &[10_000, 3_000_000]);
    let source = MemorySource::default();
    source.insert("quay.io/team/app:1", (image.clone(), blobs.clone()));
    source.insert("app:2", (image.clone(), blobs));
    let registry = Registry::of_source(Loopback::port(0), Arc::new(source)).await.unwrap();
    let address = registry.address();
    let _served = AbortOnDropHandle::new(tokio::spawn(registry.serve(std::future::pending())));
    let plain = "--tls-verify=false";

    let app = format!("docker://{address}/quay.io/team/app");
    let raw = skopeo(format!("inspect --raw {plain} {app}:1")).await.unwrap();
    assert_eq!(Digest::of(&raw), image.manifest_digest);
    let pinned = format!("{app}@{}", image.manifest_digest);
    let raw = skopeo(format!("inspect --raw {plain} {pinned}")).await.unwrap();
    assert_eq!(raw, image.manifest);
    let tags = skopeo(format!("list-tags {plain} docker://{address}/app")).await.unwrap();
    let tags: serde_json::Value = serde_json::from_slice(&tags).unwrap();
    assert_eq!(tags["Tags"], serde_json::json!(["2"]));

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    let target = format!("oci:{}:app:1", copy.display());
    skopeo(format!("copy --src-tls-verify=false {app}:1 {target}")).await.unwrap();
    let copied = OciLayout::open(&copy).await.unwrap();
    let summary = copied.resolve(&name("app:1")).await.unwrap();
    let copied =
        copied.open(&summary.config_digest.into(), LayerForm::AsStored).await.unwrap().image;
    assert_eq!(copied.config_digest, image.config_digest);
    assert!(copied.diff_ids().eq(image.diff_ids()));

    let missing = skopeo(format!("inspect --raw {plain} {app}:none")).await.unwrap_err();
    assert!(missing.contains("manifest unknown"), "{missing}");
    let push = format!("copy --dest-tls-verify=false {target} {app}:3");
    assert!(skopeo(push).await.is_err(), "something was written");
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_an_engine_pulls_what_it_is_to_load() {
    let docker = host().await;
    let sink = DockerSink::new(docker.clone()).with_way(LoadWay::Registry, None);
    let (image, other, blobs) = before_and_after();
    let store = store_of(&blobs).await;
    let tags = ["longshore-test/pulled:1", "longshore-test/pulled:2"];

    // It has no name of anybody's before its proof, and only the one that it is given after it.
    sink.load(&opened(&image, &store), &Missing::all(&image)).await.unwrap();
    let proof = sink.prove(&image).await.unwrap().expect("a pull is proven as a load is");
    assert_eq!((proof.engine_image_id.0, proof.references), (image.config_digest.0, vec![]));
    sink.discard(&image).await.unwrap();
    assert_eq!(sink.prove(&image).await.unwrap(), None, "what nobody named is discarded");

    bring(&sink, &image, &store, tags[0]).await;
    bring(&sink, &other, &store, tags[1]).await;
    for (image, tag) in [(&image, tags[0]), (&other, tags[1])] {
        let proof = sink.prove(image).await.unwrap().unwrap();
        assert_eq!(proof.references, [name(tag)]);
        // Loaded again under its name, as a heal does.
        sink.load(&opened(image, &store), &Missing::all(image)).await.unwrap();
    }
    let names = names_of(&std::env::var("LONGSHORE_TEST_DOCKER").unwrap());
    for tag in tags {
        docker.remove_image(&name(tag)).await.unwrap();
    }
    assert!(!names.contains("127.0.0.1"), "{names}");
    assert!(names.contains("longshore-test/pulled"), "{names}");
    for image in [&image, &other] {
        assert_eq!(sink.prove(image).await.unwrap(), None, "the last name was ours");
    }
}

/// Every name that the engine has, with its digest.
fn names_of(host: &str) -> String {
    let format = "{{.Repository}}:{{.Tag}}@{{.Digest}}";
    let listed = Command::new("docker")
        .args(["--host", host, "images", "--all", "--digests", "--format", format])
        .output()
        .unwrap();
    String::from_utf8(listed.stdout).unwrap()
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_a_pull_of_a_blob_that_breaks_says_what_broke() {
    let docker = host().await;
    let sink = DockerSink::new(docker).with_way(LoadWay::Registry, None);
    let (image, blobs) = fixture::image(77, &[100, 2_500_000]);
    let store = store_of(&blobs).await;
    let layer = blobs[1].0.digest;
    let all = Missing::all(&image);

    let cut = Faulty::cut_off_at(store.clone(), 1_500_000);
    let error = sink.load(&opened(&image, &cut), &all).await.unwrap_err();
    let LoadError::Source(BlobError::Unavailable { digest, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(digest, layer);

    // One that does not notice what it gives: then the engine does.
    let corrupt = Faulty::corrupt_at(store.clone(), 1_500_000);
    let error = sink.load(&opened(&image, &corrupt), &all).await.unwrap_err();
    assert!(matches!(error, LoadError::Refused { .. }), "{error:?}");
    assert_eq!(sink.prove(&image).await.unwrap(), None);

    sink.load(&opened(&image, &store), &all).await.unwrap();
    assert!(sink.prove(&image).await.unwrap().is_some());
    sink.discard(&image).await.unwrap();
    assert_eq!(sink.prove(&image).await.unwrap(), None);
}
