//! The latest state of all ranges, as the host agent reports it: followed once for a whole call.
//!
//! All that is followed is state. So a feed may begin late, and begins again when the host agent was
//! away.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control::RangeName;
use control::admin::{RangeChange, ServedRange};
use futures::StreamExt as _;
use proto::client::{RangeChanges, RemoteError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::error::RangeError;

/// The pause before the host agent is asked again.
const AGAIN: Duration = Duration::from_millis(250);

/// The reports of a host agent about its ranges.
#[async_trait]
pub(crate) trait Reports: Sync {
    /// The state of all ranges now, and of each after it changed.
    ///
    /// # Errors
    /// Any [`RemoteError`], at once.
    async fn watch(&self) -> Result<RangeChanges, RemoteError>;

    /// The error about reports that failed, for this reason.
    fn failed(&self, reason: String) -> RangeError;
}

/// The latest state of all ranges, while [`during`](Self::during) follows it.
pub(crate) struct Feed<'a> {
    host: &'a dyn Reports,
    latest: watch::Sender<Latest>,
}

/// Latest state.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    /// Each range that was reported; `None` for one that was removed then.
    pub(crate) ranges: BTreeMap<RangeName, Option<Arc<ServedRange>>>,
    /// The absence of the host agent.
    pub(crate) away: Option<Away>,
}

/// A host agent that does not report.
#[derive(Clone, Debug)]
pub(crate) struct Away {
    pub(crate) since: Instant,
    pub(crate) reason: String,
    /// True if it refused to report.
    pub(crate) is_refused: bool,
}

impl<'a> Feed<'a> {
    pub(crate) fn of(host: &'a dyn Reports) -> Self {
        Self { host, latest: watch::Sender::default() }
    }

    /// Follows the reports while `work` lasts.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            never = self.follow() => match never {},
        }
    }

    /// The latest state, and whether there is a newer one.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Latest> {
        self.latest.subscribe()
    }

    /// The error about reports that failed.
    pub(crate) fn failed(&self, away: &Away) -> RangeError {
        self.host.failed(away.reason.clone())
    }

    async fn follow(&self) -> Infallible {
        loop {
            let end = match self.host.watch().await {
                Ok(changes) => self.take(changes).await,
                Err(error) => Some(error),
            };
            let reason =
                end.as_ref().map_or("its reports ended".to_owned(), |e| transfer::explain(e));
            let is_refused = matches!(end, Some(RemoteError::Refused { .. }));
            self.latest.send_modify(|latest| {
                let since = latest.away.as_ref().map_or_else(Instant::now, |away| away.since);
                latest.away = Some(Away { since, reason, is_refused });
            });
            sleep(AGAIN).await;
        }
    }

    /// Takes the reports until they end.
    async fn take(&self, mut changes: RangeChanges) -> Option<RemoteError> {
        while let Some(change) = changes.next().await {
            let (name, range) = match change {
                Ok(RangeChange::Now(range)) => (range.name.clone(), Some(Arc::new(*range))),
                Ok(RangeChange::Removed(name)) => (name, None),
                Err(error) => return Some(error),
            };
            self.latest.send_modify(|latest| {
                latest.away = None;
                latest.ranges.insert(name, range);
            });
        }
        None
    }
}
