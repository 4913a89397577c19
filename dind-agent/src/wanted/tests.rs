//! Which images are looked at when, without an engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use transfer::fixture::MemorySink;
use transfer::{ImageKey, ImageSource, ImageSummary, LayerForm, OpenImage, SourceError, StoreKind};

use super::*;

fn images(names: &[&str]) -> BTreeSet<Reference> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn report(name: &str, outcome: Outcome) -> ImageReport {
    ImageReport {
        reference: name.parse().unwrap(),
        config_digest: None,
        engine_image_id: None,
        outcome,
        proven: outcome != Outcome::Failed,
        bytes_moved: 0,
        bytes_saved: 0,
        stages: Vec::new(),
        error: None,
    }
}

/// What is due now, by name.
fn due(round: &mut Round) -> Vec<String> {
    round.next().iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn every_wanted_image_is_looked_at_once_for_each_reason() {
    let mut round = Round::default();
    assert!(round.is_complete(), "nothing is wanted");
    round.wants(images(&["a:1", "b:1"]));
    assert_eq!(due(&mut round), ["a:1", "b:1"]);
    assert_eq!(due(&mut round), [""; 0]);
    round.done(&report("a:1", Outcome::Synced));
    assert!(!round.is_complete());
    // The engine came back while b was on its way: that is not started twice at once.
    round.wants(images(&["a:1", "b:1"]));
    assert_eq!(due(&mut round), ["a:1"]);
    round.done(&report("a:1", Outcome::Skipped));
    round.done(&report("b:1", Outcome::Synced));
    assert_eq!(due(&mut round), ["b:1"]);
    round.done(&report("b:1", Outcome::Skipped));
    assert!(round.is_complete() && !round.has_failed());
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again_after_longer_and_longer_pauses() {
    let mut round = Round::default();
    round.wants(images(&["a:1"]));
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(due(&mut round), ["a:1"]);
        let failed = Instant::now();
        round.done(&report("a:1", Outcome::Failed));
        assert!(round.has_failed());
        assert_eq!(round.again_at - failed, Duration::from_secs(pause));
        sleep_until(round.again_at).await;
        round.again();
    }
    round.wants(images(&["a:1"]));
    assert_eq!(due(&mut round), ["a:1"], "a reason is a reason");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_wanted_any_more_is_not_asked_for_again() {
    let mut round = Round::default();
    round.wants(images(&["a:1", "b:1"]));
    assert_eq!(due(&mut round).len(), 2);
    round.wants(images(&["b:1"]));
    assert_eq!(due(&mut round), [""; 0]);
    round.done(&report("a:1", Outcome::Failed));
    assert!(!round.has_failed());
    round.done(&report("b:1", Outcome::Skipped));
    assert_eq!(due(&mut round), ["b:1"]);
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
    let sink = Arc::new(MemorySink::new(StoreKind::Containerd));
    let syncs = Syncs::new(source.clone(), sink, 1);
    let keeper = Keeper::new(vec!["a:1".parse().unwrap()]);
    let reasons = watch::Sender::new(Reasons { set: Some(Vec::new()), returns: 0 });
    let follow = keeper.follow(reasons.subscribe(), &syncs);
    timeout(10 * LONGEST_PAUSE, follow).await.expect_err("it ended");
    let met = source.0.load(Ordering::Relaxed);
    assert!(10 < met, "tried {met} times");
    assert!(!keeper.standing().complete);
    assert!(syncs.last().and_then(|last| last.error).is_some());

    syncs.finish().await;
    assert_eq!(syncs.bring_in("a:1".parse().unwrap()).await, None, "the agent is ending");
}
