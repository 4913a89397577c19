//! Images that take more than one attempt.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use transfer::fixture::{MemorySink, MemorySource, image};
use transfer::{Image, ImageSink, Intake, Missing, OpenImage, Proof, Sharing};

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
        let sink = MemorySink::new(Sharing::ByChain);
        Self { sink, falls: Arc::new(times.into()), loads: Arc::default() }
    }
}

#[async_trait]
impl ImageSink for Shaky {
    async fn intake(&self) -> Result<Intake, LoadError> {
        self.sink.intake().await
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

/// Brings an image into an engine, from a host with one image of two layers.
async fn bring_from_host(
    engine: &Shaky,
    reference: &Reference,
    observer: Arc<dyn Observer>,
) -> Brought {
    let source = MemorySource::default();
    source.insert("app:1", image(1, &[10, 20]));
    let puller = Puller::new(Arc::new(source), Arc::new(engine.clone()), 2);
    bring(&puller, reference, observer).await
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_goes_away_in_a_load_is_waited_for() {
    let engine = Shaky::falling(2);
    let results = Arc::new(AtomicUsize::new(0));
    let count = results.clone();
    let observer: Arc<dyn Observer> = Arc::new(move |event: Event| {
        count.fetch_add(usize::from(matches!(event.kind, EventKind::Done(_))), Ordering::Relaxed);
    });
    let brought = bring_from_host(&engine, &app(), observer).await;
    assert_eq!(brought.fault, None);
    let report = brought.report;
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
    let Brought { report, fault } = bring_from_host(&engine, &app(), quiet()).await;
    assert_eq!((report.outcome, fault), (Outcome::Failed, Some(Fault::Away)));
    assert_eq!(engine.loads.load(Ordering::Relaxed), MAX_LOADS);
}

#[tokio::test(start_paused = true)]
async fn what_only_a_person_can_mend_is_not_tried_again() {
    let begun = Instant::now();
    let engine = Shaky::falling(0);
    let absent = bring_from_host(&engine, &"absent:1".parse().unwrap(), quiet()).await;
    assert_eq!((absent.report.outcome, begun.elapsed()), (Outcome::Failed, Duration::ZERO));
    assert_eq!(absent.fault, Some(Fault::NotOnHost));
    engine.sink.fail(transfer::fixture::SinkFault::IsFull);
    let full = bring_from_host(&engine, &app(), quiet()).await;
    assert_eq!(full.fault, Some(Fault::Lasting));
    assert!(full.report.error.unwrap().contains("no space"));
    assert_eq!(engine.loads.load(Ordering::Relaxed), 1);
}
