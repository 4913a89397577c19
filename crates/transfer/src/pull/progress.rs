//! One image's way as it is told: stages with their seconds, bytes, and the report at the end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;

use super::PullError;
use crate::blob::{BlobError, BlobSource, BlobStream};
use crate::digest::{ConfigDigest, Digest};
use crate::event::{Event, EventKind, ImageReport, Observer, Outcome, Stage};
use crate::reference::Reference;
use crate::sink::Proof;

/// Shortest time between two progress events of one image: what an eye can follow, and little
/// enough to send to every watcher.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// One image on its way.
pub(super) struct Progress {
    pub(super) reference: Reference,
    pub(super) config_digest: Option<ConfigDigest>,
    observer: Arc<dyn Observer>,
    stages: Vec<(Stage, f64)>,
    entered: Instant,
    loaded: bool,
    bytes_saved: u64,
    /// Bytes of layers that it brought in for others too, before its own load.
    brought: u64,
    moved: Arc<Moved>,
}

/// Layer bytes handed to the engine, counted from any task.
#[derive(Default)]
struct Moved {
    bytes: AtomicU64,
    told: Mutex<Option<Instant>>,
}

impl Progress {
    pub(super) fn begin(reference: Reference, observer: Arc<dyn Observer>) -> Self {
        Self {
            reference,
            config_digest: None,
            observer,
            stages: Vec::new(),
            entered: Instant::now(),
            loaded: false,
            bytes_saved: 0,
            brought: 0,
            moved: Arc::default(),
        }
    }

    /// Ends the stage before, and begins this one.
    pub(super) fn enter(&mut self, stage: Stage) {
        self.leave();
        self.stages.push((stage, 0.0));
        self.loaded |= stage == Stage::Load;
        self.tell(EventKind::Entered(stage));
    }

    /// Takes note of layers that are there because this image brought them in.
    pub(super) fn brought(&mut self, bytes: u64) {
        self.brought += bytes;
    }

    /// Takes note of a plan: bytes to move, bytes saved.
    pub(super) fn planned(&mut self, (bytes_to_move, bytes_saved): (u64, u64)) {
        // A healing load moves what was brought in once more; nothing is saved by it.
        let brought = self.brought.min(bytes_saved);
        let (bytes_to_move, bytes_saved) = (bytes_to_move + brought, bytes_saved - brought);
        self.bytes_saved = bytes_saved;
        self.tell(EventKind::Planned { bytes_to_move, bytes_saved });
    }

    /// Whether a load was begun.
    pub(super) fn loaded(&self) -> bool {
        self.loaded
    }

    /// The same blobs, counted as they pass.
    pub(super) fn metered(&self, blobs: Arc<dyn BlobSource>) -> MeteredBlobs {
        MeteredBlobs {
            blobs,
            moved: self.moved.clone(),
            observer: self.observer.clone(),
            reference: self.reference.clone(),
        }
    }

    /// The report of an image that is there.
    pub(super) fn arrived(self, outcome: Outcome, proof: &Proof) -> ImageReport {
        self.report(outcome, Some(proof), None)
    }

    /// The report of an image that is not.
    pub(super) fn failed(self, error: &PullError) -> ImageReport {
        self.report(Outcome::Failed, None, Some(error.explain()))
    }

    fn report(
        mut self,
        outcome: Outcome,
        proof: Option<&Proof>,
        error: Option<String>,
    ) -> ImageReport {
        self.leave();
        let report = ImageReport {
            reference: self.reference.clone(),
            config_digest: self.config_digest,
            engine_image_id: proof.map(|proof| proof.engine_image_id),
            outcome,
            proven: proof.is_some(),
            bytes_moved: self.moved.bytes.load(Ordering::Relaxed),
            bytes_saved: self.bytes_saved,
            stages: std::mem::take(&mut self.stages),
            error,
        };
        self.tell(EventKind::Done(report.clone()));
        report
    }

    fn leave(&mut self) {
        let now = Instant::now();
        if let Some((_, seconds)) = self.stages.last_mut() {
            *seconds = (now - self.entered).as_secs_f64();
        }
        self.entered = now;
    }

    fn tell(&self, kind: EventKind) {
        self.observer.observe(Event { reference: self.reference.clone(), kind });
    }
}

impl Moved {
    /// Counts `size` bytes more; the sum, when it is time to tell it.
    fn add(&self, size: u64) -> Option<u64> {
        let bytes = self.bytes.fetch_add(size, Ordering::Relaxed) + size;
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| now - told < PROGRESS_EVERY) {
            return None;
        }
        *told = Some(now);
        Some(bytes)
    }
}

/// A blob source whose bytes are counted for the image that they are read for.
pub(super) struct MeteredBlobs {
    blobs: Arc<dyn BlobSource>,
    moved: Arc<Moved>,
    observer: Arc<dyn Observer>,
    reference: Reference,
}

impl MeteredBlobs {
    fn counted(&self, stream: BlobStream) -> BlobStream {
        let (moved, observer) = (self.moved.clone(), self.observer.clone());
        let reference = self.reference.clone();
        let count = move |frame: &Bytes| {
            if let Some(bytes_moved) = moved.add(frame.len() as u64) {
                let kind = EventKind::Moved { bytes_moved };
                observer.observe(Event { reference: reference.clone(), kind });
            }
        };
        stream.inspect_ok(count).boxed()
    }
}

#[async_trait]
impl BlobSource for MeteredBlobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.blobs.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        Ok(self.counted(self.blobs.open(digest, offset).await?))
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        Ok(self.counted(self.blobs.open_unverified(digest, offset).await?))
    }

    fn doubt(&self, digest: &Digest) {
        self.blobs.doubt(digest);
    }
}
