//! The folder of a store, and the state that all of its files share.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;
use tokio::sync::Notify;

use super::arrivals::Arrivals;
use super::policy::{Collected, Mark};
use super::recent::Recent;
use super::trust::Trust;
use crate::blob::BlobError;
use crate::digest::Digest;
use crate::file::{FileState, open_regular};
use crate::frame::Pool;
use crate::store::lease::Leases;

/// A store of files in one folder. Clones are the same store.
#[derive(Clone)]
pub struct FsStore(pub(super) Arc<Inner>);

/// The state that the clones of a store share.
pub(super) struct Inner {
    pub(super) root: PathBuf,
    pub(super) leases: Leases,
    pub(super) quarantined: AtomicU64,
    /// Totals of all collections; locked during a collection.
    pub(super) collected: Mutex<Collected>,
    /// The ingests under way.
    pub(super) arrivals: Arrivals,
    /// The space that they leave free.
    pub(super) reserve: Mutex<Mark>,
    /// Notified of each committed blob.
    pub(super) committed: Notify,
    /// The files that are known to be right.
    pub(super) trust: Trust,
    /// Buffers for frames.
    pub(super) pool: Pool,
    /// The readers, and frames that several of them share.
    pub(super) recent: Recent,
    /// The lock of its only user; absent where others use the folder too.
    pub(super) lock: Option<File>,
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
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

impl fmt::Debug for FsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FsStore").field("root", &self.0.root).finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn new(root: PathBuf, lock: Option<File>) -> Self {
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
    pub(super) fn is_shared(&self) -> bool {
        self.lock.is_none()
    }

    /// Waits until no other process changes the folder. The lock is held until the file is dropped.
    pub(super) fn changing(&self) -> io::Result<File> {
        let path = self.root.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        Ok(file)
    }

    /// A new file under `ingest/`.
    pub(super) fn temporary(&self) -> io::Result<NamedTempFile> {
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
    pub(super) fn sweep(&self) -> io::Result<()> {
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

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(super) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub(super) fn list(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
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
    pub(super) fn quarantine_if_same(&self, digest: &Digest, file: &File) {
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
pub(super) fn open_file(path: &Path) -> io::Result<(File, u64)> {
    let file = open_regular(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

pub(super) fn storage(digest: Digest, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    move |source| BlobError::Storage { digest, path: path.display().to_string(), source }
}

pub(super) fn make_folder(path: &Path) -> Result<(), StoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(StoreError::io("make", path))
}

pub(super) fn empty_folder(path: &Path) -> Result<(), StoreError> {
    for entry in path.read_dir().map_err(StoreError::io("list", path))? {
        let entry = entry.map_err(StoreError::io("list", path))?.path();
        std::fs::remove_file(&entry).map_err(StoreError::io("remove", &entry))?;
    }
    Ok(())
}

/// Makes renames in the folder survive a power cut.
pub(super) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", path))
}

pub(super) fn lock(root: &Path) -> Result<File, StoreError> {
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
