//! Brings one range up: register, create, start, wait, sync; each only as far as it is not done.
//!
//! A range begins with an [`Origin`]: nothing, or a copy of sealed volumes. Where sealed volumes come
//! from is the caller's to know.

use std::time::Duration;

use control::RangeName;
use control::admin::{NewRange, ServedRange};
use engine::docker::{ContainerSpec, ContainerState};
use transfer::EngineInfo;

use crate::container::{PARTS, Parts, labels};
use crate::context::{Context, Recipe};
use crate::copy::{self, Copied, Sealed, copy};
use crate::error::RangeError;
use crate::journey::Journey;
use crate::labels::Labels;
use crate::liveness::{Started, Up};
use crate::lock::Held;
use crate::project::Project;
use crate::report::Provision;
use crate::stage::RangeStage;
use crate::sync::{PATIENCE, arrive};
use crate::watch::Watch;

/// The pause between two looks whether another call is done with a range.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The data that a new range begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// None.
    Fresh,
    /// A copy of these volumes.
    Copy(Sealed),
}

/// The result of bringing a range up, where nothing failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Brought {
    /// It is up with its images.
    Up,
    /// Nothing was made, since the sealed volumes are unusable, for this reason.
    OriginUnusable(String),
}

/// Parts of a range found once no other call makes it.
struct Turn {
    /// Its container.
    present: Option<ContainerState>,
    /// Keeps other calls from making it; `None` if it is there already.
    held: Option<Held>,
}

/// Brings one range up. `origin` counts only where the range is new; a copy that fails is replaced
/// by nothing.
///
/// # Errors
/// Any [`RangeError`] of this range.
pub(crate) async fn bring_up(
    recipe: &Recipe<'_>,
    origin: &Origin,
    journey: &mut Journey,
    context: &Context<'_>,
) -> Result<Brought, RangeError> {
    let project = context.project;
    let range = journey.range.clone();
    journey.wanted = recipe.request.images.clone();
    // A copy has its images, and brings nothing in.
    let with_sync = *origin == Origin::Fresh && !journey.wanted.is_empty();
    let Turn { present, held } = turn(recipe, with_sync, journey, context).await?;
    let (served, round) = register(project, recipe, &range, present.is_some()).await?;
    journey.wanted = served.wanted.references;

    journey.enter(RangeStage::Create);
    let given = match (&present, recipe.request.labels.is_empty()) {
        (Some(present), true) => Labels::given(&present.labels),
        _ => recipe.request.labels.clone(),
    };
    let is_new = present.is_none() && copy::is_new(project, &range).await?;
    let copied = match origin {
        Origin::Copy(sealed) if is_new => {
            journey.enter(RangeStage::Clone);
            match copy(project, recipe, &range, sealed, &given).await? {
                Copied::Whole => true,
                Copied::Failed(reason) => {
                    journey.note(format!("goes without a seed: {reason}"));
                    false
                }
                Copied::Unusable(reason) => {
                    // Making another seed takes a slot of its own.
                    journey.slot.release();
                    return Ok(Brought::OriginUnusable(reason));
                }
            }
        }
        _ => false,
    };
    let spec = Parts {
        settings: &project.settings,
        range: &range,
        socket: &served.socket_path,
        range_image: &recipe.request.range_image,
        image: &recipe.image,
        isolation: &recipe.isolation,
        agent: recipe.agent,
        labels: &given,
        more: &recipe.more,
    }
    .spec()?;
    let provision = judge(&spec, present.as_ref());
    if matches!(provision, Provision::Made | Provision::Remade) {
        make(project, recipe, &range, &spec, &given).await?;
    }
    drop(held);
    journey.provision = Some(if copied { Provision::Cloned } else { provision });

    journey.enter(RangeStage::Start);
    let mut watch = Watch::of(context.feed, &range, project.settings.ready_timeout);
    match provision {
        // It was asked to look at its images again.
        Provision::Kept if !journey.wanted.is_empty() => watch.expect_answer(served.attachment),
        Provision::Kept => {}
        _ => watch.expect_another(),
    }
    project.owned.engine.start_container(&spec.name).await?;

    journey.enter(RangeStage::Ready);
    let mut slot = std::mem::take(&mut journey.slot);
    let ready = ready_or_remade(project, recipe, journey, &mut watch, provision, &spec, &given);
    let engine = Box::pin(slot.patiently(ready)).await?;
    journey.engine = Some(engine);
    if journey.wanted.is_empty() {
        return Ok(Brought::Up);
    }
    context.slots.sync(&mut slot).await;
    journey.slot = slot;
    arrive(journey, &mut watch, round, &mut Up::new(project, &range)).await?;
    Ok(Brought::Up)
}

/// Waits for a slot, and until no other call makes the range, unless it is there already. A range that
/// waits for another call holds no slot.
async fn turn(
    recipe: &Recipe<'_>,
    with_sync: bool,
    journey: &mut Journey,
    context: &Context<'_>,
) -> Result<Turn, RangeError> {
    let project = context.project;
    let range = journey.range.clone();
    let range_image = &recipe.request.range_image;
    let lock = project.owned.names(&range).container;
    journey.slot = context.slots.start(with_sync).await;
    journey.enter(RangeStage::Register);
    loop {
        // Before any record is written: a range that is not ours to change keeps its wanted images.
        let present = project.owned.range_from(range_image, &range).await?;
        if present.is_some() {
            return Ok(Turn { present, held: None });
        }
        if let Some(held) = project.locks.hold(&lock)? {
            // Another call may have made it meanwhile.
            let present = project.owned.range_from(range_image, &range).await?;
            return Ok(Turn { present, held: Some(held) });
        }
        journey.slot.release();
        tokio::time::sleep(LOOK_AGAIN).await;
        journey.slot = context.slots.start(with_sync).await;
    }
}

/// Registers a range with what it should have; answers it, and the round in which it looks at that.
async fn register(
    project: &Project,
    recipe: &Recipe<'_>,
    range: &RangeName,
    is_present: bool,
) -> Result<(ServedRange, u64), RangeError> {
    let request = recipe.request;
    let mut served = project
        .host
        .add(&NewRange {
            name: range.clone(),
            tcp: None,
            wanted: request.images.clone(),
            grants: request.grants.clone(),
        })
        .await?;
    if !request.grants.is_empty() && served.grants != request.grants {
        project.host.set_grants(range, &request.grants).await?;
    }
    let before = served.wanted.round;
    if !request.images.is_empty() {
        served.wanted = project.host.replace_wanted(range, &request.images).await?;
    }
    // A range that was there looks again, although nothing changed.
    let round = match served.wanted.round == before && is_present {
        true => project.host.sync(range).await?,
        false => served.wanted.round,
    };
    Ok((served, round))
}

/// Waits until a range answers that was started; one that was kept and does not is made again.
async fn ready_or_remade(
    project: &Project,
    recipe: &Recipe<'_>,
    journey: &mut Journey,
    watch: &mut Watch<'_>,
    provision: Provision,
    spec: &ContainerSpec,
    given: &Labels,
) -> Result<EngineInfo, RangeError> {
    let range = journey.range.clone();
    let mut check = Started { project, range: &range };
    let limit = project.settings.ready_timeout;
    if provision != Provision::Kept {
        return watch.ready(limit, &mut check).await;
    }
    match watch.ready(PATIENCE, &mut check).await {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::info!(%range, %error, "range is made again");
            journey.provision = Some(Provision::Remade);
            make(project, recipe, &range, spec, given).await?;
            watch.expect_another();
            project.owned.engine.start_container(&spec.name).await?;
            watch.ready(limit, &mut check).await
        }
    }
}

/// Makes the container, in the place of one that may be there, over volumes that may be too.
async fn make(
    project: &Project,
    recipe: &Recipe<'_>,
    range: &RangeName,
    spec: &ContainerSpec,
    given: &Labels,
) -> Result<(), RangeError> {
    copy::is_no_half(project, range).await?;
    let owned = &project.owned;
    let names = owned.names(range);
    for volume in names.volumes() {
        owned.volume(range, volume).await?;
    }
    owned.remove_container(range, &spec.name).await?;
    for volume in names.volumes() {
        let mut all = labels(owned.project(), range, given);
        all.extend(recipe.more.clone());
        owned.engine.create_volume(volume, &all).await?;
    }
    owned.create_container(spec.clone()).await
}

/// Decides the work that a range's container needs to match `spec`.
fn judge(spec: &ContainerSpec, present: Option<&ContainerState>) -> Provision {
    let Some(present) = present else { return Provision::Made };
    let same = present.labels.get(PARTS) == spec.labels.get(PARTS);
    match (same, present.state.as_str()) {
        (true, "running" | "restarting") => Provision::Kept,
        // `created`: a command was killed between creating and starting it.
        (true, "created" | "exited") => Provision::Started,
        _ => Provision::Remade,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_container_is_kept_started_or_made_again_by_its_parts_and_state() {
        let parts = |parts: &str| BTreeMap::from([(PARTS.to_owned(), parts.to_owned())]);
        let spec = ContainerSpec { labels: parts("1"), ..ContainerSpec::default() };
        let check = |made_from: &str, state: &str, expected: Provision| {
            let present = ContainerState {
                id: "1".to_owned(),
                name: "longshore-a".to_owned(),
                state: state.to_owned(),
                exit_code: 0,
                pid: None,
                health: None,
                image: String::new(),
                labels: parts(made_from),
                addresses: BTreeMap::new(),
            };
            assert_eq!(judge(&spec, Some(&present)), expected, "{made_from} {state}");
        };
        check("1", "running", Provision::Kept);
        check("1", "restarting", Provision::Kept);
        check("1", "exited", Provision::Started);
        check("1", "created", Provision::Started);
        check("1", "dead", Provision::Remade);
        check("1", "paused", Provision::Remade);
        check("2", "running", Provision::Remade);
        check("2", "exited", Provision::Remade);
        assert_eq!(judge(&spec, None), Provision::Made);
    }
}
