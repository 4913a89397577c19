//! Who has to do with a seed at the moment, as the lock on its folder beside the host agent tells.
//!
//! ```text
//!   held by one alone   it is made, or removed
//!   shared              calls copy it
//!   free, no card       its making was cut off
//! ```
//! Under the lock the card is looked for again: what was listed before may be past. Before a seed is
//! made there is nothing to see of it: so whoever makes one first takes the turn of its key, a lock of
//! the same kind, and the next looks again when that is free.

use std::time::Duration;

use proto::identity::RangeName;

use super::SHORT_KEY;
use super::register::SeedStatus;
use crate::error::RangeError;
use crate::lock::{self, Held};
use crate::ranges::Ranges;

/// How often it is looked whether another call is done with a seed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Told of a wait that lasts.
const WAITING: &str = "waits for another call, which makes the same seed";

/// A wait for another call, told of when the first look again found it still busy.
pub(super) struct Wait<'a> {
    looks: u32,
    tell: &'a (dyn Fn(String) + Sync),
}

/// The turn to make a seed, until it is [let go](Ranges::let_go).
pub(super) struct Turn {
    /// The folder beside the host agent that is locked.
    pub(super) name: RangeName,
    pub(super) held: Held,
}

impl<'a> Wait<'a> {
    pub(super) fn new(tell: &'a (dyn Fn(String) + Sync)) -> Self {
        Self { looks: 0, tell }
    }

    /// Returns when it is time to look again.
    pub(super) async fn look_again(&mut self) {
        if self.looks == 1 {
            (self.tell)(WAITING.to_owned());
        }
        self.looks += 1;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

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
    /// Waits until no other call makes a seed of this key; one that was killed makes none any more.
    pub(super) async fn turn_to_make(
        &self,
        key: &str,
        tell: &(dyn Fn(String) + Sync),
    ) -> Result<Turn, RangeError> {
        let name = turn_name(key)?;
        let mut wait = Wait::new(tell);
        loop {
            let folder = self.host_agent.add(&name).await?.own();
            match lock::hold(&folder) {
                Ok(Some(held)) => return Ok(Turn { name, held }),
                Err(error) if folder.exists() => return Err(error),
                // Held by another, or just let go, and its folder removed with that.
                Ok(None) | Err(_) => wait.look_again().await,
            }
        }
    }

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

/// Where the turn to make a seed of this key is kept; no seed has such a name.
fn turn_name(key: &str) -> Result<RangeName, RangeError> {
    let name = format!("seed-{}-turn", &key[..SHORT_KEY.min(key.len())]);
    name.parse().map_err(|error| RangeError::seed("naming the turn to make a seed", error))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_turn_belongs_to_a_key() {
        let name = |key: &str| turn_name(key).unwrap().to_string();
        assert_eq!(name(&"ab".repeat(32)), "seed-abababababab-turn");
        assert_ne!(name("a"), name("b"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_lasts_is_told_of_once() {
        let told = Mutex::new(Vec::new());
        let tell = |text| told.lock().unwrap().push(text);
        let mut wait = Wait::new(&tell);
        for expected in [0, 1, 1, 1] {
            wait.look_again().await;
            assert_eq!(told.lock().unwrap().len(), expected);
        }
        assert_eq!(*told.lock().unwrap(), [WAITING]);
    }
}
