//! A layout as a source: images by the names in `index.json`, single blobs at any offset.
//!
//! It keeps nothing but the documents that it has read, and reads them again when `index.json` is
//! another file than before: a tool that adds an image while we serve is noticed by the next call.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use transfer::blocking::blocking;
use transfer::file::{FileState, open_regular};
use transfer::image::MAX_MANIFEST;
use transfer::{
    BlobError, BlobSource, BlobStream, Digest, EngineInfo, Image, ImageKey, ImageSource,
    ImageSummary, LayerForm, OpenImage, Platform, Reference, SourceError,
};

use super::catalog::{Catalog, Documents};
use super::{LayoutError, blob_path, check_mark, document, index, index_path, info};
use crate::file_blob::{FileBlob, read_small};

/// An OCI image layout folder that images come from. Clones are the same folder.
#[derive(Clone)]
pub struct OciLayout(Arc<Inner>);

struct Inner {
    root: PathBuf,
    platform: Platform,
    /// The catalog, and the state of the `index.json` that it was read from.
    read: Mutex<Option<(FileState, Arc<Catalog>)>>,
}

impl OciLayout {
    /// Opens the layout in folder `root` for images of this machine's platform.
    ///
    /// # Errors
    /// Any [`LayoutError`].
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, LayoutError> {
        let root = root.into();
        let inner = Inner { root, platform: Platform::host(), read: Mutex::default() };
        let layout = Self(Arc::new(inner));
        layout.look(|inner| check_mark(&inner.root)).await?;
        layout.look(Inner::catalog).await?;
        Ok(layout)
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Describes it as an engine. Also a health check.
    ///
    /// # Errors
    /// [`LayoutError::Io`] when the folder is gone.
    pub async fn info(&self) -> Result<EngineInfo, LayoutError> {
        self.look(|inner| info(&inner.root)).await
    }

    /// Every image with its documents, whether its layers are there or not.
    pub(super) async fn images(&self) -> Result<Vec<(ImageSummary, Arc<Image>)>, LayoutError> {
        let catalog = self.look(Inner::catalog).await?;
        let image = |summary: ImageSummary| Some((catalog.image(&summary.key())?, summary));
        Ok(catalog
            .list()
            .into_iter()
            .filter_map(image)
            .map(|(image, summary)| (summary, image))
            .collect())
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Inner) -> Result<T, LayoutError> + Send + 'static,
    ) -> Result<T, LayoutError> {
        let inner = self.0.clone();
        blocking(move || look(&inner)).await
    }

    async fn catalog(&self, image: impl ToString) -> Result<Arc<Catalog>, SourceError> {
        let catalog = self.look(Inner::catalog).await;
        catalog.map_err(|error| SourceError::unavailable(image, error))
    }
}

impl fmt::Debug for OciLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OciLayout").field("root", &self.0.root).finish_non_exhaustive()
    }
}

impl Inner {
    /// Reads the folder's present images.
    fn catalog(&self) -> Result<Arc<Catalog>, LayoutError> {
        let path = index_path(&self.root);
        let (bytes, identity) =
            read_small(&path, MAX_MANIFEST).map_err(LayoutError::io("read", &path))?;
        let before = self.read().clone().filter(|(before, _)| *before == identity);
        if let Some((_, catalog)) = &before
            && catalog.problems().next().is_none()
        {
            return Ok(catalog.clone());
        }
        // With problems it is read each time: a blob may have come since, which index.json does
        // not tell.
        let unusable = |source| LayoutError::Index { path: path.clone(), source };
        let catalog = Catalog::of_index(&bytes, &self.platform, self).map_err(unusable)?;
        let catalog = Arc::new(catalog);
        if before.is_none() {
            self.tell(&bytes, &catalog);
        }
        *self.read() = Some((identity, catalog.clone()));
        Ok(catalog)
    }

    fn read(&self) -> std::sync::MutexGuard<'_, Option<(FileState, Arc<Catalog>)>> {
        self.read.lock().expect("invariant: no one panics while holding what was read")
    }

    /// Says once for each `index.json` what of it cannot be used.
    fn tell(&self, index: &[u8], catalog: &Catalog) {
        let folder = self.root.display();
        for (reference, reason) in catalog.problems() {
            tracing::warn!(%folder, image = %reference, reason, "an image cannot be read");
        }
        for child in index::children(index).unwrap_or_default() {
            if let (true, Some(text)) = (child.references.is_empty(), child.nameless.first()) {
                tracing::warn!(
                    %folder,
                    manifest = %child.entry.descriptor.digest,
                    tag = text,
                    "an image has no full name; write it with one: oci:FOLDER:docker.io/library/NAME:TAG"
                );
            }
        }
    }

    fn span(&self, digest: &Digest) -> Result<FileBlob, BlobError> {
        let path = blob_path(&self.root, digest);
        match open_regular(&path).and_then(FileBlob::whole) {
            Ok(span) => Ok(span),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(BlobError::NotFound { digest: *digest })
            }
            Err(source) => Err(BlobError::Storage {
                digest: *digest,
                path: path.display().to_string(),
                source,
            }),
        }
    }

    /// The image, if all its layers are there.
    fn whole(&self, image: &Image) -> Result<(), String> {
        for layer in &image.layers {
            let blob = &layer.blob;
            let size = match self.span(&blob.digest) {
                Ok(span) => span.size,
                Err(error) => return Err(transfer::explain(&error)),
            };
            if size != blob.size {
                return Err(format!("layer {} has {size} bytes, not {}", blob.digest, blob.size));
            }
        }
        Ok(())
    }
}

impl Documents for Inner {
    fn read(&self, digest: &Digest, limit: usize) -> io::Result<Option<Bytes>> {
        document(&self.root, digest, limit)
    }
}

#[async_trait]
impl ImageSource for OciLayout {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        Ok(self.catalog("*").await?.list())
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.catalog(reference).await?.resolve(reference)
    }

    /// The handle reads every blob of the folder, so that a stream can be resumed after its image
    /// lost its name: a lender decides who may read which.
    async fn open(&self, key: &ImageKey, _: LayerForm) -> Result<OpenImage, SourceError> {
        let image = self.catalog(key).await?.image(key).ok_or_else(|| key.not_found())?;
        let (inner, read) = (self.0.clone(), image.clone());
        let whole = blocking(move || inner.whole(&read)).await;
        whole.map_err(|reason| SourceError::Malformed { image: key.to_string(), reason })?;
        Ok(OpenImage { image: Arc::unwrap_or_clone(image), blobs: Arc::new(Blobs(self.0.clone())) })
    }
}

/// The blobs of the folder.
struct Blobs(Arc<Inner>);

#[async_trait]
impl BlobSource for Blobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        match self.span(digest).await {
            Ok(span) => Ok(Some(span.size)),
            Err(BlobError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let path = blob_path(&self.0.root, digest);
        self.span(digest).await?.stream(*digest, offset, &path)
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let path = blob_path(&self.0.root, digest);
        self.span(digest).await?.frames(*digest, offset, &path)
    }
}

impl Blobs {
    async fn span(&self, digest: &Digest) -> Result<FileBlob, BlobError> {
        let (inner, digest) = (self.0.clone(), *digest);
        blocking(move || inner.span(&digest)).await
    }
}
