//! Images that arrive while a call watches, comes late, or loses sight of the range.

use std::sync::Mutex;

use control::admin::ServedRange;
use control::link::{ImageState, ImageStatus};
use transfer::{Outcome, Stage};

use super::*;
use crate::event::{RangeEvent, RangeEventKind};
use crate::fixture::{Container, End, Script, detached, image, name, range, references};

const PATIENCE: Duration = Duration::from_secs(60);
const ROUND: u64 = 7;

/// The range with its one wanted image in this state.
fn with(state: ImageState, looked: Option<u64>) -> ServedRange {
    let image = ImageStatus { loaded_round: looked, ..image("a:1", state, looked) };
    range(&["a:1"], ROUND, &[image])
}

/// Watches a script; the result, the images' outcomes and how many events there were.
async fn follow(script: &Script) -> (Result<(), RangeError>, Vec<Outcome>, usize) {
    let events = Arc::new(Mutex::new(0));
    let count = events.clone();
    let observer = move |event: RangeEvent| {
        *count.lock().unwrap() += usize::from(matches!(event.kind, RangeEventKind::Image(_)));
    };
    let name = name();
    let mut journey = Journey::begin(name.clone(), Arc::new(observer));
    journey.wanted = references(&["a:1"]);
    let feed = Feed::of(script);
    let mut watch = Watch::of(&feed, &name, PATIENCE);
    let mut container = Container { runs: true };
    let work = arrive(&mut journey, &mut watch, ROUND, &mut container);
    let result = feed.during(work).await;
    let outcomes = journey.images.iter().map(|image| image.outcome).collect();
    let events = *events.lock().unwrap();
    (result, outcomes, events)
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_comes_late_or_twice_finds_the_same() {
    let on_its_way = with(ImageState::OnItsWay(Stage::Load), None);
    let present = with(ImageState::Present, Some(ROUND));
    let script = Script::default()
        .watch(vec![on_its_way, present.clone()], End::Open)
        .watch(vec![present.clone()], End::Open)
        .watch(vec![present], End::Open);
    for events in [2, 1, 1] {
        let (result, outcomes, seen) = follow(&script).await;
        result.unwrap();
        assert_eq!((outcomes, seen), (vec![Outcome::Synced], events));
    }
}

#[tokio::test(start_paused = true)]
async fn watching_survives_a_restart_of_the_host_agent_and_of_the_range() {
    let on_its_way = with(ImageState::OnItsWay(Stage::Load), None);
    let mut unknown = on_its_way.clone();
    unknown.state = None;
    let script = Script::default()
        .watch(vec![on_its_way.clone()], End::Broken)
        .watch(vec![detached(unknown)], End::Broken)
        .watch(
            vec![detached(on_its_way.clone()), on_its_way, with(ImageState::Present, Some(ROUND))],
            End::Open,
        );
    let (result, outcomes, _) = follow(&script).await;
    result.unwrap();
    assert_eq!(outcomes, [Outcome::Synced]);
}

#[tokio::test(start_paused = true)]
async fn a_range_that_stays_away_is_an_error_that_keeps_what_arrived() {
    let away = detached(with(ImageState::OnItsWay(Stage::Load), None));
    let (result, outcomes, _) = follow(&Script::default().watch(vec![away], End::Open)).await;
    assert!(matches!(result, Err(RangeError::Silent { .. })), "{result:?}");
    assert!(outcomes.is_empty());
    let (result, ..) = follow(&Script::default()).await;
    assert!(matches!(result, Err(RangeError::Task { .. })), "the host agent is away: {result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_range_that_is_busy_with_a_layer_is_waited_for() {
    let busy = with(ImageState::OnItsWay(Stage::Load), None);
    let script = Script::default().watch(vec![busy], End::Open);
    let result = tokio::time::timeout(PATIENCE * 20, follow(&script)).await;
    assert!(result.is_err(), "it is attached: {result:?}");
}
