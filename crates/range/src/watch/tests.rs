//! Watches that begin late, break and begin again.

use control::admin::RangeChange;

use super::*;
use crate::fixture::{Container, End, Script, detached, engine, name, range};

const PATIENCE: Duration = Duration::from_secs(60);

async fn ready(script: &Script, limit: Duration) -> Result<EngineInfo, RangeError> {
    let (feed, name) = (Feed::of(script), name());
    feed.during(Watch::of(&feed, &name, PATIENCE).ready(limit, &mut Container { runs: true })).await
}

#[tokio::test(start_paused = true)]
async fn a_range_is_ready_once_its_engine_answers() {
    let whole = range(&[], 1, &[]);
    let mut starting = whole.clone();
    starting.state.as_mut().unwrap().agent.engine = Reach::Down("no such socket".to_owned());
    let mut new = whole.clone();
    (new.attachment, new.state) = (Attachment::Never, None);
    let states = vec![new, starting.clone(), detached(whole.clone()), whole];
    let script = Script::default().watch(states, End::Open);
    assert_eq!(ready(&script, PATIENCE).await.unwrap(), engine());

    let script = Script::default().watch(vec![starting], End::Open);
    match ready(&script, PATIENCE).await {
        Err(RangeError::NotReady { seconds: 60, reason, .. }) => {
            assert_eq!(reason, "no such socket");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ended_ends_the_wait_at_once() {
    let script = Script::default().watch(Vec::new(), End::Open);
    let (feed, name) = (Feed::of(&script), name());
    let begun = Instant::now();
    let mut ended = Container { runs: false };
    let mut watch = Watch::of(&feed, &name, PATIENCE);
    let found = feed.during(watch.ready(PATIENCE, &mut ended)).await;
    assert!(matches!(found, Err(RangeError::Stopped { .. })), "{found:?}");
    assert!(begun.elapsed() <= LOOK);
}

#[tokio::test(start_paused = true)]
async fn a_host_agent_that_comes_back_is_watched_again_and_one_that_does_not_is_an_error() {
    let mut starting = range(&[], 1, &[]);
    starting.state.as_mut().unwrap().agent.engine = Reach::Unknown;
    let script = Script::default()
        .watch(vec![starting], End::Broken)
        .watch(Vec::new(), End::Broken)
        .watch(vec![range(&[], 1, &[])], End::Open);
    ready(&script, PATIENCE * 2).await.unwrap();
    assert_eq!(script.left(), 0);

    let begun = Instant::now();
    let away = ready(&script, PATIENCE * 2).await;
    assert!(matches!(away, Err(RangeError::Task { .. })), "{away:?}");
    assert!(PATIENCE <= begun.elapsed() && begun.elapsed() < PATIENCE + LOOK * 2);
}

#[tokio::test(start_paused = true)]
async fn a_range_that_was_removed_is_gone() {
    let removed = RangeChange::Removed(name());
    let mut starting = range(&[], 1, &[]);
    starting.state = None;
    let there = RangeChange::Now(Box::new(starting));
    let script = Script::default().changes(vec![removed.clone(), there, removed], End::Open);
    let gone = ready(&script, PATIENCE).await;
    assert!(matches!(gone, Err(RangeError::Gone { .. })), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_about_to_end_does_not_count() {
    let (old, mut new) = (range(&[], 1, &[]), range(&[], 1, &[]));
    let since = SystemTime::now() + PATIENCE;
    new.attachment = Attachment::Attached { since, last_seen: since };
    let states = vec![old.clone(), detached(old), new];
    let script = Script::default().watch(states, End::Open);
    let (feed, name) = (Feed::of(&script), name());
    feed.during(async {
        let mut watch = Watch::of(&feed, &name, PATIENCE);
        watch.look().await.unwrap();
        assert!(watch.is_attached());
        watch.expect_another();
        assert!(!watch.is_attached());
        watch.ready(PATIENCE, &mut Container { runs: true }).await.unwrap();
        assert_eq!(watch.attached_since(), Some(since));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_frozen_agent_that_is_still_attached_does_not_count() {
    let frozen = range(&["a:1"], 1, &[]);
    let mut alive = frozen.clone();
    let now = SystemTime::now() + PATIENCE;
    alive.attachment = Attachment::Attached { since: now, last_seen: now };
    let asked = frozen.attachment;
    let answer = async |states: Vec<ServedRange>| {
        let script = Script::default().watch(states, End::Open);
        let (feed, name) = (Feed::of(&script), name());
        let mut watch = Watch::of(&feed, &name, PATIENCE * 2);
        watch.expect_answer(asked);
        feed.during(watch.ready(PATIENCE, &mut Container { runs: true })).await
    };
    let found = answer(vec![frozen.clone()]).await;
    assert!(matches!(found, Err(RangeError::NotReady { .. })), "{found:?}");
    answer(vec![frozen, alive]).await.unwrap();
}
