//! The range's end of the link, with a host in memory.

use std::sync::Mutex;

use async_trait::async_trait;
use control::WantedSet;
use control::link::{ImageStatus, WantedBy};
use futures::stream::BoxStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use transfer::Sharing;
use transfer::fixture::{MemorySink, MemorySource, image};
use transfer::pull::Puller;

use super::*;
use crate::engine::RangeEngine;
use crate::keeper::Ask;

/// One link, as the host has it.
struct Attached {
    messages: BoxStream<'static, FromRange>,
    to_range: mpsc::Sender<Result<ToRange, LinkError>>,
}

/// A host that hands each link to the test.
struct FakeHost {
    links: mpsc::Sender<Attached>,
    /// Errors for the next attempts to attach, before one succeeds.
    errors: Mutex<Vec<LinkError>>,
    attempts: Mutex<Vec<Instant>>,
}

#[async_trait]
impl LinkRange for FakeHost {
    async fn attach(
        &self,
        messages: BoxStream<'static, FromRange>,
    ) -> Result<FromHostStream, LinkError> {
        self.attempts.lock().unwrap().push(Instant::now());
        if let Some(error) = self.errors.lock().unwrap().pop() {
            return Err(error);
        }
        let (to_range, from_host) = mpsc::channel(8);
        self.links.send(Attached { messages, to_range }).await.unwrap();
        Ok(ReceiverStream::new(from_host).boxed())
    }
}

struct World {
    link: Link,
    host: FakeHost,
    links: mpsc::Receiver<Attached>,
    _folder: tempfile::TempDir,
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn set(names: &[&str], round: u64) -> WantedSet {
    let references = names.iter().map(|text| name(text)).collect();
    WantedSet { references, revision: round, round }
}

impl World {
    /// A range with an empty folder in the place of an engine, and a host with `app:1`.
    fn new(errors: Vec<LinkError>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("oci:{}", folder.path().join("engine").display());
        let engine = RangeEngine::at(&address, folder.path().join("journal.json")).unwrap();
        let source = Arc::new(MemorySource::default());
        source.insert("app:1", image(1, &[10, 20]));
        let sink = Arc::new(MemorySink::new(Sharing::ByBlob));
        let puller = Puller::new(source, sink, 2);
        let link = Link {
            keeper: Arc::new(Keeper::new(puller, Vec::new())),
            about: Arc::new(About::starting(folder.path().join("note.json"))),
            checks: Arc::new(Checks::new(Arc::new(engine))),
        };
        let (sender, links) = mpsc::channel(1);
        let attempts = Mutex::default();
        let host = FakeHost { links: sender, errors: Mutex::new(errors), attempts };
        Self { link, host, links, _folder: folder }
    }
}

/// Keeps a link while `work` goes on.
async fn keep<T>(link: &Link, host: &FakeHost, work: impl Future<Output = T>) -> T {
    tokio::select! {
        done = timeout(Duration::from_secs(3600), work) => done.expect("it waits for ever"),
        () = link.keep(host) => unreachable!("it keeps until it is dropped"),
        () = link.keeper.keep() => unreachable!("it keeps until it is dropped"),
    }
}

async fn next_report(attached: &mut Attached) -> RangeReport {
    loop {
        if let FromRange::Report(report) = attached.messages.next().await.unwrap() {
            return report;
        }
    }
}

async fn events_of(attached: &mut Attached, task: u64) -> Vec<TaskEvent> {
    let mut events = Vec::new();
    while events.last().is_none_or(|event: &TaskEvent| !event.is_last()) {
        match attached.messages.next().await.unwrap() {
            FromRange::Task { id, event } if id == task => events.push(event),
            _ => {}
        }
    }
    events
}

#[tokio::test(start_paused = true)]
async fn a_link_begins_with_a_whole_report_and_goes_on_with_changes() {
    let World { link, host, mut links, _folder } = World::new(Vec::new());
    link.keeper.want(set(&["app:1", "old:1"], 1));
    let work = async {
        let mut attached = links.recv().await.unwrap();
        let first = next_report(&mut attached).await;
        assert!(first.is_whole);
        let pending = ImageStatus::pending(name("app:1"), WantedBy::Host);
        assert_eq!(first.images[0], pending);
        assert_eq!(first.images.len(), 2);

        attached.to_range.send(Ok(ToRange::Wanted(set(&["app:1", "new:1"], 2)))).await.unwrap();
        let second = next_report(&mut attached).await;
        assert!(!second.is_whole);
        let changed: Vec<_> = second.images.iter().map(|image| image.reference.clone()).collect();
        assert_eq!(changed, [name("new:1")], "app:1 did not change");
        assert_eq!(second.removed, [name("old:1")]);

        // Nothing changes, and the host still hears that the agent lives.
        let began = Instant::now();
        let third = next_report(&mut attached).await;
        assert_eq!((third.images, third.removed), (Vec::new(), Vec::new()));
        assert!(began.elapsed() <= REPORT_ANYHOW + REPORT_EVERY);
    };
    keep(&link, &host, work).await;
}

#[tokio::test(start_paused = true)]
async fn changes_are_put_together() {
    let World { link, host, mut links, _folder } = World::new(Vec::new());
    let work = async {
        let mut attached = links.recv().await.unwrap();
        next_report(&mut attached).await;
        let news = |round: u64| format!("new-{round}:1");
        let change = async {
            for round in 1..=100 {
                link.keeper.want(set(&["app:1", &news(round)], round));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let follow = async {
            let mut reports = 0;
            loop {
                let report = next_report(&mut attached).await;
                reports += 1;
                if report.images.iter().any(|image| image.reference == name(&news(100))) {
                    break reports;
                }
            }
        };
        let ((), reports) = tokio::join!(change, follow);
        assert!((4..=9).contains(&reports), "{reports} reports in two seconds");
    };
    keep(&link, &host, work).await;
}

/// The next reported image that is the expected one.
async fn until(attached: &mut Attached, is_it: impl Fn(&ImageStatus) -> bool) -> ImageStatus {
    loop {
        let images = next_report(attached).await.images;
        if let Some(image) = images.into_iter().find(&is_it) {
            return image;
        }
    }
}

/// Looks at an image, as a sync inside the range does.
async fn look_at(link: &Link, image: &Reference) {
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let (answer, answered) = oneshot::channel();
    link.keeper.ask(image, Ask { answer, _place: Arc::new(place) });
    answered.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_settled_image_is_reported_at_once() {
    let World { link, host, mut links, _folder } = World::new(Vec::new());
    let work = async {
        let mut attached = links.recv().await.unwrap();
        next_report(&mut attached).await;
        for (round, image, is_present) in [(1, "app:1", true), (2, "absent:1", false)] {
            // The report of this change begins a pause.
            let new = format!("new-{round}:1");
            link.keeper.want(set(&["app:1", "absent:1", &new], round));
            until(&mut attached, |it| it.reference == name(&new)).await;
            let began = Instant::now();
            look_at(&link, &name(image)).await;
            let is_settled = |it: &ImageStatus| {
                !matches!(it.state, ImageState::Pending | ImageState::OnItsWay(_))
            };
            let is_it = |it: &ImageStatus| it.reference == name(image) && is_settled(it);
            let settled = until(&mut attached, is_it).await;
            assert_eq!(settled.state == ImageState::Present, is_present, "{settled:?}");
            assert!(began.elapsed() < REPORT_EVERY / 2, "{image} after {:?}", began.elapsed());
        }
    };
    keep(&link, &host, work).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_in_the_pause_is_reported_after_it() {
    let World { link, host, mut links, _folder } = World::new(Vec::new());
    let work = async {
        let mut attached = links.recv().await.unwrap();
        next_report(&mut attached).await;
        let began = Instant::now();
        link.keeper.want(set(&["one:1"], 1));
        assert_eq!(next_report(&mut attached).await.images[0].reference, name("one:1"));
        link.keeper.want(set(&["one:1", "two:1"], 2));
        assert_eq!(next_report(&mut attached).await.images[0].reference, name("two:1"));
        let pause = began.elapsed();
        assert!(REPORT_EVERY <= pause && pause < REPORT_EVERY * 2, "{pause:?}");
    };
    keep(&link, &host, work).await;
}

#[tokio::test(start_paused = true)]
async fn a_reporter_ends_when_nothing_can_change_any_more() {
    let World { link, .. } = World::new(Vec::new());
    let (messages, mut queue) = mpsc::channel(QUEUE);
    let mut reporter = Reporter::new(&link, messages);
    reporter.versions = watch::channel(0).1;
    timeout(REPORT_EVERY, reporter.run()).await.expect("it goes on");
    drop(reporter);
    let mut reports = 0;
    while queue.recv().await.is_some() {
        reports += 1;
    }
    assert_eq!(reports, 1, "the last report, and no more");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_broke_begins_anew_with_a_whole_report() {
    let World { link, host, mut links, _folder } = World::new(Vec::new());
    link.keeper.want(set(&["app:1"], 1));
    let work = async {
        for _ in 0..3 {
            let mut attached = links.recv().await.unwrap();
            let first = next_report(&mut attached).await;
            assert!(first.is_whole);
            assert_eq!(first.images.len(), 1);
            attached.to_range.send(Ok(ToRange::Wanted(set(&["app:1"], 1)))).await.unwrap();
        }
    };
    keep(&link, &host, work).await;
    let attempts = host.attempts.lock().unwrap();
    assert!(
        attempts[2] - attempts[1] < Duration::from_secs(1),
        "a host that was there is asked soon"
    );
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_away_is_asked_again_soon_and_an_old_one_seldom() {
    let broken = || LinkError::Broken("away".into());
    let errors = vec![LinkError::Unsupported("old".into()), broken(), broken(), broken()];
    let World { link, host, mut links, _folder } = World::new(errors);
    keep(&link, &host, links.recv()).await.unwrap();
    let attempts = host.attempts.lock().unwrap();
    let pauses: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let expected = [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4, REFUSED_PAUSE];
    assert_eq!(pauses.len(), expected.len());
    for (pause, expected) in pauses.iter().zip(expected) {
        assert!(pause.abs_diff(expected) < Duration::from_millis(5), "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_are_answered() {
    let World { link, host, mut links, _folder } = World::new(Vec::new());
    let work = async {
        let mut attached = links.recv().await.unwrap();
        let task = Task::Plan { references: vec![name("app:1"), name("absent:1")] };
        attached.to_range.send(Ok(ToRange::Task { id: 1, task })).await.unwrap();
        let events = events_of(&mut attached, 1).await;
        let [TaskEvent::Planned(plans)] = events.as_slice() else { panic!("{events:?}") };
        assert!(plans[0].error.is_none() && 0 < plans[0].bytes_to_move, "{plans:?}");
        assert!(plans[1].error.as_ref().is_some_and(|error| error.contains("absent:1")));

        let task = Task::Verify { references: vec![name("absent:1")], deep: false };
        attached.to_range.send(Ok(ToRange::Task { id: 2, task })).await.unwrap();
        let events = events_of(&mut attached, 2).await;
        let [TaskEvent::Verified(check), TaskEvent::Finished(summary)] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert!(!check.is_well() && summary.failed == 1, "{events:?}");
        // A task that is not under way is no reason to complain.
        attached.to_range.send(Ok(ToRange::Cancel { id: 77 })).await.unwrap();
    };
    keep(&link, &host, work).await;
}

#[tokio::test(start_paused = true)]
async fn tasks_are_bounded_and_end_when_they_are_cancelled() {
    let mut tasks = Tasks::default();
    for id in 0..MAX_TASKS as u64 {
        assert!(!tasks.is_full());
        tasks.begin(id, std::future::pending());
    }
    assert!(tasks.is_full());
    tasks.cancel(3);
    assert!(!tasks.is_full());
    tasks.begin(99, async {});
    while tasks.is_full() {
        tokio::task::yield_now().await;
    }
}
