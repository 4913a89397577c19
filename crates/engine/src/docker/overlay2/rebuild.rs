//! A layer's tar, put together again as it is read: from its beginning or from any later byte.
//!
//! What lies before the offset is counted and never read; of a file that the offset is in, only the
//! rest.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use bytes::{Buf as _, Bytes};
use futures::{StreamExt as _, stream};
use transfer::{BlobError, BlobStream, Digest, MAX_FRAME};

use super::beneath::{Folder, Refused};
use super::layerdb::{FilesError, LayerFiles, SplitFile};
use super::tar_split::{Entry, SplitError};
use crate::span::blocking;

/// Puts one layer together.
pub(super) struct Rebuild {
    digest: Digest,
    files: LayerFiles,
    entries: SplitFile,
    folder: Folder,
    piece: Piece,
    /// Bytes before the offset that entries are still to account for.
    skip: u64,
    /// Bytes that are still to come.
    left: u64,
    /// Bytes of the whole tar.
    size: u64,
}

/// What is being copied.
enum Piece {
    Bytes(Bytes),
    File { file: File, at: u64, end: u64 },
}

impl Rebuild {
    /// Begins the layer at `offset`, which is not beyond its `size`.
    pub(super) fn open(
        files: LayerFiles,
        digest: Digest,
        size: u64,
        offset: u64,
    ) -> Result<Self, BlobError> {
        let about = |error: FilesError| error.about(digest);
        let entries = files.entries().map_err(about)?;
        let folder = Folder::open(&files.diff).map_err(|source| {
            let path = files.diff.display().to_string();
            about(FilesError::Unreadable { path, source })
        })?;
        let piece = Piece::Bytes(Bytes::new());
        let left = size - offset;
        Ok(Self { digest, files, entries, folder, piece, skip: offset, left, size })
    }

    /// The frames, each made when it is asked for, on a thread that may wait for the disk. Nothing
    /// runs ahead of a reader that does not ask.
    pub(super) fn frames(self) -> BlobStream {
        let frames = stream::try_unfold(self, async |mut rebuild| {
            blocking(move || Ok(rebuild.next()?.map(|frame| (frame, rebuild)))).await
        });
        frames.boxed()
    }

    /// The next frame; the last one only if the tar ends there.
    fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        let len = usize::try_from(self.left).map_or(MAX_FRAME, |left| left.min(MAX_FRAME));
        if len == 0 {
            return Ok(None);
        }
        let mut frame = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match self.fill(&mut frame[filled..])? {
                0 if self.advance()? => {}
                0 => return Err(self.mismatch(self.size - self.left + filled as u64)),
                more => filled += more,
            }
        }
        self.left -= len as u64;
        if self.left == 0 {
            self.expect_end()?;
        }
        Ok(Some(frame.into()))
    }

    /// Copies from the piece under way; 0 at its end.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, BlobError> {
        match &mut self.piece {
            Piece::Bytes(bytes) => {
                let len = buffer.len().min(bytes.len());
                bytes.copy_to_slice(&mut buffer[..len]);
                Ok(len)
            }
            Piece::File { file, at, end } => {
                let left = usize::try_from(*end - *at).unwrap_or(usize::MAX);
                let len = buffer.len().min(left);
                if let Err(source) = file.read_exact_at(&mut buffer[..len], *at) {
                    let path = self.files.diff.display().to_string();
                    return Err(FilesError::Unreadable { path, source }.about(self.digest));
                }
                *at += len as u64;
                self.files.count(len as u64);
                Ok(len)
            }
        }
    }

    /// Goes on to the next piece that has bytes from the offset on; `false` at the tar's end.
    fn advance(&mut self) -> Result<bool, BlobError> {
        loop {
            let Some(entry) =
                self.entries.next().map_err(|e| split(&self.files, self.digest, e))?
            else {
                return Ok(false);
            };
            let size = match &entry {
                Entry::Bytes(bytes) => bytes.size(),
                Entry::File { size, .. } => *size,
            };
            if size <= self.skip {
                self.skip -= size;
                continue;
            }
            let skip = std::mem::take(&mut self.skip);
            self.piece = match entry {
                Entry::Bytes(bytes) => match bytes.decode() {
                    Some(bytes) if bytes.len() as u64 == size => {
                        let mut bytes = Bytes::from(bytes);
                        bytes.advance(usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len()));
                        Piece::Bytes(bytes)
                    }
                    _ => {
                        let error = self.entries.wrong("no base64");
                        return Err(split(&self.files, self.digest, error));
                    }
                },
                Entry::File { name, size } => {
                    let file = self.file(&name, size)?;
                    Piece::File { file, at: skip, end: size }
                }
            };
            return Ok(true);
        }
    }

    /// The file of that name, which has `expected` bytes or is not the one that was unpacked.
    fn file(&mut self, name: &[u8], expected: u64) -> Result<File, BlobError> {
        let path = || format!("{}/{}", self.files.diff.display(), name.escape_ascii());
        let (file, actual) = match self.folder.file(name) {
            Ok(opened) => opened,
            Err(Refused::System(source)) => {
                return Err(FilesError::Unreadable { path: path(), source }.about(self.digest));
            }
            Err(refused) => {
                let error = FilesError::Wrong { path: path(), reason: refused.to_string() };
                return Err(error.about(self.digest));
            }
        };
        if actual != expected {
            let path = path();
            tracing::warn!(blob.digest = %self.digest, path, actual, expected, "a layer's file has another size");
            return Err(self.mismatch((self.size - expected.min(self.size)).saturating_add(actual)));
        }
        Ok(file)
    }

    /// Whatever still comes makes the tar longer than it was found to be.
    fn expect_end(&mut self) -> Result<(), BlobError> {
        if self.fill(&mut [0])? == 0 && !self.advance()? {
            return Ok(());
        }
        Err(self.mismatch(self.size + 1))
    }

    fn mismatch(&self, actual: u64) -> BlobError {
        BlobError::SizeMismatch { digest: self.digest, expected: self.size, actual }
    }
}

fn split(files: &LayerFiles, digest: Digest, error: SplitError) -> BlobError {
    files.split_error(error).about(digest)
}
