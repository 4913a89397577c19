//! Reported states, and the events and results that they become.

use control::link::ImageState;
use transfer::Stage;

use super::*;
use crate::fixture::{failed, image, range, references};

const ROUND: u64 = 7;

fn outcomes(arrivals: Arrivals<'_>) -> Vec<(String, Outcome)> {
    let results = arrivals.results().into_iter();
    results.map(|report| (report.reference.to_string(), report.outcome)).collect()
}

#[test]
fn an_image_is_loaded_now_or_was_there_or_failed() {
    let wanted = references(&["new:1", "old:1", "bad:1"]);
    let mut arrivals = Arrivals::of(&wanted, ROUND);
    let loaded = |reference, round| ImageStatus {
        loaded_round: Some(round),
        bytes_moved: 10,
        bytes_saved: 5,
        ..image(reference, ImageState::Present, Some(ROUND))
    };
    let images = [
        loaded("new:1", ROUND),
        loaded("old:1", ROUND - 1),
        image("bad:1", failed("not on the host"), Some(ROUND)),
    ];
    arrivals.take(&range(&["new:1", "old:1", "bad:1"], ROUND, &images));
    assert!(arrivals.is_complete());
    let results = arrivals.results();
    let found: Vec<_> = results
        .iter()
        .map(|image| (image.outcome, image.proven, image.bytes_moved, image.bytes_saved))
        .collect();
    assert_eq!(
        found,
        [
            (Outcome::Synced, true, 10, 5),
            (Outcome::Skipped, true, 0, 15),
            (Outcome::Failed, false, 0, 0),
        ]
    );
    assert_eq!(results[2].error.as_deref(), Some("not on the host"));
}

#[test]
fn a_state_of_an_earlier_round_is_no_result() {
    let wanted = references(&["a:1"]);
    let check = |image: ImageStatus, complete: bool| {
        let mut arrivals = Arrivals::of(&wanted, ROUND);
        arrivals.take(&range(&["a:1"], ROUND, std::slice::from_ref(&image)));
        assert_eq!(arrivals.is_complete(), complete, "{image:?}");
    };
    check(image("a:1", ImageState::Present, None), false);
    check(image("a:1", ImageState::Present, Some(ROUND - 1)), false);
    check(image("a:1", failed("x"), Some(ROUND - 1)), false);
    check(image("a:1", ImageState::Gone, Some(ROUND)), false);
    check(image("a:1", ImageState::Replaced, Some(ROUND)), false);
    check(image("a:1", ImageState::Pending, Some(ROUND)), false);
    check(image("a:1", ImageState::Present, Some(ROUND)), true);
    check(image("a:1", ImageState::Present, Some(ROUND + 1)), true);
}

#[test]
fn each_step_of_an_image_is_an_event_once() {
    let wanted = references(&["a:1"]);
    let mut arrivals = Arrivals::of(&wanted, ROUND);
    let mut take = |image: ImageStatus| -> Vec<String> {
        let events = arrivals.take(&range(&["a:1"], ROUND, &[image]));
        let word = |event: Event| match event.kind {
            EventKind::Entered(stage) => format!("{stage:?}"),
            EventKind::Planned { bytes_to_move, .. } => format!("plan {bytes_to_move}"),
            EventKind::Moved { bytes_moved } => format!("moved {bytes_moved}"),
            EventKind::Done(report) => format!("{:?}", report.outcome),
        };
        events.into_iter().map(word).collect()
    };
    let state = |stage| image("a:1", ImageState::OnItsWay(stage), None);
    let loading = ImageStatus { bytes_to_move: 9, ..state(Stage::Load) };
    let moved = ImageStatus { bytes_moved: 4, ..loading.clone() };
    assert_eq!(take(image("a:1", ImageState::Pending, None)), [""; 0]);
    assert_eq!(take(state(Stage::Resolve)), ["Resolve"]);
    assert_eq!(take(state(Stage::Resolve)), [""; 0]);
    assert_eq!(take(loading), ["Load", "plan 9"]);
    assert_eq!(take(moved), ["moved 4"]);
    let present = image("a:1", ImageState::Present, Some(ROUND));
    let present = ImageStatus { loaded_round: Some(ROUND), ..present };
    assert_eq!(take(present.clone()), ["Synced"]);
    assert_eq!(take(present), [""; 0], "a result is the last event");
}

#[test]
fn an_image_that_another_call_took_out_fails_with_that_reason() {
    let wanted = references(&["a:1", "b:1"]);
    let mut arrivals = Arrivals::of(&wanted, ROUND);
    let present = image("b:1", ImageState::Present, Some(ROUND + 1));
    // In this caller's round it may still be on its way to the host agent's reports.
    arrivals.take(&range(&["b:1"], ROUND, &[]));
    assert!(arrivals.done.is_empty());
    arrivals.take(&range(&["b:1"], ROUND + 1, &[present]));
    let error = arrivals.done[&wanted[0]].error.clone().unwrap();
    assert!(error.contains("not wanted any more"), "{error}");
    let expected = [("a:1", Outcome::Failed), ("b:1", Outcome::Skipped)];
    assert_eq!(outcomes(arrivals), expected.map(|(name, outcome)| (name.to_owned(), outcome)));
}

#[test]
fn results_are_in_the_order_asked_and_each_image_has_one() {
    let wanted = references(&["b:1", "a:1", "b:1"]);
    let mut arrivals = Arrivals::of(&wanted, ROUND);
    let present = |name| image(name, ImageState::Present, Some(ROUND));
    arrivals.take(&range(&["b:1", "a:1"], ROUND, &[present("a:1"), present("b:1")]));
    let names: Vec<_> = outcomes(arrivals).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["b:1", "a:1"]);
}
