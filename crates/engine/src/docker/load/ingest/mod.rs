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
mod find;
mod lease;
mod turns;
mod unpack;

use std::future::ready;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{Semaphore, oneshot};
use tonic::Code;
use transfer::{
    BlobError, BlobSource, ChainId, Descriptor, DiffId, Digest, Image, LoadError, MediaType,
    Missing, StoreKind,
};

use self::api::Labels;
use self::blob::Content;
use self::client::Fault;
pub(super) use self::find::WayError;
use self::find::{Found, Search};
use self::lease::Lease;
use self::turns::Turns;
use self::unpack::{UNCOMPRESSED, Unpacker};
use super::watch::{Progress, watched};
use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::docker::api::error::says_no_space;
use crate::docker::load::thin::published;
use crate::document::described;

const ACTION: &str = "bringing an image into its containerd";

/// Labels that lead containerd's collection from a blob to what it needs.
const REFERS_TO: &str = "containerd.io/gc.ref";

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

/// What goes wrong between a source and containerd.
#[derive(Debug, thiserror::Error)]
enum IngestError {
    /// The source's side.
    #[error(transparent)]
    Source(#[from] BlobError),
    /// containerd's.
    #[error(transparent)]
    Way(#[from] Fault),
    /// A layer that was planned to be there has gone: the full set heals that.
    #[error("layer {0} is not in the content store any more")]
    Gone(Digest),
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

/// What the engine will call the image.
fn target(image: &Image) -> Descriptor {
    match published(image) {
        Some(index) => described(index, MediaType::INDEX),
        None => described(&image.manifest, MediaType::MANIFEST),
    }
}

/// Takes an image's documents in, each with labels that lead to what it names.
async fn documents(
    content: Content<'_>,
    image: &Image,
    snapshotter: &str,
) -> Result<(), IngestError> {
    let chain = ChainId::chain(&image.diff_ids().collect::<Vec<DiffId>>());
    let top =
        chain.last().map(|top| (format!("{REFERS_TO}.snapshot.{snapshotter}"), top.to_string()));
    let config = Descriptor::of(MediaType::CONFIG, &image.config);
    content.keep(&config, &image.config, top.into_iter().collect()).await?;

    let layers = image.layers.iter().map(|layer| layer.blob.digest).enumerate();
    let layers =
        layers.map(|(at, layer)| (format!("{REFERS_TO}.content.l.{at}"), layer.to_string()));
    let config = (format!("{REFERS_TO}.content.config"), config.digest.to_string());
    let manifest = described(&image.manifest, MediaType::MANIFEST);
    content.keep(&manifest, &image.manifest, layers.chain([config]).collect()).await?;

    let Some(index) = published(image) else { return Ok(()) };
    let labels = children(index).enumerate();
    let labels = labels.map(|(at, child)| (format!("{REFERS_TO}.content.m.{at}"), child));
    content.keep(&described(index, MediaType::INDEX), index, labels.collect()).await
}

/// The manifests of an index, those of other platforms too: a later pull may bring them.
fn children(index: &Bytes) -> impl Iterator<Item = String> {
    // An image is under an index that was parsed.
    let children = transfer::image::parse_index(index).unwrap_or_default();
    children.into_iter().map(|child| child.descriptor.digest.to_string())
}

/// Makes the image known to the engine, under the name that means none. One that it knows already,
/// by whatever name, stays as it is.
async fn record(content: Content<'_>, target: &Descriptor) -> Result<(), Fault> {
    let filters = api::Filters { filters: vec![format!("target.digest=={}", target.digest)] };
    let known: api::Records = content.containerd.call(api::IMAGE_LIST, None, filters).await?;
    if !known.images.is_empty() {
        return Ok(());
    }
    create(content, target, Labels::new()).await
}

async fn create(content: Content<'_>, target: &Descriptor, labels: Labels) -> Result<(), Fault> {
    let image = api::Record { name: unnamed(target), labels, target: Some(target.into()) };
    let request = api::OneRecord { image: Some(image) };
    let lease = content.lease.id().await?;
    match content.containerd.tell(api::IMAGE_CREATE, Some(&lease), request).await {
        Err(fault) if fault.code() == Some(Code::AlreadyExists) => Ok(()),
        created => created,
    }
}

/// The record of an image without a name, as the engine itself writes it.
fn unnamed(target: &Descriptor) -> String {
    format!("moby-dangling@{}", target.digest)
}
