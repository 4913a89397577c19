//! Removes seeds: beyond their limit, with all ranges, unusable ones and those cut off in the making.

use control::RangeName;

use super::register::{SeedStatus, beyond, cards, list};
use super::using::{Unfinished, hold, unfinished};
use crate::error::RangeError;
use crate::lock::Held;
use crate::ownership::persistently;
use crate::project::Project;
use crate::status::Removal;

/// The action in errors.
const REMOVING: &str = "removing a seed";

/// Removes seeds beyond `limit` bytes, those used longest ago first; one that is copied stays. The
/// next call tries again what could not be removed.
pub(crate) async fn keep_within(project: &Project, limit: u64) {
    let Ok(seeds) = list(project).await else { return };
    for seed in beyond(&seeds, limit) {
        match remove(project, &seed.name).await {
            Ok(()) => tracing::info!(seed = %seed.name, limit, "removed: seeds took too much"),
            Err(error) => {
                tracing::info!(seed = %seed.name, error = error.explain(), "could not remove it");
            }
        }
    }
}

/// Removes seeds until the others take at most `limit` bytes, and seeds whose making was cut off; 0
/// removes all. A seed that is being made or copied stays.
///
/// # Errors
/// When they cannot be listed. The error of one is in its [`Removal`].
pub(crate) async fn prune(project: &Project, limit: u64) -> Result<Vec<Removal>, RangeError> {
    let seeds = list(project).await?;
    let mut removals = Vec::new();
    let mut done = |range: &RangeName, result: Result<(), RangeError>| {
        let error = result.err().map(|error| error.explain());
        removals.push(Removal { range: range.clone(), found: true, error });
    };
    for seed in beyond(&seeds, limit) {
        done(&seed.name, remove(project, &seed.name).await);
    }
    for seed in seeds.into_iter().filter(|seed| seed.card.is_none()) {
        if let Unfinished::CutOff(held) = unfinished(project, &seed.name).await? {
            done(&seed.name, remove_held(project, &seed.name, held).await);
        }
    }
    Ok(removals)
}

/// Removes seeds whose making was cut off; their builders may still run. A failure is logged.
pub(crate) async fn clear(project: &Project, tell: &(dyn Fn(String) + Sync)) {
    let cleared = async { clear_cut_off(project, &list(project).await?, "", tell).await };
    if let Err(error) = cleared.await {
        tracing::warn!(error = error.explain(), "could not look for interrupted seeds");
    }
}

/// Removes those of these seeds whose making was cut off, and reports each. Answers whether one with
/// `key` is being made.
pub(super) async fn clear_cut_off(
    project: &Project,
    seeds: &[SeedStatus],
    key: &str,
    tell: &(dyn Fn(String) + Sync),
) -> Result<bool, RangeError> {
    let mut in_the_making = false;
    for seed in seeds.iter().filter(|seed| seed.card.is_none()) {
        match unfinished(project, &seed.name).await? {
            Unfinished::Open => in_the_making |= seed.key == key,
            Unfinished::Spoiled => {}
            Unfinished::CutOff(held) => {
                let text = "the making of a seed was cut off: what there is of it is removed";
                tell(format!("{text} ({})", seed.name));
                discard(project, &seed.name, held).await;
            }
        }
    }
    Ok(in_the_making)
}

/// Removes a seed that proved unusable as far as it can be: nobody begins with it any more, also
/// where others still copy it.
pub(super) async fn discard_spoiled(project: &Project, name: &RangeName) {
    let removed = async {
        remove_cards(project, name).await?;
        remove(project, name).await
    };
    log_failure(name, removed.await);
}

/// Removes a seed as far as it can be, for a caller that has its lock and another way to go on.
pub(super) async fn discard(project: &Project, name: &RangeName, held: Held) {
    log_failure(name, remove_held(project, name, held).await);
}

async fn remove(project: &Project, name: &RangeName) -> Result<(), RangeError> {
    match hold(project, name)? {
        Some(held) => remove_held(project, name, held).await,
        None => Err(RangeError::seed(REMOVING, "a call makes or copies it at the moment")),
    }
}

/// Removes all there is of a seed, also where a container of it is only just on its way out.
async fn remove_held(project: &Project, name: &RangeName, _held: Held) -> Result<(), RangeError> {
    persistently(|| try_remove(project, name)).await
}

/// Removes a seed, its card first, so that nobody begins with it any more. Nothing is removed while a
/// copy is made that a call left behind.
async fn try_remove(project: &Project, name: &RangeName) -> Result<(), RangeError> {
    let owned = &project.owned;
    let names = owned.names(name);
    let own = [names.container.clone(), names.sealing()];
    for volume in names.volumes() {
        let users = owned.engine.users_of_volume(volume).await?;
        if let Some(user) = users.iter().find(|user| !own.contains(&user.name)) {
            let reason = format!("container {} has it mounted", user.name);
            return Err(RangeError::seed(REMOVING, reason));
        }
    }
    remove_cards(project, name).await?;
    for container in &own {
        owned.remove_container(name, container).await?;
    }
    for volume in names.volumes() {
        owned.remove_volume(name, volume).await?;
    }
    project.host.remove(name).await.map(|_| ())
}

async fn remove_cards(project: &Project, name: &RangeName) -> Result<(), RangeError> {
    for card in cards(project, name).await? {
        project.owned.engine.remove_volume(&card).await?;
    }
    Ok(())
}

fn log_failure(name: &RangeName, removed: Result<(), RangeError>) {
    if let Err(error) = removed {
        tracing::warn!(seed = %name, error = error.explain(), "could not remove the whole seed");
    }
}
