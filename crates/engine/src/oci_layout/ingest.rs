//! A blob coming into the folder: a locked temporary file until it is verified, flushed and renamed.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use transfer::{BlobError, Descriptor, Hasher};

use super::{blob_path, blobs_folder, lock};

/// What is being taken in. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct Ingest {
    root: PathBuf,
    file: NamedTempFile,
    hasher: Hasher,
    size: u64,
}

impl Ingest {
    /// Begins one. Its file is locked as long as it is being written, so that another process can
    /// tell it from one that a kill left.
    pub(super) fn begin(root: &Path) -> io::Result<Self> {
        let _changing = lock::changing(root)?;
        let file = temporary(&folder(root))?;
        file.as_file().lock()?;
        Ok(Self { root: root.to_owned(), file, hasher: Hasher::default(), size: 0 })
    }

    /// Takes the next bytes.
    pub(super) fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.hasher.update(frame);
        self.size += frame.len() as u64;
        self.file.write_all(frame)
    }

    /// How many bytes were taken.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Puts the blob in its place, over one that may have rotted there; nothing is left behind
    /// when it is not the one that was expected. The folder is flushed by [`flush`].
    pub(super) fn commit(self, expected: &Descriptor) -> Result<(), BlobError> {
        let Descriptor { digest, size, .. } = *expected;
        if self.size != size {
            return Err(BlobError::SizeMismatch { digest, expected: size, actual: self.size });
        }
        let actual = self.hasher.digest();
        if actual != digest {
            return Err(BlobError::DigestMismatch { expected: digest, actual });
        }
        let path = blob_path(&self.root, &digest);
        let storage =
            |source| BlobError::Storage { digest, path: path.display().to_string(), source };
        self.file.as_file().sync_all().map_err(storage)?;
        self.file.persist(&path).map_err(|error| storage(error.error))?;
        Ok(())
    }
}

/// A new file with the permissions that the process's umask leaves.
pub(super) fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("").rand_bytes(16).permissions(Permissions::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Where blobs come in.
pub(super) fn folder(root: &Path) -> PathBuf {
    root.join("ingest")
}

/// Makes renames survive a power cut.
pub(super) fn flush(root: &Path) -> io::Result<()> {
    for folder in [blobs_folder(root), root.to_owned()] {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Removes what killed processes left half written; what a living one writes is locked.
pub(super) fn sweep(root: &Path) -> io::Result<()> {
    let _changing = lock::changing(root)?;
    for entry in folder(root).read_dir()? {
        let path = entry?.path();
        let file = match File::open(&path) {
            // Renamed or removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        if file.try_lock().is_ok() {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
