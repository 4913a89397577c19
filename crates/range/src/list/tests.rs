//! A range's status, from what its agent reported.

use control::link::ImageState;
use transfer::{Digest, EngineImageId};

use super::*;
use crate::fixture::{detached, engine, failed, image, name, range};

fn reported(served: &ServedRange) -> RangeStatus {
    let mut status = RangeStatus {
        range: name(),
        state: RangeState::Unmade,
        reason: None,
        range_image: None,
        labels: Labels::default(),
        engine: None,
        step: None,
        images: Vec::new(),
    };
    report(&mut status, served);
    status
}

#[test]
fn a_range_is_ready_with_the_images_that_its_engine_has() {
    let id = Some(EngineImageId(Digest::of(b"image")));
    let present = image("a:1", ImageState::Present, Some(1));
    let present = ImageStatus { engine_image_id: id, ..present };
    let missing = image("b:1", failed("not on the host"), Some(1));
    let status = reported(&range(&["a:1", "b:1"], 1, &[present.clone(), missing]));
    assert_eq!((status.state, status.engine), (RangeState::Ready, Some(engine())));
    let names: Vec<_> = status.images.iter().map(|image| image.reference.clone()).collect();
    assert_eq!(names, [Some("a:1".parse().unwrap())]);
    let step = status.step.unwrap();
    assert_eq!((step.wanted, step.in_step, step.engine_restarts), (2, false, 2));
    assert_eq!(step.last_error.as_deref(), Some("not on the host"));
    let whole = reported(&range(&["a:1"], 1, &[present])).step.unwrap();
    assert_eq!((whole.in_step, whole.last_error), (true, None));
}

#[test]
fn a_range_whose_agent_is_away_is_unreachable_whatever_it_reported_before() {
    let served = detached(range(&["a:1"], 1, &[image("a:1", ImageState::Present, Some(1))]));
    let status = reported(&served);
    assert_eq!((status.state, status.engine, status.step), (RangeState::Unreachable, None, None));
    assert!(status.images.is_empty());
    assert!(status.reason.unwrap().contains("last seen"));
}
