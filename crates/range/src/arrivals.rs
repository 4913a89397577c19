//! The images of one range as they arrive: reported states become events and results.

use std::collections::BTreeMap;

use control::admin::ServedRange;
use control::link::{ImageState, ImageStatus};
use transfer::event::{EventKind, ImageReport};
use transfer::{Event, Outcome, Reference};

use crate::report::unreached;

/// The wanted images of one range, followed through one round.
#[derive(Debug)]
pub(crate) struct Arrivals<'a> {
    wanted: &'a [Reference],
    /// The round in which the range looks at the images for this caller.
    round: u64,
    /// The last state of each image that was seen.
    seen: BTreeMap<Reference, ImageStatus>,
    /// The results so far.
    done: BTreeMap<Reference, ImageReport>,
}

impl<'a> Arrivals<'a> {
    pub(crate) fn of(wanted: &'a [Reference], round: u64) -> Self {
        Self { wanted, round, seen: BTreeMap::new(), done: BTreeMap::new() }
    }

    /// Takes the latest state of the range; answers what happened since the one before.
    pub(crate) fn take(&mut self, range: &ServedRange) -> Vec<Event> {
        let mut events = Vec::new();
        for reference in self.wanted {
            if self.done.contains_key(reference) {
                continue;
            }
            let mut tell = |kind| events.push(Event { reference: reference.clone(), kind });
            if self.round < range.wanted.round && !range.wanted.references.contains(reference) {
                let error = format!(
                    "{reference} is not wanted any more: another call replaced the wanted images \
                     of range {}; bring it up again with this image",
                    range.name
                );
                let report = unreached(reference, &error);
                tell(EventKind::Done(report.clone()));
                self.done.insert(reference.clone(), report);
                continue;
            }
            let now = range.state.as_ref().and_then(|state| state.images.get(reference));
            let Some(now) = now else { continue };
            progress(self.seen.get(reference), now).into_iter().for_each(&mut tell);
            self.seen.insert(reference.clone(), now.clone());
            if now.is_settled(self.round) {
                let report = result(now, self.round);
                tell(EventKind::Done(report.clone()));
                self.done.insert(reference.clone(), report);
            }
        }
        events
    }

    /// True if each image has its result.
    pub(crate) fn is_complete(&self) -> bool {
        self.wanted.iter().all(|reference| self.done.contains_key(reference))
    }

    /// The results so far, in the order asked.
    pub(crate) fn results(mut self) -> Vec<ImageReport> {
        self.wanted.iter().filter_map(|reference| self.done.remove(reference)).collect()
    }
}

/// The steps of an image between two of its states.
fn progress(before: Option<&ImageStatus>, now: &ImageStatus) -> Vec<EventKind> {
    let ImageState::OnItsWay(stage) = now.state else { return Vec::new() };
    let mut steps = Vec::new();
    if before.is_none_or(|before| before.state != now.state) {
        steps.push(EventKind::Entered(stage));
    }
    let plan = |status: &ImageStatus| (status.bytes_to_move, status.bytes_saved);
    if plan(now) != before.map_or((0, 0), plan) {
        let (bytes_to_move, bytes_saved) = plan(now);
        steps.push(EventKind::Planned { bytes_to_move, bytes_saved });
    }
    if now.bytes_moved != before.map_or(0, |before| before.bytes_moved) {
        steps.push(EventKind::Moved { bytes_moved: now.bytes_moved });
    }
    steps
}

/// The result of an image that is settled in `round`.
fn result(status: &ImageStatus, round: u64) -> ImageReport {
    let (outcome, error) = match &status.state {
        ImageState::Failed { error, .. } => (Outcome::Failed, Some(error.clone())),
        _ if status.was_loaded(round) => (Outcome::Synced, None),
        _ => (Outcome::Skipped, None),
    };
    // Bytes that moved in an earlier round did not have to move in this one.
    let (bytes_moved, bytes_saved) = match outcome {
        Outcome::Skipped => (0, status.bytes_saved.saturating_add(status.bytes_moved)),
        _ => (status.bytes_moved, status.bytes_saved),
    };
    ImageReport {
        reference: status.reference.clone(),
        config_digest: status.config_digest,
        engine_image_id: status.engine_image_id,
        outcome,
        proven: status.state == ImageState::Present,
        bytes_moved,
        bytes_saved,
        stages: status.stages.clone(),
        error,
    }
}

#[cfg(test)]
mod tests;
