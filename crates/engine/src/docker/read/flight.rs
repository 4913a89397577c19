//! Single flight: who waits for which image, while one export at a time runs.
//!
//! ```text
//! image(a) ─┐                      ┌─ settled: a's waiters are answered at once
//! image(b) ─┼─► waiting ─► running ┤
//! image(a) ─┘   (gathered)         └─ ended: whoever is left over is answered with why
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;
use transfer::blob::Cause;
use transfer::{BlobError, EngineImageId, Image, SourceError};

/// Why an image could not be exported; told to each who waits for it.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    NotFound,
    Malformed(String),
    /// A blob could not be stored.
    Blob(Arc<BlobError>),
    Engine(Arc<dyn std::error::Error + Send + Sync>),
}

/// A cause that several errors share.
#[derive(Debug)]
struct Shared(Arc<dyn std::error::Error + Send + Sync>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl Failure {
    pub(super) fn engine(error: impl Into<Cause>) -> Self {
        Self::Engine(Arc::from(error.into()))
    }

    /// The failure as one caller's error about one image.
    pub(super) fn about(self, image: &impl ToString) -> SourceError {
        let image = image.to_string();
        match self {
            Self::NotFound => SourceError::NotFound { image },
            Self::Malformed(reason) => SourceError::Malformed { image, reason },
            Self::Blob(error) => SourceError::Export { image, source: error.again() },
            Self::Engine(error) => SourceError::unavailable(image, Shared(error)),
        }
    }
}

/// What a waiter is told.
pub(super) type Answer = Result<Image, Failure>;

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Flight(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: HashMap<EngineImageId, Vec<oneshot::Sender<Answer>>>,
    running: HashMap<EngineImageId, Vec<oneshot::Sender<Answer>>>,
    /// Whether somebody exports, or is about to.
    active: bool,
}

impl Flight {
    /// Waits for an image; the second value says whether the caller has to start exporting.
    pub(super) fn join(&self, image: EngineImageId) -> (oneshot::Receiver<Answer>, bool) {
        let (sender, receiver) = oneshot::channel();
        let mut queue = self.lock();
        match queue.running.get_mut(&image) {
            Some(waiters) => waiters.push(sender),
            None => queue.waiting.entry(image).or_default().push(sender),
        }
        (receiver, !std::mem::replace(&mut queue.active, true))
    }

    /// The images for the next export; none, and the exporter is no longer active.
    pub(super) fn take_off(&self) -> Vec<EngineImageId> {
        let mut queue = self.lock();
        queue.running = std::mem::take(&mut queue.waiting);
        queue.active = !queue.running.is_empty();
        queue.running.keys().copied().collect()
    }

    /// Answers everyone who waits for an image of this export.
    pub(super) fn settle(&self, image: &EngineImageId, answer: &Answer) {
        let waiters = self.lock().running.remove(image).unwrap_or_default();
        for waiter in waiters {
            // Whoever left does not want to know.
            drop(waiter.send(answer.clone()));
        }
    }

    /// Lets everyone go, without an answer.
    fn abandon(&self) {
        *self.lock() = Queue::default();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().expect("invariant: no one panics while holding the queue")
    }
}

/// Held by whoever exports: if it ends before its time, nobody waits for ever.
pub(super) struct Pilot(Option<Arc<Flight>>);

impl Pilot {
    pub(super) fn new(flight: Arc<Flight>) -> Self {
        Self(Some(flight))
    }

    /// Ends in good order; the queue may belong to the next already.
    pub(super) fn landed(mut self) {
        self.0 = None;
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        if let Some(flight) = &self.0 {
            flight.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use transfer::{Digest, fixture};

    use super::*;

    #[test]
    fn one_starts_and_the_others_wait() {
        let flight = Flight::default();
        let [a, b] = [b"a", b"b"].map(|bytes| EngineImageId(Digest::of(bytes)));
        let (_first, starts) = flight.join(a);
        assert!(starts);
        assert!(!flight.join(b).1);
        assert_eq!(flight.take_off().len(), 2);
        let (mut late, starts) = flight.join(a);
        assert!(!starts, "an image under way is joined");
        let image = fixture::image(1, &[1]).0;
        flight.settle(&a, &Ok(image));
        assert!(late.try_recv().unwrap().is_ok());
        assert!(!flight.join(a).1, "a settled image is asked for again in the next export");
        assert_eq!(flight.take_off(), [a]);
        assert!(flight.take_off().is_empty());
        assert!(flight.join(b).1, "nobody was exporting any more");
    }

    #[test]
    fn an_exporter_that_dies_leaves_no_one_waiting() {
        let flight = Arc::new(Flight::default());
        let a = EngineImageId(Digest::of(b"a"));
        let (mut waiter, _) = flight.join(a);
        drop(Pilot::new(flight.clone()));
        assert!(waiter.try_recv().is_err());
        assert!(flight.join(a).1);
    }
}
