//! Where an engine with the overlay2 driver keeps what, beneath its data-root.
//!
//! ```text
//! engine-id                                        the engine's own name, from Docker 24 on
//! image/overlay2/imagedb/content/sha256/<config>   an image's config
//! image/overlay2/layerdb/sha256/<chain ID>/
//!     diff                                         the layer's diff ID
//!     cache-id                                     the name of its folder
//!     tar-split.json.gz                            its tar without the files' contents
//! overlay2/<cache-id>/diff/                        its files
//! ```
//! Nothing is ever written here, and the engine goes on meanwhile: images come and go.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::layer::tar_split::{Entries, SplitError};
use bytes::Bytes;
use flate2::bufread::GzDecoder;
use transfer::file::open_regular;
use transfer::image::MAX_CONFIG;
use transfer::{BlobError, ChainId, ConfigDigest, DiffId, Digest};

/// Largest of the files that hold one ID, in bytes.
const MAX_ID: u64 = 256;

/// Read ahead of compressed and of plain text, in bytes.
const BUFFER: usize = 64 << 10;

/// A tar-split file, decompressed as it is read.
pub(super) type SplitFile = Entries<BufReader<GzDecoder<BufReader<Counted>>>>;

/// Files of an engine that cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    /// The system's answer: it is not there, or not for this user.
    #[error("{path} cannot be read; {ADVICE}")]
    Unreadable {
        /// File or folder.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file has something else in it than this engine writes.
    #[error("{path} is not what the engine keeps there: {reason}; {ADVICE}")]
    Wrong {
        /// File or folder.
        path: String,
        /// What it has.
        reason: String,
    },
    /// The files are those of another engine.
    #[error("{path} belongs to another engine: {reason}; {ADVICE}")]
    Stranger {
        /// The data-root.
        path: String,
        /// How that is known.
        reason: String,
    },
}

const ADVICE: &str = "mount this engine's whole data-root read-only here and read it as root, \
                      or take its images by save";

impl FilesError {
    fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Unreadable { path: path.display().to_string(), source }
    }

    pub(super) fn wrong(path: &Path, reason: impl ToString) -> Self {
        Self::Wrong { path: path.display().to_string(), reason: reason.to_string() }
    }

    /// As an error about a blob: a person has to act, and another way may give it.
    pub(super) fn about(self, digest: Digest) -> BlobError {
        let (path, kind) = match &self {
            Self::Unreadable { path, source } => (path.clone(), source.kind()),
            Self::Wrong { path, .. } | Self::Stranger { path, .. } => {
                (path.clone(), io::ErrorKind::InvalidData)
            }
        };
        BlobError::Storage { digest, path, source: io::Error::new(kind, self) }
    }
}

/// What has been read of the engine's files.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) streams: AtomicU64,
    pub(super) bytes_read: AtomicU64,
    pub(super) metadata_read: AtomicU64,
}

/// A data-root.
#[derive(Clone, Debug)]
pub(super) struct DataRoot {
    path: PathBuf,
    pub(super) counters: Arc<Counters>,
}

/// Where one layer's parts are.
#[derive(Debug)]
pub(super) struct LayerFiles {
    /// What the tar is made of.
    pub(super) tar_split: PathBuf,
    /// The folder that its files were unpacked to.
    pub(super) diff: PathBuf,
    counters: Arc<Counters>,
}

impl DataRoot {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, counters: Arc::default() }
    }

    /// Finds out whether this is a data-root of the engine called `id`, as far as files tell.
    pub(super) fn check(&self, id: &str) -> Result<(), FilesError> {
        for folder in
            ["image/overlay2/layerdb", "image/overlay2/imagedb/content/sha256", "overlay2"]
        {
            let path = self.path.join(folder);
            std::fs::read_dir(&path).map_err(FilesError::unreadable(&path))?;
        }
        // Engines before 24 keep their name elsewhere, and few may read this one.
        match self.read(&self.path.join("engine-id"), MAX_ID) {
            Ok(own) if !id.is_empty() && own.trim_ascii() != id.as_bytes() => {
                Err(self.stranger(format!("its engine-id is not {id}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn stranger(&self, reason: impl ToString) -> FilesError {
        FilesError::Stranger { path: self.path.display().to_string(), reason: reason.to_string() }
    }

    /// Whether there is an image of that config.
    pub(super) fn has_image(&self, config_digest: &ConfigDigest) -> bool {
        self.config_path(config_digest).is_file()
    }

    /// An image's config; `None` where there is no such image.
    pub(super) fn config(&self, config_digest: &ConfigDigest) -> Result<Option<Bytes>, FilesError> {
        let path = self.config_path(config_digest);
        let config = match self.read(&path, MAX_CONFIG as u64) {
            Err(FilesError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                return Ok(None);
            }
            config => config?,
        };
        let actual = Digest::of(&config);
        if actual != config_digest.0 {
            return Err(FilesError::wrong(&path, format!("its digest is {actual}")));
        }
        Ok(Some(config.into()))
    }

    /// The parts of the layer that ends the chain.
    pub(super) fn layer(
        &self,
        chain_id: &ChainId,
        diff_id: &DiffId,
    ) -> Result<LayerFiles, FilesError> {
        let folder = self.path.join("image/overlay2/layerdb/sha256").join(chain_id.0.hex());
        let id = |name: &str| {
            let path = folder.join(name);
            let text = self.read(&path, MAX_ID)?;
            let text = std::str::from_utf8(&text).unwrap_or_default().trim();
            Ok((path, text.to_owned()))
        };
        let (path, diff) = id("diff")?;
        if diff.parse() != Ok(*diff_id) {
            return Err(FilesError::wrong(&path, format!("{diff:?} instead of {diff_id}")));
        }
        let (path, cache_id) = id("cache-id")?;
        // Random, and written as digests are: with no way out of the folder.
        if Digest::from_hex(&cache_id).is_err() {
            return Err(FilesError::wrong(&path, format!("{cache_id:?} is no folder's name")));
        }
        Ok(LayerFiles {
            tar_split: folder.join("tar-split.json.gz"),
            diff: self.path.join("overlay2").join(cache_id).join("diff"),
            counters: self.counters.clone(),
        })
    }

    fn config_path(&self, config_digest: &ConfigDigest) -> PathBuf {
        self.path.join("image/overlay2/imagedb/content/sha256").join(config_digest.0.hex())
    }

    fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, FilesError> {
        let mut bytes = Vec::new();
        let read = open_regular(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
        let size = read.map_err(FilesError::unreadable(path))? as u64;
        self.counters.metadata_read.fetch_add(size, Ordering::Relaxed);
        if limit < size {
            return Err(FilesError::wrong(path, format!("more than {limit} bytes")));
        }
        Ok(bytes)
    }
}

impl LayerFiles {
    /// Begins reading what the tar is made of.
    pub(super) fn entries(&self) -> Result<SplitFile, FilesError> {
        let file =
            open_regular(&self.tar_split).map_err(FilesError::unreadable(&self.tar_split))?;
        let counted = Counted { file, counters: self.counters.clone() };
        let plain = GzDecoder::new(BufReader::with_capacity(BUFFER, counted));
        Ok(Entries::new(BufReader::with_capacity(BUFFER, plain)))
    }

    /// The size of the layer's tar in bytes.
    pub(super) fn size(&self) -> Result<u64, FilesError> {
        self.entries()?.total().map_err(|error| self.split_error(error))
    }

    pub(super) fn split_error(&self, error: SplitError) -> FilesError {
        match error {
            // Of a damaged gzip file the reader says the same as of a damaged disk.
            SplitError::Read(source) => FilesError::unreadable(&self.tar_split)(source),
            error => FilesError::wrong(&self.tar_split, error),
        }
    }

    /// Counts bytes of a layer's file that were read.
    pub(super) fn count(&self, size: u64) {
        self.counters.bytes_read.fetch_add(size, Ordering::Relaxed);
    }
}

/// A file whose bytes are counted as they are read.
#[derive(Debug)]
pub(super) struct Counted {
    file: File,
    counters: Arc<Counters>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.file.read(buffer)?;
        self.counters.metadata_read.fetch_add(size as u64, Ordering::Relaxed);
        Ok(size)
    }
}
