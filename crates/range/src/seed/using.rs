//! Users of a seed at the moment, by its lock.
//!
//! ```text
//!   held by one alone   it is made, or removed
//!   shared              calls copy it
//!   free, no card       its making was cut off
//! ```
//! Under the lock the card is looked for again: the list may be out of date. Before a seed is made
//! nothing of it exists. So its maker first takes the turn of its key, a lock of its own, and the next
//! one looks again when that is free.

use std::time::Duration;

use control::RangeName;

use super::register::{cards, short};
use crate::error::RangeError;
use crate::lock::Held;
use crate::project::Project;

/// The pause between two looks whether another call is done with a seed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The note about a wait that lasts.
const WAITING: &str = "waits for another call, which makes the same seed";

/// A wait for another call; it is reported when the first look again found that call still busy.
pub(super) struct Wait<'a> {
    looks: u32,
    tell: &'a (dyn Fn(String) + Sync),
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

/// A seed that had no card when it was listed.
pub(super) enum Unfinished {
    /// Another call makes it, or has just done so, or removes it: look again.
    Open,
    /// Other calls still copy it, and found that it is unusable.
    Spoiled,
    /// Nobody makes it any more.
    CutOff(Held),
}

/// Waits until no other call makes a seed of this key, and keeps others from it.
pub(super) async fn turn_to_make(
    project: &Project,
    key: &str,
    tell: &(dyn Fn(String) + Sync),
) -> Result<Held, RangeError> {
    let name = format!("{}-seed-{}-turn", project.owned.project(), short(key));
    let mut wait = Wait::new(tell);
    loop {
        match project.locks.hold(&name)? {
            Some(held) => return Ok(held),
            None => wait.look_again().await,
        }
    }
}

/// The lock of a seed, for one call alone; `None` while others have it.
pub(super) fn hold(project: &Project, name: &RangeName) -> Result<Option<Held>, RangeError> {
    project.locks.hold(&lock_of(project, name))
}

/// Keeps a whole seed from being removed; `None` where that has happened or happens just now.
pub(super) async fn use_seed(
    project: &Project,
    name: &RangeName,
) -> Result<Option<Held>, RangeError> {
    let Some(held) = project.locks.share(&lock_of(project, name))? else { return Ok(None) };
    let has_card = !cards(project, name).await?.is_empty();
    Ok(has_card.then_some(held))
}

/// Inspects a seed that had no card.
pub(super) async fn unfinished(
    project: &Project,
    name: &RangeName,
) -> Result<Unfinished, RangeError> {
    let Some(held) = hold(project, name)? else {
        let shared = project.locks.share(&lock_of(project, name))?.is_some();
        return Ok(if shared { Unfinished::Spoiled } else { Unfinished::Open });
    };
    let has_card = !cards(project, name).await?.is_empty();
    Ok(if has_card { Unfinished::Open } else { Unfinished::CutOff(held) })
}

/// The lock of a seed; the range that it is made as has one of another name.
fn lock_of(project: &Project, name: &RangeName) -> String {
    format!("{}.seed", project.owned.names(name).container)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_lasts_is_reported_once() {
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
