//! A part of a file as a blob: read from any offset, verified when read whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use transfer::file::{FileState, fill_at, frame_len, hash, open_regular};
use transfer::verify::verify;
use transfer::{BlobError, BlobStream, Descriptor, Digest, MediaType};

use crate::read_ahead::{self, Job, Plan};

/// The place of a blob's bytes.
#[derive(Clone, Debug)]
pub(crate) struct FileBlob {
    pub(crate) file: Arc<File>,
    /// Offset of the first byte in the file.
    pub(crate) start: u64,
    /// Number of bytes.
    pub(crate) size: u64,
}

/// The whole of a small file, and which file that was; refused beyond `limit` bytes.
pub(crate) fn read_small(path: &Path, limit: usize) -> io::Result<(Bytes, FileState)> {
    let file = open_regular(path)?;
    let metadata = file.metadata()?;
    let size = metadata.len();
    if (limit as u64) < size {
        let reason = format!("it has {size} bytes, at most {limit} are read");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    let file = FileBlob { file: Arc::new(file), start: 0, size };
    Ok((file.read_all()?, FileState::of(&metadata)))
}

impl FileBlob {
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

    /// Hashes all bytes.
    pub(crate) fn digest(&self) -> io::Result<Digest> {
        match hash(&self.file, self.start..self.start + self.size, || true)? {
            Some((digest, size)) if size == self.size => Ok(digest),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
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
        let blob = Arc::new(Blob { file: self, digest, path: path.display().to_string() });
        Ok(read_ahead::frames(Cut { blob, offset }))
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

/// A blob with its names for errors.
struct Blob {
    file: FileBlob,
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
        let len = frame_len(blob.file.size - offset);
        self.offset += len as u64;
        Ok((0 < len).then_some(Piece { blob, offset, len }))
    }
}

impl Job for Piece {
    fn len(&self) -> usize {
        self.len
    }

    fn fill(&self, buffer: &mut [u8]) -> Result<usize, BlobError> {
        let Blob { file, digest, path } = &*self.blob;
        let filled = fill_at(&file.file, file.start + self.offset, buffer)
            .map_err(|source| BlobError::Storage { digest: *digest, path: path.clone(), source })?;
        // The file was cut while we read it.
        if filled < buffer.len() {
            let actual = self.offset + filled as u64;
            return Err(BlobError::SizeMismatch { digest: *digest, expected: file.size, actual });
        }
        Ok(filled)
    }
}
