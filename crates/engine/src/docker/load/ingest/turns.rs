//! One at a time for each digest: what several images need is made once, by whoever comes first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use transfer::Digest;

/// Who is making what.
#[derive(Debug, Default)]
pub(super) struct Turns {
    queues: Mutex<HashMap<Digest, Weak<AsyncMutex<()>>>>,
}

impl Turns {
    /// Waits until nobody else makes `digest`; it is the caller's turn until the guard is dropped.
    /// Whoever gets it looks first whether there is still something to do.
    pub(super) async fn take(&self, digest: Digest) -> OwnedMutexGuard<()> {
        let queue = {
            let mut queues = self.lock();
            queues.retain(|_, queue| 0 < queue.strong_count());
            match queues.get(&digest).and_then(Weak::upgrade) {
                Some(queue) => queue,
                None => {
                    let queue = Arc::new(AsyncMutex::new(()));
                    queues.insert(digest, Arc::downgrade(&queue));
                    queue
                }
            }
        };
        queue.lock_owned().await
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Weak<AsyncMutex<()>>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_remembered() {
        let (turns, digest) = (Turns::default(), Digest::of(b"layer"));
        let first = turns.take(digest).await;
        let mut second = Box::pin(turns.take(digest));
        assert!(second.as_mut().now_or_never().is_none(), "two had their turn at once");
        drop(turns.take(Digest::of(b"other")).await);
        drop(first);
        drop(second.await);
        drop(turns.take(Digest::of(b"another")).await);
        assert_eq!(turns.lock().len(), 1);
    }
}
