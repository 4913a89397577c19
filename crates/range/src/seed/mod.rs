//! Seeds: a range made once, synced, stopped and sealed, and copied into every range that is new.
//!
//! ```text
//!   look ──► whole ──────────────────────────────────────► copy into fresh volumes ──► range
//!     └─► none ─► builder up, synced, proven ─► stopped ─► sealed ─► card ──┘   └─ unusable: away with it
//! ```
//! A seed belongs to a key: the range image, and what is wanted with the digest of each image. Its
//! builder is a range of its own name, `seed-<key>-<n>`, whose folder beside the host agent its maker
//! keeps locked. What has no card and no maker was cut off: it is removed, and never used. Who copies
//! a seed shares that lock until its call ends: so long it is not removed. A key has one maker at a
//! time: who finds no seed while another makes it waits for that, and begins with it.

mod copy;
mod job;
mod register;
mod removal;
mod using;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use proto::identity::RangeName;
use tokio::sync::Mutex;
use transfer::{Digest, ImageSource as _};

use crate::call::{Call, Recipe};
use crate::container::{IMAGE, Names, labels};
use crate::error::RangeError;
use crate::journey::Journey;
use crate::labels::Labels;
use crate::lock::{self, Held};
use crate::ranges::Ranges;
use crate::room::Machine;
use crate::settings::{SeedUse, UpRequest};

use job::{Ended, Job};
pub(crate) use register::SEED;
pub use register::{SeedCard, SeedStatus};
use using::{Turn, Wait};

/// What keys begin with; a new number makes all seeds from before foreign.
const FORMAT: &str = "longshore seed 1";

/// How many letters of a key are in a seed's name: the label has all of it.
const SHORT_KEY: usize = 12;

/// How long a builder may take to stop: its agent drains, then its engine ends.
const STOP: Duration = Duration::from_secs(60);

/// How many seeds a call tries, of which all but the first were made for it.
const TRIES: usize = 2;

/// Least number of new ranges for which a seed is made: for one it would be twice the work.
const WORTH_IT: usize = 2;

/// Where a job finds and leaves what.
const ROOT: &str = "/seed";
const TARGET: &str = "/clone";

/// A seed that is whole, as far as its card says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seed {
    pub(crate) name: RangeName,
    key: String,
    /// Bytes of its files.
    pub(crate) bytes: u64,
}

/// What is wanted by a call, as the host has it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// References with the digest of what they name, sorted.
    images: Vec<String>,
    /// Whether that is all of them; not where there are none, or one is not to be had.
    whole: bool,
    /// Bytes that they take unpacked, at most: what two of them share counts twice.
    pub(crate) bytes: u64,
}

impl Wanted {
    /// What a seed with these images, made from a range image with this ID, is asked for by.
    fn key(&self, range_image: &str) -> Option<String> {
        let text = format!("{FORMAT}\n{range_image}\n{}", self.images.join("\n"));
        self.whole.then(|| Digest::of(text.as_bytes()).hex())
    }
}

/// The seed of one call, looked for when it is first wanted.
pub(crate) struct Seeding {
    key: String,
    /// How many ranges are to begin with it.
    cold: usize,
    /// Whether it is made where there is none.
    pub(crate) make: bool,
    found: Mutex<Found>,
    /// How many could not be used.
    spoiled: AtomicUsize,
}

enum Found {
    /// Nobody has looked yet.
    Unknown,
    /// It is there, kept as long as the call lasts, and so the machine was before the first copy.
    Whole(Seed, Held, Machine),
    /// There is none, and none will be.
    None,
}

impl Ranges {
    /// What the wanted images are now, by the host agent's word.
    pub(crate) async fn resolve(&self, request: &UpRequest) -> Wanted {
        let host = self.host_agent.images();
        let mut wanted = Wanted { whole: !request.images.is_empty(), ..Wanted::default() };
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

    /// How `cold` new ranges come by a seed; `None` where they are not to be cloned.
    pub(crate) fn seeding(
        &self,
        recipe: &Recipe<'_>,
        wanted: &Wanted,
        cold: usize,
    ) -> Option<Seeding> {
        let policy = self.settings.seeds;
        if policy == SeedUse::Never || cold == 0 {
            return None;
        }
        let key = wanted.key(&recipe.image.id)?;
        let fits = wanted.bytes <= self.settings.seed_limit;
        let make = fits && (policy == SeedUse::Always || WORTH_IT <= cold);
        let (found, spoiled) = (Mutex::new(Found::Unknown), AtomicUsize::new(0));
        Some(Seeding { key, cold, make, found, spoiled })
    }

    /// Whether the seed is there already.
    pub(crate) async fn is_there(&self, seeding: &Seeding) -> Result<bool, RangeError> {
        let seeds = self.seeds().await?;
        Ok(seeds.iter().any(|seed| seed.key == seeding.key && seed.card.is_some()))
    }

    /// The seed for `range` to begin with: that which is there, or a new one; `None` where it is to go
    /// the plain way. Whoever comes while it is made waits for it.
    ///
    /// `spoiled` is one that could not be used: it is removed, and another made in its place, but only
    /// once in a call.
    ///
    /// # Errors
    /// [`RangeError::NoDisk`] when there is no room for all its copies.
    pub(crate) async fn seed(
        &self,
        recipe: &Recipe<'_>,
        seeding: &Seeding,
        spoiled: Option<&Seed>,
        range: &RangeName,
        call: &Call<'_>,
    ) -> Result<Option<Seed>, RangeError> {
        let mut found = seeding.found.lock().await;
        let is_spoiled =
            |found: &Found| matches!(found, Found::Whole(seed, ..) if Some(seed) == spoiled);
        if is_spoiled(&found) {
            let count = seeding.spoiled.fetch_add(1, Ordering::Relaxed) + 1;
            // Its lock goes with this, so that it can be removed.
            *found = if count < TRIES { Found::Unknown } else { Found::None };
            if let Some(spoiled) = spoiled {
                self.discard_spoiled(&spoiled.name).await;
            }
        }
        if let Found::Unknown = &*found {
            *found = match self.look_or_make(recipe, seeding, range, call).await {
                Ok(Some((seed, held))) => Found::Whole(seed, held, self.machine().await?),
                Ok(None) => Found::None,
                Err(error) => {
                    call.note(range, format!("there is no seed for it: {}", error.explain()));
                    Found::None
                }
            };
        }
        let Found::Whole(seed, _, machine) = &*found else { return Ok(None) };
        if !self.settings.unchecked && !machine.shares() {
            machine.check_disk(seeding.cold, seeding.cold, seed.bytes)?;
        }
        Ok(Some(seed.clone()))
    }

    /// Ends what a call has to do with its seed.
    pub(crate) async fn end_seeding(&self, seeding: Seeding) {
        if let Found::Whole(seed, held, _) = seeding.found.into_inner() {
            self.let_go(&seed.name, held).await;
        }
    }

    /// Removes what of seeds nobody makes any more; their builders may still run.
    pub(crate) async fn clear_seeds(&self, tell: &(dyn Fn(String) + Sync)) {
        let cleared = async { self.clear_cut_off(&self.seeds().await?, "", tell).await };
        if let Err(error) = cleared.await {
            tracing::warn!(error = error.explain(), "seeds that were cut off are not looked for");
        }
    }

    async fn look_or_make(
        &self,
        recipe: &Recipe<'_>,
        seeding: &Seeding,
        range: &RangeName,
        call: &Call<'_>,
    ) -> Result<Option<(Seed, Held)>, RangeError> {
        let tell = |text| call.note(range, text);
        let found = self.whole_seed(&seeding.key, &tell).await?;
        if found.is_some() || !seeding.make {
            return Ok(found);
        }
        let Turn { name, held } = self.turn_to_make(&seeding.key, &tell).await?;
        // Another call may have had the turn before.
        let made = match self.whole_seed(&seeding.key, &tell).await {
            Ok(None) => self.make_and_use(recipe, &seeding.key, call).await.map(Some),
            found => found,
        };
        self.let_go(&name, held).await;
        made
    }

    /// A new seed, which nobody removes meanwhile.
    async fn make_and_use(
        &self,
        recipe: &Recipe<'_>,
        key: &str,
        call: &Call<'_>,
    ) -> Result<(Seed, Held), RangeError> {
        let seed = self.make_seed(recipe, key, call).await?;
        let held = self.use_seed(&seed.name).await?;
        let held =
            held.ok_or_else(|| RangeError::seed("using a new seed", "another call removed it"))?;
        self.keep_seeds_within(self.settings.seed_limit).await;
        Ok((seed, held))
    }

    /// The seed of a key, once it is whole, used now; what was cut off is removed, whatever its key.
    async fn whole_seed(
        &self,
        key: &str,
        tell: &(dyn Fn(String) + Sync),
    ) -> Result<Option<(Seed, Held)>, RangeError> {
        let mut wait = Wait::new(tell);
        loop {
            let seeds = self.seeds().await?;
            let mut open = false;
            for seed in seeds.iter().filter(|seed| seed.key == key) {
                let Some(SeedCard { bytes, .. }) = seed.card else { continue };
                if let Some(held) = self.use_seed(&seed.name).await? {
                    self.write_card(&seed.name, key, bytes).await?;
                    let (name, key) = (seed.name.clone(), seed.key.clone());
                    return Ok(Some((Seed { name, key, bytes }, held)));
                }
                open = true;
            }
            open |= self.clear_cut_off(&seeds, key, tell).await?;
            if !open {
                return Ok(None);
            }
            wait.look_again().await;
        }
    }

    /// Makes a seed; nothing of it stays where that fails.
    async fn make_seed(
        &self,
        recipe: &Recipe<'_>,
        key: &str,
        call: &Call<'_>,
    ) -> Result<Seed, RangeError> {
        let name = seed_name(key)?;
        let folder = self.host_agent.add(&name).await?.own();
        let held = lock::hold(&folder)?;
        let held = held.ok_or_else(|| RangeError::seed("locking a new seed", folder.display()))?;
        let made = self.build(recipe, &name, key, call).await;
        let seed = match made {
            Ok(bytes) => Seed { name, key: key.to_owned(), bytes },
            Err(error) => {
                self.discard(&name, held).await;
                return Err(error);
            }
        };
        self.write_card(&seed.name, key, seed.bytes).await?;
        self.let_go(&seed.name, held).await;
        Ok(seed)
    }

    /// Brings the builder up, stops it and seals what it has.
    async fn build(
        &self,
        recipe: &Recipe<'_>,
        name: &RangeName,
        key: &str,
        call: &Call<'_>,
    ) -> Result<u64, RangeError> {
        const MAKING: &str = "making a seed";
        let request = UpRequest {
            names: vec![name.clone()],
            labels: Labels::default(),
            ..recipe.request.clone()
        };
        let images: Vec<_> = request.images.iter().map(ToString::to_string).collect();
        let more = [
            (SEED, key.to_owned()),
            (register::IMAGES, images.join(",")),
            (IMAGE, request.range_image.clone()),
        ];
        let more = more.map(|(label, value)| (label.to_owned(), value)).into();
        let builder = Recipe { request: &request, more, ..recipe.clone() };
        let mut journey = Journey::begin(name.clone(), call.observer.clone());
        let plain = Call { seeding: None, ..*call };
        // Boxed: a range's way may lead through that of its seed.
        let result = Box::pin(self.bring_up(&builder, &mut journey, &plain)).await;
        let report = journey.end(result);
        if !report.is_whole() {
            let failed = report.images.iter().find_map(|image| image.error.clone());
            let reason = report.error.or(failed).unwrap_or_default();
            return Err(RangeError::seed(MAKING, reason));
        }
        let names = Names::of(&self.settings.project, name);
        self.engine.stop_container(&names.container, STOP).await?;
        let stopped = self.engine.container(&names.container).await?;
        match stopped.map(|container| container.exit_code) {
            Some(0) => {}
            code => {
                return Err(RangeError::seed(MAKING, format!("its range stopped with {code:?}")));
            }
        }
        self.engine.remove_container(&names.container).await?;
        let sealed = self.seal(&builder, &names, name, key).await;
        self.remove_own_container(name, &names.sealing()).await?;
        match sealed? {
            Ended::Sealed { bytes } => Ok(bytes),
            other => Err(RangeError::seed(MAKING, format!("sealing it came to {other:?}"))),
        }
    }

    async fn seal(
        &self,
        recipe: &Recipe<'_>,
        names: &Names,
        name: &RangeName,
        key: &str,
    ) -> Result<Ended, RangeError> {
        let mut all = labels(&self.settings.project, name, &Labels::default());
        all.extend(recipe.more.clone());
        let job = Job {
            range: name,
            name: &names.sealing(),
            action: "sealing a seed",
            labels: all,
            arguments: ["seal", "--root", ROOT, "--key", key].map(str::to_owned).into(),
            volumes: vec![
                (names.data_volume.clone(), "/seed/data", false),
                (names.agent_volume.clone(), "/seed/agent", false),
            ],
        };
        self.work(recipe, job).await
    }
}

/// A name that no seed has yet: two calls of one process may come at the same millisecond.
fn seed_name(key: &str) -> Result<RangeName, RangeError> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = register::now();
    let next = |last: u64| now.max(last + 1);
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    let last = last.unwrap_or_default();
    let text = format!("seed-{}-{:x}", &key[..SHORT_KEY.min(key.len())], next(last));
    text.parse().map_err(|error| RangeError::seed("naming a seed", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(images: &[&str], whole: bool) -> Wanted {
        let images = images.iter().map(|image| (*image).to_owned()).collect();
        Wanted { images, whole, bytes: 1 }
    }

    #[test]
    fn a_key_is_of_the_range_image_and_of_what_is_wanted() {
        let key = |images: &[&str], image: &str| wanted(images, true).key(image).unwrap();
        let first = key(&["a:1@sha256:1", "b:1@sha256:2"], "sha256:r");
        assert_eq!(first, key(&["a:1@sha256:1", "b:1@sha256:2"], "sha256:r"));
        assert_ne!(first, key(&["a:1@sha256:1", "b:1@sha256:2"], "sha256:s"));
        assert_ne!(first, key(&["a:1@sha256:1"], "sha256:r"));
        assert_ne!(first, key(&["a:1@sha256:1", "b:1@sha256:3"], "sha256:r"));
        assert_eq!(wanted(&["a:1@sha256:1"], false).key("sha256:r"), None);
        let name = seed_name(&first).unwrap();
        assert!(name.as_str().starts_with(&format!("seed-{}-", &first[..12])), "{name}");
    }
}
