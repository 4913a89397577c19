//! How many ranges do what at once; a range that only waits holds no place.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a range may be silent before its place goes to the next: an engine starts in about 2 s,
/// and one under load in some more.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);

/// The places of one call. They are given in the order in which they were asked for.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    starts: Arc<Semaphore>,
    syncs: Arc<Semaphore>,
}

/// One of them, until it is dropped.
pub(crate) type Place = OwnedSemaphorePermit;

impl Places {
    /// So many engines that start, and so many ranges that are synced, at least one of each.
    pub(crate) fn new(starts: usize, syncs: usize) -> Self {
        let of = |count: usize| Arc::new(Semaphore::new(count.max(1)));
        Self { starts: of(starts), syncs: of(syncs) }
    }

    /// A place to make and start an engine.
    pub(crate) async fn start(&self) -> Option<Place> {
        // Never closed.
        self.starts.clone().acquire_owned().await.ok()
    }

    /// A place to bring images in.
    pub(crate) async fn sync(&self) -> Option<Place> {
        self.syncs.clone().acquire_owned().await.ok()
    }
}

/// Waits for `work`; what takes longer than [`SILENCE`] goes on without its place.
pub(crate) async fn patiently<T>(place: &mut Option<Place>, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    match tokio::time::timeout(SILENCE, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            place.take();
            work.await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_only_waits_holds_nobody_back() {
        let places = Places::new(1, 0);
        let mut place = places.start().await;
        let frozen = tokio::spawn(async move {
            patiently(&mut place, tokio::time::sleep(SILENCE * 10)).await;
            place.is_none()
        });
        let begun = tokio::time::Instant::now();
        let next = places.start().await;
        assert_eq!(begun.elapsed(), SILENCE, "its place is the next one's after that time");
        assert!(next.is_some() && !frozen.is_finished());
        assert!(frozen.await.unwrap());
        assert!(places.sync().await.is_some(), "there is at least one place");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_done_in_time_keeps_its_place() {
        let places = Places::new(1, 1);
        let mut place = places.start().await;
        patiently(&mut place, tokio::time::sleep(SILENCE / 2)).await;
        assert!(place.is_some());
    }
}
