//! The tar of a layer, rebuilt as it is read: from its beginning or from any later byte.
//!
//! `plan.rs` says which parts a frame has. This module fills the frames, several at a time. Of a file
//! that contains the offset it reads only the rest.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use transfer::{BlobError, BlobStream};

use super::layer::Layer;
use super::layerdb::FilesError;
use super::plan::{Frame, FramePlan, Piece};
use crate::read_ahead::{self, Job};

/// The frames of `layer` from `offset` on, which is not beyond its size.
pub(super) fn frames(layer: Layer, offset: u64) -> Result<BlobStream, BlobError> {
    Ok(read_ahead::frames(FramePlan::open(Arc::new(layer), offset)?))
}

impl Job for Frame {
    fn len(&self) -> usize {
        self.len
    }

    fn fill(&self, buffer: &mut [u8]) -> Result<usize, BlobError> {
        let layer = &*self.layer;
        let (mut buffer, mut verbatim) = (buffer, &self.verbatim[..]);
        let mut folder = layer.folder();
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
