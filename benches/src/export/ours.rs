//! Longshore's reads through an image source, as the host agent reads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use engine::docker::way::{self, Way};
use engine::{Docker, Export};
use futures::TryStreamExt as _;
use transfer::store::MemoryStore;
use transfer::{BlobSource, ImageKey, ImageSource, Layer, LayerForm, OpenImage, StoreKind};

use super::options::{Options, Timing, store_name};
use crate::figures::cpu_time;

/// The side that hashes a layer.
#[derive(Clone, Copy, Debug)]
pub(super) enum VerifiedBy {
    /// The reader: a single range, to which the host agent passes the layer on.
    Reader,
    /// The host agent, before it stores the layer.
    Source,
}

/// An image, read by one export method.
pub(super) struct Ours {
    way: Way,
    store: StoreKind,
    docker: Docker,
    /// `None` if the method is `save`.
    direct: Option<Arc<dyn ImageSource>>,
    key: ImageKey,
    opened: OpenImage,
}

impl Ours {
    pub(super) async fn open(docker: &Docker, way: Way, options: &Options) -> anyhow::Result<Self> {
        let store = docker.info().await?.store;
        let direct = way::open(docker, way, &options.places).await?;
        let source = source(docker, direct.clone());
        let summary = source.resolve(&options.image).await?;
        let key = summary.key();
        let opened = source.open(&key, LayerForm::AsStored).await?;
        Ok(Self { way, store, docker: docker.clone(), direct, key, opened })
    }

    pub(super) fn way(&self) -> &'static str {
        self.way.as_str()
    }

    pub(super) fn store(&self) -> &'static str {
        store_name(self.store)
    }

    /// Reports whether the goals apply: they are for reading a graphdriver's files.
    pub(super) fn has_goals(&self) -> bool {
        self.way == Way::Files
    }

    pub(super) fn has_single_layers(&self) -> bool {
        self.direct.is_some()
    }

    /// The largest layer.
    pub(super) fn layer(&self) -> anyhow::Result<&Layer> {
        let largest = self.opened.image.layers.iter().max_by_key(|layer| layer.blob.size);
        largest.context("the image has no layer")
    }

    pub(super) fn blobs(&self) -> Arc<dyn BlobSource> {
        self.opened.blobs.clone()
    }

    /// Times a read of the whole image.
    pub(super) async fn image(&self, options: &Options) -> anyhow::Result<Timing> {
        options.cache.prepare()?;
        // A new source, which has cached nothing about the image.
        let direct = match &self.direct {
            Some(_) => way::open(&self.docker, self.way, &options.places).await?,
            None => None,
        };
        let source = source(&self.docker, direct);
        let clock = Clock::start()?;
        let OpenImage { image, blobs } = source.open(&self.key, LayerForm::AsStored).await?;
        let mut bytes = 0;
        if self.direct.is_none() {
            // `save` has put the whole image into memory, so there is nothing left to read.
            bytes = image.layers.iter().map(|layer| layer.blob.size).sum();
            return clock.took(bytes);
        }
        for layer in &image.layers {
            bytes += read(&*blobs, layer, VerifiedBy::Reader).await?;
        }
        clock.took(bytes)
    }

    /// Times a read of the largest layer.
    pub(super) async fn largest(
        &self,
        options: &Options,
        verified: VerifiedBy,
    ) -> anyhow::Result<Timing> {
        options.cache.prepare()?;
        let clock = Clock::start()?;
        let bytes = read(&*self.blobs(), self.layer()?, verified).await?;
        clock.took(bytes)
    }

    /// Times the opening of a layer of an opened image until its first frame. Returns the slowest of
    /// the image's layers.
    pub(super) async fn first_byte(&self, options: &Options) -> anyhow::Result<Timing> {
        let mut slowest = None::<Timing>;
        for layer in &self.opened.image.layers {
            let direct = way::open(&self.docker, self.way, &options.places).await?;
            let source = source(&self.docker, direct);
            let blobs = source.open(&self.key, LayerForm::AsStored).await?.blobs;
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

async fn read(blobs: &dyn BlobSource, layer: &Layer, verified: VerifiedBy) -> anyhow::Result<u64> {
    let digest = &layer.blob.digest;
    let mut frames = match verified {
        VerifiedBy::Reader => blobs.open_unverified(digest, 0).await?,
        VerifiedBy::Source => blobs.open(digest, 0).await?,
    };
    let mut bytes = 0;
    while let Some(frame) = frames.try_next().await? {
        bytes += frame.len() as u64;
    }
    Ok(bytes)
}

/// Measures wall and CPU time from its start.
struct Clock {
    began: Instant,
    cpu: Duration,
}

impl Clock {
    fn start() -> anyhow::Result<Self> {
        Ok(Self { began: Instant::now(), cpu: cpu_time()? })
    }

    fn took(&self, bytes: u64) -> anyhow::Result<Timing> {
        let time = self.began.elapsed();
        Ok(Timing { bytes, time, cpu: cpu_time()?.saturating_sub(self.cpu) })
    }
}
