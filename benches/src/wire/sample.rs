//! One transfer between two peers.

use super::job::{Fetched, Usage};
use super::route::Route;

/// One transfer.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The route.
    pub route: Route,
    /// The sender's resources.
    pub server: Usage,
    /// The receiver's result and resources.
    pub fetched: Fetched,
}

impl Sample {
    /// Received bytes in units of 1e9.
    #[expect(clippy::cast_precision_loss, reason = "blobs are far below 2^52 bytes")]
    pub(super) fn gigabytes(&self) -> f64 {
        self.fetched.bytes as f64 / 1e9
    }

    pub(super) fn speed(&self) -> f64 {
        self.gigabytes() / self.fetched.seconds
    }
}

#[cfg(test)]
impl Sample {
    /// A sample of 2 GB with this time, and this CPU time at both ends.
    pub(super) fn made(route: Route, seconds: f64, cpu_seconds: f64) -> Self {
        let usage = Usage { cpu_seconds, peak_rss_bytes: 3 << 20 };
        Self { route, server: usage, fetched: Fetched { bytes: 2_000_000_000, seconds, usage } }
    }
}
