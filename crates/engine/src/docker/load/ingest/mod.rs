//! Straight into the containerd beneath an engine: blobs into its content store, layers into its
//! snapshots, and an image record without a name on top.
//!
//! ```text
//!   host ─► layer 2 ─► content ─┐
//!   host ─► layer 1 ─► content ─┼► unpack 0, 1, 2 … ─► image record ─► proof, name: the engine's API
//!           documents ► content ┘     under a lease      moby-dangling@<target>
//! ```
//! The engine reads these stores live. The record is what an engine itself makes of an archive
//! without names, so naming, discarding and pruning go on as after a `load`. Labels tell containerd's
//! collection what belongs to what, as after a `pull`; no registry's name is set, since none was
//! asked.

mod api;
mod blob;
mod client;
mod error;
mod find;
mod lease;
mod record;
mod turns;
mod unpack;

use std::future::ready;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{Semaphore, oneshot};
use tonic::Code;
use transfer::{BlobSource, Image, LoadError, Missing, StoreKind};

use self::api::Labels;
use self::blob::Content;
use self::client::Fault;
use self::error::IngestError;
pub(super) use self::find::WayError;
use self::find::{Found, Search};
use self::lease::Lease;
use self::record::{documents, record, target};
use self::turns::Turns;
use self::unpack::{UNCOMPRESSED, Unpacker};
use super::watch::{Progress, watched};
use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::docker::api::error::says_no_space;

const ACTION: &str = "bringing an image into its containerd";

/// Why a direct ingest did not end well.
#[derive(Debug, thiserror::Error)]
pub(super) enum Detour {
    /// It would not have by any other way.
    #[error(transparent)]
    Load(LoadError),
    /// Another way may lead there.
    #[error(transparent)]
    Way(WayError),
}

/// Brings images into the containerd beneath one engine.
#[derive(Debug)]
pub(super) struct Ingester {
    docker: Docker,
    search: Search,
    turns: Turns,
    /// Blobs that may come in at once, over all images: one keeps a core busy with its hash.
    lanes: Semaphore,
}

impl Ingester {
    /// Looks for the containerd beneath `docker` at `socket`, in the usual places when that is not
    /// given; not before the first image comes.
    pub(super) fn new(docker: Docker, socket: Option<PathBuf>) -> Self {
        let lanes = Semaphore::new(lanes());
        let search = Search::new(docker.clone(), socket);
        Self { docker, search, turns: Turns::default(), lanes }
    }

    /// Whether there is a containerd to go into.
    pub(super) async fn is_near(&self) -> bool {
        self.found().await.is_ok()
    }

    /// What the content store itself lacks of an image's layers; `None` where it cannot be asked.
    pub(super) async fn missing(&self, image: &Image) -> Option<Missing> {
        let found = self.found().await.ok()?;
        let layers = image.layers.iter();
        let asked = layers.map(|layer| Content::has(&found.containerd, &layer.blob.digest));
        let asked: Vec<_> = asked.collect();
        let present = stream::iter(asked).buffered(lanes()).try_collect::<Vec<bool>>().await;
        match present {
            Ok(present) => Some(Missing(present.into_iter().map(|present| !present).collect())),
            Err(fault) => {
                tracing::debug!(%fault, "the content store does not tell what it has");
                None
            }
        }
    }

    /// Brings `image` in without a name. What is there already is not read from `blobs`, though it
    /// be `missing` by an older plan.
    pub(super) async fn load(
        &self,
        image: &Image,
        missing: &Missing,
        blobs: &Arc<dyn BlobSource>,
    ) -> Result<(), Detour> {
        let found = self.found().await?;
        let progress = Progress::default();
        let load = async {
            // Boxed: all calls of an ingest are inside.
            let ingest = Box::pin(self.ingest(&found, image, missing, &**blobs, &progress));
            ingest.await.map_err(|error| self.sort(&found, error))
        };
        watched(&self.docker, ACTION, &progress, load).await
    }

    async fn found(&self) -> Result<Arc<Found>, Detour> {
        if self.docker.store_kind().await? != StoreKind::Containerd {
            return Err(Detour::Way(WayError::Graphdriver));
        }
        self.search.find().await.map_err(Detour::Way)
    }

    async fn ingest(
        &self,
        found: &Found,
        image: &Image,
        missing: &Missing,
        blobs: &dyn BlobSource,
        progress: &Progress,
    ) -> Result<(), IngestError> {
        let target = target(image);
        let lease = Lease::take(&found.containerd, target.digest).await?;
        let content = Content { containerd: &found.containerd, lease: &lease, progress };
        let made = self.make(content, &found.snapshotter, image, missing, blobs).await;
        let made = match made {
            Ok(()) => record(content, &target).await.map_err(IngestError::from),
            Err(error) => Err(error),
        };
        // Whoever tries again goes on with what came. Of all else nothing is kept: it belongs to the
        // image now, or another way will be gone, or there is no space for it.
        let goes_on = matches!(made, Err(IngestError::Source(_) | IngestError::Gone(_)));
        if !goes_on && let Err(fault) = lease.end().await {
            tracing::debug!(%fault, "the lease of an ingest stays until it expires");
        }
        made
    }

    /// Makes everything that an image consists of.
    async fn make(
        &self,
        content: Content<'_>,
        snapshotter: &str,
        image: &Image,
        missing: &Missing,
        blobs: &dyn BlobSource,
    ) -> Result<(), IngestError> {
        let (fetched, ready) = image.layers.iter().map(|_| oneshot::channel()).unzip();
        let unpacker = Unpacker { content, snapshotter, turns: &self.turns };
        tokio::try_join!(
            self.fetch(content, image, missing, blobs, fetched),
            unpacker.unpack(image, ready),
            documents(content, image, snapshotter),
        )?;
        Ok(())
    }

    /// Takes every layer in, the base first, a few at once.
    async fn fetch(
        &self,
        content: Content<'_>,
        image: &Image,
        missing: &Missing,
        blobs: &dyn BlobSource,
        fetched: Vec<oneshot::Sender<()>>,
    ) -> Result<(), IngestError> {
        let layers = image.layers.iter().zip(&missing.0).zip(fetched);
        let layers = layers.map(|((layer, missing), fetched)| async move {
            let _turn = self.turns.take(layer.blob.digest).await;
            let _lane = self.lanes.acquire().await.expect("invariant: it is never closed");
            let labels = match layer.blob.digest == layer.diff_id.0 {
                true => Labels::from([(UNCOMPRESSED.into(), layer.diff_id.to_string())]),
                false => Labels::new(),
            };
            let blobs = missing.then_some(blobs);
            content.fetch(&layer.blob, blobs, &labels).await?;
            // Nobody waits for it any more when unpacking has failed.
            let _unheard = fetched.send(());
            Ok(())
        });
        let layers: Vec<_> = layers.collect();
        stream::iter(layers).buffer_unordered(lanes()).try_for_each(|()| ready(Ok(()))).await
    }

    /// What a failure means for whoever wanted the image.
    fn sort(&self, found: &Arc<Found>, error: IngestError) -> Detour {
        match error {
            IngestError::Source(error) => Detour::Load(error.into()),
            IngestError::Way(Fault::Answer { message, .. }) if says_no_space(&message) => {
                Detour::Load(LoadError::NoSpace { message })
            }
            IngestError::Gone(_) => Detour::Load(LoadError::Refused { message: error.to_string() }),
            // The blob is not what its digest says: no way leads around that.
            IngestError::Way(fault) if fault.code() == Some(Code::FailedPrecondition) => {
                Detour::Load(LoadError::Refused { message: fault.to_string() })
            }
            IngestError::Way(fault) => {
                if fault.is_line() {
                    self.search.forget(found);
                }
                Detour::Way(fault.into())
            }
        }
    }
}

impl Detour {
    /// The error where no other way is to be gone.
    pub(super) fn into_load_error(self, docker: &Docker) -> LoadError {
        match self {
            Self::Load(error) => error,
            Self::Way(error) if error.is_absence() => LoadError::Unavailable {
                engine: docker.address().to_owned(),
                action: "reaching the containerd beneath it",
                source: error.into(),
            },
            Self::Way(error) => LoadError::Refused { message: transfer::explain(&error) },
        }
    }
}

impl From<EngineError> for Detour {
    fn from(error: EngineError) -> Self {
        Self::Load(error.into())
    }
}

/// How many blobs come in at once: as many as there are cores, within reason.
fn lanes() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8))
}
