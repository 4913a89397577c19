//! The link to the host agent: reports go up, wanted sets and tasks come down.
//!
//! A link that breaks is opened again and begins with a whole report, so the host always has the
//! latest. Only tasks under way are lost with it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use control::link::{
    FromHostStream, FromRange, ImageState, LinkError, LinkRange, MAX_REPORTED, RangeReport,
    RangeState, Task, TaskEvent, ToRange,
};
use control::range::{ControlError, VerifyEvent};
use futures::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument as _;
use transfer::Reference;

use crate::about::About;
use crate::keeper::Keeper;
use crate::plan::plan;
use crate::verify::Checks;

/// First pause before a link that broke is opened again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Pause after the host agent refused a link or does not know links.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// Shortest time between two reports of progress: what an eye can follow. A report of a settled image
/// does not wait for it.
const REPORT_EVERY: Duration = Duration::from_millis(300);

/// Longest time between two reports, so that the host sees that the agent lives.
const REPORT_ANYHOW: Duration = Duration::from_secs(15);

/// Messages that may wait to be sent: a whole report of as many images as there may be, and some.
const QUEUE: usize = 64;

/// Most removed images in a report.
const MAX_REMOVED: usize = 1000;

/// Most tasks under way at once. More are refused.
const MAX_TASKS: usize = 8;

/// The range's end of the link.
pub(crate) struct Link {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) about: Arc<About>,
    pub(crate) checks: Arc<Checks>,
}

impl Link {
    /// Keeps a link to `host` open until it is dropped.
    pub(crate) async fn keep(&self, host: &dyn LinkRange) {
        let mut pause = FIRST_PAUSE;
        let mut has_warned = false;
        loop {
            let (error, was_open) = self.hold(host).await;
            let reason = transfer::explain(&error);
            match error {
                LinkError::Unsupported(_) | LinkError::Refused(_) => {
                    if !has_warned {
                        tracing::warn!(reason, "only this agent's own --image list is wanted");
                        has_warned = true;
                    }
                    pause = REFUSED_PAUSE;
                }
                LinkError::Broken(_) => {
                    tracing::debug!(reason, "no link to the host agent");
                    if was_open || pause == REFUSED_PAUSE {
                        pause = FIRST_PAUSE;
                    }
                }
            }
            has_warned &= !was_open;
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Holds one link until it breaks; the error, and whether the host ever sent anything.
    async fn hold(&self, host: &dyn LinkRange) -> (LinkError, bool) {
        let (messages, queue) = mpsc::channel(QUEUE);
        let mut reporter = Reporter::new(self, messages.clone());
        reporter.report_all();
        let mut from_host = match host.attach(ReceiverStream::new(queue).boxed()).await {
            Ok(from_host) => from_host,
            Err(error) => return (error, false),
        };
        let mut was_open = false;
        let error = tokio::select! {
            error = self.listen(&mut from_host, &messages, &mut was_open) => error,
            () = reporter.run() => LinkError::Broken("the host agent takes no reports".into()),
        };
        (error, was_open)
    }

    async fn listen(
        &self,
        from_host: &mut FromHostStream,
        messages: &mpsc::Sender<FromRange>,
        was_open: &mut bool,
    ) -> LinkError {
        let mut tasks = Tasks::default();
        loop {
            match from_host.next().await {
                Some(Ok(message)) => {
                    *was_open = true;
                    self.take(message, messages, &mut tasks).await;
                }
                Some(Err(error)) => return error,
                None => return LinkError::Broken("the host agent closed it".into()),
            }
        }
    }

    async fn take(&self, message: ToRange, messages: &mpsc::Sender<FromRange>, tasks: &mut Tasks) {
        match message {
            ToRange::Wanted(set) => {
                let (revision, round) = (set.revision, set.round);
                tracing::info!(images = set.references.len(), revision, round, "wanted");
                self.keeper.want(set);
            }
            ToRange::Task { id, task } => {
                let answers = Answers { id, messages: messages.clone() };
                if tasks.is_full() {
                    let error = ControlError::Busy { limit: MAX_TASKS };
                    answers.refuse(&error).await;
                } else {
                    tasks.begin(id, self.work(task, answers));
                }
            }
            ToRange::Cancel { id } => tasks.cancel(id),
        }
    }

    /// Does a task.
    fn work(&self, task: Task, answers: Answers) -> impl Future<Output = ()> + use<> {
        let (keeper, checks) = (self.keeper.clone(), self.checks.clone());
        async move {
            match task {
                Task::Plan { references } => {
                    let plans = plan(keeper.puller(), references).await;
                    answers.send(TaskEvent::Planned(plans)).await;
                }
                Task::Verify { references, deep } => {
                    verify(&checks, references, deep, &answers).await;
                }
            }
        }
    }
}

/// Verifies images. Cancelled by dropping it.
async fn verify(checks: &Checks, references: Vec<Reference>, deep: bool, answers: &Answers) {
    let mut events = match checks.begin(references, deep).await {
        Ok(events) => events,
        Err(error) => return answers.refuse(&error).await,
    };
    while let Some(event) = events.next().await {
        let event = match event {
            VerifyEvent::Checked(check) => TaskEvent::Verified(check),
            VerifyEvent::Finished(summary) => TaskEvent::Finished(summary),
        };
        answers.send(event).await;
    }
}

/// Destination of the events of one task.
struct Answers {
    id: u64,
    messages: mpsc::Sender<FromRange>,
}

impl Answers {
    async fn send(&self, event: TaskEvent) {
        // Closed: the link broke, and the task with it.
        let _closed = self.messages.send(FromRange::Task { id: self.id, event }).await;
    }

    async fn refuse(&self, error: &ControlError) {
        let is_busy = matches!(error, ControlError::Busy { .. });
        let error = transfer::explain(error);
        self.send(TaskEvent::Refused { is_busy, error }).await;
    }
}

/// The tasks of one link; they end with it.
#[derive(Default)]
struct Tasks {
    running: JoinSet<u64>,
    by_id: HashMap<u64, AbortHandle>,
}

impl Tasks {
    /// True if no further task may begin.
    fn is_full(&mut self) -> bool {
        while let Some(ended) = self.running.try_join_next() {
            if let Ok(id) = ended {
                self.by_id.remove(&id);
            }
        }
        self.by_id.retain(|_, task| !task.is_finished());
        MAX_TASKS <= self.by_id.len()
    }

    fn begin(&mut self, id: u64, work: impl Future<Output = ()> + Send + 'static) {
        let work = async move {
            work.await;
            id
        };
        let task = self.running.spawn(work.in_current_span());
        self.by_id.insert(id, task);
    }

    fn cancel(&mut self, id: u64) {
        if let Some(task) = self.by_id.remove(&id) {
            task.abort();
        }
    }
}

/// Reports the table to the host.
struct Reporter<'a> {
    link: &'a Link,
    messages: mpsc::Sender<FromRange>,
    versions: watch::Receiver<u64>,
    /// The version of the table that was reported last.
    version: u64,
    /// The images that the host knows of.
    reported: BTreeSet<Reference>,
}

impl<'a> Reporter<'a> {
    fn new(link: &'a Link, messages: mpsc::Sender<FromRange>) -> Self {
        let versions = link.keeper.versions();
        Self { link, messages, versions, version: 0, reported: BTreeSet::new() }
    }

    /// Queues a whole report.
    fn report_all(&mut self) {
        let state = {
            let table = self.link.keeper.read();
            self.version = table.version();
            let images = table.since(0).map(|image| (image.reference.clone(), image.clone()));
            let agent = self.link.about.status(table.engine().clone());
            RangeState { agent, images: images.collect() }
        };
        self.reported = state.images.keys().cloned().collect();
        for report in state.reports() {
            // The queue is empty, and longer than the most images need.
            let _full = self.messages.try_send(FromRange::Report(report));
        }
    }

    /// Reports what changes. Returns when the link is closed, or the table changes no more.
    async fn run(&mut self) {
        let mut goes_on = true;
        while goes_on {
            // If nothing changed, a report without images is due.
            goes_on = self.wait(REPORT_ANYHOW, Self::has_changed).await;
            for report in self.changes() {
                if self.messages.send(FromRange::Report(report)).await.is_err() {
                    return;
                }
            }
            goes_on &= self.wait(REPORT_EVERY, Self::has_settled).await;
        }
    }

    /// Waits until a report is due, but no longer than `longest`. False if the table changes no
    /// more.
    async fn wait(&mut self, longest: Duration, is_due: fn(&Self) -> bool) -> bool {
        let until = Instant::now() + longest;
        // The table itself is asked, since this wait may use up the wake-up of the next one.
        while !is_due(self) {
            match timeout_at(until, self.versions.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_no_more)) => return false,
                Err(_elapsed) => break,
            }
        }
        true
    }

    /// True if the table changed since the last report.
    fn has_changed(&self) -> bool {
        self.link.keeper.read().version() != self.version
    }

    /// True if an image that changed since the last report is settled.
    fn has_settled(&self) -> bool {
        let is_on_its_way =
            |state: &ImageState| matches!(state, ImageState::Pending | ImageState::OnItsWay(_));
        self.link.keeper.read().since(self.version).any(|image| !is_on_its_way(&image.state))
    }

    /// Changes since the last report, in at least one report.
    fn changes(&mut self) -> Vec<RangeReport> {
        let table = self.link.keeper.read();
        let images: Vec<_> = table.since(self.version).cloned().collect();
        self.version = table.version();
        let agent = self.link.about.status(table.engine().clone());
        let is_gone = |reference: &&Reference| table.status(reference).is_none();
        let removed: Vec<_> = self.reported.iter().filter(is_gone).cloned().collect();
        drop(table);
        for reference in &removed {
            self.reported.remove(reference);
        }
        self.reported.extend(images.iter().map(|image| image.reference.clone()));
        let count = images.len().div_ceil(MAX_REPORTED).max(removed.len().div_ceil(MAX_REMOVED));
        let (mut images, mut removed) = (images.into_iter(), removed.into_iter());
        let report = |_| RangeReport {
            is_whole: false,
            agent: agent.clone(),
            images: images.by_ref().take(MAX_REPORTED).collect(),
            removed: removed.by_ref().take(MAX_REMOVED).collect(),
        };
        (0..count.max(1)).map(report).collect()
    }
}

#[cfg(test)]
#[path = "link/tests.rs"]
mod tests;
