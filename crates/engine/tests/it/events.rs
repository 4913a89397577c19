//! An engine's events, and a list that looks again only at images it does not know.

use engine::fixture::{FakeDocker, Fault};
use engine::{DockerSink, EngineError};
use futures::StreamExt as _;
use transfer::{StoreKind, fixture};

use crate::name;

#[tokio::test]
async fn each_change_of_a_name_is_an_event() {
    let docker = FakeDocker::start(StoreKind::Containerd);
    let engine = docker.connect().await;
    let (image, blobs) = fixture::image(1, &[10]);
    let mut events = engine.image_events().await.unwrap();
    docker.add(&image, &blobs, &name("app:1"));
    events.next().await.unwrap().unwrap();
    docker.remove(&name("app:1"));
    events.next().await.unwrap().unwrap();
    drop(docker);
    // Whatever a broken connection looks like, the stream ends.
    while let Some(Ok(())) = events.next().await {}
}

#[tokio::test]
async fn an_engine_that_refuses_events_is_an_error_and_no_end() {
    let docker = FakeDocker::start(StoreKind::Graphdriver);
    let engine = docker.connect().await;
    docker.fault(Fault::Broken);
    let refused = engine.image_events().await.err();
    assert!(matches!(refused, Some(EngineError::Refused { status: 500, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_second_list_inspects_only_images_that_are_new() {
    for kind in [StoreKind::Graphdriver, StoreKind::Containerd] {
        let docker = FakeDocker::start(kind);
        let sink = DockerSink::new(docker.connect().await);
        let (image, blobs) = fixture::image(1, &[10]);
        docker.add(&image, &blobs, &name("app:1"));
        let first = sink.images().await.unwrap();
        assert_eq!(first[0].references, [name("app:1")], "{kind}");
        assert!(first[0].proven, "{kind}");

        docker.add(&image, &blobs, &name("app:2"));
        let (other, blobs) = fixture::image(2, &[20]);
        docker.add(&other, &blobs, &name("other:1"));
        let requests = docker.requests();
        let again = sink.images_since(&first).await.unwrap();
        // Who it is, the list, and the one image that is new.
        assert_eq!(docker.requests() - requests, 3, "{kind}");
        assert_eq!(again, sink.images().await.unwrap(), "{kind}");
        assert_eq!(again.len(), 2, "{kind}");
    }
}
