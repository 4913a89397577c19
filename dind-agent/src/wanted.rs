//! Keeping the engine in step with what is wanted, without being asked.
//!
//! ```text
//!   host agent: the set changed, or the host is back ──┐
//!   engine: it is back ────────────────────────────────┼──► every wanted image is looked at again
//!   an image failed: a pause went by ──────────────────┘    (proven: nothing moves)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use proto::RemoteHost;
use proto::client::RemoteError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use transfer::event::ImageReport;
use transfer::{Outcome, Reference};

use crate::engine::RangeEngine;
use crate::syncs::Syncs;

/// First pause before what failed is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause: an image that is built on the host later should come without a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// First pause before a host agent that went away is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Longest such pause.
const ASK_SELDOM: Duration = Duration::from_secs(5);

/// How long the host agent's first word is waited for, before what the agent was started with counts
/// as all that is wanted.
const FIRST_WORD: Duration = Duration::from_secs(3);

/// How often an engine that does not answer yet is asked: a range is ready this much later than it
/// could be.
const UNTIL_UP: Duration = Duration::from_millis(200);

/// How often an engine that answers is asked whether it still does.
const WHILE_UP: Duration = Duration::from_secs(1);

/// How the range stands to what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Images that are wanted, as far as it is known.
    pub(crate) wanted: usize,
    /// Whether the host agent said what is wanted.
    pub(crate) known: bool,
    /// Whether all of it is there, proven.
    pub(crate) complete: bool,
    /// Whether the engine answers.
    pub(crate) engine_up: bool,
}

/// Why the wanted images are looked at again.
#[derive(Clone, Debug, Default)]
struct Reasons {
    /// What the host agent said; `None` before its first word.
    set: Option<Vec<Reference>>,
    /// How often engine or host came back.
    returns: u64,
}

/// Keeps the engine in step.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Images that are wanted besides what the host agent says.
    own: Vec<Reference>,
    standing: watch::Sender<Standing>,
}

impl Keeper {
    /// With images that are wanted whatever the host agent says.
    pub(crate) fn new(own: Vec<Reference>) -> Self {
        Self { own, standing: watch::Sender::default() }
    }

    /// How the range stands now.
    pub(crate) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// How the range stands, and each change.
    pub(crate) fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Goes on until it is dropped; a load under way then goes on with its owner.
    pub(crate) async fn keep(&self, engine: &RangeEngine, host: &RemoteHost, syncs: &Syncs) {
        let reasons = watch::Sender::default();
        let told = reasons.subscribe();
        tokio::join!(
            listen(host, &reasons),
            self.watch_engine(engine, &reasons),
            self.follow(told, syncs)
        );
    }

    async fn watch_engine(&self, engine: &RangeEngine, reasons: &watch::Sender<Reasons>) {
        loop {
            while engine.ping().await.is_err() {
                sleep(UNTIL_UP).await;
            }
            self.standing.send_modify(|standing| standing.engine_up = true);
            reasons.send_modify(|reasons| reasons.returns += 1);
            while engine.ping().await.is_ok() {
                sleep(WHILE_UP).await;
            }
            tracing::warn!(engine = engine.address(), "the engine does not answer");
            self.standing.send_modify(|standing| standing.engine_up = false);
        }
    }

    /// Looks at each wanted image whenever there is a reason to.
    async fn follow(&self, mut reasons: watch::Receiver<Reasons>, syncs: &Syncs) {
        // Without it, a range would be in step with nothing for a moment.
        drop(timeout(FIRST_WORD, reasons.wait_for(|now| now.set.is_some())).await);
        let mut round = Round::default();
        let mut under_way = FuturesUnordered::new();
        round.wants(self.wanted(&reasons.borrow_and_update()));
        loop {
            for reference in round.next() {
                under_way.push(syncs.bring_in(reference));
            }
            self.stand(&round, reasons.borrow().set.is_some());
            tokio::select! {
                Some(report) = under_way.next(), if !under_way.is_empty() => {
                    // None: the agent is ending.
                    let Some(report) = report else { return std::future::pending().await };
                    round.done(&report);
                }
                changed = reasons.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    round.wants(self.wanted(&reasons.borrow_and_update()));
                }
                () = sleep_until(round.again_at), if round.has_failed() => round.again(),
            }
        }
    }

    /// All that is wanted, each once.
    fn wanted(&self, reasons: &Reasons) -> BTreeSet<Reference> {
        self.own.iter().chain(reasons.set.iter().flatten()).cloned().collect()
    }

    fn stand(&self, round: &Round, known: bool) {
        self.standing.send_if_modified(|standing| {
            let (wanted, complete) = (round.images.len(), round.is_complete());
            let before = standing.clone();
            *standing = Standing { wanted, known, complete, ..before.clone() };
            *standing != before
        });
    }
}

/// Where a wanted image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be looked at.
    Due,
    /// Being looked at; `again` when there was a reason since.
    UnderWay {
        again: bool,
    },
    /// There, proven.
    There,
    Failed,
}

/// Where every wanted image is.
#[derive(Debug)]
struct Round {
    images: BTreeMap<Reference, State>,
    /// Images that are not wanted any more and still on their way.
    leaving: BTreeSet<Reference>,
    pause: Duration,
    again_at: Instant,
}

impl Default for Round {
    fn default() -> Self {
        Self {
            images: BTreeMap::new(),
            leaving: BTreeSet::new(),
            pause: FIRST_PAUSE,
            again_at: Instant::now(),
        }
    }
}

impl Round {
    /// There is a reason to look at all of these, and at nothing else.
    fn wants(&mut self, wanted: BTreeSet<Reference>) {
        let before = std::mem::take(&mut self.images);
        for (reference, state) in before {
            if matches!(state, State::UnderWay { .. }) {
                self.leaving.insert(reference);
            }
        }
        for reference in wanted {
            let state = match self.leaving.remove(&reference) {
                true => State::UnderWay { again: true },
                false => State::Due,
            };
            self.images.insert(reference, state);
        }
        (self.pause, self.again_at) = (FIRST_PAUSE, Instant::now() + FIRST_PAUSE);
    }

    /// Those whose turn it is now.
    fn next(&mut self) -> Vec<Reference> {
        let due = self.images.iter_mut().filter(|(_, state)| **state == State::Due);
        due.map(|(reference, state)| {
            *state = State::UnderWay { again: false };
            reference.clone()
        })
        .collect()
    }

    fn done(&mut self, report: &ImageReport) {
        self.leaving.remove(&report.reference);
        let is_first = !self.has_failed();
        let Some(state) = self.images.get_mut(&report.reference) else { return };
        *state = match (*state, report.outcome) {
            (State::UnderWay { again: true }, _) => State::Due,
            (_, Outcome::Failed) => State::Failed,
            _ => State::There,
        };
        if *state == State::Failed && is_first {
            self.again_at = Instant::now() + self.pause;
        }
    }

    fn has_failed(&self) -> bool {
        self.images.values().any(|state| *state == State::Failed)
    }

    fn is_complete(&self) -> bool {
        self.images.values().all(|state| *state == State::There)
    }

    /// The pause is over: those that failed are due.
    fn again(&mut self) {
        for state in self.images.values_mut().filter(|state| **state == State::Failed) {
            *state = State::Due;
        }
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
        self.again_at = Instant::now() + self.pause;
    }
}

/// Hears what the host agent says for this range, and asks again whenever it went away.
async fn listen(host: &RemoteHost, reasons: &watch::Sender<Reasons>) {
    let mut pause = ASK_AGAIN;
    loop {
        match host.watch_wanted().await {
            Ok(mut sets) => {
                while let Some(Ok(set)) = sets.next().await {
                    tracing::info!(images = set.references.len(), set.revision, "wanted");
                    pause = ASK_AGAIN;
                    reasons.send_modify(|reasons| {
                        reasons.set = Some(set.references);
                        reasons.returns += 1;
                    });
                }
            }
            // An older agent, or a listener that is no range's: it keeps no set for us.
            Err(error @ RemoteError::Refused { .. }) => {
                let error = transfer::explain(&error);
                tracing::info!(error, "the host agent keeps no wanted set for this range");
                sleep(LONGEST_PAUSE).await;
            }
            Err(error) => tracing::debug!(error = transfer::explain(&error), "the host is away"),
        }
        sleep(pause).await;
        pause = ASK_SELDOM.min(pause * 2);
    }
}

#[cfg(test)]
#[path = "wanted/tests.rs"]
mod tests;
