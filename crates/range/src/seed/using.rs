//! Who has to do with a seed at the moment, as the lock on its folder beside the host agent tells.
//!
//! ```text
//!   held by one alone   it is made, or removed
//!   shared              calls copy it
//!   free, no card       its making was cut off
//! ```
//! Under the lock the card is looked for again: what was listed before may be past.

use proto::identity::RangeName;

use super::register::SeedStatus;
use crate::error::RangeError;
use crate::lock::{self, Held};
use crate::ranges::Ranges;

/// What becomes of a seed that had no card when it was listed.
enum Future {
    /// Somebody makes it, or has just done so, or removes it: it is looked at again.
    Open,
    /// Somebody still copies it, and found out that it is not to be used.
    Spoiled,
    /// Nobody makes it any more.
    CutOff(Held),
}

impl Ranges {
    /// Keeps a whole seed from being removed; `None` where that has happened or does just now.
    pub(super) async fn use_seed(&self, name: &RangeName) -> Result<Option<Held>, RangeError> {
        let folder = self.host_agent.add(name).await?.own();
        let Some(held) = lock::share(&folder)? else { return Ok(None) };
        if self.cards(name).await?.is_empty() {
            self.let_go(name, held).await;
            return Ok(None);
        }
        Ok(Some(held))
    }

    /// Ends the use of a seed; the last one leaves nothing of it at the host agent.
    pub(super) async fn let_go(&self, name: &RangeName, held: Held) {
        let Some(_alone) = held.alone() else { return };
        if let Err(error) = self.host_agent.remove(name).await {
            tracing::warn!(seed = %name, error = error.explain(), "the host agent still knows it");
        }
    }

    /// Removes what of these seeds nobody makes any more, and tells of each. Answers whether one with
    /// `key` is being made.
    pub(super) async fn clear_cut_off(
        &self,
        seeds: &[SeedStatus],
        key: &str,
        tell: &(dyn Fn(String) + Sync),
    ) -> Result<bool, RangeError> {
        let mut in_the_making = false;
        for seed in seeds.iter().filter(|seed| seed.card.is_none()) {
            match self.future(&seed.name).await? {
                Future::Open => in_the_making |= seed.key == key,
                Future::Spoiled => {}
                Future::CutOff(held) => {
                    let text = "the making of a seed was cut off: what there is of it is removed";
                    tell(format!("{text} ({})", seed.name));
                    self.discard(&seed.name, held).await;
                }
            }
        }
        Ok(in_the_making)
    }

    /// The lock on a seed without a card whose making was cut off; `None` for any other.
    pub(super) async fn cut_off(&self, name: &RangeName) -> Result<Option<Held>, RangeError> {
        Ok(match self.future(name).await? {
            Future::CutOff(held) => Some(held),
            Future::Open | Future::Spoiled => None,
        })
    }

    async fn future(&self, name: &RangeName) -> Result<Future, RangeError> {
        let folder = self.host_agent.add(name).await?.own();
        let Some(held) = lock::hold(&folder)? else {
            let shared = lock::share(&folder)?.is_some();
            return Ok(if shared { Future::Spoiled } else { Future::Open });
        };
        if self.cards(name).await?.is_empty() {
            return Ok(Future::CutOff(held));
        }
        self.let_go(name, held).await;
        Ok(Future::Open)
    }
}
