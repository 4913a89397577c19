//! What each frame of a layer is made of, from its beginning or from any later byte.
//!
//! ```text
//!   tar-split   header padding header padding header …
//!   files             └file┘         └──── file ────────…
//!   frames     │ bytes, file, bytes, file… │ …file │ …file, bytes │
//! ```
//! Headers and padding are copied from here, of files only the place is noted: nothing of them is
//! read, so one thread plans faster than several read. What lies before the offset is counted and
//! not looked at.

use std::sync::Arc;

use ::layer::tar_split::{Encoded, Entry};
use bytes::{Buf as _, Bytes};
use transfer::{BlobError, MAX_FRAME};

use super::layer::Layer;
use super::layerdb::SplitFile;
use crate::read_ahead::Plan;

/// Bytes of the first frames, which somebody waits for: a full one of tiny files that are not in the
/// page cache takes a disk a second.
pub(super) const FIRST: usize = 64 << 10;

/// How many frames are that small: verification holds one back.
const FIRST_FRAMES: u64 = 2;

/// Cuts a layer into frames.
pub(super) struct FramePlan {
    layer: Arc<Layer>,
    entries: SplitFile,
    rest: Rest,
    /// Bytes before the offset that entries are still to account for.
    skip: u64,
    /// Bytes that are still to come.
    left: u64,
    /// Frames so far.
    frames: u64,
}

/// What the last frame had no room for.
enum Rest {
    Bytes(Bytes),
    File(Part),
}

/// A file from `at` on.
struct Part {
    name: Arc<[u8]>,
    size: u64,
    at: u64,
}

/// One frame to be.
pub(super) struct Frame {
    pub(super) layer: Arc<Layer>,
    pub(super) len: usize,
    /// All bytes that come from no file, one after another.
    pub(super) verbatim: Vec<u8>,
    pub(super) pieces: Vec<Piece>,
    /// Bytes that the pieces have so far.
    filled: usize,
}

/// What a frame continues with.
pub(super) enum Piece {
    /// So many of the verbatim bytes.
    Verbatim(usize),
    /// `len` bytes from `at` of the file of that name, which has `size` bytes.
    File { name: Arc<[u8]>, size: u64, at: u64, len: usize },
}

impl FramePlan {
    /// Begins at `offset`, which is not beyond the layer's size.
    pub(super) fn open(layer: Arc<Layer>, offset: u64) -> Result<Self, BlobError> {
        let entries = layer.files.entries().map_err(|error| error.about(layer.digest))?;
        let left = layer.size - offset;
        let rest = Rest::Bytes(Bytes::new());
        Ok(Self { layer, entries, rest, skip: offset, left, frames: 0 })
    }

    /// Puts what was left over into the frame; `false` when nothing was.
    fn continue_with(&mut self, frame: &mut Frame) -> bool {
        let room = frame.room();
        match &mut self.rest {
            Rest::Bytes(bytes) if bytes.is_empty() => return false,
            Rest::Bytes(bytes) => {
                let bytes = bytes.split_to(room.min(bytes.len()));
                frame.verbatim.extend_from_slice(&bytes);
                frame.add_verbatim(bytes.len());
            }
            Rest::File(part) => {
                let left = part.size - part.at;
                let len = usize::try_from(left).map_or(room, |left| left.min(room));
                let Part { name, size, at } = part;
                frame.add(Piece::File { name: name.clone(), size: *size, at: *at, len }, len);
                *at += len as u64;
                if at == size {
                    self.rest = Rest::Bytes(Bytes::new());
                }
            }
        }
        true
    }

    /// Goes on to the next entry that has bytes from the offset on, and puts it into the frame or
    /// into what is left over; `false` at the tar's end.
    fn advance(&mut self, frame: &mut Frame) -> Result<bool, BlobError> {
        loop {
            let next = self.entries.next_entry();
            let Some(entry) = next.map_err(|error| self.layer.split_error(error))? else {
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
            match entry {
                Entry::File { name, size } => {
                    self.rest = Rest::File(Part { name: name.into(), size, at: skip });
                }
                // Nearly all: a header that fits. Decoded into its place.
                Entry::Bytes(bytes) if skip == 0 && size <= frame.room() as u64 => {
                    let before = frame.verbatim.len();
                    if !bytes.decode_to(&mut frame.verbatim) {
                        return Err(self.no_base64());
                    }
                    frame.add_verbatim(frame.verbatim.len() - before);
                }
                Entry::Bytes(bytes) => match decoded(&bytes) {
                    Some(mut bytes) => {
                        bytes.advance(usize::try_from(skip).unwrap_or(usize::MAX));
                        self.rest = Rest::Bytes(bytes);
                    }
                    None => return Err(self.no_base64()),
                },
            }
            return Ok(true);
        }
    }

    fn no_base64(&self) -> BlobError {
        self.layer.split_error(self.entries.wrong("no base64"))
    }

    /// Whatever still comes makes the tar longer than it was found to be.
    fn expect_end(&mut self) -> Result<(), BlobError> {
        let mut beyond = Frame::new(&self.layer, 1);
        if self.continue_with(&mut beyond) || self.advance(&mut beyond)? {
            return Err(self.layer.mismatch(self.layer.size + 1));
        }
        Ok(())
    }
}

impl Plan for FramePlan {
    type Job = Frame;

    /// The next frame; the last one only if the tar ends there.
    fn next(&mut self) -> Result<Option<Frame>, BlobError> {
        let most = if self.frames < FIRST_FRAMES { FIRST } else { MAX_FRAME };
        let len = usize::try_from(self.left).map_or(most, |left| left.min(most));
        if len == 0 {
            return Ok(None);
        }
        let mut frame = Frame::new(&self.layer, len);
        while 0 < frame.room() {
            if !self.continue_with(&mut frame) && !self.advance(&mut frame)? {
                let came = self.layer.size - self.left + (len - frame.room()) as u64;
                return Err(self.layer.mismatch(came));
            }
        }
        self.frames += 1;
        self.left -= len as u64;
        if self.left == 0 {
            self.expect_end()?;
        }
        Ok(Some(frame))
    }
}

impl Frame {
    fn new(layer: &Arc<Layer>, len: usize) -> Self {
        Self { layer: layer.clone(), len, verbatim: Vec::new(), pieces: Vec::new(), filled: 0 }
    }

    fn room(&self) -> usize {
        self.len - self.filled
    }

    fn add(&mut self, piece: Piece, len: usize) {
        self.pieces.push(piece);
        self.filled += len;
    }

    /// Notes that `len` more verbatim bytes are there.
    fn add_verbatim(&mut self, len: usize) {
        match self.pieces.last_mut() {
            Some(Piece::Verbatim(before)) => {
                *before += len;
                self.filled += len;
            }
            _ => self.add(Piece::Verbatim(len), len),
        }
    }
}

/// The bytes, if they are as many as their text says.
fn decoded(bytes: &Encoded<'_>) -> Option<Bytes> {
    let mut plain = Vec::new();
    bytes.decode_to(&mut plain).then(|| plain.into())
}
