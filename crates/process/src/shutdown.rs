//! Ending well: the first signal drains, the second ends.
//!
//! ```text
//! serving ──SIGTERM, SIGINT──► draining ──all streams done──────► exit 0
//!                                  ├─────the drain's time is up──► exit 0, and the log says so
//!                                  └─────a second signal─────────► exit 130
//! ```

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Tells everyone in a process that it is to end. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
}

impl Shutdown {
    /// Begins a drain: take nothing new, finish everything under way.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Returns once a drain began.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// A token that is cancelled when a drain begins.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Runs `work`; once draining has begun it has `limit` left. `None` when that was too short:
    /// the rest of it was dropped.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let late = async {
            self.draining().await;
            tokio::time::sleep(limit).await;
        };
        tokio::select! {
            done = work => Some(done),
            () = late => None,
        }
    }
}

/// Lets signals drive `shutdown`; the future that it gives returns at the second signal.
///
/// # Errors
/// The system's own, when signals cannot be listened to.
pub fn on_signals(shutdown: Shutdown) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        for second in [false, true] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if second {
                tracing::warn!(signal = name, "second signal: ending at once");
            } else {
                tracing::info!(signal = name, "draining");
                shutdown.drain();
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_goes_on_while_nobody_asks_for_the_end() {
        let shutdown = Shutdown::default();
        let work = tokio::time::sleep(Duration::from_secs(3600));
        assert_eq!(shutdown.within(Duration::from_secs(1), work).await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn draining_leaves_the_rest_of_the_work_its_time_and_no_more() {
        let shutdown = Shutdown::default();
        shutdown.drain();
        let short = tokio::time::sleep(Duration::from_secs(9));
        assert_eq!(shutdown.within(Duration::from_secs(10), short).await, Some(()));
        let long = tokio::time::sleep(Duration::from_secs(11));
        assert_eq!(shutdown.within(Duration::from_secs(10), long).await, None);
    }
}
