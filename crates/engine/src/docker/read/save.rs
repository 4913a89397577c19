//! One save for a batch of images: asked for by ID, split as it streams, each image answered as
//! soon as it is whole in the store.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::TryStreamExt as _;
use tokio_util::io::StreamReader;
use transfer::{
    BlobError, BlobStore, ConfigDigest, Digest, EngineImageId, Image, Platform, StoreKind,
};

use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::docker::read::assemble::assemble;
use crate::docker::read::documents;
use crate::docker::read::flight::{Answer, Failure, Flight};
use crate::docker::read::split::{SplitError, Splitter, Wanted};
use crate::docker::read::target::{Root, Target};
use crate::engine::ExportStats;

const SAVING: &str = "exporting images";

/// How long the engine may be silent in a save. It writes all layers to its temporary folder before
/// the first byte, which takes minutes for tens of gigabytes.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What exporting works on.
pub(super) struct State {
    pub(super) docker: Docker,
    pub(super) store: Arc<dyn BlobStore>,
    pub(super) flight: Arc<Flight>,
    /// What images have to run on, where there is a choice.
    pub(super) platform: Platform,
    saves: AtomicU64,
    bytes_read: AtomicU64,
}

/// An image of a save, and the blobs that have to come out of it before it is whole.
struct Wait {
    root: Root,
    lacks: HashSet<Digest>,
}

/// Images of one save, by what the engine calls them.
type Lacking = HashMap<EngineImageId, Wait>;

fn blob(error: BlobError) -> Failure {
    Failure::Blob(Arc::new(error))
}

impl State {
    pub(super) fn new(docker: Docker, store: Arc<dyn BlobStore>) -> Self {
        Self {
            docker,
            store,
            flight: Arc::default(),
            platform: Platform::host(),
            saves: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
        }
    }

    pub(super) fn stats(&self) -> ExportStats {
        ExportStats {
            saves: self.saves.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
        }
    }

    /// The image from what the store has; `None` unless it has all of it.
    pub(super) async fn assemble(&self, root: &Root) -> Result<Option<Image>, Failure> {
        assemble(&*self.store, root, &self.platform).await
    }

    /// Exports a batch and answers everyone who waits for one of its images.
    pub(super) async fn export(&self, batch: Vec<EngineImageId>) {
        // One save gives all images for one platform, or all of each.
        let mut saves: BTreeMap<Option<String>, Lacking> = BTreeMap::new();
        for image in batch {
            match self.lacks(&image).await {
                Ok((platform, wait)) => {
                    saves.entry(platform).or_default().insert(image, wait);
                }
                Err(failure) => self.flight.settle(&image, &Err(failure)),
            }
        }
        for (platform, mut lacking) in saves {
            self.save(platform.as_deref(), &mut lacking).await.unwrap_or_else(|failure| {
                tracing::debug!(?failure, images = lacking.len(), "an export failed");
                for image in lacking.keys() {
                    self.flight.settle(image, &Err(failure.clone()));
                }
                lacking.clear();
            });
            for (image, wait) in lacking {
                let reason = match wait.lacks.iter().next() {
                    Some(digest) => format!("the engine's export lacks blob {digest}"),
                    None => "blobs of it went away while it was exported".into(),
                };
                self.flight.settle(&image, &Err(Failure::Malformed(reason)));
            }
        }
    }

    /// What has to come out of a save for an image, and for which platform it is asked.
    async fn lacks(&self, image: &EngineImageId) -> Result<(Option<String>, Wait), Failure> {
        let store = self.docker.store_kind().await.map_err(Failure::engine)?;
        let inspected = self.docker.inspect_manifests(image).await.map_err(Failure::engine)?;
        // The containerd store finds an image by other digests than its target's.
        let inspected = inspected.filter(|inspected| inspected.id == *image);
        let inspected = inspected.ok_or(Failure::NotFound)?;
        if store == StoreKind::Graphdriver {
            let layers = inspected.diff_ids().iter().map(|diff_id| diff_id.0);
            let root = Root::Config(ConfigDigest(image.0));
            return Ok((None, Wait { root, lacks: layers.chain([image.0]).collect() }));
        }
        let target = Target::choose(&inspected, &self.platform).map_err(Failure::Malformed)?;
        let mut wait = Wait { root: target.root, lacks: HashSet::new() };
        self.expand(&mut wait).await.map_err(blob)?;
        Ok((target.platform, wait))
    }

    /// Adds what the store lacks of an image whose manifest it has; else the manifest itself.
    async fn expand(&self, wait: &mut Wait) -> Result<(), BlobError> {
        let Root::Manifest { manifest, index } = wait.root else { return Ok(()) };
        if let Some(index) = index
            && self.store.stat(&index).await?.is_none()
        {
            wait.lacks.insert(index);
        }
        match documents::blobs_of(&self.store, &manifest).await? {
            None => drop(wait.lacks.insert(manifest)),
            Some(blobs) => {
                for digest in blobs {
                    if self.store.stat(&digest).await?.is_none() {
                        wait.lacks.insert(digest);
                    }
                }
            }
        }
        Ok(())
    }

    /// One save of all images. When the engine refuses them together, since one was deleted, each
    /// has a save of its own.
    async fn save(&self, platform: Option<&str>, lacking: &mut Lacking) -> Result<(), Failure> {
        let names: Vec<_> = lacking.keys().copied().collect();
        match self.open_save(&names, platform).await {
            Ok(answer) => self.split(answer, lacking).await,
            Err(error) if names.len() == 1 => Err(failure(error)),
            Err(EngineError::NotFound { .. } | EngineError::Refused { .. }) => {
                for name in names {
                    let Some(wait) = lacking.remove(&name) else { continue };
                    let mut alone = Lacking::from([(name, wait)]);
                    let saved = match self.open_save(&[name], platform).await {
                        Ok(answer) => self.split(answer, &mut alone).await,
                        Err(error) => Err(failure(error)),
                    };
                    if let Err(failure) = saved {
                        self.flight.settle(&name, &Err(failure));
                        alone.clear();
                    }
                    lacking.extend(alone);
                }
                Ok(())
            }
            Err(error) => Err(failure(error)),
        }
    }

    /// By ID, so that moving a tag meanwhile changes nothing.
    async fn open_save(
        &self,
        images: &[EngineImageId],
        platform: Option<&str>,
    ) -> Result<crate::docker::api::http::Answer, EngineError> {
        let names: Vec<_> = images.iter().map(|image| format!("names={image}")).collect();
        let platform = platform.map(|platform| format!("&platform={platform}"));
        let path = format!("/images/get?{}{}", names.join("&"), platform.unwrap_or_default());
        self.saves.fetch_add(1, Ordering::Relaxed);
        self.docker.http.get(SAVING, &path, PATIENCE).await
    }

    /// Takes what is wanted out of a save, and answers for each image as soon as it is whole.
    async fn split(
        &self,
        save: crate::docker::api::http::Answer,
        lacking: &mut Lacking,
    ) -> Result<(), Failure> {
        let wanted = wanted(lacking);
        let counted = save.inspect_ok(|piece| {
            self.bytes_read.fetch_add(piece.len() as u64, Ordering::Relaxed);
        });
        let reader = StreamReader::new(counted);
        let mut splitter = Splitter::new(reader, &*self.store, &wanted);
        // What was kept meanwhile for others is there already.
        self.settle_whole(lacking).await;
        while let Some(digest) = splitter.next().await.map_err(Failure::from)? {
            for wait in lacking.values_mut() {
                let begins =
                    matches!(wait.root, Root::Manifest { manifest, .. } if manifest == digest);
                if wait.lacks.remove(&digest) && begins {
                    self.expand(wait).await.map_err(blob)?;
                }
            }
            self.settle_whole(lacking).await;
        }
        Ok(())
    }

    /// Answers for the images that lack nothing any more.
    async fn settle_whole(&self, lacking: &mut Lacking) {
        let whole: Vec<_> = lacking
            .extract_if(|_, wait| wait.lacks.is_empty())
            .map(|(image, wait)| (image, wait.root))
            .collect();
        for (image, root) in whole {
            let answer: Answer = self.assemble(&root).await.and_then(|assembled| {
                let reason = "blobs of it went away while it was exported";
                assembled.ok_or_else(|| Failure::Malformed(reason.into()))
            });
            self.flight.settle(&image, &answer);
        }
    }
}

/// What a save of these images is searched for.
fn wanted(lacking: &Lacking) -> Wanted {
    let mut wanted = Wanted::default();
    for wait in lacking.values() {
        match wait.root {
            Root::Config(config_digest) => drop(wanted.configs.insert(config_digest)),
            Root::Manifest { manifest, .. } => {
                wanted.everything |= wait.lacks.contains(&manifest);
            }
        }
        wanted.layers.extend(&wait.lacks);
    }
    wanted
}

fn failure(error: EngineError) -> Failure {
    match error {
        EngineError::NotFound { .. } => Failure::NotFound,
        error => Failure::engine(error),
    }
}

impl From<SplitError> for Failure {
    fn from(error: SplitError) -> Self {
        match error {
            SplitError::Store(error) => Self::Blob(Arc::new(error)),
            error @ SplitError::Read(_) => Self::engine(error),
        }
    }
}
