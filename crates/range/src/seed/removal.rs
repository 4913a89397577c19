//! Seeds go: beyond their limit, with all ranges, and where they are not to be used.

use proto::identity::RangeName;

use super::register;
use crate::container::Names;
use crate::error::RangeError;
use crate::own::stubbornly;
use crate::ranges::Ranges;
use crate::status::Removal;

impl Ranges {
    /// Removes seeds beyond `limit` bytes, those used longest ago first; one that a container uses
    /// stays, as does `kept`. What could not be removed is looked at again the next time.
    pub(crate) async fn keep_seeds_within(&self, limit: u64, kept: Option<&RangeName>) {
        let Ok(seeds) = self.seeds().await else { return };
        for seed in register::beyond(&seeds, limit) {
            if Some(&seed.name) != kept {
                tracing::info!(seed = %seed.name, limit, "seeds take too much room: removed");
                self.discard(&seed.name).await;
            }
        }
    }

    /// Removes seeds until the others take at most `limit` bytes, and what of seeds nobody makes any
    /// more; 0 removes all. One that is being made, or copied at the moment, stays.
    ///
    /// # Errors
    /// When they cannot be listed. What goes wrong with one is in its [`Removal`].
    pub async fn prune_seeds(&self, limit: u64) -> Result<Vec<Removal>, RangeError> {
        let seeds = self.seeds().await?;
        let mut going = register::beyond(&seeds, limit);
        for seed in seeds.into_iter().filter(|seed| seed.card.is_none()) {
            if !self.is_being_made(&seed.name).await? {
                going.push(seed);
            }
        }
        let mut removals = Vec::new();
        for seed in going {
            let error = self.remove_seed(&seed.name).await.err().map(|error| error.explain());
            removals.push(Removal { range: seed.name, found: true, error });
        }
        Ok(removals)
    }

    /// Removes a seed as far as it can be, for whoever has another way to go on.
    pub(super) async fn discard(&self, name: &RangeName) {
        if let Err(error) = self.remove_seed(name).await {
            tracing::warn!(seed = %name, error = error.explain(), "it is not removed whole");
        }
    }

    /// Removes all there is of a seed, also where a container of it is only just on its way out.
    async fn remove_seed(&self, name: &RangeName) -> Result<(), RangeError> {
        stubbornly(|| self.try_remove_seed(name)).await
    }

    /// Its card first, so that nobody begins with it any more.
    async fn try_remove_seed(&self, name: &RangeName) -> Result<(), RangeError> {
        let names = Names::of(&self.settings.project, name);
        for card in self.cards(name).await? {
            self.engine.remove_volume(&card).await?;
        }
        for container in [&names.container, &names.sealing()] {
            self.remove_own_container(name, container).await?;
        }
        for volume in names.volumes() {
            self.remove_own_volume(name, volume).await?;
        }
        self.host_agent.remove(name).await.map(|_| ())
    }
}
