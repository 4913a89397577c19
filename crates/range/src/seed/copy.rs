//! A seed copied into the volumes of a new range, or the plain way where that comes to nothing.

use proto::identity::RangeName;

use super::job::{Ended, Job};
use super::{ROOT, Seed, TARGET};
use crate::call::{Call, Recipe};
use crate::container::{Names, labels};
use crate::error::RangeError;
use crate::event::RangeStage;
use crate::journey::Journey;
use crate::labels::Labels;
use crate::ranges::Ranges;

/// How many seeds a range tries, of which all but the first were made for this call.
const TRIES: usize = 2;

/// What copying a seed came to, where nothing failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cloned {
    /// The volumes are whole.
    Whole,
    /// There are no volumes, and the seed is not to be used again, for this reason.
    Unusable(String),
}

impl Ranges {
    /// The seed that a range is to begin with; `None` where it is not new, or goes the plain way.
    pub(crate) async fn seed_of(
        &self,
        recipe: &Recipe<'_>,
        range: &RangeName,
        spoiled: Option<&Seed>,
        call: &Call<'_>,
    ) -> Result<Option<Seed>, RangeError> {
        match call.seeding {
            Some(seeding) if call.there.is_cold(&self.settings.project, range) => {
                self.seed(recipe, seeding, spoiled, range, call).await
            }
            _ => Ok(None),
        }
    }

    /// Copies a seed into the volumes of a new range, and says whether they have it: a seed that
    /// cannot be used is replaced once, and a copy that fails leaves the plain way.
    pub(crate) async fn begin_with(
        &self,
        mut seed: Seed,
        recipe: &Recipe<'_>,
        journey: &mut Journey,
        given: &Labels,
        call: &Call<'_>,
    ) -> Result<bool, RangeError> {
        let range = journey.range.clone();
        for _ in 0..TRIES {
            journey.enter(RangeStage::Clone);
            match self.clone_seed(recipe, &range, &seed, given).await {
                Ok(Cloned::Whole) => return Ok(true),
                Ok(Cloned::Unusable(reason)) => {
                    journey.note(format!("seed {} is not used and removed: {reason}", seed.name));
                }
                Err(error) => {
                    journey.note(format!("goes without a seed: {}", error.explain()));
                    return Ok(false);
                }
            }
            // Making another takes a place of its own.
            journey.place.take();
            let next = self.seed_of(recipe, &range, Some(&seed), call).await?;
            journey.place = call.places.start().await;
            match next {
                Some(next) => seed = next,
                None => break,
            }
        }
        Ok(false)
    }

    /// Copies a seed into fresh volumes of a range. While they are half made an empty volume says so,
    /// which goes last; where the copy comes to nothing, they go before it.
    pub(crate) async fn clone_seed(
        &self,
        recipe: &Recipe<'_>,
        range: &RangeName,
        seed: &Seed,
        given: &Labels,
    ) -> Result<Cloned, RangeError> {
        const COPYING: &str = "copying a seed";
        let project = &self.settings.project;
        let (from, to) = (Names::of(project, &seed.name), Names::of(project, range));
        let all = labels(project, range, given);
        self.engine.create_volume(&to.half(), &all).await?;
        for volume in to.volumes() {
            self.engine.create_volume(volume, &all).await?;
        }
        let arguments = ["clone", "--from", ROOT, "--to", TARGET, "--key", &seed.key];
        let job = Job {
            name: &to.cloning(),
            action: COPYING,
            labels: all,
            arguments: arguments.map(str::to_owned).into(),
            volumes: vec![
                (from.data_volume, "/seed/data", true),
                (from.agent_volume, "/seed/agent", true),
                (to.data_volume.clone(), "/clone/data", false),
                (to.agent_volume.clone(), "/clone/agent", false),
            ],
        };
        match self.work(recipe, job).await {
            Ok(Ended::Cloned { bytes, reflinked, seconds }) => {
                tracing::info!(%range, seed = %seed.name, bytes, reflinked, seconds, "copied a seed");
                self.engine.remove_container(&to.cloning()).await?;
                self.engine.remove_volume(&to.half()).await?;
                Ok(Cloned::Whole)
            }
            other => {
                self.drop_half_clone(range).await?;
                match other? {
                    Ended::Unusable { reason } => Ok(Cloned::Unusable(reason)),
                    other => Err(RangeError::seed(COPYING, format!("{other:?}"))),
                }
            }
        }
    }

    /// Removes the volumes of a range that were to become a copy of a seed.
    pub(crate) async fn drop_half_clone(&self, range: &RangeName) -> Result<(), RangeError> {
        let names = Names::of(&self.settings.project, range);
        self.engine.remove_container(&names.cloning()).await?;
        for volume in names.volumes() {
            self.engine.remove_volume(volume).await?;
        }
        Ok(self.engine.remove_volume(&names.half()).await?)
    }
}
