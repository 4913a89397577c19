//! Seeds go: beyond their limit, with all ranges, and where they are not to be used.

use proto::identity::RangeName;

use super::register;
use crate::container::Names;
use crate::error::RangeError;
use crate::lock::{self, Held};
use crate::own::stubbornly;
use crate::ranges::Ranges;
use crate::status::Removal;

/// What is being done, for errors.
const REMOVING: &str = "removing a seed";

impl Ranges {
    /// Removes seeds beyond `limit` bytes, those used longest ago first; one that is copied stays.
    /// What could not be removed is looked at again the next time.
    pub(crate) async fn keep_seeds_within(&self, limit: u64) {
        let Ok(seeds) = self.seeds().await else { return };
        for seed in register::beyond(&seeds, limit) {
            match self.remove_seed(&seed.name).await {
                Ok(()) => tracing::info!(seed = %seed.name, limit, "removed: seeds took too much"),
                Err(error) => {
                    tracing::info!(seed = %seed.name, error = error.explain(), "it is not removed");
                }
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
        let mut removals = Vec::new();
        let mut done = |range: &RangeName, result: Result<(), RangeError>| {
            let error = result.err().map(|error| error.explain());
            removals.push(Removal { range: range.clone(), found: true, error });
        };
        for seed in register::beyond(&seeds, limit) {
            done(&seed.name, self.remove_seed(&seed.name).await);
        }
        for seed in seeds.into_iter().filter(|seed| seed.card.is_none()) {
            if let Some(held) = self.cut_off(&seed.name).await? {
                done(&seed.name, self.remove_held(&seed.name, held).await);
            }
        }
        Ok(removals)
    }

    /// Removes a seed that turned out not to be usable, as far as it can be: nobody begins with it any
    /// more, also where others still copy it.
    pub(super) async fn discard_spoiled(&self, name: &RangeName) {
        let removed = async {
            self.remove_cards(name).await?;
            self.remove_seed(name).await
        };
        told(name, removed.await);
    }

    /// Removes a seed that one has alone as far as it can be, for whoever has another way to go on.
    pub(super) async fn discard(&self, name: &RangeName, held: Held) {
        told(name, self.remove_held(name, held).await);
    }

    async fn remove_seed(&self, name: &RangeName) -> Result<(), RangeError> {
        let folder = self.host_agent.add(name).await?.own();
        match lock::hold(&folder)? {
            Some(held) => self.remove_held(name, held).await,
            None => Err(RangeError::seed(REMOVING, "a call makes or copies it at the moment")),
        }
    }

    /// Removes all there is of a seed, also where a container of it is only just on its way out.
    async fn remove_held(&self, name: &RangeName, _held: Held) -> Result<(), RangeError> {
        stubbornly(|| self.try_remove_seed(name)).await
    }

    /// Nothing of it while a copy is made that a call left behind; else its card first, so that nobody
    /// begins with it any more.
    async fn try_remove_seed(&self, name: &RangeName) -> Result<(), RangeError> {
        let names = Names::of(&self.settings.project, name);
        let own = [names.container.clone(), names.sealing()];
        for volume in names.volumes() {
            let users = self.engine.users_of_volume(volume).await?;
            if let Some(user) = users.iter().find(|user| !own.contains(&user.name)) {
                let reason = format!("container {} has it mounted", user.name);
                return Err(RangeError::seed(REMOVING, reason));
            }
        }
        self.remove_cards(name).await?;
        for container in &own {
            self.remove_own_container(name, container).await?;
        }
        for volume in names.volumes() {
            self.remove_own_volume(name, volume).await?;
        }
        self.host_agent.remove(name).await.map(|_| ())
    }

    async fn remove_cards(&self, name: &RangeName) -> Result<(), RangeError> {
        for card in self.cards(name).await? {
            self.engine.remove_volume(&card).await?;
        }
        Ok(())
    }
}

fn told(name: &RangeName, removed: Result<(), RangeError>) {
    if let Err(error) = removed {
        tracing::warn!(seed = %name, error = error.explain(), "it is not removed whole");
    }
}
