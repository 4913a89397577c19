//! Removal of ranges, without an engine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use control::Caller;
use control::range::{
    ControlError, ImagePlan, RangeControl, RangeImage, RangeStatus, SyncEvent, VerifyEvent,
};
use futures::FutureExt as _;
use futures::stream::BoxStream;
use proto::server::{HOST_SERVICES, Health};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};

use super::*;

/// Stands for the services, which no test calls here.
struct Nothing;

#[async_trait]
impl RangeControl for Nothing {
    async fn sync(
        &self,
        _: &Caller,
        _: Vec<Reference>,
    ) -> Result<BoxStream<'static, SyncEvent>, ControlError> {
        unreachable!("nobody calls")
    }

    async fn images(&self, _: &Caller) -> Result<Vec<RangeImage>, ControlError> {
        unreachable!("nobody calls")
    }

    async fn plan(&self, _: &Caller, _: Vec<Reference>) -> Result<Vec<ImagePlan>, ControlError> {
        unreachable!("nobody calls")
    }

    async fn verify(
        &self,
        _: &Caller,
        _: Vec<Reference>,
        _: bool,
    ) -> Result<BoxStream<'static, VerifyEvent>, ControlError> {
        unreachable!("nobody calls")
    }

    async fn status(&self, _: &Caller) -> RangeStatus {
        unreachable!("nobody calls")
    }
}

/// A range that is served on both of its listeners, and has filled its folder.
async fn served() -> (Ranges, RangeName, ServedRange, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let name: RangeName = "lab-1".parse().unwrap();
    let ranges = Ranges::new(state.clone(), Grants::default(), CancellationToken::new(), false);
    let range = add(&ranges, &name).await;
    let deep = state.range(&name).join("agent/a/b/c");
    std::fs::create_dir_all(&deep).unwrap();
    for number in 0..100 {
        std::fs::write(deep.join(number.to_string()), "").unwrap();
    }
    (ranges, name, range, folder)
}

async fn add(ranges: &Ranges, name: &RangeName) -> ServedRange {
    let health = Health::not_serving(&HOST_SERVICES).await;
    let services = Services::of_range(Caller::Range(name.clone()), Arc::new(Nothing), &health);
    let any_port = "127.0.0.1:0".parse().unwrap();
    let range = NewRange { tcp: Some(any_port), ..NewRange::named(name.clone()) };
    ranges.add(range, services).await.unwrap()
}

#[tokio::test]
async fn a_removal_goes_on_when_who_asked_for_it_goes_away() {
    let (ranges, name, range, folder) = served().await;
    let ended = Arc::new(AtomicBool::default());
    let tell = ended.clone();
    let removal = ranges.remove(&name, move || tell.store(true, Ordering::Relaxed));
    assert!(removal.now_or_never().is_none(), "it was not cut short");

    tokio::time::timeout(Duration::from_secs(60), ranges.finish()).await.unwrap();
    assert!(ended.load(Ordering::Relaxed));
    assert_eq!(ranges.list().await, []);
    assert!(TcpStream::connect(range.tcp_endpoint.unwrap()).await.is_err());
    assert_eq!(std::fs::read_dir(folder.path().join("ranges")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_range_that_is_removed_may_be_added_again_at_once() {
    let (ranges, name, before, folder) = served().await;
    for _ in 0..3 {
        ranges.remove(&name, || {}).await.unwrap();
        assert!(!folder.path().join("ranges/lab-1").exists());
        let error = ranges.remove(&name, || {}).await.unwrap_err();
        assert!(matches!(error, AdminError::UnknownRange { .. }), "{error:?}");
        let range = add(&ranges, &name).await;
        UnixStream::connect(&range.socket_path).await.unwrap();
    }
    ranges.remove(&name, || {}).await.unwrap();
    assert!(TcpStream::connect(before.tcp_endpoint.unwrap()).await.is_err());
    ranges.finish().await;
    assert_eq!(std::fs::read_dir(folder.path().join("ranges")).unwrap().count(), 0);
}
