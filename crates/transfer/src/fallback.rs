//! Two ways to the same images: the second for what the first cannot give.
//!
//! ```text
//!   image(), open() ─► first ──ok──► answered
//!                        │ it cannot: malformed, unreadable, other bytes than the digest says
//!                        ▼
//!                     second, from now on, for this image
//! ```
//! A stream that broke is not mended under its reader: the error reaches it, and whoever asks for
//! the image again is given the second way.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt as _;

use crate::blob::{BlobError, BlobSource, BlobStream};
use crate::digest::{ConfigDigest, Digest};
use crate::image::{Image, LayerForm};
use crate::reference::Reference;
use crate::source::{ImageSource, ImageSummary, SourceError};

/// An image source with another one behind it, of the same images. Clones are the same.
///
/// Both must make the same [`Image`] of a config digest, byte for byte: a reader may begin a blob
/// by the first way and end it by the second.
#[derive(Clone, Debug)]
pub struct Fallback<A, B> {
    first: A,
    second: B,
    given_up: GivenUp,
}

/// The images that the first source cannot give; for as long as the process lives.
#[derive(Clone, Debug, Default)]
struct GivenUp(Arc<Mutex<HashSet<ConfigDigest>>>);

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
}

impl GivenUp {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<ConfigDigest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, config_digest: &ConfigDigest) -> bool {
        self.lock().contains(config_digest)
    }

    fn add(&self, config_digest: &ConfigDigest, error: &dyn std::error::Error) {
        let error = crate::explain(error);
        if self.lock().insert(*config_digest) {
            tracing::warn!(image = %config_digest, error, "read the second way from now on");
        }
    }

    /// Takes note of a blob that could not be read, if another way may give it.
    fn blamed(&self, config_digest: &ConfigDigest, error: &BlobError) -> bool {
        let first_way_is_to_blame = matches!(
            error,
            BlobError::NotFound { .. }
                | BlobError::SizeMismatch { .. }
                | BlobError::DigestMismatch { .. }
                | BlobError::Storage { .. }
        );
        if first_way_is_to_blame {
            self.add(config_digest, error);
        }
        first_way_is_to_blame
    }
}

#[async_trait]
impl<A: ImageSource, B: ImageSource> ImageSource for Fallback<A, B> {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.first.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        match self.first.resolve(reference).await {
            Err(error @ (SourceError::Malformed { .. } | SourceError::Export { .. })) => {
                tracing::warn!(image = %reference, %error, "resolved the second way");
                self.second.resolve(reference).await
            }
            resolved => resolved,
        }
    }

    async fn image(
        &self,
        config_digest: &ConfigDigest,
        form: LayerForm,
    ) -> Result<Image, SourceError> {
        if !self.given_up.has(config_digest) {
            match self.first.image(config_digest, form).await {
                Err(error @ (SourceError::Malformed { .. } | SourceError::Export { .. })) => {
                    self.given_up.add(config_digest, &error);
                }
                image => return image,
            }
        }
        self.second.image(config_digest, form).await
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
        if !self.given_up.has(&self.config_digest) {
            match self.first.open(digest, offset).await {
                Ok(stream) => return Ok(self.watched(stream)),
                Err(error) if self.given_up.blamed(&self.config_digest, &error) => {}
                Err(error) => return Err(error),
            }
        }
        self.second.open(digest, offset).await
    }
}

impl Blobs {
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
mod tests {
    use super::*;
    use crate::fixture::{self, Faulty, MemorySource, drain};
    use crate::store::MemoryStore;
    use crate::stored::Stored;

    /// A source whose every blob is corrupt at its tenth byte.
    struct Rotten(MemorySource);

    #[async_trait]
    impl ImageSource for Rotten {
        async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
            self.0.list().await
        }

        async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
            self.0.resolve(reference).await
        }

        async fn image(
            &self,
            config_digest: &ConfigDigest,
            form: LayerForm,
        ) -> Result<Image, SourceError> {
            self.0.image(config_digest, form).await
        }

        fn blobs(&self, config_digest: &ConfigDigest) -> Arc<dyn BlobSource> {
            Arc::new(Faulty::corrupt_at(self.0.blobs(config_digest), 10))
        }
    }

    fn hosts() -> (Image, MemorySource) {
        let source = MemorySource::default();
        let (image, blobs) = fixture::image(1, &[1000]);
        source.insert("app:1", (image.clone(), blobs));
        (image, source)
    }

    #[tokio::test]
    async fn bytes_that_are_wrong_are_told_once_and_read_the_second_way_after() {
        let (image, good) = hosts();
        let first = Stored::new(Rotten(good.clone()), Arc::new(MemoryStore::default()));
        let source = Fallback::new(first, good);
        let digest = image.layers[0].blob.digest;
        let blobs = source.blobs(&image.config_digest);
        // A small blob may be found out before its first reader is let in; then that one is served.
        drain(blobs.open(&digest, 0).await.unwrap()).await.1.unwrap_or_default();
        assert_eq!(source.given_up(), 1);
        assert_eq!(source.image(&image.config_digest, LayerForm::AsStored).await.unwrap(), image);
        let (_, end) = drain(blobs.open(&digest, 0).await.unwrap()).await;
        end.unwrap();
    }

    #[tokio::test]
    async fn a_blob_that_the_first_does_not_have_is_read_the_second_way_at_once() {
        let (image, second) = hosts();
        let source = Fallback::new(MemorySource::default(), second);
        let blobs = source.blobs(&image.config_digest);
        let (_, end) = drain(blobs.open(&image.layers[0].blob.digest, 0).await.unwrap()).await;
        end.unwrap();
    }

    #[tokio::test]
    async fn an_image_that_is_nowhere_is_not_looked_for_twice() {
        let (_, first) = hosts();
        let source = Fallback::new(first, MemorySource::default());
        let absent = ConfigDigest(Digest::of(b"absent"));
        let error = source.image(&absent, LayerForm::AsStored).await.unwrap_err();
        assert!(matches!(error, SourceError::NotFound { .. }), "{error}");
        assert_eq!(source.given_up(), 0);
    }
}
