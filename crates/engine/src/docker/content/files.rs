//! containerd's content store as files: a blob is a file that has its digest for a name.
//!
//! ```text
//!   <folder>/blobs/sha256/<64 hex>     committed, never changed
//!   <folder>/ingest/…                  coming in; not read here
//! ```
//! Links are not followed: what has a blob's name and is no file is not there.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use rustix::fs::OFlags;
use transfer::verify::verify;
use transfer::{BlobError, BlobSource, BlobStream, Descriptor, Digest, MAX_FRAME, MediaType};

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

    fn open_file(&self, digest: &Digest, offset: u64) -> Result<(File, u64), BlobError> {
        let digest = *digest;
        let path = self.path(&digest);
        // Neither a link's target nor a pipe's other end is waited for.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).expect("invariant: flags of open are an int");
        let opened = File::options().read(true).custom_flags(flags).open(&path);
        let failed = |source| storage(digest, &path, source);
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_link(&error) => {
                return Err(BlobError::NotFound { digest });
            }
            opened => opened.map_err(failed)?,
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(BlobError::NotFound { digest });
        }
        let size = metadata.len();
        if size < offset {
            return Err(BlobError::OffsetBeyondEnd { digest, size, offset });
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        Ok((file, size))
    }
}

fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
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
        blocking(digest, look).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let (files, digest) = (self.clone(), *digest);
        let (file, size) = blocking(digest, move || files.open_file(&digest, offset)).await?;
        let reading =
            Reading { file: Some(file), path: self.path(&digest), digest, left: size - offset };
        let frames = stream::try_unfold(reading, async |reading| reading.next().await).boxed();
        if offset != 0 {
            return Ok(frames);
        }
        let media_type = MediaType::new("application/octet-stream");
        Ok(verify(frames, &Descriptor { media_type, digest, size }))
    }
}

/// A file that is being read.
struct Reading {
    /// Absent only while a frame is being read.
    file: Option<File>,
    path: PathBuf,
    digest: Digest,
    /// Bytes until the end that the file had when it was opened.
    left: u64,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, BlobError> {
        if self.left == 0 {
            return Ok(None);
        }
        let len = usize::try_from(self.left).map_or(MAX_FRAME, |left| left.min(MAX_FRAME));
        let mut file = self.file.take().expect("invariant: it is put back after each frame");
        let (digest, path) = (self.digest, self.path.clone());
        let read = move || {
            let mut frame = BytesMut::zeroed(len);
            file.read_exact(&mut frame).map_err(|error| storage(digest, &path, error))?;
            Ok((file, frame.freeze()))
        };
        let (file, frame) = blocking(digest, read).await?;
        self.file = Some(file);
        self.left -= frame.len() as u64;
        Ok(Some((frame, self)))
    }
}

fn storage(digest: Digest, path: &Path, source: io::Error) -> BlobError {
    BlobError::Storage { digest, path: path.display().to_string(), source }
}

/// Runs what waits for the disk where waiting is allowed. It ends by itself, at most one frame
/// after nobody waits for it any more.
async fn blocking<T: Send + 'static>(
    digest: Digest,
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(BlobError::unavailable(digest, error)))
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
