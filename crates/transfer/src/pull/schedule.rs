//! The load plan over all images that are under way: who loads what, and when.
//!
//! ```text
//!              ┌──────────────── again: plan with what is there now ──────────────┐
//!              ▼                                                                  │
//!   look ► Looking ─ needs ─► Waiting ─┬─ free, and nobody else lacks it ► whole  │
//!                                      ├─ free, others lack its base too ► base ──┤
//!                                      └─ somebody brings in what it lacks ───────┘
//! ```
//! - A layer that several images lack goes in once, and first: the one with most to load brings in
//!   the layers that others lack as well, as an image of their own, and all of them look again.
//! - Then the images load at once, as many as the engine gains from, the largest first: what is left
//!   at the end should be short.
//! - Nobody begins while others are still looking, but not for long: they may lack the same.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::digest::Digest;

/// How long an image that could begin waits for others that are still looking. A host that has to
/// export an image before it can tell its layers takes longer, and is not waited for.
const GRACE: Duration = Duration::from_millis(250);

/// How long images go in whole after a base was refused. An engine that refuses every one costs a
/// base's load in this time; one that was full, or restarting, gets shared layers once again.
pub(super) const WHOLE_FOR: Duration = Duration::from_secs(600);

/// What an image lacks.
#[derive(Clone, Debug, Default)]
pub(super) struct Needs {
    /// What nobody else may bring in at the same time, besides the layers: the image itself.
    pub(super) image: Vec<Digest>,
    /// The layers that it lacks, the base first; empty where loads see each other's layers.
    pub(super) layers: Vec<NeededLayer>,
    /// Bytes that it lacks.
    pub(super) bytes: u64,
}

/// A layer that an image lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NeededLayer {
    /// What the engine knows it by.
    pub(super) key: Digest,
    /// The stack that ends with it: the same for two images that have the same base up to here.
    pub(super) stack: Digest,
}

impl Needs {
    fn keys(&self) -> impl Iterator<Item = Digest> + '_ {
        self.image.iter().copied().chain(self.layers.iter().map(|layer| layer.key))
    }

    /// How many of the layers, from the base on, all of the same others lack as well.
    fn shared(&self, others: &[&Self]) -> usize {
        let sharers = |layer: &NeededLayer| -> Vec<usize> {
            let lacks = |other: &&Self| other.layers.iter().any(|l| l.stack == layer.stack);
            let found = others.iter().enumerate().filter(|(_, other)| lacks(other));
            found.map(|(position, _)| position).collect()
        };
        let Some(first) = self.layers.first().map(&sharers).filter(|all| !all.is_empty()) else {
            return 0;
        };
        self.layers.iter().take_while(|layer| sharers(layer) == first).count()
    }
}

/// Who brings in what.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Loads at once, at least one.
    limit: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    looking: usize,
    waiting: BTreeMap<u64, Waiting>,
    /// What is being brought in.
    held: HashSet<Digest>,
    loading: usize,
    next: u64,
    /// Until when layers that are shared are not to be brought in on their own.
    whole_until: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    needs: Needs,
    since: Instant,
    granted: Option<Decision>,
}

/// What an image that waited is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Load all that it lacks.
    Whole,
    /// Load so many of the layers that it lacks, from the base on.
    Base(usize),
    /// Plan again: somebody brought in what it lacks, or failed to.
    Again,
}

/// An image's place on the schedule; dropping it lets others go on.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    schedule: &'a Schedule,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    Looking,
    Waiting(u64),
    Loading(Vec<Digest>),
}

/// What comes of waiting.
#[derive(Debug)]
pub(super) enum Grant<'a> {
    /// Load all that is lacking, and drop the slot when it is proven.
    Whole(Slot<'a>),
    /// Load so many of the layers that are lacking, from the base on, and [`Slot::look_again`].
    Base(Slot<'a>, usize),
    /// Plan again.
    Again(Slot<'a>),
}

impl Schedule {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), state: Mutex::default(), changed: Notify::new() }
    }

    /// A slot for an image of which nobody knows yet what it lacks.
    pub(super) fn look(&self) -> Slot<'_> {
        self.lock().looking += 1;
        Slot { schedule: self, state: SlotState::Looking }
    }

    /// For [`WHOLE_FOR`] nobody is told to bring in a base on its own. Who is told so already goes on.
    pub(super) fn only_whole(&self) {
        self.lock().whole_until = Some(Instant::now() + WHOLE_FOR);
    }

    /// Whether there is nobody.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.looking == 0 && state.loading == 0 && state.waiting.is_empty()
    }

    /// Changes the state, and wakes whoever that concerns.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let decided = state.decide(self.limit, Instant::now());
        drop(state);
        if decided {
            self.changed.notify_waiters();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Tells those who wait what they are to do, as far as it can be said. Whether anybody was told.
    fn decide(&mut self, limit: usize, now: Instant) -> bool {
        let mut order: Vec<u64> = self.undecided().map(|(ticket, _)| ticket).collect();
        order.sort_by_key(|ticket| std::cmp::Reverse(self.waiting[ticket].needs.bytes));
        let mut decided = false;
        for ticket in order {
            if limit <= self.loading {
                break;
            }
            let Waiting { needs, since, .. } = &self.waiting[&ticket];
            let settled = self.looking == 0 || *since + GRACE <= now;
            if !settled || needs.keys().any(|key| self.held.contains(&key)) {
                continue;
            }
            let (ticket, granted) = self.grant(ticket, now);
            let Some(waiting) = self.waiting.get_mut(&ticket) else { continue };
            waiting.granted = Some(granted);
            self.held.extend(waiting.needs.granted(granted));
            self.loading += 1;
            decided = true;
        }
        decided
    }

    /// What is granted in the turn of this image, and to whom.
    fn grant(&self, ticket: u64, now: Instant) -> (u64, Decision) {
        let needs = &self.waiting[&ticket].needs;
        // The same image under another name comes with it.
        let is_other = |other: &Needs| !other.image.iter().any(|same| needs.image.contains(same));
        let others: Vec<(u64, &Needs)> = self
            .undecided()
            .map(|(other, waiting)| (other, &waiting.needs))
            .filter(|(_, other)| is_other(other))
            .collect();
        let lacking: Vec<&Needs> = others.iter().map(|(_, needs)| *needs).collect();
        let count = needs.shared(&lacking);
        if count == 0 || self.whole_until.is_some_and(|until| now < until) {
            return (ticket, Decision::Whole);
        }
        // One that lacks just that needs no base made up for it.
        let base = needs.layers[..count].last();
        match others.iter().find(|(_, other)| other.layers.last() == base) {
            Some((other, _)) => (*other, Decision::Whole),
            None => (ticket, Decision::Base(count)),
        }
    }

    fn undecided(&self) -> impl Iterator<Item = (u64, &Waiting)> {
        let undecided = self.waiting.iter().filter(|(_, waiting)| waiting.granted.is_none());
        undecided.map(|(ticket, waiting)| (*ticket, waiting))
    }

    /// Ends a load: whoever waits for what it held looks again.
    fn release(&mut self, keys: &[Digest]) {
        self.loading -= 1;
        for key in keys {
            self.held.remove(key);
        }
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.granted.is_none()) {
            if waiting.needs.keys().any(|key| keys.contains(&key)) {
                waiting.granted = Some(Decision::Again);
                // Before it even knows: nobody should begin without it.
                self.looking += 1;
            }
        }
    }
}

impl Needs {
    /// What is held by who was granted this.
    fn granted(&self, granted: Decision) -> Vec<Digest> {
        match granted {
            Decision::Whole => self.keys().collect(),
            Decision::Base(count) => self.layers[..count].iter().map(|layer| layer.key).collect(),
            Decision::Again => Vec::new(),
        }
    }
}

impl<'a> Slot<'a> {
    /// Says what the image lacks, and waits for its turn.
    ///
    /// All that is granted is granted at once, so two images that lack each other's layers cannot
    /// wait for one another.
    pub(super) async fn turn(mut self, needs: Needs) -> Grant<'a> {
        let schedule = self.schedule;
        let since = Instant::now();
        let ticket = schedule.change(|state| {
            let ticket = state.next;
            state.next += 1;
            state.looking -= 1;
            state.waiting.insert(ticket, Waiting { needs, since, granted: None });
            ticket
        });
        self.state = SlotState::Waiting(ticket);
        let mut in_grace = true;
        loop {
            let changed = schedule.changed.notified();
            tokio::pin!(changed);
            // Listen before looking, or a change between the two is missed.
            changed.as_mut().enable();
            if let Some((state, granted)) = schedule.take(ticket) {
                self.state = state;
                return match granted {
                    Decision::Whole => Grant::Whole(self),
                    Decision::Base(count) => Grant::Base(self, count),
                    Decision::Again => Grant::Again(self),
                };
            }
            tokio::select! {
                () = changed => {}
                () = sleep_until(since + GRACE), if in_grace => {
                    in_grace = false;
                    schedule.change(|_| ());
                }
            }
        }
    }

    /// Ends the load of a base: the image itself is planned again.
    pub(super) fn look_again(mut self) -> Self {
        self.leave(|state| state.looking += 1);
        self.state = SlotState::Looking;
        self
    }

    /// Leaves the place for what `next` does.
    fn leave(&mut self, next: impl FnOnce(&mut State)) {
        let schedule = self.schedule;
        schedule.change(|state| {
            match &self.state {
                SlotState::Looking => state.looking -= 1,
                SlotState::Loading(keys) => state.release(keys),
                SlotState::Waiting(ticket) => state.give_up(*ticket),
            }
            next(state);
        });
        schedule.changed.notify_waiters();
    }
}

impl Schedule {
    /// What was granted, once it is.
    fn take(&self, ticket: u64) -> Option<(SlotState, Decision)> {
        let mut state = self.lock();
        let granted = state.waiting.get(&ticket)?.granted?;
        let waiting = state.waiting.remove(&ticket)?;
        let state = match granted {
            Decision::Again => SlotState::Looking,
            granted => SlotState::Loading(waiting.needs.granted(granted)),
        };
        Some((state, granted))
    }
}

impl State {
    /// Somebody who waited went away, perhaps just after being told to go on.
    fn give_up(&mut self, ticket: u64) {
        let Some(waiting) = self.waiting.remove(&ticket) else { return };
        match waiting.granted {
            None => {}
            Some(Decision::Again) => self.looking -= 1,
            Some(granted) => self.release(&waiting.needs.granted(granted)),
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.leave(|_| ());
    }
}

#[cfg(test)]
#[path = "schedule/tests.rs"]
mod tests;
