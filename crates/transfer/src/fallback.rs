//! Two ways to the same images: the second for what the first cannot give.
//!
//! ```text
//!   image(), open() ─► first ──ok──► answered
//!                        │ it cannot: malformed, unreadable, other bytes than the digest says
//!                        ▼
//!                     second, for this image, and for some minutes
//! ```
//! A stream that broke is not mended under its reader: the error reaches it, and whoever asks for
//! the image again is given the second way.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use tokio::time::Instant;

use crate::blob::{BlobError, BlobSource, BlobStream};
use crate::digest::{ConfigDigest, Digest};
use crate::image::{Image, LayerForm};
use crate::reference::Reference;
use crate::source::{ImageSource, ImageSummary, SourceError};

/// How long an image is taken the second way before the first is tried again: a disk that failed, or an
/// image that was pulled again, is not held against it for ever.
const GIVEN_UP_FOR: Duration = Duration::from_secs(600);

/// An image source with another one behind it, of the same images. Clones are the same.
///
/// It stands directly over the first source, beneath whatever keeps blobs: a store that is full or
/// has rotted is no fault of the source's.
///
/// Both must make the same [`Image`] of a config digest, byte for byte: a reader may begin a blob
/// by the first way and end it by the second.
#[derive(Clone, Debug)]
pub struct Fallback<A, B> {
    first: A,
    second: B,
    given_up: GivenUp,
}

/// The images that the first source could not give, and since when.
#[derive(Clone, Debug, Default)]
struct GivenUp(Arc<Mutex<HashMap<ConfigDigest, Instant>>>);

impl<A: ImageSource, B: ImageSource> Fallback<A, B> {
    /// Asks `first`, and `second` for what it cannot give.
    #[must_use]
    pub fn new(first: A, second: B) -> Self {
        Self { first, second, given_up: GivenUp::default() }
    }

    /// How many images are taken the second way.
    #[must_use]
    pub fn given_up(&self) -> usize {
        self.given_up.lock().len()
    }

    /// The image by the second way, which may learn of it only by one of its names.
    async fn second(
        &self,
        config_digest: &ConfigDigest,
        form: LayerForm,
    ) -> Result<Image, SourceError> {
        match self.second.image(config_digest, form).await {
            Err(SourceError::NotFound { .. }) => {}
            given => return given,
        }
        let listed = self.first.list().await?;
        let image = listed.into_iter().find(|image| image.config_digest == *config_digest);
        let Some(reference) = image.and_then(|image| image.references.into_iter().next()) else {
            return Err(SourceError::NotFound { image: config_digest.to_string() });
        };
        self.second.resolve(&reference).await?;
        self.second.image(config_digest, form).await
    }
}

impl GivenUp {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ConfigDigest, Instant>> {
        let mut given_up = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        given_up.retain(|_, since| since.elapsed() < GIVEN_UP_FOR);
        given_up
    }

    fn has(&self, config_digest: &ConfigDigest) -> bool {
        self.lock().contains_key(config_digest)
    }

    fn add(&self, config_digest: &ConfigDigest, error: &dyn std::error::Error) {
        let error = crate::explain(error);
        if self.lock().insert(*config_digest, Instant::now()).is_none() {
            tracing::warn!(image = %config_digest, error, "read the second way for some minutes");
        }
    }

    fn remove(&self, config_digest: &ConfigDigest) {
        self.lock().remove(config_digest);
    }

    /// Takes note of a blob that could not be read, if another way may give it.
    fn blamed(&self, config_digest: &ConfigDigest, error: &BlobError) -> bool {
        let to_blame = blob_is_to_blame(error);
        if to_blame {
            self.add(config_digest, error);
        }
        to_blame
    }
}

/// Whether another way may give a blob that ended so.
fn blob_is_to_blame(error: &BlobError) -> bool {
    matches!(
        error,
        BlobError::NotFound { .. }
            | BlobError::SizeMismatch { .. }
            | BlobError::DigestMismatch { .. }
            | BlobError::Storage { .. }
    )
}

/// Whether another way may give an image that ended so; one whose engine is away is away both ways.
fn image_is_to_blame(error: &SourceError) -> bool {
    match error {
        SourceError::Malformed { .. } => true,
        SourceError::Export { source, .. } => blob_is_to_blame(source),
        SourceError::NotFound { .. } | SourceError::Unavailable { .. } => false,
    }
}

#[async_trait]
impl<A: ImageSource, B: ImageSource> ImageSource for Fallback<A, B> {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.first.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        match self.first.resolve(reference).await {
            Err(error) if image_is_to_blame(&error) => {
                let why = crate::explain(&error);
                tracing::warn!(image = %reference, error = why, "resolved the second way");
                self.second.resolve(reference).await.map_err(|second| better(error, second))
            }
            resolved => resolved,
        }
    }

    async fn image(
        &self,
        config_digest: &ConfigDigest,
        form: LayerForm,
    ) -> Result<Image, SourceError> {
        if self.given_up.has(config_digest) {
            match self.second(config_digest, form).await {
                // It may be the first way's again: pulled anew, say.
                Err(SourceError::NotFound { .. }) => self.given_up.remove(config_digest),
                given => return given,
            }
        }
        let error = match self.first.image(config_digest, form).await {
            Err(error) if image_is_to_blame(&error) => error,
            given => return given,
        };
        match self.second(config_digest, form).await {
            Ok(image) => {
                self.given_up.add(config_digest, &error);
                Ok(image)
            }
            Err(second) => Err(better(error, second)),
        }
    }

    fn blobs(&self, config_digest: &ConfigDigest) -> Arc<dyn BlobSource> {
        Arc::new(Blobs {
            first: self.first.blobs(config_digest),
            second: self.second.blobs(config_digest),
            config_digest: *config_digest,
            given_up: self.given_up.clone(),
        })
    }
}

/// Of two errors the one that says more: that the second way does not know the image says nothing.
fn better(first: SourceError, second: SourceError) -> SourceError {
    if matches!(second, SourceError::NotFound { .. }) { first } else { second }
}

/// The blobs of one image.
struct Blobs {
    first: Arc<dyn BlobSource>,
    second: Arc<dyn BlobSource>,
    config_digest: ConfigDigest,
    given_up: GivenUp,
}

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs").field("image", &self.config_digest).finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobSource for Blobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        if !self.given_up.has(&self.config_digest) {
            match self.first.stat(digest).await {
                // Not to have it is no fault yet: only a read needs it.
                Ok(None) => {}
                Err(error) if self.given_up.blamed(&self.config_digest, &error) => {}
                answer => return answer,
            }
        }
        self.second.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        match self.by_first(self.first.open(digest, offset)).await? {
            Some(stream) => Ok(stream),
            None => self.second.open(digest, offset).await,
        }
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        match self.by_first(self.first.open_unverified(digest, offset)).await? {
            Some(stream) => Ok(stream),
            None => self.second.open_unverified(digest, offset).await,
        }
    }

    fn doubt(&self, digest: &Digest) {
        self.first.doubt(digest);
        self.second.doubt(digest);
    }
}

impl Blobs {
    /// The stream that `opening` it the first way comes to; `None` where the second is to be gone.
    async fn by_first(
        &self,
        opening: impl Future<Output = Result<BlobStream, BlobError>>,
    ) -> Result<Option<BlobStream>, BlobError> {
        if self.given_up.has(&self.config_digest) {
            return Ok(None);
        }
        match opening.await {
            Ok(stream) => Ok(Some(self.watched(stream))),
            Err(error) if self.given_up.blamed(&self.config_digest, &error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn watched(&self, stream: BlobStream) -> BlobStream {
        let (given_up, config_digest) = (self.given_up.clone(), self.config_digest);
        let watch = move |frame: &Result<_, BlobError>| {
            if let Err(error) = frame {
                given_up.blamed(&config_digest, error);
            }
        };
        stream.inspect(watch).boxed()
    }
}

#[cfg(test)]
mod tests;
