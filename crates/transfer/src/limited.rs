//! Bounds on streams and bytes in flight.
//!
//! A stream reserves what it may have in flight when it is opened, and keeps the reservation until
//! it is dropped. So a stream that began can always continue. Bounds taken frame by frame could
//! leave every stream waiting for the last frame of another.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::blob::MAX_FRAME;

/// Most bytes that one stream may have in flight: two frames read ahead by the source, one at work
/// between, and three in a connection (being written, queued, examined for the next).
pub const WINDOW: usize = 6 * MAX_FRAME;

/// Reservations are counted in units of this many bytes, so that any limit fits a semaphore.
const UNIT: u64 = 1024;

/// Bounds on the number of streams and on their bytes in flight. Clones share the bounds.
#[derive(Clone, Debug)]
pub struct Limits {
    streams: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// Size of `bytes` in [`UNIT`]s; no stream reserves more.
    most: u32,
}

impl Limits {
    /// Allows at most `streams` streams with `bytes` bytes in flight together; at least one stream.
    ///
    /// Fewer bytes than [`WINDOW`] per stream lower the number of large blobs read at once. They do
    /// not lower the number of small ones.
    #[must_use]
    pub fn new(streams: usize, bytes: u64) -> Self {
        let most = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        Self {
            streams: Arc::new(Semaphore::new(streams.clamp(1, Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(most as usize)),
            most,
        }
    }

    /// Waits until one more stream, with `bytes` still to come, may begin. It reserves that many
    /// bytes, and at most [`WINDOW`].
    pub async fn reserve(&self, bytes: u64) -> Reserved {
        let units = bytes.min(WINDOW as u64).div_ceil(UNIT);
        let units = u32::try_from(units).unwrap_or(self.most).clamp(1, self.most);
        let open = "invariant: these semaphores are never closed";
        // Always in this order: two openers never wait for each other.
        let stream = self.streams.clone().acquire_owned().await.expect(open);
        let bytes = self.bytes.clone().acquire_many_owned(units).await.expect(open);
        Reserved { _permits: [stream, bytes] }
    }
}

/// Room for one stream; dropping it makes room for the next.
#[derive(Debug)]
pub struct Reserved {
    _permits: [OwnedSemaphorePermit; 2],
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const LARGE: u64 = 2 * WINDOW as u64;

    #[tokio::test]
    async fn a_stream_more_than_allowed_waits_for_another_to_end() {
        let limits = Limits::new(2, 1 << 30);
        let first = limits.reserve(LARGE).await;
        let _second = limits.reserve(LARGE).await;
        assert!(limits.reserve(LARGE).now_or_never().is_none());
        drop(first);
        assert!(limits.reserve(LARGE).now_or_never().is_some(), "there is room again");
    }

    #[tokio::test]
    async fn bytes_bound_large_blobs_and_let_small_ones_pass() {
        let limits = Limits::new(100, WINDOW as u64 + 2 * UNIT);
        let _large = limits.reserve(LARGE).await;
        assert!(limits.reserve(LARGE).now_or_never().is_none());
        let _small = limits.reserve(5).now_or_never().expect("a small one fits");
    }

    #[tokio::test]
    async fn a_blob_larger_than_all_that_is_allowed_still_passes_alone() {
        let limits = Limits::new(1, 1);
        for size in [LARGE, 0, LARGE] {
            let alone = limits.reserve(size).now_or_never().expect("nobody else is there");
            assert!(limits.reserve(0).now_or_never().is_none());
            drop(alone);
        }
    }
}
