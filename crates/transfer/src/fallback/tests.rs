//! Which of the two ways is gone, and when.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::descriptor::{Descriptor, MediaType};
use crate::digest::ConfigDigest;
use crate::fixture::{self, Faulty, MemorySource, drain};
use crate::image::Image;
use crate::store::MemoryStore;
use crate::stored::Stored;
use crate::verify::verify;

/// A source whose every blob is corrupt at its tenth byte, which it finds out by itself.
#[derive(Clone)]
struct Rotten(MemorySource);

struct RottenBlobs(Faulty<Arc<dyn BlobSource>>);

#[async_trait]
impl BlobSource for RottenBlobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.0.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let size = self.stat(digest).await?.ok_or(BlobError::NotFound { digest: *digest })?;
        let media_type = MediaType::new(MediaType::LAYER);
        let descriptor = Descriptor { media_type, digest: *digest, size };
        Ok(verify(self.0.open(digest, offset).await?, &descriptor))
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.0.open(digest, offset).await
    }
}

#[async_trait]
impl ImageSource for Rotten {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.0.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.0.resolve(reference).await
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        let rotten = |blobs| Arc::new(RottenBlobs(Faulty::corrupt_at(blobs, 10))) as _;
        Ok(self.0.open(key, form).await?.through(rotten))
    }
}

/// A source that knows an image only once it was asked for by name.
#[derive(Clone)]
struct ByName(MemorySource, Arc<AtomicBool>);

#[async_trait]
impl ImageSource for ByName {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        Ok(Vec::new())
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.1.store(true, Ordering::Relaxed);
        self.0.resolve(reference).await
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        if self.1.load(Ordering::Relaxed) {
            return self.0.open(key, form).await;
        }
        Err(key.not_found())
    }
}

async fn open(source: &impl ImageSource, image: &Image) -> OpenImage {
    source.open(&image.config_digest.into(), LayerForm::AsStored).await.unwrap()
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
    let fallback = Fallback::new(Rotten(good.clone()), good);
    let source = Stored::new(fallback.clone(), Arc::new(MemoryStore::default()));
    let digest = image.layers[0].blob.digest;
    let blobs = open(&source, &image).await.blobs;
    // A small blob may be found out before its first reader is let in.
    if let Ok(stream) = blobs.open(&digest, 0).await {
        drain(stream).await.1.unwrap_err();
    }
    assert_eq!(fallback.given_up(), 1);
    assert_eq!(open(&source, &image).await.image, image);
    let (_, end) = drain(blobs.open(&digest, 0).await.unwrap()).await;
    end.unwrap();
}

#[tokio::test]
async fn what_a_reader_doubts_is_verified_here_and_then_read_the_second_way() {
    let (image, good) = hosts();
    let fallback = Fallback::new(Rotten(good.clone()), good);
    let source = Stored::new(fallback.clone(), Arc::new(MemoryStore::default()));
    let source = source.passing(Arc::new(|| true));
    let layer = &image.layers[0].blob;
    let blobs = open(&source, &image).await.blobs;
    let read = async || drain(blobs.open_unverified(&layer.digest, 0).await.unwrap()).await;

    let (bytes, end) = read().await;
    end.unwrap();
    assert_ne!(Digest::of(&bytes), layer.digest, "nobody but the reader looked at them");
    assert_eq!(fallback.given_up(), 0);

    blobs.doubt(&layer.digest);
    let (_, end) = read().await;
    assert!(matches!(end, Err(BlobError::DigestMismatch { .. })), "{end:?}");
    assert_eq!(fallback.given_up(), 1);

    let (bytes, end) = read().await;
    end.unwrap();
    assert_eq!(Digest::of(&bytes), layer.digest);
}

#[tokio::test]
async fn an_image_that_the_second_knows_by_name_alone_is_asked_for_by_its_name() {
    let (image, good) = hosts();
    let second = ByName(good.clone(), Arc::default());
    let source = Fallback::new(Rotten(good), second);
    let blobs = open(&source, &image).await.blobs;
    let digest = image.layers[0].blob.digest;
    let (_, end) = drain(blobs.open(&digest, 0).await.unwrap()).await;
    end.unwrap_err();
    assert_eq!(open(&source, &image).await.image, image);
    assert_eq!(source.given_up(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_way_is_tried_again_after_some_time() {
    let (image, good) = hosts();
    let source = Fallback::new(Rotten(good.clone()), good);
    let blobs = open(&source, &image).await.blobs;
    let digest = image.layers[0].blob.digest;
    let (_, end) = drain(blobs.open(&digest, 0).await.unwrap()).await;
    end.unwrap_err();
    drain(blobs.open(&digest, 0).await.unwrap()).await.1.unwrap();
    tokio::time::sleep(GIVEN_UP_FOR).await;
    assert_eq!(source.given_up(), 0);
    drain(blobs.open(&digest, 0).await.unwrap()).await.1.unwrap_err();
}

#[tokio::test]
async fn a_blob_that_the_first_does_not_have_is_read_the_second_way_at_once() {
    let (image, second) = hosts();
    let first = MemorySource::default();
    first.insert("app:1", (image.clone(), Vec::new()));
    let source = Fallback::new(first, second);
    let blobs = open(&source, &image).await.blobs;
    let (_, end) = drain(blobs.open(&image.layers[0].blob.digest, 0).await.unwrap()).await;
    end.unwrap();
}

#[tokio::test]
async fn an_image_that_is_nowhere_is_not_looked_for_twice() {
    let (_, first) = hosts();
    let source = Fallback::new(first, MemorySource::default());
    let absent = ConfigDigest(Digest::of(b"absent"));
    let error = source.open(&absent.into(), LayerForm::AsStored).await.unwrap_err();
    assert!(matches!(error, SourceError::NotFound { .. }), "{error}");
    assert_eq!(source.given_up(), 0);
}
