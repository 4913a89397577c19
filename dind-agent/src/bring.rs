//! One image's way in, with as many attempts as it takes while the engine or the host is away.
//!
//! ```text
//!              ┌── engine or host away: wait, try again ──┐
//!              ▼                                          │
//!   bring ► attempt ────────────────────────────────────► ? ──► report
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use transfer::event::{EventKind, ImageReport};
use transfer::pull::{PullError, Puller};
use transfer::{Event, LoadError, Observer, Outcome, Reference, SourceError, Stage};

/// Maximum absence of the engine or the host before an attempt is given up: longer than either
/// takes to start again with all its data.
const AWAY_LIMIT: Duration = Duration::from_secs(180);

/// Most loads of one image that may be broken off. An image that ends its engine each time is given
/// up.
const MAX_LOADS: usize = 8;

/// First pause before another attempt; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Result of bringing in an image.
#[derive(Clone, Debug)]
pub(crate) struct Brought {
    /// The report, of all attempts together.
    pub(crate) report: ImageReport,
    /// Cause of the failure; `None` when the image is there.
    pub(crate) fault: Option<Fault>,
}

/// The kinds of failure that a caller treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The engine or the host did not answer for so long that the attempt was given up.
    Away,
    /// The host does not have the image.
    NotOnHost,
    /// Anything else. Another attempt does not help until somebody acts.
    Lasting,
}

impl Fault {
    fn of(error: &PullError) -> Self {
        match error {
            PullError::Source(SourceError::NotFound { .. }) => Self::NotOnHost,
            error if error.is_absence() => Self::Away,
            _ => Self::Lasting,
        }
    }
}

impl Brought {
    /// The result of a task that panicked.
    pub(crate) fn broken(reference: Reference) -> Self {
        let report = ImageReport {
            reference,
            config_digest: None,
            engine_image_id: None,
            outcome: Outcome::Failed,
            proven: false,
            bytes_moved: 0,
            bytes_saved: 0,
            stages: Vec::new(),
            error: Some("the agent failed while it brought the image in; its log says why".into()),
        };
        Self { report, fault: Some(Fault::Lasting) }
    }

    /// Logs the result, once.
    pub(crate) fn log(&self) {
        let ImageReport { reference, bytes_moved, bytes_saved, .. } = &self.report;
        let seconds = self.report.seconds();
        match (&self.report.error, self.report.outcome) {
            (None, Outcome::Synced) => {
                tracing::info!(image = %reference, bytes_moved, bytes_saved, seconds, "loaded");
            }
            (None, _) => tracing::info!(image = %reference, bytes_saved, seconds, "already there"),
            (Some(error), _) => tracing::warn!(image = %reference, bytes_moved, error, "failed"),
        }
    }
}

/// Brings an image in by `puller`, and tells `observer` what happens, except the results of single
/// attempts.
pub(crate) async fn bring(
    puller: &Puller,
    reference: &Reference,
    observer: Arc<dyn Observer>,
) -> Brought {
    let observer: Arc<dyn Observer> = Arc::new(move |event: Event| {
        if !matches!(event.kind, EventKind::Done(_)) {
            observer.observe(event);
        }
    });
    let mut patience = Patience::new();
    let mut before: Option<ImageReport> = None;
    loop {
        let (report, error) = puller.attempt(reference.clone(), observer.clone()).await;
        let loaded = report.stages.iter().any(|(stage, _)| *stage == Stage::Load);
        let report = joined(before.take(), report);
        let Some(error) = error else { return Brought { report, fault: None } };
        if !patience.allows(&error, loaded) {
            return Brought { report, fault: Some(Fault::of(&error)) };
        }
        let pause = patience.pause();
        tracing::info!(image = %reference, ?pause, error = error.explain(), "trying again");
        sleep(pause).await;
        before = Some(report);
    }
}

/// The report of an image that took several attempts.
fn joined(before: Option<ImageReport>, mut now: ImageReport) -> ImageReport {
    let Some(before) = before else { return now };
    now.bytes_moved += before.bytes_moved;
    now.stages.splice(0..0, before.stages);
    let came_in = 0 < before.bytes_moved || before.outcome == Outcome::Synced;
    if now.outcome == Outcome::Skipped && came_in {
        // It came in with the attempt before.
        now.outcome = Outcome::Synced;
        now.bytes_saved = before.bytes_saved;
    }
    now
}

/// Patience with an engine or a host that is away.
struct Patience {
    since: Instant,
    loads: usize,
    next: Duration,
}

impl Patience {
    fn new() -> Self {
        Self { since: Instant::now(), loads: 0, next: FIRST_PAUSE }
    }

    /// True if another attempt may help after `error`. `loaded` is true if the failed attempt got
    /// as far as the load.
    fn allows(&mut self, error: &PullError, loaded: bool) -> bool {
        if loaded {
            // It got that far, so neither has been away for long.
            self.loads += 1;
            (self.since, self.next) = (Instant::now(), FIRST_PAUSE);
        }
        // An engine that was killed in a load may refuse its own leftovers, once.
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

#[cfg(test)]
#[path = "bring/tests.rs"]
mod tests;
