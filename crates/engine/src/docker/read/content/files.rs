//! containerd's content store as files: a blob is a file that has its digest for a name.
//!
//! ```text
//!   <folder>/blobs/sha256/<64 hex>     committed, never changed
//!   <folder>/ingest/…                  coming in; not read here
//! ```
//! Links are not followed: what has a blob's name and is no file is not there.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use transfer::blocking::blocking;
use transfer::file::open_regular;
use transfer::{BlobError, BlobSource, BlobStream, Digest};

use crate::file_blob::FileBlob;

/// Where the content lies below a data-root or containerd's root, by who runs containerd.
const BELOW: [&str; 3] =
    ["", "io.containerd.content.v1.content", "containerd/daemon/io.containerd.content.v1.content"];

/// The content store in a folder.
#[derive(Clone, Debug)]
pub(super) struct Files {
    blobs: PathBuf,
}

impl Files {
    /// Finds the store in `folder`: itself, or where a data-root has it. `None` where it is not.
    ///
    /// # Errors
    /// That a folder cannot be looked into.
    pub(super) fn find(folder: &Path) -> io::Result<Option<Self>> {
        for below in BELOW {
            let blobs = folder.join(below).join("blobs/sha256");
            match blobs.read_dir() {
                Ok(_) => return Ok(Some(Self { blobs })),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// A blob's file; what is a link or no plain file is no blob.
    fn open_file(&self, digest: &Digest) -> Result<FileBlob, BlobError> {
        let (path, digest) = (self.path(digest), *digest);
        open_regular(&path).and_then(FileBlob::whole).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => BlobError::NotFound { digest },
            _ => storage(digest, &path, error),
        })
    }
}

#[async_trait]
impl BlobSource for Files {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let (path, digest) = (self.path(digest), *digest);
        let look = move || match path.symlink_metadata() {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(storage(digest, &path, error)),
        };
        blocking(look).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.span(digest).await?.stream(*digest, offset, &self.path(digest))
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.span(digest).await?.frames(*digest, offset, &self.path(digest))
    }
}

impl Files {
    async fn span(&self, digest: &Digest) -> Result<FileBlob, BlobError> {
        let (files, digest) = (self.clone(), *digest);
        blocking(move || files.open_file(&digest)).await
    }
}

fn storage(digest: Digest, path: &Path, source: io::Error) -> BlobError {
    BlobError::Storage { digest, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use transfer::fixture::contract;

    use super::*;

    fn store() -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = folder.path().join(BELOW[2]).join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for blob in contract::blobs() {
            std::fs::write(blobs.join(Digest::of(&blob).hex()), &blob).unwrap();
        }
        let files = Files::find(folder.path()).unwrap().unwrap();
        (folder, files)
    }

    #[tokio::test]
    async fn a_folder_of_blobs_is_a_source() {
        let (_folder, files) = store();
        contract::source(&files, &contract::blobs()).await;
    }

    #[tokio::test]
    async fn a_store_is_found_where_engines_have_it_and_nowhere_else() {
        let (folder, files) = store();
        for below in ["containerd/daemon", "containerd/daemon/io.containerd.content.v1.content"] {
            let found = Files::find(&folder.path().join(below)).unwrap().unwrap();
            assert_eq!(found.blobs, files.blobs);
        }
        for nowhere in ["containerd", "nothing"] {
            assert!(Files::find(&folder.path().join(nowhere)).unwrap().is_none(), "{nowhere}");
        }
    }

    #[tokio::test]
    async fn what_is_no_file_and_what_rotted_is_not_a_blob() {
        let (folder, files) = store();
        let digest = Digest::of(b"secret");
        std::fs::write(folder.path().join("secret"), b"secret").unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret"), files.path(&digest)).unwrap();
        let rotten = Digest::of(b"fresh");
        std::fs::write(files.path(&rotten), b"stale").unwrap();
        let folder = Digest::of(b"folder");
        std::fs::create_dir(files.path(&folder)).unwrap();
        for digest in [digest, folder] {
            assert_eq!(files.stat(&digest).await.unwrap(), None);
            let error = files.open(&digest, 0).await.map(drop).unwrap_err();
            assert!(matches!(error, BlobError::NotFound { .. }), "{error:?}");
        }
        let stream = files.open(&rotten, 0).await.unwrap();
        let (read, end) = transfer::fixture::drain(stream).await;
        assert_eq!(read, b"");
        assert!(matches!(end, Err(BlobError::DigestMismatch { .. })), "{end:?}");
    }
}
