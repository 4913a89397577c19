//! Makes a seed: a range of its own is brought up, stopped and sealed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use control::RangeName;

use super::register::{IMAGES, now, short, write_card};
use super::removal::discard;
use super::using::hold;
use crate::container::{IMAGE, SEED, labels};
use crate::context::{Context, Recipe};
use crate::copy::Sealed;
use crate::error::RangeError;
use crate::job::{self, Ended, Job};
use crate::journey::Journey;
use crate::labels::Labels;
use crate::maker::{Origin, bring_up};
use crate::settings::UpRequest;

/// The action in errors.
const MAKING: &str = "making a seed";

/// Maximum time for a builder to stop: its agent drains, then its engine ends.
const STOP: Duration = Duration::from_secs(60);

/// A seed that is whole, as far as its card says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seed {
    /// Its volumes.
    pub(super) sealed: Sealed,
    /// Bytes of its files.
    pub(super) bytes: u64,
}

impl Seed {
    /// The name of the range that it was made as.
    pub(crate) fn name(&self) -> &RangeName {
        &self.sealed.name
    }

    /// The origin of ranges that begin with it.
    pub(crate) fn origin(&self) -> Origin {
        Origin::Copy(self.sealed.clone())
    }
}

/// Makes a seed; nothing of it stays where that fails.
pub(super) async fn make(
    recipe: &Recipe<'_>,
    key: &str,
    context: &Context<'_>,
) -> Result<Seed, RangeError> {
    let project = context.project;
    let name = seed_name(key)?;
    let held = hold(project, &name)?;
    let held = held.ok_or_else(|| RangeError::seed("locking a new seed", &name))?;
    match build(recipe, &name, key, context).await {
        Ok(bytes) => {
            write_card(project, &name, key, bytes).await?;
            Ok(Seed { sealed: Sealed { name, key: key.to_owned() }, bytes })
        }
        Err(error) => {
            discard(project, &name, held).await;
            Err(error)
        }
    }
}

/// Brings the builder up, stops it and seals its volumes; answers the bytes of its files.
async fn build(
    recipe: &Recipe<'_>,
    name: &RangeName,
    key: &str,
    context: &Context<'_>,
) -> Result<u64, RangeError> {
    let owned = &context.project.owned;
    let request = UpRequest {
        names: vec![name.clone()],
        labels: Labels::default(),
        ..recipe.request.clone()
    };
    let images: Vec<_> = request.images.iter().map(ToString::to_string).collect();
    let more =
        [(SEED, key.to_owned()), (IMAGES, images.join(",")), (IMAGE, request.range_image.clone())];
    let more = more.map(|(label, value)| (label.to_owned(), value)).into();
    let builder = Recipe { request: &request, more, ..recipe.clone() };
    let mut journey = Journey::begin(name.clone(), context.observer.clone());
    let result = bring_up(&builder, &Origin::Fresh, &mut journey, context).await;
    let report = journey.end(result.map(|_| ()));
    if !report.is_whole() {
        let failed = report.images.iter().find_map(|image| image.error.clone());
        let reason = report.error.or(failed).unwrap_or_default();
        return Err(RangeError::seed(MAKING, reason));
    }
    let names = owned.names(name);
    owned.engine.stop_container(&names.container, STOP).await?;
    let stopped = owned.engine.container(&names.container).await?;
    match stopped.map(|container| container.exit_code) {
        Some(0) => {}
        code => {
            return Err(RangeError::seed(MAKING, format!("its range stopped with {code:?}")));
        }
    }
    owned.engine.remove_container(&names.container).await?;
    // It is a range no more.
    context.project.host.remove(name).await?;
    let sealed = seal(&builder, name, key, context).await;
    owned.remove_container(name, &names.sealing()).await?;
    match sealed? {
        Ended::Sealed { bytes } => Ok(bytes),
        other => Err(RangeError::seed(MAKING, format!("sealing it ended with {other:?}"))),
    }
}

async fn seal(
    recipe: &Recipe<'_>,
    name: &RangeName,
    key: &str,
    context: &Context<'_>,
) -> Result<Ended, RangeError> {
    let owned = &context.project.owned;
    let names = owned.names(name);
    let mut all = labels(owned.project(), name, &Labels::default());
    all.extend(recipe.more.clone());
    let job = Job {
        range: name,
        name: &names.sealing(),
        action: "sealing a seed",
        labels: all,
        arguments: ["seal", "--root", job::ROOT, "--key", key].map(str::to_owned).into(),
        volumes: vec![
            (names.data_volume.clone(), "/seed/data", false),
            (names.agent_volume.clone(), "/seed/agent", false),
        ],
    };
    job::run(context.project, recipe, job).await
}

/// A name that no seed has yet: two calls of one process may come at the same millisecond.
fn seed_name(key: &str) -> Result<RangeName, RangeError> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = now();
    let next = |last: u64| now.max(last + 1);
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    let last = last.unwrap_or_default();
    let text = format!("seed-{}-{:x}", short(key), next(last));
    text.parse().map_err(|error| RangeError::seed("naming a seed", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_named_after_its_key_and_none_is_named_twice() {
        let key = "ab".repeat(32);
        let (one, two) = (seed_name(&key).unwrap(), seed_name(&key).unwrap());
        assert!(one.as_str().starts_with("seed-abababababab-"), "{one}");
        assert_ne!(one, two);
    }
}
