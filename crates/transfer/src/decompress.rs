//! A compressed layer in, its uncompressed tar out: whatever the bytes themselves say they are.
//!
//! ```text
//!   BlobStream ─► channel ─► blocking thread: gzip | zstd | as is ─► channel ─► Ingest ─► commit
//!    read and      2 frames        one core                          2 frames    hashed and written
//!    hashed                                                                      as the diff ID
//! ```
//! All of these go on at the same time, each on a thread of its own: the decoder is the slowest, and
//! waits for none of the others.
//!
//! The kind is read from the first bytes, as engines do, since media types lie more often than
//! bytes. Members of gzip and frames of zstd may follow each other; anything else behind them is an
//! error, as it is for Go's readers. What comes out is bounded by [`Limits`], and is kept only if
//! it hashes to the diff ID.

use std::io::{self, BufRead, Read};
use std::num::NonZero;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use tokio::sync::mpsc;

use crate::blob::{BlobError, BlobStore, BlobStream, MAX_FRAME};
use crate::descriptor::{Descriptor, MediaType};
use crate::digest::{DiffId, Digest};
use crate::frame::Pool;

/// How much a compressed layer may become.
///
/// Engines set no bound at all; but a host decompresses for many ranges, and its disk is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that any layer may have, however small its blob is.
    pub floor: u64,
    /// Beyond the floor: bytes out for each byte in. gzip cannot make more than 1032 of one.
    pub ratio: NonZero<u32>,
    /// Bytes that no layer may exceed, however large its blob is.
    pub ceiling: u64,
}

impl Default for Limits {
    /// 1 GiB for any layer, 2048 bytes out of one, never more than 256 GiB.
    fn default() -> Self {
        let ratio = NonZero::new(2048).expect("invariant: 2048 is not 0");
        Self { floor: 1 << 30, ratio, ceiling: 256 << 30 }
    }
}

impl Limits {
    /// The most that a blob of `size` bytes may become, in bytes.
    #[must_use]
    pub fn of(&self, size: u64) -> u64 {
        size.saturating_mul(self.ratio.get().into()).max(self.floor).min(self.ceiling)
    }
}

/// Largest window that a zstd frame may ask for, as a power of two: 128 MiB, what `zstd --ultra`
/// needs. It is memory, once for each layer that is being decompressed.
const MAX_WINDOW_LOG: u32 = 27;

/// Frames between the network, the decoder and the disk, each way.
const FRAMES: usize = 2;

/// Buffers that a decoder keeps: those of the channel behind it, and of an ingest's two pieces.
const BUFFERS: usize = FRAMES + 3;

/// A layer that does not become what its image says.
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    /// The blob is what its digest says, but it ends early, or is no gzip and no zstd all through.
    #[error("layer {blob} cannot be decompressed")]
    Corrupt {
        /// The compressed blob.
        blob: Digest,
        /// What the decoder said.
        #[source]
        source: io::Error,
    },
    /// It becomes more than [`Limits`] allow.
    #[error("layer {blob} of {size} bytes becomes more than {limit} bytes")]
    TooLarge {
        /// The compressed blob.
        blob: Digest,
        /// Its size in bytes.
        size: u64,
        /// The most that it may become, in bytes.
        limit: u64,
    },
    /// It becomes another layer than the config names.
    #[error("layer {blob} becomes {actual}, its image says {expected}")]
    WrongDiffId {
        /// The compressed blob.
        blob: Digest,
        /// The diff ID in the image's config.
        expected: DiffId,
        /// The diff ID of what came out.
        actual: DiffId,
    },
    /// The blob could not be read, or what came out could not be kept.
    #[error(transparent)]
    Blob(Arc<BlobError>),
}

impl From<BlobError> for DecompressError {
    fn from(error: BlobError) -> Self {
        Self::Blob(Arc::new(error))
    }
}

/// Keeps in `store` what `stream`, the verified bytes of `blob` from their beginning, becomes.
/// Returns its size in bytes.
///
/// Cancel safe: dropping the future removes what was written, and the decoder ends by itself.
///
/// # Errors
/// [`DecompressError`]; nothing is kept then.
pub async fn decompress(
    stream: BlobStream,
    blob: &Descriptor,
    diff_id: DiffId,
    store: &dyn BlobStore,
    limits: Limits,
) -> Result<u64, DecompressError> {
    let (sender, compressed) = mpsc::channel(FRAMES);
    let (out, mut decompressed) = mpsc::channel(FRAMES);
    let limit = limits.of(blob.size);
    let decoder = tokio::task::spawn_blocking(move || decode(Frames::new(compressed), limit, &out));
    let mut ingest = store.ingest().await?;
    // Moved in, so that a write which fails ends the decoder, and that ends the reader.
    let keeping = async move {
        while let Some(frame) = decompressed.recv().await {
            ingest.write(frame).await?;
        }
        Ok(ingest)
    };
    // Of the two that fail together, the reader's error is the cause.
    let (fed, kept) = tokio::join!(feed(stream, sender), keeping);
    fed?;
    let ingest = kept.map_err(named(diff_id))?;
    match decoder.await.unwrap_or_else(|error| Err(Stop::Read(io::Error::other(error)))) {
        Ok(()) => {}
        Err(Stop::Read(source)) => {
            return Err(DecompressError::Corrupt { blob: blob.digest, source });
        }
        Err(Stop::TooLarge) => {
            let Descriptor { digest: blob, size, .. } = *blob;
            return Err(DecompressError::TooLarge { blob, size, limit });
        }
    }
    let size = ingest.size();
    let layer =
        Descriptor { media_type: MediaType::new(MediaType::LAYER), digest: diff_id.0, size };
    match ingest.commit(&layer).await {
        Ok(()) => Ok(size),
        Err(BlobError::DigestMismatch { actual, .. }) => Err(DecompressError::WrongDiffId {
            blob: blob.digest,
            expected: diff_id,
            actual: DiffId(actual),
        }),
        Err(error) => Err(named(diff_id)(error).into()),
    }
}

/// An ingest knows only the digest of what it has so far, which names nothing.
fn named(diff_id: DiffId) -> impl FnOnce(BlobError) -> BlobError {
    move |error| match error {
        BlobError::Storage { path, source, .. } => {
            BlobError::Storage { digest: diff_id.0, path, source }
        }
        error => error,
    }
}

/// Hands a blob's frames to the decoder. One that leaves early has its reasons, and tells them.
async fn feed(mut stream: BlobStream, sender: mpsc::Sender<Bytes>) -> Result<(), BlobError> {
    while let Some(frame) = stream.next().await {
        if sender.send(frame?).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Why a decoder stopped before the end.
enum Stop {
    /// The bytes are no lawful compression, or end early.
    Read(io::Error),
    /// More came out than may.
    TooLarge,
}

/// Decodes to the end of `compressed`, or until nobody wants any more.
fn decode(mut compressed: Frames, limit: u64, out: &mpsc::Sender<Bytes>) -> Result<(), Stop> {
    let begin = compressed.peek();
    match Kind::of(&begin) {
        Kind::Gzip => pump(flate2::bufread::MultiGzDecoder::new(compressed), limit, out),
        Kind::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(compressed).map_err(Stop::Read)?;
            decoder.window_log_max(MAX_WINDOW_LOG).map_err(Stop::Read)?;
            pump(decoder, limit, out)
        }
        Kind::Other => pump(compressed, limit, out),
    }
}

fn pump(mut decoder: impl Read, limit: u64, out: &mpsc::Sender<Bytes>) -> Result<(), Stop> {
    let (mut left, pool) = (limit, Pool::new(BUFFERS));
    loop {
        let frame = pool.frame(MAX_FRAME, |room| fill(&mut decoder, room)).map_err(Stop::Read)?;
        if frame.is_empty() {
            return Ok(());
        }
        left = left.checked_sub(frame.len() as u64).ok_or(Stop::TooLarge)?;
        if out.blocking_send(frame).is_err() {
            return Ok(());
        }
    }
}

/// Reads until `frame` is full or the decoder is at its end.
fn fill(decoder: &mut impl Read, frame: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < frame.len() {
        match decoder.read(&mut frame[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// How a blob is compressed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gzip,
    Zstd,
    /// Not at all, or in a way that shows as a wrong diff ID.
    Other,
}

impl Kind {
    /// How many bytes tell.
    const TELLING: usize = 4;

    fn of(begin: &[u8]) -> Self {
        match begin {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            // A frame, or one to skip, which may come first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Other,
        }
    }
}

/// A channel of frames as a blocking reader.
struct Frames {
    frames: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Frames {
    fn new(frames: mpsc::Receiver<Bytes>) -> Self {
        Self { frames, current: Bytes::new() }
    }

    /// The first bytes, which are still to be read; fewer than [`Kind::TELLING`] when there are no
    /// more.
    fn peek(&mut self) -> Bytes {
        while self.current.len() < Kind::TELLING {
            let Some(frame) = self.frames.blocking_recv() else { break };
            self.current = [self.current.as_ref(), &frame].concat().into();
        }
        self.current.slice(..self.current.len().min(Kind::TELLING))
    }
}

/// A decoder takes its bytes from the frame itself.
impl BufRead for Frames {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.frames.blocking_recv() {
                Some(frame) => self.current = frame,
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, size: usize) {
        self.current.advance(size);
    }
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.fill_buf()?.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..size]);
        Ok(size)
    }
}

#[cfg(test)]
pub(crate) mod tests;
