//! A range's agent and a host's operator over the wire.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use control::admin::{NewRange, Pruning, RangeChange, RangeWants};
use control::lending::AllImages;
use control::range::{
    ControlError, ImageCheck, ImagePlan, LastSync, RangeImage, RangeStatus, Reach, SyncEvent,
    SyncSummary, VerifyEvent, VerifySummary,
};
use control::{Caller, HostAdmin as _, RangeControl, RangeName, WantedSet};
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use proto::server::{Health, RANGE_SERVICES, Services};
use proto::{AdminClient, RangeClient, RemoteError};
use transfer::event::{EventKind, ImageReport};
use transfer::fixture::MemorySource;
use transfer::{
    ConfigDigest, Digest, EngineImageId, EngineInfo, Event, Outcome, Reference, Stage, StoreKind,
};

use crate::pipe::{Idle, NARROW, Served, busy_range, library, moving, services, wanted};

/// A range that sends prepared messages.
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
        wanted: 3,
        in_step: true,
        last_sync: Some(LastSync {
            finished: UNIX_EPOCH + Duration::from_secs(9),
            error: Some("python:3: not on the host".into()),
        }),
        engine_restarts: 4,
        lacking: vec!["python:3 was removed from the range's engine".into()],
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

    async fn plan(
        &self,
        _: &Caller,
        asked: Vec<Reference>,
    ) -> Result<Vec<ImagePlan>, ControlError> {
        Ok(asked.into_iter().zip(0..).map(|(reference, n)| plan(reference, n)).collect())
    }

    async fn verify(
        &self,
        _caller: &Caller,
        references: Vec<Reference>,
        deep: bool,
    ) -> Result<BoxStream<'static, VerifyEvent>, ControlError> {
        Ok(stream::iter(checks(references, deep)).boxed())
    }

    async fn status(&self, _caller: &Caller) -> RangeStatus {
        status()
    }
}

/// Every other image fails.
fn plan(reference: Reference, n: u64) -> ImagePlan {
    if n % 2 == 1 {
        return ImagePlan::failed(reference, "not on the host".into());
    }
    ImagePlan {
        reference,
        config_digest: Some(ConfigDigest(Digest::of(b"config"))),
        bytes_to_move: n,
        bytes_saved: n + 1,
        already_there: n == 0,
        error: None,
    }
}

/// One image that is well and one that is not there for each name, and the sum.
fn checks(references: Vec<Reference>, deep: bool) -> Vec<VerifyEvent> {
    let mut summary = VerifySummary { duration: Duration::from_secs(3), ..Default::default() };
    let mut checks = Vec::new();
    for reference in references {
        let well = ImageCheck {
            reference: None,
            engine_image_id: Some(EngineImageId(Digest::of(b"image"))),
            proven: true,
            files: if deep { 10 } else { 0 },
            bytes_read: 20,
            ..ImageCheck::default()
        };
        let mut absent = ImageCheck { reference: Some(reference), ..ImageCheck::default() };
        for n in 0..150 {
            absent.problem(format!("/etc/file-{n} is another"));
        }
        checks.extend([well, absent]);
    }
    checks.iter().for_each(|check| summary.add(check));
    let finished = VerifyEvent::Finished(summary);
    checks.into_iter().map(VerifyEvent::Checked).chain([finished]).collect()
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
        Stage::Wait,
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
async fn a_range_tells_what_it_lacks() {
    let (_served, client) = serve(Arc::default()).await;
    let asked: Vec<Reference> = ["a:1", "b:2", "c:3"].map(|name| name.parse().unwrap()).into();
    let expected: Vec<_> = asked.iter().cloned().zip(0..).map(|(a, n)| plan(a, n)).collect();
    assert_eq!(client.plan(&asked).await.unwrap(), expected);
    match client.plan(&[]).await {
        Err(RemoteError::Refused { reason, .. }) => assert_eq!(reason, "INVALID_ARGUMENT"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_range_tells_what_is_wrong_with_its_images() {
    let (_served, client) = serve(Arc::default()).await;
    for (asked, deep) in [(vec![], false), (vec!["a:1".parse().unwrap()], true)] {
        let told = client.verify(&asked, deep).await.unwrap();
        let told: Vec<VerifyEvent> = told.try_collect().await.unwrap();
        assert_eq!(told, checks(asked, deep));
        let Some(VerifyEvent::Finished(summary)) = told.last() else { panic!("{told:?}") };
        assert_eq!((summary.images, summary.failed), if deep { (2, 1) } else { (0, 0) });
    }
}

#[tokio::test]
async fn an_inspector_of_a_range_causes_no_work() {
    let health = Health::not_serving(&RANGE_SERVICES).await;
    let control: Arc<Scripted> = Arc::default();
    let served = Served::new(Services::of_range(Caller::Inspector, control, &health), NARROW);
    let client = RangeClient::new(served.endpoint());
    let asked = ["a".parse().unwrap()];
    let refused = [
        client.sync(&asked).await.map(drop),
        client.plan(&asked).await.map(drop),
        client.verify(&[], false).await.map(drop),
    ];
    for answer in refused {
        match answer {
            Err(RemoteError::Refused { reason, .. }) => assert_eq!(reason, "NOT_ALLOWED"),
            other => panic!("{other:?}"),
        }
    }
    client.status().await.unwrap();
}

#[tokio::test]
async fn an_operator_adds_and_removes_ranges() {
    let library = library(Arc::new(MemorySource::default()), Arc::new(AllImages));
    let served = Served::new(services(Caller::Admin, library).await, NARROW);
    let admin = AdminClient::new(served.endpoint());
    let new = NewRange {
        wanted: wanted(),
        grants: vec!["team/*".parse().unwrap()],
        ..NewRange::named("lab-1".parse().unwrap())
    };
    let range = admin.add_range(&new).await.unwrap();
    assert_eq!(range.socket_path.to_str(), Some("/run/ranges/lab-1/host.sock"));
    assert_eq!((range.wanted.references, range.tcp_endpoint), (new.wanted.clone(), None));
    assert_eq!(range.grants, new.grants);
    let at = |address: &str| NewRange { tcp: Some(address.parse().unwrap()), ..new.clone() };
    let remote = admin.add_range(&at("[::1]:40123")).await.unwrap();
    assert_eq!(remote.tcp_endpoint, Some("[::1]:40123".parse().unwrap()));
    match admin.add_range(&at("10.0.0.1:0")).await {
        Err(RemoteError::Refused { reason, .. }) => assert_eq!(reason, "REMOTE_NOT_ALLOWED"),
        other => panic!("{other:?}"),
    }
    assert_eq!(admin.ranges().await.unwrap(), [0, 1, 2].map(busy_range));
    assert_eq!(admin.verify_store().await.unwrap().quarantined, [Digest::of(b"bad")]);
    match admin.remove_range(&"lab-2".parse().unwrap()).await {
        Err(RemoteError::Refused { reason, source, .. }) => {
            assert_eq!(reason, "RANGE_NOT_FOUND");
            assert_eq!(source.to_string(), "there is no range lab-2");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_operator_says_what_a_range_is_to_have() {
    let library = library(Arc::new(MemorySource::default()), Arc::new(AllImages));
    let served = Served::new(services(Caller::Admin, library).await, NARROW);
    let admin = AdminClient::new(served.endpoint());
    let known: RangeName = "lab-1".parse().unwrap();
    let set = admin.set_wanted(&known, &wanted(), None).await.unwrap();
    assert_eq!(set, WantedSet { references: wanted(), revision: 7, round: 70 });
    let wants = admin.wanted(&known).await.unwrap();
    assert_eq!(wants, RangeWants { wanted: set, grants: vec!["team/*".parse().unwrap()] });
    let changed = admin.update_wanted(&known, Vec::clear).await.unwrap();
    assert_eq!((changed.references, changed.revision), (vec![], 7));
    assert_eq!(admin.set_grants(&known, &wants.grants).await.unwrap(), wants.grants);
    assert_eq!(admin.sync_range(&known).await.unwrap(), 71);
    let unknown = "lab-2".parse().unwrap();
    for (answer, reason) in [
        (admin.set_wanted(&unknown, &[], None).await.map(drop), "RANGE_NOT_FOUND"),
        (admin.wanted(&unknown).await.map(drop), "RANGE_NOT_FOUND"),
        (admin.set_wanted(&known, &[], Some(6)).await.map(drop), "REVISION"),
    ] {
        assert_eq!(answer.unwrap_err().reason(), reason);
    }
}

#[tokio::test]
async fn an_operator_watches_plans_and_verifies_ranges() {
    let library = library(Arc::new(MemorySource::default()), Arc::new(AllImages));
    let served = Served::new(services(Caller::Admin, library).await, NARROW);
    let admin = AdminClient::new(served.endpoint());
    let (known, unknown): (RangeName, RangeName) =
        ("lab-1".parse().unwrap(), "lab-2".parse().unwrap());
    let changes = admin.watch_ranges(std::slice::from_ref(&unknown)).await.unwrap();
    let changes: Vec<_> = changes.collect().await;
    let [Ok(RangeChange::Now(range)), Ok(RangeChange::Removed(removed)), Err(ending)] =
        changes.as_slice()
    else {
        panic!("{changes:?}")
    };
    assert_eq!((&**range, removed), (&busy_range(1), &unknown));
    assert!(matches!(ending, RemoteError::Unavailable { .. }), "{ending:?}");

    let plans = admin.plan_range(&known, &wanted()).await.unwrap();
    let planned: Vec<_> = plans.into_iter().map(|plan| plan.reference).collect();
    assert_eq!(planned, wanted());
    let away = admin.plan_range(&unknown, &wanted()).await.unwrap_err();
    assert!(transfer::explain(&away).contains("the agent of range lab-2 is not attached"));

    let events = admin.verify_range(&known, &[], true).await.unwrap();
    let events: Vec<_> = events.collect().await;
    let [Ok(VerifyEvent::Checked(check)), Err(broken)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert!(check.proven);
    assert!(transfer::explain(broken).contains("it went away"), "{broken:?}");
}

#[tokio::test]
async fn an_operator_sees_what_moves_and_how_full_the_store_is() {
    let library = library(Arc::new(MemorySource::default()), Arc::new(AllImages));
    let served = Served::new(services(Caller::Admin, library).await, NARROW);
    let admin = AdminClient::new(served.endpoint());
    assert_eq!(admin.transfers().await.unwrap(), moving());
    assert_eq!(admin.stats().await.unwrap(), Idle.stats(&Caller::Admin).await);
    for pruning in [
        Pruning { target: None, dry_run: false },
        Pruning { target: Some(0), dry_run: true },
        Pruning { target: Some(1 << 40), dry_run: false },
    ] {
        let expected = Idle.prune(&Caller::Admin, pruning).await.unwrap();
        assert_eq!(admin.prune(pruning).await.unwrap(), expected, "{pruning:?}");
    }
}
