//! The table of a range's images: who wants each, its state in the engine, and its last look.
//!
//! ```text
//!               ┌───────────── a new round, an ask, the pause is over ─────────────┐
//!               ▼                                                                  │
//!   PENDING ──► ON_ITS_WAY ──► PRESENT ──► GONE, REPLACED (the engine says so) ────┤
//!                   └────────► FAILED ─────────────────────────────────────────────┘
//! ```
//!
//! The engine decides whether an image is present. An image whose name the engine has, and whose
//! layers it confirms, is present also before the first look, and when the host lost it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use control::WantedSet;
use control::link::{ImageState, ImageStatus, MAX_UNWANTED, WantedBy};
use control::range::{LastSync, Reach};
use engine::HeldImage;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use transfer::event::{EventKind, ImageReport};
use transfer::{ConfigDigest, EngineImageId, EngineInfo, Outcome, Reference, Stage};

use crate::bring::{Brought, Fault};

/// First pause before a failed image is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause: an image that is built on the host later should come without a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// First pause before an image that was removed or replaced in the range is brought back; doubled
/// each time. Long enough to see the state and to stop wanting the image.
const FIRST_MEND: Duration = Duration::from_secs(10);

/// Longest such pause: the agent does not fight a user who keeps removing an image.
const LONGEST_MEND: Duration = Duration::from_secs(600);

/// Every image of the range, by its name.
#[derive(Debug)]
pub(crate) struct Table {
    entries: BTreeMap<Reference, Entry>,
    /// Images that are wanted in addition to the host agent's set.
    own: BTreeSet<Reference>,
    /// The host's set; absent before its first word.
    set: Option<WantedSet>,
    /// The references of that set.
    wanted: HashSet<Reference>,
    /// The engine as it last answered; up only once it listed its images.
    engine: Reach<EngineInfo>,
    /// Every image that the engine has, with a name or without.
    held: HashSet<EngineImageId>,
    /// Grows with each change that a reader can see.
    version: u64,
    last: Option<LastSync>,
}

/// A caller that waits for the next look at an image. Keeps the place of its sync taken until it is
/// answered, also when nobody listens any more.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) answer: oneshot::Sender<ImageReport>,
    pub(crate) _place: Arc<OwnedSemaphorePermit>,
}

/// One image.
#[derive(Debug)]
struct Entry {
    status: ImageStatus,
    /// The version of the table at which the status last changed.
    version: u64,
    /// The status at that version; absent while no reader saw any.
    seen: Option<ImageStatus>,
    /// The engine's image under this name; `None` without one.
    held: Option<Held>,
    /// The image last proven under this name; `None` without one.
    expected: Option<EngineImageId>,
    work: Work,
    /// Time of the next look; `None` without one.
    due_at: Option<Instant>,
    /// The pause before the next attempt, should this one fail.
    retry: Duration,
    /// The pause before the image is brought back, should it be removed or replaced.
    mend: Duration,
    /// Failure of the last look; `None` after a success.
    failure: Option<(Fault, String)>,
    /// Those that the next look answers.
    asks: Vec<Ask>,
}

/// An image as the engine has it under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    id: EngineImageId,
    config_digest: Option<ConfigDigest>,
    proven: bool,
    /// Time of the engine's first report of it.
    at: Instant,
}

/// Work on an image.
#[derive(Debug)]
enum Work {
    Idle,
    Due,
    UnderWay {
        stage: Stage,
        /// The host's round when the look began.
        round: Option<u64>,
        /// Those that it answers.
        asks: Vec<Ask>,
        /// True if there was a reason for another look since.
        again: bool,
    },
}

/// Looks that may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// All that are due.
    Open,
    /// Only those that a caller waits for.
    AsksOnly,
}

/// Sync state of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Images that are wanted, as far as it is known.
    pub(crate) wanted: usize,
    /// Those of them that were not looked at yet, or are on their way.
    pub(crate) coming: usize,
    /// Those that failed, were removed or were replaced.
    pub(crate) lost: usize,
    /// True once the host agent reported the wanted set.
    pub(crate) known: bool,
    /// True if the engine answers.
    pub(crate) engine_up: bool,
}

impl Standing {
    /// True if the engine answers and every wanted image is present.
    pub(crate) fn is_complete(&self) -> bool {
        self.engine_up && self.coming == 0 && self.lost == 0
    }
}

impl Table {
    /// Creates a table. The images in `own` are wanted in addition to the host agent's set.
    pub(super) fn new(own: Vec<Reference>) -> Self {
        let mut table = Self {
            entries: BTreeMap::new(),
            own: own.into_iter().collect(),
            set: None,
            wanted: HashSet::new(),
            engine: Reach::Unknown,
            held: HashSet::new(),
            version: 0,
            last: None,
        };
        for reference in table.own.clone() {
            table.entry(&reference).work = Work::Due;
        }
        table.settle_all();
        table
    }

    /// Takes the host's set. A set of a new round is a reason to look at all of it; the same set
    /// again, which follows a lost connection, is one to try again what failed.
    pub(super) fn want(&mut self, set: WantedSet) {
        let is_new = self.set.as_ref().is_none_or(|before| *before != set);
        for reference in &set.references {
            let entry = self.entry(reference);
            if is_new || entry.failure.is_some() {
                entry.due();
            }
        }
        self.wanted = set.references.iter().cloned().collect();
        self.set = Some(set);
        self.settle_all();
    }

    /// Begins a look at an image for a caller.
    pub(super) fn ask(&mut self, reference: &Reference, ask: Ask) {
        let entry = self.entry(reference);
        entry.asks.push(ask);
        entry.due();
        self.settle(reference);
    }

    /// The engine does not answer, for this reason.
    pub(super) fn engine_down(&mut self, reason: String) {
        let down = Reach::Down(reason);
        if self.engine != down {
            self.engine = down;
            self.version += 1;
        }
    }

    /// The engine answers with a list of its images, which it was asked for at `began`.
    pub(super) fn hold(&mut self, engine: &EngineInfo, images: &[HeldImage], began: Instant) {
        if !self.engine_is_up() {
            for entry in self.entries.values_mut().filter(|entry| entry.failure.is_some()) {
                entry.due();
            }
        }
        let up = Reach::Up(engine.clone());
        if self.engine != up {
            self.engine = up;
            self.version += 1;
        }
        self.held = images.iter().map(|image| image.engine_image_id).collect();
        let mut named = BTreeMap::new();
        for image in images {
            let HeldImage { engine_image_id: id, config_digest, proven, .. } = *image;
            let held = Held { id, config_digest, proven, at: began };
            named.extend(image.references.iter().map(|reference| (reference, held)));
        }
        for (reference, entry) in &mut self.entries {
            let held = named.remove(reference);
            // A proof that is younger than the list knows more.
            if entry.held.is_none_or(|before| before.at <= began) {
                entry.held = held;
            }
        }
        let unwanted = self.entries.values().filter(|entry| !entry.is_wanted()).count();
        for (reference, held) in named.into_iter().take(MAX_UNWANTED.saturating_sub(unwanted)) {
            self.entry(reference).held = Some(held);
        }
        self.settle_all();
    }

    /// Begins every look that is due at `now`.
    pub(super) fn begin(&mut self, now: Instant, gate: Gate) -> Vec<Reference> {
        let round = self.set.as_ref().map(|set| set.round);
        let mut begun = Vec::new();
        for (reference, entry) in &mut self.entries {
            if matches!(entry.work, Work::Idle) && entry.due_at.is_some_and(|at| at <= now) {
                entry.work = Work::Due;
            }
            let may_begin = gate == Gate::Open || !entry.asks.is_empty();
            if matches!(entry.work, Work::Due) && may_begin {
                let asks = std::mem::take(&mut entry.asks);
                let round = round.filter(|_| entry.status.wanted_by == WantedBy::Host);
                entry.work = Work::UnderWay { stage: Stage::Resolve, round, asks, again: false };
                entry.due_at = None;
                begun.push(reference.clone());
            }
        }
        begun.iter().for_each(|reference| self.settle(reference));
        begun
    }

    /// Time of the next look; `None` without one.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let idle = self.entries.values().filter(|entry| matches!(entry.work, Work::Idle));
        idle.filter_map(|entry| entry.due_at).min()
    }

    /// Takes note of what happens to an image on its way.
    pub(super) fn observe(&mut self, reference: &Reference, kind: &EventKind) {
        let Some(entry) = self.entries.get_mut(reference) else { return };
        match (kind, &mut entry.work) {
            (EventKind::Entered(entered), Work::UnderWay { stage, .. }) => *stage = *entered,
            (EventKind::Planned { bytes_to_move, bytes_saved }, _) => {
                entry.status.bytes_to_move = *bytes_to_move;
                entry.status.bytes_saved = *bytes_saved;
            }
            (EventKind::Moved { bytes_moved }, _) => entry.status.bytes_moved = *bytes_moved,
            _ => return,
        }
        self.settle(reference);
    }

    /// Takes note of how a look ended.
    pub(super) fn done(&mut self, brought: Brought, now: Instant) {
        let Brought { report, fault } = brought;
        let reference = report.reference.clone();
        self.last = Some(LastSync { finished: SystemTime::now(), error: report.error.clone() });
        self.version += 1;
        let Some(entry) = self.entries.get_mut(&reference) else { return };
        let Work::UnderWay { round, asks, again, .. } =
            std::mem::replace(&mut entry.work, Work::Idle)
        else {
            return;
        };
        entry.looked(&report, fault, round, now);
        for ask in asks {
            // Nobody listens any more.
            let _gone = ask.answer.send(report.clone());
        }
        if again {
            entry.due();
        }
        self.settle(&reference);
    }

    /// True if a look is under way or a caller waits for one.
    pub(super) fn is_working(&self) -> bool {
        self.entries
            .values()
            .any(|entry| matches!(entry.work, Work::UnderWay { .. }) || !entry.asks.is_empty())
    }

    /// Grows with each change that a reader can see.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The status of one image.
    pub(crate) fn status(&self, reference: &Reference) -> Option<&ImageStatus> {
        self.entries.get(reference).map(|entry| &entry.status)
    }

    /// Every image whose status changed after `version`.
    pub(crate) fn since(&self, version: u64) -> impl Iterator<Item = &ImageStatus> {
        let changed = self.entries.values().filter(move |entry| version < entry.version);
        changed.map(|entry| &entry.status)
    }

    /// True if the engine listed its images and answers.
    pub(super) fn engine_is_up(&self) -> bool {
        matches!(self.engine, Reach::Up(_))
    }

    /// The engine as it last answered.
    pub(crate) fn engine(&self) -> &Reach<EngineInfo> {
        &self.engine
    }

    /// True once the host agent reported the wanted set.
    pub(super) fn is_known(&self) -> bool {
        self.set.is_some()
    }

    /// Result of the last look.
    pub(crate) fn last(&self) -> Option<LastSync> {
        self.last.clone()
    }

    /// Sync state of the range.
    pub(crate) fn standing(&self) -> Standing {
        let mut standing = Standing {
            known: self.is_known(),
            engine_up: self.engine_is_up(),
            ..Standing::default()
        };
        for entry in self.entries.values().filter(|entry| entry.is_wanted()) {
            standing.wanted += 1;
            match entry.status.state {
                ImageState::Present => {}
                ImageState::Pending | ImageState::OnItsWay(_) => standing.coming += 1,
                _ => standing.lost += 1,
            }
        }
        standing
    }

    /// A line on each wanted image that is not present.
    pub(crate) fn lacking(&self) -> impl Iterator<Item = String> {
        let wanted = self.entries.values().filter(|entry| entry.is_wanted());
        wanted.filter_map(|entry| lacks(&entry.status))
    }

    /// The entry of an image; a new one if there is none.
    fn entry(&mut self, reference: &Reference) -> &mut Entry {
        self.entries.entry(reference.clone()).or_insert_with(|| Entry::new(reference.clone()))
    }

    /// Recomputes the status of every image.
    fn settle_all(&mut self) {
        let all: Vec<_> = self.entries.keys().cloned().collect();
        all.iter().for_each(|reference| self.settle(reference));
    }

    /// Recomputes the status of an image; removes one that is neither wanted nor there.
    fn settle(&mut self, reference: &Reference) {
        let wanted_by = match () {
            () if self.wanted.contains(reference) => WantedBy::Host,
            () if self.own.contains(reference) => WantedBy::Agent,
            () => WantedBy::Nobody,
        };
        let Some(entry) = self.entries.get_mut(reference) else { return };
        entry.settle(wanted_by, &self.held);
        // Includes changes by an earlier look or event, not only by this settling.
        if entry.seen.as_ref() != Some(&entry.status) {
            self.version += 1;
            entry.version = self.version;
            entry.seen = Some(entry.status.clone());
        }
        if !entry.is_wanted() && entry.held.is_none() && !entry.is_busy() {
            self.entries.remove(reference);
            self.version += 1;
        }
    }
}

impl Entry {
    fn new(reference: Reference) -> Self {
        Self {
            status: ImageStatus::pending(reference, WantedBy::Nobody),
            version: 0,
            seen: None,
            held: None,
            expected: None,
            work: Work::Idle,
            due_at: None,
            retry: FIRST_PAUSE,
            mend: FIRST_MEND,
            failure: None,
            asks: Vec::new(),
        }
    }

    fn is_wanted(&self) -> bool {
        self.status.wanted_by != WantedBy::Nobody
    }

    fn is_busy(&self) -> bool {
        !matches!(self.work, Work::Idle) || !self.asks.is_empty()
    }

    /// There is a reason to look at the image now.
    fn due(&mut self) {
        (self.retry, self.mend, self.due_at) = (FIRST_PAUSE, FIRST_MEND, None);
        match &mut self.work {
            Work::UnderWay { again, .. } => *again = true,
            work => *work = Work::Due,
        }
    }

    /// Takes note of how a look ended that began in `round`.
    fn looked(
        &mut self,
        report: &ImageReport,
        fault: Option<Fault>,
        round: Option<u64>,
        now: Instant,
    ) {
        self.status.take(report);
        self.status.looked_round = round.or(self.status.looked_round);
        if let (None, Some(id)) = (fault, report.engine_image_id) {
            if report.outcome == Outcome::Synced {
                self.status.loaded_round = round.or(self.status.loaded_round);
            }
            self.expected = Some(id);
            let config_digest = report.config_digest;
            self.held = Some(Held { id, config_digest, proven: true, at: now });
            self.failure = None;
            return;
        }
        let error = report.error.clone().unwrap_or_default();
        self.failure = Some((fault.unwrap_or(Fault::Lasting), error));
        self.due_at = Some(now + self.retry);
        self.retry = LONGEST_PAUSE.min(self.retry * 2);
    }

    /// Works out the status.
    fn settle(&mut self, wanted_by: WantedBy, ids: &HashSet<EngineImageId>) {
        self.status.wanted_by = wanted_by;
        self.status.state = self.state(ids);
        let pinned = self.expected.filter(|_| self.status.state == ImageState::Present);
        self.status.engine_image_id = self.held.map(|held| held.id).or(pinned);
        if let Some(config_digest) = self.held.and_then(|held| held.config_digest) {
            self.status.config_digest = Some(config_digest);
        }
        match self.work {
            _ if !self.is_wanted() => self.forgo(),
            Work::Idle => self.mend(),
            _ => {}
        }
    }

    /// Drops an image that is no longer wanted; callers that asked for it are still answered.
    fn forgo(&mut self) {
        self.due_at = None;
        if matches!(self.work, Work::Due) && self.asks.is_empty() {
            self.work = Work::Idle;
        }
    }

    /// Has an image brought back that was removed or replaced, after a pause.
    fn mend(&mut self) {
        let is_lost = matches!(self.status.state, ImageState::Gone | ImageState::Replaced);
        match self.due_at {
            None if is_lost => {
                self.due_at = Some(Instant::now() + self.mend);
                self.mend = LONGEST_MEND.min(self.mend * 2);
            }
            // Somebody else brought it back.
            Some(_) if !is_lost && self.failure.is_none() => self.due_at = None,
            _ => {}
        }
    }

    fn state(&self, ids: &HashSet<EngineImageId>) -> ImageState {
        let found = self.found(ids);
        match (&self.work, &self.failure, found) {
            // A look at an image that is there changes nothing before it loads.
            (Work::UnderWay { stage, .. }, _, found) if loads(*stage) || found != Found::There => {
                ImageState::OnItsWay(*stage)
            }
            // The engine has another image than the host, and did not take the host's.
            (_, Some((Fault::Lasting, error)), _) => failed(error, true),
            (_, _, Found::There) => ImageState::Present,
            (_, Some((fault, error)), _) => failed(error, *fault != Fault::Away),
            (_, None, Found::Gone) => ImageState::Gone,
            (_, None, Found::Replaced) => ImageState::Replaced,
            (_, None, Found::Nothing) => ImageState::Pending,
        }
    }

    /// Compares the engine's image under the name with the proven one.
    fn found(&self, ids: &HashSet<EngineImageId>) -> Found {
        match (self.held, self.expected) {
            (Some(held), None) if held.proven => Found::There,
            (Some(held), Some(expected)) if held.id != expected => Found::Replaced,
            (Some(held), Some(_)) if held.proven => Found::There,
            // Engines do not list names by digest.
            (None, Some(expected)) if self.is_pinned() && ids.contains(&expected) => Found::There,
            (_, Some(_)) => Found::Gone,
            (_, None) => Found::Nothing,
        }
    }

    fn is_pinned(&self) -> bool {
        self.status.reference.digest().is_some()
    }
}

/// State of a name in an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The image, every layer confirmed.
    There,
    /// Not the image that was there, or not every layer of it.
    Gone,
    /// Another image than was there.
    Replaced,
    /// Nothing that counts, and there never was.
    Nothing,
}

/// True for stages in which the image under the name may differ from the earlier one.
fn loads(stage: Stage) -> bool {
    matches!(stage, Stage::Wait | Stage::Load | Stage::Heal | Stage::Tag)
}

fn failed(error: &str, is_permanent: bool) -> ImageState {
    ImageState::Failed { error: error.to_owned(), is_permanent }
}

/// One line on an image that is not present.
fn lacks(status: &ImageStatus) -> Option<String> {
    let reference = &status.reference;
    Some(match &status.state {
        ImageState::Present => return None,
        ImageState::Pending => format!("{reference} was not looked at yet"),
        ImageState::OnItsWay(_) => format!("{reference} is on its way"),
        ImageState::Gone => format!("{reference} was removed from the range's engine"),
        ImageState::Replaced => format!("{reference} names another image in the range now"),
        ImageState::Failed { error, .. } => format!("{reference} failed: {error}"),
    })
}

#[cfg(test)]
#[path = "table/tests.rs"]
mod tests;
