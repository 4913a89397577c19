//! Syncs over a table that the tests' engine fills.

use std::time::Duration;
use tokio::time::sleep;

use transfer::fixture::{MemorySink, MemorySource, image};
use transfer::pull::Puller;
use transfer::{Outcome, Sharing};

use super::*;

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

struct World {
    sink: MemorySink,
    keeper: Arc<Keeper>,
    syncs: Syncs,
}

/// A host with `app:1`, and an empty engine.
fn world() -> World {
    let source = MemorySource::default();
    source.insert("app:1", image(1, &[10, 20]));
    let sink = MemorySink::new(Sharing::ByBlob);
    let puller = Puller::new(Arc::new(source), Arc::new(sink.clone()), 2);
    let keeper = Arc::new(Keeper::new(puller, Vec::new()));
    let syncs = Syncs::new(keeper.clone());
    World { sink, keeper, syncs }
}

impl World {
    async fn keep<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            () = self.keeper.keep() => unreachable!("it keeps until it is dropped"),
        }
    }
}

fn reports(events: &[SyncEvent]) -> Vec<&ImageReport> {
    let report = |event| match event {
        &SyncEvent::Image(Event { kind: EventKind::Done(ref report), .. }) => Some(report),
        _ => None,
    };
    events.iter().filter_map(report).collect()
}

#[tokio::test(start_paused = true)]
async fn each_image_has_one_result_and_the_summary_is_last() {
    let world = world();
    let images = ["absent:1", "app:1", "app:1"].map(name).to_vec();
    let events: Vec<_> = world.keep(world.syncs.begin(images).unwrap().collect()).await;
    let mut outcomes: Vec<_> = reports(&events)
        .iter()
        .map(|report| (report.reference.to_string(), report.outcome))
        .collect();
    outcomes.sort_by(|(left, _), (right, _)| left.cmp(right));
    let expected = [("absent:1".into(), Outcome::Failed), ("app:1".into(), Outcome::Synced)];
    assert_eq!(outcomes, expected);
    let Some(SyncEvent::Finished(summary)) = events.last() else { panic!("{events:?}") };
    assert_eq!((summary.synced, summary.failed), (1, 1));
    let stages = events.iter().filter(|event| {
        matches!(event, SyncEvent::Image(Event { kind: EventKind::Entered(_), .. }))
    });
    assert_ne!(stages.count(), 0, "nothing was seen of the way: {events:?}");
}

#[tokio::test(start_paused = true)]
async fn syncs_at_once_are_answered_by_one_look() {
    let world = world();
    let begin = || world.syncs.begin(vec![name("app:1")]).unwrap().collect::<Vec<_>>();
    let (first, second) = (begin(), begin());
    let (first, second) = world.keep(async { tokio::join!(first, second) }).await;
    assert_eq!(reports(&first), reports(&second));
    assert_eq!(world.sink.loads().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_away_cancels_nothing() {
    let world = world();
    drop(world.syncs.begin(vec![name("app:1")]).unwrap());
    assert_eq!(world.syncs.under_way(), 1);
    world.keep(sleep(Duration::from_secs(1))).await;
    assert!(world.sink.tags().contains_key(&name("app:1")));
    assert_eq!(world.syncs.under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn too_many_syncs_are_refused_until_some_have_ended() {
    let world = world();
    let begin = || world.syncs.begin(vec![name("absent:1")]);
    let under_way: Vec<_> = (0..MAX_SYNCS).map(|_| begin().unwrap()).collect();
    assert_eq!(world.syncs.under_way(), MAX_SYNCS);
    assert!(matches!(begin(), Err(ControlError::Busy { limit: MAX_SYNCS })));
    for events in under_way {
        world.keep(events.collect::<Vec<_>>()).await;
    }
    assert!(begin().is_ok());
    world.syncs.close();
    assert!(begin().is_err());
}
