//! What all ranges of one call share: what they are made from, and what there is already.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use engine::docker::{ImageSettings, Powers};
use proto::identity::RangeName;
use transfer::Digest;

use crate::container::{Names, PROJECT};
use crate::error::RangeError;
use crate::event::{RangeEvent, RangeEventKind, RangeObserver};
use crate::isolation::Isolation;
use crate::places::Places;
use crate::ranges::Ranges;
use crate::room::Machine;
use crate::seed::{SEED, Seeding, Wanted};
use crate::settings::UpRequest;

/// What all ranges of one call are made from.
#[derive(Clone)]
pub(crate) struct Recipe<'a> {
    pub(crate) request: &'a UpRequest,
    pub(crate) image: ImageSettings,
    pub(crate) isolation: Isolation,
    pub(crate) agent: Digest,
    /// Labels beside those of any range.
    pub(crate) more: BTreeMap<String, String>,
}

impl Recipe<'_> {
    /// Whether a seed is made, and not a range of anybody's.
    pub(crate) fn is_seed(&self) -> bool {
        self.more.contains_key(SEED)
    }

    pub(crate) fn powers(&self) -> Powers {
        self.isolation.powers()
    }
}

/// What all ranges of one call share.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) observer: &'a Arc<dyn RangeObserver>,
    pub(crate) places: &'a Places,
    /// Where new ranges begin with a copy of a seed; absent where they do not.
    pub(crate) seeding: Option<&'a Seeding>,
    pub(crate) there: &'a There,
}

impl Call<'_> {
    /// Tells that something went another way, and was got over.
    pub(crate) fn note(&self, range: &RangeName, text: String) {
        note(self.observer, range, text);
    }
}

/// The same, where no call has begun.
pub(crate) fn note(observer: &Arc<dyn RangeObserver>, range: &RangeName, text: String) {
    tracing::warn!(%range, "{text}");
    let kind = RangeEventKind::Noted(text);
    observer.observe(RangeEvent { range: range.clone(), kind });
}

/// Names of containers and volumes of the project.
pub(crate) struct There(HashSet<String>);

impl There {
    /// Whether there is nothing of a range that it could begin with.
    pub(crate) fn is_cold(&self, project: &str, range: &RangeName) -> bool {
        let names = Names::of(project, range);
        let has = |name: &str| self.0.contains(name);
        // Volumes that were to become a copy of a seed, when that was cut off, are as none.
        !has(&names.container) && (!has(&names.data_volume) || has(&names.half()))
    }
}

impl Ranges {
    /// This machine, as far as it limits how many ranges there can be.
    pub(crate) async fn machine(&self) -> Result<Machine, RangeError> {
        Ok(Machine::look(self.engine.data_root().await?.as_deref()))
    }

    /// An error when `cold` new ranges have no room: nothing was made until then.
    pub(crate) async fn check_room(
        &self,
        machine: &Machine,
        wanted: &Wanted,
        seeding: Option<&Seeding>,
        cold: usize,
    ) -> Result<(), RangeError> {
        machine.check_memory(cold)?;
        let copies = match seeding {
            None => cold,
            Some(seeding) => {
                let there = self.is_there(seeding).await?;
                let made = usize::from(seeding.make && !there);
                let cloned = there || seeding.make;
                // A seed's own size is known, and looked at, once it is there.
                if cloned && machine.shares() { made } else { cold + made }
            }
        };
        machine.check_disk(cold, copies, wanted.bytes)
    }

    /// What there is of the project's ranges.
    pub(crate) async fn there(&self) -> Result<There, RangeError> {
        let label = format!("{PROJECT}={}", self.settings.project);
        let containers = self.engine.containers(&label).await?;
        let volumes = self.engine.volumes(&label).await?;
        let names = containers.into_iter().map(|container| container.name);
        Ok(There(names.chain(volumes.into_iter().map(|volume| volume.name)).collect()))
    }

    /// What all ranges of a call are made from.
    pub(crate) async fn recipe<'a>(
        &self,
        request: &'a UpRequest,
    ) -> Result<Recipe<'a>, RangeError> {
        let image = self.engine.image_settings(&request.range_image).await?;
        let image =
            image.ok_or_else(|| RangeError::NoRangeImage { image: request.range_image.clone() })?;
        let path = self.settings.agent_binary.clone();
        let unread =
            |source| RangeError::AgentBinary { path: self.settings.agent_binary.clone(), source };
        let agent = tokio::fs::read(path).await.map_err(unread)?;
        let agent = Digest::of(&agent);
        Ok(Recipe { request, image, isolation: self.isolation()?, agent, more: BTreeMap::new() })
    }
}
