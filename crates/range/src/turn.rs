//! A new range is made by one call at a time: what is there is looked at only when it is one's turn.

use std::time::Duration;

use engine::docker::ContainerState;
use proto::identity::RangeName;

use crate::call::{Call, Recipe};
use crate::container::Names;
use crate::error::RangeError;
use crate::journey::Journey;
use crate::lock::{self, Held};
use crate::ranges::Ranges;
use crate::up::agree;

/// How often it is looked whether another call is done.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What there is of a range when its turn has come.
pub(crate) struct Turn {
    /// Its container.
    pub(crate) present: Option<ContainerState>,
    /// Nobody else makes it while this is there; absent where it needs no making.
    pub(crate) held: Option<Held>,
}

impl Ranges {
    /// Waits until no other call makes the range, unless it is there already. One that waits holds no
    /// place.
    pub(crate) async fn turn(
        &self,
        recipe: &Recipe<'_>,
        journey: &mut Journey,
        call: &Call<'_>,
    ) -> Result<Turn, RangeError> {
        let range = journey.range.clone();
        // Before anything is written down: what is not ours to change keeps what it should have.
        let present = self.present(recipe, &range).await?;
        // Who makes a seed holds the lock on its folder all the time.
        if present.is_some() || recipe.is_seed() {
            return Ok(Turn { present, held: None });
        }
        let held = loop {
            let folder = self.host_agent.add(&range).await?.own();
            if let Some(held) = lock::hold(&folder)? {
                break held;
            }
            journey.place.take();
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        if journey.place.is_none() {
            journey.place = call.places.start().await;
        }
        Ok(Turn { present: self.present(recipe, &range).await?, held: Some(held) })
    }

    /// Whether there is nothing of a range; what was cut off while it was to become a copy of a seed
    /// is removed. For whoever has the turn.
    pub(crate) async fn is_new(&self, range: &RangeName) -> Result<bool, RangeError> {
        let names = Names::of(&self.settings.project, range);
        if self.own_volume(range, &names.half()).await?.is_some() {
            self.drop_half_clone(range).await?;
        }
        Ok(self.own_volume(range, &names.data_volume).await?.is_none())
    }

    /// The container of a range, if there is one and it is what is asked for.
    async fn present(
        &self,
        recipe: &Recipe<'_>,
        range: &RangeName,
    ) -> Result<Option<ContainerState>, RangeError> {
        let project = &self.settings.project;
        let present = self.engine.container(&Names::of(project, range).container).await?;
        if let Some(present) = &present {
            agree(project, range, &recipe.request.range_image, present)?;
        }
        Ok(present)
    }
}
