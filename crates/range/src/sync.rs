//! Bringing images into ranges that are up.

use std::sync::Arc;

use futures::StreamExt as _;
use proto::identity::RangeName;
use transfer::Reference;

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
    /// `images` replaces what each range was told to have; when empty, each gets what it was told
    /// before. Images that a range has beside those stay.
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
        // A range that is not there is not told what it should have.
        let agent = self.running(&range).await;
        journey.wanted = match &agent {
            Ok(_) => self.want(&range, images)?,
            Err(_) => images.to_vec(),
        };
        let agent = agent?;
        if journey.wanted.is_empty() {
            return Err(RangeError::NothingWanted { range });
        }
        journey.engine = agent.status().await?.engine;
        self.sync_into(&agent, journey).await
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
        let mut wanted: Vec<Reference> = Vec::with_capacity(images.len());
        for image in images {
            if !wanted.contains(image) {
                wanted.push(image.clone());
            }
        }
        self.wanted.set(range, &wanted)?;
        Ok(wanted)
    }
}
