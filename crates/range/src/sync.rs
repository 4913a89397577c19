//! Brings images into ranges that are up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use control::identity::RangeName;
use futures::StreamExt as _;
use futures::stream::{BoxStream, FuturesUnordered};
use tokio::time::timeout;
use transfer::event::{EventKind, ImageReport};
use transfer::{Event, Outcome, Reference};

use crate::error::RangeError;
use crate::event::RangeObserver;
use crate::journey::Journey;
use crate::project::Project;
use crate::ready::{PATIENCE, POLL, is_up, ready, running};
use crate::report::Report;
use crate::slots::{SILENCE, Slots, patiently};
use crate::stage::RangeStage;

/// How long a range's container may be stopped before it counts as stopped by somebody: an engine
/// that was restarted itself starts its containers one after the other.
const STOPPED: Duration = Duration::from_secs(30);

/// Brings images into ranges, several ranges at once; without `images`, those that each should have.
pub(crate) async fn sync(
    project: &Project,
    ranges: Vec<RangeName>,
    images: &[Reference],
    observer: Arc<dyn RangeObserver>,
) -> Report {
    let slots = &Slots::new(1, project.settings.concurrency);
    let ranges = ranges.into_iter().enumerate().map(|(position, range)| {
        let mut journey = Journey::begin(range, observer.clone());
        async move {
            journey.slot = slots.sync().await;
            let result = sync_one(project, images, &mut journey, slots).await;
            (position, journey.end(result))
        }
    });
    Report::in_order(ranges.collect::<FuturesUnordered<_>>().collect().await)
}

async fn sync_one(
    project: &Project,
    images: &[Reference],
    journey: &mut Journey,
    slots: &Slots,
) -> Result<(), RangeError> {
    let range = journey.range.clone();
    journey.wanted = images.to_vec();
    // Before anything is written down: a range that is not there should have nothing.
    running(project, &range).await?;
    let before = project.host_agent.wanted(&range).await?;
    if images.is_empty() {
        journey.wanted.clone_from(&before);
    }
    if journey.wanted.is_empty() {
        return Err(RangeError::NothingWanted { range });
    }
    want(project, &range, &before, &union(&before, images)).await?;
    let mut slot = journey.slot.take();
    journey.engine = Some(patiently(&mut slot, ready(project, &range, PATIENCE)).await?);
    journey.slot = match slot {
        None => slots.sync().await,
        kept => kept,
    };
    let synced = sync_into(project, journey).await;
    // A slip of the pen should not be asked for again and again.
    let failed = |image: &ImageReport| {
        image.outcome == Outcome::Failed && !before.contains(&image.reference)
    };
    let slips: Vec<_> = journey.images.iter().filter(|image| failed(image)).collect();
    if !slips.is_empty() {
        let mut wanted = union(&before, images);
        wanted.retain(|reference| slips.iter().all(|slip| slip.reference != *reference));
        project.host_agent.set_wanted(&range, &wanted).await?;
    }
    synced
}

/// Brings the wanted images into a range that is up.
///
/// A range or agent that goes away meanwhile is waited for, and asked for what is not done yet;
/// what was brought in goes on counting.
pub(crate) async fn sync_into(project: &Project, journey: &mut Journey) -> Result<(), RangeError> {
    journey.enter(RangeStage::Sync);
    let mut silence = Silence::default();
    loop {
        let unfinished = journey.unfinished();
        if unfinished.is_empty() {
            break;
        }
        let Err(error) = follow(project, &unfinished, journey, &mut silence).await else {
            continue;
        };
        still_there(project, &journey.range, &mut silence).await?;
        if !error.is_silence() || project.settings.ready_timeout <= silence.lasts() {
            return Err(error);
        }
        tracing::info!(range = %journey.range, error = transfer::explain(&error), "asking again");
        tokio::time::sleep(POLL).await;
    }
    let order =
        |reference: &Reference| journey.wanted.iter().position(|wanted| wanted == reference);
    journey.images.sort_by_key(|image| order(&image.reference));
    Ok(())
}

/// One sync of the range's agent, told until it ends.
async fn follow(
    project: &Project,
    images: &[Reference],
    journey: &mut Journey,
    silence: &mut Silence,
) -> Result<(), RangeError> {
    let range = journey.range.clone();
    let mut events = running(project, &range).await?.sync(images).await?;
    silence.broken();
    while let Some(event) = next_event(project, &mut events, journey).await {
        let event = event?;
        silence.broken();
        if let EventKind::Done(report) = &event.kind {
            journey.images.push(report.clone());
        }
        journey.image(event);
    }
    // The agent ends a sync only when each image has its result, or when it ends itself.
    match journey.unfinished().iter().any(|image| images.contains(image)) {
        false => Ok(()),
        true => Err(RangeError::cut_off(&range)),
    }
}

/// The next event of a sync. A range that is silent, and does not say how it is either, gives its
/// slot to the next one; one whose engine is busy with a layer keeps it.
async fn next_event(
    project: &Project,
    events: &mut BoxStream<'static, Result<Event, RangeError>>,
    journey: &mut Journey,
) -> Option<Result<Event, RangeError>> {
    loop {
        if journey.slot.is_none() {
            return events.next().await;
        }
        if let Ok(event) = timeout(SILENCE, events.next()).await {
            return event;
        }
        let asked = async { running(project, &journey.range).await?.status().await };
        if !matches!(timeout(SILENCE, asked).await, Ok(Ok(_))) {
            tracing::info!(range = %journey.range, "it does not answer: the next one goes on");
            journey.slot.take();
        }
    }
}

/// An error unless the range is there, and runs or may soon.
async fn still_there(
    project: &Project,
    range: &RangeName,
    silence: &mut Silence,
) -> Result<(), RangeError> {
    match project.owned.range(range).await? {
        None => Err(RangeError::Gone { range: range.clone() }),
        Some(container) if is_up(&container) => {
            silence.stopped = None;
            Ok(())
        }
        // Its engine starts it again, unless somebody stopped it.
        Some(_) if silence.stopped.get_or_insert_with(Instant::now).elapsed() < STOPPED => Ok(()),
        Some(_) => Err(RangeError::Stopped { range: range.clone() }),
    }
}

/// Sets what `range` should have from now on, unless that is so.
pub(crate) async fn want(
    project: &Project,
    range: &RangeName,
    before: &[Reference],
    wanted: &[Reference],
) -> Result<(), RangeError> {
    if before == wanted {
        return Ok(());
    }
    project.host_agent.set_wanted(range, wanted).await
}

/// How long nothing was heard of a range.
struct Silence {
    since: Instant,
    /// Since when its container does not run.
    stopped: Option<Instant>,
}

impl Default for Silence {
    fn default() -> Self {
        Self { since: Instant::now(), stopped: None }
    }
}

impl Silence {
    fn broken(&mut self) {
        *self = Self::default();
    }

    fn lasts(&self) -> Duration {
        self.since.elapsed()
    }
}

/// `first`, and what of `second` is not in it; each once.
pub(crate) fn union<'a>(
    first: &[Reference],
    second: impl IntoIterator<Item = &'a Reference>,
) -> Vec<Reference> {
    let mut all = first.to_vec();
    for reference in second {
        if !all.contains(reference) {
            all.push(reference.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_has_each_image_once_in_the_order_told() {
        let references = |words: &[&str]| -> Vec<Reference> {
            words.iter().map(|word| word.parse().unwrap()).collect()
        };
        let check = |first: &[&str], second: &[&str], expected: &[&str]| {
            assert_eq!(union(&references(first), &references(second)), references(expected));
        };
        check(&[], &["b", "a", "b:latest"], &["b", "a"]);
        check(&["a", "b"], &["b", "c"], &["a", "b", "c"]);
        check(&["a"], &[], &["a"]);
    }
}
