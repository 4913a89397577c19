//! Keeps the engine in step with the wanted images, and knows the state of every image.
//!
//! ```text
//!   host agent: a set, a new round ──┐                       ┌──► link: reports to the host agent
//!   engine: its events, its list ────┼──► table of images ───┼──► RangeService inside the range
//!   a sync inside the range ─────────┘      │     ▲          └──► health
//!                                           └─────┘
//!                                    looks that are due: bring
//! ```
//!
//! The table is the only record of the images. Its readers ask it; a reader that comes late, goes
//! away or comes twice loses nothing.

mod table;
mod truth;

#[cfg(test)]
mod tests;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use control::WantedSet;
use futures::FutureExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use transfer::pull::Puller;
use transfer::{Event, Observer, Reference};

use crate::bring::{Brought, bring};
use table::Gate;
pub(crate) use table::{Ask, Table};
pub(crate) use truth::watch_engine;

/// Maximum time to wait for the host's wanted set. After that the agent counts its own images as
/// the whole set.
const FIRST_WORD: Duration = Duration::from_secs(3);

/// Keeps the engine in step.
pub(crate) struct Keeper {
    puller: Puller,
    table: Mutex<Table>,
    /// The table's version.
    version: watch::Sender<u64>,
    /// A look may be due, or become due at another time.
    work: Notify,
    begun: Instant,
    is_ending: AtomicBool,
    tasks: TaskTracker,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl Keeper {
    /// Brings images in.
    pub(crate) fn puller(&self) -> &Puller {
        &self.puller
    }

    /// Brings images in with `puller`. The images in `own` are wanted in addition to the host
    /// agent's set.
    pub(crate) fn new(puller: Puller, own: Vec<Reference>) -> Self {
        Self {
            puller,
            table: Mutex::new(Table::new(own)),
            version: watch::Sender::default(),
            work: Notify::new(),
            begun: Instant::now(),
            is_ending: AtomicBool::new(false),
            tasks: TaskTracker::new(),
        }
    }

    /// Begins each look when it is due, until it is dropped. Looks under way then go on:
    /// [`finish`](Self::finish) waits for them.
    pub(crate) async fn keep(self: &Arc<Self>) {
        loop {
            let now = Instant::now();
            let gate = self.gate();
            let begun = self.change(|table| table.begin(now, gate));
            begun.into_iter().for_each(|reference| self.start(reference));
            let next = self.read().next_at().unwrap_or(now + FIRST_WORD);
            tokio::select! {
                () = self.work.notified() => {}
                () = sleep_until(next) => {}
                () = sleep_until(self.begun + FIRST_WORD), if !self.is_settled() => {
                    // Callers that wait for the table to settle look again.
                    self.version.send_modify(|_| {});
                }
            }
        }
    }

    /// Takes the host's set.
    pub(crate) fn want(&self, set: WantedSet) {
        self.act(|table| table.want(set));
    }

    /// Begins a look at an image for a caller.
    pub(crate) fn ask(&self, reference: &Reference, ask: Ask) {
        self.act(|table| table.ask(reference, ask));
    }

    /// The table as it is now. Held for a moment only: everybody waits for it.
    pub(crate) fn read(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("invariant: no one panics while holding the table")
    }

    /// The version of the table, and each change of it.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// True once the wanted set is known, as far as it will be.
    pub(crate) fn is_settled(&self) -> bool {
        self.read().is_known() || FIRST_WORD <= self.begun.elapsed()
    }

    /// Returns once no look is under way and nobody waits for one; begins no other.
    pub(crate) async fn finish(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
        let mut versions = self.version.subscribe();
        while self.read().is_working() {
            if versions.changed().await.is_err() {
                break;
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn gate(&self) -> Gate {
        let is_ending = self.is_ending.load(Ordering::Relaxed);
        // Without a first word, a range would be in step with nothing for a moment; without an
        // engine, every look would only wait for it.
        let is_open = self.is_settled() && self.read().engine_is_up() && !is_ending;
        if is_open { Gate::Open } else { Gate::AsksOnly }
    }

    /// Changes the table, which may make looks due.
    fn act<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let result = self.change(change);
        self.work.notify_one();
        result
    }

    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.read();
        let result = change(&mut table);
        let version = table.version();
        // Still locked: versions are reported in their order.
        self.version.send_if_modified(|told| std::mem::replace(told, version) != version);
        result
    }

    fn start(self: &Arc<Self>, reference: Reference) {
        let keeper = self.clone();
        let look = async move {
            let observer = Arc::new(Progress(keeper.clone()));
            let bringing = AssertUnwindSafe(bring(&keeper.puller, &reference, observer));
            let brought = bringing.catch_unwind().await;
            let brought = brought.unwrap_or_else(|_panic| Brought::broken(reference.clone()));
            brought.log();
            keeper.act(|table| table.done(brought, Instant::now()));
        };
        self.tasks.spawn(look.in_current_span());
    }
}

/// Puts what happens to an image on its way into the table.
struct Progress(Arc<Keeper>);

impl Observer for Progress {
    fn observe(&self, event: Event) {
        self.0.change(|table| table.observe(&event.reference, &event.kind));
    }
}
