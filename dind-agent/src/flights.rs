//! Images on their way in, each once: who asks for one that is under way watches it, and then looks.
//!
//! ```text
//!              ┌── engine or host away: wait, try again ──┐
//!              ▼                                          │
//!   begin ► attempt ────────────────────────────────────► ? ──► report ──► whoever asked
//!     ▲                                                              └────► kept, if nobody hears it
//!   second ──► watches, waits, then begins: proven already
//! ```
//!
//! An image that came in while nobody listened, since the control connection was lost or the agent
//! brought it in by itself, is told as it came to the next who asks soon.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use transfer::event::{EventKind, ImageReport};
use transfer::pull::{PullError, Puller};
use transfer::{Event, LoadError, Observer, Outcome, Reference, Stage};

/// How long engine and host may be away without an image getting any further: longer than either
/// takes to be started again with all its data.
const AWAY_LIMIT: Duration = Duration::from_secs(180);

/// Most loads of one image that may be broken off: an engine that this image brings down each time
/// should not be brought down for ever.
const MAX_LOADS: usize = 8;

/// First pause before another attempt; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a report that nobody heard is kept for who asks next.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// Most such reports.
const MAX_KEPT: usize = 1000;

/// Brings images in.
#[derive(Debug)]
pub(crate) struct Flights {
    puller: Puller,
    under_way: Mutex<HashMap<Reference, Flight>>,
    unheard: Mutex<HashMap<Reference, (Instant, ImageReport)>>,
}

/// One image under way, as those see it who watch.
struct Flight {
    watchers: Arc<Watchers>,
    ended: watch::Receiver<()>,
}

impl std::fmt::Debug for Flight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flight")
    }
}

impl Flights {
    /// Brings images in by `puller`, which knows how many it loads at once.
    pub(crate) fn new(puller: Puller) -> Self {
        Self { puller, under_way: Mutex::default(), unheard: Mutex::default() }
    }

    /// Brings one image in and says how it went; what happens on the way is told to `observer`, all
    /// but the result. `hears` says whether anybody will hear of that.
    pub(crate) async fn bring(
        &self,
        reference: &Reference,
        observer: Arc<dyn Observer>,
        hears: impl Fn() -> bool,
    ) -> ImageReport {
        let turn = loop {
            match self.join_or_begin(reference, &observer) {
                Ok(turn) => break turn,
                // It ends by dropping the other half.
                Err(mut under_way) => while under_way.changed().await.is_ok() {},
            }
        };
        let report = self.attempts(reference, &turn).await;
        self.heard_or_kept(report, hears())
    }

    /// This image's turn, or when to ask again: somebody has begun, and `observer` watches.
    fn join_or_begin(
        &self,
        reference: &Reference,
        observer: &Arc<dyn Observer>,
    ) -> Result<Turn<'_>, watch::Receiver<()>> {
        let mut under_way = lock(&self.under_way);
        if let Some(flight) = under_way.get(reference) {
            flight.watchers.add(observer.clone());
            return Err(flight.ended.clone());
        }
        let watchers = Arc::new(Watchers::default());
        watchers.add(observer.clone());
        let (end, ended) = watch::channel(());
        under_way.insert(reference.clone(), Flight { watchers: watchers.clone(), ended });
        Ok(Turn { flights: self, reference: reference.clone(), watchers, _end: end })
    }

    /// Attempts until one tells more than that somebody was away.
    async fn attempts(&self, reference: &Reference, turn: &Turn<'_>) -> ImageReport {
        let mut patience = Patience::new();
        let mut before: Option<ImageReport> = None;
        loop {
            let attempt = self.puller.attempt(reference.clone(), turn.watchers.clone()).await;
            let (report, error) = attempt;
            let loaded = report.stages.iter().any(|(stage, _)| *stage == Stage::Load);
            let report = joined(before.take(), report);
            let Some(error) = error.filter(|error| patience.allows(error, loaded)) else {
                return report;
            };
            let pause = patience.pause();
            tracing::info!(image = %reference, ?pause, error = error.explain(), "trying again");
            sleep(pause).await;
            before = Some(report);
        }
    }

    /// A report as it is to be told: with what came in before and nobody heard of. Kept where nobody
    /// hears this one either.
    fn heard_or_kept(&self, report: ImageReport, heard: bool) -> ImageReport {
        if report.outcome == Outcome::Failed {
            return report;
        }
        let mut unheard = lock(&self.unheard);
        unheard.retain(|_, (since, _)| since.elapsed() < KEPT_FOR);
        let before = unheard.remove(&report.reference).map(|(_, before)| before);
        let before = before.filter(|before| before.config_digest == report.config_digest);
        let report = joined(before, report);
        if !heard && report.outcome == Outcome::Synced && unheard.len() < MAX_KEPT {
            unheard.insert(report.reference.clone(), (Instant::now(), report.clone()));
        }
        report
    }
}

/// A report of an image that took more than one go.
fn joined(before: Option<ImageReport>, mut now: ImageReport) -> ImageReport {
    let Some(before) = before else { return now };
    now.bytes_moved += before.bytes_moved;
    now.stages.splice(0..0, before.stages);
    let came_in = 0 < before.bytes_moved || before.outcome == Outcome::Synced;
    if now.outcome == Outcome::Skipped && came_in {
        // It came in with the go before.
        now.outcome = Outcome::Synced;
        now.bytes_saved = before.bytes_saved;
    }
    now
}

/// The turn of who brings an image in; when it is dropped, the next may.
struct Turn<'a> {
    flights: &'a Flights,
    reference: Reference,
    watchers: Arc<Watchers>,
    _end: watch::Sender<()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.flights.under_way).remove(&self.reference);
    }
}

/// Who watches an image: each is told what happens, but not the result of an attempt.
#[derive(Default)]
struct Watchers(Mutex<Vec<Arc<dyn Observer>>>);

impl Watchers {
    fn add(&self, observer: Arc<dyn Observer>) {
        lock(&self.0).push(observer);
    }
}

impl Observer for Watchers {
    fn observe(&self, event: Event) {
        if !matches!(event.kind, EventKind::Done(_)) {
            lock(&self.0).iter().for_each(|observer| observer.observe(event.clone()));
        }
    }
}

/// How long somebody may be away.
struct Patience {
    since: Instant,
    loads: usize,
    next: Duration,
}

impl Patience {
    fn new() -> Self {
        Self { since: Instant::now(), loads: 0, next: FIRST_PAUSE }
    }

    /// Whether there is use in another attempt after `error`, with which one ended that had `loaded`.
    fn allows(&mut self, error: &PullError, loaded: bool) -> bool {
        if loaded {
            // It got that far, so nobody has been away for long.
            self.loads += 1;
            (self.since, self.next) = (Instant::now(), FIRST_PAUSE);
        }
        // An engine that was killed in a load may refuse what it left half done, once.
        let refused =
            matches!(error, PullError::Load(LoadError::Refused { .. }) | PullError::Unproven);
        let shaken = self.loads == 2 && refused;
        (error.is_absence() || shaken)
            && self.loads < MAX_LOADS
            && self.since.elapsed() < AWAY_LIMIT
    }

    fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = LONGEST_PAUSE.min(pause * 2);
        pause
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("invariant: no one panics while holding it")
}

#[cfg(test)]
#[path = "flights/tests.rs"]
mod tests;
