//! Images that take more than one go, and images that several ask for.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use transfer::fixture::{MemorySink, MemorySource, image};
use transfer::{EngineInfo, Image, ImageSink, Missing, OpenImage, Proof, StoreKind};

use super::*;

/// An engine that goes away in the middle of its first loads.
#[derive(Clone)]
struct Shaky {
    sink: MemorySink,
    falls: Arc<AtomicUsize>,
    loads: Arc<AtomicUsize>,
}

impl Shaky {
    fn falling(times: usize) -> Self {
        let sink = MemorySink::new(StoreKind::Graphdriver);
        Self { sink, falls: Arc::new(times.into()), loads: Arc::default() }
    }
}

#[async_trait]
impl ImageSink for Shaky {
    async fn info(&self) -> Result<EngineInfo, LoadError> {
        self.sink.info().await
    }

    async fn missing(&self, image: &Image) -> Result<Missing, LoadError> {
        self.sink.missing(image).await
    }

    async fn load(&self, opened: &OpenImage, missing: &Missing) -> Result<(), LoadError> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let falls =
            self.falls.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if falls.is_err() {
            return self.sink.load(opened, missing).await;
        }
        let first = &opened.image.layers[0].blob.digest;
        let mut first = opened.blobs.open(first, 0).await?;
        while futures::StreamExt::next(&mut first).await.is_some() {}
        let source = "killed".into();
        Err(LoadError::Unavailable { engine: "test".into(), action: "loading", source })
    }

    async fn prove(&self, image: &Image) -> Result<Option<Proof>, LoadError> {
        self.sink.prove(image).await
    }

    async fn tag(&self, proof: &Proof, reference: &Reference) -> Result<(), LoadError> {
        self.sink.tag(proof, reference).await
    }

    async fn discard(&self, image: &Image) -> Result<(), LoadError> {
        self.sink.discard(image).await
    }
}

fn app() -> Reference {
    "app:1".parse().unwrap()
}

fn quiet() -> Arc<dyn Observer> {
    Arc::new(|_: Event| {})
}

/// The size of either layer of the image, which is an archive.
const LAYER: u64 = 2048;

/// Flights into an engine, of a host with one image of two layers.
fn flights(engine: &Shaky) -> Flights {
    let source = MemorySource::default();
    source.insert("app:1", image(1, &[10, 20]));
    Flights::new(Puller::new(Arc::new(source), Arc::new(engine.clone()), 2))
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_goes_away_in_a_load_is_waited_for() {
    let engine = Shaky::falling(2);
    let results = Arc::new(AtomicUsize::new(0));
    let count = results.clone();
    let observer = Arc::new(move |event: Event| {
        count.fetch_add(usize::from(matches!(event.kind, EventKind::Done(_))), Ordering::Relaxed);
    });
    let report = flights(&engine).bring(&app(), observer, || true).await;
    assert_eq!((report.outcome, report.proven, &report.error), (Outcome::Synced, true, &None));
    // Twice the first layer, and then all.
    assert_eq!(
        (report.bytes_moved, engine.loads.load(Ordering::Relaxed)),
        (2 * LAYER + 2 * LAYER, 3)
    );
    assert_eq!(results.load(Ordering::Relaxed), 0, "attempts have no results of their own");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_brings_its_engine_down_each_time_is_given_up() {
    let engine = Shaky::falling(usize::MAX);
    let report = flights(&engine).bring(&app(), quiet(), || true).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(engine.loads.load(Ordering::Relaxed), MAX_LOADS);
}

#[tokio::test(start_paused = true)]
async fn what_only_a_person_can_mend_is_not_tried_again() {
    let begun = Instant::now();
    let engine = Shaky::falling(0);
    let report = flights(&engine).bring(&"absent:1".parse().unwrap(), quiet(), || true).await;
    assert_eq!((report.outcome, begun.elapsed()), (Outcome::Failed, Duration::ZERO));
    engine.sink.fail(transfer::fixture::SinkFault::IsFull);
    let report = flights(&engine).bring(&app(), quiet(), || true).await;
    assert!(report.error.unwrap().contains("no space"));
    assert_eq!(engine.loads.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_report_that_nobody_heard_is_told_to_the_next_who_asks() {
    let flights = flights(&Shaky::falling(0));
    let unheard = flights.bring(&app(), quiet(), || false).await;
    assert_eq!((unheard.outcome, unheard.bytes_moved), (Outcome::Synced, 2 * LAYER));
    let heard = flights.bring(&app(), quiet(), || true).await;
    assert_eq!((heard.outcome, heard.bytes_moved), (Outcome::Synced, 2 * LAYER));
    let again = flights.bring(&app(), quiet(), || true).await;
    assert_eq!(
        (again.outcome, again.bytes_moved, again.bytes_saved),
        (Outcome::Skipped, 0, 2 * LAYER)
    );
}

#[tokio::test(start_paused = true)]
async fn a_report_that_nobody_asked_for_is_forgotten() {
    let flights = flights(&Shaky::falling(0));
    flights.bring(&app(), quiet(), || false).await;
    tokio::time::advance(KEPT_FOR).await;
    assert_eq!(flights.bring(&app(), quiet(), || true).await.outcome, Outcome::Skipped);
}

#[tokio::test(start_paused = true)]
async fn who_comes_second_watches_the_first() {
    let engine = Shaky::falling(1);
    let flights = flights(&engine);
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let observer = Arc::new(move |event: Event| {
        let loads = matches!(event.kind, EventKind::Entered(Stage::Load));
        count.fetch_add(usize::from(loads), Ordering::Relaxed);
    });
    let image = app();
    let (first, second) = tokio::join!(
        flights.bring(&image, quiet(), || true),
        flights.bring(&image, observer, || true)
    );
    assert_eq!((first.outcome, second.outcome), (Outcome::Synced, Outcome::Skipped));
    assert_eq!(engine.loads.load(Ordering::Relaxed), 2);
    assert_ne!(seen.load(Ordering::Relaxed), 0, "the second saw nothing of the first");
}
