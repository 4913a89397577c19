//! Longshore's own reads, as the host agent reads: by an image source.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use engine::docker::way::{self, Way};
use engine::{Docker, Export};
use futures::TryStreamExt as _;
use transfer::store::MemoryStore;
use transfer::{BlobSource, ConfigDigest, Image, ImageSource, Layer, LayerForm, StoreKind};

use super::{Options, Took, store_name};
use crate::figures::cpu_time;

/// Who hashes what is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verified {
    /// A range that is alone, which a layer is passed on to.
    ByReader,
    /// The host agent, for its store.
    BySource,
}

/// An image by one way.
pub(super) struct Ours {
    way: Way,
    store: StoreKind,
    docker: Docker,
    /// Absent where only `save` reads.
    direct: Option<Arc<dyn ImageSource>>,
    config_digest: ConfigDigest,
    image: Image,
}

impl Ours {
    pub(super) async fn open(docker: &Docker, way: Way, options: &Options) -> anyhow::Result<Self> {
        let store = docker.info().await?.store;
        let direct = way::open(docker, way, &options.places).await?;
        let source = source(docker, direct.clone());
        let summary = source.resolve(&options.image).await?;
        let image = source.image(&summary.config_digest, LayerForm::AsStored).await?;
        let config_digest = summary.config_digest;
        Ok(Self { way, store, docker: docker.clone(), direct, config_digest, image })
    }

    pub(super) fn way(&self) -> &'static str {
        self.way.as_str()
    }

    pub(super) fn store(&self) -> &'static str {
        store_name(self.store)
    }

    /// The goals are those of reading a graphdriver's files.
    pub(super) fn has_goals(&self) -> bool {
        self.way == Way::Files
    }

    pub(super) fn single_layers(&self) -> bool {
        self.direct.is_some()
    }

    /// The largest layer.
    pub(super) fn layer(&self) -> anyhow::Result<&Layer> {
        let largest = self.image.layers.iter().max_by_key(|layer| layer.blob.size);
        largest.context("the image has no layer")
    }

    pub(super) fn blobs(&self) -> Arc<dyn BlobSource> {
        source(&self.docker, self.direct.clone()).blobs(&self.config_digest)
    }

    /// The image asked for and read whole.
    pub(super) async fn image(&self, options: &Options) -> anyhow::Result<Took> {
        options.cache.prepare()?;
        // A source that knows nothing of the image yet.
        let direct = match &self.direct {
            Some(_) => way::open(&self.docker, self.way, &options.places).await?,
            None => None,
        };
        let source = source(&self.docker, direct);
        let clock = Clock::start()?;
        let image = source.image(&self.config_digest, LayerForm::AsStored).await?;
        let mut bytes = 0;
        if self.direct.is_none() {
            // It is whole in memory now, and that was all the work.
            bytes = image.layers.iter().map(|layer| layer.blob.size).sum();
            return clock.took(bytes);
        }
        let blobs = source.blobs(&self.config_digest);
        for layer in &image.layers {
            bytes += read(&*blobs, layer, Verified::ByReader).await?;
        }
        clock.took(bytes)
    }

    /// The largest layer, whole.
    pub(super) async fn largest(
        &self,
        options: &Options,
        verified: Verified,
    ) -> anyhow::Result<Took> {
        options.cache.prepare()?;
        let clock = Clock::start()?;
        let bytes = read(&*self.blobs(), self.layer()?, verified).await?;
        clock.took(bytes)
    }

    /// From asking for a layer to its first frame, nothing being known of it before: the slowest of
    /// the image's layers.
    pub(super) async fn first_byte(&self, options: &Options) -> anyhow::Result<Took> {
        let mut slowest = None::<Took>;
        for layer in &self.image.layers {
            let direct = way::open(&self.docker, self.way, &options.places).await?;
            let blobs = source(&self.docker, direct).blobs(&self.config_digest);
            options.cache.prepare()?;
            let clock = Clock::start()?;
            let mut frames = blobs.open(&layer.blob.digest, 0).await?;
            let first = frames.try_next().await?.map_or(0, |frame| frame.len() as u64);
            let took = clock.took(first)?;
            slowest = slowest.filter(|slowest| took.time <= slowest.time).or(Some(took));
        }
        slowest.context("the image has no layer")
    }
}

fn source(docker: &Docker, direct: Option<Arc<dyn ImageSource>>) -> Arc<dyn ImageSource> {
    let store = || Arc::new(MemoryStore::default());
    direct.unwrap_or_else(|| Arc::new(Export::new(docker.clone(), store())))
}

async fn read(blobs: &dyn BlobSource, layer: &Layer, verified: Verified) -> anyhow::Result<u64> {
    let digest = &layer.blob.digest;
    let mut frames = match verified {
        Verified::ByReader => blobs.open_unverified(digest, 0).await?,
        Verified::BySource => blobs.open(digest, 0).await?,
    };
    let mut bytes = 0;
    while let Some(frame) = frames.try_next().await? {
        bytes += frame.len() as u64;
    }
    Ok(bytes)
}

/// Wall and CPU time from here on.
struct Clock {
    began: Instant,
    cpu: Duration,
}

impl Clock {
    fn start() -> anyhow::Result<Self> {
        Ok(Self { began: Instant::now(), cpu: cpu_time()? })
    }

    fn took(&self, bytes: u64) -> anyhow::Result<Took> {
        let time = self.began.elapsed();
        Ok(Took { bytes, time, cpu: cpu_time()?.saturating_sub(self.cpu) })
    }
}
