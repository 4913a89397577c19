//! A tar file of images as a source: read in place, by offset, and never unpacked.
//!
//! ```text
//! docker save before 25            docker save from 25, OCI archives
//!   manifest.json                    oci-layout, index.json
//!   <hex>.json                       blobs/sha256/<hex>
//!   <id>/layer.tar                   manifest.json (Docker's alone)
//!   <id>/layer.tar → ../<id>/…
//! ```
//! Opening reads every header once ([`layer::tar::Rules::Strict`] says what is refused) and remembers where each blob
//! lies; a blob is then read like a file of its own. Where a file has both tables of contents,
//! `index.json` counts, since it keeps the digests of a registry, and `manifest.json` adds what that
//! does not have.
//!
//! The file must stay as it is: each call looks whether it did.

mod docker;
mod engine;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use layer::tar::{Index, TarError};
use transfer::blocking::blocking;
use transfer::file::{FileState, open_regular};
use transfer::image::{InvalidImage, MAX_MANIFEST};
use transfer::{
    BlobError, BlobSource, BlobStream, ConfigDigest, Digest, EngineInfo, Image, ImageKey,
    ImageSource, ImageSummary, LayerForm, OpenImage, Platform, Reference, SourceError, StoreKind,
};

pub use self::engine::ArchiveEngine;

use self::docker::SavedImage;
use crate::file_blob::FileBlob;
use crate::oci_layout::catalog::{Catalog, Documents};

/// A tar file of images: what `docker save` wrote, or an OCI image layout. Clones are the same file.
#[derive(Clone)]
pub struct Archive(Arc<Inner>);

struct Inner {
    path: PathBuf,
    identity: FileState,
    file: FileBlob,
    entries: Index,
    catalog: Catalog,
    /// Images of `manifest.json` that `index.json` does not have.
    saved: HashMap<ConfigDigest, SavedImage>,
    /// Those of them that were asked for, and the layers that have no path of their digest.
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    images: HashMap<ConfigDigest, Image>,
    layers: HashMap<Digest, FileBlob>,
}

/// A fault of an archive itself, not of one of its blobs.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// No such file, no permission, a broken disk: a person has to act.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file as a whole is compressed, so nothing in it can be read at an offset.
    #[error("{} is compressed by {by}; decompress it first: {command} {}", path.display(), path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// By which program.
        by: &'static str,
        /// A command that decompresses it.
        command: &'static str,
    },
    /// It is no tar file, or one that two readers could read differently.
    #[error("{} is refused at byte {at}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Offset of the entry in question.
        at: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A tar file, but not of images.
    #[error(
        "{} has no images: {reason}; `docker save` and `skopeo copy … oci-archive:FILE` make such \
         files", path.display()
    )]
    NoImages {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// The file is not the one that was opened any more.
    #[error("{} was changed after it was opened; start again to read what it is now", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

impl Archive {
    /// Opens the archive at `path` and reads where everything in it lies, for images of this
    /// machine's platform.
    ///
    /// # Errors
    /// Any [`ArchiveError`].
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, ArchiveError> {
        let path = path.into();
        blocking(move || Inner::open(path).map(|inner| Self(Arc::new(inner)))).await
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Describes it as an engine. Also a health check.
    ///
    /// # Errors
    /// [`ArchiveError::Changed`], [`ArchiveError::Io`].
    pub async fn info(&self) -> Result<EngineInfo, ArchiveError> {
        let inner = self.0.clone();
        blocking(move || inner.check()).await?;
        Ok(EngineInfo {
            engine: "archive".into(),
            store: StoreKind::Containerd,
            driver: "tar".into(),
            id: format!("{:?}", self.0.identity),
        })
    }

    async fn checked(&self, image: impl ToString) -> Result<&Inner, SourceError> {
        let inner = self.0.clone();
        let checked = blocking(move || inner.check()).await;
        checked.map_err(|error| SourceError::unavailable(image, error))?;
        Ok(&self.0)
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl Inner {
    fn open(path: PathBuf) -> Result<Self, ArchiveError> {
        let io = |source| ArchiveError::Io { action: "open", path: path.clone(), source };
        // A link to the file is as good as the file: the path is the administrator's own.
        let target = path.canonicalize().map_err(io)?;
        let file = open_regular(&target).map_err(io)?;
        let identity = FileState::of(&file.metadata().map_err(io)?);
        let size = file.metadata().map_err(io)?.len();
        refuse_compressed(&path, &file, size)?;
        let entries = Index::read(&file, size).map_err(|error| match error {
            TarError::Read(source) => {
                ArchiveError::Io { action: "read", path: path.clone(), source }
            }
            TarError::Malformed { at, reason } => {
                ArchiveError::Malformed { path: path.clone(), at, reason }
            }
        })?;
        let file = docker::whole_file(file, size);
        let mut inner = Self {
            path,
            identity,
            file,
            entries,
            catalog: Catalog::default(),
            saved: HashMap::new(),
            made: Mutex::default(),
        };
        inner.catalog = inner.read_index()?;
        inner.read_manifest()?;
        for (reference, reason) in inner.catalog.problems() {
            let file = inner.path.display();
            tracing::warn!(%file, image = %reference, reason, "an image cannot be read");
        }
        Ok(inner)
    }

    /// Reads `index.json`; nothing where there is none.
    fn read_index(&self) -> Result<Catalog, ArchiveError> {
        let has = |path| self.entries.file(path).is_some();
        match (has("index.json"), has(docker::MANIFEST)) {
            (true, _) => {}
            (false, true) => return Ok(Catalog::default()),
            (false, false) => {
                return Err(self.no_images("it has neither index.json nor manifest.json".into()));
            }
        }
        let index = self.small("index.json", MAX_MANIFEST).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => self.no_images(error.to_string()),
            _ => ArchiveError::Io { action: "read", path: self.path.clone(), source: error },
        })?;
        let catalog = Catalog::of_index(&index.unwrap_or_default(), &Platform::host(), self);
        catalog.map_err(|error: InvalidImage| self.no_images(transfer::explain(&error)))
    }

    /// Adds what `manifest.json` tells beyond that.
    fn read_manifest(&mut self) -> Result<(), ArchiveError> {
        if self.entries.file(docker::MANIFEST).is_none() {
            return Ok(());
        }
        let images = match docker::images(&self.file, &self.entries) {
            Ok(images) => images,
            Err(reason) => return Err(self.no_images(reason)),
        };
        for saved in images {
            let config_digest = saved.config_digest();
            let known = self.catalog.has(&config_digest);
            self.catalog.describe(saved.summary());
            for reference in &saved.references {
                self.catalog.name_also(reference.clone(), config_digest);
            }
            if !known {
                self.saved.insert(config_digest, saved);
            }
        }
        Ok(())
    }

    fn no_images(&self, reason: String) -> ArchiveError {
        ArchiveError::NoImages { path: self.path.clone(), reason }
    }

    /// Whether the file is still the one that was opened.
    fn check(&self) -> Result<(), ArchiveError> {
        let metadata = self.path.metadata().map_err(|source| ArchiveError::Io {
            action: "look at",
            path: self.path.clone(),
            source,
        })?;
        match FileState::of(&metadata) == self.identity {
            true => Ok(()),
            false => Err(ArchiveError::Changed { path: self.path.clone() }),
        }
    }

    fn small(&self, path: &str, limit: usize) -> io::Result<Option<Bytes>> {
        let Some((start, size)) = self.entries.file(path) else { return Ok(None) };
        if (limit as u64) < size {
            let reason = format!("{path} has {size} bytes, at most {limit} are read");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
        }
        FileBlob { file: self.file.file.clone(), start, size }.read_all().map(Some)
    }

    /// An image that `manifest.json` alone knows, made when it is first asked for.
    fn saved_image(&self, key: &ImageKey) -> Result<Image, SourceError> {
        let image = self.made_image(&key.config_digest)?;
        match key.names(&image.config_digest, &image.target_digest()) {
            true => Ok(image),
            false => Err(key.not_found()),
        }
    }

    fn made_image(&self, config_digest: &ConfigDigest) -> Result<Image, SourceError> {
        let image = config_digest.to_string();
        let Some(saved) = self.saved.get(config_digest) else {
            return Err(SourceError::NotFound { image });
        };
        if let Some(made) = self.made().images.get(config_digest) {
            return Ok(made.clone());
        }
        let malformed = |reason| SourceError::Malformed { image: image.clone(), reason };
        let (made, layers) = saved.whole().map_err(malformed)?;
        let mut known = self.made();
        known.layers.extend(layers);
        known.images.insert(*config_digest, made.clone());
        Ok(made)
    }

    fn span(&self, digest: &Digest) -> Option<FileBlob> {
        let at_its_path = self.entries.file(&blob_path(digest)).map(|(start, size)| FileBlob {
            file: self.file.file.clone(),
            start,
            size,
        });
        at_its_path.or_else(|| self.made().layers.get(digest).cloned())
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().expect("invariant: no one panics while holding what was made")
    }
}

impl SavedImage {
    fn summary(&self) -> ImageSummary {
        ImageSummary {
            config_digest: self.config_digest(),
            // Its manifest is synthesised when the layers are read.
            target_digest: None,
            references: Vec::new(),
            diff_ids: self.file.diff_ids.clone(),
            unpacked_size: self.unpacked_size(),
            platform: self.file.platform.clone(),
        }
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn refuse_compressed(path: &Path, file: &std::fs::File, size: u64) -> Result<(), ArchiveError> {
    let mut magic = [0; 6];
    let len = usize::try_from(size).unwrap_or(6).min(6);
    file.read_exact_at(&mut magic[..len], 0).map_err(|source| ArchiveError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let (by, command) = match magic {
        [0x1f, 0x8b, ..] => ("gzip", "gunzip --keep"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", "unzstd --keep"),
        [b'B', b'Z', b'h', ..] => ("bzip2", "bunzip2 --keep"),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => ("xz", "unxz --keep"),
        _ => return Ok(()),
    };
    Err(ArchiveError::Compressed { path: path.to_owned(), by, command })
}

impl Documents for Inner {
    fn read(&self, digest: &Digest, limit: usize) -> io::Result<Option<Bytes>> {
        self.small(&blob_path(digest), limit)
    }
}

#[async_trait]
impl ImageSource for Archive {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        Ok(self.checked("*").await?.catalog.list())
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.checked(reference).await?.catalog.resolve(reference)
    }

    /// The handle reads every blob of the file: a lender decides who may read which.
    async fn open(&self, key: &ImageKey, _: LayerForm) -> Result<OpenImage, SourceError> {
        let blobs = Arc::new(Blobs(self.0.clone()));
        let Some(image) = self.checked(key).await?.catalog.image(key) else {
            let (inner, key) = (self.0.clone(), *key);
            let image = blocking(move || inner.saved_image(&key)).await?;
            return Ok(OpenImage { image, blobs });
        };
        for layer in &image.layers {
            let size = self.0.span(&layer.blob.digest).map(|span| span.size);
            if size != Some(layer.blob.size) {
                return Err(SourceError::Malformed {
                    image: key.to_string(),
                    reason: format!("layer {} is not in the file whole", layer.blob.digest),
                });
            }
        }
        Ok(OpenImage { image: Arc::unwrap_or_clone(image), blobs })
    }
}

/// The blobs of the file.
struct Blobs(Arc<Inner>);

#[async_trait]
impl BlobSource for Blobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        Ok(self.0.span(digest).map(|span| span.size))
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.span(digest).await?.stream(*digest, offset, &self.0.path)
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.span(digest).await?.frames(*digest, offset, &self.0.path)
    }
}

impl Blobs {
    /// Finds the blob, unless the file is not the one that was opened any more.
    async fn span(&self, digest: &Digest) -> Result<FileBlob, BlobError> {
        let inner = self.0.clone();
        let checked = blocking(move || inner.check()).await;
        checked.map_err(|error| BlobError::unavailable(*digest, error))?;
        self.0.span(digest).ok_or(BlobError::NotFound { digest: *digest })
    }
}
