//! The load plan, without images: what is told to whom.

use futures::FutureExt as _;

use super::*;

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// An image that lacks a stack of layers, given from the base on, of some size.
fn needs(image: &str, layers: &[&str], bytes: u64) -> Needs {
    let mut stack = String::new();
    let layers = layers.iter().map(|layer| {
        stack = format!("{stack}/{layer}");
        NeededLayer { key: digest(&stack), stack: digest(&stack) }
    });
    Needs { layers: layers.collect(), image: vec![digest(image)], bytes }
}

/// What came of waiting, in a word.
fn word(turn: &Grant<'_>) -> String {
    match turn {
        Grant::Whole(_) => "whole".into(),
        Grant::Base(_, count) => format!("base {count}"),
        Grant::Again(_) => "again".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_shared_goes_in_first_and_then_all_at_once() {
    let schedule = Schedule::new(4);
    let images = [
        ("small", needs("small", &["base", "s"], 10)),
        ("large", needs("large", &["base", "l"], 90)),
        ("alone", needs("alone", &["other"], 50)),
    ];
    let slots: Vec<_> = images.iter().map(|_| schedule.look()).collect();
    let mut turns: Vec<_> = slots
        .into_iter()
        .zip(&images)
        .map(|(slot, (_, needs))| Box::pin(slot.turn(needs.clone())))
        .collect();
    // Those who share nothing begin with the base.
    assert!(turns[0].as_mut().now_or_never().is_none());
    let large = turns[1].as_mut().now_or_never();
    assert!(large.is_none(), "nobody begins while others look");
    let alone = turns[2].as_mut().now_or_never().unwrap();
    assert_eq!(word(&alone), "whole");
    let base = turns[1].as_mut().now_or_never().unwrap();
    assert_eq!(word(&base), "base 1");
    assert!(turns[0].as_mut().now_or_never().is_none());

    let Grant::Base(slot, _) = base else { unreachable!() };
    let large = slot.look_again();
    let again = turns[0].as_mut().now_or_never().unwrap();
    assert_eq!(word(&again), "again");
    let Grant::Again(small) = again else { unreachable!() };
    let large = large.turn(needs("large", &["l"], 80));
    let small = small.turn(needs("small", &["s"], 5));
    let (large, small) = tokio::join!(large, small);
    assert_eq!((word(&large), word(&small)), ("whole".into(), "whole".into()));
    drop((large, small, alone));
    assert!(schedule.is_idle());
}

#[tokio::test(start_paused = true)]
async fn the_largest_begins_and_no_more_than_the_limit() {
    let schedule = Schedule::new(1);
    let slots = [schedule.look(), schedule.look()];
    let [first, second] = slots;
    let mut small = Box::pin(first.turn(needs("small", &["a"], 1)));
    assert!(small.as_mut().now_or_never().is_none());
    let mut large = Box::pin(second.turn(needs("large", &["b"], 2)));
    let large = large.as_mut().now_or_never().unwrap();
    assert_eq!(word(&large), "whole");
    assert!(small.as_mut().now_or_never().is_none());
    drop(large);
    assert_eq!(word(&small.await), "whole");
}

#[tokio::test(start_paused = true)]
async fn one_that_lacks_just_what_is_shared_brings_it_in() {
    let schedule = Schedule::new(2);
    let [child, parent] = [schedule.look(), schedule.look()];
    let mut child = Box::pin(child.turn(needs("child", &["base", "c"], 9)));
    assert!(child.as_mut().now_or_never().is_none());
    let parent = parent.turn(needs("parent", &["base"], 5)).await;
    assert_eq!(word(&parent), "whole");
    assert!(child.as_mut().now_or_never().is_none());
    drop(parent);
    assert_eq!(word(&child.await), "again");
}

#[tokio::test(start_paused = true)]
async fn one_image_under_two_names_is_brought_in_once() {
    let schedule = Schedule::new(2);
    let [first, second] = [schedule.look(), schedule.look()];
    let mut first = Box::pin(first.turn(needs("same", &["a"], 1)));
    assert!(first.as_mut().now_or_never().is_none());
    let mut second = Box::pin(second.turn(needs("same", &["a"], 1)));
    assert!(second.as_mut().now_or_never().is_none());
    let first = first.as_mut().now_or_never().unwrap();
    assert_eq!(word(&first), "whole");
    drop(first);
    assert_eq!(word(&second.await), "again");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_takes_long_to_tell_is_not_waited_for() {
    let schedule = Schedule::new(2);
    let slow = schedule.look();
    let begun = Instant::now();
    let turn = schedule.look().turn(needs("quick", &["a"], 1)).await;
    assert_eq!((word(&turn), begun.elapsed()), ("whole".into(), GRACE));
    drop(slow);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_leaves_nothing_behind() {
    let schedule = Schedule::new(1);
    let held = schedule.look().turn(needs("held", &["a"], 1)).await;
    let mut waiting = Box::pin(schedule.look().turn(needs("waiting", &["a"], 1)));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(waiting);
    // One who was told to go on, and did not hear it.
    let mut told = Box::pin(schedule.look().turn(needs("told", &["a"], 1)));
    assert!(told.as_mut().now_or_never().is_none());
    drop(held);
    drop(told);
    assert!(schedule.is_idle());
    let next = schedule.look().turn(needs("next", &["a"], 1)).await;
    assert_eq!(word(&next), "whole");
}

/// What two that share a base are told, the first of them first; the first is done before the second.
async fn told(schedule: &Schedule) -> [String; 2] {
    let [first, second] = [schedule.look(), schedule.look()];
    let mut first = Box::pin(first.turn(needs("first", &["base", "a"], 2)));
    assert!(first.as_mut().now_or_never().is_none());
    let mut second = Box::pin(second.turn(needs("second", &["base", "b"], 1)));
    assert!(second.as_mut().now_or_never().is_none());
    let first = first.as_mut().now_or_never().unwrap();
    let word_of_first = word(&first);
    drop(first);
    [word_of_first, word(&second.await)]
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_took_no_base_gets_whole_images_and_is_tried_again_later() {
    let schedule = Schedule::new(2);
    assert_eq!(told(&schedule).await, ["base 1", "again"]);
    // Each refusal counts anew.
    for _ in 0..2 {
        schedule.only_whole();
        assert_eq!(told(&schedule).await, ["whole", "again"]);
        tokio::time::advance(WHOLE_FOR - GRACE * 2).await;
        assert_eq!(told(&schedule).await, ["whole", "again"]);
        tokio::time::advance(GRACE * 2).await;
        assert_eq!(told(&schedule).await, ["base 1", "again"]);
    }
    assert!(schedule.is_idle());
}
