//! What all else is written against: bytes by digest.
//!
//! A [`BlobSource`] gives blobs, a [`BlobStore`] gives and keeps them. Memory, files, a remote host
//! are blob sources, and so are *cached*, *shared*, *limited*, *metered* ones. Each implementation
//! starts its tests by calling `fixture::contract`.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use crate::descriptor::Descriptor;
use crate::digest::Digest;

/// Largest frame, in bytes.
///
/// Frames of 1 MiB are the knee of throughput on the wire; larger ones cost memory (streams ×
/// `MAX_FRAME`) and gain nothing. What makes frames never exceeds this; what takes them from a
/// peer refuses larger ones.
pub const MAX_FRAME: usize = 1 << 20;

/// The bytes of one blob, in order, in frames of 1 byte to [`MAX_FRAME`].
///
/// Invariant: `None` follows the last byte of the blob and nothing else. A stream that cannot go
/// on yields one `Err`, and is not polled again. A source verifies before the end: the last frame
/// is not handed over before digest and size were found right, if the stream began at offset 0.
pub type BlobStream = BoxStream<'static, Result<Bytes, BlobError>>;

/// The cause beneath one of our errors, whatever its type.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong with a blob; the variants are what a caller treats differently.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The source has no such blob, or this caller may not know of it.
    #[error("blob {digest} is not here")]
    NotFound {
        /// The blob asked for.
        digest: Digest,
    },
    /// The offset lies beyond the end of the blob.
    #[error("blob {digest} is {size} bytes long, offset {offset} is beyond its end")]
    OffsetBeyondEnd {
        /// The blob asked for.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The offset asked for.
        offset: u64,
    },
    /// The stream was shorter or longer than the descriptor says.
    #[error("blob {digest} is {expected} bytes long, the stream had {actual}")]
    SizeMismatch {
        /// The blob that was expected.
        digest: Digest,
        /// Its size in bytes.
        expected: u64,
        /// How many bytes came; at least this many when there were too many.
        actual: u64,
    },
    /// The bytes hash to something else.
    #[error("blob {expected} was expected, the bytes hash to {actual}")]
    DigestMismatch {
        /// The blob that was expected.
        expected: Digest,
        /// What the bytes are instead.
        actual: Digest,
    },
    /// The lease under which the blob was to be read is gone: ask for the image again.
    #[error("the lease on blob {digest} is gone")]
    LeaseLost {
        /// The blob asked for.
        digest: Digest,
    },
    /// The store's file system has no room for the blob: a person has to act.
    #[error("blob {digest} needs {need} bytes, and the file system of {path} has {free} free")]
    NoSpace {
        /// The blob that was to be taken in.
        digest: Digest,
        /// The store's folder.
        path: String,
        /// Bytes that must be free for it: what others that are coming in need and what the store
        /// is to leave free are included.
        need: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// No permission, no space after all, a broken disk: a person has to act.
    #[error("blob {digest} could not be stored or read: {path}")]
    Storage {
        /// The blob in question.
        digest: Digest,
        /// The file or folder that was touched.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The other side could not be reached or failed; trying again may help.
    #[error("blob {digest} could not be read")]
    Unavailable {
        /// The blob asked for.
        digest: Digest,
        /// What failed.
        #[source]
        source: Cause,
    },
}

impl BlobError {
    /// Wraps a failure of whatever is behind a source.
    pub fn unavailable(digest: Digest, source: impl Into<Cause>) -> Self {
        Self::Unavailable { digest, source: source.into() }
    }

    /// The blob whose bytes or size were wrong; `None` where reading failed for another reason.
    #[must_use]
    pub fn wrong_blob(&self) -> Option<&Digest> {
        match self {
            Self::DigestMismatch { expected: digest, .. } | Self::SizeMismatch { digest, .. } => {
                Some(digest)
            }
            _ => None,
        }
    }

    /// The same error for one more who waited for the same: each gets one of their own.
    #[must_use]
    pub fn again(self: &Arc<Self>) -> Self {
        match **self {
            Self::NotFound { digest } => Self::NotFound { digest },
            Self::OffsetBeyondEnd { digest, size, offset } => {
                Self::OffsetBeyondEnd { digest, size, offset }
            }
            Self::SizeMismatch { digest, expected, actual } => {
                Self::SizeMismatch { digest, expected, actual }
            }
            Self::DigestMismatch { expected, actual } => Self::DigestMismatch { expected, actual },
            Self::LeaseLost { digest } => Self::LeaseLost { digest },
            Self::NoSpace { digest, ref path, need, free } => {
                Self::NoSpace { digest, path: path.clone(), need, free }
            }
            Self::Storage { digest, ref path, ref source } => Self::Storage {
                digest,
                path: path.clone(),
                source: std::io::Error::new(source.kind(), Told(self.clone())),
            },
            Self::Unavailable { digest, .. } => Self::unavailable(digest, Told(self.clone())),
        }
    }
}

/// The cause beneath an error that several are told of: says what that cause says.
#[derive(Debug)]
struct Told(Arc<BlobError>);

impl Told {
    fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.0)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause() {
            Some(cause) => fmt::Display::fmt(cause, f),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl std::error::Error for Told {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause().and_then(std::error::Error::source)
    }
}

/// Gives blobs by digest.
#[async_trait]
pub trait BlobSource: Send + Sync {
    /// The size of the blob in bytes; `None` where this source does not have it.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`] or [`BlobError::Storage`] when that cannot be found out.
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError>;

    /// The bytes of the blob from `offset` on. An offset equal to the size gives an empty stream.
    ///
    /// A stream from offset 0 ends well only if all its bytes were verified; one from a later
    /// offset cannot be checked here, and whoever joins the pieces verifies the whole
    /// ([`crate::verify`]).
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::OffsetBeyondEnd`], or that the source failed.
    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError>;

    /// The same for a reader that verifies the whole by itself, as a range's engine does, which trusts
    /// no host: a source that would have to hash for it need not, and its stream may end well although
    /// the bytes are others. Their number is right, as ever.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.open(digest, offset).await
    }

    /// Takes note that a reader got wrong bytes for this blob. A source that keeps bytes hashes them
    /// again before it gives them out; one that verifies each read, or keeps nothing, does nothing.
    fn doubt(&self, _digest: &Digest) {}
}

/// Gives blobs, and keeps more of them.
#[async_trait]
pub trait BlobStore: BlobSource {
    /// Begins taking in a blob whose name may not be known yet.
    ///
    /// # Errors
    /// [`BlobError::Storage`] when there is no room or no permission.
    async fn ingest(&self) -> Result<Box<dyn Ingest>, BlobError>;

    /// Begins taking in a blob whose name and size are known: so a store can refuse what it has no
    /// room for before the first byte came.
    ///
    /// # Errors
    /// [`BlobError::NoSpace`], [`BlobError::Storage`].
    async fn ingest_of(&self, _expected: &Descriptor) -> Result<Box<dyn Ingest>, BlobError> {
        self.ingest().await
    }

    /// The same for bytes that come from a [`BlobStream`] from offset 0, which verifies itself: a
    /// store may believe its end, and not hash what was hashed a moment ago. Whoever writes commits
    /// only after that stream ended well.
    ///
    /// # Errors
    /// As [`ingest_of`](Self::ingest_of).
    async fn ingest_verified(&self, expected: &Descriptor) -> Result<Box<dyn Ingest>, BlobError> {
        self.ingest_of(expected).await
    }

    /// Keeps a document, such as a manifest, as a blob. One that is there already stays as it is.
    ///
    /// # Errors
    /// As [`ingest_of`](Self::ingest_of) and [`Ingest::commit`].
    async fn keep(&self, media_type: &str, document: &Bytes) -> Result<(), BlobError> {
        let blob = Descriptor::of(media_type, document);
        if self.stat(&blob.digest).await?.is_some() {
            return Ok(());
        }
        let mut ingest = self.ingest_of(&blob).await?;
        ingest.write(document.clone()).await?;
        ingest.commit(&blob).await
    }

    /// Forgets a blob. Forgetting what is not there is not an error; a leased blob stays.
    ///
    /// # Errors
    /// [`BlobError::Storage`].
    async fn remove(&self, digest: &Digest) -> Result<(), BlobError>;
}

/// A blob being taken in: it *commits* or leaves nothing. Dropping it removes what was written.
#[async_trait]
pub trait Ingest: Send {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`BlobError::Storage`]; the ingest is of no more use then.
    async fn write(&mut self, frame: Bytes) -> Result<(), BlobError>;

    /// How many bytes were taken so far.
    fn size(&self) -> u64;

    /// The digest of the bytes taken so far. Asking costs the hash of those that came last.
    fn digest(&self) -> Digest;

    /// Reads back what was taken so far: how readers follow a blob that is still coming in.
    fn written(&self) -> Arc<dyn Written>;

    /// Says what the blob should have been. After `Ok` all of it may be handed to those who read what
    /// was [`written`](Self::written); that it is kept, and stays, is up to
    /// [`commit`](Self::commit).
    ///
    /// # Errors
    /// [`BlobError::SizeMismatch`] and [`BlobError::DigestMismatch`] when it is something else, and
    /// [`BlobError::Storage`]; the ingest is of no more use then.
    async fn verify(&mut self, expected: &Descriptor) -> Result<(), BlobError>;

    /// Ends by saying what the blob should have been, as [`verify`](Self::verify) does. After `Ok`
    /// it is readable and survives a power cut; committing what is there already is not an error.
    ///
    /// # Errors
    /// [`BlobError::SizeMismatch`] and [`BlobError::DigestMismatch`] when it is something else, and
    /// [`BlobError::Storage`]; nothing is left behind then.
    async fn commit(self: Box<Self>, expected: &Descriptor) -> Result<(), BlobError>;
}

/// The bytes of an ingest that have been written, readable from any task while it goes on.
#[async_trait]
pub trait Written: Send + Sync {
    /// Reads up to [`MAX_FRAME`] bytes at `offset`, which must have been written before.
    ///
    /// # Errors
    /// The system's own; also when the ingest was given up.
    async fn read_at(&self, offset: u64, len: usize) -> std::io::Result<Bytes>;
}

/// The bytes of a blob at hand, from `offset` on: a document that was verified when it was read.
///
/// # Errors
/// [`BlobError::OffsetBeyondEnd`].
pub fn in_frames(digest: Digest, bytes: &Bytes, offset: u64) -> Result<BlobStream, BlobError> {
    let size = bytes.len() as u64;
    let from = usize::try_from(offset).ok().filter(|from| *from <= bytes.len());
    let from = from.ok_or(BlobError::OffsetBeyondEnd { digest, size, offset })?;
    let bytes = bytes.slice(from..);
    let frames = (0..bytes.len()).step_by(MAX_FRAME);
    let frame = move |at: usize| Ok(bytes.slice(at..bytes.len().min(at + MAX_FRAME)));
    Ok(stream::iter(frames.map(frame)).boxed())
}

#[async_trait]
impl<S: BlobSource + ?Sized> BlobSource for Arc<S> {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        (**self).stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        (**self).open(digest, offset).await
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        (**self).open_unverified(digest, offset).await
    }

    fn doubt(&self, digest: &Digest) {
        (**self).doubt(digest);
    }
}

#[async_trait]
impl<S: BlobStore + ?Sized> BlobStore for Arc<S> {
    async fn ingest(&self) -> Result<Box<dyn Ingest>, BlobError> {
        (**self).ingest().await
    }

    async fn ingest_of(&self, expected: &Descriptor) -> Result<Box<dyn Ingest>, BlobError> {
        (**self).ingest_of(expected).await
    }

    async fn ingest_verified(&self, expected: &Descriptor) -> Result<Box<dyn Ingest>, BlobError> {
        (**self).ingest_verified(expected).await
    }

    async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        (**self).remove(digest).await
    }
}
