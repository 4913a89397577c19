//! The host's end of one range's link: the latest that the range reported, and tasks for it.
//!
//! ```text
//!            attach               its messages end, or are unfit; another link; the range is removed
//!   never ───────────► attached ─────────────────────────────────────────► detached ──► attached …
//!                       state: the reports put together                     state: as it was last
//! ```
//!
//! A range is not trusted: its messages are read at a bounded rate, images and tasks are counted, and
//! a range that sends more loses its link.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use control::admin::AdminError;
use control::link::{
    Attachment, FromRange, FromRangeStream, LinkEnd, RangeState, Task, TaskEvent, ToRange,
    ToRangeStream, UnfitReport,
};
use control::{RangeName, WantedSet};
use futures::stream;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tokio_util::sync::CancellationToken;

/// Most tasks of one range under way at once.
const MAX_TASKS: usize = 8;

/// Most events of one task, so that a range cannot keep its reader for ever. More end the task.
const MAX_EVENTS: usize = 10_000;

/// Events of a task that wait for their reader.
const WAITING_EVENTS: usize = 64;

/// Maximum time that the reader of a task may leave its events; the range's other messages wait
/// meanwhile.
const READER_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages that wait to be sent to a range.
const WAITING_MESSAGES: usize = 32;

/// Least average time between two messages of a range.
const MESSAGE_PAUSE: Duration = Duration::from_millis(10);

/// Messages that may come at once without a pause.
const BURST: u32 = 500;

/// Numbers every change of every range, so that a watcher knows what it has seen. Clones are the
/// same numbers.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<watch::Sender<u64>>);

impl Changes {
    /// The number of a change that happens now.
    fn next(&self) -> u64 {
        let mut number = 0;
        self.0.send_modify(|last| {
            *last += 1;
            number = *last;
        });
        number
    }

    /// Tells watchers to look again.
    pub fn happened(&self) {
        self.next();
    }

    /// Wakes at each change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// One range's link. Clones are the same link.
#[derive(Clone, Debug)]
pub struct RangeLink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: RangeName,
    changes: Changes,
    /// The number of the range's last change.
    changed: AtomicU64,
    known: Mutex<Known>,
}

/// The latest that is known of a range, and its link while it has one.
#[derive(Debug)]
struct Known {
    attachment: Attachment,
    state: Option<RangeState>,
    /// Attachments and tasks so far.
    counted: u64,
    current: Option<Current>,
}

/// A link that is open.
#[derive(Debug)]
struct Current {
    serial: u64,
    end: Option<oneshot::Sender<LinkEnd>>,
    messages: mpsc::Sender<ToRange>,
    tasks: HashMap<u64, Waiter>,
}

/// The reader of a task's events.
#[derive(Debug)]
struct Waiter {
    events: mpsc::Sender<TaskEvent>,
    left: usize,
    /// Learns why the host ended the task; dropped without a reason when the link ends.
    cut_short: oneshot::Sender<String>,
}

impl RangeLink {
    /// A range whose agent never attached.
    #[must_use]
    pub fn new(name: RangeName, changes: Changes) -> Self {
        let known = Known { attachment: Attachment::Never, state: None, counted: 0, current: None };
        let (changed, known) = (AtomicU64::new(changes.next()), Mutex::new(known));
        Self(Arc::new(Inner { name, changes, changed, known }))
    }

    /// The number of the range's last change; another range, or this one added anew, has others.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.0.changed.load(Ordering::Acquire)
    }

    /// Takes note that something of the range changed, for its watchers.
    pub fn touch(&self) {
        self.0.changed.store(self.0.changes.next(), Ordering::Release);
    }

    /// Returns the attachment of the range's agent, with its latest state.
    #[must_use]
    pub fn latest(&self) -> (Attachment, Option<RangeState>) {
        let known = self.known();
        (known.attachment, known.state.clone())
    }

    /// Ends the link, if there is one.
    pub fn end(&self, end: LinkEnd) {
        let current = self.known().current.take();
        finish(current, end);
    }

    /// Takes a link in place of an older one. Answers the messages for the range, and the work of
    /// reading those of the range, which ends with either.
    pub fn attach(
        &self,
        messages: FromRangeStream,
        wanted: watch::Receiver<WantedSet>,
    ) -> (ToRangeStream, impl Future<Output = ()> + Send + 'static) {
        let (sender, tasks) = mpsc::channel(WAITING_MESSAGES);
        let (end, ended) = oneshot::channel();
        let (serial, older) = self.begin(sender, end);
        finish(older, LinkEnd::Replaced { name: self.0.name.clone() });
        self.touch();

        let dropped = CancellationToken::new();
        let reading = {
            let (link, dropped) = (self.clone(), dropped.clone());
            async move {
                let read = dropped.run_until_cancelled_owned(link.read(serial, messages)).await;
                let gone = || LinkEnd::Unfit {
                    name: link.0.name.clone(),
                    reason: "its messages ended".into(),
                };
                link.detach(serial, read.unwrap_or_else(gone));
            }
        };
        // A sender that is dropped says nothing: only a host that ends does that.
        let ended = ended.map(|end| end.unwrap_or(LinkEnd::HostEnding)).shared();
        let wanted = WatchStream::new(wanted).map(|set| Ok(ToRange::Wanted(set)));
        let tasks = ReceiverStream::new(tasks).map(Ok);
        let last = ended.clone().map(Err).into_stream();
        let guard = dropped.drop_guard();
        let told = stream::select(wanted, tasks).take_until(ended).chain(last).inspect(move |_| {
            let _until_dropped = &guard;
        });
        (told.boxed(), reading)
    }

    /// Has the range do a task.
    ///
    /// # Errors
    /// [`AdminError::NotAttached`], [`AdminError::Busy`].
    pub fn begin_task(&self, task: Task) -> Result<RunningTask, AdminError> {
        let (events, read) = mpsc::channel(WAITING_EVENTS);
        let (cut_short, reason) = oneshot::channel();
        let mut known = self.known();
        known.counted += 1;
        let (id, attachment) = (known.counted, known.attachment);
        let Some(current) = &mut known.current else {
            return Err(self.not_attached(attachment));
        };
        let busy = || AdminError::Busy { name: self.0.name.clone() };
        if MAX_TASKS <= current.tasks.len() {
            return Err(busy());
        }
        current.messages.try_send(ToRange::Task { id, task }).map_err(|_full| busy())?;
        current.tasks.insert(id, Waiter { events, left: MAX_EVENTS, cut_short });
        Ok(RunningTask { link: self.clone(), id, events: read, reason })
    }

    fn not_attached(&self, attachment: Attachment) -> AdminError {
        let last_seen = match attachment {
            Attachment::Never => None,
            Attachment::Attached { last_seen, .. } | Attachment::Detached { last_seen } => {
                Some(last_seen)
            }
        };
        AdminError::NotAttached { name: self.0.name.clone(), last_seen }
    }

    /// Makes a link the current one, and answers its number and the older one.
    fn begin(
        &self,
        messages: mpsc::Sender<ToRange>,
        end: oneshot::Sender<LinkEnd>,
    ) -> (u64, Option<Current>) {
        let mut known = self.known();
        known.counted += 1;
        let serial = known.counted;
        let now = SystemTime::now();
        known.attachment = Attachment::Attached { since: now, last_seen: now };
        let (end, tasks) = (Some(end), HashMap::new());
        (serial, known.current.replace(Current { serial, end, messages, tasks }))
    }

    /// Reads a range's messages until they end, and says why.
    async fn read(&self, serial: u64, mut messages: FromRangeStream) -> LinkEnd {
        let unfit = |reason: String| LinkEnd::Unfit { name: self.0.name.clone(), reason };
        let mut allowance = Allowance::new();
        let mut first = true;
        while let Some(message) = messages.next().await {
            allowance.spend().await;
            match message {
                Ok(FromRange::Report(report)) => {
                    if first && !report.is_whole {
                        return unfit(UnfitReport::NotWhole.to_string());
                    }
                    first = false;
                    let taken = self.update(serial, |state| RangeState::take(state, report));
                    if let Some(Err(unfit_report)) = taken {
                        return unfit(unfit_report.to_string());
                    }
                    self.touch();
                }
                Ok(FromRange::Task { id, event }) => self.pass_on(serial, id, event).await,
                Err(reason) => return unfit(reason),
            }
        }
        unfit("its messages ended".into())
    }

    /// Changes the state as a link that is the current one says; nothing for an older one.
    fn update<T>(
        &self,
        serial: u64,
        change: impl FnOnce(&mut Option<RangeState>) -> T,
    ) -> Option<T> {
        let mut known = self.known();
        if known.current.as_ref()?.serial != serial {
            return None;
        }
        if let Attachment::Attached { last_seen, .. } = &mut known.attachment {
            *last_seen = SystemTime::now();
        }
        Some(change(&mut known.state))
    }

    /// Gives an event of a task to its reader. A task with too many events, or a reader that leaves
    /// them, ends.
    async fn pass_on(&self, serial: u64, id: u64, event: TaskEvent) {
        let is_last = event.is_last();
        let events = {
            let mut known = self.known();
            let Some(current) = known.current.as_mut().filter(|it| it.serial == serial) else {
                return;
            };
            // The caller stopped waiting.
            let Some(waiter) = current.tasks.get_mut(&id) else { return };
            waiter.left = waiter.left.saturating_sub(1);
            if waiter.left == 0 { None } else { Some(waiter.events.clone()) }
        };
        let Some(events) = events else {
            let reason = format!(
                "it sent more than {MAX_EVENTS} results, the most of one task; name fewer images"
            );
            return self.cut_short(id, reason);
        };
        match timeout(READER_TIMEOUT, events.send(event)).await {
            Ok(Ok(())) if !is_last => {}
            Ok(sent) => self.end_task(id, sent.is_err() && !is_last),
            Err(_elapsed) => {
                let limit = READER_TIMEOUT.as_secs();
                let reason = format!(
                    "its results were not read for {limit} s, and wait no longer; ask again and \
                     read them as they come"
                );
                self.cut_short(id, reason);
            }
        }
    }

    /// Ends a task that the range is not done with, and tells its reader why.
    fn cut_short(&self, id: u64, reason: String) {
        let mut known = self.known();
        let waiter = known.current.as_mut().and_then(|current| current.tasks.remove(&id));
        let Some(waiter) = waiter else { return };
        // The reader may be gone.
        let _told = waiter.cut_short.send(reason);
        if let Some(current) = &mut known.current {
            // As for a task that its caller left.
            let _told = current.messages.try_send(ToRange::Cancel { id });
        }
    }

    /// Forgets a task; tells the range unless it is done with it.
    fn end_task(&self, id: u64, tell: bool) {
        let mut known = self.known();
        let Some(current) = &mut known.current else { return };
        if current.tasks.remove(&id).is_some() && tell {
            // A range that takes nothing is not told; it has a full queue of tasks before this.
            let _told = current.messages.try_send(ToRange::Cancel { id });
        }
    }

    /// Takes note that a link is over, unless a newer one took its place.
    fn detach(&self, serial: u64, end: LinkEnd) {
        let current = {
            let mut known = self.known();
            let replaced = known.current.as_ref().is_some_and(|it| it.serial != serial);
            if replaced {
                return;
            }
            if let Attachment::Attached { last_seen, .. } = known.attachment {
                known.attachment = Attachment::Detached { last_seen };
            }
            known.current.take()
        };
        tracing::info!(range = %self.0.name, end = %end, "the range's link ended");
        finish(current, end);
        self.touch();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a link with all its tasks.
fn finish(current: Option<Current>, end: LinkEnd) {
    if let Some(sender) = current.and_then(|mut current| current.end.take()) {
        // Nobody listens where the range went away.
        let _told = sender.send(end);
    }
}

/// Rate limit for the messages of a range.
struct Allowance {
    /// Time at which the limit allows as many messages as were read.
    paid_until: Instant,
}

impl Allowance {
    fn new() -> Self {
        Self { paid_until: Instant::now() }
    }

    /// Waits until the next message may be read. The range waits too, since nothing is read for it.
    async fn spend(&mut self) {
        let now = Instant::now();
        self.paid_until = self.paid_until.max(now) + MESSAGE_PAUSE;
        sleep_until(self.paid_until - MESSAGE_PAUSE * BURST).await;
    }
}

/// A task under way; dropping it ends it.
#[derive(Debug)]
pub struct RunningTask {
    link: RangeLink,
    id: u64,
    events: mpsc::Receiver<TaskEvent>,
    /// Holds the reason once the host ended the task.
    reason: oneshot::Receiver<String>,
}

impl RunningTask {
    /// The next event of the task, in words of an administrator.
    ///
    /// # Errors
    /// [`AdminError::NotAttached`] when the link broke, [`AdminError::Busy`] and
    /// [`AdminError::RangeFailed`] as the range says; the latter also when the range sends too much,
    /// or the events were not read in time.
    pub async fn next(&mut self) -> Result<TaskEvent, AdminError> {
        let name = || self.link.0.name.clone();
        match self.events.recv().await {
            Some(TaskEvent::Refused { is_busy: true, .. }) => {
                Err(AdminError::Busy { name: name() })
            }
            Some(TaskEvent::Refused { error, .. }) => {
                Err(AdminError::RangeFailed { name: name(), reason: error })
            }
            Some(event) => Ok(event),
            None => match self.reason.try_recv() {
                Ok(reason) => Err(AdminError::RangeFailed { name: name(), reason }),
                Err(_none) => Err(self.link.not_attached(self.link.latest().0)),
            },
        }
    }

    /// An event that does not belong to the requested task.
    #[must_use]
    pub fn strange(&self) -> AdminError {
        let reason = "its answer does not match the request".into();
        AdminError::RangeFailed { name: self.link.0.name.clone(), reason }
    }
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        self.link.end_task(self.id, true);
    }
}

#[cfg(test)]
mod tests;
