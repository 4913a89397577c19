//! Ranges as a host agent reports them, and scripted reports, for tests.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use control::admin::{RangeChange, ServedRange};
use control::link::{AgentStatus, Attachment, ImageState, ImageStatus, RangeState, WantedBy};
use control::range::Reach;
use control::{RangeName, WantedSet};
use futures::StreamExt as _;
use futures::stream;
use proto::client::{RangeChanges, RemoteError};
use transfer::{EngineInfo, Reference, StoreKind};

use crate::error::RangeError;
use crate::feed::Reports;
use crate::liveness::Check;

/// The name of the only range in these tests.
pub(crate) fn name() -> RangeName {
    "a".parse().unwrap()
}

pub(crate) fn references(names: &[&str]) -> Vec<Reference> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

pub(crate) fn engine() -> EngineInfo {
    EngineInfo {
        engine: "docker 28.5.2".to_owned(),
        store: StoreKind::Containerd,
        driver: "overlayfs".to_owned(),
        id: "x".to_owned(),
    }
}

/// An image that was looked at in a round.
pub(crate) fn image(reference: &str, state: ImageState, looked: Option<u64>) -> ImageStatus {
    let status = ImageStatus::pending(reference.parse().unwrap(), WantedBy::Host);
    ImageStatus { state, looked_round: looked, ..status }
}

pub(crate) fn failed(error: &str) -> ImageState {
    ImageState::Failed { error: error.to_owned(), is_permanent: false }
}

/// The range, attached and with its engine up.
pub(crate) fn range(wanted: &[&str], round: u64, images: &[ImageStatus]) -> ServedRange {
    let now = SystemTime::now();
    let agent = AgentStatus {
        version: "0".to_owned(),
        uptime: Duration::ZERO,
        engine: Reach::Up(engine()),
        engine_restarts: 2,
        peak_rss_bytes: 0,
    };
    let images = images.iter().map(|image| (image.reference.clone(), image.clone())).collect();
    ServedRange {
        name: name(),
        socket_path: "/s/a/host.sock".into(),
        connections: 1,
        tcp_endpoint: None,
        wanted: WantedSet { references: references(wanted), revision: 1, round },
        grants: Vec::new(),
        attachment: Attachment::Attached { since: now, last_seen: now },
        state: Some(RangeState { agent, images }),
    }
}

/// The range after its agent went away.
pub(crate) fn detached(range: ServedRange) -> ServedRange {
    ServedRange { attachment: Attachment::Detached { last_seen: SystemTime::now() }, ..range }
}

/// The end of one watch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// The host agent goes away.
    Broken,
    /// Nothing more happens.
    Open,
}

/// Watches that go as scripted, one after the other; then the host agent is away.
#[derive(Default)]
pub(crate) struct Script(Mutex<Vec<(Vec<RangeChange>, End)>>);

impl Script {
    /// Adds a watch with these states of the range.
    pub(crate) fn watch(self, states: Vec<ServedRange>, end: End) -> Self {
        let states = states.into_iter().map(|range| RangeChange::Now(Box::new(range))).collect();
        self.changes(states, end)
    }

    pub(crate) fn changes(self, changes: Vec<RangeChange>, end: End) -> Self {
        self.0.lock().unwrap().push((changes, end));
        self
    }

    /// Number of watches that nobody opened yet.
    pub(crate) fn left(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

fn away() -> RemoteError {
    let source = Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
    RemoteError::Unavailable { action: "watching", source }
}

#[async_trait]
impl Reports for Script {
    async fn watch(&self) -> Result<RangeChanges, RemoteError> {
        let mut script = self.0.lock().unwrap();
        if script.is_empty() {
            return Err(away());
        }
        let (changes, end) = script.remove(0);
        // Each state stays for a while, so that it is seen.
        let changes = stream::iter(changes).then(async |change| {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(change)
        });
        Ok(match end {
            End::Broken => changes.chain(stream::iter([Err(away())])).boxed(),
            End::Open => changes.chain(stream::pending()).boxed(),
        })
    }

    fn failed(&self, reason: String) -> RangeError {
        RangeError::task(&name(), "watching", reason)
    }
}

/// A container that runs, or one that ended.
pub(crate) struct Container {
    pub(crate) runs: bool,
}

#[async_trait]
impl Check for Container {
    async fn check(&mut self) -> Result<(), RangeError> {
        if self.runs { Ok(()) } else { Err(RangeError::Stopped { range: name() }) }
    }
}
