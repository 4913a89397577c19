//! A piece of a file that is a blob: read from any offset, verified when read whole.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use tokio::task::JoinError;
use transfer::verify::verify;
use transfer::{BlobError, BlobStream, Descriptor, Digest, Hasher, MAX_FRAME, MediaType};

use crate::ahead::{self, Job, Plan};

/// Where a blob's bytes lie.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) file: Arc<File>,
    /// The first byte's place in the file.
    pub(crate) start: u64,
    /// How many bytes.
    pub(crate) size: u64,
}

/// Which file it is and in which state, as far as the system tells: two that are equal have the
/// same bytes, unless somebody wrote them within one tick of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Opens a regular file for reading; a link, a device or a pipe is refused, never followed or
/// waited for. A layout that somebody else wrote could otherwise show a range any file of the host.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let file = File::from(opened.map_err(|error| match error {
        rustix::io::Errno::LOOP => not_regular(),
        error => error.into(),
    })?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is a link or a device, not a plain file")
}

/// The whole of a small file, and which file that was; refused beyond `limit` bytes.
pub(crate) fn read_small(path: &Path, limit: usize) -> io::Result<(Bytes, Identity)> {
    let file = open_regular(path)?;
    let metadata = file.metadata()?;
    let size = metadata.len();
    if (limit as u64) < size {
        let reason = format!("it has {size} bytes, at most {limit} are read");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    let span = Span { file: Arc::new(file), start: 0, size };
    Ok((span.read_all()?, Identity::of(&metadata)))
}

impl Span {
    /// A file from its first byte to its last.
    pub(crate) fn whole(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), start: 0, size })
    }

    /// All bytes at once; the caller has limited the size.
    pub(crate) fn read_all(&self) -> io::Result<Bytes> {
        let size = usize::try_from(self.size).map_err(io::Error::other)?;
        let mut bytes = vec![0; size];
        self.file.read_exact_at(&mut bytes, self.start)?;
        Ok(bytes.into())
    }

    /// Fills `buffer` from `offset` on, and says how far; not to its end only where the file ends.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], self.start + offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// The digest of all bytes, read anew.
    pub(crate) fn digest(&self) -> io::Result<Digest> {
        let (mut hasher, mut offset) = (Hasher::default(), 0);
        let mut buffer = vec![0; frame_size(self.size)];
        while offset < self.size {
            let filled = self.read_at(&mut buffer[..frame_size(self.size - offset)], offset)?;
            if filled == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            hasher.update(&buffer[..filled]);
            offset += filled as u64;
        }
        Ok(hasher.digest())
    }

    /// The bytes from `offset` on as blob `digest`; `path` is for errors. The last frame comes only
    /// if the whole was right, where it began at 0.
    pub(crate) fn stream(
        self,
        digest: Digest,
        offset: u64,
        path: &Path,
    ) -> Result<BlobStream, BlobError> {
        let size = self.size;
        Ok(from_start(offset, self.frames(digest, offset, path)?, digest, size))
    }

    /// The same bytes, which nobody verified.
    pub(crate) fn frames(
        self,
        digest: Digest,
        offset: u64,
        path: &Path,
    ) -> Result<BlobStream, BlobError> {
        let size = self.size;
        if size < offset {
            return Err(BlobError::OffsetBeyondEnd { digest, size, offset });
        }
        let blob = Arc::new(Blob { span: self, digest, path: path.display().to_string() });
        Ok(ahead::frames(Cut { blob, offset }))
    }
}

/// A blob's frames from `offset` on, verified if that is its start.
pub(crate) fn from_start(offset: u64, frames: BlobStream, digest: Digest, size: u64) -> BlobStream {
    if offset != 0 {
        return frames;
    }
    let media_type = MediaType::new("application/octet-stream");
    verify(frames, &Descriptor { media_type, digest, size })
}

fn frame_size(left: u64) -> usize {
    usize::try_from(left).unwrap_or(MAX_FRAME).min(MAX_FRAME)
}

/// What is read, and what to call it in errors.
struct Blob {
    span: Span,
    digest: Digest,
    path: String,
}

/// Cuts a blob into frames, from `offset` on.
struct Cut {
    blob: Arc<Blob>,
    offset: u64,
}

struct Piece {
    blob: Arc<Blob>,
    offset: u64,
    len: usize,
}

impl Plan for Cut {
    type Job = Piece;

    fn next(&mut self) -> Result<Option<Piece>, BlobError> {
        let (blob, offset) = (self.blob.clone(), self.offset);
        let len = frame_size(blob.span.size - offset);
        self.offset += len as u64;
        Ok((0 < len).then_some(Piece { blob, offset, len }))
    }
}

impl Job for Piece {
    fn len(&self) -> usize {
        self.len
    }

    fn fill(&self, buffer: &mut [u8]) -> Result<usize, BlobError> {
        let Blob { span, digest, path } = &*self.blob;
        let filled = span.read_at(buffer, self.offset).map_err(|source| BlobError::Storage {
            digest: *digest,
            path: path.clone(),
            source,
        })?;
        // The file was cut while we read it.
        if filled < buffer.len() {
            let actual = self.offset + filled as u64;
            return Err(BlobError::SizeMismatch { digest: *digest, expected: span.size, actual });
        }
        Ok(filled)
    }
}

/// Runs what may wait for a disk where nothing else waits for it.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    joined(tokio::task::spawn_blocking(work)).await
}

/// What a task gave that only a runtime at its end cancels; its panic is ours.
pub(crate) async fn joined<T>(task: impl Future<Output = Result<T, JoinError>>) -> T {
    match task.await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // Cancelled by a runtime that shuts down: whoever waits is about to be dropped too.
        Err(Err(_cancelled)) => std::future::pending().await,
    }
}
