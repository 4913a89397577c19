//! Images whose blobs are read from a slow source once, and from a store ever after; or straight from
//! the source where nobody else can want them.
//!
//! ```text
//!   open() ──► inner's image, and these blobs:
//!              store has it? ─► store
//!                   ├─► one reader is all there can be ─► inner's stream itself, kept nowhere
//!                   └─► one read of inner's for all readers ([`crate::shared`]), kept on the way
//! ```
//! For a source that gives single layers from any offset: an engine's own files or content service, a
//! folder, an archive. What was collected or found to be corrupt is read from there again.
//!
//! A copy that nobody reads a second time costs a range that is alone on its host the write of every
//! layer. Whether it is alone, only whoever puts this together can know
//! ([`passing`](Stored::passing)). A blob passes for one reader at a time: a second one that comes
//! meanwhile, or the first one that lost its connection, has it taken in as ever.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::StreamExt as _;

use crate::blob::{BlobError, BlobSource, BlobStore, BlobStream};
use crate::digest::Digest;
use crate::image::LayerForm;
use crate::metered::{Counters, Metered};
use crate::reference::Reference;
use crate::shared::Shared;
use crate::source::{ImageKey, ImageSource, ImageSummary, OpenImage, SourceError};

/// Says whether nobody but the one who asks can want what is read now. Asked at each read.
pub type Alone = Arc<dyn Fn() -> bool + Send + Sync>;

/// An image source with a blob store in front. Clones are the same.
#[derive(Clone)]
pub struct Stored<S> {
    inner: S,
    store: Arc<dyn BlobStore>,
    shared: Shared,
    read: Arc<Counters>,
    passing: Option<Passing>,
}

impl<S: ImageSource> Stored<S> {
    /// Keeps in `store` what is read of `inner`'s blobs.
    #[must_use]
    pub fn new(inner: S, store: Arc<dyn BlobStore>) -> Self {
        let shared = Shared::over(store.clone());
        Self { inner, store, shared, read: Arc::default(), passing: None }
    }

    /// The same, but nothing is kept of what is read while `alone` says so.
    #[must_use]
    pub fn passing(self, alone: Alone) -> Self {
        let passing = Passing { alone, now: Arc::default(), doubted: Arc::default() };
        Self { passing: Some(passing), ..self }
    }

    /// What was read of `inner`'s blobs.
    #[must_use]
    pub fn read(&self) -> &Arc<Counters> {
        &self.read
    }

    /// Waits until nothing is being taken in: for an orderly end, after the last reader has gone.
    pub async fn drained(&self) {
        self.shared.drained().await;
    }
}

impl<S> fmt::Debug for Stored<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("shared", &self.shared).finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: ImageSource> ImageSource for Stored<S> {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.inner.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.inner.resolve(reference).await
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        Ok(self.inner.open(key, form).await?.through(|blobs| self.in_front_of(blobs)))
    }
}

impl<S> Stored<S> {
    /// The blobs of one of `inner`'s images, with the store in front.
    fn in_front_of(&self, blobs: Arc<dyn BlobSource>) -> Arc<dyn BlobSource> {
        let far: Arc<dyn BlobSource> = Arc::new(Metered::with(blobs, self.read.clone()));
        let shared = self.shared.with_far(far.clone());
        match &self.passing {
            Some(passing) => {
                let (store, passing) = (self.store.clone(), passing.clone());
                Arc::new(Blobs { store, shared, far, passing })
            }
            None => Arc::new(shared),
        }
    }
}

/// The blobs of one image, kept or passed on.
struct Blobs {
    store: Arc<dyn BlobStore>,
    shared: Shared,
    far: Arc<dyn BlobSource>,
    passing: Passing,
}

/// How a blob is read.
enum Way {
    /// From the source straight to its reader.
    Passed(Pass),
    /// From the store, which had it.
    Stored(BlobStream),
    /// From the source for all who ask, and into the store.
    Kept,
}

impl Blobs {
    /// How the blob is to be read.
    async fn way(&self, digest: &Digest, offset: u64) -> Result<Way, BlobError> {
        let Some(pass) = self.pass(digest) else { return Ok(Way::Kept) };
        match self.store.open(digest, offset).await {
            Err(BlobError::NotFound { .. }) => Ok(Way::Passed(pass)),
            opened => Ok(Way::Stored(opened?)),
        }
    }

    /// The right to pass the blob on; none where it is to be kept, or is coming in already.
    fn pass(&self, digest: &Digest) -> Option<Pass> {
        let alone = (self.passing.alone)() && !self.shared.in_progress(digest);
        alone.then(|| self.passing.begin(*digest)).flatten()
    }
}

#[async_trait]
impl BlobSource for Blobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.shared.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        match self.way(digest, offset).await? {
            Way::Kept => self.shared.open(digest, offset).await,
            Way::Stored(stream) => Ok(stream),
            Way::Passed(pass) => Ok(pass.along(self.far.open(digest, offset).await?)),
        }
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        // What was doubted is verified here: its reader can only say that it is wrong.
        if offset == 0 && self.passing.was_doubted(digest) {
            return self.open(digest, offset).await;
        }
        match self.way(digest, offset).await? {
            Way::Kept => self.shared.open(digest, offset).await,
            Way::Stored(stream) => Ok(stream),
            Way::Passed(pass) => Ok(pass.along(self.far.open_unverified(digest, offset).await?)),
        }
    }

    fn doubt(&self, digest: &Digest) {
        self.shared.doubt(digest);
        self.passing.doubt(*digest);
    }
}

/// Which blobs are passed on, each to one reader. Clones are the same.
#[derive(Clone)]
struct Passing {
    alone: Alone,
    now: Arc<Mutex<HashSet<Digest>>>,
    /// Those whose bytes a reader doubted, until they are read again.
    doubted: Arc<Mutex<HashSet<Digest>>>,
}

/// One of them; dropping it ends the passing.
struct Pass {
    digest: Digest,
    now: Arc<Mutex<HashSet<Digest>>>,
}

fn lock(blobs: &Mutex<HashSet<Digest>>) -> MutexGuard<'_, HashSet<Digest>> {
    blobs.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Passing {
    /// `None` while another reader has it.
    fn begin(&self, digest: Digest) -> Option<Pass> {
        lock(&self.now).insert(digest).then(|| Pass { digest, now: self.now.clone() })
    }

    fn doubt(&self, digest: Digest) {
        lock(&self.doubted).insert(digest);
    }

    /// Whether it was, until now.
    fn was_doubted(&self, digest: &Digest) -> bool {
        lock(&self.doubted).remove(digest)
    }
}

impl Pass {
    /// The stream, with the right held until it ends.
    fn along(self, stream: BlobStream) -> BlobStream {
        let passed = stream.map(move |frame| {
            let _until_the_end = &self;
            frame
        });
        passed.boxed()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        lock(&self.now).remove(&self.digest);
    }
}

#[cfg(test)]
mod tests;
