//! A range's agent and a host's operator over the wire.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use proto::control::{ControlError, RangeImage, RangeStatus, Reach, SyncEvent, SyncSummary};
use proto::library::AllImages;
use proto::server::{Health, RANGE_SERVICES, Services};
use proto::{AdminClient, Caller, RangeClient, RangeControl, RemoteError};
use transfer::event::{EventKind, ImageReport};
use transfer::fixture::MemorySource;
use transfer::{
    ConfigDigest, Digest, EngineImageId, EngineInfo, Event, Outcome, Reference, Stage, StoreKind,
};

use crate::pipe::{NARROW, Served, library, services};

/// A range that tells what it was told to tell.
#[derive(Default)]
struct Scripted {
    events: Vec<SyncEvent>,
    images: Vec<RangeImage>,
    asked: Mutex<Vec<Reference>>,
    busy: bool,
}

fn status() -> RangeStatus {
    RangeStatus {
        agent_version: "1.2.3".into(),
        uptime: Duration::from_millis(1500),
        engine: Reach::Up(EngineInfo {
            engine: "docker 28.5.2".into(),
            store: StoreKind::Containerd,
            driver: "overlayfs".into(),
            id: "abc".into(),
        }),
        host: Reach::Down("no answer".into()),
        syncs: 2,
        peak_rss_bytes: 1 << 20,
    }
}

#[async_trait]
impl RangeControl for Scripted {
    async fn sync(
        &self,
        _caller: &Caller,
        references: Vec<Reference>,
    ) -> Result<BoxStream<'static, SyncEvent>, ControlError> {
        if self.busy {
            return Err(ControlError::Busy { limit: 1 });
        }
        *self.asked.lock().unwrap() = references;
        Ok(stream::iter(self.events.clone()).boxed())
    }

    async fn images(&self, _caller: &Caller) -> Result<Vec<RangeImage>, ControlError> {
        Ok(self.images.clone())
    }

    async fn status(&self, _caller: &Caller) -> RangeStatus {
        status()
    }
}

async fn serve(control: Arc<Scripted>) -> (Served, RangeClient) {
    let health = Health::not_serving(&RANGE_SERVICES).await;
    let served = Served::new(Services::of_range(Caller::Admin, control, &health), NARROW);
    let client = RangeClient::new(served.endpoint());
    (served, client)
}

fn events() -> Vec<SyncEvent> {
    let reference: Reference = "python:3".parse().unwrap();
    let report = ImageReport {
        reference: reference.clone(),
        config_digest: Some(ConfigDigest(Digest::of(b"config"))),
        engine_image_id: None,
        outcome: Outcome::Failed,
        proven: false,
        bytes_moved: 5,
        bytes_saved: 6,
        stages: vec![(Stage::Resolve, 0.25), (Stage::Tag, 1.5)],
        error: Some("the engine refused the image".into()),
    };
    let stages = [
        Stage::Resolve,
        Stage::Export,
        Stage::Plan,
        Stage::Load,
        Stage::Heal,
        Stage::Prove,
        Stage::Tag,
    ];
    let kinds = stages.into_iter().map(EventKind::Entered).chain([
        EventKind::Planned { bytes_to_move: 1, bytes_saved: 2 },
        EventKind::Moved { bytes_moved: 3 },
        EventKind::Done(report),
    ]);
    let summary = SyncSummary { failed: 1, duration: Duration::from_secs(2), ..Default::default() };
    kinds
        .map(|kind| SyncEvent::Image(Event { reference: reference.clone(), kind }))
        .chain([SyncEvent::Finished(summary)])
        .collect()
}

#[tokio::test]
async fn a_sync_tells_what_happened_in_order() {
    let control = Arc::new(Scripted { events: events(), ..Scripted::default() });
    let (_served, client) = serve(control.clone()).await;
    let wanted: Vec<Reference> = vec!["python:3".parse().unwrap(), "a/b:c".parse().unwrap()];
    let told: Vec<_> = client.sync(&wanted).await.unwrap().try_collect().await.unwrap();
    assert_eq!(told, events());
    assert_eq!(*control.asked.lock().unwrap(), wanted);
}

#[tokio::test]
async fn a_sync_of_nothing_or_of_too_much_is_refused() {
    let (_served, client) = serve(Arc::default()).await;
    for count in [0, 1001] {
        let wanted: Vec<_> = (0..count).map(|n| format!("a:{n}").parse().unwrap()).collect();
        match client.sync(&wanted).await.map(drop) {
            Err(RemoteError::Refused { reason, .. }) => assert_eq!(reason, "INVALID_ARGUMENT"),
            other => panic!("{count} references: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_range_is_asked_again_and_then_said_to_be_busy() {
    let (_served, client) = serve(Arc::new(Scripted { busy: true, ..Scripted::default() })).await;
    match client.sync(&["a".parse().unwrap()]).await.map(drop) {
        Err(RemoteError::Refused { reason, .. }) => assert_eq!(reason, "BUSY"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_range_tells_its_images_and_its_status() {
    let mut images: Vec<_> = (0..250_u32)
        .map(|n| RangeImage {
            references: (0..n % 3).map(|tag| format!("i{n}:{tag}").parse().unwrap()).collect(),
            config_digest: (n % 2 == 0).then(|| ConfigDigest(Digest::of(&n.to_le_bytes()))),
            engine_image_id: EngineImageId(Digest::of(&n.to_be_bytes())),
            proven: n % 2 == 0,
        })
        .collect();
    images.sort_by_key(|image| image.engine_image_id);
    let (_served, client) =
        serve(Arc::new(Scripted { images: images.clone(), ..Scripted::default() })).await;
    assert_eq!(client.images().await.unwrap(), images);
    assert_eq!(client.status().await.unwrap(), status());
}

#[tokio::test]
async fn an_operator_adds_and_removes_ranges() {
    let library = library(Arc::new(MemorySource::default()), Arc::new(AllImages));
    let served = Served::new(services(Caller::Admin, library).await, NARROW);
    let admin = AdminClient::new(served.endpoint());
    let range = admin.add_range(&"lab-1".parse().unwrap()).await.unwrap();
    assert_eq!(range.socket_path.to_str(), Some("/run/ranges/lab-1/host.sock"));
    assert_eq!(admin.ranges().await.unwrap(), []);
    assert_eq!(admin.verify_store().await.unwrap().quarantined, [Digest::of(b"bad")]);
    match admin.remove_range(&"lab-2".parse().unwrap()).await {
        Err(RemoteError::Refused { reason, source, .. }) => {
            assert_eq!(reason, "RANGE_NOT_FOUND");
            assert_eq!(source.to_string(), "there is no range lab-2");
        }
        other => panic!("{other:?}"),
    }
}
