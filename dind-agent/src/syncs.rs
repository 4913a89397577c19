//! Syncs under way: owned tasks that go on when whoever asked for them goes away.
//!
//! All of them share one puller, so a layer that two syncs lack goes in once: whoever comes second
//! waits for the first and plans again. They share the count of images under way, too.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt as _;
use proto::control::{ControlError, SyncEvent, SyncSummary};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use transfer::event::{EventKind, ImageReport};
use transfer::pull::Puller;
use transfer::{Event, ImageSink, ImageSource, Observer, Outcome, Reference};

/// Most syncs under way at once; each is a task and a queue of events. A caller beyond this is a
/// loop gone wild, and is told so.
pub const MAX_SYNCS: usize = 32;

/// Places in a sync's queue per image that are kept for events that must not be lost. An image's
/// way has at most its stages, load and prove again when it heals, a plan for each, and its result.
const EVENTS_PER_IMAGE: usize = 16;

/// Places beyond those, for progress.
const PROGRESS_EVENTS: usize = 64;

/// Brings images in, and remembers what is under way.
#[derive(Debug)]
pub struct Syncs {
    puller: Arc<Puller>,
    images_at_once: Arc<Semaphore>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Syncs {
    /// Brings images from `source` into `sink`, up to `concurrency` at once over all syncs.
    #[must_use]
    pub fn new(source: Arc<dyn ImageSource>, sink: Arc<dyn ImageSink>, concurrency: usize) -> Self {
        let concurrency = concurrency.max(1);
        Self {
            puller: Arc::new(Puller::new(source, sink, concurrency)),
            images_at_once: Arc::new(Semaphore::new(concurrency)),
            places: Arc::new(Semaphore::new(MAX_SYNCS)),
            tasks: TaskTracker::new(),
        }
    }

    /// Begins a sync. Its events come until [`SyncEvent::Finished`]; a reader that goes away cancels
    /// nothing, one that falls behind misses progress and no other event.
    ///
    /// # Errors
    /// [`ControlError::Busy`].
    pub fn begin(
        &self,
        references: Vec<Reference>,
    ) -> Result<mpsc::Receiver<SyncEvent>, ControlError> {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return Err(ControlError::Busy { limit: MAX_SYNCS });
        };
        let references = distinct(references);
        let (teller, events) = Teller::new(references.len());
        let puller = self.puller.clone();
        let permits = self.images_at_once.clone();
        let sync = async move {
            pull_all(&puller, &permits, references, Arc::new(teller)).await;
            drop(place);
        };
        self.tasks.spawn(sync.in_current_span());
        Ok(events)
    }

    /// How many are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        MAX_SYNCS - self.places.available_permits()
    }

    /// Returns once all that were begun are done; none may be begun any more.
    pub async fn finish(&self) {
        self.places.close();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn pull_all(
    puller: &Puller,
    permits: &Semaphore,
    references: Vec<Reference>,
    teller: Arc<Teller>,
) {
    let started = Instant::now();
    let observer: Arc<dyn Observer> = teller.clone();
    let count = references.len().max(1);
    let reports: Vec<ImageReport> = futures::stream::iter(references)
        .map(|reference| async {
            let _permit = permits.acquire().await.expect("invariant: it is never closed");
            let report = puller.pull_one(reference, observer.clone()).await;
            log(&report);
            report
        })
        .buffer_unordered(count)
        .collect()
        .await;
    teller.tell(SyncEvent::Finished(SyncSummary::of(&reports, started.elapsed())));
}

/// Tells one sync's events to whoever asked for it, without ever waiting for them.
struct Teller {
    events: mpsc::Sender<SyncEvent>,
    /// Free places that progress must leave to the events that may not be lost.
    kept: usize,
}

impl Teller {
    fn new(images: usize) -> (Self, mpsc::Receiver<SyncEvent>) {
        let kept = images * EVENTS_PER_IMAGE + 1;
        let (events, receiver) = mpsc::channel(kept + PROGRESS_EVENTS);
        (Self { events, kept }, receiver)
    }

    fn tell(&self, event: SyncEvent) {
        let progress =
            matches!(&event, SyncEvent::Image(Event { kind: EventKind::Moved { .. }, .. }));
        if progress && self.events.capacity() <= self.kept {
            return;
        }
        // Full cannot be, by the count above; closed means that nobody is interested any more.
        let _gone = self.events.try_send(event);
    }
}

impl Observer for Teller {
    fn observe(&self, event: Event) {
        self.tell(SyncEvent::Image(event));
    }
}

/// The references in their order, each once: one result per image.
fn distinct(references: Vec<Reference>) -> Vec<Reference> {
    let mut seen = HashSet::new();
    references.into_iter().filter(|reference| seen.insert(reference.clone())).collect()
}

fn log(report: &ImageReport) {
    let ImageReport { reference, bytes_moved, bytes_saved, .. } = report;
    let seconds = report.seconds();
    match (&report.error, report.outcome) {
        (None, Outcome::Synced) => {
            tracing::info!(image = %reference, bytes_moved, bytes_saved, seconds, "synced");
        }
        (None, _) => tracing::info!(image = %reference, bytes_saved, seconds, "already there"),
        (Some(error), _) => tracing::warn!(image = %reference, bytes_moved, error, "not synced"),
    }
}

#[cfg(test)]
mod tests {
    use transfer::fixture::{MemorySink, MemorySource};
    use transfer::{Stage, StoreKind};

    use super::*;

    fn event(kind: EventKind) -> SyncEvent {
        SyncEvent::Image(Event { reference: "app:1".parse().unwrap(), kind })
    }

    #[tokio::test]
    async fn a_reader_that_falls_behind_misses_progress_and_nothing_else() {
        let (teller, mut events) = Teller::new(1);
        for bytes_moved in 0..10_000 {
            teller.tell(event(EventKind::Moved { bytes_moved }));
        }
        for _ in 0..EVENTS_PER_IMAGE {
            teller.tell(event(EventKind::Entered(Stage::Load)));
        }
        teller.tell(SyncEvent::Finished(SyncSummary::default()));
        drop(teller);
        let mut told = Vec::new();
        while let Some(event) = events.recv().await {
            told.push(event);
        }
        let stage = event(EventKind::Entered(Stage::Load));
        assert_eq!(told.iter().filter(|event| **event == stage).count(), EVENTS_PER_IMAGE);
        assert_eq!(told.last(), Some(&SyncEvent::Finished(SyncSummary::default())));
        assert_eq!(told.len(), PROGRESS_EVENTS + EVENTS_PER_IMAGE + 1);
    }

    #[tokio::test]
    async fn too_many_syncs_are_refused_until_some_have_ended() {
        let source = Arc::new(MemorySource::default());
        let syncs = Syncs::new(source, Arc::new(MemorySink::new(StoreKind::Containerd)), 1);
        let begin = || syncs.begin(vec!["absent:1".parse().unwrap()]);
        let mut under_way: Vec<_> = (0..MAX_SYNCS).map(|_| begin().unwrap()).collect();
        assert_eq!(syncs.under_way(), MAX_SYNCS);
        assert!(matches!(begin(), Err(ControlError::Busy { limit: MAX_SYNCS })));
        for events in &mut under_way {
            while events.recv().await.is_some() {}
        }
        syncs.finish().await;
    }
}
