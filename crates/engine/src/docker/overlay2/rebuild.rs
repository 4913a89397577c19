//! A layer's tar, put together again as it is read: from its beginning or from any later byte.
//!
//! `plan.rs` says what a frame is made of; here it is made, several at a time. Of a file that the
//! offset is in, only the rest is read.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use transfer::{BlobError, BlobStream, Digest};

use super::beneath::{Folder, Refused};
use super::layerdb::{FilesError, LayerFiles};
use super::plan::{Frame, FramePlan, Piece};
use super::tar_split::SplitError;
use crate::ahead::{self, Job};

/// A layer that is being put together.
pub(super) struct Layer {
    pub(super) digest: Digest,
    /// Bytes of the whole tar.
    pub(super) size: u64,
    pub(super) files: LayerFiles,
    folder: Folder,
}

impl Layer {
    /// A layer that has `size` bytes.
    pub(super) fn open(files: LayerFiles, digest: Digest, size: u64) -> Result<Self, BlobError> {
        let folder = Folder::open(&files.diff).map_err(|source| {
            let path = files.diff.display().to_string();
            FilesError::Unreadable { path, source }.about(digest)
        })?;
        Ok(Self { digest, size, files, folder })
    }

    /// The frames from `offset` on, which is not beyond the size.
    pub(super) fn frames(self, offset: u64) -> Result<BlobStream, BlobError> {
        Ok(ahead::frames(FramePlan::open(Arc::new(self), offset)?))
    }

    pub(super) fn split_error(&self, error: SplitError) -> BlobError {
        self.files.split_error(error).about(self.digest)
    }

    pub(super) fn mismatch(&self, actual: u64) -> BlobError {
        BlobError::SizeMismatch { digest: self.digest, expected: self.size, actual }
    }

    /// The file of that name, which has `expected` bytes or is not the one that was unpacked.
    fn file(&self, folder: &mut Folder, name: &[u8], expected: u64) -> Result<File, BlobError> {
        let path = || format!("{}/{}", self.files.diff.display(), name.escape_ascii());
        let (file, actual) = match folder.file(name) {
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
}

impl Job for Frame {
    fn len(&self) -> usize {
        self.len
    }

    fn fill(&self, buffer: &mut [u8]) -> Result<usize, BlobError> {
        let layer = &*self.layer;
        let (mut buffer, mut verbatim) = (buffer, &self.verbatim[..]);
        let mut folder = layer.folder.clone();
        for piece in &self.pieces {
            match piece {
                Piece::Verbatim(len) => {
                    let (bytes, rest) = verbatim.split_at(*len);
                    next(&mut buffer, *len).copy_from_slice(bytes);
                    verbatim = rest;
                }
                Piece::File { name, size, at, len } => {
                    let file = layer.file(&mut folder, name, *size)?;
                    let read = file.read_exact_at(next(&mut buffer, *len), *at);
                    read.map_err(|source| {
                        let path = layer.files.diff.display().to_string();
                        FilesError::Unreadable { path, source }.about(layer.digest)
                    })?;
                    layer.files.count(*len as u64);
                }
            }
        }
        Ok(self.len)
    }
}

/// Takes `len` bytes off the front of what is still to be written.
fn next<'a>(buffer: &mut &'a mut [u8], len: usize) -> &'a mut [u8] {
    let (front, rest) = std::mem::take(buffer).split_at_mut(len);
    *buffer = rest;
    front
}
