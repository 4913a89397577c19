//! The keeper with an engine and a host in memory: what changes in either is seen and mended.

use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use control::link::{ImageState, ImageStatus};
use control::range::Reach;
use engine::{EngineError, HeldImage, ImageEvents};
use futures::StreamExt as _;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::WatchStream;
use transfer::fixture::{MemorySink, MemorySource, image};
use transfer::{
    Digest, EngineImageId, EngineInfo, Image, ImageKey, ImageSink as _, ImageSource, ImageSummary,
    LayerForm, OpenImage, Outcome, Proof, Sharing, SourceError, StoreKind,
};

use super::truth::WatchedEngine;
use super::*;

/// An engine in memory, as the keeper watches it.
#[derive(Clone)]
struct FakeEngine {
    sink: MemorySink,
    is_down: Arc<AtomicBool>,
    /// Absent where the engine has no events.
    changes: Option<watch::Sender<()>>,
    lists: Arc<AtomicUsize>,
}

impl FakeEngine {
    fn new() -> Self {
        let changes = Some(watch::Sender::new(()));
        let sink = MemorySink::new(Sharing::ByChain);
        Self { sink, is_down: Arc::default(), changes, lists: Arc::default() }
    }

    fn answer<T>(&self, answer: T) -> Result<T, EngineError> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(EngineError::TimedOut { engine: "fake".into(), action: "", seconds: 1 });
        }
        Ok(answer)
    }

    fn changed(&self) {
        if let Some(changes) = &self.changes {
            changes.send_replace(());
        }
    }

    /// Gives a name to an image that nobody brought.
    async fn retag(&self, reference: &Reference) {
        let engine_image_id = EngineImageId(Digest::of(b"another"));
        let proof = Proof { engine_image_id, references: Vec::new() };
        self.sink.tag(&proof, reference).await.unwrap();
        self.changed();
    }
}

#[async_trait]
impl WatchedEngine for FakeEngine {
    fn address(&self) -> &str {
        "fake"
    }

    async fn who(&self) -> Result<EngineInfo, EngineError> {
        self.answer(EngineInfo {
            engine: "memory 1.0".into(),
            store: StoreKind::Graphdriver,
            driver: "memory".into(),
            id: "memory".into(),
        })
    }

    async fn ping(&self) -> Result<(), EngineError> {
        self.answer(())
    }

    async fn images_since(&self, _known: &[HeldImage]) -> Result<Vec<HeldImage>, EngineError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        let held = |(reference, engine_image_id)| HeldImage {
            engine_image_id,
            references: vec![reference],
            config_digest: None,
            proven: true,
        };
        self.answer(self.sink.tags().into_iter().map(held).collect())
    }

    async fn image_events(&self) -> Result<ImageEvents, EngineError> {
        let Some(changes) = &self.changes else {
            return Err(EngineError::Unsupported { engine: "fake".into(), what: "no events" });
        };
        Ok(WatchStream::from_changes(changes.subscribe()).map(Ok).boxed())
    }
}

/// A host and an engine in memory, and the keeper between them.
struct World {
    host: MemorySource,
    engine: FakeEngine,
    keeper: Arc<Keeper>,
    image: Image,
}

fn app() -> Reference {
    "app:1".parse().unwrap()
}

fn set(round: u64) -> WantedSet {
    WantedSet { references: vec![app()], revision: round, round }
}

impl World {
    fn new(engine: FakeEngine) -> Self {
        let host = MemorySource::default();
        let (image, blobs) = image(1, &[10, 20]);
        host.insert("app:1", (image.clone(), blobs));
        let puller = Puller::new(Arc::new(host.clone()), Arc::new(engine.sink.clone()), 2);
        let keeper = Arc::new(Keeper::new(puller, Vec::new()));
        Self { host, engine, keeper, image }
    }

    /// Keeps while `work` goes on.
    async fn keep<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = timeout(Duration::from_secs(3600), work) => done.expect("it waits for ever"),
            () = self.keeper.keep() => unreachable!("it keeps until it is dropped"),
            () = watch_engine(&self.engine, &self.keeper) => unreachable!("it watches for ever"),
        }
    }

    fn status(&self) -> Option<ImageStatus> {
        self.keeper.read().status(&app()).cloned()
    }

    /// Waits until the image is as `is` says; for how long.
    async fn until(&self, is: impl Fn(&ImageStatus) -> bool) -> Duration {
        let began = Instant::now();
        let mut versions = self.keeper.versions();
        while !self.status().is_some_and(|status| is(&status)) {
            versions.changed().await.unwrap();
        }
        began.elapsed()
    }

    async fn until_state(&self, state: ImageState) -> Duration {
        self.until(|status| status.state == state).await
    }

    fn loads(&self) -> usize {
        self.engine.sink.loads().len()
    }
}

/// Limit for "within seconds".
const SECONDS: Duration = Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn a_name_that_is_removed_is_seen_within_seconds_and_brought_back() {
    let world = World::new(FakeEngine::new());
    world
        .keep(async {
            world.keeper.want(set(1));
            world.until(|status| status.is_settled(1)).await;
            assert!(world.status().unwrap().was_loaded(1));
            sleep(Duration::from_secs(5)).await;

            world.engine.sink.prune(&world.image);
            world.engine.changed();
            assert!(world.until_state(ImageState::Gone).await <= SECONDS);
            world.until_state(ImageState::Present).await;
            assert_eq!(world.loads(), 2);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn another_image_under_the_name_is_seen_within_seconds_and_replaced() {
    let world = World::new(FakeEngine::new());
    world
        .keep(async {
            world.keeper.want(set(1));
            world.until(|status| status.is_settled(1)).await;
            let ours = world.engine.sink.tags()[&app()];
            sleep(Duration::from_secs(5)).await;
            world.engine.retag(&app()).await;
            assert!(world.until_state(ImageState::Replaced).await <= SECONDS);
            world.until_state(ImageState::Present).await;
            assert_eq!(world.engine.sink.tags()[&app()], ours);
            assert_eq!(world.loads(), 1, "its layers were there");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_without_events_is_listed_often_instead() {
    let world = World::new(FakeEngine { changes: None, ..FakeEngine::new() });
    world
        .keep(async {
            world.keeper.want(set(1));
            world.until(|status| status.is_settled(1)).await;
            sleep(Duration::from_secs(5)).await;
            world.engine.sink.prune(&world.image);
            assert!(world.until_state(ImageState::Gone).await <= Duration::from_secs(6));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_at_rest_is_listed_seldom() {
    let world = World::new(FakeEngine::new());
    world.keep(sleep(Duration::from_secs(600))).await;
    let lists = world.engine.lists.load(Ordering::Relaxed);
    assert!((20..=22).contains(&lists), "{lists} lists in ten minutes");
    // Nor does a storm of events have it listed all the time.
    world
        .keep(async {
            for _ in 0..1000 {
                world.engine.changed();
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    let lists = world.engine.lists.load(Ordering::Relaxed) - lists;
    assert!((4..=8).contains(&lists), "{lists} lists in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_was_away_is_asked_what_it_still_has() {
    let world = World::new(FakeEngine::new());
    let is_up = || matches!(world.keeper.read().engine(), Reach::Up(_));
    let until_up = async |up: bool| {
        while is_up() != up {
            sleep(Duration::from_millis(100)).await;
        }
    };
    world
        .keep(async {
            world.keeper.want(set(1));
            world.until(|status| status.is_settled(1)).await;
            sleep(Duration::from_secs(5)).await;
            world.engine.is_down.store(true, Ordering::Relaxed);
            until_up(false).await;
            assert!(!world.keeper.read().standing().is_complete());
            // Nothing is looked at while there is nobody to ask.
            world.keeper.want(set(2));
            sleep(Duration::from_secs(60)).await;
            assert!(!world.status().unwrap().is_settled(2));
            world.engine.is_down.store(false, Ordering::Relaxed);
            until_up(true).await;
            world.until(|status| status.is_settled(2)).await;
            assert_eq!(world.loads(), 1);

            // It comes back without its data.
            world.engine.is_down.store(true, Ordering::Relaxed);
            until_up(false).await;
            world.engine.sink.prune(&world.image);
            world.engine.is_down.store(false, Ordering::Relaxed);
            world.until_state(ImageState::Gone).await;
            world.until_state(ImageState::Present).await;
            assert_eq!(world.loads(), 2);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_the_host_lost_stays_present_and_one_it_gets_comes() {
    let world = World::new(FakeEngine::new());
    let late: Reference = "late:1".parse().unwrap();
    world
        .keep(async {
            world.keeper.want(set(1));
            world.until(|status| status.is_settled(1)).await;
            world.host.remove(&world.image);
            let references = vec![app(), late.clone()];
            world.keeper.want(WantedSet { references, revision: 2, round: 2 });
            world.until(|status| status.is_settled(2)).await;
            assert_eq!(world.status().unwrap().state, ImageState::Present);
            sleep(Duration::from_secs(30)).await;
            let failed = world.keeper.read().status(&late).unwrap().state.clone();
            assert!(matches!(failed, ImageState::Failed { is_permanent: true, .. }), "{failed:?}");

            world.host.insert("late:1", image(2, &[30]));
            sleep(Duration::from_secs(60)).await;
            assert_eq!(world.keeper.read().status(&late).unwrap().state, ImageState::Present);
            assert!(world.keeper.read().standing().is_complete());
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn two_rounds_in_quick_succession_load_once_and_are_both_answered() {
    let world = World::new(FakeEngine::new());
    world
        .keep(async {
            world.keeper.want(set(1));
            world.keeper.want(set(2));
            world.until(|status| status.is_settled(2)).await;
            let status = world.status().unwrap();
            assert!(status.is_settled(1) && status.was_loaded(1), "{status:?}");
            assert_eq!(world.loads(), 1);
            world.keeper.want(set(3));
            world.until(|status| status.is_settled(3)).await;
            assert!(!world.status().unwrap().was_loaded(3), "it was there already");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn without_a_word_of_the_host_its_own_images_are_all_that_is_wanted() {
    let mut world = World::new(FakeEngine::new());
    let sink = Arc::new(world.engine.sink.clone());
    let puller = Puller::new(Arc::new(world.host.clone()), sink, 2);
    world.keeper = Arc::new(Keeper::new(puller, vec![app()]));
    world
        .keep(async {
            assert!(!world.keeper.is_settled());
            let waited = world.until_state(ImageState::Present).await;
            assert!(FIRST_WORD <= waited, "{waited:?}");
            assert!(world.keeper.is_settled() && world.keeper.read().standing().is_complete());
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_looks_that_somebody_waits_for_and_begins_no_other() {
    let world = World::new(FakeEngine::new());
    let (answer, answered) = oneshot::channel();
    let place = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
    world.keeper.ask(&app(), Ask { answer, _place: Arc::new(place) });
    world.keep(world.keeper.finish()).await;
    assert_eq!(answered.await.unwrap().outcome, Outcome::Synced);
    world.keeper.want(WantedSet { references: vec!["b:1".parse().unwrap()], ..set(1) });
    world.keep(sleep(Duration::from_secs(60))).await;
    assert_eq!(world.keeper.read().standing().coming, 1);
}

/// A source with a mistake in it; counts how often it was met.
#[derive(Default)]
struct Panics(AtomicUsize);

#[async_trait]
impl ImageSource for Panics {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        unreachable!("nobody lists")
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("a mistake met with {reference}")
    }

    async fn open(&self, _: &ImageKey, _: LayerForm) -> Result<OpenImage, SourceError> {
        unreachable!("nothing is resolved")
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_whose_task_panicked_has_failed_and_is_tried_again() {
    let source = Arc::new(Panics::default());
    let mut world = World::new(FakeEngine::new());
    let sink = Arc::new(world.engine.sink.clone());
    world.keeper = Arc::new(Keeper::new(Puller::new(source.clone(), sink, 1), Vec::new()));
    world.keeper.want(set(1));
    world.keep(sleep(Duration::from_secs(600))).await;
    let met = source.0.load(Ordering::Relaxed);
    assert!(10 < met, "tried {met} times");
    let state = world.status().unwrap().state;
    assert!(matches!(state, ImageState::Failed { is_permanent: true, .. }), "{state:?}");
    assert!(world.keeper.read().last().and_then(|last| last.error).is_some());
}
