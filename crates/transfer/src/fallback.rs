//! Two ways to read the same images: the second for those that the first cannot give.
//!
//! ```text
//!   open(), a blob ─► first ──ok──► answered
//!                       │ it cannot: malformed, unreadable, other bytes than the digest says
//!                       ▼
//!                     second, for this image, and for some minutes
//! ```
//! A stream that broke is not mended under its reader: the error reaches the reader, whose next read
//! of a blob of that image goes the second way.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::blob::{BlobError, BlobSource, BlobStream};
use crate::digest::Digest;
use crate::image::LayerForm;
use crate::reference::Reference;
use crate::source::{ImageKey, ImageSource, ImageSummary, OpenImage, SourceError};

/// How long an image is read the second way before the first is tried again: a disk may recover, and
/// an image may be pulled again.
const GIVEN_UP_FOR: Duration = Duration::from_secs(600);

/// An image source with another one behind it, of the same images. Clones are the same.
///
/// It stands directly over the first source, beneath the store that keeps blobs: a store that is full
/// or has rotted is no fault of the source's.
///
/// Both must give the same [`Image`](crate::Image) for a key, byte for byte: a reader may begin a
/// blob by the first way and end it by the second.
#[derive(Clone, Debug)]
pub struct Fallback<A, B> {
    first: A,
    second: B,
    given_up: GivenUp,
}

/// The images that the first source could not give, and since when.
#[derive(Clone, Debug, Default)]
struct GivenUp(Arc<Mutex<HashMap<ImageKey, Instant>>>);

impl<A: ImageSource, B: ImageSource> Fallback<A, B> {
    /// Asks `first`, and `second` for images that it cannot give.
    #[must_use]
    pub fn new(first: A, second: B) -> Self {
        Self { first, second, given_up: GivenUp::default() }
    }

    /// How many images are read the second way.
    #[must_use]
    pub fn given_up(&self) -> usize {
        self.given_up.lock().len()
    }

    /// The image by the second way, which may learn of it only by one of its names.
    async fn second(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        match self.second.open(key, form).await {
            Err(SourceError::NotFound { .. }) => {}
            given => return given,
        }
        let listed = self.first.list().await?;
        let named = |image: &ImageSummary| {
            image.config_digest == key.config_digest
                && key.target_digest.is_none_or(|target| image.target_digest == Some(target))
        };
        let image = listed.into_iter().find(named);
        let reference = image.and_then(|image| image.references.into_iter().next());
        self.second.resolve(&reference.ok_or_else(|| key.not_found())?).await?;
        self.second.open(key, form).await
    }
}

impl GivenUp {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ImageKey, Instant>> {
        let mut given_up = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        given_up.retain(|_, since| since.elapsed() < GIVEN_UP_FOR);
        given_up
    }

    fn has(&self, key: &ImageKey) -> bool {
        self.lock().contains_key(key)
    }

    fn add(&self, key: &ImageKey, error: &dyn std::error::Error) {
        let error = crate::explain(error);
        if self.lock().insert(*key, Instant::now()).is_none() {
            tracing::warn!(image = %key, error, "read the second way for some minutes");
        }
    }

    fn remove(&self, key: &ImageKey) {
        self.lock().remove(key);
    }

    /// Takes note of a blob that could not be read, if another way may give it.
    fn blamed(&self, key: &ImageKey, error: &BlobError) -> bool {
        let to_blame = blob_is_to_blame(error);
        if to_blame {
            self.add(key, error);
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
impl<A, B> ImageSource for Fallback<A, B>
where
    A: ImageSource + Clone + 'static,
    B: ImageSource + Clone + 'static,
{
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

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        if self.given_up.has(key) {
            match self.second(key, form).await {
                // It may be the first way's again: pulled anew, say.
                Err(SourceError::NotFound { .. }) => self.given_up.remove(key),
                given => {
                    return Ok(given?.through(|second| self.blobs(key, form, None, Some(second))));
                }
            }
        }
        let error = match self.first.open(key, form).await {
            Err(error) if image_is_to_blame(&error) => error,
            given => return Ok(given?.through(|first| self.blobs(key, form, Some(first), None))),
        };
        match self.second(key, form).await {
            Ok(image) => {
                self.given_up.add(key, &error);
                Ok(image.through(|second| self.blobs(key, form, None, Some(second))))
            }
            Err(second) => Err(better(error, second)),
        }
    }
}

impl<A: ImageSource + Clone + 'static, B: ImageSource + Clone + 'static> Fallback<A, B> {
    /// The blobs of one image, of which one way was opened already.
    fn blobs(
        &self,
        key: &ImageKey,
        form: LayerForm,
        first: Option<Arc<dyn BlobSource>>,
        second: Option<Arc<dyn BlobSource>>,
    ) -> Arc<dyn BlobSource> {
        Arc::new(Blobs {
            ways: self.clone(),
            key: *key,
            form,
            first: OnceCell::new_with(first),
            second: OnceCell::new_with(second),
        })
    }
}

/// Of two errors the one that says more: that the second way does not know the image says nothing.
fn better(first: SourceError, second: SourceError) -> SourceError {
    if matches!(second, SourceError::NotFound { .. }) { first } else { second }
}

/// The blobs of one image; each way is opened when it is first needed.
struct Blobs<A, B> {
    ways: Fallback<A, B>,
    key: ImageKey,
    form: LayerForm,
    first: OnceCell<Arc<dyn BlobSource>>,
    second: OnceCell<Arc<dyn BlobSource>>,
}

impl<A, B> fmt::Debug for Blobs<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs").field("image", &self.key).finish_non_exhaustive()
    }
}

#[async_trait]
impl<A, B> BlobSource for Blobs<A, B>
where
    A: ImageSource + Clone + 'static,
    B: ImageSource + Clone + 'static,
{
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        if !self.is_given_up() {
            match self.first(digest).await?.stat(digest).await {
                // A blob that only a stat misses is no fault of the source's yet.
                Ok(None) => {}
                Err(error) if self.ways.given_up.blamed(&self.key, &error) => {}
                known => return known,
            }
        }
        match self.second(digest).await {
            Ok(second) => second.stat(digest).await,
            Err(BlobError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let first = async { self.first(digest).await?.open(digest, offset).await };
        match self.by_first(first).await? {
            Some(stream) => Ok(stream),
            None => self.second(digest).await?.open(digest, offset).await,
        }
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let first = async { self.first(digest).await?.open_unverified(digest, offset).await };
        match self.by_first(first).await? {
            Some(stream) => Ok(stream),
            None => self.second(digest).await?.open_unverified(digest, offset).await,
        }
    }

    fn doubt(&self, digest: &Digest) {
        for opened in [self.first.get(), self.second.get()].into_iter().flatten() {
            opened.doubt(digest);
        }
    }
}

impl<A: ImageSource + Clone + 'static, B: ImageSource + Clone + 'static> Blobs<A, B> {
    fn is_given_up(&self) -> bool {
        self.ways.given_up.has(&self.key)
    }

    /// The blobs by the first way; not found where it cannot give the image any more.
    async fn first(&self, digest: &Digest) -> Result<&Arc<dyn BlobSource>, BlobError> {
        let open = || async {
            self.ways.first.open(&self.key, self.form).await.map(|opened| opened.blobs)
        };
        self.first.get_or_try_init(open).await.map_err(|error| match image_is_to_blame(&error) {
            true => BlobError::NotFound { digest: *digest },
            false => error.of_blob(*digest),
        })
    }

    /// The blobs by the second way.
    async fn second(&self, digest: &Digest) -> Result<&Arc<dyn BlobSource>, BlobError> {
        let open =
            || async { self.ways.second(&self.key, self.form).await.map(|opened| opened.blobs) };
        self.second.get_or_try_init(open).await.map_err(|error| error.of_blob(*digest))
    }

    /// The stream that `opening` the first way gives; `None` where the second way is to be used.
    async fn by_first(
        &self,
        opening: impl Future<Output = Result<BlobStream, BlobError>>,
    ) -> Result<Option<BlobStream>, BlobError> {
        if self.is_given_up() {
            return Ok(None);
        }
        match opening.await {
            Ok(stream) => Ok(Some(self.watched(stream))),
            Err(error) if self.ways.given_up.blamed(&self.key, &error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn watched(&self, stream: BlobStream) -> BlobStream {
        let (given_up, key) = (self.ways.given_up.clone(), self.key);
        let watch = move |frame: &Result<_, BlobError>| {
            if let Err(error) = frame {
                given_up.blamed(&key, error);
            }
        };
        stream.inspect(watch).boxed()
    }
}

#[cfg(test)]
mod tests;
