//! The containerd beneath an engine: where its socket may be, and whether it really is the engine's.
//!
//! A socket in a usual place can be another engine's: that of the host, beside an agent that speaks
//! to a range. So nothing is believed: an image of no layers and of a moment's life goes in, and
//! only where the engine shows it is the containerd its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as AsyncMutex;
use transfer::{Image, Platform};

use super::api::{self, Labels};
use super::blob::Content;
use super::client::{Containerd, Fault};
use super::error::IngestError;
use super::lease::{EXPIRES, Lease, later, once};
use super::record::{create, documents, target, unnamed};
use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::docker::load::watch::Progress;

/// Where an engine's containerd listens, seen from the folder of the engine's own socket: one that
/// the engine started, and the system's.
const BESIDE: [&str; 2] = ["docker/containerd/containerd.sock", "containerd/containerd.sock"];

/// The namespace of engines that do not tell theirs.
const NAMESPACE: &str = "moby";

/// How long a containerd that was not the engine's is not tried again.
const REST: Duration = Duration::from_secs(60);

/// How long the image that is looked for may live at most, when its maker is killed meanwhile.
const MOMENT: Duration = Duration::from_secs(600);

/// Why images cannot go straight into containerd.
#[derive(Debug, thiserror::Error)]
pub(in crate::docker) enum WayError {
    #[error("the engine keeps its images without containerd")]
    Graphdriver,
    #[error(
        "no containerd answers beneath the engine (looked at: {tried}): mount its socket where the \
         agent runs and name it with --containerd-socket, or load by another way"
    )]
    NoSocket { tried: String },
    #[error("the engine does not show what containerd at {path} holds: it is another engine's")]
    Stranger { path: String },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl WayError {
    /// Whether somebody is away who may be back.
    pub(super) fn is_absence(&self) -> bool {
        match self {
            Self::NoSocket { .. } | Self::Engine(_) => true,
            Self::Fault(fault) => fault.is_line(),
            Self::Graphdriver | Self::Stranger { .. } => false,
        }
    }
}

/// A containerd that is the engine's own.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) containerd: Containerd,
    /// What unpacks layers, by the engine's word.
    pub(super) snapshotter: String,
}

/// The search for it. It is done once; a containerd that broke off is looked for anew.
#[derive(Debug)]
pub(super) struct Search {
    docker: Docker,
    /// The only place to look at.
    named: Option<PathBuf>,
    /// One search at a time.
    searching: AsyncMutex<()>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    found: Option<Arc<Found>>,
    /// The stranger's socket, and when it was found to be one.
    stranger: Option<(PathBuf, Instant)>,
}

/// What the engine tells of the containerd beneath it.
struct Told {
    address: Option<PathBuf>,
    namespace: String,
    snapshotter: String,
}

impl Search {
    pub(super) fn new(docker: Docker, named: Option<PathBuf>) -> Self {
        Self { docker, named, searching: AsyncMutex::default(), last: Mutex::default() }
    }

    /// The engine's containerd.
    pub(super) async fn find(&self) -> Result<Arc<Found>, WayError> {
        let _searching = self.searching.lock().await;
        if let Some(found) = self.last().found.clone() {
            return Ok(found);
        }
        let told = self.ask().await?;
        let places = self.places(told.address.as_deref());
        let mut stranger = None;
        for path in &places {
            if !path.exists() {
                continue;
            }
            if self.is_stranger(path) {
                stranger = Some(path);
                continue;
            }
            let Some(containerd) = Containerd::new(path.clone(), &told.namespace) else { continue };
            match self.is_own(&containerd, &told.snapshotter).await {
                Ok(true) => {
                    let found = Found { containerd, snapshotter: told.snapshotter };
                    let found = Arc::new(found);
                    self.last().found = Some(found.clone());
                    return Ok(found);
                }
                Ok(false) => {
                    self.last().stranger = Some((path.clone(), Instant::now()));
                    stranger = Some(path);
                }
                Err(error) => {
                    let error = transfer::explain(&error);
                    tracing::debug!(path = %path.display(), error, "this containerd cannot be used");
                }
            }
        }
        Err(match stranger {
            Some(path) => WayError::Stranger { path: path.display().to_string() },
            None => {
                let tried: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
                WayError::NoSocket { tried: tried.join(", ") }
            }
        })
    }

    /// Looks for it anew the next time, unless somebody has already.
    pub(super) fn forget(&self, lost: &Arc<Found>) {
        let mut last = self.last();
        if last.found.as_ref().is_some_and(|found| Arc::ptr_eq(found, lost)) {
            last.found = None;
        }
    }

    async fn ask(&self) -> Result<Told, EngineError> {
        const ACTION: &str = "asking where its containerd is";
        let info = self.docker.call(ACTION, self.docker.client.info()).await?;
        let containerd = info.containerd.unwrap_or_default();
        let namespaces = containerd.namespaces.unwrap_or_default();
        Ok(Told {
            address: containerd.address.filter(|address| !address.is_empty()).map(PathBuf::from),
            namespace: namespaces.containers.unwrap_or_else(|| NAMESPACE.into()),
            snapshotter: info.driver.unwrap_or_default(),
        })
    }

    /// Where to look, the likeliest first.
    fn places(&self, told: Option<&Path>) -> Vec<PathBuf> {
        if let Some(named) = &self.named {
            return vec![named.clone()];
        }
        let folder = self.docker.http.socket().and_then(|socket| Path::new(socket).parent());
        let beside = folder.into_iter().flat_map(|folder| BESIDE.map(|place| folder.join(place)));
        let mut places: Vec<PathBuf> = beside.collect();
        if let Some(told) = told.filter(|told| !places.iter().any(|place| place == told)) {
            places.push(told.to_owned());
        }
        places
    }

    fn is_stranger(&self, path: &Path) -> bool {
        let last = self.last();
        last.stranger.as_ref().is_some_and(|(stranger, at)| stranger == path && at.elapsed() < REST)
    }

    /// Whether the engine shows what is put into this containerd.
    async fn is_own(&self, containerd: &Containerd, snapshotter: &str) -> Result<bool, WayError> {
        let sign = sign();
        let target = target(&sign);
        let lease = Lease::take(containerd, target.digest).await?;
        let progress = Progress::default();
        let content = Content { containerd, lease: &lease, progress: &progress };
        let shown = async {
            documents(content, &sign, snapshotter).await?;
            // One that nobody takes back goes by itself.
            let labels = Labels::from([(EXPIRES.into(), later(MOMENT))]);
            create(content, &target, labels).await?;
            Ok::<_, IngestError>(self.docker.inspect(&target.digest.to_string()).await)
        };
        let shown = shown.await;
        let name = api::RecordName { name: unnamed(&target) };
        let taken_back = containerd.tell(api::IMAGE_DELETE, None, name).await;
        let ended = lease.end().await;
        let shown = shown.map_err(|error| match error {
            IngestError::Way(fault) => WayError::Fault(fault),
            error => WayError::Fault(Fault::Odd(format!("could not take an image: {error}"))),
        });
        let shown = shown??.is_some();
        taken_back?;
        ended?;
        Ok(shown)
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An image without layers that was never there before.
fn sign() -> Image {
    let Platform { os, architecture, .. } = Platform::host();
    let config = serde_json::json!({
        "architecture": architecture, "os": os,
        "config": { "Labels": { "dev.longshore.sign": once() } },
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    Image::from_layers(config.to_string().into(), &[]).expect("invariant: a valid image")
}
