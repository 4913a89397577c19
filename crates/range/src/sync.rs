//! Bringing images into ranges that are up.

use std::sync::Arc;

use futures::StreamExt as _;
use proto::identity::RangeName;
use transfer::{Outcome, Reference};

use crate::agents::RangeAgent;
use crate::error::RangeError;
use crate::event::{RangeObserver, RangeStage};
use crate::journey::Journey;
use crate::ranges::Ranges;
use crate::report::Report;
use crate::settings::Selection;
use crate::up::in_order;

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
        let ranges = names.into_iter().enumerate().map(|(position, range)| {
            let mut journey = Journey::begin(range, observer.clone());
            async move {
                let result = self.sync_one(images, &mut journey).await;
                (position, journey.end(result))
            }
        });
        let concurrency = self.settings.concurrency.max(1);
        let reports = futures::stream::iter(ranges).buffer_unordered(concurrency).collect().await;
        Ok(in_order(reports))
    }

    async fn sync_one(
        &self,
        images: &[Reference],
        journey: &mut Journey,
    ) -> Result<(), RangeError> {
        let range = journey.range.clone();
        journey.wanted = images.to_vec();
        let agent = self.running(&range).await?;
        let before = self.wanted.get(&range)?;
        if images.is_empty() {
            journey.wanted.clone_from(&before);
        }
        if journey.wanted.is_empty() {
            return Err(RangeError::NothingWanted { range });
        }
        journey.engine = agent.status().await?.engine;
        let synced = self.sync_into(&agent, journey).await;
        // A slip of the pen should not be asked for again and again: only what came in is kept.
        let came_in = journey.images.iter().filter(|image| image.outcome != Outcome::Failed);
        let wanted = union(&before, came_in.map(|image| &image.reference));
        if wanted != before {
            self.wanted.set(&range, &wanted)?;
        }
        synced
    }

    /// Brings the wanted images into a range that is up.
    pub(crate) async fn sync_into(
        &self,
        agent: &RangeAgent,
        journey: &mut Journey,
    ) -> Result<(), RangeError> {
        journey.enter(RangeStage::Sync);
        let mut events = agent.sync(&journey.wanted).await?;
        while let Some(event) = events.next().await {
            let event = event?;
            if let transfer::event::EventKind::Done(report) = &event.kind {
                journey.images.push(report.clone());
            }
            journey.image(event);
        }
        let order =
            |reference: &Reference| journey.wanted.iter().position(|wanted| wanted == reference);
        journey.images.sort_by_key(|image| order(&image.reference));
        Ok(())
    }

    /// What `range` should have from now on: `images`, or what it was told before when empty.
    pub(crate) fn want(
        &self,
        range: &RangeName,
        images: &[Reference],
    ) -> Result<Vec<Reference>, RangeError> {
        if images.is_empty() {
            return Ok(self.wanted.get(range)?);
        }
        let wanted = union(&[], images);
        self.wanted.set(range, &wanted)?;
        Ok(wanted)
    }
}

/// `first`, and what of `second` is not in it; each once.
fn union<'a>(
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
