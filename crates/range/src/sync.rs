//! Bringing images into ranges that are up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::{BoxStream, FuturesUnordered};
use proto::identity::RangeName;
use tokio::time::timeout;
use transfer::event::{EventKind, ImageReport};
use transfer::{Event, Outcome, Reference};

use crate::error::RangeError;
use crate::event::{RangeObserver, RangeStage};
use crate::journey::Journey;
use crate::places::{Places, SILENCE, patiently};
use crate::ranges::{POLL, Ranges, is_up};
use crate::report::Report;
use crate::settings::Selection;
use crate::up::{PATIENCE, in_order};

/// How long a range's container may be stopped before it counts as stopped by somebody: an engine
/// that was restarted itself starts its containers one after the other.
const STOPPED: Duration = Duration::from_secs(30);

impl Ranges {
    /// Brings images into ranges, several ranges at once. One that fails does not stop the others.
    ///
    /// Without `images` each range gets what it was told to have before. Of those named, what came
    /// in is added to that; images that a range has beside those stay.
    ///
    /// Cancel safe; images that are under way inside a range go on there.
    ///
    /// # Errors
    /// When the ranges cannot be listed. What goes wrong with one is in its report.
    pub async fn sync(
        &self,
        selection: &Selection,
        images: &[Reference],
        observer: Arc<dyn RangeObserver>,
    ) -> Result<Report, RangeError> {
        let names = self.names(selection).await?;
        let places = &Places::new(1, self.settings.concurrency);
        let ranges = names.into_iter().enumerate().map(|(position, range)| {
            let mut journey = Journey::begin(range, observer.clone());
            async move {
                journey.place = places.sync().await;
                let result = self.sync_one(images, &mut journey, places).await;
                (position, journey.end(result))
            }
        });
        let reports = ranges.collect::<FuturesUnordered<_>>().collect().await;
        Ok(in_order(reports))
    }

    async fn sync_one(
        &self,
        images: &[Reference],
        journey: &mut Journey,
        places: &Places,
    ) -> Result<(), RangeError> {
        let range = journey.range.clone();
        journey.wanted = images.to_vec();
        // Before anything is written down: a range that is not there should have nothing.
        self.running(&range).await?;
        let before = self.host_agent.wanted(&range).await?;
        if images.is_empty() {
            journey.wanted.clone_from(&before);
        }
        if journey.wanted.is_empty() {
            return Err(RangeError::NothingWanted { range });
        }
        self.want(&range, &before, &union(&before, images)).await?;
        let mut place = journey.place.take();
        journey.engine = Some(patiently(&mut place, self.ready(&range, PATIENCE)).await?);
        journey.place = match place {
            None => places.sync().await,
            kept => kept,
        };
        let synced = self.sync_into(journey).await;
        // A slip of the pen should not be asked for again and again.
        let failed = |image: &ImageReport| {
            image.outcome == Outcome::Failed && !before.contains(&image.reference)
        };
        let slips: Vec<_> = journey.images.iter().filter(|image| failed(image)).collect();
        if !slips.is_empty() {
            let mut wanted = union(&before, images);
            wanted.retain(|reference| slips.iter().all(|slip| slip.reference != *reference));
            self.host_agent.set_wanted(&range, &wanted).await?;
        }
        synced
    }

    /// Brings the wanted images into a range that is up.
    ///
    /// A range or agent that goes away meanwhile is waited for, and asked for what is not done yet;
    /// what was brought in goes on counting.
    pub(crate) async fn sync_into(&self, journey: &mut Journey) -> Result<(), RangeError> {
        journey.enter(RangeStage::Sync);
        let mut silence = Silence::default();
        loop {
            let unfinished = journey.unfinished();
            if unfinished.is_empty() {
                break;
            }
            let Err(error) = self.follow(&unfinished, journey, &mut silence).await else {
                continue;
            };
            self.still_there(&journey.range, &mut silence).await?;
            if !error.is_silence() || self.settings.ready_timeout <= silence.lasts() {
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
        &self,
        images: &[Reference],
        journey: &mut Journey,
        silence: &mut Silence,
    ) -> Result<(), RangeError> {
        let range = journey.range.clone();
        let mut events = self.running(&range).await?.sync(images).await?;
        silence.broken();
        while let Some(event) = self.next_event(&mut events, journey).await {
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
    /// place to the next one; one whose engine is busy with a layer keeps it.
    async fn next_event(
        &self,
        events: &mut BoxStream<'static, Result<Event, RangeError>>,
        journey: &mut Journey,
    ) -> Option<Result<Event, RangeError>> {
        loop {
            if journey.place.is_none() {
                return events.next().await;
            }
            if let Ok(event) = timeout(SILENCE, events.next()).await {
                return event;
            }
            let asked = async { self.running(&journey.range).await?.status().await };
            if !matches!(timeout(SILENCE, asked).await, Ok(Ok(_))) {
                tracing::info!(range = %journey.range, "it does not answer: the next one goes on");
                journey.place.take();
            }
        }
    }

    /// An error unless the range is there, and runs or may soon.
    async fn still_there(
        &self,
        range: &RangeName,
        silence: &mut Silence,
    ) -> Result<(), RangeError> {
        match self.container(range).await? {
            None => Err(RangeError::Gone { range: range.clone() }),
            Some(container) if is_up(&container) => {
                silence.stopped = None;
                Ok(())
            }
            // Its engine starts it again, unless somebody stopped it.
            Some(_) if silence.stopped.get_or_insert_with(Instant::now).elapsed() < STOPPED => {
                Ok(())
            }
            Some(_) => Err(RangeError::Stopped { range: range.clone() }),
        }
    }

    /// Tells the host agent what `range` should have from now on, unless that is so.
    pub(crate) async fn want(
        &self,
        range: &RangeName,
        before: &[Reference],
        wanted: &[Reference],
    ) -> Result<(), RangeError> {
        if before == wanted {
            return Ok(());
        }
        self.host_agent.set_wanted(range, wanted).await
    }
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
