//! Reading a blob back: frame by frame, hashed on the way, quarantined when it is not what it was.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use bytes::Bytes;
use futures::{StreamExt, stream};
use rustix::buffer::spare_capacity;

use super::{Inner, blocking, storage};
use crate::blob::{BlobError, BlobStream, MAX_FRAME};
use crate::digest::{Digest, Hasher};

pub(super) struct Reader {
    inner: Arc<Inner>,
    file: File,
    digest: Digest,
    size: u64,
    offset: u64,
    /// Only a whole blob can be verified; absent when the stream began later.
    hasher: Option<Hasher>,
    ended: bool,
}

pub(super) async fn open(
    inner: Arc<Inner>,
    digest: Digest,
    offset: u64,
) -> Result<BlobStream, BlobError> {
    let reader = blocking(move || {
        let reader = Reader::open(inner, digest, offset)?;
        reader.touch();
        Ok(reader)
    });
    let reader = reader.await?;
    // A hop to a blocking thread for each frame: at 1 MiB as fast as a thread of its own, and
    // nothing runs ahead of a reader that does not ask.
    let frames = stream::try_unfold(reader, async |reader| {
        let mut reader = reader;
        blocking(move || Ok(reader.next()?.map(|frame| (frame, reader)))).await
    });
    Ok(frames.boxed())
}

impl Reader {
    pub(super) fn open(inner: Arc<Inner>, digest: Digest, offset: u64) -> Result<Self, BlobError> {
        let path = inner.blob(&digest);
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, file) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::NotFound { digest });
            }
            Err(error) => return Err(storage(digest, &path)(error)),
        };
        if size < offset {
            return Err(BlobError::OffsetBeyondEnd { digest, size, offset });
        }
        let hasher = (offset == 0).then(Hasher::default);
        Ok(Self { inner, file, digest, size, offset, hasher, ended: false })
    }

    /// Notes that the blob was read now, for collection. A store that cannot take the note is read
    /// all the same.
    fn touch(&self) {
        let _kept_older = self.file.set_modified(SystemTime::now());
    }

    /// The next frame; the last one only if the whole blob is right.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        if self.ended {
            return Ok(None);
        }
        let left = usize::try_from(self.size - self.offset).unwrap_or(usize::MAX);
        let frame = read_at(&self.file, self.offset, left.min(MAX_FRAME))
            .map_err(|e| storage(self.digest, &self.inner.blob(&self.digest))(e))?;
        self.offset += frame.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&frame);
        }
        // An empty frame before the end: the file was cut while we read it.
        self.ended = self.offset == self.size || frame.is_empty();
        if self.ended {
            self.verify()?;
        }
        Ok(Some(frame).filter(|frame| !frame.is_empty()))
    }

    fn verify(&self) -> Result<(), BlobError> {
        let Self { digest, size, offset, .. } = *self;
        if offset != size {
            self.inner.quarantine_if_same(&digest, &self.file);
            return Err(BlobError::SizeMismatch { digest, expected: size, actual: offset });
        }
        let actual = self.hasher.as_ref().map_or(digest, Hasher::digest);
        if actual != digest {
            self.inner.quarantine_if_same(&digest, &self.file);
            return Err(BlobError::DigestMismatch { expected: digest, actual });
        }
        Ok(())
    }
}

/// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
pub(super) fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut buffer = Vec::with_capacity(len);
    while buffer.len() < len {
        let at = offset + buffer.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut buffer), at) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    buffer.truncate(len);
    Ok(buffer.into())
}

impl Inner {
    /// Takes the blob out of service if it still is the file that was found corrupt: it may have
    /// been replaced by a good one meanwhile.
    fn quarantine_if_same(&self, digest: &Digest, file: &File) {
        let path = self.blob(digest);
        let same = match (file.metadata(), path.metadata()) {
            (Ok(read), Ok(there)) => (read.dev(), read.ino()) == (there.dev(), there.ino()),
            _ => false,
        };
        if !same {
            return;
        }
        self.quarantined.fetch_add(1, Ordering::Relaxed);
        let shelf = self.quarantine().join(digest.hex());
        // On a disk without room for a folder entry the blob must still not be served again.
        let moved = std::fs::rename(&path, &shelf).or_else(|_| std::fs::remove_file(&path));
        match moved {
            Ok(()) => tracing::warn!(blob.digest = %digest, "corrupt blob moved to quarantine"),
            Err(error) => {
                tracing::error!(blob.digest = %digest, %error, "corrupt blob could not be moved");
            }
        }
    }
}
