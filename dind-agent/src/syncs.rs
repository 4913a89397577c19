//! Syncs under way: owned tasks that go on when whoever asked for them goes away.
//!
//! All of them, and the agent that brings in what is wanted by itself, share one puller, so a layer
//! that two lack goes in once, and an image that two ask for is loaded once. They share the count of
//! images under way, too.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use control::range::{ControlError, LastSync, SyncEvent, SyncSummary};
use futures::StreamExt as _;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use transfer::event::{EventKind, ImageReport};
use transfer::pull::Puller;
use transfer::{Event, ImageSink, ImageSource, Observer, Outcome, Reference};

use crate::flights::Flights;

/// Most syncs under way at once; each is a task and a queue of events. A caller beyond this is a
/// loop gone wild, and is told so.
pub const MAX_SYNCS: usize = 32;

/// Places in a sync's queue per image that progress leaves to the stages of its way: at most all of
/// them, twice from plan to load when it brings in for others what they share, load and prove again
/// when it heals, and a plan for each. Where it takes more than one go, stages may be missed as well;
/// results never.
const EVENTS_PER_IMAGE: usize = 24;

/// Places beyond those, for progress.
const PROGRESS_EVENTS: usize = 64;

/// Brings images in, and remembers what is under way.
#[derive(Debug)]
pub struct Syncs {
    flights: Arc<Flights>,
    last: Arc<Mutex<Option<LastSync>>>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Syncs {
    /// Brings images from `source` into `sink`, loading up to `concurrency` at once over all syncs.
    #[must_use]
    pub fn new(source: Arc<dyn ImageSource>, sink: Arc<dyn ImageSink>, concurrency: usize) -> Self {
        let puller = Puller::new(source, sink, concurrency);
        Self {
            flights: Arc::new(Flights::new(puller)),
            last: Arc::default(),
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
        let (flights, last) = (self.flights.clone(), self.last.clone());
        let sync = async move {
            let reports = bring_all(&flights, references, Arc::new(teller)).await;
            note(&last, reports.iter().find_map(|report| report.error.clone()));
            drop(place);
        };
        self.tasks.spawn(sync.in_current_span());
        Ok(events)
    }

    /// Brings one image in for nobody in particular; `None` when the agent ends meanwhile. A task
    /// that came to no end of its own is an image that failed.
    ///
    /// Cancel safe: what is under way goes on, and is waited for by [`Syncs::finish`].
    pub(crate) async fn bring_in(&self, reference: Reference) -> Option<ImageReport> {
        let (flights, wanted) = (self.flights.clone(), reference.clone());
        let (sender, receiver) = oneshot::channel();
        let bring = async move {
            let report = flights.bring(&reference, Arc::new(|_: Event| {}), || false).await;
            log(&report);
            // Whoever waited for it may have other things to do by now.
            drop(sender.send(report));
        };
        self.tasks.spawn(bring.in_current_span());
        let report = match receiver.await {
            Ok(report) => report,
            Err(_ended) if self.places.is_closed() => return None,
            Err(_panicked) => {
                let report = broken(wanted);
                log(&report);
                report
            }
        };
        note(&self.last, report.error.clone());
        Some(report)
    }

    /// How the last sync ended, whoever asked for it; `None` when there was none.
    #[must_use]
    pub fn last(&self) -> Option<LastSync> {
        self.last.lock().expect("invariant: storing a result does not panic").clone()
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

async fn bring_all(
    flights: &Flights,
    references: Vec<Reference>,
    teller: Arc<Teller>,
) -> Vec<ImageReport> {
    let started = Instant::now();
    let count = references.len().max(1);
    let reports: Vec<ImageReport> = futures::stream::iter(references)
        .map(|reference| {
            let teller = teller.clone();
            async move {
                let report = flights.bring(&reference, teller.clone(), || teller.is_heard()).await;
                log(&report);
                let kind = EventKind::Done(report.clone());
                teller.tell(SyncEvent::Image(Event { reference, kind }));
                report
            }
        })
        .buffer_unordered(count)
        .collect()
        .await;
    teller.tell(SyncEvent::Finished(SyncSummary::of(&reports, started.elapsed())));
    reports
}

fn note(last: &Mutex<Option<LastSync>>, error: Option<String>) {
    let ended = LastSync { finished: SystemTime::now(), error };
    *last.lock().expect("invariant: storing a result does not panic") = Some(ended);
}

/// Tells one sync's events to whoever asked for it, without ever waiting for them.
struct Teller {
    events: mpsc::Sender<SyncEvent>,
    images: usize,
}

impl Teller {
    fn new(images: usize) -> (Self, mpsc::Receiver<SyncEvent>) {
        let places = images * EVENTS_PER_IMAGE + 1 + PROGRESS_EVENTS;
        let (events, receiver) = mpsc::channel(places);
        (Self { events, images }, receiver)
    }

    fn is_heard(&self) -> bool {
        !self.events.is_closed()
    }

    fn tell(&self, event: SyncEvent) {
        // Free places that this event must leave to those that matter more.
        let kept = match &event {
            SyncEvent::Image(Event { kind: EventKind::Moved { .. }, .. }) => {
                self.images * EVENTS_PER_IMAGE + 1
            }
            SyncEvent::Image(Event { kind: EventKind::Done(_), .. }) | SyncEvent::Finished(_) => 0,
            SyncEvent::Image(_) => self.images + 1,
        };
        if self.events.capacity() <= kept && 0 < kept {
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

/// The report of a task that panicked.
fn broken(reference: Reference) -> ImageReport {
    ImageReport {
        reference,
        config_digest: None,
        engine_image_id: None,
        outcome: Outcome::Failed,
        proven: false,
        bytes_moved: 0,
        bytes_saved: 0,
        stages: Vec::new(),
        error: Some("the agent failed while it brought the image in; its log says why".into()),
    }
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
    async fn a_reader_that_falls_behind_misses_progress_and_no_result() {
        let (teller, mut events) = Teller::new(1);
        for bytes_moved in 0..10_000 {
            teller.tell(event(EventKind::Moved { bytes_moved }));
        }
        // More than there is room for, as when an image takes many goes.
        for _ in 0..EVENTS_PER_IMAGE * 2 {
            teller.tell(event(EventKind::Entered(Stage::Load)));
        }
        let report = broken("app:1".parse().unwrap());
        teller.tell(event(EventKind::Done(report.clone())));
        teller.tell(SyncEvent::Finished(SyncSummary::default()));
        drop(teller);
        let mut told = Vec::new();
        while let Some(event) = events.recv().await {
            told.push(event);
        }
        let stage = event(EventKind::Entered(Stage::Load));
        assert_eq!(told.iter().filter(|event| **event == stage).count(), EVENTS_PER_IMAGE - 1);
        assert_eq!(told[told.len() - 2], event(EventKind::Done(report)));
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
