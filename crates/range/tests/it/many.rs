//! Many ranges from one command: in waves, fairly, and only where there is room.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use range::{Provision, RangeError, RangeEvent, RangeEventKind, StoreKind, UpRequest, numbered};
use tokio::task::block_in_place;

use crate::site::{Site, range_image, references, stack_image};

/// Number of ranges that come up at once.
const MANY: usize = 10;

/// Maximum time for them, on a machine with other work too.
const SOON: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_many_ranges_come_up_by_one_call() {
    let mut site = Site::start().await;
    // Fewer places than the other tests ask for: most of the ranges wait in line for one.
    site.set(|settings| settings.concurrency = 2).await;
    let image = stack_image("tiny");
    let request = UpRequest {
        names: numbered("many", MANY).unwrap(),
        range_image: range_image(StoreKind::Graphdriver),
        images: references(&[&image]),
        grants: Vec::new(),
        labels: range::Labels::default(),
    };
    let begun = Instant::now();
    let report = site.ranges.up(&request, Arc::new(|_: RangeEvent| {})).await.unwrap();
    let wall = begun.elapsed();
    println!("{MANY} ranges in {:.1} s: {:?}", wall.as_secs_f64(), report.totals());
    assert!(report.is_whole(), "{report:#?}");
    assert!(report.ranges.iter().all(|range| range.provision == Some(Provision::Cloned)));
    assert!(wall < SOON, "{wall:?}");
    let names: Vec<_> = report.ranges.iter().map(|range| range.range.clone()).collect();
    assert_eq!(names, request.names, "told in the order asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_a_frozen_range_holds_nobody_back() {
    let mut site = Site::start().await;
    let image = stack_image("tiny");
    let report = site.up(StoreKind::Graphdriver, &["frozen"], &[&image]).await;
    assert!(report.is_whole(), "{report:#?}");
    block_in_place(|| {
        let listed = site.docker.must(&format!("top {} -eo pid", site.container("frozen")));
        let pids: Vec<_> = listed.lines().skip(1).map(str::trim).collect();
        assert!(2 < pids.len(), "a supervisor, an agent and an engine: {listed}");
        assert!(Command::new("kill").arg("-STOP").args(pids).status().unwrap().success());
    });
    // One place, and the frozen one is first in line for it.
    site.set(|settings| (settings.starts, settings.concurrency) = (Some(1), 1)).await;
    let done = Arc::new(Mutex::new(Vec::new()));
    let told = done.clone();
    let observer = move |event: RangeEvent| {
        if let RangeEventKind::Done(report) = event.kind {
            told.lock().expect("invariant: no one panics with it").push(report.range.to_string());
        }
    };
    let request = UpRequest {
        names: ["frozen", "other"].map(|name| name.parse().unwrap()).into(),
        range_image: range_image(StoreKind::Graphdriver),
        images: references(&[&image]),
        grants: Vec::new(),
        labels: range::Labels::default(),
    };
    let report = site.ranges.up(&request, Arc::new(observer)).await.unwrap();
    assert!(report.is_whole(), "{report:#?}");
    assert_eq!(report.ranges[0].provision, Some(Provision::Remade), "{report:#?}");
    assert_eq!(*done.lock().unwrap(), ["other", "frozen"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_what_has_no_room_is_refused_before_anything_is_made() {
    let site = Site::start().await;
    let request = UpRequest {
        // More engines than any machine has memory for.
        names: numbered("too-many", 1_000_000).unwrap(),
        range_image: range_image(StoreKind::Graphdriver),
        images: references(&[&stack_image("tiny")]),
        grants: Vec::new(),
        labels: range::Labels::default(),
    };
    let error = site.ranges.up(&request, Arc::new(|_: RangeEvent| {})).await.unwrap_err();
    assert!(matches!(error, RangeError::NoMemory { ranges: 1_000_000, .. }), "{error:?}");
    assert!(error.explain().contains("fewer ranges"), "{}", error.explain());
    assert_eq!(site.ranges.list().await.unwrap(), []);
    assert_eq!(site.admin().ranges().await.unwrap(), []);
}
