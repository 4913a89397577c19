//! Verification of the engine's images: by its own confirmation, and on request file by file.

use std::sync::Arc;

use control::range::{ControlError, ImageCheck, VerifyEvent, VerifySummary};
use engine::{EngineError, HeldImage};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use transfer::Reference;

use crate::engine::RangeEngine;

/// Most checks at once. Each reads whole images through the engine, which has other work too.
const MAX_CHECKS: usize = 1;

/// Results that may wait for their reader. A check pauses while they do.
const EVENTS: usize = 16;

/// Checks under way: owned tasks, each of which ends with its reader.
#[derive(Debug)]
pub(crate) struct Checks {
    engine: Arc<RangeEngine>,
    turns: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Checks {
    pub(crate) fn new(engine: Arc<RangeEngine>) -> Self {
        let turns = Arc::new(Semaphore::new(MAX_CHECKS));
        Self { engine, turns, tasks: TaskTracker::new() }
    }

    /// Begins a check of the named images, or of all that the engine has.
    ///
    /// # Errors
    /// [`ControlError::Busy`]; [`ControlError::Unavailable`] when the engine does not answer.
    pub(crate) async fn begin(
        &self,
        references: Vec<Reference>,
        deep: bool,
    ) -> Result<BoxStream<'static, VerifyEvent>, ControlError> {
        let Ok(turn) = self.turns.clone().try_acquire_owned() else {
            return Err(ControlError::Busy { limit: MAX_CHECKS });
        };
        let held = self.engine.images().await;
        let held = held.map_err(|error| ControlError::Unavailable(error.into()))?;
        let (events, told) = mpsc::channel(EVENTS);
        let check = Check { engine: self.engine.clone(), deep, events, _turn: turn };
        self.tasks.spawn(check.run(held, references).in_current_span());
        Ok(ReceiverStream::new(told).boxed())
    }

    /// Returns once all checks have ended; each ends with its reader.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// One check under way.
struct Check {
    engine: Arc<RangeEngine>,
    deep: bool,
    events: mpsc::Sender<VerifyEvent>,
    _turn: OwnedSemaphorePermit,
}

impl Check {
    async fn run(self, held: Vec<HeldImage>, references: Vec<Reference>) {
        tokio::select! {
            () = self.check_all(held, &references) => {}
            // The reader went away. The sweep below removes leftovers; so does the next check's.
            () = self.events.closed() => {}
        }
        if self.deep
            && let Err(error) = self.engine.sweep_verifications().await
        {
            tracing::debug!(%error, "a container of a verification may be left");
        }
    }

    async fn check_all(&self, held: Vec<HeldImage>, references: &[Reference]) {
        let began = Instant::now();
        let mut summary = VerifySummary::default();
        for (mut check, image) in chosen(&held, references) {
            if let Some(image) = image.filter(|_| self.deep) {
                self.read(image, &mut check).await;
            }
            summary.add(&check);
            if self.events.send(VerifyEvent::Checked(check)).await.is_err() {
                return;
            }
        }
        summary.duration = began.elapsed();
        // The reader went away.
        let _gone = self.events.send(VerifyEvent::Finished(summary)).await;
    }

    /// Reads every file of an image.
    async fn read(&self, image: &HeldImage, check: &mut ImageCheck) {
        match self.engine.verify(image.engine_image_id).await {
            Ok(Some(found)) => {
                check.files = found.files;
                check.bytes_read = found.bytes_read;
                found.problems.into_iter().for_each(|problem| check.problem(problem));
                check.more_problems += found.more_problems;
            }
            // A folder in the place of an engine: its proof has read every blob.
            Ok(None) => {}
            Err(error) => check.problem(unread(&error)),
        }
    }
}

fn unread(error: &EngineError) -> String {
    format!("it could not be read: {}", transfer::explain(error))
}

/// The chosen images, each with the engine's own answer.
fn chosen<'a>(
    held: &'a [HeldImage],
    references: &[Reference],
) -> Vec<(ImageCheck, Option<&'a HeldImage>)> {
    if references.is_empty() {
        return held
            .iter()
            .map(|image| (check(image, image.references.first()), Some(image)))
            .collect();
    }
    let find = |reference: &Reference| match held
        .iter()
        .find(|image| image.references.contains(reference))
    {
        Some(image) => (check(image, Some(reference)), Some(image)),
        None => {
            let reference = Some(reference.clone());
            let mut absent = ImageCheck { reference, ..ImageCheck::default() };
            absent.problem("the engine has no such image".into());
            (absent, None)
        }
    };
    references.iter().map(find).collect()
}

fn check(image: &HeldImage, reference: Option<&Reference>) -> ImageCheck {
    let mut check = ImageCheck {
        reference: reference.cloned(),
        engine_image_id: Some(image.engine_image_id),
        proven: image.proven,
        ..ImageCheck::default()
    };
    if !image.proven {
        check.problem("the engine does not confirm every layer of it".into());
    }
    check
}

#[cfg(test)]
mod tests {
    use transfer::{Digest, EngineImageId};

    use super::*;

    fn held(name: &str, proven: bool) -> HeldImage {
        HeldImage {
            references: vec![name.parse().unwrap()],
            config_digest: None,
            engine_image_id: EngineImageId(Digest::of(name.as_bytes())),
            proven,
        }
    }

    #[test]
    fn what_is_absent_or_not_confirmed_is_a_problem() {
        let images = [held("a:1", true), held("b:1", false)];
        for (references, well) in [
            (&[][..], &[true, false][..]),
            (&["a:1"], &[true]),
            (&["b:1", "c:1", "a:1"], &[false, false, true]),
        ] {
            let references: Vec<_> = references.iter().map(|name| name.parse().unwrap()).collect();
            let checks = chosen(&images, &references);
            let found: Vec<_> = checks.iter().map(|(check, _)| check.is_well()).collect();
            assert_eq!(found, well, "{references:?}");
        }
    }
}
