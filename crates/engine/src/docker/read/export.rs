//! The host's side: an engine's images, exported once for everyone who asks.
//!
//! A save writes every layer of an image to the engine's temporary folder before its first byte,
//! and can neither select nor resume. So what one save can give is asked for once: requests that
//! come while a save runs, or shortly before one, go together into one call, and what arrives is
//! kept in the blob store, where all ranges read it. An image whose layers are all in the store is
//! answered from there.
//!
//! | | graphdriver | containerd store |
//! |---|---|---|
//! | layers in a save | uncompressed | as stored |
//! | manifest | made up from config and sizes, the same for all times | the original |
//! | config digest | the engine's name of the image | in the manifest: known once that was saved |
//!
//! So on the containerd store `resolve` of an image that was never exported takes as long as its
//! export, and `list` has only images whose documents are in the store: to learn the others' config
//! digests would be to save every image of the host. `content` and files have no such limits, and
//! are the better ways; this is what always works.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::task::AbortOnDropHandle;
use transfer::{
    BlobError, BlobSource, BlobStore, BlobStream, ConfigDigest, Digest, Image, ImageKey,
    ImageSource, ImageSummary, LayerForm, OpenImage, Reference, SourceError, StoreKind,
};

use crate::docker::api::Docker;
use crate::docker::read::catalogue;
use crate::docker::read::documents::{self, Documents};
use crate::docker::read::flight::{Answer, Failure, Pilot};
use crate::docker::read::save::State;
use crate::docker::read::target::{Root, Target};
use crate::engine::ExportStats;

/// How long an export waits for company: ranges that start together ask within this time, and each
/// save that is not made saves the engine seconds of work per gigabyte.
const GATHER: Duration = Duration::from_millis(50);

/// An engine's images as a source, exported into a blob store when somebody asks for them.
///
/// Cheap to clone; the clones are one export. Dropping the last ends a save under way.
#[derive(Clone)]
pub struct Export {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export")
            .field("docker", &self.inner.state.docker)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

struct Inner {
    state: Arc<State>,
    /// Targets of the containerd store by the images that they lead to. What a manifest says never
    /// changes; targets that are gone are dropped.
    targets: Mutex<HashMap<ImageKey, Target>>,
    /// The exporter, if one runs. It holds `state` and never `Inner`, so that it ends with it.
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Export {
    /// Exports images of `docker` into `store`.
    #[must_use]
    pub fn new(docker: Docker, store: Arc<dyn BlobStore>) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Arc::new(State::new(docker, store)),
                targets: Mutex::default(),
                task: Mutex::new(None),
            }),
        }
    }

    /// What exporting has cost since this was made.
    #[must_use]
    pub fn stats(&self) -> ExportStats {
        self.inner.state.stats()
    }

    /// The engine that is exported from.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.inner.state.docker
    }
}

#[async_trait]
impl ImageSource for Export {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        match self.docker().store_kind().await.map_err(|error| error.about("*"))? {
            StoreKind::Graphdriver => catalogue::list(self.docker()).await,
            StoreKind::Containerd => self.inner.list().await,
        }
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        match self.docker().store_kind().await.map_err(|error| error.about(reference))? {
            StoreKind::Graphdriver => catalogue::resolve(self.docker(), reference).await,
            StoreKind::Containerd => self.inner.resolve(reference).await,
        }
    }

    async fn open(&self, key: &ImageKey, _: LayerForm) -> Result<OpenImage, SourceError> {
        let image = self.inner.image(key).await?;
        let blobs = Arc::new(ImageBlobs { inner: self.inner.clone(), key: *key });
        Ok(OpenImage { image, blobs })
    }
}

/// One image's blobs: what went away or bad in the store is exported once more.
struct ImageBlobs {
    inner: Arc<Inner>,
    key: ImageKey,
}

impl ImageBlobs {
    async fn restore(&self, digest: &Digest) -> Result<(), BlobError> {
        self.inner.image(&self.key).await.map(drop).map_err(|error| error.of_blob(*digest))
    }
}

#[async_trait]
impl BlobSource for ImageBlobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let store = &self.inner.state.store;
        if let Some(size) = store.stat(digest).await? {
            return Ok(Some(size));
        }
        match self.restore(digest).await {
            Err(BlobError::NotFound { .. }) => Ok(None),
            restored => {
                restored?;
                store.stat(digest).await
            }
        }
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let store = &self.inner.state.store;
        match store.open(digest, offset).await {
            Err(BlobError::NotFound { .. }) => {}
            opened => return opened,
        }
        self.restore(digest).await?;
        store.open(digest, offset).await
    }

    fn doubt(&self, digest: &Digest) {
        self.inner.state.store.doubt(digest);
    }
}

/// Whether the key names an image of this config that was saved from `target`. A save for one
/// platform of several leaves the index out, so that the image has another target digest than the
/// engine's.
fn names(key: &ImageKey, target: &Target, config: &ConfigDigest, own: &Digest) -> bool {
    key.names(config, own) || key.names(config, &target.id.0)
}

impl Inner {
    async fn image(&self, key: &ImageKey) -> Result<Image, SourceError> {
        let store = self.state.docker.store_kind().await;
        let target = match store.map_err(|error| error.about(key))? {
            StoreKind::Graphdriver => Target::config(key.config_digest),
            StoreKind::Containerd => self.find(key).await?,
        };
        let image = self.fetch(&target).await.map_err(|failure| failure.about(key))?;
        match names(key, &target, &image.config_digest, &image.target_digest()) {
            true => Ok(image),
            false => Err(key.not_found()),
        }
    }

    /// The image from the store, or from an export that others may wait for as well.
    async fn fetch(&self, target: &Target) -> Answer {
        if let Some(image) = self.state.assemble(&target.root).await? {
            return Ok(image);
        }
        let (answer, starts) = self.state.flight.join(target.id);
        if starts {
            self.start();
        }
        let stopped = |_| Err(Failure::engine("the export was stopped"));
        answer.await.unwrap_or_else(stopped)
    }

    /// The image of the containerd store that `reference` names now, exported if need be.
    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        let inspected = self.state.docker.inspect_manifests(reference).await;
        let inspected = inspected.map_err(|error| error.about(reference))?;
        let Some(inspected) = inspected.filter(|inspected| inspected.is_named(reference)) else {
            return Err(SourceError::NotFound { image: reference.to_string() });
        };
        let told = |failure: Failure| failure.about(reference);
        let target = Target::choose(&inspected, &self.state.platform);
        let target = target.map_err(|reason| told(Failure::Malformed(reason)))?;
        let image = match self.documents(&target).await.map_err(told)? {
            Some(image) => image,
            None => self.fetch(&target).await.map_err(told)?,
        };
        let summary = documents::summary(&inspected, &image);
        self.targets().insert(summary.key(), target);
        Ok(summary)
    }

    /// The images of the containerd store whose documents are in ours.
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        let told = |failure: Failure| failure.about(&"*");
        let listed = self.state.docker.list_described().await;
        let listed = listed.map_err(|error| error.about("*"))?;
        let mut known = HashMap::new();
        let mut summaries = Vec::new();
        for inspected in &listed {
            let Ok(target) = Target::choose(inspected, &self.state.platform) else { continue };
            // A document that is none makes that one image unknown, not the list.
            let image = match self.documents(&target).await {
                Ok(image) => image,
                Err(Failure::Malformed(_)) => None,
                Err(failure) => return Err(told(failure)),
            };
            if let Some(image) = image {
                let summary = documents::summary(inspected, &image);
                known.insert(summary.key(), target);
                summaries.push(summary);
            }
        }
        let unknown = listed.len() - known.len();
        tracing::debug!(known = known.len(), unknown, "images of which a save is known are listed");
        *self.targets() = known;
        Ok(documents::sorted(summaries))
    }

    /// The image as its documents in the store tell it; `None` where one is not there.
    async fn documents(&self, target: &Target) -> Result<Option<Image>, Failure> {
        let Root::Manifest { manifest, index } = &target.root else { return Ok(None) };
        let target = index.as_ref().unwrap_or(manifest);
        match documents::read(&self.state.store, target, &self.state.platform).await {
            Ok(Documents::Image(image)) => Ok(Some(*image)),
            Ok(Documents::Lacks(_)) => Ok(None),
            Ok(Documents::Malformed(reason)) => Err(Failure::Malformed(reason)),
            Err(error) => Err(Failure::Blob(Arc::new(error))),
        }
    }

    /// The target for the key, looked for among all where it is not known.
    async fn find(&self, key: &ImageKey) -> Result<Target, SourceError> {
        if let Some(target) = self.known(key) {
            return Ok(target);
        }
        self.list().await?;
        self.known(key).ok_or_else(|| key.not_found())
    }

    fn known(&self, key: &ImageKey) -> Option<Target> {
        let targets = self.targets();
        let mut images = targets.iter();
        let found = images.find(|(image, target)| {
            let own = image.target_digest.unwrap_or(target.id.0);
            names(key, target, &image.config_digest, &own)
        });
        found.map(|(_, target)| target.clone())
    }

    fn targets(&self) -> MutexGuard<'_, HashMap<ImageKey, Target>> {
        self.targets.lock().expect("invariant: no one panics while holding the targets")
    }

    fn start(&self) {
        let state = self.state.clone();
        let pilot = Pilot::new(state.flight.clone());
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(GATHER).await;
                let batch = state.flight.take_off();
                if batch.is_empty() {
                    return pilot.landed();
                }
                state.export(batch).await;
            }
        });
        *self.task.lock().expect("invariant: storing a task does not panic") =
            Some(AbortOnDropHandle::new(task));
    }
}
