//! Limits on the ranges of one call that start and sync at once; a range that only waits holds no
//! slot.
//!
//! Engines start in waves. A new range that has everything to bring in begins with that as soon as its
//! engine is up, so it has its slot to sync before it is started; all others ask for that afterwards.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum silence of an engine that starts before its slots go to the next range. One starts in
/// about 2 s, and under load in some more.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);

/// The slots of one call, given in the order of the requests.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    starts: Arc<Semaphore>,
    syncs: Arc<Semaphore>,
}

/// Slots that one range holds, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    start: Option<OwnedSemaphorePermit>,
    sync: Option<OwnedSemaphorePermit>,
}

impl Slots {
    /// So many engines that start, and so many ranges that are synced, at least one of each.
    pub(crate) fn new(starts: usize, syncs: usize) -> Self {
        let of = |count: usize| Arc::new(Semaphore::new(count.max(1)));
        Self { starts: of(starts), syncs: of(syncs) }
    }

    /// Waits for a slot to make and start an engine, with the one to sync before it where that is
    /// needed. Always in this order, so that no two ranges wait for each other.
    pub(crate) async fn start(&self, with_sync: bool) -> Slot {
        let mut slot = Slot::default();
        if with_sync {
            self.sync(&mut slot).await;
        }
        // Never closed.
        slot.start = self.starts.clone().acquire_owned().await.ok();
        slot
    }

    /// Waits for a slot to sync, unless the range has it; one to start ends before.
    pub(crate) async fn sync(&self, slot: &mut Slot) {
        slot.start = None;
        if slot.sync.is_none() {
            slot.sync = self.syncs.clone().acquire_owned().await.ok();
        }
    }
}

impl Slot {
    /// Gives all to the next ranges.
    pub(crate) fn release(&mut self) {
        *self = Self::default();
    }

    /// Waits for `work`; after [`SILENCE`] it goes on without a slot.
    pub(crate) async fn patiently<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        match tokio::time::timeout(SILENCE, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                self.release();
                work.await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_range_that_only_waits_holds_nobody_back() {
        let slots = Slots::new(1, 0);
        let mut slot = slots.start(true).await;
        let frozen = tokio::spawn(async move {
            slot.patiently(tokio::time::sleep(SILENCE * 10)).await;
            slot.start.is_none() && slot.sync.is_none()
        });
        let begun = tokio::time::Instant::now();
        let _next = slots.start(true).await;
        assert_eq!(begun.elapsed(), SILENCE, "its slots are the next one's after that time");
        assert!(!frozen.is_finished());
        assert!(frozen.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_range_that_is_done_in_time_keeps_its_slots() {
        let slots = Slots::new(1, 1);
        let mut slot = slots.start(true).await;
        slot.patiently(tokio::time::sleep(SILENCE / 2)).await;
        assert!(slot.start.is_some() && slot.sync.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_range_is_started_only_when_it_may_sync_too() {
        let slots = Slots::new(4, 1);
        let mut first = slots.start(true).await;
        let second = slots.start(true);
        assert!(tokio::time::timeout(SILENCE, second).await.is_err(), "one syncs at a time");
        // One that brings nothing in does not wait for that.
        let copied = slots.start(false).await;
        assert!(copied.sync.is_none());
        slots.sync(&mut first).await;
        assert!(first.start.is_none() && first.sync.is_some(), "it keeps what it had");
        first.release();
        assert!(slots.start(true).await.sync.is_some());
    }
}
