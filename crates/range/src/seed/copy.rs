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
use crate::own::stubbornly;
use crate::ranges::Ranges;

/// What is being done, for errors.
const COPYING: &str = "copying a seed";

/// What copying a seed came to, where nothing failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cloned {
    /// The volumes are whole.
    Whole,
    /// There are no volumes, and the seed is not to be used again, for this reason.
    Unusable(String),
    /// There are no volumes, and the seed may be as good as it was, for this reason.
    Failed(String),
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
        loop {
            journey.enter(RangeStage::Clone);
            match self.clone_seed(recipe, &range, &seed, given).await? {
                Cloned::Whole => return Ok(true),
                Cloned::Unusable(reason) => {
                    journey.note(format!("seed {} is not used and removed: {reason}", seed.name));
                }
                Cloned::Failed(reason) => {
                    journey.note(format!("goes without a seed: {reason}"));
                    return Ok(false);
                }
            }
            // Making another takes a place of its own.
            journey.place.take();
            let next = self.seed_of(recipe, &range, Some(&seed), call).await?;
            journey.place = call.places.start().await;
            match next {
                Some(next) => seed = next,
                None => return Ok(false),
            }
        }
    }

    /// Copies a seed into fresh volumes of a range. While they are half made an empty volume says so,
    /// which goes last; where the copy comes to nothing, they go before it.
    ///
    /// # Errors
    /// When a volume is somebody else's, and when one that is half made could not be removed: there
    /// must be no range over it.
    pub(crate) async fn clone_seed(
        &self,
        recipe: &Recipe<'_>,
        range: &RangeName,
        seed: &Seed,
        given: &Labels,
    ) -> Result<Cloned, RangeError> {
        let project = &self.settings.project;
        let (from, to) = (Names::of(project, &seed.name), Names::of(project, range));
        let all = labels(project, range, given);
        let half = to.half();
        let volumes = [half.as_str(), &to.data_volume, &to.agent_volume];
        for volume in volumes {
            self.own_volume(range, volume).await?;
        }
        let arguments = ["clone", "--from", ROOT, "--to", TARGET, "--key", &seed.key];
        let job = Job {
            range,
            name: &to.cloning(),
            action: COPYING,
            labels: all.clone(),
            arguments: arguments.map(str::to_owned).into(),
            volumes: vec![
                (from.data_volume, "/seed/data", true),
                (from.agent_volume, "/seed/agent", true),
                (to.data_volume.clone(), "/clone/data", false),
                (to.agent_volume.clone(), "/clone/agent", false),
            ],
        };
        let work = async {
            for volume in volumes {
                self.engine.create_volume(volume, &all).await?;
            }
            self.work(recipe, job).await
        };
        let failed = match work.await {
            Ok(Ended::Cloned { bytes, reflinked, seconds }) => {
                tracing::info!(%range, seed = %seed.name, bytes, reflinked, seconds, "copied a seed");
                stubbornly(async || {
                    self.remove_own_container(range, &to.cloning()).await?;
                    self.remove_own_volume(range, &half).await
                })
                .await?;
                return Ok(Cloned::Whole);
            }
            Ok(Ended::Unusable { reason }) => Cloned::Unusable(reason),
            Ok(other) => Cloned::Failed(RangeError::seed(COPYING, format!("{other:?}")).explain()),
            Err(error) => Cloned::Failed(error.explain()),
        };
        self.drop_half_clone(range).await?;
        Ok(failed)
    }

    /// Removes the volumes of a range that were to become a copy of a seed.
    pub(crate) async fn drop_half_clone(&self, range: &RangeName) -> Result<(), RangeError> {
        let names = Names::of(&self.settings.project, range);
        stubbornly(async || {
            self.remove_own_container(range, &names.cloning()).await?;
            for volume in names.volumes() {
                self.remove_own_volume(range, volume).await?;
            }
            self.remove_own_volume(range, &names.half()).await.map(|_| ())
        })
        .await
    }

    /// An error while the volumes of a range are half a copy of a seed.
    pub(crate) async fn is_no_half(&self, range: &RangeName) -> Result<(), RangeError> {
        let half = Names::of(&self.settings.project, range).half();
        match self.own_volume(range, &half).await? {
            None => Ok(()),
            Some(_) => Err(RangeError::seed(
                COPYING,
                "its volumes are half made; take it down, then bring it up again",
            )),
        }
    }
}
