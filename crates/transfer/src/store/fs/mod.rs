//! Blobs as files that survive a kill and a power cut.
//!
//! ```text
//!   <root>/                    mode 0700, unless it was there before
//!     lock                     locked while a process has the store open
//!     blobs/sha256/<64 hex>    committed blobs: all that `list` and `stat` know of
//!     ingest/<random>          being taken in; removed when the store is opened
//!     quarantine/<64 hex>      found corrupt while read; never served, kept for a person to look at
//! ```
//!
//! **Commit**: check size and digest, fsync the file, rename it, fsync the folder. A kill leaves
//! the file under `ingest/` or the whole blob in place, nothing between. The rename replaces a blob
//! that is there already: the new file has just been hashed, the old one may have rotted; readers of
//! the old one keep it open.
//!
//! **Reading**: a blob is hashed on its way in, and again before the last frame of its next reader
//! when there is a reason: it was not taken in by this process, its file changed, or a reader doubts
//! it. One that turns out corrupt goes to quarantine, its readers get [`BlobError::DigestMismatch`] in
//! place of the last frame, and the next `stat` says that it is not here: so whoever needs it fetches
//! it again.

mod admission;
mod arrivals;
mod check;
mod collect;
mod folder;
mod hashing;
mod ingest;
mod policy;
mod read;
mod recent;
#[cfg(test)]
mod tests;
mod trust;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;

pub use self::arrivals::Arrival;
pub use self::check::CheckReport;
pub use self::folder::{FsStore, StoreError};
use self::folder::{Inner, empty_folder, lock, make_folder, storage, sync_folder};
use self::ingest::Hashed;
pub use self::policy::{Collected, Goal, Mark, Policy, Space, Usage};
use super::lease::Leases;
use crate::blob::{BlobError, BlobSource, BlobStore, BlobStream, Ingest};
use crate::blocking::blocking;
use crate::descriptor::Descriptor;
use crate::digest::Digest;

impl FsStore {
    /// Opens the store in folder `root`. Makes it where there is none, and removes the ingests of a
    /// killed process.
    ///
    /// # Errors
    /// [`StoreError::InUse`] and [`StoreError::Io`].
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        blocking(move || {
            make_folder(&root)?;
            let lock = lock(&root)?;
            let inner = Inner::new(root, Some(lock));
            for folder in [inner.blobs(), inner.ingest(), inner.quarantine()] {
                make_folder(&folder)?;
            }
            empty_folder(&inner.ingest())?;
            sync_folder(&inner.root)?;
            Ok(Self(Arc::new(inner)))
        })
        .await
    }

    /// Opens the store in a folder that other processes use at the same time, such as an image
    /// layout.
    ///
    /// Files get the permissions that the umask leaves. A blob counts as right only after it was read
    /// back ([`is_right`](Self::is_right)), and none is ever collected: the folder's names decide
    /// which blobs are needed.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn open_shared(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        blocking(move || {
            let inner = Inner::new(root, None);
            for folder in [inner.ingest(), inner.blobs()] {
                std::fs::create_dir_all(&folder).map_err(StoreError::io("make", &folder))?;
            }
            let swept = inner.sweep();
            swept.map_err(StoreError::io("clean up", &inner.ingest()))?;
            Ok(Self(Arc::new(inner)))
        })
        .await
    }

    /// The store's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// The leases on blobs.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.0.leases
    }

    /// Number of blobs found corrupt since the store was opened.
    #[must_use]
    pub fn quarantined(&self) -> u64 {
        self.0.quarantined.load(Ordering::Relaxed)
    }

    /// The committed blobs with their sizes in bytes, sorted by digest.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn list(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let inner = self.0.clone();
        blocking(move || inner.list()).await
    }
}

#[async_trait]
impl BlobSource for FsStore {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let (inner, digest) = (self.0.clone(), *digest);
        blocking(move || {
            let path = inner.blob(&digest);
            match path.symlink_metadata() {
                Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(storage(digest, &path)(error)),
            }
        })
        .await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        read::open(self.0.clone(), *digest, offset).await
    }

    fn doubt(&self, digest: &Digest) {
        self.0.trust.doubt(digest);
    }
}

#[async_trait]
impl BlobStore for FsStore {
    async fn ingest(&self) -> Result<Box<dyn Ingest>, BlobError> {
        ingest::begin(self.0.clone(), None, Hashed::Here).await
    }

    async fn ingest_of(&self, expected: &Descriptor) -> Result<Box<dyn Ingest>, BlobError> {
        ingest::begin(self.0.clone(), Some((expected.digest, expected.size)), Hashed::Here).await
    }

    async fn ingest_verified(&self, expected: &Descriptor) -> Result<Box<dyn Ingest>, BlobError> {
        ingest::begin(self.0.clone(), Some((expected.digest, expected.size)), Hashed::Before).await
    }

    async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        let (inner, digest) = (self.0.clone(), *digest);
        blocking(move || {
            let path = inner.blob(&digest);
            match inner.leases.unless_leased(&digest, || std::fs::remove_file(&path)) {
                None => Ok(()),
                Some(Ok(())) => {
                    inner.trust.forget(&digest);
                    Ok(())
                }
                Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Some(Err(error)) => Err(storage(digest, &path)(error)),
            }
        })
        .await
    }
}
