//! Syncs that a caller inside the range requests: a look at each image, and its way as the table has
//! it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use control::link::{ImageState, ImageStatus};
use control::range::{ControlError, SyncEvent, SyncSummary};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;
use transfer::event::{EventKind, ImageReport};
use transfer::{Event, Reference, Stage};

use crate::bring::Brought;
use crate::keeper::{Ask, Keeper};

/// Most syncs under way at once. A caller beyond this is a loop gone wild, and is refused.
pub(crate) const MAX_SYNCS: usize = 32;

/// Asks the keeper for images.
#[derive(Debug)]
pub(crate) struct Syncs {
    keeper: Arc<Keeper>,
    places: Arc<Semaphore>,
}

impl Syncs {
    pub(crate) fn new(keeper: Arc<Keeper>) -> Self {
        Self { keeper, places: Arc::new(Semaphore::new(MAX_SYNCS)) }
    }

    /// Begins a sync. Its events end with [`SyncEvent::Finished`]; a reader that goes away cancels
    /// nothing, one that falls behind misses stages and progress, and no result.
    ///
    /// # Errors
    /// [`ControlError::Busy`].
    pub(crate) fn begin(
        &self,
        references: Vec<Reference>,
    ) -> Result<BoxStream<'static, SyncEvent>, ControlError> {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return Err(ControlError::Busy { limit: MAX_SYNCS });
        };
        let place = Arc::new(place);
        let versions = self.keeper.versions();
        let mut sync = Sync::new(self.keeper.clone(), versions);
        for reference in distinct(references) {
            let (answer, answered) = oneshot::channel();
            self.keeper.ask(&reference, Ask { answer, _place: place.clone() });
            sync.waits(reference, answered);
        }
        let events = stream::unfold(sync, |mut sync| async {
            let event = sync.next().await?;
            Some((event, sync))
        });
        Ok(events.boxed())
    }

    /// Number of syncs under way.
    pub(crate) fn under_way(&self) -> usize {
        MAX_SYNCS - self.places.available_permits()
    }

    /// Begins no more.
    pub(crate) fn close(&self) {
        self.places.close();
    }
}

/// One sync, as its reader sees it.
struct Sync {
    keeper: Arc<Keeper>,
    versions: watch::Receiver<u64>,
    started: Instant,
    /// Last reported state of each unfinished image.
    known: HashMap<Reference, Known>,
    answers: FuturesUnordered<BoxFuture<'static, ImageReport>>,
    reports: Vec<ImageReport>,
    events: VecDeque<SyncEvent>,
    is_finished: bool,
}

/// Last reported state of an image on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    stage: Option<Stage>,
    /// Bytes to move, bytes saved.
    plan: (u64, u64),
    bytes_moved: u64,
}

impl Sync {
    fn new(keeper: Arc<Keeper>, versions: watch::Receiver<u64>) -> Self {
        Self {
            keeper,
            versions,
            started: Instant::now(),
            known: HashMap::new(),
            answers: FuturesUnordered::new(),
            reports: Vec::new(),
            events: VecDeque::new(),
            is_finished: false,
        }
    }

    fn waits(&mut self, reference: Reference, answered: oneshot::Receiver<ImageReport>) {
        self.known.insert(reference.clone(), Known::default());
        // The keeper goes with the agent.
        let report = async { answered.await.unwrap_or_else(|_| Brought::broken(reference).report) };
        self.answers.push(report.boxed());
    }

    async fn next(&mut self) -> Option<SyncEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.is_finished {
                return None;
            }
            tokio::select! {
                biased;
                Some(report) = self.answers.next() => self.done(report),
                Ok(()) = self.versions.changed() => self.look(),
                else => self.finish(),
            }
        }
    }

    fn done(&mut self, report: ImageReport) {
        let reference = report.reference.clone();
        self.known.remove(&reference);
        self.reports.push(report.clone());
        self.tell(&reference, EventKind::Done(report));
        if self.answers.is_empty() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let summary = SyncSummary::of(&self.reports, self.started.elapsed());
        self.events.push_back(SyncEvent::Finished(summary));
        self.is_finished = true;
    }

    /// Looks at what changed in the table.
    fn look(&mut self) {
        let mut events = Vec::new();
        {
            let table = self.keeper.read();
            for (reference, known) in &mut self.known {
                let Some(status) = table.status(reference) else { continue };
                let now = Known::of(status);
                known.changes(now).for_each(|kind| events.push((reference.clone(), kind)));
                *known = now;
            }
        }
        events.into_iter().for_each(|(reference, kind)| self.tell(&reference, kind));
    }

    fn tell(&mut self, reference: &Reference, kind: EventKind) {
        let event = Event { reference: reference.clone(), kind };
        self.events.push_back(SyncEvent::Image(event));
    }
}

impl Known {
    fn of(status: &ImageStatus) -> Self {
        let stage = match status.state {
            ImageState::OnItsWay(stage) => Some(stage),
            _ => None,
        };
        let plan = (status.bytes_to_move, status.bytes_saved);
        Self { stage, plan, bytes_moved: status.bytes_moved }
    }

    /// Events between this state and `now`.
    fn changes(self, now: Self) -> impl Iterator<Item = EventKind> {
        let stage = now.stage.filter(|_| self.stage != now.stage).map(EventKind::Entered);
        let (bytes_to_move, bytes_saved) = now.plan;
        let plan = EventKind::Planned { bytes_to_move, bytes_saved };
        let plan = (self.plan != now.plan).then_some(plan);
        let moved = EventKind::Moved { bytes_moved: now.bytes_moved };
        let moved = (self.bytes_moved != now.bytes_moved).then_some(moved);
        [stage, plan, moved].into_iter().flatten()
    }
}

/// The references in their order, each once: one result per image.
fn distinct(references: Vec<Reference>) -> Vec<Reference> {
    let mut seen = HashSet::new();
    references.into_iter().filter(|reference| seen.insert(reference.clone())).collect()
}

#[cfg(test)]
#[path = "syncs/tests.rs"]
mod tests;
