//! A piece of a file that is a blob: read from any offset, verified when read whole.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use rustix::fs::{Mode, OFlags};
use tokio::task::JoinError;
use transfer::{BlobError, BlobStream, Digest, Hasher, MAX_FRAME};

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

    /// Up to `len` bytes from `offset` on; fewer only where the file ends.
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match self.file.read_at(&mut bytes[filled..], self.start + offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes.into())
    }

    /// The digest of all bytes, read anew.
    pub(crate) fn digest(&self) -> io::Result<Digest> {
        let (mut hasher, mut offset) = (Hasher::default(), 0);
        while offset < self.size {
            let frame = self.read_at(offset, frame_size(self.size - offset))?;
            if frame.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            hasher.update(&frame);
            offset += frame.len() as u64;
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
        if size < offset {
            return Err(BlobError::OffsetBeyondEnd { digest, size, offset });
        }
        let hasher = (offset == 0).then(Hasher::default);
        let path = path.display().to_string();
        let reader = Reader { span: self, digest, path, offset, hasher, ended: false };
        // A hop to a blocking thread for each frame: nothing runs ahead of a reader that does not
        // ask, and nothing is left running when it goes.
        let frames = stream::try_unfold(reader, async |reader| {
            let mut reader = reader;
            blocking(move || Ok(reader.next()?.map(|frame| (frame, reader)))).await
        });
        Ok(frames.boxed())
    }
}

fn frame_size(left: u64) -> usize {
    usize::try_from(left).unwrap_or(MAX_FRAME).min(MAX_FRAME)
}

struct Reader {
    span: Span,
    digest: Digest,
    path: String,
    offset: u64,
    /// Only a whole blob can be verified; absent when the stream began later.
    hasher: Option<Hasher>,
    ended: bool,
}

impl Reader {
    fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        if self.ended {
            return Ok(None);
        }
        let len = frame_size(self.span.size - self.offset);
        let frame = self.span.read_at(self.offset, len).map_err(|source| BlobError::Storage {
            digest: self.digest,
            path: self.path.clone(),
            source,
        })?;
        self.offset += frame.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&frame);
        }
        // An empty frame before the end: the file was cut while we read it.
        self.ended = self.offset == self.span.size || frame.is_empty();
        if self.ended {
            self.verify()?;
        }
        Ok(Some(frame).filter(|frame| !frame.is_empty()))
    }

    fn verify(&self) -> Result<(), BlobError> {
        let (digest, size) = (self.digest, self.span.size);
        if self.offset != size {
            return Err(BlobError::SizeMismatch { digest, expected: size, actual: self.offset });
        }
        let actual = self.hasher.as_ref().map_or(digest, Hasher::digest);
        if actual != digest {
            return Err(BlobError::DigestMismatch { expected: digest, actual });
        }
        Ok(())
    }
}

/// Runs what may wait for a disk where nothing else waits for it.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // Cancelled by a runtime that shuts down: whoever waits is about to be dropped too.
        Err(Err(_cancelled)) => std::future::pending().await,
    }
}
