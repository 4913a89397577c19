//! Images that are wanted from the start: brought in as soon as engine and host answer.

use std::time::Duration;

use proto::control::{ControlError, SyncEvent};
use transfer::event::EventKind;
use transfer::{Event, Outcome, Reference};

use crate::syncs::Syncs;

/// First pause before what failed is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause: an image that is built on the host later should come without a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Brings in every wanted image, trying again what failed until nothing is missing.
///
/// Cancel safe: a sync under way goes on with its owner.
pub(crate) async fn bring_in(wanted: Vec<Reference>, syncs: &Syncs) {
    let mut missing = wanted;
    let mut pause = FIRST_PAUSE;
    while !missing.is_empty() {
        missing = match try_once(missing.clone(), syncs).await {
            Ok(failed) => failed,
            Err(_busy) => missing,
        };
        if !missing.is_empty() {
            tracing::info!(
                images = missing.len(),
                ?pause,
                "wanted images are missing, trying again"
            );
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }
}

/// The images that could not be brought in.
async fn try_once(images: Vec<Reference>, syncs: &Syncs) -> Result<Vec<Reference>, ControlError> {
    let mut events = syncs.begin(images)?;
    let mut failed = Vec::new();
    while let Some(event) = events.recv().await {
        if let SyncEvent::Image(Event { reference, kind: EventKind::Done(report) }) = event
            && report.outcome == Outcome::Failed
        {
            failed.push(reference);
        }
    }
    Ok(failed)
}
