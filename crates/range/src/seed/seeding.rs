//! The seed of one call: looked for when it is first needed, and made where that is worth it.

use std::sync::atomic::{AtomicUsize, Ordering};

use control::RangeName;
use tokio::sync::Mutex;
use transfer::{Digest, ImageSource as _};

use super::making::{Seed, make};
use super::register::{SeedCard, list, write_card};
use super::removal::{clear_cut_off, discard_spoiled, keep_within};
use super::using::{Wait, turn_to_make, use_seed};
use crate::capacity::Machine;
use crate::context::{Context, Recipe};
use crate::copy::Sealed;
use crate::error::RangeError;
use crate::lock::Held;
use crate::project::Project;
use crate::settings::{SeedUse, UpRequest};

/// The first line of the text of a key; a new number makes all seeds from before foreign.
const FORMAT: &str = "longshore seed 1";

/// Number of seeds that a call tries, of which all but the first were made for it.
const TRIES: usize = 2;

/// Least number of new ranges for which a seed is made: for one it would be twice the work.
const WORTH_IT: usize = 2;

/// The images of a call, as the host has them now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// References with the digest that each names, sorted.
    images: Vec<String>,
    /// True if these are all of them; false if there are none, or one is unavailable.
    whole: bool,
    /// Bytes that they take unpacked, at most: layers that two of them share count twice.
    pub(crate) bytes: u64,
}

impl Wanted {
    /// The images of a request, resolved by the host agent.
    pub(crate) async fn resolve(project: &Project, request: &UpRequest) -> Self {
        let host = project.host.images();
        let mut wanted = Self { whole: !request.images.is_empty(), ..Self::default() };
        for reference in &request.images {
            match host.resolve(reference).await {
                Ok(image) => {
                    let name = format!("{reference}@{}", image.config_digest);
                    if !wanted.images.contains(&name) {
                        wanted.bytes = wanted.bytes.saturating_add(image.unpacked_size);
                        wanted.images.push(name);
                    }
                }
                // Each range will say so of this image.
                Err(_) => wanted.whole = false,
            }
        }
        wanted.images.sort_unstable();
        wanted
    }

    /// The key of a seed with these images, made from a range image with this ID.
    fn key(&self, range_image: &str) -> Option<String> {
        let text = format!("{FORMAT}\n{range_image}\n{}", self.images.join("\n"));
        self.whole.then(|| Digest::of(text.as_bytes()).hex())
    }
}

/// The seed of one call. Dropping it ends the use of that seed.
pub(crate) struct Seeding {
    key: String,
    /// Number of ranges that are to begin with it.
    cold: usize,
    /// True if a missing seed is made.
    pub(crate) make: bool,
    found: Mutex<Found>,
    /// Number of seeds that proved unusable.
    spoiled: AtomicUsize,
}

enum Found {
    /// Nobody has looked yet.
    Unknown,
    /// It is there, locked as long as the call lasts.
    Whole {
        seed: Seed,
        _held: Held,
        /// As before the first copy.
        machine: Machine,
    },
    /// There is none, and none will be.
    None,
}

impl Seeding {
    /// The seed for `cold` new ranges; `None` where they begin with nothing.
    pub(crate) fn of(
        project: &Project,
        recipe: &Recipe<'_>,
        wanted: &Wanted,
        cold: usize,
    ) -> Option<Self> {
        let policy = project.settings.seeds;
        if policy == SeedUse::Never || cold == 0 {
            return None;
        }
        let key = wanted.key(&recipe.image.id)?;
        let fits = wanted.bytes <= project.settings.seed_limit;
        let make = fits && (policy == SeedUse::Always || WORTH_IT <= cold);
        let (found, spoiled) = (Mutex::new(Found::Unknown), AtomicUsize::new(0));
        Some(Self { key, cold, make, found, spoiled })
    }

    /// True if the seed is there already.
    pub(crate) async fn is_present(&self, project: &Project) -> Result<bool, RangeError> {
        let seeds = list(project).await?;
        Ok(seeds.iter().any(|seed| seed.key == self.key && seed.card.is_some()))
    }

    /// The seed that `range` begins with: one that is there, or a new one; `None` where it begins with
    /// nothing. Ranges that come while the seed is made wait for it.
    ///
    /// `spoiled` proved unusable: it is removed, and another made in its place, but only once in a
    /// call.
    ///
    /// # Errors
    /// [`RangeError::NoDisk`] when there is no room for all its copies.
    pub(crate) async fn seed(
        &self,
        recipe: &Recipe<'_>,
        spoiled: Option<&Seed>,
        range: &RangeName,
        context: &Context<'_>,
    ) -> Result<Option<Seed>, RangeError> {
        let project = context.project;
        let mut found = self.found.lock().await;
        let is_spoiled =
            |found: &Found| matches!(found, Found::Whole { seed, .. } if Some(seed) == spoiled);
        if is_spoiled(&found) {
            let count = self.spoiled.fetch_add(1, Ordering::Relaxed) + 1;
            // Its lock goes with this, so that it can be removed.
            *found = if count < TRIES { Found::Unknown } else { Found::None };
            if let Some(spoiled) = spoiled {
                discard_spoiled(project, spoiled.name()).await;
            }
        }
        if let Found::Unknown = &*found {
            *found = match self.look_or_make(recipe, range, context).await {
                Ok(Some((seed, _held))) => {
                    let data_root = project.owned.engine.data_root().await?;
                    Found::Whole { seed, _held, machine: Machine::look(data_root.as_deref()) }
                }
                Ok(None) => Found::None,
                Err(error) => {
                    context.note(range, format!("there is no seed for it: {}", error.explain()));
                    Found::None
                }
            };
        }
        let Found::Whole { seed, machine, .. } = &*found else { return Ok(None) };
        if !project.settings.unchecked && !machine.shares() {
            machine.check_disk(self.cold, self.cold, seed.bytes)?;
        }
        Ok(Some(seed.clone()))
    }

    async fn look_or_make(
        &self,
        recipe: &Recipe<'_>,
        range: &RangeName,
        context: &Context<'_>,
    ) -> Result<Option<(Seed, Held)>, RangeError> {
        let project = context.project;
        let tell = |text| context.note(range, text);
        let found = whole_seed(project, &self.key, &tell).await?;
        if found.is_some() || !self.make {
            return Ok(found);
        }
        let _turn = turn_to_make(project, &self.key, &tell).await?;
        // Another call may have had the turn before.
        if let Some(found) = whole_seed(project, &self.key, &tell).await? {
            return Ok(Some(found));
        }
        let seed = make(recipe, &self.key, context).await?;
        let held = use_seed(project, seed.name()).await?;
        let held =
            held.ok_or_else(|| RangeError::seed("using a new seed", "another call removed it"))?;
        keep_within(project, project.settings.seed_limit).await;
        Ok(Some((seed, held)))
    }
}

/// Returns the seed of a key, if it is whole, and notes its use now; removes interrupted seeds of
/// any key.
async fn whole_seed(
    project: &Project,
    key: &str,
    tell: &(dyn Fn(String) + Sync),
) -> Result<Option<(Seed, Held)>, RangeError> {
    let mut wait = Wait::new(tell);
    loop {
        let seeds = list(project).await?;
        let mut open = false;
        for seed in seeds.iter().filter(|seed| seed.key == key) {
            let Some(SeedCard { bytes, .. }) = seed.card else { continue };
            if let Some(held) = use_seed(project, &seed.name).await? {
                write_card(project, &seed.name, key, bytes).await?;
                let sealed = Sealed { name: seed.name.clone(), key: seed.key.clone() };
                return Ok(Some((Seed { sealed, bytes }, held)));
            }
            open = true;
        }
        open |= clear_cut_off(project, &seeds, key, tell).await?;
        if !open {
            return Ok(None);
        }
        wait.look_again().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_the_range_image_and_of_the_images() {
        let wanted = |images: &[&str], whole| {
            let images = images.iter().map(|image| (*image).to_owned()).collect();
            Wanted { images, whole, bytes: 1 }
        };
        let key = |images: &[&str], image: &str| wanted(images, true).key(image).unwrap();
        let first = key(&["a:1@sha256:1", "b:1@sha256:2"], "sha256:r");
        assert_eq!(first, key(&["a:1@sha256:1", "b:1@sha256:2"], "sha256:r"));
        assert_ne!(first, key(&["a:1@sha256:1", "b:1@sha256:2"], "sha256:s"));
        assert_ne!(first, key(&["a:1@sha256:1"], "sha256:r"));
        assert_ne!(first, key(&["a:1@sha256:1", "b:1@sha256:3"], "sha256:r"));
        assert_eq!(wanted(&["a:1@sha256:1"], false).key("sha256:r"), None);
    }
}
