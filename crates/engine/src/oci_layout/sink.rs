//! A layout as a sink: the engine of a range that is only files, for tests and for the demo.
//!
//! Blobs go in as they come, verified; the proof hashes every one of them again; a name is an entry
//! in `index.json`. Several processes may use one folder at once ([`super::lock`]).

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use transfer::blocking::blocking;
use transfer::{
    BlobError, BlobSource, BlobStore as _, Descriptor, EngineImageId, EngineInfo, Image, ImageSink,
    Intake, LoadError, Missing, OpenImage, Proof, Reference,
};

use super::folder::{Folder, blobs_of};
use super::{LayoutError, OciLayout, info, lock};
use crate::engine::HeldImage;

/// Layers taken in, and blobs hashed, at once by one image: more than one keeps the disk busy while
/// another hashes, and each costs a few frames of memory.
const AT_ONCE: usize = 3;

/// An OCI image layout folder that takes images. Clones are the same folder.
#[derive(Clone)]
pub struct OciLayoutSink(Arc<Folder>);

impl OciLayoutSink {
    /// Opens the layout in folder `root`, making it where there is none, and removes what a killed
    /// process was still taking in.
    ///
    /// # Errors
    /// [`LayoutError::NotALayout`] for a folder with other files in it, and any other
    /// [`LayoutError`].
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, LayoutError> {
        Ok(Self(Arc::new(Folder::open(root.into()).await?)))
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Every image that a name or an entry of `index.json` reaches, sorted by manifest; each is
    /// proven anew.
    ///
    /// # Errors
    /// [`LoadError::Unavailable`].
    pub async fn images(&self) -> Result<Vec<HeldImage>, LoadError> {
        let unavailable = |source: transfer::blob::Cause| LoadError::Unavailable {
            engine: self.0.address(),
            action: "listing its images",
            source,
        };
        let layout = OciLayout::open(&self.0.root).await.map_err(|e| unavailable(e.into()))?;
        let mut held = Vec::new();
        for (summary, image) in layout.images().await.map_err(|e| unavailable(e.into()))? {
            held.push(HeldImage {
                engine_image_id: EngineImageId(image.target_digest()),
                references: summary.references,
                config_digest: Some(summary.config_digest),
                proven: self.is_whole(&image).await?,
            });
        }
        held.sort_by_key(|image| image.engine_image_id);
        Ok(held)
    }

    /// Whether every blob of the image is there and hashes to its name.
    async fn is_whole(&self, image: &Image) -> Result<bool, LoadError> {
        let checks = blobs_of(image).into_iter().map(|(digest, size)| {
            let folder = &self.0;
            async move {
                let right = folder.blobs.is_right(&digest, size).await;
                right.map_err(|error| folder.not_kept(error))
            }
        });
        let mut checks = stream::iter(checks).buffer_unordered(AT_ONCE);
        while let Some(right) = checks.try_next().await? {
            if !right {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, LoadError> + Send + 'static,
    ) -> Result<T, LoadError> {
        let folder = self.0.clone();
        blocking(move || work(&folder)).await
    }

    /// Ingests one layer; a failure or a drop leaves nothing of it.
    async fn take_in(&self, layer: &Descriptor, blobs: &dyn BlobSource) -> Result<(), LoadError> {
        let mut stream = blobs.open(&layer.digest, 0).await?;
        let not_kept = |error| self.0.not_kept(error);
        let mut ingest = self.0.blobs.ingest_of(layer).await.map_err(not_kept)?;
        while let Some(frame) = stream.try_next().await? {
            let actual = ingest.size() + frame.len() as u64;
            if layer.size < actual {
                let (digest, expected) = (layer.digest, layer.size);
                return Err(BlobError::SizeMismatch { digest, expected, actual }.into());
            }
            ingest.write(frame).await.map_err(not_kept)?;
        }
        ingest.commit(layer).await.map_err(not_kept)
    }
}

impl fmt::Debug for OciLayoutSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OciLayoutSink").field("root", &self.0.root).finish_non_exhaustive()
    }
}

impl OciLayoutSink {
    /// The folder's identity, as an engine; also a sign of life.
    ///
    /// # Errors
    /// [`LoadError::Unavailable`].
    pub async fn info(&self) -> Result<EngineInfo, LoadError> {
        self.work(|folder| info(&folder.root).map_err(folder.unusable("asking who it is"))).await
    }
}

#[async_trait]
impl ImageSink for OciLayoutSink {
    async fn intake(&self) -> Result<Intake, LoadError> {
        Ok(Intake::KEEPS_BLOBS)
    }

    async fn missing(&self, image: &Image) -> Result<Missing, LoadError> {
        let layers: Vec<_> = image.layers.iter().map(|layer| self.0.has(&layer.blob)).collect();
        let there: Vec<bool> = stream::iter(layers).buffered(AT_ONCE).try_collect().await?;
        Ok(Missing(there.into_iter().map(|there| !there).collect()))
    }

    async fn load(&self, opened: &OpenImage, missing: &Missing) -> Result<(), LoadError> {
        let OpenImage { image, blobs } = opened;
        let mut seen = HashSet::new();
        let layers: Vec<&Descriptor> = image
            .layers
            .iter()
            .zip(&missing.0)
            .filter(|(layer, missing)| **missing && seen.insert(layer.blob.digest))
            .map(|(layer, _)| &layer.blob)
            .collect();
        let needed = layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
        let begin = move |folder: &Folder| {
            folder.check_space(needed)?;
            lock::loading(&folder.root).map_err(folder.failed("locking the folder"))
        };
        let loading = self.work(begin).await?;
        let taken = stream::iter(layers.into_iter().map(Ok));
        taken.try_for_each_concurrent(AT_ONCE, |layer| self.take_in(layer, blobs)).await?;
        self.0.keep_documents(image).await?;
        self.0.loads().insert(image.target_digest(), loading);
        Ok(())
    }

    async fn prove(&self, image: &Image) -> Result<Option<Proof>, LoadError> {
        if !self.is_whole(image).await? {
            return Ok(None);
        }
        let target = image.target_digest();
        let references = self.work(move |folder| folder.names_of(&target)).await?;
        Ok(Some(Proof { engine_image_id: EngineImageId(target), references }))
    }

    async fn tag(&self, proof: &Proof, reference: &Reference) -> Result<(), LoadError> {
        let (target, reference) = (proof.engine_image_id.0, reference.clone());
        self.work(move |folder| folder.tag(&target, &reference)).await?;
        self.0.loads().remove(&target);
        Ok(())
    }

    async fn discard(&self, image: &Image) -> Result<(), LoadError> {
        let image = image.clone();
        self.work(move |folder| folder.discard(&image)).await
    }
}
