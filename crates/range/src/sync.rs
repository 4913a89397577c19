//! Watches images arrive in ranges that are up; their agents bring them in.

use std::sync::Arc;
use std::time::Duration;

use control::RangeName;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use transfer::Reference;

use crate::arrivals::Arrivals;
use crate::error::RangeError;
use crate::event::RangeObserver;
use crate::feed::Feed;
use crate::journey::Journey;
use crate::liveness::{Check, Started, Up, runs};
use crate::project::Project;
use crate::report::Report;
use crate::slots::{Slot, Slots};
use crate::stage::RangeStage;
use crate::watch::Watch;

/// Maximum time for a range that already ran to answer.
///
/// Long enough for an engine that is busy extracting on few cores; a range whose agent is stuck
/// costs this much once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Maximum silence of a range before its slot goes to the next one. Agents report every 15 s at
/// least.
const SILENCE: Duration = Duration::from_secs(35);

/// Has ranges look at the images that they should have, and `images` besides, several ranges at once.
pub(crate) async fn sync(
    project: &Project,
    ranges: Vec<RangeName>,
    images: &[Reference],
    observer: Arc<dyn RangeObserver>,
) -> Report {
    let slots = &Slots::new(1, project.settings.concurrency);
    let feed = &Feed::of(&project.host);
    let ranges = ranges.into_iter().enumerate().map(|(position, range)| {
        let mut journey = Journey::begin(range, observer.clone());
        async move {
            let result = sync_one(project, images, &mut journey, slots, feed).await;
            (position, journey.end(result))
        }
    });
    Report::in_order(feed.during(ranges.collect::<FuturesUnordered<_>>().collect()).await)
}

async fn sync_one(
    project: &Project,
    images: &[Reference],
    journey: &mut Journey,
    slots: &Slots,
    feed: &Feed<'_>,
) -> Result<(), RangeError> {
    let range = journey.range.clone();
    journey.wanted = images.to_vec();
    let mut slot = Slot::default();
    slots.sync(&mut slot).await;
    // Before anything is written down: a range that is not there should have nothing.
    runs(project, &range).await?;
    let before = project.host.wanted(&range).await?;
    if images.is_empty() {
        journey.wanted.clone_from(&before.references);
    }
    if journey.wanted.is_empty() {
        return Err(RangeError::NothingWanted { range });
    }
    let round = match project.host.extend_wanted(&range, images).await?.round {
        round if round == before.round => project.host.sync(&range).await?,
        round => round,
    };
    let mut watch = Watch::of(feed, &range, project.settings.ready_timeout);
    let mut started = Started { project, range: &range };
    journey.engine = Some(slot.patiently(watch.ready(PATIENCE, &mut started)).await?);
    slots.sync(&mut slot).await;
    journey.slot = slot;
    arrive(journey, &mut watch, round, &mut Up::new(project, &range)).await
}

/// Watches until the range looked at each image in `round` or later, and has it or failed to.
///
/// A range, agent or host agent that goes away meanwhile is waited for, as long as `check` finds its
/// container.
///
/// # Errors
/// Those of `check`; [`RangeError::Gone`]; [`RangeError::Silent`] and [`RangeError::HostAgent`] when
/// nothing was heard of the range for too long.
pub(crate) async fn arrive(
    journey: &mut Journey,
    watch: &mut Watch<'_>,
    round: u64,
    check: &mut dyn Check,
) -> Result<(), RangeError> {
    journey.enter(RangeStage::Sync);
    let wanted = journey.wanted.clone();
    let mut arrivals = Arrivals::of(&wanted, round);
    let result = loop {
        if let Some(range) = watch.latest() {
            arrivals.take(range).into_iter().for_each(|event| journey.image(event));
        }
        if arrivals.is_complete() {
            break Ok(());
        }
        if SILENCE <= watch.silence() {
            journey.slot.release();
        }
        let looked = async {
            if !watch.is_attached() {
                check.check().await?;
            }
            if watch.is_over() {
                let (range, seconds) = (journey.range.clone(), watch.silence().as_secs());
                return Err(RangeError::Silent { range, seconds });
            }
            watch.look().await
        };
        if let Err(error) = looked.await {
            break Err(error);
        }
    };
    journey.images = arrivals.results();
    result
}

#[cfg(test)]
mod tests;
