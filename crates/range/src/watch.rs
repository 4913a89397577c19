//! Watches one range: until its engine answers, until its images arrived.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use control::RangeName;
use control::admin::ServedRange;
use control::link::Attachment;
use control::range::Reach;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use transfer::EngineInfo;

use crate::error::RangeError;
use crate::feed::{Away, Feed, Latest};
use crate::liveness::Check;

/// The pause between two looks at a range that reports nothing.
const LOOK: Duration = Duration::from_millis(500);

/// A watch of one range.
pub(crate) struct Watch<'a> {
    feed: &'a Feed<'a>,
    range: &'a RangeName,
    /// Maximum absence of the host agent, and then of the range.
    patience: Duration,
    reports: watch::Receiver<Latest>,
    latest: Option<Arc<ServedRange>>,
    away: Option<Away>,
    /// Time of the last change, or of the watch's begin.
    heard: Instant,
    /// The attachment of an agent that ended, or is about to.
    ended: Option<SystemTime>,
    /// Time of the agent's last message before it was asked for something.
    asked: Option<SystemTime>,
}

impl<'a> Watch<'a> {
    /// A watch that begins with the latest state that is known.
    pub(crate) fn of(feed: &'a Feed<'a>, range: &'a RangeName, patience: Duration) -> Self {
        let reports = feed.subscribe();
        let latest = reports.borrow().ranges.get(range).cloned().flatten();
        let heard = Instant::now();
        Self { feed, range, patience, reports, latest, away: None, heard, ended: None, asked: None }
    }

    /// The latest state of the range; absent until the host agent reported one.
    pub(crate) fn latest(&self) -> Option<&ServedRange> {
        self.latest.as_deref()
    }

    /// True if the range's agent is attached, as far as it is known.
    pub(crate) fn is_attached(&self) -> bool {
        self.away.is_none() && self.attached_since().is_some_and(|since| Some(since) != self.ended)
    }

    /// Takes the agent that is attached now for one that is about to end.
    pub(crate) fn expect_another(&mut self) {
        self.asked = None;
        self.ended = self.attached_since().or(self.ended);
    }

    /// Expects an answer of an agent that was attached when it was asked for something: a frozen one
    /// stays attached for a while.
    pub(crate) fn expect_answer(&mut self, before: Attachment) {
        self.asked = match before {
            Attachment::Attached { last_seen, .. } => Some(last_seen),
            Attachment::Never | Attachment::Detached { .. } => None,
        };
    }

    /// Time since the last news of the range.
    pub(crate) fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// True if the range was away for too long, as reported by a host agent that is there.
    pub(crate) fn is_over(&self) -> bool {
        self.away.is_none() && !self.is_attached() && self.patience <= self.silence()
    }

    /// Waits for the next change, but not for long.
    ///
    /// # Errors
    /// [`RangeError::Gone`] when the host agent knows the range no more, [`RangeError::HostAgent`]
    /// when that is away for too long.
    pub(crate) async fn look(&mut self) -> Result<(), RangeError> {
        // An error of either kind means that there is nothing new.
        let _news = timeout(LOOK, self.reports.changed()).await;
        let latest = self.reports.borrow_and_update();
        match latest.ranges.get(self.range) {
            Some(Some(now)) if !self.latest.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, now)) => {
                self.latest = Some(now.clone());
                self.heard = Instant::now();
            }
            Some(None) if self.latest.is_some() => {
                return Err(RangeError::Gone { range: self.range.clone() });
            }
            _ => {}
        }
        self.away.clone_from(&latest.away);
        match &self.away {
            Some(away) if away.is_refused || self.patience <= away.since.elapsed() => {
                Err(self.feed.failed(away))
            }
            _ => Ok(()),
        }
    }

    /// Waits at most `limit` until the range's agent is attached and its engine answers. `check` looks
    /// at its container meanwhile.
    ///
    /// # Errors
    /// Those of `check` and of [`look`](Self::look); [`RangeError::NotReady`].
    pub(crate) async fn ready(
        &mut self,
        limit: Duration,
        check: &mut dyn Check,
    ) -> Result<EngineInfo, RangeError> {
        let started = Instant::now();
        loop {
            let reason = match self.engine() {
                Ok(engine) => return Ok(engine),
                Err(reason) => reason,
            };
            check.check().await?;
            if limit <= started.elapsed() {
                let (range, seconds) = (self.range.clone(), limit.as_secs());
                return Err(RangeError::NotReady { range, seconds, reason });
            }
            self.look().await?;
        }
    }

    fn engine(&self) -> Result<EngineInfo, String> {
        if self.ended.is_some() && self.attached_since() == self.ended {
            return Err("its agent did not reach the host agent yet".to_owned());
        }
        match self.latest().map(|range| range.attachment) {
            Some(Attachment::Attached { last_seen, .. }) if self.asked == Some(last_seen) => {
                Err("its agent did not answer yet".to_owned())
            }
            _ => engine_of(self.latest()),
        }
    }

    fn attached_since(&self) -> Option<SystemTime> {
        match self.latest.as_ref()?.attachment {
            Attachment::Attached { since, .. } => Some(since),
            Attachment::Never | Attachment::Detached { .. } => None,
        }
    }
}

/// The engine of a range that is up, or why it is not.
pub(crate) fn engine_of(range: Option<&ServedRange>) -> Result<EngineInfo, String> {
    let Some(range) = range else {
        return Err("the host agent did not report it yet".to_owned());
    };
    match range.attachment {
        Attachment::Never => return Err("its agent did not reach the host agent yet".to_owned()),
        Attachment::Detached { last_seen } => {
            let seconds = last_seen.elapsed().unwrap_or_default().as_secs();
            return Err(format!("its agent lost the host agent; it was last seen {seconds} s ago"));
        }
        Attachment::Attached { .. } => {}
    }
    match range.state.as_ref().map(|state| &state.agent.engine) {
        Some(Reach::Up(engine)) => Ok(engine.clone()),
        Some(Reach::Down(reason)) => Err(reason.clone()),
        Some(Reach::Unknown) | None => Err("its engine was not asked yet".to_owned()),
    }
}

#[cfg(test)]
mod tests;
