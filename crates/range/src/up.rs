//! Brings the ranges of one call up, each from nothing or from a copy of a seed.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use crate::capacity::Machine;
use crate::context::{Context, Recipe};
use crate::error::RangeError;
use crate::event::RangeObserver;
use crate::feed::Feed;
use crate::journey::Journey;
use crate::maker::{Brought, Origin, bring_up};
use crate::ownership::Present;
use crate::project::Project;
use crate::report::{RangeReport, Report};
use crate::seed::{self, Seed, Seeding, Wanted};
use crate::settings::UpRequest;
use crate::slots::Slots;

/// Shared access of the new ranges of one call to their origins.
struct Origins<'a> {
    /// The seed of this call; `None` if new ranges begin with nothing.
    seeding: Option<&'a Seeding>,
    /// The containers and volumes when the call began.
    present: &'a Present,
}

/// Brings ranges up with their images, several at once.
///
/// # Errors
/// Only what concerns all ranges; the error of one is in its report.
pub(crate) async fn up(
    project: &Project,
    request: &UpRequest,
    observer: Arc<dyn RangeObserver>,
) -> Result<Report, RangeError> {
    let recipe = Recipe::of(project, request).await?;
    let mut seen = HashSet::new();
    // Owned, so that the future can be sent to another thread, independent of the names' lifetime.
    let names = request.names.iter().cloned();
    let names: Vec<_> = names.filter(|name| seen.insert(name.clone())).collect();
    let machine = Machine::look(project.owned.engine.data_root().await?.as_deref());
    let starts = project.settings.starts.unwrap_or_else(|| machine.starts());
    let slots = Slots::new(starts, project.settings.concurrency);
    let feed = Feed::of(&project.host);
    let context = Context { project, observer: &observer, slots: &slots, feed: &feed };
    if let Some(first) = names.first() {
        seed::clear(project, &|text| context.note(first, text)).await;
    }
    let present = project.owned.present().await?;
    let cold = names.iter().filter(|name| present.is_cold(name)).count();
    let wanted =
        if cold == 0 { Wanted::default() } else { Wanted::resolve(project, request).await };
    let seeding = Seeding::of(project, &recipe, &wanted, cold);
    if !project.settings.unchecked {
        check_room(project, &machine, &wanted, seeding.as_ref(), cold).await?;
    }
    let origins = Origins { seeding: seeding.as_ref(), present: &present };
    let ranges = names.into_iter().enumerate().map(|(position, range)| {
        let journey = Journey::begin(range, context.observer.clone());
        let (recipe, origins) = (&recipe, &origins);
        async move { (position, up_one(recipe, origins, journey, &context).await) }
    });
    // All at once: each waits for its slots, and not for those before it.
    let reports = feed.during(ranges.collect::<FuturesUnordered<_>>().collect()).await;
    // A copy ends the use of its seed.
    drop(seeding);
    // Seeds that proved unusable while they were still copied; they were reported then.
    seed::clear(project, &|_| ()).await;
    seed::keep_within(project, project.settings.seed_limit).await;
    Ok(Report::in_order(reports))
}

async fn up_one(
    recipe: &Recipe<'_>,
    origins: &Origins<'_>,
    mut journey: Journey,
    context: &Context<'_>,
) -> RangeReport {
    // Boxed: the way of a range is long, and there may be many.
    let result = Box::pin(up_from_origin(recipe, origins, &mut journey, context)).await;
    if let Err(error) = &result {
        tracing::warn!(range = %journey.range, %error, "range is not up");
    }
    journey.end(result)
}

/// Brings a range up from its origin; an unusable seed is replaced.
async fn up_from_origin(
    recipe: &Recipe<'_>,
    origins: &Origins<'_>,
    journey: &mut Journey,
    context: &Context<'_>,
) -> Result<(), RangeError> {
    // Every failure from here on fails each image.
    journey.wanted = recipe.request.images.clone();
    let mut seed = origins.seed(recipe, journey, None, context).await?;
    loop {
        let origin = seed.as_ref().map_or(Origin::Fresh, Seed::origin);
        let reason = match bring_up(recipe, &origin, journey, context).await? {
            Brought::Up => return Ok(()),
            Brought::OriginUnusable(reason) => reason,
        };
        if let Some(spoiled) = &seed {
            let name = spoiled.name();
            journey.note(format!("seed {name} is not used and removed: {reason}"));
        }
        seed = origins.seed(recipe, journey, seed.as_ref(), context).await?;
    }
}

impl Origins<'_> {
    /// The seed that a range begins with, other than `spoiled`; `None` where it begins with nothing.
    async fn seed(
        &self,
        recipe: &Recipe<'_>,
        journey: &Journey,
        spoiled: Option<&Seed>,
        context: &Context<'_>,
    ) -> Result<Option<Seed>, RangeError> {
        match self.seeding {
            Some(seeding) if self.present.is_cold(&journey.range) => {
                seeding.seed(recipe, spoiled, &journey.range, context).await
            }
            _ => Ok(None),
        }
    }
}

/// An error when `cold` new ranges have no room: nothing was made until then.
async fn check_room(
    project: &Project,
    machine: &Machine,
    wanted: &Wanted,
    seeding: Option<&Seeding>,
    cold: usize,
) -> Result<(), RangeError> {
    machine.check_memory(cold)?;
    let copies = match seeding {
        None => cold,
        Some(seeding) => {
            let present = seeding.is_present(project).await?;
            let made = usize::from(seeding.make && !present);
            let copied = present || seeding.make;
            // A seed's own size is known, and looked at, once it is there.
            if copied && machine.shares() { made } else { cold + made }
        }
    };
    machine.check_disk(cold, copies, wanted.bytes)
}
