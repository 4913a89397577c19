//! How many ranges of one call do what at once; a range that only waits holds no slot.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a range may be silent before its slot goes to the next one. An engine starts in about
/// 2 s, and under load in some more.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);

/// The slots of one call, given in the order of the requests.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    starts: Arc<Semaphore>,
    syncs: Arc<Semaphore>,
}

/// One slot, until it is dropped.
pub(crate) type Slot = OwnedSemaphorePermit;

impl Slots {
    /// So many engines that start, and so many ranges that are synced, at least one of each.
    pub(crate) fn new(starts: usize, syncs: usize) -> Self {
        let of = |count: usize| Arc::new(Semaphore::new(count.max(1)));
        Self { starts: of(starts), syncs: of(syncs) }
    }

    /// A slot to make and start an engine.
    pub(crate) async fn start(&self) -> Option<Slot> {
        // Never closed.
        self.starts.clone().acquire_owned().await.ok()
    }

    /// A slot to bring images in.
    pub(crate) async fn sync(&self) -> Option<Slot> {
        self.syncs.clone().acquire_owned().await.ok()
    }
}

/// Waits for `work`; after [`SILENCE`] it goes on without its slot.
pub(crate) async fn patiently<T>(slot: &mut Option<Slot>, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    match tokio::time::timeout(SILENCE, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            slot.take();
            work.await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_range_that_only_waits_holds_nobody_back() {
        let slots = Slots::new(1, 0);
        let mut slot = slots.start().await;
        let frozen = tokio::spawn(async move {
            patiently(&mut slot, tokio::time::sleep(SILENCE * 10)).await;
            slot.is_none()
        });
        let begun = tokio::time::Instant::now();
        let next = slots.start().await;
        assert_eq!(begun.elapsed(), SILENCE, "its slot is the next one's after that time");
        assert!(next.is_some() && !frozen.is_finished());
        assert!(frozen.await.unwrap());
        assert!(slots.sync().await.is_some(), "there is at least one slot");
    }

    #[tokio::test(start_paused = true)]
    async fn a_range_that_is_done_in_time_keeps_its_slot() {
        let slots = Slots::new(1, 1);
        let mut slot = slots.start().await;
        patiently(&mut slot, tokio::time::sleep(SILENCE / 2)).await;
        assert!(slot.is_some());
    }
}
