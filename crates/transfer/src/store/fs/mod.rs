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

mod arrivals;
mod check;
mod collect;
mod ingest;
mod read;
mod recent;
#[cfg(test)]
mod tests;
mod trust;

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;
use tokio::sync::Notify;

pub use self::arrivals::Arrival;
use self::arrivals::Arrivals;
pub use self::check::CheckReport;
pub use self::collect::{Collected, Goal, Mark, Policy, Space, Usage};
use self::ingest::Hashed;
use self::recent::Recent;
use self::trust::Trust;
use super::lease::Leases;
use crate::blob::{BlobError, BlobSource, BlobStore, BlobStream, Ingest};
use crate::blocking::blocking;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::file::{FileState, open_regular};
use crate::frame::Pool;

/// A store of files in one folder. Clones are the same store.
#[derive(Clone)]
pub struct FsStore(Arc<Inner>);

struct Inner {
    root: PathBuf,
    leases: Leases,
    quarantined: AtomicU64,
    /// Totals of all collections; locked during a collection.
    collected: Mutex<Collected>,
    /// The ingests under way.
    arrivals: Arrivals,
    /// The space that they leave free.
    reserve: Mutex<Mark>,
    /// Notified of each committed blob.
    committed: Notify,
    /// The files that are known to be right.
    trust: Trust,
    /// Buffers for frames.
    pool: Pool,
    /// The readers, and frames that several of them share.
    recent: Recent,
    /// The lock of its only user; absent where others use the folder too.
    lock: Option<File>,
}

/// A fault of the store itself, not of one blob.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open; two writers would clean up after each other.
    #[error("the store at {} is in use by {holder}", path.display())]
    InUse {
        /// The store's folder.
        path: PathBuf,
        /// The holder of the lock: `process 123`, as it wrote itself, or `another process`.
        holder: String,
    },
    /// No space, no permission, a broken disk: a person has to act.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

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

impl fmt::Debug for FsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FsStore").field("root", &self.0.root).finish_non_exhaustive()
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

impl Inner {
    fn new(root: PathBuf, lock: Option<File>) -> Self {
        Self {
            root,
            leases: Leases::default(),
            quarantined: AtomicU64::new(0),
            collected: Mutex::default(),
            arrivals: Arrivals::default(),
            reserve: Mutex::new(Mark::Bytes(0)),
            committed: Notify::new(),
            trust: Trust::default(),
            pool: Pool::default(),
            recent: Recent::default(),
            lock,
        }
    }

    /// Whether other processes use the folder too.
    fn is_shared(&self) -> bool {
        self.lock.is_none()
    }

    /// Waits until no other process changes the folder. The lock is held until the file is dropped.
    fn changing(&self) -> io::Result<File> {
        let path = self.root.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        Ok(file)
    }

    /// A new file under `ingest/`.
    fn temporary(&self) -> io::Result<NamedTempFile> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("").rand_bytes(16);
        if !self.is_shared() {
            return builder.tempfile_in(self.ingest());
        }
        let _changing = self.changing()?;
        builder.permissions(Permissions::from_mode(0o666));
        let file = builder.tempfile_in(self.ingest())?;
        // Locked while it is written: so another process can tell it from a leftover of a kill.
        file.as_file().lock()?;
        Ok(file)
    }

    /// Removes the leftovers of killed processes from a shared folder.
    fn sweep(&self) -> io::Result<()> {
        let _changing = self.changing()?;
        for entry in self.ingest().read_dir()? {
            let path = entry?.path();
            let left = match File::open(&path) {
                Ok(file) => file.try_lock().is_ok(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            };
            match left.then(|| std::fs::remove_file(&path)) {
                // Kept by its process meanwhile.
                Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    fn list(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let folder = self.blobs();
        let entries = folder.read_dir().map_err(StoreError::io("list", &folder))?;
        let mut blobs = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::io("list", &folder))?;
            let digest = entry.file_name().to_str().and_then(|name| Digest::from_hex(name).ok());
            let (Some(digest), Ok(metadata)) = (digest, entry.metadata()) else {
                // Not ours, or removed while we looked.
                continue;
            };
            blobs.push((digest, metadata.len()));
        }
        blobs.sort_unstable();
        Ok(blobs)
    }

    /// Takes the blob out of service if it still is the file that was found corrupt: it may have
    /// been replaced by a good one meanwhile.
    fn quarantine_if_same(&self, digest: &Digest, file: &File) {
        let path = self.blob(digest);
        let same = match (file.metadata(), path.metadata()) {
            (Ok(read), Ok(there)) => FileState::of(&read).is_same_file(&FileState::of(&there)),
            _ => false,
        };
        if !same {
            return;
        }
        self.trust.forget(digest);
        self.quarantined.fetch_add(1, Ordering::Relaxed);
        let shelf = self.quarantine().join(digest.hex());
        let moved = make_folder(&self.quarantine()).map_err(io::Error::other);
        let moved = moved.and_then(|()| std::fs::rename(&path, &shelf));
        // On a disk without room for a folder entry the blob must still not be served again.
        let moved = moved.or_else(|_| std::fs::remove_file(&path));
        match moved {
            Ok(()) => tracing::warn!(blob.digest = %digest, "corrupt blob moved to quarantine"),
            Err(error) => {
                tracing::error!(blob.digest = %digest, %error, "corrupt blob could not be moved");
            }
        }
    }
}

/// A blob's file and its size in bytes.
fn open_file(path: &Path) -> io::Result<(File, u64)> {
    let file = open_regular(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn storage(digest: Digest, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    move |source| BlobError::Storage { digest, path: path.display().to_string(), source }
}

fn make_folder(path: &Path) -> Result<(), StoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(StoreError::io("make", path))
}

fn empty_folder(path: &Path) -> Result<(), StoreError> {
    for entry in path.read_dir().map_err(StoreError::io("list", path))? {
        let entry = entry.map_err(StoreError::io("list", path))?.path();
        std::fs::remove_file(&entry).map_err(StoreError::io("remove", &entry))?;
    }
    Ok(())
}

/// Makes renames in the folder survive a power cut.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", path))
}

fn lock(root: &Path) -> Result<File, StoreError> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // For a process that finds it locked. If it cannot be written, the next step fails.
            let own = std::process::id().to_string();
            let _for_people = file.set_len(0).and_then(|()| file.write_all_at(own.as_bytes(), 0));
            Ok(file)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(StoreError::InUse { path: root.to_owned(), holder: holder(&file) })
        }
        Err(error) => Err(StoreError::io("lock", &path)(error.into())),
    }
}

/// The process that wrote its number into the lock's file.
fn holder(lock: &File) -> String {
    let mut text = [0; 20];
    let size = lock.read_at(&mut text, 0).unwrap_or(0);
    match std::str::from_utf8(&text[..size]).map(str::parse::<u32>) {
        Ok(Ok(number)) => format!("process {number}"),
        _ => "another process".into(),
    }
}
