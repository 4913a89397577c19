//! The link between a range and its host over a pipe.

use std::sync::Arc;

use control::lending::AllImages;
use control::link::{
    FromRange, ImageState, ImageStatus, LinkError, LinkRange as _, MAX_REPORTED, RangeReport,
    RangeState, Task, TaskEvent, ToRange, UnfitReport, WantedBy,
};
use control::range::{ImageCheck, ImagePlan, VerifySummary};
use control::{Caller, WantedSet};
use futures::StreamExt as _;
use futures::stream;
use proto::LinkClient;
use transfer::Reference;
use transfer::fixture::MemorySource;

use crate::pipe::{LARGE, NARROW, Served, agent, busy_range, library, range, services, wanted};

async fn host(caller: Caller, pipe: usize) -> Served {
    let library = library(Arc::new(MemorySource::default()), Arc::new(AllImages));
    Served::new(services(caller, library).await, pipe)
}

fn report(is_whole: bool, images: Vec<ImageStatus>) -> RangeReport {
    RangeReport { is_whole, agent: agent(), images, removed: Vec::new() }
}

#[tokio::test]
async fn both_ends_get_what_the_other_sends() {
    let served = host(range("a"), NARROW).await;
    let state = busy_range(1).state.unwrap();
    let images: Vec<Reference> = state.images.keys().cloned().collect();
    let reference = &wanted()[0];
    let task = |event| FromRange::Task { id: 7, event };
    let check =
        ImageCheck { reference: Some(reference.clone()), proven: true, ..ImageCheck::default() };
    let refused = TaskEvent::Refused { is_busy: true, error: "too much".into() };
    let said = [
        FromRange::Report(state.reports().remove(0)),
        FromRange::Report(report(false, Vec::new())),
        task(TaskEvent::Planned(vec![ImagePlan::failed(reference.clone(), "no".into())])),
        task(TaskEvent::Verified(check)),
        task(TaskEvent::Finished(VerifySummary::default())),
        task(refused),
    ];
    let client = LinkClient::new(served.endpoint());
    let told = client.attach(stream::iter(said).chain(stream::pending()).boxed()).await.unwrap();
    let told: Vec<_> = told.collect().await;
    let references = vec![reference.clone()];
    let [Ok(first), Ok(second), Ok(plan), Ok(verify), Ok(cancel), Err(end)] = told.as_slice()
    else {
        panic!("{told:?}")
    };
    let set =
        |references, revision, round| ToRange::Wanted(WantedSet { references, revision, round });
    assert_eq!(*first, set(images, 0, 1));
    assert_eq!(*second, set(vec![], 1, 0));
    let (planning, verifying) =
        (Task::Plan { references: references.clone() }, Task::Verify { references, deep: true });
    assert_eq!(*plan, ToRange::Task { id: 7, task: planning });
    assert_eq!(*verify, ToRange::Task { id: 7, task: verifying });
    assert_eq!(*cancel, ToRange::Cancel { id: 7 });
    assert!(matches!(end, LinkError::Refused(_)), "{end:?}");
    assert!(transfer::explain(end).contains("another link of range a"), "{end:?}");
}

#[tokio::test]
async fn nobody_but_a_range_attaches() {
    for caller in [Caller::Admin, Caller::Inspector, range("gone")] {
        let served = host(caller.clone(), LARGE).await;
        let client = LinkClient::new(served.endpoint());
        let refused = client.attach(stream::pending().boxed()).await.map(drop).unwrap_err();
        assert!(matches!(refused, LinkError::Refused(_)), "{caller}: {refused:?}");
    }
}

/// Returns the host's message after a range reports `images` in one report.
async fn reported(images: Vec<ImageStatus>) -> Result<ToRange, LinkError> {
    let served = host(range("a"), LARGE).await;
    let said = stream::iter([FromRange::Report(report(true, images))]).chain(stream::pending());
    let mut told = LinkClient::new(served.endpoint()).attach(said.boxed()).await.unwrap();
    told.next().await.unwrap()
}

#[tokio::test]
async fn a_report_has_so_many_images_and_no_more() {
    let image = |n: usize| {
        let failed = ImageState::Failed { error: "x".repeat(10_000), is_permanent: false };
        let reference = format!("{}:{n}", "a/".repeat(100) + "app").parse().unwrap();
        ImageStatus { state: failed, ..ImageStatus::pending(reference, WantedBy::Host) }
    };
    let told = reported((0..MAX_REPORTED).map(image).collect()).await.unwrap();
    assert!(matches!(told, ToRange::Wanted(set) if set.references.len() == MAX_REPORTED));
    let error = reported((0..=MAX_REPORTED).map(image).collect()).await.unwrap_err();
    assert!(transfer::explain(&error).contains("too many entries"), "{error:?}");
}

#[test]
fn reports_put_together_are_the_state() {
    let image = |n: usize| {
        let reference: Reference = format!("app:{n}").parse().unwrap();
        ImageStatus::pending(reference, WantedBy::Nobody)
    };
    for count in [0, 1, MAX_REPORTED, MAX_REPORTED + 1, 3000] {
        let images = (0..count).map(|n| (image(n).reference, image(n))).collect();
        let expected = RangeState { agent: agent(), images };
        let mut state = Some(busy_range(1).state.unwrap());
        for report in expected.reports() {
            assert!(report.images.len() <= MAX_REPORTED);
            RangeState::take(&mut state, report).unwrap();
        }
        assert_eq!(state, Some(expected), "{count} images");
    }
    let mut state = None;
    let error = RangeState::take(&mut state, report(false, vec![])).unwrap_err();
    assert_eq!(error, UnfitReport::NotWhole);
    let flood =
        (0..20).map(|part| report(part == 0, (0..200).map(|n| image(part * 200 + n)).collect()));
    let taken = flood.map(|report| RangeState::take(&mut state, report));
    assert!(taken.into_iter().any(|taken| taken == Err(UnfitReport::TooManyImages)));
}
