//! One range's link, with streams in place of a connection.

use std::collections::BTreeMap;

use control::link::{AgentStatus, ImageState, ImageStatus, MAX_IMAGES, RangeReport, WantedBy};
use control::range::{ImageCheck, Reach, VerifySummary};
use tokio::task::JoinHandle;
use transfer::Reference;

use super::*;

/// A range's end of a link.
struct Agent {
    says: mpsc::Sender<Result<FromRange, String>>,
    told: ToRangeStream,
    reading: JoinHandle<()>,
}

fn link() -> RangeLink {
    RangeLink::new("lab-1".parse().unwrap(), Changes::default())
}

fn set(revision: u64) -> WantedSet {
    WantedSet { references: Vec::new(), revision, round: revision }
}

fn attach(link: &RangeLink) -> Agent {
    let (says, said) = mpsc::channel(1024);
    let (told, reading) =
        link.attach(ReceiverStream::new(said).boxed(), watch::Sender::new(set(1)).subscribe());
    Agent { says, told, reading: tokio::spawn(reading) }
}

fn report(is_whole: bool, images: impl IntoIterator<Item = usize>) -> FromRange {
    let image = |n: usize| {
        let reference = format!("app:{n}").parse().unwrap();
        ImageStatus {
            state: ImageState::Present,
            ..ImageStatus::pending(reference, WantedBy::Host)
        }
    };
    let agent = AgentStatus {
        version: "1".into(),
        uptime: Duration::ZERO,
        engine: Reach::Unknown,
        engine_restarts: 0,
        peak_rss_bytes: 0,
    };
    let images = images.into_iter().map(image).collect();
    FromRange::Report(RangeReport { is_whole, agent, images, removed: Vec::new() })
}

impl Agent {
    async fn says(&self, message: FromRange) {
        self.says.send(Ok(message)).await.unwrap();
    }

    /// The next task or cancellation.
    async fn task(&mut self) -> ToRange {
        loop {
            match self.told.next().await.unwrap().unwrap() {
                ToRange::Wanted(_) => {}
                other => return other,
            }
        }
    }
}

/// Returns the reason why a link ended.
async fn end(mut told: ToRangeStream) -> LinkEnd {
    loop {
        if let Err(end) = told.next().await.expect("a link ends with a reason") {
            return end;
        }
    }
}

fn images(link: &RangeLink) -> BTreeMap<Reference, ImageStatus> {
    link.latest().1.map(|state| state.images).unwrap_or_default()
}

/// Waits until the link has so many images.
async fn until(link: &RangeLink, count: usize) {
    while images(link).len() != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_latest_outlives_its_link_and_a_new_link_begins_anew() {
    let link = link();
    assert_eq!(link.latest(), (Attachment::Never, None));
    let first = attach(&link);
    first.says(report(true, 0..3)).await;
    first.says(report(false, 2..5)).await;
    until(&link, 5).await;
    let before = link.changed();
    drop(first.told);
    first.reading.await.unwrap();
    assert!(matches!(link.latest().0, Attachment::Detached { .. }));
    assert!(before < link.changed(), "watchers were not woken");
    assert_eq!(images(&link).len(), 5);

    let second = attach(&link);
    assert!(matches!(link.latest().0, Attachment::Attached { .. }));
    second.says(report(true, 0..1)).await;
    until(&link, 1).await;
}

#[tokio::test]
async fn a_newer_link_replaces_the_older() {
    let link = link();
    let older = attach(&link);
    older.says(report(true, 0..3)).await;
    until(&link, 3).await;
    let newer = attach(&link);
    older.says(report(true, 0..9)).await;
    let end = end(older.told).await;
    assert!(matches!(end, LinkEnd::Replaced { .. }), "{end:?}");
    newer.says(report(true, 0..2)).await;
    until(&link, 2).await;
    assert!(matches!(link.latest().0, Attachment::Attached { .. }), "the older took it down");
}

#[tokio::test]
async fn what_is_no_report_or_too_much_of_one_ends_the_link() {
    let flood = (0..=MAX_IMAGES / 100).map(|n| Ok(report(n == 0, n * 100..(n + 1) * 100)));
    for (messages, reason) in [
        (vec![Ok(report(false, 0..1))], "not whole"),
        (vec![Ok(report(true, 0..1)), Err("images is absent".into())], "images is absent"),
        (flood.collect(), "images are reported"),
        (vec![], "its messages ended"),
    ] {
        let link = link();
        let agent = attach(&link);
        for message in messages {
            // The host may have ended it already.
            let _sent = agent.says.send(message).await;
        }
        let Agent { says, told, reading } = agent;
        drop(says);
        let end = end(told).await;
        reading.await.unwrap();
        assert!(end.to_string().contains(reason), "{end}, not {reason}");
        assert!(matches!(link.latest().0, Attachment::Detached { .. }));
        assert!(images(&link).len() <= MAX_IMAGES + 100);
    }
}

#[tokio::test]
async fn a_removed_range_hears_why() {
    let link = link();
    let agent = attach(&link);
    link.end(LinkEnd::UnknownRange { name: "lab-1".parse().unwrap() });
    assert!(matches!(end(agent.told).await, LinkEnd::UnknownRange { .. }));
}

#[tokio::test]
async fn a_task_is_answered_to_whom_it_belongs() {
    let link = link();
    let verify = || Task::Verify { references: Vec::new(), deep: true };
    let error = link.begin_task(verify()).unwrap_err();
    assert!(matches!(error, AdminError::NotAttached { last_seen: None, .. }), "{error:?}");

    let mut agent = attach(&link);
    let mut first = link.begin_task(verify()).unwrap();
    let mut second = link.begin_task(verify()).unwrap();
    let (ToRange::Task { id: one, .. }, ToRange::Task { id: two, .. }) =
        (agent.task().await, agent.task().await)
    else {
        panic!("no tasks")
    };
    let checked = |files| TaskEvent::Verified(ImageCheck { files, ..ImageCheck::default() });
    for (id, event) in [
        (two, checked(2)),
        (one, checked(1)),
        (99, checked(0)),
        (one, TaskEvent::Finished(VerifySummary::default())),
        (two, TaskEvent::Refused { is_busy: false, error: "the engine is away".into() }),
        (two, checked(9)),
    ] {
        agent.says(FromRange::Task { id, event }).await;
    }
    assert_eq!(first.next().await.unwrap(), checked(1));
    assert_eq!(first.next().await.unwrap(), TaskEvent::Finished(VerifySummary::default()));
    assert_eq!(second.next().await.unwrap(), checked(2));
    let failed = second.next().await.unwrap_err();
    assert!(failed.to_string().contains("the engine is away"), "{failed}");
    drop((first, second));

    // A caller that stops waiting ends the task; a task that is over is not cancelled.
    let third = link.begin_task(verify()).unwrap();
    let ToRange::Task { id, .. } = agent.task().await else { panic!("no task") };
    drop(third);
    assert_eq!(agent.task().await, ToRange::Cancel { id });

    let mut last = link.begin_task(verify()).unwrap();
    agent.reading.abort();
    link.end(LinkEnd::HostEnding);
    assert!(matches!(last.next().await, Err(AdminError::NotAttached { .. })));
}

/// Events of a task that never ends, sent until the range is told to stop.
async fn flood(agent: &mut Agent) {
    let ToRange::Task { id, .. } = agent.task().await else { panic!("no task") };
    let says = agent.says.clone();
    let flood = async {
        loop {
            let event = TaskEvent::Verified(ImageCheck::default());
            says.send(Ok(FromRange::Task { id, event })).await.unwrap();
        }
    };
    tokio::select! {
        () = flood => {}
        told = agent.task() => assert_eq!(told, ToRange::Cancel { id }),
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_with_too_many_results_ends_with_the_reason() {
    let link = link();
    let mut agent = attach(&link);
    let mut task = link.begin_task(Task::Verify { references: Vec::new(), deep: true }).unwrap();
    let reading = async {
        let mut read = 0;
        loop {
            match task.next().await {
                Ok(_) => read += 1,
                Err(error) => break (read, error),
            }
        }
    };
    let ((read, error), ()) = tokio::join!(reading, flood(&mut agent));
    assert_eq!(read, MAX_EVENTS - 1);
    assert!(matches!(error, AdminError::RangeFailed { .. }), "{error:?}");
    assert!(error.to_string().contains("more than 10000 results"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_not_read_ends_with_the_reason_after_what_waited() {
    let link = link();
    let mut agent = attach(&link);
    let mut task = link.begin_task(Task::Verify { references: Vec::new(), deep: true }).unwrap();
    flood(&mut agent).await;
    for _ in 0..WAITING_EVENTS {
        assert_eq!(task.next().await.unwrap(), TaskEvent::Verified(ImageCheck::default()));
    }
    let error = task.next().await.unwrap_err();
    assert!(matches!(error, AdminError::RangeFailed { .. }), "{error:?}");
    assert!(error.to_string().contains("not read for 10 s"), "{error}");
}

#[tokio::test]
async fn a_range_has_so_many_tasks_and_no_more() {
    let link = link();
    let agent = attach(&link);
    let plan = || Task::Plan { references: vec!["app:1".parse().unwrap()] };
    let running: Vec<_> = (0..MAX_TASKS).map(|_| link.begin_task(plan()).unwrap()).collect();
    assert!(matches!(link.begin_task(plan()), Err(AdminError::Busy { .. })));
    drop(running);
    assert!(link.begin_task(plan()).is_ok());
    drop(agent);
}

#[tokio::test(start_paused = true)]
async fn a_range_that_talks_without_end_is_read_slowly() {
    let link = link();
    let read = Arc::new(AtomicU64::new(0));
    let counting = read.clone();
    let endless = stream::repeat_with(move || {
        counting.fetch_add(1, Ordering::Relaxed);
        Ok(report(true, 0..1))
    });
    let (_told, reading) = link.attach(endless.boxed(), watch::Sender::new(set(1)).subscribe());
    let time = Duration::from_secs(10);
    let _still_reading = timeout(time, reading).await.unwrap_err();
    let allowed = u128::from(BURST) + time.as_millis() / MESSAGE_PAUSE.as_millis() + 2;
    let read = u128::from(read.load(Ordering::Relaxed));
    assert!(read <= allowed, "{read} messages were read, {allowed} are allowed");
}
